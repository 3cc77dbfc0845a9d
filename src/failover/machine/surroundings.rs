//! What stands around the latch and changes without evidence: the configuration, the addresses that names resolve to,
//! and the age of what was heard.

use std::net::SocketAddr;
use std::time::Duration;

use super::Machine;
use crate::config::{self, Service};
use crate::failover::replication::Streams;
use crate::failover::side::Side;
use crate::types::{BackendName, HostPort, Now};

impl Machine {
    /// The addresses a backend's names resolve to now.
    pub fn handle_addresses(&mut self, backend: &BackendName, addresses: &[(HostPort, SocketAddr)], now: Now) {
        if let Some(side) = self.side_mut(backend) {
            side.resolved(addresses);
        }
        self.advance(now);
    }

    /// A new configuration of the same service. The active backend must still be in it.
    pub fn handle_config(&mut self, service: Service, now: Now) {
        let moved = |config: &config::Backend| {
            let before = self.side(&config.name).map(|side| &side.config.addresses);
            before.is_none_or(|addresses| *addresses != config.addresses)
        };
        let moved: Vec<_> = service.backends.iter().filter(|b| moved(b)).map(|b| b.name.clone()).collect();
        let replaced = |config: &config::Backend| {
            self.side(&config.name).is_some_and(|side| side.config.cluster_id != config.cluster_id)
        };
        let replaced = service.backends.iter().any(replaced);
        let mut old = std::mem::take(&mut self.sides);
        for config in &service.backends {
            let side = match old.iter().position(|side| side.name == config.name) {
                Some(at) => Side { config: config.clone(), ..old.swap_remove(at) },
                None => Side { witness: Self::new_witness(&service), ..Side::new(config) },
            };
            self.sides.push(side);
        }
        let Service { replication: before, patroni, .. } = std::mem::replace(&mut self.service, service);
        let same_members = match (&self.service.patroni, &patroni) {
            (Some(now), Some(before)) => now.reads_the_same(before),
            (now, before) => now.is_none() && before.is_none(),
        };
        if !same_members {
            self.following = super::patroni::Following::default();
        }
        let same_streams = match (&self.service.replication, &before) {
            (Some(now), Some(before)) => now.reads_the_same(before),
            (now, before) => now == before,
        };
        for side in &mut self.sides {
            side.witness.limit(self.service.failover.max_replication_lag);
        }
        // A stream that leads to the cluster of before must not be taken for one to the cluster of that name now.
        if !same_streams || replaced {
            self.streams = Streams::default();
            for side in &mut self.sides {
                side.witness = Self::new_witness(&self.service);
            }
        }
        self.mark_unproven();
        // What was said of a server was not said of another one under its name.
        if self.record.vouched.iter().flatten().any(|name| moved.contains(name)) {
            moved.iter().for_each(|name| self.doubt(name));
            self.persist_aside(now);
        }
        self.find_inbound();
        self.advance(now);
    }

    /// What is older than this is no answer any more.
    pub(super) fn patience(&self) -> Duration {
        let probe = &self.service.probe;
        probe.interval.max(probe.down_interval) * 3 + probe.timeout
    }

    pub(super) fn expire(&mut self, now: Now) {
        let probe = &self.service.probe;
        let patience = self.patience();
        for side in &mut self.sides {
            for address in side.addresses.values_mut() {
                address.health.expire(now.at, patience);
            }
        }
        self.daemons.retain(|_, seen| now.at.since(*seen) < Duration::from_secs(10).max(probe.interval * 3));
    }
}
