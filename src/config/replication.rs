//! Where physical cluster replication is read and steered.

use std::time::Duration;

use super::Login;
use crate::types::{Secret, WallTime};

/// Physical cluster replication between the backends of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replication {
    /// `[service.NAME.cockroach_cloud]`.
    Cloud(CockroachCloud),
    /// `[service.NAME.cockroach_sql]`.
    Sql(CockroachSql),
}

impl Replication {
    /// How often `replicated_time` is refreshed. All times of the replication witness follow from it.
    pub fn refresh(&self) -> Duration {
        match self {
            Self::Cloud(cloud) => cloud.refresh,
            Self::Sql(sql) => sql.refresh,
        }
    }

    /// The same streams, refreshed as often: what was learned of them stands, whoever asks with whatever secret.
    pub fn reads_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cloud(one), Self::Cloud(other)) => {
                (&one.api_url, &one.stream_id, one.refresh) == (&other.api_url, &other.stream_id, other.refresh)
            }
            (Self::Sql(one), Self::Sql(other)) => {
                (&one.virtual_cluster, one.refresh) == (&other.virtual_cluster, other.refresh)
            }
            _ => false,
        }
    }

    /// How long after the first failed probe `replicated_time` must still stand before it, until the primary counts as
    /// silent: three refreshes, or two and a half and `lag`, the largest lag of usual times.
    pub fn silence(&self, lag: Duration) -> Duration {
        silence(self.refresh(), lag)
    }
}

/// As [`Replication::silence`], from the refresh alone.
pub fn silence(refresh: Duration, lag: Duration) -> Duration {
    (refresh * 3).max(refresh * 2 + lag + refresh / 2)
}

/// `[service.NAME.cockroach_cloud]`: clusters of CockroachDB Cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CockroachCloud {
    /// Default `https://cockroachlabs.cloud`; `http` only to loopback.
    pub api_url: String,
    /// From `secret_file` or COCKROACH_API_SECRET_KEY: of a service account.
    pub secret: Secret,
    /// For one call; default 10 s; 100 ms to 5 min.
    pub timeout: Duration,
    /// The stream from the configured primary to the standby, a UUID; `None` = found by its direction.
    pub stream_id: Option<String>,
    /// What an automatic failover goes to; `None` = the latest consistent time. Any time: whether it lies between what
    /// the standby retains and an hour ahead is the promoter's question, which has a clock.
    pub failover_at: Option<WallTime>,
    /// `replicated_time_refresh`: default 30 s, as the service documents it; 100 ms to 5 min.
    pub refresh: Duration,
}

/// `[service.NAME.cockroach_sql]`: self-hosted clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CockroachSql {
    /// Who logs in to the `system` virtual cluster; default the probe's login. Its user is written somewhere; without a
    /// password a certificate or trust must do.
    pub login: Login,
    /// The replicated virtual cluster, the same name on both sides; default `main`.
    pub virtual_cluster: String,
    /// `STOP SERVICE` on the old primary when it can be reached; default true.
    pub stop_service: bool,
    /// Make the promoted virtual cluster the default target of its cluster; default true.
    pub default_target: bool,
    /// `replicated_time_refresh`: default 30 s; 100 ms to 5 min.
    pub refresh: Duration,
}
