//! `[service.NAME.read_only]`: what is asked of a standby that serves `target = "read_only"`.

use std::time::Duration;

use super::super::raw::{self, Text};
use super::super::{Kind, Probe, ProbeKind, ReadOnly};
use super::Problems;
use super::section::Section;

const DEFAULT: Duration = Duration::from_secs(10);
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(24 * 3600);

pub(super) fn build(
    service: &str,
    raw: &raw::ReadOnly,
    kind: Kind,
    probe: &Probe,
    problems: &mut Problems,
) -> ReadOnly {
    let mut section = Section::new(format!("{service}.read_only"), problems);
    let told = kind == Kind::Postgres && matches!(probe.kind, ProbeKind::Sql { .. });
    if !told {
        if raw.max_lag.is_some() {
            section.problem(
                "max_lag",
                "is never used: only probes of kind sql of PostgreSQL show what a standby has replayed; remove it",
            );
        }
        return ReadOnly { max_lag: None };
    }
    if matches!(&raw.max_lag, Some(Text(word)) if word == "off") {
        return ReadOnly { max_lag: None };
    }
    // What a probe finds is this old before the next one that can tell better.
    let least = probe.interval * 2 + probe.timeout;
    let max_lag = section.duration("max_lag", &raw.max_lag, LEAST..=MOST, DEFAULT.max(least));
    if max_lag < least && !section.faulty("max_lag") {
        let shown = humantime::format_duration;
        section.problem(
            "max_lag",
            format!(
                "\"{}\" is less than two probe intervals and a timeout, \"{}\", and no standby could show in time that \
                 it is within it; write at least that, or a shorter interval in [{service}.probe]",
                shown(max_lag),
                shown(least)
            ),
        );
    }
    ReadOnly { max_lag: Some(max_lag) }
}
