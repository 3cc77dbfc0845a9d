//! The life of one connection, from the accept to the end of its relay. Its parts are told in files of their own.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use tokio::net::TcpStream;

use super::door::{Door, PanicWatch, Rules, Settings};
use super::guests::{Guest, Over, Tolerated};
use super::open::open;
use super::refuse::{self, Refusal};
use super::seek::{Found, Seeker};
use super::triage::{First, NoPacket};
use super::{binding, cancel};
use crate::config::Target;
use crate::connections::{Attached, Entered, Origin};
use crate::net::channel::Channel;
use crate::relay;
use crate::wire::backend_key::{KeyWatch, Seen};
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
    pub(super) standing: Standing,
}

/// Where a client stands with the limits of its listener.
#[derive(Debug)]
pub(super) struct Standing {
    /// The how manieth of those that are open.
    pub(super) nth: u64,
    /// Dropped before the guest it is told of.
    pub(super) over: Option<(Over, Tolerated)>,
    pub(super) guest: Guest,
}

/// Serves one client to its end.
///
/// Not an `async fn`, and its beginning is boxed: what only the beginning needs is gone while the connection lives on.
pub(super) fn serve(arrival: Arrival) -> impl Future<Output = ()> + Send + 'static {
    let Arrival { door, worker, client, peer, entered, standing } = arrival;
    let shared = door.shared.clone();
    let begin = Box::pin(receive(door, worker, client, peer, standing));
    async move {
        let _watch = PanicWatch::new(&shared, "connection");
        let _entered = entered;
        let Some((attached, lines, tells, _guest)) = begin.await else {
            return;
        };
        let (orders, meter) = (attached.orders().clone(), attached.meter());
        let ended = match lines {
            Lines::Plain(client, server) => {
                let relay = relay::attach(client, server, orders, meter);
                if tells { relay.heard_by(key_of(&attached)).await } else { relay.await }
            }
            Lines::Sealed(sealed) => {
                let Sealed { client, server, said } = *sealed;
                let relay = relay::attach_sealed(client, server, orders, meter);
                let relay = if tells { relay.heard_by(key_of(&attached)) } else { relay };
                Box::pin(relay.after(said)).await
            }
        };
        tracing::debug!(
            by = ?ended.by,
            reason = ended.reason.as_str(),
            bytes_in = ended.bytes_in,
            bytes_out = ended.bytes_out,
            "session ended"
        );
    }
}

/// Listens for the key of the session, and notes it.
fn key_of(attached: &Attached) -> impl FnMut(&[u8]) -> bool + Send + 'static {
    let (mut watch, mut tell) = (KeyWatch::default(), Some(attached.key_teller()));
    move |said| match watch.see(said) {
        Seen::More => false,
        Seen::Key(key) => {
            tell.take().into_iter().for_each(|tell| tell(key.clone()));
            true
        }
        Seen::Over => true,
    }
}

/// Client and server.
enum Lines {
    /// Bytes pass untouched.
    Plain(TcpStream, TcpStream),
    /// TLS ends here, of one or of both.
    Sealed(Box<Sealed>),
}

struct Sealed {
    client: Channel,
    server: Channel,
    /// By the server, and not passed on yet.
    said: Vec<u8>,
}

impl Lines {
    fn of(client: Channel, server: Channel, said: Vec<u8>) -> Self {
        match (client, server) {
            (Channel::Plain(client), Channel::Plain(server)) => Self::Plain(client, server),
            (client, server) => Self::Sealed(Box::new(Sealed { client, server, said })),
        }
    }
}

/// First packet, triage, and a server for who wants one; and whether that will tell the session's key in clear to us.
async fn receive(
    door: Arc<Door>,
    worker: usize,
    client: TcpStream,
    peer: SocketAddr,
    standing: Standing,
) -> Option<(Attached, Lines, bool, Guest)> {
    let (settings, rules) = (door.shared.settings.load_full(), door.rules.load_full());
    let opened = tokio::select! {
        biased;
        opened = open(client, &rules, &settings) => opened,
        // Who has said nothing yet is not waited for.
        () = door.shared.stopping.cancelled() => return None,
    };
    let (mut client, mut first) = match opened {
        (Some(client), Ok(first)) => (client, first),
        (client, result) => {
            let reason = result.err().filter(|reason| *reason != NoPacket::Left);
            if let Some(reason) = reason {
                tracing::debug!(%reason, "no first packet");
                door.tally.refused();
                client.into_iter().for_each(|mut client| refuse::send_off(&mut client, &reason));
            }
            return None;
        }
    };
    let tally = door.tally.clone();
    let reads = rules.target == Target::ReadOnly;
    let origin = Origin { worker, listener: door.address, tally, reads, farewell: &FAREWELL };
    // Before the limit, and in clear or not: who is at it may want to end a query more than anybody.
    if let FirstPacket::Cancel { process, length } = first.packet {
        if standing.over.is_none() {
            standing.guest.give_back(&rules.limits);
        }
        let packet = first.bytes.get(..length).unwrap_or_default();
        let delivered = cancel::deliver(&door, &origin, packet, &settings).await;
        tracing::debug!(process, delivered, "cancel");
        client.end(true);
        return None;
    }
    let found = match may_be_served(&client, &mut first, &rules, &settings, &standing) {
        Ok(()) => find(&door, &origin, &mut client, peer, &mut first, &settings, &rules).await,
        Err(refusal) => Err(refusal),
    };
    match found {
        Ok(Found { server, attached, said }) => {
            // Only readers have several servers; and a first packet in clear to us is answered in clear to us.
            let tells = reads && matches!(first.packet, FirstPacket::Startup { .. });
            Some((attached, Lines::of(client, server, said), tells, standing.guest))
        }
        Err(refusal) => {
            tracing::debug!(%refusal, "client not served");
            match refusal.limit() {
                Some(limit) => door.tally.limited(limit),
                None => door.tally.refused(),
            }
            // By now it may be another packet: who was declined TLS goes on in plaintext.
            refuse::send_away(&mut client, first.packet, &refusal);
            None
        }
    }
}

fn may_be_served(
    client: &Channel,
    first: &mut First,
    rules: &Rules,
    settings: &Settings,
    standing: &Standing,
) -> Result<(), Refusal> {
    if let Some((over, _)) = &standing.over {
        return Err(Refusal::Over(*over));
    }
    let limit = rules.max_connections;
    if standing.nth > limit {
        return Err(Refusal::TooMany { limit });
    }
    if rules.require && !client.is_encrypted() {
        return Err(Refusal::Plaintext);
    }
    if settings.cockroach {
        first.for_cockroach()?;
    }
    Ok(())
}

async fn find(
    door: &Door,
    origin: &Origin,
    client: &mut Channel,
    peer: SocketAddr,
    first: &mut First,
    settings: &Settings,
    rules: &Rules,
) -> Result<Found, Refusal> {
    let mut found = Seeker::new(door, origin, client, peer, first, settings, rules).seek().await?;
    if let Some(tls) = &rules.tls {
        binding::settle(client, &mut found, tls, &settings.connection).await?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::proxy::{Client, Proxy, Server};
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_connection_keeps_little_of_its_beginning() {
        let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
        let client = Client::connect(server.address).await.0;
        let houses = proxy.listeners.lock();
        let door = houses.values().flat_map(|house| house.doors.values()).next().unwrap().door.clone();
        let (entered, nth) = door.tally.enter();
        let peer = client.peer_addr().unwrap();
        let (guest, over) = door.guests.enter(peer.ip(), &door.rules.load().limits, Instant::now()).unwrap();
        let standing = Standing { guest, nth, over };
        let session = serve(Arrival { door, worker: 0, peer, client, entered, standing });
        let size = std::mem::size_of_val(&session);
        assert!(size <= 448, "{size} bytes");
    }
}
