//! One PostgreSQL server of a test's own: started, asked, stopped, killed, frozen, promoted, rebuilt. Two of them that
//! replicate are `pair`'s.

use super::binaries::{as_account, existing, hand_over, postgres, run};
use super::eventually::{SOON, eventually};
use super::network::Namespace;
use super::ports::free_port;
use super::processes::{children, is_stopped, lives, signal};
use super::template;
use rustix::process::Signal;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Clients are ended, the log is flushed and sent to the standbys.
    Fast,
    /// All processes end at once; the next start recovers.
    Immediate,
}

/// A server with a folder of its own. Stopped, continued where it was frozen, and removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    /// As backends and replication slots are called.
    pub name: String,
    /// Never 5432, and nobody else's while the test runs.
    pub port: u16,
    home: TempDir,
    namespace: Option<Arc<Namespace>>,
    postmaster: Mutex<Option<Child>>,
    /// Processes of an earlier postmaster that may still be ending.
    orphans: Mutex<Vec<u32>>,
}

impl Cluster {
    /// A copy of the template, not started, with these settings besides.
    pub fn create(name: &str, settings: &[(String, String)], namespace: Option<Arc<Namespace>>) -> Self {
        let cluster = Self::empty(name, namespace);
        template::copy_to(&cluster.data());
        cluster.set_in_file(settings);
        cluster
    }

    /// A server that is no relative of any other, not started.
    pub fn stranger(name: &str) -> Self {
        let cluster = Self::empty(name, None);
        template::make_stranger(&cluster.data());
        cluster
    }

    fn empty(name: &str, namespace: Option<Arc<Namespace>>) -> Self {
        let home = tempfile::Builder::new().prefix("pgpivot-it-").tempdir().unwrap();
        hand_over(home.path());
        Self {
            name: name.to_owned(),
            port: free_port(),
            home,
            namespace,
            postmaster: Mutex::new(None),
            orphans: Mutex::new(Vec::new()),
        }
    }

    /// Where clients and the other server reach it.
    pub fn address(&self) -> SocketAddr {
        let ip = self.namespace.as_ref().map_or(Ipv4Addr::LOCALHOST, |n| n.address());
        SocketAddr::new(IpAddr::V4(ip), self.port)
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Writes settings to the configuration file; a running server sees them after [`Cluster::reload`] or a restart.
    pub fn set_in_file(&self, settings: &[(String, String)]) {
        let lines: String = settings.iter().map(|(key, value)| format!("{key} = '{value}'\n")).collect();
        template::append(&self.data().join("postgresql.conf"), &lines);
    }

    /// Makes a certificate of its own for the server and refuses connections without TLS.
    pub fn demand_tls(&self) {
        let (key, certificate) = (self.data().join("server.key"), self.data().join("server.crt"));
        let mut openssl = as_account(&existing(Path::new("/usr/bin/openssl"), "openssl"));
        openssl.args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split(' '),
        );
        openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout"]);
        run(openssl.arg(key).arg("-out").arg(certificate));
        self.set_in_file(&[("ssl".into(), "on".into())]);
        let access = self.data().join("pg_hba.conf");
        let text = fs::read_to_string(&access).unwrap().replace("host ", "hostssl ");
        fs::write(access, text).unwrap();
    }

    /// Copies another server's data folder (that one must be stopped) and makes this one its standby.
    pub fn follow_copy_of(&self, primary: &Cluster) {
        let _ = fs::remove_dir_all(self.data());
        run(as_account(Path::new("/bin/cp")).arg("-a").arg(primary.data()).arg(self.data()));
        let _ = fs::remove_dir_all(self.data().join("pg_replslot"));
        run(as_account(Path::new("/bin/mkdir")).arg(self.data().join("pg_replslot")));
        run(as_account(Path::new("/usr/bin/touch")).arg(self.data().join("standby.signal")));
        self.set_in_file(&[
            ("primary_conninfo".into(), self.conninfo_to(primary)),
            ("primary_slot_name".into(), self.name.clone()),
        ]);
    }

    /// What its walreceiver connects to another server with.
    pub fn conninfo_to(&self, primary: &Cluster) -> String {
        let address = primary.address();
        format!(
            "host={} port={} user=replicator password=replicator application_name={} connect_timeout=2",
            address.ip(),
            address.port(),
            self.name
        )
    }

    /// Starts the server and waits until it answers.
    pub async fn start(&self) {
        let orphans = std::mem::take(&mut *self.orphans.lock().unwrap());
        eventually("the processes of the last start have ended", SOON, async || {
            let left: Vec<&u32> = orphans.iter().filter(|pid| lives(**pid)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?} still live")) }
        })
        .await;
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let program = postgres("postgres");
        let mut command = match &self.namespace {
            Some(namespace) => namespace.enter(&program),
            None => as_account(&program),
        };
        let listen = format!("listen_addresses={}", self.address().ip());
        let socket = format!("unix_socket_directories={}", self.home.path().display());
        command.arg("-D").arg(self.data()).args(["-c", &format!("port={}", self.port), "-c", &listen, "-c", &socket]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let earlier = self.postmaster.lock().unwrap().replace(child);
        assert!(earlier.is_none_or(|mut c| c.try_wait().unwrap().is_some()), "{} runs already", self.name);
        eventually(&format!("{} answers", self.name), Duration::from_secs(60), async || {
            assert!(self.runs(), "{} ended while starting\n{}", self.name, self.log_tail());
            self.try_ask("SELECT 1").await.map_err(|e| format!("{e}\n{}", self.log_tail()))
        })
        .await;
    }

    /// Is there a postmaster, frozen or not?
    pub fn runs(&self) -> bool {
        self.postmaster.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Stops the server as `pg_ctl stop` does and waits for its end.
    pub async fn stop(&self, how: Shutdown) {
        signal(self.pid(), if how == Shutdown::Fast { Signal::INT } else { Signal::QUIT });
        self.ended().await;
    }

    async fn ended(&self) {
        eventually(
            &format!("{} has ended", self.name),
            SOON,
            async || {
                if self.runs() { Err(self.log_tail()) } else { Ok(()) }
            },
        )
        .await;
    }

    /// `kill -9` of the postmaster; the other processes notice and end by themselves.
    pub async fn kill(&self) {
        self.orphans.lock().unwrap().extend(children(self.pid()));
        signal(self.pid(), Signal::KILL);
        self.ended().await;
    }

    /// SIGSTOP to every process: sockets stay open, nothing answers.
    pub async fn freeze(&self) {
        signal(self.pid(), Signal::STOP);
        eventually(&format!("every process of {} is stopped", self.name), SOON, async || {
            let running: Vec<u32> = children(self.pid()).into_iter().filter(|pid| !is_stopped(*pid)).collect();
            running.iter().for_each(|pid| signal(*pid, Signal::STOP));
            if running.is_empty() && is_stopped(self.pid()) { Ok(()) } else { Err(format!("{running:?} still run")) }
        })
        .await;
    }

    /// SIGSTOP to the postmaster alone: no new connection is served, the old ones and replication go on.
    pub fn freeze_postmaster(&self) {
        signal(self.pid(), Signal::STOP);
    }

    /// SIGCONT to every process.
    pub fn thaw(&self) {
        let pid = self.pid();
        children(pid).into_iter().for_each(|child| signal(child, Signal::CONT));
        signal(pid, Signal::CONT);
    }

    /// `kill -9` of one client backend: PostgreSQL ends all others and recovers by itself. Returns once it has begun to.
    pub async fn crash_one_backend(&self) {
        let client = self.client().await;
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
        let pid = u32::try_from(row.get::<_, i32>(0)).unwrap();
        signal(pid, Signal::KILL);
        eventually("the postmaster notices the crash", SOON, async || {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            let noticed = log.split_once(&format!("server process (PID {pid}) was terminated by signal 9"));
            let ends_others =
                noticed.is_some_and(|(_, rest)| rest.contains("terminating any other active server processes"));
            if ends_others { Ok(()) } else { Err(self.log_tail()) }
        })
        .await;
    }

    /// `pg_ctl promote`, as an operator types it.
    pub fn promote(&self) {
        run(as_account(&postgres("pg_ctl")).args(["promote", "--wait", "--pgdata"]).arg(self.data()));
    }

    /// `pg_ctl reload`.
    pub fn reload(&self) {
        signal(self.pid(), Signal::HUP);
    }

    /// Throws the data away and builds the server again with pg_basebackup, as a standby; starts it.
    pub async fn rebuild_as_standby_of(&self, primary: &Cluster) {
        if self.runs() {
            self.stop(Shutdown::Immediate).await;
        }
        fs::remove_dir_all(self.data()).unwrap();
        let slot = format!(
            "SELECT pg_create_physical_replication_slot('{0}') WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{0}')",
            self.name
        );
        primary.run(&slot).await;
        let program = postgres("pg_basebackup");
        let mut command = match &self.namespace {
            Some(namespace) => namespace.enter(&program),
            None => as_account(&program),
        };
        command.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--slot", &self.name, "--pgdata"]);
        run(command.arg(self.data()).args(["--dbname", &self.conninfo_to(primary)]));
        self.start().await;
    }

    /// A connection past the proxy and past the network, as superuser.
    pub async fn client(&self) -> Client {
        self.try_client().await.unwrap_or_else(|e| panic!("cannot reach {}: {e}\n{}", self.name, self.log_tail()))
    }

    async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.home.path()).port(self.port).user("postgres").dbname("app").application_name("harness");
        config.connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The first column of the first row, as text; empty when there is none.
    pub async fn ask(&self, sql: &str) -> String {
        self.try_ask(sql)
            .await
            .unwrap_or_else(|e| panic!("{} does not answer {sql}: {e}\n{}", self.name, self.log_tail()))
    }

    /// As [`Cluster::ask`], when the server may be down.
    pub async fn try_ask(&self, sql: &str) -> Result<String, tokio_postgres::Error> {
        let messages = self.try_client().await?.simple_query(sql).await?;
        let mut rows =
            messages.iter().filter_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None });
        Ok(rows.next().and_then(|row| row.get(0)).unwrap_or_default().to_owned())
    }

    /// Runs statements.
    pub async fn run(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap_or_else(|e| panic!("{}: {sql}: {e}", self.name));
    }

    /// Does it take writes?
    pub async fn is_primary(&self) -> bool {
        self.ask("SELECT NOT pg_is_in_recovery()").await == "t"
    }

    /// Waits until `standby` streams from this server and has replayed all that is flushed here now.
    pub async fn is_followed_by(&self, standby: &Cluster) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{}' AND state = 'streaming' AND replay_lsn >= pg_current_wal_flush_lsn()",
            standby.name
        );
        eventually(&format!("{} streams from {}", standby.name, self.name), SOON, async || {
            match self.try_ask(&sql).await {
                Ok(count) if count == "1" => Ok(()),
                other => Err(format!("{other:?}\n{}\n{}", self.log_tail(), standby.log_tail())),
            }
        })
        .await;
    }

    /// How many log-ins of this user the log shows.
    pub fn logins_of(&self, user: &str) -> usize {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        log.matches(&format!("connection authorized: user={user} ")).count()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- log of {}\n{}", self.name, lines[lines.len().saturating_sub(15)..].join("\n"))
    }

    fn pid(&self) -> u32 {
        self.postmaster.lock().unwrap().as_ref().unwrap_or_else(|| panic!("{} was never started", self.name)).id()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        let orphans = std::mem::take(&mut *self.orphans.lock().unwrap());
        if self.runs() {
            self.thaw();
            signal(self.pid(), Signal::QUIT);
            let deadline = Instant::now() + Duration::from_secs(5);
            while self.runs() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            let processes = children(self.pid());
            if self.runs() {
                signal(self.pid(), Signal::KILL);
            }
            processes.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        }
        for pid in orphans.into_iter().filter(|pid| lives(*pid)) {
            signal(pid, Signal::KILL);
        }
        if let Some(mut child) = self.postmaster.lock().unwrap().take() {
            let _ = child.wait();
        }
        self.remove_shared_memory();
    }
}

impl Cluster {
    /// A killed postmaster leaves its segment behind; the next start on its folder would remove it, but there is none.
    fn remove_shared_memory(&self) {
        let Ok(text) = fs::read_to_string(self.data().join("postmaster.pid")) else {
            return;
        };
        if let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = Command::new("/usr/bin/ipcrm").args(["-m", id]).output();
        }
    }
}
