//! What a client is told that cannot be served: an ErrorResponse where its first packet proves that it reads one,
//! else nothing but the close.
//!
//! A client that asked for TLS or GSSAPI of the server gets the close. Answering its request with `N` would let the error through,
//! but `N` invites the client to go on in plaintext, and that must never come from somebody who is not the server.

use std::time::Duration;

use super::guests::Over;
use super::hold::Full;
use super::triage::NoPacket;
use crate::connections::Limit;
use crate::net::channel::Channel;
use crate::wire::sqlstate::{Severity, Sqlstate, error_response};
use crate::wire::startup::{FirstPacket, Garbage, Reserved};

/// Why a client with a proper first packet is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no server could be reached within {}: {why}", humantime::format_duration(*.waited))]
    NoServer { waited: Duration, why: String },
    #[error("no server can be reached now, and {0}")]
    Full(Full),
    #[error("the proxy is shutting down")]
    Stopping,
    #[error("too many connections: this listener takes {limit}")]
    TooMany { limit: u64 },
    /// Of one client address, or a rate.
    #[error("{0}")]
    Over(Over),
    #[error("the client left while it waited")]
    ClientLeft,
    #[error("{0}")]
    Reserved(#[from] Reserved),
    /// Where only TLS is taken.
    #[error("this listener takes encrypted connections only")]
    Plaintext,
    /// Every server that may be used was reached, and none can be trusted.
    #[error("no secure connection to a server: {why}")]
    Untrusted { why: String },
    /// Its login would be refused by the server in words that nobody understands.
    #[error(
        "SCRAM channel binding does not reach the server: the proxy ends TLS with another certificate than the server's"
    )]
    Binding,
}

impl Refusal {
    /// The limit it is for, if it is for one.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooMany { .. } => Some(Limit::Connections),
            Self::Over(over) => Some(over.limit()),
            _ => None,
        }
    }

    fn message(&self) -> Option<Vec<u8>> {
        let (code, hint) = match self {
            Self::NoServer { .. } => {
                (Sqlstate::CANNOT_CONNECT_NOW, "No side of the database may be used now; connect again later.")
            }
            Self::Full(_) => (Sqlstate::CANNOT_CONNECT_NOW, "Connect again in a few seconds."),
            Self::Stopping => (Sqlstate::CANNOT_CONNECT_NOW, "Connect again: another proxy may take over."),
            Self::TooMany { .. } => {
                (Sqlstate::TOO_MANY_CONNECTIONS, "Close connections that are not needed, or raise max_connections.")
            }
            Self::Over(Over::Address(_)) => (
                Sqlstate::TOO_MANY_CONNECTIONS,
                "Close connections that are not needed, or raise max_connections_per_address.",
            ),
            Self::Over(Over::Rate(_) | Over::AddressRate(_)) => {
                (Sqlstate::TOO_MANY_CONNECTIONS, "Connect again in a few seconds, or keep connections in a pool.")
            }
            Self::Reserved(_) => (Sqlstate::CONNECTION_REJECTED, "Leave it out."),
            Self::Plaintext => (Sqlstate::NOT_AUTHORIZED, "Connect with sslmode=require or stricter."),
            Self::Untrusted { .. } => (
                Sqlstate::CANNOT_CONNECT,
                "The proxy's tls settings of this backend, or the server's certificate, are wrong.",
            ),
            Self::Binding => (
                Sqlstate::NOT_AUTHORIZED,
                "Connect with channel_binding=disable, or give the listener the certificate of the servers.",
            ),
            Self::ClientLeft => return None,
        };
        Some(error_response(Severity::Fatal, code, &self.to_string(), Some(hint)))
    }
}

/// Ends a client that is not served.
pub(super) fn send_away(client: &mut Channel, packet: FirstPacket, refusal: &Refusal) {
    if let (FirstPacket::Startup { .. }, Some(message)) = (packet, refusal.message()) {
        say_last(client, &message);
    }
}

/// Ends a client whose first packet is none. Only what looks like an old or odd PostgreSQL client gets an answer.
pub(super) fn send_off(client: &mut Channel, reason: &NoPacket) {
    let code = match reason {
        NoPacket::Garbage(Garbage::Protocol { .. }) => Sqlstate::FEATURE_NOT_SUPPORTED,
        NoPacket::Garbage(Garbage::Layout) | NoPacket::Injected => Sqlstate::PROTOCOL_VIOLATION,
        NoPacket::Garbage(Garbage::Foreign | Garbage::TooLong | Garbage::TooShort)
        | NoPacket::Left
        | NoPacket::TooSlow
        | NoPacket::Broken(_)
        | NoPacket::Tls(_) => return,
    };
    say_last(client, &error_response(Severity::Fatal, code, &reason.to_string(), None));
}

/// The last words. Whoever has no room for some hundred bytes in a fresh connection does not read them anyway.
fn say_last(client: &mut Channel, message: &[u8]) {
    client.say(message);
    client.end(true);
    // Bytes left unread would turn the close into a reset, which can overtake the message.
    let mut rest = [0; 1024];
    while client.socket().try_read(&mut rest).is_ok_and(|read| read > 0) {}
}
