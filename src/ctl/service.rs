//! `service`: the sidecar alone. `/health`, `/connection` and `/clusters` for applications, without a listener, without a
//! promotion and without a say in either. Here: its start, its connections and its end; the replies are `answer`'s.

mod answer;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::answer::Sidecar;
use super::terminal::Terminal;
use super::{CtlError, Done};
use crate::client::{ConnectionManager, Settings, SettingsError};
use crate::config::source::ConfigError;
use crate::types::Secret;

/// For a request's head, and for a kept connection to send the next one.
const HEAD: Duration = Duration::from_secs(10);
/// Request head and read buffer, bytes.
const HEAD_LIMIT: usize = 32 * 1024;
/// Connections at one time; further ones wait to be accepted.
const CONNECTIONS: usize = 128;
/// How long running replies may go on after the stop.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// After a failed accept (no descriptor left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long what the Cloud API says is kept.
const CLOUD_CACHE: Duration = Duration::from_secs(5);

/// What the service is started on.
#[derive(Debug)]
pub(super) struct Start {
    /// Where it listens.
    pub(super) listen: SocketAddr,
    /// The daemon's URL, whether it is there or not.
    pub(super) daemon: String,
    /// Which of its services.
    pub(super) service: Option<String>,
    /// Who shows it is given `DB_PASSWORD`.
    pub(super) token: Option<Secret>,
    /// The environment over `.env`.
    pub(super) variables: BTreeMap<String, String>,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    /// The environment cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// `.env` cannot be read.
    #[error(transparent)]
    Variables(#[from] ConfigError),
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}; choose another one with --port and --listen")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// SIGTERM cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(terminal: &Terminal, start: Start) -> Result<Done, CtlError> {
    let settings = Settings::from_variables(|name| start.variables.get(name).cloned()).map_err(ServiceError::from)?;
    let credentials = settings.credentials.clone();
    let cloud = settings.cloud.is_some();
    let settings = Settings {
        daemon: Some(start.daemon.clone()),
        service: start.service,
        daemon_cache: Duration::ZERO,
        cloud_cache: CLOUD_CACHE,
        credentials: None,
        ..settings
    };
    let database = settings.database.clone();
    let manager = ConnectionManager::new(settings).map_err(ServiceError::from)?;
    let bound = TcpListener::bind(start.listen).await;
    let listener = bound.map_err(|source| ServiceError::Bind { address: start.listen, source })?;
    let mut term = signal(SignalKind::terminate()).map_err(ServiceError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(ServiceError::Signals)?;
    let address = listener.local_addr()?;
    let otherwise = if cloud { ", or from the Cloud API where nobody is there" } else { "" };
    terminal.talk(&format!(
        "serving /health, /connection and /clusters on http://{address}, from the daemon at {}{otherwise}",
        start.daemon
    ))?;
    if !address.ip().is_loopback() {
        terminal.talk("other machines can ask; a password is told to callers on this machine only")?;
    }
    let sidecar = Arc::new(Sidecar { manager, credentials, database, token: start.token });
    let stopped = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    serve(listener, &sidecar, stopped).await;
    terminal.talk("stopped")?;
    Ok(Done::Yes)
}

/// Until `stopped`; then running replies end, within a bound.
async fn serve(listener: TcpListener, sidecar: &Arc<Sidecar>, stopped: impl Future<Output = ()>) {
    let (mut connections, stop) = (JoinSet::new(), CancellationToken::new());
    let mut stopped = std::pin::pin!(stopped);
    loop {
        tokio::select! {
            biased;
            () = stopped.as_mut() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(converse(stream, peer, Arc::clone(sidecar), stop.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    drop(listener);
    stop.cancel();
    let ended = async { while connections.join_next().await.is_some() {} };
    // Who is left then goes with the set.
    let _ = timeout(LAST_WORDS, ended).await;
}

async fn converse(stream: TcpStream, peer: SocketAddr, sidecar: Arc<Sidecar>, stop: CancellationToken) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let sidecar = Arc::clone(&sidecar);
        async move { Ok::<_, Infallible>(sidecar.answer(request.into_parts().0, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // How a caller's connection ends is the caller's business.
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
