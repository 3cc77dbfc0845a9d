//! A stage of two clusters joined by physical replication: what probes and the Cloud API would show, on a virtual clock.
//! It obeys the machine's actions as the driver does, and checks after each that no side gets traffic that the disk does
//! not name.

use std::net::SocketAddr;
use std::time::Duration;

pub(super) use super::patch::Patch;
use super::plan;
use crate::config::{self, CockroachCloud, Kind, ProbeKind, Promoter, Replication, Service};
use crate::failover::action::{Action, Command, Event, Gate, Operator, Outcome, Receipt, Refusal};
use crate::failover::machine::Machine;
use crate::failover::observation::{Facts, Failure, Observation, Role, Verdict};
use crate::failover::phase::Record;
use crate::failover::replication::{Report, Scope, Status, Stream, Unread};
use crate::types::{BackendName, HostPort, Moment, Now, Secret, WallTime};

pub(super) const EAST: usize = 0;
pub(super) const WEST: usize = 1;
pub(super) const NAMES: [&str; 2] = ["east", "west"];
const EPOCH_WALL: i64 = 1_800_000_000_000_000;
/// The API's clock is ahead of ours by this.
const API_AHEAD_MS: u64 = 7_000;

/// What a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    Serves,
    /// 08000.
    Standby,
    /// The same of one that was stopped; it is replicated from all the same.
    Stopped,
    Dead,
    Silent,
}

/// What the API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Well,
    Unreachable,
}

pub(super) struct Clusters {
    pub(super) now: u64,
    pub(super) machine: Machine,
    pub(super) clusters: [Cluster; 2],
    pub(super) streams: Vec<Stream>,
    pub(super) api: Api,
    pub(super) patch: Patch,
    /// `replicated_time` moves.
    pub(super) replicates: bool,
    pub(super) serves_when_completed: bool,
    /// Milliseconds until a failover is completed.
    pub(super) takes: u64,
    pub(super) disk: Record,
    pub(super) events: Vec<(u64, Event)>,
    pub(super) patches: Vec<(u64, String, Option<WallTime>)>,
    pub(super) cuts: Vec<(u64, BackendName)>,
    pub(super) unfrozen: Vec<BackendName>,
    pub(super) clock_readable: bool,
    /// Streams that were completed a turn ago.
    pub(super) completed_before: usize,
    /// What a node fence comes to; a good one stops the cluster, as STOP SERVICE does.
    pub(super) fence: Result<(), String>,
    /// Reads of the streams that were tried.
    pub(super) reads: u64,
    /// Every record that was written.
    pub(super) written: Vec<Record>,
    /// By so much more is the API's clock ahead, milliseconds.
    pub(super) api_jump: u64,
    /// Probes that were begun: when, whose.
    pub(super) probes: Vec<(u64, usize)>,
    service: Service,
    next_probe: [u64; 2],
    next_read: u64,
    next_list: u64,
    pub(super) completes: Vec<(u64, String)>,
    pending: Vec<(u64, Observation)>,
}

/// The seeds' defaults: 30 s, 10 s, 3 failures, 60 s.
pub(super) fn service() -> Service {
    let mut service = plan::service(2);
    let seconds = Duration::from_secs;
    service.kind = Kind::Cockroach;
    let login = config::Login { user: "pgpivot".into(), database: "defaultdb".into(), password: None };
    service.probe.kind = ProbeKind::Startup { login };
    service.probe.interval = seconds(30);
    service.probe.fast_interval = seconds(30);
    service.probe.down_interval = seconds(30);
    service.probe.timeout = seconds(10);
    service.probe.passive = false;
    service.failover.delay = seconds(60);
    service.failover.promoter = Promoter::CockroachCloud;
    service.failover.promote_timeout = seconds(3600);
    service.failover.verify_wait = seconds(15);
    service.failover.hold_timeout = seconds(300);
    service.replication = Some(Replication::Cloud(CockroachCloud {
        api_url: "https://cockroachlabs.cloud".into(),
        secret: Secret::new("s3cret".into()),
        timeout: seconds(10),
        stream_id: None,
        failover_at: None,
        refresh: seconds(30),
    }));
    service
}

pub(super) fn stream(id: &str, from: usize, to: usize, status: Status) -> Stream {
    Stream { status, ..Stream::unread(id.into(), NAMES[from].into(), NAMES[to].into()) }
}

pub(super) fn wall(ms: u64) -> WallTime {
    WallTime(EPOCH_WALL + i64::try_from(ms).unwrap() * 1000)
}

/// The API's clock.
pub(super) fn api_clock(ms: u64) -> WallTime {
    wall(ms + API_AHEAD_MS)
}

fn moment(ms: u64) -> Moment {
    Moment(Duration::from_millis(ms))
}

fn address(i: usize) -> SocketAddr {
    format!("10.0.0.{}:26257", i + 1).parse().unwrap()
}

impl Clusters {
    /// East serves, west follows it on stream `s1`, and nothing was ever latched.
    pub(super) fn new(service: Service) -> Self {
        Self::started(service, Record::default(), 30_000_000)
    }

    fn started(service: Service, disk: Record, now: u64) -> Self {
        let at = Now { at: moment(now), wall: wall(now) };
        let machine = Machine::new(service.clone(), "s-05".into(), disk.clone(), at);
        let mut s1 = stream("s1", EAST, WEST, Status::Replicating);
        s1.retained = Some(api_clock(now - 4 * 3600 * 1000 / 2));
        let mut stage = Self {
            now,
            machine,
            clusters: [Cluster::Serves, Cluster::Standby],
            streams: vec![s1],
            api: Api::Well,
            patch: Patch::Taken,
            replicates: true,
            serves_when_completed: true,
            takes: 90_000,
            disk,
            events: Vec::new(),
            patches: Vec::new(),
            cuts: Vec::new(),
            unfrozen: Vec::new(),
            clock_readable: true,
            completed_before: 0,
            fence: Ok(()),
            reads: 0,
            written: Vec::new(),
            api_jump: 0,
            probes: Vec::new(),
            service,
            next_probe: [now; 2],
            next_read: now,
            next_list: now,
            completes: Vec::new(),
            pending: Vec::new(),
        };
        stage.obey();
        stage.resolve();
        stage
    }

    fn resolve(&mut self) {
        for (i, backend) in self.service.backends.clone().iter().enumerate() {
            let configured: HostPort = backend.addresses[0].clone();
            let at = self.at();
            self.machine.handle_addresses(&backend.name, &[(configured, address(i))], at);
            self.obey();
        }
    }

    /// Steady with a long history of lags.
    pub(super) fn steady_with(service: Service) -> Self {
        let mut stage = Self::new(service);
        stage.until(60_000, Self::is_open);
        stage.run(300_000);
        stage
    }

    pub(super) fn steady() -> Self {
        Self::steady_with(service())
    }

    /// The daemon is killed and started again, `after` milliseconds later.
    pub(super) fn restart(&mut self, after: u64) {
        self.now += after;
        let at = self.at();
        self.machine = Machine::new(self.service.clone(), "s-06".into(), self.disk.clone(), at);
        (self.next_probe, self.next_read, self.next_list) = ([self.now; 2], self.now, self.now);
        self.pending.clear();
        self.obey();
        self.resolve();
    }

    /// Started again with another configuration.
    pub(super) fn reconfigured(&mut self, service: Service) {
        self.service = service;
        self.restart(1000);
    }

    pub(super) fn at(&self) -> Now {
        Now { at: moment(self.now), wall: wall(self.now) }
    }

    pub(super) fn active(&self) -> &str {
        self.machine.active().map_or("nobody", |(name, _)| name.as_str())
    }

    pub(super) fn epoch(&self) -> u64 {
        self.machine.active().map_or(0, |(_, epoch)| epoch.0)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.machine.gate(), Some(Gate::Open { tier, .. }) if tier.iter().any(|open| !open.addresses.is_empty()))
    }

    pub(super) fn blocked(&self) -> String {
        self.machine.view(self.at()).blocked.map_or_else(String::new, |b| format!("{}: {}", b.reason, b.sentence))
    }

    pub(super) fn said(&self, part: &str) -> bool {
        self.events.iter().any(|(_, event)| event.sentence.contains(part))
    }

    pub(super) fn command(&mut self, command: &Command) -> Result<Receipt, Refusal> {
        let operator = Operator { name: "ada".into(), note: Some("drill".into()) };
        let at = self.at();
        let answer = self.machine.handle_command(command, &operator, false, at);
        self.obey();
        answer
    }

    pub(super) fn until(&mut self, patience: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now + patience;
        while !done(self) {
            if self.now >= end {
                let (phase, view) = (self.machine.phase(), self.machine.view(self.at()));
                panic!(
                    "not so after {patience} ms, in {phase:?}: {} {:?}\n{}",
                    view.evidence,
                    view.blocked,
                    self.last_words()
                );
            }
            self.turn();
        }
    }

    /// What was said last, the newest first.
    pub(super) fn last_words(&self) -> String {
        let word = |(at, e): &(u64, Event)| format!("{at} {:?}: {}", e.kind, e.sentence);
        self.events.iter().rev().take(25).map(word).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.now += 100;
        self.completed_before = self.streams.iter().filter(|s| s.status == Status::Completed).count();
        self.replicate();
        for i in 0..2 {
            if self.now >= self.next_probe[i] {
                self.probe(i);
                self.next_probe[i] = self.now + 30_000;
            }
        }
        let due: Vec<_> = self.pending.extract_if(.., |(at, _)| *at <= self.now).map(|(_, seen)| seen).collect();
        for seen in due {
            let at = self.at();
            self.machine.handle_observation(&seen, at);
            self.obey();
        }
        let pace = self.machine.stream_pace().unwrap();
        if self.now >= self.next_list {
            self.next_list = self.now + u64::try_from(pace.1.as_millis()).unwrap();
            self.read(None);
        }
        if self.now >= self.next_read {
            self.next_read = self.now + u64::try_from(pace.0.as_millis()).unwrap();
            let id = self.machine.stream_to_watch().map(str::to_owned);
            self.read(id.as_deref());
        }
        let at = self.at();
        self.machine.handle_timeout(at);
        self.obey();
    }

    /// Every 30 s `replicated_time` moves to what was 20 s before, while the primary lives; failovers complete.
    fn replicate(&mut self) {
        let serving = |cluster| matches!(cluster, Cluster::Serves | Cluster::Stopped);
        for stream in &mut self.streams {
            let source = NAMES.iter().position(|name| *name == stream.from.as_str()).unwrap();
            let lives = serving(self.clusters[source]) || self.clusters[source] == Cluster::Silent && self.replicates;
            if stream.status == Status::Replicating && self.now.is_multiple_of(30_000) && lives && self.replicates {
                stream.replicated = Some(api_clock(self.now - 20_000));
            }
        }
        let done: Vec<String> =
            self.completes.extract_if(.., |(at, _)| *at <= self.now).map(|(_, stream)| stream).collect();
        for id in done {
            self.complete(&id);
        }
    }

    pub(super) fn complete(&mut self, id: &str) {
        let open = |stream: &&mut Stream| stream.id == id && stream.status < Status::Completed;
        let Some(stream) = self.streams.iter_mut().find(open) else { return };
        stream.status = Status::Completed;
        stream.activated = stream.failover_at.or(stream.replicated).or(Some(api_clock(self.now)));
        (stream.failover_at, stream.replicated) = (None, None);
        let to = NAMES.iter().position(|name| *name == stream.to.as_str()).unwrap();
        if self.serves_when_completed {
            self.clusters[to] = Cluster::Serves;
        }
    }

    /// Somebody fails the stream over, by the API.
    pub(super) fn fail_over(&mut self, id: &str, at: Option<WallTime>) {
        let stream = self.streams.iter_mut().find(|stream| stream.id == id).unwrap();
        assert_eq!(stream.status, Status::Replicating, "the API takes a failover of no other");
        stream.status = Status::FailingOver;
        stream.failover_at = at;
        self.completes.push((self.now + self.takes, id.to_owned()));
    }

    /// A new stream from one to the other: what was on the target is erased.
    pub(super) fn create(&mut self, id: &str, from: usize, to: usize) {
        let mut new = stream(id, from, to, Status::Replicating);
        new.replicated = Some(api_clock(self.now - 10_000));
        self.streams.push(new);
        self.clusters[to] = Cluster::Standby;
    }

    fn read(&mut self, id: Option<&str>) {
        self.reads += 1;
        let found: Vec<Stream> =
            self.streams.iter().filter(|stream| id.is_none_or(|id| id == stream.id)).cloned().collect();
        let result = match self.api {
            Api::Unreachable => Err(Unread { sentence: "the API is unreachable".into(), gone: false }),
            Api::Well if found.is_empty() && id.is_some() => Err(Unread { sentence: "404".into(), gone: true }),
            Api::Well => Ok(found),
        };
        let report = Report {
            started: moment(self.now),
            finished: moment(self.now),
            scope: id.map_or(Scope::All, |id| Scope::One(id.to_owned())),
            clock: (self.api == Api::Well).then(|| api_clock(self.now + self.api_jump)),
            result,
        };
        let at = self.at();
        self.machine.handle_streams(&report, at);
        self.obey();
    }

    fn probe(&mut self, i: usize) {
        self.probes.push((self.now, i));
        let facts = Facts { role: Role::Primary, ..Facts::default() };
        let (took, verdict) = match self.clusters[i] {
            Cluster::Serves => (100, Verdict::Answered(Box::new(facts))),
            Cluster::Standby | Cluster::Stopped => (100, Verdict::Failed(Failure::NotServing)),
            Cluster::Dead => (0, Verdict::Failed(Failure::Refused)),
            Cluster::Silent => (10_000, Verdict::Failed(Failure::TimedOut)),
        };
        let seen = Observation {
            backend: NAMES[i].into(),
            address: address(i),
            started: moment(self.now),
            finished: moment(self.now + took),
            fresh: true,
            verdict,
        };
        self.pending.push((self.now + took, seen));
    }

    fn obey(&mut self) {
        let mut orders = 0;
        while let Some(action) = self.machine.poll_action() {
            orders += 1;
            assert!(orders < 1000, "no end of orders: {action:?}");
            self.carry_out(action);
            self.check_laws();
        }
        while let Some(event) = self.machine.poll_event() {
            self.events.push((self.now, event));
        }
    }

    fn carry_out(&mut self, action: Action) {
        let at = self.at();
        match action {
            Action::Persist { ticket, record } => {
                self.disk = *record;
                self.written.push(self.disk.clone());
                self.machine.handle_outcome(Outcome::Persisted { ticket, result: Ok(()) }, at);
            }
            Action::Cut { backend } => self.cuts.push((self.now, backend)),
            Action::ProbeNow { backend } => {
                self.probe(NAMES.iter().position(|name| *name == backend.as_str()).unwrap());
            }
            Action::ReadStreams { stream } => self.read(stream.as_deref()),
            Action::Fence { episode, backend } => {
                let result = self.fence.clone();
                if result.is_ok() {
                    self.stop(&backend);
                }
                self.machine.handle_outcome(Outcome::Fenced { episode, result }, at);
            }
            Action::ReadClock { episode, backend, stop } => {
                if stop {
                    self.stop(&backend);
                }
                let result = if self.clock_readable { Ok(wall(self.now)) } else { Err("no login".into()) };
                self.machine.handle_outcome(Outcome::ClockRead { episode, result }, at);
            }
            Action::Promote { episode, stream, .. } => {
                let order = stream.expect("a stream is named");
                self.patches.push((self.now, order.id.clone(), order.failover_at));
                let open = self.streams.iter().any(|s| s.id == order.id && s.status == Status::Replicating);
                let goes_on = !open && self.service.failover.promoter == Promoter::CockroachSql;
                if open && self.patch.takes_effect() {
                    self.fail_over(&order.id, order.failover_at);
                }
                if self.patch == Patch::Parting {
                    self.api = Api::Unreachable;
                }
                let result = self.patch.answer(open, goes_on);
                self.machine.handle_outcome(Outcome::Promotion { episode, result }, at);
            }
            Action::Unfreeze { episode, backend, .. } => {
                let i = NAMES.iter().position(|name| *name == backend.as_str()).unwrap();
                if self.clusters[i] == Cluster::Stopped {
                    self.clusters[i] = Cluster::Serves;
                }
                self.unfrozen.push(backend);
                self.machine.handle_outcome(Outcome::Unfrozen { episode, result: Ok(()) }, at);
            }
            Action::Publish(_) | Action::Unlock { .. } => {}
            other => panic!("nobody orders this of clusters: {other:?}"),
        }
    }

    /// STOP SERVICE.
    fn stop(&mut self, backend: &BackendName) {
        let i = NAMES.iter().position(|name| *name == backend.as_str()).unwrap();
        if self.clusters[i] == Cluster::Serves {
            self.clusters[i] = Cluster::Stopped;
        }
    }

    fn check_laws(&self) {
        let Some(Gate::Open { active, epoch, hold, .. }) = self.machine.gate() else { return };
        let latch = self.disk.latch.as_ref().expect("the gate is open without a latch on disk");
        assert_eq!((active, *epoch), (&latch.active, latch.epoch), "open to a side that the disk does not name");
        if let Some(intent) = &self.disk.intent {
            assert!(intent.from.as_ref() != Some(active) || *hold, "the side that an intent leaves gets traffic");
        }
    }
}
