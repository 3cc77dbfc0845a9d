//! How a connection of ours fails: which step, and why. Holds no judgement about the server's health.

use std::io;

use tokio_rustls::rustls;

/// Which step of a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Step {
    /// Name to address.
    #[error("resolve")]
    Resolve,
    /// The TCP connect.
    #[error("connect")]
    Connect,
    /// SSLRequest and the TLS handshake.
    #[error("tls")]
    Tls,
    /// The startup packet and the first answer to it.
    #[error("startup")]
    Startup,
    /// Password exchange, up to ReadyForQuery.
    #[error("authenticate")]
    Authenticate,
    /// A query on a connection that was ready.
    #[error("query")]
    Query,
}

/// Why it failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Cause {
    /// The system call failed; `code` is errno.
    #[error("{kind}")]
    Io {
        /// The kind the standard library gives it.
        kind: io::ErrorKind,
        /// errno, where there is one.
        code: Option<i32>,
    },
    /// The deadline passed.
    #[error("no answer in time")]
    TimedOut,
    /// The server ended the connection without a word.
    #[error("the server ended the connection")]
    Closed,
    /// A server process found its postmaster dead and went with it. PostgreSQL gives that the code of a shutdown on
    /// purpose (57P01), which it is not.
    #[error("the server's postmaster died")]
    PostmasterDied,
    /// The server said no, or announced why it ends the connection.
    #[error("{message} ({code})")]
    Sqlstate {
        /// Five characters.
        code: String,
        /// The primary message, in the server's language.
        message: String,
    },
    /// The server's certificate does not verify.
    #[error("the server's certificate does not verify: {0}")]
    Certificate(rustls::CertificateError),
    /// The TLS handshake failed otherwise.
    #[error("TLS handshake failed: {0}")]
    Handshake(rustls::Error),
    /// TLS is wanted and the server has none.
    #[error("the server offers no TLS")]
    NoTls,
    /// The server wants a password and none is configured.
    #[error("the server asks for a password and none is configured")]
    NoPassword,
    /// The server wants an authentication method this client does not have.
    #[error("the server asks for an authentication method that is not supported")]
    Method,
    /// The server could not prove that it knows the password (SCRAM).
    #[error("the server does not prove that it knows the password")]
    Impostor,
    /// Not the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolFault),
}

/// How an answer is not the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolFault {
    /// A message, or a result, longer than this client takes.
    #[error("an answer of {0} bytes is more than this client takes")]
    TooLarge(usize),
    /// Bytes that are no message.
    #[error("bytes that are not a PostgreSQL message")]
    Malformed,
    /// A message that has no place here.
    #[error("a message that has no place here")]
    Unexpected,
    /// The connection broke or was abandoned in the middle of an earlier exchange.
    #[error("the connection was abandoned in the middle of an exchange")]
    Abandoned,
    /// A text of ours contains a zero byte.
    #[error("a zero byte in a name, password or query")]
    ZeroByte,
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => return Self::Certificate(why.clone()),
            Some(why) => return Self::Handshake(why.clone()),
            None => {}
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::TimedOut => Self::TimedOut,
            kind => Self::Io { kind, code: error.raw_os_error() },
        }
    }
}

/// A connection of ours that failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct SessionError {
    /// Where.
    pub step: Step,
    /// Why.
    pub cause: Cause,
}

impl SessionError {
    /// The SQLSTATE, when the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.cause {
            Cause::Sqlstate { code, .. } => Some(code),
            _ => None,
        }
    }
}
