//! On what machine and beside what load a run was made, and a network of its own for it.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use super::harness::binaries::{existing, postgres, run};
use super::peer::haproxy;

/// Set for the run inside.
const INSIDE: &str = "PGPIVOT_BENCH_INSIDE";

/// Starts this program anew in a network namespace of its own, unless that was done already.
pub fn alone() {
    if std::env::var_os(INSIDE).is_some() {
        run(Command::new(existing("/usr/sbin/ip".as_ref(), "iproute2")).args(["link", "set", "lo", "up"]));
        // Below are the ports that servers of ours listen on. Churn leaves thousands in TIME-WAIT.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "33000 65535").unwrap();
        std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1").unwrap();
        return;
    }
    assert!(rustix::process::geteuid().is_root(), "needs root, for a network namespace of its own");
    let mut inside = Command::new(existing("/usr/bin/unshare".as_ref(), "util-linux"));
    inside.arg("--net").arg("--").arg(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1));
    panic!("cannot run {inside:?}: {}", inside.env(INSIDE, "1").exec());
}

/// Thousands of connections, and both their ends, are of this process and of those that it starts.
pub fn raise_descriptors() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    assert!(hard.is_none_or(|hard| hard >= 20_000), "{hard:?} descriptors may be open, 20,000 are needed: ulimit -n");
}

/// Versions and load, for whoever reads the figures later.
#[derive(Debug, Clone, Serialize)]
pub struct Surroundings {
    /// Of this crate, and how it was built.
    pgpivot: String,
    /// First line of its own account.
    haproxy: String,
    /// As it calls itself.
    postgres: String,
    /// Of the kernel.
    kernel: String,
    /// That may be used.
    cores: usize,
    /// Average over the last minute when the run began.
    load_before: f64,
    /// And when it ended.
    load_after: f64,
}

impl Surroundings {
    /// As it is now.
    pub fn look() -> Self {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self {
            pgpivot: format!("{} ({build} build)", env!("CARGO_PKG_VERSION")),
            haproxy: first_line(Command::new(haproxy()).arg("-v")),
            postgres: first_line(Command::new(postgres("postgres")).arg("--version")),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned(),
            cores: std::thread::available_parallelism().unwrap().get(),
            load_before: load(),
            load_after: 0.0,
        }
    }

    /// At the end of the run.
    pub fn look_again(&mut self) {
        self.load_after = load();
    }
}

impl fmt::Display for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pgpivot {}, {}, {}", self.pgpivot, self.haproxy, self.postgres)?;
        write!(f, "Linux {}, {} cores, ", self.kernel, self.cores)?;
        write!(f, "load {:.1} before and {:.1} after", self.load_before, self.load_after)
    }
}

fn first_line(command: &mut Command) -> String {
    let text = String::from_utf8_lossy(&run(command).stdout).into_owned();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
