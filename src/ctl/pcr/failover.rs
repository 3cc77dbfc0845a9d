//! `failover` where no daemon runs: once the primary has fallen silent, by the daemon's own judge, the stream from it is
//! failed over through the API, and the words say that nothing fences the primary and nobody moves the clients.

use std::time::Duration;

use serde_json::json;

use super::{Desk, failback, plan, says_nothing};
use crate::cockroach_cloud::model::{ReplicationStream, StreamStatus};
use crate::config::source;
use crate::ctl::api::ApiError;
use crate::ctl::args::{Command, Global};
use crate::ctl::target::{self, Environment};
use crate::ctl::terminal::Terminal;
use crate::ctl::{CtlError, Done};
use crate::failover::action::Receipt;
use crate::pcr::failback::{Aim, fail_over};
use crate::pcr::silence::{Ended, Vigil};
use crate::pcr::survey::{check_moment, check_ready};
use crate::pcr::wait::Until;
use crate::pcr::{Direction, Error, NotReady, Pair, Survey, Which, look};
use crate::types::BackendName;

/// What was typed.
struct Wanted<'a> {
    to: Option<&'a str>,
    force: bool,
    at: Option<jiff::Timestamp>,
    dry_run: bool,
}

/// `failover` after no daemon answered; `error`: how it did not. What needs one ends with that.
pub(in crate::ctl) async fn without_daemon(
    error: CtlError,
    command: &Command,
    global: &Global,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<Done, CtlError> {
    let absent = matches!(&error, CtlError::Api(ApiError::Unreachable { .. } | ApiError::NotPgpivot { .. }));
    let Command::Failover { to, route_only: false, force, at, dry_run } = command else { return Err(error) };
    if !absent || target::is_named(global, environment) {
        return Err(error);
    }
    let config = match source::load(global.config.as_deref()) {
        Ok(loaded) => loaded.config,
        Err(problems) if global.config.is_none() && says_nothing(&problems) => return Err(error),
        Err(problems) => return Err(crate::ctl::Misuse::from(problems).into()),
    };
    if let Err(Error::NotCloud(_) | Error::SelfHosted(_)) = Pair::build(&config, global.service.as_deref()) {
        return Err(error);
    }
    let desk = Desk::open(global, environment, terminal).await?;
    if let Some(daemon) = &desk.daemon {
        // It listens where the configuration says.
        let Some(order) = crate::ctl::commands::order(command) else { return Err(error) };
        return crate::ctl::act::run(&daemon.api, terminal, global, &order).await;
    }
    let at = at.or(desk.pair.failover_at);
    go(&desk, Wanted { to: to.as_deref(), force: *force, at, dry_run: *dry_run }).await
}

async fn go(desk: &Desk<'_>, wanted: Wanted<'_>) -> Result<Done, CtlError> {
    let survey = failback::survey(desk).await?;
    check_target(desk, &survey, wanted.to)?;
    let (primary, standby) = (&desk.pair.primary.name, &desk.pair.standby.name);
    let stream = survey.live(&desk.pair, Direction::Forward)?.ok_or_else(|| Error::NoStream {
        from: primary.clone(),
        to: standby.clone(),
        remedy: "there is nothing to fail over; `proxyctl setup` creates one",
    })?;
    if stream.status == StreamStatus::FailingOver {
        desk.terminal.talk(&format!("stream {} is being failed over already: waiting for its end", stream.id))?;
        return match wanted.dry_run {
            true => Ok(Done::Yes),
            false => complete(desk, stream).await,
        };
    }
    // An operator may take more loss than the monitor, but not a copy that is not complete.
    let aim = Aim { at: wanted.at, most: if wanted.force { Duration::MAX } else { desk.pair.max_lag } };
    check_ready(stream, survey.date, aim.most).map_err(|error| with_remedy(desk, error))?;
    if let Some(at) = aim.at {
        check_moment(stream, survey.date, at)?;
    }
    let mut vigil = match wanted.force {
        true => None,
        false => Some(Vigil::begin(&desk.pair, stream.id).await?),
    };
    let shown = match &vigil {
        Some(vigil) => vigil.primary().words(),
        None => heard(desk).await,
    };
    if let Some(done) = desk.propose(&losing(desk, &survey, stream, aim, shown, vigil.as_ref()), wanted.dry_run)? {
        return Ok(done);
    }
    if let Some(vigil) = &mut vigil {
        match desk.until_silent(vigil).await? {
            None => return Ok(Done::No),
            Some(Ended::Joined(stream)) => {
                let said = format!("stream {} was failed over by others meanwhile: waiting for its end", stream.id);
                desk.terminal.talk(&said)?;
                return complete(desk, &stream).await;
            }
            Some(Ended::Silent) => {}
        }
    }
    let stream = fail_over(&desk.pair, stream.id, aim, vigil.as_mut()).await?;
    complete(desk, &stream).await
}

/// By force any lag will do.
fn with_remedy(desk: &Desk<'_>, error: Error) -> Error {
    let (primary, standby) = (desk.pair.primary.name.clone(), desk.pair.standby.name.clone());
    match error {
        Error::NotReady { id, why: NotReady::Behind { lag, most } } => Error::Stale { primary, standby, id, lag, most },
        other => other,
    }
}

async fn heard(desk: &Desk<'_>) -> &'static str {
    let sql = look::cluster(&desk.pair, Which::Primary).await.sql;
    sql.map_or("no address of it is known", |sql| sql.answer.words())
}

/// From the primary to the standby, and nowhere else.
fn check_target(desk: &Desk<'_>, survey: &Survey, to: Option<&str>) -> Result<(), Error> {
    let active = survey.active(&desk.pair);
    let not_there =
        |asked: BackendName, remedy| Error::NotThere { asked, active: desk.pair.side(active).name.clone(), remedy };
    if active == Which::Standby {
        let asked = desk.pair.primary.name.clone();
        return Err(not_there(asked, "The way back is `proxyctl failback status`"));
    }
    match to {
        Some(to) if to != desk.pair.standby.name.as_str() => {
            Err(not_there(BackendName::new(to), "Name the standby, or leave --to out"))
        }
        _ => Ok(()),
    }
}

async fn complete(desk: &Desk<'_>, stream: &ReplicationStream) -> Result<Done, CtlError> {
    let Some(stream) = desk.wait(stream.id, Until::Completed).await? else { return Ok(Done::No) };
    let (primary, standby) = (&desk.pair.primary, &desk.pair.standby);
    let as_of = stream.activated_at.map(|at| format!(" as of {at}")).unwrap_or_default();
    let there = standby.addresses.first().map_or_else(|| "there".to_owned(), |address| format!("to {address}"));
    let sentence = format!(
        "{} is a cluster of its own{as_of} (stream {}); send the applications {there} now, and keep them from {}: what is \
         written to it is lost. `proxyctl failback status` shows the way home",
        standby.name, stream.id, primary.name
    );
    desk.say(&sentence, json!({ "outcome": "done", "stream": stream }))?;
    Ok(Done::Yes)
}

fn losing(
    desk: &Desk<'_>,
    survey: &Survey,
    stream: &ReplicationStream,
    aim: Aim,
    shown: &str,
    vigil: Option<&Vigil<'_>>,
) -> Receipt {
    let (primary, standby) = (&desk.pair.primary.name, &desk.pair.standby.name);
    let lag = survey.lag(stream).map(|lag| format!(", now {} s behind", lag.as_secs())).unwrap_or_default();
    let moment = match aim.at {
        Some(at) => format!("{at}"),
        None => format!("the latest consistent time{lag}"),
    };
    let mut steps = vec![
        format!(
            "there is no daemon, so NOTHING FENCES {primary} ({shown}) and no client is moved: what was written there after \
             the moment of the failover ({moment}), or will be, is missing on {standby}"
        ),
        format!("fail stream {} over: {standby} becomes a cluster of its own", stream.id),
        "wait until it has completed; it cannot be taken back".to_owned(),
        format!("then it is for you to send the applications to {standby}"),
    ];
    if let Some(vigil) = vigil {
        let (at, left) = vigil.until();
        let wait = format!(
            "wait until {primary} counts as silent: nothing newer than {:.0} may come over its stream until {at:.0}, in {} s; \
             if it does, {primary} lives and nothing is done",
            vigil.base(),
            left.as_secs()
        );
        steps.insert(1, wait);
    }
    plan(format!("failing over from {primary} to {standby} without a daemon"), steps)
}
