//! One daemon of the model: its process, disk, gate and client connections. It obeys its machine as the driver does;
//! what its orders do to servers is `effects`'.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use pgpivot::config::{Authority, Promoter, Service};
use pgpivot::failover::action::{Cadence, Gate};
use pgpivot::failover::phase::Phase;
use pgpivot::types::{BackendName, Epoch, HostPort, Now, WallTime};

use crate::core::{Core, Input};
use crate::disk::Disk;
use crate::scenario::NAMES;
use crate::server::{DAWN, micros};

/// A client's connection through this daemon.
#[derive(Debug, Clone)]
pub struct Conn {
    pub id: u64,
    pub backend: BackendName,
    pub epoch: Epoch,
    pub server: usize,
    pub address: SocketAddr,
}

/// When an address is probed next. Tokens make older timers void.
#[derive(Debug, Clone, Default)]
pub struct Timers {
    pub fresh: u64,
    pub sample: u64,
    pub begun: u64,
    pub since: u64,
    pub outstanding: u32,
    pub sampling: bool,
    pub failures: u32,
    /// A kept connection stands.
    pub kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep {
    pub since: u64,
    pub until: u64,
    /// The data plane sleeps too.
    pub whole: bool,
}

pub struct Daemon {
    pub index: usize,
    pub service: Service,
    pub name: String,
    /// Counts the starts.
    pub process: u32,
    pub core: Option<Core>,
    pub disk: Disk,
    pub gate: Option<Gate>,
    pub conns: Vec<Conn>,
    pub next_conn: u64,
    pub told_live: BTreeMap<BackendName, usize>,
    pub unanswered: Option<(BackendName, u64)>,
    pub addresses: BTreeMap<BackendName, Vec<(HostPort, SocketAddr)>>,
    pub timers: BTreeMap<SocketAddr, Timers>,
    pub cadence: Cadence,
    pub paced_for: Option<BackendName>,
    pub sleep: Option<Sleep>,
    pub inbox: VecDeque<Input>,
    /// Its wall clock minus the world's, microseconds.
    pub skew: i64,
    pub tick: (u64, u64),
    /// Locks it asked for and did not let go: episode, and the servers that granted.
    pub locks: BTreeMap<u64, Vec<usize>>,
    pub edges: BTreeMap<(Phase, Phase), u64>,
    /// Killed when so many more actions were carried out.
    pub crash_in: Option<u64>,
}

impl Daemon {
    pub fn new(index: usize, service: Service) -> Self {
        Self {
            index,
            service,
            name: String::new(),
            process: 0,
            core: None,
            disk: Disk::new(),
            gate: None,
            conns: Vec::new(),
            next_conn: 0,
            told_live: BTreeMap::new(),
            unanswered: None,
            addresses: BTreeMap::new(),
            timers: BTreeMap::new(),
            cadence: Cadence::Calm,
            paced_for: None,
            sleep: None,
            inbox: VecDeque::new(),
            skew: 0,
            tick: (0, u64::MAX),
            locks: BTreeMap::new(),
            edges: BTreeMap::new(),
            crash_in: None,
        }
    }

    pub fn clock(&self, now: u64) -> Now {
        Now { at: moment(now), wall: WallTime(DAWN + micros(now) + self.skew) }
    }

    pub fn lives(&self) -> bool {
        self.core.is_some()
    }

    /// As the driver names itself: `s-` may decide, and names order by age.
    pub fn decides(&self) -> bool {
        let failover = &self.service.failover;
        let moves = failover.standby_serves || failover.promoter != Promoter::None;
        failover.automatic && failover.authority == Authority::SelfDecides && moves
    }

    pub fn active(&self) -> Option<BackendName> {
        let (active, _) = self.core.as_ref()?.machine.active()?;
        Some(active.clone())
    }

    pub fn epoch(&self) -> u64 {
        let machine = self.core.as_ref().map(|core| &core.machine);
        machine.and_then(|m| m.active()).map_or(0, |(_, epoch)| epoch.0)
    }

    pub fn backend_of(&self, address: SocketAddr) -> Option<BackendName> {
        let mut all = self.addresses.iter();
        all.find(|(_, list)| list.iter().any(|(_, known)| *known == address)).map(|(name, _)| name.clone())
    }

    pub fn note_edges(&mut self) {
        if let Some(core) = &self.core {
            for (edge, count) in core.machine.edges() {
                *self.edges.entry(*edge).or_default() += count;
            }
        }
    }
}

pub fn moment(ms: u64) -> pgpivot::types::Moment {
    pgpivot::types::Moment(std::time::Duration::from_millis(ms))
}

pub fn millis(moment: pgpivot::types::Moment) -> u64 {
    u64::try_from(moment.0.as_millis()).unwrap()
}

pub fn index_of(name: &BackendName) -> usize {
    NAMES.iter().position(|known| *known == name.as_str()).unwrap()
}

/// The `n`th address of a backend.
pub fn address(backend: usize, n: usize) -> SocketAddr {
    format!("10.0.{n}.{}:5432", backend + 1).parse().unwrap()
}
