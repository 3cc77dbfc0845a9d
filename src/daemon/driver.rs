//! The driver of one pair: owns its machine, feeds it, and carries out what it orders. It holds no policy.
//! After any input all actions are carried out and all events written before the next input is taken.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::clock;
use super::sabotage;
use super::siblings::{Place, Siblings};
use crate::admin::{CommandRequest, ServiceEvent};
use crate::config::{self, report};
use crate::connections::Connections;
use crate::failover::action::{Event, EventKind, Outcome};
use crate::failover::machine::Machine;
use crate::failover::observation::Evidence;
use crate::failover::phase::{EpisodeId, Phase, Record};
use crate::probe::{ProbeError, ProbeReport, Probes};
use crate::promote::Effects;
use crate::routing::Routing;
use crate::store::Writer;
use crate::types::{BackendName, HostPort, Now, ServiceName};

/// What every driver shares.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) daemon: String,
    pub(super) routing: Routing,
    pub(super) connections: Connections,
    pub(super) writer: Arc<Writer>,
    pub(super) board: Arc<Board>,
    pub(super) events: broadcast::Sender<ServiceEvent>,
    pub(super) siblings: Siblings,
    /// The state directory.
    pub(super) state: Arc<std::path::Path>,
}

/// The way into a driver.
#[derive(Debug, Clone)]
pub(super) struct Inbox {
    pub(super) commands: mpsc::Sender<CommandRequest>,
    pub(super) evidence: mpsc::UnboundedSender<Evidence>,
    pub(super) config: mpsc::Sender<Vec<config::Service>>,
}

/// One pair: a machine and the services that share its latch.
pub(super) struct Driver {
    pub(super) shared: Shared,
    pub(super) key: String,
    /// The first one's configuration is the machine's.
    pub(super) services: Vec<config::Service>,
    pub(super) machine: Machine,
    pub(super) probes: Probes,
    pub(super) effects: Arc<Effects>,
    /// As resolved, with the configured names they came from.
    pub(super) addresses: HashMap<BackendName, Vec<(HostPort, SocketAddr)>>,
    pub(super) outcomes: mpsc::UnboundedSender<Outcome>,
    pub(super) tasks: JoinSet<()>,
    pub(super) locks: HashMap<EpisodeId, CancellationToken>,
    /// Commands that make a side a standby.
    pub(super) rejoins: HashMap<BackendName, CancellationToken>,
    /// Who waits until two servers were read.
    pub(super) reading: Vec<CommandRequest>,
    pub(super) disk: mpsc::UnboundedSender<Result<(), String>>,
    reports: mpsc::Receiver<ProbeReport>,
    report_sender: mpsc::Sender<ProbeReport>,
    heard: Heard,
    pulse: Arc<AtomicU64>,
    place: Place,
    kept: Option<Instant>,
    /// When the data plane was last asked what it saw.
    watched: Instant,
    touched: Instant,
    shown: Option<Instant>,
}

struct Heard {
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    disk: mpsc::UnboundedReceiver<Result<(), String>>,
    commands: mpsc::Receiver<CommandRequest>,
    evidence: mpsc::UnboundedReceiver<Evidence>,
    config: mpsc::Receiver<Vec<config::Service>>,
}

enum Input {
    Report(ProbeReport),
    Evidence(Evidence),
    Outcome(Outcome),
    Disk(Result<(), String>),
    Command(CommandRequest),
    Config(Vec<config::Service>),
    Task(Result<(), tokio::task::JoinError>),
    Timeout,
    Stop,
}

/// The state is written once a minute although nothing changed: does the disk still take it?
const TOUCH: Duration = Duration::from_secs(60);
/// Sessions of the promoter are renewed that often.
const KEEP: Duration = Duration::from_secs(10);
/// The view is renewed at least that often while nothing happens, for its counters.
const SHOW: Duration = Duration::from_millis(500);
const COMMANDS: usize = 64;
const REPORTS: usize = 1024;

impl Driver {
    /// A driver of these services, which share a pair, as last persisted.
    pub(super) fn start(
        shared: Shared,
        key: String,
        services: Vec<config::Service>,
        record: Record,
    ) -> Result<(Self, Inbox), ProbeError> {
        let (report_sender, reports) = mpsc::channel(REPORTS);
        let (outcomes, heard_outcomes) = mpsc::unbounded_channel();
        let (disk, heard_disk) = mpsc::unbounded_channel();
        let (commands, heard_commands) = mpsc::channel(COMMANDS);
        let (evidence, heard_evidence) = mpsc::unbounded_channel();
        let (config, heard_config) = mpsc::channel(1);
        let first = services[0].clone();
        let probes = Probes::start(&first, &shared.daemon, report_sender.clone(), clock::now)?;
        let effects = Arc::new(Effects::build(&first, &shared.daemon));
        let machine = Machine::new(first, shared.daemon.clone(), record, clock::now());
        let pulse = shared.board.pulse(&key);
        let place = shared.siblings.join(machine.as_sibling());
        let driver = Self {
            shared,
            key,
            services,
            machine,
            probes,
            effects,
            addresses: HashMap::new(),
            outcomes,
            tasks: JoinSet::new(),
            locks: HashMap::new(),
            rejoins: HashMap::new(),
            reading: Vec::new(),
            disk,
            reports,
            report_sender,
            heard: Heard {
                outcomes: heard_outcomes,
                disk: heard_disk,
                commands: heard_commands,
                evidence: heard_evidence,
                config: heard_config,
            },
            pulse,
            place,
            kept: None,
            watched: Instant::now(),
            touched: Instant::now(),
            shown: None,
        };
        Ok((driver, Inbox { commands, evidence, config }))
    }

    /// Runs until `stop`. The gate is left as it is: what is attached drains.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.touch();
        let mut woke = clock::now();
        while self.turn(&mut woke, &stop).await {}
        self.tasks.abort_all();
        let Self { probes, .. } = self;
        probes.stop().await;
    }

    /// Puts out what the machine ordered, waits for the next input, takes it. `false`: `stop` came. Lateness counts from
    /// the last waking, so that a loop that is held up by its own work is late as well.
    async fn turn(&mut self, woke: &mut Now, stop: &CancellationToken) -> bool {
        sabotage::reach("decisions");
        self.drain_machine();
        self.show();
        let (deadline, _) = self.machine.poll_timeout(*woke);
        let deadline = deadline.min(woke.at + self.tick());
        let input = self.next(deadline.since(clock::now().at), stop).await;
        let now = clock::now();
        *woke = now;
        self.pulse.store(u64::try_from(now.at.0.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let late = now.at.since(deadline);
        if late > Duration::from_millis(500) {
            tracing::warn!(pair = %self.key, late_ms = late.as_millis(), "decision loop woke late");
            self.machine.handle_delay(late, now);
            self.drain_machine();
        }
        self.meet_siblings(now);
        let goes_on = !matches!(input, Input::Stop);
        // Also where one input follows upon the other.
        if matches!(input, Input::Timeout) || self.watched.elapsed() >= self.tick() {
            self.watched = Instant::now();
            self.watch_traffic(now);
        }
        self.take(input, now);
        self.chores();
        goes_on
    }

    /// What the other pairs of this daemon are by now, before anything is decided.
    fn meet_siblings(&mut self, now: Now) {
        self.machine.handle_siblings(self.shared.siblings.others(self.place), now);
        self.drain_machine();
    }

    async fn next(&mut self, patience: Duration, stop: &CancellationToken) -> Input {
        let Heard { outcomes, disk, commands, evidence, config } = &mut self.heard;
        // In this order: what was ordered before comes before what is new.
        tokio::select! {
            biased;
            () = stop.cancelled() => Input::Stop,
            Some(outcome) = outcomes.recv() => Input::Outcome(outcome),
            Some(result) = disk.recv() => Input::Disk(result),
            Some(done) = self.tasks.join_next() => Input::Task(done),
            Some(evidence) = evidence.recv() => Input::Evidence(evidence),
            Some(report) = self.reports.recv() => Input::Report(report),
            Some(command) = commands.recv() => Input::Command(command),
            Some(services) = config.recv() => Input::Config(services),
            () = tokio::time::sleep(patience) => Input::Timeout,
        }
    }

    fn take(&mut self, input: Input, now: Now) {
        match input {
            Input::Report(ProbeReport::Observation(seen)) => {
                self.count_traffic(now);
                self.machine.handle_observation(&seen, now);
            }
            Input::Report(ProbeReport::Evidence(evidence)) | Input::Evidence(evidence) => {
                let evidence = self.over_all_services(evidence);
                self.machine.handle_evidence(&evidence, now);
            }
            Input::Report(ProbeReport::Patroni(report)) => self.machine.handle_patroni(&report, now),
            Input::Report(ProbeReport::Streams(report)) => self.machine.handle_streams(&report, now),
            Input::Report(ProbeReport::ClusterNote { backend, note }) => {
                self.machine.handle_note(&backend, note, now);
            }
            Input::Report(ProbeReport::Addresses { backend, addresses }) => {
                self.services.iter().for_each(|s| self.shared.routing.learn(&s.name, &backend, &addresses));
                self.effects.learn(&backend, &addresses);
                self.machine.handle_addresses(&backend, &addresses, now);
                self.addresses.insert(backend, addresses);
            }
            Input::Report(ProbeReport::TaskFailed { backend, error }) => {
                self.shared.board.task_failed();
                tracing::error!(pair = %self.key, %backend, %error, "a probe task failed and was started again");
            }
            Input::Outcome(outcome) => self.hear_outcome(outcome, now),
            Input::Disk(result) => self.machine.handle_disk(result.err(), now),
            Input::Command(request) => self.command(request, now),
            Input::Config(services) => self.reconfigure(services, now),
            Input::Task(Ok(())) => {}
            Input::Task(Err(error)) => {
                if error.is_panic() {
                    self.shared.board.task_failed();
                    tracing::error!(pair = %self.key, %error, "a task of the driver panicked");
                }
            }
            Input::Timeout => self.machine.handle_timeout(now),
            Input::Stop => {}
        }
    }

    /// Carries out every action, then writes every event.
    pub(super) fn drain_machine(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            self.carry_out(action);
        }
        while let Some(event) = self.machine.poll_event() {
            self.write_down(event);
        }
        self.probes.set_cadence(self.machine.cadence());
        self.probes.hasten_patroni(self.machine.hastens_patroni());
        if let Some((one, all)) = self.machine.stream_pace() {
            self.probes.set_stream_pace(one, all, self.machine.stream_to_watch());
        }
        let (active, epoch) = match self.machine.active() {
            Some((active, epoch)) => (Some(active.clone()), epoch),
            None => (None, crate::types::Epoch::default()),
        };
        self.effects.set_epoch(epoch);
        self.probes.set_active(active, epoch);
        // Before any other pair has its turn.
        self.shared.siblings.post(self.place, self.machine.as_sibling());
    }

    fn write_down(&mut self, event: Event) {
        let name = &self.services[0].name;
        log(name, &event);
        self.shared.writer.append(&self.key, event.clone());
        for service in &self.services {
            // Nobody listening is no error.
            let _ = self.shared.events.send(ServiceEvent { service: service.name.clone(), event: event.clone() });
        }
    }

    fn reconfigure(&mut self, services: Vec<config::Service>, now: Now) {
        let Some(first) = services.first().cloned() else { return };
        let old = &self.services[0];
        let reprobe = old.probe != first.probe
            || old.backends != first.backends
            || old.failover.promoter != first.failover.promoter
            || old.replication != first.replication
            || old.patroni != first.patroni;
        if reprobe {
            match Probes::start(&first, &self.shared.daemon, self.report_sender.clone(), clock::now) {
                Ok(probes) => {
                    let old = std::mem::replace(&mut self.probes, probes);
                    self.tasks.spawn(old.stop());
                }
                Err(error) => {
                    tracing::error!(pair = %self.key, %error, "the new probe settings cannot be used, the old ones stay");
                    return;
                }
            }
        }
        self.effects = Arc::new(Effects::build(&first, &self.shared.daemon));
        for (backend, addresses) in &self.addresses {
            self.effects.learn(backend, addresses);
        }
        for gone in self.services[0].backends.iter().filter(|b| !first.backends.iter().any(|new| new.name == b.name)) {
            // Only readers: the active side stays.
            for service in &services {
                self.shared.connections.drain(&service.name, &gone.name);
            }
        }
        self.services = services;
        self.machine.handle_config(first, now);
        self.touch();
    }

    /// How many connections of a side live, over all services of the pair.
    fn live(&self, backend: &BackendName) -> usize {
        self.services.iter().map(|service| self.shared.connections.live(&service.name, backend)).sum()
    }

    /// Bytes handed to a side, over all services of the pair.
    pub(super) fn relayed(&self, backend: &BackendName) -> u64 {
        self.services.iter().map(|service| self.shared.connections.relayed(&service.name, backend)).sum()
    }

    /// What the active side was handed by now: if another one turns out to be promoted, it counts.
    fn count_traffic(&mut self, now: Now) {
        let Some(backend) = self.machine.active().map(|(active, _)| active.clone()) else { return };
        let bytes = self.relayed(&backend);
        self.machine.handle_evidence(&Evidence::Relayed { backend, bytes }, now);
    }

    fn over_all_services(&self, evidence: Evidence) -> Evidence {
        match evidence {
            Evidence::Connections { backend, .. } => Evidence::Connections { live: self.live(&backend), backend },
            other => other,
        }
    }

    /// What the data plane saw meanwhile: answers prove life, a request without one is a reason to probe.
    fn watch_traffic(&mut self, now: Now) {
        let Some(active) = self.machine.active().map(|(active, _)| active.clone()) else { return };
        let live = self.live(&active);
        self.machine.handle_evidence(&Evidence::Connections { backend: active.clone(), live }, now);
        self.count_traffic(now);
        for service in &self.services {
            let activity = self.shared.connections.activity(&service.name, &active);
            if let (Some(at), true) = (activity.answered_at, self.machine.phase() != Phase::Steady) {
                self.machine.handle_evidence(&Evidence::Answered { backend: active.clone(), at }, now);
            }
            if let Some(since) = activity.unanswered_since
                && now.at.since(since) >= service.probe.hang_trigger
            {
                self.machine.handle_evidence(&Evidence::Unanswered { backend: active.clone(), since }, now);
            }
        }
    }

    /// How long the loop may sleep at the most: a hang of the data plane is noticed within a quarter of its trigger.
    fn tick(&self) -> Duration {
        let first = &self.services[0];
        let live = self.machine.active().is_some_and(|(active, _)| self.live(active) > 0);
        if live && first.probe.passive {
            (first.probe.hang_trigger / 4).max(Duration::from_millis(50))
        } else {
            SHOW * 2
        }
    }

    fn chores(&mut self) {
        if self.touched.elapsed() >= TOUCH {
            self.touch();
        }
        // The next primary may die a moment after the last one was left.
        let calm = matches!(self.machine.phase(), Phase::Steady | Phase::Settling);
        if calm && self.kept.is_none_or(|at| at.elapsed() >= KEEP) {
            self.kept = Some(Instant::now());
            self.keep_sessions();
        }
    }

    /// Writes the state once more, to know that it can be written.
    pub(super) fn touch(&mut self) {
        self.touched = Instant::now();
        let disk = self.disk.clone();
        self.shared.writer.touch(&self.key, move |result| {
            // The driver is gone when nobody hears: then nobody needs to know.
            let _ = disk.send(result.map_err(|error| error.to_string()));
        });
    }

    fn show(&mut self) {
        let now = clock::now();
        let calm = self.machine.phase() == Phase::Steady;
        let pause = if calm { Duration::from_millis(250) } else { Duration::from_millis(50) };
        if self.shown.is_none_or(|at| at.elapsed() >= pause) {
            self.show_now(now);
        }
    }

    pub(super) fn show_now(&mut self, now: Now) {
        self.shown = Some(Instant::now());
        let view = self.machine.view(now);
        let statuses: Vec<_> = self.services.iter().map(|service| self.fill(view.clone(), service)).collect();
        let disk = self
            .machine
            .disk_error()
            .map(str::to_owned)
            .or_else(|| self.shared.writer.has_ended().then(|| "the writer has ended".into()));
        let generation = self.shared.routing.load().generation;
        self.shared.board.post(&self.key, statuses, disk, generation, now);
    }

    fn fill(&self, mut view: crate::view::ServiceStatus, service: &config::Service) -> crate::view::ServiceStatus {
        let connections = &self.shared.connections;
        view.name = service.name.clone();
        view.held = connections.held(&service.name) as u64;
        let w = self.machine.slowest_receiver_timeout();
        let detection = report::detection(service, w);
        view.detection_crash_ms = u64::try_from(detection.crash.as_millis()).unwrap_or(u64::MAX);
        view.detection_hang_ms = detection.hang.and_then(|hang| u64::try_from(hang.as_millis()).ok());
        view.listeners = service
            .listeners
            .iter()
            .map(|listener| {
                let count = connections.listener(&service.name, listener.address);
                crate::view::ListenerStatus {
                    address: listener.address,
                    target: if listener.target == config::Target::Active {
                        "active".into()
                    } else {
                        "read_only".into()
                    },
                    connections: count.open,
                    limit: listener.max_connections as u64,
                    tls: listener.tls.status(),
                    refused: count.refused,
                    counters: count.counters,
                }
            })
            .collect();
        for backend in &mut view.backends {
            backend.connections = connections.live(&service.name, &backend.name) as u64;
            backend.connect_durations = connections.connects(&service.name, &backend.name);
            for count in connections.endpoints(&service.name, &backend.name) {
                if let Some(endpoint) = backend.endpoints.iter_mut().find(|endpoint| endpoint.ip == count.address) {
                    endpoint.connections = count.live;
                    endpoint.counters = count.counters;
                }
            }
        }
        view
    }
}

fn log(service: &ServiceName, event: &Event) {
    let episode = event.episode.map(|id| id.0);
    let (epoch, said) = (event.epoch.0, &event.sentence);
    match event.kind {
        EventKind::Blocked | EventKind::Quarantined | EventKind::Cancelled => {
            tracing::warn!(%service, kind = ?event.kind, episode, epoch, "{said}");
        }
        EventKind::Health if said.contains(" is down") => {
            tracing::warn!(%service, kind = ?event.kind, epoch, "{said}");
        }
        EventKind::Health => tracing::info!(%service, kind = ?event.kind, epoch, "{said}"),
        EventKind::Phase => tracing::debug!(%service, kind = ?event.kind, episode, epoch, "{said}"),
        _ => tracing::info!(%service, kind = ?event.kind, episode, epoch, "{said}"),
    }
}
