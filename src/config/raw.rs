//! The mirror of the TOML file: every key that exists, nothing judged. Durations, sizes, addresses and words are text
//! here; what they mean, and the defaults, is `validate`'s business. Reading the text into the mirror is `raw/read`'s.

pub mod accepts;
pub mod leaf;
pub mod problem;
pub mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use self::leaf::{Flag, Number, Numbers, Share, Text, Texts};
use self::problem::Problems;
pub use self::read::parse;
use crate::types::Secret;

/// A whole file.
#[derive(Debug, Clone, Default)]
pub struct Raw {
    /// `[admin]`.
    pub admin: Admin,
    /// `[state]`.
    pub state: State,
    /// `[service.NAME]`, in the order of the file.
    pub services: Vec<(String, Service)>,
    /// Contents of the files that hold secrets, by their path as written; filled by `source`, which has already
    /// reported the ones that cannot be read.
    pub files: BTreeMap<PathBuf, Secret>,
    /// What is wrong with the text so far, warnings, and which keys an environment variable has set.
    pub problems: Problems,
    /// The text is no TOML: nothing else can be said about it.
    pub broken: bool,
}

impl Raw {
    /// The files that hold secrets: (key path, file).
    pub fn secret_files(&self) -> Vec<(String, PathBuf)> {
        let mut files = Vec::new();
        let mut add = |path: String, file: &Option<Text>| {
            if let Some(Text(file)) = file
                && !file.is_empty()
            {
                files.push((path, PathBuf::from(file)));
            }
        };
        add("admin.token_file".into(), &self.admin.token_file);
        for (name, service) in &self.services {
            let path = service_path(name);
            add(format!("{path}.probe.password_file"), &service.probe.password_file);
            add(
                format!("{path}.failover.promoter_login.password_file"),
                &service.failover.promoter_login.password_file,
            );
            if let Some(cloud) = &service.cockroach_cloud {
                add(format!("{path}.cockroach_cloud.secret_file"), &cloud.secret_file);
            }
            if let Some(sql) = &service.cockroach_sql {
                add(format!("{path}.cockroach_sql.password_file"), &sql.password_file);
            }
            if let Some(patroni) = &service.patroni {
                add(format!("{path}.patroni.password_file"), &patroni.password_file);
            }
        }
        files
    }

    /// The contents of a file that holds a secret, when it was read.
    pub fn secret(&self, file: &Path) -> Option<&Secret> {
        self.files.get(file)
    }
}

/// The key path of a service, quoted where TOML wants quotes.
pub fn service_path(name: &str) -> String {
    format!("service.{}", quoted(name))
}

/// The key path of the `index`-th backend: by its name when it has one, else by its number from 1.
pub fn backend_path(service: &str, index: usize, name: Option<&str>) -> String {
    match name {
        Some(name) if !name.is_empty() => format!("{service}.backend.{}", quoted(name)),
        _ => format!("{service}.backend#{}", index + 1),
    }
}

/// The key path of the `index`-th listener, numbered from 1.
pub fn listener_path(service: &str, index: usize) -> String {
    format!("{service}.listener#{}", index + 1)
}

/// A key as it would stand in a TOML header.
pub fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") }
}

/// `[admin]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address, or `off`.
    pub listen: Option<Text>,
    /// Path of a unix socket.
    pub socket: Option<Text>,
    /// Path of a file with `name:token` lines.
    pub token_file: Option<Text>,
    /// Names that the page is called by.
    pub hosts: Option<Texts>,
    /// Address of a listener that serves only metrics.
    pub metrics_listen: Option<Text>,
}

/// `[state]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// A directory.
    pub path: Option<Text>,
}

/// `[service.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// Word.
    pub kind: Option<Text>,
    /// Word.
    pub engine: Option<Text>,
    /// Threads; 0 = cores.
    pub workers: Option<Number>,
    /// `[[service.NAME.listener]]`.
    pub listener: Vec<Listener>,
    /// `[[service.NAME.backend]]`.
    pub backend: Vec<Backend>,
    /// `[service.NAME.probe]`.
    pub probe: Probe,
    /// `[service.NAME.failover]`.
    pub failover: Failover,
    /// `[service.NAME.cockroach_cloud]`.
    pub cockroach_cloud: Option<CockroachCloud>,
    /// `[service.NAME.cockroach_sql]`.
    pub cockroach_sql: Option<CockroachSql>,
    /// `[service.NAME.read_only]`.
    pub read_only: ReadOnly,
    /// `[service.NAME.patroni]`.
    pub patroni: Option<Patroni>,
    /// `[service.NAME.connection]`.
    pub connection: Connection,
}

/// `[service.NAME.read_only]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOnly {
    /// Duration, or `off`.
    pub max_lag: Option<Text>,
}

/// `[[service.NAME.listener]]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Address.
    pub address: Option<Text>,
    /// Word.
    pub mode: Option<Text>,
    /// Word.
    pub target: Option<Text>,
    /// Count.
    pub max_connections: Option<Number>,
    /// `tls = { … }`.
    pub tls: ListenerTls,
}

/// `tls = { … }` of a listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    /// Word.
    pub mode: Option<Text>,
    /// Path of a PEM file.
    pub cert_file: Option<Text>,
    /// Path of a PEM file.
    pub key_file: Option<Text>,
    /// Plaintext is refused.
    pub require: Option<Flag>,
}

/// `[[service.NAME.backend]]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// Name.
    pub name: Option<Text>,
    /// `host:port` each.
    pub addresses: Option<Texts>,
    /// Word.
    pub role: Option<Text>,
    /// Share.
    pub weight: Option<Number>,
    /// Order.
    pub priority: Option<Number>,
    /// May be promoted.
    pub promote: Option<Flag>,
    /// `host:port`.
    pub replication_address: Option<Text>,
    /// A UUID.
    pub cluster_id: Option<Text>,
    /// Its name in Patroni.
    pub member: Option<Text>,
    /// `tls = { … }`; what it leaves out comes from the probe's.
    pub tls: Tls,
}

/// `tls = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Word.
    pub mode: Option<Text>,
    /// Path of a PEM bundle.
    pub ca_file: Option<Text>,
    /// Host name.
    pub server_name: Option<Text>,
}

/// `[service.NAME.probe]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Word.
    pub kind: Option<Text>,
    /// Login.
    pub user: Option<Text>,
    /// Path.
    pub password_file: Option<Text>,
    /// Never a key of the file: only the environment sets it.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// Name.
    pub database: Option<Text>,
    /// For all backends that do not say otherwise.
    pub tls: Tls,
    /// For kind `http`.
    pub http: Option<Http>,
    /// A preset.
    pub detection: Option<Text>,
    /// Duration.
    pub interval: Option<Text>,
    /// Duration.
    pub fast_interval: Option<Text>,
    /// Duration.
    pub down_interval: Option<Text>,
    /// Duration.
    pub timeout: Option<Text>,
    /// Count.
    pub fall: Option<Number>,
    /// Count.
    pub rise: Option<Number>,
    /// Share of `interval`.
    pub jitter: Option<Share>,
    /// Duration.
    pub hang_trigger: Option<Text>,
    /// Passive evidence may advance the decision.
    pub passive: Option<Flag>,
}

/// `[service.NAME.probe.http]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Path with query.
    pub path: Option<Text>,
    /// Port.
    pub port: Option<Number>,
    /// HTTPS.
    pub tls: Option<Flag>,
    /// Statuses.
    pub expect_status: Option<Numbers>,
    /// Text.
    pub expect_body: Option<Text>,
    /// Roles.
    pub primary_only: Option<Flag>,
}

/// `[service.NAME.failover]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Failover {
    /// Without an operator.
    pub automatic: Option<Flag>,
    /// Duration.
    pub delay: Option<Text>,
    /// Duration.
    pub cooldown: Option<Text>,
    /// Count.
    pub max_per_day: Option<Number>,
    /// Size, for kind cockroach a duration.
    pub max_lag: Option<Text>,
    /// Duration.
    pub max_disconnect: Option<Text>,
    /// Word.
    pub witness: Option<Text>,
    /// Duration.
    pub hold_timeout: Option<Text>,
    /// Count.
    pub max_held: Option<Number>,
    /// Count.
    pub max_held_per_address: Option<Number>,
    /// Per second.
    pub release_rate: Option<Number>,
    /// Duration.
    pub drain_timeout: Option<Text>,
    /// Word.
    pub promoter: Option<Text>,
    /// argv.
    pub promote_command: Option<Texts>,
    /// Duration.
    pub promote_timeout: Option<Text>,
    /// When another login than the probe's promotes.
    pub promoter_login: PromoterLogin,
    /// Word.
    pub authority: Option<Text>,
    /// Word.
    pub fence: Option<Text>,
    /// argv.
    pub fence_command: Option<Texts>,
    /// Old primaries are made read-only.
    pub soft_fence: Option<Flag>,
    /// argv.
    pub rejoin_command: Option<Texts>,
    /// Duration.
    pub rejoin_timeout: Option<Text>,
    /// Sides that always serve.
    pub standby_serves: Option<Flag>,
    /// Word.
    pub foreign_promotion: Option<Text>,
    /// Word.
    pub sync_after_failover: Option<Text>,
    /// Word.
    pub survivors: Option<Text>,
    /// argv.
    pub follow_command: Option<Texts>,
    /// Duration.
    pub recovery_patience: Option<Text>,
    /// Duration.
    pub restart_grace: Option<Text>,
    /// Duration.
    pub hung_grace: Option<Text>,
    /// Duration.
    pub verify_wait: Option<Text>,
}

/// `promoter_login = { … }`; what it leaves out is the probe's.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromoterLogin {
    /// Login.
    pub user: Option<Text>,
    /// Path.
    pub password_file: Option<Text>,
    /// Name.
    pub database: Option<Text>,
}

/// `[service.NAME.cockroach_cloud]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CockroachCloud {
    /// Address of the API.
    pub api_url: Option<Text>,
    /// Path.
    pub secret_file: Option<Text>,
    /// Never a key of the file: only the environment sets it.
    #[serde(skip)]
    pub secret: Option<Secret>,
    /// Duration.
    pub timeout: Option<Text>,
    /// A UUID.
    pub stream_id: Option<Text>,
    /// A time.
    pub failover_at: Option<Text>,
    /// Duration.
    pub replicated_time_refresh: Option<Text>,
}

/// `[service.NAME.cockroach_sql]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CockroachSql {
    /// Login.
    pub user: Option<Text>,
    /// Path.
    pub password_file: Option<Text>,
    /// Name.
    pub database: Option<Text>,
    /// Name.
    pub virtual_cluster: Option<Text>,
    /// The old primary is stopped when it can be reached.
    pub stop_service: Option<Flag>,
    /// The promoted virtual cluster becomes the default target.
    pub default_target: Option<Flag>,
    /// Duration.
    pub replicated_time_refresh: Option<Text>,
}

/// `[service.NAME.patroni]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Patroni {
    /// `host:port` each.
    pub addresses: Option<Texts>,
    /// HTTPS.
    pub tls: Option<Flag>,
    /// Path of a PEM bundle.
    pub ca_file: Option<Text>,
    /// Path of our certificate.
    pub certificate: Option<Text>,
    /// Path of its key.
    pub key: Option<Text>,
    /// Login.
    pub user: Option<Text>,
    /// Path.
    pub password_file: Option<Text>,
    /// Never a key of the file: only the environment sets it.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// Duration.
    pub interval: Option<Text>,
    /// Duration.
    pub timeout: Option<Text>,
    /// Duration.
    pub order_timeout: Option<Text>,
}

/// `[service.NAME.connection]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// Duration.
    pub connect_timeout: Option<Text>,
    /// Duration.
    pub first_packet_timeout: Option<Text>,
    /// Duration.
    pub keepalive: Option<Text>,
    /// Duration.
    pub user_timeout: Option<Text>,
}
