//! The life of one connection, from the accept to the end of its relay. Its parts are told in files of their own.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use tokio::net::TcpStream;

use super::cancel;
use super::door::{Door, PanicWatch, Settings};
use super::refuse::{self, Refusal};
use super::seek::Seeker;
use super::triage::{First, NoPacket};
use crate::config::Target;
use crate::connections::{Attached, Entered, Origin};
use crate::relay;
use crate::wire::sqlstate::{Severity, Sqlstate, error_response};
use crate::wire::startup::FirstPacket;

/// What a client is told whose connection is ended where a message can stand.
static FAREWELL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let message = "terminating connection: its server is not the active one any more, or the proxy ends";
    error_response(Severity::Fatal, Sqlstate::ADMIN_SHUTDOWN, message, Some("Connect again."))
});

/// A client that was accepted.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) door: Arc<Door>,
    /// The number of the worker thread.
    pub(super) worker: usize,
    pub(super) client: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) entered: Entered,
}

/// Serves one client to its end.
///
/// Not an `async fn`, and its beginning is boxed: what only the beginning needs is gone while the connection lives on.
pub(super) fn serve(arrival: Arrival) -> impl Future<Output = ()> + Send + 'static {
    let Arrival { door, worker, client, peer, entered } = arrival;
    let shared = door.shared.clone();
    let nth = entered.nth();
    let begin = Box::pin(receive(door, worker, client, peer, nth));
    async move {
        let _watch = PanicWatch::new(&shared, "connection");
        let _entered = entered;
        let Some((client, server, attached)) = begin.await else {
            return;
        };
        let ended = relay::attach(client, server, attached.orders().clone(), attached.meter()).await;
        tracing::debug!(
            by = ?ended.by,
            reason = ended.reason.as_str(),
            bytes_in = ended.bytes_in,
            bytes_out = ended.bytes_out,
            "session ended"
        );
    }
}

/// First packet, triage, and a server for who wants one.
async fn receive(
    door: Arc<Door>,
    worker: usize,
    client: TcpStream,
    peer: SocketAddr,
    nth: u64,
) -> Option<(TcpStream, TcpStream, Attached)> {
    let settings = door.shared.settings.load_full();
    let read = tokio::select! {
        biased;
        read = first_packet(&client, &settings) => read,
        // Who has said nothing yet is not waited for.
        () = door.shared.stopping.cancelled() => Err(NoPacket::Left),
    };
    let mut first = match read {
        Ok(first) => first,
        Err(reason) => {
            if reason != NoPacket::Left {
                tracing::debug!(%reason, "no first packet");
                door.tally.refused();
            }
            refuse::send_off(&client, &reason);
            return None;
        }
    };
    let tally = door.tally.clone();
    let reads = door.rules.load().target == Target::ReadOnly;
    let origin = Origin { worker, listener: door.address, tally, reads, farewell: &FAREWELL };
    // Before the limit: who is at it may want to end a query more than anybody.
    if let FirstPacket::Cancel { process, length } = first.packet {
        let packet = first.bytes.get(..length).unwrap_or_default();
        let delivered = cancel::deliver(&door, &origin, packet, &settings).await;
        tracing::debug!(process, delivered, "cancel");
        return None;
    }
    let limit = door.rules.load().max_connections;
    let reserved = if settings.cockroach { first.for_cockroach() } else { Ok(()) };
    let found = if nth > limit {
        Err(Refusal::TooMany { limit })
    } else if let Err(reserved) = reserved {
        Err(reserved.into())
    } else {
        Seeker::new(&door, &origin, &client, peer, &mut first, &settings).seek().await
    };
    match found {
        Ok((server, attached)) => Some((client, server, attached)),
        Err(refusal) => {
            tracing::debug!(%refusal, "client not served");
            door.tally.refused();
            // By now it may be another packet: who was declined TLS goes on in plaintext.
            refuse::send_away(&client, first.packet, &refusal);
            None
        }
    }
}

/// The first packet that is to be passed on. CockroachDB answers a request for GSSAPI with an error, and libpq sends one
/// wherever it finds a ticket: that one is declined here, once.
async fn first_packet(client: &TcpStream, settings: &Settings) -> Result<First, NoPacket> {
    let patience = settings.connection.first_packet_timeout;
    let first = First::read(client, patience).await?;
    if !settings.cockroach || first.packet != FirstPacket::GssencRequest || first.bytes.len() > 8 {
        return Ok(first);
    }
    client.try_write(b"N").map_err(|error| NoPacket::Broken(error.kind()))?;
    First::read(client, patience).await
}

#[cfg(test)]
mod tests {
    use super::super::tests::proxy::{Client, Proxy, Server};
    use super::*;

    #[tokio::test]
    async fn a_connection_keeps_little_of_its_beginning() {
        let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
        let client = Client::connect(server.address).await.0;
        let houses = proxy.listeners.lock();
        let door = houses.values().flat_map(|house| house.doors.values()).next().unwrap().door.clone();
        let entered = door.tally.enter();
        let session = serve(Arrival { door, worker: 0, peer: client.peer_addr().unwrap(), client, entered });
        let size = std::mem::size_of_val(&session);
        assert!(size <= 448, "{size} bytes");
    }
}
