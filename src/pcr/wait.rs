//! Waiting for a stream: looks at it again and again, first quickly and then calmly, until it is where it should be, it
//! will never be, or the time is up. Only reads, so that a wait can be interrupted anywhere.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::survey::{check_ready, lag, odd};
use super::{Error, NotReady, Pair};
use crate::cockroach_cloud::model::{ReplicationStream, StreamId, StreamStatus};

/// Between the first two looks, and at most between two. Far below what the API allows.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Of how many.
    pub of: u64,
    /// What is going on.
    pub sentence: String,
}

/// Hears of progress.
pub type Watch<'w> = dyn FnMut(&Progress) + 'w;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The first copy is complete.
    Copied,
    /// It could be failed over: it lacks no more than this.
    Ready(Duration),
    /// It was failed over.
    Completed,
}

/// Waits; gives the stream as it was when it was so.
pub async fn until(
    pair: &Pair,
    id: StreamId,
    until: Until,
    patience: Duration,
    watch: &mut Watch<'_>,
) -> Result<ReplicationStream, Error> {
    let began = Instant::now();
    let mut looks = Looks::new();
    let mut last = StreamStatus::default();
    loop {
        match pair.client.stream(id).await {
            Ok(reply) => {
                last = reply.value.status.clone();
                match judge(&reply.value, reply.date, until)? {
                    None => return Ok(reply.value),
                    Some(progress) => watch(&progress),
                }
            }
            Err(error) if error.is_final() => return Err(error.into()),
            // It says nothing of the stream: asked again.
            Err(error) => watch(&Progress { done: 0, of: until.steps(), sentence: format!("{error}; asking again") }),
        }
        let waited = began.elapsed();
        if waited >= patience {
            return Err(Error::Late { id, status: last, waited });
        }
        looks.pause(patience - waited).await;
    }
}

impl Until {
    fn steps(self) -> u64 {
        match self {
            Self::Copied => 2,
            Self::Ready(_) => 3,
            Self::Completed => 1,
        }
    }
}

/// `None` = it is so.
fn judge(stream: &ReplicationStream, date: Option<Timestamp>, until: Until) -> Result<Option<Progress>, Error> {
    let id = stream.id;
    let progress = |done, sentence: String| Ok(Some(Progress { done, of: until.steps(), sentence }));
    let ended = |remedy| Err(Error::Ended { id, status: stream.status.clone(), remedy });
    match (until, &stream.status) {
        (Until::Completed, StreamStatus::Completed) => Ok(None),
        (Until::Completed, StreamStatus::FailingOver) => {
            let at = stream.failover_at.map(|at| format!(" to {at}")).unwrap_or_default();
            progress(0, format!("FAILING_OVER{at} (stream {id})"))
        }
        // An older copy of the record.
        (Until::Completed, StreamStatus::Replicating) => progress(0, format!("not failing over yet (stream {id})")),
        (Until::Copied | Until::Ready(_), StreamStatus::Starting) => {
            progress(0, format!("STARTING: networks are being joined, about five minutes (stream {id})"))
        }
        (Until::Copied | Until::Ready(_), StreamStatus::Replicating) if stream.replicated_time.is_none() => {
            progress(1, format!("REPLICATING: the initial scan, no replicated_time yet (stream {id})"))
        }
        (Until::Copied, StreamStatus::Replicating) => Ok(None),
        (Until::Ready(most), StreamStatus::Replicating) => match check_ready(stream, date, most) {
            Ok(()) => Ok(None),
            Err(Error::NotReady { why: NotReady::Behind { .. }, .. }) => {
                let behind = lag(stream, date).unwrap_or_default().as_secs();
                progress(2, format!("REPLICATING: {behind} s behind, and may be {} s (stream {id})", most.as_secs()))
            }
            Err(error) => Err(error),
        },
        (_, StreamStatus::Canceled) => ended("somebody ended it; run the command again to begin anew"),
        (_, StreamStatus::FailingOver | StreamStatus::Completed) => {
            ended("somebody failed it over meanwhile; `proxyctl failback status` shows where that leaves the pair")
        }
        (_, _) => Err(odd(stream)),
    }
}

/// The pauses between looks.
#[derive(Debug)]
pub(super) struct Looks(Duration);

impl Looks {
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// Waits for the next look, no longer than `left`.
    pub(super) async fn pause(&mut self, left: Duration) {
        sleep(self.0.min(left)).await;
        self.0 = (self.0 * 3 / 2).min(LONGEST);
    }
}
