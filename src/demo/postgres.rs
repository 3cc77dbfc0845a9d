//! A primary and a standby of real PostgreSQL in a folder: streaming replication, trust on 127.0.0.1 for three named
//! roles, the grants that pgpivot needs, and the script that makes a demoted side a standby again.
//! Knows nothing of the proxy.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::binaries::{Account, Binaries};
use super::folder::postmaster;
use super::rebuild;
use crate::config::{Login, Tls, TlsMode};
use crate::net::session::{Session, Target};
use crate::net::tls::{ClientTls, TlsConfigError};

/// The first is the primary at the start.
pub const NAMES: [&str; 2] = ["us-east", "us-west"];
/// The role of the daemon's probes and promoter.
pub const DAEMON_ROLE: &str = "pgpivot";
/// The role of the writer, and of its database here.
pub const WRITER_ROLE: &str = "demo";

/// One of PostgreSQL's programs must be done by then.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(60);
/// A server must answer by then.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const STEP: Duration = Duration::from_millis(50);
/// PostgreSQL's own port, which the demo leaves alone.
const WELL_KNOWN: u16 = 5432;

/// A single-user session reads one statement per line.
const ROLES: &str = "\
CREATE ROLE replicator LOGIN REPLICATION
CREATE ROLE pgpivot LOGIN REPLICATION
CREATE ROLE demo LOGIN
GRANT pg_monitor, pg_signal_backend TO pgpivot
GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO pgpivot
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO pgpivot
CREATE DATABASE demo OWNER demo
";
/// From PostgreSQL 15 on a role may be allowed single settings; a switchover needs these.
const SETTINGS_GRANT: &str =
    "GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only, synchronous_standby_names TO pgpivot\n";
const TABLE: &str = "\
CREATE TABLE commits (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())
ALTER TABLE commits OWNER TO demo
";
/// Nobody but these three gets in, and only from this machine.
const ACCESS: &str = "\
host demo        demo       127.0.0.1/32 trust
host postgres    pgpivot    127.0.0.1/32 trust
host replication pgpivot    127.0.0.1/32 trust
host replication replicator 127.0.0.1/32 trust
";
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 16MB
wal_keep_size = 256MB
wal_receiver_timeout = 3s
wal_retrieve_retry_interval = 500ms
";

/// Why there is no pair.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// A file or folder.
    #[error("{path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// In the system's words.
        cause: std::io::Error,
    },
    /// One of PostgreSQL's programs failed.
    #[error("{program} {problem}")]
    Program {
        /// Which.
        program: String,
        /// What it did, and the end of what it said.
        problem: String,
    },
    /// A server that was started does not come up.
    #[error("{name} does not answer on {address} ({problem}); the end of its log:\n{log}")]
    NoAnswer {
        /// Which.
        name: &'static str,
        /// Where it should listen.
        address: SocketAddr,
        /// What came of asking.
        problem: String,
        /// The end of its log.
        log: String,
    },
    /// Not enough free ports.
    #[error("no free port on 127.0.0.1")]
    NoPort,
    /// Our own client cannot be built.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// One server of the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Of [`NAMES`].
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its data folder.
    pub data: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

impl Server {
    /// The pid to kill; `None` when it does not run.
    pub fn pid(&self) -> Option<i32> {
        postmaster(&self.data).map(|pid| pid.as_raw_nonzero().get())
    }
}

/// A running pair. Its servers outlive it: whoever owns the folder ends them.
#[derive(Debug)]
pub struct Pair {
    servers: [Server; 2],
    /// Reaps servers that end, so that no zombie holds a pid.
    _reapers: JoinSet<()>,
}

/// Everything that is needed to start servers.
struct Starter<'a> {
    binaries: &'a Binaries,
    account: Account,
    reapers: JoinSet<()>,
}

impl Pair {
    /// Makes both in `folder`, listening on `ports` of 127.0.0.1, and returns once the standby streams.
    pub async fn start(
        folder: &Path,
        binaries: &Binaries,
        account: Account,
        ports: [u16; 2],
    ) -> Result<Self, PairError> {
        let server = |i: usize| Server {
            name: NAMES[i],
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, ports[i])),
            data: folder.join(NAMES[i]).join("data"),
            log: folder.join(NAMES[i]).join("log"),
        };
        let servers = [server(0), server(1)];
        let mut starter = Starter { binaries, account, reapers: JoinSet::new() };
        let [primary, standby] = &servers;
        starter.create_primary(primary).await?;
        starter.run_server(primary).await?;
        starter.create_standby(standby, primary).await?;
        starter.run_server(standby).await?;
        streams(standby).await?;
        for server in &servers {
            starter.write_rebuild(server, &servers)?;
        }
        Ok(Self { servers, _reapers: starter.reapers })
    }

    /// Both, in the order of [`NAMES`].
    pub fn servers(&self) -> &[Server; 2] {
        &self.servers
    }

    /// The script that stops a side, and makes it a standby of the other one by `pg_basebackup`.
    pub fn rebuild_script(server: &Server) -> PathBuf {
        server.data.with_file_name("rebuild")
    }
}

impl Starter<'_> {
    async fn create_primary(&self, server: &Server) -> Result<(), PairError> {
        self.make_folders(server)?;
        let mut initdb = self.program("initdb", server);
        initdb
            .args(["--username=postgres", "--auth=reject", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&server.data);
        run_program("initdb", initdb, "").await?;
        let settings = server.data.join("postgresql.conf");
        let old =
            std::fs::read_to_string(&settings).map_err(|cause| PairError::File { path: settings.clone(), cause })?;
        write(&settings, &format!("{old}\n{SETTINGS}"))?;
        write(&server.data.join("pg_hba.conf"), ACCESS)?;
        let grant = if self.binaries.major >= 15 { SETTINGS_GRANT } else { "" };
        self.single_user(server, "postgres", &format!("{ROLES}{grant}")).await?;
        self.single_user(server, "demo", TABLE).await
    }

    /// Statements as the superuser, who cannot come over the network.
    async fn single_user(&self, server: &Server, database: &str, statements: &str) -> Result<(), PairError> {
        let mut postgres = self.program("postgres", server);
        postgres
            .args(["--single", "-c", "exit_on_error=on", "-c", "log_min_messages=warning", "-D"])
            .arg(&server.data)
            .arg(database);
        run_program("postgres --single", postgres, statements).await
    }

    async fn create_standby(&self, server: &Server, primary: &Server) -> Result<(), PairError> {
        self.make_folders(server)?;
        let mut copy = self.program("pg_basebackup", server);
        copy.args(rebuild::basebackup(primary)).arg("-D").arg(&server.data);
        run_program("pg_basebackup", copy, "").await
    }

    async fn run_server(&mut self, server: &Server) -> Result<(), PairError> {
        let wrong = |cause| PairError::File { path: server.log.clone(), cause };
        let log = std::fs::File::create(&server.log).map_err(wrong)?;
        // The script that rebuilds a side goes on writing to it.
        self.account.own(&server.log).map_err(wrong)?;
        let again = log.try_clone().map_err(wrong)?;
        let mut postgres = self.program("postgres", server);
        // A group of its own: Ctrl-C is for the demo, which ends it in its turn.
        postgres
            .args(rebuild::arguments(server))
            .arg("-D")
            .arg(&server.data)
            .stdout(log)
            .stderr(again)
            .process_group(0);
        let child = postgres.spawn().map_err(|cause| failed("postgres", cause.to_string()))?;
        self.answers(server, child).await
    }

    /// Waits until it takes logins; then leaves it to its reaper.
    async fn answers(&mut self, server: &Server, mut child: Child) -> Result<(), PairError> {
        let deadline = Instant::now() + START_PATIENCE;
        let problem = loop {
            if let Ok(Some(status)) = child.try_wait() {
                break format!("it ended with {status}");
            }
            match ask(server, "SELECT 1").await {
                Ok(_) => {
                    self.reapers.spawn(async move {
                        // How it ended is the business of those who watch it.
                        let _ = child.wait().await;
                    });
                    return Ok(());
                }
                Err(problem) if Instant::now() >= deadline => break problem,
                Err(_) => sleep(STEP).await,
            }
        };
        // A server that does not answer must not stay behind; who owns the folder could not know it.
        let _ = child.kill().await;
        Err(no_answer(server, problem))
    }

    /// A program of PostgreSQL, as the right user, in the right place, deaf to our environment.
    fn program(&self, name: &str, server: &Server) -> Command {
        let mut command = Command::new(self.binaries.program(name));
        command.env_clear().env("PATH", &self.binaries.folder).env("LC_ALL", "C").env("TZ", "UTC");
        if let Some(folder) = server.data.parent() {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null());
        self.account.apply(&mut command);
        command
    }

    fn make_folders(&self, server: &Server) -> Result<(), PairError> {
        let Some(parent) = server.data.parent() else {
            return Ok(());
        };
        let wrong = |cause| PairError::File { path: parent.to_owned(), cause };
        std::fs::create_dir_all(parent).map_err(wrong)?;
        self.account.own(parent).map_err(wrong)
    }

    /// Anybody who types its path rebuilds the side, the demo's owner or root.
    fn write_rebuild(&self, server: &Server, pair: &[Server; 2]) -> Result<(), PairError> {
        let Some(other) = pair.iter().find(|s| s.name != server.name) else {
            return Ok(());
        };
        let path = Pair::rebuild_script(server);
        let wrong = |cause| PairError::File { path: path.clone(), cause };
        std::fs::write(&path, rebuild::script(self.binaries, self.account, server, other)).map_err(wrong)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(wrong)
    }
}

/// Waits until the standby's receiver streams.
async fn streams(standby: &Server) -> Result<(), PairError> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let said = ask(standby, "SELECT status FROM pg_stat_wal_receiver").await;
        match said {
            Ok(Some(status)) if status == "streaming" => return Ok(()),
            said if Instant::now() >= deadline => {
                return Err(no_answer(standby, format!("it does not stream: {said:?}")));
            }
            _ => sleep(STEP).await,
        }
    }
}

/// The first column of the first row.
async fn ask(server: &Server, sql: &str) -> Result<Option<String>, String> {
    let login = Login { user: DAEMON_ROLE.into(), database: "postgres".into(), password: None };
    let target = target(server.address, login).map_err(|e| e.to_string())?;
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut session = Session::connect(&target, deadline).await.map_err(|e| e.to_string())?;
    let rows = session.query(sql, deadline).await.map_err(|e| e.to_string())?;
    session.close(deadline).await;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

/// A plain login on this machine.
pub fn target(address: SocketAddr, login: Login) -> Result<Target, TlsConfigError> {
    let tls: Arc<ClientTls> = ClientTls::build(&Tls { mode: TlsMode::Disable, ca_file: None, server_name: None })?;
    let server_name = tls.name_for("127.0.0.1");
    Ok(Target { address, server_name, tls, login, application_name: "pgpivot demo".into(), replication: false })
}

/// So many that nobody listens on now and that are not to be avoided, outside the range from which the kernel takes the
/// ports of outgoing connections.
pub(super) fn free_ports<const N: usize>(avoid: &[u16]) -> Result<[u16; N], PairError> {
    // Demos that start together look at different places.
    let first = 15_433 + (std::process::id() % 1000) as u16 * 8;
    let free = (first..first + 8000).filter(|port| {
        *port != WELL_KNOWN && !avoid.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    });
    free.take(N).collect::<Vec<_>>().try_into().map_err(|_| PairError::NoPort)
}

async fn run_program(name: &str, mut command: Command, input: &str) -> Result<(), PairError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|cause| failed(name, cause.to_string()))?;
    let stdin = child.stdin.take();
    let both = async {
        if let Some(mut stdin) = stdin {
            // A program that ends before it has read everything says why on its own.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match timeout(PROGRAM_PATIENCE, both).await {
        Ok(ended) => ended.map_err(|cause| failed(name, cause.to_string()))?,
        Err(_) => {
            return Err(failed(name, format!("is not done after {} s", PROGRAM_PATIENCE.as_secs())));
        }
    };
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(
            name,
            format!("ended with {}:\n{}", output.status, tail(&String::from_utf8_lossy(&output.stderr))),
        )),
    }
}

fn failed(program: &str, problem: String) -> PairError {
    PairError::Program { program: program.to_owned(), problem }
}

fn no_answer(server: &Server, problem: String) -> PairError {
    let log = tail(&std::fs::read_to_string(&server.log).unwrap_or_default());
    PairError::NoAnswer { name: server.name, address: server.address, problem, log }
}

/// The last lines.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn write(path: &Path, text: &str) -> Result<(), PairError> {
    std::fs::write(path, text).map_err(|cause| PairError::File { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::super::folder::Folder;
    use super::*;

    async fn pair() -> (Folder, Pair) {
        let binaries = Binaries::find().await.expect("PostgreSQL is installed");
        let account = Account::find().await.expect("there is a user postgres");
        let folder = Folder::create(false).unwrap();
        let pair = Pair::start(folder.path(), &binaries, account, free_ports(&[]).unwrap()).await;
        (folder, pair.unwrap())
    }

    async fn rebuild_by_script(server: &Server) {
        let output = Command::new(Pair::rebuild_script(server)).stdin(Stdio::null()).output();
        let output = timeout(PROGRAM_PATIENCE, output).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        until(server, "SELECT status FROM pg_stat_wal_receiver", "streaming").await;
    }

    async fn until(server: &Server, sql: &str, wanted: &str) {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let said = ask(server, sql).await;
            if said.as_ref().is_ok_and(|s| s.as_deref() == Some(wanted)) {
                return;
            }
            assert!(Instant::now() < deadline, "{}: {sql}: {said:?}", server.name);
            sleep(STEP).await;
        }
    }

    #[tokio::test]
    async fn a_pair_streams_and_the_daemon_may_do_what_it_must() {
        let (folder, pair) = pair().await;
        let [east, west] = pair.servers().clone();
        assert!(![east.address.port(), west.address.port()].contains(&WELL_KNOWN));
        until(&east, "SELECT pg_is_in_recovery()::text || count(*) FROM pg_stat_replication", "false1").await;
        until(&west, "SELECT pg_is_in_recovery()::text", "true").await;
        until(&west, "SELECT has_function_privilege('pg_promote(boolean, integer)', 'EXECUTE')::text", "true").await;
        until(
            &east,
            "SELECT pg_has_role('pg_read_all_stats', 'USAGE')::text || pg_has_role('pg_signal_backend', 'USAGE')",
            "truetrue",
        )
        .await;
        ask(&east, "ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
        ask(&east, "SELECT pg_reload_conf()").await.unwrap();
        // Nobody else gets in.
        let stranger = Login { user: "postgres".into(), database: "postgres".into(), password: None };
        let refused = Session::connect(&target(east.address, stranger).unwrap(), Instant::now() + START_PATIENCE).await;
        assert!(refused.unwrap_err().to_string().contains("28000"));

        let (path, pids) = (folder.path().to_owned(), [east.pid().unwrap(), west.pid().unwrap()]);
        folder.clean_up().await.unwrap();
        assert!(!path.exists());
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}/cwd")).exists(), "{pid} still runs");
        }
    }

    #[tokio::test]
    async fn a_killed_primary_is_rebuilt_as_a_standby_by_the_script() {
        let (folder, pair) = pair().await;
        let [east, west] = pair.servers().clone();
        // While the other one is a standby it would leave nobody to write to.
        let output = Command::new(Pair::rebuild_script(&east)).stdin(Stdio::null()).output().await.unwrap();
        assert!(!output.status.success() && east.pid().is_some());
        assert!(String::from_utf8_lossy(&output.stderr).contains("us-west is no running primary"));
        let killed = rustix::process::Pid::from_raw(east.pid().unwrap()).unwrap();
        rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
        until(&west, "SELECT pg_promote()::text", "true").await;
        rebuild_by_script(&east).await;
        // A side that runs is rebuilt too, and what it has become is ended with the folder.
        rebuild_by_script(&east).await;
        let pid = east.pid().unwrap();
        folder.clean_up().await.unwrap();
        assert!(!Path::new(&format!("/proc/{pid}/cwd")).exists(), "{pid} still runs");
    }

    #[tokio::test]
    async fn after_a_crash_of_the_demo_no_server_is_left() {
        let (folder, pair) = pair().await;
        let (path, pids) =
            (folder.path().to_owned(), [pair.servers()[0].pid().unwrap(), pair.servers()[1].pid().unwrap()]);
        // What is left of the demo when it is killed: nobody, and a closed pipe.
        drop(folder);
        let deadline = Instant::now() + START_PATIENCE;
        while path.exists() {
            assert!(Instant::now() < deadline, "the folder is still there");
            sleep(STEP).await;
        }
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}/cwd")).exists(), "{pid} still runs");
        }
        drop(pair);
    }
}
