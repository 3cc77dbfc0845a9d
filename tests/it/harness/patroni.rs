//! A cluster that Patroni leads: one etcd, and for every member an agent with a server of its own, all as Debian ships
//! them, on free ports, ended by their process ids.

use super::binaries::{as_account, existing, hand_over, postgres, run};
use super::eventually::{SOON, eventually};
use super::http;
use super::plan::{DaemonPlan, service};
use super::ports::free_port;
use super::processes::{descendants, lives, signal};
use super::template;
use pgpivot::patroni::model::Cluster;
use rustix::process::Signal;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use tempfile::TempDir;
use toml::{Table, Value};

/// The user of Patroni's `restapi.authentication`.
pub const USER: &str = "operator";
/// Its password.
pub const PASSWORD: &str = "hunter2";

/// The cluster. Everything is killed when dropped.
#[derive(Debug)]
pub struct Patroni {
    /// In the order of their names: `db1`, which starts as the leader, `db2` …
    pub members: Vec<Member>,
    etcd: Etcd,
}

/// One member.
#[derive(Debug)]
pub struct Member {
    /// In Patroni, and as a backend.
    pub name: String,
    /// Of its server.
    pub port: u16,
    /// Of its REST API.
    pub api: u16,
    home: TempDir,
    agent: Mutex<Option<Child>>,
}

impl Patroni {
    /// So many members, the first one the leader, all others streaming from it.
    pub async fn start(count: usize) -> Self {
        existing(Path::new("/usr/lib/python3/dist-packages/etcd/__init__.py"), "python3-etcd");
        let etcd = Etcd::start().await;
        let patroni = Self { members: (1..=count).map(Member::create).collect(), etcd };
        let first = &patroni.members[0];
        template::copy_to(&first.data());
        for member in &patroni.members {
            member.write_config(patroni.etcd.port);
        }
        first.launch();
        patroni.until("db1 leads", |cluster| cluster.leader().is_some_and(|m| m.name == "db1" && m.runs())).await;
        for member in &patroni.members[1..] {
            member.launch();
        }
        patroni.settled().await;
        patroni
    }

    /// Waits until there is a leader and every member runs on its timeline.
    pub async fn settled(&self) -> Cluster {
        let count = self.members.len();
        let stands = |cluster: &Cluster| {
            let line = cluster.leader().and_then(|leader| leader.timeline);
            let runs = cluster.members.iter().filter(|member| member.runs() && member.timeline == line).count();
            line.is_some() && runs == count
        };
        self.until("every member runs on one timeline", stands).await
    }

    /// Waits until Patroni shows this.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Cluster) -> bool) -> Cluster {
        eventually(&format!("Patroni shows: {what}"), SOON * 2, async || {
            let body = self.cluster().await.map_err(|e| format!("{e}\n{}", self.logs()))?;
            let cluster = Cluster::parse(body.as_bytes()).map_err(|e| format!("{e}: {body}"))?;
            if is_so(&cluster) { Ok(cluster) } else { Err(format!("{body}\n{}", self.logs())) }
        })
        .await
    }

    /// `GET /cluster` of the first member that answers.
    pub async fn cluster(&self) -> Result<String, String> {
        let mut last = String::new();
        for member in &self.members {
            match http::request(member.api_address(), "GET", "/cluster", "").await {
                Ok((200, body)) => return Ok(body),
                other => last = format!("{}: {other:?}", member.name),
            }
        }
        Err(last)
    }

    /// A member by its name.
    pub fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|member| member.name == name).unwrap()
    }

    /// `patronictl`, which must end well.
    pub fn ctl(&self, args: &[&str]) -> String {
        let program = existing(Path::new("/usr/bin/patronictl"), "patroni");
        let mut command = as_account(&program);
        command.arg("-c").arg(self.members[0].config_path()).args(args).env("HOME", "/nonexistent");
        String::from_utf8_lossy(&run(&mut command).stdout).into_owned()
    }

    fn logs(&self) -> String {
        let tail = |member: &Member| {
            let log = fs::read_to_string(member.home.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {}\n{}\n", member.name, lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        self.members.iter().map(tail).collect()
    }
}

impl Member {
    fn create(number: usize) -> Self {
        let home = tempfile::Builder::new().prefix("pgpivot-it-").tempdir().unwrap();
        hand_over(home.path());
        let (port, api) = (free_port(), free_port());
        Self { name: format!("db{number}"), port, api, home, agent: Mutex::new(None) }
    }

    /// Of its server.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Of its REST API.
    pub fn api_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.api).into()
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn config_path(&self) -> PathBuf {
        self.home.path().join("patroni.yml")
    }

    fn write_config(&self, etcd: u16) {
        let (name, api, port, home) = (&self.name, self.api, self.port, self.home.path().display());
        let bin = postgres("postgres").parent().unwrap().display().to_string();
        let text = format!(
            "scope: it
name: {name}
restapi:
  listen: 127.0.0.1:{api}
  connect_address: 127.0.0.1:{api}
  authentication: {{ username: {USER}, password: {PASSWORD} }}
etcd3: {{ host: '127.0.0.1:{etcd}' }}
bootstrap:
  dcs:
    ttl: 5
    loop_wait: 1
    retry_timeout: 2
    postgresql: {{ use_pg_rewind: false, use_slots: true }}
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: {home}/data
  bin_dir: {bin}
  pgpass: {home}/pgpass
  use_unix_socket: true
  authentication:
    superuser: {{ username: postgres }}
    replication: {{ username: replicator, password: replicator }}
  parameters: {{ unix_socket_directories: '{home}' }}
"
        );
        fs::write(self.config_path(), text).unwrap();
    }

    /// Starts its agent, which starts its server.
    pub fn launch(&self) {
        let log = File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let program = existing(Path::new("/usr/bin/patroni"), "patroni");
        let mut command: Command = as_account(&program);
        command.arg(self.config_path()).env("HOME", "/nonexistent").env("PYTHONDONTWRITEBYTECODE", "1");
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let earlier = self.agent.lock().unwrap().replace(child);
        assert!(earlier.is_none(), "{} runs already", self.name);
    }

    /// `kill -9` of its agent: its server goes on, and nobody renews its leader key.
    pub fn kill_agent(&self) {
        if let Some(mut agent) = self.agent.lock().unwrap().take() {
            let family = descendants(agent.id());
            let _ = agent.kill();
            let _ = agent.wait();
            // Helpers of the agent, but not the server, which is nobody's child.
            let server = self.postmaster();
            family.into_iter().filter(|pid| Some(*pid) != server).for_each(|pid| {
                if server.is_none_or(|server| !descendants(server).contains(&pid)) {
                    signal(pid, Signal::KILL);
                }
            });
        }
    }

    /// `kill -9` of its server, with all its processes.
    pub fn kill_server(&self) {
        let Some(postmaster) = self.postmaster() else { return };
        let family = descendants(postmaster);
        signal(postmaster, Signal::KILL);
        family.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }

    /// The postmaster's process id, while it lives.
    pub fn postmaster(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok().filter(|pid| lives(*pid))
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for member in &self.members {
            member.kill_agent();
            member.kill_server();
        }
    }
}

#[derive(Debug)]
struct Etcd {
    port: u16,
    child: Child,
    _home: TempDir,
}

impl Etcd {
    async fn start() -> Self {
        let home = tempfile::Builder::new().prefix("pgpivot-it-").tempdir().unwrap();
        hand_over(home.path());
        let (port, peer) = (free_port(), free_port());
        let [client, peer] = [port, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let log = File::create(home.path().join("log")).unwrap();
        let mut command = as_account(&existing(Path::new("/usr/bin/etcd"), "etcd-server"));
        command.arg("--data-dir").arg(home.path().join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "warn"]);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let etcd = Self { port, child, _home: home };
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually("etcd is healthy", SOON, async || match http::request(at, "GET", "/health", "").await {
            Ok((200, body)) if body.contains("true") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl DaemonPlan {
    /// In front of a cluster that Patroni leads.
    pub fn patroni(patroni: &Patroni) -> Self {
        let mut plan = Self::new(&[]);
        let password = plan.home.path().join("patroni-password");
        fs::write(&password, PASSWORD).unwrap();
        fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let backend = |member: &Member| {
            let mut table = Table::new();
            table.insert("name".into(), member.name.clone().into());
            table.insert("addresses".into(), vec![member.address().to_string()].into());
            Value::Table(table)
        };
        let backends = patroni.members.iter().map(backend).collect();
        let apis: Vec<String> = patroni.members.iter().map(|member| member.api_address().to_string()).collect();
        let service = service(&mut plan.config);
        service.insert("backend".into(), Value::Array(backends));
        service.insert("failover".into(), Value::Table("authority = 'patroni'".parse().unwrap()));
        let keys = format!("addresses = {apis:?}\nuser = {USER:?}\npassword_file = {password:?}\ninterval = '500ms'");
        service.insert("patroni".into(), Value::Table(keys.parse().unwrap()));
        plan
    }

    /// A key of `[service.main.patroni]`.
    pub fn patroni_key(self, key: &str, value: impl Into<Value>) -> Self {
        self.set("patroni", key, value)
    }
}
