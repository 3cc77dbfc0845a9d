//! The daemon's command line: `pgpivot [--config FILE]`, `--check FILE`, `--reference`, `pgpivot demo`. The work is the library's.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pgpivot::daemon::{self, Options, Source, signals, telemetry};
use tokio_util::sync::CancellationToken;

/// Keeps applications connected to the active side of a database pair.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Without --config the environment alone must do. Signals: SIGHUP reloads, SIGTERM drains and ends.\n\n\
    Example: pgpivot --config /etc/pgpivot/pgpivot.toml"
)]
struct Args {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read and validate a configuration, print what it means, and end: 0 = good, 2 = problems.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// Print every key of the configuration and every variable, with values and defaults, as Markdown.
    #[arg(long, conflicts_with_all = ["config", "check"])]
    reference: bool,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// A primary and a standby in a temporary folder, the proxy in front, and a writer: try a failover.
    Demo(pgpivot::demo::Options),
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.reference {
        return say(&pgpivot::config::reference::markdown(), 0);
    }
    if let Some(path) = args.check {
        let report = pgpivot::config::report::check(Some(&path));
        return say(&report.text, report.exit);
    }
    if let Some(Sub::Demo(args)) = args.command {
        return pgpivot::demo::run(&args);
    }
    let _log = telemetry::install(false);
    match serve(Source { path: args.config }) {
        Ok(code) => code,
        Err(error) => {
            // Each error tells its cause itself.
            for line in error.to_string().lines() {
                tracing::error!("{line}");
            }
            ExitCode::from(exit_code(&error))
        }
    }
}

#[expect(clippy::print_stdout, reason = "the text is the command's result")]
fn say(text: &str, exit: u8) -> ExitCode {
    print!("{text}");
    ExitCode::from(exit)
}

fn serve(source: Source) -> anyhow::Result<ExitCode> {
    let config = daemon::load(&source).map_err(daemon::DaemonError::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (stop, halt) = (CancellationToken::new(), CancellationToken::new());
        let (reloads, signals) = signals::listen(stop.clone(), halt.clone())?;
        let options = Options { config, source: Some(source), stop, halt, reloads, notify: true };
        let report = daemon::run(options).await?;
        signals.abort();
        tracing::info!(ended = report.ended, cut = report.cut, "stopped");
        Ok(ExitCode::SUCCESS)
    })
}

/// 2 = the configuration or what it names is wrong; 1 = anything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<daemon::DaemonError>() {
        Some(daemon::DaemonError::Config(_)) => 2,
        _ => 1,
    }
}
