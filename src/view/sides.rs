//! What applications are told of the sides of a service: the replies of `/connection` and `/clusters`, as the daemon
//! and `proxyctl service` send them and the client library reads them. Says nothing of who may be told a password.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{BackendStatus, Episode, ServiceStatus};
use crate::types::{BackendName, HostPort, ServiceName};

/// `GET /clusters`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clusters {
    /// Service by service, in the order of the configuration.
    pub clusters: Vec<Cluster>,
}

/// One side: a cluster, or a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Whose side.
    pub service: ServiceName,
    /// `postgres` or `cockroach`.
    pub kind: String,
    /// The backend's name.
    pub name: BackendName,
    /// The Cloud API's id, where it is configured.
    pub cluster_id: Option<String>,
    /// The latch names it.
    pub active: bool,
    /// The configured primary: where traffic is at home.
    pub primary: bool,
    /// What it says of itself: `primary`, `standby`, `unknown`.
    pub role: String,
    /// `up`, `down`, `unknown`, `recovering`.
    pub health: String,
    /// It is up, and not quarantined.
    pub healthy: bool,
    /// A driver may be told its address: it is the active side, or a PostgreSQL standby, which takes no writes. Never a
    /// quarantined side, nor a cluster that was not promoted.
    pub fit: bool,
    /// The service lets newcomers through now; `false` while it holds them.
    pub open: bool,
    /// Newcomers are held, and traffic is being moved from this side to that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_to: Option<BackendName>,
    /// `host:port` as configured, or as the Cloud API told it.
    pub dns: Vec<HostPort>,
    /// As resolved by the daemon.
    pub addresses: Vec<SocketAddr>,
    /// How to encrypt, in libpq's word.
    pub sslmode: String,
    /// The file with the CA that signed its certificate, on the machine that answers; `None` = the system's.
    pub sslrootcert: Option<String>,
}

/// `GET /connection`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// A URI for the active side. It may hold a password: only `Debug` hides it.
    pub connection_string: String,
    /// The side it leads to: cluster ids where configured, else names of backends.
    pub active_cluster: String,
    /// The configured primary.
    pub primary_cluster: String,
    /// The other side; of several, the first one.
    pub standby_cluster: Option<String>,
    /// The service lets newcomers through now.
    pub open: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Connection");
        shown.field("connection_string", &"***").field("active_cluster", &self.active_cluster);
        shown.field("primary_cluster", &self.primary_cluster).field("standby_cluster", &self.standby_cluster);
        shown.field("open", &self.open).finish()
    }
}

/// Why nobody is told where the active side is: it is being left. Who connects there meets what is cut off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("traffic moves from {from} to {to}; ask again in a moment")]
pub struct Moving {
    /// The side that is left.
    pub from: BackendName,
    /// The side that will be active, if all goes well.
    pub to: BackendName,
}

impl Clusters {
    /// Every side of these services.
    pub fn of<'s>(services: impl IntoIterator<Item = &'s ServiceStatus>) -> Self {
        let sides = |service: &'s ServiceStatus| {
            let home = home(service);
            service.backends.iter().map(move |backend| Cluster::of(service, backend, Some(&backend.name) == home))
        };
        Self { clusters: services.into_iter().flat_map(sides).collect() }
    }

    /// The active side of a list that holds one service.
    pub fn active(&self) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.active)
    }

    /// Whether the active side of a list that holds one service is being left.
    pub fn moving(&self) -> Option<Moving> {
        let active = self.active().filter(|active| !active.open)?;
        Some(Moving { from: active.name.clone(), to: active.moves_to.clone()? })
    }

    /// What `/connection` tells of a list that holds one service; `None` = no side is active.
    pub fn connection(&self, connection_string: String) -> Option<Connection> {
        let active = self.active()?;
        let primary = self.clusters.iter().find(|cluster| cluster.primary).unwrap_or(active);
        let standby = self.clusters.iter().find(|cluster| cluster.name != primary.name);
        Some(Connection {
            connection_string,
            active_cluster: active.id().to_owned(),
            primary_cluster: primary.id().to_owned(),
            standby_cluster: standby.map(|standby| standby.id().to_owned()),
            open: active.open,
        })
    }
}

impl Cluster {
    fn of(service: &ServiceStatus, backend: &BackendStatus, primary: bool) -> Self {
        let told = backend.addresses.iter().cloned();
        let resolved = backend.endpoints.iter().map(|endpoint| {
            let ip = endpoint.ip;
            endpoint.address.clone().unwrap_or_else(|| HostPort { host: ip.ip().to_string().into(), port: ip.port() })
        });
        let mut dns: Vec<HostPort> = Vec::new();
        for host in told.chain(resolved) {
            if !dns.contains(&host) {
                dns.push(host);
            }
        }
        let standby = service.kind != COCKROACH && backend.role == "standby";
        let leaves = |episode: &&Episode| episode.from.as_ref() == Some(&backend.name) && episode.to != backend.name;
        let leaving = service.episode.as_ref().filter(|_| !service.open && backend.active).filter(leaves);
        Self {
            service: service.name.clone(),
            kind: service.kind.clone(),
            name: backend.name.clone(),
            cluster_id: backend.cluster_id.clone(),
            active: backend.active,
            primary,
            role: backend.role.clone(),
            health: backend.health.clone(),
            healthy: backend.health == "up" && backend.quarantined.is_none(),
            fit: backend.quarantined.is_none() && (backend.active || standby),
            open: service.open,
            moves_to: leaving.map(|episode| episode.to.clone()),
            dns,
            addresses: backend.endpoints.iter().map(|endpoint| endpoint.ip).collect(),
            sslmode: sslmode(&service.kind, backend.sslmode.as_deref()).to_owned(),
            sslrootcert: backend.sslrootcert.clone(),
        }
    }

    /// The cluster id where there is one, else the backend's name.
    pub fn id(&self) -> &str {
        self.cluster_id.as_deref().unwrap_or(self.name.as_str())
    }
}

/// `kind` of clusters.
pub const COCKROACH: &str = "cockroach";

/// What an application is told for what we use ourselves. A cluster is never offered a connection in clear that might
/// be encrypted.
fn sslmode<'a>(kind: &str, ours: Option<&'a str>) -> &'a str {
    match ours {
        None | Some("prefer") if kind == COCKROACH => "require",
        None => "prefer",
        Some(ours) => ours,
    }
}

/// Where the configuration wants the traffic; without a word on that, where it is.
fn home(service: &ServiceStatus) -> Option<&BackendName> {
    let configured = service.backends.iter().find(|backend| backend.configured_role.as_deref() == Some("primary"));
    configured.map(|backend| &backend.name).or(service.active.as_ref())
}
