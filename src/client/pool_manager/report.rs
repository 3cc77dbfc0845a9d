//! What a pool manager tells of itself: health as the seeds' `/health` has it, the state of each server, and metrics.
//! Pure data and text; nothing in it is secret.

use std::fmt::Write as _;

use serde::Serialize;

/// For an application's `/health`: `{"status":"healthy","version":"0.1.0","db_primary":"connected","db_replica":null}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// `healthy` while every configured database serves, else `unhealthy`.
    pub status: &'static str,
    /// Of the application.
    pub version: String,
    /// `connected` or `disconnected`.
    pub db_primary: &'static str,
    /// The same for the replicas, all of them; `None` where none is configured.
    pub db_replica: Option<&'static str>,
}

impl Health {
    pub(super) fn of(version: String, primary: bool, replicas: Option<bool>) -> Self {
        let word = |connected| if connected { "connected" } else { "disconnected" };
        let status = if primary && replicas.unwrap_or(true) { "healthy" } else { "unhealthy" };
        Self { status, version, db_primary: word(primary), db_replica: replicas.map(word) }
    }

    /// 200 or 503.
    pub fn status_code(&self) -> u16 {
        if self.status == "healthy" { 200 } else { 503 }
    }
}

/// Where the whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailoverState {
    /// No server can be reached.
    Unknown,
    /// The primary and every replica serve.
    Healthy,
    /// Some server does not.
    Degraded,
    /// Nobody proves to be the primary, and there is a standby that may become it.
    FailoverInProgress,
    /// Another server than the configured one is the primary.
    FailoverComplete,
    /// The same, and the configured one answers and does not follow it yet.
    RecoveryInProgress,
}

/// What the state follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// Some server answers.
    pub(super) any: bool,
    /// There is a primary, and it answers.
    pub(super) primary: bool,
    /// Every other one serves reads.
    pub(super) replicas: bool,
    /// It is known where writes go.
    pub(super) decided: bool,
    /// The primary is not the configured one.
    pub(super) moved: bool,
    /// The configured primary answers.
    pub(super) home_answers: bool,
}

impl FailoverState {
    pub(super) fn of(facts: Facts) -> Self {
        match facts {
            Facts { any: false, .. } => Self::Unknown,
            Facts { decided: false, .. } => Self::FailoverInProgress,
            Facts { primary: true, replicas: true, .. } => Self::Healthy,
            Facts { primary: true, moved: true, home_answers: true, .. } => Self::RecoveryInProgress,
            Facts { primary: true, moved: true, .. } => Self::FailoverComplete,
            _ => Self::Degraded,
        }
    }

    /// As the metric `failover_state` counts it.
    fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Healthy => 1,
            Self::Degraded => 2,
            Self::FailoverInProgress => 3,
            Self::FailoverComplete => 4,
            Self::RecoveryInProgress => 5,
        }
    }
}

/// What is known of every server, by the last looks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolStatus {
    /// Where the whole stands.
    pub state: FailoverState,
    /// `host:port` where writes go; `None` = nowhere.
    pub primary: Option<String>,
    /// In the order of the configuration, the configured primary first.
    pub servers: Vec<ServerStatus>,
}

/// What is known of one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerStatus {
    /// `host:port`.
    pub server: String,
    /// `primary`, `standby`, `fenced` (a primary whose transactions are read-only), `cockroach`, `unknown`.
    pub role: &'static str,
    /// The last look succeeded.
    pub connected: bool,
    /// `false` after [`unhealthy_after`](super::PoolBuilder::unhealthy_after) failed looks in a row, until one succeeds.
    pub healthy: bool,
    /// Reads may go there: a standby that follows the primary's line, or the primary under another name.
    pub promotion_eligible: bool,
    /// RFC 3339.
    pub last_health_check: Option<String>,
    /// Failed looks in a row.
    pub failure_count: u32,
    /// Milliseconds that the last look took.
    pub response_time: Option<f64>,
    /// RFC 3339.
    pub down_since: Option<String>,
    /// `closed`, `open`, `half-open`.
    pub breaker: &'static str,
    /// It was tried to reconnect often enough; the next query begins anew.
    pub gave_up: bool,
}

/// Numbers since the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolMetrics {
    /// Where the whole stands.
    pub state: FailoverState,
    /// How often the primary changed.
    pub failovers: u64,
    /// How often a server that was down came back.
    pub recoveries: u64,
    /// Looks that failed.
    pub failed_checks: u64,
    /// Reads that went to the primary though there are replicas.
    pub fallbacks: u64,
    /// Reads that were sent a second time.
    pub retries: u64,
    /// In the order of the configuration, the configured primary first.
    pub pools: Vec<PoolMetric>,
}

/// Upper bounds of the buckets, seconds; one more holds the rest.
pub const LATENCY_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How long something took, as Prometheus counts it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many took at most as long as each of [`LATENCY_BUCKETS`].
    pub buckets: [u64; 13],
    /// How many there were.
    pub count: u64,
    /// Seconds, all together.
    pub sum: f64,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolMetric {
    /// `host:port`.
    pub server: String,
    /// As in [`ServerStatus::role`].
    pub role: &'static str,
    /// Writes go there.
    pub primary: bool,
    /// As in [`ServerStatus::healthy`], and it was seen to serve its role.
    pub healthy: bool,
    /// Connections that may be open.
    pub max: u32,
    /// Connections that are open.
    pub size: u32,
    /// Of these, in use.
    pub in_use: u32,
    /// `in_use / max`, 0 to 1.
    pub utilisation: f64,
    /// Statements of [`Route`](super::Route)s that read.
    pub reads: u64,
    /// And that wrote.
    pub writes: u64,
    /// Of both, those that failed, for whatever reason.
    pub errors: u64,
    /// How long they took.
    pub latency: Latency,
    /// Connections that were lent.
    pub lent: u64,
    /// Seconds that was waited for them, all together.
    pub lent_wait: f64,
    /// How often none was free in time.
    pub exhausted: u64,
    /// `closed`, `open`, `half-open`.
    pub breaker: &'static str,
    /// How often the breaker opened.
    pub breaker_openings: u64,
}

impl PoolMetrics {
    /// In Prometheus's text format. The names that begin with `failover_` are those of the daemon's `/metrics`.
    pub fn to_prometheus(&self) -> String {
        let mut page = Page(String::with_capacity(4096));
        page.one(
            "failover_state",
            "gauge",
            "0 unknown, 1 healthy, 2 degraded, 3 in progress, 4 complete, 5 recovery",
            self.state.number(),
        );
        page.one("failover_total", "counter", "Changes of the primary", self.failovers);
        page.one("failover_recoveries_total", "counter", "Servers that were down and came back", self.recoveries);
        page.one("failover_health_check_failures_total", "counter", "Failed checks", self.failed_checks);
        let primary = self.pools.iter().any(|pool| pool.primary && pool.healthy);
        page.one("failover_primary_healthy", "gauge", "Whether there is a primary that answers", u8::from(primary));
        page.head("failover_standby_healthy", "gauge", "Whether each of the other servers serves reads");
        for (standby, pool) in self.pools.iter().filter(|pool| !pool.primary).enumerate() {
            page.line("failover_standby_healthy", &format!("standby=\"{standby}\""), u8::from(pool.healthy));
        }
        page.one(
            "pgpivot_pool_fallbacks_total",
            "counter",
            "Reads that went to the primary though there are replicas",
            self.fallbacks,
        );
        page.one("pgpivot_pool_retries_total", "counter", "Reads that were sent a second time", self.retries);
        page.each(self, "pgpivot_pool_primary", "gauge", "Whether writes go there", |pool| {
            u8::from(pool.primary).into()
        });
        page.each(self, "pgpivot_pool_connections_max", "gauge", "Connections that may be open", |pool| {
            pool.max.into()
        });
        page.each(self, "pgpivot_pool_connections", "gauge", "Connections that are open", |pool| pool.size.into());
        page.each(self, "pgpivot_pool_connections_in_use", "gauge", "Connections in use", |pool| pool.in_use.into());
        page.each(self, "pgpivot_pool_utilisation", "gauge", "Connections in use, of those that may be", |pool| {
            pool.utilisation
        });
        page.head("pgpivot_pool_statements_total", "counter", "Statements");
        for pool in &self.pools {
            page.line("pgpivot_pool_statements_total", &format!("{},intent=\"read\"", label(pool)), pool.reads);
            page.line("pgpivot_pool_statements_total", &format!("{},intent=\"write\"", label(pool)), pool.writes);
        }
        page.each(self, "pgpivot_pool_errors_total", "counter", "Statements that failed", |pool| float(pool.errors));
        page.each(self, "pgpivot_pool_lent_total", "counter", "Connections lent", |pool| float(pool.lent));
        page.each(self, "pgpivot_pool_lent_wait_seconds_total", "counter", "Waited for connections", |pool| {
            pool.lent_wait
        });
        page.each(self, "pgpivot_pool_exhausted_total", "counter", "No connection free in time", |pool| {
            float(pool.exhausted)
        });
        page.each(self, "pgpivot_pool_breaker_open", "gauge", "0 closed, 1 open, 0.5 half-open", |pool| {
            match pool.breaker {
                "closed" => 0.0,
                "open" => 1.0,
                _ => 0.5,
            }
        });
        page.each(self, "pgpivot_pool_breaker_openings_total", "counter", "Openings of the breaker", |pool| {
            float(pool.breaker_openings)
        });
        page.latencies(self);
        page.0
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn each(&mut self, of: &PoolMetrics, name: &str, kind: &str, help: &str, value: impl Fn(&PoolMetric) -> f64) {
        self.head(name, kind, help);
        for pool in &of.pools {
            self.line(name, &label(pool), value(pool));
        }
    }

    fn latencies(&mut self, of: &PoolMetrics) {
        const NAME: &str = "pgpivot_pool_statement_seconds";
        self.head(NAME, "histogram", "How long statements took");
        for pool in &of.pools {
            let (labels, latency) = (label(pool), &pool.latency);
            for (bound, count) in LATENCY_BUCKETS.iter().zip(latency.buckets) {
                self.line(&format!("{NAME}_bucket"), &format!("{labels},le=\"{bound}\""), count);
            }
            self.line(&format!("{NAME}_bucket"), &format!("{labels},le=\"+Inf\""), latency.count);
            self.line(&format!("{NAME}_sum"), &labels, latency.sum);
            self.line(&format!("{NAME}_count"), &labels, latency.count);
        }
    }
}

fn label(pool: &PoolMetric) -> String {
    let name = pool.server.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("server=\"{name}\"")
}

#[allow(clippy::cast_precision_loss, reason = "a count of 2^53 is not reached")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_WELL: Facts =
        Facts { any: true, primary: true, replicas: true, decided: true, moved: false, home_answers: true };

    #[test]
    fn the_state_tells_what_an_operator_would() {
        let cases = [
            (ALL_WELL, FailoverState::Healthy),
            (Facts { moved: true, ..ALL_WELL }, FailoverState::Healthy),
            (Facts { replicas: false, ..ALL_WELL }, FailoverState::Degraded),
            (Facts { primary: false, ..ALL_WELL }, FailoverState::Degraded),
            (Facts { primary: false, decided: false, ..ALL_WELL }, FailoverState::FailoverInProgress),
            (Facts { moved: true, replicas: false, home_answers: false, ..ALL_WELL }, FailoverState::FailoverComplete),
            (Facts { moved: true, replicas: false, ..ALL_WELL }, FailoverState::RecoveryInProgress),
            (Facts { any: false, primary: false, ..ALL_WELL }, FailoverState::Unknown),
        ];
        for (facts, state) in cases {
            assert_eq!(FailoverState::of(facts), state, "{facts:?}");
        }
    }

    #[test]
    fn health_reads_as_applications_show_it_and_says_503_when_a_database_is_down() {
        let json = |health: &Health| serde_json::to_string(health).unwrap();
        let alone = Health::of("0.1.0".into(), true, None);
        assert_eq!(
            json(&alone),
            r#"{"status":"healthy","version":"0.1.0","db_primary":"connected","db_replica":null}"#
        );
        let lost = Health::of("0.1.0".into(), true, Some(false));
        assert_eq!((alone.status_code(), lost.status_code()), (200, 503));
        assert_eq!(
            json(&lost),
            r#"{"status":"unhealthy","version":"0.1.0","db_primary":"connected","db_replica":"disconnected"}"#
        );
    }

    #[test]
    fn the_metrics_are_what_prometheus_reads() {
        let pool = |server: &str, primary| PoolMetric {
            server: server.into(),
            role: "primary",
            primary,
            healthy: true,
            max: 10,
            size: 4,
            in_use: 3,
            utilisation: 0.3,
            reads: 5,
            writes: 2,
            errors: 1,
            latency: Latency { buckets: [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7], count: 7, sum: 0.5 },
            lent: 7,
            lent_wait: 0.25,
            exhausted: 0,
            breaker: "half-open",
            breaker_openings: 2,
        };
        let pools = vec![pool("db1:5432", true), pool("/run/\"x\":5432", false)];
        let (failovers, recoveries, failed_checks, fallbacks, retries) = (1, 2, 3, 4, 5);
        let state = FailoverState::Degraded;
        let text =
            PoolMetrics { state, failovers, recoveries, failed_checks, fallbacks, retries, pools }.to_prometheus();
        for line in [
            "failover_state 2",
            "failover_primary_healthy 1",
            "failover_standby_healthy{standby=\"0\"} 1",
            "pgpivot_pool_utilisation{server=\"db1:5432\"} 0.3",
            "pgpivot_pool_connections_in_use{server=\"/run/\\\"x\\\":5432\"} 3",
            "pgpivot_pool_statements_total{server=\"db1:5432\",intent=\"write\"} 2",
            "pgpivot_pool_statement_seconds_bucket{server=\"db1:5432\",le=\"0.0025\"} 1",
            "pgpivot_pool_statement_seconds_bucket{server=\"db1:5432\",le=\"+Inf\"} 7",
            "pgpivot_pool_breaker_open{server=\"db1:5432\"} 0.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let heads = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        let names: std::collections::HashSet<_> =
            text.lines().filter(|line| line.starts_with("# TYPE")).map(|line| line.split(' ').nth(2)).collect();
        assert_eq!(heads, names.len(), "each name has one head");
    }
}
