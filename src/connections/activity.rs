//! When a side last answered and since when it owes an answer: the meters of its relays and the connections that wait
//! for their first byte, added up. Cheap to read; whether it means a hang is for the machine to judge.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::relay::Meter;
use crate::types::Moment;

/// What the data path saw of a side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// When bytes (or an end of stream) last came from it.
    pub answered_at: Option<Moment>,
    /// Since when a request stands without any byte back from the whole side.
    pub unanswered_since: Option<Moment>,
}

impl Activity {
    /// The same with what one meter knows.
    #[must_use]
    pub(super) fn with_meter(self, meter: &Meter) -> Self {
        self.with(meter.answered_at(), meter.unanswered_since())
    }

    /// The same with what the connections know that wait for their first byte.
    #[must_use]
    pub(super) fn with_first_bytes(self, first: &FirstBytes) -> Self {
        self.with(first.answered_at(), first.unanswered_since())
    }

    /// An answer to anybody is an answer of the side: nothing stands longer than that.
    #[must_use]
    pub(super) fn settled(mut self) -> Self {
        self.unanswered_since = self.unanswered_since.max(self.unanswered_since.and(self.answered_at));
        self
    }

    fn with(mut self, answered: Option<Moment>, unanswered: Option<Moment>) -> Self {
        self.answered_at = self.answered_at.max(answered);
        self.unanswered_since = match (self.unanswered_since, unanswered) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self
    }
}

/// Connections that were handed their client's first packet and have not heard from their server yet.
#[derive(Debug, Default)]
pub(super) struct FirstBytes {
    waiting: AtomicU64,
    /// When `waiting` rose from zero, nanoseconds since boot.
    asked: AtomicU64,
    /// Nanoseconds since boot; 0 = never.
    answered: AtomicU64,
}

impl FirstBytes {
    pub(super) fn asked(&self) {
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.asked.store(now_nanos(), Relaxed);
        }
    }

    pub(super) fn answered(&self) {
        self.answered.store(now_nanos(), Relaxed);
    }

    pub(super) fn release(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    fn answered_at(&self) -> Option<Moment> {
        moment(self.answered.load(Relaxed))
    }

    fn unanswered_since(&self) -> Option<Moment> {
        if self.waiting.load(Relaxed) == 0 {
            return None;
        }
        moment(self.asked.load(Relaxed).max(self.answered.load(Relaxed)))
    }
}

fn moment(nanos: u64) -> Option<Moment> {
    (nanos > 0).then(|| Moment(Duration::from_nanos(nanos)))
}

fn now_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Option<Moment> {
        Some(Moment(Duration::from_secs(seconds)))
    }

    #[test]
    fn an_answer_to_anybody_is_an_answer_of_the_side() {
        let activity = Activity::default().with(at(8), None).with(None, at(5)).settled();
        assert_eq!(activity, Activity { answered_at: at(8), unanswered_since: at(8) });
    }

    #[test]
    fn the_oldest_request_counts() {
        let activity = Activity::default().with(at(2), at(9)).with(at(3), at(5)).settled();
        assert_eq!(activity, Activity { answered_at: at(3), unanswered_since: at(5) });
        assert_eq!(Activity::default().with(at(2), None).settled().unanswered_since, None);
    }

    #[test]
    fn a_first_packet_without_a_reply_is_a_request_that_stands() {
        let first = FirstBytes::default();
        assert_eq!(first.unanswered_since(), None);
        first.asked();
        first.asked();
        let since = first.unanswered_since();
        assert!(since.is_some());
        first.answered();
        first.release();
        assert!(first.unanswered_since() >= since, "the other one still waits");
        first.release();
        assert_eq!(first.unanswered_since(), None);
    }
}
