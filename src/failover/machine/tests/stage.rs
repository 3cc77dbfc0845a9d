//! A stage for the machine: simulated servers, a disk, promoters and a virtual clock that jumps from event to event.
//! It obeys the machine's actions as the driver does, and checks after each that no byte could reach two primaries.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{self, Authority, Promoter, Service, WitnessRule};
use crate::failover::action::{
    Action, Cadence, Command, Event, Gate, LockResult, Operator, Outcome, PromotionResult, Receipt, Refusal,
};
use crate::failover::machine::Machine;
use crate::failover::observation::{
    Ancestor, Evidence, Facts, Failure, Observation, Receiver, ReceiverRow, Role, Unknown, Verdict,
};
use crate::failover::phase::{Phase, Record};
use crate::types::{BackendName, HostPort, Lsn, Moment, Now, SystemId, Timeline, WallTime};

/// How a simulated server behaves.
#[derive(Debug, Clone, PartialEq)]
pub enum Mood {
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
pub struct Server {
    pub mood: Mood,
    pub primary: bool,
    pub system: u64,
    pub timeline: u32,
    pub lsn: u64,
    pub ancestors: Vec<Ancestor>,
    /// Streams from this server while that one is well enough to send.
    pub upstream: Option<usize>,
    pub last_message: u64,
    pub had_row: bool,
    pub frozen: bool,
    pub node: String,
    pub locked_by_other: bool,
    pub daemons: Vec<String>,
    pub promotes: bool,
    pub sync_names: String,
    /// The receiver's columns read NULL: no `pg_read_all_stats`.
    pub unreadable: bool,
}

pub struct Stage {
    pub now: u64,
    pub machine: Machine,
    pub servers: Vec<Server>,
    pub disk: Record,
    pub disk_ok: bool,
    pub events: Vec<Event>,
    pub cuts: Vec<BackendName>,
    pub promotions: Vec<BackendName>,
    pub freezes: Vec<String>,
    pub fence: Result<(), String>,
    pub fenced: Vec<BackendName>,
    pub writes: u64,
    next_probe: Vec<u64>,
    pending: Vec<(u64, Observation)>,
    kept: Vec<bool>,
    service: Service,
    /// What the driver was told to carry out but did not live to: (action as text).
    pub log: Vec<String>,
}

pub const NAMES: [&str; 3] = ["east", "west", "north"];
const EPOCH_WALL: i64 = 1_800_000_000_000_000;

pub fn service(backends: usize) -> Service {
    let backend = |i: usize| config::Backend {
        name: NAMES[i].into(),
        addresses: vec![format!("{}.example:5432", NAMES[i]).parse().unwrap()],
        role: Some(if i == 0 { config::ConfiguredRole::Primary } else { config::ConfiguredRole::Standby }),
        weight: 100,
        priority: 100,
        tls: config::Tls { mode: config::TlsMode::Disable, ca_file: None, server_name: None },
    };
    let login = config::Login { user: "pgpivot".into(), database: "postgres".into(), password: None };
    let seconds = Duration::from_secs;
    Service {
        name: "main".into(),
        kind: config::Kind::Postgres,
        workers: 1,
        listeners: Vec::new(),
        backends: (0..backends).map(backend).collect(),
        probe: config::Probe {
            kind: config::ProbeKind::Sql { login: login.clone() },
            interval: seconds(2),
            fast_interval: Duration::from_millis(500),
            down_interval: seconds(2),
            timeout: seconds(1),
            fall: 3,
            rise: 2,
            jitter_percent: 0,
            hang_trigger: seconds(2),
            passive: true,
        },
        failover: config::Failover {
            automatic: true,
            delay: Duration::ZERO,
            cooldown: seconds(60),
            max_per_day: 3,
            max_lag: 16 << 20,
            max_disconnect: seconds(10),
            witness: WitnessRule::Required,
            hold_timeout: seconds(30),
            max_held: 1000,
            max_held_per_address: 200,
            release_rate: 1000,
            drain_timeout: seconds(5),
            promoter: Promoter::Postgres { login },
            promote_timeout: seconds(60),
            authority: Authority::SelfDecides,
            fence_command: None,
            fence_required: false,
            standby_serves: false,
            foreign_promotion: None,
            sync_after_failover: config::SyncRule::Report,
            recovery_patience: seconds(30),
            restart_grace: seconds(10),
            hung_grace: seconds(10),
            verify_wait: seconds(2),
        },
        connection: config::Connection {
            connect_timeout: seconds(3),
            first_packet_timeout: seconds(10),
            keepalive: seconds(30),
            user_timeout: seconds(30),
        },
    }
}

pub fn address(i: usize) -> SocketAddr {
    format!("10.0.0.{}:5432", i + 1).parse().unwrap()
}

impl Stage {
    pub fn with(service: Service) -> Self {
        Self::resumed(service, Record::default(), None, 1_000_000)
    }

    fn resumed(service: Service, disk: Record, servers: Option<Vec<Server>>, now: u64) -> Self {
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
            unreadable: false,
        };
        let at = Now { at: Moment(Duration::from_millis(now)), wall: wall(now) };
        let machine = Machine::new(service.clone(), "s-05".into(), disk.clone(), at);
        let mut stage = Self {
            now,
            machine,
            servers: servers.unwrap_or_else(|| (0..count).map(server).collect()),
            disk,
            disk_ok: true,
            events: Vec::new(),
            cuts: Vec::new(),
            promotions: Vec::new(),
            freezes: Vec::new(),
            fence: Ok(()),
            fenced: Vec::new(),
            writes: 0,
            next_probe: vec![now; count],
            pending: Vec::new(),
            kept: vec![true; count],
            service,
            log: Vec::new(),
        };
        stage.obey();
        for i in 0..count {
            let configured: HostPort = stage.service.backends[i].addresses[0].clone();
            let at = stage.at();
            stage.machine.handle_addresses(&NAMES[i].into(), &[(configured, address(i))], at);
            stage.obey();
        }
        stage
    }

    /// The daemon is killed and started again, `after` milliseconds later.
    pub fn restart(&mut self, after: u64) {
        let (events, promotions) = (std::mem::take(&mut self.events), std::mem::take(&mut self.promotions));
        let fresh =
            Self::resumed(self.service.clone(), self.disk.clone(), Some(self.servers.clone()), self.now + after);
        *self = fresh;
        self.events.splice(0..0, events);
        self.promotions.splice(0..0, promotions);
    }

    pub fn at(&self) -> Now {
        Now { at: Moment(Duration::from_millis(self.now)), wall: wall(self.now) }
    }

    /// Runs until the pair is steady for the first time.
    pub fn steady() -> Self {
        Self::steady_with(service(2))
    }

    pub fn steady_with(service: Service) -> Self {
        let mut stage = Self::with(service);
        stage.until(10_000, |stage| stage.machine.phase() == Phase::Steady);
        stage
    }

    pub fn active(&self) -> &str {
        self.machine.active().map_or("nobody", |(name, _)| name.as_str())
    }

    pub fn epoch(&self) -> u64 {
        self.machine.active().map_or(0, |(_, epoch)| epoch.0)
    }

    pub fn is_open(&self) -> bool {
        matches!(self.machine.gate(), Some(Gate::Open { tier, .. }) if tier.iter().any(|open| !open.addresses.is_empty()))
    }

    pub fn command(&mut self, command: &Command) -> Result<Receipt, Refusal> {
        let operator = Operator { name: "ada".into(), note: None };
        let at = self.at();
        let answer = self.machine.handle_command(command, &operator, false, at);
        self.obey();
        answer
    }

    pub fn said(&self, part: &str) -> bool {
        self.events.iter().any(|event| event.sentence.contains(part))
    }

    pub fn view(&self) -> crate::view::ServiceStatus {
        self.machine.view(self.at())
    }

    /// Runs until it is so; panics with what was said after `patience` milliseconds.
    pub fn until(&mut self, patience: u64, done: impl Fn(&Self) -> bool) {
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

    pub fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.turn();
        }
    }

    /// Ten milliseconds.
    fn turn(&mut self) {
        self.now += 10;
        self.replicate();
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
        if self.machine.poll_timeout(at).0 <= at.at || self.now % 50 == 0 {
            self.machine.handle_timeout(at);
            self.obey();
        }
    }

    fn pace(&self, i: usize) -> u64 {
        let active = self.active() == NAMES[i];
        match self.machine.cadence() {
            Cadence::Calm => 2000,
            Cadence::Fast if active => u64::try_from(self.service.probe.fast_interval.as_millis()).unwrap(),
            Cadence::Fast | Cadence::Episode => 250,
            Cadence::Death => 100,
        }
    }

    fn replicate(&mut self) {
        for i in 0..self.servers.len() {
            if self.servers[i].primary
                && matches!(self.servers[i].mood, Mood::Well | Mood::CutOff | Mood::Full)
                && !self.servers[i].frozen
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
            Mood::Well => (2, Verdict::Answered(Box::new(self.facts(i)))),
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

    pub fn facts(&self, i: usize) -> Facts {
        let server = &self.servers[i];
        let row = ReceiverRow {
            streaming: true,
            timeline: Some(Timeline(server.timeline)),
            lsn: Some(Lsn(server.lsn)),
            sent: Some(wall(server.last_message)),
            received: Some(wall(server.last_message)),
            sender: server.upstream.map(|up| self.servers[up].node.clone()),
        };
        Facts {
            role: if server.primary { Role::Primary } else { Role::Standby },
            system_id: Some(SystemId(server.system)),
            timeline: (server.primary || server.had_row).then_some(Timeline(server.timeline)),
            lsn: Some(Lsn(server.lsn)),
            replay_lsn: (!server.primary).then_some(Lsn(server.lsn)),
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
            may_read_stats: Some(true),
            sync: server.primary.then(|| crate::failover::observation::SyncState {
                names: server.sync_names.clone(),
                synchronous: Vec::new(),
            }),
            standbys: Vec::new(),
        }
    }

    /// `pg_promote`, or somebody's `pg_ctl promote`.
    pub fn promote(&mut self, i: usize) {
        let server = &mut self.servers[i];
        if !server.primary {
            server.ancestors.push(Ancestor { timeline: Timeline(server.timeline), switch_lsn: Lsn(server.lsn) });
            server.timeline += 1;
            server.primary = true;
            server.upstream = None;
        }
    }

    /// `pg_basebackup`: `i` becomes a standby of `of`.
    pub fn rebuild(&mut self, i: usize, of: usize) {
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

    fn index(name: &BackendName) -> usize {
        NAMES.iter().position(|known| *known == name.as_str()).unwrap()
    }

    /// Obeys as the driver does.
    pub fn obey(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            self.log.push(format!("{} {action:?}", self.now));
            self.carry_out(action);
            self.check_laws();
        }
        while let Some(event) = self.machine.poll_event() {
            self.events.push(event);
        }
    }

    fn carry_out(&mut self, action: Action) {
        let at = self.at();
        match action {
            Action::Persist { ticket, record } => {
                let result = if self.disk_ok {
                    self.writes += 1;
                    self.disk = *record;
                    Ok(())
                } else {
                    Err("no space left on device".into())
                };
                self.machine.handle_outcome(Outcome::Persisted { ticket, result }, at);
            }
            Action::Publish(_) | Action::Unlock { .. } => {}
            Action::Cut { backend } => self.cuts.push(backend),
            Action::ProbeNow { backend } => {
                let i = Self::index(&backend);
                self.next_probe[i] = self.now;
            }
            Action::Fence { episode, backend } => {
                self.fenced.push(backend);
                let result = self.fence.clone();
                self.machine.handle_outcome(Outcome::Fenced { episode, result }, at);
            }
            Action::Lock { episode, backends, needed } => {
                let free = backends.iter().filter(|name| !self.servers[Self::index(name)].locked_by_other).count();
                let result = if free >= needed { LockResult::Held } else { LockResult::Busy };
                self.machine.handle_outcome(Outcome::Locked { episode, result }, at);
            }
            Action::Promote { episode, backend, .. } => {
                let i = Self::index(&backend);
                self.promotions.push(backend);
                let result = if self.servers[i].mood == Mood::Well && self.servers[i].promotes {
                    self.promote(i);
                    PromotionResult::Done
                } else {
                    PromotionResult::Unknown("no answer in time".into())
                };
                self.machine.handle_outcome(Outcome::Promotion { episode, result }, at);
            }
            Action::Freeze { episode, backend } => {
                let i = Self::index(&backend);
                self.freezes.push(format!("freeze {backend}"));
                let server = &mut self.servers[i];
                let result = if server.mood == Mood::Well {
                    server.frozen = true;
                    Ok(Lsn(server.lsn))
                } else {
                    Err("no answer in time".into())
                };
                self.machine.handle_outcome(Outcome::Frozen { episode, result }, at);
            }
            Action::Unfreeze { episode, backend } => {
                let i = Self::index(&backend);
                self.freezes.push(format!("unfreeze {backend}"));
                let server = &mut self.servers[i];
                let result = if server.mood == Mood::Well {
                    server.frozen = false;
                    Ok(())
                } else {
                    Err("no answer in time".into())
                };
                self.machine.handle_outcome(Outcome::Unfrozen { episode, result }, at);
            }
            Action::ReadFlush { episode, backend } => {
                let server = &self.servers[Self::index(&backend)];
                let result = if server.mood == Mood::Well { Ok(Lsn(server.lsn)) } else { Err("no answer".into()) };
                self.machine.handle_outcome(Outcome::FlushRead { episode, result }, at);
            }
            Action::ClearSync { episode, backend } => {
                let i = Self::index(&backend);
                self.servers[i].sync_names.clear();
                self.machine.handle_outcome(Outcome::SyncCleared { episode, result: Ok(()) }, at);
            }
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

pub fn wall(ms: u64) -> WallTime {
    WallTime(EPOCH_WALL + i64::try_from(ms).unwrap() * 1000)
}
