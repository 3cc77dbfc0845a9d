//! One server: its pool, what is known of it, and whether anything may be sent there now. What it was seen to be is told
//! to it by its `keeper`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{mpsc, oneshot};

use super::breaker::Breaker;
use super::clock::Clock;
use super::meter::Meter;
use super::primary::{Role, Seen};
use super::reconnect::{Next, Reconnect};
use super::settings::PoolLimits;
use crate::types::{Moment, WallTime};

/// Who asks for a look; some want to hear when it was made.
pub(super) type Ask = Option<oneshot::Sender<()>>;

/// Looks asked for and not made yet, at most: each of them is answered by the next one.
const ASKS: usize = 64;

/// One server. Prints neither user nor password.
pub(super) struct Server {
    /// `host:port`, or the path of a socket.
    pub(super) name: String,
    pub(super) pool: PgPool,
    pub(super) meter: Meter,
    options: PgConnectOptions,
    limits: PoolLimits,
    clock: Clock,
    standing: Mutex<Standing>,
    asks: mpsc::Sender<Ask>,
    /// Connections made earlier than this, in ms of the clock, are not lent any more.
    retired: Arc<AtomicU64>,
}

/// What is known of it.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) seen: Seen,
    /// Reads may go there, by what all servers say.
    pub(super) readable: bool,
    pub(super) reconnect: Reconnect,
    pub(super) breaker: Breaker,
    /// Failed checks in a row.
    pub(super) failures: u32,
    pub(super) healthy: bool,
    pub(super) checked: Option<WallTime>,
    pub(super) looked: Option<Moment>,
    pub(super) response: Option<Duration>,
    pub(super) down_since: Option<WallTime>,
    pub(super) recoveries: u64,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("standing", &*self.standing()).finish_non_exhaustive()
    }
}

impl Server {
    /// Connects to nothing yet. The asks go to its keeper.
    pub(super) fn new(options: PgConnectOptions, limits: &PoolLimits, clock: Clock) -> (Self, mpsc::Receiver<Ask>) {
        let name = match options.get_socket() {
            Some(path) => format!("{}:{}", path.display(), options.get_port()),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("pgpivot"),
        };
        let retired = Arc::new(AtomicU64::new(0));
        let pool = PgPoolOptions::new()
            .max_connections(limits.max_connections)
            .acquire_timeout(limits.acquire_timeout)
            .before_acquire({
                let retired = retired.clone();
                move |_, meta| {
                    let made = clock.now().0.saturating_sub(meta.age);
                    let fit = made.as_millis() >= u128::from(retired.load(Relaxed));
                    Box::pin(std::future::ready(Ok(fit)))
                }
            })
            .connect_lazy_with(options.clone());
        let standing = Standing {
            seen: Seen::default(),
            readable: false,
            reconnect: Reconnect::new(limits.schedule, clock.now()),
            breaker: Breaker::new(limits.breaker),
            failures: 0,
            healthy: false,
            checked: None,
            looked: None,
            response: None,
            down_since: None,
            recoveries: 0,
        };
        let (asks, keeper) = mpsc::channel(ASKS);
        let (standing, meter, limits) = (Mutex::new(standing), Meter::default(), limits.clone());
        (Self { name, pool, meter, options, limits, clock, standing, asks, retired }, keeper)
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// What is known of it, to be read or changed without waiting for anything.
    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.standing().reconnect.is_connected()
    }

    /// What it was seen to be; nothing where the last look failed.
    pub(super) fn seen(&self) -> Seen {
        let standing = self.standing();
        if standing.reconnect.is_connected() { standing.seen } else { Seen::default() }
    }

    /// May a read go there now?
    pub(super) fn is_fit(&self) -> bool {
        let standing = self.standing();
        let closed = standing.breaker.closed_in(self.clock.now()) == Duration::ZERO;
        standing.readable && standing.reconnect.is_connected() && closed
    }

    /// Connections that somebody holds.
    pub(super) fn in_use(&self) -> u32 {
        self.pool.size().saturating_sub(u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX))
    }

    /// Every connection exists and is held by somebody.
    pub(super) fn is_exhausted(&self) -> bool {
        self.in_use() >= self.limits.max_connections
    }

    /// A query would like to go there: who was given up is tried again, in the background.
    pub(super) fn wanted(&self) {
        if self.standing().reconnect.wanted(self.clock.now()) {
            tracing::info!(server = %self.name, "database is wanted again, trying to connect");
            self.ask();
        }
    }

    /// Its keeper looks at it as soon as it can.
    pub(super) fn ask(&self) {
        // Full = there are others whose look will do.
        let _ = self.asks.try_send(None);
    }

    /// As [`Server::ask`]; returns when a look that began after the call was made. Cancel safe.
    pub(super) async fn looked(&self) {
        let (answer, made) = oneshot::channel();
        if self.asks.send(Some(answer)).await.is_ok() {
            // Dropped = the keeper has ended.
            let _ = made.await;
        }
    }

    /// A statement is about to be sent. `false` = the breaker is open.
    pub(super) fn enter(&self) -> bool {
        self.standing().breaker.enter(self.clock.now())
    }

    /// It answered.
    pub(super) fn answered(&self) {
        if self.standing().breaker.success() {
            tracing::info!(server = %self.name, "circuit breaker closed");
        }
    }

    /// Nothing was found out.
    pub(super) fn abandoned(&self) {
        self.standing().breaker.abandoned(self.clock.now());
    }

    /// It failed somebody: a look will tell whether it is gone.
    pub(super) fn let_down(&self) {
        let opened = self.standing().breaker.failure(self.clock.now());
        if opened {
            let open_for = self.limits.breaker.open_for;
            tracing::warn!(server = %self.name, ?open_for, "circuit breaker opened, the server is left alone");
        }
        self.ask();
    }

    /// It failed somebody again who has waited for it since it did so first: that is no failure more.
    pub(super) fn let_down_again(&self) {
        self.abandoned();
        self.ask();
    }

    /// What it is has changed: no connection of before is lent again.
    pub(super) fn retire(&self) {
        let now = u64::try_from(self.clock.now().0.as_millis()).unwrap_or(u64::MAX - 1);
        self.retired.store(now + 1, Relaxed);
    }

    /// A look found this.
    pub(super) fn found(&self, seen: Seen, wall: WallTime, response: Duration) {
        let mut standing = self.standing();
        let before = standing.seen;
        let is = |seen: &Seen| (std::mem::discriminant(&seen.role), seen.started);
        let changed = before.role != Role::Unknown && is(&before) != is(&seen);
        standing.seen = seen;
        standing.failures = 0;
        standing.response = Some(response);
        standing.checked = Some(wall);
        standing.looked = Some(self.clock.now());
        standing.recoveries += u64::from(!standing.healthy && standing.down_since.is_some());
        standing.healthy = true;
        standing.down_since = None;
        let news = standing.reconnect.found();
        if news {
            standing.breaker.looked_well(self.clock.now());
        }
        drop(standing);
        if news {
            tracing::info!(server = %self.name, role = seen.role.word(), "database connection established");
        }
        if changed {
            tracing::info!(server = %self.name, was = before.role.word(), role = seen.role.word(), "database changed");
            self.retire();
        }
    }

    /// A look failed.
    pub(super) fn missed(&self, error: &str, wall: WallTime) {
        self.meter.failed_checks.fetch_add(1, Relaxed);
        let now = self.clock.now();
        let mut standing = self.standing();
        standing.failures = standing.failures.saturating_add(1);
        standing.checked = Some(wall);
        standing.looked = Some(now);
        standing.response = None;
        standing.down_since = standing.down_since.or(Some(wall));
        let unhealthy = standing.healthy && standing.failures >= self.limits.unhealthy_after;
        standing.healthy &= !unhealthy;
        let next = standing.reconnect.failed(now);
        drop(standing);
        let (server, attempts) = (&self.name, self.limits.schedule.attempts);
        match next {
            Next::Again { attempt, wait } => {
                tracing::warn!(%server, attempt, retry_in = ?wait, error, "connection attempt failed");
            }
            Next::GaveUp => tracing::error!(%server, attempts, error, "failed to establish connection"),
            Next::AsBefore => {}
        }
        if unhealthy {
            tracing::warn!(%server, "database is unhealthy");
        }
    }

    /// When it is looked at again by itself; `periodic` = while it answers, too.
    pub(super) fn due(&self, periodic: bool) -> Option<Moment> {
        let standing = self.standing();
        let next = standing.looked.map(|looked| looked + self.limits.interval);
        if standing.reconnect.is_connected() { next.filter(|_| periodic) } else { standing.reconnect.due() }
    }
}
