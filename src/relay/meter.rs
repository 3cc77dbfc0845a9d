//! What the relays of one side on one thread count: bytes, and when the side last answered.
//! Relaxed atomics written by one thread; adding up over threads and judging is for others.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::types::Moment;

/// Counters and clocks shared by all relays of one side (one address, one listener: as the caller likes) on one
/// thread. Written without locks, readable from any thread; a reader may see one field newer than another.
#[derive(Default)]
pub struct Meter {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    spliced: AtomicU64,
    /// Nanoseconds since boot; 0 = never.
    answered: AtomicU64,
    /// When `waiting` rose from zero, nanoseconds since boot.
    asked: AtomicU64,
    /// Connections whose client spoke last.
    waiting: AtomicU64,
    server_ended: Option<Box<dyn Fn(u64) + Send + Sync>>,
}

impl Meter {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `hook` with the connection's number ([`super::Orders::numbered`]) at once when a server ends its
    /// direction of a connection (end of stream or reset), also while the relay lives on because the client has not
    /// closed yet. Once per connection, on the relay's thread; it must not block. Not called for connections that
    /// were cut.
    #[must_use]
    pub fn on_server_end(mut self, hook: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.server_ended = Some(Box::new(hook));
        self
    }

    /// Bytes handed to servers.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes handed to clients.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// How many of all bytes were spliced, not copied.
    pub fn bytes_spliced(&self) -> u64 {
        self.spliced.load(Relaxed)
    }

    /// When bytes (or an end of stream) last came from the side.
    pub fn answered_at(&self) -> Option<Moment> {
        from_nanos(self.answered.load(Relaxed))
    }

    /// Since when requests stand without any byte back from the whole side: the later of the oldest one's time and
    /// `answered_at`; `None` while no connection waits.
    ///
    /// What a client sends without expecting an answer (rows of a COPY, replication feedback) counts as a request,
    /// so this is a reason to probe, never a verdict.
    pub fn unanswered_since(&self) -> Option<Moment> {
        if self.waiting.load(Relaxed) == 0 {
            return None;
        }
        from_nanos(self.asked.load(Relaxed).max(self.answered.load(Relaxed)))
    }
}

/// One poll's worth of counting: at most one clock read and a few stores, at the end.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) spliced: u64,
    /// An end of stream from the server.
    pub(super) server_end: bool,
}

impl Meter {
    /// Adds one poll. `waits` is the connection's own flag: its client spoke last.
    pub(super) fn add(&self, tally: &Tally, waits: &mut bool) {
        if tally.bytes_in > 0 {
            self.bytes_in.fetch_add(tally.bytes_in, Relaxed);
        }
        if tally.spliced > 0 {
            self.spliced.fetch_add(tally.spliced, Relaxed);
        }
        let answered = tally.bytes_out > 0 || tally.server_end;
        let asked = tally.bytes_in > 0 && !*waits;
        if !answered && !asked {
            return;
        }
        let now = now_nanos();
        if answered {
            self.bytes_out.fetch_add(tally.bytes_out, Relaxed);
            self.answered.store(now, Relaxed);
            self.release(waits);
        }
        // Both in one poll: an answer to what came before, then the next request.
        if tally.bytes_in > 0 && !tally.server_end && !*waits {
            *waits = true;
            if self.waiting.fetch_add(1, Relaxed) == 0 {
                self.asked.store(now, Relaxed);
            }
        }
    }

    /// The connection does not wait (any more).
    pub(super) fn release(&self, waits: &mut bool) {
        if std::mem::take(waits) {
            self.waiting.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn server_ended(&self, number: u64) {
        if let Some(hook) = &self.server_ended {
            hook(number);
        }
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("bytes_in", &self.bytes_in())
            .field("bytes_out", &self.bytes_out())
            .field("bytes_spliced", &self.bytes_spliced())
            .field("answered_at", &self.answered_at())
            .field("unanswered_since", &self.unanswered_since())
            .finish_non_exhaustive()
    }
}

fn from_nanos(nanos: u64) -> Option<Moment> {
    (nanos > 0).then(|| Moment(Duration::from_nanos(nanos)))
}

fn now_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
