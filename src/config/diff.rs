//! What a reload changes: what can be applied to a running daemon, what needs a restart, and both in words. Applies
//! nothing.

pub(in crate::config) mod keys;

use std::net::SocketAddr;

use self::keys::Line;
use super::raw::service_path;
use super::{Config, Service};
use crate::types::{BackendName, ServiceName};

/// The difference between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Services in which something changes live; those without a change are not listed.
    pub services: Vec<ServiceDiff>,
    /// Tokens or host names of the admin interface.
    pub admin: bool,
    /// Key paths whose change takes a restart.
    pub restart_only: Vec<String>,
    summary: Vec<String>,
}

/// What changes live in a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDiff {
    /// Which service.
    pub name: ServiceName,
    /// By address.
    pub listeners: Changes<SocketAddr>,
    /// By name.
    pub backends: Changes<BackendName>,
    /// Anything in `[service.NAME.probe]`, the password included.
    pub probe: bool,
    /// Anything in `[service.NAME.failover]`, the promoter's login included.
    pub failover: bool,
    /// Anything in `[service.NAME.cockroach_cloud]` or `[service.NAME.cockroach_sql]`, secrets included, or which of
    /// them there is.
    pub replication: bool,
    /// Anything in `[service.NAME.read_only]`.
    pub read_only: bool,
    /// Anything in `[service.NAME.patroni]`, the password included.
    pub patroni: bool,
    /// Anything in `[service.NAME.connection]`.
    pub connection: bool,
}

/// What came, went and is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<K> {
    /// Only in the new one.
    pub added: Vec<K>,
    /// Only in the old one.
    pub removed: Vec<K>,
    /// In both, but different.
    pub changed: Vec<K>,
}

/// Compares the running configuration with a new one.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut diff = Diff::default();
    diff.daemon(old, new);
    for service in &old.services {
        if find(new, &service.name).is_none() {
            let path = service_path(service.name.as_str());
            diff.restart(path, "removed");
        }
    }
    for service in &new.services {
        match find(old, &service.name) {
            Some(old) => diff.service(old, service),
            None => diff.restart(service_path(service.name.as_str()), "added"),
        }
    }
    diff
}

/// The new configuration as far as it can be applied live: what takes a restart stays as it is in `old`.
pub fn live_part(old: &Config, new: &Config) -> Config {
    let mut live = old.clone();
    live.admin.token_file.clone_from(&new.admin.token_file);
    live.admin.tokens.clone_from(&new.admin.tokens);
    live.admin.hosts.clone_from(&new.admin.hosts);
    live.admin.credentials.clone_from(&new.admin.credentials);
    for service in &mut live.services {
        if let Some(new) = find(new, &service.name) {
            let old = std::mem::replace(service, new.clone());
            (service.kind, service.workers) = (old.kind, old.workers);
            // A probe that shows no timelines proves nothing of a latch that has one, nor the other way round.
            if old.shows_lines() != new.shows_lines() {
                (service.probe, service.failover, service.patroni) = (old.probe, old.failover, old.patroni);
            }
        }
    }
    live
}

fn find<'a>(config: &'a Config, name: &ServiceName) -> Option<&'a Service> {
    config.services.iter().find(|service| service.name == *name)
}

impl Diff {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.admin && self.restart_only.is_empty()
    }

    /// One line per change, those that take a restart last.
    pub fn summary(&self) -> Vec<String> {
        self.summary.clone()
    }

    fn say(&mut self, line: String) {
        // Live changes stand before those that take a restart.
        let live = self.summary.len() - self.restart_only.len();
        self.summary.insert(live, line);
    }

    fn restart(&mut self, path: String, change: impl AsRef<str>) {
        self.summary.push(format!("{path}: {} (needs a restart)", change.as_ref()));
        self.restart_only.push(path);
    }

    fn daemon(&mut self, old: &Config, new: &Config) {
        let text = |value: Option<String>| value.unwrap_or_else(|| "off".into());
        let address = |address: Option<SocketAddr>| text(address.map(|address| address.to_string()));
        let path = |path: &std::path::Path| path.display().to_string();
        let rows = [
            ("admin.listen", address(old.admin.listen), address(new.admin.listen)),
            ("admin.socket", text(old.admin.socket.as_deref().map(path)), text(new.admin.socket.as_deref().map(path))),
            ("admin.metrics_listen", address(old.admin.metrics_listen), address(new.admin.metrics_listen)),
            ("state.path", path(&old.state.path), path(&new.state.path)),
        ];
        for (key, old, new) in rows {
            if old != new {
                self.restart(key.to_owned(), format!("{old} → {new}"));
            }
        }
        if old.admin.tokens != new.admin.tokens || old.admin.token_file != new.admin.token_file {
            self.admin = true;
            let mut names: Vec<&str> = new.admin.tokens.iter().map(|(name, _)| name.as_str()).collect();
            names.dedup();
            let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            self.say(format!("admin.token_file: read again, tokens for {names}"));
        }
        if old.admin.credentials != new.admin.credentials {
            self.admin = true;
            self.say("DB_USERNAME, DB_PASSWORD: read again, for GET /connection".to_owned());
        }
        if old.admin.hosts != new.admin.hosts {
            self.admin = true;
            let names = |hosts: &[String]| if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") };
            self.say(format!("admin.hosts: {} → {}", names(&old.admin.hosts), names(&new.admin.hosts)));
        }
    }

    fn service(&mut self, old: &Service, new: &Service) {
        let path = service_path(new.name.as_str());
        if old.kind != new.kind {
            let change = format!("{} → {}", keys::kind_word(old.kind), keys::kind_word(new.kind));
            self.restart(format!("{path}.kind"), change);
        }
        if old.workers != new.workers {
            self.restart(format!("{path}.workers"), format!("{} → {}", old.workers, new.workers));
        }
        let later = old.shows_lines() != new.shows_lines();
        if later {
            let kinds = [old, new].map(|service| service.probe.kind.as_str());
            self.restart(format!("{path}.probe"), format!("kind \"{}\" → \"{}\", and failover", kinds[0], kinds[1]));
        }
        let service = ServiceDiff {
            name: new.name.clone(),
            listeners: changes(&old.listeners, &new.listeners, |listener| listener.address),
            backends: changes(&old.backends, &new.backends, |backend| backend.name.clone()),
            probe: old.probe != new.probe && !later,
            failover: old.failover != new.failover && !later,
            replication: old.replication != new.replication,
            read_only: old.read_only != new.read_only,
            patroni: old.patroni != new.patroni && !later,
            connection: old.connection != new.connection,
        };
        self.say_all(&format!("{path}.listener "), &service.listeners, |address| {
            [old, new].map(|service| {
                let found = service.listeners.iter().find(|l| l.address == *address);
                found.map(keys::listener).unwrap_or_default()
            })
        });
        self.say_all(&format!("{path}.backend."), &service.backends, |name| {
            [old, new].map(|service| {
                let found = service.backends.iter().find(|b| b.name == *name);
                found.map(|b| [keys::backend(b), keys::tls(b)].concat()).unwrap_or_default()
            })
        });
        let sections = [
            ("probe", service.probe, [old, new].map(|s| keys::probe(&s.probe))),
            ("failover", service.failover, [old, new].map(keys::failover)),
            ("read_only", service.read_only, [old, new].map(keys::read_only)),
            ("patroni", service.patroni, [old, new].map(|s| s.patroni.as_ref().map(keys::patroni).unwrap_or_default())),
            ("connection", service.connection, [old, new].map(|s| keys::connection(&s.connection))),
        ];
        for (name, _, lines) in sections.iter().filter(|(_, differs, _)| *differs) {
            self.say(format!("{path}.{name}: {}", words(lines)));
        }
        if service.replication {
            self.replication(&path, [old, new]);
        }
        if !service.is_empty() {
            self.services.push(service);
        }
    }

    fn replication(&mut self, path: &str, services: [&Service; 2]) {
        match services.map(|service| service.replication.as_ref().map(keys::replication)) {
            [Some((old, before)), Some((new, after))] if old == new => {
                self.say(format!("{path}.{new}: {}", words(&[before, after])));
            }
            [old, new] => {
                old.into_iter().for_each(|(table, _)| self.say(format!("{path}.{table}: removed")));
                new.into_iter().for_each(|(table, _)| self.say(format!("{path}.{table}: added")));
            }
        }
    }

    fn say_all<K: std::fmt::Display>(
        &mut self,
        path: &str,
        changes: &Changes<K>,
        lines: impl Fn(&K) -> [Vec<Line>; 2],
    ) {
        for key in &changes.removed {
            self.say(format!("{path}{key}: removed"));
        }
        for key in &changes.added {
            self.say(format!("{path}{key}: added"));
        }
        for key in &changes.changed {
            self.say(format!("{path}{key}: {}", words(&lines(key))));
        }
    }
}

impl ServiceDiff {
    /// Nothing changes live.
    pub fn is_empty(&self) -> bool {
        let sections = [self.probe, self.failover, self.replication, self.patroni, self.read_only, self.connection];
        self.listeners.is_empty() && self.backends.is_empty() && !sections.contains(&true)
    }
}

impl<K> Changes<K> {
    /// Nothing came, went or is different.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

fn changes<T: PartialEq, K: PartialEq>(old: &[T], new: &[T], key: impl Fn(&T) -> K) -> Changes<K> {
    let same = |item: &T, others: &[T]| others.iter().any(|other| key(other) == key(item));
    let only = |these: &[T], others: &[T]| these.iter().filter(|item| !same(item, others)).map(&key).collect();
    let differs = |item: &&T| same(item, old) && !old.contains(item);
    Changes { added: only(new, old), removed: only(old, new), changed: new.iter().filter(differs).map(&key).collect() }
}

/// `interval "2s" → "1s", fall 3 → 2`.
fn words([old, new]: &[Vec<Line>; 2]) -> String {
    let find = |lines: &[Line], key: &str| lines.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
    let mut keys: Vec<&String> = new.iter().chain(old).map(|(key, _)| key).collect();
    let mut seen = Vec::new();
    keys.retain(|key| {
        let first = !seen.contains(key);
        seen.push(*key);
        first
    });
    let unset = || "not set".to_owned();
    let said: Vec<String> = keys
        .into_iter()
        .map(|key| (key, find(old, key).unwrap_or_else(unset), find(new, key).unwrap_or_else(unset)))
        .filter(|(_, old, new)| old != new)
        .map(|(key, old, new)| format!("{key} {old} → {new}"))
        .collect();
    if said.is_empty() {
        "a certificate, a secret, a password or a command's arguments changed".into()
    } else {
        said.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::env::Env;
    use super::super::{raw, validate};
    use super::*;

    const FILE: &str = "
        [state]
        path = '/var/lib/pgpivot'
        [service.main]
        kind = 'postgres'
        workers = 2
        [[service.main.listener]]
        address = '127.0.0.1:26257'
        [[service.main.listener]]
        address = '127.0.0.1:26258'
        target = 'read_only'
        [[service.main.backend]]
        name = 'us-east'
        addresses = ['db1:5432']
        role = 'primary'
        [[service.main.backend]]
        name = 'us-west'
        addresses = ['db2:5432']
        [service.main.probe]
        password_file = '/p'
        interval = '2s'
        [service.main.failover]
        delay = '0s'
        [admin]
        token_file = '/t'
    ";

    fn config(text: &str, password: &str, tokens: &str) -> Config {
        let mut raw = raw::parse(text);
        raw.files.insert("/p".into(), crate::types::Secret::new(password.into()));
        raw.files.insert("/t".into(), crate::types::Secret::new(tokens.into()));
        validate::build(raw, &Env::default(), 2).unwrap().0
    }

    const TOKENS: &str = "alice:0123456789abcdef";

    /// What replacing each of these texts changes.
    fn after(changes: &[(&str, &str)]) -> (Config, Config, Diff) {
        let mut text = FILE.to_owned();
        for (old, new) in changes {
            assert!(text.contains(old), "{old}");
            text = text.replacen(old, new, 1);
        }
        let (old, new) = (config(FILE, "p", TOKENS), config(&text, "p", TOKENS));
        let found = diff(&old, &new);
        (old, new, found)
    }

    #[test]
    fn the_same_file_read_again_changes_nothing() {
        let (_, _, diff) = after(&[]);
        assert!(diff.is_empty());
        assert_eq!(diff.summary(), Vec::<String>::new());
    }

    #[test]
    fn listeners_come_go_and_change_by_address() {
        let (_, _, diff) = after(&[("127.0.0.1:26258", "127.0.0.1:26259"), ("26257'", "26257'\nmax_connections = 5")]);
        let service = &diff.services[0];
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(service.listeners.added, [address(26259)]);
        assert_eq!(service.listeners.removed, [address(26258)]);
        assert_eq!(service.listeners.changed, [address(26257)]);
        assert!(service.backends.is_empty() && !service.probe && !service.failover && !service.connection);
        assert_eq!(
            diff.summary(),
            [
                "service.main.listener 127.0.0.1:26258: removed",
                "service.main.listener 127.0.0.1:26259: added",
                "service.main.listener 127.0.0.1:26257: max_connections 10000 → 5"
            ]
        );
    }

    #[test]
    fn backends_and_settings_are_said_by_key_old_and_new() {
        let (_, _, diff) = after(&[
            ("db2:5432']", "db3:5432']\nweight = 5"),
            ("us-east", "us-north"),
            ("interval = '2s'", "interval = '1s'"),
            ("delay = '0s'", "delay = '5s'"),
        ]);
        let service = &diff.services[0];
        assert_eq!(service.backends.changed, [BackendName::new("us-west")]);
        assert!(service.probe && service.failover && diff.restart_only.is_empty());
        assert_eq!(
            diff.summary(),
            [
                "service.main.backend.us-east: removed",
                "service.main.backend.us-north: added",
                "service.main.backend.us-west: addresses [\"db2:5432\"] → [\"db3:5432\"], weight 100 → 5",
                "service.main.probe: interval \"2s\" → \"1s\", down_interval \"2s\" → \"1s\"",
                "service.main.failover: delay \"0s\" → \"5s\""
            ]
        );
    }

    #[test]
    fn secrets_read_again_are_noticed_and_not_shown() {
        let old = config(FILE, "hunter2", TOKENS);
        let diff = diff(&old, &config(FILE, "hunter3", "alice:fedcba9876543210\nbob:00112233445566778"));
        assert!(diff.admin && diff.services[0].probe && diff.services[0].failover);
        assert_eq!(
            diff.summary(),
            [
                "admin.token_file: read again, tokens for alice, bob",
                "service.main.probe: a certificate, a secret, a password or a command's arguments changed",
                "service.main.failover: a certificate, a secret, a password or a command's arguments changed"
            ]
        );
    }

    const CLUSTERS: &str = "
        [service.main]
        kind = 'cockroach'
        [service.main.cockroach_cloud]
        secret_file = '/p'
        [[service.main.backend]]
        name = 'east'
        cluster_id = '00000000-0000-0000-0000-000000000001'
        role = 'primary'
        [[service.main.backend]]
        name = 'west'
        cluster_id = '00000000-0000-0000-0000-000000000002'
        addresses = ['west:26257']
    ";

    /// What a reload of these clusters says when a text is replaced and the secret is this one.
    fn reload(from: &str, to: &str, secret: &str) -> Vec<String> {
        assert!(CLUSTERS.contains(from), "{from}");
        let (old, new) = (config(CLUSTERS, "hunter2", ""), config(&CLUSTERS.replacen(from, to, 1), secret, ""));
        let found = diff(&old, &new);
        assert_eq!(found.restart_only, Vec::<String>::new());
        assert_eq!(live_part(&old, &new), new);
        found.summary()
    }

    #[test]
    fn where_replication_is_steered_changes_live_and_its_secret_is_never_shown() {
        assert_eq!(reload("/p", "/p", "hunter2"), Vec::<String>::new());
        assert_eq!(
            reload("/p", "/p", "hunter3"),
            ["service.main.cockroach_cloud: a certificate, a secret, a password or a command's arguments changed"]
        );
        let more = "secret_file = '/p'\n timeout = '5s'\n stream_id = '0A000000-0000-0000-0000-000000000003'";
        assert_eq!(
            reload("secret_file = '/p'", more, "hunter2"),
            ["service.main.cockroach_cloud: timeout \"10s\" → \"5s\", stream_id not set → \
                 \"0a000000-0000-0000-0000-000000000003\""]
        );
        assert_eq!(
            reload("000000000002'", "00000000000A'", "hunter2"),
            ["service.main.backend.west: cluster_id \"00000000-0000-0000-0000-000000000002\" → \
                 \"00000000-0000-0000-0000-00000000000a\""]
        );
    }

    #[test]
    fn a_service_that_is_steered_otherwise_says_which_table_went_and_which_came() {
        let text = CLUSTERS.replace("cluster_id", "#").replace("'east'", "'east'\n addresses = ['east:26257']");
        let text = text.replace("cockroach_cloud]\n        secret_file = '/p'", "cockroach_sql]\n        user = 'x'");
        let found = diff(&config(CLUSTERS, "hunter2", ""), &config(&text, "hunter2", ""));
        assert!(found.services[0].replication && found.restart_only.is_empty());
        let said = found.summary();
        let at = |line: &str| said.iter().any(|found| found == line);
        assert!(at("service.main.cockroach_cloud: removed") && at("service.main.cockroach_sql: added"), "{said:?}");
        assert!(at("service.main.failover: promoter \"cockroach_cloud\" → \"cockroach_sql\""), "{said:?}");
    }

    #[test]
    fn what_takes_a_restart_is_named_last_and_not_part_of_what_is_applied() {
        let (old, new, diff) = after(&[
            ("/var/lib/pgpivot", "/srv"),
            ("workers = 2", "workers = 4"),
            ("[admin]", "[admin]\nlisten = '127.0.0.1:9404'"),
            ("interval = '2s'", "interval = '1s'"),
        ]);
        assert_eq!(diff.restart_only, ["admin.listen", "state.path", "service.main.workers"]);
        assert_eq!(
            diff.summary(),
            [
                "service.main.probe: interval \"2s\" → \"1s\", down_interval \"2s\" → \"1s\"",
                "admin.listen: 127.0.0.1:8404 → 127.0.0.1:9404 (needs a restart)",
                "state.path: /var/lib/pgpivot → /srv (needs a restart)",
                "service.main.workers: 2 → 4 (needs a restart)"
            ]
        );
        let live = live_part(&old, &new);
        assert_eq!(
            (live.admin.listen, live.state.clone(), live.services[0].workers),
            (old.admin.listen, old.state.clone(), 2)
        );
        assert_eq!(live.services[0].probe, new.services[0].probe);
        assert!(super::diff(&live, &new).services.is_empty());
    }

    #[test]
    fn services_come_and_go_with_a_restart() {
        let (old, new, diff) = after(&[(
            "[admin]",
            "[service.other]\nkind = 'postgres'\n[[service.other.backend]]\nname = 'x'\naddresses = ['x:1']\n[admin]",
        )]);
        assert_eq!(diff.summary(), ["service.other: added (needs a restart)"]);
        assert_eq!(super::diff(&new, &old).summary(), ["service.other: removed (needs a restart)"]);
        assert_eq!(live_part(&old, &new), old);
    }
}
