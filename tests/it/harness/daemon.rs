//! The built daemon in front of a pair: configured, started, watched through its own HTTP, killed and started again on
//! the same state. `proxyctl` too, since it talks to nobody else.

use super::cluster::Cluster;
use super::eventually::{SOON, eventually};
use super::http;
use super::plan::{DaemonPlan, service};
use super::processes::{lives, signal};
use super::status::{find, is_active};
use pgpivot::view::{BackendStatus, ServiceStatus, Status};
use rustix::process::Signal;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use toml::Table;

/// The daemon. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// Where applications connect.
    pub listen: SocketAddr,
    /// Page and API.
    pub admin: SocketAddr,
    home: TempDir,
    config: Mutex<Table>,
    environment: Mutex<Vec<(String, String)>>,
    child: Mutex<Option<Child>>,
}

impl Daemon {
    /// The daemon in front of these servers with nothing special.
    pub async fn start(servers: &[&Cluster]) -> Self {
        DaemonPlan::new(servers).start().await
    }

    /// To say what is special.
    pub fn plan(servers: &[&Cluster]) -> DaemonPlan {
        DaemonPlan::new(servers)
    }

    /// A daemon on this plan, its configuration written, not started.
    pub(super) fn install(plan: DaemonPlan) -> Self {
        let daemon = Self {
            listen: plan.listen,
            admin: plan.admin,
            home: plan.home,
            config: Mutex::new(plan.config),
            environment: Mutex::new(plan.environment),
            child: Mutex::new(None),
        };
        daemon.write_config();
        daemon
    }

    /// Starts the program on the present configuration and state, without waiting.
    pub fn launch(&self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgpivot"));
        command.arg("--config").arg(self.config_path()).current_dir(self.home.path()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("PGPIVOT_LOG", "info,pgpivot=debug").env("NO_COLOR", "1");
        command.envs(self.environment.lock().unwrap().iter().cloned()).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let earlier = self.child.lock().unwrap().replace(child);
        assert!(earlier.is_none_or(|mut c| c.try_wait().unwrap().is_some()), "the daemon runs already");
    }

    /// Forgets the variables of the environment that the plan had set.
    pub fn clear_environment(&self) {
        self.environment.lock().unwrap().clear();
    }

    /// Replaces the password of the probes' login in its file; the daemon sees it at the next start or SIGHUP.
    pub fn write_password(&self, password: &str) {
        fs::write(self.home.path().join("password"), format!("{password}\n")).unwrap();
    }

    /// Changes `[service.main]` in the file; the daemon sees it at the next start or SIGHUP.
    pub fn edit_service(&self, change: impl FnOnce(&mut Table)) {
        change(service(&mut self.config.lock().unwrap()));
        self.write_config();
    }

    /// Replaces the whole file by this text.
    pub fn overwrite_config(&self, text: &str) {
        fs::write(self.config_path(), text).unwrap();
    }

    /// Writes the configuration as the plan and the edits have it.
    pub fn write_config(&self) {
        fs::write(self.config_path(), self.config.lock().unwrap().to_string()).unwrap();
    }

    /// `kill -9`.
    pub async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended(SOON).await;
    }

    /// Sends a signal.
    pub fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Waits until the process has ended.
    pub async fn ended(&self, within: Duration) -> ExitStatus {
        eventually("the daemon has ended", within, async || {
            let status = self.child.lock().unwrap().as_mut().unwrap().try_wait().unwrap();
            status.ok_or_else(|| self.log_tail())
        })
        .await
    }

    /// Does the process live?
    pub fn runs(&self) -> bool {
        lives(self.pid())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().unwrap().id()
    }

    /// `GET /failover/status`.
    pub async fn try_status(&self) -> Result<Status, String> {
        let (code, body) = self.fetch("/failover/status").await?;
        if code != 200 {
            return Err(format!("status {code}: {body}"));
        }
        serde_json::from_str(&body).map_err(|e| format!("{e} in {body}"))
    }

    /// The one service that the plan configures, as it is now.
    pub async fn service(&self) -> ServiceStatus {
        let status = self.try_status().await.unwrap_or_else(|e| panic!("no status: {e}\n{}", self.log_tail()));
        status.services.into_iter().next().unwrap()
    }

    /// One backend of it.
    pub async fn backend(&self, name: &str) -> BackendStatus {
        find(&self.service().await, name).clone()
    }

    /// Waits until the service is so; fails with its last status and the end of the log.
    pub async fn until(&self, what: &str, within: Duration, is_so: impl Fn(&ServiceStatus) -> bool) -> ServiceStatus {
        eventually(&format!("the daemon shows: {what}"), within, async || match self.try_status().await {
            Err(e) => Err(format!("{e}\n{}", self.log_tail())),
            Ok(status) => match status.services.into_iter().next() {
                Some(service) if is_so(&service) => Ok(service),
                other => Err(format!("{}\n{}", serde_json::to_string_pretty(&other).unwrap(), self.log_tail())),
            },
        })
        .await
    }

    /// Waits until this backend is the active one and clients pass.
    pub async fn until_active(&self, name: &str, within: Duration) -> ServiceStatus {
        self.until(&format!("{name} is active"), within, |s| s.open && is_active(s, name)).await
    }

    /// Asks for this long whether the service stays so; the first time it does not, fails.
    pub async fn stays(&self, what: &str, how_long: Duration, is_so: impl Fn(&ServiceStatus) -> bool) {
        let end = std::time::Instant::now() + how_long;
        eventually("the time of watching is over", how_long + SOON, async || {
            let service = self.service().await;
            assert!(is_so(&service), "did not stay so: {what}\n{service:#?}\n{}", self.log_tail());
            if std::time::Instant::now() >= end { Ok(()) } else { Err(String::new()) }
        })
        .await;
    }

    /// GET of a path: status and body.
    pub async fn fetch(&self, path: &str) -> Result<(u16, String), String> {
        http::request(self.admin, "GET", path, "").await
    }

    /// POST of a JSON body: status and body.
    pub async fn post(&self, path: &str, body: &str) -> Result<(u16, String), String> {
        http::request(self.admin, "POST", path, body).await
    }

    /// `proxyctl`, pointed at this daemon, to its end.
    pub async fn ctl(&self, args: &[&str]) -> Spoken {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_proxyctl"));
        command.env_clear().env("PGPIVOT_URL", format!("http://{}", self.admin)).env("NO_COLOR", "1");
        let output = command.args(args).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(150), output).await;
        let output = output.unwrap_or_else(|_| panic!("proxyctl {args:?} does not end\n{}", self.log_tail())).unwrap();
        Spoken {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            talk: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// As [`Daemon::ctl`], for a command that must be taken.
    pub async fn ctl_done(&self, args: &[&str]) -> Spoken {
        let spoken = self.ctl(args).await;
        assert_eq!(spoken.code, Some(0), "proxyctl {args:?}: {spoken:#?}\n{}", self.log_tail());
        spoken
    }

    /// The state directory.
    pub fn state_path(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn config_path(&self) -> PathBuf {
        self.home.path().join("pgpivot.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// All that the daemon has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of what it has said.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- log of the daemon\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a command has said, and how it ended.
#[derive(Debug, Clone)]
pub struct Spoken {
    /// `None` = by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub talk: String,
}
