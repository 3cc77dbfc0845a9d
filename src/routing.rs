//! Publisher and readers of the routing snapshot: one immutable table behind one pointer, so that nobody ever sees
//! half a change. Which side is active is the machine's decision; how a side is chosen is `select`'s.

pub mod select;
pub mod snapshot;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::config::{Config, Target};
use crate::types::{BackendName, Epoch, HostPort, ServiceName};

pub use crate::failover::action::{Gate, OpenBackend};
pub use snapshot::{Route, Snapshot};

/// The one routing table. Clones share it.
#[derive(Debug, Clone)]
pub struct Routing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    snapshot: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    /// Serialises publishers: services publish independently of each other.
    publishing: Mutex<()>,
    rotations: Mutex<HashMap<(ServiceName, Target), select::Rotation>>,
    hosts: RwLock<HashMap<(ServiceName, BackendName), Hosts>>,
}

/// The addresses of a backend, with the configured names they came from.
type Hosts = Vec<(HostPort, SocketAddr)>;

/// A backend that a newcomer may go to, as one snapshot had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub backend: BackendName,
    /// The epoch it was chosen under.
    pub epoch: Epoch,
    /// Proven addresses, in the gate's order; never empty.
    pub addresses: Vec<SocketAddr>,
}

impl Routing {
    /// Every service of the configuration with a closed gate, generation 0.
    pub fn new(config: &Config) -> Self {
        Self::closed(config.services.iter().map(|service| service.name.clone()))
    }

    fn closed(services: impl IntoIterator<Item = ServiceName>) -> Self {
        Self(Arc::new(Inner {
            snapshot: ArcSwap::from_pointee(Snapshot::closed(services)),
            generation: watch::Sender::new(0),
            publishing: Mutex::default(),
            rotations: Mutex::default(),
            hosts: RwLock::default(),
        }))
    }

    /// The names of a backend stand for these addresses.
    pub fn learn(&self, service: &ServiceName, backend: &BackendName, hosts: &[(HostPort, SocketAddr)]) {
        let mut known = self.0.hosts.write().unwrap_or_else(PoisonError::into_inner);
        known.insert((service.clone(), backend.clone()), hosts.to_vec());
    }

    /// The configured host that stands for an address of a backend; the address itself when none is known.
    pub fn host(&self, service: &ServiceName, backend: &BackendName, address: SocketAddr) -> String {
        let known = self.0.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let hosts = known.get(&(service.clone(), backend.clone()));
        let found = hosts.into_iter().flatten().find(|(_, known)| *known == address);
        found.map_or_else(|| address.ip().to_string(), |(host, _)| host.host.to_string())
    }

    /// Swaps in a snapshot in which `service` has this gate, and wakes whoever waits for a change. A service that
    /// was not there is added. Returns the new generation.
    pub fn publish(&self, service: &ServiceName, gate: &Gate) -> u64 {
        self.swap(|snapshot| snapshot.with(service, gate))
    }

    /// Swaps in a snapshot without `service`: its newcomers are held until they give up.
    pub fn remove(&self, service: &ServiceName) -> u64 {
        self.swap(|snapshot| snapshot.without(service))
    }

    /// The snapshot of now. Take it once per decision, never twice.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// Follows the generation. The value may be older than the snapshot that [`Routing::load`] returns, never newer.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Chooses a backend for one newcomer: role → tier → weight. `tried` were dialled in vain and are left out.
    /// `None` = nobody may be chosen.
    pub fn choose(
        &self,
        snapshot: &Snapshot,
        service: &ServiceName,
        target: Target,
        tried: &[BackendName],
    ) -> Option<Choice> {
        let Route::Open { active, epoch, tier, readers } = snapshot.route(service) else {
            return None;
        };
        let candidates = select::candidates(target, active, tier, readers, tried);
        let chosen = match candidates.as_slice() {
            [] => return None,
            [only] => only,
            several => {
                let mut rotations = self.0.rotations.lock().unwrap_or_else(PoisonError::into_inner);
                let rotation = rotations.entry((service.clone(), target)).or_default();
                several.get(rotation.next(several)?)?
            }
        };
        Some(Choice { backend: chosen.name.clone(), epoch, addresses: chosen.addresses.clone() })
    }

    fn swap(&self, change: impl FnOnce(&Snapshot) -> Snapshot) -> u64 {
        let _one_at_a_time = self.0.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = change(&self.load());
        let generation = snapshot.generation;
        self.0.snapshot.store(Arc::new(snapshot));
        // After the store: who wakes finds at least this generation.
        self.0.generation.send_replace(generation);
        generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing() -> Routing {
        Routing::closed([service()])
    }

    fn service() -> ServiceName {
        "main".into()
    }

    fn open(name: &str, weight: u32) -> OpenBackend {
        OpenBackend {
            name: name.into(),
            weight,
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            resting: vec![],
            rests: None,
        }
    }

    fn gate(tier: Vec<OpenBackend>, readers: Vec<OpenBackend>) -> Gate {
        Gate::Open { active: tier[0].name.clone(), epoch: Epoch(7), tier, readers, hold: false }
    }

    fn shares(routing: &Routing, target: Target, connections: usize) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for _ in 0..connections {
            let choice = routing.choose(&routing.load(), &service(), target, &[]).unwrap();
            assert_eq!(choice.epoch, Epoch(7));
            *shares.entry(choice.backend.to_string()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn a_service_starts_closed_and_every_change_is_one_new_generation() {
        let routing = routing();
        let mut changes = routing.subscribe();
        assert_eq!(routing.load().generation, 0);
        assert_eq!(routing.choose(&routing.load(), &service(), Target::Active, &[]), None);

        let before = routing.load();
        assert_eq!(routing.publish(&service(), &gate(vec![open("east", 100)], vec![])), 1);
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), 1);
        assert!(routing.choose(&routing.load(), &service(), Target::Active, &[]).is_some());
        assert_eq!(routing.choose(&before, &service(), Target::Active, &[]), None, "an old snapshot does not change");

        assert_eq!(routing.remove(&service()), 2);
        assert_eq!(routing.choose(&routing.load(), &service(), Target::Active, &[]), None);
    }

    #[test]
    fn one_services_change_leaves_the_others_as_they_are() {
        let routing = routing();
        routing.publish(&service(), &gate(vec![open("east", 100)], vec![]));
        routing.publish(&"other".into(), &gate(vec![open("west", 100)], vec![]));
        let snapshot = routing.load();
        let backend = |name: &str| routing.choose(&snapshot, &name.into(), Target::Active, &[]).unwrap().backend;
        assert_eq!((backend("main").as_str(), backend("other").as_str()), ("east", "west"));
        assert!(snapshot.version(&service()) < snapshot.version(&"other".into()));
    }

    #[test]
    fn standbys_take_nothing_on_an_active_listener_whatever_their_weight() {
        let routing = routing();
        routing.publish(&service(), &gate(vec![open("east", 1)], vec![open("west", 65_535)]));
        assert_eq!(shares(&routing, Target::Active, 1000), HashMap::from([("east".to_owned(), 1000)]));
    }

    #[test]
    fn weights_are_kept_within_one_percent_over_a_thousand_connections() {
        let routing = routing();
        let weights = [("a", 100), ("b", 10), ("c", 55), ("d", 1)];
        let tier: Vec<_> = weights.iter().map(|(name, weight)| open(name, *weight)).collect();
        routing.publish(&service(), &gate(tier.clone(), vec![]));
        let active = shares(&routing, Target::Active, 1000);
        routing.publish(&service(), &gate(vec![open("primary", 100)], tier));
        let readers = shares(&routing, Target::ReadOnly, 1000);
        for (name, weight) in weights {
            let fair = 1000.0 * f64::from(weight) / 166.0;
            for taken in [active[name], readers[name]] {
                assert!((taken as f64 - fair).abs() <= 10.0, "{name} took {taken}, fair is {fair}");
            }
        }
    }

    #[test]
    fn readers_that_are_not_fit_leave_the_work_to_the_active_side() {
        let routing = routing();
        routing.publish(&service(), &gate(vec![open("east", 100)], vec![]));
        assert_eq!(shares(&routing, Target::ReadOnly, 10), HashMap::from([("east".to_owned(), 10)]));

        let mut without_address = open("west", 100);
        without_address.addresses.clear();
        let resting = open("north", 0);
        routing.publish(&service(), &gate(vec![open("east", 100)], vec![without_address, resting]));
        assert_eq!(shares(&routing, Target::ReadOnly, 10), HashMap::from([("east".to_owned(), 10)]));
    }
}
