//! What the tasks of a simulated cloud have in common: the world, its clock, the clusters' front doors, the API's desk.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::cloud_api::desk::Desk;
use super::super::cockroach::gate::{Gate, Verdict};
use super::super::cockroach::scram::Verifier;
use super::super::cockroach::{MAIN, SYSTEM};
use super::refusal::Refusal;
use super::world::{Disruption, World};
use super::{Auth, Outage, Reach, Sessions};
use crate::types::{Secret, WallTime};

/// The cluster setting that names the virtual cluster of a client that names none.
const DEFAULT_TENANT: &str = "server.controller.default_target_cluster";

#[derive(Debug)]
pub(in crate::sim) struct Site {
    pub(in crate::sim) world: Mutex<World>,
    /// The front doors of the clusters, in their order.
    pub(in crate::sim) gates: Vec<Gate>,
    pub(in crate::sim) desk: Desk,
    pub(in crate::sim) auth: Auth,
    pub(in crate::sim) verifiers: HashMap<String, Verifier>,
    pub(in crate::sim) tls: Option<Arc<ServerConfig>>,
    pub(in crate::sim) accepts_plain: bool,
    pub(in crate::sim) secret: Secret,
    pub(in crate::sim) version: String,
    pub(in crate::sim) provider: String,
    pub(in crate::sim) most_sessions: usize,
    pub(in crate::sim) outage: Mutex<Outage>,
    /// Microseconds by which the cloud's clock is ahead of this machine's.
    pub(in crate::sim) ahead: AtomicI64,
    pub(in crate::sim) changes: watch::Sender<u64>,
    pub(in crate::sim) stop: CancellationToken,
    pub(in crate::sim) tasks: TaskTracker,
}

impl Site {
    /// The cloud's time.
    pub(in crate::sim) fn now(&self) -> WallTime {
        WallTime(super::super::now().0.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    /// The world as it is now, standing still.
    pub(in crate::sim) fn world_now(&self) -> (MutexGuard<'_, World>, WallTime) {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        world.advance(now);
        (world, now)
    }

    /// Tells every session to look whether it may go on.
    pub(in crate::sim) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(in crate::sim) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(in crate::sim) fn outage(&self) -> Outage {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a newcomer meets at a cluster.
    pub(in crate::sim) fn reach(&self, cluster: usize) -> Reach {
        let (crashed, disrupted) = self.condition(cluster);
        match (crashed, disrupted) {
            (true, _) => Reach::Refused,
            (_, true) => self.outage().newcomers,
            _ => self.gates[cluster].state().reach,
        }
    }

    /// What a connection may do now.
    pub(in crate::sim) fn verdict(&self, cluster: usize, pid: u32, generation: u64) -> Verdict {
        let (_, disrupted) = self.condition(cluster);
        let hangs = disrupted && self.outage().sessions == Sessions::Hang || self.reach(cluster) == Reach::Silent;
        let serves = self.world_now().0.serves(cluster);
        let state = self.gates[cluster].state();
        if state.generation != generation {
            Verdict::Reset
        } else if hangs {
            Verdict::Hang
        } else if !serves && state.sessions.get(&pid).is_some_and(|entry| entry.on_main) {
            Verdict::Ended
        } else {
            Verdict::GoOn
        }
    }

    /// Is this virtual cluster served here?
    pub(in crate::sim) fn serves(&self, cluster: usize, tenant: &str) -> bool {
        tenant == SYSTEM || tenant == MAIN && self.world_now().0.serves(cluster)
    }

    pub(in crate::sim) fn default_tenant(&self, cluster: usize) -> String {
        let (world, _) = self.world_now();
        world.clusters[cluster].settings.get(DEFAULT_TENANT).map_or(MAIN, String::as_str).to_owned()
    }

    pub(in crate::sim) fn is_full(&self, cluster: usize) -> bool {
        self.gates[cluster].state().sessions.len() >= self.most_sessions
    }

    /// Replaces what is cut off of a cluster, and makes its front door look like it.
    pub(in crate::sim) async fn disrupt(self: &Arc<Self>, cluster: usize, new: Vec<Disruption>) -> Result<(), Refusal> {
        let begins = {
            let (mut world, now) = self.world_now();
            let before = world.clusters[cluster].is_disrupted();
            world.disrupt(cluster, new, now)?;
            !before && world.clusters[cluster].is_disrupted()
        };
        // At once: a session must not be answered while the listener closes.
        self.changed();
        if begins && self.outage().sessions == Sessions::Reset {
            self.reset_sessions(cluster);
        }
        if let Err(error) = self.settle(cluster).await {
            tracing::warn!(%error, cluster, "a simulated cluster cannot listen");
        }
        Ok(())
    }

    /// Crashes a cluster, or starts it again as it was.
    pub(in crate::sim) async fn set_crashed(self: &Arc<Self>, cluster: usize, crashed: bool) -> io::Result<()> {
        self.world_now().0.clusters[cluster].crashed = crashed;
        if crashed {
            self.reset_sessions(cluster);
        }
        self.settle(cluster).await
    }

    /// Resets every connection of a cluster.
    pub(in crate::sim) fn reset_sessions(&self, cluster: usize) {
        self.gates[cluster].state().generation += 1;
        self.changed();
    }

    /// Opens or closes a cluster's listener as its condition wants it.
    pub(in crate::sim) async fn settle(self: &Arc<Self>, cluster: usize) -> io::Result<()> {
        let open = self.reach(cluster) != Reach::Refused;
        let settled = self.gates[cluster].settle(self, cluster, open).await;
        self.changed();
        settled
    }

    pub(in crate::sim) fn set_ahead(&self, by: Duration, behind: bool) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.ahead.store(if behind { -micros } else { micros }, Ordering::Relaxed);
    }

    /// Crashed, disrupted.
    fn condition(&self, cluster: usize) -> (bool, bool) {
        let (world, _) = self.world_now();
        (world.clusters[cluster].crashed, world.clusters[cluster].is_disrupted())
    }
}
