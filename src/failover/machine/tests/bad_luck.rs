//! The laws under bad luck, as sentences: late answers, failing disks, restarts, stale evidence.

use std::time::Duration;

use super::stage::{Mood, NAMES, Stage, address};
use crate::failover::observation::{Facts, Observation, Verdict};
use crate::types::Moment;

impl Stage {
    /// The daemon was stopped for so long, and hears of it.
    fn sleeps(&mut self, ms: u64) {
        self.now += ms;
        let at = self.at();
        self.machine.handle_delay(Duration::from_millis(ms), at);
        self.obey();
    }

    /// A probe's answer that comes by the way.
    fn hears(&mut self, i: usize, started: u64, facts: Facts) {
        let moment = |ms| Moment(Duration::from_millis(ms));
        let seen = Observation {
            backend: NAMES[i].into(),
            address: address(i),
            started: moment(started),
            finished: moment(self.now),
            fresh: true,
            verdict: Verdict::Answered(Box::new(facts)),
        };
        let at = self.at();
        self.machine.handle_observation(&seen, at);
        self.obey();
    }
}

#[test]
fn after_a_long_sleep_traffic_waits_until_the_latched_side_answers_anew() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Hung;
    stage.sleeps(30_000);
    stage.run(4000);
    assert!(!stage.is_open(), "opened to a side that has not answered since the sleep");
    stage.servers[0].mood = Mood::Well;
    stage.until(5000, Stage::is_open);
}
