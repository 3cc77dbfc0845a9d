//! Physical cluster replication as heard: the streams between the clusters of a pair. What they testify about the primary
//! is `witness`'. Pure: reading them is `probe`'s, deciding is `analysis`' and the machine's.

use serde::{Deserialize, Serialize};

use crate::types::{BackendName, Moment, Now, WallTime};

mod witness;

pub use witness::Witness;

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

#[cfg(test)]
mod tests;
