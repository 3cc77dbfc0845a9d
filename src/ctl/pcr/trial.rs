//! `test`: what can be reached, what a monitor would see, and a failover that is really made. Whatever happens in that
//! one, also when it is interrupted, its disruption is ended.

use std::time::{Duration, Instant};

use serde_json::json;

use super::meter::{Interrupts, Meter};
use super::simulate::name_it;
use super::{Desk, automated, failback, plan};
use crate::cockroach_cloud::model::StreamId;
use crate::ctl::args::pcr::Test;
use crate::ctl::render::{duration, words};
use crate::ctl::{CtlError, Done};
use crate::failover::action::Receipt;
use crate::pcr::disrupt::{self, Target};
use crate::pcr::selftest::{self, Check, Cycle};
use crate::pcr::survey::check_ready;
use crate::pcr::wait::{self, Until};
use crate::pcr::{Direction, Error, Progress, Which};
use crate::view::{Level, ServiceStatus};

/// Looks of `test monitoring`.
const CYCLES: u32 = 3;
/// Between two looks at the daemon.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(desk: &Desk<'_>, action: &Test) -> Result<Done, CtlError> {
    match action {
        Test::Connection => connection(desk).await,
        Test::Monitoring { interval } => monitoring(desk, interval.unwrap_or(desk.pair.interval)).await,
        Test::Failover { cluster_name, dry_run } => failover(desk, cluster_name.as_slice(), *dry_run).await,
        Test::Automated { schedule, report, cluster_name, dry_run } => {
            automated::run(desk, schedule.as_deref(), report.as_deref(), cluster_name, *dry_run).await
        }
    }
}

async fn connection(desk: &Desk<'_>) -> Result<Done, CtlError> {
    let checks = selftest::connection(&desk.pair).await;
    let passed = checks.iter().all(|check| check.passed);
    match desk.terminal.json {
        true => desk.terminal.result_json(&json!({ "passed": passed, "checks": checks }))?,
        false => desk.terminal.result(&shown(desk, &checks))?,
    }
    Ok(match passed {
        true => Done::Yes,
        false if selftest::is_unreachable(&checks) => Done::Misuse,
        false => Done::No,
    })
}

fn shown(desk: &Desk<'_>, checks: &[Check]) -> String {
    let paint = desk.terminal.paint;
    let mut out = String::new();
    for check in checks {
        let (word, level) = if check.passed { ("pass", Level::Ok) } else { ("FAIL", Level::Bad) };
        let sentence = format!("{}: {}", check.what, check.said);
        paint.labelled(
            &mut out,
            6,
            word,
            |line| if check.passed { line.to_owned() } else { paint.level(level, line) },
            &sentence,
        );
        if !check.remedy.is_empty() {
            paint.labelled(&mut out, 6, "", str::to_owned, &format!("→ {}", check.remedy));
        }
    }
    let failed = checks.iter().filter(|check| !check.passed).count();
    out.push_str(&format!("{} of {} checks passed\n", checks.len() - failed, checks.len()));
    out
}

async fn monitoring(desk: &Desk<'_>, interval: Duration) -> Result<Done, CtlError> {
    let mut interrupts = Interrupts::listen()?;
    let (mut failures, mut well) = (0, true);
    for n in 1..=CYCLES {
        if n > 1 {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = interrupts.next() => return Ok(Done::No),
            }
        }
        let cycle = selftest::cycle(&desk.pair, n, &mut failures).await;
        well &= cycle.failures == 0 && cycle.trouble.is_none();
        match desk.terminal.json {
            true => desk.terminal.result_json(&cycle)?,
            false => desk.terminal.result(&told(&cycle))?,
        }
    }
    Ok(if well { Done::Yes } else { Done::No })
}

fn told(cycle: &Cycle) -> String {
    let mut text = format!("look {} of {CYCLES}", cycle.cycle);
    for cluster in &cycle.clusters {
        let sql = cluster.sql.as_ref().map_or("no address known", |sql| sql.answer.words());
        let api = cluster.record.as_ref().map_or_else(|| "unread".to_owned(), |record| record.state.to_string());
        text.push_str(&format!("\n  {:<10} SQL {sql}; API record {api}", cluster.name.as_str()));
    }
    for stream in &cycle.streams {
        let lag = stream.lag_seconds.map(|lag| format!(", {lag} s behind")).unwrap_or_default();
        text.push_str(&format!("\n  {:<10} from {} to {}: {}{lag}", "stream", stream.from, stream.to, stream.status));
    }
    if cycle.streams.is_empty() {
        let why = cycle.trouble.as_deref().unwrap_or("none");
        text.push_str(&format!("\n  {:<10} {why}", "stream"));
    }
    text.push_str(&format!("\n  {:<10} {}", "would", cycle.would));
    text
}

async fn failover(desk: &Desk<'_>, given: &[String], dry_run: bool) -> Result<Done, CtlError> {
    let survey = failback::survey(desk).await?;
    let active = desk.active(&survey)?;
    let stream = survey.live(&desk.pair, Direction::Forward)?;
    let Some(stream) = stream.filter(|_| active == Which::Primary) else {
        return Err(Error::NoStream {
            from: desk.pair.primary.name.clone(),
            to: desk.pair.standby.name.clone(),
            remedy: "a failover can be tested only from an active primary that is replicated: `proxyctl status`",
        }
        .into());
    };
    check_ready(stream, survey.date, desk.pair.max_lag)?;
    let target = disrupt::target(&desk.pair, Which::Primary, &[]).await?;
    if !target.before.is_empty() {
        return Err(Error::DisruptedAlready(desk.pair.primary.name.clone()).into());
    }
    if let Some(done) = name_it(desk, &[&target], &failing(desk, &target), given, dry_run)? {
        return Ok(done);
    }
    let mut interrupts = Interrupts::listen()?;
    let began = Instant::now();
    let outcome = disrupted(desk, &target, stream.id, &mut interrupts).await;
    let took = began.elapsed();
    // A refused disruption is none.
    if let Err(CtlError::Pcr(Error::Api(error))) = &outcome
        && error.operation.is_write()
        && !error.may_have_taken_effect()
    {
        return outcome.map(|_| Done::No);
    }
    desk.terminal.talk("ending the disruption")?;
    let cleared = disrupt::clear(&desk.pair, Which::Primary).await;
    match outcome {
        Ok(Outcome::FailedOver) => {
            cleared?;
            let sentence = format!(
                "{} became active {} after the disruption of {}, which is over now; `proxyctl failback status` shows the way \
                 home",
                desk.pair.standby.name,
                duration(took),
                desk.pair.primary.name
            );
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            desk.say(&sentence, json!({ "outcome": "failed_over", "took_ms": ms }))?;
            Ok(Done::Yes)
        }
        Ok(other) => {
            cleared?;
            let (word, what) = match other {
                Outcome::Interrupted => ("interrupted", "the test was interrupted"),
                _ => ("no_failover", "nobody failed over"),
            };
            let sentence = format!("{what} after {}; the disruption is over", duration(took));
            desk.say(&sentence, json!({ "outcome": word }))?;
            Ok(Done::No)
        }
        Err(error) => {
            // Both are told; the disruption that may still be there comes last.
            match cleared {
                Ok(()) => desk.terminal.talk("the disruption is over")?,
                Err(still) => desk.terminal.talk(&format!("proxyctl: {still}"))?,
            }
            Err(error)
        }
    }
}

/// How a test of a failover went.
enum Outcome {
    FailedOver,
    NoFailover,
    Interrupted,
}

/// Disrupts, and watches. Whoever calls it ends the disruption.
async fn disrupted(
    desk: &Desk<'_>,
    target: &Target,
    stream: StreamId,
    interrupts: &mut Interrupts,
) -> Result<Outcome, CtlError> {
    disrupt::disrupt(&desk.pair, target).await?;
    desk.terminal.talk(&format!("{} is disrupted; watching", target.name))?;
    let mut meter = Meter::new(desk.terminal);
    let watched = async {
        match &desk.daemon {
            Some(_) => watch_daemon(desk, &mut meter).await,
            None => {
                let mut watch = |progress: &Progress| meter.show(progress);
                match wait::until(&desk.pair, stream, Until::Completed, desk.patience(), &mut watch).await {
                    Ok(_) => Ok(Outcome::FailedOver),
                    Err(Error::Late { .. }) => Ok(Outcome::NoFailover),
                    Err(error) => Err(error.into()),
                }
            }
        }
    };
    tokio::select! {
        outcome = watched => outcome,
        () = interrupts.next() => Ok(Outcome::Interrupted),
    }
}

async fn watch_daemon(desk: &Desk<'_>, meter: &mut Meter<'_>) -> Result<Outcome, CtlError> {
    let Some(daemon) = &desk.daemon else { return Ok(Outcome::NoFailover) };
    let began = Instant::now();
    loop {
        let sentence = match daemon.api.status().await {
            Ok(status) => {
                let service = status.services.iter().find(|service| service.name == desk.pair.service);
                match service {
                    Some(service) if has_switched(desk, service) => return Ok(Outcome::FailedOver),
                    Some(service) => format!("{}: {}", words(&service.phase), service.next),
                    None => "the daemon does not lead this service any more".to_owned(),
                }
            }
            Err(error) => error.to_string(),
        };
        meter.show(&Progress { done: 0, of: 1, sentence });
        if began.elapsed() >= desk.patience() {
            return Ok(Outcome::NoFailover);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn has_switched(desk: &Desk<'_>, service: &ServiceStatus) -> bool {
    service.active.as_ref() == Some(&desk.pair.standby.name) && service.episode.is_none() && service.open
}

fn failing(desk: &Desk<'_>, target: &Target) -> Receipt {
    let (primary, standby) = (&desk.pair.primary.name, &desk.pair.standby.name);
    let patience = humantime::format_duration(desk.patience());
    let watch = match &desk.daemon {
        Some(daemon) => {
            format!("watch the daemon at {} fail over to {standby}, for up to {patience}", daemon.api.target())
        }
        None => format!(
            "there is no daemon: watch for up to {patience} whether somebody else (`proxyctl monitor`) fails over to {standby}"
        ),
    };
    let steps = vec![
        format!("take {} down as a whole, by the cloud's disruption API", target.regions.join(", ")),
        watch,
        "end the disruption, whatever happened".to_owned(),
        format!("{standby} stays active: what {primary} holds beyond it is lost at the failback"),
    ];
    plan(format!("testing a failover by disrupting {primary} ({}): its clients lose it", target.name), steps)
}
