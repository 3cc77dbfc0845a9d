//! Connection pools that know primary and replicas: reads go to replicas, writes to the primary, and both follow when
//! another server becomes the primary. Feature `sqlx`. Holds the promises and the methods; each concern has its own file.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pgpivot::client::PoolManager;
//!
//! // DATABASE_URL, DATABASE_REPLICA_URL.
//! let pools = PoolManager::from_env().await?;
//! sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(7).execute(pools.write()).await?;
//! let rows = sqlx::query("SELECT id FROM orders").fetch_all(pools.read()).await?;
//!
//! // Reads that see what was written, however far the replicas lag.
//! let session = pools.session();
//! sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(8).execute(session.write()).await?;
//! let rows = sqlx::query("SELECT id FROM orders WHERE id = $1").bind(8).fetch_one(session.read()).await?;
//! pools.close().await;
//! # Ok(()) }
//! ```
//!
//! # What it promises
//!
//! - **A write is never sent twice.** Once a byte of it may have reached a server, its failure is the application's to
//!   judge. Before that, for [`acquire_timeout`](PoolBuilder::acquire_timeout), it waits for a server that proves to be the
//!   primary.
//! - **A read is sent twice at most**, the second time to another server where there is one, and never in a transaction.
//! - **Writes go to the one server that proves to be the primary** among the configured ones. Of two that claim it, the
//!   one on the higher timeline; of two that claim it alike, none: [`PoolError::Contested`]. A primary on an older line
//!   than one that was seen is left alone, as is a server of another system. Where a daemon is configured
//!   ([`PoolBuilder::daemon`], `PGPIVOT_URL`) and knows these servers, its latch decides, and the server must agree.
//! - **A [`Session`]'s reads see its writes**, and [`Route::after`] what a [`Token`] stands for. After a failover to a standby
//!   that had not received them, writes may be gone all the same: replication is asynchronous unless you make it wait.
//!
//! # What it cannot
//!
//! **It cannot fence.** It knows what servers say of themselves, a health check ago at worst, or when a statement fails.
//! An old primary that was cut off and still serves other applications takes their writes; so it does from this
//! one, until a look finds the new primary. Nor does it promote anybody. Where there must never be two primaries, connect
//! to the proxy. What it remembers of timelines ends with the process.
//!
//! With CockroachDB it keeps one pool, to `DATABASE_URL`, with retries, breaker and metrics. Replicas, tokens by log position
//! and the detection of a changed primary are not offered there: reads that must see something go to the same place.
//!
//! [`get_pool`](PoolManager::get_pool), [`primary`](PoolManager::primary) and [`replica`](PoolManager::replica) hand out
//! sqlx's own pools. What runs on them is neither sent again nor counted, and ask for the pool each time: which one it is changes.

mod balance;
mod breaker;
mod clock;
mod error;
mod fleet;
mod follow;
mod keeper;
mod lend;
mod look;
mod meter;
mod primary;
mod reconnect;
mod report;
mod retry;
mod route;
mod server;
mod session;
mod settings;
mod sqlx_error;
mod token;
mod transaction;

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::{Executor, Postgres};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::clock::Clock;
use self::fleet::Fleet;
use self::lend::Need;
use self::server::Server;
use super::connection_manager::ConnectionManager;

pub use self::error::{PoolError, PoolSettingsError};
pub use self::report::{
    FailoverState, Health, LATENCY_BUCKETS, Latency, PoolMetric, PoolMetrics, PoolStatus, ServerStatus,
};
pub use self::retry::QueryIntent;
pub use self::route::Route;
pub use self::session::Session;
pub use self::settings::{Address, PoolBuilder};
pub use self::token::{Token, TokenError};
pub use self::transaction::Transaction;

/// For the connections that nobody uses to be closed in, whatever is allowed for the others.
const FAREWELL: Duration = Duration::from_secs(1);

/// The pools of one database. Its clones are the same manager; when the last one is dropped, or by
/// [`close`](Self::close), its tasks end. Nothing of it prints a user or a password.
#[derive(Clone)]
pub struct PoolManager {
    inner: Arc<Inner>,
}

struct Inner {
    fleet: Arc<Fleet>,
    /// The keepers and the follower; aborted when dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for PoolManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolManager").field("servers", &self.inner.fleet.servers).finish_non_exhaustive()
    }
}

impl PoolManager {
    /// Settings with this primary: a connection URL, or sqlx's options.
    pub fn builder(primary: impl Into<Address>) -> PoolBuilder {
        PoolBuilder::new(primary)
    }

    /// On [`PoolBuilder::from_env`].
    pub async fn from_env() -> Result<Self, PoolError> {
        PoolBuilder::from_env()?.connect().await
    }

    /// On a primary and its standbys, with the defaults; looks at each of them and goes on watching.
    pub async fn initialize<A: Into<Address>>(
        primary: impl Into<Address>,
        standbys: impl IntoIterator<Item = A>,
    ) -> Result<Self, PoolError> {
        standbys.into_iter().fold(Self::builder(primary), PoolBuilder::replica).connect().await
    }

    async fn build(builder: PoolBuilder) -> Result<Self, PoolError> {
        let options = builder.servers()?;
        let daemon = builder.daemon.map(ConnectionManager::new).transpose().map_err(PoolSettingsError::from)?;
        let clock = Clock::start();
        let (servers, asks): (Vec<_>, Vec<_>) =
            options.into_iter().map(|options| Server::new(options, &builder.limits, clock)).unzip();
        if let [_, replicas @ ..] = servers.as_slice()
            && !replicas.is_empty()
        {
            let replicas = replicas.iter().map(|replica| replica.name.as_str()).collect::<Vec<_>>().join(", ");
            tracing::info!(replicas, "database replica configured, read queries are routed to it");
        }
        let fleet = Arc::new(Fleet::new(servers, builder.limits, clock));
        // Before the first look: it must know whose word counts.
        if let Some(daemon) = &daemon
            && let Ok(sides) = daemon.sides().await
        {
            fleet.hear(follow::word(&fleet, &sides));
        }
        let mut tasks = JoinSet::new();
        for (index, asks) in asks.into_iter().enumerate() {
            tasks.spawn(keeper::run(fleet.clone(), index, asks));
        }
        if let Some(daemon) = daemon {
            tasks.spawn(follow::run(fleet.clone(), daemon));
        }
        fleet.looked().await;
        Ok(Self { inner: Arc::new(Inner { fleet, tasks: Mutex::new(tasks) }) })
    }

    /// The pool for this intent, as things stand: for [`Read`](QueryIntent::Read) the least busy replica that serves, else
    /// the primary. Where nobody proves to be the primary, a pool that is closed.
    pub fn get_pool(&self, intent: QueryIntent) -> &PgPool {
        match intent {
            QueryIntent::Read => self.replica().unwrap_or_else(|| self.primary()),
            QueryIntent::Write => self.primary(),
        }
    }

    /// The pool of the server that is the primary now; where nobody proves to be that, a pool that is closed.
    pub fn primary(&self) -> &PgPool {
        self.fleet().wanted();
        self.fleet().writer_index().map_or(&self.fleet().nowhere, |index| &self.fleet().servers[index].pool)
    }

    /// The pool of the least busy replica that serves; `None` = there is none now.
    pub fn replica(&self) -> Option<&PgPool> {
        self.fleet().wanted();
        self.fleet().replica(&[]).map(|index| &self.fleet().servers[index].pool)
    }

    /// Where a statement of this intent goes.
    pub fn route(&self, intent: QueryIntent) -> Route<'_> {
        Route { manager: self, intent, need: Need::Nothing, session: None }
    }

    /// To a replica, or to the primary where none serves.
    pub fn read(&self) -> Route<'_> {
        self.route(QueryIntent::Read)
    }

    /// To the primary.
    pub fn write(&self) -> Route<'_> {
        self.route(QueryIntent::Write)
    }

    /// Runs one statement and returns its rows: [`Route`] in one call.
    pub async fn query(
        &self,
        intent: QueryIntent,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, PoolError> {
        Ok(self.route(intent).fetch_all(query).await?)
    }

    /// A connection for as long as it is held, for whatever needs the same one several times. Nothing of what runs
    /// on it is sent again.
    pub async fn client(&self, intent: QueryIntent) -> Result<PoolConnection<Postgres>, PoolError> {
        let lent = self.fleet().lend(intent, Need::Nothing, &[]).await?;
        self.fleet().servers[lent.server].answered();
        Ok(lent.connection)
    }

    /// A transaction: to read, READ ONLY on a replica or the primary; to write, on the primary. Never sent again.
    pub async fn begin(&self, intent: QueryIntent) -> Result<Transaction, PoolError> {
        Transaction::begin(self, intent, Need::Nothing, None).await
    }

    /// Somebody whose reads see what they wrote.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// The same, and what was committed when this token was taken.
    pub fn session_after(&self, token: Token) -> Session {
        Session::after(self.clone(), token)
    }

    /// Stands for everything that is committed by now. For [`Route::after`], also in another process.
    pub async fn token(&self) -> Result<Token, PoolError> {
        self.fleet().token().await
    }

    /// Looks at every server now. Takes [`check_timeout`](PoolBuilder::check_timeout) at most, or twice that when it
    /// looks already.
    pub async fn check_health(&self) {
        self.fleet().wanted();
        self.fleet().looked().await;
    }

    /// Looks at every server now and says whether all of them serve.
    pub async fn health(&self) -> Health {
        self.check_health().await;
        let fleet = self.fleet();
        let facts = self.facts();
        Health::of(fleet.limits.version.clone(), facts.primary, (fleet.servers.len() > 1).then_some(facts.replicas))
    }

    /// What the last looks found.
    pub fn status(&self) -> PoolStatus {
        let fleet = self.fleet();
        let primary = fleet.writer_index().map(|index| fleet.servers[index].name.clone());
        let now = fleet.clock.now();
        let servers = fleet.servers.iter().map(|server| {
            let standing = server.standing().clone();
            let connected = standing.reconnect.is_connected();
            ServerStatus {
                server: server.name.clone(),
                role: if connected { standing.seen.role.word() } else { "unknown" },
                connected,
                healthy: standing.healthy,
                promotion_eligible: standing.readable && connected,
                last_health_check: standing.checked.map(|at| at.to_string()),
                failure_count: standing.failures,
                response_time: standing.response.map(|took| took.as_secs_f64() * 1000.0),
                down_since: standing.down_since.map(|at| at.to_string()),
                breaker: standing.breaker.word(now),
                gave_up: standing.reconnect.gave_up(),
            }
        });
        PoolStatus { state: FailoverState::of(self.facts()), primary, servers: servers.collect() }
    }

    /// Counts since the start, and how busy each pool is.
    pub fn metrics(&self) -> PoolMetrics {
        let fleet = self.fleet();
        let (writer, now) = (fleet.writer_index(), fleet.clock.now());
        let pools = fleet.servers.iter().enumerate().map(|(index, server)| {
            let standing = server.standing().clone();
            let connected = standing.reconnect.is_connected();
            let primary = writer == Some(index);
            let (in_use, max) = (server.in_use(), fleet.limits.max_connections);
            let ((reads, writes), (lent, lent_wait)) = (server.meter.statements(), server.meter.lent());
            PoolMetric {
                server: server.name.clone(),
                role: if connected { standing.seen.role.word() } else { "unknown" },
                primary,
                healthy: connected && (primary || standing.readable),
                max,
                size: server.pool.size(),
                in_use,
                utilisation: f64::from(in_use) / f64::from(max),
                reads,
                writes,
                errors: server.meter.errors.load(Relaxed),
                latency: server.meter.latency(),
                lent,
                lent_wait,
                exhausted: server.meter.exhausted.load(Relaxed),
                breaker: standing.breaker.word(now),
                breaker_openings: standing.breaker.openings(),
            }
        });
        PoolMetrics {
            state: FailoverState::of(self.facts()),
            failovers: fleet.failovers.load(Relaxed),
            recoveries: fleet.servers.iter().map(|server| server.standing().recoveries).sum(),
            failed_checks: fleet.servers.iter().map(|server| server.meter.failed_checks.load(Relaxed)).sum(),
            fallbacks: fleet.fallbacks.load(Relaxed),
            retries: fleet.retries.load(Relaxed),
            pools: pools.collect(),
        }
    }

    /// Servers that answer are looked at regularly, as they are unless
    /// [`health_checks`](PoolBuilder::health_checks) says otherwise.
    pub fn start_health_checks(&self) {
        self.check_regularly(true);
    }

    /// Servers are looked at only where a statement fails or somebody asks, and while they cannot be reached.
    pub fn stop_health_checks(&self) {
        self.check_regularly(false);
    }

    /// Ends the tasks and the pools: no connection is lent any more, those that are idle are closed at once, and those in
    /// use are waited for, for [`close_timeout`](PoolBuilder::close_timeout). Returns how many are in use even then.
    pub async fn close(&self) -> u32 {
        let fleet = self.fleet();
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        let deadline = Instant::now() + fleet.limits.close_timeout.max(FAREWELL);
        let closing = futures_util::future::join_all(fleet.servers.iter().map(|server| server.pool.close()));
        // Late ones end with whoever holds them.
        let _ = timeout_at(deadline, closing).await;
        fleet.servers.iter().map(|server| server.pool.size()).sum()
    }

    fn fleet(&self) -> &Fleet {
        &self.inner.fleet
    }

    fn check_regularly(&self, on: bool) {
        let fleet = self.fleet();
        fleet.periodic.store(on, Relaxed);
        fleet.retimed.notify_waiters();
    }

    fn facts(&self) -> report::Facts {
        let fleet = self.fleet();
        let writer = fleet.writer_index();
        let connected: Vec<bool> = fleet.servers.iter().map(Server::is_connected).collect();
        let serves = |index: usize| connected[index] && fleet.servers[index].standing().readable;
        report::Facts {
            any: connected.contains(&true),
            primary: writer.is_some_and(|index| connected[index]),
            replicas: (0..connected.len()).filter(|&index| Some(index) != writer).all(serves),
            decided: writer.is_some(),
            moved: writer.is_some_and(|index| index != 0),
            home_answers: connected[0],
        }
    }
}

#[cfg(test)]
mod tests;
