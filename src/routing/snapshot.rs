//! The immutable routing table: per service, who gets traffic. Pure; publishing it is the room's own file.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Target;
use crate::failover::action::{Gate, OpenBackend};
use crate::types::{BackendName, Epoch, ServiceName};

/// What holds at one moment for every service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// +1 at every change of any service.
    pub generation: u64,
    services: HashMap<ServiceName, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    version: u64,
    gate: Arc<Gate>,
}

/// What a newcomer of a service may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// Wait.
    Held {
        /// Why, for the client and the log.
        why: &'a str,
    },
    /// Go to one of these.
    Open {
        /// The latched backend.
        active: &'a BackendName,
        /// Its epoch.
        epoch: Epoch,
        /// Who may take `active` traffic.
        tier: &'a [OpenBackend],
        /// Who may take `read_only` traffic besides.
        readers: &'a [OpenBackend],
    },
}

impl Snapshot {
    /// Every one of these services closed, generation 0.
    pub fn closed(services: impl IntoIterator<Item = ServiceName>) -> Self {
        let gate = Arc::new(Gate::Closed { why: "starting".to_owned() });
        let services = services.into_iter().map(|name| (name, Entry { version: 0, gate: gate.clone() })).collect();
        Self { generation: 0, services }
    }

    /// The same but for one service's gate.
    #[must_use]
    pub fn with(&self, service: &ServiceName, gate: &Gate) -> Self {
        let mut next = Self { generation: self.generation + 1, services: self.services.clone() };
        let entry = Entry { version: next.generation, gate: Arc::new(gate.clone()) };
        next.services.insert(service.clone(), entry);
        next
    }

    /// The same without one service.
    #[must_use]
    pub fn without(&self, service: &ServiceName) -> Self {
        let mut next = Self { generation: self.generation + 1, services: self.services.clone() };
        next.services.remove(service);
        next
    }

    /// The generation that last changed this service; 0 for one that never changed.
    pub fn version(&self, service: &ServiceName) -> u64 {
        self.services.get(service).map_or(0, |entry| entry.version)
    }

    /// The gate of a service as the machine published it.
    pub fn gate(&self, service: &ServiceName) -> Option<&Gate> {
        self.services.get(service).map(|entry| &*entry.gate)
    }

    /// What newcomers of a service may do.
    pub fn route(&self, service: &ServiceName) -> Route<'_> {
        match self.gate(service) {
            None => Route::Held { why: "the service is not configured any more" },
            Some(Gate::Closed { why }) => Route::Held { why },
            Some(Gate::Open { hold: true, .. }) => Route::Held { why: "a switchover is under way" },
            Some(Gate::Open { active, epoch, tier, readers, hold: false }) => {
                Route::Open { active, epoch: *epoch, tier, readers }
            }
        }
    }

    /// Why newcomers to this target wait although the gate is open: an operator took them from whoever could serve them.
    pub fn rests(&self, service: &ServiceName, target: Target) -> Option<&str> {
        let Route::Open { active, tier, .. } = self.route(service) else { return None };
        let mut could = tier.iter().filter(|open| target == Target::Active || open.name == *active);
        could.find_map(|open| open.rests.as_deref())
    }

    /// Who runs the work of `active` listeners now, held or not: the sides a CancelRequest may go to.
    pub fn serving(&self, service: &ServiceName) -> Option<(Epoch, &[OpenBackend], &[OpenBackend])> {
        match self.gate(service)? {
            Gate::Open { epoch, tier, readers, .. } => Some((*epoch, tier, readers)),
            Gate::Closed { .. } => None,
        }
    }

    /// Whether this backend still has this epoch, and is open. A dial that began under an older snapshot goes on
    /// only while this holds.
    pub fn still_leads_to(&self, service: &ServiceName, backend: &BackendName, epoch: Epoch) -> bool {
        match self.route(service) {
            Route::Held { .. } => false,
            Route::Open { epoch: now, tier, readers, .. } => {
                now == epoch
                    && tier.iter().chain(readers).any(|open| open.name == *backend && !open.addresses.is_empty())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(hold: bool) -> Gate {
        let east = OpenBackend {
            name: "east".into(),
            weight: 1,
            addresses: vec!["10.0.0.1:1".parse().unwrap()],
            resting: vec![],
            rests: None,
        };
        Gate::Open { active: "east".into(), epoch: Epoch(3), tier: vec![east], readers: vec![], hold }
    }

    #[test]
    fn a_drain_holds_newcomers_but_work_under_way_may_still_be_cancelled() {
        let main = ServiceName::new("main");
        let snapshot = Snapshot::closed([main.clone()]).with(&main, &open(true));
        assert!(matches!(snapshot.route(&main), Route::Held { .. }));
        assert!(snapshot.serving(&main).is_some());
        assert!(!snapshot.still_leads_to(&main, &"east".into(), Epoch(3)));
    }

    #[test]
    fn a_dial_goes_on_only_under_its_own_epoch() {
        let main = ServiceName::new("main");
        let closed = Snapshot::closed([main.clone()]);
        assert!(closed.serving(&main).is_none());
        let snapshot = closed.with(&main, &open(false));
        assert!(snapshot.still_leads_to(&main, &"east".into(), Epoch(3)));
        assert!(!snapshot.still_leads_to(&main, &"east".into(), Epoch(2)));
        assert!(!snapshot.still_leads_to(&main, &"west".into(), Epoch(3)));
        assert!(!closed.still_leads_to(&main, &"east".into(), Epoch(3)));
    }
}
