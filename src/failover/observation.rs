//! What the machine is told: results of probes and what the data plane saw, each stamped with its own time.
//! Holds no judgement: counting is `health`'s, the replication stream is `witness`'s.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sync_names::SyncNames;
use crate::types::{BackendName, Lsn, Moment, SystemId, Timeline, WallTime};

/// The result of one probe of one address.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Whose address.
    pub backend: BackendName,
    /// The very address that was probed.
    pub address: SocketAddr,
    /// When the probe began.
    pub started: Moment,
    /// When its verdict stood.
    pub finished: Moment,
    /// `true`: on a connection made for this probe; `false`: on the kept one.
    pub fresh: bool,
    /// What it found.
    pub verdict: Verdict,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It answered as its kind demands; `sql` brings facts, the others only what they can prove.
    Answered(Box<Facts>),
    /// 57P03 "starting up", "in recovery mode", "not yet accepting connections".
    Recovering,
    /// A live server that will not talk to us, or nothing learned at all: never a failure.
    Unknown(Unknown),
    /// The server did not serve.
    Failed(Failure),
}

/// Why a probe says nothing about death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// 28xxx: the server lives, the credentials of the probe are wrong or not allowed.
    #[error("the server refuses the probe's login (28xxx); check user, password and host-based authentication")]
    Authentication,
    /// 3D000.
    #[error("the probe's database does not exist (3D000)")]
    NoDatabase,
    /// The certificate does not verify.
    #[error("the server's certificate does not verify")]
    Certificate,
    /// TLS is required and the server has none, or the other way round.
    #[error("TLS settings of server and probe do not meet")]
    TlsMismatch,
    /// 53300.
    #[error("the server has no free connection slot (53300)")]
    TooManyConnections,
    /// 53100.
    #[error("the server's disk is full (53100)")]
    DiskFull,
    /// 57P02.
    #[error("the server is recovering from a crash of one of its processes (57P02)")]
    CrashShutdown,
    /// Our own timer woke more than 250 ms late.
    #[error("the probe itself ran late")]
    OwnDelay,
    /// The name did not resolve.
    #[error("the host name does not resolve")]
    NoAddress,
    /// 42501 and other errors of a live server.
    #[error("the server answered the probe's query with an error")]
    QueryRefused,
    /// A local resource ran out (descriptors, ports).
    #[error("this machine has no descriptor or port left for the probe")]
    LocalResource,
}

impl Unknown {
    /// Did a live server say it?
    pub fn proves_life(self) -> bool {
        !matches!(self, Self::OwnDelay | Self::NoAddress | Self::LocalResource | Self::CrashShutdown)
    }
}

/// How a server failed to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// ECONNREFUSED.
    #[error("connection refused")]
    Refused,
    /// No answer in time, whatever the step.
    #[error("no answer in time")]
    TimedOut,
    /// EHOSTUNREACH, ENETUNREACH.
    #[error("host unreachable")]
    Unreachable,
    /// Reset or end of stream after the connect.
    #[error("connection lost")]
    Lost,
    /// 57P01, or 57P03 "shutting down": somebody stops it on purpose.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// 08000: the cluster lives and does not serve this virtual cluster.
    #[error("the cluster does not serve (08000)")]
    NotServing,
    /// Not the protocol, or (http) not the expected status or body.
    #[error("an unexpected reply")]
    BadReply,
}

/// What a backend itself says it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Not in recovery, or an `http` check that passes only on a primary.
    Primary,
    /// In recovery.
    Standby,
    /// The probe's kind cannot tell.
    #[default]
    Unknown,
}

/// What an `sql` probe reads. For other kinds everything is unknown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// `pg_is_in_recovery()`.
    pub role: Role,
    /// `pg_control_system()` or IDENTIFY_SYSTEM.
    pub system_id: Option<SystemId>,
    /// On a primary from `pg_walfile_name(pg_current_wal_insert_lsn())`, on a standby `received_tli`.
    pub timeline: Option<Timeline>,
    /// On a primary the flush position, on a standby the greater of received and replayed.
    pub lsn: Option<Lsn>,
    /// On a standby the replayed position.
    pub replay_lsn: Option<Lsn>,
    /// `inet_server_addr():inet_server_port()`.
    pub node: Option<String>,
    /// `clock_timestamp()`.
    pub clock: Option<WallTime>,
    /// On a standby: `pg_stat_wal_receiver`.
    pub receiver: Receiver,
    /// On a standby: `wal_receiver_timeout`; zero = switched off.
    pub receiver_timeout: Option<Duration>,
    /// On a primary with a timeline above 1: its ancestors, oldest first, from TIMELINE_HISTORY.
    pub history: Option<Vec<Ancestor>>,
    /// `application_name`s of other pgpivot daemons connected there, as `pgpivot/<daemon>/<service>/<epoch>`.
    pub daemons: Vec<String>,
    /// On a standby: may this login execute `pg_promote`?
    pub may_promote: Option<bool>,
    /// Has this login `pg_read_all_stats` (else the receiver's columns are NULL)?
    pub may_read_stats: Option<bool>,
    /// On a primary: the state of synchronous replication.
    pub sync: Option<SyncState>,
    /// On a primary: `application_name`s of standbys that stream from it.
    pub standbys: Vec<String>,
}

impl Facts {
    /// Where the timeline it shows branched off, if its history tells.
    pub fn branched(&self) -> Option<Lsn> {
        self.history.as_ref()?.last().map(|ancestor| ancestor.switch_lsn)
    }
}

/// One line of a timeline history file: up to `switch_lsn` the log belongs to `timeline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// The older timeline.
    pub timeline: Timeline,
    /// Where the next one branched off.
    pub switch_lsn: Lsn,
}

/// `synchronous_standby_names` and what it does now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncState {
    /// The setting; empty = asynchronous.
    pub names: String,
    /// Standbys that count as synchronous now.
    pub synchronous: Vec<String>,
    /// `synchronous_commit` as it is by default: `off` and `local` wait for nobody.
    pub commit: String,
}

impl SyncState {
    /// Would a commit wait for ever?
    pub fn blocks_commits(&self) -> bool {
        self.synchronous.len() < self.needed()
    }

    /// How many standbys a commit waits for.
    pub fn needed(&self) -> usize {
        match SyncNames::parse(&self.names) {
            Ok(names) => names.map_or(0, |names| names.number as usize),
            Err(_) => 1,
        }
    }
}

/// `pg_stat_wal_receiver` of a standby.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Receiver {
    /// Not asked, or not to be seen (columns NULL: no `pg_read_all_stats`).
    #[default]
    Unknown,
    /// No row: nothing is received.
    Gone,
    /// A row.
    Row(ReceiverRow),
}

/// The columns of `pg_stat_wal_receiver` that decide.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceiverRow {
    /// `status = 'streaming'`.
    pub streaming: bool,
    /// `received_tli`.
    pub timeline: Option<Timeline>,
    /// `greatest(written_lsn, latest_end_lsn)`.
    pub lsn: Option<Lsn>,
    /// `last_msg_send_time`: the upstream's clock.
    pub sent: Option<WallTime>,
    /// `last_msg_receipt_time`: the standby's clock.
    pub received: Option<WallTime>,
    /// `sender_host:sender_port`.
    pub sender: Option<String>,
    /// As the sender lists it: from `conninfo`.
    pub application_name: Option<String>,
}

/// What the data plane and the probes' kept connections saw without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A dial for a client failed.
    ConnectFailed {
        /// Which side.
        backend: BackendName,
        /// Which address.
        address: SocketAddr,
        /// How.
        failure: Failure,
    },
    /// A server ended a relayed connection.
    ServerEnded {
        /// Which side.
        backend: BackendName,
    },
    /// The last relayed connection of a side has ended, or (`live` > 0) the number of those that live.
    Connections {
        /// Which side.
        backend: BackendName,
        /// How many are attached now.
        live: usize,
    },
    /// The kept connection of the probe was lost without having been closed by us.
    ProbeConnectionLost {
        /// Which side.
        backend: BackendName,
    },
    /// Bytes came from this side at that time.
    Answered {
        /// Which side.
        backend: BackendName,
        /// When the last of them came.
        at: Moment,
    },
    /// So many bytes were handed to this side for clients since the daemon started.
    Relayed {
        /// Which side.
        backend: BackendName,
        /// Over all services of the pair.
        bytes: u64,
    },
    /// A request stands without any byte back from the whole side.
    Unanswered {
        /// Which side.
        backend: BackendName,
        /// Since when.
        since: Moment,
    },
}

impl Evidence {
    /// Whose side it speaks of.
    pub fn backend(&self) -> &BackendName {
        match self {
            Self::ConnectFailed { backend, .. }
            | Self::ServerEnded { backend }
            | Self::Connections { backend, .. }
            | Self::ProbeConnectionLost { backend }
            | Self::Answered { backend, .. }
            | Self::Relayed { backend, .. }
            | Self::Unanswered { backend, .. } => backend,
        }
    }
}
