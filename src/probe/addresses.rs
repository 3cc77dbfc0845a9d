//! One task per backend: which addresses its names stand for, and one watcher for each of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::watcher::{self, Ears};
use super::{Common, ProbeReport};
use crate::failover::observation::{Observation, Unknown, Verdict};
use crate::net::resolve::{ResolveError, Resolver};
use crate::types::HostPort;

/// How often names are looked at; the resolver keeps an answer as long as its TTL says.
const LOOK: Duration = Duration::from_secs(1);
/// Names that resolve within this are reported together; a slow one does not hold up the others.
const TOGETHER: Duration = Duration::from_millis(250);

type Pairs = Vec<(HostPort, SocketAddr)>;
type LookedUp = (usize, Result<Vec<SocketAddr>, ResolveError>);

/// Runs until stopped.
pub(super) async fn run(
    common: Arc<Common>,
    names: Vec<HostPort>,
    resolver: Arc<Resolver>,
    ears: Ears,
    stop: CancellationToken,
) {
    let names = names.into_iter().map(|name| Name { name, addresses: Vec::new(), asked: false }).collect();
    let mut backend = Backend {
        common,
        names,
        resolver,
        ears,
        look_ups: JoinSet::new(),
        watchers: JoinSet::new(),
        watched: HashMap::new(),
        reported: None,
        last_complaint: None,
    };
    let _ = stop.run_until_cancelled(backend.follow(&stop)).await;
    // The watchers hear the same stop and take leave of their servers.
    while backend.watchers.join_next().await.is_some() {}
}

struct Backend {
    common: Arc<Common>,
    names: Vec<Name>,
    resolver: Arc<Resolver>,
    ears: Ears,
    look_ups: JoinSet<LookedUp>,
    watchers: JoinSet<()>,
    watched: HashMap<SocketAddr, Watched>,
    reported: Option<Pairs>,
    last_complaint: Option<Instant>,
}

/// One configured name.
struct Name {
    name: HostPort,
    addresses: Vec<SocketAddr>,
    /// A look-up is under way.
    asked: bool,
}

struct Watched {
    task: Id,
    end: CancellationToken,
}

/// Nobody reads the reports any more.
struct Orphaned;

impl Backend {
    async fn follow(&mut self, stop: &CancellationToken) -> Result<(), Orphaned> {
        loop {
            let next = Instant::now() + LOOK;
            self.ask();
            let together = Instant::now() + TOGETHER;
            while let Ok(Some(answer)) = timeout_at(together, self.look_ups.join_next()).await {
                self.learn(answer);
            }
            self.publish(stop).await?;
            while Instant::now() < next {
                tokio::select! {
                    () = sleep_until(next) => {}
                    Some(answer) = self.look_ups.join_next() => {
                        self.learn(answer);
                        self.publish(stop).await?;
                    }
                    Some(Err(error)) = self.watchers.join_next() => {
                        self.handle_failed_watcher(&error).await?;
                        self.publish(stop).await?;
                    }
                }
            }
        }
    }

    fn ask(&mut self) {
        for (index, name) in self.names.iter_mut().enumerate().filter(|(_, name)| !name.asked) {
            name.asked = true;
            let (resolver, at) = (Arc::clone(&self.resolver), name.name.clone());
            self.look_ups.spawn(async move { (index, resolver.resolve(&at).await) });
        }
    }

    fn learn(&mut self, answer: Result<LookedUp, JoinError>) {
        let (index, result) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(backend = %self.common.backend, %error, "a name lookup failed");
                // Which one is not known; asking one too often does no harm.
                self.names.iter_mut().for_each(|name| name.asked = false);
                return;
            }
        };
        let Some(name) = self.names.get_mut(index) else { return };
        name.asked = false;
        match result {
            Ok(addresses) => name.addresses = addresses,
            Err(error) => tracing::debug!(backend = %self.common.backend, name = %name.name, %error, "name lookup"),
        }
    }

    async fn publish(&mut self, stop: &CancellationToken) -> Result<(), Orphaned> {
        let pairs: Pairs = self
            .names
            .iter()
            .flat_map(|name| name.addresses.iter().map(|address| (name.name.clone(), *address)))
            .collect();
        if self.reported.as_ref() != Some(&pairs) {
            tracing::info!(backend = %self.common.backend, addresses = ?pairs, "addresses");
            let (backend, addresses) = (self.common.backend.clone(), pairs.clone());
            self.send(ProbeReport::Addresses { backend, addresses }).await?;
            self.reported = Some(pairs.clone());
        }
        if pairs.is_empty() {
            self.complain().await?;
        }
        self.watch(&pairs, stop);
        Ok(())
    }

    /// Says once per interval that there is nothing to probe.
    async fn complain(&mut self) -> Result<(), Orphaned> {
        let interval = self.common.probe.interval;
        if self.last_complaint.is_some_and(|last| last.elapsed() < interval) {
            return Ok(());
        }
        self.last_complaint = Some(Instant::now());
        // There is no address to name: the unspecified one stands for it.
        let port = self.names.first().map_or(0, |name| name.name.port);
        let now = (self.common.clock)().at;
        let observation = Observation {
            backend: self.common.backend.clone(),
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            started: now,
            finished: now,
            fresh: true,
            verdict: Verdict::Unknown(Unknown::NoAddress),
        };
        self.send(ProbeReport::Observation(observation)).await
    }

    /// Ends the watchers of addresses that are gone and starts those of new ones.
    fn watch(&mut self, pairs: &Pairs, stop: &CancellationToken) {
        self.watched.retain(|address, watched| {
            let stays = pairs.iter().any(|(_, other)| other == address);
            if !stays {
                watched.end.cancel();
            }
            stays
        });
        for (name, address) in pairs {
            if self.watched.contains_key(address) {
                continue;
            }
            let end = stop.child_token();
            let (common, ears) = (Arc::clone(&self.common), self.ears.clone());
            let watcher = watcher::run(common, name.clone(), *address, ears, end.clone());
            let task = self.watchers.spawn(watcher).id();
            self.watched.insert(*address, Watched { task, end });
        }
    }

    /// A watcher that panicked is started again with the next look at the addresses.
    async fn handle_failed_watcher(&mut self, error: &JoinError) -> Result<(), Orphaned> {
        self.watched.retain(|_, watched| watched.task != error.id());
        self.send(ProbeReport::TaskFailed { backend: self.common.backend.clone(), error: error.to_string() }).await
    }

    async fn send(&self, report: ProbeReport) -> Result<(), Orphaned> {
        self.common.sender.send(report).await.map_err(|_| Orphaned)
    }
}
