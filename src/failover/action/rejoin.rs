//! What is read of two servers before one of them is made a standby of the other, and what comes of doing it.

use crate::failover::phase::{Method, Process};
use crate::types::{BackendName, Lsn, SystemId, Timeline};

/// Both servers, read for this question.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// The one that shall be a standby; `Err` = it could not be asked, and why.
    pub side: Result<Standing, String>,
    /// The latched primary.
    pub source: Result<Source, String>,
}

/// How the old primary stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `pg_control_system()`.
    pub system_id: SystemId,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// On a primary from the name of its log file, on a standby what it received or replays.
    pub timeline: Option<Timeline>,
    /// On a primary where its log ends, on a standby the greater of received and replayed.
    pub lsn: Option<Lsn>,
    /// `wal_log_hints` or data checksums are on, and `full_page_writes` too: pg_rewind can see what changed.
    pub rewindable: bool,
    /// Start of the oldest log it still has; `None` = not to be seen.
    pub oldest: Option<Lsn>,
    /// `data_directory`; `None` = not to be seen.
    pub data: Option<String>,
}

/// How the latched primary stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `pg_control_system()`.
    pub system_id: SystemId,
    /// From the name of its log file.
    pub timeline: Timeline,
    /// As in [`Standing`].
    pub oldest: Option<Lsn>,
}

/// Whom to make a standby of whom, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejoinOrder {
    /// The old primary.
    pub backend: BackendName,
    /// The latched side.
    pub primary: BackendName,
    /// How.
    pub method: Method,
    /// The command runs already, started before a restart of ours: only its end is waited for.
    pub running: Option<Process>,
}

/// What is heard of a rejoin's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejoining {
    /// It runs.
    Started(Process),
    /// Its newest line.
    Said(String),
    /// It ended with status 0.
    Done,
    /// It ended, and nobody saw how: it was another process' child.
    Unseen,
    /// It could not be started, failed, or did not end in time.
    Failed(String),
}

/// What came of making an old primary read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Softened {
    /// Client sessions that were ended.
    pub ended: u64,
    /// What may write all the same, one sentence each; empty = nobody that a setting binds.
    pub gaps: Vec<String>,
}
