//! `status` without a daemon, and `failback status`: both clusters, the streams between them, and what to type next.

use std::fmt::Write as _;

use serde_json::json;

use super::{Desk, failback, find_daemon, says_nothing};
use crate::cockroach_cloud::model::{ClusterState, StreamStatus};
use crate::config::source;
use crate::ctl::api::ApiError;
use crate::ctl::args::Global;
use crate::ctl::render::{Paint, plain, table};
use crate::ctl::target::{self, Environment};
use crate::ctl::terminal::Terminal;
use crate::ctl::{CtlError, Done, Misuse};
use crate::pcr::look::{self, Answer, ClusterView, PairView, StreamView};
use crate::pcr::survey::Standing;
use crate::pcr::{Error, Pair, Which};
use crate::view::Level;

/// Columns of the labels.
const LABEL: usize = 14;

/// What `status` shows where no daemon answers. `error`: how it did not.
pub(in crate::ctl) async fn without_daemon(
    error: ApiError,
    global: &Global,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<Done, CtlError> {
    if error.refused() || target::is_named(global, environment) {
        return Err(error.into());
    }
    let config = match source::load(global.config.as_deref()) {
        Ok(loaded) => loaded.config,
        Err(problems) if global.config.is_none() && says_nothing(&problems) => return Err(error.into()),
        Err(problems) => return Err(Misuse::from(problems).into()),
    };
    let mut pair = match Pair::build(&config, global.service.as_deref()) {
        Ok(pair) => pair,
        // Other services have a daemon or nothing.
        Err(Error::NotCloud(_) | Error::SelfHosted(_)) => return Err(error.into()),
        Err(other) => return Err(other.into()),
    };
    if let Some(daemon) = find_daemon(&mut pair, &config, global, environment, terminal).await? {
        // It listens where the configuration says.
        return crate::ctl::commands::show_status(&daemon.api, terminal, global.service.as_deref()).await;
    }
    terminal.talk("no daemon runs here; this is what the Cloud API and SQL say")?;
    let view = look::view(&pair).await;
    match terminal.json {
        true => terminal.result_json(&view)?,
        false => terminal.result(&render(&view, terminal.paint))?,
    }
    let nothing = view.trouble.is_some() && view.clusters.iter().all(|cluster| cluster.record.is_none());
    Ok(if nothing { Done::Misuse } else { Done::Yes })
}

/// `failback status`.
pub(super) async fn failback(desk: &Desk<'_>) -> Result<Done, CtlError> {
    let survey = failback::survey(desk).await?;
    let active = desk.active(&survey)?;
    let standing = survey.standing(&desk.pair, active)?;
    let forward = survey.live(&desk.pair, crate::pcr::Direction::Forward)?.is_some();
    let (word, sentence, next) = words(desk, &standing, forward);
    let streams = look::stream_views(&desk.pair, &survey);
    if desk.terminal.json {
        let active = &desk.pair.side(active).name;
        let all = json!({ "standing": word, "sentence": sentence, "next": next, "active": active, "streams": streams });
        desk.terminal.result_json(&all)?;
        return Ok(Done::Yes);
    }
    let mut out = String::new();
    let paint = desk.terminal.paint;
    paint.labelled(&mut out, LABEL, "failback", str::to_owned, &sentence);
    paint.labelled(&mut out, LABEL, "next", |line| paint.strong(line), next.unwrap_or("nothing"));
    if !streams.is_empty() {
        out.push('\n');
        out.push_str(&stream_table(&streams, paint));
    }
    desk.terminal.result(&out)?;
    Ok(Done::Yes)
}

/// The word for machines, the sentence for people, the next command.
fn words(desk: &Desk<'_>, standing: &Standing, forward: bool) -> (&'static str, String, Option<&'static str>) {
    let (home, other) = (&desk.pair.primary.name, &desk.pair.standby.name);
    let most = desk.pair.max_lag;
    match standing {
        Standing::AtHome if forward => {
            ("at_home", format!("{home} is active and replicated to {other}: there is nothing to fail back"), None)
        }
        Standing::AtHome => {
            ("at_home", format!("{home} is active, and nothing replicates it to {other}"), Some("proxyctl setup"))
        }
        Standing::Away => (
            "away",
            format!("{other} is active, and no stream leads home to {home}; a new one erases what is on {home}"),
            Some("proxyctl failback create-stream"),
        ),
        Standing::Starting(stream) => (
            "starting",
            format!("stream {} from {other} to {home} is {}, its first copy is not complete", stream.id, stream.status),
            Some("proxyctl failback create-stream (goes on waiting)"),
        ),
        Standing::Replicating(stream, lag) => {
            let behind = lag.map(|lag| format!(", {} s behind", lag.as_secs())).unwrap_or_default();
            let sentence = format!("stream {} replicates {other} to {home}{behind}", stream.id);
            match lag {
                Some(lag) if *lag > most => (
                    "behind",
                    format!("{sentence}: more than max_lag allows ({} s)", most.as_secs()),
                    Some("proxyctl failback status (until it has caught up)"),
                ),
                _ => ("ready", sentence, Some("proxyctl failback initiate")),
            }
        }
        Standing::FailingOver(stream) => (
            "failing_over",
            format!("stream {} home to {home} is being failed over", stream.id),
            Some("proxyctl failback initiate (goes on waiting)"),
        ),
        Standing::Completed(stream) => (
            "completed",
            format!("stream {} home to {home} has completed, but the daemon still sends clients to {other}", stream.id),
            Some("proxyctl failback initiate"),
        ),
    }
}

/// The whole view.
pub(super) fn render(view: &PairView, paint: Paint) -> String {
    let mut out = String::new();
    // Formatting into a String cannot fail.
    let _ = writeln!(out, "{}  cockroach  no daemon", paint.strong(view.service.as_str()));
    if let Some(active) = &view.promoted_last {
        let any = |wanted: &dyn Fn(&StreamView) -> bool| view.streams.iter().any(wanted);
        let why = match () {
            _ if any(&|stream| stream.from == *active && is_under_way(&stream.status)) => {
                format!("{active}: a stream leads from it; nobody leads clients there without a daemon")
            }
            _ if any(&|stream| stream.status == StreamStatus::Completed) => {
                format!("{active}: it was promoted last; nobody leads clients there without a daemon")
            }
            _ => format!("{active}: no stream was ever failed over; nobody leads clients without a daemon"),
        };
        paint.labelled(&mut out, LABEL, "  active", str::to_owned, &why);
    }
    for (label, trouble) in troubles(view) {
        paint.labelled(&mut out, LABEL, &label, |line| paint.level(Level::Bad, line), trouble);
    }
    out.push('\n');
    out.push_str(&cluster_table(&view.clusters, paint));
    for cluster in &view.clusters {
        let Some(sql) = &cluster.sql else { continue };
        if !matches!(sql.answer, Answer::Serving | Answer::NotServing) {
            let said = format!("{}: {}", sql.address, sql.said);
            paint.labelled(&mut out, LABEL, &format!("  {}", cluster.name), |line| paint.faint(line), &said);
        }
    }
    out.push('\n');
    match view.streams.as_slice() {
        [] if view.trouble.is_some() => {}
        [] => paint.labelled(&mut out, LABEL, "  streams", str::to_owned, "none: `proxyctl setup` creates one"),
        streams => out.push_str(&stream_table(streams, paint)),
    }
    out
}

fn is_under_way(status: &StreamStatus) -> bool {
    matches!(status, StreamStatus::Starting | StreamStatus::Replicating | StreamStatus::FailingOver)
}

fn troubles(view: &PairView) -> Vec<(String, &str)> {
    let clusters = view.clusters.iter().filter_map(|c| Some((format!("  {}", c.name), c.trouble.as_deref()?)));
    let streams = view.trouble.as_deref().map(|trouble| ("  streams".to_owned(), trouble));
    clusters.chain(streams).collect()
}

fn cluster_table(clusters: &[ClusterView], paint: Paint) -> String {
    let rows: Vec<Vec<(String, Option<Level>)>> = clusters
        .iter()
        .map(|cluster| {
            let record = cluster.record.as_ref();
            let of = |text: Option<String>| (text.unwrap_or_else(|| "-".to_owned()), None);
            let state = record.map(|record| match record.operation.is_running() {
                true => format!("{} {}", record.state, record.operation),
                false => record.state.to_string(),
            });
            let level =
                record.map(|record| if record.state == ClusterState::Created { Level::Ok } else { Level::Warn });
            vec![
                (format!("  {}", cluster.name), None),
                of(record.map(|record| record.name.clone())),
                (state.unwrap_or_else(|| "unread".to_owned()), level.or(Some(Level::Bad))),
                of(record.map(|record| record.version.clone())),
                of(record.map(|record| record.regions.join(", "))),
                sql_cell(cluster),
            ]
        })
        .collect();
    table(paint, &["  BACKEND", "CLUSTER", "API", "VERSION", "REGIONS", "SQL"], &rows)
}

fn sql_cell(cluster: &ClusterView) -> (String, Option<Level>) {
    match &cluster.sql {
        None => ("no address known".to_owned(), Some(Level::Warn)),
        Some(sql) => {
            let level = match (sql.answer, cluster.role) {
                (Answer::Serving, _) => Level::Ok,
                (Answer::NotServing, Which::Standby) => Level::Ok,
                (Answer::Refused | Answer::Silent | Answer::Lost, _) => Level::Bad,
                _ => Level::Warn,
            };
            (sql.answer.words().to_owned(), Some(level))
        }
    }
}

pub(super) fn stream_table(streams: &[StreamView], paint: Paint) -> String {
    let rows: Vec<Vec<(String, Option<Level>)>> = streams
        .iter()
        .map(|stream| {
            let level = match stream.status {
                StreamStatus::Replicating if stream.replicated_time.is_some() => Some(Level::Ok),
                StreamStatus::Completed | StreamStatus::Canceled => None,
                _ => Some(Level::Warn),
            };
            let lag = match (&stream.status, stream.lag_seconds) {
                (_, Some(lag)) => format!("{lag} s"),
                (StreamStatus::Replicating, None) => "first scan".to_owned(),
                _ => "-".to_owned(),
            };
            vec![
                (format!("  {}", stream.from), None),
                (stream.to.to_string(), None),
                (plain(&stream.status.to_string()), level),
                (lag, None),
                (stream.id.clone(), None),
            ]
        })
        .collect();
    table(paint, &["  FROM", "TO", "STREAM", "LAG", "ID"], &rows)
}
