//! What the command line chooses, and in which order it is played.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::peer::PeerKind;
use super::scenario::{Load, Scenario};

/// Sends the same load straight to a server, through HAProxy and through pgpivot, in turn, and shows what each of them
/// spent on it. Peers of one round are compared with one another, never with those of another round.
#[derive(Debug, Parser)]
#[command(name = "bench-relay")]
pub struct Options {
    /// How often every scenario is played with every peer.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each load lasts, in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Only this scenario; may be given again.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<Scenario>,
    /// Only this peer; may be given again.
    #[arg(long = "peer", value_enum)]
    peers: Vec<PeerKind>,
    /// Also writes every figure to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

impl Options {
    /// In the order of play: peers take turns, and who begins changes with every round.
    pub fn order(&self) -> Vec<(u32, Scenario, PeerKind)> {
        let mut peers = if self.peers.is_empty() { PeerKind::ALL.to_vec() } else { self.peers.clone() };
        let mut order = Vec::new();
        for round in 1..=self.rounds {
            for scenario in self.chosen() {
                let takes_part = peers.iter().filter(|peer| scenario.takes(**peer));
                order.extend(takes_part.map(|peer| (round, scenario, *peer)));
            }
            peers.rotate_left(1);
        }
        order
    }

    /// Whether a PostgreSQL server is needed.
    pub fn wants_database(&self) -> bool {
        self.chosen().iter().any(|scenario| matches!(scenario.load(), Load::Database(_)))
    }

    /// How long each load lasts.
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn chosen(&self) -> Vec<Scenario> {
        if self.scenarios.is_empty() { Scenario::ALL.to_vec() } else { self.scenarios.clone() }
    }
}
