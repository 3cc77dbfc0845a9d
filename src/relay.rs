//! Moving bytes once both sockets stand: the seam between attaching a connection and relaying it.
//! Accepting, choosing a side and dialling are not here; nor is any decision: orders come from outside.
//!
//! The engine behind [`attach`] is `opaque` (epoll through tokio, bytes untouched), with `splice` for bulk.

mod flow;
mod line;
mod meter;
mod opaque;
mod orders;
mod splice;
mod tap;

pub use meter::Meter;
pub use opaque::Relay;
pub use orders::{Cut, Orders};

use std::io;

use tokio::net::TcpStream;

use crate::net::channel::Channel;

/// Relays between two connected sockets until both directions ended, one side failed, or an order came.
///
/// Await it on the thread whose runtime registered both sockets. It never blocks, holds no buffer while the
/// connection is idle, and needs no timer.
///
/// Not cancel safe: dropping it closes both sockets and loses what the peer had not taken yet. To end a relay use
/// [`Orders::cut`] or [`Orders::drain`]; dropping it is for the end of the process.
pub fn attach(client: TcpStream, server: TcpStream, orders: Orders, meter: &Meter) -> Relay<'_> {
    Relay::new(client, server, orders, meter)
}

/// As [`attach`], where one end or both are encrypted between their peer and us: what is moved is what TLS carries.
/// What the server has said already is passed on first: [`Relay::after`].
///
/// Nothing is spliced. What a peer does not take waits inside TLS, bounded by one read (32 KiB).
pub fn attach_sealed<'m>(client: Channel, server: Channel, orders: Orders, meter: &'m Meter) -> Relay<'m, Channel> {
    Relay::new(client, server, orders, meter)
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Who ended it first.
    pub by: By,
    /// How.
    pub reason: Reason,
    /// Bytes handed to the server's socket.
    pub bytes_in: u64,
    /// Bytes handed to the client's socket.
    pub bytes_out: u64,
}

/// Who ended a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The application.
    Client,
    /// The database.
    Server,
    /// We, by [`Orders`].
    Order,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An end of stream in both directions; `by` sent the first.
    Closed,
    /// A reset (ECONNRESET, EPIPE).
    Reset,
    /// The peer stopped acknowledging (ETIMEDOUT: keepalive or TCP_USER_TIMEOUT).
    TimedOut,
    /// No route to the peer any more.
    Unreachable,
    /// Another error of a socket.
    Failed(io::ErrorKind),
    /// Ordered: at once.
    Cut(Cut),
    /// Ordered: at a moment when nothing was under way.
    Drained,
}

impl Reason {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            other => Self::Failed(other),
        }
    }

    /// A word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Failed(_) => "failed",
            Self::Cut(cut) => cut.as_str(),
            Self::Drained => "drained",
        }
    }
}

#[cfg(test)]
mod tests;
