//! What the replication stream towards a standby cluster testifies about its primary. All times follow from how often
//! `replicated_time` is refreshed.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Known, Status};
use crate::config;
use crate::failover::witness::Testimony;
use crate::types::{Moment, WallTime};

/// The API's clock is read off a header that counts in seconds, by two processes.
const CLOCK_STEP: Duration = Duration::from_secs(2);
/// A full hour of lags at the usual pace.
const LAGS_KEPT: usize = 720;
const HOUR: Duration = Duration::from_secs(3600);

/// What the stream towards one standby testifies about its primary.
#[derive(Debug, Clone)]
pub struct Witness {
    refresh: Duration,
    /// A stream that lacks more is failed over by an operator alone: what it takes to catch up is no usual lag.
    most: Duration,
    last: Option<Sample>,
    /// When `replicated` last moved.
    advanced: Option<Moment>,
    lags: VecDeque<(Moment, Duration)>,
    /// Start of the newest reading that failed, and why.
    failed: Option<(Moment, String)>,
    since: Option<Since>,
}

#[derive(Debug, Clone)]
struct Sample {
    started: Moment,
    finished: Moment,
    status: Status,
    replicated: Option<WallTime>,
    clock: WallTime,
}

#[derive(Debug, Clone, Copy)]
struct Since {
    t0: Moment,
    /// The source's clock at T0.
    base: Option<WallTime>,
    /// It had advanced not long before.
    advanced: bool,
    /// The usual lag then.
    lag: Duration,
}

impl Witness {
    /// `refresh`: how often the source moves `replicated_time`; `most`: the longest lag that counts as usual.
    pub fn new(refresh: Duration, most: Duration) -> Self {
        Self { refresh, most, last: None, advanced: None, lags: VecDeque::new(), failed: None, since: None }
    }

    /// Another configuration.
    pub fn limit(&mut self, most: Duration) {
        self.most = most;
    }

    /// Adverse evidence about the primary began; the source's clock then read `base`.
    pub fn begin(&mut self, t0: Moment, base: Option<WallTime>) {
        let recently = self.refresh * 6;
        let advanced = self.advanced.is_some_and(|at| t0.since(at) <= recently);
        self.since = Some(Since { t0, base, advanced, lag: self.usual_lag() });
    }

    /// As [`Witness::begin`], for whoever did not watch before: what was replicated not long before T0 by the first
    /// reading was moved not long before T0, and by as much it lags.
    pub fn begin_unwatched(&mut self, t0: Moment, base: WallTime) {
        self.begin(t0, Some(base));
        let replicated = self.last.as_ref().and_then(|last| last.replicated);
        if let (Some(since), Some(replicated)) = (&mut self.since, replicated) {
            since.advanced |= base.since(replicated) <= self.refresh * 6;
        }
    }

    /// The suspicion is over.
    pub fn end(&mut self) {
        self.since = None;
    }

    /// Takes a reading of the stream; `clock`: the source's at that moment.
    pub fn sample(&mut self, known: &Known, clock: WallTime) {
        if self.last.as_ref().is_some_and(|last| last.started > known.started) {
            return;
        }
        let replicated = known.stream.replicated;
        let before = self.last.as_ref().and_then(|last| last.replicated);
        // The first one says where it stands, not that it moves; a second one after a restart soon does.
        if replicated > before && before.is_some() {
            self.advanced = Some(known.finished);
        }
        // Read as it moves: between two refreshes the source's own age would count as lag.
        if let Some(at) = replicated.filter(|_| replicated > before) {
            self.lags.push_back((known.finished, clock.since(at)));
            while self.lags.len() > LAGS_KEPT
                || self.lags.front().is_some_and(|(at, _)| known.finished.since(*at) > HOUR)
            {
                self.lags.pop_front();
            }
        }
        let status = if known.gone { Status::Canceled } else { known.stream.status };
        let (started, finished) = (known.started, known.finished);
        self.last = Some(Sample { started, finished, status, replicated, clock });
    }

    /// A reading that began at `started` failed: it says nothing, and what was said before grows old.
    pub fn sample_failed(&mut self, started: Moment, why: &str) {
        if self.failed.as_ref().is_none_or(|(failed, _)| *failed <= started) {
            self.failed = Some((started, why.to_owned()));
        }
    }

    /// Why it cannot be heard, if its source cannot be read.
    pub fn trouble(&self) -> Option<&str> {
        let (failed, why) = self.failed.as_ref()?;
        self.last.as_ref().is_none_or(|last| last.started < *failed).then_some(why)
    }

    /// What it testifies since T0. A source that cannot be read says nothing.
    pub fn testimony(&self) -> Testimony {
        let (Some(since), Some(last)) = (&self.since, self.voice()) else {
            return Testimony::Unknown;
        };
        let (Some(base), Some(replicated)) = (since.base, last.replicated) else {
            return Testimony::Unknown;
        };
        if last.started < since.t0 {
            return Testimony::Unknown;
        }
        let margin = self.refresh / 6;
        let silence = config::silence(self.refresh, since.lag);
        // By our own clock as well: theirs may jump.
        let moved = self.advanced.unwrap_or(since.t0).max(since.t0);
        let slack = if moved > since.t0 { since.lag + margin } else { Duration::ZERO };
        let lasted = last.finished.since(moved) + slack + margin >= silence;
        if since.advanced && lasted && Some(last.clock) >= self.silent_from() {
            Testimony::Silent
        } else if replicated >= base.plus(margin) {
            Testimony::Writing
        } else {
            Testimony::Unknown
        }
    }

    /// By its source's clock, when it counts as silent if nothing new comes: counted from T0, or from what was replicated
    /// after it.
    pub fn silent_from(&self) -> Option<WallTime> {
        let since = self.since.as_ref()?;
        let replicated = self.last.as_ref()?.replicated?;
        let from = since.base?.0.max(replicated.0.saturating_sub(micros(self.refresh / 6)));
        Some(WallTime(from).plus(config::silence(self.refresh, since.lag)))
    }

    /// It replicates, and the source could be read since.
    fn voice(&self) -> Option<&Sample> {
        let last = self.last.as_ref()?;
        let speaks = self.trouble().is_none() && last.status == Status::Replicating;
        speaks.then_some(last)
    }

    /// A replicated time that its own source's clock has not reached and that clock: one of the two is wrong.
    pub fn runs_ahead(&self) -> Option<(WallTime, WallTime)> {
        let last = self.last.as_ref()?;
        let at = last.replicated.filter(|at| *at > last.clock.plus(self.refresh / 6 + CLOCK_STEP))?;
        Some((at, last.clock))
    }

    /// Could it testify, now or in a while: it replicates, and moved not long before T0 (or now)?
    pub fn usable(&self) -> bool {
        let Some(last) = self.voice() else { return false };
        match &self.since {
            Some(since) => since.advanced && since.base.is_some(),
            None => {
                last.replicated.is_some() && self.advanced.is_some_and(|at| last.finished.since(at) <= self.refresh * 6)
            }
        }
    }

    /// Why it could not testify, if so.
    pub fn mute_because(&self) -> Option<String> {
        if let Some(trouble) = self.trouble() {
            return Some(trouble.to_owned());
        }
        match (&self.since, &self.last) {
            (_, None) => Some("it was not read yet".into()),
            (_, Some(last)) if last.status != Status::Replicating => Some(format!("it is {}", last.status.as_str())),
            (Some(since), _) if !since.advanced => {
                Some(format!("it was not seen to advance in the {} s before", (self.refresh * 6).as_secs()))
            }
            (Some(since), _) if since.base.is_none() => Some("its source shows no clock".into()),
            _ => None,
        }
    }

    /// Start and end of the newest reading that succeeded.
    pub fn sampled(&self) -> Option<(Moment, Moment)> {
        self.last.as_ref().map(|last| (last.started, last.finished))
    }

    /// Up to when the standby has everything.
    pub fn replicated(&self) -> Option<WallTime> {
        self.last.as_ref()?.replicated
    }

    /// What the standby lacks of what was committed up to T0, or up to the newest reading while nothing is suspect.
    pub fn lag(&self) -> Option<Duration> {
        let last = self.last.as_ref()?;
        let until = self.since.as_ref().and_then(|since| since.base).unwrap_or(last.clock);
        Some(until.since(last.replicated?))
    }

    /// The 99th percentile of the lags of the last hour, each read when `replicated_time` had moved, at most the longest
    /// usual one; zero when none was seen.
    pub fn usual_lag(&self) -> Duration {
        let mut lags: Vec<Duration> = self.lags.iter().map(|(_, lag)| *lag).collect();
        lags.sort_unstable();
        let at = (lags.len() * 99).div_ceil(100).saturating_sub(1);
        lags.get(at).copied().unwrap_or_default().min(self.most)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
