//! One side: its fence, its live connections, its counters, all under one lock that is never held over a system call.
//! The room's own file explains the fence.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, connect_unspec, shutdown, sockopt::set_socket_linger};
use tokio::sync::mpsc::UnboundedSender;

use super::EndpointCount;
use super::activity::{Activity, FirstBytes};
use super::evidence::Reporter;
use super::tally::{Cuts, ListenerTally};
use crate::failover::observation::Evidence;
use crate::relay::{Cut, Meter, Orders};
use crate::types::{BackendName, Epoch, ServiceName};
use crate::view::{Counters, Durations};

/// Addresses of one side that are remembered; beyond it those without connections are forgotten.
const MAX_ENDPOINTS: usize = 1024;

/// One side of a service.
#[derive(Debug)]
pub(super) struct Side {
    state: Mutex<State>,
    reporter: Reporter,
    first_bytes: FirstBytes,
}

#[derive(Debug, Default)]
struct State {
    /// The epoch it serves under; `None` = closed.
    open: Option<Epoch>,
    /// The highest epoch it was ever opened under.
    highest: Epoch,
    /// +1 at every opening, closing and cut: admissions of before are void.
    fence: u64,
    next_number: u64,
    live: HashMap<u64, Entry>,
    /// How many of `live` have lost their server.
    orphans: usize,
    /// By which key whose queries are cancelled, as far as it was told.
    keys: HashMap<Box<[u8]>, u64>,
    endpoints: HashMap<SocketAddr, Endpoint>,
    connects: Durations,
    /// Bytes (in, out) by listener, of endpoints that were forgotten.
    forgotten: HashMap<SocketAddr, (u64, u64)>,
}

#[derive(Debug)]
pub(super) struct Entry {
    orders: Orders,
    /// Our own descriptor of the server's socket, so that it can be silenced whatever its thread does.
    server: Arc<OwnedFd>,
    pub(super) address: SocketAddr,
    listener: Arc<ListenerTally>,
    /// It came through a `read_only` listener.
    pub(super) reads: bool,
    key: Option<Box<[u8]>>,
    orphan: bool,
}

#[derive(Debug, Default)]
struct Endpoint {
    live: u64,
    most: u64,
    attached: u64,
    errors: u64,
    cuts: Cuts,
    /// By worker thread and listener.
    meters: HashMap<(usize, SocketAddr), Arc<Meter>>,
}

/// Where a connection comes from and goes to.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The worker thread's number: meters are per thread.
    pub worker: usize,
    /// The listener's configured address.
    pub listener: SocketAddr,
    /// The listener's counters.
    pub tally: Arc<ListenerTally>,
    /// The listener is for readers.
    pub reads: bool,
    /// What its client is told when it is ended where a message can stand.
    pub farewell: &'static [u8],
}

/// The right to attach one connection, unless the side is closed, cut or reopened in between.
#[derive(Debug)]
pub struct Admission {
    side: Arc<Side>,
    epoch: Epoch,
    fence: u64,
    /// The dial begins with it.
    given: Instant,
}

impl Admission {
    /// Enters a connected socket to `address` into the registry: from now on a cut reaches it. `Ok(None)` = the side
    /// was closed or cut since; not one byte may be sent. An error is this machine's: no descriptor is left.
    pub fn attach(self, origin: &Origin, address: SocketAddr, server: &impl AsFd) -> io::Result<Option<Attached>> {
        let server = Arc::new(server.as_fd().try_clone_to_owned()?);
        let took = self.given.elapsed();
        let mut state = self.side.lock();
        state.connects.add(took);
        if state.open != Some(self.epoch) || state.fence != self.fence {
            return Ok(None);
        }
        let number = state.next_number;
        state.next_number += 1;
        let orders = Orders::numbered(number, origin.farewell);
        let meter = state.enter_endpoint(&self.side, origin, address);
        let listener = origin.tally.clone();
        state.live.insert(
            number,
            Entry { orders: orders.clone(), server, address, listener, reads: origin.reads, key: None, orphan: false },
        );
        drop(state);
        Ok(Some(Attached { side: self.side, number, orders, meter, asked: AtomicBool::new(false) }))
    }
}

/// A connection in the registry; leaves it when dropped.
#[derive(Debug)]
pub struct Attached {
    side: Arc<Side>,
    number: u64,
    orders: Orders,
    meter: Arc<Meter>,
    asked: AtomicBool,
}

impl Attached {
    /// The orders this connection obeys.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Where its bytes are counted.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Notes the key of the session, once: process id and secret.
    pub fn key_teller(&self) -> impl FnOnce(Box<[u8]>) + Send + 'static {
        let (side, number) = (self.side.clone(), self.number);
        move |key| side.lock().note_key(number, key)
    }

    /// The server was handed the client's first packet and owes a first byte.
    pub fn asked(&self) {
        if !self.asked.swap(true, Relaxed) {
            self.side.first_bytes.asked();
        }
    }

    /// The server's first byte came.
    pub fn answered(&self) {
        self.side.first_bytes.answered();
        self.passed_on();
    }

    /// It is the relay's turn to watch for answers.
    pub fn passed_on(&self) {
        if self.asked.swap(false, Relaxed) {
            self.side.first_bytes.release();
        }
    }

    /// The server ended the connection before the relay began.
    pub fn lost(&self) {
        self.side.orphaned(self.number);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.passed_on();
        self.side.detach(self.number);
    }
}

impl Side {
    pub(super) fn new(
        service: ServiceName,
        backend: BackendName,
        evidence: UnboundedSender<(ServiceName, Evidence)>,
    ) -> Self {
        Self {
            state: Mutex::default(),
            reporter: Reporter::new(service, backend, evidence),
            first_bytes: FirstBytes::default(),
        }
    }

    pub(super) fn open(&self, epoch: Epoch) {
        let mut state = self.lock();
        if epoch < state.highest || state.open == Some(epoch) {
            return;
        }
        state.open = Some(epoch);
        state.highest = epoch;
        state.fence += 1;
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.open = None;
        state.fence += 1;
    }

    pub(super) fn admit(self: &Arc<Self>, epoch: Epoch) -> Option<Admission> {
        let state = self.lock();
        (state.open == Some(epoch)).then(|| Admission {
            side: self.clone(),
            epoch,
            fence: state.fence,
            given: Instant::now(),
        })
    }

    pub(super) fn cut(&self, reason: Cut) -> usize {
        let victims = {
            let mut state = self.lock();
            state.open = None;
            state.fence += 1;
            state.take(|_| true, reason)
        };
        end(&victims, reason);
        victims.len()
    }

    /// Cuts connections to some addresses; the side stays open.
    pub(super) fn cut_at(&self, there: impl Fn(&SocketAddr) -> bool, reason: Cut) -> usize {
        let (victims, left) = {
            let mut state = self.lock();
            let victims = state.take(|entry| there(&entry.address), reason);
            (victims, state.live.len() - state.orphans)
        };
        end(&victims, reason);
        if !victims.is_empty() {
            self.reporter.connections(left);
        }
        victims.len()
    }

    pub(super) fn drain(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let asked: Vec<Orders> = {
            let state = self.lock();
            state.live.values().filter(|entry| which(entry)).map(|entry| entry.orders.clone()).collect()
        };
        for orders in &asked {
            orders.drain();
        }
        asked.len()
    }

    pub(super) fn connect_failed(&self, address: SocketAddr, error: &io::Error) {
        self.lock().endpoint(address).errors += 1;
        self.reporter.connect_failed(address, error);
    }

    pub(super) fn live(&self) -> usize {
        let state = self.lock();
        state.live.len() - state.orphans
    }

    pub(super) fn live_at(&self, address: &SocketAddr) -> u64 {
        self.lock().endpoints.get(address).map_or(0, |endpoint| endpoint.live)
    }

    /// Where the session with this key is attached.
    pub(super) fn at_key(&self, key: &[u8]) -> Option<SocketAddr> {
        let state = self.lock();
        Some(state.live.get(state.keys.get(key)?)?.address)
    }

    pub(super) fn activity(&self) -> Activity {
        let state = self.lock();
        let meters = state.endpoints.values().flat_map(|endpoint| endpoint.meters.values());
        let first = Activity::default().with_first_bytes(&self.first_bytes);
        meters.fold(first, |activity, meter| activity.with_meter(meter)).settled()
    }

    pub(super) fn connects(&self) -> Durations {
        self.lock().connects.clone()
    }

    pub(super) fn endpoints(&self) -> Vec<EndpointCount> {
        let state = self.lock();
        let mut counts: Vec<_> = state.endpoints.iter().map(|(address, endpoint)| endpoint.count(*address)).collect();
        counts.sort_by_key(|count| count.address);
        counts
    }

    pub(super) fn relayed(&self) -> u64 {
        let state = self.lock();
        let meters = state.endpoints.values().flat_map(|endpoint| endpoint.meters.values());
        let forgotten: u64 = state.forgotten.values().map(|(bytes_in, _)| bytes_in).sum();
        meters.fold(forgotten, |sum, meter| sum + meter.bytes_in())
    }

    /// Bytes (in, out) that came through one listener.
    pub(super) fn bytes_of(&self, listener: &SocketAddr) -> (u64, u64) {
        let state = self.lock();
        let forgotten = state.forgotten.get(listener).copied().unwrap_or_default();
        let meters = state.endpoints.values().flat_map(|endpoint| &endpoint.meters);
        let of_listener = meters.filter(|((_, through), _)| through == listener);
        of_listener.fold(forgotten, |sum, (_, meter)| (sum.0 + meter.bytes_in(), sum.1 + meter.bytes_out()))
    }

    /// The server of this connection ended it; its client may linger.
    fn orphaned(&self, number: u64) {
        let live = {
            let mut state = self.lock();
            match state.live.get_mut(&number) {
                Some(entry) if !entry.orphan => entry.orphan = true,
                _ => return,
            }
            state.orphans += 1;
            state.live.len() - state.orphans
        };
        self.reporter.server_ended(live);
    }

    fn detach(&self, number: u64) {
        let left = {
            let mut state = self.lock();
            // A cut took it out already.
            let Some(entry) = state.live.remove(&number) else {
                return;
            };
            if let Some(key) = &entry.key {
                state.keys.remove(key);
            }
            state.endpoint(entry.address).live -= 1;
            if entry.orphan {
                state.orphans -= 1;
                return;
            }
            state.live.len() - state.orphans
        };
        self.reporter.connections(left);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn endpoint(&mut self, address: SocketAddr) -> &mut Endpoint {
        if self.endpoints.len() >= MAX_ENDPOINTS && !self.endpoints.contains_key(&address) {
            self.forget_idle_endpoints();
        }
        self.endpoints.entry(address).or_default()
    }

    /// Counts a newcomer at its endpoint and finds its meter.
    fn enter_endpoint(&mut self, side: &Arc<Side>, origin: &Origin, address: SocketAddr) -> Arc<Meter> {
        let endpoint = self.endpoint(address);
        endpoint.live += 1;
        endpoint.attached += 1;
        endpoint.most = endpoint.most.max(endpoint.live);
        let meter = endpoint.meters.entry((origin.worker, origin.listener)).or_insert_with(|| {
            let side = Arc::downgrade(side);
            let on_end = move |number| {
                if let Some(side) = side.upgrade() {
                    side.orphaned(number);
                }
            };
            Arc::new(Meter::new().on_server_end(on_end))
        });
        meter.clone()
    }

    fn take(&mut self, which: impl Fn(&Entry) -> bool, reason: Cut) -> Vec<Entry> {
        let victims: Vec<Entry> = self.live.extract_if(|_, entry| which(entry)).map(|(_, entry)| entry).collect();
        for victim in &victims {
            if let Some(key) = &victim.key {
                self.keys.remove(key);
            }
            self.orphans -= usize::from(victim.orphan);
            let endpoint = self.endpoint(victim.address);
            endpoint.live -= 1;
            endpoint.cuts.add(reason);
            victim.listener.cuts.add(reason);
        }
        victims
    }

    fn note_key(&mut self, number: u64, key: Box<[u8]>) {
        if let Some(entry) = self.live.get_mut(&number) {
            entry.key = Some(key.clone());
            self.keys.insert(key, number);
        }
    }

    fn forget_idle_endpoints(&mut self) {
        let forgotten = &mut self.forgotten;
        self.endpoints.retain(|_, endpoint| {
            if endpoint.live > 0 {
                return true;
            }
            for ((_, listener), meter) in &endpoint.meters {
                let (bytes_in, bytes_out) = forgotten.entry(*listener).or_default();
                *bytes_in += meter.bytes_in();
                *bytes_out += meter.bytes_out();
            }
            false
        });
    }
}

impl Endpoint {
    fn count(&self, address: SocketAddr) -> EndpointCount {
        let counters = Counters {
            sessions: self.attached,
            max_connections_seen: self.most,
            bytes_in: self.meters.values().map(|meter| meter.bytes_in()).sum(),
            bytes_out: self.meters.values().map(|meter| meter.bytes_out()).sum(),
            errors: self.errors,
            cut: self.cuts.by_reason(),
        };
        EndpointCount { address, live: self.live, counters }
    }
}

/// First all orders, which stop the relays between two writes; then the sockets, which stop the writes.
fn end(victims: &[Entry], reason: Cut) {
    for victim in victims {
        victim.orders.cut(reason);
    }
    for victim in victims {
        silence(&victim.server);
    }
}

/// Makes a socket take and give no byte any more, from whatever thread: dissolving the association resets the
/// connection and throws both queues away, which a mere shutdown would still try to deliver.
fn silence(server: &OwnedFd) {
    // For the close, should the rest be refused.
    let _ = set_socket_linger(server, Some(Duration::ZERO));
    if connect_unspec(server).is_err() {
        // Fails only on a connection that is over.
        let _ = shutdown(server, Shutdown::Both);
    }
}
