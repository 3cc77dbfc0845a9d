//! Notices when a probe's own timers ran late: then it measured this machine, not the server.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::types::Now;

/// A probe whose timer ran later than this is unknown.
pub(super) const TOO_LATE: Duration = Duration::from_millis(250);

/// How often a running probe looks at the clock.
const BEAT: Duration = Duration::from_millis(100);

/// Runs `probe`, which was to start at `due`; the flag says whether its start or any timer while it ran was too late.
pub(super) async fn watched<T>(due: Instant, clock: fn() -> Now, probe: impl Future<Output = T>) -> (T, bool) {
    let mut late = Instant::now().saturating_duration_since(due) > TOO_LATE;
    let mut last = clock().at;
    let mut probe = pin!(probe);
    loop {
        tokio::select! {
            biased;
            () = sleep(BEAT) => {
                late |= clock().at.since(last) > BEAT + TOO_LATE;
                last = clock().at;
            }
            output = &mut probe => return (output, late || clock().at.since(last) > BEAT + TOO_LATE),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::types::{Moment, WallTime};

    fn clock() -> Now {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { at: Moment(since), wall: WallTime(0) }
    }

    #[tokio::test]
    async fn a_probe_on_time_is_on_time() {
        assert_eq!(watched(Instant::now(), clock, async { 7 }).await, (7, false));
    }

    #[tokio::test]
    async fn a_probe_that_starts_late_or_is_held_up_is_late() {
        let due = Instant::now() - Duration::from_millis(300);
        assert!(watched(due, clock, async {}).await.1);
        let held_up = async { std::thread::sleep(Duration::from_millis(400)) };
        assert!(watched(Instant::now(), clock, held_up).await.1);
    }
}
