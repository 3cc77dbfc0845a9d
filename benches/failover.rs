//! How fast and how right a failover is, beside HAProxy that a controller steers: real PostgreSQL pairs, both peers in
//! turn under the same load, several rounds, one table. `scripts/bench-failover --help` says what can be chosen.

#![allow(unreachable_pub, reason = "a bench exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench that cannot go on fails, and it talks to whoever started it"
)]

#[path = "failover/acceptance.rs"]
mod acceptance;
#[path = "failover/controller.rs"]
mod controller;
#[path = "failover/figures.rs"]
mod figures;
#[path = "failover/haproxy.rs"]
mod haproxy;
#[path = "failover/load.rs"]
mod load;
#[path = "failover/options.rs"]
mod options;
#[path = "failover/peer.rs"]
mod peer;
#[path = "failover/report.rs"]
mod report;
#[path = "failover/round.rs"]
mod round;
#[path = "failover/scenario.rs"]
mod scenario;
#[path = "failover/surroundings.rs"]
mod surroundings;
#[path = "failover/targets.rs"]
mod targets;

/// The stage of the integration tests, as far as it is played on here.
#[path = "../tests/it/harness"]
#[allow(dead_code, reason = "the tests use the rest")]
mod harness {
    pub mod binaries;
    pub mod checker;
    pub mod cluster;
    pub mod daemon;
    pub mod eventually;
    pub mod http;
    pub mod identity;
    pub mod network;
    pub mod pair;
    pub mod plan;
    pub mod ports;
    pub mod processes;
    pub mod status;
    pub mod template;
    pub mod writer;
}

use clap::Parser;
use figures::Figures;
use options::Options;
use report::Report;
use round::Round;
use std::path::PathBuf;
use std::process::ExitCode;
use surroundings::Surroundings;

fn main() -> ExitCode {
    let options = Options::parse();
    let mut report = Report::new(Surroundings::look());
    eprintln!("{}", report.surroundings);
    for round in options.rounds() {
        match play(round, options.logs.clone()) {
            Ok(figures) => {
                eprintln!("{}", report::line(&figures));
                report.add(figures);
            }
            Err(why) => {
                eprintln!("{round}: FAILED: {why}");
                report.failed(round, &why);
            }
        }
    }
    report.surroundings.look_again();
    println!("{}", report.table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()).unwrap();
    }
    let missed = if options.check { targets::missed_counts(&report) } else { Vec::new() };
    if missed.is_empty() && report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A round on a thread and a runtime of its own: when it panics, the others are still played.
fn play(round: Round, logs: Option<PathBuf>) -> Result<Figures, String> {
    let played = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(round.play(logs.as_deref()))
    });
    played.join().map_err(|panic| match panic.downcast::<String>() {
        Ok(said) => *said,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "a panic".into(), |said| (*said).into()),
    })
}
