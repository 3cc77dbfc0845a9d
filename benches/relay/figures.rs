//! What one load through one peer gave.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// CPU time of the proxy's process for each operation, in microseconds, or for each gigabyte, in seconds.
    Cpu,
    /// Operations, or megabytes, in a second.
    Rate,
    /// Median time of one operation, in microseconds.
    Latency,
    /// Proportional set size for each resting pair of connections, in bytes.
    Memory,
    /// Proportional set size before the first connection, in megabytes.
    Start,
}

impl Quantity {
    /// More of it is better.
    pub fn more_is_better(self) -> bool {
        self == Self::Rate
    }
}

/// The figures of one load through one peer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures(pub BTreeMap<Quantity, f64>);

impl Figures {
    /// `operations` in `wall`, for which the proxy spent `cpu`; there is none without a proxy.
    pub fn of_operations(operations: u64, wall: Duration, cpu: Option<Duration>) -> Self {
        let count = count(operations);
        let mut figures = Self::default();
        figures.set(Quantity::Rate, count / wall.as_secs_f64());
        figures.0.extend(cpu.map(|cpu| (Quantity::Cpu, cpu.as_secs_f64() * 1e6 / count)));
        figures
    }

    /// The same of bytes.
    pub fn of_bytes(bytes: u64, wall: Duration, cpu: Option<Duration>) -> Self {
        let bytes = count(bytes);
        let mut figures = Self::default();
        figures.set(Quantity::Rate, bytes / 1e6 / wall.as_secs_f64());
        figures.0.extend(cpu.map(|cpu| (Quantity::Cpu, cpu.as_secs_f64() / (bytes / 1e9))));
        figures
    }

    /// And this.
    pub fn set(&mut self, quantity: Quantity, value: f64) {
        self.0.insert(quantity, value);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (quantity, value) in &self.0 {
            let name = format!("{quantity:?}").to_lowercase();
            write!(f, "  {name} {}", shown(*value))?;
        }
        Ok(())
    }
}

/// With as many digits as mean something.
pub fn shown(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The middle one; the mean of both where there are two.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// As a number to divide by; exact below 2^52.
#[allow(clippy::cast_precision_loss, reason = "nothing here is counted to 2^52")]
pub fn count(number: u64) -> f64 {
    number as f64
}
