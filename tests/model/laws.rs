//! The reference: what one daemon was told, what it ordered and what its disk holds, held against the laws. It watches
//! from outside and asks the machine nothing. Judgements stand in `deciding` (may it be decided?), `ordering` (is the
//! order of steps kept?), `standing` (who may get a byte now?); what counts as told stands in `ears`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use pgpivot::config::{ProbeKind, Promoter, Service};
use pgpivot::failover::action::{Action, Command, Event, Gate};
use pgpivot::failover::phase::{BackendState, EpisodeId, EpisodeKind, Identity, Intent, Latch, Record, Stage};
use pgpivot::types::{BackendName, Epoch, Now, WallTime};

use crate::daemon::Daemon;
use crate::ears::Ear;

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// The gate leads only to the side and epoch that the latch on disk names.
    LatchOnDisk,
    /// The side that an open intent on disk leaves gets no byte.
    IntentOutranks,
    /// The side that lost the gate is cut.
    Cut,
    /// Nothing else cuts.
    NeedlessCut,
    /// Intent and `sent` are on disk before what they name is begun.
    WriteThenAct,
    /// A promotion is ordered only after a last look at the old side.
    Recheck,
    /// One candidate per episode.
    OneCandidate,
    /// After `sent` only proven or pending.
    NoWayBack,
    /// +1 per change, never backwards.
    Epoch,
    /// The latch changes only by completed episodes.
    LatchByEpisode,
    /// What is opened to proves the latched line; nothing else gets a byte.
    Timeline,
    /// The latched side says it is something else: closed and cut at once.
    RoleMismatch,
    /// Opened only after the start checks.
    StartChecks,
    /// A living primary is not replaced.
    Witness,
    /// Only who streamed lately and is not far behind is promoted.
    Candidate,
    /// Only what counts as death counts.
    Evidence,
    Budget,
    Cooldown,
    Pause,
    /// `automatic = false` and `observe` never promote.
    Authority,
    SecondDecider,
    Lock,
    Fence,
    LateWake,
    Freeze,
    /// A planned switchover loses nothing that was acknowledged.
    NoLoss,
    /// One episode at a time; its orders bear its number.
    OneEpisode,
    /// A promotion of somebody else is followed only when it is proven.
    Foreign,
    /// A command does what it says, and no more.
    Command,
    DryRun,
    /// Nothing is decided that could not be written down.
    Disk,
    /// Who leads two primaries at once, decides nothing.
    SplitBrain,
    /// When all is well, it ends well.
    Settles,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub law: Law,
    pub said: String,
}

/// What is true of a daemon at a moment.
pub struct Scene<'a> {
    pub now: u64,
    pub clock: Now,
    pub disk: &'a Record,
}

impl<'a> Scene<'a> {
    pub fn of(daemon: &'a Daemon, now: u64) -> Self {
        Self { now, clock: daemon.clock(now), disk: daemon.disk.holds() }
    }
}

/// An episode as it was ordered.
#[derive(Debug, Clone)]
pub struct Course {
    pub intent: Intent,
    /// Of the write that began it.
    pub ticket: u64,
    /// When its intent was known to be on disk.
    pub written: Option<u64>,
    /// Taken up again after a restart, at that time.
    pub resumed: Option<u64>,
    /// How old the decision was then, by the wall clock.
    pub age: Duration,
    /// A late wake came before `sent`: it must end.
    pub void: bool,
    pub rechecked: bool,
    pub fenced: Option<bool>,
    pub locked: bool,
    /// When it was last granted.
    pub locked_at: u64,
    /// Position and when it was told.
    pub frozen: Option<(u64, u64)>,
    pub sent_ordered: bool,
    pub sent_failed: bool,
    pub refused: bool,
    pub abandoned: bool,
    pub done: bool,
    /// When the promotion was first ordered by this process.
    pub ordered: Option<u64>,
    /// How often.
    pub orders: u32,
    /// It proved itself since. What it shows later, is judged when it is opened to.
    pub proven: bool,
    /// Only with a fence: the witness was idle.
    pub idle: bool,
}

pub struct Laws {
    pub service: Service,
    pub name: String,
    pub breach: Option<Breach>,
    pub ears: BTreeMap<BackendName, Ear>,
    /// When this process began, or woke more than 2 s late.
    pub woke: u64,
    /// When it last woke late at all: what began before is discarded.
    pub late: u64,
    pub passed_start: bool,
    /// The first latch of plain routing asks nobody else.
    pub others_heard: bool,
    pub course: Option<Course>,
    pub ordered: Record,
    /// As told to be on disk.
    pub latch: Option<Latch>,
    pub tickets: BTreeMap<u64, Box<Record>>,
    /// The newest one that was answered.
    pub answered: u64,
    /// Promotions ordered by any process of this daemon.
    pub promoted: BTreeMap<EpisodeId, BackendName>,
    pub t0_low: Option<u64>,
    pub t0_high: Option<u64>,
    /// When the active side first was down in this suspicion.
    pub down_first: Option<u64>,
    pub paused: bool,
    /// What operators took newcomers from.
    pub administered: BTreeMap<(BackendName, Option<SocketAddr>), BackendState>,
    pub disk_error: bool,
    pub others: BTreeMap<String, u64>,
    /// Sides that may have client connections.
    pub led: BTreeSet<BackendName>,
    pub last_epoch: Epoch,
    /// Accepted commands by the episode they began.
    pub commands: BTreeMap<EpisodeId, Command>,
    pub accepted: Option<Command>,
    pub explaining: bool,
    /// Sides that this daemon made read-only and did not release.
    pub froze: BTreeSet<BackendName>,
    /// Since the active side changed: of whom somebody said that they follow it; `None` = it never did.
    pub vouched: Option<BTreeSet<BackendName>>,
    pub unfreezing: Option<BackendName>,
    pub wall_offset: i64,
    pub wall_jumped: bool,
}

impl Laws {
    pub fn new(service: Service) -> Self {
        Self {
            service,
            name: String::new(),
            breach: None,
            ears: BTreeMap::new(),
            woke: 0,
            late: 0,
            passed_start: false,
            others_heard: false,
            course: None,
            ordered: Record::default(),
            latch: None,
            tickets: BTreeMap::new(),
            answered: 0,
            promoted: BTreeMap::new(),
            t0_low: None,
            t0_high: None,
            down_first: None,
            paused: false,
            administered: BTreeMap::new(),
            disk_error: false,
            others: BTreeMap::new(),
            led: BTreeSet::new(),
            last_epoch: Epoch::default(),
            commands: BTreeMap::new(),
            accepted: None,
            explaining: false,
            froze: BTreeSet::new(),
            vouched: None,
            unfreezing: None,
            wall_offset: 0,
            wall_jumped: false,
        }
    }

    pub fn broken(&mut self, law: Law, said: impl Into<String>) {
        if self.breach.is_none() {
            self.breach = Some(Breach { law, said: format!("daemon {}: {}", self.name, said.into()) });
        }
    }

    pub fn demand(&mut self, law: Law, holds: bool, said: impl FnOnce() -> String) {
        if !holds {
            self.broken(law, said());
        }
    }

    // ---- a process ----

    pub fn born(&mut self, now: u64, wall: WallTime, service: Service, name: String, record: &Record) {
        let kept = Self {
            promoted: std::mem::take(&mut self.promoted),
            froze: std::mem::take(&mut self.froze),
            vouched: std::mem::take(&mut self.vouched),
            last_epoch: self.last_epoch,
            breach: self.breach.take(),
            ..Self::new(service)
        };
        *self = kept;
        self.name = name;
        self.woke = now;
        self.ordered = record.clone();
        self.latch.clone_from(&record.latch);
        self.paused = record.paused.is_some();
        let orders = record.administered.iter();
        self.administered = orders.map(|o| ((o.backend.clone(), o.address), o.state)).collect();
        for backend in &self.service.backends {
            self.ears.entry(backend.name.clone()).or_default();
        }
        self.course = record.intent.clone().map(|intent| Course {
            resumed: Some(now),
            age: wall.since(intent.decided_at),
            written: Some(now),
            sent_ordered: intent.stage == Stage::Sent,
            ..Course::of(intent)
        });
    }

    pub fn killed(&mut self, before: &Record, after: &Record, written: Option<&Record>) {
        self.disk_changed(before, after, written);
        self.led.clear();
        self.course = None;
    }

    // ---- what it orders ----

    pub fn orders(&mut self, action: &Action, scene: &Scene<'_>) {
        match action {
            Action::Persist { ticket, record } => {
                self.tickets.insert(*ticket, record.clone());
                self.orders_write(*ticket, record, scene);
            }
            Action::Publish(gate) => self.publishes(gate),
            Action::Cut { backend } => self.cuts(backend, scene),
            Action::Retire { backend, address, cut } => self.retires(backend, *address, *cut),
            Action::DrainReaders { .. } | Action::ProbeNow { .. } | Action::Unlock { .. } => {}
            Action::Soften { backend, server, .. } => self.orders_softening(backend, server, scene),
            Action::Thaw { backend, .. } => self.orders_thaw(backend),
            Action::Unfreeze { backend, latched, .. } => self.orders_release(backend, latched.as_ref()),
            other => self.orders_deed(other, scene),
        }
    }

    fn publishes(&mut self, gate: &Gate) {
        if let Gate::Open { tier, hold: false, .. } = gate {
            self.led.extend(tier.iter().filter(|open| !open.addresses.is_empty()).map(|open| open.name.clone()));
        }
    }

    pub fn says(&mut self, event: &Event) {
        let epoch = event.epoch;
        if epoch < self.last_epoch && event.active.is_some() {
            let last = self.last_epoch;
            self.broken(Law::Epoch, format!("speaks of epoch {epoch} after {last}"));
        }
    }

    // ---- words ----

    pub fn active(&self) -> Option<&BackendName> {
        self.latch.as_ref().map(|latch| &latch.active)
    }

    pub fn sql(&self) -> bool {
        matches!(self.service.probe.kind, ProbeKind::Sql { .. })
    }

    pub fn promotes(&self) -> bool {
        self.service.failover.promoter != Promoter::None
    }

    /// Was it last seen streaming on another line than the latched one?
    pub fn seen_elsewhere(&self, backend: &BackendName) -> bool {
        let Some(identity) = self.identity() else { return true };
        let newest = self.ears.get(backend).and_then(|ear| ear.streamed.iter().max_by_key(|(_, at)| **at));
        newest.is_some_and(|(timeline, _)| *timeline != identity.timeline)
    }

    /// Who the latched side is.
    pub fn identity(&self) -> Option<&Identity> {
        self.latch.as_ref()?.identity.as_ref()
    }
}

impl Course {
    pub fn of(intent: Intent) -> Self {
        Self {
            ticket: 0,
            written: None,
            resumed: None,
            age: Duration::ZERO,
            void: false,
            rechecked: false,
            fenced: None,
            locked: false,
            locked_at: 0,
            frozen: None,
            // What somebody else promoted is sent from the start: nobody sends it again.
            sent_ordered: intent.kind == EpisodeKind::Follow,
            sent_failed: false,
            refused: false,
            abandoned: false,
            done: false,
            ordered: None,
            orders: 0,
            proven: false,
            idle: false,
            intent,
        }
    }
}
