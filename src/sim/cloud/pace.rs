//! How long everything takes in the simulated cloud. Pure data.

use std::time::Duration;

/// Durations of a replication stream. The defaults are those of life; tests and the demo set short ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// STARTING: peering and connectivity checks. Default 5 minutes.
    pub starting: Duration,
    /// The initial scan, already in REPLICATING: until it ends there is no replicated time. Default 60 seconds.
    pub scan: Duration,
    /// Between two values of the replicated time. At least 1 ms; default 30 seconds.
    pub step: Duration,
    /// How far the replicated time is behind when it is refreshed. Default 20 seconds.
    pub lag: Duration,
    /// FAILING_OVER, from the failover time being reached to COMPLETED. Default 60 seconds.
    pub failover: Duration,
    /// How far back a failover may go. Default 4 hours.
    pub retention: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            starting: seconds(5 * 60),
            scan: seconds(60),
            step: seconds(30),
            lag: seconds(20),
            failover: seconds(60),
            retention: seconds(4 * 3600),
        }
    }
}

impl Pace {
    /// Everything at once: no scan, no lag, no waiting; the replicated time moves every 10 ms.
    pub fn instant() -> Self {
        Self {
            starting: Duration::ZERO,
            scan: Duration::ZERO,
            step: Duration::from_millis(10),
            lag: Duration::ZERO,
            failover: Duration::ZERO,
            retention: Duration::from_secs(4 * 3600),
        }
    }
}
