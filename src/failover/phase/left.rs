//! Sides that were left: who they were as primaries, and what keeps writes from them now.

use serde::{Deserialize, Serialize};

use crate::failover::action::Latched;
use crate::types::BackendName;

/// A side that was active once, and has not come back as a standby since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its name.
    pub backend: BackendName,
    /// Who it was when it was active: nobody else is ever fenced in its place.
    pub server: Latched,
    /// What keeps writes from it.
    pub grade: Grade,
}

/// What keeps writes from a side that was left, from the weakest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// This proxy gives it no byte; who connects past it may write.
    Route,
    /// The server is read-only for newcomers, and who was connected before was ended.
    NodeSoft,
    /// `fence_command` says that it cannot write.
    NodeHard,
}

impl Grade {
    /// Every grade, from the weakest on.
    pub const ALL: [Grade; 3] = [Grade::Route, Grade::NodeSoft, Grade::NodeHard];

    /// The word in status, metrics and history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::NodeSoft => "node-soft",
            Self::NodeHard => "node-hard",
        }
    }
}
