//! The accept loop of one listening socket: it survives whatever accept returns, and never spins.
//! What becomes of a connection is `session`'s.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::door::{Door, PanicWatch};
use super::guests::MOST_OVER;
use super::session::{self, Arrival, Standing};
use crate::backoff::Backoff;
use crate::connections::Limit;

/// While accept fails for want of descriptors or memory.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until the door is closed, then takes in what the kernel has completed already: closing a socket would
/// reset those.
pub(super) async fn run(listener: TcpListener, door: Arc<Door>, worker: usize, sessions: TaskTracker) {
    let _watch = PanicWatch::new(&door.shared, "accept loop");
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.closed.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, peer)) => {
                backoff.reset();
                welcome(client, peer, &door, worker, &sessions);
            }
            Err(e) if is_passing(&e) => {}
            Err(e) => {
                door.tally.refused();
                let pause = backoff.step(0);
                tracing::warn!(listener = %door.address, error = %e, ?pause, "accept failed");
                tokio::select! {
                    () = door.closed.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
    while let Some((client, peer)) = accept_now(&listener).await {
        welcome(client, peer, &door, worker, &sessions);
    }
}

fn welcome(client: TcpStream, peer: SocketAddr, door: &Arc<Door>, worker: usize, sessions: &TaskTracker) {
    let (entered, open) = door.tally.enter();
    let rules = door.rules.load();
    let (guest, over) = match door.guests.enter(peer.ip(), &rules.limits, Instant::now()) {
        Ok(entered) => entered,
        Err(over) => return door.tally.limited(over.limit()),
    };
    // Who is over a limit of its own takes no place of this one.
    let nth = open.saturating_sub(door.guests.over());
    if nth > rules.max_connections.saturating_add(MOST_OVER) {
        return door.tally.limited(Limit::Connections);
    }
    let service = &door.shared.service;
    let span = tracing::debug_span!("session", %service, listener = %door.address, client.addr = %peer);
    let arrival =
        Arrival { door: door.clone(), worker, client, peer, entered, standing: Standing { guest, nth, over } };
    sessions.spawn(session::serve(arrival).instrument(span));
}

/// The connection is over before it began; the listener is fine.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

async fn accept_now(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    std::future::poll_fn(|cx| match listener.poll_accept(cx) {
        Poll::Ready(Ok(accepted)) => Poll::Ready(Some(accepted)),
        Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(None),
    })
    .await
}
