//! `[service.NAME]`: its listeners, backends and connections, and the defaults that its kind chooses. Probe and
//! failover have files of their own.

use std::time::Duration;

use super::super::raw::{self, Raw, Text, backend_path, listener_path};
use super::super::{
    Backend, ConfiguredRole, Connection, Kind, Listener, Mode, ProbeKind, Service, Target, Tls, TlsMode,
};
use super::replication::{self, Table};
use super::section::{Section, shown};
use super::{
    Problems, admin, check_name, failover, limits, listener_tls, patroni, probe, read_only, service_path, standbys,
};
use crate::types::{BackendName, HostPort, ServiceName};

/// What a service is when its file says no more than its kind.
pub(super) struct Defaults {
    pub(super) kind: Kind,
    /// Where physical cluster replication is read and steered.
    pub(super) table: Option<Table>,
    pub(super) interval: Duration,
    pub(super) fast_interval: Duration,
    pub(super) timeout: Duration,
    pub(super) hang_trigger: Duration,
    pub(super) jitter_percent: u8,
    pub(super) passive: bool,
    pub(super) database: &'static str,
    pub(super) delay: Duration,
    pub(super) hold_timeout: Duration,
    pub(super) promote_timeout: Duration,
    pub(super) verify_wait: Duration,
}

impl Defaults {
    fn of(kind: Kind, table: Option<Table>) -> Self {
        let seconds = Duration::from_secs;
        // A failover of clusters may take most of an hour, and both sides are asked over the net at the start.
        let (promote_timeout, verify_wait) =
            if table.is_some() { (seconds(3600), seconds(15)) } else { (seconds(60), seconds(2)) };
        match kind {
            Kind::Postgres => Self {
                kind,
                table,
                interval: seconds(2),
                fast_interval: Duration::from_millis(500),
                timeout: seconds(1),
                hang_trigger: seconds(2),
                jitter_percent: 10,
                passive: true,
                database: "postgres",
                delay: seconds(0),
                hold_timeout: seconds(30),
                promote_timeout,
                verify_wait,
            },
            // Even steps and no short cuts: 3 checks 30 s apart and 60 s of patience decide at 2:30.
            Kind::Cockroach => Self {
                kind,
                table,
                interval: seconds(30),
                fast_interval: seconds(30),
                timeout: seconds(10),
                hang_trigger: seconds(10),
                jitter_percent: 0,
                passive: false,
                database: "defaultdb",
                delay: seconds(60),
                hold_timeout: seconds(300),
                promote_timeout,
                verify_wait,
            },
        }
    }
}

pub(super) fn build(name: &str, raw: &raw::Service, files: &Raw, cores: usize, problems: &mut Problems) -> Service {
    let path = service_path(name);
    check_name(&path, name, problems);
    let mut section = Section::new(&path, problems);
    let kinds = [("postgres", Kind::Postgres), ("cockroach", Kind::Cockroach)];
    if raw.kind.is_none() {
        section.missing("kind", "is missing; write kind = \"postgres\" or kind = \"cockroach\"");
    }
    let kind = section.choice("kind", &raw.kind, &kinds, &[]).unwrap_or(Kind::Postgres);
    let defaults = Defaults::of(kind, Table::of(kind, raw));
    section.choice("engine", &raw.engine, &[("auto", ()), ("epoll", ())], &["io_uring"]);
    let workers = match section.number("workers", &raw.workers, 0..=256, 0) {
        0 => cores.clamp(1, 256),
        workers => workers,
    };
    let listeners = listeners(&path, &raw.listener, problems);
    let probe = probe::build(&path, &raw.probe, &defaults, files, problems);
    let mut backends = backends(&path, raw, defaults.table, problems);
    // A probe that cannot tell roles must be told the side to start with; a lone one can only be that.
    if let [only] = backends.as_mut_slice()
        && only.role.is_none()
        && !tells_roles(kind, &probe.kind)
    {
        only.role = Some(ConfiguredRole::Primary);
    }
    let replication = replication::build(&path, raw, kind, files, problems);
    let steered = failover::Steered { defaults: &defaults, replication: replication.as_ref() };
    let failover = failover::build(&path, &raw.failover, steered, &probe, files, problems);
    let read_only = read_only::build(&path, &raw.read_only, kind, &probe, problems);
    let around = patroni::Around { kind, authority: failover.authority, probe: &probe, backends: &backends };
    let patroni = patroni::build(&path, raw, &around, files, problems);
    let connection = connection(&path, &raw.connection, problems);
    let service = Service {
        name: ServiceName::new(name),
        kind,
        workers,
        listeners,
        backends,
        probe,
        failover,
        replication,
        read_only,
        patroni,
        connection,
    };
    check_roles(&path, &service, problems);
    replication::check(&path, &service, problems);
    standbys::check(&path, &service, problems);
    service
}

/// Does this probe see who is primary? In a CockroachDB cluster nothing tells.
fn tells_roles(kind: Kind, probe: &ProbeKind) -> bool {
    kind == Kind::Postgres && matches!(probe, ProbeKind::Sql { .. })
}

fn listeners(path: &str, raw: &[raw::Listener], problems: &mut Problems) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let mut section = Section::new(listener_path(path, index), problems);
        if raw.address.is_none() {
            section.missing("address", "is missing; write for example address = \"127.0.0.1:26257\"");
        }
        let address = admin::address(&mut section, "address", &raw.address, "127.0.0.1:26257");
        let later = ["session", "pooled"];
        let mode = section.choice("mode", &raw.mode, &[("opaque", Mode::Opaque)], &later).unwrap_or(Mode::Opaque);
        let targets = [("active", Target::Active), ("read_only", Target::ReadOnly)];
        let target = section.choice("target", &raw.target, &targets, &[]).unwrap_or(Target::Active);
        let max_connections = section.number("max_connections", &raw.max_connections, 1..=1_000_000, 10_000);
        let limits = limits::build(&mut section, raw);
        let tls = listener_tls::build(&listener_path(path, index), &raw.tls, problems);
        if let Some(address) = address {
            listeners.push(Listener { address, mode, target, max_connections, limits, tls });
        }
    }
    listeners
}

fn backends(path: &str, raw: &raw::Service, table: Option<Table>, problems: &mut Problems) -> Vec<Backend> {
    if raw.backend.is_empty() {
        problems.missing(
            format!("{path}.backend"),
            format!("there is none; write a [[{path}.backend]] with name and addresses for each server"),
        );
    }
    let cloud = table == Some(Table::Cloud);
    let mut backends: Vec<Backend> = Vec::new();
    for (index, one) in raw.backend.iter().enumerate() {
        let backend_path = backend_path(path, index, one.name.as_ref().map(|Text(name)| name.as_str()));
        let mut section = Section::new(&backend_path, problems);
        let addresses = addresses(&mut section, one, cloud);
        let cluster_id = replication::cluster_id(&mut section, path, one, raw.cockroach_cloud.is_some(), cloud);
        let roles = [("primary", ConfiguredRole::Primary), ("standby", ConfiguredRole::Standby)];
        let role = section.choice("role", &one.role, &roles, &[]);
        let weight = section.number("weight", &one.weight, 0..=65535, 100);
        let priority = section.number("priority", &one.priority, 0..=65535, 100);
        let member = section.text("member", &one.member);
        let promote = section.flag(&one.promote, true);
        let replication_address = standbys::replication_address(&mut section, &one.replication_address);
        let tls = tls(path, &backend_path, &raw.probe.tls, &one.tls, problems);
        let Some(Text(name)) = &one.name else {
            problems.missing(format!("{backend_path}.name"), "is missing; write for example name = \"us-east\"");
            continue;
        };
        check_name(&format!("{backend_path}.name"), name, problems);
        if backends.iter().any(|other| other.name.as_str() == name) {
            problems.add(&backend_path, format!("is the name of two backends of {path}; give each its own"));
        }
        let name = BackendName::new(name);
        backends.push(Backend {
            name,
            addresses,
            role,
            weight,
            priority,
            promote,
            replication_address,
            tls,
            cluster_id,
            member,
        });
    }
    backends
}

/// May be left out where the Cloud API can be asked for them.
fn addresses(section: &mut Section<'_>, raw: &raw::Backend, cloud: bool) -> Vec<HostPort> {
    let mut addresses: Vec<HostPort> = Vec::new();
    let Some(raw::Texts(texts)) = &raw.addresses else {
        if !cloud {
            section.missing("addresses", "is missing; write for example addresses = [\"db1.example.com:5432\"]");
        }
        return addresses;
    };
    if texts.is_empty() {
        section.problem("addresses", "is empty; write for example addresses = [\"db1.example.com:5432\"]");
    }
    for Text(text) in texts {
        match text.parse::<HostPort>() {
            Ok(address) if addresses.iter().any(|known| same_address(known, &address)) => {
                section.problem("addresses", format!("names {address} twice; once is enough"));
            }
            Ok(address) => addresses.push(address),
            Err(error) => section.problem("addresses", format!("{} {error}", shown(text))),
        }
    }
    addresses
}

/// The same `host:port`, as far as text can tell.
pub(super) fn same_address(a: &HostPort, b: &HostPort) -> bool {
    a.port == b.port && a.host.trim_end_matches('.').eq_ignore_ascii_case(b.host.trim_end_matches('.'))
}

/// A backend's own words, where it has none the probe's, where there are none either the default.
fn tls(service: &str, backend: &str, shared: &raw::Tls, own: &raw::Tls, problems: &mut Problems) -> Tls {
    let modes = [
        ("disable", TlsMode::Disable),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
    ];
    let at_probe = format!("{service}.probe.tls");
    let at_backend = format!("{backend}.tls");
    let source = |own: &Option<Text>| {
        if own.is_some() { at_backend.clone() } else { at_probe.clone() }
    };

    let mut section = Section::new(source(&own.mode), problems);
    let mode = section.choice("mode", own.mode.as_ref().map_or(&shared.mode, |_| &own.mode), &modes, &[]);
    let mode = mode.unwrap_or(TlsMode::Prefer);
    let mut section = Section::new(source(&own.ca_file), problems);
    let ca_file = section.path("ca_file", own.ca_file.as_ref().map_or(&shared.ca_file, |_| &own.ca_file));
    let mut section = Section::new(source(&own.server_name), problems);
    let server_name =
        section.text("server_name", own.server_name.as_ref().map_or(&shared.server_name, |_| &own.server_name));

    let checked = matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    let mut section = Section::new(source(&own.ca_file), problems);
    if ca_file.is_some() && !checked && !section.faulty("mode") {
        section
            .problem("ca_file", "is never used, because the mode checks no certificate; write mode = \"verify-full\"");
    }
    let mut section = Section::new(source(&own.server_name), problems);
    if server_name.is_some() && mode == TlsMode::Disable {
        section.problem("server_name", "is never used with mode = \"disable\"; remove one of the two");
    }
    Tls { mode, ca_file, server_name }
}

/// Which side to start with must be said once, unless the servers can be asked.
fn check_roles(path: &str, service: &Service, problems: &mut Problems) {
    let primaries: Vec<&str> = (service.backends.iter())
        .filter(|backend| backend.role == Some(ConfiguredRole::Primary))
        .map(|backend| backend.name.as_str())
        .collect();
    let at = format!("{path}.backend");
    let serves = service.failover.standby_serves;
    if primaries.len() > 1 && !serves {
        problems.add(
            at,
            format!(
                "{} all have role = \"primary\", but two servers that take writes at once lose data; leave it at one. If \
                 they really all serve (one stretched cluster, or plain routing), write standby_serves = true in \
                 [{path}.failover]",
                primaries.join(", ")
            ),
        );
        return;
    }
    let asks = tells_roles(service.kind, &service.probe.kind);
    if primaries.is_empty() && (serves || !asks) && !service.backends.is_empty() {
        let why = if serves {
            "where every side serves nobody else can tell which comes first".to_owned()
        } else {
            format!("a probe of kind {} cannot tell", service.probe.kind.as_str())
        };
        problems.missing(at, format!("none has role = \"primary\", and {why}; write it at the side to start with"));
    }
    let weightless = |b: &Backend| b.role == Some(ConfiguredRole::Primary) && b.weight == 0;
    if serves
        && primaries.len() > 1
        && service.backends.iter().all(|b| b.role != Some(ConfiguredRole::Primary) || weightless(b))
    {
        problems.add(
            format!("{path}.backend"),
            "every backend with role = \"primary\" has weight = 0, so none would get a connection; give one a weight",
        );
    }
}

fn connection(path: &str, raw: &raw::Connection, problems: &mut Problems) -> Connection {
    let mut section = Section::new(format!("{path}.connection"), problems);
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    Connection {
        connect_timeout: section.duration("connect_timeout", &raw.connect_timeout, ms(10)..=seconds(300), seconds(3)),
        first_packet_timeout: section.duration(
            "first_packet_timeout",
            &raw.first_packet_timeout,
            ms(100)..=seconds(600),
            seconds(10),
        ),
        keepalive: section.duration("keepalive", &raw.keepalive, seconds(1)..=seconds(7200), seconds(30)),
        user_timeout: section.duration("user_timeout", &raw.user_timeout, seconds(0)..=seconds(3600), seconds(300)),
    }
}
