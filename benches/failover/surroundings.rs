//! On what machine and beside what load a run was made.

use super::haproxy;
use super::harness::binaries::postgres;
use serde::Serialize;
use std::fmt;
use std::process::Command;

/// Versions and load, for whoever reads the figures later.
#[derive(Debug, Clone, Serialize)]
pub struct Surroundings {
    /// Of this crate, and how it was built.
    pub pgpivot: String,
    /// First line of its own account.
    pub haproxy: String,
    /// As it calls itself.
    pub postgres: String,
    /// Of the kernel.
    pub kernel: String,
    /// That may be used.
    pub cores: usize,
    /// Of this process and so of all that it starts; lower goes first.
    pub nice: i32,
    /// Average over the last minute when the run began.
    pub load_before: f64,
    /// And when it ended.
    pub load_after: f64,
}

impl Surroundings {
    /// As it is now.
    pub fn look() -> Self {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        let nice = rustix::process::getpriority_process(None).unwrap();
        Self {
            pgpivot: format!("{} ({build} build)", env!("CARGO_PKG_VERSION")),
            haproxy: first_line(Command::new(haproxy::program()).arg("-v")),
            postgres: first_line(Command::new(postgres("postgres")).arg("--version")),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned(),
            cores: std::thread::available_parallelism().unwrap().get(),
            nice,
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
        write!(f, "Linux {}, {} cores, nice {}, ", self.kernel, self.cores, self.nice)?;
        write!(f, "load {:.1} before and {:.1} after", self.load_before, self.load_after)
    }
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
