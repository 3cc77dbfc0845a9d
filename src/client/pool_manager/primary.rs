//! Who is the primary: by what each server proves of itself, by the highest timeline, and by the daemon's latch where
//! there is one. Where two claim it alike nobody is: a guess could make two of them. Pure.

use crate::types::{Lsn, SystemId, Timeline};

/// What a server says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// It was not reached.
    #[default]
    Unknown,
    /// It is not in recovery.
    Primary {
        /// `false` = fenced: its transactions are read-only by default.
        writable: bool,
    },
    /// It replays somebody's log.
    Standby,
    /// A CockroachDB cluster.
    Cockroach,
}

impl Role {
    /// For people and metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary { writable: true } => "primary",
            Self::Primary { writable: false } => "fenced",
            Self::Standby => "standby",
            Self::Cockroach => "cockroach",
        }
    }
}

/// What the last look at a server found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) role: Role,
    /// `None` = it may not be asked.
    pub(super) timeline: Option<Timeline>,
    /// `None` = it may not be asked.
    pub(super) system: Option<SystemId>,
    /// Microseconds since 1970, by its own clock: with the system's number, which server process it is.
    pub(super) started: Option<i64>,
    /// A primary's end of the log; as far as a standby has replayed.
    pub(super) position: Option<Lsn>,
}

/// What the daemon says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Word {
    /// There is none, or it knows none of these servers.
    #[default]
    Nothing,
    /// Traffic belongs to this server.
    Active(usize),
    /// It lets nobody in now, or traffic belongs to a server that is not among these.
    Held,
}

/// Where writes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Writer {
    /// To this server.
    Server(usize),
    /// Nowhere: none proves to be the primary.
    Nobody,
    /// Nowhere: these claim it alike.
    Contested(Vec<usize>),
}

/// Remembers what must not be forgotten between two looks.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    current: usize,
    highest: Option<Timeline>,
    system: Option<SystemId>,
}

impl Judge {
    /// The first server is the configured primary.
    pub(super) fn new() -> Self {
        Self { current: 0, highest: None, system: None }
    }

    /// Where writes go by what is known now.
    pub(super) fn judge(&mut self, seen: &[Seen], word: Word) -> Writer {
        if seen.first().is_some_and(|first| first.role == Role::Cockroach) {
            self.current = 0;
            return Writer::Server(0);
        }
        let claims: Vec<usize> = (0..seen.len()).filter(|&i| self.is_claim(&seen[i])).collect();
        let highest = seen.iter().filter(|seen| self.is_ours(seen)).filter_map(|seen| seen.timeline).max();
        self.highest = self.highest.max(highest);
        let writer = match word {
            Word::Held => Writer::Nobody,
            Word::Active(active) if claims.contains(&active) => Writer::Server(active),
            // It is the active one, but out of reach: whoever wants to write finds out.
            Word::Active(active) if seen[active].role == Role::Unknown => Writer::Server(active),
            Word::Active(_) => Writer::Nobody,
            Word::Nothing => self.by_claims(&claims, seen),
        };
        if let Writer::Server(writer) = writer {
            self.current = writer;
            self.system = self.system.or(seen[writer].system);
        }
        writer
    }

    fn by_claims(&self, claims: &[usize], seen: &[Seen]) -> Writer {
        // An old primary that came back is no primary, however healthy.
        let newest = |&i: &usize| seen[i].timeline.is_none() || seen[i].timeline == self.highest;
        let claims: Vec<usize> = claims.iter().copied().filter(newest).collect();
        let Some(&first) = claims.first() else {
            // Nobody took over: it is still the one, if only it could be reached.
            let lost = seen[self.current].role == Role::Unknown;
            return if lost { Writer::Server(self.current) } else { Writer::Nobody };
        };
        if claims.iter().all(|&i| i == first || same_process(&seen[i], &seen[first])) {
            return Writer::Server(if claims.contains(&self.current) { self.current } else { first });
        }
        Writer::Contested(claims)
    }

    /// May reads go there? To a standby of this system that does not follow an older line, and to the writer's own
    /// process under another address.
    pub(super) fn is_readable(&self, candidate: &Seen, writer: Option<&Seen>) -> bool {
        match candidate.role {
            Role::Standby => {
                self.is_ours(candidate) && (candidate.timeline.is_none() || candidate.timeline >= self.highest)
            }
            Role::Primary { .. } => writer.is_some_and(|writer| same_process(candidate, writer)),
            Role::Unknown | Role::Cockroach => false,
        }
    }

    fn is_claim(&self, seen: &Seen) -> bool {
        seen.role == Role::Primary { writable: true } && self.is_ours(seen)
    }

    fn is_ours(&self, seen: &Seen) -> bool {
        match (self.system, seen.system) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        }
    }
}

/// One server process, reached by two addresses?
fn same_process(one: &Seen, other: &Seen) -> bool {
    let known = one.system.is_some() && one.started.is_some();
    known && one.system == other.system && one.started == other.started
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Seen = Seen { role: Role::Unknown, timeline: None, system: None, started: None, position: None };

    fn seen(role: Role, timeline: u32, started: i64) -> Seen {
        let timeline = Some(Timeline(timeline));
        Seen { role, timeline, system: Some(SystemId(7)), started: Some(started), position: None }
    }

    fn primary(timeline: u32, started: i64) -> Seen {
        seen(Role::Primary { writable: true }, timeline, started)
    }

    fn standby(timeline: u32, started: i64) -> Seen {
        seen(Role::Standby, timeline, started)
    }

    fn judge(seen: &[Seen]) -> (Judge, Writer) {
        let mut judge = Judge::new();
        let writer = judge.judge(seen, Word::Nothing);
        (judge, writer)
    }

    #[test]
    fn writes_go_to_whoever_proves_to_be_the_primary_also_if_it_was_configured_as_a_replica() {
        assert_eq!(judge(&[primary(1, 1), standby(1, 2)]).1, Writer::Server(0));
        assert_eq!(judge(&[standby(1, 1), primary(1, 2)]).1, Writer::Server(1));
        assert_eq!(judge(&[standby(1, 1), standby(1, 2)]).1, Writer::Nobody);
    }

    #[test]
    fn a_promoted_standby_takes_over_and_the_old_primary_that_comes_back_does_not() {
        let (mut judge, _) = judge(&[primary(1, 1), standby(1, 2)]);
        assert_eq!(judge.judge(&[UNKNOWN, standby(1, 2)], Word::Nothing), Writer::Server(0), "nobody took over");
        assert_eq!(judge.judge(&[UNKNOWN, primary(2, 2)], Word::Nothing), Writer::Server(1));
        assert_eq!(judge.judge(&[primary(1, 9), primary(2, 2)], Word::Nothing), Writer::Server(1));
        assert_eq!(judge.judge(&[primary(1, 9), UNKNOWN], Word::Nothing), Writer::Server(1), "its line is left");
        let (old, new) = (primary(1, 9), primary(2, 2));
        assert!(!judge.is_readable(&old, Some(&new)));
    }

    #[test]
    fn of_two_that_claim_to_be_primary_the_higher_timeline_counts_and_of_equals_none() {
        assert_eq!(judge(&[primary(1, 1), primary(2, 2)]).1, Writer::Server(1));
        assert_eq!(judge(&[primary(2, 1), primary(2, 2)]).1, Writer::Contested(vec![0, 1]));
    }

    #[test]
    fn one_server_under_two_addresses_is_no_contest_and_may_be_read_from() {
        let one = primary(1, 1);
        let (judge, writer) = judge(&[one, one]);
        assert_eq!(writer, Writer::Server(0));
        assert!(judge.is_readable(&one, Some(&one)));
    }

    #[test]
    fn a_server_of_another_system_is_neither_written_to_nor_read_from() {
        let (mut judge, _) = judge(&[primary(1, 1), standby(1, 2)]);
        let stranger = Seen { system: Some(SystemId(8)), ..primary(9, 3) };
        assert_eq!(judge.judge(&[UNKNOWN, stranger], Word::Nothing), Writer::Server(0));
        let follows_stranger = Seen { role: Role::Standby, ..stranger };
        assert!(!judge.is_readable(&follows_stranger, None));
        assert_eq!(judge.judge(&[primary(1, 1), follows_stranger], Word::Nothing), Writer::Server(0));
    }

    #[test]
    fn a_standby_that_still_follows_the_old_line_is_not_read_from() {
        let (judge, _) = judge(&[primary(2, 1), standby(1, 2), standby(2, 3)]);
        assert!(!judge.is_readable(&standby(1, 2), None));
        assert!(judge.is_readable(&standby(2, 3), None));
        let untold = Seen { timeline: None, ..standby(2, 3) };
        assert!(judge.is_readable(&untold, None), "a server that may not be asked for its line");
    }

    #[test]
    fn a_fenced_primary_is_none() {
        let fenced = seen(Role::Primary { writable: false }, 1, 1);
        assert_eq!(judge(&[fenced, standby(1, 2)]).1, Writer::Nobody);
        assert_eq!(judge(&[fenced, primary(2, 2)]).1, Writer::Server(1));
    }

    #[test]
    fn the_daemons_word_is_final_where_the_server_does_not_deny_it() {
        let mut judge = Judge::new();
        let two = [primary(1, 1), primary(1, 2)];
        assert_eq!(judge.judge(&two, Word::Active(1)), Writer::Server(1));
        assert_eq!(judge.judge(&two, Word::Held), Writer::Nobody);
        assert_eq!(judge.judge(&[primary(1, 1), standby(1, 2)], Word::Active(1)), Writer::Nobody, "not promoted yet");
        assert_eq!(judge.judge(&[primary(1, 1), UNKNOWN], Word::Active(1)), Writer::Server(1), "out of reach");
    }

    #[test]
    fn a_cockroach_cluster_is_the_primary_where_it_is_configured_as_that_and_nothing_elsewhere() {
        let cockroach = Seen { role: Role::Cockroach, ..UNKNOWN };
        let (judge, writer) = judge(&[cockroach, cockroach]);
        assert_eq!(writer, Writer::Server(0));
        assert!(!judge.is_readable(&cockroach, Some(&cockroach)));
        assert_eq!(Judge::new().judge(&[UNKNOWN, cockroach], Word::Nothing), Writer::Server(0));
    }
}
