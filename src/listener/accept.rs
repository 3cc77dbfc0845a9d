//! The accept loop of one listening socket: it survives whatever accept returns, and never spins.
//! What becomes of a connection is `session`'s.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::door::{Door, PanicWatch};
use super::session::{self, Arrival};
use crate::backoff::Backoff;

/// How many may be open over `max_connections` at a time, so that they can be told why they are sent away, and so
/// that a cancel still gets through.
const OVER_LIMIT: u64 = 64;

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
    let entered = door.tally.enter();
    if entered.nth() > door.rules.load().max_connections.saturating_add(OVER_LIMIT) {
        door.tally.refused();
        return;
    }
    let service = &door.shared.service;
    let span = tracing::debug_span!("session", %service, listener = %door.address, client.addr = %peer);
    let arrival = Arrival { door: door.clone(), worker, client, peer, entered };
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
