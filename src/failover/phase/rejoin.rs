//! An old primary that is being made a standby again, as far as a restart must know it.

use serde::{Deserialize, Serialize};

use crate::types::{BackendName, Epoch, Lsn, WallTime};

/// One rejoin under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoin {
    /// Who is made a standby.
    pub backend: BackendName,
    /// Of whom.
    pub primary: BackendName,
    /// In which epoch: another one makes it void.
    pub epoch: Epoch,
    /// How.
    pub method: Method,
    /// When it was ordered.
    pub since: WallTime,
    /// Who ordered it.
    pub by: String,
    /// Where its line parted from the latched one, and how many bytes it wrote after that; `None` = not known.
    pub parted: Option<(Lsn, u64)>,
    /// How far it is.
    pub stage: RejoinStage,
}

/// How far a rejoin is. Each is written before what follows it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejoinStage {
    /// The command is about to be started.
    Ordered,
    /// It runs as this process, or ran when this was written.
    Running(Process),
    /// It ended; the server must stream now. Since when.
    Ended(WallTime),
}

/// A process that is still the same one after a restart of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number; it leads a group of that number.
    pub pid: u32,
    /// When it started, clock ticks since the machine did: numbers are used again.
    pub started: u64,
}

/// How an old primary is made a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// It wrote nothing that the new line does not have: restarted as a standby.
    Follow,
    /// pg_rewind: what it wrote after the lines parted is thrown away.
    Rewind,
    /// pg_basebackup: all that it has is thrown away.
    BaseBackup,
}

impl Method {
    /// The word for operators and in `{method}`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::Rewind => "rewind",
            Self::BaseBackup => "basebackup",
        }
    }

    /// As it stands in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Follow => "a restart as standby",
            Self::Rewind => "pg_rewind",
            Self::BaseBackup => "a new base backup",
        }
    }
}
