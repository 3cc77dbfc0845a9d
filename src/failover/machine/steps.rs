//! An episode's steps: the in-memory half of an intent. What each step does stands in `episode` and `switchover`.

use crate::failover::action::{PromotionResult, Rechecked};
use crate::failover::phase::{EpisodeKind, Identity, Intent, Phase, Stage};
use crate::failover::replication::Status;
use crate::types::{Lsn, Moment};
use std::time::Duration;

/// A promotion that succeeds is done by then.
const SOON: Duration = Duration::from_secs(5);

/// An episode under way.
#[derive(Debug)]
pub(in crate::failover) struct Run {
    pub(in crate::failover) intent: Intent,
    pub(in crate::failover) step: Step,
    /// When it was decided.
    pub(super) began: Moment,
    /// When the step was entered.
    pub(super) step_since: Moment,
    /// Nobody gets traffic (a switchover's drain still serves running work).
    pub(in crate::failover) closed: bool,
    pub(super) rechecked: Option<Rechecked>,
    pub(super) fence_needed: bool,
    /// It was tried: it succeeded, or need not.
    pub(super) fence_over: bool,
    /// Decided although a standby gets heartbeats: the fence makes up for it.
    pub(super) over_idle: bool,
    /// What the new side proved to be.
    pub(super) proven: Option<Identity>,
    /// Resumed after a restart.
    pub(super) resumed: bool,
    /// The start checks are owed when it ends: everything must be heard from that moment on.
    pub(super) unchecked: Option<Moment>,
    pub(super) lock: Lock,
    /// Why it was not held when it was last wanted after `sent`.
    pub(super) lock_missed: Option<String>,
    /// Why it may not be promoted although `sent` is being written: the lock was lost, or this daemon slept.
    pub(super) void: Option<String>,
    /// The newest word of the promoter and when it was given.
    pub(super) word: Option<(Moment, PromotionResult)>,
    /// When the promotion was last ordered.
    pub(super) ordered: Option<Moment>,
    /// How often.
    pub(super) orders: u32,
    /// No more than this are given without an operator's word.
    pub(super) orders_allowed: u32,
    /// Clusters: readings since that show the stream as if nothing had been ordered.
    pub(super) unheeded: Vec<Moment>,
    /// Clusters: what was last told of the stream, and when.
    pub(super) told: Option<(Status, Moment)>,
    /// Clusters: when a side was last probed out of turn.
    pub(super) poked: Option<Moment>,
    /// The old primary's position read after `sent`.
    pub(super) flush_after: Option<Result<Lsn, String>>,
    /// What to say when it is over, beyond the standard sentence.
    pub(super) notes: Vec<String>,
}

/// The lock between daemons. Once asked for it is let go at the end, granted or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::failover) enum Lock {
    Free,
    Asked {
        since: Moment,
    },
    Held {
        since: Moment,
    },
    /// Refused, lost, or let go.
    Denied {
        at: Moment,
    },
}

/// A step.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::failover) enum Step {
    /// The intent is being written.
    Deciding { ticket: u64 },
    /// Switchover: running work may end.
    Draining { until: Moment },
    /// Clusters: the stream is being read again.
    Rereading { from: Moment, until: Moment },
    /// A last look at the old side; probes that began at `from` or later count.
    Rechecking { from: Moment, until: Moment },
    /// Switchover: `freezing` is being written.
    MarkFreezing { ticket: u64 },
    /// The old primary is being made read-only.
    Freezing { until: Moment },
    /// The candidate replays up to the old primary's last position.
    Replaying { since: Moment, lsn: Lsn, until: Moment },
    /// The node fence runs.
    Fencing,
    /// The lock is being taken.
    Locking,
    /// `sent` is being written.
    Sending { ticket: u64 },
    /// Ordered; until a probe proves it.
    Promoting { since: Moment },
    /// `synchronous_standby_names` is being set.
    SettingSync { until: Moment },
    /// The latch is being written; `None`: the last write failed, again at `retry`.
    Latching { ticket: Option<u64>, retry: Moment },
    /// The end without a change is being written.
    Cancelling { ticket: Option<u64>, retry: Moment, why: String },
}

/// A change of the record that belongs to no step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::failover) enum Aside {
    /// It is being written.
    Written { ticket: u64 },
    /// It could not be written; again at `retry`.
    Failed { retry: Moment },
}

impl Run {
    pub(super) fn new(intent: Intent, step: Step, closed: bool, began: Moment) -> Self {
        Self {
            intent,
            step,
            began,
            step_since: began,
            closed,
            rechecked: None,
            fence_needed: false,
            fence_over: false,
            over_idle: false,
            proven: None,
            resumed: false,
            unchecked: None,
            lock: Lock::Free,
            lock_missed: None,
            void: None,
            word: None,
            ordered: None,
            orders: 0,
            orders_allowed: super::stream_episode::MOST_ORDERS,
            unheeded: Vec::new(),
            told: None,
            poked: None,
            flush_after: None,
            notes: Vec::new(),
        }
    }

    pub(super) fn phase(&self, blocked: bool) -> Phase {
        match &self.step {
            Step::Promoting { .. } | Step::Cancelling { .. } if blocked => Phase::Blocked,
            Step::Promoting { .. } => Phase::Promoting,
            Step::Deciding { .. } if self.intent.kind == EpisodeKind::Follow && self.intent.stream.is_none() => {
                Phase::Switching
            }
            Step::SettingSync { .. } | Step::Latching { .. } => Phase::Switching,
            _ => Phase::Fencing,
        }
    }

    /// Clients wait for nothing but a standby that replays or is being promoted; a promotion that does not come soon is
    /// waited for at leisure.
    pub(super) fn awaits_proof(&self, now: Moment) -> bool {
        match self.step {
            Step::Replaying { .. } | Step::Locking | Step::Sending { .. } | Step::Latching { .. } => true,
            // A cluster takes minutes, and is asked when its stream has completed.
            Step::Promoting { since } => self.intent.stream.is_none() && now.since(since) < SOON,
            _ => false,
        }
    }

    /// Before `sent`, and not already being cancelled.
    pub(super) fn may_be_cancelled(&self) -> bool {
        self.intent.stage < Stage::Sent
            && self.intent.kind != EpisodeKind::Follow
            && !matches!(self.step, Step::Cancelling { .. } | Step::Latching { .. } | Step::Sending { .. })
    }
}
