//! The connection manager: asks, keeps the answer for a while, makes connection strings of it, tries again.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::cloud::Cloud;
use super::credentials::Credentials;
use super::daemon::Daemon;
use super::error::{DaemonTrouble, Error, RetryError, SettingsError};
use super::settings::Settings;
use crate::backoff::Backoff;
use crate::types::Secret;
use crate::view::dsn::{Dsn, DsnError};
use crate::view::sides::Clusters;

/// How long an answer of the Cloud API is kept at most while a daemon that knows better cannot be reached.
const BESIDE_A_DAEMON: Duration = Duration::from_secs(5);

/// Routes an application to the active side. Its clones share what they know. Nothing of it prints a secret.
///
/// It opens no connection of its own to a database, so it cannot tell that one is dead: the application does, by
/// [`report_failure`](Self::report_failure) or by using [`with_retry`](Self::with_retry).
#[derive(Debug, Clone)]
pub struct ConnectionManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    daemon: Option<Daemon>,
    cloud: Option<Cloud>,
    settings: Settings,
    kept: Mutex<Option<Kept>>,
    /// Answers that were asked for before this do not count any more.
    failed: StdMutex<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct Kept {
    sides: Clusters,
    /// When it was asked for: what it says may be as old as that.
    asked: Instant,
    fresh_for: Duration,
    by_daemon: bool,
}

impl ConnectionManager {
    /// Checks the settings. Sends nothing.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let service = settings.service.as_deref();
        let daemon = settings.daemon.as_deref().map(|url| Daemon::build(url, service, settings.timeout)).transpose()?;
        let cloud = settings.cloud.as_ref().map(|cloud| Cloud::build(cloud, service)).transpose()?;
        let (kept, failed) = (Mutex::default(), StdMutex::default());
        Ok(Self { inner: Arc::new(Inner { daemon, cloud, settings, kept, failed }) })
    }

    /// On [`Settings::from_env`].
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::new(Settings::from_env()?)
    }

    /// A URI for the active side, with the credentials of the settings. **It holds the password.** An error when
    /// nobody answers, when no side is active, and while the service lets nobody in.
    pub async fn connection_string(&self) -> Result<String, Error> {
        Ok(self.dsn().await?.to_uri())
    }

    /// As [`connection_string`](Self::connection_string), for somebody else.
    pub async fn connection_string_for(&self, user: &str, password: &str) -> Result<String, Error> {
        let (user, password) = (Some(user.to_owned()), Some(Secret::new(password.to_owned())));
        Ok(Dsn { user, password, ..self.active().await? }.to_uri())
    }

    /// The same in parts, for drivers that take no URI or want `sslrootcert` elsewhere.
    pub async fn dsn(&self) -> Result<Dsn, Error> {
        Ok(self.with_login(self.active().await?))
    }

    /// A URI with several hosts, the active side first: for drivers that try one after the other. A quarantined side and
    /// a cluster that was not promoted are left out, unless `all` are asked for.
    ///
    /// **It cannot fence**: it is as old as the connection pool that holds it, and a driver connects to whichever host
    /// answers. After a failover that may be the old primary. With PostgreSQL `target_session_attrs=read-write` keeps
    /// drivers from standbys, not from an old primary; CockroachDB has nothing like it.
    pub async fn multi_host_connection_string(&self, all: bool) -> Result<String, Error> {
        let sides = self.sides().await?;
        let ca = self.inner.settings.sslrootcert.as_deref();
        let dsn = Dsn::multi_host(&sides.clusters, all, ca)?;
        let database = self.inner.settings.database.clone().or(dsn.database);
        Ok(self.with_login(Dsn { database, ..dsn }).to_uri())
    }

    /// The sides of the service, from what is kept or from who is asked now.
    pub async fn sides(&self) -> Result<Clusters, Error> {
        let patience = self.inner.settings.timeout;
        timeout(patience, self.inner.sides()).await.unwrap_or(Err(Error::TimedOut(patience)))
    }

    /// Tells that a connection to the active side failed: what is kept is forgotten, the next call asks afresh.
    pub fn report_failure(&self) {
        *self.inner.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Calls `attempt` with the connection string until it succeeds, waiting longer from one try to the next, as often as
    /// [`Settings::tries`] says. After each failure the active side is asked for afresh.
    ///
    /// Let `attempt` connect, not write: a write whose answer was lost may have taken effect, and would be repeated. An
    /// attempt that takes longer than [`Settings::attempt_timeout`] is dropped.
    pub async fn with_retry<T, E, F, A>(&self, mut attempt: F) -> Result<T, RetryError<E>>
    where
        F: FnMut(String) -> A,
        A: Future<Output = Result<T, E>>,
    {
        let settings = &self.inner.settings;
        let mut backoff = Backoff::new(settings.first_wait, settings.max_wait);
        let mut tries = 0;
        loop {
            tries += 1;
            let failed = match self.connection_string().await {
                Err(error) => RetryError::Unknown { tries, error },
                Ok(dsn) => match timeout(settings.attempt_timeout, attempt(dsn)).await {
                    Ok(Ok(done)) => return Ok(done),
                    Ok(Err(error)) => RetryError::Attempt { tries, error },
                    Err(_) => RetryError::TimedOut { tries, after: settings.attempt_timeout },
                },
            };
            self.report_failure();
            if tries >= settings.tries {
                return Err(failed);
            }
            sleep(backoff.step(chance())).await;
        }
    }

    async fn active(&self) -> Result<Dsn, Error> {
        let sides = self.sides().await?;
        let active = sides.active().ok_or(DsnError::NobodyActive)?;
        if !active.open {
            return Err(Error::Held);
        }
        let mut dsn = Dsn::to(active)?;
        let settings = &self.inner.settings;
        dsn.database = settings.database.clone().or(dsn.database);
        dsn.sslrootcert = settings.sslrootcert.clone().or(dsn.sslrootcert);
        Ok(dsn)
    }

    fn with_login(&self, dsn: Dsn) -> Dsn {
        match self.inner.settings.credentials.clone() {
            Some(Credentials { user, password }) => Dsn { user: Some(user), password, ..dsn },
            None => dsn,
        }
    }
}

impl Inner {
    /// One caller asks, the others wait for its answer. Cancel safe.
    async fn sides(&self) -> Result<Clusters, Error> {
        let called = Instant::now();
        let mut kept = self.kept.lock().await;
        // What was asked for while we waited is as good as an answer of our own.
        let counts =
            |kept: &&Kept| self.counts(kept) && (kept.asked >= called || kept.asked.elapsed() < kept.fresh_for);
        if let Some(kept) = kept.as_ref().filter(counts) {
            return Ok(kept.sides.clone());
        }
        let asked = Instant::now();
        let (sides, fresh_for, by_daemon) = self.ask(kept.as_ref()).await?;
        *kept = Some(Kept { sides: sides.clone(), asked, fresh_for, by_daemon });
        Ok(sides)
    }

    /// No failure was reported since it was asked for.
    fn counts(&self, kept: &Kept) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_none_or(|failed| failed < kept.asked)
    }

    /// The clusters, how long that holds, and whether a daemon says so.
    async fn ask(&self, kept: Option<&Kept>) -> Result<(Clusters, Duration, bool), Error> {
        let unreachable = match &self.daemon {
            None => None,
            Some(daemon) => match (daemon.sides().await, &self.cloud) {
                (Ok(sides), _) => return Ok((sides, self.settings.daemon_cache, true)),
                (Err(error @ Error::Daemon { trouble: DaemonTrouble::Unreachable, .. }), Some(_)) => Some(error),
                (Err(error), _) => return Err(error),
            },
        };
        // A daemon that answered once decides: the Cloud does not know what it has latched since.
        if let (Some(kept), Some(_)) = (kept.filter(|kept| kept.by_daemon), &unreachable) {
            return Ok((kept.sides.clone(), Duration::ZERO, true));
        }
        match (&self.cloud, unreachable) {
            // A host does not change with the active side.
            (Some(cloud), _) => {
                let sides = cloud.sides(kept.map(|kept| &kept.sides)).await?;
                let settled = sides.active().is_some_and(|side| side.open);
                let longest = if self.daemon.is_some() { BESIDE_A_DAEMON } else { self.settings.cloud_cache };
                Ok((sides, if settled { longest.min(self.settings.cloud_cache) } else { Duration::ZERO }, false))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::Dsn(DsnError::NobodyActive)),
        }
    }
}

/// A random byte; without a source of chance, always the same.
fn chance() -> u8 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
