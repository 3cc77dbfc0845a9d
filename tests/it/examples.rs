//! The programs in `examples/`, one for each driver: they save orders through the proxy, go on after a switchover and
//! after a crash, and find every order again. The schema is `examples/orders.sql`.

use crate::harness::binaries::existing;
use crate::harness::{Cluster, Daemon, Pair, SOON, eventually};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

/// For an order that waits through a failover, on two cores that run ten programs.
const ORDER: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn every_example_goes_on_after_a_switchover_and_a_crash_and_finds_all_of_its_orders() {
    let pgx = build_pgx();
    let pair = Pair::start().await;
    pair.east.run(&format!("{} ALTER TABLE orders OWNER TO app", include_str!("../../examples/orders.sql"))).await;
    pair.east.is_followed_by(&pair.west).await;
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("cooldown", "0s").start().await;
    let mut all = start_all(&daemon, &pair, &pgx).await;
    let mut goes_on = async |orders: &[u32], what: &str| {
        for &order in orders {
            for example in &mut all {
                example.order(order).await;
            }
            for example in &all {
                example.has_said(&format!("saved {order}"), what).await;
            }
        }
    };
    goes_on(&[1, 2], "at the start").await;

    daemon.ctl_done(&["switchover", "--yes"]).await;
    daemon.until_active("west", SOON).await;
    goes_on(&[3], "after a switchover").await;

    pair.east.rebuild_as_standby_of(&pair.west).await;
    pair.west.is_followed_by(&pair.east).await;
    daemon.until("armed", SOON, |service| service.open && service.armed).await;
    pair.west.kill().await;
    goes_on(&[4, 5], "after a crash").await;
    daemon.until_active("east", SOON).await;

    for example in all {
        let name = example.name;
        assert_eq!(example.ended().await, "read 1 2 3 4 5", "{name}");
        let count = pair.east.ask(&format!("SELECT count(*) FROM orders WHERE client = '{name}'")).await;
        assert_eq!(count, "5", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_odd_characters_reaches_the_server_through_the_daemons_connection_string() {
    let pair = Pair::start().await;
    let odd = "ünï 漢 :/?#[]@!$&()*+,;=%41'\"\\";
    let (name, literal) = (odd.replace('"', "\"\""), odd.replace('\'', "''"));
    let sql = format!("SET standard_conforming_strings = on; CREATE ROLE \"{name}\" LOGIN PASSWORD '{literal}'");
    pair.east.run(&sql).await;
    pair.east.run(&format!("CREATE DATABASE \"{name}\" OWNER \"{name}\"")).await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let mut curl = Command::new(existing(Path::new("/usr/bin/curl"), "curl"));
    curl.args(["-sS", "--get", "--data-urlencode"]).arg(format!("database={odd}"));
    curl.arg("-H").arg(format!("X-DB-Username: {odd}")).arg("-H").arg(format!("X-DB-Password: {odd}"));
    let output = curl.arg(format!("http://{}/connection", daemon.admin)).output().await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut psql = Command::new("/usr/bin/psql");
    psql.args(["-X", "-qAt", "-c", "SELECT current_user, current_database()", "-d"]).env_clear();
    let output = psql.arg(told["connection_string"].as_str().unwrap()).env("LC_ALL", "C.UTF-8").output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim_end(), format!("{odd}|{odd}"), "{told} {}", String::from_utf8_lossy(&output.stderr));
}

/// A running program and what it has said.
struct Example {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    said: Arc<Mutex<Vec<String>>>,
    talk: Arc<Mutex<Vec<String>>>,
    readers: JoinSet<()>,
}

impl Example {
    fn start(name: &'static str, command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut readers = JoinSet::new();
        let said = keep(child.stdout.take().unwrap(), &mut readers);
        let talk = keep(child.stderr.take().unwrap(), &mut readers);
        Self { name, stdin: child.stdin.take().unwrap(), child, said, talk, readers }
    }

    async fn order(&mut self, order: u32) {
        let line = format!("{order}\n");
        let sent = self.stdin.write_all(line.as_bytes()).await;
        sent.unwrap_or_else(|error| panic!("{} takes no orders: {error}\n{}", self.name, self.told()));
    }

    async fn has_said(&self, line: &str, what: &str) {
        let wanted = format!("{} says {line:?} {what}", self.name);
        eventually(&wanted, ORDER, async || {
            let has_said = self.said.lock().unwrap().iter().any(|said| said == line);
            if has_said { Ok(()) } else { Err(self.told()) }
        })
        .await;
    }

    /// No more orders: its last line.
    async fn ended(mut self) -> String {
        drop(self.stdin);
        let ended = tokio::time::timeout(ORDER, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).unwrap();
        while self.readers.join_next().await.is_some() {}
        let (said, talk) = (self.said.lock().unwrap(), self.talk.lock().unwrap().join("\n"));
        assert!(status.success(), "{} ended with {status}\n{talk}", self.name);
        said.last().cloned().unwrap_or_default()
    }

    fn told(&self) -> String {
        let lines = |kept: &Mutex<Vec<String>>| kept.lock().unwrap().join("\n");
        format!("--- stdout\n{}\n--- stderr\n{}", lines(&self.said), lines(&self.talk))
    }
}

fn keep(stream: impl AsyncRead + Unpin + Send + 'static, readers: &mut JoinSet<()>) -> Arc<Mutex<Vec<String>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let lines = kept.clone();
    readers.spawn(async move {
        let mut stream = BufReader::new(stream).lines();
        while let Ok(Some(line)) = stream.next_line().await {
            lines.lock().unwrap().push(line);
        }
    });
    kept
}

/// One for each driver, with the connection string that proxyctl prints for it.
async fn start_all(daemon: &Daemon, pair: &Pair, pgx: &Path) -> Vec<Example> {
    let line = async |more: &[&str]| {
        let arguments = [&["connection-string", "--user", "app", "--database", "app"], more].concat();
        daemon.ctl_done(&arguments).await.out.trim().to_owned()
    };
    let (url, jdbc_url) = (line(&[]).await, line(&["--format", "jdbc"]).await);
    let admin = format!("http://{}", daemon.admin);
    let start = |name, program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir(root().join("examples"));
        command.envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("HOME", "/nonexistent")]);
        command.envs([("DATABASE_URL", url.as_str()), ("JDBC_URL", &jdbc_url), ("PGPASSWORD", "app")]);
        command.envs([("PGPIVOT_URL", admin.as_str()), ("DB_USERNAME", "app"), ("DB_PASSWORD", "app")]);
        command.env("DB_NAME", "app").env("NODE_PATH", needs().join("node_modules"));
        if name == "pool_manager" {
            // Past the proxy.
            let url = |cluster: &Cluster| format!("postgres://app:app@{}/app", cluster.address());
            command.env("DATABASE_URL", url(&pair.east)).env("DATABASE_REPLICA_URL", url(&pair.west));
        }
        Example::start(name, &mut command)
    };
    let tool = |path: &str, package: &str| existing(Path::new(path), package);
    let ours = |name: &str| existing(&built(name), "it with cargo build --examples");
    let python = tool("/usr/bin/python3", "python3");
    let java = ["-cp", "/usr/share/java/postgresql.jar:/usr/share/java/*", "Jdbc.java"];
    tool("/usr/share/java/postgresql.jar", "libpostgresql-jdbc-java");
    vec![
        start("jdbc", &tool("/usr/bin/java", "default-jdk-headless"), &java),
        start("psycopg2", &python, &["psycopg2_app.py"]),
        start("psycopg_pool", &python, &["psycopg_pool_app.py"]),
        start("sqlalchemy", &python, &["sqlalchemy_app.py"]),
        start("node_pg", &tool("/usr/bin/node", "nodejs"), &["node_pg.js"]),
        start("pgx", pgx, &[]),
        start("psql", &tool("/bin/sh", "dash"), &["psql.sh"]),
        start("tokio_postgres", &ours("tokio_postgres"), &[]),
        start("connection_manager", &ours("connection_manager"), &[]),
        start("pool_manager", &ours("pool_manager"), &[]),
    ]
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `scripts/install-test-needs` puts what Debian has no package for.
fn needs() -> PathBuf {
    root().join("target/test-needs")
}

/// An example in Rust, beside the programs.
fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_pgpivot")).parent().unwrap().join("examples").join(name)
}

/// With Debian's sources of pgx. The driver itself is compiled once and kept.
fn build_pgx() -> PathBuf {
    let program = needs().join("pgx");
    existing(Path::new("/usr/share/gocode/src/github.com/jackc/pgx/v4"), "golang-github-jackc-pgx-v4-dev");
    let mut go = std::process::Command::new(existing(Path::new("/usr/bin/go"), "golang-go"));
    go.args(["build", "-o"]).arg(&program).arg("examples/pgx.go").current_dir(root()).env_clear();
    go.envs([
        ("PATH", "/usr/bin:/bin"),
        ("GO111MODULE", "off"),
        ("GOPATH", "/usr/share/gocode"),
        ("HOME", "/nonexistent"),
    ]);
    let output = go.env("GOCACHE", needs().join("go-cache")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}
