//! A stage for the machine: simulated servers, a disk, promoters and a virtual clock that jumps from event to event.
//! It obeys the machine's actions as the driver does, and checks after each that no byte could reach two primaries.

use std::net::SocketAddr;
use std::time::Duration;

use super::plan::service;
use crate::config::{ProbeKind, Service};
use crate::failover::action::{
    Action, Cadence, Command, Event, Gate, Operator, Outcome, Receipt, Refusal, RejoinOrder,
};
use crate::failover::machine::Machine;
use crate::failover::observation::{
    Ancestor, Evidence, Facts, Failure, Observation, Receiver, ReceiverRow, Role, Unknown, Verdict,
};
use crate::failover::phase::{Phase, Record};
use crate::types::{BackendName, HostPort, Lsn, Moment, Now, SystemId, Timeline, WallTime};

/// How a simulated server behaves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mood {
    Well,
    Dead,
    Hung,
    /// The server lives, but this daemon's packets do not arrive.
    CutOff,
    Recovering,
    Full,
    ShuttingDown,
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) mood: Mood,
    pub(crate) primary: bool,
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    pub(crate) lsn: u64,
    pub(crate) ancestors: Vec<Ancestor>,
    /// Streams from this server while that one is well enough to send.
    pub(crate) upstream: Option<usize>,
    pub(crate) last_message: u64,
    pub(crate) had_row: bool,
    pub(crate) frozen: bool,
    pub(crate) node: String,
    pub(crate) locked_by_other: bool,
    pub(crate) daemons: Vec<String>,
    pub(crate) promotes: bool,
    pub(crate) sync_names: String,
    /// Nobody writes: heartbeats, and no new log.
    pub(crate) quiet: bool,
    /// It replays no further than this.
    pub(crate) replay_stopped: Option<u64>,
    /// The receiver's columns read NULL: no `pg_read_all_stats`.
    pub(crate) unreadable: bool,
}

pub(crate) struct Stage {
    pub(crate) now: u64,
    pub(crate) machine: Machine,
    pub(crate) servers: Vec<Server>,
    pub(crate) disk: Record,
    pub(crate) disk_ok: bool,
    /// A write that is said to have failed arrives all the same.
    pub(crate) disk_lies: bool,
    /// Outcomes that wait to be delivered.
    pub(super) waiting: Option<Vec<Outcome>>,
    /// From the write of such a record on, outcomes wait.
    pub(super) hold_write: Option<fn(&Record) -> bool>,
    pub(super) unlocks: u32,
    /// Orders that are never carried out, and of which nothing is ever heard.
    pub(super) loses: Option<fn(&Action) -> bool>,
    pub(crate) events: Vec<Event>,
    pub(crate) cuts: Vec<BackendName>,
    /// Whose readers were asked to end.
    pub(crate) drained: Vec<BackendName>,
    /// Who was asked to end by an operator's order, or cut.
    pub(crate) retired: Vec<(BackendName, Option<SocketAddr>, bool)>,
    /// Client connections to the active side, and the bytes that they sent.
    pub(super) attached: usize,
    pub(super) relayed: u64,
    pub(crate) promotions: Vec<BackendName>,
    pub(crate) freezes: Vec<String>,
    /// What a setting does not bind.
    pub(super) gaps: Vec<String>,
    /// Commands that were ordered to be run, and to be ended.
    pub(super) rejoins: Vec<RejoinOrder>,
    pub(super) stopped: Vec<BackendName>,
    pub(crate) fence: Result<(), String>,
    pub(crate) fenced: Vec<BackendName>,
    /// Standbys that were pointed at a new primary, and why that is refused.
    pub(super) repointed: Vec<BackendName>,
    pub(super) repoint_refused: Option<String>,
    /// Why nobody's synchronous_standby_names is set.
    pub(super) sync_refused: Option<String>,
    pub(crate) writes: u64,
    pub(super) next_probe: Vec<u64>,
    pending: Vec<(u64, Observation)>,
    kept: Vec<bool>,
    /// As the probes heard it last.
    cadence: Cadence,
    service: Service,
    /// What the driver was told to carry out but did not live to: (action as text).
    pub(crate) log: Vec<String>,
}

pub(crate) const NAMES: [&str; 3] = ["east", "west", "north"];
const EPOCH_WALL: i64 = 1_800_000_000_000_000;

pub(crate) fn address(i: usize) -> SocketAddr {
    format!("10.0.0.{}:5432", i + 1).parse().unwrap()
}

impl Stage {
    pub(crate) fn with(service: Service) -> Self {
        Self::resumed(service, Record::default(), None, 1_000_000, true)
    }

    fn resumed(service: Service, disk: Record, servers: Option<Vec<Server>>, now: u64, disk_ok: bool) -> Self {
        let count = service.backends.len();
        let server = |i: usize| Server {
            mood: Mood::Well,
            primary: i == 0,
            system: 77,
            timeline: 1,
            lsn: 1000,
            ancestors: Vec::new(),
            upstream: (i > 0).then_some(0),
            last_message: now,
            had_row: true,
            frozen: false,
            node: address(i).to_string(),
            locked_by_other: false,
            daemons: Vec::new(),
            promotes: true,
            sync_names: String::new(),
            quiet: false,
            replay_stopped: None,
            unreadable: false,
        };
        let at = Now { at: Moment(Duration::from_millis(now)), wall: wall(now) };
        let machine = Machine::new(service.clone(), "s-05".into(), disk.clone(), at);
        let mut stage = Self {
            now,
            machine,
            servers: servers.unwrap_or_else(|| (0..count).map(server).collect()),
            disk,
            disk_ok,
            disk_lies: false,
            waiting: None,
            hold_write: None,
            unlocks: 0,
            loses: None,
            events: Vec::new(),
            cuts: Vec::new(),
            drained: Vec::new(),
            retired: Vec::new(),
            attached: 0,
            relayed: 0,
            promotions: Vec::new(),
            freezes: Vec::new(),
            gaps: Vec::new(),
            rejoins: Vec::new(),
            stopped: Vec::new(),
            fence: Ok(()),
            fenced: Vec::new(),
            repointed: Vec::new(),
            repoint_refused: None,
            sync_refused: None,
            writes: 0,
            next_probe: vec![now; count],
            pending: Vec::new(),
            kept: vec![true; count],
            cadence: Cadence::Calm,
            service,
            log: Vec::new(),
        };
        stage.obey();
        for (i, backend) in stage.service.backends.clone().iter().enumerate() {
            let configured: HostPort = backend.addresses[0].clone();
            let at = stage.at();
            stage.machine.handle_addresses(&backend.name, &[(configured, address(i))], at);
            stage.obey();
        }
        stage
    }

    /// The daemon is killed and started again, `after` milliseconds later.
    pub(crate) fn restart(&mut self, after: u64) {
        let (events, promotions) = (std::mem::take(&mut self.events), std::mem::take(&mut self.promotions));
        let servers = Some(self.servers.clone());
        let fresh = Self::resumed(self.service.clone(), self.disk.clone(), servers, self.now + after, self.disk_ok);
        *self = fresh;
        self.events.splice(0..0, events);
        self.promotions.splice(0..0, promotions);
    }

    /// Started again with another configuration.
    pub(super) fn reconfigured(&mut self, service: Service) {
        self.service = service;
        self.restart(500);
    }

    pub(crate) fn at(&self) -> Now {
        Now { at: Moment(Duration::from_millis(self.now)), wall: wall(self.now) }
    }

    /// Runs until the pair is steady for the first time.
    pub(crate) fn steady() -> Self {
        Self::steady_with(service(2))
    }

    pub(crate) fn steady_with(service: Service) -> Self {
        let mut stage = Self::with(service);
        stage.until(10_000, |stage| stage.machine.phase() == Phase::Steady);
        stage
    }

    pub(crate) fn active(&self) -> &str {
        self.machine.active().map_or("nobody", |(name, _)| name.as_str())
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.machine.active().map_or(0, |(_, epoch)| epoch.0)
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.machine.gate(), Some(Gate::Open { tier, .. }) if tier.iter().any(|open| !open.addresses.is_empty()))
    }

    pub(crate) fn command(&mut self, command: &Command) -> Result<Receipt, Refusal> {
        let operator = Operator { name: "ada".into(), note: None };
        let at = self.at();
        let answer = self.machine.handle_command(command, &operator, false, at);
        self.obey();
        answer
    }

    pub(crate) fn said(&self, part: &str) -> bool {
        self.events.iter().any(|event| event.sentence.contains(part))
    }

    pub(crate) fn view(&self) -> crate::view::ServiceStatus {
        self.machine.view(self.at())
    }

    /// Runs until it is so; panics with what was said after `patience` milliseconds.
    pub(crate) fn until(&mut self, patience: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now + patience;
        while !done(self) {
            if self.now >= end {
                let said: Vec<_> =
                    self.events.iter().rev().take(12).map(|e| format!("{:?}: {}", e.kind, e.sentence)).collect();
                panic!(
                    "not so after {patience} ms, in {:?}: {}\n{}",
                    self.machine.phase(),
                    self.view().evidence,
                    said.join("\n")
                );
            }
            self.turn();
        }
    }

    pub(crate) fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.turn();
        }
    }

    /// Ten milliseconds.
    fn turn(&mut self) {
        self.now += 10;
        self.replicate();
        if self.cadence != self.machine.cadence() {
            self.cadence = self.machine.cadence();
            if self.cadence == Cadence::Proof {
                self.next_probe.fill(self.now);
            }
        }
        for i in 0..self.servers.len() {
            self.keep(i);
            if self.now >= self.next_probe[i] {
                self.probe(i);
                self.next_probe[i] = self.now + self.pace(i);
            }
        }
        let due: Vec<_> = self.pending.extract_if(.., |(at, _)| *at <= self.now).map(|(_, seen)| seen).collect();
        for seen in due {
            let at = self.at();
            self.machine.handle_observation(&seen, at);
            self.obey();
        }
        let at = self.at();
        if self.machine.poll_timeout(at).0 <= at.at || self.now.is_multiple_of(50) {
            self.machine.handle_timeout(at);
            self.obey();
        }
    }

    fn pace(&self, i: usize) -> u64 {
        let active = self.active() == NAMES[i];
        match self.machine.cadence() {
            Cadence::Calm => 2000,
            Cadence::Fast if active => u64::try_from(self.service.probe.fast_interval.as_millis()).unwrap(),
            Cadence::Proof if !active => 25,
            Cadence::Fast | Cadence::Episode | Cadence::Proof => 250,
            Cadence::Death => 100,
        }
    }

    fn replicate(&mut self) {
        for i in 0..self.servers.len() {
            if self.servers[i].primary
                && matches!(self.servers[i].mood, Mood::Well | Mood::CutOff | Mood::Full)
                && !self.servers[i].frozen
                && !self.servers[i].quiet
            {
                self.servers[i].lsn += 1;
            }
        }
        for i in 0..self.servers.len() {
            let Some(up) = self.servers[i].upstream else { continue };
            let source = self.servers[up].clone();
            let same_line = source.system == self.servers[i].system && source.timeline == self.servers[i].timeline;
            let sends = source.primary && same_line && matches!(source.mood, Mood::Well | Mood::CutOff | Mood::Full);
            let standby = &mut self.servers[i];
            if standby.mood != Mood::Well && standby.mood != Mood::CutOff || standby.primary {
                continue;
            }
            if sends {
                standby.lsn = source.lsn;
                standby.last_message = self.now;
                standby.had_row = true;
            } else if source.mood == Mood::Dead || source.mood == Mood::ShuttingDown || !source.primary || !same_line {
                standby.had_row = false;
            } else if self.now - standby.last_message > 3000 {
                standby.had_row = false; // wal_receiver_timeout
            }
        }
    }

    fn keep(&mut self, i: usize) {
        let lost = matches!(self.servers[i].mood, Mood::Dead);
        if lost && self.kept[i] {
            self.kept[i] = false;
            let at = self.at();
            self.machine.handle_evidence(&Evidence::ProbeConnectionLost { backend: NAMES[i].into() }, at);
            self.obey();
        } else if !lost {
            self.kept[i] = true;
        }
    }

    fn probe(&mut self, i: usize) {
        let began = self.now;
        let (took, verdict) = match self.servers[i].mood {
            Mood::Well if matches!(self.service.probe.kind, ProbeKind::Sql { .. }) => {
                (2, Verdict::Answered(Box::new(self.facts(i))))
            }
            Mood::Well if self.service.probe.kind.primary_only() && !self.servers[i].primary => {
                (2, Verdict::Failed(Failure::BadReply))
            }
            Mood::Well if self.service.probe.kind.primary_only() => {
                (2, Verdict::Answered(Box::new(Facts { role: Role::Primary, ..Facts::default() })))
            }
            Mood::Well => (2, Verdict::Answered(Box::default())),
            Mood::Dead => (1, Verdict::Failed(Failure::Refused)),
            Mood::Hung | Mood::CutOff => (1000, Verdict::Failed(Failure::TimedOut)),
            Mood::Recovering => (2, Verdict::Recovering),
            Mood::Full => (2, Verdict::Unknown(Unknown::TooManyConnections)),
            Mood::ShuttingDown => (2, Verdict::Failed(Failure::ShuttingDown)),
        };
        let moment = |ms| Moment(Duration::from_millis(ms));
        let seen = Observation {
            backend: NAMES[i].into(),
            address: address(i),
            started: moment(began),
            finished: moment(began + took),
            fresh: true,
            verdict,
        };
        self.pending.push((began + took, seen));
    }

    pub(crate) fn facts(&self, i: usize) -> Facts {
        let server = &self.servers[i];
        let row = ReceiverRow {
            streaming: true,
            timeline: Some(Timeline(server.timeline)),
            lsn: Some(Lsn(server.lsn)),
            sent: Some(wall(server.last_message)),
            received: Some(wall(server.last_message)),
            sender: server.upstream.map(|up| self.servers[up].node.clone()),
            application_name: Some(NAMES[i].into()),
        };
        Facts {
            role: if server.primary { Role::Primary } else { Role::Standby },
            system_id: Some(SystemId(server.system)),
            timeline: (server.primary || server.had_row).then_some(Timeline(server.timeline)),
            lsn: Some(Lsn(server.lsn)),
            replay_lsn: (!server.primary).then_some(Lsn(server.replay_stopped.unwrap_or(server.lsn))),
            node: Some(server.node.clone()),
            clock: Some(wall(self.now)),
            receiver: match (server.primary || server.unreadable, server.had_row) {
                (true, _) => Receiver::Unknown,
                (false, true) => Receiver::Row(row),
                (false, false) => Receiver::Gone,
            },
            receiver_timeout: (!server.primary).then_some(Duration::from_secs(3)),
            history: server.primary.then(|| server.ancestors.clone()),
            daemons: server.daemons.clone(),
            may_promote: Some(true),
            may_read_stats: Some(!server.unreadable),
            sync: server.primary.then(|| crate::failover::observation::SyncState {
                names: server.sync_names.clone(),
                synchronous: Vec::new(),
                commit: "on".into(),
            }),
            standbys: Vec::new(),
        }
    }

    /// `pg_promote`, or somebody's `pg_ctl promote`.
    pub(crate) fn promote(&mut self, i: usize) {
        let server = &mut self.servers[i];
        if !server.primary {
            server.ancestors.push(Ancestor { timeline: Timeline(server.timeline), switch_lsn: Lsn(server.lsn) });
            server.timeline += 1;
            server.primary = true;
            server.upstream = None;
        }
    }

    /// `pg_basebackup`: `i` becomes a standby of `of`.
    pub(crate) fn rebuild(&mut self, i: usize, of: usize) {
        let source = self.servers[of].clone();
        let node = self.servers[i].node.clone();
        self.servers[i] = Server {
            mood: Mood::Well,
            primary: false,
            upstream: Some(of),
            node,
            had_row: true,
            last_message: self.now,
            frozen: false,
            ..source
        };
    }

    pub(super) fn index(name: &BackendName) -> usize {
        NAMES.iter().position(|known| *known == name.as_str()).unwrap()
    }

    /// Obeys as the driver does.
    pub(crate) fn obey(&mut self) {
        let said = self.log.len();
        while let Some(action) = self.machine.poll_action() {
            assert!(self.log.len() - said < 1000, "no end of orders: {:#?}", &self.log[self.log.len() - 6..]);
            self.log.push(format!("{} {action:?}", self.now));
            self.carry_out(action);
            self.check_laws();
        }
        while let Some(event) = self.machine.poll_event() {
            self.events.push(event);
        }
    }

    /// The gate leads only to the side that the disk names, and never to one that an open intent leaves.
    fn check_laws(&self) {
        let Some(Gate::Open { active, epoch, hold, .. }) = self.machine.gate() else {
            return;
        };
        let latch = self.disk.latch.as_ref().expect("the gate is open without a latch on disk");
        assert_eq!(
            (active, *epoch),
            (&latch.active, latch.epoch),
            "the gate is open to a side that the disk does not name"
        );
        if let Some(intent) = &self.disk.intent {
            assert!(
                intent.from.as_ref() != Some(active) || *hold,
                "the side that an intent on disk leaves gets traffic"
            );
        }
    }
}

pub(crate) fn wall(ms: u64) -> WallTime {
    WallTime(EPOCH_WALL + i64::try_from(ms).unwrap() * 1000)
}
