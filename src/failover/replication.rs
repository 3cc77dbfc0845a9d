//! Physical cluster replication as heard: the streams between the clusters of a pair, and what they testify about the
//! primary. Pure: reading them is `probe`'s, deciding is `analysis`' and the machine's. All times of the witness follow
//! from how often `replicated_time` is refreshed.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::witness::Testimony;
use crate::config;
use crate::types::{BackendName, Moment, Now, WallTime};

/// One stream, as its source shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The API's id, or `VIRTUAL_CLUSTER@BACKEND#JOB` of a self-hosted standby: each replication has one of its own.
    pub id: String,
    /// The primary cluster of the stream.
    pub from: BackendName,
    /// The standby cluster of the stream.
    pub to: BackendName,
    /// How far it is.
    pub status: Status,
    /// Up to when the standby has everything; only while it replicates.
    pub replicated: Option<WallTime>,
    /// The earliest time that it could be failed over to.
    pub retained: Option<WallTime>,
    /// A failover to this moment was asked for.
    pub failover_at: Option<WallTime>,
    /// When the standby was activated; only once completed.
    pub activated: Option<WallTime>,
    /// What its source complains of, in its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Stream {
    /// One of which nothing but its place is known.
    pub fn unread(id: String, from: BackendName, to: BackendName) -> Self {
        let status = Status::Unknown;
        Self {
            id,
            from,
            to,
            status,
            replicated: None,
            retained: None,
            failover_at: None,
            activated: None,
            trouble: None,
        }
    }

    /// Its status, with what it complains of.
    pub fn state(&self) -> String {
        let trouble = self.trouble.as_ref().map_or_else(String::new, |trouble| format!(" ({trouble})"));
        format!("{}{trouble}", self.status.as_str())
    }
}

/// Where a stream stands. It never goes backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A word this version does not know: never unhealthy, never good.
    Unknown,
    /// Being set up.
    Starting,
    /// Replicates; also during the first scan, when there is no `replicated` yet.
    Replicating,
    /// Paused or in trouble by its own word (self-hosted).
    Stalled,
    /// The standby is being promoted: no way back.
    FailingOver,
    /// The standby is a cluster of its own.
    Completed,
    /// Given up, or its job has failed for good.
    Canceled,
}

impl Status {
    /// The word in log, view and page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Replicating => "replicating",
            Self::Stalled => "stalled",
            Self::FailingOver => "failing over",
            Self::Completed => "completed",
            Self::Canceled => "canceled",
        }
    }
}

/// One reading of the streams.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When the reading began.
    pub started: Moment,
    /// When it ended.
    pub finished: Moment,
    /// What was read.
    pub scope: Scope,
    /// The source's own clock at that reading, if it showed one.
    pub clock: Option<WallTime>,
    /// What it brought.
    pub result: Result<Vec<Stream>, Unread>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every stream between the clusters, both directions, completed ones included.
    All,
    /// Those that one of the clusters tells of; the other was not heard.
    Part,
    /// One, by its id.
    One(String),
}

/// The streams could not be read. It says nothing about any cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Why, one sentence.
    pub sentence: String,
    /// The source answered that there is no such stream.
    pub gone: bool,
}

/// The newest completed stream that a latch takes account of: another one that is newer was promoted by others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Its id.
    pub stream: String,
    /// When the standby was activated.
    pub at: WallTime,
}

/// A full hour of lags at the usual pace.
const LAGS_KEPT: usize = 720;
const HOUR: Duration = Duration::from_secs(3600);
/// So many ended streams are kept.
const ENDED_KEPT: usize = 64;

/// Everything heard about the streams.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    known: Vec<Known>,
    /// Start of the newest complete list, and of the newest one that may lack what one of the clusters tells.
    listed: Option<Moment>,
    told: Option<Moment>,
    /// Start of the newest reading that succeeded.
    read: Option<Moment>,
    /// Why the newest reading failed; `None` = it did not.
    trouble: Option<String>,
    /// The source's clock minus ours, microseconds.
    offset: Option<i64>,
}

/// A stream and when it was last read.
#[derive(Debug, Clone)]
pub struct Known {
    /// As last read.
    pub stream: Stream,
    /// Start of that reading.
    pub started: Moment,
    /// End of that reading.
    pub finished: Moment,
    /// End of the first reading that showed this status.
    pub entered: Moment,
    /// The source has no such stream any more.
    pub gone: bool,
}

impl Streams {
    /// Takes one reading.
    pub fn hear(&mut self, report: &Report, now: Now) {
        if let Some(clock) = report.clock {
            let age = i64::try_from(now.at.since(report.finished).as_micros()).unwrap_or_default();
            self.offset = Some(clock.0 + age - now.wall.0);
        }
        match &report.result {
            Ok(streams) => {
                self.read = self.read.max(Some(report.started));
                if self.read == Some(report.started) {
                    self.trouble = None;
                }
                if report.scope == Scope::All {
                    self.listed = self.listed.max(Some(report.started));
                }
                if matches!(report.scope, Scope::All | Scope::Part) {
                    self.told = self.told.max(Some(report.started));
                }
                for stream in streams {
                    self.take(stream, report);
                }
                if report.scope == Scope::All {
                    // One that is listed no more can neither be failed over nor stand in another one's way.
                    self.known
                        .retain(|known| known.started >= report.started || known.stream.status >= Status::FailingOver);
                }
                self.forget_oldest();
            }
            Err(unread) => {
                self.trouble = Some(unread.sentence.clone());
                if let (true, Scope::One(id)) = (unread.gone, &report.scope) {
                    for known in self.known.iter_mut().filter(|known| known.stream.id == *id) {
                        (known.gone, known.started, known.finished) = (true, report.started, report.finished);
                    }
                }
            }
        }
    }

    /// One that is known of by other means than a reading.
    pub fn assume(&mut self, stream: Stream, report: &Report) {
        self.take(&stream, report);
    }

    fn take(&mut self, stream: &Stream, report: &Report) {
        let before = self.by_id(&stream.id).filter(|known| known.stream.status == stream.status);
        let entered = before.map_or(report.finished, |known| known.entered);
        let (started, finished) = (report.started, report.finished);
        let fresh = Known { stream: stream.clone(), started, finished, entered, gone: false };
        match self.known.iter_mut().find(|known| known.stream.id == stream.id) {
            Some(known) if known.started > report.started => {}
            // What was seen to fail over does, whatever an older copy of the record says.
            Some(known) if known.stream.status >= Status::FailingOver && stream.status < known.stream.status => {
                (known.started, known.finished) = (report.started, report.finished);
            }
            Some(known) => *known = fresh,
            None => self.known.push(fresh),
        }
    }

    /// Ended streams are never forgotten by their source; of them only the newest ever matter.
    fn forget_oldest(&mut self) {
        let ended = |known: &Known| known.gone || known.stream.status >= Status::Completed;
        let mut ages: Vec<_> =
            self.known.iter().filter(|known| ended(known)).map(|k| (k.stream.activated, k.entered)).collect();
        let Some(surplus) = ages.len().checked_sub(ENDED_KEPT).filter(|surplus| *surplus > 0) else { return };
        ages.sort_unstable();
        let youngest_to_go = ages[surplus - 1];
        self.known.retain(|known| !ended(known) || (known.stream.activated, known.entered) > youngest_to_go);
    }

    /// A stream by its id.
    pub fn by_id(&self, id: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.stream.id == id)
    }

    /// All of them, oldest reading first.
    pub fn all(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    /// Those of this direction that are not at an end.
    pub fn live<'a>(&'a self, from: &'a BackendName, to: &'a BackendName) -> impl Iterator<Item = &'a Known> {
        self.known.iter().filter(move |known| {
            let stream = &known.stream;
            stream.from == *from
                && stream.to == *to
                && !known.gone
                && !matches!(stream.status, Status::Completed | Status::Canceled)
        })
    }

    /// Of all completed ones, in either direction, the one that was activated last.
    pub fn newest_completed(&self) -> Option<&Stream> {
        let completed = self.known.iter().map(|known| &known.stream).filter(|s| s.status == Status::Completed);
        completed.max_by_key(|stream| stream.activated)
    }

    /// Was everything listed by a reading that began at `since` or later?
    pub fn listed_since(&self, since: Moment) -> bool {
        self.listed.is_some_and(|at| at >= since)
    }

    /// Was everything listed that the clusters who answer tell, by a reading that began at `since` or later?
    pub fn told_since(&self, since: Moment) -> bool {
        self.told.is_some_and(|at| at >= since)
    }

    /// Start of the newest reading that succeeded.
    pub fn read(&self) -> Option<Moment> {
        self.read
    }

    /// Why the newest reading failed.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The source's clock now, if it ever showed one.
    pub fn clock(&self, now: Now) -> Option<WallTime> {
        Some(WallTime(now.wall.0.saturating_add(self.offset?)))
    }

    /// Does this stream fail over, now and not at some later time?
    pub fn fails_over(&self, stream: &Stream, now: Now) -> bool {
        let clock = self.clock(now).unwrap_or(now.wall);
        stream.status == Status::FailingOver && stream.failover_at.is_none_or(|at| at <= clock)
    }
}

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
        // Silence counts from T0, or from what was replicated after it.
        let from = base.0.max(replicated.0.saturating_sub(micros(margin)));
        let silence = config::silence(self.refresh, since.lag);
        // By our own clock as well: theirs may jump.
        let moved = self.advanced.unwrap_or(since.t0).max(since.t0);
        let slack = if moved > since.t0 { since.lag + margin } else { Duration::ZERO };
        let lasted = last.finished.since(moved) + slack + margin >= silence;
        if since.advanced && lasted && last.clock.0 >= from.saturating_add(micros(silence)) {
            Testimony::Silent
        } else if replicated >= base.plus(margin) {
            Testimony::Writing
        } else {
            Testimony::Unknown
        }
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
        let at = last.replicated.filter(|at| *at > last.clock.plus(self.refresh / 6))?;
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

#[cfg(test)]
mod tests;
