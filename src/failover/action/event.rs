//! What happened, in one sentence each, for whoever reads it later.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Operator;
use crate::failover::phase::{EpisodeId, EpisodeKind, Intent};
use crate::types::{BackendName, Epoch, WallTime};

/// Something that happened, for log, history, metrics and the page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: WallTime,
    /// The episode it belongs to.
    pub episode: Option<EpisodeId>,
    /// The epoch it was said in.
    pub epoch: Epoch,
    /// A stable word.
    pub kind: EventKind,
    /// One sentence, with its evidence.
    pub sentence: String,
    /// How long the step took.
    pub took: Option<Duration>,
    /// Who commanded it.
    pub operator: Option<Operator>,
    /// The active side when it was said.
    pub active: Option<BackendName>,
    /// Where an episode is decided or ends: what it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// What an episode changes, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is.
    pub kind: EpisodeKind,
    /// `automatic` or `operator`.
    pub trigger: String,
    /// The active side before; `None` before the first latch.
    pub from: Option<BackendName>,
    /// Its epoch; 0 before the first latch.
    pub from_epoch: Epoch,
    /// The active side after, if it succeeds.
    pub to: BackendName,
    /// The epoch it opens.
    pub to_epoch: Epoch,
}

impl Change {
    /// What this intent changes.
    pub fn of(intent: &Intent) -> Self {
        Self {
            kind: intent.kind,
            trigger: if intent.operator.is_some() { "operator" } else { "automatic" }.into(),
            from: intent.from.clone(),
            from_epoch: Epoch(intent.epoch.0.saturating_sub(1)),
            to: intent.to.clone(),
            to_epoch: intent.epoch,
        }
    }
}

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The daemon took the service up.
    Started,
    /// A phase was entered.
    Phase,
    /// A backend's health changed.
    Health,
    /// An episode was decided.
    Decided,
    /// A step of an episode ended.
    Step,
    /// An episode was called off before `sent`.
    Cancelled,
    /// An episode ended with a new active side.
    Switched,
    /// A decision not to act.
    Blocked,
    /// A backend was quarantined.
    Quarantined,
    /// A quarantine was lifted.
    Released,
    /// An operator's command, taken or refused.
    Command,
    /// A promotion somebody else made was adopted.
    Followed,
    /// Something an operator should look at that changes nothing.
    Notice,
}
