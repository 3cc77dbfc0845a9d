//! A simulated cloud, a folder with a `.env` that describes it, and the programs run in it.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use pgpivot::cockroach_cloud::model::{ReplicationStream, StreamFilter, StreamStatus, StreamUpdate};
use pgpivot::cockroach_cloud::{Client, Settings as ClientSettings};
use pgpivot::sim::cloud::{Cloud, Initial, Pace, Settings};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// A primary's silence is waited for in life's own times.
pub const PATIENCE: Duration = Duration::from_secs(150);

pub struct Stage {
    pub cloud: Cloud,
    pub folder: tempfile::TempDir,
    client: Client,
}

/// What a program left behind.
pub struct Ran {
    pub code: i32,
    pub out: String,
    /// The same without line ends.
    pub words: String,
    /// Without line ends, too.
    pub err: String,
}

/// A cloud that is quick about everything.
pub fn quick(initial: Initial) -> Settings {
    Settings { pace: Pace::instant(), rate_limit: None, initial, ..Settings::default() }
}

impl Stage {
    pub async fn start(settings: Settings) -> Self {
        let cloud = Cloud::start(settings).await.unwrap();
        let settings = ClientSettings { base_url: cloud.api_url(), ..ClientSettings::new(cloud.secret().clone()) };
        let stage = Self { client: Client::build(&settings).unwrap(), cloud, folder: tempfile::tempdir().unwrap() };
        for cluster in [0, 1] {
            stage.cloud.set_delete_protection(cluster, false);
        }
        let (cloud, of) = (&stage.cloud, |n: usize| (stage.cloud.cluster_id(n), stage.cloud.sql_address(n)));
        let ((primary, primary_at), (standby, standby_at)) = (of(0), of(1));
        stage.write_env(&format!(
            "COCKROACH_API_URL={}\nCOCKROACH_API_SECRET_KEY={}\nPRIMARY_CLUSTER_ID={primary}\nSTANDBY_CLUSTER_ID={standby}\n\
             PRIMARY_SQL_DNS={primary_at}\nSTANDBY_SQL_DNS={standby_at}\nHEALTH_CHECK_TIMEOUT=2\n",
            cloud.api_url(),
            cloud.secret().expose(),
        ));
        stage
    }

    /// With a stream from primary to standby that has caught up.
    pub async fn replicated() -> Self {
        Self::start(quick(Initial::Replicating)).await
    }

    /// The standby was promoted.
    pub async fn failed_over() -> Self {
        let stage = Self::replicated().await;
        let id = stage.cloud.stream_id().unwrap().to_owned();
        stage.client.update_stream(id.parse().unwrap(), &StreamUpdate::failover(None)).await.unwrap();
        stage.until("the failover", async || stage.cloud.stream_status(&id) == Some("COMPLETED")).await;
        stage
    }

    pub fn write_env(&self, text: &str) {
        let file = self.folder.path().join(".env");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn add_env(&self, line: &str) {
        let text = std::fs::read_to_string(self.folder.path().join(".env")).unwrap();
        self.write_env(&format!("{text}{line}\n"));
    }

    fn command(&self, program: &str, line: &str) -> Command {
        let mut command = Command::new(program);
        command.args(line.split_whitespace()).env_clear().current_dir(self.folder.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Types a command and waits for its end.
    pub async fn run(&self, line: &str) -> Ran {
        self.ended(self.spawn(line)).await
    }

    /// The same, with a daemon at hand.
    pub async fn run_with(&self, daemon: &Daemon, line: &str) -> Ran {
        self.ended(self.spawn_with(daemon, line)).await
    }

    pub fn spawn_with(&self, daemon: &Daemon, line: &str) -> Child {
        let mut command = self.command(env!("CARGO_BIN_EXE_proxyctl"), line);
        command.env("PGPIVOT_URL", format!("http://{}", daemon.admin)).spawn().unwrap()
    }

    /// Types a command.
    pub fn spawn(&self, line: &str) -> Child {
        self.command(env!("CARGO_BIN_EXE_proxyctl"), line).spawn().unwrap()
    }

    pub async fn ended(&self, child: Child) -> Ran {
        let output = timeout(PATIENCE, child.wait_with_output()).await.expect("an end in time").unwrap();
        let flat = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let out = String::from_utf8(output.stdout.clone()).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out, words: flat(output.stdout), err: flat(output.stderr) }
    }

    /// Types a command on a terminal, and at each of these words what belongs to it. Gives all that was on the screen.
    pub async fn typed(&self, line: &str, answers: &[(&str, &[u8])]) -> (i32, String) {
        let program = format!("exec {} {line}", env!("CARGO_BIN_EXE_proxyctl"));
        let mut command = self.command("/usr/bin/script", "--quiet --return --echo never --command");
        command.arg(&program).arg("/dev/null").env("TERM", "dumb").env("SHELL", "/bin/sh").stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (mut shown, mut from) = (Vec::new(), 0);
        let mut answers = answers.iter();
        let mut next = answers.next();
        let reading = async {
            loop {
                if screen.read_buf(&mut shown).await.unwrap() == 0 {
                    break;
                }
                let text = String::from_utf8_lossy(&shown[from..]).into_owned();
                if let Some((_, answer)) = next.filter(|(question, _)| text.contains(question)) {
                    from = shown.len();
                    keys.write_all(answer).await.unwrap();
                    keys.flush().await.unwrap();
                    next = answers.next();
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("an end in time");
        let code = timeout(PATIENCE, child.wait()).await.expect("an end in time").unwrap().code();
        (code.unwrap_or(-1), String::from_utf8_lossy(&shown).split_whitespace().collect::<Vec<_>>().join(" "))
    }

    async fn streams(&self, to: usize) -> Vec<ReplicationStream> {
        let filter = StreamFilter { show_completed: Some(true), ..StreamFilter::default() };
        let mut all = self.client.streams(&filter).await.unwrap().value;
        let to = self.cloud.cluster_id(to);
        all.retain(|stream| stream.standby_cluster_id.to_string() == to);
        all
    }

    /// Of all streams home.
    pub async fn reverse(&self) -> Vec<StreamStatus> {
        self.streams(0).await.into_iter().map(|stream| stream.status).collect()
    }

    /// Of all streams from the primary.
    pub async fn forward(&self) -> Vec<StreamStatus> {
        self.streams(1).await.into_iter().map(|stream| stream.status).collect()
    }

    /// Is the primary disrupted?
    pub async fn disrupted(&self) -> bool {
        let id = self.cloud.cluster_id(0).parse().unwrap();
        !self.client.disruptions(id).await.unwrap().value.is_empty()
    }

    pub async fn until(&self, what: &str, is: impl AsyncFn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is().await {
            assert!(Instant::now() < end, "not in time: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The real daemon, on the same `.env`; returns when it leads clients to `active`.
    pub async fn daemon(&self, active: &str, automatic: bool) -> Daemon {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (admin, listen) = (free(), free());
        let text = format!(
            "[admin]\nlisten = '{admin}'\n[state]\npath = 'state'\n[service.main]\nkind = 'cockroach'\n\
             [[service.main.listener]]\naddress = '{listen}'\n[service.main.probe]\ninterval = '200ms'\n\
             fast_interval = '100ms'\ntimeout = '1s'\n[service.main.failover]\nautomatic = {automatic}\ndelay = '0s'\nverify_wait = '5s'\n\
             drain_timeout = '200ms'\n[service.main.cockroach_cloud]\nreplicated_time_refresh = '1s'\n\
             [[service.main.backend]]\nname = 'primary'\nrole = 'primary'\naddresses = ['{}']\n\
             [[service.main.backend]]\nname = 'standby'\nrole = 'standby'\naddresses = ['{}']\n",
            self.cloud.sql_address(0),
            self.cloud.sql_address(1),
        );
        std::fs::write(self.folder.path().join("pgpivot.toml"), text).unwrap();
        let mut command = self.command(env!("CARGO_BIN_EXE_pgpivot"), "--config pgpivot.toml");
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let daemon = Daemon { admin, listen, _child: child };
        let end = Instant::now() + PATIENCE;
        while daemon.service().await.is_none_or(|service| service["active"] != active || service["open"] != true) {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(Instant::now() < end, "the daemon leads nobody: {}", log());
            sleep(Duration::from_millis(20)).await;
        }
        daemon
    }
}

pub struct Daemon {
    admin: SocketAddr,
    listen: SocketAddr,
    _child: Child,
}

impl Daemon {
    /// `GET /failover/status`, its only service.
    async fn service(&self) -> Option<Value> {
        let mut stream = tokio::net::TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET /failover/status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let status: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        Some(status["services"][0].clone())
    }

    pub async fn active(&self) -> String {
        self.service().await.unwrap()["active"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn is_armed(&self) -> bool {
        self.service().await.is_some_and(|service| service["armed"] == true)
    }

    /// An application behind the proxy.
    pub async fn client(&self) -> tokio_postgres::Client {
        let text = format!("host={} port={} user=app", self.listen.ip(), self.listen.port());
        let connecting = tokio_postgres::connect(&text, tokio_postgres::NoTls);
        let (client, connection) = timeout(PATIENCE, connecting).await.expect("in time").unwrap();
        tokio::spawn(connection);
        client
    }
}

/// As Ctrl-C does.
pub fn interrupt(child: &Child) {
    signal(child, rustix::process::Signal::INT);
}

/// As a service manager does.
pub fn terminate(child: &Child) {
    signal(child, rustix::process::Signal::TERM);
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
