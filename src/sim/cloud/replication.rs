//! One replication stream from its beginning to its end. Pure: time is an argument, what the clusters hold and whether
//! they can be reached is `world`'s to say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pace::Pace;
use super::refusal::Refusal;
use crate::types::WallTime;

/// How far ahead a failover may be asked for.
const FUTURE: Duration = Duration::from_secs(3600);

/// What a virtual cluster holds: id and commit time.
pub(in crate::sim) type Rows = BTreeMap<i64, WallTime>;

/// A stream. Clusters are named by their number.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Stream {
    pub(in crate::sim) id: String,
    pub(in crate::sim) job: i64,
    pub(in crate::sim) primary: usize,
    pub(in crate::sim) standby: usize,
    /// As given in SQL, without its password; empty when the API made it.
    pub(in crate::sim) uri: String,
    pub(in crate::sim) created: WallTime,
    pub(in crate::sim) phase: Phase,
    /// The standby has everything up to here.
    pub(in crate::sim) replicated: Option<WallTime>,
    /// A failover can go back to here.
    pub(in crate::sim) retained: WallTime,
    /// What keeps it from going on.
    pub(in crate::sim) halt: Halt,
    /// No scan: the standby was the source once.
    rewinds: bool,
    /// When the replicated time is refreshed next.
    next: WallTime,
}

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) enum Phase {
    Starting {
        since: WallTime,
    },
    Scanning {
        since: WallTime,
    },
    Replicating,
    /// A failover is asked for; the replicated time has not reached it.
    Pending {
        to: WallTime,
        future: bool,
    },
    FailingOver {
        to: WallTime,
        since: WallTime,
        future: bool,
        rows: Rows,
    },
    Completed {
        to: WallTime,
        at: WallTime,
    },
    Canceled {
        at: WallTime,
    },
    /// Its job failed while it failed over.
    Failed {
        at: WallTime,
    },
}

/// Why a stream that has not ended stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Halt {
    None,
    /// PAUSE REPLICATION.
    Paused,
    /// The job gave up.
    Broken,
}

/// What a stream sees of its two clusters.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Sight<'a> {
    /// Both can be reached.
    pub(in crate::sim) connected: bool,
    /// The standby can be reached.
    pub(in crate::sim) standby_up: bool,
    /// A failover does not get to its end.
    pub(in crate::sim) stuck: bool,
    pub(in crate::sim) source: &'a Rows,
}

impl Stream {
    pub(in crate::sim) fn new(id: String, job: i64, (primary, standby): (usize, usize), now: WallTime) -> Self {
        Self {
            id,
            job,
            primary,
            standby,
            uri: String::new(),
            created: now,
            phase: Phase::Starting { since: now },
            replicated: None,
            retained: now,
            halt: Halt::None,
            rewinds: false,
            next: now,
        }
    }

    /// Makes it one that SQL asked for; `rewinds`: it needs no initial scan.
    pub(in crate::sim) fn asked_for_in_sql(self, uri: String, rewinds: bool) -> Self {
        Self { uri, rewinds, ..self }
    }

    /// The word of the API.
    pub(in crate::sim) fn status(&self) -> &'static str {
        match self.phase {
            Phase::Starting { .. } => "STARTING",
            Phase::Scanning { .. } | Phase::Replicating => "REPLICATING",
            Phase::Pending { .. } | Phase::FailingOver { .. } | Phase::Failed { .. } => "FAILING_OVER",
            Phase::Completed { .. } => "COMPLETED",
            Phase::Canceled { .. } => "CANCELED",
        }
    }

    /// The words of SHOW VIRTUAL CLUSTER.
    pub(in crate::sim) fn data_state(&self) -> &'static str {
        match (&self.phase, self.halt) {
            (Phase::Completed { .. }, _) => "ready",
            (Phase::Failed { .. } | Phase::Canceled { .. }, _) | (_, Halt::Broken) => "replication error",
            (Phase::FailingOver { .. }, _) => "replication failing over",
            (Phase::Pending { .. }, _) => "replication pending failover",
            (_, Halt::Paused) => "replication paused",
            (Phase::Starting { .. } | Phase::Scanning { .. }, _) => "initializing replication",
            (Phase::Replicating, _) => "replicating",
        }
    }

    /// Neither completed nor canceled: its standby belongs to it.
    pub(in crate::sim) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Completed { .. } | Phase::Canceled { .. })
    }

    /// The time of a failover that was asked for, and whether it was a future one.
    pub(in crate::sim) fn failover_time(&self) -> Option<(WallTime, bool)> {
        match self.phase {
            Phase::Pending { to, future } | Phase::FailingOver { to, future, .. } => Some((to, future)),
            _ => None,
        }
    }

    /// Asks for a failover; `None` = to the latest replicated time. Gives the time it goes to.
    pub(in crate::sim) fn fail_over(&mut self, to: Option<WallTime>, now: WallTime) -> Result<WallTime, Refusal> {
        match self.phase {
            Phase::Replicating => {}
            Phase::Scanning { .. } => return Err(Refusal::NotScanned),
            Phase::Failed { .. } => return Err(Refusal::JobFailed),
            _ => return Err(Refusal::Transition { from: self.status(), to: "FAILING_OVER" }),
        }
        let latest = self.replicated.ok_or(Refusal::NotScanned)?;
        let to = to.unwrap_or(latest);
        if to > now.plus(FUTURE) {
            return Err(Refusal::BadTime("more than one hour in the future"));
        }
        if to < self.retained {
            return Err(Refusal::BadTime("before the retained time"));
        }
        // A job that had given up is taken up again.
        self.halt = Halt::None;
        self.phase = Phase::Pending { to, future: to > now };
        Ok(to)
    }

    pub(in crate::sim) fn cancel(&mut self, now: WallTime) -> Result<(), Refusal> {
        match self.phase {
            Phase::Replicating | Phase::Scanning { .. } => {
                self.phase = Phase::Canceled { at: now };
                Ok(())
            }
            _ => Err(Refusal::Transition { from: self.status(), to: "CANCELED" }),
        }
    }

    /// Its job fails: a replicating one stands still until it is resumed, one that fails over never gets there.
    pub(in crate::sim) fn break_job(&mut self, now: WallTime) {
        match self.phase {
            Phase::Pending { .. } | Phase::FailingOver { .. } => self.phase = Phase::Failed { at: now },
            _ if self.is_open() => self.halt = Halt::Broken,
            _ => {}
        }
    }

    /// Goes on to `now`. Gives the rows that the standby opens with when it has just completed.
    pub(in crate::sim) fn advance(&mut self, now: WallTime, pace: &Pace, sight: Sight<'_>) -> Option<Rows> {
        // Each phase is left at most once: the loop ends with the table's rows.
        loop {
            match &mut self.phase {
                Phase::Starting { since } => {
                    let done = since.plus(pace.starting);
                    if !sight.connected || self.halt != Halt::None || done > now {
                        return None;
                    }
                    self.phase = Phase::Scanning { since: done };
                }
                Phase::Scanning { since } => {
                    let done = if self.rewinds { *since } else { since.plus(pace.scan) };
                    if !sight.connected || self.halt != Halt::None || done > now {
                        return None;
                    }
                    let first = earlier(done, pace.lag).max(self.created);
                    (self.replicated, self.retained, self.next) = (Some(first), first, done.plus(pace.step));
                    self.phase = Phase::Replicating;
                }
                Phase::Replicating => {
                    self.refresh(now, pace, sight);
                    return None;
                }
                Phase::Pending { to, future } => {
                    let (to, future) = (*to, *future);
                    self.refresh(now, pace, sight);
                    if self.replicated < Some(to) || !sight.standby_up {
                        return None;
                    }
                    let rows = sight.source.iter().filter(|(_, at)| **at <= to);
                    let rows = rows.map(|(id, at)| (*id, *at)).collect();
                    self.phase = Phase::FailingOver { to, since: now, future, rows };
                }
                Phase::FailingOver { to, since, rows, .. } => {
                    let done = since.plus(pace.failover);
                    if sight.stuck || !sight.standby_up || done > now {
                        return None;
                    }
                    let rows = std::mem::take(rows);
                    self.phase = Phase::Completed { to: *to, at: done };
                    return Some(rows);
                }
                Phase::Completed { .. } | Phase::Canceled { .. } | Phase::Failed { .. } => return None,
            }
        }
    }

    /// What of the source has arrived.
    pub(in crate::sim) fn arrived(&self, source: &Rows) -> Rows {
        match &self.phase {
            Phase::FailingOver { rows, .. } => rows.clone(),
            Phase::Replicating | Phase::Pending { .. } => {
                let arrived = source.iter().filter(|(_, at)| Some(**at) <= self.replicated);
                arrived.map(|(id, at)| (*id, *at)).collect()
            }
            _ => Rows::new(),
        }
    }

    /// Moves the replicated time on, in steps, while both clusters can be reached.
    fn refresh(&mut self, now: WallTime, pace: &Pace, sight: Sight<'_>) {
        if !sight.connected || self.halt != Halt::None {
            self.next = self.next.max(now);
            return;
        }
        // A quicker pace, or a clock that was set back.
        self.next = self.next.min(now.plus(pace.step));
        if self.next > now {
            return;
        }
        let step = i64::try_from(pace.step.as_micros()).unwrap_or(i64::MAX).max(1_000);
        let steps = (now.0 - self.next.0) / step;
        let last = WallTime(self.next.0 + steps * step);
        self.replicated = self.replicated.max(Some(earlier(last, pace.lag)));
        self.next = last.plus(pace.step.max(Duration::from_millis(1)));
        let oldest = earlier(self.replicated.unwrap_or(self.created), pace.retention);
        self.retained = self.retained.max(oldest);
    }
}

fn earlier(at: WallTime, by: Duration) -> WallTime {
    WallTime(at.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: i64) -> WallTime {
        WallTime(n * 1_000_000)
    }

    /// A commit every ten seconds, named by its time.
    fn source() -> Rows {
        (0..60).map(|n| (n * 10, second(n * 10))).collect()
    }

    fn sight(source: &Rows, connected: bool) -> Sight<'_> {
        Sight { connected, standby_up: true, stuck: false, source }
    }

    fn new() -> Stream {
        Stream::new("stream".into(), 7, (0, 1), second(0))
    }

    #[test]
    fn a_stream_takes_the_time_that_it_takes_in_life() {
        let (pace, source, mut stream) = (Pace::default(), source(), new());
        let at = |stream: &mut Stream, n: i64, connected: bool| {
            let rows = stream.advance(second(n), &pace, sight(&source, connected));
            (stream.status(), stream.replicated.map(|at| at.0 / 1_000_000), rows.map(|rows| rows.len()))
        };
        assert_eq!(at(&mut stream, 299, true), ("STARTING", None, None));
        assert_eq!(at(&mut stream, 300, true), ("REPLICATING", None, None), "the initial scan");
        assert_eq!(at(&mut stream, 360, true), ("REPLICATING", Some(340), None));
        assert_eq!(at(&mut stream, 389, true), ("REPLICATING", Some(340), None), "49 s behind");
        assert_eq!(at(&mut stream, 390, true), ("REPLICATING", Some(370), None));
        assert_eq!(stream.retained, second(340));
        assert_eq!(at(&mut stream, 400, false), ("REPLICATING", Some(370), None), "the source dies");
        assert_eq!(at(&mut stream, 900, false), ("REPLICATING", Some(370), None));
        assert_eq!(stream.fail_over(None, second(900)), Ok(second(370)));
        assert_eq!(at(&mut stream, 900, false), ("FAILING_OVER", Some(370), None));
        assert_eq!(at(&mut stream, 959, false), ("FAILING_OVER", Some(370), None));
        assert_eq!(at(&mut stream, 960, false), ("COMPLETED", Some(370), Some(38)), "0 to 370");
    }

    #[test]
    fn the_retained_time_follows_at_its_distance() {
        let (pace, source, mut stream) = (Pace::default(), source(), new());
        stream.advance(second(5 * 3600), &pace, sight(&source, true));
        let replicated = stream.replicated.unwrap();
        assert_eq!(stream.retained, earlier(replicated, pace.retention));
        assert_eq!(
            stream.fail_over(Some(second(3000)), second(5 * 3600)),
            Err(Refusal::BadTime("before the retained time"))
        );
        let far = second(5 * 3600 + 3601);
        assert_eq!(
            stream.fail_over(Some(far), second(5 * 3600)),
            Err(Refusal::BadTime("more than one hour in the future"))
        );
        assert_eq!(stream.fail_over(Some(second(4000)), second(5 * 3600)), Ok(second(4000)));
    }

    #[test]
    fn a_dead_source_keeps_a_future_failover_pending_for_ever() {
        let (pace, source, mut stream) = (Pace::default(), source(), new());
        stream.advance(second(600), &pace, sight(&source, true));
        assert_eq!(stream.fail_over(Some(second(700)), second(600)), Ok(second(700)));
        stream.advance(second(601), &pace, sight(&source, false));
        stream.advance(second(86_400), &pace, sight(&source, false));
        assert_eq!((stream.status(), stream.data_state()), ("FAILING_OVER", "replication pending failover"));
        assert_eq!(stream.failover_time(), Some((second(700), true)));
        stream.advance(second(86_401), &pace, sight(&source, true));
        stream.advance(second(86_461), &pace, sight(&source, true));
        assert_eq!(stream.status(), "COMPLETED", "the source has come back");
    }

    #[test]
    fn a_quicker_pace_and_a_clock_that_was_set_back_are_taken_over() {
        let (source, mut stream) = (source(), new());
        stream.advance(second(400), &Pace::default(), sight(&source, true));
        let before = stream.replicated;
        stream.advance(second(401), &Pace { lag: Duration::ZERO, ..Pace::default() }, sight(&source, true));
        assert_eq!(stream.replicated, before, "its step has not come");
        stream.advance(second(401), &Pace::instant(), sight(&source, true));
        stream.advance(second(402), &Pace::instant(), sight(&source, true));
        assert!(stream.replicated > Some(second(401)));
        stream.advance(second(4000), &Pace::default(), sight(&source, true));
        stream.advance(second(402), &Pace::default(), sight(&source, true));
        stream.advance(second(5000), &Pace::default(), sight(&source, true));
        assert!(stream.replicated > Some(second(4900)), "{:?}", stream.replicated);
    }
}
