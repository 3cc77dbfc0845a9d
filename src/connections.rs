//! The registry of live connections by side: admit, attach, drain, cut, count. Callable from any thread; nothing here
//! waits or decides. Accepting, dialling and moving bytes are `listener`'s and `relay`'s.
//!
//! **The fence.** A side is closed until [`Connections::open_side`] names the epoch it serves under. A connection
//! asks for an [`Admission`] before it is dialled and hands it in when it stands: check and entry are one step under
//! the side's lock, and every close or cut voids the admissions given before. So nothing dialled before a cut can be
//! attached after it.

mod activity;
mod evidence;
mod side;
mod tally;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::mpsc::UnboundedSender;

use crate::failover::observation::Evidence;
use crate::relay::Cut;
use crate::types::{BackendName, Epoch, ServiceName};
use crate::view::{Counters, Durations};

pub use activity::Activity;
pub use side::{Admission, Attached, Origin};
pub use tally::{Entered, Limit, ListenerTally};

use side::Side;

/// Who is attached where. Clones share one registry.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    services: RwLock<HashMap<ServiceName, Arc<Service>>>,
    evidence: UnboundedSender<(ServiceName, Evidence)>,
}

/// What one service has attached; made when first asked for and kept, so that a reload keeps its counters.
#[derive(Debug, Default)]
struct Service {
    sides: RwLock<HashMap<BackendName, Arc<Side>>>,
    listeners: Mutex<HashMap<SocketAddr, Arc<ListenerTally>>>,
    held: Arc<AtomicU64>,
}

/// One address of a backend, as counted.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointCount {
    /// As dialled.
    pub address: SocketAddr,
    /// Attached now, connections included whose server has ended but whose client has not.
    pub live: u64,
    /// Since the start.
    pub counters: Counters,
}

/// One listener, as counted.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerCount {
    /// As configured.
    pub address: SocketAddr,
    /// Open now, held ones included.
    pub open: u64,
    /// Refusals since the start, by limit.
    pub refused: Vec<(String, u64)>,
    /// Since the start.
    pub counters: Counters,
}

impl Connections {
    /// An empty registry, every side closed. What it sees of servers goes to `evidence`, bounded in rate per side:
    /// it is a reason to look, and [`Connections::live`] and [`Connections::activity`] are what to look at.
    pub fn new(evidence: UnboundedSender<(ServiceName, Evidence)>) -> Self {
        Self(Arc::new(Inner { services: RwLock::default(), evidence }))
    }

    /// From now on connections chosen under `epoch` may be attached to this side. An epoch older than one the side
    /// was opened under before is ignored: epochs only grow.
    pub fn open_side(&self, service: &ServiceName, backend: &BackendName, epoch: Epoch) {
        self.side(service, backend).open(epoch);
    }

    /// From now on nothing is attached to this side, dials under way included. What is attached lives on.
    pub fn close_side(&self, service: &ServiceName, backend: &BackendName) {
        self.side(service, backend).close();
    }

    /// As [`Connections::close_side`], every side of a service.
    pub fn close_sides(&self, service: &ServiceName) {
        for (_, side) in self.sides(service) {
            side.close();
        }
    }

    /// Opens exactly these sides of a service, in one go per side; all its others are closed.
    pub fn open_only(&self, service: &ServiceName, epoch: Epoch, backends: &[&BackendName]) {
        for (name, side) in self.sides(service) {
            if !backends.contains(&&name) {
                side.close();
            }
        }
        for backend in backends {
            self.open_side(service, backend, epoch);
        }
    }

    /// May a connection chosen under `epoch` be dialled to this side? Ask before the dial; see [`Admission::attach`].
    pub fn admit(&self, service: &ServiceName, backend: &BackendName, epoch: Epoch) -> Option<Admission> {
        self.side(service, backend).admit(epoch)
    }

    /// A dial failed: evidence, unless the reason lies on this machine.
    pub fn connect_failed(
        &self,
        service: &ServiceName,
        backend: &BackendName,
        address: SocketAddr,
        error: &std::io::Error,
    ) {
        self.side(service, backend).connect_failed(address, error);
    }

    /// Closes the side and cuts every connection of it in both directions, at once: when this returns, no byte is
    /// handed to the old side any more, bytes that its kernel had not taken are taken back, and none of its bytes is
    /// passed to a client. Never waits. Returns how many were cut.
    pub fn cut(&self, service: &ServiceName, backend: &BackendName, reason: Cut) -> usize {
        self.side(service, backend).cut(reason)
    }

    /// As [`Connections::cut`], every side of a service.
    pub fn cut_sides(&self, service: &ServiceName, reason: Cut) -> usize {
        self.sides(service).iter().map(|(_, side)| side.cut(reason)).sum()
    }

    /// As [`Connections::cut`], every side of every service.
    pub fn cut_all(&self, reason: Cut) -> usize {
        self.all_sides().iter().map(|side| side.cut(reason)).sum()
    }

    /// Asks every connection of a side to end as soon as nothing is under way on it. Returns how many were asked.
    pub fn drain(&self, service: &ServiceName, backend: &BackendName) -> usize {
        self.side(service, backend).drain(|_| true)
    }

    /// An operator took a side, or one address of it, out: asks every connection there to end as soon as nothing is
    /// under way on it, or cuts them. The side stays open: no admission is voided. Returns how many it concerned.
    pub fn retire(&self, service: &ServiceName, backend: &BackendName, at: Option<SocketAddr>, cut: bool) -> usize {
        let side = self.side(service, backend);
        let there = |address: &SocketAddr| at.is_none_or(|at| at == *address);
        if cut { side.cut_at(there, Cut::Operator) } else { side.drain(|entry| there(&entry.address)) }
    }

    /// As [`Connections::drain`], only connections of `read_only` listeners.
    pub fn drain_readers(&self, service: &ServiceName, backend: &BackendName) -> usize {
        self.side(service, backend).drain(|entry| entry.reads)
    }

    /// As [`Connections::drain`], every side of every service.
    pub fn drain_all(&self) -> usize {
        self.all_sides().iter().map(|side| side.drain(|_| true)).sum()
    }

    /// As [`Connections::drain`], only connections to addresses that are not among `kept` any more.
    pub fn drain_removed(&self, service: &ServiceName, backend: &BackendName, kept: &[SocketAddr]) -> usize {
        self.side(service, backend).drain(|entry| !kept.contains(&entry.address))
    }

    /// Connections attached to this side whose server has not ended them.
    pub fn live(&self, service: &ServiceName, backend: &BackendName) -> usize {
        self.side(service, backend).live()
    }

    /// Which side and address has the session with this key (process id and secret), if it was told in clear to us.
    pub fn owner(&self, service: &ServiceName, key: &[u8]) -> Option<(BackendName, SocketAddr)> {
        self.sides(service).into_iter().find_map(|(name, side)| Some((name, side.at_key(key)?)))
    }

    /// Connections attached to one address of this side.
    pub fn live_at(&self, service: &ServiceName, backend: &BackendName, address: &SocketAddr) -> u64 {
        self.side(service, backend).live_at(address)
    }

    /// Clients of a service that wait now.
    pub fn held(&self, service: &ServiceName) -> usize {
        usize::try_from(self.service(service).held.load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// When this side last answered, and since when it owes an answer.
    pub fn activity(&self, service: &ServiceName, backend: &BackendName) -> Activity {
        self.side(service, backend).activity()
    }

    /// Bytes handed to this side for clients since the start.
    pub fn relayed(&self, service: &ServiceName, backend: &BackendName) -> u64 {
        self.side(service, backend).relayed()
    }

    /// Every address of this side that was ever dialled, in order of address.
    pub fn endpoints(&self, service: &ServiceName, backend: &BackendName) -> Vec<EndpointCount> {
        self.side(service, backend).endpoints()
    }

    /// How long clients' connections to this side took until they stood, from their admission on.
    pub fn connects(&self, service: &ServiceName, backend: &BackendName) -> Durations {
        self.side(service, backend).connects()
    }

    /// What was counted at the listener with this configured address.
    pub fn listener(&self, service: &ServiceName, address: SocketAddr) -> ListenerCount {
        let tally = self.tally(service, address);
        let (mut bytes_in, mut bytes_out) = (0, 0);
        for (_, side) in self.sides(service) {
            let (more_in, more_out) = side.bytes_of(&address);
            bytes_in += more_in;
            bytes_out += more_out;
        }
        ListenerCount {
            address,
            open: tally.open(),
            refused: tally.by_limit(),
            counters: tally.counters(bytes_in, bytes_out),
        }
    }

    /// The counters of the listener with this configured address.
    pub fn tally(&self, service: &ServiceName, address: SocketAddr) -> Arc<ListenerTally> {
        let service = self.service(service);
        let mut listeners = service.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.entry(address).or_default().clone()
    }

    /// What [`Connections::held`] reads; the waiting room of the service writes it.
    pub fn held_gauge(&self, service: &ServiceName) -> Arc<AtomicU64> {
        self.service(service).held.clone()
    }

    fn service(&self, name: &ServiceName) -> Arc<Service> {
        if let Some(service) = read(&self.0.services).get(name) {
            return service.clone();
        }
        let mut services = self.0.services.write().unwrap_or_else(PoisonError::into_inner);
        services.entry(name.clone()).or_default().clone()
    }

    fn side(&self, service_name: &ServiceName, backend: &BackendName) -> Arc<Side> {
        let service = self.service(service_name);
        if let Some(side) = read(&service.sides).get(backend) {
            return side.clone();
        }
        let mut sides = service.sides.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Side::new(service_name.clone(), backend.clone(), self.0.evidence.clone()));
        sides.entry(backend.clone()).or_insert_with(new).clone()
    }

    fn all_sides(&self) -> Vec<Arc<Side>> {
        let services: Vec<_> = read(&self.0.services).values().cloned().collect();
        services.iter().flat_map(|service| read(&service.sides).values().cloned().collect::<Vec<_>>()).collect()
    }

    fn sides(&self, service: &ServiceName) -> Vec<(BackendName, Arc<Side>)> {
        read(&self.service(service).sides).iter().map(|(name, side)| (name.clone(), side.clone())).collect()
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
