//! The reference: what one daemon was told, what it ordered and what its disk holds, held against the laws. It watches
//! from outside and asks the machine nothing. Judgements stand in `deciding` (may it be decided?), `ordering` (is the
//! order of steps kept?), `standing` (who may get a byte now?); what counts as told stands in `ears`.

use std::collections::{BTreeMap, BTreeSet};

use pgpivot::config::{ProbeKind, Promoter, Service};
use pgpivot::failover::action::{Action, Command, Event, Gate, LockResult, Outcome, PromotionResult};
use pgpivot::failover::observation::{Evidence, Observation, Unknown, Verdict};
use pgpivot::failover::phase::{EpisodeId, EpisodeKind, Identity, Intent, Latch, Record, Stage};
use pgpivot::types::{BackendName, Epoch, Now};

use crate::core::{Answer, Input};
use crate::daemon::{Daemon, millis};
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
    /// Phases change along the table.
    Table,
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
    pub decided: u64,
    /// When its intent was known to be on disk.
    pub written: Option<u64>,
    /// Taken up again after a restart, at that time.
    pub resumed: Option<u64>,
    /// A late wake came before `sent`: it must end.
    pub void: bool,
    pub rechecked: bool,
    pub fenced: Option<bool>,
    pub locked: bool,
    /// Position and when it was told.
    pub frozen: Option<(u64, u64)>,
    pub sent_ordered: bool,
    pub sent_failed: bool,
    pub refused: bool,
    pub abandoned: bool,
    pub done: bool,
    /// When the promotion was first ordered by this process.
    pub ordered: Option<u64>,
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
    pub passed_start: bool,
    /// The first latch of plain routing asks nobody else.
    pub others_heard: bool,
    pub course: Option<Course>,
    pub ordered: Record,
    /// As told to be on disk.
    pub latch: Option<Latch>,
    pub tickets: BTreeMap<u64, Box<Record>>,
    /// Promotions ordered by any process of this daemon.
    pub promoted: BTreeMap<EpisodeId, BackendName>,
    pub t0_low: Option<u64>,
    pub t0_high: Option<u64>,
    /// When the active side first was down in this suspicion.
    pub down_first: Option<u64>,
    pub paused: bool,
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
    pub unfreezing: BTreeSet<BackendName>,
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
            passed_start: false,
            others_heard: false,
            course: None,
            ordered: Record::default(),
            latch: None,
            tickets: BTreeMap::new(),
            promoted: BTreeMap::new(),
            t0_low: None,
            t0_high: None,
            down_first: None,
            paused: false,
            disk_error: false,
            others: BTreeMap::new(),
            led: BTreeSet::new(),
            last_epoch: Epoch::default(),
            commands: BTreeMap::new(),
            accepted: None,
            explaining: false,
            froze: BTreeSet::new(),
            unfreezing: BTreeSet::new(),
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

    pub fn born(&mut self, now: u64, service: Service, name: String, record: &Record) {
        let kept = Self {
            promoted: std::mem::take(&mut self.promoted),
            froze: std::mem::take(&mut self.froze),
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
        for backend in &self.service.backends {
            self.ears.entry(backend.name.clone()).or_default();
        }
        self.course = record.intent.clone().map(|intent| Course {
            resumed: Some(now),
            written: Some(now),
            sent_ordered: intent.stage == Stage::Sent,
            ..Course::of(intent, now)
        });
    }

    pub fn killed(&mut self, before: &Record, after: &Record, now: u64) {
        self.disk_changed(before, after, None, now);
        self.led.clear();
        self.course = None;
    }

    // ---- what it is told ----

    pub fn hears(&mut self, input: &Input, scene: &Scene<'_>) {
        let wall = scene.clock.wall.0 - i64::try_from(scene.now).unwrap() * 1000;
        self.wall_jumped |= (wall - self.wall_offset).abs() > 100_000;
        self.wall_offset = wall;
        self.accepted = None;
        match input {
            Input::Addresses(backend, list) => {
                let list: Vec<_> = list.iter().map(|(_, address)| *address).collect();
                self.ears.entry(backend.clone()).or_default().resolved(&list);
            }
            Input::Seen(seen) => self.hears_probe(seen, scene),
            Input::Evidence(evidence) => self.hears_evidence(evidence, scene.now),
            Input::Outcome(outcome) => self.hears_outcome(outcome, scene.now),
            Input::Disk(error) => self.disk_error = error.is_some(),
            Input::Config(service) => self.service = (**service).clone(),
            Input::Command(_, dry_run) => self.explaining = *dry_run,
            Input::Delay(late) => self.slept(*late, scene),
            Input::Timeout => {}
        }
    }

    fn hears_probe(&mut self, seen: &Observation, scene: &Scene<'_>) {
        let now = scene.now;
        let active = self.active().cloned();
        let service = self.service.clone();
        let Some(ear) = self.ears.get_mut(&seen.backend) else { return };
        if !ear.counters.contains_key(&seen.address) {
            return;
        }
        ear.hear(seen, &service, now, scene.clock.wall.0);
        if let Verdict::Answered(facts) = &seen.verdict {
            for application in &facts.daemons {
                let name = application.split('/').nth(1).unwrap_or_default().to_owned();
                if name != self.name {
                    self.others.insert(name, now);
                }
            }
        }
        if active.as_ref() == Some(&seen.backend) {
            if matches!(seen.verdict, Verdict::Answered(_)) {
                self.wall_jumped = false;
            }
            self.weigh(seen, now);
        }
    }

    /// Does it begin or end the time in which the active side is suspect?
    fn weigh(&mut self, seen: &Observation, now: u64) {
        let down = self.ears[&seen.backend].is_down();
        if down {
            self.down_first.get_or_insert(now);
        }
        let adverse = match &seen.verdict {
            Verdict::Failed(_) => seen.fresh,
            Verdict::Recovering | Verdict::Unknown(Unknown::CrashShutdown) => true,
            _ => false,
        };
        if adverse {
            self.adverse(now);
        } else if seen.fresh && Ear::lives(&seen.verdict) {
            let ear = &self.ears[&seen.backend];
            let calm = !down && ear.counters.values().all(|counter| counter.fails == 0 && !counter.down);
            let began = self.t0_high.or(self.t0_low).unwrap_or(0);
            if calm && millis(seen.started) >= began {
                (self.t0_low, self.down_first) = (None, None);
            }
            self.t0_high = None;
        }
    }

    fn adverse(&mut self, now: u64) {
        self.t0_low.get_or_insert(now);
        self.t0_high.get_or_insert(now);
    }

    fn hears_evidence(&mut self, evidence: &Evidence, now: u64) {
        let active = self.active() == Some(evidence.backend());
        let trigger = u64::try_from(self.service.probe.hang_trigger.as_millis()).unwrap();
        let Some(ear) = self.ears.get_mut(evidence.backend()) else { return };
        let adverse = match evidence {
            Evidence::ConnectFailed { .. } => true,
            Evidence::Connections { live, .. } => {
                ear.live = *live;
                false
            }
            Evidence::ProbeConnectionLost { .. } => {
                ear.kept_lost = Some(now);
                true
            }
            Evidence::Answered { at, .. } => {
                ear.alive = ear.alive.max(Some(millis(*at)));
                false
            }
            Evidence::Unanswered { since, .. } => now - millis(*since) >= trigger,
            Evidence::ServerEnded { .. } => false,
        };
        if adverse && active && self.service.probe.passive {
            self.adverse(now);
        }
    }

    fn hears_outcome(&mut self, outcome: &Outcome, now: u64) {
        if let Outcome::Persisted { ticket, result } = outcome {
            return self.hears_write(*ticket, result, now);
        }
        if let Outcome::Unfrozen { result: Ok(()), .. } = outcome
            && let Some(backend) = self.unfreezing.pop_first()
        {
            self.froze.remove(&backend);
        }
        let Some(course) = self.course.as_mut().filter(|c| outcome.episode() == Some(c.intent.id)) else { return };
        match outcome {
            Outcome::Fenced { result, .. } => course.fenced = Some(result.is_ok()),
            Outcome::Locked { result, .. } => course.locked = *result == LockResult::Held,
            Outcome::Frozen { result: Ok(lsn), .. } => course.frozen = Some((lsn.0, now)),
            Outcome::Promotion { result: PromotionResult::Refused(_), .. } => course.refused = true,
            Outcome::Promotion { result: PromotionResult::Done, .. } => course.done = true,
            _ => {}
        }
    }

    fn hears_write(&mut self, ticket: u64, result: &Result<(), String>, now: u64) {
        self.disk_error = result.is_err();
        let Some(record) = self.tickets.remove(&ticket) else { return };
        if result.is_ok() {
            self.ends_with(ticket, &record);
        }
        let Some(course) = self.course.as_mut() else { return };
        let Some(intent) = record.intent.filter(|intent| intent.id == course.intent.id) else { return };
        match result {
            Ok(()) => {
                course.written.get_or_insert(now);
            }
            Err(_) => course.sent_failed |= intent.stage == Stage::Sent,
        }
    }

    /// An episode may have ended with this record.
    fn ends_with(&mut self, ticket: u64, record: &Record) {
        if self.latch != record.latch {
            self.latch.clone_from(&record.latch);
            (self.t0_low, self.down_first) = (None, None);
            for ear in self.ears.values_mut() {
                ear.claim = None;
            }
        }
        let own = self.course.as_ref().is_some_and(|course| ticket > course.ticket);
        if record.intent.is_none() && own {
            self.course = None;
            self.t0_high = None;
        }
    }

    fn slept(&mut self, late: u64, scene: &Scene<'_>) {
        if late <= 500 {
            return;
        }
        for ear in self.ears.values_mut() {
            ear.forget();
        }
        (self.t0_low, self.t0_high, self.down_first) = (None, None, None);
        let sent = scene.disk.intent.as_ref().is_some_and(|intent| intent.stage == Stage::Sent);
        if let Some(course) = &mut self.course
            && !sent
            && course.intent.kind != EpisodeKind::Follow
        {
            course.void = true;
        }
        if late > 2000 {
            self.woke = scene.now;
            self.passed_start = false;
        }
    }

    pub fn answered(&mut self, command: &Command, dry_run: bool, answer: &Answer) {
        let Ok(receipt) = answer else { return };
        if dry_run {
            return;
        }
        self.accepted = Some(command.clone());
        match command {
            Command::Pause => self.paused = true,
            Command::Resume => self.paused = false,
            Command::Abandon { .. } => {
                if let Some(course) = &mut self.course {
                    course.abandoned = true;
                }
            }
            _ => {}
        }
        if let Some(id) = receipt.episode {
            self.commands.entry(id).or_insert_with(|| command.clone());
        }
    }

    /// A command that was only to be explained has been.
    pub fn explained(&mut self) {
        self.explaining = false;
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
            Action::ProbeNow { .. } | Action::Unlock { .. } => {}
            Action::Unfreeze { backend, .. } => self.orders_release(backend),
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

    /// Who the latched side is.
    pub fn identity(&self) -> Option<&Identity> {
        self.latch.as_ref()?.identity.as_ref()
    }
}

impl Course {
    pub fn of(intent: Intent, now: u64) -> Self {
        Self {
            intent,
            ticket: 0,
            decided: now,
            written: None,
            resumed: None,
            void: false,
            rechecked: false,
            fenced: None,
            locked: false,
            frozen: None,
            sent_ordered: false,
            sent_failed: false,
            refused: false,
            abandoned: false,
            done: false,
            ordered: None,
            idle: false,
        }
    }
}
