//! Which servers, how many connections, how patient. Reads the environment where that is asked for, and nothing else.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::PoolManager;
use super::breaker::Limits;
use super::error::{PoolError, PoolSettingsError};
use super::reconnect::Schedule;
use crate::client::Settings;
use crate::types::Secret;
use crate::view::url::Url;

/// Servers that take reads, at most.
const MAX_REPLICAS: usize = 32;
const PRIMARY_URL: &str = "DATABASE_URL";
const REPLICA_URL: &str = "DATABASE_REPLICA_URL";
const INTERVAL: &str = "FAILOVER_HEALTH_CHECK_INTERVAL";
/// PostgreSQL's port.
const PORT: u16 = 5432;

/// One server: a connection URL, or sqlx's options. Prints neither.
#[derive(Clone)]
pub struct Address(Given);

#[derive(Clone)]
enum Given {
    Url(Secret),
    Options(Box<PgConnectOptions>),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(***)")
    }
}

impl From<&str> for Address {
    fn from(url: &str) -> Self {
        Self(Given::Url(Secret::new(url.to_owned())))
    }
}

impl From<String> for Address {
    fn from(url: String) -> Self {
        Self(Given::Url(Secret::new(url)))
    }
}

impl From<PgConnectOptions> for Address {
    fn from(options: PgConnectOptions) -> Self {
        Self(Given::Options(Box::new(options)))
    }
}

impl Address {
    /// `which` is how an error calls it.
    fn options(&self, which: &str) -> Result<PgConnectOptions, PoolSettingsError> {
        let url = match &self.0 {
            Given::Options(options) => return Ok((**options).clone()),
            Given::Url(url) => url.expose().trim(),
        };
        // The driver's errors may show the URL; ours name the part.
        Url::parse(url, PORT).map_err(|error| PoolSettingsError::BadUrl { which: which.to_owned(), error })?;
        PgConnectOptions::from_str(url).map_err(|_| PoolSettingsError::NotTaken { which: which.to_owned() })
    }
}

/// What a [`PoolManager`] goes by. Every setting has a default; [`connect`](Self::connect) checks them all.
#[derive(Debug, Clone)]
#[must_use = "nothing is connected before connect()"]
pub struct PoolBuilder {
    pub(super) primary: Address,
    pub(super) replicas: Vec<Address>,
    pub(super) daemon: Option<Settings>,
    pub(super) limits: PoolLimits,
    pub(super) from_env: bool,
}

/// The numbers of a [`PoolBuilder`].
#[derive(Debug, Clone)]
pub(super) struct PoolLimits {
    pub(super) max_connections: u32,
    pub(super) acquire_timeout: Duration,
    pub(super) query_timeout: Option<Duration>,
    pub(super) schedule: Schedule,
    pub(super) breaker: Limits,
    pub(super) health_checks: bool,
    pub(super) interval: Duration,
    pub(super) check_timeout: Duration,
    pub(super) unhealthy_after: u32,
    pub(super) replica_wait: Duration,
    pub(super) close_timeout: Duration,
    pub(super) version: String,
}

impl Default for PoolLimits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            max_connections: 10,
            acquire_timeout: seconds(5),
            query_timeout: None,
            schedule: Schedule { first: seconds(2), max: seconds(32), attempts: 5 },
            breaker: Limits { failures: 3, open_for: seconds(10) },
            health_checks: true,
            interval: seconds(10),
            check_timeout: seconds(2),
            unhealthy_after: 3,
            replica_wait: Duration::from_millis(250),
            close_timeout: seconds(10),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl PoolBuilder {
    /// The defaults, with this primary.
    pub fn new(primary: impl Into<Address>) -> Self {
        let (primary, limits) = (primary.into(), PoolLimits::default());
        Self { primary, replicas: Vec::new(), daemon: None, limits, from_env: false }
    }

    /// From `DATABASE_URL`, `DATABASE_REPLICA_URL` (several with commas between them; a comma in a password is `%2C`),
    /// `FAILOVER_HEALTH_CHECK_INTERVAL` in ms, and `PGPIVOT_URL` for the daemon. Without `DATABASE_URL`: from `DB_HOST`,
    /// `DB_PORT`, `DB_NAME`, `DB_USER`, `DB_PASSWORD`, `DB_SSL`, and `PGPIVOT_STANDBYS=host:port,…` with the same login.
    /// Empty values count as none.
    pub fn from_env() -> Result<Self, PoolSettingsError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`PoolBuilder::from_env`], from any other place.
    pub fn from_variables(read: impl Fn(&str) -> Option<String>) -> Result<Self, PoolSettingsError> {
        let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
        let mut builder = match read(PRIMARY_URL) {
            Some(url) => Self::new(url),
            None => by_parts(&read)?,
        };
        builder.from_env = true;
        if let Some(urls) = read(REPLICA_URL) {
            builder.replicas =
                urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(Address::from).collect();
        }
        if let Some(text) = read(INTERVAL) {
            let milliseconds = text.trim().parse();
            let milliseconds = milliseconds.map_err(|_| PoolSettingsError::NoNumber { variable: INTERVAL })?;
            builder.limits.interval = Duration::from_millis(milliseconds);
        }
        if read("PGPIVOT_URL").is_some() {
            let only_the_daemon = |name: &str| read(name).filter(|_| name == "PGPIVOT_URL");
            builder.daemon = Some(Settings::from_variables(only_the_daemon)?);
        }
        Ok(builder)
    }

    /// Another server that takes reads while it is a standby. At most 32.
    pub fn replica(mut self, replica: impl Into<Address>) -> Self {
        self.replicas.push(replica.into());
        self
    }

    /// The daemon that knows the active side. Its word is final: see [the head](super).
    pub fn daemon(mut self, daemon: Settings) -> Self {
        self.daemon = Some(daemon);
        self
    }

    /// For each server. Default 10; 1 to 10 000.
    pub fn max_connections(mut self, max: u32) -> Self {
        self.limits.max_connections = max;
        self
    }

    /// For a connection, waiting for a primary included. Default 5 s; 1 ms to 10 min.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.limits.acquire_timeout = timeout;
        self
    }

    /// For one statement of a [`Route`](super::Route), from the moment when it is sent. Default: no limit but the
    /// server's `statement_timeout`; 1 ms to 24 h.
    pub fn query_timeout(mut self, timeout: Duration) -> Self {
        self.limits.query_timeout = Some(timeout);
        self
    }

    /// A server that cannot be reached is tried again after `first`, twice that, and so on up to `max`, `attempts` times;
    /// then when a query wants it. Default 2 s, 32 s, 5; 1 ms to 1 h, 0 to 1000.
    pub fn reconnect(mut self, first: Duration, max: Duration, attempts: u32) -> Self {
        self.limits.schedule = Schedule { first, max, attempts };
        self
    }

    /// After so many failures in a row a server is sent nothing for so long; then one statement may try. Default 3, 10 s;
    /// 1 to 1000, 1 ms to 1 h.
    pub fn breaker(mut self, failures: u32, open_for: Duration) -> Self {
        self.limits.breaker = Limits { failures, open_for };
        self
    }

    /// Between two checks of a server that answers. Default 10 s; 10 ms to 1 h.
    pub fn health_check_interval(mut self, interval: Duration) -> Self {
        self.limits.interval = interval;
        self
    }

    /// For one check. Default 2 s; 1 ms to 1 min.
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.limits.check_timeout = timeout;
        self
    }

    /// After how many failed checks in a row a server counts as unhealthy in [`status`](PoolManager::status). Default 3;
    /// 1 to 1000. Reads avoid it after the first.
    pub fn unhealthy_after(mut self, checks: u32) -> Self {
        self.limits.unhealthy_after = checks;
        self
    }

    /// Whether checks are made from the start. Default true;
    /// [`start_health_checks`](PoolManager::start_health_checks) makes up for it.
    pub fn health_checks(mut self, from_the_start: bool) -> Self {
        self.limits.health_checks = from_the_start;
        self
    }

    /// How long a read that [must see something](super::Route::after) waits for a replica before it goes to the primary.
    /// Default 250 ms, as PostgreSQL may keep the end of its log for 200 ms (`wal_writer_delay`) before it sends it; 0 (only a
    /// replica that has it already) to 1 min.
    pub fn replica_wait(mut self, wait: Duration) -> Self {
        self.limits.replica_wait = wait;
        self
    }

    /// How long [`close`](PoolManager::close) waits for connections that are in use. Default 10 s; 0 (which is a second,
    /// as the others take a moment, too) to 10 min.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.limits.close_timeout = timeout;
        self
    }

    /// The `version` of [`health`](PoolManager::health): your application's. Default: pgpivot's.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.limits.version = version.into();
        self
    }

    /// Looks at every server once and goes on watching them. A server that cannot be reached is no error: it may come.
    /// Call it inside a tokio runtime.
    pub async fn connect(self) -> Result<PoolManager, PoolError> {
        PoolManager::build(self).await
    }

    /// Every server's options, the primary's first.
    pub(super) fn servers(&self) -> Result<Vec<PgConnectOptions>, PoolSettingsError> {
        self.check()?;
        let (primary, replica) = match self.from_env {
            true => (PRIMARY_URL, REPLICA_URL),
            false => ("the primary's URL", "the replica's URL"),
        };
        let mut servers = vec![self.primary.options(primary)?];
        for (number, address) in self.replicas.iter().enumerate() {
            let which =
                if self.replicas.len() == 1 { replica.to_owned() } else { format!("{replica} ({})", number + 1) };
            servers.push(address.options(&which)?);
        }
        Ok(servers)
    }

    fn check(&self) -> Result<(), PoolSettingsError> {
        let limits = &self.limits;
        let range = |good: bool, setting, range| match good {
            true => Ok(()),
            false => Err(PoolSettingsError::OutOfRange { setting, range }),
        };
        let (milli, minute, hour) = (Duration::from_millis(1), Duration::from_secs(60), Duration::from_secs(3600));
        if self.replicas.len() > MAX_REPLICAS {
            return Err(PoolSettingsError::TooManyReplicas { count: self.replicas.len(), max: MAX_REPLICAS });
        }
        range((1..=10_000).contains(&limits.max_connections), "max_connections", "from 1 to 10000")?;
        range((milli..=10 * minute).contains(&limits.acquire_timeout), "acquire_timeout", "from 1 ms to 10 min")?;
        let query_timeout = limits.query_timeout.is_none_or(|timeout| (milli..=24 * hour).contains(&timeout));
        range(query_timeout, "query_timeout", "from 1 ms to 24 h")?;
        let waits = milli <= limits.schedule.first && limits.schedule.first <= limits.schedule.max;
        range(waits && limits.schedule.max <= hour, "reconnect's waits", "from 1 ms to 1 h, the first the shortest")?;
        range(limits.schedule.attempts <= 1000, "reconnect's attempts", "at most 1000")?;
        range((1..=1000).contains(&limits.breaker.failures), "breaker's failures", "from 1 to 1000")?;
        range((milli..=hour).contains(&limits.breaker.open_for), "breaker's time", "from 1 ms to 1 h")?;
        let interval = if self.from_env { INTERVAL } else { "health_check_interval" };
        range((10 * milli..=hour).contains(&limits.interval), interval, "from 10 ms to 1 h")?;
        range((milli..=minute).contains(&limits.check_timeout), "check_timeout", "from 1 ms to 1 min")?;
        range((1..=1000).contains(&limits.unhealthy_after), "unhealthy_after", "from 1 to 1000")?;
        range(limits.replica_wait <= minute, "replica_wait", "at most 1 min")?;
        range(limits.close_timeout <= 10 * minute, "close_timeout", "at most 10 min")
    }
}

/// Host by host, with one login.
fn by_parts(read: &impl Fn(&str) -> Option<String>) -> Result<PoolBuilder, PoolSettingsError> {
    let host = read("DB_HOST").ok_or(PoolSettingsError::NoPrimary)?;
    let mut login = PgConnectOptions::new();
    if let Some(database) = read("DB_NAME") {
        login = login.database(&database);
    }
    if let Some(user) = read("DB_USER") {
        login = login.username(&user);
    }
    if let Some(password) = read("DB_PASSWORD") {
        login = login.password(&password);
    }
    login = match read("DB_SSL").map(|word| word.trim().to_ascii_lowercase()).as_deref() {
        None => login,
        Some("true" | "1" | "yes" | "on") => login.ssl_mode(PgSslMode::Require),
        Some("false" | "0" | "no" | "off") => login.ssl_mode(PgSslMode::Disable),
        Some(_) => return Err(PoolSettingsError::OutOfRange { setting: "DB_SSL", range: "true or false" }),
    };
    let bad_port = PoolSettingsError::OutOfRange { setting: "DB_PORT", range: "a number from 1 to 65535" };
    let port = match read("DB_PORT").map(|port| port.trim().parse::<u16>()) {
        None => PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(bad_port),
    };
    let mut builder = PoolBuilder::new(login.clone().host(host.trim()).port(port));
    for text in read("PGPIVOT_STANDBYS").unwrap_or_default().split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let address: crate::types::HostPort = text.parse().map_err(|_| PoolSettingsError::OutOfRange {
            setting: "PGPIVOT_STANDBYS",
            range: "host:port, several with commas between them",
        })?;
        builder = builder.replica(login.clone().host(&address.host).port(address.port));
    }
    Ok(builder)
}
