//! `test automated`: a schedule of disruptions and looks, everything checked before the first step, a report at the end,
//! and no disruption left behind.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::meter::Interrupts;
use super::simulate::name_it;
use super::{Desk, plan};
use crate::ctl::{CtlError, Done, Misuse};
use crate::failover::action::Receipt;
use crate::pcr::disrupt::{self, Target};
use crate::pcr::schedule::{Action, Schedule, Step};
use crate::pcr::{Error, look};

/// A schedule is a page of text.
const LONGEST: u64 = 256 * 1024;

/// What came of a run.
#[derive(Debug, Serialize)]
struct Report {
    started: jiff::Timestamp,
    ended: jiff::Timestamp,
    /// Every step was done, and no disruption is left.
    passed: bool,
    interrupted: bool,
    steps: Vec<Ran>,
    /// What was done about disruptions at the end.
    cleared: Vec<Ran>,
}

/// What came of a step.
#[derive(Debug, Serialize)]
struct Ran {
    #[serde(flatten)]
    step: Step,
    began: jiff::Timestamp,
    took_ms: u64,
    ok: bool,
    sentence: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    seen: Value,
}

pub(super) async fn run(
    desk: &Desk<'_>,
    file: Option<&Path>,
    report: Option<&Path>,
    given: &[String],
    dry_run: bool,
) -> Result<Done, CtlError> {
    let schedule = file.map_or_else(|| Ok(Schedule::default()), read)?;
    let targets = check(desk, &schedule).await?;
    let hit: Vec<&Target> = targets.iter().flatten().collect();
    let mut clusters: Vec<&Target> = Vec::new();
    for target in hit {
        if !clusters.iter().any(|known| known.which == target.which) {
            clusters.push(target);
        }
    }
    if let Some(done) = name_it(desk, &clusters, &planned(desk, &schedule), given, dry_run)? {
        return Ok(done);
    }
    // What cannot be written at the end is not worth a disruption.
    let sink = report.map(|path| open(path).map(|file| (path, file))).transpose()?;
    let done = carry_out(desk, &schedule, &targets).await?;
    let passed = done.passed;
    match sink {
        None => desk.terminal.result_json(&done)?,
        Some((path, mut file)) => {
            let text = serde_json::to_vec_pretty(&done)?;
            std::io::Write::write_all(&mut file, &text).map_err(|error| unwritten(path, &error))?;
            let word = if passed { "passed" } else { "did not pass" };
            let sentence = format!("the test {word}; its report is in {}", path.display());
            desk.say(&sentence, json!({ "passed": passed, "report": path }))?;
        }
    }
    Ok(if passed { Done::Yes } else { Done::No })
}

fn read(path: &Path) -> Result<Schedule, CtlError> {
    let wrong = |problem: String| Misuse::Schedule { path: path.display().to_string(), problem };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    file.take(LONGEST).read_to_string(&mut text).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    Ok(Schedule::parse(&text).map_err(|error| wrong(error.to_string()))?)
}

fn open(path: &Path) -> Result<std::fs::File, CtlError> {
    Ok(std::fs::File::create(path).map_err(|error| unwritten(path, &error))?)
}

fn unwritten(path: &Path, error: &std::io::Error) -> Misuse {
    Misuse::Report { path: path.display().to_string(), problem: error.to_string() }
}

/// For each step that disrupts, what it hits; refused here, before anything was done.
async fn check(desk: &Desk<'_>, schedule: &Schedule) -> Result<Vec<Option<Target>>, CtlError> {
    let mut targets = Vec::new();
    for step in &schedule.0 {
        targets.push(match step.action {
            Action::Disrupt => Some(disrupt::target(&desk.pair, step.cluster, &step.regions).await?),
            Action::Restore | Action::Status => None,
        });
    }
    for which in schedule.disrupted() {
        if targets.iter().flatten().any(|target| target.which == which && !target.before.is_empty()) {
            return Err(Error::DisruptedAlready(desk.pair.side(which).name.clone()).into());
        }
    }
    Ok(targets)
}

/// Runs the steps at their times, until the end or an interruption, and ends what was disrupted.
async fn carry_out(desk: &Desk<'_>, schedule: &Schedule, targets: &[Option<Target>]) -> Result<Report, CtlError> {
    let mut interrupts = Interrupts::listen()?;
    let (started, zero) = (jiff::Timestamp::now(), Instant::now());
    let (mut steps, mut interrupted) = (Vec::new(), false);
    for (step, target) in schedule.0.iter().zip(targets) {
        tokio::select! {
            () = sleep_until(zero + step.at) => {}
            () = interrupts.next() => {
                interrupted = true;
                break;
            }
        }
        let ran = one(desk, step, target.as_ref()).await;
        // A closed stderr must not leave a disruption behind.
        let _ = desk.terminal.talk(&format!("{:>8}  {}", humantime::format_duration(step.at), ran.sentence));
        steps.push(ran);
    }
    let mut cleared = Vec::new();
    for which in schedule.disrupted() {
        let step =
            Step { at: whole_seconds(zero.elapsed()), action: Action::Restore, cluster: which, regions: Vec::new() };
        cleared.push(one(desk, &step, None).await);
    }
    let ended = jiff::Timestamp::now();
    let passed = !interrupted && steps.iter().chain(&cleared).all(|ran| ran.ok);
    Ok(Report { started, ended, passed, interrupted, steps, cleared })
}

async fn one(desk: &Desk<'_>, step: &Step, target: Option<&Target>) -> Ran {
    let (began, clock) = (jiff::Timestamp::now(), Instant::now());
    let name = &desk.pair.side(step.cluster).name;
    let mut seen = Value::Null;
    let result = match (step.action, target) {
        (Action::Disrupt, Some(target)) => match disrupt::disrupt(&desk.pair, target).await {
            Ok(_) => Ok(format!("{name} is disrupted in {}", target.regions.join(", "))),
            Err(error) => Err(error),
        },
        (Action::Disrupt, None) => Ok(String::new()),
        (Action::Restore, _) => {
            disrupt::clear(&desk.pair, step.cluster).await.map(|()| format!("{name} is not disrupted"))
        }
        (Action::Status, _) => {
            let view = look::view(&desk.pair).await;
            seen = serde_json::to_value(&view).unwrap_or_default();
            let sql = view.clusters.iter().map(|cluster| {
                let sql = cluster.sql.as_ref().map_or("no address known", |sql| sql.answer.words());
                format!("{} {sql}", cluster.name)
            });
            Ok(sql.collect::<Vec<_>>().join(", "))
        }
    };
    let (ok, sentence) = match result {
        Ok(sentence) => (true, sentence),
        Err(error) => (false, error.to_string()),
    };
    let took_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ran { step: step.clone(), began, took_ms, ok, sentence, seen }
}

fn planned(desk: &Desk<'_>, schedule: &Schedule) -> Receipt {
    let step = |step: &Step| {
        let at = humantime::format_duration(step.at);
        let name = &desk.pair.side(step.cluster).name;
        match step.action {
            Action::Disrupt if step.regions.is_empty() => format!("at {at}: disrupt {name}"),
            Action::Disrupt => format!("at {at}: disrupt {name} in {}", step.regions.join(", ")),
            Action::Restore => format!("at {at}: end every disruption of {name}"),
            Action::Status => format!("at {at}: look"),
        }
    };
    let mut steps: Vec<String> = schedule.0.iter().map(step).collect();
    steps.push("end every disruption that is left".to_owned());
    let hit: Vec<String> = schedule.disrupted().iter().map(|which| desk.pair.side(*which).name.to_string()).collect();
    let hit =
        if hit.is_empty() { "nothing is disrupted".to_owned() } else { format!("it disrupts {}", hit.join(", ")) };
    plan(format!("running {} steps; {hit}", schedule.0.len()), steps)
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
