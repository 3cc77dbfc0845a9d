//! What the machine asks its driver to do, what the driver reports back, and what an operator may command.
//! Every action of an episode carries that episode's id, so that a late outcome cannot touch a newer one.

mod event;
mod gate;
mod patroni;
mod rejoin;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::phase::{BackendState, EpisodeId, Method, Record, StreamOrder};
pub use super::survivors::Repoint;
use crate::types::{BackendName, Epoch, HostPort, Lsn, SystemId, Timeline, WallTime};

pub use event::{Change, Event, EventKind};
pub use gate::{Gate, OpenBackend};
pub use patroni::{PatroniOrder, PatroniSays};
pub use rejoin::{RejoinOrder, Rejoining, Softened, Source, Standing, Survey};

/// An order to the driver. It carries them out in the order given; `Publish` and `Cut` before anything that waits.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write the record to the store, then report [`Outcome::Persisted`].
    Persist {
        /// Comes back in the outcome.
        ticket: u64,
        /// The whole record.
        record: Box<Record>,
    },
    /// Swap the routing snapshot.
    Publish(Gate),
    /// Cut every connection of this side, both directions, now; linger 0 towards the server. Report [`Outcome::Cut`].
    Cut {
        /// Which side.
        backend: BackendName,
    },
    /// Ask every `read_only` connection of this side to end as soon as nothing is under way on it.
    DrainReaders {
        /// Which side.
        backend: BackendName,
    },
    /// An operator took a side, or one address of it, out: ask every connection there to end as soon as nothing is under
    /// way on it, or cut them. The side stays open to cancels.
    Retire {
        /// Which side.
        backend: BackendName,
        /// `None` = all of it.
        address: Option<SocketAddr>,
        /// The time to end is over.
        cut: bool,
    },
    /// Start a fresh probe of every address of this side at once.
    ProbeNow {
        /// Which side.
        backend: BackendName,
    },
    /// Run the node fence, report [`Outcome::Fenced`].
    Fence {
        /// Whose.
        episode: EpisodeId,
        /// The side to fence.
        backend: BackendName,
    },
    /// Take the advisory lock on these candidates and hold it, report [`Outcome::Locked`].
    Lock {
        /// Whose.
        episode: EpisodeId,
        /// Where: the candidate, or with three backends or more all that are reachable.
        backends: Vec<BackendName>,
        /// How many of them must grant it.
        needed: usize,
    },
    /// Let the lock go.
    Unlock {
        /// Whose.
        episode: EpisodeId,
    },
    /// Promote, report [`Outcome::Promotion`]. Idempotent: a backend that is primary already counts as promoted.
    Promote {
        /// Whose.
        episode: EpisodeId,
        /// The epoch it will open.
        epoch: Epoch,
        /// The candidate.
        backend: BackendName,
        /// The proof that the evidence was fresh.
        rechecked: Rechecked,
        /// Clusters: the stream to fail over.
        stream: Option<StreamOrder>,
    },
    /// Clusters: read this stream, or all of them, at once.
    ReadStreams {
        /// `None` = all.
        stream: Option<String>,
    },
    /// Switchover of clusters: read the old primary's clock, after `STOP SERVICE` there if `stop`; report
    /// [`Outcome::ClockRead`]. [`Action::Unfreeze`] undoes the stop.
    ReadClock {
        /// Whose.
        episode: EpisodeId,
        /// The old primary.
        backend: BackendName,
        /// Stop its service first.
        stop: bool,
    },
    /// Switchover: make the old primary read-only, end its client sessions, read its flush position until it
    /// stands still; report [`Outcome::Frozen`].
    Freeze {
        /// Whose.
        episode: EpisodeId,
        /// The old primary.
        backend: BackendName,
        /// Whom to find there; anybody else is left as he is. `None` = the latch tells nobody.
        latched: Option<Latched>,
    },
    /// Undo [`Action::Freeze`], report [`Outcome::Unfrozen`]. Idempotent.
    Unfreeze {
        /// Whose.
        episode: EpisodeId,
        /// The old primary.
        backend: BackendName,
        /// As for [`Action::Freeze`].
        latched: Option<Latched>,
    },
    /// Read the old primary's flush position once more, report [`Outcome::FlushRead`].
    ReadFlush {
        /// Whose.
        episode: EpisodeId,
        /// The old primary.
        backend: BackendName,
        /// As for [`Action::Freeze`].
        latched: Option<Latched>,
    },
    /// Order Patroni to change its leader, report [`Outcome::PatroniSaid`].
    OrderPatroni {
        /// The one that will follow it.
        episode: EpisodeId,
        /// What is sent.
        order: PatroniOrder,
    },
    /// Read Patroni at once.
    ReadPatroni,
    /// Set `synchronous_standby_names` on the new primary, report [`Outcome::SyncSet`].
    SetSync {
        /// Whose; `None` = after its end.
        episode: Option<EpisodeId>,
        /// The new primary.
        backend: BackendName,
        /// Empty = nobody is waited for.
        names: String,
    },
    /// Make a side that was left read-only, report [`Outcome::Softened`]. Idempotent.
    Soften {
        /// Which side.
        backend: BackendName,
        /// Whom to find there, by all three; anybody else is left as he is.
        server: Latched,
        /// End its clients, too.
        ends: bool,
    },
    /// Undo it where that side is a standby of this system, report [`Outcome::Thawed`]. Idempotent.
    Thaw {
        /// Which side.
        backend: BackendName,
        /// Whose standby.
        system_id: SystemId,
    },
    /// Point a standby at the new primary, report [`Outcome::Repointed`]. Belongs to no episode. Idempotent: the standby
    /// itself must still prove to be on the line that was left.
    Repoint(Box<Repoint>),
    /// Run the command that makes an old primary a standby, report [`Outcome::Rejoining`] as it goes.
    Rejoin(RejoinOrder),
    /// End that command.
    StopRejoin {
        /// Whose.
        backend: BackendName,
    },
}

/// The latched server as it was last heard: a server may be swapped before a probe hears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latched {
    /// Its system identifier.
    pub system_id: SystemId,
    /// Its timeline.
    pub timeline: Timeline,
    /// `address:port` as it sees the address it is reached at; `None` = it did not tell, or a pooler stands between.
    pub node: Option<String>,
}

/// Proof of a successful recheck: only the machine can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rechecked {
    pub(super) sentence: String,
}

impl Rechecked {
    /// What the recheck found.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The record is on disk, or why not.
    Persisted {
        /// Of the action.
        ticket: u64,
        /// `Err` = the sentence of the store.
        result: Result<(), String>,
    },
    /// The side is cut.
    Cut {
        /// Which side.
        backend: BackendName,
        /// How many connections it had.
        connections: usize,
        /// Bytes that it had been handed for clients by then, since the daemon started.
        bytes: u64,
    },
    /// The node fence ended; `Ok` = the old side cannot write any more.
    Fenced {
        /// Whose.
        episode: EpisodeId,
        /// `Err` = why it is not fenced.
        result: Result<(), String>,
    },
    /// The lock is held, or who holds it.
    Locked {
        /// Whose.
        episode: EpisodeId,
        /// What came of it.
        result: LockResult,
    },
    /// What the promoter says; proof comes only from a probe.
    Promotion {
        /// Whose.
        episode: EpisodeId,
        /// Its word.
        result: PromotionResult,
    },
    /// The old primary takes no writes and stands still at this position, or why not.
    Frozen {
        /// Whose.
        episode: EpisodeId,
        /// Flush position, equal twice 200 ms apart.
        result: Result<Lsn, String>,
    },
    /// The freeze is undone.
    Unfrozen {
        /// Whose.
        episode: EpisodeId,
        /// `Err` = it is still read-only, and why.
        result: Result<(), String>,
    },
    /// The flush position read after `sent`.
    FlushRead {
        /// Whose.
        episode: EpisodeId,
        /// `Err` = not to be read.
        result: Result<Lsn, String>,
    },
    /// The old primary's clock (with `stop`: read after it took no writes any more), or why it could not be had.
    ClockRead {
        /// Whose.
        episode: EpisodeId,
        /// `Err` = why not.
        result: Result<WallTime, String>,
    },
    /// Patroni's answer to an order.
    PatroniSaid {
        /// As in the action.
        episode: EpisodeId,
        /// What it says.
        says: PatroniSays,
    },
    /// A standby was pointed at the new primary, or why not: one sentence without a secret.
    Repointed {
        /// Which.
        backend: BackendName,
        /// Of the order.
        epoch: Epoch,
        /// `Err` = what to type.
        result: Result<String, String>,
    },
    /// The new side waits for those synchronous standbys alone, or why it still does not.
    SyncSet {
        /// Whose; `None` = after its end.
        episode: Option<EpisodeId>,
        /// `Err` = why not.
        result: Result<(), String>,
    },
    /// A side that was left takes no writes, as far as it says, or why it could not be had so.
    Softened {
        /// Which side.
        backend: BackendName,
        /// `Err` = nothing is known to have changed, and why.
        result: Result<Softened, String>,
    },
    /// That was undone on a standby.
    Thawed {
        /// Which side.
        backend: BackendName,
        /// `Err` = why not.
        result: Result<(), String>,
    },
    /// What two servers show, before one is made a standby of the other.
    Surveyed {
        /// The one that shall be a standby.
        backend: BackendName,
        /// As of now.
        survey: Box<Survey>,
    },
    /// What is heard of a rejoin's command.
    Rejoining {
        /// Whose.
        backend: BackendName,
        /// The news.
        news: Rejoining,
    },
}

/// What came of taking the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockResult {
    /// Held until `Unlock` or the end of the connection.
    Held,
    /// Somebody else decides.
    Busy,
    /// Nobody could be asked, or it was lost.
    Failed(String),
}

/// What a promoter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromotionResult {
    /// It was done; still to be proven.
    Done,
    /// Nobody knows: pending.
    Unknown(String),
    /// The order plainly never left, and may again.
    NotSent(String),
    /// Not promoted, and it will not be (a command's exit 3).
    Refused(String),
}

/// Who commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// The token's name, `uid N` of the unix socket, or `local`.
    pub name: String,
    /// `X-Operator` or a reason: a note, not an identity.
    pub note: Option<String>,
}

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// Promote another backend although, or because, the active one is not well.
    Failover {
        /// `None` = the best candidate.
        #[serde(default)]
        to: Option<BackendName>,
        /// Override witness, lag, cool-down and budget.
        #[serde(default)]
        force: bool,
        /// Move traffic without promoting.
        #[serde(default)]
        route_only: bool,
        /// Clusters: to this moment instead of the latest consistent one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<WallTime>,
    },
    /// Planned, both sides healthy, no acknowledged row lost.
    Switchover {
        /// `None` = the best candidate.
        #[serde(default)]
        to: Option<BackendName>,
    },
    /// Traffic home to the backend that is configured as `primary` (or named), by a switchover.
    Restore {
        /// `None` = the configured primary.
        #[serde(default)]
        to: Option<BackendName>,
        /// Clusters: although no reverse stream completed, so that what was written since is missing there.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Latch this backend: it proves to be primary and nobody else may be.
    Adopt {
        /// Which.
        backend: BackendName,
    },
    /// Make an old primary a standby of the active side; where probes cannot show it, state that it is one.
    Rejoin {
        /// Which.
        backend: BackendName,
        /// `None` = what it needs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<Method>,
    },
    /// Take newcomers from a backend, or from one address of it, or give them back.
    SetState {
        /// Which.
        backend: BackendName,
        /// As configured or as resolved; `None` = all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<HostPort>,
        /// To what.
        state: BackendState,
    },
    /// Stop new automatic decisions.
    Pause,
    /// Allow them again.
    Resume,
    /// Probe every backend now.
    CheckHealth,
    /// State that a pending promotion's target is switched off: end the episode without it.
    Abandon {
        /// The target that is off.
        backend: BackendName,
    },
}

/// A command that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What was begun, or would be.
    pub sentence: String,
    /// The episode to watch, when one was begun.
    pub episode: Option<EpisodeId>,
    /// The steps that follow, one line each.
    pub steps: Vec<String>,
}

/// A command that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// A stable word for machines, `snake_case`.
    pub code: String,
    /// Why, and what would be right.
    pub sentence: String,
}

/// How often probes run now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cadence {
    /// Every `interval`.
    #[default]
    Calm,
    /// Suspect: the active side every `fast_interval` whatever is outstanding, standbys every 250 ms.
    Fast,
    /// The death path: fresh connects at 0, 100, 250 ms, standbys every 100 ms.
    Death,
    /// An episode is under way: everything every 250 ms.
    Episode,
    /// The end of an episode waits for nothing but a standby's word: standbys every 25 ms, all else as in an episode.
    Proof,
}
