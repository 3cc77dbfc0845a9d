//! From the arguments to the one function that carries each subcommand out.

use std::net::SocketAddr;

use super::act::{self, Order, backend};
use super::api::Api;
use super::args::{self, Args, Command, Global, Method};
use super::connection_string::{self, Wanted};
use super::target::{self, Environment, Target};
use super::terminal::Terminal;
use super::{
    CtlError, Done, admin_state, explain, history, monitor, one_service, pcr, rejoin, service, services, status, watch,
};
use crate::failover::action::Command as Ordered;
use crate::failover::phase::{BackendState, Method as Way};
use crate::types::{BackendName, WallTime};

/// Runs one subcommand.
pub(super) async fn run(args: &Args, environment: &Environment, terminal: &Terminal) -> Result<Done, CtlError> {
    let (global, service) = (&args.global, args.global.service.as_deref());
    match &args.command {
        // These need no daemon.
        Command::CheckConfig { file } => return check_config(terminal, file.as_deref()),
        Command::Explain { graph: true } => return shown(terminal.result(&explain::graph())),
        // These bring a daemon of their own if they find one.
        Command::Pcr(command) => return pcr::run(command, global, environment, terminal).await,
        _ => {}
    }
    let mut ours = Vec::new();
    let target = match &global.config {
        Some(file) if !target::is_named(global, environment) => listens(file)?,
        // The daemon that the same environment and `.env` start; what is wrong with them is not these commands' matter.
        None if !target::is_named(global, environment) => match crate::config::source::load(None) {
            Ok(loaded) => {
                let backends = loaded.config.services.iter().flat_map(|service| &service.backends);
                ours.extend(backends.filter_map(|backend| backend.cluster_id.clone()));
                Target::of(&loaded.config.admin).map_err(super::Misuse::from)?
            }
            Err(_) => Target::choose(global, environment).map_err(super::Misuse::from)?,
        },
        _ => Target::choose(global, environment).map_err(super::Misuse::from)?,
    };
    let token = target::token(global, environment)?;
    if let Command::Service { port, listen } = &args.command {
        let variables = crate::config::source::variables().map_err(service::ServiceError::from)?;
        let listen = SocketAddr::new(*listen, *port);
        let (daemon, service) = (target.to_string(), global.service.clone());
        return service::run(terminal, service::Start { listen, daemon, service, token, variables }).await;
    }
    let api = Api::new(target, token, environment.user.clone());
    if let Command::Monitor = &args.command {
        let named = target::is_named(global, environment);
        return monitor::run(&api, named, terminal, global).await;
    }
    if let Some(order) = order(&args.command) {
        leads(&api, ours).await?;
        return match rejoin::run(&api, terminal, global, &order).await {
            Err(error) => pcr::failover::without_daemon(error, &args.command, global, environment, terminal).await,
            done => done,
        };
    }
    match &args.command {
        Command::Status { watch: true } => watch::run(&api, terminal, service).await,
        Command::Status { watch: false } => match show_status(&api, terminal, service).await {
            Err(CtlError::Api(error)) => pcr::status::without_daemon(error, global, environment, terminal).await,
            shown => shown,
        },
        Command::History { verify: true, .. } => verify(&api, terminal).await,
        Command::History { limit, verify: false } => {
            let lines = api.history(service, *limit).await?;
            match terminal.json {
                true => lines.iter().try_for_each(|line| terminal.result_json(line))?,
                false => terminal.result(&history::render(&lines, terminal.paint))?,
            }
            Ok(Done::Yes)
        }
        Command::Backend { place, .. } => admin_state::show(&api, terminal, service, place.as_ref()).await,
        Command::Explain { .. } => show_explanation(&api, terminal, service).await,
        Command::Reload { dry_run } => reload(&api, terminal, *dry_run).await,
        Command::ConnectionString { format, multi_host, all, read_only, user, database, sslrootcert } => {
            let wanted = Wanted {
                format: *format,
                multi_host: *multi_host,
                all: *all,
                read_only: *read_only,
                user: user.clone(),
                database: database.clone(),
                sslrootcert: sslrootcert.clone(),
            };
            connection_line(&api, terminal, global, &wanted).await
        }
        _ => Ok(Done::Misuse),
    }
}

/// Every pair has its daemon at the same port unless told otherwise: an order for one must not move another.
async fn leads(api: &Api, clusters: Vec<String>) -> Result<(), CtlError> {
    // Whoever cannot be asked gets no order either, and says why then.
    let Ok(status) = api.status().await else { return Ok(()) };
    let led = |id: &String| {
        status
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .any(|backend| backend.cluster_id.as_ref() == Some(id))
    };
    match clusters.iter().all(led) {
        true => Ok(()),
        false => Err(super::Misuse::OtherPair { daemon: api.target().to_string(), clusters }.into()),
    }
}

/// Where the daemon of that configuration listens.
fn listens(file: &std::path::Path) -> Result<Target, super::Misuse> {
    let admin = crate::config::source::load(Some(file))?.config.admin;
    Ok(Target::of(&admin)?)
}

/// The commands that go to the decision core.
pub(super) fn order(command: &Command) -> Option<Order> {
    let (command, dry_run) = match command {
        Command::Failover { to, route_only, force, at, dry_run } => {
            let at = at.map(|at| WallTime(at.as_microsecond()));
            (Ordered::Failover { to: backend(to), force: *force, route_only: *route_only, at }, *dry_run)
        }
        Command::Switchover { to, dry_run } => (Ordered::Switchover { to: backend(to) }, *dry_run),
        Command::Restore { to, force, dry_run } => (Ordered::Restore { to: backend(to), force: *force }, *dry_run),
        Command::Adopt { backend, dry_run } => (Ordered::Adopt { backend: BackendName::new(backend) }, *dry_run),
        Command::Rejoin { backend, method, dry_run } => {
            let method = method.map(|method| match method {
                Method::Follow => Way::Follow,
                Method::Rewind => Way::Rewind,
                Method::Basebackup => Way::BaseBackup,
            });
            (Ordered::Rejoin { backend: BackendName::new(backend), method }, *dry_run)
        }
        Command::Abandon { backend, dry_run } => (Ordered::Abandon { backend: BackendName::new(backend) }, *dry_run),
        Command::Backend { place: Some(place), state: Some(state), dry_run } => {
            let state = match state {
                args::State::Ready => BackendState::Ready,
                args::State::Drain => BackendState::Drain,
                args::State::Maint => BackendState::Maint,
            };
            let (backend, address) = (BackendName::new(&*place.backend), place.address.clone());
            (Ordered::SetState { backend, address, state }, *dry_run)
        }
        Command::Pause => (Ordered::Pause, false),
        Command::Resume => (Ordered::Resume, false),
        Command::CheckHealth => (Ordered::CheckHealth, false),
        _ => return None,
    };
    Some(Order { command, dry_run })
}

/// Is the audit trail what was written?
async fn verify(api: &Api, terminal: &Terminal) -> Result<Done, CtlError> {
    let checked = api.verify_history().await?;
    match terminal.json {
        true => terminal.result_json(&checked)?,
        false => terminal.result(&history::render_chains(&checked.pairs))?,
    }
    Ok(if checked.whole { Done::Yes } else { Done::No })
}

fn shown(written: std::io::Result<()>) -> Result<Done, CtlError> {
    written?;
    Ok(Done::Yes)
}

pub(super) async fn show_status(api: &Api, terminal: &Terminal, service: Option<&str>) -> Result<Done, CtlError> {
    let status = api.status().await?;
    let chosen = services(&status, service)?;
    match (terminal.json, service) {
        (true, None) => terminal.result_json(&status)?,
        (true, Some(_)) => chosen.iter().try_for_each(|s| terminal.result_json(s))?,
        (false, _) => terminal.result(&status::render(&status, &chosen, terminal.paint))?,
    }
    Ok(Done::Yes)
}

async fn show_explanation(api: &Api, terminal: &Terminal, service: Option<&str>) -> Result<Done, CtlError> {
    let status = api.status().await?;
    let chosen = services(&status, service)?;
    match terminal.json {
        true => chosen.iter().try_for_each(|s| terminal.result_json(&explain::json(s)))?,
        false => terminal.result(&explain::render(&status, &chosen, terminal.paint))?,
    }
    Ok(Done::Yes)
}

async fn reload(api: &Api, terminal: &Terminal, dry_run: bool) -> Result<Done, CtlError> {
    let receipt = api.reload(dry_run).await?;
    act::show_plan(terminal, &receipt)?;
    Ok(Done::Yes)
}

async fn connection_line(api: &Api, terminal: &Terminal, global: &Global, wanted: &Wanted) -> Result<Done, CtlError> {
    let status = api.status().await?;
    let service = one_service(&status, global.service.as_deref())?;
    let built = connection_string::build(service, api.target(), wanted)?;
    built.talk.iter().try_for_each(|line| terminal.talk(line))?;
    let line = built.line;
    match terminal.json {
        true => terminal.result_json(&serde_json::json!({ "connection_string": line }))?,
        false => terminal.result(&line)?,
    }
    Ok(Done::Yes)
}

/// The same check, output and code as `pgpivot --check`.
fn check_config(terminal: &Terminal, file: Option<&std::path::Path>) -> Result<Done, CtlError> {
    let report = crate::config::report::check(file);
    let ok = report.exit == 0;
    match terminal.json {
        true => {
            terminal.result_json(&serde_json::json!({ "ok": ok, "problems": report.problems, "text": report.text }))?
        }
        false => terminal.result(&report.text)?,
    }
    Ok(if ok { Done::Yes } else { Done::Misuse })
}
