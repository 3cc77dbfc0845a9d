//! Commands that change something: show what would happen, ask, order, wait until it is so, say how it ended.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::Api;
use super::args::Global;
use super::render::{WIDTH, duration, plain, wrap};
use super::terminal::Terminal;
use super::wait::{self, Ended, Goal, Watched};
use super::{CtlError, Done, Misuse, one_service, services};
use crate::failover::action::{Command, Receipt};
use crate::failover::phase::BackendState;
use crate::types::BackendName;
use crate::view::ServiceStatus;
use crate::view::sides::COCKROACH;

/// How long is waited unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same where clusters are promoted: the vendor takes minutes, and may take many.
pub(super) const CLUSTERS: Duration = Duration::from_secs(3600);

/// A command and how it is to be handled.
#[derive(Debug)]
pub(super) struct Order {
    /// What is wanted.
    pub(super) command: Command,
    /// Show it only.
    pub(super) dry_run: bool,
}

impl Order {
    /// The last part of its path.
    pub(super) fn verb(&self) -> &'static str {
        match self.command {
            Command::Failover { .. } => "trigger",
            Command::Switchover { .. } => "switchover",
            Command::Restore { .. } => "restore",
            Command::Adopt { .. } => "adopt",
            Command::Rejoin { .. } => "rejoin",
            Command::Abandon { .. } => "abandon",
            Command::SetState { .. } => "backend",
            Command::Pause => "pause",
            Command::Resume => "resume",
            Command::CheckHealth => "check-health",
        }
    }

    /// It concerns one service.
    fn is_specific(&self) -> bool {
        !matches!(self.command, Command::Pause | Command::Resume | Command::CheckHealth)
    }

    /// It changes a database, or where clients go that are connected.
    fn asks(&self) -> bool {
        let stay = matches!(&self.command, Command::SetState { state, .. } if *state != BackendState::Maint);
        self.is_specific() && !stay
    }

    /// How long is waited unless told otherwise.
    fn patience(&self, chosen: &[&ServiceStatus]) -> Duration {
        let promotes =
            matches!(self.command, Command::Failover { .. } | Command::Switchover { .. } | Command::Restore { .. });
        let clusters = |service: &&ServiceStatus| service.kind == COCKROACH && service.replication.is_some();
        if promotes && chosen.iter().any(clusters) { CLUSTERS } else { PATIENCE }
    }

    /// When it is done, if the receipt does not name an episode.
    fn goal(&self, receipt: &Receipt) -> Option<Goal> {
        if let Some(episode) = receipt.episode {
            return Some(Goal::Episode(episode.0));
        }
        match &self.command {
            Command::Adopt { backend } => Some(Goal::Active(backend.clone())),
            Command::Abandon { .. } => Some(Goal::NoEpisode),
            Command::Pause => Some(Goal::Paused(true)),
            Command::Resume => Some(Goal::Paused(false)),
            // No episode: it is so already, and the receipt says it.
            Command::Failover { .. }
            | Command::Switchover { .. }
            | Command::Restore { .. }
            | Command::Rejoin { .. }
            | Command::SetState { .. }
            | Command::CheckHealth => None,
        }
    }

    /// The fields of the command; its name is in the path.
    pub(super) fn body(&self, reason: Option<&str>) -> Result<Value, CtlError> {
        let mut body = serde_json::to_value(&self.command)?;
        if let Some(fields) = body.as_object_mut() {
            fields.remove("command");
            if let Command::Failover { at: Some(at), .. } = &self.command {
                // As people write it.
                let at = jiff::Timestamp::from_microsecond(at.0).map(|at| at.to_string());
                fields.insert("at".into(), at.unwrap_or_default().into());
            }
            fields.extend(reason.map(|r| ("reason".to_owned(), r.into())));
        }
        Ok(body)
    }
}

/// Carries it out, from the dry run to the last sentence.
pub(super) async fn run(api: &Api, terminal: &Terminal, global: &Global, order: &Order) -> Result<Done, CtlError> {
    let status = api.status().await?;
    // What moves traffic is for one service; the rest is for all unless one is named.
    let chosen = match order.is_specific() {
        true => vec![one_service(&status, global.service.as_deref())?],
        false => services(&status, global.service.as_deref())?,
    };
    let name = match chosen.as_slice() {
        [one] => Some(one.name.clone()),
        _ => None,
    };
    let body = order.body(global.reason.as_deref())?;
    if order.asks() || order.dry_run {
        let plan = api.command(name.as_ref(), order.verb(), &body, true).await?;
        if order.dry_run {
            show_plan(terminal, &plan)?;
            return Ok(Done::Yes);
        }
        // Without steps and without a question the receipt says it all.
        if !global.yes || !plan.steps.is_empty() {
            terminal.talk(&planned(&plan))?;
        }
        if !agreed(terminal, global)? {
            terminal.talk("nothing was done")?;
            return Ok(Done::No);
        }
    }
    let began = Instant::now();
    let receipt = api.command(name.as_ref(), order.verb(), &body, false).await?;
    let Some(goal) = order.goal(&receipt) else {
        say(terminal, "done", &receipt, &receipt.sentence, None)?;
        return Ok(Done::Yes);
    };
    let watched = Watched { services: chosen.iter().map(|s| (s.name.clone(), s.epoch)).collect(), goal };
    let patience = global.timeout.unwrap_or_else(|| order.patience(&chosen));
    let ended = wait::until(api, terminal, &watched, patience).await?;
    let ended = match (ended, &order.command) {
        // That is what was asked for.
        (Ended::Cancelled { sentence }, Command::Abandon { .. }) => Ended::Done { sentence, took: None },
        (ended, _) => ended,
    };
    last_word(terminal, &receipt, ended, began.elapsed())
}

/// Whether to go on: `--yes`, or the answer of whoever sits there.
pub(super) fn agreed(terminal: &Terminal, global: &Global) -> Result<bool, CtlError> {
    match (global.yes, terminal.interactive) {
        (true, _) => Ok(true),
        (false, true) => Ok(terminal.ask("Go on?")?),
        (false, false) => Err(Misuse::NobodyToAsk.into()),
    }
}

/// The result of `--dry-run`.
pub(super) fn show_plan(terminal: &Terminal, plan: &Receipt) -> Result<(), CtlError> {
    match terminal.json {
        true => terminal.result_json(plan),
        false => Ok(terminal.result(&planned(plan))?),
    }
}

/// What would happen: the sentence and the numbered steps.
pub(super) fn planned(plan: &Receipt) -> String {
    let mut text = wrap(&plan.sentence, WIDTH).join("\n");
    for (i, step) in plan.steps.iter().enumerate() {
        // To be typed as it stands.
        if step.starts_with("$ ") {
            text.push_str(&format!("\n    {step}"));
            continue;
        }
        let number = format!("{:>4}. ", i + 1);
        let lines = wrap(step, WIDTH - number.len());
        text.push_str(&format!("\n{number}{}", lines.join(&format!("\n{:1$}", "", number.len()))));
    }
    text
}

fn last_word(terminal: &Terminal, receipt: &Receipt, ended: Ended, waited: Duration) -> Result<Done, CtlError> {
    match ended {
        Ended::Done { sentence, took } => {
            say(terminal, "done", receipt, &sentence, Some(took.unwrap_or(waited)))?;
            Ok(Done::Yes)
        }
        Ended::Cancelled { sentence } => {
            say(terminal, "cancelled", receipt, &format!("called off: {sentence}"), None)?;
            Ok(Done::No)
        }
        Ended::StillUnderWay { sentence } => {
            let sentence = format!(
                "still under way after {}; it goes on (`proxyctl status --watch` shows it): {sentence}",
                duration(waited)
            );
            say(terminal, "under_way", receipt, &sentence, None)?;
            Ok(Done::No)
        }
        Ended::Interrupted => {
            let sentence = "not waiting any longer; what was begun goes on: `proxyctl status --watch` shows it";
            match terminal.json {
                true => say(terminal, "under_way", receipt, sentence, None)?,
                false => terminal.talk(sentence)?,
            }
            Ok(Done::No)
        }
    }
}

/// The final sentence. A failure is a result too: it goes where results go.
pub(super) fn say(
    terminal: &Terminal,
    outcome: &str,
    receipt: &Receipt,
    sentence: &str,
    took: Option<Duration>,
) -> Result<(), CtlError> {
    if terminal.json {
        let took = took.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        return terminal.result_json(
            &json!({ "outcome": outcome, "sentence": sentence, "episode": receipt.episode, "took_ms": took }),
        );
    }
    let took = took.filter(|t| !tells(sentence, *t)).map(|t| format!(" (took {})", duration(t))).unwrap_or_default();
    Ok(terminal.result(&format!("{}{took}", plain(sentence)))?)
}

/// The daemon's sentence has the duration in it already.
fn tells(sentence: &str, took: Duration) -> bool {
    sentence.contains(&duration(took)) || sentence.contains(&format!("{} ms", took.as_millis()))
}

/// A backend's name from the command line.
pub(super) fn backend(name: &Option<String>) -> Option<BackendName> {
    name.as_deref().map(BackendName::new)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ctl::args::Args;
    use crate::ctl::{commands, sample};
    use crate::view::ReplicationStatus;

    fn patience(line: &str, service: &ServiceStatus) -> Duration {
        let args = Args::try_parse_from(["proxyctl"].into_iter().chain(line.split_whitespace())).unwrap();
        commands::order(&args.command).unwrap().patience(&[service])
    }

    #[test]
    fn a_promotion_of_clusters_is_waited_for_as_long_as_the_help_says() {
        let servers = sample::steady().services.remove(0);
        let replication = ReplicationStatus {
            source: "cloud_api".into(),
            read_at: None,
            trouble: None,
            usual_lag_ms: 0,
            streams: Vec::new(),
        };
        let routed = ServiceStatus { kind: "cockroach".into(), ..servers.clone() };
        let clusters = ServiceStatus { replication: Some(replication), ..routed.clone() };
        for line in ["failover", "switchover", "restore", "restore --force"] {
            assert_eq!(patience(line, &clusters), Duration::from_secs(3600), "{line}");
            assert_eq!(patience(line, &servers), Duration::from_secs(120), "{line}");
            assert_eq!(patience(line, &routed), Duration::from_secs(120), "{line}");
        }
        assert_eq!(patience("pause", &clusters), Duration::from_secs(120));
    }
}
