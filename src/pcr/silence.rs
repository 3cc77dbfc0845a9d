//! Has a primary fallen silent? For whoever has no daemon that watched it all along: from the first look on that found it
//! dead, the daemon's own judge of its stream hears every reading, and both clusters are asked beside it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::look::{self, Answer, Sql};
use super::wait::{Progress, Watch};
use super::{Error, Pair, Which};
use crate::cockroach_cloud::Reply;
use crate::cockroach_cloud::model::{ReplicationStream, StreamId, StreamStatus};
use crate::failover::replication::{Known, Status, Stream, Witness};
use crate::failover::witness::Testimony;
use crate::types::{HostPort, Moment, WallTime};

/// Between two looks, at most; less where the stream is refreshed oftener.
const BETWEEN: Duration = Duration::from_secs(5);

/// What a stream says of its primary since that was first found dead.
#[derive(Debug)]
pub struct Vigil<'p> {
    pair: &'p Pair,
    id: StreamId,
    began: Instant,
    /// The API's clock when it began.
    base: Timestamp,
    witness: Witness,
    sql: Addresses,
    /// What the primary's address says.
    primary: Answer,
    /// Why the standby could not take over.
    standby: Result<(), String>,
}

/// Where both speak SQL: the API, which may tell it, may be away later.
#[derive(Debug)]
struct Addresses {
    primary: Vec<HostPort>,
    standby: Vec<HostPort>,
}

/// The API tells its clock in whole seconds.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(1);
const NO_CLOCK: &str = "the API shows no clock";

/// How a vigil ended.
#[derive(Debug)]
pub enum Ended {
    /// Its stream brings nothing new, nobody answers at the primary, and the standby is there.
    Silent,
    /// Others have failed the stream over meanwhile.
    Joined(Box<ReplicationStream>),
}

impl<'p> Vigil<'p> {
    /// Asks both clusters and reads the stream. A primary that answers, in whatever way, is an error, and so is a stream
    /// that cannot tell of its silence.
    pub async fn begin(pair: &'p Pair, id: StreamId) -> Result<Self, Error> {
        let (primary, standby) =
            tokio::join!(look::addresses(pair, Which::Primary), look::addresses(pair, Which::Standby));
        let sql = Addresses { primary: primary?, standby: standby? };
        let began = Instant::now();
        let (primary, standby) = heard(pair, &sql).await?;
        let reply = pair.client.stream(id).await?;
        let clock = clock(&reply).ok_or_else(|| mute(pair, id, NO_CLOCK.into()))?;
        let base = clock.checked_sub(began.elapsed()).map_err(|_| mute(pair, id, NO_CLOCK.into()))?;
        let mut witness = Witness::new(pair.refresh, pair.max_lag);
        witness.sample(&known(pair, began, &reply.value), wall(clock));
        witness.begin_unwatched(Moment::default(), wall(base));
        let vigil = Self { pair, id, began, base, witness, sql, primary, standby };
        match vigil.witness.usable() {
            true => Ok(vigil),
            false => Err(vigil.mute()),
        }
    }

    /// The API's clock when the primary was first found dead.
    pub fn base(&self) -> Timestamp {
        self.base
    }

    /// What the primary's address says.
    pub fn primary(&self) -> Answer {
        self.primary
    }

    /// When it will count as silent by the API's clock if nothing new arrives, and in how long that is.
    pub fn until(&self) -> (Timestamp, Duration) {
        let until = self.witness.silent_from().unwrap_or_default();
        let until = Timestamp::from_microsecond(until.0).unwrap_or(self.base);
        let left = Duration::try_from(until.duration_since(self.base)).unwrap_or_default();
        (until, left.saturating_sub(self.began.elapsed()))
    }

    /// Looks again and again until the primary is silent. That it lives is an error, and so is a doubt that outlasts
    /// `patience`. Only reads.
    pub async fn silence(&mut self, patience: Duration, watch: &mut Watch<'_>) -> Result<Ended, Error> {
        let whole = self.until().1;
        loop {
            if let Some(joined) = self.look().await? {
                return Ok(Ended::Joined(joined));
            }
            let (at, left) = self.until();
            if self.witness.testimony() == Testimony::Silent && self.standby.is_ok() {
                return Ok(Ended::Silent);
            }
            if self.began.elapsed() >= patience {
                return Err(self.mute());
            }
            watch(&Progress { done: tenths(whole, left), of: TENTHS, sentence: self.sentence(at, left) });
            sleep(BETWEEN.min(self.pair.refresh / 6)).await;
        }
    }

    /// The last look before the order, upon this reading of the stream: the primary is as dead as it was.
    pub async fn last_look(&mut self, reply: &Reply<ReplicationStream>) -> Result<(), Error> {
        let started = Instant::now();
        self.take(started, reply)?;
        self.primary = dead(self.pair, look::sql(self.pair, &self.pair.primary, &self.sql.primary).await)?;
        match self.witness.testimony() {
            Testimony::Silent => Ok(()),
            _ => Err(self.mute()),
        }
    }

    async fn look(&mut self) -> Result<Option<Box<ReplicationStream>>, Error> {
        let started = Instant::now();
        let (heard, read) = tokio::join!(heard(self.pair, &self.sql), self.pair.client.stream(self.id));
        (self.primary, self.standby) = heard?;
        match read {
            Ok(reply) if matches!(reply.value.status, StreamStatus::FailingOver | StreamStatus::Completed) => {
                Ok(Some(Box::new(reply.value)))
            }
            Ok(reply) => self.take(started, &reply).map(|()| None),
            Err(error) if error.is_final() => Err(error.into()),
            Err(error) => {
                self.witness.sample_failed(self.moment(started), &error.to_string());
                Ok(None)
            }
        }
    }

    fn take(&mut self, started: Instant, reply: &Reply<ReplicationStream>) -> Result<(), Error> {
        let stream = &reply.value;
        if stream.status != StreamStatus::Replicating {
            let remedy =
                "only one that replicates is failed over; `proxyctl failback status` shows where the pair stands";
            return Err(Error::Ended { id: self.id, status: stream.status.clone(), remedy });
        }
        let Some(clock) = clock(reply) else {
            self.witness.sample_failed(self.moment(started), NO_CLOCK);
            return Ok(());
        };
        self.witness.sample(&known_since(self.pair, self.began, started, stream), wall(clock));
        match (self.witness.testimony(), stream.replicated_time) {
            (Testimony::Writing, Some(replicated)) if replicated.duration_since(self.base) >= CLOCK_STEP => {
                Err(Error::StillReceives {
                    primary: self.pair.primary.name.clone(),
                    standby: self.pair.standby.name.clone(),
                    id: self.id,
                    replicated,
                    looked: self.base,
                })
            }
            _ => Ok(()),
        }
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment(at.saturating_duration_since(self.began))
    }

    fn sentence(&self, at: Timestamp, left: Duration) -> String {
        let (primary, answer) = (&self.pair.primary.name, self.primary.words());
        let upto = self.witness.replicated().map_or_else(String::new, |at| format!(" up to {at}"));
        let what = match (self.witness.trouble(), &self.standby) {
            (Some(trouble), _) => format!("the stream cannot be read ({trouble})"),
            (None, Err(why)) => why.clone(),
            (None, Ok(())) => {
                let flight = self.witness.replicated() > Some(wall(self.base));
                let flight = if flight { ", which was on its way" } else { "" };
                format!("its stream has everything{upto}{flight}")
            }
        };
        let when = match left.is_zero() {
            true => "it counts as silent as soon as that is certain".to_owned(),
            false => format!("silent at {at:.0} if nothing newer arrives (in {} s)", left.as_secs().max(1)),
        };
        format!("{primary} {answer}; {what}; {when}")
    }

    fn mute(&self) -> Error {
        let why = self.witness.mute_because().or_else(|| self.standby.clone().err());
        mute(self.pair, self.id, why.unwrap_or_else(|| "the stream is not silent for long enough".into()))
    }
}

/// Of a whole wait.
const TENTHS: u64 = 10;

fn tenths(whole: Duration, left: Duration) -> u64 {
    let gone = whole.saturating_sub(left).as_millis() * u128::from(TENTHS);
    u64::try_from(gone / whole.as_millis().max(1)).unwrap_or(TENTHS).min(TENTHS)
}

/// What the primary's address says, and why the standby could not take over if so. A primary that answers is an error.
async fn heard(pair: &Pair, at: &Addresses) -> Result<(Answer, Result<(), String>), Error> {
    let (primary, standby) =
        tokio::join!(look::sql(pair, &pair.primary, &at.primary), look::sql(pair, &pair.standby, &at.standby));
    let name = &pair.standby.name;
    let standby = match standby {
        // 08000 is the normal answer of a standby.
        Some(sql) if sql.answer.lives() => Ok(()),
        Some(sql) => Err(format!("{name} is not heard ({}: {})", sql.answer.words(), sql.said)),
        None => Err(format!("no address of {name} is known")),
    };
    Ok((dead(pair, primary)?, standby))
}

/// Only who does not answer at all, or says that he does not serve, is failed over without force.
fn dead(pair: &Pair, heard: Option<Sql>) -> Result<Answer, Error> {
    let cluster = pair.primary.name.clone();
    match heard {
        Some(sql) if sql.answer == Answer::Serving => Err(Error::Serves(cluster)),
        Some(sql) if sql.answer.is_dead() => Ok(sql.answer),
        Some(sql) => Err(Error::NotDead { cluster, heard: format!("{}: {}", sql.answer.words(), sql.said) }),
        None => Err(Error::NotDead { cluster, heard: "no address of it is known".to_owned() }),
    }
}

fn mute(pair: &Pair, id: StreamId, why: String) -> Error {
    Error::NoWitness { primary: pair.primary.name.clone(), id, why }
}

/// The server read its clock within the time that the call took.
fn clock(reply: &Reply<ReplicationStream>) -> Option<Timestamp> {
    reply.date.and_then(|date| date.checked_add(reply.took / 2).ok())
}

fn wall(at: Timestamp) -> WallTime {
    WallTime(at.as_microsecond())
}

fn known(pair: &Pair, began: Instant, stream: &ReplicationStream) -> Known {
    known_since(pair, began, began, stream)
}

fn known_since(pair: &Pair, began: Instant, started: Instant, stream: &ReplicationStream) -> Known {
    let moment = |at: Instant| Moment(at.saturating_duration_since(began));
    let (from, to) = (pair.primary.name.clone(), pair.standby.name.clone());
    let mut heard = Stream::unread(stream.id.to_string(), from, to);
    if stream.status == StreamStatus::Replicating {
        heard.status = Status::Replicating;
    }
    heard.replicated = stream.replicated_time.map(wall);
    let (started, finished) = (moment(started), moment(Instant::now()));
    Known { stream: heard, started, finished, entered: started, gone: false }
}
