//! How long something took, counted in buckets: what a Prometheus histogram is made of.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets, microseconds; what takes longer is in none.
pub const BOUNDS_US: [u64; 14] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000];

/// Durations of one kind since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// All of them together, microseconds.
    pub sum_us: u64,
    /// How many fell into each bucket of [`BOUNDS_US`], those of smaller buckets not included.
    pub buckets: [u64; BOUNDS_US.len()],
}

impl Durations {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        if let Some(at) = BOUNDS_US.iter().position(|bound| us <= *bound) {
            self.buckets[at] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_falls_into_the_smallest_bucket_that_holds_it() {
        let mut all = Durations::default();
        for us in [0, 250, 251, 5_000_000, 5_000_001] {
            all.add(Duration::from_micros(us));
        }
        assert_eq!((all.count, all.sum_us), (5, 10_000_502));
        assert_eq!((all.buckets[0], all.buckets[1], all.buckets[13]), (2, 1, 1));
        assert_eq!(all.buckets.iter().sum::<u64>(), 4, "beyond the last bound it counts in no bucket");
    }
}
