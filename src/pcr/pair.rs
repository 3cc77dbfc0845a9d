//! The pair of clusters that an operation works on, as the configuration describes it, and the way to the Cloud API.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::Error;
use crate::cockroach_cloud::model::{ClusterId, ReplicationStream, StreamId};
use crate::cockroach_cloud::{Client, Settings};
use crate::config::{Config, ConfiguredRole, Login, ProbeKind, Replication, Service, Tls};
use crate::types::{BackendName, HostPort, ServiceName};

/// Two clusters in CockroachDB Cloud.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The service they serve.
    pub service: ServiceName,
    /// The one that is configured as primary: home.
    pub primary: Side,
    /// The other one.
    pub standby: Side,
    /// The stream that is meant from the primary to the standby; `None` = found by its direction.
    pub pinned: Option<StreamId>,
    /// How far behind a stream may be that is failed over.
    pub max_lag: Duration,
    /// What a failover goes to; `None` = the latest consistent time.
    pub failover_at: Option<Timestamp>,
    /// How often the replicated time of a stream moves.
    pub refresh: Duration,
    /// Between two checks of the monitor.
    pub interval: Duration,
    /// Of one check of SQL.
    pub timeout: Duration,
    /// Failed checks in a row before the monitor decides.
    pub fall: u32,
    /// Who says hello in a check of SQL; no password is ever sent.
    pub login: Login,
    /// The way to the API.
    pub client: Client,
}

/// One cluster.
#[derive(Debug, Clone)]
pub struct Side {
    /// What the configuration calls it.
    pub name: BackendName,
    /// What the API calls it.
    pub id: ClusterId,
    /// Where it speaks SQL; may be empty: then the API is asked.
    pub addresses: Vec<HostPort>,
    /// TLS of our own connections.
    pub tls: Tls,
}

/// One of the two, by its configured role and not by what it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// Home.
    Primary,
    /// The other one.
    Standby,
}

/// Which way a stream leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the configured primary to the standby.
    Forward,
    /// Back home.
    Reverse,
}

impl Pair {
    /// The clusters of a service, of the only one unless one is named. Sends nothing.
    pub fn build(config: &Config, service: Option<&str>) -> Result<Self, Error> {
        let service = choose(config, service)?;
        let cloud = match &service.replication {
            Some(Replication::Cloud(cloud)) => cloud,
            Some(Replication::Sql(_)) => return Err(Error::SelfHosted(service.name.clone())),
            None => return Err(Error::NotCloud(service.name.clone())),
        };
        let sides = sides(service).ok_or_else(|| Error::NotCloud(service.name.clone()))?;
        let [primary, standby] = sides.ok_or_else(|| Error::NoPrimary(service.name.clone()))?;
        let settings =
            Settings { base_url: cloud.api_url.clone(), timeout: cloud.timeout, ..Settings::new(cloud.secret.clone()) };
        let (ProbeKind::Startup { login } | ProbeKind::Sql { login }) = &service.probe.kind else {
            return Self::with(service, primary, standby, cloud, Client::build(&settings)?, anonymous());
        };
        Self::with(service, primary, standby, cloud, Client::build(&settings)?, login.clone())
    }

    fn with(
        service: &Service,
        primary: Side,
        standby: Side,
        cloud: &crate::config::CockroachCloud,
        client: Client,
        login: Login,
    ) -> Result<Self, Error> {
        Ok(Self {
            service: service.name.clone(),
            primary,
            standby,
            // Both were checked with the configuration.
            pinned: cloud.stream_id.as_ref().and_then(|id| id.parse().ok()),
            max_lag: service.failover.max_replication_lag,
            failover_at: cloud.failover_at.and_then(|at| Timestamp::from_microsecond(at.0).ok()),
            refresh: cloud.refresh,
            interval: service.probe.interval,
            timeout: service.probe.timeout,
            fall: service.probe.fall,
            login: Login { password: None, ..login },
            client,
        })
    }

    /// One of the two.
    pub fn side(&self, which: Which) -> &Side {
        match which {
            Which::Primary => &self.primary,
            Which::Standby => &self.standby,
        }
    }

    /// The cluster that a stream of this direction leads from.
    pub fn from(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Forward => &self.primary,
            Direction::Reverse => &self.standby,
        }
    }

    /// The cluster that a stream of this direction leads to.
    pub fn to(&self, direction: Direction) -> &Side {
        self.from(direction.opposite())
    }

    /// Which way a stream leads; `None` = it joins other clusters.
    pub fn direction(&self, stream: &ReplicationStream) -> Option<Direction> {
        [Direction::Forward, Direction::Reverse].into_iter().find(|direction| {
            (stream.primary_cluster_id, stream.standby_cluster_id) == (self.from(*direction).id, self.to(*direction).id)
        })
    }

    /// Which of the two a daemon means.
    pub fn named(&self, name: &BackendName) -> Option<Which> {
        [Which::Primary, Which::Standby].into_iter().find(|which| self.side(*which).name == *name)
    }
}

impl Which {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Standby,
            Self::Standby => Self::Primary,
        }
    }

    /// As people type it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Direction {
    /// The other way.
    pub fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }

    /// The side that a completed stream of this direction made active.
    pub fn target(self) -> Which {
        match self {
            Self::Forward => Which::Standby,
            Self::Reverse => Which::Primary,
        }
    }
}

fn choose<'c>(config: &'c Config, asked: Option<&str>) -> Result<&'c Service, Error> {
    let known = || config.services.iter().map(|service| service.name.clone()).collect();
    let Some(asked) = asked else {
        // Beside services of other kinds the one in the cloud is meant.
        let cloud = |service: &&Service| matches!(service.replication, Some(Replication::Cloud(_)));
        let mut found = config.services.iter().filter(cloud);
        return match (found.next(), found.next(), config.services.as_slice()) {
            (Some(one), None, _) => Ok(one),
            (None, _, [one]) => Ok(one),
            _ => Err(Error::WhichService(known())),
        };
    };
    let found = config.services.iter().find(|service| service.name.as_str() == asked);
    found.ok_or_else(|| Error::NoSuchService { asked: asked.to_owned(), known: known() })
}

/// Primary and standby; the outer `None`: they are not two clusters with ids, the inner one: nobody is primary.
fn sides(service: &Service) -> Option<Option<[Side; 2]>> {
    let [one, two] = service.backends.as_slice() else { return None };
    let side = |backend: &crate::config::Backend| {
        Some(Side {
            name: backend.name.clone(),
            id: backend.cluster_id.as_ref()?.parse().ok()?,
            addresses: backend.addresses.clone(),
            tls: backend.tls.clone(),
        })
    };
    let (first, second) = (side(one)?, side(two)?);
    Some(match (one.role, two.role) {
        (Some(ConfiguredRole::Primary), _) => Some([first, second]),
        (_, Some(ConfiguredRole::Primary)) => Some([second, first]),
        (_, _) => None,
    })
}

/// Who says hello where no login is configured.
pub(super) fn anonymous() -> Login {
    Login { user: "pgpivot".into(), database: "defaultdb".into(), password: None }
}
