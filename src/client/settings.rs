//! Whom to ask, as whom to log in, how long to wait. Reads the environment where that is asked for, and nothing else.

use std::time::Duration;

use super::cloud::CloudSettings;
use super::credentials::Credentials;
use super::error::SettingsError;

/// Where a daemon listens unless it is told otherwise.
pub const DEFAULT_DAEMON: &str = "http://127.0.0.1:8404";
/// A daemon's answer is never kept for longer.
const DAEMON_CACHE: Duration = Duration::from_secs(1);

/// What a [`ConnectionManager`](super::ConnectionManager) goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The daemon: `http://host:port` or `unix:///path`. Its word is final: the Cloud API is asked only where nobody
    /// accepts connections there. Over the network the answer is not protected: keep it on this machine or a trusted one.
    pub daemon: Option<String>,
    /// The Cloud API, where there is no daemon.
    pub cloud: Option<CloudSettings>,
    /// Which service, where the daemon has several.
    pub service: Option<String>,
    /// Who logs in; `None` = the driver's business.
    pub credentials: Option<Credentials>,
    /// Default: `defaultdb` for CockroachDB, `postgres` for PostgreSQL.
    pub database: Option<String>,
    /// The file with the CAs to trust, instead of what the daemon names: its files are on its machine.
    pub sslrootcert: Option<String>,
    /// How long an answer of the Cloud API is kept. Default 60 s; at most 10 min.
    pub cloud_cache: Duration,
    /// How long an answer of the daemon is kept. Default and at most 1 s.
    pub daemon_cache: Duration,
    /// For one answer, waiting for others that ask included. Default 15 s; 100 ms to 5 min.
    pub timeout: Duration,
    /// How often [`with_retry`](super::ConnectionManager::with_retry) tries at most. Default 8; 1 to 100.
    pub tries: u32,
    /// Between the first two tries; doubled from one to the next. Default 500 ms; 1 ms to 1 min.
    pub first_wait: Duration,
    /// Between two tries at most. Default 15 s; at most 10 min.
    pub max_wait: Duration,
    /// For one attempt of the application. Default 30 s; 1 ms to 1 h.
    pub attempt_timeout: Duration,
}

impl Settings {
    fn new() -> Self {
        Self {
            daemon: None,
            cloud: None,
            service: None,
            credentials: None,
            database: None,
            sslrootcert: None,
            cloud_cache: Duration::from_secs(60),
            daemon_cache: DAEMON_CACHE,
            timeout: Duration::from_secs(15),
            tries: 8,
            first_wait: Duration::from_millis(500),
            max_wait: Duration::from_secs(15),
            attempt_timeout: Duration::from_secs(30),
        }
    }

    /// The defaults, with this daemon.
    pub fn daemon(url: impl Into<String>) -> Self {
        Self { daemon: Some(url.into()), ..Self::new() }
    }

    /// The defaults, without a daemon.
    pub fn cloud(cloud: CloudSettings) -> Self {
        Self { cloud: Some(cloud), ..Self::new() }
    }

    /// From `PGPIVOT_URL`; from `COCKROACH_API_SECRET_KEY`, `PRIMARY_CLUSTER_ID` and `STANDBY_CLUSTER_ID`, with
    /// `COCKROACH_API_URL`, `PRIMARY_SQL_DNS` and `STANDBY_SQL_DNS`, with host, `sslmode` and `sslrootcert` of
    /// `PRIMARY_CLUSTER_ENDPOINT` and with `DB_SSL`; from `DB_USERNAME` (or `DB_USER`), `DB_PASSWORD` and `DB_NAME`.
    /// Without the first and the second, the daemon is [`DEFAULT_DAEMON`]. Empty values count as none.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`Settings::from_env`], from any other place.
    pub fn from_variables(read: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
        let cloud = CloudSettings::from_variables(read)?;
        let daemon = read("PGPIVOT_URL").or_else(|| cloud.is_none().then(|| DEFAULT_DAEMON.to_owned()));
        let credentials = Credentials::from_variables(read)?;
        Ok(Self { daemon, cloud, credentials, database: read("DB_NAME"), ..Self::new() })
    }

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let range = |good: bool, setting, range| match good {
            true => Ok(()),
            false => Err(SettingsError::OutOfRange { setting, range }),
        };
        let (milli, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        range(self.cloud_cache <= 10 * minute, "cloud_cache", "at most 10 min")?;
        range(self.daemon_cache <= DAEMON_CACHE, "daemon_cache", "at most 1 s")?;
        range((100 * milli..=5 * minute).contains(&self.timeout), "timeout", "from 100 ms to 5 min")?;
        range((1..=100).contains(&self.tries), "tries", "from 1 to 100")?;
        range((milli..=minute).contains(&self.first_wait), "first_wait", "from 1 ms to 1 min")?;
        range(self.max_wait <= 10 * minute, "max_wait", "at most 10 min")?;
        range((milli..=60 * minute).contains(&self.attempt_timeout), "attempt_timeout", "from 1 ms to 1 h")?;
        match (&self.daemon, &self.cloud) {
            (None, None) => Err(SettingsError::NoSource),
            _ => Ok(()),
        }
    }
}
