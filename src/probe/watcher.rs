//! One task per address: starts probes when they are due, keeps one connection, reports what comes of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::check::Check;
use super::schedule::{self, MAX_OUTSTANDING, Plan, Situation};
use super::sql::Kept;
use super::{Common, Orders, ProbeReport, timing};
use crate::failover::action::Cadence;
use crate::failover::observation::{Evidence, Failure, Observation, Unknown, Verdict};
use crate::types::{HostPort, Moment};

/// A lost connection is replaced at once, but not more often than this.
const MIN_RECONNECT: Duration = Duration::from_millis(100);
/// Every failed connection of a client may order a probe; not all of them get one of their own.
const MIN_POKE: Duration = Duration::from_millis(20);
/// For taking leave of a server.
const FAREWELL: Duration = Duration::from_millis(100);

/// Where a watcher hears its orders.
#[derive(Debug, Clone)]
pub(super) struct Ears {
    /// Cadence, active side, epoch.
    pub(super) orders: watch::Receiver<Orders>,
    /// Counts the calls of `probe_now`.
    pub(super) poked: watch::Receiver<u64>,
}

/// Probes `address` until `end`.
pub(super) async fn run(common: Arc<Common>, name: HostPort, address: SocketAddr, ears: Ears, end: CancellationToken) {
    let mut watcher = Watcher::new(common, &name, address, ears);
    let _ = end.run_until_cancelled(watcher.watch()).await;
    if let Some(kept) = watcher.kept.take() {
        kept.close(Instant::now() + FAREWELL).await;
    }
}

struct Watcher {
    common: Arc<Common>,
    address: SocketAddr,
    check: Arc<Check>,
    ears: Ears,
    orders: Orders,
    /// The connection between two samples; while one runs it is with it.
    kept: Option<Kept>,
    sampling: bool,
    /// Probes under way, and surplus connections that take leave (`None`).
    running: JoinSet<Option<Done>>,
    outstanding: usize,
    /// Fresh probes that failed in a row.
    failures: u32,
    next_fresh: Instant,
    next_sample: Instant,
    last_fresh: Option<Instant>,
}

/// A probe that ended.
struct Done {
    started: Moment,
    finished: Moment,
    verdict: Verdict,
    kept: Option<Kept>,
    task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Fresh,
    Sample { lost: bool },
}

/// What woke the watcher.
enum Wake {
    Orders,
    Poke,
    Done(Box<Result<Option<Done>, JoinError>>),
    KeptEnded(Option<Verdict>),
    FreshDue,
    SampleDue,
}

/// Nobody gives orders or reads reports any more.
struct Orphaned;

impl Watcher {
    fn new(common: Arc<Common>, name: &HostPort, address: SocketAddr, mut ears: Ears) -> Self {
        let now = Instant::now();
        let orders = ears.orders.borrow_and_update().clone();
        Self {
            check: Arc::new(Check::new(Arc::clone(&common), name, address)),
            common,
            address,
            orders,
            ears,
            kept: None,
            sampling: false,
            running: JoinSet::new(),
            outstanding: 0,
            failures: 0,
            next_fresh: now,
            next_sample: now,
            last_fresh: None,
        }
    }

    async fn watch(&mut self) -> Result<(), Orphaned> {
        loop {
            match self.wake().await? {
                Wake::Orders => self.handle_orders(),
                Wake::Poke => self.begin_soon(MIN_POKE),
                Wake::Done(done) => self.handle_done(*done).await?,
                Wake::KeptEnded(verdict) => self.handle_end_of_kept(verdict).await?,
                Wake::FreshDue => self.handle_fresh_due(),
                Wake::SampleDue => self.handle_sample_due(),
            }
        }
    }

    async fn wake(&mut self) -> Result<Wake, Orphaned> {
        let keeps = self.check.keeps();
        tokio::select! {
            biased;
            heard = self.ears.orders.changed() => heard.map(|()| Wake::Orders).map_err(|_| Orphaned),
            heard = self.ears.poked.changed() => heard.map(|()| Wake::Poke).map_err(|_| Orphaned),
            Some(done) = self.running.join_next() => Ok(Wake::Done(Box::new(done))),
            verdict = self.check.ended(&mut self.kept) => Ok(Wake::KeptEnded(verdict)),
            () = sleep_until(self.next_fresh) => Ok(Wake::FreshDue),
            () = sleep_until(self.next_sample), if keeps => Ok(Wake::SampleDue),
        }
    }

    fn handle_orders(&mut self) {
        let was_active = self.is_active();
        let heard = self.ears.orders.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.orders, heard);
        let other_cadence = before.cadence != self.orders.cadence;
        if !other_cadence && was_active == self.is_active() {
            return;
        }
        self.check.expect_promotion(self.may_be_promoted(), self.orders.epoch);
        let plan = self.plan();
        // Offsets count from the order, however late it is heard.
        let since = if other_cadence { self.orders.since } else { Instant::now() };
        if self.orders.cadence == Cadence::Calm {
            self.next_fresh = since + self.varied(&plan, plan.fresh);
            self.next_sample = since + self.varied(&plan, plan.sample);
        } else {
            (self.next_fresh, self.next_sample) = (since, since);
        }
    }

    fn handle_fresh_due(&mut self) {
        let plan = self.plan();
        let due = self.next_fresh;
        self.begin_fresh(due, plan.overlap);
        // By time, not by number: a probe ordered in between must not cost one of the burst.
        let burst = plan.burst.iter().map(|offset| self.orders.since + *offset).find(|at| *at > due);
        self.next_fresh = burst.unwrap_or_else(|| following(due, self.varied(&plan, plan.fresh)));
    }

    fn handle_sample_due(&mut self) {
        let plan = self.plan();
        let due = self.next_sample;
        match self.kept.take() {
            Some(kept) => self.begin_sample(due, kept, plan.sample_timeout),
            // In a hurry a connection that is not there is sought at the samples' pace.
            None if !self.sampling && self.orders.cadence != Cadence::Calm => self.begin_fresh(due, 1),
            None => {}
        }
        self.next_sample = following(due, self.varied(&plan, plan.sample));
    }

    /// Starts a fresh probe at once, or `apart` from the last one.
    fn begin_soon(&mut self, apart: Duration) {
        let earliest = self.last_fresh.map(|last| last + apart);
        match earliest.filter(|at| *at > Instant::now()) {
            Some(at) => self.next_fresh = self.next_fresh.min(at),
            None => self.begin_fresh(Instant::now(), MAX_OUTSTANDING),
        }
    }

    /// Starts a probe on a connection of its own unless `limit` of them are under way.
    fn begin_fresh(&mut self, due: Instant, limit: usize) {
        if self.outstanding >= limit {
            tracing::trace!(address = %self.address, outstanding = self.outstanding, "fresh probe left out");
            return;
        }
        self.outstanding += 1;
        let now = Instant::now();
        self.last_fresh = Some(now);
        let (check, clock, epoch) = (Arc::clone(&self.check), self.common.clock, self.orders.epoch);
        let deadline = now + self.common.probe.timeout;
        self.running.spawn(async move {
            let started = clock().at;
            let ((verdict, kept), late) = timing::watched(due, clock, check.fresh(epoch, deadline)).await;
            let verdict = unless_late(verdict, late);
            Some(Done { started, finished: clock().at, verdict, kept, task: Task::Fresh })
        });
    }

    fn begin_sample(&mut self, due: Instant, kept: Kept, timeout: Duration) {
        self.sampling = true;
        let (check, clock, epoch) = (Arc::clone(&self.check), self.common.clock, self.orders.epoch);
        let deadline = Instant::now() + timeout;
        self.running.spawn(async move {
            let started = clock().at;
            let (sampled, late) = timing::watched(due, clock, check.sample(kept, epoch, deadline)).await;
            let verdict = unless_late(sampled.verdict, late);
            let task = Task::Sample { lost: sampled.lost };
            Some(Done { started, finished: clock().at, verdict, kept: sampled.kept, task })
        });
    }

    async fn handle_done(&mut self, done: Result<Option<Done>, JoinError>) -> Result<(), Orphaned> {
        let done = match done {
            Ok(Some(done)) => done,
            Ok(None) => return Ok(()),
            // The owner of this task says so in the log and starts it again.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Ok(()),
        };
        let fresh = done.task == Task::Fresh;
        match &done.verdict {
            Verdict::Failed(_) if fresh => self.failures = self.failures.saturating_add(1),
            Verdict::Answered(_) => self.failures = 0,
            _ => {}
        }
        self.observe(done.started, done.finished, fresh, done.verdict).await?;
        match done.task {
            Task::Fresh => {
                self.outstanding -= 1;
                self.adopt(done.kept);
            }
            Task::Sample { lost } => {
                self.sampling = false;
                self.kept = done.kept;
                if lost {
                    self.handle_loss().await?;
                }
            }
        }
        Ok(())
    }

    async fn handle_end_of_kept(&mut self, verdict: Option<Verdict>) -> Result<(), Orphaned> {
        self.kept = None;
        let Some(verdict) = verdict else {
            self.begin_soon(MIN_RECONNECT);
            return Ok(());
        };
        // A bare end says nothing of the server; its last word does.
        if verdict != Verdict::Failed(Failure::Lost) {
            let now = (self.common.clock)().at;
            self.observe(now, now, false, verdict).await?;
        }
        self.handle_loss().await
    }

    async fn handle_loss(&mut self) -> Result<(), Orphaned> {
        let backend = self.common.backend.clone();
        tracing::info!(%backend, address = %self.address, "probe connection lost");
        self.send(ProbeReport::Evidence(Evidence::ProbeConnectionLost { backend })).await?;
        self.begin_soon(MIN_RECONNECT);
        Ok(())
    }

    /// The first good connection is kept; a further one takes leave.
    fn adopt(&mut self, kept: Option<Kept>) {
        let Some(kept) = kept else { return };
        if self.kept.is_none() && !self.sampling {
            self.kept = Some(kept);
            return;
        }
        self.running.spawn(async move {
            kept.close(Instant::now() + FAREWELL).await;
            None
        });
    }

    async fn observe(
        &mut self,
        started: Moment,
        finished: Moment,
        fresh: bool,
        verdict: Verdict,
    ) -> Result<(), Orphaned> {
        tracing::trace!(backend = %self.common.backend, address = %self.address, fresh, ?verdict, "probe");
        let (backend, address) = (self.common.backend.clone(), self.address);
        let observation = Observation { backend, address, started, finished, fresh, verdict };
        self.send(ProbeReport::Observation(observation)).await
    }

    async fn send(&self, report: ProbeReport) -> Result<(), Orphaned> {
        self.common.sender.send(report).await.map_err(|_| Orphaned)
    }

    fn is_active(&self) -> bool {
        self.orders.active.as_ref() == Some(&self.common.backend)
    }

    /// Another side is active, and it is dying or being left.
    fn may_be_promoted(&self) -> bool {
        let other = self.orders.active.as_ref().is_some_and(|active| *active != self.common.backend);
        other && matches!(self.orders.cadence, Cadence::Death | Cadence::Episode | Cadence::Proof)
    }

    fn plan(&self) -> Plan {
        let probe = &self.common.probe;
        let down = self.failures >= probe.fall;
        let now = Situation { cadence: self.orders.cadence, active: self.is_active(), down };
        let plan = schedule::plan(self.common.kind, probe, now);
        if self.check.keeps() { plan } else { plan.without_samples() }
    }

    fn varied(&self, plan: &Plan, wait: Duration) -> Duration {
        if !plan.jitter {
            return wait;
        }
        let mut chance = [128_u8];
        // Without randomness there is no jitter, which is no harm.
        let _ = getrandom::fill(&mut chance);
        schedule::varied(wait, self.common.probe.jitter_percent, chance[0])
    }
}

fn unless_late(verdict: Verdict, late: bool) -> Verdict {
    if late { Verdict::Unknown(Unknown::OwnDelay) } else { verdict }
}

/// The next tick of a rhythm; ticks that were slept through are left out.
fn following(due: Instant, wait: Duration) -> Instant {
    let (next, now) = (due + wait, Instant::now());
    if next < now { now + wait } else { next }
}
