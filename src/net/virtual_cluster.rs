//! Virtual clusters of a self-hosted CockroachDB as their `system` one tells and takes it: the statements, and the answers
//! read by the names of their columns. Pure; sessions are `session`'s, judging is `probe`'s and `promote`'s.

use crate::net::session::Table;
use crate::types::WallTime;

/// Startup parameters of a session on the virtual cluster that steers the others.
pub const ON_SYSTEM: &[(&str, &str)] = &[("options", "-ccluster=system")];
/// The cluster's own clock, in nanoseconds since 1970 with a logical part behind the point.
pub const CLOCK: &str = "SELECT cluster_logical_timestamp()";
/// The jobs that replicate into virtual clusters of this cluster, newest first. A login without VIEWJOB sees its own.
pub const JOBS: &str = "SELECT * FROM [SHOW JOBS] WHERE job_type = 'REPLICATION STREAM INGESTION' \
                        ORDER BY created DESC LIMIT 20";

/// What replication shows of a virtual cluster.
pub fn show_replication(name: &str) -> String {
    format!("SHOW VIRTUAL CLUSTER {} WITH REPLICATION STATUS", quoted(name))
}

/// Its state and whether it is served.
pub fn show(name: &str) -> String {
    format!("SHOW VIRTUAL CLUSTER {}", quoted(name))
}

/// Fails it over to `at`, or to the latest replicated time. The work itself goes on behind the answer.
pub fn complete_replication(name: &str, at: Option<WallTime>) -> String {
    let to = at.map_or_else(|| "LATEST".to_owned(), |at| format!("SYSTEM TIME '{}000.0000000000'", at.0));
    format!("ALTER VIRTUAL CLUSTER {} COMPLETE REPLICATION TO {to}", quoted(name))
}

/// Serves it to clients.
pub fn start_service(name: &str) -> String {
    format!("ALTER VIRTUAL CLUSTER {} START SERVICE SHARED", quoted(name))
}

/// Serves it to nobody: its sessions end.
pub fn stop_service(name: &str) -> String {
    format!("ALTER VIRTUAL CLUSTER {} STOP SERVICE", quoted(name))
}

/// Clients that name no virtual cluster get this one. In no transaction, and in no query with others.
pub fn set_default_target(name: &str) -> String {
    format!("SET CLUSTER SETTING server.controller.default_target_cluster = '{}'", name.replace('\'', "''"))
}

/// Startup parameters of a session on a virtual cluster of that name.
pub fn option(name: &str) -> String {
    format!("-ccluster={name}")
}

/// What an administrator types so that a login may do all of this.
pub fn grant(user: &str) -> String {
    format!("GRANT SYSTEM MANAGEVIRTUALCLUSTER, REPLICATIONDEST, VIEWJOB TO {}", quoted(user))
}

/// An identifier, with whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where a virtual cluster stands, in the server's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// `initializing replication`: the first scan, nothing usable yet.
    Initializing,
    /// `replicating`.
    Replicating,
    /// `replication paused`.
    Paused,
    /// `replication pending failover`: asked for, not begun.
    Pending,
    /// `replication failing over`: cannot be changed any more.
    FailingOver,
    /// `replication error`.
    Error,
    /// `ready`: a cluster of its own, served or not.
    Ready,
    /// A word that this version does not know.
    Other(String),
}

/// A virtual cluster's replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// Where it stands.
    pub state: State,
    /// The earliest time that it could be failed over to.
    pub retained: Option<WallTime>,
    /// Up to when everything is there.
    pub replicated: Option<WallTime>,
    /// What it is failed over to, if that was asked for.
    pub failover: Option<WallTime>,
}

/// A virtual cluster and its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Where it stands.
    pub state: State,
    /// `none`, `shared`, or another word.
    pub mode: String,
}

/// One job that replicates into a virtual cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: String,
    /// The virtual cluster it writes to, if it says so.
    pub cluster: Option<String>,
    /// How it goes.
    pub status: JobStatus,
    /// When it was made.
    pub created: Option<WallTime>,
    /// When it ended.
    pub finished: Option<WallTime>,
    /// What it complains of.
    pub error: Option<String>,
}

/// How a job goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// Also when it waits, is paused, or a word is not known.
    Going,
    /// Over, well.
    Succeeded,
    /// Over, or on the way there, and not well.
    Failed,
}

/// An answer that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer to {asked} has no {missing}")]
pub struct Unreadable {
    /// The statement.
    pub asked: &'static str,
    /// The column, or the value in it.
    pub missing: &'static str,
}

/// Reads the answer to [`show_replication`].
pub fn replication(table: &Table) -> Result<Replication, Unreadable> {
    const ASKED: &str = "SHOW VIRTUAL CLUSTER WITH REPLICATION STATUS";
    let missing = |missing| Unreadable { asked: ASKED, missing };
    // Before v23.2 the same word stood in data_state.
    let column = if table.has("status") { "status" } else { "data_state" };
    let state = first(table, column).ok_or_else(|| missing("status"))?;
    let at = |column: &'static str| match first(table, column).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => time(text).map(Some).ok_or_else(|| missing(column)),
    };
    let failover = if table.has("failover_time") { "failover_time" } else { "cutover_time" };
    Ok(Replication {
        state: state.into(),
        retained: at("retained_time")?,
        replicated: at("replicated_time")?,
        failover: at(failover)?,
    })
}

/// Reads the answer to [`show`].
pub fn service(table: &Table) -> Result<Service, Unreadable> {
    let missing = |missing| Unreadable { asked: "SHOW VIRTUAL CLUSTER", missing };
    let state = first(table, "data_state").ok_or_else(|| missing("data_state"))?;
    let mode = first(table, "service_mode").ok_or_else(|| missing("service_mode"))?;
    Ok(Service { state: state.into(), mode: mode.to_owned() })
}

/// Reads the answer to [`JOBS`]: the newest one that writes to this virtual cluster; one that does not say to which is
/// taken for one.
pub fn newest_job(table: &Table, name: &str) -> Result<Option<Job>, Unreadable> {
    let missing = |missing| Unreadable { asked: "SHOW JOBS", missing };
    for column in ["job_id", "status", "created"] {
        if !table.has(column) {
            return Err(missing(column));
        }
    }
    let mut columns =
        ["job_id", "status", "created", "finished", "error", "description"].map(|name| table.column(name));
    let mut newest: Option<Job> = None;
    for _ in &table.rows {
        let [id, status, created, finished, error, description] =
            columns.each_mut().map(|column| column.next().flatten().filter(|text| !text.is_empty()));
        let job = Job {
            id: id.ok_or_else(|| missing("job_id"))?.to_owned(),
            cluster: description.and_then(written_to),
            status: status.ok_or_else(|| missing("status"))?.into(),
            created: created.and_then(time),
            finished: finished.and_then(time),
            error: error.map(str::to_owned),
        };
        let ours = job.cluster.as_deref().is_none_or(|cluster| cluster == name);
        if ours && newest.as_ref().is_none_or(|newest| newest.created < job.created) {
            newest = Some(job);
        }
    }
    Ok(newest)
}

/// A hybrid timestamp, `1713435000000000000.0000000000`: the cluster's decimal for a time.
pub fn hybrid_time(text: &str) -> Option<WallTime> {
    let nanos: i64 = text.split('.').next()?.parse().ok()?;
    (nanos > 0).then_some(WallTime(nanos / 1000))
}

/// A time as an answer spells it: hybrid, with an offset, or in UTC without one.
fn time(text: &str) -> Option<WallTime> {
    let zoned = |text: &str| text.parse::<jiff::Timestamp>().ok().map(|at| WallTime(at.as_microsecond()));
    hybrid_time(text).or_else(|| zoned(text)).or_else(|| zoned(&format!("{text}Z")))
}

fn first<'a>(table: &'a Table, column: &str) -> Option<&'a str> {
    table.column(column).next().flatten()
}

/// Whom a job's statement names: `CREATE VIRTUAL CLUSTER x FROM …`, `ALTER VIRTUAL CLUSTER "x" START …`.
fn written_to(description: &str) -> Option<String> {
    let upper = description.to_ascii_uppercase();
    let (at, word) = ["VIRTUAL CLUSTER ", "TENANT "].iter().find_map(|word| Some((upper.find(word)?, word)))?;
    let rest = description.get(at + word.len()..)?.trim_start();
    let rest = match rest.get(..14) {
        Some(head) if head.eq_ignore_ascii_case("IF NOT EXISTS ") => rest[14..].trim_start(),
        _ => rest,
    };
    let name = match rest.strip_prefix(['"', '\'']) {
        Some(inner) => inner.split(['"', '\'']).next(),
        None => rest.split_whitespace().next(),
    };
    name.filter(|name| !name.is_empty()).map(str::to_owned)
}

impl From<&str> for State {
    fn from(word: &str) -> Self {
        match word {
            "initializing replication" => Self::Initializing,
            "replicating" => Self::Replicating,
            "replication paused" => Self::Paused,
            "replication pending failover" | "replication pending cutover" => Self::Pending,
            "replication failing over" | "replication cutting over" => Self::FailingOver,
            "replication error" => Self::Error,
            "ready" => Self::Ready,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Initializing => "initializing replication",
            Self::Replicating => "replicating",
            Self::Paused => "replication paused",
            Self::Pending => "replication pending failover",
            Self::FailingOver => "replication failing over",
            Self::Error => "replication error",
            Self::Ready => "ready",
            Self::Other(word) => word,
        })
    }
}

impl From<&str> for JobStatus {
    fn from(word: &str) -> Self {
        match word {
            "succeeded" => Self::Succeeded,
            "failed" | "canceled" | "cancel-requested" | "reverting" | "revert-failed" => Self::Failed,
            _ => Self::Going,
        }
    }
}

impl Service {
    /// Nobody is served: `false` while it is being stopped.
    pub fn is_stopped(&self) -> bool {
        self.mode == "none"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str], rows: &[&[Option<&str>]]) -> Table {
        let row = |row: &&[Option<&str>]| row.iter().map(|value| value.map(str::to_owned)).collect();
        Table { columns: columns.iter().map(|&name| name.to_owned()).collect(), rows: rows.iter().map(row).collect() }
    }

    #[test]
    fn a_name_with_anything_in_it_stays_one_name() {
        assert_eq!(show("app-2"), "SHOW VIRTUAL CLUSTER \"app-2\"");
        let nasty = "m\"; DROP VIRTUAL CLUSTER x; --'";
        assert_eq!(stop_service(nasty), "ALTER VIRTUAL CLUSTER \"m\"\"; DROP VIRTUAL CLUSTER x; --'\" STOP SERVICE");
        assert!(set_default_target(nasty).ends_with("= 'm\"; DROP VIRTUAL CLUSTER x; --'''"));
        assert!(grant("it's \"me\"").ends_with("TO \"it's \"\"me\"\"\""));
    }

    #[test]
    fn a_moment_to_fail_over_to_is_written_as_the_clusters_clock_has_it_and_read_back() {
        let at = WallTime(1_713_435_000_123_456);
        let sql = complete_replication("main", Some(at));
        let written = sql.split('\'').nth(1).unwrap();
        assert_eq!(written, "1713435000123456000.0000000000");
        assert_eq!(hybrid_time(written), Some(at));
        assert!(complete_replication("main", None).ends_with("\"main\" COMPLETE REPLICATION TO LATEST"));
        for garbage in ["", "now", "-5.0", "0"] {
            assert_eq!(hybrid_time(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn columns_are_found_by_their_names_wherever_a_version_puts_them() {
        let shown = table(
            &["status", "new_column", "failover_time", "replicated_time", "retained_time"],
            &[&[
                Some("replication pending failover"),
                Some("x"),
                Some("1700000000000000000.0000000001"),
                Some("2023-11-14 22:13:19.5+00"),
                Some("2023-11-14 18:13:20"),
            ]],
        );
        let expected = Replication {
            state: State::Pending,
            retained: Some(WallTime(1_699_985_600_000_000)),
            replicated: Some(WallTime(1_699_999_999_500_000)),
            failover: Some(WallTime(1_700_000_000_000_000)),
        };
        assert_eq!(replication(&shown), Ok(expected));
        let older = table(&["data_state", "cutover_time"], &[&[Some("replicating"), None]]);
        assert_eq!(replication(&older).unwrap().state, State::Replicating);
        let wrong = table(&["status", "replicated_time"], &[&[Some("replicating"), Some("soon")]]);
        assert_eq!(
            replication(&wrong).unwrap_err().to_string(),
            "the answer to SHOW VIRTUAL CLUSTER WITH REPLICATION STATUS has no replicated_time"
        );
        assert!(replication(&table(&["status"], &[])).is_err(), "no row");
    }

    #[test]
    fn every_state_is_read_as_it_is_written() {
        for word in [
            "initializing replication",
            "replicating",
            "replication paused",
            "replication pending failover",
            "replication failing over",
            "replication error",
            "ready",
            "a word of tomorrow",
        ] {
            assert_eq!(State::from(word).to_string(), word);
        }
        let shown =
            table(&["id", "name", "data_state", "service_mode"], &[&[None, None, Some("ready"), Some("stopping")]]);
        assert!(!service(&shown).unwrap().is_stopped(), "until nobody is served");
    }

    #[test]
    fn the_newest_job_of_this_virtual_cluster_counts_in_whatever_order_they_are_shown() {
        let columns = ["job_id", "description", "status", "created", "finished", "error"];
        let job = |id, description, status, created, finished| {
            [Some(id), Some(description), Some(status), Some(created), finished, Some("")]
        };
        let (ours, theirs) =
            ("CREATE VIRTUAL CLUSTER \"main\" FROM REPLICATION OF main", "ALTER VIRTUAL CLUSTER app START");
        let rows = [
            job("7", ours, "succeeded", "2026-01-02 00:00:00+00", Some("2026-01-03 00:00:00+00")),
            job("9", theirs, "running", "2026-02-01 00:00:00+00", None),
            job("8", ours, "running", "2026-01-31 00:00:00+00", None),
        ];
        let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
        let shown = table(&columns, &rows);
        let newest = newest_job(&shown, "main").unwrap().unwrap();
        assert_eq!((newest.id.as_str(), newest.status, newest.error), ("8", JobStatus::Going, None));
        assert_eq!(newest_job(&shown, "app").unwrap().unwrap().id, "9");
        assert_eq!(newest_job(&shown, "other"), Ok(None));
        assert_eq!(newest_job(&table(&["job_id"], &[]), "main").unwrap_err().missing, "status");
        let finished = newest_job(&table(&columns, &rows[..1]), "main").unwrap().unwrap();
        assert_eq!((finished.status, finished.finished), (JobStatus::Succeeded, Some(WallTime(1_767_398_400_000_000))));
        assert_eq!(written_to("CREATE VIRTUAL CLUSTER IF NOT EXISTS x FROM"), Some("x".into()));
    }
}
