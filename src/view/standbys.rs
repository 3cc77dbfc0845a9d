//! How standbys stand to the active side, and what an acknowledged commit is worth.

use serde::{Deserialize, Serialize};

use super::Level;

/// What would be lost if the active side died now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durability {
    /// Commits wait for standbys.
    pub synchronous: bool,
    /// `synchronous_standby_names` of the active side.
    pub names: String,
    /// Standbys that count as synchronous now.
    pub standbys: Vec<String>,
    /// Commits wait for standbys that are not there.
    pub waiting: bool,
    /// A commit that was acknowledged could be lost.
    pub at_risk: bool,
    /// What the best candidate lacked when it was last seen, bytes; `None` = not known.
    pub loss_bytes: Option<u64>,
    /// Its colour.
    pub level: Level,
    /// One sentence.
    pub sentence: String,
}

/// How a standby stands to the active side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    /// `follower`, `cascade`, `returning`, `adrift`, `orphan` or `unknown`.
    pub state: String,
    /// One sentence, with what to type where something is to be typed.
    pub sentence: String,
}

impl Following {
    /// Every word of `state`.
    pub const STATES: [&'static str; 6] = ["follower", "cascade", "returning", "adrift", "orphan", "unknown"];

    /// Its colour.
    pub fn level(&self) -> Level {
        match self.state.as_str() {
            "follower" | "cascade" => Level::Ok,
            "orphan" => Level::Bad,
            _ => Level::Warn,
        }
    }
}
