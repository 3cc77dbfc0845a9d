//! A late wake: what this daemon heard before it is worth nothing, and what it had decided but not sent is called off.

use std::time::Duration;

use super::{Machine, State, Step};
use crate::failover::action::EventKind;
use crate::types::Now;

impl Machine {
    /// The control thread woke this much too late: what was heard meanwhile is worth nothing.
    pub fn handle_delay(&mut self, late: Duration, now: Now) {
        if late <= Duration::from_millis(500) {
            return;
        }
        self.tell(
            now,
            EventKind::Notice,
            format!("this daemon was stopped or starved for {} ms: evidence is discarded", late.as_millis()),
        );
        self.woke = now.at;
        for side in &mut self.sides {
            side.forget();
        }
        self.suspicion = None;
        self.void_episode(now);
        if late > Duration::from_secs(2) {
            match &mut self.state {
                State::Episode(run) => run.unchecked = Some(now.at),
                state => {
                    *state = State::Starting { since: now.at };
                    self.block = None;
                }
            }
            self.probe_all();
        }
        self.advance(now);
    }

    /// An intent that is not `sent` ends. Whether `sent` is on disk is known when its write is answered.
    fn void_episode(&mut self, now: Now) {
        const WHY: &str = "this daemon was stopped or starved meanwhile";
        let State::Episode(run) = &mut self.state else { return };
        if run.may_be_cancelled() {
            self.cancel(WHY.into(), now);
        } else if matches!(run.step, Step::Sending { .. }) {
            run.void = Some(WHY.into());
        }
    }
}
