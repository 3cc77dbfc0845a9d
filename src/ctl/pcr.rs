//! The commands about physical cluster replication: what they are attached to (the pair of clusters, and the daemon
//! that leads it if there is one), the question before a change, the wait with its progress. What is done to the
//! clusters is `crate::pcr`'s; traffic is moved through the daemon.

mod automated;
mod failback;
pub(super) mod failover;
mod full;
mod meter;
mod settings;
mod setup;
mod simulate;
pub(super) mod status;
mod trial;

use std::time::Duration;

use tokio::sync::Mutex;

use super::act;
use super::api::{Api, ApiError};
use super::args::Global;
use super::args::pcr::Pcr as Command;
use super::target::{self, Environment, Target};
use super::terminal::Terminal;
use super::{CtlError, Done, Misuse};
use crate::cockroach_cloud::model::{ReplicationStream, StreamId};
use crate::config::Config;
use crate::config::source::{self, ConfigError};
use crate::failover::action::Receipt;
use crate::pcr::failback::Aim;
use crate::pcr::silence::{Ended, Vigil};
use crate::pcr::wait::{self, Until};
use crate::pcr::{Error, Pair, Side, Survey, Which};
use crate::view::{BackendStatus, ServiceStatus, Status};
use meter::{Interrupts, Meter};

/// Between two looks whether somebody has answered.
const KEY: Duration = Duration::from_millis(50);

/// What a command works on, and how.
struct Desk<'a> {
    pair: Pair,
    daemon: Option<Daemon>,
    global: &'a Global,
    terminal: &'a Terminal,
    /// From the first wait on: a Ctrl-C between two waits counts for the next one.
    interrupts: Mutex<Option<Interrupts>>,
}

/// A daemon that leads this very pair.
struct Daemon {
    api: Api,
    service: ServiceStatus,
}

/// Runs one of them.
pub(super) async fn run(
    command: &Command,
    global: &Global,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<Done, CtlError> {
    // Without --execute it is only words, and with it only one cluster counts.
    if let Command::Settings { setting, value, reset, execute, dry_run } = command {
        let value = if *reset { None } else { value.as_deref() };
        return settings::run(terminal, global, setting, value, *execute, *dry_run).await;
    }
    let desk = Desk::open(global, environment, terminal).await?;
    match command {
        Command::Setup { dry_run } => setup::run(&desk, *dry_run).await,
        Command::Failback { action } => failback::run(&desk, action).await,
        Command::Simulate { action } => simulate::run(&desk, action).await,
        Command::Test { action } => trial::run(&desk, action).await,
        Command::Debug { path } => settings::debug(&desk, path.as_deref()).await,
        Command::Settings { .. } => Ok(Done::Misuse),
    }
}

impl<'a> Desk<'a> {
    /// Reads the configuration, and looks for a daemon that leads the pair.
    async fn open(global: &'a Global, environment: &Environment, terminal: &'a Terminal) -> Result<Self, CtlError> {
        let config = load(global, terminal)?;
        let mut pair = Pair::build(&config, global.service.as_deref())?;
        let daemon = find_daemon(&mut pair, &config, global, environment, terminal).await?;
        Ok(Self { pair, daemon, global, terminal, interrupts: Mutex::new(None) })
    }

    /// The side that clients are sent to: by the daemon's word at the start, else by the streams.
    fn active(&self, survey: &Survey) -> Result<Which, Error> {
        match &self.daemon {
            None => Ok(survey.active(&self.pair)),
            Some(daemon) => self.led_to(Some(&daemon.service)),
        }
    }

    /// The same by the daemon's word of now: for what cannot be taken back, that of a while ago is not enough.
    async fn active_now(&self, survey: &Survey) -> Result<Which, CtlError> {
        let Some(daemon) = &self.daemon else { return Ok(survey.active(&self.pair)) };
        let status = daemon.api.status().await?;
        Ok(self.led_to(status.services.iter().find(|service| service.name == self.pair.service))?)
    }

    fn led_to(&self, service: Option<&ServiceStatus>) -> Result<Which, Error> {
        let active = service.and_then(|service| service.active.as_ref()).and_then(|name| self.pair.named(name));
        active.ok_or(Error::NoActive)
    }

    /// What a failback goes to.
    fn aim(&self) -> Aim {
        Aim { at: None, most: self.pair.max_lag }
    }

    fn patience(&self) -> Duration {
        self.global.timeout.unwrap_or(act::CLUSTERS)
    }

    /// Shows what would happen, and asks. `Some` = do not go on.
    fn propose(&self, plan: &Receipt, dry_run: bool) -> Result<Option<Done>, CtlError> {
        if dry_run {
            act::show_plan(self.terminal, plan)?;
            return Ok(Some(Done::Yes));
        }
        self.terminal.talk(&act::planned(plan))?;
        if act::agreed(self.terminal, self.global)? {
            return Ok(None);
        }
        self.terminal.talk("nothing was done")?;
        Ok(Some(Done::No))
    }

    /// Waits for a stream. `None` = whoever sat there does not wait any longer.
    async fn wait(&self, id: StreamId, until: Until) -> Result<Option<ReplicationStream>, CtlError> {
        let mut meter = Meter::new(self.terminal);
        let mut watch = |progress: &crate::pcr::Progress| meter.show(progress);
        let waiting = wait::until(&self.pair, id, until, self.patience(), &mut watch);
        let waited = self.unless_interrupted(waiting).await?;
        match waited {
            Some(waited) => Ok(Some(waited?)),
            None => {
                drop(meter);
                let sentence =
                    "not waiting any longer; the stream goes on by itself: run the same command again to take it up";
                match self.terminal.json {
                    true => self.say(sentence, serde_json::json!({ "outcome": "under_way" }))?,
                    false => self.terminal.talk(sentence)?,
                }
                Ok(None)
            }
        }
    }

    /// Waits until the primary counts as silent. `None` = whoever sat there does not wait any longer.
    async fn until_silent(&self, vigil: &mut Vigil<'_>) -> Result<Option<Ended>, CtlError> {
        let mut meter = Meter::new(self.terminal);
        let mut watch = |progress: &crate::pcr::Progress| meter.show(progress);
        let ended = self.unless_interrupted(vigil.silence(self.patience(), &mut watch)).await?;
        match ended {
            Some(ended) => Ok(Some(ended?)),
            None => {
                drop(meter);
                let sentence = "not waiting any longer; nothing was done";
                match self.terminal.json {
                    true => self.say(sentence, serde_json::json!({ "outcome": "cancelled" }))?,
                    false => self.terminal.talk(sentence)?,
                }
                Ok(None)
            }
        }
    }

    /// Asks although interruptions do not end the process by now: one is a no.
    async fn ask(&self, question: &str) -> Result<bool, CtlError> {
        self.terminal.put_question(question)?;
        let answered = async {
            while !self.terminal.is_answered() {
                tokio::time::sleep(KEY).await;
            }
        };
        match self.unless_interrupted(answered).await? {
            Some(()) => Ok(self.terminal.hears_yes()?),
            None => {
                self.terminal.talk("")?;
                Ok(false)
            }
        }
    }

    /// `None` = an interruption came first, now or since the last wait.
    async fn unless_interrupted<T>(&self, wait: impl Future<Output = T>) -> Result<Option<T>, CtlError> {
        let mut interrupts = self.interrupts.lock().await;
        let interrupts = match &mut *interrupts {
            Some(interrupts) => interrupts,
            none => none.insert(Interrupts::listen()?),
        };
        tokio::select! {
            biased;
            () = interrupts.next() => Ok(None),
            done = wait => Ok(Some(done)),
        }
    }

    /// The last word: a sentence, or for machines the same with more.
    fn say(&self, sentence: &str, more: serde_json::Value) -> Result<(), CtlError> {
        if !self.terminal.json {
            let lines = super::render::wrap(sentence, super::render::WIDTH).join("\n");
            return Ok(self.terminal.result(&lines)?);
        }
        let mut all = serde_json::json!({ "sentence": sentence });
        if let (Some(all), serde_json::Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
        self.terminal.result_json(&all)
    }
}

/// A plan without an episode.
fn plan(sentence: impl Into<String>, steps: Vec<String>) -> Receipt {
    Receipt { sentence: sentence.into(), episode: None, steps }
}

/// The configuration: `--config`, or the environment and `.env` alone.
fn load(global: &Global, terminal: &Terminal) -> Result<Config, CtlError> {
    let loaded = source::load(global.config.as_deref()).map_err(Misuse::from)?;
    for warning in &loaded.warnings {
        terminal.talk(&format!("warning: {warning}"))?;
    }
    Ok(loaded.config)
}

/// Nothing in the environment or `.env` is about a service, as opposed to something wrong with it.
fn says_nothing(error: &ConfigError) -> bool {
    error.problems.iter().all(|problem| problem.path == "service")
}

/// The daemon that is named, or the one where the configuration has it, if it leads this pair.
async fn find_daemon(
    pair: &mut Pair,
    config: &Config,
    global: &Global,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<Option<Daemon>, CtlError> {
    let named = target::is_named(global, environment);
    let target = match named {
        true => Target::choose(global, environment),
        false => Target::of(&config.admin),
    };
    let target = target.map_err(Misuse::from)?;
    let api = Api::new(target, target::token(global, environment)?, environment.user.clone());
    let status = match api.status().await {
        Ok(status) => status,
        // Only one that was named must be there.
        Err(ApiError::Unreachable { .. } | ApiError::NotPgpivot { .. }) if !named => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match led(&status, pair) {
        Some(service) => {
            terminal.talk(&format!("with the daemon at {}", api.target()))?;
            Ok(Some(Daemon { service: service.clone(), api }))
        }
        None => {
            terminal
                .talk(&format!("the daemon at {} leads another pair, so this is done without one", api.target()))?;
            Ok(None)
        }
    }
}

/// The daemon's service that leads these clusters, whatever it calls them: from here on the pair bears its names, since
/// that is how the daemon is spoken to.
fn led<'s>(status: &'s Status, pair: &mut Pair) -> Option<&'s ServiceStatus> {
    let called = |service: &ServiceStatus, side: &Side| {
        let id = side.id.to_string();
        let its = |backend: &&BackendStatus| backend.cluster_id.as_deref() == Some(id.as_str());
        service.backends.iter().find(its).map(|backend| backend.name.clone())
    };
    let names = |service| Some((called(service, &pair.primary)?, called(service, &pair.standby)?));
    let (service, (primary, standby)) = status.services.iter().find_map(|service| Some((service, names(service)?)))?;
    (pair.primary.name, pair.standby.name) = (primary, standby);
    pair.service.clone_from(&service.name);
    Some(service)
}

#[cfg(test)]
mod tests;
