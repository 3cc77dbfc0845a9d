//! One round: a fresh pair, a peer before it, the load, the blow, and what can be seen of it afterwards.

use super::acceptance;
use super::figures::{Figures, Seen};
use super::harness::writer::now_us;
use super::load::Load;
use super::peer::PeerKind;
use super::scenario::Scenario;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Which round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// What happens.
    pub scenario: Scenario,
    /// To whom.
    pub peer: PeerKind,
}

impl Round {
    /// Plays it, and leaves pgpivot's log in this directory.
    pub async fn play(self, logs: Option<&Path>) -> Figures {
        let pair = self.scenario.plan().start().await;
        let peer = self.peer.start(&pair, logs.is_some()).await;
        let load = Load::start(peer.listen(), pair.east.port).await;
        tokio::time::sleep(self.offset()).await;
        let acceptance = acceptance::watch(&pair.west).await;
        load.open_now();
        let (struck, struck_us) = (Instant::now(), now_us());
        self.scenario.strike(&pair, &peer).await;
        load.go_on_at(pair.west.port).await;
        let most_open = load.most_open();
        self.scenario.go_on(&pair).await;
        let decision = peer.decision(struck_us).await;
        let journal = load.stop().await;
        if let (Some(logs), Some(log)) = (logs, peer.log()) {
            std::fs::write(logs.join(format!("{}-{}.log", self.scenario, self.number)), log).unwrap();
        }
        drop(peer);
        if !pair.east.runs() {
            // To see what it holds.
            pair.east.start().await;
        }
        let accepted_us = acceptance.await.unwrap();
        let seen = Seen { journal, most_open, struck, struck_us, accepted_us, decision };
        Figures::of(self, &seen, &pair).await
    }

    /// Checks must not always be equally far away from the blow.
    fn offset(self) -> Duration {
        Duration::from_millis(u64::from(self.number) * 370 % 1000)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {} {:<10} {:<7}", self.number, self.scenario, self.peer)
    }
}
