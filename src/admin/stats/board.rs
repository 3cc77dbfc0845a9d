//! The board: what changes while the page is open, in words. Holds the palette that its parts share. Pure.

use super::decision::Service;
use crate::admin::ServiceEvent;
use crate::admin::words::{ago, fine_span, plural, span, stamp};
use crate::failover::action::EventKind;
use crate::types::WallTime;
use crate::view::{Level, ServiceStatus, Status};

/// Everything that changes while the page is open.
pub(super) struct Board {
    pub(super) version: String,
    pub(super) daemon: String,
    pub(super) uptime: String,
    pub(super) at: Time,
    pub(super) level: &'static str,
    /// For the browser's tab.
    pub(super) title: String,
    /// Read aloud when it changes.
    pub(super) announcement: String,
    pub(super) alarms: Vec<String>,
    pub(super) services: Vec<Service>,
    pub(super) many: bool,
    pub(super) history: Vec<Happened>,
}

/// A moment, both ways.
pub(super) struct Time {
    pub(super) machine: String,
    pub(super) stamp: String,
    pub(super) ago: String,
}

impl Time {
    pub(super) fn of(at: WallTime, now: WallTime) -> Self {
        Self { machine: at.to_string(), stamp: stamp(at), ago: ago(at, now) }
    }
}

pub(super) struct Fact {
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) note: String,
    pub(super) level: &'static str,
}

pub(super) struct Happened {
    pub(super) at: Time,
    pub(super) service: String,
    pub(super) kind: &'static str,
    pub(super) level: &'static str,
    pub(super) sentence: String,
    pub(super) took: Option<String>,
    pub(super) by: Option<String>,
}

pub(super) const OK: &str = "ok";
pub(super) const WARN: &str = "warn";
pub(super) const BAD: &str = "bad";
pub(super) const CALM: &str = "calm";

pub(super) fn class(level: Level) -> &'static str {
    match level {
        Level::Ok => OK,
        Level::Warn => WARN,
        Level::Bad => BAD,
    }
}

/// A shape beside the colour, for those who do not see the colour.
pub(super) fn mark(class: &str) -> &'static str {
    match class {
        OK => "●",
        WARN => "▲",
        BAD => "■",
        _ => "○",
    }
}

/// The words of a machine-readable name.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

impl Board {
    pub(super) fn build(status: &Status, recent: &[ServiceEvent]) -> Self {
        let services: Vec<_> = (0..).zip(&status.services).map(|(id, s)| Service::build(id, s, status.at)).collect();
        let alarms = alarms(status);
        let worst = status.services.iter().map(level).max().unwrap_or_default();
        let worst = if alarms.is_empty() { worst } else { Level::Bad };
        let line = |s: &Service| match &s.active {
            Some(active) => format!("{}: {active} is active, {}. {}", s.name, s.phase, s.verdict.text),
            None => format!("{}: no side is active, {}. {}", s.name, s.phase, s.verdict.text),
        };
        let title = match services.as_slice() {
            [only] => format!("{} · {}", only.headline.as_deref().unwrap_or("no active side"), only.phase),
            several => plural(several.len() as u64, "service", "services"),
        };
        Self {
            version: status.version.clone(),
            daemon: status.daemon.clone(),
            uptime: span(status.at.since(status.started)),
            at: Time::of(status.at, status.at),
            level: class(worst),
            title: format!("{} {title} · pgpivot", mark(class(worst))),
            announcement: alarms.iter().cloned().chain(services.iter().map(line)).collect::<Vec<_>>().join(" "),
            alarms,
            many: services.len() > 1,
            services,
            history: recent.iter().map(|e| Happened::of(e, status.at)).collect(),
        }
    }
}

fn alarms(status: &Status) -> Vec<String> {
    let state = status.state_error.as_ref();
    let state = state.map(|e| format!("The state cannot be written, so nothing can fail over: {e}"));
    let failures = status.task_failures;
    let tasks = (failures > 0)
        .then(|| format!("{} ended that must not end; the log says why", plural(failures, "task", "tasks")));
    state.into_iter().chain(tasks).collect()
}

/// No automatic episode is left, though some are allowed.
pub(super) fn is_exhausted(service: &ServiceStatus) -> bool {
    service.budget > 0 && service.budget_left == 0
}

/// Never better than what the page must show in red.
pub(super) fn level(service: &ServiceStatus) -> Level {
    let red = service.blocked.is_some()
        || is_exhausted(service)
        || service.active.is_none()
        || service.backends.iter().any(|b| b.quarantined.is_some());
    if red { Level::Bad } else { service.level }
}

impl Happened {
    fn of(e: &ServiceEvent, now: WallTime) -> Self {
        let (kind, level) = match e.event.kind {
            EventKind::Started => ("started", CALM),
            EventKind::Phase => ("phase", CALM),
            EventKind::Health => ("health", CALM),
            EventKind::Decided => ("decided", WARN),
            EventKind::Step => ("step", CALM),
            EventKind::Cancelled => ("cancelled", WARN),
            EventKind::Switched => ("switched", OK),
            EventKind::Blocked => ("blocked", BAD),
            EventKind::Quarantined => ("quarantined", BAD),
            EventKind::Released => ("released", OK),
            EventKind::Command => ("command", CALM),
            EventKind::Followed => ("followed", OK),
            EventKind::Notice => ("notice", WARN),
        };
        let by = e.event.operator.as_ref().map(|o| match &o.note {
            Some(note) => format!("{} ({note})", o.name),
            None => o.name.clone(),
        });
        Self {
            at: Time::of(e.event.at, now),
            service: e.service.to_string(),
            kind,
            level,
            sentence: e.event.sentence.clone(),
            took: e.event.took.map(fine_span),
            by,
        }
    }
}
