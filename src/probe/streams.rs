//! Reads the replication streams of a pair of clusters in the pace the decision core orders, one reading at a time, and
//! reports each with its times. What they testify is `failover::replication`'s.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ProbeReport;
use super::cockroach_cloud::Cloud;
use super::cockroach_sql::Sql;
use crate::failover::replication::{Report, Scope, Stream, Unread};
use crate::types::{Now, WallTime};

/// Readings ordered out of turn that may wait; more of them would read the same.
const WAITING: usize = 16;

/// What the decision core wants read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    /// Between two readings of the stream that matters.
    pub(super) one: Duration,
    /// Between two readings of all.
    pub(super) all: Duration,
    /// The stream that matters; `None`: all are read at the pace of one.
    pub(super) stream: Option<String>,
}

/// Where streams are read.
#[derive(Debug)]
pub(super) enum Source {
    /// The Cloud API.
    Cloud(Cloud),
    /// Self-hosted clusters themselves.
    Sql(Sql),
}

/// What a source shows.
pub(super) struct Shown {
    pub(super) streams: Vec<Stream>,
    pub(super) clock: Option<WallTime>,
    /// Some of the clusters were not heard.
    pub(super) partly: bool,
}

/// The way to a reader.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) pace: watch::Sender<Pace>,
    pub(super) at_once: mpsc::Sender<Option<String>>,
}

/// A reader's ears.
#[derive(Debug)]
pub(super) struct Ears {
    pace: watch::Receiver<Pace>,
    at_once: mpsc::Receiver<Option<String>>,
}

/// For a reader that does not run yet.
pub(super) fn channel(refresh: Duration) -> (Orders, Ears) {
    let first = Pace { one: refresh / 6, all: refresh / 3, stream: None };
    let (pace, heard) = watch::channel(first);
    let (at_once, asked) = mpsc::channel(WAITING);
    (Orders { pace, at_once }, Ears { pace: heard, at_once: asked })
}

/// Reads until `stop`.
pub(super) async fn run(
    source: Arc<Source>,
    mut ears: Ears,
    sender: mpsc::Sender<ProbeReport>,
    clock: fn() -> Now,
    stop: CancellationToken,
) {
    let _ = stop.run_until_cancelled(read_on(&source, &mut ears, &sender, clock)).await;
}

async fn read_on(source: &Source, ears: &mut Ears, sender: &mpsc::Sender<ProbeReport>, clock: fn() -> Now) {
    let (mut next_one, mut next_all) = (Instant::now(), Instant::now());
    loop {
        let pace = ears.pace.borrow_and_update().clone();
        let wanted = tokio::select! {
            biased;
            asked = ears.at_once.recv() => match asked {
                Some(asked) => asked,
                None => return,
            },
            () = sleep_until(next_all) => None,
            () = sleep_until(next_one), if pace.stream.is_some() => pace.stream.clone(),
            changed = ears.pace.changed() => {
                if changed.is_err() {
                    return;
                }
                // A faster pace counts from now on, a slower one from the next reading.
                let pace = ears.pace.borrow().clone();
                next_one = next_one.min(Instant::now() + pace.one);
                next_all = next_all.min(Instant::now() + pace.all);
                continue;
            }
        };
        let started = clock();
        let result = source.read(wanted.as_deref()).await;
        let now = Instant::now();
        next_one = now + pace.one;
        if wanted.is_none() {
            next_all = now + pace.all;
        }
        let report = report(wanted, started, clock(), result);
        if sender.send(ProbeReport::Streams(report)).await.is_err() {
            return;
        }
    }
}

fn report(wanted: Option<String>, started: Now, finished: Now, result: Result<Shown, Unread>) -> Report {
    let whole = wanted.map_or(Scope::All, Scope::One);
    let (scope, clock, result) = match result {
        Ok(shown) if shown.partly && whole == Scope::All => (Scope::Part, shown.clock, Ok(shown.streams)),
        Ok(shown) => (whole, shown.clock, Ok(shown.streams)),
        Err(unread) => (whole, None, Err(unread)),
    };
    Report { started: started.at, finished: finished.at, scope, clock, result }
}

impl Source {
    async fn read(&self, stream: Option<&str>) -> Result<Shown, Unread> {
        match self {
            Self::Cloud(cloud) => cloud.read(stream).await,
            Self::Sql(sql) => sql.read(stream).await,
        }
    }
}
