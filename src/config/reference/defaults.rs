//! What the validation says of keys that nobody wrote: small configurations, one of each kind, read as the daemon reads
//! them, and every value that comes out under the name the file has for it.

use super::super::diff::keys::{self, Line};
use super::super::env::Env;
use super::super::raw::accepts::Accepts;
use super::super::raw::{self, problem::Problems};
use super::super::validate::examine;
use super::super::{Config, Kind, Patroni, ProbeKind, Promoter, Service};
use super::PerSample;
use crate::types::{HostPort, Secret};

/// What all samples say together.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) accepted: PerSample<Accepts>,
    pub(super) defaults: PerSample<String>,
}

/// A default that is no value of the file begins with it.
pub(super) const IN_WORDS: char = '\u{0}';

/// Dotted keys alone, so that another one can be written below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) label: &'static str,
    pub(super) text: &'static str,
}

const POSTGRES: &str = "service.main.kind = 'postgres'
service.main.listener = [ { address = '127.0.0.1:26257' } ]
service.main.backend = [
  { name = 'a', addresses = ['db1.example.com:5432'], role = 'primary' },
  { name = 'b', addresses = ['db2.example.com:5432'], role = 'standby' },
]
";
const COCKROACH: &str = "service.main.kind = 'cockroach'
service.main.listener = [ { address = '127.0.0.1:26257' } ]
service.main.backend = [
  { name = 'a', addresses = ['db1.example.com:26257'], role = 'primary' },
  { name = 'b', addresses = ['db2.example.com:26257'], role = 'standby' },
]
";
const CLOUD: &str = "service.main.kind = 'cockroach'
service.main.listener = [ { address = '127.0.0.1:26257' } ]
service.main.cockroach_cloud.secret_file = '/secret'
service.main.backend = [
  { name = 'a', cluster_id = '00000000-0000-0000-0000-000000000001', role = 'primary' },
  { name = 'b', cluster_id = '00000000-0000-0000-0000-000000000002', role = 'standby' },
]
";
const SQL: &str = "service.main.kind = 'cockroach'
service.main.listener = [ { address = '127.0.0.1:26257' } ]
service.main.cockroach_sql.user = 'pgpivot'
service.main.backend = [
  { name = 'a', addresses = ['db1.example.com:26257'], role = 'primary' },
  { name = 'b', addresses = ['db2.example.com:26257'], role = 'standby' },
]
";
const HTTP: &str = "service.main.kind = 'postgres'
service.main.listener = [ { address = '127.0.0.1:26257' } ]
service.main.probe.kind = 'http'
service.main.failover.promoter = 'none'
service.main.backend = [
  { name = 'a', addresses = ['db1.example.com:5432'], role = 'primary' },
  { name = 'b', addresses = ['db2.example.com:5432'], role = 'standby' },
]
";
const PATRONI: &str = "service.main.kind = 'postgres'
service.main.listener = [ { address = '127.0.0.1:26257' } ]
service.main.failover.authority = 'patroni'
service.main.backend = [
  { name = 'a', addresses = ['db1.example.com:5432'] },
  { name = 'b', addresses = ['db2.example.com:5432'] },
]
";

/// The first four say what holds for a kind, the last two only what stands in tables that the others lack.
pub(super) const SAMPLES: [Sample; 6] = [
    Sample { label: "postgres", text: POSTGRES },
    Sample { label: "cockroach", text: COCKROACH },
    Sample { label: "cockroach_cloud", text: CLOUD },
    Sample { label: "cockroach_sql", text: SQL },
    Sample { label: "http", text: HTTP },
    Sample { label: "patroni", text: PATRONI },
];

/// So many that no key has it as its default by chance.
pub(super) const CORES: usize = 251;

pub(super) fn known() -> Known {
    let mut known = Known::default();
    for sample in SAMPLES {
        let (config, problems) = read(sample.text);
        for (path, accepts) in problems.accepted() {
            let path = plain(path);
            if speaks(sample.label, &path) {
                known.accepted.entry(path).or_default().push((sample.label, accepts.clone()));
            }
        }
        let mut lines = config.as_ref().map(lines).unwrap_or_default();
        lines.extend(["engine", "probe.detection"].into_iter().filter_map(|key| {
            let words = problems.accepted().get(&format!("service.main.{key}"))?;
            Some((key.to_owned(), silent_word(sample.text, key, words, config.as_ref()?)?))
        }));
        for (path, value) in lines.into_iter().filter(|(path, _)| speaks(sample.label, path)) {
            known.defaults.entry(path).or_default().push((sample.label, value));
        }
    }
    known
}

/// Only of the table it is there for, where it is there for one.
pub(super) fn speaks(label: &str, path: &str) -> bool {
    match label {
        "http" => path.starts_with("probe.http."),
        "patroni" => path.starts_with("patroni."),
        _ => true,
    }
}

/// As the daemon would, with the secret that a sample names.
pub(super) fn read(text: &str) -> (Option<Config>, Problems) {
    let mut raw = raw::parse(text);
    raw.files.insert("/secret".into(), Secret::new("CCDB1_0123456789abcdef".into()));
    examine(raw, &Env::default(), CORES)
}

/// A key path without the names of service, backend and listener.
pub(super) fn plain(path: &str) -> String {
    let path = path.strip_prefix("service.main.").unwrap_or(path);
    if let Some(rest) = path.strip_prefix("backend.") {
        return rest.split_once('.').map_or_else(|| "backend".into(), |(_, key)| format!("backend.{key}"));
    }
    path.strip_prefix("listener#1").map_or_else(|| path.to_owned(), |rest| format!("listener{rest}"))
}

/// Where no setting remembers the word: the one that, written, changes nothing.
fn silent_word(text: &str, key: &str, words: &Accepts, config: &Config) -> Option<String> {
    let Accepts::Words(words) = words else { return None };
    let same = |word: &&String| read(&format!("{text}service.main.{key} = {word:?}\n")).0.as_ref() == Some(config);
    words.iter().find(same).map(|word| format!("{word:?}"))
}

fn lines(config: &Config) -> Vec<Line> {
    let option = |value: Option<String>| value.map_or_else(|| "not set".into(), |value| format!("{value:?}"));
    let admin = &config.admin;
    let path = |path: &Option<std::path::PathBuf>| option(path.as_ref().map(|path| path.display().to_string()));
    let mut lines = vec![
        ("admin.listen".to_owned(), option(admin.listen.map(|address| address.to_string()))),
        ("admin.socket".to_owned(), path(&admin.socket)),
        ("admin.token_file".to_owned(), path(&admin.token_file)),
        ("admin.hosts".to_owned(), format!("{:?}", admin.hosts)),
        ("admin.metrics_listen".to_owned(), option(admin.metrics_listen.map(|address| address.to_string()))),
        ("state.path".to_owned(), path(&Some(config.state.path.clone()))),
    ];
    lines.extend(config.services.iter().flat_map(service_lines));
    lines
}

fn service_lines(service: &Service) -> Vec<Line> {
    let workers = match service.workers {
        CORES => format!("{IN_WORDS}one per core"),
        workers => workers.to_string(),
    };
    let mut lines = vec![("workers".to_owned(), workers)];
    let mut add = |table: &str, found: Vec<Line>| {
        lines.extend(found.into_iter().map(|(key, value)| (format!("{table}.{key}"), value)));
    };
    add("probe", keys::probe(&service.probe));
    add("failover", keys::failover(service));
    add("failover.promoter_login", promoter_login(&service.failover.promoter));
    add("connection", keys::connection(&service.connection));
    // Elsewhere no standby shows what it has replayed, and the key is refused.
    if service.kind == Kind::Postgres && matches!(service.probe.kind, ProbeKind::Sql { .. }) {
        add("read_only", keys::read_only(service));
    }
    if let Some(replication) = &service.replication {
        let (table, found) = keys::replication(replication);
        add(table, found);
    }
    if let Some(patroni) = &service.patroni {
        add("patroni", of_patroni(patroni, service));
    }
    if let Some(listener) = service.listeners.first() {
        add("listener", keys::listener(listener));
    }
    if let Some(backend) = service.backends.first() {
        add("backend", keys::backend(backend));
        add("probe", keys::tls(backend));
    }
    lines
}

fn promoter_login(promoter: &Promoter) -> Vec<Line> {
    let Promoter::Postgres { login } = promoter else { return Vec::new() };
    let password = if login.password.is_some() { "***" } else { "not set" };
    vec![
        ("user".into(), format!("{:?}", login.user)),
        ("database".into(), format!("{:?}", login.database)),
        ("password_file".into(), password.into()),
    ]
}

fn of_patroni(patroni: &Patroni, service: &Service) -> Vec<Line> {
    let hosts = service.backends.iter().flat_map(|backend| &backend.addresses);
    let every: Vec<HostPort> =
        hosts.map(|address| HostPort { host: address.host.clone(), port: Patroni::PORT }).collect();
    let mut lines = keys::patroni(patroni);
    if let Some((_, value)) = lines.iter_mut().find(|(key, _)| key == "addresses")
        && patroni.addresses == every
    {
        *value = format!("{IN_WORDS}every backend's host, port {}", Patroni::PORT);
    }
    lines
}
