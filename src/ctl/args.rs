//! What may be typed. Holds no behaviour but the reading of a duration.

pub(super) mod pcr;

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand, ValueEnum};

use crate::types::HostPort;

const ENVIRONMENT: &str = "\
Environment:
  PGPIVOT_URL    the daemon [default: http://127.0.0.1:8404]
  PGPIVOT_TOKEN  the bearer token for calls that change something
  NO_COLOR       no colors

Results go to stdout, talk to stderr.
Exit codes: 0 done, 1 refused or failed, 2 misuse or unreachable.";

/// Look at a pgpivot daemon and command it.
#[derive(Debug, Parser)]
#[command(name = "proxyctl", version, after_help = ENVIRONMENT, max_term_width = 80)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Global {
    /// http://host:port or unix:///path
    #[arg(long, global = true, value_name = "URL", conflicts_with = "socket", help_heading = "Daemon")]
    pub(super) url: Option<String>,
    /// The daemon's unix socket, instead of --url
    #[arg(long, global = true, value_name = "PATH", help_heading = "Daemon")]
    pub(super) socket: Option<PathBuf>,
    /// File with the bearer token, alone or as name:token
    #[arg(long, global = true, value_name = "FILE", help_heading = "Daemon")]
    pub(super) token_file: Option<PathBuf>,
    /// Which service, where the daemon has several
    #[arg(long, global = true, value_name = "NAME", help_heading = "Daemon")]
    pub(super) service: Option<String>,
    /// Configuration file [default: the environment and .env]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Clusters")]
    pub(super) config: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long, global = true, help_heading = "Output")]
    pub(super) json: bool,
    /// Do not ask before a change
    #[arg(long, short = 'y', global = true, help_heading = "Changes")]
    pub(super) yes: bool,
    /// How long to wait [default: 2m; rejoin, clusters 1h]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration, help_heading = "Changes")]
    pub(super) timeout: Option<Duration>,
    /// A note for the history
    #[arg(long, visible_alias = "note", global = true, value_name = "TEXT", help_heading = "Changes")]
    pub(super) reason: Option<String>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Which side is active, since when and why, what is next
    #[command(
        after_help = "Examples:\n  proxyctl status\n  proxyctl status --watch\n  proxyctl status --watch --json | jq .services[0].phase"
    )]
    Status {
        /// Go on and show every change; with --json one line each
        #[arg(long, short = 'w')]
        watch: bool,
    },
    /// Watch check by check; decide too, where no daemon answers
    #[command(after_help = "Examples:\n  proxyctl monitor\n  proxyctl monitor --config /etc/pgpivot/pgpivot.toml")]
    Monitor,
    /// Promote a standby because the active side is not well
    #[command(
        after_help = "Examples:\n  proxyctl failover --dry-run\n  proxyctl failover --to us-west\n  proxyctl failover --to us-west --route-only --yes"
    )]
    Failover {
        /// The backend to promote [default: the best candidate]
        #[arg(long, value_name = "BACKEND", value_parser = NonEmptyStringValueParser::new())]
        to: Option<String>,
        /// Move traffic without promoting (a living side is fenced)
        #[arg(long)]
        route_only: bool,
        /// Override witness, lag, cool-down and budget
        #[arg(long)]
        force: bool,
        /// Clusters: fail over to this moment
        #[arg(long, value_name = "TIME")]
        at: Option<jiff::Timestamp>,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Swap the sides while both are healthy, without loss
    #[command(after_help = "Examples:\n  proxyctl switchover --dry-run\n  proxyctl switchover --to us-west")]
    Switchover {
        /// The backend to promote [default: the best candidate]
        #[arg(long, value_name = "BACKEND", value_parser = NonEmptyStringValueParser::new())]
        to: Option<String>,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Bring traffic home to the configured primary
    #[command(
        after_help = "Examples:\n  proxyctl restore --dry-run\n  proxyctl restore --yes --reason \"disk replaced\""
    )]
    Restore {
        /// The backend to return to [default: the configured primary]
        #[arg(long, value_name = "BACKEND", value_parser = NonEmptyStringValueParser::new())]
        to: Option<String>,
        /// Clusters: although what was written since is missing there
        #[arg(long)]
        force: bool,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Latch a backend that proves to be the only primary
    #[command(after_help = "Example:\n  proxyctl adopt us-west")]
    Adopt {
        /// The backend
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        backend: String,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Make an old primary a standby again
    #[command(after_help = REJOIN)]
    Rejoin {
        /// The old primary
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        backend: String,
        /// rewind, basebackup or follow [default: what it needs]
        #[arg(long, value_enum, hide_possible_values = true)]
        method: Option<Method>,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// End a pending promotion: its target is switched off
    #[command(after_help = "Example:\n  proxyctl abandon us-west --reason \"machine is off\"")]
    Abandon {
        /// The target that is off
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        backend: String,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show who takes newcomers, or change it: ready, drain, maint
    #[command(after_help = BACKEND)]
    Backend {
        /// NAME, or NAME/ADDRESS for one address of it
        #[arg(value_name = "NAME")]
        place: Option<Place>,
        /// Omitted: show it
        #[arg(value_enum, requires = "place")]
        state: Option<State>,
        /// Show what would happen, and change nothing
        #[arg(long, requires = "state")]
        dry_run: bool,
    },
    /// Stop new automatic decisions
    #[command(after_help = "Example:\n  proxyctl pause --reason \"network maintenance\"")]
    Pause,
    /// Allow automatic decisions again
    #[command(after_help = "Example:\n  proxyctl resume")]
    Resume,
    /// What happened: decisions, evidence, steps, durations
    #[command(
        after_help = "Examples:\n  proxyctl history\n  proxyctl history --limit 200 --json\n  proxyctl history --verify"
    )]
    History {
        /// How many lines at most
        #[arg(long, short = 'n', default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Check that it is what was written, all of it
        #[arg(long, conflicts_with = "limit")]
        verify: bool,
    },
    /// Probe every backend now
    #[command(after_help = "Example:\n  proxyctl check-health")]
    CheckHealth,
    /// Read the configuration again, as SIGHUP does
    #[command(
        after_help = "Examples:\n  proxyctl check-config /etc/pgpivot/pgpivot.toml && proxyctl reload\n  proxyctl reload --dry-run"
    )]
    Reload {
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Check a configuration file, without a daemon
    #[command(after_help = "Example:\n  proxyctl check-config /etc/pgpivot/pgpivot.toml")]
    CheckConfig {
        /// The file [default: the environment alone]
        file: Option<PathBuf>,
    },
    /// The evidence in words: seen, next, missing
    #[command(after_help = "Examples:\n  proxyctl explain\n  proxyctl explain --graph > graph.mmd")]
    Explain {
        /// Print the graph of the decision core, without a daemon
        #[arg(long)]
        graph: bool,
    },
    /// The line an application connects with
    #[command(
        after_help = "Examples:\n  proxyctl connection-string --user app --database shop\n  proxyctl connection-string --format jdbc\n  eval \"$(proxyctl connection-string --format env)\" && psql"
    )]
    ConnectionString {
        /// uri, jdbc or env (lines for a shell) [default: uri]
        #[arg(long, value_enum, default_value_t, hide_possible_values = true, hide_default_value = true)]
        format: Format,
        /// Name the backends themselves, past the proxy
        #[arg(long)]
        multi_host: bool,
        /// With --multi-host: unfit sides, too
        #[arg(long, requires = "multi_host")]
        all: bool,
        /// For reading from standbys
        #[arg(long)]
        read_only: bool,
        /// Who logs in
        #[arg(long)]
        user: Option<String>,
        /// Which database
        #[arg(long)]
        database: Option<String>,
        /// The file with the CAs of all sides
        #[arg(long, value_name = "FILE")]
        sslrootcert: Option<String>,
    },
    /// Tell applications by HTTP where the active side is
    #[command(after_help = SERVICE)]
    Service {
        /// Where to listen
        #[arg(long, default_value_t = 8080, value_name = "PORT")]
        port: u16,
        /// On which address
        #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
        listen: IpAddr,
    },
    #[command(flatten)]
    Pcr(pcr::Pcr),
}

const BACKEND: &str = "\
ready  takes newcomers when it is fit
drain  takes no newcomers, who is connected stays; it is not promoted
maint  as drain, and who is connected is cut after drain_timeout

It survives a restart of the daemon. Probes go on.

Examples:
  proxyctl backend
  proxyctl backend us-west drain --note \"kernel update\"
  proxyctl backend us-west/10.0.0.7:5432 maint --yes
  proxyctl backend us-west ready";

/// Whether newcomers go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum State {
    /// When it is fit
    Ready,
    /// No; who is connected stays
    Drain,
    /// No; who is connected is cut
    Maint,
}

/// A backend, or one address of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) backend: String,
    pub(super) address: Option<HostPort>,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (backend, address) = match text.split_once('/') {
            None => (text, None),
            Some((backend, address)) => {
                let address = address.parse::<HostPort>().map_err(|error| format!("the address {error}"))?;
                (backend, Some(address))
            }
        };
        if backend.is_empty() {
            return Err("no backend is named; write NAME or NAME/HOST:PORT".to_owned());
        }
        Ok(Self { backend: backend.to_owned(), address })
    }
}

const REJOIN: &str = "\
It says what the old primary needs (a restart as standby, pg_rewind or a new
base backup) and how many bytes are thrown away, runs rejoin_command, and waits
until it streams; without a rejoin_command it prints what to type. Interrupted,
the daemon goes on; typed again, it is watched again. Where no probe shows who
follows (tcp, startup, http), it states that this backend does.

Examples:
  proxyctl rejoin us-east --dry-run
  proxyctl rejoin us-east --yes --reason \"disk replaced\"
  proxyctl rejoin us-east --method basebackup";

/// How an old primary is made a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Method {
    /// Restarted as a standby
    Follow,
    /// pg_rewind
    Rewind,
    /// pg_basebackup
    Basebackup,
}

const SERVICE: &str = "\
GET /health, /connection and /clusters, as the daemon itself serves them. The
active side is the daemon's word. Where no daemon accepts connections, it is
deduced from the replication streams, if COCKROACH_API_SECRET_KEY,
PRIMARY_CLUSTER_ID and STANDBY_CLUSTER_ID are set (in the environment or .env);
that is at most 5 s old. X-DB-Username and X-DB-Password go back to a caller
on this machine; DB_USERNAME and DB_PASSWORD to one that shows the token, too.
It serves until SIGTERM.

Example:
  proxyctl service --port 8080
  curl -H 'X-DB-Username: app' http://localhost:8080/connection";

/// Forms of a connection string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// postgresql://…, for libpq and most drivers
    #[default]
    Uri,
    /// jdbc:postgresql://…
    Jdbc,
    /// export PGHOST=… lines, for a shell
    Env,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(d) if !d.is_zero() => Ok(d),
        _ => Err("write for example 30s or 2m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_an_example_in_its_help() {
        let mut command = Args::command();
        command.build();
        for line in command.render_help().to_string().lines() {
            assert!(line.chars().count() <= 80, "too wide: {line}");
        }
        for sub in command.get_subcommands_mut() {
            let name = sub.get_name().to_owned();
            if name == "help" {
                continue;
            }
            let help = sub.render_help().to_string();
            assert!(
                help.contains(&format!("  proxyctl {name}")) || help.contains(&format!("(proxyctl {name}")),
                "{name}: {help}"
            );
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{name}: too wide: {line}");
            }
            for action in sub.get_subcommands_mut().filter(|action| action.get_name() != "help") {
                let name = format!("{name} {}", action.get_name());
                let help = action.render_help().to_string();
                assert!(help.contains(&format!("  proxyctl {name}")), "{name}: {help}");
                for line in help.lines() {
                    assert!(line.chars().count() <= 80, "{name}: too wide: {line}");
                }
            }
        }
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        let before = Args::try_parse_from(["proxyctl", "--json", "--yes", "failover", "--to", "b"]).unwrap();
        let after = Args::try_parse_from(["proxyctl", "failover", "--to", "b", "--json", "--yes"]).unwrap();
        assert!(before.global.json && before.global.yes && after.global.json && after.global.yes);
        assert_eq!(after.global.timeout, None);
    }

    #[test]
    fn two_addresses_at_once_are_misuse() {
        let error = Args::try_parse_from(["proxyctl", "status", "--url", "http://a:1", "--socket", "/s"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_backend_without_a_name_is_none() {
        for line in [["failover", "--to="], ["switchover", "--to="], ["adopt", ""], ["rejoin", ""], ["abandon", ""]] {
            let error = Args::try_parse_from(["proxyctl"].into_iter().chain(line)).unwrap_err().to_string();
            assert!(error.contains("a value is required for"), "{line:?}: {error}");
        }
    }

    #[test]
    fn a_timeout_that_is_none_is_explained() {
        let error = Args::try_parse_from(["proxyctl", "status", "--timeout", "soon"]).unwrap_err().to_string();
        assert!(error.contains("write for example 30s or 2m"), "{error}");
    }
}
