//! Loads on a real PostgreSQL: pgbench's SELECTs, and COPY.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::figures::{Figures, Quantity, median};
use super::harness::binaries::{existing, postgres, run};
use super::harness::cluster::Cluster;
use super::peer::Peer;

/// Rows of COPY's table; COPY writes them as `COPIED` bytes.
const ROWS: u64 = 2_000_000;
const ROW: u64 = 128;
const COPIED: u64 = ROWS * ROW;

/// A load.
#[derive(Debug, Clone, Copy)]
pub enum DatabaseLoad {
    /// Prepared SELECTs of so many clients.
    Select {
        /// How many.
        clients: u32,
    },
    /// A table out.
    CopyOut,
    /// The same rows in.
    CopyIn,
}

/// A server, and what the loads need in it.
#[derive(Debug)]
pub struct Database {
    cluster: Cluster,
    rows: tempfile::NamedTempFile,
}

impl Database {
    /// With pgbench's tables, and the rows for COPY.
    pub async fn start() -> Self {
        let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let settings =
            [setting("max_connections", "200"), setting("shared_buffers", "512MB"), setting("max_wal_size", "4GB")];
        let cluster = Cluster::create("bench", &settings, None);
        cluster.start().await;
        let database = Self { cluster, rows: tempfile::NamedTempFile::new().unwrap() };
        run(database.client("pgbench", database.address()).args(["--initialize", "--quiet", "--scale=10"]));
        let text = format!("repeat('x', {})", ROW - 1);
        let tables = [
            format!("CREATE TABLE rows AS SELECT {text} AS t FROM generate_series(1, {ROWS})"),
            "CREATE UNLOGGED TABLE taken (t text)".into(),
            "VACUUM (ANALYZE) rows".into(),
        ];
        for sql in tables {
            run(database.client("psql", database.address()).args(["-c", &sql]));
        }
        let line = format!("{}\n", "x".repeat(usize::try_from(ROW - 1).unwrap()));
        std::fs::write(database.rows.path(), line.repeat(usize::try_from(ROWS).unwrap())).unwrap();
        database
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.cluster.address()
    }

    fn client(&self, program: &str, to: SocketAddr) -> Command {
        let path = match program {
            "psql" => existing("/usr/bin/psql".as_ref(), "postgresql-client-15"),
            _ => postgres(program),
        };
        let mut command = Command::new(path);
        command.env_clear().env("PGPASSWORD", "app").env("PGSSLMODE", "disable").env("PGUSER", "app");
        command.env("PGDATABASE", "app").env("PGHOST", to.ip().to_string()).env("PGPORT", to.port().to_string());
        command.stdin(Stdio::null());
        command
    }
}

impl DatabaseLoad {
    /// Plays it through a peer for that long; a COPY until it is done.
    pub fn play(self, peer: &Peer, database: &Database, window: Duration) -> Figures {
        match self {
            Self::Select { clients } => select(peer, database, clients, window),
            Self::CopyOut => {
                let mut psql = database.client("psql", peer.listen);
                copy(peer, psql.args(["-c", "COPY rows TO STDOUT"]).stdout(Stdio::null()))
            }
            Self::CopyIn => {
                run(database.client("psql", database.address()).args(["-c", "TRUNCATE taken"]));
                let mut psql = database.client("psql", peer.listen);
                let rows = std::fs::File::open(database.rows.path()).unwrap();
                copy(peer, psql.args(["-c", "COPY taken FROM STDIN"]).stdin(rows).stdout(Stdio::null()))
            }
        }
    }
}

fn copy(peer: &Peer, psql: &mut Command) -> Figures {
    let (cpu, begun) = (peer.cpu(), Instant::now());
    let status = psql.status().unwrap();
    assert!(status.success(), "{psql:?} ended with {status}");
    Figures::of_bytes(COPIED, begun.elapsed(), peer.cpu_since(cpu))
}

fn select(peer: &Peer, database: &Database, clients: u32, window: Duration) -> Figures {
    let home = tempfile::tempdir().unwrap();
    let mut pgbench = database.client("pgbench", peer.listen);
    pgbench.args(["--select-only", "--protocol=prepared", "--no-vacuum", "--jobs=2"]);
    pgbench.arg(format!("--client={clients}")).arg(format!("--time={}", window.as_secs()));
    if clients == 1 {
        pgbench.arg("--log").arg(format!("--log-prefix={}/t", home.path().display()));
    }
    let (cpu, begun) = (peer.cpu(), Instant::now());
    let said = String::from_utf8(run(&mut pgbench).stdout).unwrap();
    let done = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let done = done.unwrap_or_else(|| panic!("{said}")).trim().parse().unwrap();
    let mut figures = Figures::of_operations(done, begun.elapsed(), peer.cpu_since(cpu));
    if clients == 1 {
        figures.set(Quantity::Latency, median(&mut latencies(home.path())));
    }
    figures
}

/// The third column of pgbench's logs, in microseconds.
fn latencies(home: &Path) -> Vec<f64> {
    let logs = std::fs::read_dir(home).unwrap();
    let texts = logs.flatten().map(|log| std::fs::read_to_string(log.path()).unwrap());
    let lines: Vec<String> = texts.collect();
    let took = lines.iter().flat_map(|text| text.lines()).map(|line| line.split(' ').nth(2).unwrap());
    took.map(|took| took.parse().unwrap()).collect()
}
