//! A simulated CockroachDB Cloud in this process and the real daemon in front of its two clusters, in small times.

use super::daemon::Daemon;
use super::eventually::{SOON, eventually};
use super::plan::DaemonPlan;
use pgpivot::sim::Side;
use pgpivot::sim::cloud::{Auth, Cloud, Pace, Settings};
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Every name and number of a stage.
#[derive(Debug)]
pub struct Clouds {
    /// The clusters and the API.
    pub cloud: Cloud,
}

/// The names by which the daemon knows the clusters.
pub const EAST: &str = "east";
pub const WEST: &str = "west";

impl Clouds {
    /// East serves, west follows it with little lag.
    pub async fn start() -> Self {
        Self::with(Auth::Trust).await
    }

    /// The same, and who may log in.
    pub async fn with(auth: Auth) -> Self {
        let ms = Duration::from_millis;
        let pace = Pace {
            starting: ms(500),
            scan: ms(200),
            step: ms(200),
            lag: ms(100),
            failover: ms(700),
            retention: Duration::from_secs(3600),
        };
        let cloud = Cloud::start(Settings { pace, auth, rate_limit: None, ..Settings::default() }).await.unwrap();
        Self { cloud }
    }

    /// A daemon in front of them, to say what is special.
    pub fn plan(&self) -> DaemonPlan {
        DaemonPlan::clusters(
            &self.cloud.api_url(),
            self.cloud.secret().expose(),
            [EAST, WEST].map(|name| {
                let side = side(name);
                (name, self.cloud.cluster_id(side), self.cloud.sql_address(side))
            }),
        )
    }

    /// A daemon in front of them that is open and could fail over.
    pub async fn daemon(&self) -> Daemon {
        self.plan().start().await
    }

    /// The stream that leads from east to west.
    pub fn stream(&self) -> &str {
        self.cloud.stream_id().unwrap()
    }

    /// Kills a cluster: its port refuses.
    pub async fn crash(&self, name: &str) {
        self.cloud.crash(side(name)).await.unwrap();
    }
}

/// Which one is meant.
pub fn side(name: &str) -> Side {
    match name {
        EAST => Side::East,
        WEST => Side::West,
        other => panic!("no cluster {other}"),
    }
}

/// A session through the daemon.
pub async fn connect(daemon: &Daemon) -> Client {
    try_connect(daemon).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log_tail()))
}

/// The same, or why not.
pub async fn try_connect(daemon: &Daemon) -> Result<Client, String> {
    let at = daemon.listen;
    let text = format!("host={} port={} user=app dbname=defaultdb", at.ip(), at.port());
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    Ok(client)
}

/// Commits one row; `true` = it was acknowledged.
pub async fn insert(client: &Client, id: i64) -> bool {
    let sql = format!("INSERT INTO commits (id) VALUES ({id})");
    matches!(timeout(SOON, client.batch_execute(&sql)).await, Ok(Ok(())))
}

/// The ids that a session sees.
pub async fn ids(client: &Client) -> Vec<i64> {
    let rows = client.simple_query("SELECT id FROM commits ORDER BY id").await.unwrap();
    let id = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0)?.parse().unwrap()),
        _ => None,
    };
    rows.iter().filter_map(id).collect()
}

/// Waits until a session does not get an answer any more.
pub async fn until_cut(client: &Client) {
    eventually("the old side's session is cut", SOON, async || match client.is_closed() {
        true => Ok(()),
        false => Err("it is open".into()),
    })
    .await;
}
