//! Bringing an old primary back: ask what it needs, show it, have it done or show what to type, and watch it stream.
//! `restore` offers that first where it is missing. The daemon weighs and does; here is only the talk about it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::act::{self, Order, agreed, planned};
use super::api::{Api, ApiError};
use super::args::Global;
use super::render::{duration, plain};
use super::terminal::Terminal;
use super::wait::{self, Ended, Goal, Watched};
use super::{CtlError, Done, one_service};
use crate::failover::action::{Command, Receipt};
use crate::types::{BackendName, Epoch, ServiceName};
use crate::view::sides::COCKROACH;
use crate::view::{ServiceStatus, Status};

/// A base backup takes its time; longer ones go on without us.
const PATIENCE: Duration = Duration::from_secs(3600);
/// From its first streaming until it could be promoted.
const ARMED: Duration = Duration::from_secs(30);
/// How a step begins that is to be typed as it stands.
const PROMPT: &str = "$ ";
/// Why a side is not brought home: it has to be made a standby first.
const NOT_BACK: [&str; 2] = ["not_rebuilt", "quarantined"];

/// Carries an order out; the ways home have steps of their own.
pub(super) async fn run(api: &Api, terminal: &Terminal, global: &Global, order: &Order) -> Result<Done, CtlError> {
    let servers = |service: &ServiceStatus| service.kind != COCKROACH;
    match &order.command {
        Command::Rejoin { backend, .. } => {
            let status = api.status().await?;
            let service = one_service(&status, global.service.as_deref())?;
            match servers(service) {
                true => rejoin(api, terminal, global, order, (&service.name, backend), true).await,
                false => act::run(api, terminal, global, order).await,
            }
        }
        Command::Restore { to, force: false } => {
            let status = api.status().await?;
            let service = one_service(&status, global.service.as_deref())?;
            let home = to.clone().or_else(|| home(service));
            if let (true, Some(home)) = (servers(service), home)
                && let Some(why) = not_back(api, &service.name, order, global).await?
            {
                terminal.talk(&plain(&why))?;
                let first = Order { command: Command::Rejoin { backend: home.clone(), method: None }, ..*order };
                match rejoin(api, terminal, global, &first, (&service.name, &home), false).await? {
                    Done::Yes if !order.dry_run => {}
                    done => return Ok(done),
                }
                // A standby that has just begun to stream is not yet one that can be promoted.
                let services = vec![(service.name.clone(), Epoch::default())];
                let watched = Watched { services, goal: Goal::Armed(home) };
                wait::until(api, terminal, &watched, ARMED).await?;
            }
            act::run(api, terminal, global, order).await
        }
        _ => act::run(api, terminal, global, order).await,
    }
}

fn home(service: &ServiceStatus) -> Option<BackendName> {
    let home = service.backends.iter().find(|backend| backend.configured_role.as_deref() == Some("primary"));
    home.map(|backend| backend.name.clone())
}

/// Why it cannot be switched to before it is a standby again; `None` = that is not what stands in the way.
async fn not_back(
    api: &Api,
    service: &ServiceName,
    order: &Order,
    global: &Global,
) -> Result<Option<String>, CtlError> {
    let body = order.body(global.reason.as_deref())?;
    match api.command(Some(service), order.verb(), &body, true).await {
        Err(ApiError::Refused(problem)) if NOT_BACK.iter().any(|code| problem.kind.ends_with(code)) => {
            Ok(Some(problem.detail.clone()))
        }
        // Whatever else is wrong is said where it is ordered.
        _ => Ok(None),
    }
}

async fn rejoin(
    api: &Api,
    terminal: &Terminal,
    global: &Global,
    order: &Order,
    (service, backend): (&ServiceName, &BackendName),
    watches_typing: bool,
) -> Result<Done, CtlError> {
    let body = order.body(global.reason.as_deref())?;
    let plan = api.command(Some(service), order.verb(), &body, true).await?;
    let typed = plan.steps.iter().any(|step| step.starts_with(PROMPT));
    if order.dry_run {
        act::show_plan(terminal, &plan)?;
        return Ok(Done::Yes);
    }
    if typed {
        return typing(api, terminal, global, &plan, (service, backend), watches_typing).await;
    }
    let runs = |status: &Status| {
        let ours = status.services.iter().find(|known| known.name == *service);
        ours.and_then(|ours| ours.rejoin.as_ref()).is_some_and(|rejoin| rejoin.backend == *backend && rejoin.runs())
    };
    let status = api.status().await?;
    let settled = runs(&status) || wait::streams(one_service(&status, Some(service.as_str()))?, backend);
    // What is done unasked is said when it is done.
    if !plan.steps.is_empty() || runs(&status) || !(settled || global.yes) {
        terminal.talk(&planned(&plan))?;
    }
    // What is under way, or so already, needs nobody's consent.
    if !settled && !agreed(terminal, global)? {
        terminal.talk("nothing was done")?;
        return Ok(Done::No);
    }
    let receipt = api.command(Some(service), order.verb(), &body, false).await?;
    if plan.steps.is_empty() && !runs(&status) {
        act::say(terminal, "done", &receipt, &receipt.sentence, None)?;
        return Ok(Done::Yes);
    }
    watch(api, terminal, global, &receipt, (service, backend)).await
}

/// What to type stands on stdout, so that it can be kept; then it is watched whether it works.
async fn typing(
    api: &Api,
    terminal: &Terminal,
    global: &Global,
    plan: &Receipt,
    (service, backend): (&ServiceName, &BackendName),
    watches: bool,
) -> Result<Done, CtlError> {
    match terminal.json {
        true => {
            terminal.result_json(&json!({ "outcome": "to_type", "sentence": plan.sentence, "steps": plan.steps }))?
        }
        false => terminal.result(&planned(plan))?,
    }
    if !watches {
        return Ok(Done::No);
    }
    terminal.talk(&format!("waiting until {backend} streams; Ctrl-C ends only the waiting"))?;
    let goal = Goal::Streams(backend.clone());
    let watched = Watched { services: vec![(service.clone(), Epoch::default())], goal };
    match wait::until(api, terminal, &watched, global.timeout.unwrap_or(PATIENCE)).await? {
        Ended::Done { sentence, .. } => {
            terminal.talk(&plain(&sentence))?;
            Ok(Done::Yes)
        }
        Ended::Cancelled { sentence } | Ended::StillUnderWay { sentence } => {
            terminal.talk(&plain(&sentence))?;
            Ok(Done::No)
        }
        Ended::Interrupted => Ok(Done::No),
    }
}

async fn watch(
    api: &Api,
    terminal: &Terminal,
    global: &Global,
    receipt: &Receipt,
    (service, backend): (&ServiceName, &BackendName),
) -> Result<Done, CtlError> {
    let began = Instant::now();
    let goal = Goal::Rejoined(backend.clone());
    let watched = Watched { services: vec![(service.clone(), Epoch::default())], goal };
    let again = format!("it goes on, and `proxyctl rejoin {backend}` watches it again");
    match wait::until(api, terminal, &watched, global.timeout.unwrap_or(PATIENCE)).await? {
        Ended::Done { sentence, .. } => {
            act::say(terminal, "done", receipt, &sentence, None)?;
            Ok(Done::Yes)
        }
        Ended::Cancelled { sentence } => {
            act::say(terminal, "failed", receipt, &sentence, None)?;
            Ok(Done::No)
        }
        Ended::StillUnderWay { sentence } => {
            let sentence = format!("still under way after {}; {again}: {sentence}", duration(began.elapsed()));
            act::say(terminal, "under_way", receipt, &sentence, None)?;
            Ok(Done::No)
        }
        Ended::Interrupted => {
            terminal.talk(&format!("not waiting any longer; {again}"))?;
            Ok(Done::No)
        }
    }
}
