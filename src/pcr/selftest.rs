//! Tests of a set-up that change nothing: can everything be reached and read, and what would a monitor see. Each check
//! says what to do when it does not pass.

use serde::Serialize;

use super::look::{self, Answer, ClusterView, StreamView};
use super::survey::check_ready;
use super::{Direction, Pair, Survey, Which, remedy};
use crate::cockroach_cloud::{self as cloud, Trouble};
use crate::types::BackendName;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub what: String,
    /// It is as it should be.
    pub passed: bool,
    /// What was found.
    pub said: String,
    /// What would be right; empty if it passed.
    pub remedy: String,
}

/// What a monitor sees in one cycle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cycle {
    /// From 1.
    pub cycle: u32,
    /// The active side, by the streams.
    pub active: BackendName,
    /// Primary first.
    pub clusters: Vec<ClusterView>,
    /// Those that are not at an end.
    pub streams: Vec<StreamView>,
    /// Why the streams cannot be read.
    pub trouble: Option<String>,
    /// Failed checks of the active side in a row.
    pub failures: u32,
    /// What a monitor would do now.
    pub would: String,
}

/// Can everything be reached and read?
pub async fn connection(pair: &Pair) -> Vec<Check> {
    let probe = pair.client.cluster(pair.primary.id).await;
    let mut checks = api(probe.as_ref().err());
    if checks.iter().any(|check| !check.passed) {
        return checks;
    }
    let (primary, standby) = tokio::join!(look::cluster(pair, Which::Primary), look::cluster(pair, Which::Standby));
    checks.extend([&primary, &standby].map(readable));
    let survey = look::survey(pair).await;
    checks.push(stream(pair, &survey));
    let survey = survey.ok();
    checks.extend([&primary, &standby].map(|cluster| speaks(pair, survey.as_ref(), cluster)));
    checks
}

/// Whether the API could not even be reached.
pub fn is_unreachable(checks: &[Check]) -> bool {
    checks.first().is_some_and(|check| !check.passed)
}

fn api(error: Option<&cloud::Error>) -> Vec<Check> {
    let (reached, secret) = ("Cloud API reachable", "secret key accepted");
    match error {
        Some(error) if error.is_unreachable() || matches!(error.trouble, Trouble::Unreadable { .. }) => {
            vec![fail(reached, error.to_string(), remedy(error))]
        }
        Some(error) if matches!(error.trouble, Trouble::Failed(_)) => {
            vec![fail(reached, error.to_string(), remedy(error))]
        }
        Some(error) if matches!(error.status(), Some(401 | 429)) => {
            vec![pass(reached, "it answers"), fail(secret, error.to_string(), remedy(error))]
        }
        _ => vec![pass(reached, "it answers"), pass(secret, "it does not refuse it")],
    }
}

fn readable(cluster: &ClusterView) -> Check {
    let what = format!("{} readable", cluster.name);
    match (&cluster.record, &cluster.trouble) {
        (Some(record), _) => {
            let said = format!("{} {}, {}, {}", record.name, record.version, record.state, record.regions.join(", "));
            pass(what, said)
        }
        (None, trouble) => {
            let variable = format!("{}_CLUSTER_ID", cluster.role.to_string().to_uppercase());
            let remedy = format!("check {variable}, and that the service account may read this cluster");
            fail(what, trouble.clone().unwrap_or_default(), remedy)
        }
    }
}

fn stream(pair: &Pair, survey: &Result<Survey, cloud::Error>) -> Check {
    const WHAT: &str = "replication stream found";
    let survey = match survey {
        Ok(survey) => survey,
        Err(error) => return fail(WHAT, error.to_string(), remedy(error)),
    };
    let direction = match survey.active(pair) {
        Which::Primary => Direction::Forward,
        Which::Standby => Direction::Reverse,
    };
    let (from, to) = (&pair.from(direction).name, &pair.to(direction).name);
    match survey.live(pair, direction) {
        Ok(Some(stream)) => match check_ready(stream, survey.date, pair.max_lag) {
            Ok(()) => {
                let lag = survey.lag(stream).map(|lag| format!(", {} s behind", lag.as_secs())).unwrap_or_default();
                pass(WHAT, format!("{} from {from} to {to} is {}{lag}", stream.id, stream.status))
            }
            Err(error) => fail(
                WHAT,
                error.to_string().replace(": nothing was done", ""),
                "wait until it has caught up; `proxyctl status`",
            ),
        },
        Ok(None) => {
            let command = if direction == Direction::Forward { "setup" } else { "failback create-stream" };
            fail(WHAT, format!("no stream leads from {from} to {to}"), format!("create one: `proxyctl {command}`"))
        }
        Err(error) => fail(WHAT, error.to_string(), "end the one that is not needed"),
    }
}

/// The active side must serve; the other one, while a stream leads to it, must not.
fn speaks(pair: &Pair, survey: Option<&Survey>, cluster: &ClusterView) -> Check {
    let what = format!("SQL of {}", cluster.name);
    let Some(sql) = &cluster.sql else {
        let variable = format!("{}_SQL_DNS", cluster.role.to_string().to_uppercase());
        return fail(what, "no address of it is known".to_owned(), format!("set {variable}"));
    };
    let said = match sql.answer {
        Answer::Serving => format!("{} serves", sql.address),
        answer => format!("{} {}: {}", sql.address, answer.words(), sql.said),
    };
    let active = survey.map(|survey| survey.active(pair));
    match (active == Some(cluster.role), sql.answer) {
        (_, Answer::Serving) if active.is_none() => pass(what, said),
        (true, Answer::Serving) => pass(what, said),
        (false, Answer::NotServing) => pass(what, format!("{said}; a standby, as it should be")),
        (false, Answer::Serving) => {
            let direction = if cluster.role == Which::Standby { Direction::Forward } else { Direction::Reverse };
            match survey.and_then(|survey| survey.live(pair, direction).ok().flatten()) {
                Some(_) => fail(what, said, "a stream leads to it, so it should not serve: is this the right address?"),
                None => pass(what, format!("{said}; a cluster of its own, since no stream leads to it")),
            }
        }
        (_, Answer::Refused | Answer::Silent | Answer::Lost) => {
            fail(what, said, "allow this machine in the cluster's IP allow list, and check address and port")
        }
        (_, Answer::Unknown) => fail(what, said, "check the host name, and the TLS settings if it is about those"),
        (true, Answer::NotServing) => fail(what, said, "the active side does not serve: is this its address?"),
        (_, _) => fail(what, said, "look at the cluster in the Cloud Console"),
    }
}

/// One look as a monitor takes it; `failures` counts on.
pub async fn cycle(pair: &Pair, n: u32, failures: &mut u32) -> Cycle {
    let view = look::view(pair).await;
    let active = view.promoted_last.clone().unwrap_or_else(|| pair.primary.name.clone());
    let sql = view.clusters.iter().find(|cluster| cluster.name == active).and_then(|cluster| cluster.sql.as_ref());
    match sql.map(|sql| sql.answer) {
        Some(Answer::Refused | Answer::Silent | Answer::Lost | Answer::NotServing | Answer::Draining) => *failures += 1,
        Some(Answer::Serving) => *failures = 0,
        // Nothing was learned of its health.
        _ => {}
    }
    let would = would(pair, &active, sql.map(|sql| sql.answer), *failures);
    let live =
        view.streams.into_iter().filter(|stream| stream.activated_at.is_none() && stream.status.as_str() != "CANCELED");
    Cycle {
        cycle: n,
        active,
        clusters: view.clusters,
        streams: live.collect(),
        trouble: view.trouble,
        failures: *failures,
        would,
    }
}

fn would(pair: &Pair, active: &BackendName, answer: Option<Answer>, failures: u32) -> String {
    match (answer, failures) {
        (None, _) => format!("nothing: no SQL address of {active} is known, and the API's word on it is no evidence"),
        (Some(Answer::Serving), _) => format!("nothing: {active} serves"),
        (Some(_), 0) => format!("nothing: what {active} answers says nothing of its health"),
        (Some(_), n) if n < pair.fall => format!("wait: {n} of {} failures of {active}", pair.fall),
        (Some(_), n) => {
            format!("{n} failures of {active}: wait FAILOVER_DELAY, look again, and fail over if the stream agrees")
        }
    }
}

fn pass(what: impl Into<String>, said: impl Into<String>) -> Check {
    Check { what: what.into(), passed: true, said: said.into(), remedy: String::new() }
}

fn fail(what: impl Into<String>, said: impl Into<String>, remedy: impl Into<String>) -> Check {
    let remedy: String = remedy.into();
    Check { what: what.into(), passed: false, said: said.into(), remedy: remedy.trim_start_matches("; ").to_owned() }
}
