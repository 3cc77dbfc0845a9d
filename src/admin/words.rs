//! How page and texts write times, sizes and numbers. Pure.

use std::time::Duration;

use crate::types::WallTime;

/// `4 s`, `12 min`, `3 h 20 min`, `5 d 2 h`: two units at most.
pub(super) fn span(d: Duration) -> String {
    let s = d.as_secs();
    let (days, hours, minutes) = (s / 86_400, s / 3600 % 24, s / 60 % 60);
    let two = |major: u64, unit: &str, minor: u64, lesser: &str| match minor {
        0 => format!("{major} {unit}"),
        _ => format!("{major} {unit} {minor} {lesser}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, m) if m < 5 => two(m, "min", s % 60, "s"),
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => two(h, "h", m, "min"),
        (d, h, _) => two(d, "d", h, "h"),
    }
}

/// As [`span`], down to the microsecond.
pub(super) fn fine_span(d: Duration) -> String {
    match d.as_micros() {
        us if us < 1000 => format!("{us} µs"),
        us if us < 100_000 => format!("{:.1} ms", us as f64 / 1e3),
        us if us < 1_000_000 => format!("{} ms", us / 1000),
        us if us < 10_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => span(d),
    }
}

/// `just now`, `12 s ago`.
pub(super) fn ago(at: WallTime, now: WallTime) -> String {
    let age = now.since(at);
    if age < Duration::from_secs(1) { "just now".to_owned() } else { format!("{} ago", span(age)) }
}

/// `in 40 s`, `now`.
pub(super) fn until(at: WallTime, now: WallTime) -> String {
    let rest = at.since(now);
    if rest < Duration::from_secs(1) { "now".to_owned() } else { format!("in {}", span(rest)) }
}

/// `2026-08-04 11:08:56 UTC`.
pub(super) fn stamp(at: WallTime) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(t) => t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => at.to_string(),
    }
}

/// `0 B`, `12.3 MiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut value, mut unit) = (n as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `12 345`: groups of three with a narrow no-break space.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 * 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `1 client`, `3 clients`.
pub(super) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_two_units_at_most() {
        let text = |s| span(Duration::from_secs(s));
        assert_eq!(text(0), "0 s");
        assert_eq!(text(59), "59 s");
        assert_eq!(text(61), "1 min 1 s");
        assert_eq!(text(300), "5 min");
        assert_eq!(text(3600), "1 h");
        assert_eq!(text(12_000), "3 h 20 min");
        assert_eq!(text(86_400 * 5 + 7300), "5 d 2 h");
        assert_eq!(fine_span(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(fine_span(Duration::from_micros(999)), "999 µs");
        assert_eq!(fine_span(Duration::from_millis(2345)), "2.3 s");
    }

    #[test]
    fn sizes_and_counts_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(16 << 20), "16.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(plural(1, "client", "clients"), "1 client");
    }

    #[test]
    fn a_moment_is_told_both_ways() {
        let (then, now) = (WallTime(1_000_000), WallTime(13_500_000));
        assert_eq!(ago(then, now), "12 s ago");
        assert_eq!(ago(now, now), "just now");
        assert_eq!(until(now, then), "in 12 s");
        assert_eq!(until(then, now), "now");
        assert_eq!(stamp(then), "1970-01-01 00:00:01 UTC");
    }
}
