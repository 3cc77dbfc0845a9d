//! When the new side began to accept writes, asked of itself and past every proxy and network.

use super::harness::cluster::Cluster;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// How exactly it is known.
const STEP: Duration = Duration::from_millis(4);
/// The clock first: at that time, by the server's own clock, the recovery had not ended yet.
const QUESTION: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_is_in_recovery()";

/// Watches a standby until it is none, and says until when it was one: microseconds since 1970. From there on it is the
/// peer's time, however late this busy machine lets anybody ask again. Ends without an answer only with the server.
pub async fn watch(standby: &Cluster) -> JoinHandle<Option<i64>> {
    let client = standby.client().await;
    tokio::spawn(async move {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut standby_until = None;
        loop {
            steps.tick().await;
            let answer = client.query_one(QUESTION, &[]).await.ok()?;
            if !answer.get::<_, bool>(1) {
                return standby_until;
            }
            standby_until = Some(answer.get(0));
        }
    })
}
