//! The front desk of the simulated Cloud API: what was asked how often, what goes wrong on demand, the rate limit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::types::WallTime;

/// An operation of the Cloud API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// GET clusters/{id}/connection-string
    ConnectionString,
    /// POST physical-replication-streams
    CreateStream,
    /// GET clusters/{id}
    GetCluster,
    /// GET clusters/{id}/disrupt
    GetDisruption,
    /// GET physical-replication-streams/{id}
    GetStream,
    /// GET clusters
    ListClusters,
    /// GET clusters/{id}/nodes
    ListNodes,
    /// GET physical-replication-streams
    ListStreams,
    /// PATCH physical-replication-streams/{id}
    PatchStream,
    /// PUT clusters/{id}/disrupt
    PutDisruption,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiFault {
    /// This status with a JSON `Status` body; nothing takes effect.
    Status(u16),
    /// This status with an HTML body, as a gateway answers; nothing takes effect.
    Html(u16),
    /// It takes effect, and half of the reply's JSON arrives as if it were all.
    Truncated,
    /// No reply ever; nothing takes effect.
    Hang,
    /// The connection is closed before anything takes effect.
    LostBefore,
    /// It takes effect, and the connection is closed instead of a reply.
    LostAfter,
    /// 307 to this place; nothing takes effect.
    Redirect(String),
    /// 429 with Retry-After in seconds; nothing takes effect.
    RateLimited {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// Everything as usual, but so much later.
    Slow(Duration),
}

/// How long a fault stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// For so many requests.
    Next(u32),
    /// Until faults are cleared.
    UntilCleared,
}

#[derive(Debug)]
pub(in crate::sim) struct Desk(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The first one that fits a request is used.
    faults: Vec<(Option<Operation>, ApiFault, Times)>,
    seen: BTreeMap<Operation, u64>,
    /// Those that took effect.
    taken: BTreeMap<Operation, u64>,
    bodies: BTreeMap<Operation, Bytes>,
    all: u64,
    /// When the requests of the last second came.
    recent: VecDeque<WallTime>,
    /// Requests a second; `None` = any number.
    rate: Option<u32>,
    page_size: usize,
    shows_completed: bool,
}

impl Desk {
    pub(in crate::sim) fn new(rate: Option<u32>, page_size: usize) -> Self {
        Self(Mutex::new(State {
            faults: Vec::new(),
            seen: BTreeMap::new(),
            taken: BTreeMap::new(),
            bodies: BTreeMap::new(),
            all: 0,
            recent: VecDeque::new(),
            rate,
            page_size,
            shows_completed: false,
        }))
    }

    /// Counts a request and gives what is to go wrong with it.
    pub(super) fn arrived(&self, operation: Option<Operation>, body: &Bytes) -> Option<ApiFault> {
        let mut state = self.state();
        state.all += 1;
        if let Some(operation) = operation {
            *state.seen.entry(operation).or_default() += 1;
            state.bodies.insert(operation, body.clone());
        }
        tracing::debug!(?operation, "simulated API request");
        let n = state.faults.iter().position(|(wanted, ..)| wanted.is_none() || *wanted == operation)?;
        let (_, fault, times) = &mut state.faults[n];
        let fault = fault.clone();
        match times {
            Times::Next(0 | 1) => drop(state.faults.remove(n)),
            Times::Next(left) => *left -= 1,
            Times::UntilCleared => {}
        }
        Some(fault)
    }

    /// Seconds to wait when this request is one too many.
    pub(super) fn over_the_rate(&self, now: WallTime) -> Option<u64> {
        let mut state = self.state();
        let rate = usize::try_from(state.rate?).unwrap_or(usize::MAX);
        let old = |at: &WallTime| now.since(*at) >= Duration::from_secs(1) || *at > now;
        while state.recent.front().is_some_and(old) {
            state.recent.pop_front();
        }
        if state.recent.len() >= rate {
            return Some(1);
        }
        state.recent.push_back(now);
        None
    }

    pub(in crate::sim) fn fault(&self, operation: Option<Operation>, fault: ApiFault, times: Times) {
        if times != Times::Next(0) {
            self.state().faults.push((operation, fault, times));
        }
    }

    pub(in crate::sim) fn clear_faults(&self) {
        self.state().faults.clear();
    }

    pub(in crate::sim) fn seen(&self, operation: Operation) -> u64 {
        self.state().seen.get(&operation).copied().unwrap_or(0)
    }

    /// Counts a request that took effect.
    pub(super) fn took(&self, operation: Operation) {
        *self.state().taken.entry(operation).or_default() += 1;
    }

    pub(in crate::sim) fn taken(&self, operation: Operation) -> u64 {
        self.state().taken.get(&operation).copied().unwrap_or(0)
    }

    pub(in crate::sim) fn last_body(&self, operation: Operation) -> Option<Bytes> {
        self.state().bodies.get(&operation).cloned()
    }

    pub(in crate::sim) fn seen_in_all(&self) -> u64 {
        self.state().all
    }

    pub(in crate::sim) fn set_rate(&self, rate: Option<u32>) {
        self.state().rate = rate;
    }

    pub(in crate::sim) fn set_page_size(&self, size: usize) {
        self.state().page_size = size.max(1);
    }

    pub(super) fn page_size(&self) -> usize {
        self.state().page_size
    }

    pub(in crate::sim) fn set_shows_completed(&self, shows: bool) {
        self.state().shows_completed = shows;
    }

    pub(super) fn shows_completed(&self) -> bool {
        self.state().shows_completed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
