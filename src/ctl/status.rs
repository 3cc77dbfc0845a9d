//! `status` as a person reads it: which side is active, since when and why, what is held, what would happen next.

use std::fmt::Write as _;

use super::render::{Paint, bytes, duration, plain, table, wall, words};
use crate::view::{
    BackendStatus, Following, Level, PatroniMember, PatroniStatus, ReplicationStatus, ServiceStatus, Status,
    StreamStatus,
};

/// Columns of the labels.
const LABEL: usize = 14;

/// The whole status of the given services.
pub(super) fn render(status: &Status, services: &[&ServiceStatus], paint: Paint) -> String {
    let mut out = String::new();
    if let Some(error) = &status.state_error {
        let sentence = format!("the state cannot be written, so nothing can be switched: {error}");
        paint.labelled(&mut out, LABEL, "STATE", |l| paint.level(Level::Bad, l), &sentence);
    }
    if status.task_failures > 0 {
        let sentence =
            format!("{} task(s) of the daemon ended that must not end; its log says which", status.task_failures);
        paint.labelled(&mut out, LABEL, "TASKS", |l| paint.level(Level::Bad, l), &sentence);
    }
    for service in services {
        if !out.is_empty() {
            out.push('\n');
        }
        one(&mut out, status, service, paint);
    }
    let up = duration(status.at.since(status.started));
    let foot = format!("pgpivot {} as {}, up {up}, generation {}", status.version, status.daemon, status.generation);
    out.push('\n');
    paint.labelled(&mut out, 0, "", |l| paint.faint(l), &foot);
    out
}

fn one(out: &mut String, status: &Status, s: &ServiceStatus, paint: Paint) {
    let head =
        format!("{}  {}  {}", paint.strong(s.name.as_str()), plain(&s.kind), paint.level(s.level, &plain(&phase(s))));
    // Formatting into a String cannot fail.
    let _ = writeln!(out, "{head}");
    let mut line = |label: &str, sentence: &str| paint.labelled(out, LABEL, label, str::to_owned, sentence);
    line("  active", &active(status, s));
    line("  evidence", &s.evidence);
    line("  next", &s.next);
    if let Some(e) = &s.episode {
        let from = e.from.as_ref().map(|f| format!("from {f} ")).unwrap_or_default();
        let since = duration(status.at.since(e.decided_at));
        let by = e.operator.as_ref().map(|o| format!(", by {o}")).unwrap_or_default();
        line("  episode", &format!("{} {} {from}to {}: {} since {since}{by}: {}", e.id, e.kind, e.to, e.stage, e.why));
    }
    if s.held > 0 || !s.open {
        let why = s.closed_why.as_deref().unwrap_or("no side may be used");
        let gate = if s.open { "newcomers pass again".to_owned() } else { format!("newcomers wait: {why}") };
        line("  held", &format!("{} client(s); {gate}", s.held));
    }
    line("  automatic", &automatic(status, s));
    let warn = |out: &mut String, label: &str, level: Level, sentence: &str| {
        paint.labelled(out, LABEL, label, |l| paint.level(level, l), sentence);
    };
    if let Some(b) = &s.blocked {
        let since = duration(status.at.since(b.since));
        warn(out, "  blocked", Level::Bad, &format!("{} for {since}: {}", words(&b.reason), b.sentence));
    }
    if let Some(by) = &s.paused {
        warn(out, "  paused", Level::Warn, by);
    }
    if !s.other_daemons.is_empty() {
        warn(out, "  others", Level::Warn, &format!("also on this pair: {}", s.other_daemons.join(", ")));
    }
    for b in &s.backends {
        if let Some(why) = &b.quarantined {
            warn(out, "  quarantine", Level::Bad, &format!("{}: {why}", b.name));
        }
        if let Some(admin) = &b.admin {
            warn(out, "  state", Level::Warn, &format!("{} is {}", b.name, admin.sentence()));
        }
        for (ip, admin) in b.endpoints.iter().filter_map(|e| Some((e.ip, e.admin.as_ref()?))) {
            warn(out, "  state", Level::Warn, &format!("{}/{ip} is {}", b.name, admin.sentence()));
        }
        if let Some(grade) = &b.fence {
            let level = if grade == "route" { Level::Warn } else { Level::Ok };
            warn(out, "  fence", level, &format!("{}: {}", b.name, crate::view::fence_words(grade)));
        }
        if let Some(note) = &b.note {
            warn(out, "  record", Level::Warn, &format!("{}: {note} (the control plane's word, no failure)", b.name));
        }
    }
    if let Some(rejoin) = s.rejoin.as_ref().filter(|rejoin| rejoin.runs()) {
        warn(out, "  rejoin", Level::Warn, &rejoin.sentence());
    }
    if let Some(d) = &s.durability {
        warn(out, "  commits", d.level, &d.sentence);
    }
    for b in s.backends.iter().filter(|b| !b.active && b.quarantined.is_none()) {
        if let Some(f) = b.following.as_ref().filter(|f| f.level() != Level::Ok) {
            warn(out, "  standby", f.level(), &named(&b.name, &f.sentence));
        }
        if let Some(why) = b.unarmed_why.first().filter(|_| s.authority == "self" && s.promoter != "none") {
            warn(out, "  not armed", Level::Warn, &named(&b.name, why));
        }
    }
    if let Some(trouble) = s.replication.as_ref().and_then(|r| r.trouble.as_ref()) {
        warn(out, "  streams", Level::Warn, &format!("cannot be read now: {trouble}"));
    }
    for note in s.patroni.iter().flat_map(PatroniStatus::notes) {
        warn(out, "  patroni", Level::Warn, &note);
    }
    if let Some((since, why)) = s.patroni.as_ref().and_then(|p| p.trouble.as_ref()) {
        let since = duration(status.at.since(*since));
        warn(out, "  patroni", Level::Warn, &format!("no member answers for {since}, which moves nothing: {why}"));
    }
    out.push('\n');
    out.push_str(&backends(s, paint));
    if let Some(replication) = &s.replication {
        out.push('\n');
        out.push_str(&streams(replication, paint));
    }
    if let Some(patroni) = s.patroni.as_ref().filter(|patroni| !patroni.members.is_empty()) {
        out.push('\n');
        out.push_str(&members(patroni, paint));
    }
    if !s.listeners.is_empty() {
        out.push('\n');
        out.push_str(&listeners(s, paint));
    }
}

/// A reason, with whose it is where it does not say so itself.
fn named(backend: &crate::types::BackendName, why: &str) -> String {
    if why.starts_with(backend.as_str()) { why.to_owned() } else { format!("{backend}: {why}") }
}

/// The phase, with the state's word where it says more.
fn phase(s: &ServiceStatus) -> String {
    match &s.blocked {
        Some(b) => format!("{} ({})", s.phase, words(&b.reason)),
        None => s.phase.clone(),
    }
}

fn active(status: &Status, s: &ServiceStatus) -> String {
    match (&s.active, s.since) {
        (Some(active), Some(since)) => {
            format!(
                "{active} since {} ({}), epoch {}: {}",
                wall(since),
                duration(status.at.since(since)),
                s.epoch,
                s.why
            )
        }
        (Some(active), None) => format!("{active}, epoch {}: {}", s.epoch, s.why),
        (None, _) => "no side yet".to_owned(),
    }
}

/// What the daemon would do by itself, and how fast.
fn automatic(status: &Status, s: &ServiceStatus) -> String {
    let mut text = match (s.authority.as_str(), s.armed) {
        ("observe", _) => "follows what others promote".to_owned(),
        ("patroni", _) => "follows Patroni, which decides".to_owned(),
        (_, true) => format!("armed, promoter {}, {} of {} left in 24 h", s.promoter, s.budget_left, s.budget),
        (_, false) => format!("not armed, promoter {} (see `proxyctl explain`)", s.promoter),
    };
    let crash = duration(std::time::Duration::from_millis(s.detection_crash_ms));
    let hang = s.detection_hang_ms.map(|ms| duration(std::time::Duration::from_millis(ms)));
    let hang = hang.map_or_else(|| "not decided".to_owned(), |d| format!("within {d}"));
    let _ = write!(text, "; a crash is decided within {crash}, a hang {hang}");
    if let Some(until) = s.cooldown_until.filter(|u| *u > status.at) {
        let _ = write!(text, "; cool-down for {}", duration(until.since(status.at)));
    }
    text
}

fn backends(s: &ServiceStatus, paint: Paint) -> String {
    let rows: Vec<Vec<(String, Option<Level>)>> = s
        .backends
        .iter()
        .map(|b| {
            let mark = if b.active { "* " } else { "  " };
            vec![
                (format!("{mark}{}", b.name), None),
                (b.role.clone(), None),
                (b.health.clone(), Some(health(b))),
                (lag(s, b), None),
                (b.timeline.map_or_else(|| "-".to_owned(), |t| t.to_string()), None),
                armed(b),
                (following(b), b.following.as_ref().map(Following::level)),
                (b.weight.to_string(), None),
                (b.connections.to_string(), None),
            ]
        })
        .collect();
    table(paint, &["  BACKEND", "ROLE", "HEALTH", "LAG", "TIMELINE", "ARMED", "FOLLOWS", "WEIGHT", "OPEN"], &rows)
}

fn lag(s: &ServiceStatus, b: &BackendStatus) -> String {
    let of_stream = || s.stream_lag_ms(&b.name).map(|ms| duration(std::time::Duration::from_millis(ms)));
    b.lag_bytes.map(bytes).or_else(of_stream).unwrap_or_else(|| "-".to_owned())
}

fn following(b: &BackendStatus) -> String {
    b.following.as_ref().map_or_else(|| "-".to_owned(), |f| f.state.clone())
}

fn armed(b: &BackendStatus) -> (String, Option<Level>) {
    match (b.active, b.armed) {
        (true, _) => ("-".to_owned(), None),
        (false, true) => ("yes".to_owned(), Some(Level::Ok)),
        (false, false) => ("no".to_owned(), Some(Level::Warn)),
    }
}

fn health(b: &BackendStatus) -> Level {
    match b.health.as_str() {
        _ if b.quarantined.is_some() => Level::Bad,
        "up" => Level::Ok,
        "down" => Level::Bad,
        _ => Level::Warn,
    }
}

/// The replication between clusters, the newest first.
fn streams(replication: &ReplicationStatus, paint: Paint) -> String {
    let rows: Vec<Vec<(String, Option<Level>)>> = replication.streams.iter().rev().map(stream).collect();
    match rows.is_empty() {
        true => "  no replication stream leads from one cluster to the other\n".to_owned(),
        false => table(paint, &["  STREAM", "FROM", "TO", "STATUS", "BEHIND", "MOMENT"], &rows),
    }
}

fn stream(s: &StreamStatus) -> Vec<(String, Option<Level>)> {
    let level = match s.status.as_str() {
        "replicating" if s.replicated_at.is_some() => Some(Level::Ok),
        "completed" => None,
        "stalled" | "canceled" | "gone" => Some(Level::Bad),
        _ => Some(Level::Warn),
    };
    let behind = s.lag_ms.map(|ms| duration(std::time::Duration::from_millis(ms)));
    let moment = s.activated_at.or(s.failover_at).or(s.replicated_at);
    vec![
        (format!("  {}", s.id), None),
        (s.from.to_string(), None),
        (s.to.to_string(), None),
        (s.status.clone(), level),
        (behind.unwrap_or_else(|| "-".to_owned()), None),
        (moment.map_or_else(|| "-".to_owned(), wall), None),
    ]
}

/// Patroni's members, as `patronictl list` shows them.
fn members(patroni: &PatroniStatus, paint: Paint) -> String {
    let row = |m: &PatroniMember| {
        let level = match m.state.as_str() {
            "running" | "streaming" => Level::Ok,
            _ => Level::Warn,
        };
        vec![
            (format!("  {}", plain(&m.name)), None),
            (m.backend.as_ref().map_or_else(|| "not here".to_owned(), ToString::to_string), None),
            (plain(&m.role), None),
            (plain(&m.state), Some(level)),
            (m.timeline.map_or_else(|| "-".to_owned(), |t| t.to_string()), None),
            (m.lag_bytes.map_or_else(|| "-".to_owned(), bytes), None),
            (m.notes(), None),
        ]
    };
    let rows: Vec<Vec<(String, Option<Level>)>> = patroni.members.iter().map(row).collect();
    table(paint, &["  PATRONI", "BACKEND", "ROLE", "STATE", "TIMELINE", "LAG", "NOTES"], &rows)
}

fn listeners(s: &ServiceStatus, paint: Paint) -> String {
    let rows: Vec<Vec<(String, Option<Level>)>> = s
        .listeners
        .iter()
        .map(|l| {
            let c = &l.counters;
            let cells = [format!("  {}", l.address), l.target.clone(), format!("{} of {}", l.connections, l.limit)];
            let more = [c.sessions.to_string(), bytes(c.bytes_in), bytes(c.bytes_out), c.errors.to_string()];
            cells.into_iter().chain(more).map(|text| (text, None)).collect()
        })
        .collect();
    table(paint, &["  LISTENER", "TARGET", "OPEN", "TOTAL", "IN", "OUT", "ERRORS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::sample;

    fn shown(status: &Status) -> String {
        render(status, &status.services.iter().collect::<Vec<_>>(), Paint::new(false))
    }

    #[test]
    fn the_replication_between_clusters_is_told_stream_by_stream() {
        let mut status = sample::steady();
        let at = status.at;
        let stream = |id: &str, word: &str| StreamStatus {
            id: id.into(),
            from: "us-east".into(),
            to: "us-west".into(),
            status: word.into(),
            since: at,
            replicated_at: (word == "replicating").then_some(at),
            lag_ms: (word == "replicating").then_some(12_000),
            retained_at: None,
            failover_at: None,
            activated_at: (word == "completed").then_some(at),
        };
        status.services[0].backends[1].lag_bytes = None;
        status.services[0].backends[0].note = Some("CRDB_PATCH_RUNNING".into());
        status.services[0].replication = Some(ReplicationStatus {
            source: "cloud_api".into(),
            read_at: Some(at),
            trouble: Some("503".into()),
            usual_lag_ms: 12_000,
            streams: vec![stream("old", "completed"), stream("new", "replicating")],
        });
        let text = shown(&status);
        assert!(text.contains("us-west  standby  up      12"), "its lag stands beside it: {text}");
        let lines: Vec<&str> =
            text.lines().filter(|line| line.contains("us-west") && line.contains("us-east")).collect();
        let told: Vec<&str> =
            lines.into_iter().filter(|line| line.starts_with("  new") || line.starts_with("  old")).collect();
        assert!(told.len() == 2 && told[0].contains("replicating  12") && told[1].contains("completed"), "{text}");
        assert!(text.contains("cannot be read now: 503") && text.contains("CRDB_PATCH_RUNNING"), "{text}");
        status.services[0].replication =
            Some(ReplicationStatus { streams: vec![], ..status.services[0].replication.clone().unwrap() });
        assert!(shown(&status).contains("no replication stream leads"));
    }

    #[test]
    fn a_calm_pair_is_told_at_one_glance() {
        assert_eq!(
            shown(&sample::steady()),
            "\
main  postgres  steady
  active      us-east since 2026-11-20 09:00:00Z (2 h 3 m), epoch 3: first
              start, us-east proved to be the only primary
  evidence    us-east answers as primary, us-west streams 0 bytes behind
  next        nothing; should us-east die, us-west is promoted
  automatic   armed, promoter postgres, 3 of 3 left in 24 h; a crash is decided
              within 500 ms, a hang within 3.00 s

  BACKEND  ROLE     HEALTH  LAG      TIMELINE  ARMED  FOLLOWS  WEIGHT  OPEN
* us-east  primary  up      -        1         -      -        100     12
  us-west  standby  up      1.5 KiB  1         yes    -        10      0

  LISTENER         TARGET  OPEN         TOTAL  IN       OUT      ERRORS
  127.0.0.1:26257  active  12 of 10000  4211   3.0 MiB  9.0 GiB  2

pgpivot 0.1.0 as host:4711, up 2 h 3 m, generation 9
"
        );
    }

    #[test]
    fn what_is_wrong_stands_in_the_first_screen() {
        let text = shown(&sample::blocked());
        assert!(text.contains("main  postgres  blocked (witness alive)"), "{text}");
        assert!(
            text.contains("  blocked     witness alive for 12.00 s: us-west still receives from us-east"),
            "{text}"
        );
        assert!(text.contains("  held        7 client(s); newcomers wait:"), "{text}");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        for status in [sample::steady(), sample::blocked(), sample::promoting()] {
            for line in shown(&status).lines() {
                assert!(line.chars().count() <= 80, "too wide: {line}");
            }
        }
    }

    /// The views that the page is tested with.
    #[test]
    fn what_the_page_shows_fits_the_terminal_too() {
        for text in [
            include_str!("../../tests/samples/status/blocked.json"),
            include_str!("../../tests/samples/status/exhausted.json"),
            include_str!("../../tests/samples/status/promoting.json"),
            include_str!("../../tests/samples/status/quarantined.json"),
            include_str!("../../tests/samples/status/steady.json"),
            include_str!("../../tests/samples/status/suspect.json"),
        ] {
            let status: Status = serde_json::from_str(text).unwrap();
            let text = shown(&status);
            let explained =
                crate::ctl::explain::render(&status, &status.services.iter().collect::<Vec<_>>(), Paint::new(false));
            for line in text.lines().chain(explained.lines()) {
                assert!(line.chars().count() <= 80, "too wide: {line}");
            }
        }
    }

    #[test]
    fn without_colors_there_is_no_escape_sequence() {
        assert!(!shown(&sample::blocked()).contains('\x1b'));
        let status = sample::blocked();
        let colored = render(&status, &status.services.iter().collect::<Vec<_>>(), Paint::new(true));
        assert!(colored.contains("\x1b[1;31m"), "{colored:?}");
    }
}
