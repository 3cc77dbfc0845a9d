//! The front door: ports, worker threads, and from an accepted connection to one that is attached to a server.
//! Moving bytes is `relay`'s, who is active is `routing`'s, and who is attached is known by `connections`.

mod accept;
mod bind;
mod binding;
mod cancel;
mod dial;
mod door;
mod guests;
mod hold;
mod open;
mod refuse;
mod seek;
mod session;
mod triage;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Config};
use crate::connections::Connections;
use crate::net::tls::TlsConfigError;
use crate::relay::Cut;
use crate::routing::{Gate, Routing};
use crate::types::{BackendName, ServiceName};

pub use door::Failures;

use door::{Door, Rules, Settings, Shared, Upstream};
use hold::Room;
use worker::Worker;

/// Between two requests to end, while connections are drained: one that attached in between must hear it too.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// For connections to notice a cut, and for threads to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Every listener of the daemon and the threads behind them. Dropping it ends them all.
#[derive(Debug)]
pub struct Listeners {
    routing: Routing,
    connections: Connections,
    failures: watch::Sender<Failures>,
    stopping: CancellationToken,
    houses: Mutex<HashMap<ServiceName, House>>,
}

/// One service.
#[derive(Debug)]
struct House {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// By configured address.
    doors: HashMap<SocketAddr, Opened>,
}

#[derive(Debug)]
struct Opened {
    door: Arc<Door>,
    /// As bound: with the port that the kernel chose where 0 was configured.
    bound: SocketAddr,
}

/// Why listeners cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// Somebody else has the port.
    #[error("service {service}: {address} is taken by another process; free it or change listener.address")]
    Taken {
        /// Whose listener.
        service: ServiceName,
        /// As configured.
        address: SocketAddr,
    },
    /// The address is not ours, the port is privileged, no descriptor is left.
    #[error("service {service}: cannot listen on {address}: {source}")]
    Bind {
        /// Whose listener.
        service: ServiceName,
        /// As configured.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// What a listener would show to its clients.
    #[error("service {service}: the certificate of {address} cannot be used: {source}")]
    Certificate {
        /// Whose listener.
        service: ServiceName,
        /// As configured.
        address: SocketAddr,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// What a backend would be verified with.
    #[error("service {service}: backend {backend}: {source}")]
    Upstream {
        /// Whose backend.
        service: ServiceName,
        /// Which.
        backend: BackendName,
        /// What is wrong with it.
        source: TlsConfigError,
    },
    /// No thread.
    #[error("service {service}: cannot start a worker thread: {source}")]
    Thread {
        /// Whose thread.
        service: ServiceName,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What came of a drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that ended by themselves, or where nothing was under way.
    pub ended: usize,
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

/// Publishes a gate with its fence: sides are closed before the snapshot says so, and opened before it leads to them.
/// Closing cuts nobody. Returns the new generation.
pub fn publish(routing: &Routing, connections: &Connections, service: &ServiceName, gate: &Gate) -> u64 {
    match gate {
        Gate::Closed { .. } => connections.close_sides(service),
        Gate::Open { epoch, tier, readers, .. } => {
            let open: Vec<_> = tier.iter().chain(readers).map(|backend| &backend.name).collect();
            connections.open_only(service, *epoch, &open);
        }
    }
    routing.publish(service, gate)
}

/// What [`Listeners::apply`] has prepared before it changes anything.
#[derive(Default)]
struct Plan {
    houses: HashMap<ServiceName, House>,
    doors: Vec<(ServiceName, SocketAddr, Rules, Vec<TcpListener>)>,
    /// Of doors that are open already.
    rules: HashMap<SocketAddr, Rules>,
    upstream: HashMap<ServiceName, Upstream>,
}

impl Listeners {
    /// Takes every port and starts the threads; from then on clients are accepted, and held until a gate opens.
    pub fn start(config: &Config, routing: Routing, connections: Connections) -> Result<Self, ListenerError> {
        let listeners = Self {
            routing,
            connections,
            failures: watch::Sender::default(),
            stopping: CancellationToken::new(),
            houses: Mutex::default(),
        };
        listeners.apply(config)?;
        Ok(listeners)
    }

    /// Makes the listeners those of `config`: new ones are opened, changed ones changed, those that are gone accept no
    /// more while their connections live on. On an error nothing has changed. A changed number of `workers` counts
    /// from the next start.
    pub fn apply(&self, config: &Config) -> Result<(), ListenerError> {
        let mut houses = self.lock();
        let mut plan = self.plan(config, &houses)?;
        houses.extend(plan.houses);
        for (name, upstream) in plan.upstream {
            if let Some(house) = houses.get(&name) {
                house.shared.upstream.store(Arc::new(upstream));
            }
        }
        for (service, address, rules, sockets) in plan.doors {
            if let Some(house) = houses.get_mut(&service) {
                house.open(address, rules, sockets, &self.connections);
            }
        }
        for house in houses.values_mut() {
            let service = config.services.iter().find(|service| service.name == house.shared.service);
            house.follow(service, &mut plan.rules);
        }
        Ok(())
    }

    /// Where clients can connect: service, address as configured, address as bound.
    pub fn addresses(&self) -> Vec<(ServiceName, SocketAddr, SocketAddr)> {
        let houses = self.lock();
        let mut all = Vec::new();
        for house in houses.values() {
            for (configured, opened) in &house.doors {
                all.push((house.shared.service.clone(), *configured, opened.bound));
            }
        }
        all.sort();
        all
    }

    /// Follows the count of panics and of threads that ended.
    pub fn failures(&self) -> watch::Receiver<Failures> {
        self.failures.subscribe()
    }

    /// Makes one thread panic, for tests of what becomes of the rest.
    #[cfg(feature = "crash-points")]
    pub(crate) fn break_a_thread(&self) {
        let houses = self.lock();
        if let Some(worker) = houses.values().flat_map(|house| &house.workers).next() {
            worker.panic();
        }
    }

    /// Frees every port; what the kernel has accepted for us already is still served.
    pub fn stop_accepting(&self) {
        for house in self.lock().values_mut() {
            for (_, opened) in house.doors.drain() {
                opened.door.closed.cancel();
            }
        }
    }

    /// Stops accepting, sends away who waits, lets work under way end within `deadline`, cuts the rest, and ends the
    /// threads.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        self.stop_accepting();
        let workers: Vec<Worker> = self.lock().drain().flat_map(|(_, house)| house.workers).collect();
        let trackers: Vec<TaskTracker> = workers.iter().map(|worker| worker.sessions().clone()).collect();
        let open: usize = trackers.iter().map(TaskTracker::len).sum();
        self.stopping.cancel();

        let in_time = tokio::select! {
            done = timeout(deadline, all_ended(&trackers)) => done.is_ok(),
            () = self.keep_asking() => false,
        };
        let cut = if in_time { 0 } else { self.connections.cut_all(Cut::DrainDeadline) };
        let noticed = timeout(LAST_WORDS, all_ended(&trackers)).await.is_ok();
        for worker in workers {
            if !worker.stop(LAST_WORDS).await {
                tracing::error!("worker thread does not end");
            }
        }
        tracing::debug!(open, cut, noticed, "drained");
        DrainReport { ended: open.saturating_sub(cut), cut }
    }

    async fn keep_asking(&self) {
        loop {
            self.connections.drain_all();
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    fn plan(&self, config: &Config, houses: &HashMap<ServiceName, House>) -> Result<Plan, ListenerError> {
        let mut plan = Plan::default();
        for service in config.services.iter().filter(|service| !service.listeners.is_empty()) {
            let threads = match houses.get(&service.name) {
                Some(house) => house.workers.len(),
                None => {
                    plan.houses.insert(service.name.clone(), self.house(service)?);
                    service.workers.max(1)
                }
            };
            let upstream = door::upstream(service).map_err(|(backend, source)| {
                let service = service.name.clone();
                ListenerError::Upstream { service, backend, source }
            })?;
            plan.upstream.insert(service.name.clone(), upstream);
            let is_open =
                |address: &SocketAddr| houses.get(&service.name).is_some_and(|house| house.doors.contains_key(address));
            for listener in &service.listeners {
                let (name, address) = (service.name.clone(), listener.address);
                let rules = Rules::of(listener).map_err(|source| ListenerError::Certificate {
                    service: name.clone(),
                    address,
                    source,
                })?;
                if is_open(&address) {
                    plan.rules.insert(address, rules);
                    continue;
                }
                let ours = houses.values().flat_map(|house| house.doors.values());
                let shared = ours.clone().any(|opened| opened.bound.port() == listener.address.port());
                let sockets = bind::bind(address, threads, shared, &service.connection)
                    .map_err(|source| bind_error(&service.name, address, source))?;
                plan.doors.push((name, address, rules, sockets));
            }
        }
        Ok(plan)
    }

    fn house(&self, service: &config::Service) -> Result<House, ListenerError> {
        let shared = Arc::new(Shared {
            service: service.name.clone(),
            routing: self.routing.clone(),
            connections: self.connections.clone(),
            room: Arc::new(Room::new(self.connections.held_gauge(&service.name))),
            settings: ArcSwap::from_pointee(Settings::of(service)),
            upstream: ArcSwap::default(),
            stopping: self.stopping.clone(),
            failures: self.failures.clone(),
        });
        let workers = (0..service.workers.max(1)).map(|number| Worker::spawn(shared.clone(), number));
        let workers = workers
            .collect::<io::Result<Vec<Worker>>>()
            .map_err(|source| ListenerError::Thread { service: service.name.clone(), source })?;
        Ok(House { shared, workers, doors: HashMap::new() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceName, House>> {
        self.houses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.stop_accepting();
    }
}

impl House {
    /// Lets every thread accept at a new door.
    fn open(&mut self, address: SocketAddr, rules: Rules, sockets: Vec<TcpListener>, connections: &Connections) {
        let bound = sockets.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(address);
        let door = Arc::new(Door {
            shared: self.shared.clone(),
            address,
            tally: connections.tally(&self.shared.service, address),
            rules: ArcSwap::from_pointee(rules),
            guests: Arc::default(),
            closed: CancellationToken::new(),
        });
        for (worker, socket) in self.workers.iter().zip(sockets) {
            worker.listen(door.clone(), socket);
        }
        self.doors.insert(address, Opened { door, bound });
    }

    /// Takes over what a configuration says of doors that are open; `None` = the service is gone.
    fn follow(&mut self, service: Option<&config::Service>, rules: &mut HashMap<SocketAddr, Rules>) {
        let listeners = service.map_or(&[][..], |service| &service.listeners);
        self.doors.retain(|address, opened| {
            let stays = listeners.iter().any(|listener| listener.address == *address);
            if !stays {
                opened.door.closed.cancel();
            } else if let Some(rules) = rules.remove(address) {
                opened.door.rules.store(Arc::new(rules));
            }
            stays
        });
        let Some(service) = service else { return };
        let settings = Settings::of(service);
        if *self.shared.settings.load_full() != settings {
            self.shared.settings.store(Arc::new(settings));
            for worker in &self.workers {
                worker.tune();
            }
        }
    }
}

async fn all_ended(trackers: &[TaskTracker]) {
    for tracker in trackers {
        tracker.close();
        tracker.wait().await;
    }
}

fn bind_error(service: &ServiceName, address: SocketAddr, source: io::Error) -> ListenerError {
    let service = service.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenerError::Taken { service, address },
        _ => ListenerError::Bind { service, address, source },
    }
}
