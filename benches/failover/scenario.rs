//! What happens to the primary, and how it comes back. What is measured of it stands in `round`.

use super::harness::pair::{Pair, PairPlan};
use super::peer::Peer;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What happens to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// `kill -9` of the postmaster.
    Kill9,
    /// SIGSTOP to every process of the server, SIGCONT when the new side has served for a while.
    Sigstop,
    /// Its network swallows every packet, until the new side has served for a while.
    Blackhole,
    /// Planned, both sides healthy.
    Switchover,
    /// `kill -9`; when the new side has served for a while, the old primary is started again as it was.
    Comeback,
}

/// For how long the new side serves before the old primary comes back, and again after that.
const LATER: Duration = Duration::from_secs(2);
/// For how long an old primary that came back may show what it does to applications.
const WATCH: Duration = Duration::from_secs(4);

impl Scenario {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Kill9, Self::Sigstop, Self::Blackhole, Self::Switchover, Self::Comeback];

    /// The pair that it needs.
    pub fn plan(self) -> PairPlan {
        match self {
            Self::Blackhole => Pair::plan().behind_a_wire(),
            _ => Pair::plan(),
        }
    }

    /// Lets it happen.
    pub async fn strike(self, pair: &Pair, peer: &Peer) {
        match self {
            Self::Kill9 | Self::Comeback => pair.east.kill().await,
            Self::Sigstop => pair.east.freeze().await,
            Self::Blackhole => pair.wire().swallow(pair.east.port),
            Self::Switchover => peer.switchover(pair).await,
        }
    }

    /// The new side serves: what comes after that, under the same load.
    pub async fn go_on(self, pair: &Pair) {
        tokio::time::sleep(LATER).await;
        match self {
            Self::Kill9 | Self::Switchover => return,
            Self::Sigstop => pair.east.thaw(),
            Self::Blackhole => pair.wire().heal(),
            Self::Comeback => pair.east.start().await,
        }
        tokio::time::sleep(WATCH).await;
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill9 => "kill9",
            Self::Sigstop => "sigstop",
            Self::Blackhole => "blackhole",
            Self::Switchover => "switchover",
            Self::Comeback => "comeback",
        })
    }
}
