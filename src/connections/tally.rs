//! What is counted at one listener, and cuts by reason. Kept by name, so that a reload loses nothing.
//! Bytes are the meters', added in by the caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::relay::Cut;
use crate::view::Counters;

/// How many connections were cut, by reason.
#[derive(Debug, Default)]
pub(super) struct Cuts([AtomicU64; Cut::ALL.len()]);

impl Cuts {
    pub(super) fn add(&self, reason: Cut) {
        let place = Cut::ALL.iter().position(|known| *known == reason);
        if let Some(count) = place.and_then(|place| self.0.get(place)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Reasons that occurred.
    pub(super) fn by_reason(&self) -> Vec<(String, u64)> {
        let counts =
            Cut::ALL.iter().zip(&self.0).map(|(reason, count)| (reason.as_str().to_owned(), count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// What of a client's own doing a refusal was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `max_connections` of the listener.
    Connections,
    /// `max_connections_per_address`.
    AddressConnections,
    /// `connection_rate`.
    Rate,
    /// `connection_rate_per_address`.
    AddressRate,
}

impl Limit {
    /// Every limit, in the order they are shown.
    pub const ALL: [Limit; 4] = [Limit::Connections, Limit::AddressConnections, Limit::Rate, Limit::AddressRate];

    /// A word for metrics and the API: the key in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::AddressConnections => "max_connections_per_address",
            Self::Rate => "connection_rate",
            Self::AddressRate => "connection_rate_per_address",
        }
    }
}

/// The counters of one listener.
#[derive(Debug, Default)]
pub struct ListenerTally {
    open: AtomicU64,
    most: AtomicU64,
    accepted: AtomicU64,
    errors: AtomicU64,
    limited: [AtomicU64; Limit::ALL.len()],
    pub(super) cuts: Cuts,
}

impl ListenerTally {
    /// Counts a connection that was accepted, until the guard is dropped, and tells how many are open with it.
    pub fn enter(self: &Arc<Self>) -> (Entered, u64) {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(open, Relaxed);
        self.accepted.fetch_add(1, Relaxed);
        (Entered { tally: self.clone() }, open)
    }

    /// Counts a connection that was turned away before a dial, or not accepted at all.
    pub fn refused(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// As [`ListenerTally::refused`], for a limit.
    pub fn limited(&self, limit: Limit) {
        self.refused();
        for (known, count) in Limit::ALL.iter().zip(&self.limited) {
            if *known == limit {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    /// Refusals for each limit, also where there were none.
    pub(super) fn by_limit(&self) -> Vec<(String, u64)> {
        let counts = Limit::ALL.iter().zip(&self.limited);
        counts.map(|(limit, count)| (limit.as_str().to_owned(), count.load(Relaxed))).collect()
    }

    /// Open now, held ones included.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    pub(super) fn counters(&self, bytes_in: u64, bytes_out: u64) -> Counters {
        Counters {
            sessions: self.accepted.load(Relaxed),
            max_connections_seen: self.most.load(Relaxed),
            bytes_in,
            bytes_out,
            errors: self.errors.load(Relaxed),
            cut: self.cuts.by_reason(),
        }
    }
}

/// A connection counted as open at its listener.
#[derive(Debug)]
pub struct Entered {
    tally: Arc<ListenerTally>,
}

impl Entered {
    /// The listener's counters.
    pub fn tally(&self) -> &Arc<ListenerTally> {
        &self.tally
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.tally.open.fetch_sub(1, Relaxed);
    }
}
