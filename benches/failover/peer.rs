//! Who stands between applications and the pair: pgpivot with the fast example's settings, or HAProxy and its controller.

use super::controller::Controller;
use super::haproxy::Haproxy;
use super::harness::daemon::Daemon;
use super::harness::eventually::{SOON, eventually};
use super::harness::pair::Pair;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use toml::Table;

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    /// The daemon of this crate.
    Pgpivot,
    /// Debian's HAProxy, steered by a role-checking controller.
    Haproxy,
}

/// What a peer decided, and when; microseconds since 1970.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The old side is to be left. What was called off does not count.
    pub decided_us: i64,
    /// The new side was seen to be primary.
    pub proven_us: Option<i64>,
    /// The new side is the one to use.
    pub latched_us: Option<i64>,
    /// What it says of its steps.
    pub steps: Vec<String>,
}

/// A peer in front of a pair.
#[derive(Debug)]
pub enum Peer {
    /// The daemon.
    Pgpivot(Box<Daemon>),
    /// HAProxy and what steers it.
    Haproxy(Haproxy, Controller),
}

const EXAMPLE: &str = include_str!("../../config/fast-detection.toml");

impl PeerKind {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Pgpivot, Self::Haproxy];

    /// Starts it and waits until it would fail over.
    pub async fn start(self, pair: &Pair, talkative: bool) -> Peer {
        match self {
            Self::Pgpivot => {
                let example: Table = EXAMPLE.parse().unwrap();
                let settings = |section: &str| example["service"]["main"][section].as_table().unwrap().clone();
                let level = if talkative { "info,pgpivot=debug" } else { "info" };
                let mut plan = Daemon::plan(&[&pair.east, &pair.west]).environment("PGPIVOT_LOG", level);
                for (key, value) in settings("probe") {
                    plan = plan.probe(&key, value);
                }
                for (key, value) in settings("failover") {
                    plan = plan.failover(&key, value);
                }
                Peer::Pgpivot(Box::new(plan.start().await))
            }
            Self::Haproxy => {
                let haproxy = Haproxy::start(&pair.east, &pair.west).await;
                let controller = Controller::start(&pair.east, &pair.west, haproxy.socket());
                Peer::Haproxy(haproxy, controller)
            }
        }
    }
}

impl Peer {
    /// Where applications connect.
    pub fn listen(&self) -> SocketAddr {
        match self {
            Self::Pgpivot(daemon) => daemon.listen,
            Self::Haproxy(haproxy, _) => haproxy.listen,
        }
    }

    /// What pgpivot has written to its log.
    pub fn log(&self) -> Option<String> {
        match self {
            Self::Pgpivot(daemon) => Some(daemon.log()),
            Self::Haproxy(..) => None,
        }
    }

    /// Changes sides on purpose.
    pub async fn switchover(&self, pair: &Pair) {
        match self {
            Self::Pgpivot(daemon) => {
                let (code, said) = daemon.post("/failover/switchover", "{}").await.unwrap();
                assert!((200..300).contains(&code), "the switchover is refused: {code} {said}");
            }
            Self::Haproxy(_, controller) => controller.switchover(pair).await,
        }
    }

    /// What it decided since this moment, once it has latched the new side.
    pub async fn decision(&self, since_us: i64) -> Decision {
        eventually("the new side is latched", SOON, async || match self {
            Self::Pgpivot(daemon) => {
                let (_, body) = daemon.fetch("/failover/history?limit=500").await?;
                decision_in(&body, since_us).ok_or(body)
            }
            Self::Haproxy(_, controller) => {
                controller.decision().filter(|d| d.latched_us.is_some()).ok_or_else(|| "no decision".into())
            }
        })
        .await
    }
}

/// Reads the decision out of the daemon's history, newest line first.
fn decision_in(history: &str, since_us: i64) -> Option<Decision> {
    let history: serde_json::Value = serde_json::from_str(history).ok()?;
    let mut decision = Decision { decided_us: 0, proven_us: None, latched_us: None, steps: Vec::new() };
    for line in history["lines"].as_array()?.iter().rev() {
        let event = &line["event"];
        let (Some(at), Some(kind)) = (event["at"].as_i64(), event["kind"].as_str()) else { continue };
        if at < since_us {
            continue;
        }
        let said = event["sentence"].as_str().unwrap_or_default();
        match kind {
            _ if decision.latched_us.is_some() => {}
            "decided" if decision.decided_us == 0 => decision.decided_us = at,
            "cancelled" => decision.decided_us = 0,
            "step" if said.contains("proves to be primary") => decision.proven_us = Some(at),
            "switched" => decision.latched_us = Some(at),
            _ => {}
        }
        decision.steps.push(format!("{:+} ms {kind}: {said}", (at - since_us) / 1000));
    }
    (decision.decided_us > 0 && decision.latched_us.is_some()).then_some(decision)
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pgpivot => "pgpivot",
            Self::Haproxy => "haproxy",
        })
    }
}
