//! Two servers, `east` streaming to `west`, as most people run them.

use super::cluster::{Cluster, Shutdown};
use super::network::Namespace;
use std::sync::Arc;

/// `east` starts as the primary, `west` as its standby.
#[derive(Debug)]
pub struct Pair {
    /// The first primary.
    pub east: Cluster,
    /// Its standby.
    pub west: Cluster,
    /// What cuts the wire, when the pair stands behind one.
    pub network: Option<Arc<Namespace>>,
}

/// What is special about a pair.
#[derive(Debug, Default)]
pub struct PairPlan {
    settings: Vec<(String, String)>,
    synchronous: bool,
    namespace: bool,
    tls: bool,
}

impl PairPlan {
    /// A setting of both servers.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// The primary acknowledges a commit only when the standby has it.
    pub fn synchronous(mut self) -> Self {
        self.synchronous = true;
        self
    }

    /// Both servers stand behind one virtual wire that can be cut.
    pub fn behind_a_wire(mut self) -> Self {
        self.namespace = true;
        self
    }

    /// Both servers refuse connections without TLS.
    pub fn tls_only(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts both servers and waits until they replicate.
    pub async fn start(self) -> Pair {
        let network = self.namespace.then(|| Arc::new(Namespace::create()));
        let east = Cluster::create("east", &self.settings, network.clone());
        let west = Cluster::create("west", &self.settings, network.clone());
        if self.tls {
            east.demand_tls();
        }
        west.follow_copy_of(&east);
        east.start().await;
        east.run("SELECT pg_create_physical_replication_slot('west', true)").await;
        west.start().await;
        east.is_followed_by(&west).await;
        if self.synchronous {
            east.run("ALTER SYSTEM SET synchronous_standby_names = 'west'").await;
            east.reload();
        }
        Pair { east, west, network }
    }
}

impl Pair {
    /// Both servers with nothing special.
    pub async fn start() -> Self {
        Self::plan().start().await
    }

    /// To say what is special.
    pub fn plan() -> PairPlan {
        PairPlan::default()
    }

    /// The virtual wire.
    pub fn wire(&self) -> &Namespace {
        self.network.as_ref().expect("the pair was planned without a wire")
    }

    /// A third server, a standby of `east`.
    pub async fn add_standby(&self, name: &str) -> Cluster {
        let third = Cluster::create(name, &[], self.network.clone());
        third.rebuild_as_standby_of(&self.east).await;
        self.east.is_followed_by(&third).await;
        third
    }

    /// Stops both, the primary first.
    pub async fn stop(&self) {
        self.east.stop(Shutdown::Fast).await;
        self.west.stop(Shutdown::Fast).await;
    }
}
