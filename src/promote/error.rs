//! Why an effect did not come about, each with what would be right.

use std::io;
use std::time::Duration;

use super::latched::Shown;
use crate::net::session::SessionError;
use crate::net::tls::TlsConfigError;
use crate::net::virtual_cluster::{State, Unreadable};
use crate::types::BackendName;

/// Why an effect did not come about.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// Nobody to log in as.
    #[error("no SQL login is configured: this takes probe kind \"sql\" or promoter \"postgres\"")]
    NoLogin,
    /// Not of this service.
    #[error("{0} is no backend of this service")]
    UnknownBackend(BackendName),
    /// Its name does not resolve.
    #[error("{0} has no address: its name does not resolve")]
    NoAddress(BackendName),
    /// The backend's TLS settings.
    #[error("the TLS settings of this backend cannot be used: {0}")]
    Tls(#[from] TlsConfigError),
    /// The server could not be reached or refused.
    #[error("{0}")]
    Session(#[from] SessionError),
    /// The login may not do it.
    #[error("{missing} (42501); as superuser type: {grant}")]
    Denied {
        /// What is missing.
        missing: &'static str,
        /// The statement that grants it.
        grant: String,
    },
    /// The login may not steer virtual clusters.
    #[error(
        "virtual clusters may not be steered by this login (42501); in the virtual cluster system, as an administrator, type: {grant}"
    )]
    Ungranted {
        /// The statement that grants it.
        grant: String,
    },
    /// An answer about a virtual cluster that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A virtual cluster that serves itself to nobody.
    #[error("virtual cluster {name:?} is {state}: it cannot be served")]
    Replicates {
        /// Its name.
        name: String,
        /// Where it stands.
        state: State,
    },
    /// STOP SERVICE was taken, and clients are served all the same.
    #[error("STOP SERVICE was taken, and after {waited:?} {left}")]
    StillServed {
        /// Who serves, or does not tell.
        left: String,
        /// How long.
        waited: Duration,
    },
    /// An answer without the expected column.
    #[error("the server answered {0} with something else than expected")]
    Answer(&'static str),
    /// The server is a standby.
    #[error("the server is in recovery: it is no primary")]
    NotPrimary,
    /// The server is a primary.
    #[error("the server is not in recovery: it is no standby")]
    NotStandby,
    /// The address leads to another server than the probes last found there.
    #[error("this is not the server that is latched: it shows {shown}, latched is {latched}")]
    Stranger {
        /// Who answers.
        shown: Box<Shown>,
        /// Who should.
        latched: Box<Shown>,
    },
    /// A setting that was ordered does not come about.
    #[error(
        "the setting {name} does not become {wanted:?}; it is {found:?}, set elsewhere (postgresql.conf, command line, ALTER ROLE or ALTER DATABASE)"
    )]
    SettingStays {
        /// Its name.
        name: &'static str,
        /// What it should be.
        wanted: String,
        /// What a fresh session shows.
        found: String,
    },
    /// A role or database overrides the freeze.
    #[error(
        "{0} sets default_transaction_read_only itself, so a freeze does not bind it; take that back with ALTER … RESET default_transaction_read_only"
    )]
    Override(String),
    /// Sessions that may write and that we may not end.
    #[error(
        "{count} sessions of superusers ({users}) are in a transaction and this login cannot end them; end them, or give pgpivot a superuser login"
    )]
    Superusers {
        /// How many.
        count: usize,
        /// Whose.
        users: String,
    },
    /// Sessions that do not end.
    #[error("{count} client sessions have not ended after {waited:?}")]
    SessionsStay {
        /// How many.
        count: usize,
        /// How long.
        waited: Duration,
    },
    /// Somebody still writes.
    #[error(
        "the log does not stand still: it moved from {from} to {to} within {waited:?} after all clients were ended; something inside the server still writes"
    )]
    NotStill {
        /// When waiting began.
        from: crate::types::Lsn,
        /// When it ended.
        to: crate::types::Lsn,
        /// How long.
        waited: Duration,
    },
    /// No fence to run.
    #[error("no fence_command is configured")]
    NoFence,
    /// A command could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// Its path.
        program: String,
        /// The system's word.
        source: io::Error,
    },
    /// A command failed.
    #[error("{program} {ended}{}", last_words(.said))]
    Command {
        /// Its path.
        program: String,
        /// How it ended.
        ended: Ended,
        /// The last line it wrote to stderr; may be empty.
        said: String,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// By itself.
    #[error("ended with exit status {0}")]
    Exit(i32),
    /// By a signal that was not ours.
    #[error("was ended by signal {0}")]
    Signal(i32),
    /// By us.
    #[error("did not end within {0:?} and was killed")]
    TimedOut(Duration),
    /// The system did not tell.
    #[error("ended unseen")]
    Unseen,
}

fn last_words(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
