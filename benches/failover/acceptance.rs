//! When the new side began to accept writes, asked of itself and past every proxy and network.

use super::harness::cluster::Cluster;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// How exactly it is known.
const STEP: Duration = Duration::from_millis(4);

/// Watches a standby until it is none; ends without an answer only with the server.
pub async fn watch(standby: &Cluster) -> JoinHandle<Option<Instant>> {
    let client = standby.client().await;
    tokio::spawn(async move {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            steps.tick().await;
            let answer = client.query_one("SELECT pg_is_in_recovery()", &[]).await.ok()?;
            if !answer.get::<_, bool>(0) {
                return Some(Instant::now());
            }
        }
    })
}
