//! The limits of a listener: counts, and rates with their bursts.

use super::super::limits::{ListenerLimits, Rate};
use super::super::raw::{self, Number};
use super::section::Section;

const MOST: u32 = 1_000_000;

/// A burst without its rate is a problem: it would limit nothing.
pub(super) fn build(section: &mut Section<'_>, raw: &raw::Listener) -> ListenerLimits {
    let per_address = &raw.max_connections_per_address;
    let per_address =
        per_address.map(|_| section.number("max_connections_per_address", per_address, 1..=u64::from(MOST), 1));
    ListenerLimits {
        per_address,
        rate: rate(section, ["connection_rate", "connection_burst"], &raw.connection_rate, &raw.connection_burst),
        rate_per_address: rate(
            section,
            ["connection_rate_per_address", "connection_burst_per_address"],
            &raw.connection_rate_per_address,
            &raw.connection_burst_per_address,
        ),
    }
}

fn rate(
    section: &mut Section<'_>,
    [rate, burst]: [&str; 2],
    per_second: &Option<Number>,
    at_once: &Option<Number>,
) -> Option<Rate> {
    if per_second.is_none() {
        if at_once.is_some() {
            section.problem(burst, format!("is never used without {rate}; write {rate} too, or leave it out"));
        }
        return None;
    }
    let per_second = section.number(rate, per_second, 1..=MOST, 1);
    let burst = section.number(burst, at_once, 1..=MOST, per_second);
    Some(Rate { per_second, burst })
}
