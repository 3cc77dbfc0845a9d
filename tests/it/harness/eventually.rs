//! The one way in which a test waits: ask, and ask again, until a deadline.

use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// For what a healthy machine does in well under a second, with room for a slow one.
pub const SOON: Duration = Duration::from_secs(30);

/// Asks every 20 ms until `attempt` answers `Ok`; panics with its last complaint when `within` is over.
pub async fn eventually<T>(what: &str, within: Duration, mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match attempt().await {
            Ok(answer) => return answer,
            Err(complaint) if start.elapsed() > within => {
                panic!("not within {within:?}: {what}\n{complaint}");
            }
            Err(_) => {}
        }
    }
}
