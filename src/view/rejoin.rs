//! What is shown of a side that was left and of its way back.

use serde::{Deserialize, Serialize};

use crate::types::{BackendName, Lsn, WallTime};

/// A rejoin: how an old primary is made a standby again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinStatus {
    /// Who.
    pub backend: BackendName,
    /// `follow`, `rewind`, `basebackup`.
    pub method: String,
    /// `ordered`, `running` (its command), `waiting` (until it streams), `done`, `failed`.
    pub stage: String,
    /// When it was ordered.
    pub since: WallTime,
    /// By whom.
    pub operator: String,
    /// Where its line parted from the active side's.
    pub parted_at: Option<Lsn>,
    /// Bytes of log that it wrote after that and that are thrown away.
    pub bytes_given_up: Option<u64>,
    /// The command's newest line; at the end how it ended.
    pub said: Option<String>,
}

/// What a fence of this grade keeps from a side that was left.
pub fn fence_words(grade: &str) -> String {
    let means = match grade {
        "route" => "this proxy gives it no byte; who connects past it may still write there",
        "node-soft" => "the server is read-only, and its clients were ended",
        "node-hard" => "fence_command says that the server cannot write",
        _ => return grade.to_owned(),
    };
    format!("{grade} ({means})")
}

impl RejoinStatus {
    /// In one sentence.
    pub fn sentence(&self) -> String {
        let said = self.said.as_ref().map_or_else(String::new, |said| format!(": {said}"));
        let lost = match (self.bytes_given_up, self.parted_at) {
            (Some(bytes), Some(at)) if bytes > 0 => format!(", {bytes} bytes written after {at} are given up"),
            _ => String::new(),
        };
        format!("{} by {}, {}, ordered by {}{lost}{said}", self.backend, self.method, self.stage, self.operator)
    }

    /// It goes on.
    pub fn runs(&self) -> bool {
        !matches!(self.stage.as_str(), "done" | "failed")
    }
}
