//! The read model: what server, page, CLI and client library show. Plain data that (de)serialises, and how an
//! application is told to connect; no logic beyond that.

mod admin_state;
pub mod databases;
pub mod dsn;
mod durations;
mod listener;
mod patroni;
mod rejoin;
pub mod sides;
mod standbys;
pub mod url;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::types::{BackendName, Epoch, HostPort, Lsn, ServiceName, SystemId, Timeline, WallTime};

pub use admin_state::AdminStatus;
pub use durations::{BOUNDS_US, Durations};
pub use listener::{ListenerStatus, ListenerTls};
pub use patroni::{PatroniMember, PatroniStatus};
pub use rejoin::{RejoinStatus, fence_words};
pub use standbys::{Durability, Following};

/// `GET /failover/status`: everything the page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the crate.
    pub version: String,
    /// This daemon's name, unique per start: `host:pid`-like.
    pub daemon: String,
    /// Number of the routing snapshot.
    pub generation: u64,
    /// When this was read.
    pub at: WallTime,
    /// When the daemon started.
    pub started: WallTime,
    /// Whether the state can be written; `Err` text otherwise.
    pub state_error: Option<String>,
    /// Panics and other ends of tasks that must not end, since the start.
    pub task_failures: u64,
    /// In the order of the configuration.
    pub services: Vec<ServiceStatus>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// `postgres` or `cockroach`.
    pub kind: String,
    /// Where the machine stands ([`crate::failover::phase::Phase`] as text).
    pub phase: String,
    /// The seeds' public state: healthy, degraded, failover_in_progress, failover_complete, recovery_in_progress, unknown.
    pub state: String,
    /// Worst colour the page needs: `ok`, `warn`, `bad`.
    pub level: Level,
    /// The active side.
    pub active: Option<BackendName>,
    /// The latch's number.
    pub epoch: Epoch,
    /// Since when it is active.
    pub since: Option<WallTime>,
    /// Why it is active: the latch's sentence.
    pub why: String,
    /// What the evidence says now, one sentence.
    pub evidence: String,
    /// What would happen next, one sentence.
    pub next: String,
    /// Set while something must not be decided.
    pub blocked: Option<Blocked>,
    /// Set while an operator stopped new decisions.
    pub paused: Option<String>,
    /// Newcomers pass (`true`) or are held.
    pub open: bool,
    /// Why they are held.
    pub closed_why: Option<String>,
    /// Clients that wait now.
    pub held: u64,
    /// Automatic episodes left within 24 hours.
    pub budget_left: u32,
    /// `max_per_day`.
    pub budget: u32,
    /// No automatic episode before this.
    pub cooldown_until: Option<WallTime>,
    /// A standby is promoted without anybody's word, once the active side is proven dead.
    #[serde(default)]
    pub automatic: bool,
    /// `max_lag` of servers: a standby that is further behind is not promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag_bytes: Option<u64>,
    /// `max_lag` of clusters, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag_ms: Option<u64>,
    /// How many clients may wait at one time.
    #[serde(default)]
    pub max_held: u64,
    /// `self`, `observe` or `patroni`.
    pub authority: String,
    /// `none`, `command`, `postgres`.
    pub promoter: String,
    /// At least one standby could be promoted right now.
    pub armed: bool,
    /// Other daemons seen on this pair, and other pairs of this daemon that lead the same servers.
    pub other_daemons: Vec<String>,
    /// The episode under way.
    pub episode: Option<Episode>,
    /// Episodes since the first start, by the store's count.
    pub episodes: u64,
    /// Failovers that ended with a new active side since the daemon started, by (trigger, outcome).
    pub switches: Vec<SwitchCount>,
    /// What was written beside promotions of others.
    #[serde(default)]
    pub beside: Beside,
    /// Worst case from the crash of the primary to the decision, milliseconds.
    pub detection_crash_ms: u64,
    /// Worst case from its hang to the decision, milliseconds; `None` = no automatic decision.
    pub detection_hang_ms: Option<u64>,
    /// In the order of the configuration.
    pub backends: Vec<BackendStatus>,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// Failed checks in a row of the active side until it counts as down.
    #[serde(default)]
    pub fall: u32,
    /// The threshold is reached: when `delay` is over and the last look is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decides_at: Option<WallTime>,
    /// Clusters: what was read of their replication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationStatus>,
    /// Where Patroni is the authority: what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patroni: Option<PatroniStatus>,
    /// The old primary that is being made a standby again, else the last one since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoin: Option<RejoinStatus>,
    /// PostgreSQL: what an acknowledged commit is worth now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

impl ServiceStatus {
    /// Clusters: by how many milliseconds the stream to this side is behind.
    pub fn stream_lag_ms(&self, to: &BackendName) -> Option<u64> {
        let streams = self.replication.iter().flat_map(|replication| &replication.streams);
        streams.filter(|stream| stream.to == *to).find_map(|stream| stream.lag_ms)
    }
}

/// What a check of a pair's audit trail found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainStatus {
    /// Under which name the pair's state is kept.
    pub pair: String,
    /// Lines that are what they were when they were written.
    pub lines: u64,
    /// Number of the first one that is kept, and of the last.
    pub first: Option<u64>,
    /// See `first`.
    pub last: Option<u64>,
    /// How many places are broken.
    pub broken: u64,
    /// Where and how, the first hundred.
    pub breaks: Vec<String>,
}

/// Physical replication between the clusters of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationStatus {
    /// Where it is read: `cloud_api` or `sql`.
    pub source: String,
    /// When it was last read.
    pub read_at: Option<WallTime>,
    /// Why the last reading failed; `None` = it did not.
    pub trouble: Option<String>,
    /// The 99th percentile of the lags of the last hour, milliseconds.
    pub usual_lag_ms: u64,
    /// Those that are known, in both directions: those that have ended first, each newest last.
    pub streams: Vec<StreamStatus>,
}

/// One replication stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Its id.
    pub id: String,
    /// Its primary cluster.
    pub from: BackendName,
    /// Its standby cluster.
    pub to: BackendName,
    /// `starting`, `replicating`, `stalled`, `failing over`, `completed`, `canceled`, `gone` or `unknown`.
    pub status: String,
    /// Since when it was seen so.
    pub since: WallTime,
    /// Up to when the standby has everything; only while it replicates.
    pub replicated_at: Option<WallTime>,
    /// How far that is behind now, by the source's clock, milliseconds.
    pub lag_ms: Option<u64>,
    /// The earliest moment that it could be failed over to.
    pub retained_at: Option<WallTime>,
    /// The moment that a failover was asked for.
    pub failover_at: Option<WallTime>,
    /// As of when the standby was activated.
    pub activated_at: Option<WallTime>,
}

/// What was found on sides that were left when a promotion of somebody else was followed, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Client connections that were cut there.
    pub connections: u64,
    /// Bytes that were relayed there since the new side was last seen as a standby.
    pub relayed_bytes: u64,
    /// Bytes of log that stand only there.
    pub log_bytes: u64,
}

/// How often episodes ended how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchCount {
    /// `automatic` or `operator`.
    pub trigger: String,
    /// `failover`, `switchover`, `route`, `follow`.
    pub kind: String,
    /// `switched` or `cancelled`.
    pub outcome: String,
    /// How often.
    pub count: u64,
}

/// A colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Green.
    #[default]
    Ok,
    /// Amber: look in the morning.
    Warn,
    /// Red: look now.
    Bad,
}

/// Why nothing is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// [`crate::failover::phase::BlockReason`] as text.
    pub reason: String,
    /// One sentence with its evidence and what to do.
    pub sentence: String,
    /// Since when.
    pub since: WallTime,
}

/// An episode under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// Its number.
    pub id: u64,
    /// `failover`, `switchover`, `route`, `follow`.
    pub kind: String,
    /// The side left.
    pub from: Option<BackendName>,
    /// The candidate.
    pub to: BackendName,
    /// `intent`, `freezing`, `sent`; `ordered` of somebody else's, before it is followed.
    pub stage: String,
    /// Why it was decided.
    pub why: String,
    /// When.
    pub decided_at: WallTime,
    /// Who commanded it.
    pub operator: Option<String>,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: BackendName,
    /// The latch names it.
    pub active: bool,
    /// What it says of itself: `primary`, `standby`, `unknown`.
    pub role: String,
    /// `up`, `down`, `unknown`, `recovering`.
    pub health: String,
    /// Since when.
    pub health_since: Option<WallTime>,
    /// Red: gets not one byte, and why.
    pub quarantined: Option<String>,
    /// It was left and has not come back as a standby: what keeps writes from it, `route`, `node-soft` or `node-hard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<String>,
    /// Clusters: what the control plane records of it beside its normal state: information, never a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// An operator took newcomers from it; absent = it is `ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminStatus>,
    /// Share within its tier.
    pub weight: u32,
    /// `active` or `backup`.
    pub tier: String,
    /// Its system identifier.
    pub system_id: Option<SystemId>,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// Primary: flushed; standby: received.
    pub lsn: Option<Lsn>,
    /// Standby: bytes behind the primary's last seen flush position.
    pub lag_bytes: Option<u64>,
    /// Standby: received but not yet replayed, bytes.
    pub replay_backlog_bytes: Option<u64>,
    /// How long its replay would take at the pace of late, milliseconds: a promotion waits for it.
    #[serde(default)]
    pub replay_backlog_ms: Option<u64>,
    /// Standby: every commit acknowledged so long ago is shown to its readers, milliseconds.
    #[serde(default)]
    pub read_age_ms: Option<u64>,
    /// Standby of a service with a `read_only` listener: why it takes no readers; `None` = it takes them.
    #[serde(default)]
    pub no_readers_why: Option<String>,
    /// Standby: what it testifies: `writing`, `idle`, `gone`, `silent`, `unknown`, or `streaming` while nothing is asked.
    pub witness: Option<String>,
    /// Standby: it could be promoted right now.
    pub armed: bool,
    /// Why not, one sentence each, with the statement to type.
    pub unarmed_why: Vec<String>,
    /// Standby of PostgreSQL: how it stands to the active side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<Following>,
    /// Consecutive failures.
    pub failures: u32,
    /// Total failed probes since the start.
    pub failed_probes: u64,
    /// Total probes since the start.
    pub probes: u64,
    /// Times it came back up after it was down, since the start.
    #[serde(default)]
    pub recoveries: u64,
    /// The last probe: when, how long (µs), what it found.
    pub last_probe: Option<ProbeStatus>,
    /// How long fresh probes took that came to an end.
    #[serde(default)]
    pub probe_durations: Durations,
    /// How long clients' connections to it took until they stood.
    #[serde(default)]
    pub connect_durations: Durations,
    /// Attached client connections now.
    pub connections: u64,
    /// Per address.
    pub endpoints: Vec<EndpointStatus>,
    /// As configured, resolved or not; empty where the Cloud API tells the host.
    #[serde(default)]
    pub addresses: Vec<HostPort>,
    /// The Cloud API's id, where it is configured.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// The role configured for the first start: `primary`, `standby`.
    #[serde(default)]
    pub configured_role: Option<String>,
    /// How our own connections to it are encrypted, in libpq's word.
    #[serde(default)]
    pub sslmode: Option<String>,
    /// The file with the CA they trust, on the daemon's machine.
    #[serde(default)]
    pub sslrootcert: Option<String>,
}

/// The last probe of a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// When its verdict stood.
    pub at: WallTime,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// What it found, in words.
    pub text: String,
}

/// One address of a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// As configured.
    pub address: Option<HostPort>,
    /// As resolved.
    pub ip: SocketAddr,
    /// `up`, `down`, `unknown`, `recovering`.
    pub health: String,
    /// An operator took newcomers from this address; absent = it is `ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminStatus>,
    /// Attached now.
    pub connections: u64,
    /// Counters since the start.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Counters of an endpoint or a listener since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections attached (endpoint) or accepted (listener).
    pub sessions: u64,
    /// The most at one time.
    pub max_connections_seen: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Dials that failed, or connections refused before a dial.
    pub errors: u64,
    /// Connections cut, by reason.
    pub cut: Vec<(String, u64)>,
}

/// RFC 9457 problem details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word behind `about:pgpivot/`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what would be right.
    pub detail: String,
}
