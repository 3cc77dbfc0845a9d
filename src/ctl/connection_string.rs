//! `connection-string`: the line an application connects with. Pure; a password is never part of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Misuse;
use super::args::Format;
use super::target::Target;
use crate::types::HostPort;
use crate::view::ServiceStatus;
use crate::view::dsn::{Dsn, Session, default_database};
use crate::view::sides::{COCKROACH, Cluster, Clusters};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// For whom.
    pub(super) format: Format,
    /// The backends themselves instead of the proxy.
    pub(super) multi_host: bool,
    /// Sides too that are quarantined or were not promoted.
    pub(super) all: bool,
    /// For reading from standbys.
    pub(super) read_only: bool,
    /// Who logs in.
    pub(super) user: Option<String>,
    /// Which database.
    pub(super) database: Option<String>,
    /// The file with the CAs to trust.
    pub(super) sslrootcert: Option<String>,
}

/// The string, and what its reader should know, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Built {
    /// On stdout.
    pub(super) line: String,
    /// On stderr.
    pub(super) talk: Vec<&'static str>,
}

/// The string.
pub(super) fn build(service: &ServiceStatus, target: &Target, wanted: &Wanted) -> Result<Built, Misuse> {
    let sides = Clusters::of([service]).clusters;
    let cockroach = service.kind == COCKROACH;
    let mut talk = Vec::new();
    let mut dsn = if wanted.multi_host {
        talk.push("these are the backends themselves: past the proxy there is no hold, no cut and no fence");
        let mut dsn = Dsn::multi_host(&sides, wanted.all, wanted.sslrootcert.as_deref())?;
        if dsn.hosts.len() > 1 && wanted.read_only && !cockroach {
            dsn.session = Session::Reads;
        }
        dsn
    } else {
        // One listener is enough: several lead to the same side.
        let hosts = listeners(service, target, wanted.read_only).into_iter().take(1).collect();
        let (sslmode, sslrootcert) = through_the_proxy(&sides, wanted.sslrootcert.as_deref(), &mut talk);
        Dsn { hosts, sslmode, sslrootcert, ..Dsn::default() }
    };
    if dsn.hosts.is_empty() {
        let target = if wanted.read_only { "read_only" } else { "active" };
        return Err(Misuse::NoListener { service: service.name.clone(), target });
    }
    // What every PostgreSQL driver does by itself needs no word.
    dsn.sslmode = dsn.sslmode.filter(|mode| cockroach || !matches!(mode.as_str(), "disable" | "prefer"));
    let default = cockroach.then(|| default_database(&service.kind).to_owned());
    dsn.database = wanted.database.clone().or(default);
    dsn.user = wanted.user.clone();
    let line = match wanted.format {
        Format::Uri => dsn.to_uri(),
        Format::Jdbc => dsn.to_jdbc(),
        Format::Env => dsn.to_env(),
    };
    Ok(Built { line, talk })
}

/// `sslmode` and CA of who connects to the proxy, which passes TLS through: the certificate carries the name of a side,
/// not the proxy's, so a name cannot be checked; and it is another side's after a failover.
fn through_the_proxy(
    sides: &[Cluster],
    sslrootcert: Option<&str>,
    talk: &mut Vec<&'static str>,
) -> (Option<String>, Option<String>) {
    let modes = ["disable", "prefer", "require"];
    let strict = |side: &Cluster| modes.iter().position(|mode| *mode == side.sslmode).unwrap_or(modes.len());
    let strictest = sides.iter().map(strict).max().unwrap_or(1);
    let cas: Vec<_> = sides.iter().map(|side| side.sslrootcert.as_deref()).collect();
    let common = cas.first().copied().flatten().filter(|first| cas.iter().all(|ca| *ca == Some(first)));
    match (modes.get(strictest), sslrootcert) {
        (_, Some(file)) => (Some("verify-ca".into()), Some(file.to_owned())),
        (Some(mode), None) => (Some((*mode).to_owned()), None),
        (None, None) => match common {
            Some(file) => (Some("verify-ca".into()), Some(file.to_owned())),
            None => {
                talk.push(
                    "certificates are not checked: those of the sides have different CAs; put them into one file and \
                     name it with --sslrootcert",
                );
                (Some("require".into()), None)
            }
        },
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::sample;

    fn built(wanted: &Wanted) -> String {
        build(&sample::steady().services[0], &Target::parse("http://db.example.com:8404").unwrap(), wanted)
            .unwrap()
            .line
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
            build(&status.services[0], &target, &Wanted::default()).unwrap().line,
            "postgresql://db.example.com:26257/"
        );
        let socket = Target::parse("unix:///run/s").unwrap();
        assert_eq!(
            build(&status.services[0], &socket, &Wanted::default()).unwrap().line,
            "postgresql://localhost:26257/"
        );
    }

    #[test]
    fn a_service_without_such_a_listener_says_so() {
        let status = sample::steady();
        let wanted = Wanted { read_only: true, ..Wanted::default() };
        let error = build(&status.services[0], &Target::parse("h:1").unwrap(), &wanted).unwrap_err();
        assert!(error.to_string().contains("no listener for read_only connections"), "{error}");
    }

    /// Two clusters, the first one active, each with a certificate of its own.
    fn clusters(sslmode: &str) -> ServiceStatus {
        let mut service = sample::steady().services.remove(0);
        service.kind = "cockroach".into();
        service.backends[1].role = "unknown".into();
        for backend in &mut service.backends {
            let host = format!("{}.example.com:26257", backend.name);
            backend.addresses = vec![host.parse().unwrap()];
            backend.endpoints.clear();
            backend.sslmode = Some(sslmode.into());
            backend.sslrootcert = sslmode.starts_with("verify").then(|| format!("/etc/ca/{}.crt", backend.name));
        }
        service
    }

    fn of(service: &ServiceStatus, wanted: &Wanted) -> Built {
        build(service, &Target::parse("h:1").unwrap(), wanted).unwrap()
    }

    #[test]
    fn clusters_bring_their_port_their_database_and_encryption() {
        let service = clusters("prefer");
        let plain = Wanted::default();
        assert_eq!(of(&service, &plain).line, "postgresql://localhost:26257/defaultdb?sslmode=require");
        let jdbc = Wanted { format: Format::Jdbc, ..plain.clone() };
        assert_eq!(of(&service, &jdbc).line, "jdbc:postgresql://localhost:26257/defaultdb?sslmode=require");
        let env = Wanted { format: Format::Env, ..plain.clone() };
        assert_eq!(
            of(&service, &env).line,
            "export PGHOST=localhost\nexport PGPORT=26257\nexport PGDATABASE=defaultdb\nexport PGSSLMODE=require"
        );
        let insecure = of(&clusters("disable"), &plain).line;
        assert_eq!(insecure, "postgresql://localhost:26257/defaultdb?sslmode=disable");
    }

    #[test]
    fn of_several_hosts_an_unpromoted_cluster_is_named_only_when_all_are_asked_for() {
        let mut service = clusters("prefer");
        let several = Wanted { multi_host: true, ..Wanted::default() };
        let built = of(&service, &several);
        assert_eq!(built.line, "postgresql://us-east.example.com:26257/defaultdb?sslmode=require");
        assert!(built.talk[0].contains("no fence"), "{built:?}");
        let all = Wanted { all: true, ..several.clone() };
        let both = "us-east.example.com:26257,us-west.example.com:26257";
        assert_eq!(of(&service, &all).line, format!("postgresql://{both}/defaultdb?sslmode=require"));
        let jdbc = Wanted { format: Format::Jdbc, ..all.clone() };
        assert_eq!(of(&service, &jdbc).line, format!("jdbc:postgresql://{both}/defaultdb?sslmode=require"));
        let env = Wanted { format: Format::Env, ..all.clone() };
        assert!(of(&service, &env).line.starts_with(
            "export PGHOST=us-east.example.com,us-west.example.com\nexport PGPORT=26257,26257\nexport PGDATABASE="
        ));
        service.backends.iter_mut().for_each(|backend| backend.active = !backend.active);
        let swapped = "us-west.example.com:26257,us-east.example.com:26257";
        assert_eq!(of(&service, &all).line, format!("postgresql://{swapped}/defaultdb?sslmode=require"));
        service.backends.iter_mut().for_each(|backend| backend.active = false);
        let error = build(&service, &Target::parse("h:1").unwrap(), &all).unwrap_err();
        assert!(error.to_string().contains("no side is active"), "{error}");
    }

    #[test]
    fn certificates_of_two_cas_want_one_file_with_both() {
        let service = clusters("verify-full");
        let built = of(&service, &Wanted::default());
        assert_eq!(built.line, "postgresql://localhost:26257/defaultdb?sslmode=require");
        assert!(built.talk[0].contains("--sslrootcert"), "{built:?}");
        let bundle = Wanted { sslrootcert: Some("/etc/ca/both.crt".into()), ..Wanted::default() };
        let proxy = "postgresql://localhost:26257/defaultdb?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca%2Fboth.crt";
        assert_eq!(of(&service, &bundle).line, proxy);
        let several = Wanted { multi_host: true, all: true, ..Wanted::default() };
        let error = build(&service, &Target::parse("h:1").unwrap(), &several).unwrap_err().to_string();
        assert!(error.contains("/etc/ca/us-east.crt, /etc/ca/us-west.crt"), "{error}");
        let several = Wanted { multi_host: true, all: true, ..bundle };
        assert!(of(&service, &several).line.ends_with("?sslmode=verify-full&sslrootcert=%2Fetc%2Fca%2Fboth.crt"));
        // One host: its own file will do.
        let one = Wanted { multi_host: true, ..Wanted::default() };
        assert!(of(&service, &one).line.ends_with("?sslmode=verify-full&sslrootcert=%2Fetc%2Fca%2Fus-east.crt"));
    }
}
