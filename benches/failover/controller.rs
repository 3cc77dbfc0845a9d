//! What steers HAProxy: asks both servers for their role every second, promotes the standby when the primary has failed
//! three times, and switches HAProxy's servers through its socket. It never goes back by itself.

use super::haproxy;
use super::harness::cluster::{Cluster, Shutdown};
use super::harness::pair::Pair;
use super::harness::writer::now_us;
use super::peer::Decision;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::{Client, NoTls};

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);
const FALL: u32 = 3;
/// What a promotion may take.
const PROMOTION: Duration = Duration::from_secs(30);

/// The controller at work. Ends when dropped.
#[derive(Debug)]
pub struct Controller {
    steering: Arc<Steering>,
    task: JoinHandle<()>,
}

/// Both servers, HAProxy, and what was decided.
#[derive(Debug)]
struct Steering {
    primary: Server,
    standby: Server,
    socket: PathBuf,
    decision: Mutex<Option<Decision>>,
}

#[derive(Debug)]
struct Server {
    name: String,
    address: SocketAddr,
}

impl Server {
    fn of(cluster: &Cluster) -> Self {
        Self { name: cluster.name.clone(), address: cluster.address() }
    }
}

impl Controller {
    /// Begins to ask.
    pub fn start(primary: &Cluster, standby: &Cluster, socket: PathBuf) -> Self {
        let steering = Arc::new(Steering {
            primary: Server::of(primary),
            standby: Server::of(standby),
            socket,
            decision: Mutex::new(None),
        });
        Self { task: tokio::spawn(run(steering.clone())), steering }
    }

    /// What it has decided.
    pub fn decision(&self) -> Option<Decision> {
        self.steering.decision.lock().unwrap().clone()
    }

    /// Planned: the old primary is stopped in the way that ships everything, then the standby takes over.
    pub async fn switchover(&self, pair: &Pair) {
        self.task.abort();
        self.steering.decide("by an operator");
        pair.east.stop(Shutdown::Fast).await;
        self.steering.switch().await;
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(steering: Arc<Steering>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = 0;
    while failed < FALL {
        ticks.tick().await;
        let (primary, standby) = tokio::join!(role(&steering.primary), role(&steering.standby));
        failed = if primary == Some(Role::Primary) { 0 } else { failed + 1 };
        if failed >= FALL && standby != Some(Role::Standby) {
            failed = FALL - 1;
        }
    }
    steering.decide("the primary failed 3 checks");
    steering.switch().await;
}

impl Steering {
    fn decide(&self, why: &str) {
        let mut decision = self.decision.lock().unwrap();
        let steps = vec![format!("decided: {why}")];
        *decision = Some(Decision { decided_us: now_us(), proven_us: None, latched_us: None, steps });
    }

    /// Promotes, then changes HAProxy's servers and ends what still hangs on the old one. Newcomers wait in HAProxy's
    /// retries meanwhile: cutting first and closing the old server would show applications more errors.
    async fn switch(&self) {
        let client = connect(self.standby.address).await.expect("the standby must be reached to be promoted");
        let promotion = client.query_one("SELECT pg_promote(true, 30)", &[]);
        let promoted: bool = timeout(PROMOTION, promotion).await.unwrap().unwrap().get(0);
        assert!(promoted, "pg_promote gave up");
        if let Some(decision) = self.decision.lock().unwrap().as_mut() {
            decision.proven_us = Some(now_us());
        }
        self.say("promoted");
        let old = &self.primary.name;
        self.order(&format!("set server pair/{old} state maint")).await;
        self.order(&format!("set server pair/{} state ready", self.standby.name)).await;
        self.order(&format!("shutdown sessions server pair/{old}")).await;
        if let Some(decision) = self.decision.lock().unwrap().as_mut() {
            decision.latched_us = Some(now_us());
        }
        self.say("switched");
    }

    async fn order(&self, words: &str) {
        let answer = haproxy::order(&self.socket, words).await.unwrap();
        assert!(answer.trim().is_empty(), "HAProxy refuses `{words}`: {answer}");
    }

    fn say(&self, what: &str) {
        if let Some(decision) = self.decision.lock().unwrap().as_mut() {
            let after = now_us() - decision.decided_us;
            decision.steps.push(format!("{what} {} ms after the decision", after / 1000));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Primary,
    Standby,
}

/// What a server says of itself on a fresh connection, in time.
async fn role(server: &Server) -> Option<Role> {
    let question = async {
        let row = connect(server.address).await?.query_one("SELECT pg_is_in_recovery()", &[]).await?;
        Ok::<_, tokio_postgres::Error>(if row.get(0) { Role::Standby } else { Role::Primary })
    };
    timeout(TIMEOUT, question).await.ok()?.ok()
}

async fn connect(to: SocketAddr) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(to.ip().to_string()).port(to.port()).user("pgpivot").password("pgpivot").dbname("postgres");
    let (client, connection) = config.application_name("controller").connect(NoTls).await?;
    // Ends with the client.
    tokio::spawn(connection);
    Ok(client)
}
