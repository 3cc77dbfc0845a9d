//! Our own rate limit, far under the vendor's ten requests a second per user, so that bursts wait instead of being
//! refused. Pure: `now` is an argument. Reads and writes have a lane each: an order never queues behind reads.

use std::time::Duration;

use tokio::time::Instant;

/// Between two reads, in the long run.
const READ_EVERY: Duration = Duration::from_millis(250);
/// Reads at once after a rest.
const READ_BURST: u32 = 3;
/// Between two writes, in the long run.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Writes at once after a rest.
const WRITE_BURST: u32 = 2;
/// The API may make all callers wait for this long at most by one reply.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Both lanes and the pause that the API ordered.
#[derive(Debug)]
pub(super) struct Limit {
    reads: Lane,
    writes: Lane,
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Lane {
    every: Duration,
    burst: u32,
    /// When the lane is at rest again.
    rest: Option<Instant>,
}

impl Limit {
    /// At rest.
    pub(super) fn new() -> Self {
        let lane = |every, burst| Lane { every, burst, rest: None };
        Self { reads: lane(READ_EVERY, READ_BURST), writes: lane(WRITE_EVERY, WRITE_BURST), paused_until: None }
    }

    /// Takes a turn and tells when it is; `None`, and nothing taken, if that is after `deadline`.
    pub(super) fn turn(&mut self, write: bool, now: Instant, deadline: Instant) -> Option<Instant> {
        let not_before = self.paused_until.map_or(now, |until| until.max(now));
        let lane = if write { &mut self.writes } else { &mut self.reads };
        lane.turn(not_before, deadline)
    }

    /// The API told us to wait this long.
    pub(super) fn pause(&mut self, wait: Duration, now: Instant) {
        let until = now + wait.min(MAX_PAUSE);
        self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
    }
}

impl Lane {
    fn turn(&mut self, not_before: Instant, deadline: Instant) -> Option<Instant> {
        let rest = self.rest.map_or(not_before, |rest| rest.max(not_before));
        let ahead = self.every * (self.burst - 1);
        let at = rest.checked_sub(ahead).map_or(not_before, |at| at.max(not_before));
        if at > deadline {
            return None;
        }
        self.rest = Some(rest + self.every);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(limit: &mut Limit, write: bool, now: Instant, count: usize) -> Vec<u128> {
        let far = now + Duration::from_secs(3600);
        (0..count).map(|_| limit.turn(write, now, far).unwrap().duration_since(now).as_millis()).collect()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_waits_four_a_second() {
        let (mut limit, now) = (Limit::new(), Instant::now());
        assert_eq!(waits(&mut limit, false, now, 7), [0, 0, 0, 250, 500, 750, 1000]);
        let later = now + Duration::from_secs(60);
        assert_eq!(waits(&mut limit, false, later, 5), [0, 0, 0, 250, 500]);
    }

    #[test]
    fn no_second_sees_ten_requests() {
        let (mut limit, now) = (Limit::new(), Instant::now() + Duration::from_secs(100));
        let mut sent = waits(&mut limit, false, now, 100);
        sent.extend(waits(&mut limit, true, now, 100));
        for from in (0..20_000).step_by(50) {
            let count = sent.iter().filter(|at| (from..from + 1000).contains(*at)).count();
            assert!(count <= 8, "{count} from {from}");
        }
    }

    #[test]
    fn a_write_does_not_queue_behind_reads() {
        let (mut limit, now) = (Limit::new(), Instant::now());
        waits(&mut limit, false, now, 40);
        assert_eq!(waits(&mut limit, true, now, 3), [0, 0, 1000]);
    }

    #[test]
    fn who_cannot_have_a_turn_in_time_takes_none() {
        let (mut limit, now) = (Limit::new(), Instant::now());
        waits(&mut limit, false, now, 3);
        assert_eq!(limit.turn(false, now, now + Duration::from_millis(200)), None);
        assert_eq!(limit.turn(false, now, now + Duration::from_millis(250)), Some(now + Duration::from_millis(250)));
    }

    #[test]
    fn a_pause_holds_everybody_and_is_bounded() {
        let (mut limit, now) = (Limit::new(), Instant::now());
        limit.pause(Duration::from_secs(5), now);
        limit.pause(Duration::from_secs(1), now);
        assert_eq!(limit.turn(true, now, now + Duration::from_secs(4)), None);
        assert_eq!(waits(&mut limit, false, now, 5), [5000, 5000, 5000, 5250, 5500]);
        limit.pause(Duration::from_secs(86_400), now);
        assert_eq!(waits(&mut limit, true, now, 1), [60_000]);
    }
}
