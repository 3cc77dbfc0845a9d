//! `setup`: the stream from the primary to the standby. Its parts are those of `failback create-stream`, too.

use serde_json::json;
use tokio::time::sleep;

use super::{Desk, plan};
use crate::cockroach_cloud::model::ReplicationStream;
use crate::ctl::{CtlError, Done};
use crate::failover::action::Receipt;
use crate::pcr::look::Answer;
use crate::pcr::setup::{self, Found};
use crate::pcr::wait::Until;
use crate::pcr::{Direction, Error, ORDERS, Pair, look, too_soon};

/// How a stream came to be there.
pub(super) enum Ensured {
    /// It is there; the word for machines.
    There(Box<ReplicationStream>, &'static str),
    /// There is no more to do: a dry run, or a no.
    Ended(Done),
}

pub(super) async fn run(desk: &Desk<'_>, dry_run: bool) -> Result<Done, CtlError> {
    let (stream, outcome) = match ensure(desk, Direction::Forward, dry_run).await? {
        Ensured::There(stream, outcome) => (stream, outcome),
        Ensured::Ended(done) => return Ok(done),
    };
    let Some(stream) = desk.wait(stream.id, Until::Copied).await? else { return Ok(Done::No) };
    say_replicates(desk, &stream, Direction::Forward, outcome)?;
    if desk.pair.pinned.is_some_and(|pinned| pinned != stream.id) {
        desk.terminal.talk(&format!("PCR_STREAM_ID names another stream: set it to {}, or remove it", stream.id))?;
    }
    Ok(Done::Yes)
}

/// Finds the stream of that direction, or asks and orders one.
pub(super) async fn ensure(desk: &Desk<'_>, direction: Direction, dry_run: bool) -> Result<Ensured, CtlError> {
    let survey = look::survey(&desk.pair).await.map_err(Error::from)?;
    let active = desk.active(&survey)?;
    let (from, to) = (&desk.pair.from(direction).name, &desk.pair.to(direction).name);
    match setup::find(&desk.pair, &survey, direction, active)? {
        Found::Stream(stream) => {
            let there = format!("stream {} from {from} to {to} is there already ({})", stream.id, stream.status);
            if dry_run {
                let steps = vec!["wait until it replicates; nothing is erased".to_owned()];
                return Ok(Ensured::Ended(desk.propose(&plan(there, steps), true)?.unwrap_or(Done::Yes)));
            }
            desk.terminal.talk(&format!("{there}: taking it up"))?;
            Ok(Ensured::There(stream, "adopted"))
        }
        Found::Nothing => {
            let plan = erasing(&desk.pair, direction).await;
            if let Some(done) = desk.propose(&plan, dry_run)? {
                return Ok(Ensured::Ended(done));
            }
            order(desk, direction).await
        }
    }
}

/// Orders it, without a question. An order that comes too soon for the API is given again, after another look.
pub(super) async fn order(desk: &Desk<'_>, direction: Direction) -> Result<Ensured, CtlError> {
    let mut tries = 1;
    loop {
        let refused = match order_once(desk, direction).await {
            Err(CtlError::Pcr(Error::Api(error))) if error.operation.is_write() && tries < ORDERS => error,
            ended => return ended,
        };
        let Some(wait) = too_soon(&refused) else { return Err(Error::Api(refused).into()) };
        desk.terminal.talk(&format!("too many calls were made with this key: waiting {} s", wait.as_secs()))?;
        sleep(wait).await;
        tries += 1;
    }
}

/// After a look: others may have changed the pair while somebody was asked, or we waited.
async fn order_once(desk: &Desk<'_>, direction: Direction) -> Result<Ensured, CtlError> {
    let survey = look::survey(&desk.pair).await.map_err(Error::from)?;
    let active = desk.active_now(&survey).await?;
    if let Found::Stream(stream) = setup::find(&desk.pair, &survey, direction, active)? {
        desk.terminal.talk(&format!("stream {} was made meanwhile: taking it up", stream.id))?;
        return Ok(Ensured::There(stream, "adopted"));
    }
    let (stream, lost) = setup::create(&desk.pair, direction).await?;
    if lost {
        desk.terminal.talk("the order was not answered with a stream, and the list shows one: that is taken")?;
    }
    desk.terminal.talk(&format!("stream {} is ordered", stream.id))?;
    Ok(Ensured::There(Box::new(stream), if lost { "adopted" } else { "created" }))
}

/// What a new stream would do.
async fn erasing(pair: &Pair, direction: Direction) -> Receipt {
    let (from, to) = (&pair.from(direction).name, &pair.to(direction).name);
    let mut steps = vec![erased(pair, direction).await];
    steps.push(format!("order a stream from {from} to {to} in the Cloud API"));
    steps.push("wait until its initial scan is complete; with much data that takes hours".to_owned());
    plan(format!("replicating {from} to {to}, which ERASES what is on {to}"), steps)
}

/// The sentence that nobody must overlook.
pub(super) async fn erased(pair: &Pair, direction: Direction) -> String {
    let to = &pair.to(direction).name;
    let view = look::cluster(pair, direction.target()).await;
    let name = view.record.map(|record| format!(" ({})", record.name)).unwrap_or_default();
    let serves = match view.sql.map(|sql| sql.answer) {
        Some(Answer::Serving) => ", and it answers SQL now: whoever uses it loses it",
        _ => "",
    };
    format!("EVERYTHING on cluster {to}{name} is erased as soon as the stream begins{serves}")
}

/// The result of a wait for a stream.
pub(super) fn say_replicates(
    desk: &Desk<'_>,
    stream: &ReplicationStream,
    direction: Direction,
    outcome: &str,
) -> Result<(), CtlError> {
    let (from, to) = (&desk.pair.from(direction).name, &desk.pair.to(direction).name);
    let at = stream.replicated_time.map(|at| format!(", up to {at}")).unwrap_or_default();
    let next = match direction {
        Direction::Forward => "`proxyctl status` shows its lag",
        Direction::Reverse => "`proxyctl failback initiate` brings traffic home",
    };
    let sentence = format!("stream {} replicates {from} to {to}{at}; {next}", stream.id);
    desk.say(&sentence, json!({ "outcome": outcome, "stream": stream }))
}
