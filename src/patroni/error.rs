//! What can be wrong with a member's answer, and with the settings.

use std::io;
use std::path::PathBuf;

use super::model::NotPatroni;
use crate::types::HostPort;

/// Why a member's answer is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nothing was sent.
    #[error("{address} cannot be reached: {cause}")]
    Unreachable {
        /// Which member.
        address: HostPort,
        /// Why.
        cause: Cause,
    },
    /// It was asked, and no whole answer came.
    #[error("{address} gives no answer: {cause}")]
    NoAnswer {
        /// Which member.
        address: HostPort,
        /// Why.
        cause: Cause,
    },
    /// It answers with a status that says no.
    #[error("{address} answers {status}: {text}")]
    Says {
        /// Which member.
        address: HostPort,
        /// The HTTP status.
        status: u16,
        /// Its own words, bounded.
        text: String,
    },
    /// It answers something that is not Patroni's.
    #[error("{address} answers, but not as Patroni does: {what}")]
    NotPatroni {
        /// Which member.
        address: HostPort,
        /// What is wrong.
        what: NotPatroni,
    },
    /// None is configured.
    #[error("there is no member to ask")]
    Nobody,
    /// The body is longer than anything of Patroni's.
    #[error("{address} answers with more than is read")]
    TooLarge {
        /// Which member.
        address: HostPort,
    },
}

/// Why a connection failed or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The deadline passed.
    #[error("no answer in time")]
    TimedOut,
    /// It closed the connection: a member does so when it cannot read its store, too.
    #[error("it closed the connection")]
    Closed,
    /// TLS did not come about: no certificate we trust, or no TLS there.
    #[error("TLS did not come about (is tls right, does ca_file hold its authority?)")]
    Tls,
    /// The system says why.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// Anything else of HTTP.
    #[error("it does not speak HTTP")]
    Http,
}

/// Why no client can be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A PEM file.
    #[error("{path:?} cannot be used: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Verification is impossible.
    #[error("this system has no root certificates; set ca_file")]
    NoRoots,
    /// The cryptography, or certificate and key, do not fit together.
    #[error(transparent)]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Http(#[source] reqwest::Error),
    /// The login cannot be sent.
    #[error("user or password have characters that no header has")]
    Login,
}
