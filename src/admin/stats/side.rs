//! One backend, its addresses, and the listeners: the page's cards and tables. Pure.

use std::time::Duration;

use super::board::{BAD, CALM, Fact, OK, Time, WARN, class, mark, words};
use crate::admin::words::{ago, bytes, count, fine_span};
use crate::failover::phase::BackendState;
use crate::types::WallTime;
use crate::view::{BackendStatus, Counters, EndpointStatus, ListenerStatus, ListenerTls, ProbeStatus};

pub(super) struct Side {
    pub(super) name: String,
    pub(super) active: bool,
    pub(super) badge: &'static str,
    pub(super) level: &'static str,
    pub(super) mark: &'static str,
    pub(super) health: String,
    pub(super) health_since: Option<Time>,
    pub(super) quarantined: Option<String>,
    /// Each administrative state, and whether it is this one.
    pub(super) states: Vec<(&'static str, bool)>,
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
    pub(super) tls: String,
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

impl Side {
    pub(super) fn build(b: &BackendStatus, clusters: bool, now: WallTime) -> Self {
        let odd = matches!((b.active, b.role.as_str()), (true, "standby") | (false, "primary"));
        let level = match b.health.as_str() {
            _ if b.quarantined.is_some() => BAD,
            // A cluster that was left serves on by itself until a reverse stream takes it over.
            "up" if odd && clusters && !b.active => WARN,
            "up" if odd => BAD,
            "up" if b.failures > 0 || b.admin.is_some() => WARN,
            "up" if !b.active && !b.armed && !b.unarmed_why.is_empty() => WARN,
            "up" => OK,
            "down" => BAD,
            _ => WARN,
        };
        let took = |p: &ProbeStatus| fine_span(Duration::from_micros(p.took_us));
        let probe = b.last_probe.as_ref().map(|p| format!("{} ({}, {})", p.text, took(p), ago(p.at, now)));
        Self {
            name: b.name.to_string(),
            active: b.active,
            badge: match b.role.as_str() {
                _ if b.active => "active",
                // An old primary that is back, or somebody else's.
                "primary" => "not active",
                _ => "standby",
            },
            level,
            mark: mark(level),
            // Some failures are not yet down.
            health: if b.failures > 0 && b.health == "up" { "up, failing".to_owned() } else { b.health.clone() },
            health_since: b.health_since.map(|at| Time::of(at, now)),
            quarantined: b.quarantined.clone(),
            states: BackendState::ALL.map(|state| (state.as_str(), b.admin_state() == state.as_str())).into(),
            rows: side_rows(b, odd, clusters),
            unarmed_why: if b.active { Vec::new() } else { b.unarmed_why.clone() },
            probe,
        }
    }
}

fn side_rows(b: &BackendStatus, odd: bool, clusters: bool) -> Vec<Fact> {
    let row = |label, value: String, level| Fact { label, value, note: String::new(), level };
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let mut rows = vec![row("Role", b.role.clone(), if odd { BAD } else { CALM })];
    // Clusters have neither.
    if !clusters {
        rows.push(row("Timeline", known(b.timeline.map(|t| t.to_string())), CALM));
        rows.push(row("Log position", known(b.lsn.map(|l| l.to_string())), CALM));
    }
    if !b.active && !clusters {
        let lag = b.lag_bytes.map(bytes);
        rows.push(row("Lag", known(lag), CALM));
        let backlog = b.replay_backlog_bytes.map(|n| match b.replay_backlog_ms.filter(|_| n > 0) {
            Some(ms) => format!("{}, {:.1} s", bytes(n), ms as f64 / 1e3),
            None => bytes(n),
        });
        rows.push(row("Replay backlog", known(backlog), CALM));
        rows.push(readers(b));
    }
    if !b.active {
        rows.push(row("Witness", known(b.witness.clone()), witness_level(b.witness.as_deref())));
        let (word, level) = if b.armed { ("yes", OK) } else { ("no", WARN) };
        rows.push(row("Armed", word.to_owned(), level));
    }
    if let Some(admin) = &b.admin {
        rows.push(row("Administrative state", admin.sentence(), WARN));
    }
    for (ip, admin) in b.endpoints.iter().filter_map(|e| Some((e.ip, e.admin.as_ref()?))) {
        rows.push(row("Administrative state", format!("{ip} is {}", admin.sentence()), WARN));
    }
    if let Some(grade) = &b.fence {
        let level = if grade == "route" { WARN } else { OK };
        rows.push(row("Fence", crate::view::fence_words(grade), level));
    }
    if let Some(f) = &b.following {
        rows.push(row("Follows", format!("{}: {}", f.state, f.sentence), class(f.level())));
    }
    if let Some(note) = &b.note {
        rows.push(row("Control plane", note.clone(), WARN));
    }
    rows.push(row("Connections", count(b.connections), CALM));
    rows.push(row("Weight", format!("{}, {} tier", b.weight, b.tier), CALM));
    let failed = format!("{} of {}", count(b.failed_probes), count(b.probes));
    let level = if b.failures > 0 { WARN } else { CALM };
    let in_a_row = if b.failures > 0 { format!(", {} in a row", b.failures) } else { String::new() };
    rows.push(row("Failed probes", failed + &in_a_row, level));
    if !clusters {
        rows.push(row("System identifier", known(b.system_id.map(|id| id.to_string())), CALM));
    }
    rows
}

fn readers(b: &BackendStatus) -> Fact {
    let age = b.read_age_ms.map(|ms| format!("at most {:.1} s old", ms as f64 / 1e3));
    Fact {
        label: "What it shows",
        value: age.unwrap_or_else(|| "age unknown".to_owned()),
        note: b.no_readers_why.as_ref().map(|why| format!("No readers: {why}")).unwrap_or_default(),
        level: if b.no_readers_why.is_some() { WARN } else { CALM },
    }
}

fn witness_level(witness: Option<&str>) -> &'static str {
    match witness {
        Some("writing" | "idle" | "streaming") => OK,
        Some("gone" | "silent") => WARN,
        _ => CALM,
    }
}

impl Endpoint {
    pub(super) fn build(b: &BackendStatus, e: &EndpointStatus) -> Self {
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
    pub(super) fn build(l: &ListenerStatus) -> Self {
        Self {
            address: l.address.to_string(),
            target: if l.target == "read_only" { "standbys, read only" } else { "active side" },
            tls: match &l.tls {
                None => "passes through".to_owned(),
                Some(tls) => tls_words(tls),
            },
            limit: count(l.limit),
            full: l.connections >= l.limit,
            traffic: Traffic::of(l.connections, &l.counters),
        }
    }
}

/// `ends here, certificate until 2026-08-01`.
fn tls_words(tls: &ListenerTls) -> String {
    let must = if tls.require { "required, ends here" } else { "ends here" };
    let day = |at: WallTime| jiff::Timestamp::from_microsecond(at.0).ok().map(|at| at.strftime("%F").to_string());
    match tls.expires.and_then(day) {
        Some(day) => format!("{must}, certificate until {day}"),
        None => must.to_owned(),
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
