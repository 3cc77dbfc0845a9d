//! The composition root: binds everything early, starts one driver per pair, routes inputs to it, and ends in order.
//! What a pair does is `driver`'s; what is ordered outside is `effects`'s.

pub mod board;
pub mod clock;
mod commands;
mod descriptors;
mod driver;
mod effects;
mod left;
mod pairs;
mod reload;
mod sabotage;
mod siblings;
pub mod signals;
pub mod telemetry;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminError, AdminState, CommandRequest, Settings};
use crate::config::source::{self, ConfigError};
use crate::config::{Authority, Config, Promoter};
use crate::connections::Connections;
use crate::failover::action::{Command, Receipt, Refusal};
use crate::failover::observation::Evidence;
use crate::listener::{self, ListenerError, Listeners};
use crate::probe::ProbeError;
use crate::relay::Cut;
use crate::routing::{Gate, Routing};
use crate::store::{Store, StoreError, Writer};
use crate::types::ServiceName;
use board::Board;
use driver::{Driver, Inbox, Shared};
use pairs::Pair;
use siblings::Siblings;

/// What the daemon runs on.
#[derive(Debug)]
pub struct Options {
    /// The configuration to start with.
    pub config: Config,
    /// Where a reload reads it again; `None` = a reload is refused.
    pub source: Option<Source>,
    /// Cancelled: stop accepting, drain, end.
    pub stop: CancellationToken,
    /// Cancelled: end at once.
    pub halt: CancellationToken,
    /// Each message is a reload (SIGHUP).
    pub reloads: mpsc::Receiver<()>,
    /// Tell systemd how far we are.
    pub notify: bool,
}

/// Where the configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file; `None` = the environment alone.
    pub path: Option<PathBuf>,
}

/// How the daemon ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections that ended by themselves while draining.
    pub ended: usize,
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

/// Why the daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that writes the state.
    #[error("the thread that writes the state cannot be started: {0}")]
    Writer(std::io::Error),
    /// What was kept contradicts the configuration.
    #[error("{0}")]
    Kept(String),
    /// A listener.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The probes' settings.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A task that must not end has ended.
    #[error("{0} ended unexpectedly; ending, so that nothing is left half alive")]
    TaskEnded(String),
}

/// Running connections may end by themselves for so long when the daemon stops.
const DRAIN: Duration = Duration::from_secs(30);
const EVENTS: usize = 1024;
const COMMANDS: usize = 64;

/// Everything that runs.
struct Daemon {
    config: Config,
    source: Option<Source>,
    shared: Shared,
    listeners: Listeners,
    admin: admin::Admin,
    inboxes: HashMap<ServiceName, Inbox>,
    drivers: JoinSet<()>,
    /// Driver task → its pair's key and services, to name and close what one that panicked has left.
    keys: HashMap<tokio::task::Id, (String, Vec<ServiceName>)>,
    stop: CancellationToken,
    /// Panics of the data plane counted so far.
    panics: u64,
}

/// Runs until stopped.
pub async fn run(options: Options) -> Result<Report, DaemonError> {
    let Options { config, source, stop, halt, mut reloads, notify } = options;
    descriptors::provide(&config);
    let name = clock::daemon_name(decides(&config), clock::now());
    let (store, records) = Store::open(&config.state.path, &name)?;
    let claimed = pairs::claim(&config.services, records).map_err(DaemonError::Kept)?;
    for said in &claimed.said {
        tracing::warn!("{said}");
    }
    for pair in &claimed.pairs {
        // A disk that cannot take a decision is told now, not in the hour of need.
        store.touch(&pair.key)?;
    }
    let store = Arc::new(store);
    let writer = Arc::new(Writer::start(store.clone()).map_err(DaemonError::Writer)?);
    let (evidence, mut saw) = mpsc::unbounded_channel::<(ServiceName, Evidence)>();
    let (commands, mut orders) = mpsc::channel::<CommandRequest>(COMMANDS);
    let (events, _) = broadcast::channel(EVENTS);
    let board = Arc::new(Board::new(name.clone(), clock::now()));
    board.arrange(config.services.iter().map(|service| service.name.clone()).collect());
    let connections = Connections::new(evidence);
    let routing = Routing::new(&config);
    let shared = Shared {
        daemon: name.clone(),
        routing: routing.clone(),
        connections: connections.clone(),
        writer,
        board,
        events,
        siblings: Siblings::default(),
        state: Arc::from(config.state.path.as_path()),
    };
    let inner = CancellationToken::new();
    let admin =
        admin::serve(&settings(&config), admin_state(&shared, commands, store.clone(), &claimed.pairs), inner.clone())?;
    let listeners = Listeners::start(&config, routing, connections)?;
    let mut daemon = Daemon {
        config,
        source,
        shared,
        listeners,
        admin,
        inboxes: HashMap::new(),
        drivers: JoinSet::new(),
        keys: HashMap::new(),
        stop: inner,
        panics: 0,
    };
    for pair in claimed.pairs {
        daemon.start_pair(pair)?;
    }
    tracing::info!(daemon = %name, version = env!("CARGO_PKG_VERSION"), admin = ?daemon.admin.listen(), "started");
    signals::notify(notify, sd_notify::NotifyState::Ready);
    let mut watch = tokio::time::interval(Duration::from_secs(1));
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some((service, evidence)) = saw.recv() => daemon.route_evidence(&service, evidence),
            Some(request) = orders.recv() => daemon.route_command(request, notify).await,
            Some(()) = reloads.recv() => {
                // What came of it is in the log.
                let _ = daemon.reload(notify).await;
            }
            Some(ended) = daemon.drivers.join_next_with_id() => break Err(daemon.driver_ended(ended)),
            _ = watch.tick() => {
                #[cfg(feature = "crash-points")]
                sabotage::strike(&daemon.shared.writer, &daemon.listeners);
                if daemon.admin.is_finished() {
                    break Err(DaemonError::TaskEnded("the admin server".into()));
                }
                if daemon.shared.writer.has_ended() {
                    break Err(DaemonError::TaskEnded("the thread that writes the state".into()));
                }
                daemon.count_failures();
                if daemon.listeners.failures().borrow().workers > 0 {
                    break Err(DaemonError::TaskEnded("a worker thread of the data plane".into()));
                }
            }
        }
    };
    signals::notify(notify, sd_notify::NotifyState::Stopping);
    let report = daemon.shut_down(&halt).await;
    ended.map(|()| report)
}

impl Daemon {
    fn start_pair(&mut self, Pair { key, services, record }: Pair) -> Result<(), DaemonError> {
        let names: Vec<ServiceName> = services.iter().map(|service| service.name.clone()).collect();
        let (driver, inbox) = Driver::start(self.shared.clone(), key.clone(), services, record)?;
        for name in &names {
            self.inboxes.insert(name.clone(), inbox.clone());
        }
        let stop = self.stop.clone();
        let task = self.drivers.spawn(async move { driver.run(stop).await });
        self.keys.insert(task.id(), (key, names));
        Ok(())
    }

    fn route_evidence(&self, service: &ServiceName, evidence: Evidence) {
        if let Some(inbox) = self.inboxes.get(service) {
            // A driver that ended is noticed by its task.
            let _ = inbox.evidence.send(evidence);
        }
    }

    /// Hands a command to the pair it concerns. Those that concern all go to all; the first refusal is the answer.
    async fn route_command(&mut self, request: CommandRequest, notify: bool) {
        if request.order == admin::Order::Reload {
            let answer = if request.dry_run { self.explain_reload() } else { self.reload(notify).await };
            // The caller gave up; the reload is in the log.
            let _ = request.reply.send(answer);
            return;
        }
        let Some(service) = request.service.clone().or_else(|| self.only_service()) else {
            return self.command_all(request).await;
        };
        match self.inboxes.get(&service) {
            // Full means that the driver is stuck or flooded: the caller is told by its own deadline.
            Some(inbox) => {
                if let Err(mpsc::error::TrySendError::Full(request) | mpsc::error::TrySendError::Closed(request)) =
                    inbox.commands.try_send(request)
                {
                    answer(request, Err(refusal("busy", "too many commands are waiting; try again")));
                }
            }
            None => {
                let names: Vec<&str> = self.config.services.iter().map(|s| s.name.as_str()).collect();
                let said = format!("there is no service {service}; there are {}", names.join(", "));
                answer(request, Err(refusal("unknown_service", said)));
            }
        }
    }

    fn only_service(&self) -> Option<ServiceName> {
        match self.config.services.as_slice() {
            [only] => Some(only.name.clone()),
            _ => None,
        }
    }

    async fn command_all(&self, request: CommandRequest) {
        let admin::Order::Command(command) = &request.order else { return };
        if !matches!(command, Command::Pause | Command::Resume | Command::CheckHealth) {
            return answer(request, Err(refusal("service_needed", "there are several services: name one")));
        }
        let mut said = Vec::new();
        let mut done = Vec::new();
        for service in &self.config.services {
            let Some(inbox) = self.inboxes.get(&service.name) else { continue };
            if done.iter().any(|other: &mpsc::Sender<CommandRequest>| other.same_channel(&inbox.commands)) {
                continue;
            }
            done.push(inbox.commands.clone());
            let (reply, heard) = tokio::sync::oneshot::channel();
            let part = CommandRequest {
                service: Some(service.name.clone()),
                order: request.order.clone(),
                operator: request.operator.clone(),
                dry_run: request.dry_run,
                reply,
            };
            let sent = inbox.commands.try_send(part).is_ok();
            match tokio::time::timeout(Duration::from_secs(5), heard).await {
                Ok(Ok(Ok(receipt))) if sent => said.push(format!("{}: {}", service.name, receipt.sentence)),
                Ok(Ok(Err(refusal))) if sent => return answer(request, Err(refusal)),
                _ => return answer(request, Err(refusal("busy", "a decision loop does not answer"))),
            }
        }
        answer(request, Ok(Receipt { sentence: said.join("; "), episode: None, steps: Vec::new() }));
    }

    fn count_failures(&mut self) {
        let tasks = self.listeners.failures().borrow().tasks;
        for _ in self.panics..tasks {
            self.shared.board.task_failed();
        }
        self.panics = tasks;
    }

    fn driver_ended(&self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) -> DaemonError {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                self.shared.board.task_failed();
                tracing::error!(%error, "a decision loop panicked");
                error.id()
            }
        };
        let (key, services) = self.keys.get(&id).cloned().unwrap_or_default();
        // Nobody would cut a side that is replaced meanwhile: its work is not waited for.
        for service in &services {
            let gate = Gate::Closed { why: "the decision loop has ended".into() };
            listener::publish(&self.shared.routing, &self.shared.connections, service, &gate);
            let cut = self.shared.connections.cut_sides(service, Cut::Shutdown);
            tracing::info!(%service, cut, "connections cut");
        }
        DaemonError::TaskEnded(format!("the decision loop of {key}"))
    }

    /// Stop accepting, let running work end, cut the rest; then the rooms end.
    async fn shut_down(mut self, halt: &CancellationToken) -> Report {
        self.shared.board.stop();
        self.listeners.stop_accepting();
        let report = tokio::select! {
            report = self.listeners.drain(DRAIN) => Report { ended: report.ended, cut: report.cut },
            () = halt.cancelled() => Report { ended: 0, cut: self.shared.connections.cut_all(Cut::Shutdown) },
        };
        self.stop.cancel();
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(3), self.drivers.join_next()).await {}
        let Self { admin, shared, listeners, .. } = self;
        drop(listeners);
        let ended = tokio::task::spawn_blocking(move || {
            let joined = admin.join();
            shared.writer.close(Duration::from_secs(5)) && joined
        });
        if !matches!(ended.await, Ok(true)) {
            tracing::warn!("a thread did not end in time");
        }
        report
    }
}

fn answer(request: CommandRequest, answer: Result<Receipt, Refusal>) {
    // The caller may have given up meanwhile.
    let _ = request.reply.send(answer);
}

fn refusal(code: &str, sentence: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), sentence: sentence.into() }
}

/// Does any service of this daemon decide by itself?
fn decides(config: &Config) -> bool {
    config.services.iter().any(|service| {
        let failover = &service.failover;
        let moves = failover.standby_serves || !matches!(failover.promoter, Promoter::None);
        failover.automatic && failover.authority == Authority::SelfDecides && moves
    })
}

fn settings(config: &Config) -> Settings {
    Settings {
        listen: config.admin.listen,
        socket: config.admin.socket.clone(),
        metrics_listen: config.admin.metrics_listen,
        tokens: config.admin.tokens.clone(),
        hosts: config.admin.hosts.clone(),
        credentials: config.admin.credentials.clone(),
    }
}

fn admin_state(
    shared: &Shared,
    commands: mpsc::Sender<CommandRequest>,
    store: Arc<Store>,
    pairs: &[Pair],
) -> AdminState {
    let (ready, live) = (shared.board.clone(), shared.board.clone());
    let keys: HashMap<ServiceName, String> = pairs
        .iter()
        .flat_map(|pair| pair.services.iter().map(|service| (service.name.clone(), pair.key.clone())))
        .collect();
    let chains = Arc::clone(&store);
    let history = move |service: Option<&ServiceName>, limit: usize| {
        let mut wanted: Vec<&String> = match service {
            Some(name) => keys.get(name).into_iter().collect(),
            None => keys.values().collect(),
        };
        wanted.sort();
        wanted.dedup();
        let mut lines: Vec<_> = wanted.into_iter().filter_map(|key| store.history(key, limit).ok()).flatten().collect();
        lines.sort_by_key(|line| std::cmp::Reverse((line.event.at, line.seq)));
        lines.truncate(limit);
        lines.into_iter().filter_map(|line| serde_json::to_value(line).ok()).collect()
    };
    let verify = move || {
        let check = || chains.verify_history().map_err(|error| error.to_string());
        let mut found = check()?;
        if !found.iter().all(|(_, verified)| verified.is_whole()) {
            // A segment may have been closed while it was read.
            found = check()?;
        }
        Ok(found.into_iter().map(|(pair, verified)| verified.shown(pair)).collect())
    };
    AdminState {
        status: shared.board.status(),
        commands,
        events: shared.events.clone(),
        history: Arc::new(history),
        verify: Arc::new(verify),
        ready: Arc::new(move || ready.ready()),
        live: Arc::new(move || live.alive(clock::now().at)),
    }
}

/// Reads the configuration as `source` names it.
pub fn load(source: &Source) -> Result<Config, ConfigError> {
    let loaded = source::load(source.path.as_deref())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.config)
}
