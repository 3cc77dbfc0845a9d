//! Counts passes and failures of one address. Holds no clock and decides nothing: a backend's death is `analysis`'s.

use std::time::Duration;

use super::observation::{Failure, Unknown, Verdict};
use crate::types::Moment;

/// What the counters say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// No fresh verdict: never counted as down.
    #[default]
    Unknown,
    /// `rise` passes, or the first one after the start.
    Up,
    /// `fall` failures in a row.
    Down,
    /// 57P03: it comes back by itself; `fall` is frozen.
    Recovering,
}

impl State {
    /// The word in view, metrics and page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::Recovering => "recovering",
        }
    }
}

/// The limits of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row to become down.
    pub fall: u32,
    /// Passes in a row to become up again.
    pub rise: u32,
    /// How long recovery freezes the failures.
    pub patience: Duration,
    /// Probes that began closer together than this count as one failure: an impatient look is not a second opinion.
    pub spacing: Duration,
}

/// The counters of one address.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: State,
    /// When the state was entered.
    since: Moment,
    failures: u32,
    passes: u32,
    /// Start of the newest fresh probe that passed.
    passed: Option<Moment>,
    /// End of the last one that passed.
    passed_by: Option<Moment>,
    /// Start and end of the newest fresh probe that failed, and how.
    failed: Option<(Moment, Moment, Failure)>,
    /// The first failure of the run that stands now.
    failing_since: Option<Moment>,
    /// The last one that counted.
    counted: Option<Moment>,
    /// When the run of recovering answers began.
    recovering_since: Option<Moment>,
    /// Beginnings of recoveries, to notice a server that crashes again and again.
    recoveries: Vec<Moment>,
    /// Newest answer to a probe, the kept connection's included.
    spoke: Option<Moment>,
    /// Newest answer to traffic of clients; the last words and the end of their connections are among them.
    answered: Option<Moment>,
    /// Start of the newest fresh probe that counted, and of the newest one among them that did not fail.
    newest: Option<Moment>,
    unfailed: Option<Moment>,
    /// When a verdict of any sort last came.
    heard: Option<Moment>,
    /// When one last came that says how the server is.
    told: Option<Moment>,
    /// Why the last verdict says nothing.
    unknown: Option<Unknown>,
    refusals: Vec<Moment>,
}

const RECOVERY_WINDOW: Duration = Duration::from_secs(120);
const RECOVERIES_ARE_DOWN: usize = 3;

impl Health {
    /// Counts one probe's verdict. Only fresh connects move the failures: a kept connection that answers while new ones
    /// hang proves a stuck server, not a healthy one. Probes overlap: one that was overtaken by a later one counts only
    /// as one more failure.
    pub fn count(&mut self, started: Moment, finished: Moment, fresh: bool, verdict: &Verdict, limits: Limits) {
        self.heard = self.heard.max(Some(finished));
        if !matches!(verdict, Verdict::Unknown(_)) {
            self.told = self.told.max(Some(finished));
        }
        self.unknown = None;
        let overtaken = self.newest > Some(started);
        match verdict {
            Verdict::Answered(_) => {
                self.spoke = self.spoke.max(Some(finished));
                if fresh && !overtaken {
                    self.pass(started, finished, limits);
                }
            }
            Verdict::Unknown(why) => {
                self.unknown = Some(*why);
                if fresh && why.proves_life() {
                    self.spoke = self.spoke.max(Some(finished));
                    if !overtaken {
                        self.lives(started, finished);
                    }
                }
            }
            Verdict::Recovering if overtaken => {}
            Verdict::Recovering => self.recover(started, finished, limits),
            Verdict::Failed(failure) if fresh => self.fail(started, finished, *failure, limits),
            Verdict::Failed(_) => {}
        }
    }

    /// A live server refused us: no pass, but the run of failures is over.
    fn lives(&mut self, started: Moment, finished: Moment) {
        self.counts(started, true);
        self.failures = 0;
        self.failing_since = None;
        self.refusals.clear();
        if self.state == State::Down {
            self.enter(State::Unknown, finished);
        }
    }

    /// Traffic of clients got an answer at that time. It ends a run of failures that began earlier.
    pub fn answered(&mut self, at: Moment) {
        self.answered = self.answered.max(Some(at));
    }

    fn counts(&mut self, started: Moment, unfailed: bool) {
        self.newest = self.newest.max(Some(started));
        if unfailed {
            self.unfailed = self.unfailed.max(Some(started));
        }
    }

    fn pass(&mut self, started: Moment, finished: Moment, limits: Limits) {
        self.counts(started, true);
        self.passed = self.passed.max(Some(started));
        self.passed_by = self.passed_by.max(Some(finished));
        self.failures = 0;
        self.failing_since = None;
        self.recovering_since = None;
        self.refusals.clear();
        self.passes = self.passes.saturating_add(1);
        self.recoveries.retain(|at| finished.since(*at) < RECOVERY_WINDOW);
        let crashes_again_and_again = self.recoveries.len() >= RECOVERIES_ARE_DOWN;
        let enough = self.passes >= limits.rise || matches!(self.state, State::Unknown | State::Up);
        if enough && !crashes_again_and_again {
            self.enter(State::Up, finished);
        }
    }

    fn fail(&mut self, started: Moment, finished: Moment, failure: Failure, limits: Limits) {
        // An overlapping probe that began later found it alive.
        if self.unfailed > Some(started) {
            return;
        }
        self.counts(started, false);
        self.passes = 0;
        self.failed = self.failed.max(Some((started, finished, failure)));
        self.failing_since.get_or_insert(started);
        if failure == Failure::Refused {
            self.refusals.push(started);
            self.refusals.sort_unstable();
            let surplus = self.refusals.len().saturating_sub(16);
            self.refusals.drain(..surplus);
        } else {
            self.refusals.clear();
        }
        if self.failures > 0 && self.counted.is_some_and(|counted| started < counted + limits.spacing) {
            return;
        }
        self.counted = Some(started);
        self.failures = self.failures.saturating_add(1);
        if self.failures >= limits.fall {
            self.enter(State::Down, finished);
        }
    }

    fn recover(&mut self, started: Moment, finished: Moment, limits: Limits) {
        self.counts(started, true);
        self.passes = 0;
        self.refusals.clear();
        if self.recovering_since.is_none() {
            self.recovering_since = Some(finished);
            self.recoveries.retain(|at| finished.since(*at) < RECOVERY_WINDOW);
            self.recoveries.push(finished);
        }
        let began = self.recovering_since.unwrap_or(finished);
        let again_and_again = self.recoveries.len() >= RECOVERIES_ARE_DOWN;
        if again_and_again || finished.since(began) >= limits.patience {
            self.failing_since.get_or_insert(began);
            self.failures = self.failures.max(limits.fall);
            self.failed = self.failed.max(Some((finished, finished, Failure::BadReply)));
            self.enter(State::Down, finished);
        } else {
            self.enter(State::Recovering, finished);
        }
    }

    fn enter(&mut self, state: State, at: Moment) {
        if self.state != state {
            self.state = state;
            self.since = at;
        }
    }

    /// Forgets verdicts older than `patience`: no fresh verdict is *unknown*. So is a server that was up and only refuses
    /// us since: nobody can tell whether it still could be promoted. The evidence stays, and down stays down.
    pub fn expire(&mut self, now: Moment, patience: Duration) {
        let refuses = self.state == State::Up && self.unknown.is_some();
        if refuses && self.told.is_none_or(|told| now.since(told) > patience) {
            self.passes = 0;
            self.enter(State::Unknown, now);
        }
        if self.state != State::Unknown && self.heard.is_none_or(|heard| now.since(heard) > patience) {
            self.reset();
            self.enter(State::Unknown, now);
        }
    }

    /// Forgets the counters (this daemon slept, or was late), not who the server is.
    pub fn reset(&mut self) {
        *self = Self { recoveries: std::mem::take(&mut self.recoveries), ..Self::default() };
    }

    /// What the counters say.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Start of the newest fresh probe that passed.
    pub fn passed(&self) -> Option<Moment> {
        self.passed
    }

    /// When the last fresh probe that passed had its answer.
    pub fn passed_by(&self) -> Option<Moment> {
        self.passed_by
    }

    /// Start, end and kind of the newest fresh probe that failed.
    pub fn failed(&self) -> Option<(Moment, Moment, Failure)> {
        self.failed
    }

    /// Start of the first failure of the run that stands now.
    pub fn failing_since(&self) -> Option<Moment> {
        self.failing_since
    }

    /// Newest sign of life on any connection.
    pub fn alive(&self) -> Option<Moment> {
        self.spoke.max(self.answered)
    }

    /// Newest answer to a probe.
    pub fn spoke(&self) -> Option<Moment> {
        self.spoke
    }

    /// Why the last verdict says nothing.
    pub fn unknown(&self) -> Option<Unknown> {
        self.unknown
    }

    /// Was any verdict heard?
    pub fn heard(&self) -> Option<Moment> {
        self.heard
    }

    /// Starts of refused connects, oldest first, nothing else having come between.
    pub fn refusals(&self) -> &[Moment] {
        &self.refusals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { fall: 3, rise: 2, patience: Duration::from_secs(30), spacing: Duration::from_millis(8) };

    fn ms(n: u64) -> Moment {
        Moment(Duration::from_millis(n))
    }

    fn answered() -> Verdict {
        Verdict::Answered(Box::default())
    }

    fn counted(verdicts: &[(u64, Verdict)]) -> Health {
        let mut health = Health::default();
        for (at, verdict) in verdicts {
            health.count(ms(*at), ms(*at + 1), true, verdict, LIMITS);
        }
        health
    }

    #[test]
    fn three_failures_are_down_and_two_passes_up_again() {
        let lost = Verdict::Failed(Failure::TimedOut);
        let mut health = counted(&[(0, answered()), (10, lost.clone()), (20, lost.clone())]);
        assert_eq!((health.state(), health.failures()), (State::Up, 2));
        health.count(ms(30), ms(31), true, &lost, LIMITS);
        assert_eq!(health.state(), State::Down);
        health.count(ms(40), ms(41), true, &answered(), LIMITS);
        assert_eq!(health.state(), State::Down);
        health.count(ms(50), ms(51), true, &answered(), LIMITS);
        assert_eq!(health.state(), State::Up);
    }

    #[test]
    fn a_refused_login_or_a_full_server_never_counts_as_a_failure() {
        for why in [Unknown::Authentication, Unknown::TooManyConnections, Unknown::DiskFull, Unknown::OwnDelay] {
            let health = counted(&[(0, answered()), (1, Verdict::Unknown(why)), (2, Verdict::Unknown(why))]);
            assert_eq!((health.state(), health.failures()), (State::Up, 0), "{why}");
        }
    }

    #[test]
    fn recovery_freezes_the_failures_for_its_patience_and_is_down_then() {
        let mut health = counted(&[(0, answered()), (10, Verdict::Recovering), (20_000, Verdict::Recovering)]);
        assert_eq!(health.state(), State::Recovering);
        health.count(ms(30_100), ms(30_101), true, &Verdict::Recovering, LIMITS);
        assert_eq!(health.state(), State::Down);
    }

    #[test]
    fn three_recoveries_in_two_minutes_are_down_whatever_passes_between() {
        let health = counted(&[
            (0, answered()),
            (10_000, Verdict::Recovering),
            (20_000, answered()),
            (30_000, Verdict::Recovering),
            (40_000, answered()),
            (50_000, Verdict::Recovering),
            (60_000, answered()),
            (61_000, answered()),
        ]);
        assert_eq!(health.state(), State::Down);
    }

    #[test]
    fn probes_in_quick_succession_count_as_one_failure() {
        let refused = Verdict::Failed(Failure::Refused);
        let health =
            counted(&[(0, answered()), (100, refused.clone()), (102, refused.clone()), (104, refused.clone())]);
        assert_eq!((health.state(), health.failures()), (State::Up, 1));
        assert_eq!(health.refusals().len(), 3);
    }

    #[test]
    fn a_probe_that_began_before_a_later_pass_does_not_count() {
        let mut health = Health::default();
        health.count(ms(300), ms(310), true, &answered(), LIMITS);
        health.count(ms(0), ms(1000), true, &Verdict::Failed(Failure::TimedOut), LIMITS);
        assert_eq!(health.failures(), 0);
    }

    #[test]
    fn an_answer_that_a_later_refusal_overtook_is_a_sign_of_life_but_no_pass() {
        let refused = Verdict::Failed(Failure::Refused);
        let mut health = counted(&[(0, answered()), (100, refused.clone()), (200, refused.clone()), (300, refused)]);
        for (started, verdict) in [(50, answered()), (60, Verdict::Unknown(Unknown::TooManyConnections))] {
            health.count(ms(started), ms(400), true, &verdict, LIMITS);
            assert_eq!((health.state(), health.failures()), (State::Down, 3));
        }
        assert_eq!((health.alive(), health.passed()), (Some(ms(400)), Some(ms(0))));
        assert_eq!(health.refusals().len(), 3);
    }

    #[test]
    fn a_recovery_that_was_overtaken_is_over_and_one_that_overtook_freezes_the_failures() {
        let mut over = counted(&[(0, answered()), (100, answered())]);
        over.count(ms(50), ms(200), true, &Verdict::Recovering, LIMITS);
        assert_eq!(over.state(), State::Up);
        let mut frozen = counted(&[(0, answered()), (100, Verdict::Recovering)]);
        frozen.count(ms(50), ms(200), true, &Verdict::Failed(Failure::TimedOut), LIMITS);
        assert_eq!((frozen.state(), frozen.failures()), (State::Recovering, 0));
    }

    #[test]
    fn a_kept_connection_proves_life_but_not_that_new_ones_pass() {
        let mut health = counted(&[(0, Verdict::Failed(Failure::TimedOut))]);
        health.count(ms(5), ms(6), false, &answered(), LIMITS);
        assert_eq!(health.failures(), 1);
        assert_eq!(health.alive(), Some(ms(6)));
    }

    #[test]
    fn a_server_that_does_not_let_us_in_any_more_is_unknown_and_its_failures_still_count() {
        let mut health = counted(&[(0, answered()), (4_000, Verdict::Unknown(Unknown::Authentication))]);
        health.expire(ms(5_000), Duration::from_secs(10));
        assert_eq!(health.state(), State::Up);
        health.count(ms(11_000), ms(11_001), true, &Verdict::Unknown(Unknown::Authentication), LIMITS);
        health.expire(ms(11_001), Duration::from_secs(10));
        assert_eq!((health.state(), health.unknown()), (State::Unknown, Some(Unknown::Authentication)));
        assert_eq!(health.alive(), Some(ms(11_001)));
        for at in [12_000, 13_000, 14_000] {
            health.count(ms(at), ms(at + 1), true, &Verdict::Failed(Failure::Refused), LIMITS);
        }
        assert_eq!(health.state(), State::Down);
    }

    #[test]
    fn without_a_fresh_verdict_health_is_unknown_not_down() {
        let mut health = counted(&[(0, answered())]);
        health.expire(ms(5_000), Duration::from_secs(10));
        assert_eq!(health.state(), State::Up);
        health.expire(ms(11_000), Duration::from_secs(10));
        assert_eq!(health.state(), State::Unknown);
    }
}
