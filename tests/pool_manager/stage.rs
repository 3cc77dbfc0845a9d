//! A primary, two standbys and the pools to them.

use std::time::Duration;

use pgpivot::client::pool_manager::{PoolBuilder, PoolManager, Route};
use sqlx::Row;

use crate::cluster::Cluster;
use crate::eventually::{SOON, eventually};
use crate::pair::Pair;

/// `east` starts as the primary, `west` and `north` follow it.
#[derive(Debug)]
pub struct Three {
    pub pair: Pair,
    pub north: Cluster,
}

impl Three {
    pub async fn start() -> Self {
        let pair = Pair::start().await;
        let north = pair.add_standby("north").await;
        pair.east.run("CREATE TABLE kept (id int PRIMARY KEY, value int); ALTER TABLE kept OWNER TO app").await;
        let three = Self { pair, north };
        three.follow().await;
        three
    }

    pub fn east(&self) -> &Cluster {
        &self.pair.east
    }

    pub fn west(&self) -> &Cluster {
        &self.pair.west
    }

    /// Both standbys have replayed what is there now.
    pub async fn follow(&self) {
        self.east().is_followed_by(self.west()).await;
        self.east().is_followed_by(&self.north).await;
    }

    /// Looks often, so that no test waits for ten seconds.
    pub fn plan(&self) -> PoolBuilder {
        let builder = patient(PoolManager::builder(url(self.east())));
        builder.replica(url(self.west())).replica(url(&self.north))
    }
}

/// For what may take long on a busy machine.
pub fn patient(builder: PoolBuilder) -> PoolBuilder {
    let builder = builder.acquire_timeout(SOON).health_check_interval(Duration::from_millis(100));
    builder.reconnect(Duration::from_millis(50), Duration::from_millis(100), 1000)
}

pub fn url(cluster: &Cluster) -> String {
    url_to(&cluster.address().to_string())
}

pub fn url_to(address: &str) -> String {
    format!("postgres://app:app@{address}/app?sslmode=disable")
}

/// The port of the server that answers.
pub async fn who(route: Route<'_>) -> u16 {
    let row = sqlx::query("SELECT inet_server_port()").fetch_one(route).await.unwrap();
    u16::try_from(row.get::<i32, _>(0)).unwrap()
}

pub async fn until(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    eventually(what, SOON, async || holds()).await;
}
