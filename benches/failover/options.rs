//! What the command line chooses, and which rounds follow from it.

use super::peer::PeerKind;
use super::round::Round;
use super::scenario::Scenario;
use clap::Parser;
use std::path::PathBuf;

/// Kills, stops, cuts off, switches and brings back the primary of real PostgreSQL pairs under load, with pgpivot and
/// with HAProxy in front, and shows what applications felt.
#[derive(Debug, Parser)]
#[command(name = "bench-failover")]
pub struct Options {
    /// How often every scenario is played with every peer.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this scenario; may be given again.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<Scenario>,
    /// Only this peer; may be given again.
    #[arg(long = "peer", value_enum)]
    peers: Vec<PeerKind>,
    /// Also writes every figure to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Keeps pgpivot's log of every round, at debug level, in this directory.
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
    /// One round of each scenario with pgpivot; fails when a count is wrong, however long anything took.
    #[arg(long, conflicts_with_all = ["rounds", "peers"])]
    pub check: bool,
    /// Given by `cargo bench`.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

impl Options {
    /// In the order of play: peers take turns, and who begins changes with every round.
    pub fn rounds(&self) -> Vec<Round> {
        let chosen = |all: &[Scenario]| if self.scenarios.is_empty() { all.to_vec() } else { self.scenarios.clone() };
        let (rounds, mut peers) = match (self.check, self.peers.is_empty()) {
            (true, _) => (1, vec![PeerKind::Pgpivot]),
            (false, true) => (self.rounds, PeerKind::ALL.to_vec()),
            (false, false) => (self.rounds, self.peers.clone()),
        };
        let mut order = Vec::new();
        for number in 1..=rounds {
            for scenario in chosen(&Scenario::ALL) {
                order.extend(peers.iter().map(|peer| Round { number, scenario, peer: *peer }));
            }
            peers.rotate_left(1);
        }
        order
    }
}
