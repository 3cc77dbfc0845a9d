//! The programs, started as a user starts them, and the clients that ask them: raw HTTP, psql, libpq's own parser.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgpivot::sim::Side;
use pgpivot::sim::cloud::Cloud;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

pub type Variables = Vec<(String, String)>;

pub fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// What says where the Cloud API is and which clusters make the pair.
pub fn cloud_variables(cloud: &Cloud) -> Variables {
    vec![
        owned(("COCKROACH_API_SECRET_KEY", cloud.secret().expose())),
        owned(("COCKROACH_API_URL", &cloud.api_url())),
        owned(("PRIMARY_CLUSTER_ID", &cloud.cluster_id(Side::East))),
        owned(("STANDBY_CLUSTER_ID", &cloud.cluster_id(Side::West))),
        // Nobody is there: no daemon of this machine's owner is asked.
        owned(("PGPIVOT_URL", &nobody())),
    ]
}

/// A URL where no daemon is.
pub fn nobody() -> String {
    format!("http://{}", free())
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn service(variables: &[(String, String)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxyctl"));
    command.arg("service").args(arguments).env_clear().envs(variables.iter().cloned()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Exit code and talk of a service that does not start.
pub fn service_ends(variables: &[(String, String)], arguments: &[&str]) -> (Option<i32>, String) {
    let output = service(variables, arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// `proxyctl service`. Killed when dropped.
pub struct Sidecar {
    address: SocketAddr,
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Sidecar {
    pub async fn start(variables: &[(String, String)], arguments: &[&str]) -> Self {
        Self::start_in(Path::new("/"), variables, arguments).await
    }

    pub async fn start_in(folder: &Path, variables: &[(String, String)], arguments: &[&str]) -> Self {
        let mut command = service(variables, &[&["--port", "0"], arguments].concat());
        let mut child = command.current_dir(folder).spawn().unwrap();
        let (said, lines) = (Arc::new(Mutex::new(String::new())), BufReader::new(child.stderr.take().unwrap()));
        let kept = said.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let address = eventually("the service says where it serves", || {
            let said = said.lock().unwrap();
            let rest = said.split_once("on http://")?.1;
            rest.split_once(',')?.0.parse().ok()
        })
        .await;
        Self { address, child, said, reader: Some(reader) }
    }

    /// Everything it has said.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn get(&self, path: &str, headers: &str) -> (u16, String) {
        get(self.address, path, headers)
    }

    pub fn get_bytes(&self, path: &str, headers: &[u8]) -> (u16, String) {
        let (code, _, body) = ask(self.address, &format!("GET {path}"), &[b"host: localhost\r\n", headers].concat());
        (code, body)
    }

    /// Status, head and body.
    pub fn ask(&self, line: &str, headers: &str) -> (u16, String, String) {
        ask(self.address, line, headers.as_bytes())
    }

    /// SIGTERM; its exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        eventually("the service has ended", || self.child.try_wait().unwrap()).await.code()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Ended already: nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

/// The daemon before both clusters of a simulated cloud. Killed when dropped.
pub struct Daemon {
    admin: SocketAddr,
    child: Child,
    home: tempfile::TempDir,
}

impl Daemon {
    /// Returns when a side is latched and clients pass.
    pub async fn start(cloud: &Cloud) -> Self {
        let (home, admin, listen) = (tempfile::tempdir().unwrap(), free(), free());
        let side = |name: &str, side: Side, role: &str| {
            format!(
                "[[service.main.backend]]\nname = '{name}'\nrole = '{role}'\ncluster_id = '{}'\naddresses = ['{}']\n\
                 tls = {{ mode = 'disable' }}\n",
                cloud.cluster_id(side),
                cloud.sql_address(side)
            )
        };
        let text = format!(
            "admin = {{ listen = '{admin}' }}\nstate = {{ path = '{}' }}\n[service.main]\nkind = 'cockroach'\n\
             probe = {{ kind = 'startup', interval = '200ms', fast_interval = '100ms', timeout = '1s' }}\n\
             failover = {{ promoter = 'cockroach_cloud', delay = '0s' }}\n\
             listener = [ {{ address = '{listen}' }} ]\n\
             cockroach_cloud = {{ api_url = '{}', replicated_time_refresh = '300ms' }}\n{}{}",
            home.path().join("state").display(),
            cloud.api_url(),
            side("us-east", Side::East, "primary"),
            side("us-west", Side::West, "standby")
        );
        let file = home.path().join("pgpivot.toml");
        std::fs::write(&file, text).unwrap();
        let log = File::create(home.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgpivot"));
        command.arg("--config").arg(file).env_clear().current_dir(home.path()).stdin(Stdio::null());
        command.env("COCKROACH_API_SECRET_KEY", cloud.secret().expose()).env("NO_COLOR", "1");
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let daemon = Self { admin, child, home };
        let mut last = String::new();
        let open = || {
            let (code, body) = try_get(daemon.admin, "/connection", "").ok()?;
            last.clone_from(&body);
            (code == 200 && body.contains("\"open\":true")).then_some(())
        };
        eventually("the daemon lets clients through", open).await;
        daemon
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// What a line typed in `sh` prints, with this text as `ODD` and as the password.
    pub fn shell(&self, line: &str, odd: &str) -> String {
        let proxyctl = Path::new(env!("CARGO_BIN_EXE_proxyctl")).parent().unwrap().display();
        let mut command = Command::new("/bin/sh");
        command.args(["-e", "-c", line]).env_clear().current_dir("/").stdin(Stdio::null());
        command.env("PATH", format!("{proxyctl}:/usr/bin:/bin")).env("PGPIVOT_URL", self.url());
        let output = command.env("PGPASSWORD", odd).env("ODD", odd).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub fn get(&self, path: &str, headers: &str) -> (u16, String) {
        get(self.admin, path, headers)
    }

    /// Status, head and body.
    pub fn ask(&self, line: &str, headers: &str) -> (u16, String, String) {
        ask(self.admin, line, headers.as_bytes())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "--- log of the daemon\n{log}");
        }
    }
}

fn get(to: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    try_get(to, path, headers).unwrap()
}

fn try_get(to: SocketAddr, path: &str, headers: &str) -> std::io::Result<(u16, String)> {
    let (code, _, body) = try_ask(to, &format!("GET {path}"), format!("host: localhost\r\n{headers}").as_bytes())?;
    Ok((code, body))
}

fn ask(to: SocketAddr, line: &str, headers: &[u8]) -> (u16, String, String) {
    try_ask(to, line, headers).unwrap()
}

fn try_ask(to: SocketAddr, line: &str, headers: &[u8]) -> std::io::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = [line.as_bytes(), b" HTTP/1.1\r\n", headers, b"connection: close\r\n\r\n"].concat();
    stream.write_all(&request)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((code, head.to_owned(), body.to_owned()))
}

/// What psql prints for one statement.
pub fn psql(uri: &str, sql: &str) -> String {
    let mut command = Command::new("/usr/bin/psql");
    command.args(["-X", "-q", "-A", "-t", "-c", sql, "-d", uri]).env_clear().current_dir("/");
    let output = command.output().expect("psql; Debian: apt-get install postgresql-client-15");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A URI, taken apart by libpq.
pub fn parsed_by_libpq(uri: &str) -> Value {
    let program =
        "import json, sys\nfrom psycopg2.extensions import parse_dsn\nprint(json.dumps(parse_dsn(sys.argv[1])))";
    let output = Command::new("/usr/bin/python3").args(["-I", "-c", program, uri]).output().unwrap();
    assert!(output.status.success(), "Debian: apt-get install python3-psycopg2\n{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}
