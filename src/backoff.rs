//! Exponential backoff with a ceiling and jitter. Pure: the random share is an argument.

use std::time::Duration;

/// Doubles from `first` to `max`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits of `first`, twice that, and so on up to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self { first, max: max.max(first), next: first }
    }

    /// The next wait. `chance` in 0..=255 takes up to half of it away, so that many waiters spread out.
    pub fn step(&mut self, chance: u8) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.max);
        wait - wait.mul_f64(f64::from(chance) / 510.0)
    }

    /// Back to the first wait.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(10));
        let waits: Vec<u64> = (0..4).map(|_| backoff.step(0).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 10]);
        backoff.reset();
        assert_eq!(backoff.step(255), Duration::from_secs(1));
    }
}
