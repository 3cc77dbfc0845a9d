//! Action → call: what the machine orders, carried out. What waits runs as a task of the driver and comes back as an
//! outcome; publishing and cutting happen at once.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use crate::config::Kind;
use crate::failover::action::{Action, Gate, LockResult, Outcome, PromotionResult};
use crate::failover::phase::{EpisodeId, Phase};
use crate::listener;
use crate::promote::Effects;
use crate::relay::Cut;
use crate::types::BackendName;

impl Driver {
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Persist { ticket, record } => {
                let outcomes = self.outcomes.clone();
                self.shared.writer.persist(&self.key, record, ticket, move |ticket, result| {
                    let result = result.map_err(|error| error.to_string());
                    // The driver is gone when nobody hears: its successor reads the disk.
                    let _ = outcomes.send(Outcome::Persisted { ticket, result });
                });
            }
            Action::Publish(gate) => self.publish(&gate),
            Action::Cut { backend } => {
                let mut connections = 0;
                for service in &self.services {
                    let cut = self.shared.connections.cut(&service.name, &backend, Cut::Demoted);
                    tracing::info!(service = %service.name, %backend, cut, "connections cut");
                    connections += cut;
                }
                // As below: nobody hears it when this driver ends.
                let bytes = self.relayed(&backend);
                let _ = self.outcomes.send(Outcome::Cut { backend, connections, bytes });
            }
            Action::DrainReaders { backend } => {
                for service in &self.services {
                    self.shared.connections.drain_readers(&service.name, &backend);
                }
            }
            Action::Retire { backend, address, cut } => {
                for service in &self.services {
                    let of = self.shared.connections.retire(&service.name, &backend, address, cut);
                    tracing::info!(service = %service.name, %backend, ?address, cut, connections = of, "taken out");
                }
            }
            Action::ProbeNow { backend } => self.probes.probe_now(&backend),
            Action::ReadStreams { stream } => self.probes.read_streams(stream),
            Action::ReadPatroni => self.probes.read_patroni(),
            Action::Unlock { episode } => {
                if let Some(release) = self.locks.remove(&episode) {
                    release.cancel();
                }
            }
            other => self.spawn_effect(other),
        }
    }

    fn publish(&self, gate: &Gate) {
        for service in &self.services {
            let connections = &self.shared.connections;
            listener::publish(&self.shared.routing, connections, &service.name, gate);
            match gate {
                Gate::Closed { why } => tracing::info!(service = %service.name, why, "gate closed"),
                Gate::Open { active, tier, readers, hold, .. } => {
                    // A switchover's drain; newcomers also wait for a side that recovers, whose sessions live on.
                    if *hold && self.machine.phase() == Phase::Fencing {
                        connections.drain(&service.name, active);
                    }
                    for open in tier.iter().chain(readers) {
                        connections.drain_removed(&service.name, &open.name, &open.all());
                    }
                }
            }
        }
    }

    /// The address at which our own orders reach a backend: one that is up, else any.
    pub(super) fn address(&self, backend: &BackendName) -> Option<SocketAddr> {
        self.machine.address_of(backend).or_else(|| self.addresses.get(backend)?.first().map(|(_, address)| *address))
    }

    /// All of them, the same one first.
    fn addresses(&self, backend: &BackendName) -> Vec<SocketAddr> {
        let first = self.address(backend);
        let known = self.addresses.get(backend).into_iter().flatten().map(|(_, address)| *address);
        first.into_iter().chain(known.filter(|address| Some(*address) != first)).collect()
    }

    fn spawn_effect(&mut self, action: Action) {
        let effects = self.effects.clone();
        let outcomes = self.outcomes.clone();
        let reply = move |outcome| {
            // As above: an outcome nobody hears belongs to a driver that ended.
            let _ = outcomes.send(outcome);
        };
        let no_address = |backend: &BackendName| format!("{backend} has no address: its name does not resolve");
        match action {
            Action::Fence { episode, backend } => {
                let Some(config) = self.backend(&backend) else { return };
                let addresses = self.addresses(&backend);
                self.tasks.spawn(async move {
                    let result = effects.fence(&config, &addresses).await;
                    reply(Outcome::Fenced { episode, result });
                });
            }
            Action::Lock { episode, backends, needed } => {
                let known = backends.into_iter().filter_map(|name| self.address(&name).map(|address| (name, address)));
                let targets: Vec<_> = known.collect();
                let release = CancellationToken::new();
                self.locks.insert(episode, release.clone());
                self.tasks.spawn(async move { hold_lock(&effects, episode, &targets, needed, release, reply).await });
            }
            Action::Promote { episode, epoch, backend, rechecked, stream } => {
                tracing::info!(%backend, %episode, %epoch, proof = rechecked.sentence(), "promotion ordered");
                let (config, address) = (self.backend(&backend), self.address(&backend));
                self.tasks.spawn(async move {
                    let result = match (config, address) {
                        (Some(config), Some(address)) => {
                            effects.promote(&config, address, epoch, stream.as_ref()).await
                        }
                        _ => PromotionResult::Unknown(no_address(&backend)),
                    };
                    reply(Outcome::Promotion { episode, result });
                });
            }
            Action::Freeze { episode, backend, latched } => {
                let address = self.address(&backend);
                self.tasks.spawn(async move {
                    let result = match address {
                        Some(address) => effects.freeze(&backend, address, latched.as_ref()).await,
                        None => Err(no_address(&backend)),
                    };
                    reply(Outcome::Frozen { episode, result });
                });
            }
            Action::Unfreeze { episode, backend, latched } => {
                let address = self.address(&backend);
                self.tasks.spawn(async move {
                    let result = match address {
                        Some(address) => effects.unfreeze(&backend, address, latched.as_ref()).await,
                        None => Err(no_address(&backend)),
                    };
                    reply(Outcome::Unfrozen { episode, result });
                });
            }
            Action::ReadFlush { episode, backend, latched } => {
                let address = self.address(&backend);
                self.tasks.spawn(async move {
                    let result = match address {
                        Some(address) => effects.read_flush(&backend, address, latched.as_ref()).await,
                        None => Err(no_address(&backend)),
                    };
                    reply(Outcome::FlushRead { episode, result });
                });
            }
            Action::SetSync { episode, backend, names } => {
                let address = self.address(&backend);
                self.tasks.spawn(async move {
                    let result = match address {
                        Some(address) => effects.set_sync(&backend, address, &names).await,
                        None => Err(no_address(&backend)),
                    };
                    reply(Outcome::SyncSet { episode, result });
                });
            }
            Action::Repoint(order) => {
                let (at, primary) = (self.address(&order.backend), self.address(&order.primary));
                self.tasks.spawn(async move {
                    let result = match at {
                        Some(at) => effects.repoint(&order, at, primary).await,
                        None => Err(no_address(&order.backend)),
                    };
                    let (backend, epoch) = (order.backend, order.epoch);
                    reply(Outcome::Repointed { backend, epoch, result });
                });
            }
            Action::OrderPatroni { episode, order } => {
                self.tasks.spawn(async move {
                    let says = effects.order_patroni(&order).await;
                    reply(Outcome::PatroniSaid { episode, says });
                });
            }
            Action::ReadClock { episode, backend, stop } => {
                let addresses = self.addresses(&backend);
                self.tasks.spawn(async move {
                    let result = effects.read_clock(&backend, &addresses, stop).await;
                    reply(Outcome::ClockRead { episode, result });
                });
            }
            other @ (Action::Soften { .. } | Action::Thaw { .. } | Action::Rejoin(_) | Action::StopRejoin { .. }) => {
                self.tend(other);
            }
            Action::Persist { .. }
            | Action::Publish(_)
            | Action::Cut { .. }
            | Action::DrainReaders { .. }
            | Action::Retire { .. }
            | Action::ProbeNow { .. }
            | Action::ReadStreams { .. }
            | Action::ReadPatroni
            | Action::Unlock { .. } => {}
        }
    }

    pub(super) fn backend(&self, name: &BackendName) -> Option<crate::config::Backend> {
        self.services[0].backends.iter().find(|backend| backend.name == *name).cloned()
    }

    /// Opens the promoter's sessions early: in the hour of need a server may have no slot left.
    pub(super) fn keep_sessions(&mut self) {
        // A standby cluster lets nobody in.
        if self.services[0].kind == Kind::Cockroach {
            return;
        }
        let Some(active) = self.machine.active().map(|(active, _)| active.clone()) else { return };
        let standbys: Vec<_> = self.services[0]
            .backends
            .iter()
            .filter(|backend| backend.name != active)
            .filter_map(|backend| Some((backend.name.clone(), self.address(&backend.name)?)))
            .collect();
        let effects = self.effects.clone();
        self.tasks.spawn(async move {
            effects.keep(&standbys).await;
        });
    }
}

/// Takes the lock and holds it until it is released or lost; both ends are said.
async fn hold_lock(
    effects: &Effects,
    episode: EpisodeId,
    targets: &[(BackendName, SocketAddr)],
    needed: usize,
    release: CancellationToken,
    reply: impl Fn(Outcome),
) {
    if targets.len() < needed {
        let result = LockResult::Failed("too few backends have an address".into());
        return reply(Outcome::Locked { episode, result });
    }
    let (result, guard) = effects.lock(targets, needed).await;
    reply(Outcome::Locked { episode, result });
    let Some(mut guard) = guard else { return };
    tokio::select! {
        () = guard.lost() => {
            let result = LockResult::Failed("a session that held it ended".into());
            reply(Outcome::Locked { episode, result });
        }
        // Said to the servers, so that the next try does not find its own lock.
        () = release.cancelled() => guard.release().await,
    }
}
