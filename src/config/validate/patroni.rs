//! `[service.NAME.patroni]`, and what does not go together with `authority = "patroni"`: whoever follows Patroni
//! decides nothing, so every setting of a decision is refused with the reason.

use std::path::PathBuf;
use std::time::Duration;

use super::super::raw::{self, Raw, Text};
use super::super::{Authority, Backend, Kind, Patroni, Probe, ProbeKind};
use super::section::{Section, shown};
use super::service::same_address;
use super::{Problems, probe};
use crate::types::{HostPort, Secret};

/// What stands around the table.
pub(super) struct Around<'a> {
    pub(super) kind: Kind,
    pub(super) authority: Authority,
    pub(super) probe: &'a Probe,
    pub(super) backends: &'a [Backend],
}

pub(super) fn build(
    service: &str,
    raw: &raw::Service,
    around: &Around<'_>,
    files: &Raw,
    problems: &mut Problems,
) -> Option<Patroni> {
    let mut section = Section::new(service, problems);
    if around.authority != Authority::Patroni {
        if raw.patroni.is_some() && !section.faulty("failover.authority") {
            let message = format!(
                "is never used without authority = \"patroni\"; write that in [{service}.failover], or remove the table"
            );
            section.problem("patroni", message);
        }
        return None;
    }
    check_around(&mut section, service, raw, around);
    let table = raw.patroni.clone().unwrap_or_default();
    let mut section = Section::new(format!("{service}.patroni"), problems);
    let s = &mut section;
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let tls = s.flag(&table.tls, false);
    let patroni = Patroni {
        addresses: addresses(s, &table.addresses, around.backends),
        tls,
        ca_file: s.path("ca_file", &table.ca_file),
        certificate: certificate(s, &table),
        login: login(s, &table, files),
        interval: s.duration("interval", &table.interval, ms(100)..=seconds(60), seconds(1)),
        timeout: s.duration("timeout", &table.timeout, ms(100)..=seconds(60), seconds(2)),
        order_timeout: s.duration("order_timeout", &table.order_timeout, seconds(1)..=seconds(600), seconds(30)),
    };
    for (key, there) in [("ca_file", patroni.ca_file.is_some()), ("certificate", patroni.certificate.is_some())] {
        if there && !tls {
            s.problem(key, "is never used without tls = true; write that, or remove it");
        }
    }
    let in_clear = patroni.login.is_some() && !tls && !patroni.addresses.iter().all(is_loopback);
    if in_clear {
        let warning = format!("{}: the password goes over the network in clear; write tls = true", s.key("user"));
        s.problems.warn(warning);
    }
    Some(patroni)
}

/// The rest of the service must fit somebody who only follows.
fn check_around(s: &mut Section<'_>, service: &str, raw: &raw::Service, around: &Around<'_>) {
    if around.kind != Kind::Postgres {
        s.problem("failover.authority", "\"patroni\" leads PostgreSQL servers, and this is kind = \"cockroach\"");
        return;
    }
    if !matches!(around.probe.kind, ProbeKind::Sql { .. }) && !s.problems.touches(&format!("{service}.probe.kind")) {
        s.problem(
            "failover.authority",
            format!(
                "\"patroni\" tells whom to look at, and the server itself must prove that it is primary, which a probe of \
                 kind {} does not; write kind = \"sql\" in [{service}.probe]",
                around.probe.kind.as_str()
            ),
        );
    }
    let failover = &raw.failover;
    let decides = [
        ("automatic", failover.automatic.is_some()),
        ("delay", failover.delay.is_some()),
        ("cooldown", failover.cooldown.is_some()),
        ("max_per_day", failover.max_per_day.is_some()),
        ("max_lag", failover.max_lag.is_some()),
        ("max_disconnect", failover.max_disconnect.is_some()),
        ("witness", failover.witness.is_some()),
        ("hung_grace", failover.hung_grace.is_some()),
        ("fence", failover.fence.is_some()),
        ("fence_command", failover.fence_command.is_some()),
        ("standby_serves", failover.standby_serves.is_some()),
        ("foreign_promotion", failover.foreign_promotion.is_some()),
        ("sync_after_failover", failover.sync_after_failover.is_some()),
    ];
    for (key, _) in decides.iter().filter(|(_, written)| *written) {
        s.problem(
            &format!("failover.{key}"),
            "is never used with authority = \"patroni\", where Patroni alone decides; set it in Patroni's own \
             configuration, and remove it here",
        );
    }
}

fn addresses(s: &mut Section<'_>, value: &Option<raw::Texts>, backends: &[Backend]) -> Vec<HostPort> {
    let mut found: Vec<HostPort> = Vec::new();
    let Some(raw::Texts(texts)) = value else {
        for address in backends.iter().flat_map(|backend| &backend.addresses) {
            let api = HostPort { host: address.host.clone(), port: Patroni::PORT };
            if !found.iter().any(|known| same_address(known, &api)) {
                found.push(api);
            }
        }
        return found;
    };
    if texts.is_empty() {
        s.problem("addresses", "is empty; write for example addresses = [\"db1.example.com:8008\"], or leave it out");
    }
    for Text(text) in texts {
        match text.parse::<HostPort>() {
            Ok(address) if found.iter().any(|known| same_address(known, &address)) => {
                s.problem("addresses", format!("names {address} twice; once is enough"));
            }
            Ok(address) => found.push(address),
            Err(error) => s.problem("addresses", format!("{} {error}", shown(text))),
        }
    }
    found
}

fn certificate(s: &mut Section<'_>, table: &raw::Patroni) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = (s.path("certificate", &table.certificate), s.path("key", &table.key));
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => {
            s.missing("key", "is missing, and a certificate is nothing without its key; name the file that holds it");
            None
        }
        (None, Some(_)) => {
            s.missing("certificate", "is missing, and a key is nothing without its certificate; name its file");
            None
        }
        (None, None) => None,
    }
}

fn login(s: &mut Section<'_>, table: &raw::Patroni, files: &Raw) -> Option<(String, Secret)> {
    let user = s.text("user", &table.user);
    let file = s.path("password_file", &table.password_file);
    let own = file.and_then(|file| files.secret(&file));
    let own = own.and_then(|text| probe::password(s, "password_file", text));
    let password = table.password.clone().or(own);
    if user.as_ref().is_some_and(|user| user.contains(':')) {
        s.problem("user", "has a \":\", which no user of Basic authentication has");
    }
    match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (Some(_), None) => {
            s.missing(
                "password_file",
                "is missing, and Patroni asks this user for a password; name a file, or set PGPIVOT_PATRONI_PASSWORD",
            );
            None
        }
        (None, Some(_)) if table.password_file.is_some() => {
            s.missing(
                "user",
                "is missing, and a password belongs to somebody; write restapi.authentication's username",
            );
            None
        }
        // The environment may hold it for another service.
        (None, _) => None,
    }
}

fn is_loopback(address: &HostPort) -> bool {
    &*address.host == "localhost" || address.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
