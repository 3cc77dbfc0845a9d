//! What can go wrong, and whose fault it is. No text here contains a password, a token or an API key.

use std::time::Duration;

use crate::cockroach_cloud;
use crate::cockroach_cloud::model::IdError;
use crate::view::dsn::DsnError;
use crate::view::url::UrlError;

/// Why the settings make no sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Nobody to ask.
    #[error("there is neither a daemon nor a Cloud API to ask; give the one's URL or the other's key and cluster ids")]
    NoSource,
    /// The daemon's address is none.
    #[error("the daemon's address {problem}; write http://host:port or unix:///path")]
    BadUrl {
        /// In words; never with a login in it.
        problem: &'static str,
    },
    /// A variable of the environment is missing beside others.
    #[error("{missing} is not set, and {because} is")]
    Missing {
        /// Its name.
        missing: &'static str,
        /// The variable that makes it necessary.
        because: &'static str,
    },
    /// A variable of the environment is no cluster id.
    #[error("{variable} {error}")]
    BadId {
        /// Its name.
        variable: &'static str,
        /// Why not.
        error: IdError,
    },
    /// A variable of the environment is no host.
    #[error("{variable} is no host; write a name, or a name and a port: primary.example.com:26257")]
    BadHost {
        /// Its name.
        variable: &'static str,
    },
    /// A variable of the environment is no connection URL.
    #[error("{variable} {error}")]
    BadEndpoint {
        /// Its name.
        variable: &'static str,
        /// Why not; never its text.
        error: UrlError,
    },
    /// `DB_SSL` says nothing, or what something else contradicts.
    #[error("DB_SSL is {problem}")]
    BadSsl {
        /// In words.
        problem: &'static str,
    },
    /// No user.
    #[error("DB_USERNAME is not set, so nobody could log in")]
    NoUser,
    /// Two users.
    #[error("DB_USERNAME is not the same as DB_USER, and both name one thing; set one of them")]
    TwoUsers,
    /// Both cluster ids are one.
    #[error("primary and standby have the same cluster id")]
    OneCluster,
    /// A number is out of its range.
    #[error("{setting} must be {range}")]
    OutOfRange {
        /// Of [`Settings`](super::Settings).
        setting: &'static str,
        /// In words.
        range: &'static str,
    },
    /// A variable of the environment says nothing that the Cloud API could be asked with.
    #[error("{variable}: {error}")]
    BadApi {
        /// Its name.
        variable: &'static str,
        /// Why not.
        error: cockroach_cloud::BuildError,
    },
    /// The Cloud API cannot be used like that.
    #[error(transparent)]
    Cloud(#[from] cockroach_cloud::BuildError),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Http(#[source] reqwest::Error),
}

/// Why it is not known where to connect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon gave no answer of use.
    #[error("the daemon at {url} {trouble}")]
    Daemon {
        /// As given.
        url: String,
        /// What was wrong.
        trouble: DaemonTrouble,
    },
    /// The Cloud API gave no answer of use.
    #[error(transparent)]
    Cloud(#[from] Box<cockroach_cloud::Error>),
    /// The answer is about several services.
    #[error("there are several services; name one of {known}")]
    WhichService {
        /// Their names, separated by commas.
        known: String,
    },
    /// There is no side to connect to.
    #[error(transparent)]
    Dsn(#[from] DsnError),
    /// The active side is being changed, or does not serve: newcomers wait.
    #[error("the service lets nobody in now, as while it fails over; try again")]
    Held,
    /// Nobody answered in time.
    #[error("nobody told the active side within {0:?}")]
    TimedOut(Duration),
}

/// What was wrong with a daemon's answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DaemonTrouble {
    /// Nobody accepts connections there.
    #[error("cannot be reached")]
    Unreachable,
    /// It accepted the connection and did not answer, or not to the end.
    #[error("takes connections and does not answer")]
    Silent,
    /// It said no.
    #[error("refused: {0}")]
    Refused(String),
    /// Something else listens there.
    #[error("answers, but not as pgpivot does")]
    NotPgpivot,
}

/// Why no try came to anything.
#[derive(Debug, thiserror::Error)]
pub enum RetryError<E> {
    /// The application's own attempt failed, the last time.
    #[error("failed {tries} times, at last: {error}")]
    Attempt {
        /// How often it was tried.
        tries: u32,
        /// What the attempt said.
        error: E,
    },
    /// The attempt did not end in time, the last time.
    #[error("tried {tries} times; the last attempt did not end within {after:?}")]
    TimedOut {
        /// How often it was tried.
        tries: u32,
        /// How long it was waited for.
        after: Duration,
    },
    /// It was not known where to connect, the last time.
    #[error("tried {tries} times, at last: {error}")]
    Unknown {
        /// How often it was tried.
        tries: u32,
        /// Why.
        error: Error,
    },
}
