//! Counts and durations of one pool. Written by whoever uses it, read for the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::QueryIntent;
use super::report::{LATENCY_BUCKETS, Latency};

/// The counters of one pool.
#[derive(Debug, Default)]
pub(super) struct Meter {
    buckets: [AtomicU64; 13],
    micros: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    waits: AtomicU64,
    waited_micros: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) exhausted: AtomicU64,
    pub(super) failed_checks: AtomicU64,
}

impl Meter {
    /// A statement took so long, however it ended.
    pub(super) fn took(&self, intent: QueryIntent, duration: Duration) {
        let counter = if intent == QueryIntent::Read { &self.reads } else { &self.writes };
        counter.fetch_add(1, Relaxed);
        self.micros.fetch_add(micros(duration), Relaxed);
        let fits = |bound: &f64| duration.as_secs_f64() <= *bound;
        if let Some(bucket) = LATENCY_BUCKETS.iter().position(fits) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
    }

    /// Somebody waited so long for a connection, and got one.
    pub(super) fn waited(&self, duration: Duration) {
        self.waits.fetch_add(1, Relaxed);
        self.waited_micros.fetch_add(micros(duration), Relaxed);
    }

    /// Statements that read, and that wrote.
    pub(super) fn statements(&self) -> (u64, u64) {
        (self.reads.load(Relaxed), self.writes.load(Relaxed))
    }

    pub(super) fn latency(&self) -> Latency {
        let (reads, writes) = self.statements();
        let mut below = 0;
        let buckets = self.buckets.each_ref().map(|bucket| {
            below += bucket.load(Relaxed);
            below
        });
        Latency { buckets, count: (reads + writes).max(below), sum: seconds(&self.micros) }
    }

    /// How many connections were lent, and the seconds that was waited for them.
    pub(super) fn lent(&self) -> (u64, f64) {
        (self.waits.load(Relaxed), seconds(&self.waited_micros))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn seconds(micros: &AtomicU64) -> f64 {
    Duration::from_micros(micros.load(Relaxed)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_counted_in_every_bucket_that_they_fit() {
        let meter = Meter::default();
        for millis in [1, 3, 700, 60_000] {
            meter.took(QueryIntent::Read, Duration::from_millis(millis));
        }
        let latency = meter.latency();
        assert_eq!(latency.buckets, [1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3]);
        assert_eq!((latency.count, latency.sum), (4, 60.704));
    }
}
