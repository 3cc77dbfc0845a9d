//! The configuration after validation: no `Option` that must be set, every number with its unit and range.
//! Reading files and the environment is `source`'s work, the TOML mirror is `raw`'s.

pub mod certificate;
pub mod diff;
pub mod env;
mod patroni;
pub mod raw;
pub mod reference;
mod replication;
pub mod report;
mod sight;
pub mod source;
mod standbys;
pub mod validate;

pub use standbys::Survivors;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use certificate::{ListenerTls, Terminate};

use crate::types::{BackendName, HostPort, Secret, ServiceName};

pub use patroni::Patroni;
pub use replication::{CockroachCloud, CockroachSql, Replication, silence};

/// Everything the daemon runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Page, metrics, API.
    pub admin: Admin,
    /// Where latch and history live.
    pub state: State,
    /// In the order of the file; at least one.
    pub services: Vec<Service>,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Default `127.0.0.1:8404`; `None` = only the unix socket.
    pub listen: Option<SocketAddr>,
    /// A unix socket with the same API; whoever may open it may command.
    pub socket: Option<PathBuf>,
    /// File with `name:token` lines; required off loopback.
    pub token_file: Option<PathBuf>,
    /// The tokens read from it: (operator name, token).
    pub tokens: Vec<(String, Secret)>,
    /// Names that browsers call the page by, beside `localhost`, this machine's own name and literal addresses.
    pub hosts: Vec<String>,
    /// A listener that serves only `/metrics`.
    pub metrics_listen: Option<SocketAddr>,
    /// `DB_USERNAME` and `DB_PASSWORD`: what `/connection` fills in for a caller with a token or on the unix socket.
    pub credentials: Option<(String, Secret)>,
}

/// `[state]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Default `$STATE_DIRECTORY`, else `./pgpivot-state`.
    pub path: PathBuf,
}

/// What stands behind a service; chooses the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Streaming replication.
    Postgres,
    /// Physical cluster replication.
    Cockroach,
}

/// `[service.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The name in the table's header.
    pub name: ServiceName,
    /// `kind`.
    pub kind: Kind,
    /// Worker threads of the data plane; default the number of cores, 1 to 256.
    pub workers: usize,
    /// May be empty: monitor only.
    pub listeners: Vec<Listener>,
    /// At least one.
    pub backends: Vec<Backend>,
    /// How health is learned.
    pub probe: Probe,
    /// How a failover is decided and done.
    pub failover: Failover,
    /// Where physical cluster replication is read and steered; only for kind cockroach.
    pub replication: Option<Replication>,
    /// What is asked of readers.
    pub read_only: ReadOnly,
    /// Whom it follows; only with `authority = "patroni"`.
    pub patroni: Option<Patroni>,
    /// Timeouts and socket options of relayed connections.
    pub connection: Connection,
}

/// `[service.NAME.read_only]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOnly {
    /// How old at most is what a standby shows to readers; `None` = however old, while it streams. Default 10 s, at least
    /// two probe intervals and a timeout, at most 24 h; told only by `sql` probes of PostgreSQL.
    pub max_lag: Option<Duration>,
}

/// `[[service.NAME.listener]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Only `opaque` so far.
    pub mode: Mode,
    /// Which side serves.
    pub target: Target,
    /// Default 10000, 1 to 1,000,000; over it a plaintext client gets 53300.
    pub max_connections: usize,
    /// What becomes of clients' TLS; default pass-through.
    pub tls: ListenerTls,
}

/// Listener modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Bytes pass untouched after the first packet was told apart.
    Opaque,
}

/// Which side a listener leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The latched side, never another.
    Active,
    /// Fit standbys by weight, the active side if none is fit.
    ReadOnly,
}

/// `[[service.NAME.backend]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Unique within the service.
    pub name: BackendName,
    /// At least one; empty only where [`Replication::Cloud`] can be asked for the host of `cluster_id`.
    pub addresses: Vec<HostPort>,
    /// Role for the first start, before a latch exists; `None` = ask the servers.
    pub role: Option<ConfiguredRole>,
    /// Share within a tier, 0 to 65535, default 100.
    pub weight: u32,
    /// Order among equally advanced candidates, lower first; 0 to 65535, default 100.
    pub priority: u32,
    /// `false`: never a candidate, not by force either; default true.
    pub promote: bool,
    /// Where the other servers reach it for replication; default the address that this daemon reaches it at.
    pub replication_address: Option<HostPort>,
    /// TLS of our own connections (probes, promoters).
    pub tls: Tls,
    /// The Cloud API's id of this cluster, a UUID in lower case; set where replication is steered through that API.
    pub cluster_id: Option<String>,
    /// Its name in Patroni; `None` = found by its address.
    pub member: Option<String>,
}

/// `role` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfiguredRole {
    /// The side to start with.
    Primary,
    /// The backup tier.
    Standby,
}

/// TLS of our own connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Default `prefer`.
    pub mode: TlsMode,
    /// PEM bundle; default the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Name to verify; default the address's host.
    pub server_name: Option<String>,
}

/// As libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS when the server offers it, certificate unchecked.
    Prefer,
    /// TLS or nothing, certificate unchecked.
    Require,
    /// TLS, chain checked.
    VerifyCa,
    /// TLS, chain and name checked.
    VerifyFull,
}

impl TlsMode {
    /// libpq's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// `[service.NAME.probe]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Default `sql` for postgres, `startup` for cockroach.
    pub kind: ProbeKind,
    /// Between probes of a healthy endpoint; default 2 s, cockroach 30 s; 100 ms to 1 h.
    pub interval: Duration,
    /// While suspect; default 500 ms, preset fast 300 ms, cockroach `interval`; 50 ms to `interval`.
    pub fast_interval: Duration,
    /// Between probes of an endpoint that is down; default `interval`; 100 ms to 1 h.
    pub down_interval: Duration,
    /// Default 1 s, cockroach 10 s; 10 ms to 5 min and at most ten times `interval`.
    pub timeout: Duration,
    /// Consecutive failures to become down; default 3; 1 to 100.
    pub fall: u32,
    /// Consecutive passes to become up; default 2; 1 to 100.
    pub rise: u32,
    /// Percent of `interval` by which each wait varies; default 10, cockroach 0; 0 to 50 (`jitter = 0.1` in the file).
    pub jitter_percent: u8,
    /// A request without any byte back for this long starts the hang rules; default 2 s, preset fast 500 ms,
    /// cockroach 10 s; 100 ms to 5 min.
    pub hang_trigger: Duration,
    /// `true`: passive evidence may advance the decision; default true, cockroach false.
    pub passive: bool,
}

/// What one probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// A TCP connect.
    Tcp,
    /// A StartupMessage without credentials, the reply classified.
    Startup {
        /// User and database named in it.
        login: Login,
    },
    /// A login and queries.
    Sql {
        /// Who logs in.
        login: Login,
    },
    /// A GET.
    Http(HttpProbe),
}

impl ProbeKind {
    /// The word in configuration and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Startup { .. } => "startup",
            Self::Sql { .. } => "sql",
            Self::Http(_) => "http",
        }
    }
}

/// `user`, `password_file`, `database` of the probe; the promoter uses the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Default `pgpivot`.
    pub user: String,
    /// Default `postgres`, for cockroach `defaultdb`.
    pub database: String,
    /// From `password_file` or the environment.
    pub password: Option<Secret>,
}

/// An HTTP check, as Patroni's `/primary` or CockroachDB's `/health?ready=1` want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// Path with query; default `/primary`.
    pub path: String,
    /// Port of the HTTP server on the endpoint's host; default the endpoint's own.
    pub port: Option<u16>,
    /// `https` with the backend's TLS settings.
    pub tls: bool,
    /// Statuses that pass; default 200.
    pub expect_status: Vec<u16>,
    /// Text the body must contain.
    pub expect_body: Option<String>,
    /// It passes on the primary alone; default true for Patroni's `/primary`, `/leader`, `/master`, `/read-write`.
    pub primary_only: bool,
}

/// `[service.NAME.failover]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// Decide without an operator; default true.
    pub automatic: bool,
    /// Wait after `fall`, then recheck; default 0, cockroach 60 s; at most 1 h.
    pub delay: Duration,
    /// After an episode; default 60 s; at most 24 h.
    pub cooldown: Duration,
    /// Episodes that reached `sent` in 24 h; default 3; 0 = never automatically; at most 100.
    pub max_per_day: u32,
    /// Bytes, for kind postgres; default 16 MiB; at most 1024 TiB.
    pub max_lag: u64,
    /// The same for kind cockroach, where `max_lag` is a time: how much the stream may lack of what was committed up to
    /// the first evidence; default 2 min; 1 s to 24 h.
    pub max_replication_lag: Duration,
    /// A candidate must have streamed this shortly before; default 10 s; 1 s to 1 h.
    pub max_disconnect: Duration,
    /// Default required.
    pub witness: WitnessRule,
    /// How long a newcomer waits while no side may be used; default 30 s, cockroach 5 min; at most 1 h.
    pub hold_timeout: Duration,
    /// How many wait at most, per service; default 1000; at most 1,000,000.
    pub max_held: usize,
    /// How many of one client address wait at most; default 200; 1 to 1,000,000.
    pub max_held_per_address: usize,
    /// Held connections released per second; default 1000; 1 to 1,000,000.
    pub release_rate: u32,
    /// How long running work may go on at a switchover before it is cut; default 5 s; at most 1 h.
    pub drain_timeout: Duration,
    /// Who makes a standby writable.
    pub promoter: Promoter,
    /// After this a pending promotion alerts; default 60 s, with replication of clusters 60 min; 1 s to 1 h, cockroach
    /// 24 h.
    pub promote_timeout: Duration,
    /// `self`, `observe` or `patroni`.
    pub authority: Authority,
    /// argv of the node fence.
    pub fence_command: Option<Vec<String>>,
    /// The fence must succeed before a promotion; default false.
    pub fence_required: bool,
    /// An old primary that still serves, or comes back as one, is made read-only and its clients are ended; default true
    /// where this daemon promotes PostgreSQL servers, false elsewhere.
    pub soft_fence: bool,
    /// argv that makes an old primary a standby again; `None` = people type it.
    pub rejoin_command: Option<Vec<String>>,
    /// How long that may run; default 30 min; 10 s to 7 days.
    pub rejoin_timeout: Duration,
    /// Sides that always serve: the latch may move without a promotion.
    pub standby_serves: bool,
    /// What to do with a promotion somebody else made; `None` = laws' default.
    pub foreign_promotion: Option<ForeignPromotion>,
    /// What to do with unsatisfied synchronous replication after a promotion.
    pub sync_after_failover: SyncRule,
    /// What to do with standbys that do not follow the new primary; default `repoint` where this daemon promotes by
    /// `pg_promote` or has a `follow_command`.
    pub survivors: Survivors,
    /// argv that points a standby at the new primary, where SQL may not.
    pub follow_command: Option<Vec<String>>,
    /// How long a recovering primary freezes the fall counter; default 30 s; at most 1 h.
    pub recovery_patience: Duration,
    /// How long a restart announced by 57P01/57P03 is waited for; default 10 s; at most 1 h.
    pub restart_grace: Duration,
    /// How long a hung backend with a live walsender is watched before a node fence may decide; default 10 s; 1 s to 1 h.
    pub hung_grace: Duration,
    /// How long other backends are waited for at start; default 2 s, with replication of clusters 15 s; at most 5 min.
    pub verify_wait: Duration,
}

/// Whether a failover needs the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WitnessRule {
    /// All unknown blocks.
    Required,
    /// All unknown does not block; a live one still does.
    Optional,
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Authority {
    /// This daemon.
    SelfDecides,
    /// Somebody else promotes, pgpivot follows what it proves.
    Observe,
    /// Patroni promotes; pgpivot asks it whom to look at, follows what is proven, and passes orders on.
    Patroni,
}

/// `foreign_promotion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForeignPromotion {
    /// Adopt it.
    Follow,
    /// Keep the latched side while it is primary.
    Block,
}

/// `sync_after_failover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncRule {
    /// Say so.
    Report,
    /// Empty `synchronous_standby_names` on the new side.
    Clear,
    /// Set it for the standbys that are left; empty if none is.
    Adapt,
}

/// `promoter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promoter {
    /// Only a side that proves to serve, or an operator's word.
    None,
    /// argv, no shell; `{backend} {address} {epoch}` are replaced.
    Command(Vec<String>),
    /// `pg_promote` with this login.
    Postgres {
        /// Who calls it; default the probe's login.
        login: Login,
    },
    /// The replication stream is failed over through the Cloud API; takes [`Replication::Cloud`].
    CockroachCloud,
    /// `ALTER VIRTUAL CLUSTER … COMPLETE REPLICATION` on the standby; takes [`Replication::Sql`].
    CockroachSql,
}

impl Promoter {
    /// The word in configuration and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Command(_) => "command",
            Self::Postgres { .. } => "postgres",
            Self::CockroachCloud => "cockroach_cloud",
            Self::CockroachSql => "cockroach_sql",
        }
    }
}

/// `[service.NAME.connection]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Of one address when dialling; default 3 s; 10 ms to 5 min.
    pub connect_timeout: Duration,
    /// For the first packet of a client; default 10 s; 100 ms to 10 min.
    pub first_packet_timeout: Duration,
    /// TCP keepalive idle time on both sides; default 30 s; 1 s to 2 h.
    pub keepalive: Duration,
    /// TCP_USER_TIMEOUT on both sides; default 5 min; 0 = the kernel's; at most 1 h.
    pub user_timeout: Duration,
}
