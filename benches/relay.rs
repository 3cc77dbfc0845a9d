//! What the relay costs, beside HAProxy: the same load through each peer in turn, several rounds, ratios of the round.
//! `scripts/bench-relay --help` says what can be chosen.

#![allow(unreachable_pub, reason = "a bench exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench that cannot go on fails, and it talks to whoever started it"
)]

#[path = "relay/database.rs"]
mod database;
#[path = "relay/figures.rs"]
mod figures;
#[path = "relay/options.rs"]
mod options;
#[path = "relay/peer.rs"]
mod peer;
#[path = "relay/process.rs"]
mod process;
#[path = "relay/raw.rs"]
mod raw;
#[path = "relay/report.rs"]
mod report;
#[path = "relay/scenario.rs"]
mod scenario;
#[path = "relay/servers.rs"]
mod servers;
#[path = "relay/surroundings.rs"]
mod surroundings;

/// The stage of the integration tests, as far as it is played on here.
#[path = "../tests/it/harness"]
#[allow(dead_code, reason = "the tests use the rest")]
mod harness {
    pub mod binaries;
    pub mod cluster;
    pub mod eventually;
    pub mod http;
    pub mod identity;
    pub mod network;
    pub mod ports;
    pub mod processes;
    pub mod template;
}

use std::process::ExitCode;

use clap::Parser;

use database::Database;
use options::Options;
use peer::{Peer, PeerKind};
use report::Report;
use scenario::{Load, Scenario};
use surroundings::Surroundings;

fn main() -> ExitCode {
    let options = Options::parse();
    surroundings::alone();
    surroundings::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = options.wants_database().then(|| runtime.block_on(Database::start()));
    let mut report = Report::new(Surroundings::look());
    eprintln!("{}", report.surroundings);
    let mut whole = true;
    for (round, scenario, kind) in options.order() {
        match std::panic::catch_unwind(|| play(scenario, kind, database.as_ref(), &options)) {
            Ok(figures) => {
                eprintln!("round {round} {scenario:<11} {kind:<15} {figures}");
                report.add(round, scenario, kind, figures);
            }
            Err(_) => {
                eprintln!("round {round} {scenario:<11} {kind:<15} FAILED");
                whole = false;
            }
        }
    }
    report.surroundings.look_again();
    println!("{}", report.table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()).unwrap();
    }
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(scenario: Scenario, kind: PeerKind, database: Option<&Database>, options: &Options) -> figures::Figures {
    match scenario.load() {
        Load::Raw(load) => {
            let server = servers::start(load.server());
            let peer = Peer::start(kind, server);
            load.play(&peer, options.window())
        }
        Load::Database(load) => {
            let database = database.expect("it was started for this");
            let peer = Peer::start(kind, database.address());
            load.play(&peer, database, options.window())
        }
    }
}
