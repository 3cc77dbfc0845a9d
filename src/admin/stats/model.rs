//! What the page says, in words: the published view turned into what the templates print. Pure.

use std::time::Duration;

use super::super::ServiceEvent;
use super::super::words::{ago, bytes, count, fine_span, plural, span, stamp, until};
use crate::failover::action::EventKind;
use crate::failover::phase::{BlockReason, Phase};
use crate::types::WallTime;
use crate::view::{BackendStatus, Counters, EndpointStatus, Level, ListenerStatus, ServiceStatus, Status};

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
    fn of(at: WallTime, now: WallTime) -> Self {
        Self { machine: at.to_string(), stamp: stamp(at), ago: ago(at, now) }
    }
}

pub(super) struct Service {
    pub(super) id: usize,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) level: &'static str,
    pub(super) mark: &'static str,
    pub(super) state: String,
    pub(super) phase: String,
    pub(super) track: Vec<Step>,
    pub(super) active: Option<String>,
    /// What the page names largest, and what that is.
    pub(super) headline: Option<String>,
    pub(super) label: &'static str,
    pub(super) epoch: u64,
    pub(super) since_what: String,
    pub(super) since: Option<Time>,
    pub(super) why: String,
    pub(super) evidence: String,
    pub(super) next: String,
    pub(super) verdict: Verdict,
    pub(super) notices: Vec<Notice>,
    pub(super) episode: Option<Episode>,
    pub(super) facts: Vec<Fact>,
    pub(super) sides: Vec<Side>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) listeners: Vec<Listener>,
}

/// The line under the active side's name: what it means for clients, and why they are held.
pub(super) struct Verdict {
    pub(super) level: &'static str,
    pub(super) text: String,
    pub(super) why: Option<String>,
}

/// A coloured box.
pub(super) struct Notice {
    pub(super) level: &'static str,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) since: Option<Time>,
}

pub(super) struct Step {
    pub(super) word: &'static str,
    pub(super) class: &'static str,
}

pub(super) struct Episode {
    pub(super) title: String,
    pub(super) why: String,
    pub(super) by: String,
    pub(super) decided: Time,
    pub(super) steps: Vec<Step>,
}

pub(super) struct Fact {
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) note: String,
    pub(super) level: &'static str,
}

pub(super) struct Side {
    pub(super) name: String,
    pub(super) active: bool,
    pub(super) level: &'static str,
    pub(super) mark: &'static str,
    pub(super) health: String,
    pub(super) health_since: Option<Time>,
    pub(super) quarantined: Option<String>,
    pub(super) rows: Vec<Fact>,
    pub(super) unarmed_why: Vec<String>,
    pub(super) probe: Option<String>,
}

pub(super) struct Endpoint {
    pub(super) side: String,
    pub(super) address: String,
    pub(super) ip: String,
    pub(super) health: String,
    pub(super) level: &'static str,
    pub(super) traffic: Traffic,
}

pub(super) struct Listener {
    pub(super) address: String,
    pub(super) target: &'static str,
    pub(super) limit: String,
    pub(super) full: bool,
    pub(super) traffic: Traffic,
}

pub(super) struct Traffic {
    pub(super) now: String,
    pub(super) most: String,
    pub(super) sessions: String,
    pub(super) bytes_in: String,
    pub(super) bytes_out: String,
    pub(super) errors: String,
    pub(super) cut: String,
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

const OK: &str = "ok";
const WARN: &str = "warn";
const BAD: &str = "bad";
const CALM: &str = "calm";

fn class(level: Level) -> &'static str {
    match level {
        Level::Ok => OK,
        Level::Warn => WARN,
        Level::Bad => BAD,
    }
}

/// A shape beside the colour, for those who do not see the colour.
fn mark(class: &str) -> &'static str {
    match class {
        OK => "●",
        WARN => "▲",
        BAD => "■",
        _ => "○",
    }
}

/// The words of a machine-readable name.
fn words(name: &str) -> String {
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
fn is_exhausted(service: &ServiceStatus) -> bool {
    service.budget > 0 && service.budget_left == 0
}

/// Never better than what the page must show in red.
fn level(service: &ServiceStatus) -> Level {
    let red = service.blocked.is_some()
        || is_exhausted(service)
        || service.active.is_none()
        || service.backends.iter().any(|b| b.quarantined.is_some());
    if red { Level::Bad } else { service.level }
}

impl Service {
    fn build(id: usize, s: &ServiceStatus, now: WallTime) -> Self {
        let level = class(level(s));
        Self {
            id,
            name: s.name.to_string(),
            kind: s.kind.clone(),
            level,
            mark: mark(level),
            state: words(&s.state),
            phase: s.phase.clone(),
            track: track(&s.phase),
            active: s.active.as_ref().map(ToString::to_string),
            headline: headline(s),
            label: if s.episode.is_some() { "Traffic moves" } else { "Active side" },
            epoch: s.epoch.0,
            since_what: match (&s.active, &s.episode) {
                (Some(active), Some(_)) => format!("{active} latched since"),
                _ => "since".to_owned(),
            },
            since: s.since.map(|at| Time::of(at, now)),
            why: s.why.clone(),
            evidence: s.evidence.clone(),
            next: s.next.clone(),
            verdict: verdict(s),
            notices: notices(s, now),
            episode: s.episode.as_ref().map(|e| Episode::build(e, &s.phase, now)),
            facts: facts(s, now),
            sides: s.backends.iter().map(|b| Side::build(b, now)).collect(),
            endpoints: s.backends.iter().flat_map(|b| b.endpoints.iter().map(|e| Endpoint::build(b, e))).collect(),
            listeners: s.listeners.iter().map(Listener::build).collect(),
        }
    }
}

/// The active side, or where the traffic goes while an episode is under way.
fn headline(s: &ServiceStatus) -> Option<String> {
    match &s.episode {
        Some(e) => Some(match &e.from {
            Some(from) => format!("{from} → {}", e.to),
            None => format!("→ {}", e.to),
        }),
        None => s.active.as_ref().map(ToString::to_string),
    }
}

/// What it means for clients, in one line.
fn verdict(s: &ServiceStatus) -> Verdict {
    let health = s.backends.iter().find(|b| b.active).map_or("unknown", |b| b.health.as_str());
    let waits = match s.held {
        0 => "nobody waits yet".to_owned(),
        1 => "1 client waits".to_owned(),
        n => format!("{} clients wait", count(n)),
    };
    let (level, text) = match (&s.active, s.open, s.held, health) {
        _ if s.episode.is_some() && !s.open => (WARN, format!("Nobody is let in meanwhile: {waits}.")),
        (Some(_), true, 0, "up") => (OK, "Takes all traffic; nobody waits.".to_owned()),
        (Some(_), true, 0, "down") => (BAD, "Still takes all traffic, but it is down.".to_owned()),
        (Some(_), true, 0, other) => (WARN, format!("Takes all traffic; its health is {other}.")),
        (Some(_), true, held, _) => {
            (WARN, format!("Takes traffic; {} still to be let in.", plural(held, "client", "clients")))
        }
        (Some(_), false, ..) => (BAD, format!("Latched, but newcomers are held: {waits}.")),
        (None, ..) => (BAD, format!("Nobody is let in: {waits}.")),
    };
    Verdict { level, text, why: s.closed_why.clone().filter(|_| !s.open) }
}

fn notices(s: &ServiceStatus, now: WallTime) -> Vec<Notice> {
    let mut notices = Vec::new();
    if let Some(b) = &s.blocked {
        let title = format!("Blocked: {}", words(&b.reason));
        notices.push(Notice { level: BAD, title, text: b.sentence.clone(), since: Some(Time::of(b.since, now)) });
    }
    for b in &s.backends {
        if let Some(reason) = &b.quarantined {
            let title = format!("{} is quarantined: it gets not one byte", b.name);
            notices.push(Notice { level: BAD, title, text: reason.clone(), since: None });
        }
    }
    let told = s.blocked.as_ref().is_some_and(|b| words(&b.reason) == BlockReason::BudgetExhausted.as_str());
    if is_exhausted(s) && !told {
        let text = format!(
            "All {} of the last 24 hours are spent. Detection and hold go on; only an operator's command moves the \
             traffic until one is free again.",
            plural(u64::from(s.budget), "automatic failover", "automatic failovers")
        );
        notices.push(Notice { level: BAD, title: "Budget exhausted".to_owned(), text, since: None });
    }
    if let Some(paused) = &s.paused {
        let title = "Paused: no automatic decision".to_owned();
        notices.push(Notice { level: WARN, title, text: paused.clone(), since: None });
    }
    if !s.other_daemons.is_empty() {
        let title = "Other daemons watch this pair".to_owned();
        notices.push(Notice { level: CALM, title, text: s.other_daemons.join(", "), since: None });
    }
    notices
}

/// The way of a failover, with where the service stands; a phase beside that way comes first.
fn track(phase: &str) -> Vec<Step> {
    const WAY: [Phase; 7] = [
        Phase::Steady,
        Phase::Suspect,
        Phase::Confirming,
        Phase::Fencing,
        Phase::Promoting,
        Phase::Switching,
        Phase::Settling,
    ];
    let mut track = steps(WAY.map(Phase::as_str), WAY.iter().position(|p| p.as_str() == phase));
    let beside = [(Phase::Starting, "here"), (Phase::Blocked, "here bad"), (Phase::Paused, "here warn")];
    if let Some((phase, class)) = beside.into_iter().find(|(p, _)| p.as_str() == phase) {
        track.insert(0, Step { word: phase.as_str(), class });
    }
    track
}

fn steps<const N: usize>(words: [&'static str; N], here: Option<usize>) -> Vec<Step> {
    let class = |i: usize| match here {
        Some(at) if i < at => "done",
        Some(at) if i == at => "here",
        _ => "ahead",
    };
    words.into_iter().enumerate().map(|(i, word)| Step { word, class: class(i) }).collect()
}

impl Episode {
    fn build(e: &crate::view::Episode, phase: &str, now: WallTime) -> Self {
        let planned = e.kind == "switchover";
        let second = if planned { "old side frozen" } else { "old side cut off" };
        let third = match e.kind.as_str() {
            "route" | "follow" => "traffic moved",
            _ => "promotion sent",
        };
        let here = match (e.stage.as_str(), phase) {
            (_, "settling") => 4,
            (_, "switching") => 3,
            ("sent", _) => 2,
            _ => 1,
        };
        let from = e.from.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        Self {
            title: format!("{} #{}: {from} → {}", capital(&e.kind), e.id, e.to),
            why: e.why.clone(),
            by: e.operator.as_ref().map_or_else(|| "decided automatically".to_owned(), |o| format!("commanded by {o}")),
            decided: Time::of(e.decided_at, now),
            steps: steps(["decided", second, third, "new side proven", "open"], Some(here)),
        }
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn facts(s: &ServiceStatus, now: WallTime) -> Vec<Fact> {
    let fact = |label, value: String, note: String, level| Fact { label, value, note, level };
    let connected: u64 = s.backends.iter().map(|b| b.connections).sum();
    let limit: u64 = s.listeners.iter().map(|l| l.limit).sum();
    let gate = match (s.open, s.held) {
        (true, 0) => (OK, "newcomers pass"),
        (true, _) => (WARN, "are let in now"),
        (false, _) => (if s.episode.is_some() { WARN } else { BAD }, "newcomers are held"),
    };
    let armed = match (s.armed, s.promoter.as_str(), s.authority.as_str()) {
        (true, ..) => (OK, "yes", "ready to promote"),
        (false, "none", _) => (CALM, "no promoter", "somebody else promotes"),
        (false, _, "observe") => (CALM, "observing", "somebody else promotes"),
        (false, ..) => (WARN, "no", "nothing ready to promote"),
    };
    let budget = match (s.budget, s.budget_left) {
        (0, _) => (CALM, "none".to_owned(), "max_per_day = 0: never automatically".to_owned()),
        (n, 0) => (BAD, "exhausted".to_owned(), format!("0 of {n} in 24 hours")),
        (n, left) => (OK, format!("{left} of {n}"), "in 24 hours".to_owned()),
    };
    let cooldown = match s.cooldown_until {
        Some(at) if at > now => (WARN, format!("ends {}", until(at, now)), "no decision before".to_owned()),
        _ => (CALM, "none".to_owned(), "decisions at once".to_owned()),
    };
    let ms = |ms| fine_span(Duration::from_millis(ms));
    let hang = s.detection_hang_ms.map_or_else(|| "never by itself".to_owned(), ms);
    let decides = match s.authority.as_str() {
        "observe" => "observe".to_owned(),
        _ => "this daemon".to_owned(),
    };
    let switched: u64 = s.switches.iter().filter(|w| w.outcome == "switched").map(|w| w.count).sum();
    vec![
        fact("Clients connected", count(connected), format!("of {} allowed", count(limit)), CALM),
        fact("Clients waiting", count(s.held), gate.1.to_owned(), gate.0),
        fact("Standby armed", armed.1.to_owned(), armed.2.to_owned(), armed.0),
        fact("Automatic failovers left", budget.1, budget.2, budget.0),
        fact("Cool-down", cooldown.1, cooldown.2, cooldown.0),
        fact("Detection, worst case", ms(s.detection_crash_ms), format!("crash; hang: {hang}"), CALM),
        fact("Who decides", decides, format!("promoter {}", s.promoter), CALM),
        fact(
            "Switches since start",
            count(switched),
            format!("{} in all", plural(s.episodes, "episode", "episodes")),
            CALM,
        ),
    ]
}

impl Side {
    fn build(b: &BackendStatus, now: WallTime) -> Self {
        let odd = matches!((b.active, b.role.as_str()), (true, "standby") | (false, "primary"));
        let level = match b.health.as_str() {
            _ if b.quarantined.is_some() => BAD,
            "up" if odd => BAD,
            "up" if !b.active && !b.armed && !b.unarmed_why.is_empty() => WARN,
            "up" => OK,
            "down" => BAD,
            _ => WARN,
        };
        let took = |p: &crate::view::ProbeStatus| fine_span(Duration::from_micros(p.took_us));
        let probe = b.last_probe.as_ref().map(|p| format!("{} ({}, {})", p.text, took(p), ago(p.at, now)));
        Self {
            name: b.name.to_string(),
            active: b.active,
            level,
            mark: mark(level),
            health: b.health.clone(),
            health_since: b.health_since.map(|at| Time::of(at, now)),
            quarantined: b.quarantined.clone(),
            rows: side_rows(b, odd),
            unarmed_why: if b.active { Vec::new() } else { b.unarmed_why.clone() },
            probe,
        }
    }
}

fn side_rows(b: &BackendStatus, odd: bool) -> Vec<Fact> {
    let row = |label, value: String, level| Fact { label, value, note: String::new(), level };
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let mut rows = vec![
        row("Role", b.role.clone(), if odd { BAD } else { CALM }),
        row("Timeline", known(b.timeline.map(|t| t.to_string())), CALM),
        row("Log position", known(b.lsn.map(|l| l.to_string())), CALM),
    ];
    if !b.active {
        let lag = b.lag_bytes.map(bytes);
        rows.push(row("Lag", known(lag), CALM));
        rows.push(row("Replay backlog", known(b.replay_backlog_bytes.map(bytes)), CALM));
        rows.push(row("Witness", known(b.witness.clone()), witness_level(b.witness.as_deref())));
        let (word, level) = if b.armed { ("yes", OK) } else { ("no", WARN) };
        rows.push(row("Armed", word.to_owned(), level));
    }
    rows.push(row("Connections", count(b.connections), CALM));
    rows.push(row("Weight", format!("{}, {} tier", b.weight, b.tier), CALM));
    let failed = format!("{} of {}", count(b.failed_probes), count(b.probes));
    let level = if b.failures > 0 { WARN } else { CALM };
    let in_a_row = if b.failures > 0 { format!(", {} in a row", b.failures) } else { String::new() };
    rows.push(row("Failed probes", failed + &in_a_row, level));
    rows.push(row("System identifier", known(b.system_id.map(|id| id.to_string())), CALM));
    rows
}

fn witness_level(witness: Option<&str>) -> &'static str {
    match witness {
        Some("writing" | "idle" | "streaming") => OK,
        Some("gone" | "silent") => WARN,
        _ => CALM,
    }
}

impl Endpoint {
    fn build(b: &BackendStatus, e: &EndpointStatus) -> Self {
        let level = match e.health.as_str() {
            "up" => OK,
            "down" => BAD,
            _ => WARN,
        };
        Self {
            side: b.name.to_string(),
            address: e.address.as_ref().map_or_else(|| e.ip.to_string(), ToString::to_string),
            ip: e.ip.to_string(),
            health: e.health.clone(),
            level,
            traffic: Traffic::of(e.connections, &e.counters),
        }
    }
}

impl Listener {
    fn build(l: &ListenerStatus) -> Self {
        Self {
            address: l.address.to_string(),
            target: if l.target == "read_only" { "standbys, read only" } else { "active side" },
            limit: count(l.limit),
            full: l.connections >= l.limit,
            traffic: Traffic::of(l.connections, &l.counters),
        }
    }
}

impl Traffic {
    fn of(now: u64, c: &Counters) -> Self {
        let cut: Vec<_> = c.cut.iter().map(|(reason, n)| format!("{} {}", count(*n), words(reason))).collect();
        Self {
            now: count(now),
            most: count(c.max_connections_seen),
            sessions: count(c.sessions),
            bytes_in: bytes(c.bytes_in),
            bytes_out: bytes(c.bytes_out),
            errors: count(c.errors),
            cut: if cut.is_empty() { "0".to_owned() } else { cut.join(", ") },
        }
    }
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
