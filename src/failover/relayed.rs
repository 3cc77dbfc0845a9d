//! How much was handed to a side, and when: what was relayed to it while somebody else had already promoted another one
//! is counted afterwards, from the last moment at which that other one was still a standby.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::Moment;

/// Moments this far apart are told from each other.
const SPACING: Duration = Duration::from_millis(100);
/// An answer that took longer than this is not matched with what was relayed when it was asked for.
const HORIZON: Duration = Duration::from_secs(12);

/// Bytes handed to one side, over time.
#[derive(Debug, Clone, Default)]
pub struct Relayed {
    /// When this side became active.
    first: u64,
    latest: u64,
    samples: VecDeque<(Moment, u64)>,
    /// Old samples were forgotten.
    forgets: bool,
}

/// Another side answered as a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbySeen {
    /// When it was asked.
    pub asked: Moment,
    /// What the active side had been handed by then, if that is known.
    pub relayed: Option<u64>,
}

/// A side was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutOff {
    /// When.
    pub at: Moment,
    /// How many connections it had.
    pub connections: usize,
}

impl Relayed {
    /// So much by now.
    pub fn note(&mut self, at: Moment, bytes: u64) {
        self.latest = self.latest.max(bytes);
        if self.samples.back().is_none_or(|(last, _)| at.since(*last) >= SPACING) {
            self.samples.push_back((at, self.latest));
        }
        while self.samples.front().is_some_and(|(first, _)| at.since(*first) > HORIZON) && self.samples.len() > 1 {
            self.samples.pop_front();
            self.forgets = true;
        }
    }

    /// So much at that moment, rather less; `None` = too long ago.
    pub fn at(&self, moment: Moment) -> Option<u64> {
        let before = self.samples.iter().rev().find(|(at, _)| *at <= moment).map(|(_, bytes)| *bytes);
        before.or((!self.forgets).then_some(self.first))
    }

    /// The newest count.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// The count when this side became active.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// It becomes active.
    pub fn begin(&mut self) {
        *self = Self { first: self.latest, latest: self.latest, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    #[test]
    fn what_had_been_relayed_at_a_moment_is_rather_less_than_more() {
        let mut relayed = Relayed::default();
        for (ms, bytes) in [(1000, 10), (1050, 15), (1100, 20), (5000, 50)] {
            relayed.note(at(ms), bytes);
        }
        assert_eq!([900, 1000, 1099, 1100, 4999, 6000].map(|ms| relayed.at(at(ms)).unwrap()), [0, 10, 10, 20, 20, 50]);
        assert_eq!(relayed.latest(), 50);
    }

    #[test]
    fn what_is_too_long_ago_is_not_guessed() {
        let mut relayed = Relayed::default();
        for seconds in 1..=20 {
            relayed.note(at(seconds * 1000), seconds);
        }
        assert_eq!((relayed.at(at(7000)), relayed.at(at(9000))), (None, Some(9)));
        relayed.begin();
        assert_eq!((relayed.at(at(7000)), relayed.first(), relayed.latest()), (Some(20), 20, 20));
    }
}
