//! proxyctl: a thin, honest client of the HTTP API, and of the Cloud API where clusters replicate. It says what it will
//! do, asks before it changes a database, and waits until it is so. Decides nothing: what is allowed, and what follows, is
//! the daemon's word, or without one `pcr`'s.
//!
//! Results go to stdout, talk to stderr. Exit codes: 0 done, 1 refused or failed, 2 misuse or unreachable.

mod act;
mod admin_state;
mod api;
mod args;
mod commands;
mod connection_string;
mod explain;
mod history;
mod monitor;
mod pcr;
mod rejoin;
mod render;
mod service;
mod status;
mod target;
mod terminal;
mod wait;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::types::ServiceName;
use crate::view::dsn::DsnError;
use crate::view::{ServiceStatus, Status};

/// How a run ended, as the exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// It is as it was asked for: 0.
    Yes,
    /// Refused, declined, or it did not come to be: 1.
    No,
    /// The call made no sense: 2.
    Misuse,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    /// The daemon refused, or could not be asked.
    #[error(transparent)]
    Api(#[from] api::ApiError),
    /// The call made no sense.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The clusters, or the Cloud API.
    #[error(transparent)]
    Pcr(#[from] crate::pcr::Error),
    /// The sidecar does not start.
    #[error(transparent)]
    Service(#[from] service::ServiceError),
    /// stdout or stderr is gone.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    /// The controller could not start, or had to end.
    #[error(transparent)]
    Daemon(#[from] crate::daemon::DaemonError),
    /// A result that does not become JSON.
    #[error("cannot print the result as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What was wrong with the call, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Misuse {
    /// See [`target::TargetError`].
    #[error(transparent)]
    Target(#[from] target::TargetError),
    /// No such file, or nothing in it.
    #[error("the token file {path} {problem}")]
    TokenFile {
        /// As given.
        path: String,
        /// In words.
        problem: String,
    },
    /// `--service` is missing.
    #[error("this daemon has {} services; name one with --service: {}", .0.len(), names(.0))]
    WhichService(Vec<ServiceName>),
    /// `--service` names nobody.
    #[error("this daemon has no service {asked}; it has {}", names(.known))]
    NoSuchService {
        /// As given.
        asked: String,
        /// What there is.
        known: Vec<ServiceName>,
    },
    /// The daemon that was found is another pair's.
    #[error(
        "the daemon at {daemon} does not lead the clusters that the environment or .env names ({}): nothing was done; name the daemon with --url",
        .clusters.join(", ")
    )]
    OtherPair {
        /// Where it is.
        daemon: String,
        /// The ids that were looked for.
        clusters: Vec<String>,
    },
    /// No such backend, or no such address of it.
    #[error("there is no backend {asked}; there are {}", .known.join(", "))]
    UnknownBackend {
        /// As given.
        asked: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Nobody is there to be asked.
    #[error(
        "this changes the database, and there is no terminal to ask on: nothing was done; say --yes to go on without a question"
    )]
    NobodyToAsk,
    /// The configuration of the clusters is missing or wrong.
    #[error("{0}")]
    Config(#[from] crate::config::source::ConfigError),
    /// A cluster is disrupted by its name only, and there is nobody to type it.
    #[error(
        "a cluster is disrupted only if its full name is given, and there is no terminal to ask on: nothing was done; say \
         --cluster-name {0} if that is meant"
    )]
    NobodyToName(String),
    /// The schedule of a test.
    #[error("the schedule {path}: {problem}")]
    Schedule {
        /// As given.
        path: String,
        /// In words.
        problem: String,
    },
    /// The report of a test cannot be written.
    #[error("the report {path} cannot be written: {problem}")]
    Report {
        /// As given.
        path: String,
        /// In words.
        problem: String,
    },
    /// What `debug` is to read.
    #[error("{given:?} {problem}")]
    Path {
        /// As given.
        given: String,
        /// In words.
        problem: crate::cockroach_cloud::ApiPathError,
    },
    /// `connection-string`: see [`DsnError`].
    #[error(transparent)]
    Dsn(#[from] DsnError),
    /// `connection-string` without anything to connect to.
    #[error("service {service} has no listener for {target} connections; its backends can be named with --multi-host")]
    NoListener {
        /// Of which service.
        service: ServiceName,
        /// `active` or `read_only`.
        target: &'static str,
    },
}

fn names(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

/// Runs proxyctl on the process's arguments, environment and terminal.
pub fn run() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap knows the stream: help goes to stdout, problems to stderr. A closed stream changes nothing.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let terminal = terminal::Terminal::of_process(args.global.json);
    let environment = target::Environment::of_process();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = terminal.talk(&format!("proxyctl: cannot start: {error}"));
            return ExitCode::from(2);
        }
    };
    let ended = runtime.block_on(commands::run(&args, &environment, &terminal));
    // A name that is still being resolved must not hold the exit.
    runtime.shutdown_background();
    ExitCode::from(exit_code(ended, &terminal))
}

/// Says what went wrong and chooses the code.
fn exit_code(ended: Result<Done, CtlError>, terminal: &terminal::Terminal) -> u8 {
    let error = match ended {
        Ok(Done::Yes) => return 0,
        Ok(Done::No) => return 1,
        Ok(Done::Misuse) => return 2,
        Err(error) => error,
    };
    // `proxyctl history | head` is no failure.
    if matches!(&error, CtlError::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe) {
        return 0;
    }
    let _ = terminal.problem(&error.to_string());
    match error {
        CtlError::Api(error) if error.refused() => 1,
        CtlError::Daemon(crate::daemon::DaemonError::Config(_)) => 2,
        CtlError::Pcr(error) if error.is_misuse_or_unreachable() => 2,
        CtlError::Pcr(_) => 1,
        CtlError::Api(_) | CtlError::Misuse(_) | CtlError::Service(_) => 2,
        CtlError::Output(_) | CtlError::Json(_) | CtlError::Daemon(_) => 1,
    }
}

/// The one service that is meant.
fn one_service<'s>(status: &'s Status, asked: Option<&str>) -> Result<&'s ServiceStatus, Misuse> {
    match (services(status, asked)?.as_slice(), asked) {
        ([one], _) => Ok(one),
        _ => Err(Misuse::WhichService(known(status))),
    }
}

/// All services, or the one that is named.
fn services<'s>(status: &'s Status, asked: Option<&str>) -> Result<Vec<&'s ServiceStatus>, Misuse> {
    let Some(asked) = asked else {
        return Ok(status.services.iter().collect());
    };
    match status.services.iter().find(|s| s.name.as_str() == asked) {
        Some(one) => Ok(vec![one]),
        None => Err(Misuse::NoSuchService { asked: asked.to_owned(), known: known(status) }),
    }
}

fn known(status: &Status) -> Vec<ServiceName> {
    status.services.iter().map(|s| s.name.clone()).collect()
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
