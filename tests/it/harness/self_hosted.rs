//! Two simulated self-hosted CockroachDB clusters joined by physical replication, the daemon in front of them, and an
//! application that writes. The simulation is the crate's own; it proves nothing about CockroachDB itself.

use super::daemon::Daemon;
use super::eventually::{SOON, eventually};
use super::plan::DaemonPlan;
use pgpivot::sim::{Cloud, Side, cloud};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// How often the simulated standby moves its replicated time; the daemon is told one second.
const STEP: Duration = Duration::from_millis(250);

/// Two clusters, `east` replicated to `west`.
pub async fn clusters() -> Cloud {
    clusters_with(cloud::Auth::Trust).await
}

/// The same, and who may log in.
pub async fn clusters_with(auth: cloud::Auth) -> Cloud {
    let second = Duration::from_secs(1);
    let pace = cloud::Pace {
        starting: Duration::ZERO,
        scan: Duration::ZERO,
        step: STEP,
        lag: Duration::from_millis(100),
        failover: second,
        retention: second * 3600,
    };
    let settings = cloud::Settings { mode: cloud::Mode::SelfHosted, pace, auth, ..cloud::Settings::default() };
    Cloud::start(settings).await.unwrap()
}

impl DaemonPlan {
    /// Self-hosted clusters with fast probes and nothing special.
    pub fn self_hosted(cloud: &Cloud) -> Self {
        let mut plan = Self::new(&[]);
        let text = format!(
            r#"
            kind = "cockroach"
            listener = [{{ address = "{listen}" }}]
            backend = [
                {{ name = "east", role = "primary", addresses = ["{east}"] }},
                {{ name = "west", role = "standby", addresses = ["{west}"] }},
            ]
            cockroach_sql = {{ user = "ops", replicated_time_refresh = "1s" }}
            probe = {{ kind = "startup", interval = "200ms", fast_interval = "200ms", timeout = "1s", fall = 2, rise = 1 }}
            failover = {{ promoter = "cockroach_sql", delay = "0s", cooldown = "1s", drain_timeout = "1s" }}
            "#,
            listen = plan.listen,
            east = cloud.sql_address(Side::East),
            west = cloud.sql_address(Side::West),
        );
        *super::plan::service(&mut plan.config) = text.parse().unwrap();
        plan
    }
}

/// The daemon on this plan, once it serves and could promote the standby.
pub async fn daemon(plan: DaemonPlan) -> Daemon {
    let daemon = plan.launch();
    daemon.until("open and armed", SOON, |s| s.open && s.armed).await;
    daemon
}

/// One session, with these startup options.
pub async fn session(to: SocketAddr, options: &str) -> Result<Client, tokio_postgres::Error> {
    let text = format!("host={} port={} user=app {options}", to.ip(), to.port());
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// What an operator types on a cluster's `system` virtual cluster.
pub async fn steer(cloud: &Cloud, side: Side, sql: &str) {
    let client = session(cloud.sql_address(side), "options='-ccluster=system'").await.unwrap();
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// The state of the virtual cluster there, in the server's words.
pub async fn state(cloud: &Cloud, side: Side) -> String {
    let client = session(cloud.sql_address(side), "options='-ccluster=system'").await.unwrap();
    client.query_one("SHOW VIRTUAL CLUSTER main", &[]).await.unwrap().get("data_state")
}

/// One application that writes row after row until it is stopped or dropped.
#[derive(Debug)]
pub struct Rows {
    told: Arc<Mutex<Vec<i64>>>,
    task: JoinHandle<()>,
}

impl Rows {
    /// Begins with row 1.
    pub fn start(to: SocketAddr) -> Self {
        let told = Arc::<Mutex<Vec<i64>>>::default();
        let task = tokio::spawn(write(to, Arc::clone(&told)));
        Self { told, task }
    }

    /// The ids that it was told to be committed.
    pub fn told(&self) -> Vec<i64> {
        self.told.lock().unwrap().clone()
    }

    /// Waits until so many more rows were acknowledged than are now.
    pub async fn go_on(&self, more: usize, within: Duration) {
        let before = self.told().len();
        eventually(&format!("{more} more rows are acknowledged"), within, async || match self.told().len() - before {
            got if got >= more => Ok(()),
            got => Err(format!("{got} were")),
        })
        .await;
    }

    /// Ends it and gives what it was told.
    pub fn stop(self) -> Vec<i64> {
        self.task.abort();
        self.told()
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Each id is sent once, whatever becomes of it.
async fn write(to: SocketAddr, told: Arc<Mutex<Vec<i64>>>) {
    let mut id = 0;
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    loop {
        pace.tick().await;
        let Ok(client) = session(to, "").await else { continue };
        loop {
            pace.tick().await;
            id += 1;
            if client.execute(&format!("INSERT INTO commits (id) VALUES ({id})"), &[]).await.is_err() {
                break;
            }
            told.lock().unwrap().push(id);
        }
    }
}
