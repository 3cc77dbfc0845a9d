//! The witness: what a standby's WAL receiver testifies about the primary, from samples alone; between clusters the
//! replication stream of `replication` speaks for it. Holds no policy: whether a testimony is needed or blocks is
//! `analysis`'s.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::{Facts, Receiver, ReceiverRow};
use super::replication::{self, Known};
use crate::types::{Lsn, Moment, Timeline, WallTime};

/// What one standby testifies about the latched primary since T0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Testimony {
    /// Nothing to be said (yet).
    #[default]
    Unknown,
    /// A row before T0, none now. True for seconds after a blip: never enough alone.
    Gone,
    /// Streaming by name, but nothing came for more than half of `wal_receiver_timeout` and 500 ms.
    Silent,
    /// The primary sent something after T0, without new log.
    Idle,
    /// The primary sent new log after T0.
    Writing,
}

impl Testimony {
    /// The word in view, metrics and page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Gone => "gone",
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::Writing => "writing",
        }
    }

    /// Does it say that the primary lives?
    pub fn alive(self) -> bool {
        matches!(self, Self::Idle | Self::Writing)
    }

    /// Does it say that the primary is not heard any more?
    pub fn lost(self) -> bool {
        matches!(self, Self::Gone | Self::Silent)
    }
}

/// A row this long before T0 counts as a row before T0: a standby needs seconds to come back after a blip.
const RECENTLY: Duration = Duration::from_secs(10);

/// How long after C0 a message must have been sent to prove life.
const AFTER_C0: Duration = Duration::from_millis(500);

/// What a standby's samples said, before and since T0.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    /// The newest sample.
    last: Option<Sample>,
    /// The greatest position seen before T0 (now: so far).
    highest: Option<Lsn>,
    /// When a row last streamed on the latched timeline.
    streamed_at: Option<Moment>,
    /// It streamed on it since it last did on another one, if only below another standby: no testimony, but a proof of
    /// descent.
    followed: bool,
    /// From whom it did.
    sender: Option<String>,
    /// The other timeline on which it streamed since.
    elsewhere: Option<Timeline>,
    /// Start of the newest sample that failed.
    failed: Option<Moment>,
    episode: Option<Since>,
    /// Where clusters replicate: their stream speaks, nothing else.
    replication: Option<replication::Witness>,
}

#[derive(Debug, Clone)]
struct Sample {
    started: Moment,
    at: Moment,
    clock: Option<WallTime>,
    receiver: Receiver,
    timeout: Option<Duration>,
}

/// T0 and what was frozen there.
#[derive(Debug, Clone)]
struct Since {
    t0: Moment,
    c0: Option<WallTime>,
    highest: Option<Lsn>,
    streamed: bool,
    /// The first receipt time after T0 + 1 s, and when we sampled it.
    receipt: Option<(Moment, WallTime)>,
    testimony: Testimony,
    /// When a sample first said `gone`.
    gone_at: Option<Moment>,
}

impl Witness {
    /// A witness by physical cluster replication; `refresh`: how often `replicated_time` moves; `most`: lags that are
    /// longer are no usual ones.
    pub fn of_replication(refresh: Duration, most: Duration) -> Self {
        Self { replication: Some(replication::Witness::new(refresh, most)), ..Self::default() }
    }

    /// Another configuration.
    pub fn limit(&mut self, most: Duration) {
        if let Some(replication) = &mut self.replication {
            replication.limit(most);
        }
    }

    /// The stream's own words, where clusters replicate.
    pub fn replication(&self) -> Option<&replication::Witness> {
        self.replication.as_ref()
    }

    /// A reading of the stream towards this standby; `clock`: the source's at that moment.
    pub fn replicated(&mut self, known: &Known, clock: WallTime) {
        if let Some(replication) = &mut self.replication {
            replication.sample(known, clock);
        }
    }

    /// The streams could not be read.
    pub fn unread(&mut self, started: Moment, why: &str) {
        if let Some(replication) = &mut self.replication {
            replication.sample_failed(started, why);
        }
    }

    /// Adverse evidence began at `t0`, when the primary's clock read `c0` (`None`: not known well enough); between
    /// clusters, the clock of who knows their stream.
    pub fn begin(&mut self, t0: Moment, c0: Option<WallTime>) {
        if let Some(replication) = &mut self.replication {
            return replication.begin(t0, c0);
        }
        self.episode = Some(Since {
            t0,
            c0,
            highest: self.highest,
            streamed: self.streamed_at.is_some_and(|at| t0.since(at) <= RECENTLY),
            receipt: None,
            testimony: Testimony::Unknown,
            gone_at: None,
        });
    }

    /// As [`Witness::begin`], for an intent that was decided before a restart: its decision proved that this standby
    /// streamed before T0.
    pub fn resume(&mut self, t0: Moment) {
        self.begin(t0, None);
        if let Some(since) = &mut self.episode {
            since.streamed = true;
        }
    }

    /// The suspicion is over.
    pub fn end(&mut self) {
        self.episode = None;
        if let Some(replication) = &mut self.replication {
            replication.end();
        }
    }

    /// Takes one sample of the standby. `latched` is the latched timeline; `cascade`: its upstream is another standby.
    pub fn sample(
        &mut self,
        started: Moment,
        finished: Moment,
        facts: &Facts,
        latched: Option<Timeline>,
        cascade: bool,
    ) {
        // One that was overtaken may have been read before the newer one: an old absence must not outweigh life.
        if self.last.as_ref().is_some_and(|last| last.started > started) {
            return;
        }
        let receiver = if cascade { Receiver::Unknown } else { facts.receiver.clone() };
        let sample = Sample { started, at: finished, clock: facts.clock, receiver, timeout: facts.receiver_timeout };
        let streaming = sample.streaming(latched);
        if let (Receiver::Row(row), Some(_)) = (&facts.receiver, latched)
            && row.streaming
            && row.timeline.is_some_and(|timeline| Some(timeline) != latched)
        {
            // It went over to another line: what it got from this one is no merit any more.
            (self.streamed_at, self.elsewhere, self.followed) = (None, row.timeline, false);
        }
        self.followed |= on(&facts.receiver, latched).is_some();
        if let Some(row) = streaming {
            (self.streamed_at, self.elsewhere) = (Some(finished), None);
            self.sender.clone_from(&row.sender);
            let position = row.lsn;
            if let Some(since) = &mut self.episode
                && started > since.t0
            {
                since.judge(&sample, position);
            }
            self.highest = self.highest.max(position);
        } else if let Some(since) = &mut self.episode
            && started > since.t0
        {
            since.absent(&sample);
        }
        self.last = Some(sample);
        if self.failed > Some(started) {
            self.lose_voice();
        }
    }

    /// A sample that began at `started` failed: what was said stays said, except that silence needs a voice.
    pub fn sample_failed(&mut self, started: Moment) {
        self.failed = self.failed.max(Some(started));
        self.lose_voice();
    }

    fn lose_voice(&mut self) {
        if let Some(since) = &mut self.episode
            && since.testimony.lost()
        {
            since.testimony = Testimony::Unknown;
        }
    }

    /// What it testifies since T0.
    pub fn testimony(&self) -> Testimony {
        if let Some(replication) = &self.replication {
            return replication.testimony();
        }
        self.episode.as_ref().map_or(Testimony::Unknown, |since| since.testimony)
    }

    /// When a sample since T0 first said *gone*.
    pub fn gone_at(&self) -> Option<Moment> {
        self.episode.as_ref().and_then(|since| since.gone_at)
    }

    /// Start and end of the newest sample.
    pub fn sampled(&self) -> Option<(Moment, Moment)> {
        if let Some(replication) = &self.replication {
            return replication.sampled();
        }
        self.last.as_ref().map(|last| (last.started, last.at))
    }

    /// Was it asked since T0? What it said before is no answer to that.
    pub fn asked(&self) -> bool {
        self.episode.as_ref().zip(self.last.as_ref()).is_some_and(|(since, last)| last.started > since.t0)
    }

    /// When it last streamed on the latched timeline.
    pub fn streamed_at(&self) -> Option<Moment> {
        self.streamed_at
    }

    /// Was it seen streaming on the latched timeline, from whomever?
    pub fn followed(&self) -> bool {
        self.followed
    }

    /// On which other timeline it streamed since.
    pub fn elsewhere(&self) -> Option<Timeline> {
        self.elsewhere
    }

    /// From whom it last streamed on the latched timeline, as it names it.
    pub fn sender(&self) -> Option<&str> {
        self.sender.as_deref()
    }

    /// `wal_receiver_timeout` as last read; `None` = unknown.
    pub fn timeout(&self) -> Option<Duration> {
        self.last.as_ref().and_then(|last| last.timeout)
    }

    /// Could it testify if something happened now: it streams, and its columns are to be read?
    pub fn usable(&self, latched: Option<Timeline>) -> bool {
        if let Some(replication) = &self.replication {
            return replication.usable();
        }
        self.last
            .as_ref()
            .is_some_and(|last| last.streaming(latched).is_some() && last.timeout.is_some_and(|w| !w.is_zero()))
    }
}

impl Sample {
    fn streaming(&self, latched: Option<Timeline>) -> Option<&ReceiverRow> {
        on(&self.receiver, latched)
    }
}

/// The row of a stream on the latched timeline.
fn on(receiver: &Receiver, latched: Option<Timeline>) -> Option<&ReceiverRow> {
    match receiver {
        Receiver::Row(row) if row.streaming && row.timeline.is_some() && row.timeline == latched => Some(row),
        _ => None,
    }
}

impl Since {
    fn judge(&mut self, sample: &Sample, position: Option<Lsn>) {
        let Receiver::Row(row) = &sample.receiver else {
            return;
        };
        // Silence is the newest word: whatever was sent after T0, nothing comes now.
        if let (Some(clock), Some(received), Some(timeout)) = (sample.clock, row.received, sample.timeout)
            && !timeout.is_zero()
            && clock.since(received) > timeout / 2 + Duration::from_millis(500)
        {
            self.testimony = Testimony::Silent;
            return;
        }
        let sent_after = match (row.sent, self.c0) {
            (Some(sent), Some(c0)) => sent >= c0.plus(AFTER_C0),
            _ => false,
        };
        if sent_after {
            let new_log = position > self.highest;
            self.testimony = if new_log { Testimony::Writing } else { self.testimony.max(Testimony::Idle) };
            return;
        }
        if self.c0.is_none() && self.receipt_moved(sample, row) {
            self.testimony = self.testimony.max(Testimony::Idle);
            return;
        }
        // It streams again, or still: an absence seen before was a blip. Life that was proven stays proven.
        if !self.testimony.alive() {
            self.testimony = Testimony::Unknown;
            self.gone_at = None;
        }
    }

    fn receipt_moved(&mut self, sample: &Sample, row: &ReceiverRow) -> bool {
        let second = Duration::from_secs(1);
        let Some(received) = row.received else {
            return false;
        };
        if sample.at < self.t0 + second {
            return false;
        }
        match self.receipt {
            None => {
                self.receipt = Some((sample.at, received));
                false
            }
            Some((at, first)) => sample.at.since(at) >= second && received > first,
        }
    }

    fn absent(&mut self, sample: &Sample) {
        match sample.receiver {
            Receiver::Gone if self.streamed => {
                self.gone_at.get_or_insert(sample.at);
                self.testimony = Testimony::Gone;
            }
            _ => {
                self.testimony = Testimony::Unknown;
                self.gone_at = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMELINE: Option<Timeline> = Some(Timeline(3));

    fn ms(n: u64) -> Moment {
        Moment(Duration::from_millis(n))
    }

    fn wall(n: u64) -> WallTime {
        WallTime(1_000_000_000_000 + i64::try_from(n).unwrap() * 1000)
    }

    /// A standby whose receiver last heard at `heard`, of a message sent then, with the log at `lsn`.
    fn streaming(at: u64, heard: u64, lsn: u64) -> Facts {
        Facts {
            clock: Some(wall(at)),
            receiver_timeout: Some(Duration::from_secs(3)),
            receiver: Receiver::Row(ReceiverRow {
                streaming: true,
                timeline: TIMELINE,
                lsn: Some(Lsn(lsn)),
                sent: Some(wall(heard)),
                received: Some(wall(heard)),
                sender: None,
                application_name: None,
            }),
            ..Facts::default()
        }
    }

    fn gone(at: u64) -> Facts {
        Facts {
            clock: Some(wall(at)),
            receiver: Receiver::Gone,
            receiver_timeout: Some(Duration::from_secs(3)),
            ..Facts::default()
        }
    }

    fn heard(samples: &[(u64, Facts)], t0: u64, c0: Option<WallTime>) -> Witness {
        let mut witness = Witness::default();
        let mut begun = false;
        for (at, facts) in samples {
            if *at > t0 && !begun {
                witness.begin(ms(t0), c0);
                begun = true;
            }
            witness.sample(ms(*at), ms(*at + 1), facts, TIMELINE, false);
        }
        witness
    }

    #[test]
    fn a_receiver_that_vanished_after_streaming_says_gone() {
        let witness = heard(&[(0, streaming(0, 0, 10)), (200, gone(200))], 100, Some(wall(100)));
        assert_eq!(witness.testimony(), Testimony::Gone);
        assert_eq!(witness.gone_at(), Some(ms(201)));
    }

    #[test]
    fn a_receiver_that_was_never_there_says_nothing() {
        let witness = heard(&[(0, gone(0)), (200, gone(200))], 100, Some(wall(100)));
        assert_eq!(witness.testimony(), Testimony::Unknown);
    }

    #[test]
    fn new_log_sent_after_the_first_evidence_says_writing_and_none_says_idle() {
        let before = (0, streaming(0, 0, 10));
        let writing = heard(&[before.clone(), (900, streaming(900, 800, 11))], 100, Some(wall(100)));
        assert_eq!(writing.testimony(), Testimony::Writing);
        let idle = heard(&[before.clone(), (900, streaming(900, 800, 10))], 100, Some(wall(100)));
        assert_eq!(idle.testimony(), Testimony::Idle);
        let in_flight = heard(&[before, (400, streaming(400, 300, 11))], 100, Some(wall(100)));
        assert_eq!(in_flight.testimony(), Testimony::Unknown);
    }

    #[test]
    fn half_the_receiver_timeout_and_half_a_second_without_a_word_says_silent() {
        let quiet = |at| (at, streaming(at, 50, 10));
        assert_eq!(
            heard(&[(0, streaming(0, 0, 10)), quiet(2000)], 100, Some(wall(100))).testimony(),
            Testimony::Unknown
        );
        assert_eq!(
            heard(&[(0, streaming(0, 0, 10)), quiet(2051)], 100, Some(wall(100))).testimony(),
            Testimony::Silent
        );
    }

    #[test]
    fn without_the_primarys_clock_only_a_receipt_that_moves_says_idle() {
        let samples = [(0, streaming(0, 0, 10)), (1200, streaming(1200, 1150, 10)), (1900, streaming(1900, 1850, 10))];
        assert_eq!(heard(&samples, 100, None).testimony(), Testimony::Unknown);
        let mut longer = samples.to_vec();
        longer.push((2300, streaming(2300, 2250, 10)));
        assert_eq!(heard(&longer, 100, None).testimony(), Testimony::Idle);
    }

    #[test]
    fn an_absence_that_was_overtaken_by_a_sign_of_life_says_nothing() {
        let mut witness = Witness::default();
        witness.sample(ms(0), ms(1), &streaming(0, 0, 10), TIMELINE, false);
        witness.begin(ms(100), Some(wall(100)));
        witness.sample(ms(900), ms(901), &streaming(900, 800, 11), TIMELINE, false);
        witness.sample(ms(300), ms(950), &gone(310), TIMELINE, false);
        assert_eq!(witness.testimony(), Testimony::Writing);
    }

    #[test]
    fn an_absence_that_was_overtaken_by_a_failed_sample_says_nothing_and_life_still_does() {
        for (overtaken, testimony) in [(gone(310), Testimony::Unknown), (streaming(700, 650, 11), Testimony::Writing)] {
            let mut witness = Witness::default();
            witness.sample(ms(0), ms(1), &streaming(0, 0, 10), TIMELINE, false);
            witness.begin(ms(100), Some(wall(100)));
            witness.sample_failed(ms(900));
            witness.sample(ms(300), ms(950), &overtaken, TIMELINE, false);
            assert_eq!(witness.testimony(), testimony);
        }
    }

    #[test]
    fn null_columns_a_cascade_or_another_timeline_say_nothing() {
        let mut null = streaming(200, 200, 10);
        null.receiver = Receiver::Unknown;
        assert_eq!(
            heard(&[(0, streaming(0, 0, 10)), (200, null)], 100, Some(wall(100))).testimony(),
            Testimony::Unknown
        );
        let mut witness = Witness::default();
        witness.sample(ms(0), ms(1), &streaming(0, 0, 10), TIMELINE, false);
        witness.begin(ms(100), Some(wall(100)));
        witness.sample(ms(900), ms(901), &streaming(900, 800, 11), TIMELINE, true);
        assert_eq!(witness.testimony(), Testimony::Unknown);
    }

    #[test]
    fn a_blip_of_the_receiver_is_forgotten_when_it_streams_again() {
        let samples = [(0, streaming(0, 0, 10)), (200, gone(200)), (300, streaming(300, 290, 10))];
        let witness = heard(&samples, 100, Some(wall(100)));
        assert_eq!((witness.testimony(), witness.gone_at()), (Testimony::Unknown, None));
    }
}
