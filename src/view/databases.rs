//! The databases of a service under the names that scripts of older set-ups read: `primary.healthy`, `failoverCount`
//! and the like. Here each name and its unit is decided, once for every reply that has it.

use serde::Serialize;

use super::{BackendStatus, ServiceStatus};
use crate::types::{BackendName, WallTime};

/// What stands beside our own names in `/failover/status` of one service.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Databases {
    /// [`ServiceStatus::state`].
    pub state: String,
    /// See [`failovers`].
    pub failover_count: u64,
    /// When the active side last changed, ISO 8601 in UTC; `None` = it never did.
    pub last_failover_time: Option<String>,
    /// The active side, whatever its configured role; `None` = nobody is latched yet.
    pub primary: Option<Database>,
    /// Every other side, in the order of the configuration.
    pub standbys: Vec<Database>,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// The backend's name.
    pub name: BackendName,
    /// It is up, and not quarantined.
    pub healthy: bool,
    /// When the last check's verdict stood, ISO 8601 in UTC; `None` = it was not checked yet.
    pub last_health_check: Option<String>,
    /// Failed checks in a row.
    pub failure_count: u32,
    /// How long the last check took, milliseconds; `None` = it was not checked yet.
    pub response_time: Option<f64>,
    /// Since when it counts as down, ISO 8601 in UTC; `None` = it does not.
    pub down_since: Option<String>,
    /// It could be promoted right now; never true of the active side.
    pub promotion_eligible: bool,
}

impl Databases {
    /// Those of one service.
    pub fn of(service: &ServiceStatus) -> Self {
        Self {
            state: service.state.clone(),
            failover_count: failovers(service),
            last_failover_time: service.since.filter(|_| service.epoch.0 > 1).map(stamp),
            primary: service.backends.iter().find(|b| b.active).map(Database::of),
            standbys: service.backends.iter().filter(|b| !b.active).map(Database::of).collect(),
        }
    }
}

impl Database {
    /// As its last check left it.
    pub fn of(backend: &BackendStatus) -> Self {
        let probe = backend.last_probe.as_ref();
        Self {
            name: backend.name.clone(),
            healthy: backend.health == "up" && backend.quarantined.is_none(),
            last_health_check: probe.map(|p| stamp(p.at)),
            failure_count: backend.failures,
            response_time: probe.map(|p| p.took_us as f64 / 1000.0),
            down_since: backend.health_since.filter(|_| backend.health == "down").map(stamp),
            promotion_eligible: backend.armed,
        }
    }
}

/// Episodes that ended with a new active side since the daemon started.
pub fn failovers(service: &ServiceStatus) -> u64 {
    service.switches.iter().filter(|s| s.outcome == "switched").map(|s| s.count).sum()
}

/// `2026-08-04T11:08:56.125Z`.
pub fn stamp(at: WallTime) -> String {
    at.to_string()
}
