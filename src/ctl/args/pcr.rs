//! What may be typed about physical cluster replication. Holds no behaviour.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::parse_duration;
use crate::pcr::Which;

/// The commands that speak to the CockroachDB Cloud API. They need a `.env` or `--config`, and no daemon.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Pcr {
    /// Clusters: replicate the primary to the standby
    #[command(after_help = "Examples:\n  proxyctl setup --dry-run\n  proxyctl setup --yes --timeout 90m")]
    Setup {
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Clusters: bring data and traffic home after a failover
    #[command(
        after_help = "Examples:\n  proxyctl failback status\n  proxyctl failback create-stream\n  proxyctl failback full --forward"
    )]
    Failback {
        #[command(subcommand)]
        action: Failback,
    },
    /// Clusters: disrupt a test cluster on purpose
    #[command(
        after_help = "Examples:\n  proxyctl simulate disrupt --cluster-name shop-test-east\n  proxyctl simulate restore\n  proxyctl simulate status"
    )]
    Simulate {
        #[command(subcommand)]
        action: Simulate,
    },
    /// Clusters: test connection, monitoring, failover
    #[command(
        after_help = "Examples:\n  proxyctl test connection\n  proxyctl test monitoring --interval 5s\n  proxyctl test failover --cluster-name shop-test-east"
    )]
    Test {
        #[command(subcommand)]
        action: Test,
    },
    /// Clusters: show or run SET CLUSTER SETTING
    #[command(
        after_help = "Examples:\n  proxyctl settings --setting server.time_until_store_dead --value 15m0s\n  proxyctl settings --setting server.time_until_store_dead --reset --execute"
    )]
    Settings {
        /// Its name
        #[arg(long, value_name = "NAME")]
        setting: String,
        /// What to set it to
        #[arg(long, value_name = "VALUE", conflicts_with = "reset", required_unless_present = "reset")]
        value: Option<String>,
        /// Back to its default
        #[arg(long)]
        reset: bool,
        /// Run it at PRIMARY_CLUSTER_ENDPOINT
        #[arg(long)]
        execute: bool,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Clusters: raw replies of the Cloud API
    #[command(
        after_help = "Examples:\n  proxyctl debug\n  proxyctl debug /api/v1/clusters\n  proxyctl debug --json | jq .[].status"
    )]
    Debug {
        /// A path of the API [default: all that tells of the pair]
        path: Option<String>,
    },
}

/// `failback …`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Failback {
    /// All steps: create the stream home, wait, fail back, wait
    #[command(
        after_help = "Examples:\n  proxyctl failback full\n  proxyctl failback full --forward --yes\n\nRun it again after an interruption: it goes on where it was."
    )]
    Full {
        /// At the end, replicate the primary to the standby again
        #[arg(long)]
        forward: bool,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Replicate the active side to the old primary (ERASES that)
    #[command(
        after_help = "Examples:\n  proxyctl failback create-stream --dry-run\n  proxyctl failback create-stream --yes"
    )]
    CreateStream {
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Fail the stream home over; through the daemon if there is one
    #[command(after_help = "Examples:\n  proxyctl failback initiate --dry-run\n  proxyctl failback initiate --yes")]
    Initiate {
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Where it stands, and what to type next
    #[command(after_help = "Example:\n  proxyctl failback status --json")]
    Status,
}

/// `simulate …`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Simulate {
    /// Take regions of a test cluster down
    #[command(
        after_help = "Examples:\n  proxyctl simulate disrupt\n  proxyctl simulate disrupt --cluster-name shop-test-east --region us-east-1"
    )]
    Disrupt {
        /// primary or standby [default: primary]
        #[arg(long, value_enum, default_value_t = Which::Primary, hide_possible_values = true, hide_default_value = true)]
        cluster: Which,
        /// A region, may be repeated [default: all of them]
        #[arg(long, value_name = "REGION")]
        region: Vec<String>,
        /// Its full name, instead of typing it
        #[arg(long, value_name = "NAME")]
        cluster_name: Option<String>,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// End every disruption of a cluster
    #[command(after_help = "Example:\n  proxyctl simulate restore --cluster primary")]
    Restore {
        /// primary or standby [default: primary]
        #[arg(long, value_enum, default_value_t = Which::Primary, hide_possible_values = true, hide_default_value = true)]
        cluster: Which,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// What is disrupted now
    #[command(after_help = "Example:\n  proxyctl simulate status")]
    Status {
        /// primary or standby [default: both]
        #[arg(long, value_enum, hide_possible_values = true)]
        cluster: Option<Which>,
    },
}

/// `test …`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Test {
    /// Can everything be reached and read? Changes nothing
    #[command(after_help = "Example:\n  proxyctl test connection")]
    Connection,
    /// Three looks as a monitor takes them. Changes nothing
    #[command(after_help = "Example:\n  proxyctl test monitoring --interval 5s")]
    Monitoring {
        /// Between two looks [default: HEALTH_CHECK_INTERVAL]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        interval: Option<Duration>,
    },
    /// Disrupt the primary, watch the failover, end the disruption
    #[command(
        after_help = "Examples:\n  proxyctl test failover --dry-run\n  proxyctl test failover --cluster-name shop-test-east --timeout 20m"
    )]
    Failover {
        /// The primary's full name, instead of typing it
        #[arg(long, value_name = "NAME")]
        cluster_name: Option<String>,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Run a schedule of disruptions and looks
    #[command(
        after_help = "Examples:\n  proxyctl test automated --dry-run\n  proxyctl test automated --schedule drill.toml --cluster-name shop-test-east\n\nA schedule (TOML; JSON: the list alone will do):\n  schedule = [\n    { at = \"10s\", action = \"disrupt\", cluster = \"primary\" },\n    { at = \"5m\", action = \"restore\", cluster = \"primary\" },\n    { at = \"6m\", action = \"status\" },\n  ]"
    )]
    Automated {
        /// The schedule [default: one that --dry-run shows]
        #[arg(long, value_name = "FILE")]
        schedule: Option<PathBuf>,
        /// Write the report there instead of stdout
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Full name of a cluster it disrupts; may be repeated
        #[arg(long, value_name = "NAME")]
        cluster_name: Vec<String>,
        /// Show what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl ValueEnum for Which {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Primary, Self::Standby]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.as_str()))
    }
}
