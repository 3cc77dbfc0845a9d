//! What can go wrong with the pools, and whose fault it is. No text here contains a URL, a user or a password.

use std::time::Duration;

use crate::client::SettingsError;
use crate::view::url::UrlError;

/// Why the settings of a [`PoolManager`](super::PoolManager) make no sense.
#[derive(Debug, thiserror::Error)]
pub enum PoolSettingsError {
    /// No primary.
    #[error("DATABASE_URL is not set; write postgres://user:password@host:5432/database")]
    NoPrimary,
    /// A URL is none, or names what cannot be used.
    #[error("{which} {error}")]
    BadUrl {
        /// A variable, or a number among the replicas.
        which: String,
        /// Why not; never its text.
        error: UrlError,
    },
    /// The driver does not take the URL.
    #[error("{which} has a part that the driver does not take: look at its port and what follows the ?")]
    NotTaken {
        /// A variable, or a number among the replicas.
        which: String,
    },
    /// More replicas than anybody has.
    #[error("there are {count} replicas; at most {max} are used")]
    TooManyReplicas {
        /// How many.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// A number is out of its range.
    #[error("{setting} must be {range}")]
    OutOfRange {
        /// As the method or the variable is called.
        setting: &'static str,
        /// In words.
        range: &'static str,
    },
    /// A variable that should be a number is none.
    #[error("{variable} must be a number of milliseconds, for example 10000")]
    NoNumber {
        /// Its name.
        variable: &'static str,
    },
    /// Who is to be asked for the active side.
    #[error(transparent)]
    Daemon(#[from] SettingsError),
}

/// Why nothing came of a statement.
///
/// What runs through sqlx's own methods ([`Route`](super::Route)) fails with a [`sqlx::Error`]; [`PoolError::of`] finds
/// this one inside it.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No server proves to be the primary.
    #[error("no server proved to be the primary within {waited:?}")]
    NoPrimary {
        /// How long it was waited for.
        waited: Duration,
    },
    /// Two servers say that they are the primary, and nothing tells which is right. Nothing is written before an
    /// operator has stopped one of them.
    #[error("{servers} both claim to be the primary; stop the one that is not, nothing is written until then")]
    Contested {
        /// `host:port`, with commas between them.
        servers: String,
    },
    /// The server failed several times in a row, and is asked nothing for a while.
    #[error("{server} failed repeatedly and is left alone for another {retry_in:?}")]
    CircuitOpen {
        /// `host:port`.
        server: String,
        /// Until one statement may try.
        retry_in: Duration,
    },
    /// Every connection is in use.
    #[error("all {max} connections to {server} are in use, and none came back within {waited:?}")]
    Exhausted {
        /// `host:port`.
        server: String,
        /// How long it was waited for.
        waited: Duration,
        /// Connections of the pool.
        max: u32,
    },
    /// The server cannot be reached.
    #[error("{server} could not be reached within {waited:?}")]
    Unreachable {
        /// `host:port`.
        server: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// A statement took longer than [`query_timeout`](super::PoolBuilder::query_timeout). A write may have taken effect.
    #[error("{server} did not answer within {after:?}; a write may have taken effect")]
    TooSlow {
        /// `host:port`.
        server: String,
        /// The limit.
        after: Duration,
    },
    /// BEGIN and the like, on a connection that goes back to the pool after every statement.
    #[error("a transaction needs a connection of its own; use begin() instead of the statement")]
    TransactionByHand,
    /// [`close`](super::PoolManager::close) was called.
    #[error("the pools were closed")]
    Closed,
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] PoolSettingsError),
    /// What the server or the driver said.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl PoolError {
    /// The one inside an error of sqlx, if it comes from here.
    pub fn of(error: &sqlx::Error) -> Option<&PoolError> {
        match error {
            sqlx::Error::Io(error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

impl From<PoolError> for sqlx::Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Sql(error) => error,
            PoolError::Closed => Self::PoolClosed,
            other => Self::Io(std::io::Error::other(other)),
        }
    }
}
