//! How much of a listener its clients may take; every limit is off until it is set.

use std::time::Duration;

/// Limits of one listener beside `max_connections`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Open at one time from one client address: an IPv4 address, or the /64 of an IPv6 one; 1 to 1,000,000.
    pub per_address: Option<u64>,
    /// New connections of all clients together.
    pub rate: Option<Rate>,
    /// New connections from one client address.
    pub rate_per_address: Option<Rate>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// On the average; 1 to 1,000,000.
    pub per_second: u32,
    /// At once after a pause; default = a second's worth; 1 to 1,000,000.
    pub burst: u32,
}

impl Rate {
    /// Between two of an even stream.
    pub fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}
