//! `failback`: each step looks at what is there first, so that any of them may be interrupted and run again. Traffic goes
//! home through the daemon; without one its words say what that means.

use std::time::{Duration, Instant};

use serde_json::json;

use super::meter::Meter;
use super::setup::{self, Ensured};
use super::{Daemon, Desk, full, plan, status};
use crate::cockroach_cloud::model::ReplicationStream;
use crate::ctl::act::{self, Order};
use crate::ctl::api::ApiError;
use crate::ctl::args::Global;
use crate::ctl::args::pcr::Failback;
use crate::ctl::{CtlError, Done};
use crate::failover::action::{Command as Ordered, Receipt};
use crate::pcr::survey::{Standing, check_ready};
use crate::pcr::wait::Until;
use crate::pcr::{Direction, Error, Progress, Survey, Which, failback, look};

pub(super) async fn run(desk: &Desk<'_>, action: &Failback) -> Result<Done, CtlError> {
    match action {
        Failback::Full { forward, dry_run } => full::run(desk, *forward, *dry_run).await,
        Failback::CreateStream { dry_run } => create_stream(desk, *dry_run).await,
        Failback::Initiate { dry_run } => initiate(desk, *dry_run).await,
        Failback::Status => status::failback(desk).await,
    }
}

async fn create_stream(desk: &Desk<'_>, dry_run: bool) -> Result<Done, CtlError> {
    let (stream, outcome) = match setup::ensure(desk, Direction::Reverse, dry_run).await? {
        Ensured::There(stream, outcome) => (stream, outcome),
        Ensured::Ended(done) => return Ok(done),
    };
    let Some(stream) = desk.wait(stream.id, Until::Copied).await? else { return Ok(Done::No) };
    setup::say_replicates(desk, &stream, Direction::Reverse, outcome)?;
    Ok(Done::Yes)
}

async fn initiate(desk: &Desk<'_>, dry_run: bool) -> Result<Done, CtlError> {
    if let Some(daemon) = &desk.daemon {
        until_seen(desk, daemon).await?;
        let order =
            Order { command: Ordered::Restore { to: Some(desk.pair.primary.name.clone()), force: false }, dry_run };
        let service = Some(desk.pair.service.to_string());
        let global = Global { timeout: Some(desk.patience()), service, ..desk.global.clone() };
        return act::run(&daemon.api, desk.terminal, &global, &order).await;
    }
    let survey = survey(desk).await?;
    match survey.standing(&desk.pair, desk.active(&survey)?)? {
        Standing::AtHome if came_home(desk, &survey) => home(desk, &survey, "done"),
        Standing::AtHome => Err(Error::AtHome(desk.pair.primary.name.clone()).into()),
        Standing::Away | Standing::Completed(_) => Err(no_stream(desk).into()),
        Standing::FailingOver(stream) => {
            if let Some(done) = under_way(desk, &stream, dry_run)? {
                return Ok(done);
            }
            complete(desk, &stream).await
        }
        Standing::Starting(stream) | Standing::Replicating(stream, _) => {
            check_ready(&stream, survey.date, desk.pair.max_lag)?;
            if let Some(done) = desk.propose(&losing(desk, &survey, &stream), dry_run)? {
                return Ok(done);
            }
            let stream = failback::fail_over(&desk.pair, stream.id, desk.aim(), None).await?;
            complete(desk, &stream).await
        }
    }
}

/// Refusals that pass as soon as a daemon has read of a stream that was made a moment ago.
const NOT_SEEN_YET: [&str; 5] = ["no_reverse_stream", "still_starting", "unfit", "not_serving", "not_healthy"];
/// How long a daemon is given for that, and how often it is asked.
const SEEN_WITHIN: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(500);

/// Where the API shows a stream home that is ready, waits until the daemon would restore; its word counts in the end.
pub(super) async fn until_seen(desk: &Desk<'_>, daemon: &Daemon) -> Result<(), CtlError> {
    let ready = match survey(desk).await {
        Ok(survey) => matches!(
            survey.standing(&desk.pair, Which::Standby),
            Ok(Standing::Replicating(..) | Standing::Completed(_))
        ),
        // The daemon may know more.
        Err(_) => false,
    };
    let began = Instant::now();
    let mut meter = Meter::new(desk.terminal);
    while ready && began.elapsed() < SEEN_WITHIN {
        let body = json!({ "to": desk.pair.primary.name, "force": false });
        match daemon.api.command(Some(&desk.pair.service), "restore", &body, true).await {
            Err(ApiError::Refused(problem)) if NOT_SEEN_YET.iter().any(|word| problem.kind.ends_with(word)) => {
                let sentence = format!("the daemon is not ready yet: {}", problem.detail);
                meter.show(&Progress { done: 0, of: 1, sentence });
            }
            _ => return Ok(()),
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

pub(super) async fn survey(desk: &Desk<'_>) -> Result<Survey, Error> {
    look::survey(&desk.pair).await.map_err(Error::from)
}

/// Whether home is active because a stream home completed, as opposed to never having been left.
pub(super) fn came_home(desk: &Desk<'_>, survey: &Survey) -> bool {
    survey.newest_completed().is_some_and(|stream| desk.pair.direction(stream) == Some(Direction::Reverse))
}

/// Waits for the end of a failover without a daemon, and says what to do then.
async fn complete(desk: &Desk<'_>, stream: &ReplicationStream) -> Result<Done, CtlError> {
    let Some(_) = desk.wait(stream.id, Until::Completed).await? else { return Ok(Done::No) };
    home(desk, &survey(desk).await?, "done")
}

/// The last word when home is a cluster of its own again.
fn home(desk: &Desk<'_>, survey: &Survey, outcome: &str) -> Result<Done, CtlError> {
    desk.say(&at_home(desk, survey), json!({ "outcome": outcome, "stream": survey.newest_completed() }))?;
    Ok(Done::Yes)
}

/// What the completed stream home means, and the next command.
pub(super) fn at_home(desk: &Desk<'_>, survey: &Survey) -> String {
    let (home, other) = (&desk.pair.primary, &desk.pair.standby.name);
    let completed = survey.newest_completed();
    let id = completed.map(|stream| stream.id.to_string()).unwrap_or_default();
    let as_of = completed.and_then(|stream| stream.activated_at).map(|at| format!(" as of {at}")).unwrap_or_default();
    let traffic = match (&desk.daemon, home.addresses.first()) {
        (Some(_), _) => "the daemon sends clients there".to_owned(),
        (None, Some(address)) => format!("send the applications to {address} now"),
        (None, None) => "send the applications there now".to_owned(),
    };
    let lost = match desk.daemon {
        Some(_) => String::new(),
        None => format!(" What was written to {other} after that is not on it."),
    };
    format!(
        "{0} is a cluster of its own{as_of} (stream {id}); {traffic}.{lost} `proxyctl setup` replicates {0} to {other} again \
         (that erases {other})",
        home.name
    )
}

fn no_stream(desk: &Desk<'_>) -> Error {
    Error::NoStream {
        from: desk.pair.standby.name.clone(),
        to: desk.pair.primary.name.clone(),
        remedy: "`proxyctl failback create-stream` makes one (that erases the latter)",
    }
}

fn under_way(desk: &Desk<'_>, stream: &ReplicationStream, dry_run: bool) -> Result<Option<Done>, CtlError> {
    let sentence = format!("stream {} is being failed over already", stream.id);
    if dry_run {
        return desk.propose(&plan(sentence, vec!["wait until it has completed".to_owned()]), true);
    }
    desk.terminal.talk(&format!("{sentence}: waiting for its end"))?;
    Ok(None)
}

/// What a failback without a daemon does, and what it loses.
fn losing(desk: &Desk<'_>, survey: &Survey, stream: &ReplicationStream) -> Receipt {
    plan(
        format!("failing back from {} to {} without a daemon", desk.pair.standby.name, desk.pair.primary.name),
        losing_steps(desk, survey, stream),
    )
}

pub(super) fn losing_steps(desk: &Desk<'_>, survey: &Survey, stream: &ReplicationStream) -> Vec<String> {
    let (home, other) = (&desk.pair.primary.name, &desk.pair.standby.name);
    let lag = survey.lag(stream).map(|lag| format!(", now {} s behind", lag.as_secs())).unwrap_or_default();
    vec![
        format!(
            "there is no daemon, so NOTHING FENCES {other}: it goes on taking writes, and what is written there after the \
             moment of the failover (its latest consistent time{lag}) is missing on {home}; stop the applications first"
        ),
        format!("fail stream {} over: {home} becomes a cluster of its own", stream.id),
        "wait until it has completed; it cannot be taken back".to_owned(),
        format!("then it is for you to send the applications to {home}"),
    ]
}
