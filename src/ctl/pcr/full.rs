//! `failback full`: all steps in a row. After an interruption it goes on where the streams say it was.

use serde_json::json;

use super::failback::{at_home, came_home, losing_steps, survey, until_seen};
use super::setup::{self, Ensured};
use super::{Daemon, Desk, plan};
use crate::ctl::wait::{self, Ended, Goal, Watched};
use crate::ctl::{CtlError, Done};
use crate::pcr::survey::Standing;
use crate::pcr::wait::Until;
use crate::pcr::{Direction, Error, Survey, failback};

/// One more than the states that a failback goes through: each look must find it further than the last one.
const MOST: u32 = 8;

pub(super) async fn run(desk: &Desk<'_>, forward: bool, dry_run: bool) -> Result<Done, CtlError> {
    let survey = survey(desk).await?;
    let standing = survey.standing(&desk.pair, desk.active(&survey)?)?;
    let done_before = matches!(standing, Standing::AtHome);
    if done_before && !came_home(desk, &survey) {
        return Err(Error::AtHome(desk.pair.primary.name.clone()).into());
    }
    let mut steps = steps_left(desk, &survey, &standing).await;
    if forward {
        let (home, standby) = (&desk.pair.primary.name, &desk.pair.standby.name);
        let first = if must_move(desk, done_before) {
            "stop; once the applications are there, on a word of yours "
        } else {
            ""
        };
        steps.push(format!("{first}replicate {home} to {standby} again, which ERASES everything on {standby}"));
    }
    if !done_before || forward || dry_run {
        let sentence = format!("failing back from {} to {}", desk.pair.standby.name, desk.pair.primary.name);
        if let Some(done) = desk.propose(&plan(sentence, steps), dry_run)? {
            return Ok(done);
        }
    }
    match go_home(desk).await? {
        Some(survey) if forward && must_move(desk, done_before) && !may_erase(desk, &survey).await? => Ok(Done::No),
        Some(survey) if forward => set_up_again(desk, &survey).await,
        Some(survey) => {
            desk.say(&at_home(desk, &survey), json!({ "outcome": "done", "stream": survey.newest_completed() }))?;
            Ok(Done::Yes)
        }
        None => Ok(Done::No),
    }
}

/// Without a daemon nobody but the operator sends the applications home.
fn must_move(desk: &Desk<'_>, done_before: bool) -> bool {
    desk.daemon.is_none() && !done_before
}

/// The side that was left holds the only copy of what the applications still write there. A `--yes` that was given before
/// they could be moved is no word on that.
async fn may_erase(desk: &Desk<'_>, survey: &Survey) -> Result<bool, CtlError> {
    let standby = &desk.pair.standby.name;
    desk.terminal.talk(&at_home(desk, survey))?;
    if desk.terminal.interactive && !desk.global.yes {
        desk.terminal.talk(&format!("next, everything on {standby} is ERASED: are all applications moved?"))?;
        if desk.ask("Go on?").await? {
            return Ok(true);
        }
    }
    let sentence = format!(
        "stopped before {standby} is erased: send the applications to {} first, then run the same command again",
        desk.pair.primary.name
    );
    desk.say(&sentence, json!({ "outcome": "stopped", "stream": survey.newest_completed() }))?;
    Ok(false)
}

/// Does what is left, until home is active. `None` = it was interrupted, or called off with a word about it.
async fn go_home(desk: &Desk<'_>) -> Result<Option<Survey>, CtlError> {
    let mut ordered = false;
    for _ in 0..MOST {
        if let Some(daemon) = &desk.daemon {
            match let_it_finish(desk, daemon).await? {
                Some(true) => continue,
                Some(false) => {}
                None => return Ok(None),
            }
        }
        let survey = survey(desk).await?;
        match survey.standing(&desk.pair, desk.active_now(&survey).await?)? {
            Standing::AtHome => return Ok(Some(survey)),
            // One order is enough, whatever an older copy of the list says.
            Standing::Away if ordered => return Err(Error::Unsettled.into()),
            Standing::Away => {
                let Ensured::There(stream, _) = setup::order(desk, Direction::Reverse).await? else { return Ok(None) };
                ordered = true;
                if desk.wait(stream.id, Until::Copied).await?.is_none() {
                    return Ok(None);
                }
            }
            Standing::Starting(stream) | Standing::Replicating(stream, _) => {
                let Some(stream) = desk.wait(stream.id, Until::Ready(desk.pair.max_lag)).await? else {
                    return Ok(None);
                };
                match &desk.daemon {
                    Some(daemon) => {
                        if !restore(desk, daemon).await? {
                            return Ok(None);
                        }
                    }
                    None => drop(failback::fail_over(&desk.pair, stream.id, desk.aim(), None).await?),
                }
            }
            Standing::FailingOver(stream) => {
                if desk.wait(stream.id, Until::Completed).await?.is_none() {
                    return Ok(None);
                }
            }
            Standing::Completed(_) => match &desk.daemon {
                Some(daemon) if restore(desk, daemon).await? => {}
                _ => return Ok(None),
            },
        }
    }
    Err(Error::Unsettled.into())
}

/// Waits for what the daemon does already; `true` = it did something, so look again.
async fn let_it_finish(desk: &Desk<'_>, daemon: &Daemon) -> Result<Option<bool>, CtlError> {
    let status = daemon.api.status().await?;
    let service = status.services.iter().find(|service| service.name == desk.pair.service);
    if service.is_none_or(|service| service.episode.is_none()) {
        return Ok(Some(false));
    }
    let watched = Watched { services: vec![(desk.pair.service.clone(), daemon.service.epoch)], goal: Goal::NoEpisode };
    match wait::until(&daemon.api, desk.terminal, &watched, desk.patience()).await? {
        Ended::Done { .. } | Ended::Cancelled { .. } => Ok(Some(true)),
        Ended::StillUnderWay { sentence } => {
            desk.say(&format!("still under way: {sentence}"), json!({ "outcome": "under_way" }))?;
            Ok(None)
        }
        Ended::Interrupted => Ok(None),
    }
}

/// Traffic home through the daemon; `false` = it did not come to be, with a word about it.
async fn restore(desk: &Desk<'_>, daemon: &Daemon) -> Result<bool, CtlError> {
    until_seen(desk, daemon).await?;
    let body = json!({ "to": desk.pair.primary.name, "force": false, "reason": desk.global.reason });
    let receipt = daemon.api.command(Some(&desk.pair.service), "restore", &body, false).await?;
    desk.terminal.talk(&receipt.sentence)?;
    let goal = receipt.episode.map_or(Goal::Active(desk.pair.primary.name.clone()), |episode| Goal::Episode(episode.0));
    let watched = Watched { services: vec![(desk.pair.service.clone(), daemon.service.epoch)], goal };
    let (outcome, sentence) = match wait::until(&daemon.api, desk.terminal, &watched, desk.patience()).await? {
        Ended::Done { sentence, .. } => {
            desk.terminal.talk(&sentence)?;
            return Ok(true);
        }
        Ended::Cancelled { sentence } => ("cancelled", format!("called off: {sentence}")),
        Ended::StillUnderWay { sentence } => ("under_way", format!("still under way: {sentence}")),
        Ended::Interrupted => {
            ("under_way", "not waiting any longer; it goes on: run the same command again to take it up".to_owned())
        }
    };
    desk.say(&sentence, json!({ "outcome": outcome }))?;
    Ok(false)
}

/// `--forward`: as `setup`, after the question was asked.
async fn set_up_again(desk: &Desk<'_>, survey: &Survey) -> Result<Done, CtlError> {
    desk.terminal.talk(&at_home(desk, survey))?;
    let (id, outcome) = match survey.live(&desk.pair, Direction::Forward)? {
        Some(stream) => (stream.id, "adopted"),
        None => match setup::order(desk, Direction::Forward).await? {
            Ensured::There(stream, outcome) => (stream.id, outcome),
            Ensured::Ended(done) => return Ok(done),
        },
    };
    let Some(stream) = desk.wait(id, Until::Copied).await? else { return Ok(Done::No) };
    setup::say_replicates(desk, &stream, Direction::Forward, outcome)?;
    Ok(Done::Yes)
}

/// What is left to do, in order.
async fn steps_left(desk: &Desk<'_>, survey: &Survey, standing: &Standing) -> Vec<String> {
    let (home, other) = (&desk.pair.primary.name, &desk.pair.standby.name);
    let mut steps = Vec::new();
    if *standing == Standing::Away {
        steps.push(setup::erased(&desk.pair, Direction::Reverse).await);
        steps.push(format!("order a stream from {other} to {home} in the Cloud API"));
    }
    if matches!(standing, Standing::Away | Standing::Starting(_)) {
        steps.push("wait until its initial scan is complete and it has caught up".to_owned());
    }
    match (standing, &desk.daemon) {
        (Standing::AtHome, _) => steps.push(format!("nothing: {home} is active already")),
        (Standing::FailingOver(_), None) => steps.push("wait until the stream home has completed".to_owned()),
        (_, Some(daemon)) => steps.push(format!(
            "`proxyctl restore` at {}: the daemon holds clients, fails the stream over to a moment after the last commit, \
             and opens to {home}",
            daemon.api.target()
        )),
        (Standing::Starting(stream) | Standing::Replicating(stream, _), None) => {
            steps.extend(losing_steps(desk, survey, stream));
        }
        (_, None) => steps.push(format!(
            "fail it over at once, WITHOUT A FENCE since there is no daemon: what is written to {other} after the moment of \
             the failover is missing on {home}. To choose that moment, use `create-stream` and `initiate` instead"
        )),
    }
    steps
}
