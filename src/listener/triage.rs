//! Reading a client's first packet: bounded in bytes and time, told apart by `wire::startup`.
//! What is done about it is the session's matter.

use std::io;

use tokio::time::{Instant, timeout_at};

use crate::net::channel::Channel;
use crate::net::terminate::HandshakeError;
use crate::wire::startup::{self, FirstPacket, Garbage, MAX_STARTUP, Reserved};

/// Room for what follows the first packet while its client waits: more than a TLS ClientHello needs.
const MAX_BEHIND: usize = 16 * 1024;
/// One read.
const CHUNK: usize = 1024;

/// A client's first packet, and whatever came with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct First {
    /// What it is; never `NeedMore` or `Garbage`.
    pub(super) packet: FirstPacket,
    /// It, and what was read behind it.
    pub(super) bytes: Vec<u8>,
}

/// Why there is no first packet.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum NoPacket {
    /// A TCP check, or a client that changed its mind.
    #[error("the client left without a word")]
    Left,
    /// Silence, or a trickle.
    #[error("no first packet in time")]
    TooSlow,
    /// Not for us.
    #[error("{0}")]
    Garbage(Garbage),
    /// Its socket failed.
    #[error("the client's connection failed: {0}")]
    Broken(io::ErrorKind),
    /// In clear behind a request for TLS: they would seem to have come inside it.
    #[error("received unencrypted data after the request for TLS")]
    Injected,
    /// No TLS with it.
    #[error("{0}")]
    Tls(#[from] HandshakeError),
}

impl First {
    /// Reads until the first packet can be told, at most until `deadline`.
    pub(super) async fn read(client: &mut Channel, deadline: Instant) -> Result<Self, NoPacket> {
        let mut bytes = Vec::new();
        loop {
            match startup::parse(&bytes) {
                FirstPacket::NeedMore { wanted } => {
                    let read = client.read_some(&mut bytes, wanted.clamp(CHUNK, MAX_STARTUP));
                    match timeout_at(deadline, read).await {
                        Err(_) => return Err(NoPacket::TooSlow),
                        Ok(Err(e)) => return Err(NoPacket::Broken(e.kind())),
                        Ok(Ok(0)) => return Err(NoPacket::Left),
                        Ok(Ok(_)) => {}
                    }
                }
                FirstPacket::Garbage(garbage) => return Err(NoPacket::Garbage(garbage)),
                packet => return Ok(Self { packet, bytes }),
            }
        }
    }

    /// As CockroachDB may have it.
    pub(super) fn for_cockroach(&mut self) -> Result<(), Reserved> {
        let FirstPacket::Startup { length, .. } = self.packet else { return Ok(()) };
        if let Some(passed) = startup::for_cockroach(self.bytes.get(..length).unwrap_or_default())? {
            self.bytes.splice(..length, passed);
            self.packet = startup::parse(&self.bytes);
        }
        Ok(())
    }

    /// Whether it may be sent to another server should the first one end without a reply: it only opens a connection,
    /// every server replies to it, and nothing came behind it that could be a statement.
    pub(super) fn stands_alone(&self) -> bool {
        match self.packet {
            FirstPacket::SslRequest | FirstPacket::GssencRequest => self.bytes.len() == 8,
            FirstPacket::Startup { length, .. } => self.bytes.len() == length,
            // Its end is not seen here, and a server that does not know it hangs up without a word.
            FirstPacket::DirectTls => false,
            // Has no reply, and a late one could end another query.
            FirstPacket::Cancel { .. } => false,
            FirstPacket::NeedMore { .. } | FirstPacket::Garbage(_) => false,
        }
    }

    /// Comes back when the client is gone; takes in what it sends meanwhile, so that an end behind it is seen.
    /// A client that shuts only its own direction counts as gone: while it waits there is nothing to tell it.
    ///
    /// Cancel safe: bytes that were read are kept.
    pub(super) async fn client_gone(&mut self, client: &mut Channel) {
        loop {
            let room = (MAX_STARTUP + MAX_BEHIND).saturating_sub(self.bytes.len());
            if room == 0 {
                // No client of ours says so much without an answer. Its place is freed at the deadline at the latest.
                return std::future::pending().await;
            }
            match client.read_some(&mut self.bytes, room.min(CHUNK)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}
