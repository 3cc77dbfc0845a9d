//! `connection-string`: the line an application connects with. Pure; a password is never part of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Misuse;
use super::args::Format;
use super::target::Target;
use crate::types::HostPort;
use crate::view::ServiceStatus;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// For whom.
    pub(super) format: Format,
    /// The backends themselves instead of the proxy.
    pub(super) multi_host: bool,
    /// For reading from standbys.
    pub(super) read_only: bool,
    /// Who logs in.
    pub(super) user: Option<String>,
    /// Which database.
    pub(super) database: Option<String>,
}

/// Which side a driver shall look for among several hosts, in words of libpq and of the JDBC driver.
struct Session {
    libpq: &'static str,
    jdbc: &'static str,
}

const ANY: Session = Session { libpq: "any", jdbc: "any" };
const WRITES: Session = Session { libpq: "read-write", jdbc: "primary" };
const READS: Session = Session { libpq: "prefer-standby", jdbc: "preferSecondary" };

/// The string.
pub(super) fn build(service: &ServiceStatus, target: &Target, wanted: &Wanted) -> Result<String, Misuse> {
    let (hosts, session) = match wanted.multi_host {
        true => (backends(service), if wanted.read_only { READS } else { WRITES }),
        false => (listeners(service, target, wanted.read_only), ANY),
    };
    if hosts.is_empty() {
        let target = if wanted.read_only { "read_only" } else { "active" };
        return Err(Misuse::NoListener { service: service.name.clone(), target });
    }
    // One listener is enough: several lead to the same side.
    let hosts = if wanted.multi_host { &hosts[..] } else { &hosts[..1] };
    Ok(match wanted.format {
        Format::Uri => uri(hosts, &session, wanted),
        Format::Jdbc => jdbc(hosts, &session, wanted),
        Format::Env => env(hosts, &session, wanted),
    })
}

/// Where the daemon listens, as seen from here.
fn listeners(service: &ServiceStatus, target: &Target, read_only: bool) -> Vec<HostPort> {
    let asked = if read_only { "read_only" } else { "active" };
    service.listeners.iter().filter(|l| l.target == asked).map(|l| reachable(l.address, target)).collect()
}

/// A listener on every address is reached where the daemon is.
fn reachable(address: SocketAddr, target: &Target) -> HostPort {
    let host = match (address.ip(), target) {
        (ip, Target::Http(daemon)) if ip.is_unspecified() => daemon.host.to_string(),
        (ip, Target::Unix(_)) if ip.is_unspecified() => "localhost".to_owned(),
        (IpAddr::V4(Ipv4Addr::LOCALHOST), _) => "localhost".to_owned(),
        (ip, _) => ip.to_string(),
    };
    HostPort { host: host.into(), port: address.port() }
}

/// Every address of every backend, the active side first.
fn backends(service: &ServiceStatus) -> Vec<HostPort> {
    let mut order: Vec<_> = service.backends.iter().filter(|b| b.quarantined.is_none()).collect();
    order.sort_by_key(|b| !b.active);
    let mut hosts = Vec::new();
    for endpoint in order.iter().flat_map(|b| &b.endpoints) {
        let host = endpoint
            .address
            .clone()
            .unwrap_or_else(|| HostPort { host: endpoint.ip.ip().to_string().into(), port: endpoint.ip.port() });
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

fn uri(hosts: &[HostPort], session: &Session, wanted: &Wanted) -> String {
    let user = wanted.user.as_deref().map(|u| format!("{}@", percent(u))).unwrap_or_default();
    let database = wanted.database.as_deref().map(percent).unwrap_or_default();
    let more = match hosts {
        [_] => String::new(),
        _ => format!("?target_session_attrs={}", session.libpq),
    };
    format!("postgresql://{user}{}/{database}{more}", list(hosts))
}

fn jdbc(hosts: &[HostPort], session: &Session, wanted: &Wanted) -> String {
    let mut parameters = Vec::new();
    if let Some(user) = &wanted.user {
        parameters.push(format!("user={}", percent(user)));
    }
    if hosts.len() > 1 {
        parameters.push(format!("targetServerType={}", session.jdbc));
    }
    let more = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    format!("jdbc:postgresql://{}/{}{more}", list(hosts), wanted.database.as_deref().map(percent).unwrap_or_default())
}

fn env(hosts: &[HostPort], session: &Session, wanted: &Wanted) -> String {
    let join = |part: fn(&HostPort) -> String| hosts.iter().map(part).collect::<Vec<_>>().join(",");
    let mut lines = vec![("PGHOST", join(|h| h.host.to_string())), ("PGPORT", join(|h| h.port.to_string()))];
    lines.extend(wanted.user.clone().map(|u| ("PGUSER", u)));
    lines.extend(wanted.database.clone().map(|d| ("PGDATABASE", d)));
    if hosts.len() > 1 {
        lines.push(("PGTARGETSESSIONATTRS", session.libpq.to_owned()));
    }
    lines.iter().map(|(key, value)| format!("export {key}={}", quoted(value))).collect::<Vec<_>>().join("\n")
}

fn list(hosts: &[HostPort]) -> String {
    hosts.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",")
}

/// For a shell; bare where nothing needs a quote.
fn quoted(value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "._-:,/@".contains(c);
    match !value.is_empty() && value.chars().all(bare) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}

fn percent(text: &str) -> String {
    super::api::percent(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::sample;

    fn built(wanted: &Wanted) -> String {
        build(&sample::steady().services[0], &Target::parse("http://db.example.com:8404").unwrap(), wanted).unwrap()
    }

    fn named(format: Format, multi_host: bool) -> Wanted {
        Wanted { format, multi_host, user: Some("app".into()), database: Some("shop & co".into()), ..Wanted::default() }
    }

    #[test]
    fn an_application_connects_to_the_proxy() {
        assert_eq!(built(&Wanted::default()), "postgresql://localhost:26257/");
        assert_eq!(built(&named(Format::Uri, false)), "postgresql://app@localhost:26257/shop%20%26%20co");
        assert_eq!(built(&named(Format::Jdbc, false)), "jdbc:postgresql://localhost:26257/shop%20%26%20co?user=app");
        assert_eq!(
            built(&named(Format::Env, false)),
            "export PGHOST=localhost\nexport PGPORT=26257\nexport PGUSER=app\nexport PGDATABASE='shop & co'"
        );
    }

    #[test]
    fn a_string_of_several_hosts_looks_for_the_side_that_writes() {
        let plain = Wanted { multi_host: true, ..Wanted::default() };
        assert_eq!(
            built(&plain),
            "postgresql://us-east.example.com:5432,us-west.example.com:5432/?target_session_attrs=read-write"
        );
        let jdbc = Wanted { format: Format::Jdbc, ..plain.clone() };
        assert_eq!(
            built(&jdbc),
            "jdbc:postgresql://us-east.example.com:5432,us-west.example.com:5432/?targetServerType=primary"
        );
        let reads = Wanted { read_only: true, ..plain };
        assert!(built(&reads).ends_with("?target_session_attrs=prefer-standby"));
    }

    #[test]
    fn a_listener_on_every_address_is_reached_where_the_daemon_is() {
        let mut status = sample::steady();
        status.services[0].listeners[0].address = "0.0.0.0:26257".parse().unwrap();
        let target = Target::parse("http://db.example.com:8404").unwrap();
        assert_eq!(
            build(&status.services[0], &target, &Wanted::default()).unwrap(),
            "postgresql://db.example.com:26257/"
        );
        let socket = Target::parse("unix:///run/s").unwrap();
        assert_eq!(build(&status.services[0], &socket, &Wanted::default()).unwrap(), "postgresql://localhost:26257/");
    }

    #[test]
    fn a_service_without_such_a_listener_says_so() {
        let status = sample::steady();
        let wanted = Wanted { read_only: true, ..Wanted::default() };
        let error = build(&status.services[0], &Target::parse("h:1").unwrap(), &wanted).unwrap_err();
        assert!(error.to_string().contains("no listener for read_only connections"), "{error}");
    }
}
