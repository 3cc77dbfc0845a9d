//! What the streams between two clusters say together: which side is active, which stream is meant, what is in
//! the way, and where a failback stands. Pure; reading them is `look`'s.

use std::time::Duration;

use jiff::Timestamp;

use super::{Direction, Error, NotReady, Pair, Which};
use crate::cockroach_cloud::model::{ReplicationStream, StreamStatus};
use crate::cockroach_cloud::{newest_completed, standing};

/// One reading of all streams between the two clusters of a pair, completed ones too.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// In the order of the API.
    pub streams: Vec<ReplicationStream>,
    /// The API's clock.
    pub date: Option<Timestamp>,
}

/// Where a failback stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Home is active, and no stream leads home.
    AtHome,
    /// The other side is active, and no stream leads home.
    Away,
    /// The stream home is being set up, or makes its first copy.
    Starting(ReplicationStream),
    /// The stream home replicates; by how much it is behind, if that is told.
    Replicating(ReplicationStream, Option<Duration>),
    /// The stream home is being failed over.
    FailingOver(ReplicationStream),
    /// The stream home has completed: home is a cluster of its own, but a daemon still sends clients to the other side.
    Completed(ReplicationStream),
}

impl Survey {
    /// The stream of this direction that is not at an end. Where one is pinned, only that will do; else more than one is
    /// an error.
    pub fn live(&self, pair: &Pair, direction: Direction) -> Result<Option<&ReplicationStream>, Error> {
        let Some(pinned) = pair.pinned.filter(|_| direction == Direction::Forward) else {
            return self.lone(pair, direction);
        };
        let mut living = self.living(pair, direction).peekable();
        let Some(first) = living.peek().copied() else { return Ok(None) };
        living.find(|stream| stream.id == pinned).map(Some).ok_or_else(|| Error::NotPinned {
            pinned,
            status: self.streams.iter().find(|stream| stream.id == pinned).map(|stream| stream.status.clone()),
            found: first.id,
            from: pair.from(direction).name.clone(),
            to: pair.to(direction).name.clone(),
        })
    }

    /// As [`Survey::live`], whichever is pinned: for one that was ordered a moment ago.
    pub fn lone(&self, pair: &Pair, direction: Direction) -> Result<Option<&ReplicationStream>, Error> {
        match self.living(pair, direction).collect::<Vec<_>>().as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => Err(Error::SeveralStreams {
                from: pair.from(direction).name.clone(),
                to: pair.to(direction).name.clone(),
                ids: several.iter().map(|stream| stream.id).collect(),
            }),
        }
    }

    fn living(&self, pair: &Pair, direction: Direction) -> impl Iterator<Item = &ReplicationStream> {
        let ended =
            |stream: &&ReplicationStream| matches!(stream.status, StreamStatus::Completed | StreamStatus::Canceled);
        self.streams.iter().filter(move |stream| pair.direction(stream) == Some(direction) && !ended(stream))
    }

    /// Of all completed streams, in either direction, the one that was activated last.
    pub fn newest_completed(&self) -> Option<&ReplicationStream> {
        newest_completed(&self.streams)
    }

    /// The side that a stream leads from; without one, the side that was promoted last; without any promotion, home.
    pub fn active(&self, pair: &Pair) -> Which {
        let found = standing(&self.streams, pair.primary.id, pair.standby.id, self.date);
        if found.active == pair.standby.id { Which::Standby } else { Which::Primary }
    }

    /// How far a stream is behind, by the API's own clock where that is known. `None` = it does not tell.
    pub fn lag(&self, stream: &ReplicationStream) -> Option<Duration> {
        lag(stream, self.date)
    }

    /// Where a failback stands. `active`: the side that clients are sent to.
    pub fn standing(&self, pair: &Pair, active: Which) -> Result<Standing, Error> {
        if let Some(stream) = self.live(pair, Direction::Reverse)? {
            return Ok(match stream.status {
                StreamStatus::FailingOver => Standing::FailingOver(stream.clone()),
                StreamStatus::Replicating if stream.replicated_time.is_some() => {
                    Standing::Replicating(stream.clone(), self.lag(stream))
                }
                StreamStatus::Starting | StreamStatus::Replicating => Standing::Starting(stream.clone()),
                _ => return Err(odd(stream)),
            });
        }
        let returned = self.newest_completed().filter(|stream| pair.direction(stream) == Some(Direction::Reverse));
        Ok(match (active, returned) {
            (Which::Primary, _) => Standing::AtHome,
            (Which::Standby, Some(stream)) => Standing::Completed(stream.clone()),
            (Which::Standby, None) => Standing::Away,
        })
    }
}

/// See [`Survey::lag`].
pub fn lag(stream: &ReplicationStream, date: Option<Timestamp>) -> Option<Duration> {
    let by_clock = date.zip(stream.replicated_time).map(|(date, at)| date.duration_since(at));
    let by_clock = by_clock.map(|lag| Duration::try_from(lag).unwrap_or_default());
    let told = stream.replication_lag_seconds.map(|s| Duration::from_secs(u64::try_from(s).unwrap_or_default()));
    by_clock.or(told)
}

/// Whether a stream may be failed over now.
pub fn check_ready(stream: &ReplicationStream, date: Option<Timestamp>, most: Duration) -> Result<(), Error> {
    let why = match (&stream.status, stream.replicated_time, lag(stream, date)) {
        (StreamStatus::Replicating, None, _) => NotReady::Scanning,
        (StreamStatus::Replicating, Some(_), Some(lag)) if lag > most => NotReady::Behind { lag, most },
        (StreamStatus::Replicating, Some(_), _) => return Ok(()),
        (other, _, _) => NotReady::Status(other.clone()),
    };
    Err(Error::NotReady { id: stream.id, why })
}

/// Whether a stream may be failed over to that moment: from what is retained to an hour ahead.
pub fn check_moment(stream: &ReplicationStream, date: Option<Timestamp>, at: Timestamp) -> Result<(), Error> {
    const AHEAD: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
    let latest = date.and_then(|date| date.checked_add(AHEAD).ok());
    let why = match (stream.retained_time, latest) {
        (Some(retained), _) if at < retained => NotReady::TooEarly { at, retained },
        (_, Some(latest)) if at > latest => NotReady::TooLate { at, latest },
        _ => return Ok(()),
    };
    Err(Error::NotReady { id: stream.id, why })
}

/// A status of later times: neither good nor bad, so nothing is done.
pub(super) fn odd(stream: &ReplicationStream) -> Error {
    Error::Ended {
        id: stream.id,
        status: stream.status.clone(),
        remedy: "a status that this version does not know, so nothing was done; look in the Cloud Console",
    }
}
