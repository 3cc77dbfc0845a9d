//! The admin thread: its listeners, connections and limits, and its end. Holds no route and no surface.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, broadcast};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::auth::{Peer, Trust};
use super::events::Hub;
use super::socket::{Door, Guest};
use super::stall::Impatient;
use super::{AdminState, ServiceEvent, Settings, routes};

pub use super::socket::AdminError;

/// How long running replies may go on after the stop.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Request head and read buffer, bytes.
const HEAD_LIMIT: usize = 32 * 1024;
/// Connections at one time, 256 in all: each listener has its share, so that none starves another.
const TCP_CONNECTIONS: usize = 192;
const UNIX_CONNECTIONS: usize = 32;
const METRICS_CONNECTIONS: usize = 32;
const HISTORY_READERS: usize = 4;
/// After a failed accept (no descriptor left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// To a connection over the limit, which is closed at once.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    content-length: 134\r\nconnection: close\r\nretry-after: 5\r\n\r\n\
    {\"type\":\"about:pgpivot/full\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"as many connections are open as this server takes\"}\n";

/// How long anybody may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a request's head, and for a kept connection to send the next one.
    pub(super) head: Duration,
    /// For a request's body.
    pub(super) body: Duration,
    /// For the daemon's answer to a command.
    pub(super) answer: Duration,
    /// For a peer to read what it is sent.
    pub(super) write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { head: seconds(10), body: seconds(10), answer: seconds(10), write: seconds(30) }
    }
}

/// What every request may look at.
pub(super) struct Shared {
    pub(super) state: AdminState,
    pub(super) trust: ArcSwap<Trust>,
    pub(super) hub: Hub,
    pub(super) stop: CancellationToken,
    pub(super) patience: Patience,
    /// Readers of the history's file at one time: a disk that hangs must not take a thread per request.
    pub(super) history_readers: Arc<Semaphore>,
}

/// The running admin server. It ends when its stop token is cancelled; [`Admin::join`] waits for that.
#[must_use = "join it, so that the end of the thread is seen"]
pub struct Admin {
    listen: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("listen", &self.listen).field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Admin {
    /// Where the page and the API are, with the port that was chosen for port 0.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Where the metrics-only listener is.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Takes tokens, host names and credentials over. Addresses stay as they are: those need a restart.
    pub fn apply(&self, settings: &Settings) {
        self.shared.trust.store(Arc::new(Trust::build(settings)));
    }

    /// The thread has ended; before the stop, that is a fault of ours.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end; blocks at most about two seconds after the stop. `false` = the thread panicked.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

/// Binds everything `settings` names, then serves on a thread of its own until `stop` is cancelled.
pub fn serve(settings: &Settings, state: AdminState, stop: CancellationToken) -> Result<Admin, AdminError> {
    serve_with(settings, state, stop, Patience::default())
}

/// As [`serve`], for tests that cannot wait so long.
pub(super) fn serve_with(
    settings: &Settings,
    state: AdminState,
    stop: CancellationToken,
    patience: Patience,
) -> Result<Admin, AdminError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Thread)?;
    let opened = {
        let _context = runtime.enter();
        open(settings)
    };
    let (listen, metrics, unix) = match opened {
        Ok(doors) => doors,
        Err(error) => {
            // Dropping a runtime waits, and the caller may stand in a runtime of its own, where waiting panics.
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let happened = state.events.subscribe();
    let hub = Hub::new(state.status.load_full());
    let trust = ArcSwap::from_pointee(Trust::build(settings));
    let history_readers = Arc::new(Semaphore::new(HISTORY_READERS));
    let shared = Arc::new(Shared { state, trust, hub, stop, patience, history_readers });
    let addresses = (listen.as_ref().and_then(Door::address), metrics.as_ref().and_then(Door::address));
    let all = routes::all(Arc::clone(&shared));
    let metrics_only = routes::metrics_only(Arc::clone(&shared));
    let doors = [
        listen.map(|door| (door, all.clone(), TCP_CONNECTIONS)),
        unix.map(|door| (door, all, UNIX_CONNECTIONS)),
        metrics.map(|door| (door, metrics_only, METRICS_CONNECTIONS)),
    ];
    let ours = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            runtime.block_on(run(doors, happened, ours));
            // Without this a disk that hangs under a reader of the history would keep the thread.
            runtime.shutdown_timeout(LAST_WORDS);
        })
        .map_err(AdminError::Thread)?;
    Ok(Admin { listen: addresses.0, metrics: addresses.1, shared, thread })
}

type Doors = (Option<Door>, Option<Door>, Option<Door>);

/// Page and API, metrics alone, unix socket. Needs a runtime's context.
fn open(settings: &Settings) -> Result<Doors, AdminError> {
    let listen = settings.listen.map(|a| Door::tcp("admin.listen", a)).transpose()?;
    let metrics = settings.metrics_listen.map(|a| Door::tcp("admin.metrics_listen", a)).transpose()?;
    let unix = settings.socket.as_deref().map(Door::unix).transpose()?;
    Ok((listen, metrics, unix))
}

type Opened = (Door, Router, usize);

/// Until the stop, or until a part ends that must not: then the thread ends and its owner sees it.
async fn run(doors: [Option<Opened>; 3], happened: broadcast::Receiver<ServiceEvent>, shared: Arc<Shared>) {
    let mut parts = JoinSet::new();
    for (door, router, limit) in doors.into_iter().flatten() {
        parts.spawn(accept(door, router, limit, Arc::clone(&shared)));
    }
    let watched = Arc::clone(&shared);
    parts.spawn(async move { watched.hub.run(&watched.state, happened, &watched.stop).await });
    while let Some(ended) = parts.join_next().await {
        report(ended);
        if !shared.stop.is_cancelled() {
            tracing::error!("a part of the admin server ended by itself");
            return;
        }
    }
}

async fn accept(door: Door, router: Router, limit: usize, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        let guest = tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            guest = door.accept() => guest,
        };
        match guest {
            Ok(guest) if connections.len() >= limit => {
                if !std::mem::replace(&mut full, true) {
                    tracing::warn!(limit, "admin connections at their limit");
                }
                turn_away(&guest);
                continue;
            }
            Ok(Guest::Tcp(stream, peer)) => {
                connections.spawn(converse(stream, peer, router.clone(), Arc::clone(&shared)));
            }
            Ok(Guest::Unix(stream, peer)) => {
                connections.spawn(converse(stream, peer, router.clone(), Arc::clone(&shared)));
            }
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        }
        full = false;
    }
    drop(door);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, finished).await.is_err() {
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "admin task panicked");
    }
}

/// One try, no waiting: whoever does not take it sees a close.
fn turn_away(guest: &Guest) {
    let _ = match guest {
        Guest::Tcp(stream, _) => stream.try_write(FULL),
        Guest::Unix(stream, _) => stream.try_write(FULL),
    };
}

/// One connection, from its first request to its end.
async fn converse<S>(stream: S, peer: Peer, router: Router, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Impatient::new(stream, shared.patience.write));
    let (stop, patience) = (shared.stop.clone(), shared.patience.head);
    let service = service_fn(move |request| answer(request, peer, router.clone(), Arc::clone(&shared)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, ?peer, "admin connection ended early");
    }
}

async fn answer(
    mut request: Request<Incoming>,
    peer: Peer,
    router: Router,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(peer);
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let admitted = routes::admit(&shared, peer, &parts);
    let response = match admitted {
        Ok(()) => TowerToHyperService::new(router).call(Request::from_parts(parts, body)).await?,
        Err(fault) => {
            tracing::info!(%fault, ?peer, path, "admin request refused");
            fault.into_response()
        }
    };
    Ok(routes::finish(&path, response))
}
