//! CancelRequests: handed at once to the side whose queries they may end, and to nobody else.
//! Nothing is held for them: while no side serves there is nothing to cancel, and a cancel that comes late could end
//! the wrong query.

use std::time::Duration;

use tokio::time::timeout;

use super::dial::{connect, encrypt, hand_over};
use super::door::{Door, Settings};
use crate::connections::Origin;
use crate::net::channel::Channel;
use crate::routing::OpenBackend;
use crate::routing::select::by_least_connections;
use crate::types::Epoch;

/// How long the server's close is waited for: clients take ours as the sign that the cancel was delivered.
const DELIVERY: Duration = Duration::from_secs(5);

/// Standbys that are asked where nothing tells which of them has the session.
const MOST_ASKED: usize = 8;
/// Length and code stand before the key.
const KEY_AT: usize = 8;

/// Hands the packet to the server that has the session. Where that was not told in clear text, to each backend that
/// serves this listener: on an `active` one the active tier, on a `read_only` one the readers too, at most eight. The key
/// in it fits one server only; the others ignore it.
///
/// Of a backend with several addresses the first that connects gets it: they lead to one server, or to one cluster
/// whose nodes pass it on.
pub(super) async fn deliver(door: &Door, origin: &Origin, packet: &[u8], settings: &Settings) -> bool {
    let snapshot = door.shared.routing.load();
    let Some((epoch, tier, readers)) = snapshot.serving(&door.shared.service) else {
        return false;
    };
    let key = packet.get(KEY_AT..).unwrap_or_default();
    if let Some((name, address)) = door.shared.connections.owner(&door.shared.service, key) {
        let owner = OpenBackend { name, weight: 0, addresses: vec![address], resting: Vec::new(), rests: None };
        return deliver_to(door, origin, packet, settings, &owner, epoch).await.is_some();
    }
    let readers = if origin.reads { readers } else { &[] };
    let mut delivered = false;
    for backend in readers.iter().take(MOST_ASKED).chain(tier) {
        delivered |= deliver_to(door, origin, packet, settings, backend, epoch).await.is_some();
    }
    delivered
}

async fn deliver_to(
    door: &Door,
    origin: &Origin,
    packet: &[u8],
    settings: &Settings,
    backend: &OpenBackend,
    epoch: Epoch,
) -> Option<()> {
    let (service, connections) = (&door.shared.service, &door.shared.connections);
    let live = |address: &_| connections.live_at(service, &backend.name, address);
    for address in by_least_connections(&backend.all(), live) {
        let admission = connections.admit(service, &backend.name, epoch)?;
        let server = match connect(address, &settings.connection).await {
            Ok(server) => server,
            Err(e) => {
                connections.connect_failed(service, &backend.name, address, &e);
                continue;
            }
        };
        // From here on a cut reaches it.
        let _attached = admission.attach(origin, address, &server).ok()??;
        let mut server = if door.rules.load().tls.is_some() {
            encrypt(door, &backend.name, address, server, &settings.connection).await.ok()?
        } else {
            Channel::Plain(server)
        };
        hand_over(&mut server, packet, &settings.connection).await.ok()?;
        let _ = timeout(DELIVERY, until_closed(&mut server)).await;
        return Some(());
    }
    None
}

/// A server answers a cancel with nothing but its close.
async fn until_closed(server: &mut Channel) {
    let mut ignored = Vec::with_capacity(64);
    while server.read_some(&mut ignored, 64).await.is_ok_and(|read| read > 0) {
        ignored.clear();
    }
}
