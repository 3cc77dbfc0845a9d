//! What is persisted (latch, intent) and the phases that are derived from it and shown.
//! Holds no transition: those are `transition`'s.

mod admin_state;
mod left;
mod rejoin;

use serde::{Deserialize, Serialize};

use super::action::Operator;
use super::observation::Ancestor;
use super::replication::Activation;
use crate::types::{BackendName, Epoch, Lsn, SystemId, Timeline, WallTime};

pub use admin_state::{Administered, BackendState};
pub use left::{Grade, Left};
pub use rejoin::{Method, Process, Rejoin, RejoinStage};

/// The number of an episode: one run through intent, promotion and latch. Never reused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpisodeId(pub u64);

impl std::fmt::Display for EpisodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything a restart must know. One slot of the store holds one record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The active side; `None` before the first latch.
    pub latch: Option<Latch>,
    /// The episode under way; it outranks the latch.
    pub intent: Option<Intent>,
    /// The last episode's number.
    pub last_episode: EpisodeId,
    /// When episodes that reached `sent` were decided, within the last 24 hours.
    pub spent: Vec<WallTime>,
    /// No new automatic episode before this.
    pub cooldown_until: Option<WallTime>,
    /// New automatic decisions are stopped: by whom and when.
    pub paused: Option<Pause>,
    /// When another daemon was last seen on this pair.
    pub other_daemon_seen: Option<WallTime>,
    /// Sides that were made read-only: by a switchover, or since they were left. The active one is released before it is
    /// opened, another one when it streams as a standby.
    #[serde(default)]
    pub frozen: Vec<BackendName>,
    /// Where probes do not show whom a standby follows: the sides of which an operator said so since the active one last
    /// changed; `None` = it never did, and the configuration's word counts.
    #[serde(default)]
    pub vouched: Option<Vec<BackendName>>,
    /// Sides that were left and have not come back as standbys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Left>,
    /// The one that is being made a standby again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoin: Option<Rejoin>,
    /// Backends and addresses that operators took newcomers from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub administered: Vec<Administered>,
}

/// The persisted decision which backend is active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    /// The active side.
    pub active: BackendName,
    /// +1 at every change.
    pub epoch: Epoch,
    /// Since when.
    pub since: WallTime,
    /// Why, one sentence.
    pub why: String,
    /// What the side proved to be; unknown for routing only.
    pub identity: Option<Identity>,
    /// The latch was moved by hand or without proof that the old side is fenced.
    pub route_only: bool,
    /// Clusters: the newest completed stream that was known when it was written.
    #[serde(default)]
    pub replication: Option<Activation>,
    /// Clusters: the stream that led from it to another one when streams were last read.
    #[serde(default)]
    pub follower: Option<String>,
    /// Clusters: the id of the one that is active.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// Who the latched side is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The same on all sides of the pair.
    pub system_id: SystemId,
    /// The latched timeline.
    pub timeline: Timeline,
    /// Where it branched off its parent; `None` on timeline 1 or when its history was not to be read.
    pub switch_lsn: Option<Lsn>,
    /// Its ancestors, oldest first.
    #[serde(default)]
    pub ancestors: Vec<Ancestor>,
    /// `address:port` as the server itself sees it.
    pub node: Option<String>,
}

impl Identity {
    /// The same server before its timeline branched off.
    pub fn parent(&self) -> Option<Self> {
        let (last, ancestors) = self.ancestors.split_last()?;
        let switch_lsn = ancestors.last().map(|ancestor| ancestor.switch_lsn);
        Some(Self { timeline: last.timeline, switch_lsn, ancestors: ancestors.to_vec(), ..self.clone() })
    }
}

/// An episode that was begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its number.
    pub id: EpisodeId,
    /// The epoch it will open.
    pub epoch: Epoch,
    /// The side that gets no byte any more.
    pub from: Option<BackendName>,
    /// The candidate.
    pub to: BackendName,
    /// What it is.
    pub kind: EpisodeKind,
    /// How far it is.
    pub stage: Stage,
    /// Why it was decided, one sentence with its evidence.
    pub why: String,
    /// When it was decided.
    pub decided_at: WallTime,
    /// Who commanded it; `None` = automatic.
    pub operator: Option<Operator>,
    /// Overrides witness, lag, cool-down and budget.
    pub forced: bool,
    /// Switchover: the position at which the old primary stood still.
    pub frozen_at: Option<Lsn>,
    /// Clusters: the stream that is failed over.
    #[serde(default)]
    pub stream: Option<StreamOrder>,
    /// The node fence succeeded.
    #[serde(default)]
    pub fenced: bool,
}

/// Which replication stream is failed over, and to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOrder {
    /// Its id.
    pub id: String,
    /// To this moment; `None` = the latest consistent time.
    pub failover_at: Option<WallTime>,
    /// Up to when it had replicated when that was decided: a primary whose stream moved on since lives.
    pub replicated: Option<WallTime>,
    /// The old primary took no writes any more at that moment by its own clock: nothing was acknowledged after it.
    #[serde(default)]
    pub stopped_at: Option<WallTime>,
}

/// What an episode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpisodeKind {
    /// Unplanned: the old side is dead or hung.
    Failover,
    /// Planned: both sides healthy.
    Switchover,
    /// Traffic moves, nothing is promoted (sides that always serve, or `--route-only`).
    Route,
    /// A promotion somebody else made is adopted.
    Follow,
}

/// How far an episode is. Each stage is written before what it names is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Decided; may still be cancelled.
    Intent,
    /// Switchover: the old primary may be read-only; the undo is owed if it is cancelled.
    Freezing,
    /// The promotion was or is about to be ordered: no way back.
    Sent,
}

/// `pause`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub by: Operator,
    /// Since when.
    pub since: WallTime,
}

/// Where the machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the start checks passed: gate closed.
    Starting,
    /// All well, or nothing that counts.
    Steady,
    /// Adverse evidence, below the threshold.
    Suspect,
    /// The threshold is reached: delay, witness, recheck.
    Confirming,
    /// Intent persisted, old side cut: last recheck, fence, lock (switchover: freeze and replay).
    Fencing,
    /// `sent` persisted: promotion ordered, until the new side proves.
    Promoting,
    /// Proven: the latch is being written.
    Switching,
    /// Open to the new side; waiting for its first calm probes.
    Settling,
    /// Something must not be decided; the reason says what.
    Blocked,
    /// An operator stopped new decisions.
    Paused,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 10] = [
        Phase::Starting,
        Phase::Steady,
        Phase::Suspect,
        Phase::Confirming,
        Phase::Fencing,
        Phase::Promoting,
        Phase::Switching,
        Phase::Settling,
        Phase::Blocked,
        Phase::Paused,
    ];

    /// The word in log, metrics and page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Steady => "steady",
            Self::Suspect => "suspect",
            Self::Confirming => "confirming",
            Self::Fencing => "fencing",
            Self::Promoting => "promoting",
            Self::Switching => "switching",
            Self::Settling => "settling",
            Self::Blocked => "blocked",
            Self::Paused => "paused",
        }
    }
}

/// Why nothing may be decided (or opened).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockReason {
    /// The standby still receives: the primary lives, we cannot see it.
    WitnessAlive,
    /// No witness can be had and one is required.
    WitnessUnknown,
    /// Frozen disk or stopped postmaster: hung, not dead.
    HungNotDead,
    /// No standby is far enough to be promoted without losing more than `max_lag`.
    StaleStandby,
    /// No other backend is up.
    NoCandidate,
    /// The promotion was sent and nothing proves it yet.
    PromotionPending,
    /// Two nodes on one timeline, or a rival primary beside the latched one.
    SplitBrain,
    /// The latched node shows a timeline that is not ours.
    Rewound,
    /// Two backends are one server.
    SameServer,
    /// Another daemon decides on this pair.
    SecondDecider,
    /// The node fence is required and failed.
    FenceFailed,
    /// Somebody else holds the lock.
    LockBusy,
    /// At start: which side is primary is not proven.
    NoLatch,
    /// At start: the latched side does not prove identity, timeline and role.
    LatchUnproven,
    /// The state cannot be written.
    Disk,
    /// No automatic episode is left in these 24 hours.
    BudgetExhausted,
    /// An episode ended too recently.
    Cooldown,
    /// `automatic = false`, `observe`, or a promoter that cannot promote.
    NotAutomatic,
    /// A pooler or balancer stands between us and the server.
    IndirectIdentity,
    /// The latched side says it is a standby.
    RoleMismatch,
    /// Patroni names another leader, or none.
    NotLeader,
}

impl BlockReason {
    /// Every reason.
    pub const ALL: [BlockReason; 20] = [
        BlockReason::WitnessAlive,
        BlockReason::WitnessUnknown,
        BlockReason::HungNotDead,
        BlockReason::StaleStandby,
        BlockReason::NoCandidate,
        BlockReason::PromotionPending,
        BlockReason::SplitBrain,
        BlockReason::Rewound,
        BlockReason::SameServer,
        BlockReason::SecondDecider,
        BlockReason::FenceFailed,
        BlockReason::LockBusy,
        BlockReason::NoLatch,
        BlockReason::LatchUnproven,
        BlockReason::Disk,
        BlockReason::BudgetExhausted,
        BlockReason::Cooldown,
        BlockReason::NotAutomatic,
        BlockReason::IndirectIdentity,
        BlockReason::RoleMismatch,
    ];

    /// The word in log, metrics and page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WitnessAlive => "witness alive",
            Self::WitnessUnknown => "witness unknown",
            Self::HungNotDead => "hung, not dead",
            Self::StaleStandby => "stale standby",
            Self::NoCandidate => "no candidate",
            Self::PromotionPending => "promotion pending",
            Self::SplitBrain => "split brain",
            Self::Rewound => "rewound",
            Self::SameServer => "same server",
            Self::SecondDecider => "second decider",
            Self::FenceFailed => "fence failed",
            Self::LockBusy => "lock busy",
            Self::NoLatch => "no latch",
            Self::LatchUnproven => "latch unproven",
            Self::Disk => "disk",
            Self::BudgetExhausted => "budget exhausted",
            Self::Cooldown => "cool-down",
            Self::NotAutomatic => "not automatic",
            Self::IndirectIdentity => "indirect identity",
            Self::RoleMismatch => "role mismatch",
            Self::NotLeader => "not leader",
        }
    }
}
