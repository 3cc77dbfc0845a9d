//! What connections share: of one service on all its threads, and of one listener. Settings can change under them;
//! whoever begins something takes the settings of that moment.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;

use super::guests::Guests;
use super::hold::{Limits, Room};
use crate::config::{self, ListenerLimits, Target};
use crate::connections::{Connections, ListenerTally};
use crate::net::terminate::ServerTls;
use crate::net::tls::{ClientTls, TlsConfigError};
use crate::routing::Routing;
use crate::types::{BackendName, ServiceName};

/// Of one service.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) service: ServiceName,
    pub(super) routing: Routing,
    pub(super) connections: Connections,
    pub(super) room: Arc<Room>,
    pub(super) settings: ArcSwap<Settings>,
    /// TLS to the backends, for clients whose own ends here; empty where no listener does that.
    pub(super) upstream: ArcSwap<Upstream>,
    /// The daemon ends: who waits is sent away.
    pub(super) stopping: CancellationToken,
    pub(super) failures: watch::Sender<Failures>,
}

/// Of one service, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) connection: config::Connection,
    pub(super) hold_timeout: Duration,
    pub(super) limits: Limits,
    /// Per second.
    pub(super) release_rate: u32,
    /// CockroachDB stands behind it.
    pub(super) cockroach: bool,
}

impl Settings {
    pub(super) fn of(service: &config::Service) -> Self {
        let failover = &service.failover;
        Self {
            connection: service.connection.clone(),
            hold_timeout: failover.hold_timeout,
            limits: Limits { places: failover.max_held, per_address: failover.max_held_per_address },
            release_rate: failover.release_rate,
            cockroach: service.kind == config::Kind::Cockroach,
        }
    }
}

/// One listener, on all threads of its service.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    /// As configured: the name its counters are kept under.
    pub(super) address: SocketAddr,
    pub(super) tally: Arc<ListenerTally>,
    pub(super) rules: ArcSwap<Rules>,
    pub(super) guests: Arc<Guests>,
    /// It accepts no more.
    pub(super) closed: CancellationToken,
}

/// Of one listener, as configured.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) target: Target,
    pub(super) max_connections: u64,
    pub(super) limits: ListenerLimits,
    /// Clients' TLS ends here, with this certificate.
    pub(super) tls: Option<Arc<ServerTls>>,
    /// Who does not encrypt is refused.
    pub(super) require: bool,
}

impl Rules {
    /// An error is what the certificate or its key is refused for.
    pub(super) fn of(listener: &config::Listener) -> Result<Self, rustls::Error> {
        let (tls, require) = match &listener.tls {
            config::ListenerTls::PassThrough => (None, false),
            config::ListenerTls::Terminate(tls) => {
                let identity = tls.identity.as_ref().ok_or(rustls::Error::NoCertificatesPresented)?;
                (Some(ServerTls::build(identity)?), tls.require)
            }
        };
        let max_connections = listener.max_connections as u64;
        Ok(Self { target: listener.target, max_connections, limits: listener.limits.clone(), tls, require })
    }
}

/// TLS to the backends of a service, by their names.
pub(super) type Upstream = HashMap<BackendName, Arc<ClientTls>>;

/// Reads what they are verified with. An error names the backend.
pub(super) fn upstream(service: &config::Service) -> Result<Upstream, (BackendName, TlsConfigError)> {
    let ends = |listener: &config::Listener| listener.tls != config::ListenerTls::PassThrough;
    if !service.listeners.iter().any(ends) {
        return Ok(Upstream::new());
    }
    let built = service.backends.iter().map(|backend| match ClientTls::build(&backend.tls) {
        Ok(tls) => Ok((backend.name.clone(), tls)),
        Err(error) => Err((backend.name.clone(), error)),
    });
    built.collect()
}

/// Ends of tasks and threads that must not end, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// Connections and accept loops that panicked; their thread went on.
    pub tasks: u64,
    /// Worker threads that ended.
    pub workers: u64,
}

/// Counts a panic that passes through it; tokio catches it at the edge of the task.
#[derive(Debug)]
pub(super) struct PanicWatch<'a> {
    shared: &'a Shared,
    task: &'static str,
}

impl<'a> PanicWatch<'a> {
    pub(super) fn new(shared: &'a Shared, task: &'static str) -> Self {
        Self { shared, task }
    }
}

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.failures.send_modify(|failures| failures.tasks += 1);
            tracing::error!(service = %self.shared.service, task = self.task, "task panicked");
        }
    }
}
