//! When a server that cannot be reached is tried again: after 2, 4, 8, 16 and 32 seconds, then not before somebody wants
//! something of it. Pure.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::types::Moment;

/// The waits before each new attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Before the first new attempt; doubled from one to the next.
    pub(super) first: Duration,
    /// At most.
    pub(super) max: Duration,
    /// New attempts.
    pub(super) attempts: u32,
}

/// Where it stands.
#[derive(Debug, Clone)]
enum State {
    /// The last attempt found it.
    Connected,
    /// Some attempts failed, the next one is due then.
    Waiting { failed: u32, due: Moment, backoff: Backoff },
    /// It was tried often enough.
    GaveUp,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another one.
    Again {
        /// The number of the one that failed, from 1.
        attempt: u32,
        /// Until the next.
        wait: Duration,
    },
    /// Nothing, until somebody wants something of the server. Told once.
    GaveUp,
    /// What was decided before holds.
    AsBefore,
}

/// The connection to one server.
#[derive(Debug, Clone)]
pub(super) struct Reconnect {
    schedule: Schedule,
    state: State,
}

impl Reconnect {
    /// Not tried yet, and due.
    pub(super) fn new(schedule: Schedule, now: Moment) -> Self {
        Self { schedule, state: Self::series(schedule, now) }
    }

    fn series(schedule: Schedule, due: Moment) -> State {
        State::Waiting { failed: 0, due, backoff: Backoff::new(schedule.first, schedule.max) }
    }

    /// The last attempt found the server.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected)
    }

    /// It was tried often enough.
    pub(super) fn gave_up(&self) -> bool {
        matches!(self.state, State::GaveUp)
    }

    /// When it is tried again by itself.
    pub(super) fn due(&self) -> Option<Moment> {
        match self.state {
            State::Waiting { due, .. } => Some(due),
            State::Connected | State::GaveUp => None,
        }
    }

    /// Somebody wants something of the server. Says whether that begins a new series of attempts.
    pub(super) fn wanted(&mut self, now: Moment) -> bool {
        let gave_up = self.gave_up();
        if gave_up {
            self.state = Self::series(self.schedule, now);
        }
        gave_up
    }

    /// An attempt found it. Says whether that is news.
    pub(super) fn found(&mut self) -> bool {
        let news = !self.is_connected();
        self.state = State::Connected;
        news
    }

    /// An attempt failed. One that was made before its time, because somebody asked, does not count.
    pub(super) fn failed(&mut self, now: Moment) -> Next {
        if self.is_connected() {
            self.state = Self::series(self.schedule, now);
        }
        let attempts = self.schedule.attempts;
        let State::Waiting { failed, due, backoff } = &mut self.state else { return Next::AsBefore };
        if due.since(now) > Duration::ZERO {
            return Next::AsBefore;
        }
        *failed += 1;
        if *failed > attempts {
            self.state = State::GaveUp;
            return Next::GaveUp;
        }
        let wait = backoff.step(0);
        *due = now + wait;
        Next::Again { attempt: *failed, wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { first: Duration::from_secs(2), max: Duration::from_secs(32), attempts: 5 };

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    /// The waits until it gives up, from `now` on.
    fn waits(reconnect: &mut Reconnect, mut now: Moment) -> Vec<u64> {
        let mut waits = Vec::new();
        loop {
            match reconnect.failed(now) {
                Next::Again { attempt, wait } => {
                    assert_eq!(attempt as usize, waits.len() + 1);
                    waits.push(wait.as_secs());
                    now = now + wait;
                    assert_eq!(reconnect.due(), Some(now));
                }
                Next::GaveUp => return waits,
                Next::AsBefore => panic!("an attempt that was due does not count"),
            }
        }
    }

    #[test]
    fn a_lost_server_is_tried_again_after_2_4_8_16_and_32_seconds_and_then_left_alone() {
        let mut reconnect = Reconnect::new(SCHEDULE, at(0));
        assert!(reconnect.found());
        assert_eq!(waits(&mut reconnect, at(100)), [2, 4, 8, 16, 32]);
        assert!(reconnect.gave_up());
        assert_eq!(reconnect.due(), None);
        assert_eq!(reconnect.failed(at(1000)), Next::AsBefore, "a look that somebody asked for");
    }

    #[test]
    fn the_next_query_begins_the_series_anew() {
        let mut reconnect = Reconnect::new(SCHEDULE, at(0));
        waits(&mut reconnect, at(0));
        assert!(reconnect.wanted(at(500)));
        assert!(!reconnect.wanted(at(500)), "of many queries, one");
        assert_eq!(reconnect.due(), Some(at(500)));
        assert_eq!(waits(&mut reconnect, at(500)), [2, 4, 8, 16, 32]);
    }

    #[test]
    fn a_server_that_is_found_again_has_all_its_attempts_before_it() {
        let mut reconnect = Reconnect::new(SCHEDULE, at(0));
        assert_eq!(reconnect.failed(at(0)), Next::Again { attempt: 1, wait: Duration::from_secs(2) });
        assert_eq!(reconnect.failed(at(1)), Next::AsBefore, "nobody's impatience shortens the series");
        assert!(reconnect.found());
        assert!(!reconnect.found());
        assert!(!reconnect.wanted(at(3)));
        assert_eq!(waits(&mut reconnect, at(10)), [2, 4, 8, 16, 32]);
    }
}
