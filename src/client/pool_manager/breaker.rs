//! The circuit breaker of one server: after some failures in a row it is asked nothing for a while, then one statement
//! may try. Pure.

use std::time::Duration;

use crate::types::Moment;

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Failures in a row.
    pub(super) failures: u32,
    /// Until one may try.
    pub(super) open_for: Duration,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything passes; so many failures in a row.
    Closed { failures: u32 },
    /// Nothing passes until then.
    Open { until: Moment },
    /// One tries since then. Who is dropped on the way never reports, so that after a while another may.
    Trial { since: Moment },
}

/// The breaker of one server.
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    limits: Limits,
    state: State,
    openings: u64,
}

impl Breaker {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: State::Closed { failures: 0 }, openings: 0 }
    }

    /// How long nothing passes yet; zero when something does.
    pub(super) fn closed_in(&self, now: Moment) -> Duration {
        match self.state {
            State::Closed { .. } => Duration::ZERO,
            State::Open { until } => until.since(now),
            State::Trial { since } => (since + self.limits.open_for).since(now),
        }
    }

    /// Something is about to be sent; where the breaker is open, as the one that tries. `false` = not now.
    pub(super) fn enter(&mut self, now: Moment) -> bool {
        if self.closed_in(now) > Duration::ZERO {
            return false;
        }
        if !matches!(self.state, State::Closed { .. }) {
            self.state = State::Trial { since: now };
        }
        true
    }

    /// The server answered. Says whether that closed the breaker.
    pub(super) fn success(&mut self) -> bool {
        let was_closed = matches!(self.state, State::Closed { .. });
        self.state = State::Closed { failures: 0 };
        !was_closed
    }

    /// Whoever entered got neither an answer nor a failure of the server's: another may try.
    pub(super) fn abandoned(&mut self, now: Moment) {
        if matches!(self.state, State::Trial { .. }) {
            self.state = State::Open { until: now };
        }
    }

    /// Somebody else heard the server answer: one may try at once.
    pub(super) fn looked_well(&mut self, now: Moment) {
        if matches!(self.state, State::Open { .. }) {
            self.state = State::Open { until: now };
        }
    }

    /// The server failed. Says whether that opened the breaker.
    pub(super) fn failure(&mut self, now: Moment) -> bool {
        let (failures, was_closed) = match self.state {
            State::Closed { failures } => (failures.saturating_add(1), true),
            // Late news of something sent before it opened.
            State::Open { until } if until.since(now) > Duration::ZERO => return false,
            State::Open { .. } | State::Trial { .. } => (self.limits.failures, false),
        };
        if failures < self.limits.failures {
            self.state = State::Closed { failures };
            return false;
        }
        self.state = State::Open { until: now + self.limits.open_for };
        self.openings += u64::from(was_closed);
        true
    }

    /// For people and metrics.
    pub(super) fn word(&self, now: Moment) -> &'static str {
        match self.state {
            State::Closed { .. } => "closed",
            State::Open { until } if until.since(now) > Duration::ZERO => "open",
            State::Open { .. } | State::Trial { .. } => "half-open",
        }
    }

    /// How often it opened.
    pub(super) fn openings(&self) -> u64 {
        self.openings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn breaker() -> Breaker {
        Breaker::new(Limits { failures: 3, open_for: Duration::from_secs(10) })
    }

    fn opened() -> Breaker {
        let mut breaker = breaker();
        assert_eq!([1, 2, 3].map(|second| breaker.failure(at(second))), [false, false, true]);
        breaker
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut breaker = breaker();
        breaker.failure(at(1));
        breaker.failure(at(2));
        breaker.success();
        assert!(!breaker.failure(at(3)));
        assert!(breaker.enter(at(3)));
        assert_eq!(opened().word(at(3)), "open");
        assert_eq!(opened().closed_in(at(5)), Duration::from_secs(8));
    }

    #[test]
    fn after_a_while_one_tries_and_its_answer_closes_it() {
        let mut breaker = opened();
        assert!(!breaker.enter(at(12)));
        assert!(breaker.enter(at(13)), "the first one tries");
        assert!(!breaker.enter(at(13)), "the others wait for what it finds");
        assert_eq!(breaker.word(at(13)), "half-open");
        assert!(breaker.success());
        assert!(breaker.enter(at(13)) && breaker.enter(at(13)));
        assert_eq!((breaker.word(at(13)), breaker.openings()), ("closed", 1));
    }

    #[test]
    fn a_trial_that_fails_keeps_it_open_and_is_no_new_opening() {
        let mut breaker = opened();
        assert!(breaker.enter(at(13)));
        assert!(breaker.failure(at(14)));
        assert!(!breaker.enter(at(23)));
        assert!(breaker.enter(at(24)));
        assert_eq!(breaker.openings(), 1);
    }

    #[test]
    fn a_trial_of_which_nothing_is_heard_does_not_bar_the_server_for_good() {
        let mut breaker = opened();
        assert!(breaker.enter(at(13)));
        assert!(!breaker.enter(at(22)));
        assert!(breaker.enter(at(23)), "the application dropped it");
        breaker.abandoned(at(24));
        assert!(breaker.enter(at(24)), "it found no free connection");
    }

    #[test]
    fn a_server_that_was_seen_to_answer_is_tried_at_once() {
        let mut breaker = opened();
        breaker.looked_well(at(4));
        assert_eq!(breaker.word(at(4)), "half-open");
        assert!(breaker.enter(at(4)) && !breaker.enter(at(4)), "by one");
        assert!(breaker.failure(at(5)), "and its word counts");
        assert!(!breaker.enter(at(6)));
    }

    #[test]
    fn what_was_sent_before_it_opened_does_not_lengthen_the_wait() {
        let mut breaker = opened();
        assert!(!breaker.failure(at(9)));
        assert!(breaker.enter(at(13)));
    }
}
