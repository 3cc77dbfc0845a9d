//! The task that asks the daemon which side is active, and tells which of our servers that is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::Instrument;

use super::fleet::Fleet;
use super::primary::Word;
use crate::client::ConnectionManager;
use crate::view::sides::{Cluster, Clusters};

/// As long as a daemon's answer is kept.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until it is aborted. While the daemon does not answer, what it said last holds.
pub(super) async fn run(fleet: Arc<Fleet>, daemon: ConnectionManager) {
    let follow = async {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = true;
        loop {
            ticks.tick().await;
            let sides = daemon.sides().await;
            if answered != sides.is_ok() {
                answered = sides.is_ok();
                match &sides {
                    Ok(_) => tracing::info!("the daemon answers again"),
                    Err(error) => {
                        tracing::warn!(%error, "the daemon does not tell the active side, its last word holds")
                    }
                }
            }
            if let Ok(sides) = sides {
                fleet.hear(word(&fleet, &sides));
            }
        }
    };
    follow.instrument(tracing::info_span!("pool_follower")).await;
}

/// What the daemon knows of these servers.
pub(super) fn word(fleet: &Fleet, sides: &Clusters) -> Word {
    let names: Vec<&str> = fleet.servers.iter().map(|server| server.name.as_str()).collect();
    read(&names, sides)
}

fn read(names: &[&str], sides: &Clusters) -> Word {
    let ours = |side: &Cluster| {
        let called = |name: &str| {
            side.dns.iter().any(|address| address.to_string() == name)
                || side.addresses.iter().any(|address| address.to_string() == name)
        };
        names.iter().position(|name| called(name))
    };
    if !sides.clusters.iter().any(|side| ours(side).is_some()) {
        return Word::Nothing;
    }
    match sides.active() {
        Some(active) if active.open => ours(active).map_or(Word::Held, Word::Active),
        _ => Word::Held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(active: &str, open: bool) -> Clusters {
        let side = |name: &str, dns: &str| {
            serde_json::json!({
                "service": "main", "kind": "postgres", "name": name, "cluster_id": null, "active": name == active,
                "primary": name == "east", "role": "primary", "health": "up", "healthy": true, "fit": true,
                "open": open, "dns": [dns], "addresses": [], "sslmode": "prefer", "sslrootcert": null,
            })
        };
        let clusters = [side("east", "db1.example.com:5432"), side("west", "db2.example.com:5432")];
        serde_json::from_value(serde_json::json!({ "clusters": clusters })).unwrap()
    }

    #[test]
    fn the_active_side_is_found_among_the_servers_by_its_address() {
        let ours = ["db1.example.com:5432", "db2.example.com:5432"];
        assert_eq!(read(&ours, &sides("west", true)), Word::Active(1));
        assert_eq!(read(&ours, &sides("west", false)), Word::Held);
        assert_eq!(read(&ours[..1], &sides("west", true)), Word::Held, "it is none of ours");
    }

    #[test]
    fn a_daemon_that_knows_none_of_the_servers_has_no_say() {
        assert_eq!(read(&["localhost:26257"], &sides("east", true)), Word::Nothing);
    }
}
