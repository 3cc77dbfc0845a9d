//! `simulate`: disruptions on purpose, by the cloud's own means. A cluster is disrupted only by its full name.

use serde_json::json;

use super::{Desk, plan};
use crate::cockroach_cloud::model::Disruption;
use crate::ctl::args::pcr::Simulate;
use crate::ctl::{CtlError, Done, Misuse};
use crate::failover::action::Receipt;
use crate::pcr::disrupt::{self, Target};
use crate::pcr::{Pair, Which};

pub(super) async fn run(desk: &Desk<'_>, action: &Simulate) -> Result<Done, CtlError> {
    match action {
        Simulate::Disrupt { cluster, region, cluster_name, dry_run } => {
            let target = disrupt::target(&desk.pair, *cluster, region).await?;
            let plan = disrupting(&desk.pair, &target);
            if let Some(done) = name_it(desk, &[&target], &plan, cluster_name.as_slice(), *dry_run)? {
                return Ok(done);
            }
            disrupt::disrupt(&desk.pair, &target).await?;
            let name = &desk.pair.side(*cluster).name;
            let sentence = format!(
                "{name} ({}) is disrupted in {}; `proxyctl simulate restore --cluster {cluster}` ends it",
                target.name,
                target.regions.join(", ")
            );
            desk.say(&sentence, json!({ "cluster": name, "disrupted": target.regions }))?;
            Ok(Done::Yes)
        }
        Simulate::Restore { cluster, dry_run } => restore(desk, *cluster, *dry_run).await,
        Simulate::Status { cluster } => status(desk, *cluster).await,
    }
}

/// Ending a disruption harms nobody: it is not asked for.
async fn restore(desk: &Desk<'_>, which: Which, dry_run: bool) -> Result<Done, CtlError> {
    let name = &desk.pair.side(which).name;
    let before = match disrupt::read(&desk.pair, which).await {
        Ok(before) => before,
        // What cannot be read can still be ended.
        Err(_) if !dry_run => {
            disrupt::clear(&desk.pair, which).await?;
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    if dry_run {
        let step = match before.as_slice() {
            [] => "nothing: it is not disrupted".to_owned(),
            some => format!("end the disruption of {}", regions(some)),
        };
        let plan = plan(format!("ending every disruption of {name}"), vec![step]);
        return Ok(desk.propose(&plan, true)?.unwrap_or(Done::Yes));
    }
    if !before.is_empty() {
        disrupt::clear(&desk.pair, which).await?;
    }
    let sentence = match before.as_slice() {
        [] => format!("{name} is not disrupted"),
        some => format!("{name} is not disrupted any more (it was in {})", regions(some)),
    };
    desk.say(&sentence, json!({ "cluster": name, "disrupted": [] }))?;
    Ok(Done::Yes)
}

async fn status(desk: &Desk<'_>, which: Option<Which>) -> Result<Done, CtlError> {
    let mut all = Vec::new();
    for which in [Which::Primary, Which::Standby].into_iter().filter(|w| which.is_none_or(|which| which == *w)) {
        all.push((desk.pair.side(which).name.clone(), disrupt::read(&desk.pair, which).await?));
    }
    if desk.terminal.json {
        let json: Vec<_> = all.iter().map(|(name, found)| json!({ "cluster": name, "disruptions": found })).collect();
        desk.terminal.result_json(&json)?;
        return Ok(Done::Yes);
    }
    for (name, found) in &all {
        match found.as_slice() {
            [] => desk.terminal.result(&format!("{name} is not disrupted"))?,
            some => desk.terminal.result(&format!("{name} is disrupted in {}", regions(some)))?,
        }
    }
    Ok(Done::Yes)
}

/// What a disruption does.
pub(super) fn disrupting(pair: &Pair, target: &Target) -> Receipt {
    let side = pair.side(target.which);
    let step = format!("take {} down as a whole, by the cloud's disruption API", target.regions.join(", "));
    plan(format!("disrupting {} ({}): its clients lose it", side.name, target.name), vec![step])
}

/// Shows what would happen, and has the name of every cluster that is hit given or typed. `Some` = do not go on.
pub(super) fn name_it(
    desk: &Desk<'_>,
    targets: &[&Target],
    plan: &Receipt,
    given: &[String],
    dry_run: bool,
) -> Result<Option<Done>, CtlError> {
    if dry_run {
        return desk.propose(plan, true);
    }
    desk.terminal.talk(&crate::ctl::act::planned(plan))?;
    for target in targets {
        let name = &target.name;
        let named = match (given, desk.terminal.interactive) {
            ([], false) => return Err(Misuse::NobodyToName(name.clone()).into()),
            ([], true) => {
                desk.terminal.ask_for(&format!("Type the full name of the cluster ({name}) to go on:"))? == *name
            }
            (given, _) => given.contains(name),
        };
        if !named {
            desk.terminal.talk(&format!("that is not the name of the cluster, which is {name}: nothing was done"))?;
            return Ok(Some(Done::No));
        }
    }
    Ok(None)
}

fn regions(disruptions: &[Disruption]) -> String {
    let one = |disruption: &Disruption| match disruption.is_whole_region {
        true => disruption.region_code.clone(),
        false => format!("{} (partly)", disruption.region_code),
    };
    disruptions.iter().map(one).collect::<Vec<_>>().join(", ")
}
