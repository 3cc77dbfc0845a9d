//! `[service.NAME.probe]`: what is asked, how often, and as whom; the preset that makes it fast.

use std::time::Duration;

use super::super::raw::accepts::Accepts;
use super::super::raw::{self, Number, Raw, Share, Text};
use super::super::{HttpProbe, Kind, Login, Probe, ProbeKind};
use super::Problems;
use super::replication::Table;
use super::section::{Section, shown};
use super::service::Defaults;
use crate::types::Secret;

/// `detection`.
#[derive(Clone, Copy, PartialEq)]
enum Detection {
    Normal,
    Fast,
}

#[derive(Clone, Copy)]
enum Word {
    Tcp,
    Startup,
    Sql,
    Http,
}

pub(super) fn build(
    service: &str,
    raw: &raw::Probe,
    defaults: &Defaults,
    files: &Raw,
    problems: &mut Problems,
) -> Probe {
    let mut section = Section::new(format!("{service}.probe"), problems);
    let words = [("tcp", Word::Tcp), ("startup", Word::Startup), ("sql", Word::Sql), ("http", Word::Http)];
    let default = if defaults.kind == Kind::Postgres { Word::Sql } else { Word::Startup };
    let word = section.choice("kind", &raw.kind, &words, &[]).unwrap_or(default);
    let login = login(&mut section, raw, defaults.database, files);
    let kind = match word {
        Word::Tcp => ProbeKind::Tcp,
        Word::Startup => ProbeKind::Startup { login: Login { password: None, ..login } },
        Word::Sql => ProbeKind::Sql { login },
        Word::Http => ProbeKind::Http(http(&mut section, raw.http.as_ref())),
    };
    check_unused(&mut section, raw, &kind, defaults.table == Some(Table::Sql));
    times(&mut section, raw, defaults, kind)
}

fn times(section: &mut Section<'_>, raw: &raw::Probe, defaults: &Defaults, kind: ProbeKind) -> Probe {
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let presets = [("normal", Detection::Normal), ("fast", Detection::Fast)];
    let fast = section.choice("detection", &raw.detection, &presets, &[]) == Some(Detection::Fast);
    let preset = |fast_value: Duration, value: Duration| if fast { fast_value } else { value };

    let interval = section.duration("interval", &raw.interval, ms(100)..=seconds(3600), defaults.interval);
    let default =
        preset(ms(300), defaults.fast_interval.max(if defaults.kind == Kind::Cockroach { interval } else { ms(0) }));
    let fast_interval =
        section.duration("fast_interval", &raw.fast_interval, ms(50)..=seconds(3600), default.min(interval));
    if fast_interval > interval {
        let text = humantime::format_duration;
        section.problem(
            "fast_interval",
            format!("\"{}\" is longer than interval, \"{}\"; write at most that", text(fast_interval), text(interval)),
        );
    }
    let down_interval = section.duration("down_interval", &raw.down_interval, ms(100)..=seconds(3600), interval);
    let timeout =
        section.duration("timeout", &raw.timeout, ms(10)..=seconds(300), preset(seconds(1), defaults.timeout));
    if timeout > interval * 10 && raw.timeout.is_some() {
        section.problem("timeout", "is more than ten times the interval; write one of about the interval");
    } else if timeout > interval {
        let warning = format!("{}: is longer than interval, so a hang is noticed late", section.key("timeout"));
        section.problems.warn(warning);
    }
    let hang_trigger = preset(ms(500), defaults.hang_trigger);
    Probe {
        kind,
        interval,
        fast_interval,
        down_interval,
        timeout,
        fall: section.number("fall", &raw.fall, 1..=100, 3),
        rise: section.number("rise", &raw.rise, 1..=100, 2),
        jitter_percent: jitter(section, &raw.jitter, defaults.jitter_percent),
        hang_trigger: section.duration("hang_trigger", &raw.hang_trigger, ms(100)..=seconds(300), hang_trigger),
        passive: section.flag(&raw.passive, defaults.passive),
    }
}

fn jitter(section: &mut Section<'_>, value: &Option<Share>, default: u8) -> u8 {
    const MOST: f64 = 0.5;
    section.note("jitter", Accepts::Share("0".into(), MOST.to_string()));
    match value {
        None => default,
        Some(Share(share)) if (0.0..=MOST).contains(share) => (share * 100.0).round() as u8,
        Some(Share(share)) => {
            section.problem("jitter", format!("{share} is out of range; write 0 to {MOST}"));
            default
        }
    }
}

/// Who logs in, with `database` where none is written.
pub(super) fn login(section: &mut Section<'_>, raw: &raw::Probe, database: &str, files: &Raw) -> Login {
    let user = section.text("user", &raw.user).unwrap_or_else(|| "pgpivot".into());
    let database = section.text("database", &raw.database).unwrap_or_else(|| database.into());
    let file = section.path("password_file", &raw.password_file);
    let from_file = file.and_then(|file| files.secret(&file));
    let from_file = from_file.and_then(|text| password(section, "password_file", text));
    Login { user, database, password: raw.password.clone().or(from_file) }
}

/// The contents of a password file, without the line end that editors leave.
pub(super) fn password(section: &mut Section<'_>, key: &str, text: &Secret) -> Option<Secret> {
    let text = text.expose();
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        section.problem(key, "names an empty file; write the password into it");
        return None;
    }
    if line.contains(['\n', '\r', '\0']) {
        section.problem(key, "names a file of several lines; write the password into it and nothing else");
        return None;
    }
    Some(Secret::new(line.to_owned()))
}

/// Of Patroni.
const STANDBYS_ONLY: [&str; 7] =
    ["/replica", "/standby-leader", "/standby_leader", "/sync", "/synchronous", "/async", "/asynchronous"];

fn http(section: &mut Section<'_>, raw: Option<&raw::Http>) -> HttpProbe {
    let raw = raw.cloned().unwrap_or_default();
    let path = section.text("http.path", &raw.path).unwrap_or_else(|| "/primary".into());
    if !path.starts_with('/') || !path.chars().all(|c| c.is_ascii_graphic()) {
        section.problem("http.path", format!("{} is not a path; write for example \"/primary\"", shown(&path)));
    }
    let expect_status = match &raw.expect_status {
        None => vec![200],
        Some(raw::Numbers(list)) => statuses(section, list),
    };
    let bare = path.split('?').next().unwrap_or_default();
    if STANDBYS_ONLY.contains(&bare) {
        section.problem(
            "http.path",
            format!("{bare} of Patroni passes on standbys alone: a healthy primary would be down; write \"/primary\" or \"/health\""),
        );
    }
    let of_patroni = HttpProbe::is_primary_path(&path);
    HttpProbe {
        primary_only: section.flag(&raw.primary_only, of_patroni),
        path,
        // Where none is written the endpoint's own counts.
        port: Some(section.number("http.port", &raw.port, 1..=65535, 8008)).filter(|_| raw.port.is_some()),
        tls: section.flag(&raw.tls, false),
        expect_status,
        expect_body: section.text("http.expect_body", &raw.expect_body),
    }
}

fn statuses(section: &mut Section<'_>, list: &[Number]) -> Vec<u16> {
    if list.is_empty() {
        section.problem("http.expect_status", "is empty, so nothing would pass; write for example [200]");
    }
    list.iter()
        .filter_map(|Number(status)| match u16::try_from(*status) {
            Ok(status) if (100..=599).contains(&status) => Some(status),
            _ => {
                section.problem("http.expect_status", format!("{status} is no HTTP status; write 100 to 599"));
                None
            }
        })
        .collect()
}

/// A key that changes nothing misleads whoever reads the file; `lent` = somebody else takes the login from here.
fn check_unused(section: &mut Section<'_>, raw: &raw::Probe, kind: &ProbeKind, lent: bool) {
    let word = kind.as_str();
    if raw.http.is_some() && !matches!(kind, ProbeKind::Http(_)) && !section.faulty("kind") {
        section.problem("http", format!("is never used with kind = \"{word}\"; write kind = \"http\" or remove it"));
    }
    let logs_in = lent || matches!(kind, ProbeKind::Sql { .. });
    let names_user = logs_in || matches!(kind, ProbeKind::Startup { .. });
    let unused: [(&str, &Option<Text>, bool); 3] = [
        ("user", &raw.user, names_user),
        ("database", &raw.database, names_user),
        ("password_file", &raw.password_file, logs_in),
    ];
    for (key, value, used) in unused {
        // The environment sets logins without knowing what the probe is.
        if value.is_some() && !used && section.problems.origin(&section.key(key)).is_none() && !section.faulty("kind") {
            section.problem(key, format!("is never used with kind = \"{word}\"; remove it, or write kind = \"sql\""));
        }
    }
}
