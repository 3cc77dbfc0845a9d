//! The failover machine of one pair: inputs come in through `handle_*`, outputs leave through `poll_*`.
//! After any `handle_*` the driver drains all output before the next. Time is an argument. What each state does stands
//! in `machine/{start,resume,watch,episode,switchover,promotion,route,rejoin,command,gate,reads}`; clusters in `machine/stream*`.

mod admin_state;
mod beside;
mod claims;
mod command;
mod command_special;
mod episode;
mod evidence;
mod gate;
mod latch;
mod left;
mod others;
mod outcome;
pub(super) mod patroni;
mod patroni_order;
mod phases;
mod promotion;
mod reads;
mod rejoin;
mod rejoining;
mod resume;
mod route;
mod start;
mod steps;
mod stream_command;
mod stream_episode;
mod streams;
mod surroundings;
mod survivors;
mod switchover;
mod wake;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::action::{Action, Cadence, Event, EventKind, Gate, Outcome};
use super::analysis::{self, Suspicion};
use super::health::{Limits, State as Health};
use super::observation::{Facts, Observation, Receiver, Verdict};
use super::phase::{BlockReason, EpisodeId, EpisodeKind, Latch, Phase, Record};
use super::replication::Streams;
use super::side::Side;
use crate::config::{Authority, Promoter, Service};
use crate::types::{BackendName, Epoch, Moment, Now, Timeline, WallTime};

pub use others::Sibling;
pub(super) use steps::{Aside, Lock, Run, Step};
pub(super) use watch::kind_word;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    pub(super) service: Service,
    daemon: String,
    pub(super) record: Record,
    pub(super) sides: Vec<Side>,
    /// Clusters: what was read of their replication.
    pub(super) streams: Streams,
    /// What was read of Patroni, where it is the authority.
    pub(super) following: patroni::Following,
    pub(super) state: State,
    pub(super) suspicion: Option<Suspicion>,
    pub(super) block: Option<Block>,
    pub(super) mismatch: Option<(BlockReason, String)>,
    pub(super) phase: Phase,
    pub(super) gate: Option<Gate>,
    cut: Option<BackendName>,
    barred: BTreeSet<BackendName>,
    readers: reads::Readers,
    retiring: admin_state::Retiring,
    cadence: Cadence,
    pub(super) disk_error: Option<String>,
    /// Other daemons of this pair: name and when they were last seen.
    pub(super) daemons: BTreeMap<String, Moment>,
    /// A promotion of somebody else was followed: what the side that was left shows since is still to be told.
    aftermath: Option<beside::Aftermath>,
    pub(super) beside: crate::view::Beside,
    /// Other pairs of this daemon.
    siblings: Vec<Sibling>,
    pub(super) settling: Option<Moment>,
    /// When this daemon last woke late: what began before is worth nothing.
    woke: Moment,
    /// The start checks ended at a latched side that could not be opened, being something else or read-only: they are owed
    /// to the next one, or to itself when it can.
    owed: Option<Moment>,
    /// A release from read-only was ordered at that time.
    releasing: Option<Moment>,
    /// Orders to sides that were left.
    tending: left::Tending,
    /// The rejoin under way, or the last one.
    rejoining: rejoining::Rejoining,
    /// A try was called off: none before that moment, for this reason.
    setback: Option<(Moment, BlockReason, String)>,
    /// When the latch last changed: what a side said before says nothing about its claims now.
    pub(super) latched_at: Option<Moment>,
    /// The record that is being written as the new latch.
    next_record: Option<Box<Record>>,
    /// What was done for the standbys that a change of the latch left behind.
    pub(super) care: BTreeMap<BackendName, survivors::Care>,
    awaited: Option<survivors::Awaited>,
    /// The active side's maint was lifted then.
    lifted: Option<Moment>,
    aside: Option<Aside>,
    /// A side's switch to `Healthy` or not, to tell changes.
    told: BTreeMap<BackendName, Health>,
    pub(super) evidence: String,
    tickets: u64,
    /// The newest ticket that was answered: what comes late says nothing about the disk.
    answered: u64,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    edges: BTreeMap<(Phase, Phase), u64>,
    pub(super) counts: BTreeMap<(bool, EpisodeKind, bool), u64>,
}

/// What the machine is doing.
#[derive(Debug)]
pub(super) enum State {
    /// The start checks.
    Starting {
        /// Since when.
        since: Moment,
    },
    /// The latch stands; evidence is weighed.
    Watching,
    /// An episode runs.
    Episode(Box<Run>),
}

/// Something must not be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) reason: BlockReason,
    pub(super) sentence: String,
    pub(super) since: WallTime,
}

impl Machine {
    /// A machine for this service as last persisted. `daemon` is this daemon's own name on the pair; names order by age.
    pub fn new(service: Service, daemon: String, record: Record, now: Now) -> Self {
        let witness = || Self::new_witness(&service);
        let sides = service.backends.iter().map(|config| Side { witness: witness(), ..Side::new(config) }).collect();
        let mut machine = Self {
            service,
            daemon,
            record,
            sides,
            streams: Streams::default(),
            following: patroni::Following::default(),
            state: State::Starting { since: now.at },
            suspicion: None,
            block: None,
            mismatch: None,
            phase: Phase::Starting,
            gate: None,
            cut: None,
            barred: BTreeSet::new(),
            readers: reads::Readers::default(),
            retiring: admin_state::Retiring::new(),
            cadence: Cadence::Calm,
            disk_error: None,
            daemons: BTreeMap::new(),
            aftermath: None,
            beside: crate::view::Beside::default(),
            siblings: Vec::new(),
            settling: None,
            woke: now.at,
            owed: None,
            releasing: None,
            tending: left::Tending::default(),
            rejoining: rejoining::Rejoining::default(),
            setback: None,
            latched_at: None,
            next_record: None,
            care: BTreeMap::new(),
            awaited: None,
            lifted: None,
            aside: None,
            told: BTreeMap::new(),
            evidence: "nothing was heard yet".into(),
            tickets: 0,
            answered: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            edges: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        let said = match (&machine.record.latch, &machine.record.intent) {
            (_, Some(intent)) => format!("started with episode {} open at stage {:?}", intent.id, intent.stage),
            (Some(latch), None) => format!("started with {} latched in epoch {}", latch.active, latch.epoch),
            (None, None) => "started without a latch".to_owned(),
        };
        machine.tell(now, EventKind::Started, said);
        machine.mark_unproven();
        machine.forget_strangers(now);
        machine.mark_administered();
        machine.await_standbys_still(now);
        machine.resume(now);
        machine.advance(now);
        machine
    }

    /// One probe's result.
    pub fn handle_observation(&mut self, seen: &Observation, now: Now) {
        if seen.started < self.woke {
            return;
        }
        let seen = &*self.as_cluster(seen);
        let limits = self.limits();
        let latched = self.timeline();
        let active = self.active_name();
        let cascade = matches!(&seen.verdict, Verdict::Answered(facts) if self.is_cascade(&seen.backend, facts));
        let relayed = self.active_side().and_then(|side| side.relayed.at(seen.started));
        let Some(side) = self.side_mut(&seen.backend) else {
            return;
        };
        if !side.observe(seen, limits, now) {
            return;
        }
        if let Verdict::Answered(facts) = &seen.verdict {
            if active.as_ref() != Some(&seen.backend) {
                side.answers_beside(seen.started, facts.role, relayed);
                side.witness.sample(seen.started, seen.finished, facts, latched, cascade);
            }
            for application in &facts.daemons {
                // pgpivot/<daemon>/<service>/<epoch>
                let name = application.split('/').nth(1).unwrap_or(application);
                if name != self.daemon {
                    self.daemons.insert(name.to_owned(), now.at);
                }
            }
        }
        if active.as_ref() == Some(&seen.backend) {
            self.trail(seen);
            self.weigh(seen, now);
        }
        self.tell_health(&seen.backend, now);
        self.advance(now);
    }

    /// What came of an action.
    pub fn handle_outcome(&mut self, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::Persisted { ticket, result } => self.persisted(ticket, result, now),
            Outcome::Cut { backend, connections, bytes } => self.was_cut(&backend, connections, bytes, now),
            Outcome::PatroniSaid { episode, says } => self.patroni_said(episode, says, now),
            Outcome::Unfrozen { episode, result } => self.unfrozen(episode, result, now),
            Outcome::Softened { backend, result } => self.softened(&backend, result, now),
            Outcome::Thawed { backend, result } => self.thawed(&backend, result, now),
            Outcome::Surveyed { backend, survey } => self.surveyed(backend, *survey, now),
            Outcome::Rejoining { backend, news } => self.hear_rejoining(&backend, news, now),
            Outcome::Repointed { backend, epoch, result } => self.repointed(&backend, epoch, result, now),
            Outcome::SyncSet { episode: None, result } => self.relieved(result, now),
            other => self.episode_outcome(other, now),
        }
        self.advance(now);
    }

    /// The deadline of `poll_timeout` has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.advance(now);
    }

    /// The disk can (`None`) or cannot be written, learned by a write that belongs to no step.
    pub fn handle_disk(&mut self, error: Option<String>, now: Now) {
        if self.disk_error != error {
            match &error {
                Some(why) => {
                    self.tell(now, EventKind::Blocked, format!("cannot fail over: the state cannot be written: {why}"));
                }
                None => self.tell(now, EventKind::Notice, "the state can be written again".to_owned()),
            }
            self.disk_error = error;
        }
        self.advance(now);
    }

    /// The next order, in the order they must be carried out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to write down.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call `handle_timeout` at the latest, and what for.
    pub fn poll_timeout(&self, now: Now) -> (Moment, &'static str) {
        let tick = |ms| now.at + Duration::from_millis(ms);
        match (&self.state, self.phase) {
            (State::Starting { .. }, _) => (tick(100), "start checks"),
            (State::Episode(_), _) => (tick(50), "episode"),
            (State::Watching, Phase::Steady | Phase::Paused) if self.suspicion.is_none() => {
                (tick(1000).min(self.readers.next(now.at)).min(self.next_retirement()), "freshness")
            }
            (State::Watching, Phase::Settling) => (tick(200), "settling"),
            (State::Watching, _) if self.cadence == Cadence::Death => (tick(20), "death path"),
            (State::Watching, _) => (tick(100), "evidence"),
        }
    }

    /// How often probes run now.
    pub fn cadence(&self) -> Cadence {
        self.cadence
    }

    /// The active side and its epoch.
    pub fn active(&self) -> Option<(&BackendName, Epoch)> {
        self.record.latch.as_ref().map(|latch| (&latch.active, latch.epoch))
    }

    /// Where the machine stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What it believes to be on disk.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The gate as last published.
    pub fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Why the state cannot be written, when it cannot.
    pub fn disk_error(&self) -> Option<&str> {
        self.disk_error.as_deref()
    }

    /// An address of this backend for our own orders: one that is up if there is one.
    pub fn address_of(&self, backend: &BackendName) -> Option<SocketAddr> {
        let side = self.side(backend)?;
        let up = side.addresses.iter().find(|(_, address)| address.health.state() == Health::Up);
        up.or_else(|| side.addresses.iter().next()).map(|(address, _)| *address)
    }

    /// The greatest `wal_receiver_timeout` read on a standby: it bounds how fast a hang is told.
    pub fn slowest_receiver_timeout(&self) -> Option<Duration> {
        self.sides.iter().filter_map(|side| side.witness.timeout()).max()
    }

    /// How often each edge between phases was taken.
    pub fn edges(&self) -> &BTreeMap<(Phase, Phase), u64> {
        &self.edges
    }

    // ---- shared by the states ----

    /// Runs the states until nothing changes, then brings gate, phase and cadence in line.
    fn advance(&mut self, now: Now) {
        self.expire(now);
        self.retry_aside(now);
        self.mark_administered();
        self.retire_due(now);
        self.judge_claims(now);
        self.tell_aftermath(now);
        self.note_others(now);
        self.note_follower(now);
        self.tend_ask(now);
        for _ in 0..16 {
            let before = self.marker();
            match &self.state {
                State::Starting { .. } => self.advance_start(now),
                State::Watching => self.advance_watch(now),
                State::Episode(_) => self.advance_episode(now),
            }
            if self.marker() == before {
                break;
            }
        }
        self.judge_readers(now);
        self.tend_left(now);
        self.tend_rejoin(now);
        self.mind_survivors(now);
        self.sync_gate(now);
        self.sync_phase(now);
        self.sync_cadence(now);
    }

    fn marker(&self) -> (u8, Option<(EpisodeId, Step)>) {
        match &self.state {
            State::Starting { .. } => (0, None),
            State::Watching => (1, None),
            State::Episode(run) => (2, Some((run.intent.id, run.step.clone()))),
        }
    }

    fn probe_all(&mut self) {
        for side in &self.sides {
            self.actions.push_back(Action::ProbeNow { backend: side.name.clone() });
        }
    }

    fn persist(&mut self) -> u64 {
        self.tickets += 1;
        let record = Box::new(self.record.clone());
        self.actions.push_back(Action::Persist { ticket: self.tickets, record });
        self.tickets
    }

    fn limits(&self) -> Limits {
        let probe = &self.service.probe;
        Limits {
            fall: probe.fall,
            rise: probe.rise,
            patience: self.service.failover.recovery_patience,
            // A tenth for timers.
            spacing: probe.fast_interval.mul_f64(0.9),
        }
    }

    pub(super) fn latch(&self) -> Option<&Latch> {
        self.record.latch.as_ref()
    }

    fn timeline(&self) -> Option<Timeline> {
        Some(self.latch()?.identity.as_ref()?.timeline)
    }

    pub(super) fn active_name(&self) -> Option<BackendName> {
        self.latch().map(|latch| latch.active.clone())
    }

    pub(super) fn is_active(&self, name: &BackendName) -> bool {
        self.latch().is_some_and(|latch| latch.active == *name)
    }

    pub(super) fn side(&self, name: &BackendName) -> Option<&Side> {
        self.sides.iter().find(|side| side.name == *name)
    }

    fn side_mut(&mut self, name: &BackendName) -> Option<&mut Side> {
        self.sides.iter_mut().find(|side| side.name == *name)
    }

    pub(super) fn active_side(&self) -> Option<&Side> {
        self.side(&self.latch()?.active)
    }

    fn is_cascade(&self, standby: &BackendName, facts: &Facts) -> bool {
        let Receiver::Row(row) = &facts.receiver else {
            return false;
        };
        let Some(latch) = self.latch() else {
            return false;
        };
        analysis::cascades(row.sender.as_deref(), &self.sides, standby, &latch.active)
    }

    /// The probes can tell who is who.
    pub(super) fn knows_identity(&self) -> bool {
        self.service.shows_lines()
    }

    /// This daemon may decide by itself (another question is whether it may now).
    pub(super) fn decides(&self) -> bool {
        self.service.failover.authority == Authority::SelfDecides && self.service.failover.automatic && self.can_move()
    }

    fn can_move(&self) -> bool {
        self.service.failover.standby_serves || !matches!(self.service.failover.promoter, Promoter::None)
    }
}

#[cfg(test)]
pub(in crate::failover) mod tests;
