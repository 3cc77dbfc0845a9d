//! How old is what a standby shows? The active side's flush positions, each with the time from which it was asked, say:
//! a standby that has replayed one of them shows every commit acknowledged by then. Functions over what was heard.

use std::collections::VecDeque;
use std::time::Duration;

use super::phase::Identity;
use crate::types::{Lsn, Moment};

/// At an interval of 2 s, half an hour. A standby behind all of them is at least as old as the oldest.
const MARKS: usize = 1024;

/// Where the log of the active side stood when.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    line: Option<Identity>,
    marks: VecDeque<(Moment, Lsn)>,
}

impl Trail {
    /// The active side of this line told its flush position to a probe that began at `asked`.
    pub fn note(&mut self, line: &Identity, asked: Moment, flushed: Lsn) {
        if self.line.as_ref() != Some(line) {
            (self.line, self.marks) = (Some(line.clone()), VecDeque::new());
        }
        match self.marks.back_mut() {
            // Probes overlap, and their answers may come in any order.
            Some((at, known)) if asked <= *at || flushed < *known => {}
            Some((at, known)) if flushed == *known => *at = asked,
            _ => self.marks.push_back((asked, flushed)),
        }
        if self.marks.len() > MARKS {
            self.marks.pop_front();
        }
    }

    /// From when on may something be missing on a standby of this line that has replayed up to `replayed`? `None` = it is
    /// behind everything that is known.
    pub fn shows(&self, line: &Identity, replayed: Lsn) -> Option<Moment> {
        let known = self.line.as_ref() == Some(line);
        let mut marks = self.marks.iter().rev().filter(|_| known);
        marks.find(|(_, flushed)| *flushed <= replayed).map(|(at, _)| *at)
    }

    /// Up to when something new is known to be possible: now, but once the active side has told nothing for longer than
    /// `patience`, its last word.
    pub fn until(&self, patience: Duration, now: Moment) -> Moment {
        match self.marks.back() {
            Some((told, _)) if now.since(*told) > patience => *told,
            _ => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{SystemId, Timeline};

    const PATIENCE: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn line(timeline: u32) -> Identity {
        Identity {
            system_id: SystemId(7),
            timeline: Timeline(timeline),
            switch_lsn: None,
            ancestors: Vec::new(),
            node: None,
        }
    }

    fn trail() -> Trail {
        let mut trail = Trail::default();
        for (asked, flushed) in [(10, 100), (12, 200), (14, 300), (16, 300)] {
            trail.note(&line(1), at(asked), Lsn(flushed));
        }
        trail
    }

    fn age(trail: &Trail, replayed: u64, now: u64) -> Option<u64> {
        let shows = trail.shows(&line(1), Lsn(replayed))?;
        Some(trail.until(PATIENCE, at(now)).since(shows).as_secs())
    }

    #[test]
    fn a_standby_that_has_replayed_what_the_primary_told_last_is_as_old_as_that_word() {
        assert_eq!(age(&trail(), 300, 17), Some(1));
        assert_eq!(age(&trail(), 250, 17), Some(5));
    }

    #[test]
    fn of_one_behind_everything_known_nothing_is_known() {
        assert_eq!(age(&trail(), 99, 17), None);
        assert_eq!(Trail::default().shows(&line(1), Lsn(99)), None);
    }

    #[test]
    fn nothing_grows_older_while_the_primary_tells_nothing() {
        assert_eq!(age(&trail(), 250, 21), Some(9));
        assert_eq!(age(&trail(), 250, 22), Some(4));
        assert_eq!(age(&trail(), 250, 900), Some(4));
    }

    #[test]
    fn another_line_begins_anew_and_a_late_answer_takes_nothing_back() {
        let mut trail = trail();
        trail.note(&line(1), at(15), Lsn(290));
        assert_eq!(age(&trail, 300, 16), Some(0));
        trail.note(&line(2), at(20), Lsn(50));
        assert_eq!(trail.shows(&line(1), Lsn(300)), None);
        assert_eq!(trail.shows(&line(2), Lsn(50)), Some(at(20)));
    }

    #[test]
    fn it_keeps_a_bounded_number_of_words() {
        let mut trail = Trail::default();
        for i in 0..5000 {
            trail.note(&line(1), at(i), Lsn(i));
        }
        assert_eq!(trail.marks.len(), MARKS);
    }
}
