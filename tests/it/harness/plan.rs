//! What configuration a daemon is started with: the example of a PostgreSQL pair, and what a test changes in it.

use super::cluster::Cluster;
use super::daemon::Daemon;
use super::eventually::SOON;
use super::identity::{self, Identity};
use super::ports::free_port;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use tempfile::TempDir;
use toml::{Table, Value};

/// A configuration to be started, and what stands in its environment.
#[derive(Debug)]
pub struct DaemonPlan {
    pub(super) config: Table,
    pub(super) environment: Vec<(String, String)>,
    pub(super) home: TempDir,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl DaemonPlan {
    /// The example configuration of a PostgreSQL pair with the fast preset; the first server is the primary to begin with.
    pub fn new(servers: &[&Cluster]) -> Self {
        let home = tempfile::Builder::new().prefix("pgpivot-it-").tempdir().unwrap();
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let (listen, admin) = (loopback(free_port()), loopback(free_port()));
        let password = home.path().join("password");
        fs::write(&password, "pgpivot\n").unwrap();
        fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!(
            r#"
            admin = {{ listen = "{admin}", socket = "{home}/admin.sock" }}
            state = {{ path = "{home}/state" }}
            [service.main]
            kind = "postgres"
            listener = [{{ address = "{listen}" }}]
            backend = []
            probe = {{ kind = "sql", user = "pgpivot", password_file = "{home}/password", detection = "fast" }}
            failover = {{ promoter = "postgres", authority = "self", automatic = true }}
            "#,
            home = home.path().display()
        );
        let mut plan = Self { config: text.parse().unwrap(), environment: Vec::new(), home, listen, admin };
        let backends = servers.iter().enumerate().map(|(i, server)| Value::Table(backend(server, i == 0))).collect();
        plan.service().insert("backend".into(), Value::Array(backends));
        plan
    }

    /// Two clusters of a (simulated) CockroachDB Cloud in small times: name, id and SQL address of each, the primary first.
    pub fn clusters(api: &str, secret: &str, clusters: [(&str, String, SocketAddr); 2]) -> Self {
        let home = tempfile::Builder::new().prefix("pgpivot-it-").tempdir().unwrap();
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let (listen, admin) = (loopback(free_port()), loopback(free_port()));
        let secret_file = home.path().join("secret");
        fs::write(&secret_file, secret).unwrap();
        fs::set_permissions(&secret_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!(
            r#"
            admin = {{ listen = "{admin}", socket = "{home}/admin.sock" }}
            state = {{ path = "{home}/state" }}
            [service.main]
            kind = "cockroach"
            listener = [{{ address = "{listen}" }}]
            backend = []
            cockroach_cloud = {{ api_url = "{api}", secret_file = "{home}/secret", replicated_time_refresh = "1s", timeout = "2s" }}
            probe = {{ kind = "startup", interval = "400ms", timeout = "1s", fall = 2, rise = 1 }}
            failover = {{ promoter = "cockroach_cloud", delay = "500ms", cooldown = "1s", verify_wait = "5s", drain_timeout = "1s" }}
            "#,
            home = home.path().display()
        );
        let mut plan = Self { config: text.parse().unwrap(), environment: Vec::new(), home, listen, admin };
        let backend = |(i, (name, id, sql)): (usize, (&str, String, SocketAddr))| {
            let mut table = Table::new();
            table.insert("name".into(), name.into());
            table.insert("cluster_id".into(), id.into());
            table.insert("addresses".into(), vec![sql.to_string()].into());
            table.insert("role".into(), if i == 0 { "primary" } else { "standby" }.into());
            Value::Table(table)
        };
        let backends = clusters.into_iter().enumerate().map(backend).collect();
        plan.service().insert("backend".into(), Value::Array(backends));
        plan
    }

    /// A key of `[service.main.failover]`.
    pub fn failover(self, key: &str, value: impl Into<Value>) -> Self {
        self.set("failover", key, value)
    }

    /// A key of `[service.main.probe]`.
    pub fn probe(self, key: &str, value: impl Into<Value>) -> Self {
        self.set("probe", key, value)
    }

    /// A key of `[service.main.read_only]`.
    pub fn read_only(self, key: &str, value: impl Into<Value>) -> Self {
        self.set("read_only", key, value)
    }

    /// A key of `[service.main.cockroach_sql]`.
    pub fn replication(self, key: &str, value: impl Into<Value>) -> Self {
        self.set("cockroach_sql", key, value)
    }

    /// A key of one `[[service.main.backend]]`.
    pub fn backend(mut self, name: &str, key: &str, value: impl Into<Value>) -> Self {
        let backends = self.service()["backend"].as_array_mut().unwrap();
        let backend = backends.iter_mut().find(|backend| backend["name"].as_str() == Some(name)).unwrap();
        backend.as_table_mut().unwrap().insert(key.into(), value.into());
        self
    }

    pub(super) fn set(mut self, section: &str, key: &str, value: impl Into<Value>) -> Self {
        let table = self.service().entry(section).or_insert_with(|| Value::Table(Table::new()));
        table.as_table_mut().unwrap().insert(key.into(), value.into());
        self
    }

    /// Another address for applications.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self.service()["listener"][0]["address"] = address.to_string().into();
        self
    }

    /// Another address for page and API.
    pub fn admin(mut self, address: SocketAddr) -> Self {
        self.admin = address;
        self.config["admin"]["listen"] = address.to_string().into();
        self
    }

    /// Clusters that are known by their ids alone.
    pub fn without_addresses(mut self) -> Self {
        for backend in self.service()["backend"].as_array_mut().unwrap() {
            backend.as_table_mut().unwrap().remove("addresses");
        }
        self
    }

    /// Clients' TLS ends at the listener.
    pub fn terminate_tls(mut self, identity: &Identity, require: bool) -> Self {
        let listener = self.service()["listener"][0].as_table_mut().unwrap();
        listener.insert("tls".into(), identity.terminate(require));
        self
    }

    /// Every server must show this certificate, or one that it signed.
    pub fn verify_servers(self, ca_file: &Path) -> Self {
        self.probe("tls", identity::verify_full(ca_file))
    }

    /// Servers are spoken to in clear.
    pub fn plaintext_servers(self) -> Self {
        let mut tls = Table::new();
        tls.insert("mode".into(), "disable".into());
        self.probe("tls", tls)
    }

    /// Probes that connect and see nothing more: everything is up that listens, and nobody is promoted.
    pub fn only_connects(mut self) -> Self {
        let tls = self.service()["probe"].get("tls").cloned();
        let mut probe = Table::new();
        probe.insert("kind".into(), "tcp".into());
        probe.extend(tls.map(|tls| ("tls".to_owned(), tls)));
        self.service().insert("probe".into(), Value::Table(probe));
        self.failover("promoter", "none")
    }

    /// A second listener that leads to standbys, and its address.
    pub fn read_only_listener(mut self) -> (Self, SocketAddr) {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
        let mut listener = Table::new();
        listener.insert("address".into(), address.to_string().into());
        listener.insert("target".into(), "read_only".into());
        self.service()["listener"].as_array_mut().unwrap().push(Value::Table(listener));
        (self, address)
    }

    /// A second service in front of the same servers, which calls them and their addresses otherwise.
    pub fn beside(mut self, name: &str, servers: &[(&str, &Cluster)]) -> Self {
        let mut other = self.service().clone();
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
        other["listener"][0]["address"] = listen.to_string().into();
        let mut backends = Vec::new();
        for (i, (called, server)) in servers.iter().enumerate() {
            let mut table = backend(server, i == 0);
            table.insert("name".into(), (*called).into());
            table.insert("addresses".into(), vec![format!("[::ffff:127.0.0.1]:{}", server.port)].into());
            backends.push(Value::Table(table));
        }
        other.insert("backend".into(), Value::Array(backends));
        self.config["service"].as_table_mut().unwrap().insert(name.into(), Value::Table(other));
        self
    }

    /// Commands over TCP need this token.
    pub fn token(mut self, name: &str, token: &str) -> Self {
        let file = self.home.path().join("tokens");
        fs::write(&file, format!("{name}:{token}\n")).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let admin = self.config["admin"].as_table_mut().unwrap();
        admin.insert("token_file".into(), file.display().to_string().into());
        self
    }

    /// Another state directory.
    pub fn state(mut self, path: &Path) -> Self {
        self.config["state"]["path"] = path.display().to_string().into();
        self
    }

    /// A variable of the daemon's environment, which is empty otherwise.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn service(&mut self) -> &mut Table {
        service(&mut self.config)
    }

    /// Starts the daemon without waiting for anything.
    pub fn launch(self) -> Daemon {
        let daemon = Daemon::install(self);
        daemon.launch();
        daemon
    }

    /// Starts the daemon and waits until it lets clients through and could promote the standby.
    pub async fn start(self) -> Daemon {
        let daemon = self.launch();
        daemon.until("open and armed", SOON, |s| s.open && s.armed).await;
        daemon
    }
}

fn backend(server: &Cluster, is_primary: bool) -> Table {
    let mut table = Table::new();
    table.insert("name".into(), server.name.clone().into());
    table.insert("addresses".into(), vec![server.address().to_string()].into());
    table.insert("role".into(), if is_primary { "primary" } else { "standby" }.into());
    table
}

/// `[service.main]`.
pub(super) fn service(config: &mut Table) -> &mut Table {
    config["service"]["main"].as_table_mut().unwrap()
}
