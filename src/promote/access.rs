//! How the effects reach servers: as whom, under which name, over which TLS, on sessions opened in advance where that
//! matters. What is said on a session is the effects' business.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::EffectError;
use crate::config::{Login, Replication, Service};
use crate::net::session::{Cause, Session, Target};
use crate::net::tls::{ClientTls, TlsConfigError};
use crate::net::virtual_cluster;
use crate::types::{BackendName, Epoch, HostPort, ServiceName};

/// Sessions kept per standby: one for the lock, one for the promotion.
const KEPT: usize = 2;
/// For opening and testing them.
const KEEP: Duration = Duration::from_secs(3);

/// The way to the servers of one service.
#[derive(Debug)]
pub(super) struct Access {
    login: Option<Login>,
    backends: HashMap<BackendName, Known>,
    /// Startup parameters of every session.
    parameters: &'static [(&'static str, &'static str)],
    daemon: String,
    service: ServiceName,
    epoch: AtomicU64,
    names: Mutex<HashMap<SocketAddr, HostPort>>,
    kept: Mutex<HashMap<SocketAddr, Vec<Session>>>,
}

#[derive(Debug)]
struct Known {
    configured: Vec<HostPort>,
    tls: Result<Arc<ClientTls>, TlsConfigError>,
}

impl Access {
    pub(super) fn build(service: &Service, daemon: &str, login: Option<Login>) -> Self {
        let known = service.backends.iter().map(|backend| {
            let tls = ClientTls::build(&backend.tls);
            (backend.name.clone(), Known { configured: backend.addresses.clone(), tls })
        });
        let parameters = match &service.replication {
            Some(Replication::Sql(_)) => virtual_cluster::ON_SYSTEM,
            Some(Replication::Cloud(_)) | None => &[],
        };
        Self {
            login,
            backends: known.collect(),
            parameters,
            daemon: daemon.to_owned(),
            service: service.name.clone(),
            epoch: AtomicU64::new(0),
            names: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    pub(super) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Relaxed);
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    pub(super) fn learn(&self, backend: &BackendName, addresses: &[(HostPort, SocketAddr)]) {
        if self.backends.contains_key(backend) {
            let learned = addresses.iter().map(|(name, address)| (*address, name.clone()));
            locked(&self.names).extend(learned);
        }
    }

    /// Who our sessions say they are.
    pub(super) fn application_name(&self) -> String {
        format!("pgpivot/{}/{}/{}", self.daemon, self.service, self.epoch())
    }

    /// A new session.
    pub(super) async fn open(
        &self,
        backend: &BackendName,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<Session, EffectError> {
        let target = self.target(backend, address)?;
        Ok(Session::connect_with(&target, self.parameters, deadline).await?)
    }

    /// A new session at the first address that lets us in; each has its share of what time is left.
    pub(super) async fn open_any(
        &self,
        backend: &BackendName,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<Session, EffectError> {
        let mut last = EffectError::NoAddress(backend.clone());
        for (tried, address) in addresses.iter().enumerate() {
            let (now, left) = (Instant::now(), addresses.len() - tried);
            let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
            match self.open(backend, *address, now + share).await {
                Ok(session) => return Ok(session),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Is the virtual cluster of that name served at this address? `None`: it did not tell.
    pub(super) async fn is_served(
        &self,
        backend: &BackendName,
        address: SocketAddr,
        name: &str,
        deadline: Instant,
    ) -> Option<bool> {
        let target = self.target(backend, address).ok()?;
        let option = virtual_cluster::option(name);
        let greeted = Session::greet_with(&target, &[("options", &option)], deadline).await;
        match greeted.map_err(|error| error.cause) {
            Err(Cause::Sqlstate { code, .. }) => Some(code != "08000"),
            Err(Cause::Io { kind: ErrorKind::ConnectionRefused, .. }) => Some(false),
            Err(_) => None,
            Ok(()) => Some(true),
        }
    }

    /// Where to go, and a session kept for going there, if there is one.
    pub(super) fn way(&self, backend: &BackendName, address: SocketAddr) -> Result<Way, EffectError> {
        let target = self.target(backend, address)?;
        let kept = locked(&self.kept).get_mut(&address).and_then(Vec::pop);
        Ok(Way { target, kept })
    }

    /// As [`super::Effects::keep`].
    pub(super) async fn keep(&self, standbys: &[(BackendName, SocketAddr)]) {
        let deadline = Instant::now() + KEEP;
        let mut old = std::mem::take(&mut *locked(&self.kept));
        let mut tests = JoinSet::new();
        for (backend, address) in standbys {
            let sessions = old.remove(address).unwrap_or_default();
            let Ok(target) = self.target(backend, *address) else {
                continue;
            };
            let address = *address;
            tests.spawn(async move { (address, tested(sessions, &target, deadline).await) });
        }
        for session in old.into_values().flatten() {
            session.close(deadline).await;
        }
        while let Some(joined) = tests.join_next().await {
            if let Ok((address, sessions)) = joined {
                locked(&self.kept).insert(address, sessions);
            }
        }
    }

    fn target(&self, backend: &BackendName, address: SocketAddr) -> Result<Target, EffectError> {
        let login = self.login.clone().ok_or(EffectError::NoLogin)?;
        let known = self.backends.get(backend).ok_or_else(|| EffectError::UnknownBackend(backend.clone()))?;
        let tls = known.tls.clone()?;
        let host = locked(&self.names).get(&address).map(|name| name.host.clone());
        let host = host.or_else(|| known.host_of(address)).unwrap_or_else(|| address.ip().to_string().into());
        let (server_name, application_name) = (tls.name_for(&host), self.application_name());
        Ok(Target { address, server_name, tls, login, application_name, replication: false })
    }
}

impl Known {
    /// The configured name an address most likely came from, as long as nobody told.
    fn host_of(&self, address: SocketAddr) -> Option<Arc<str>> {
        let literal = |name: &&HostPort| name.host.parse() == Ok(address.ip()) && name.port == address.port();
        let named = |name: &&HostPort| name.port == address.port();
        let found = self.configured.iter().find(literal).or_else(|| self.configured.iter().find(named));
        found.map(|name| name.host.clone())
    }
}

/// The way to one server.
#[derive(Debug)]
pub(super) struct Way {
    target: Target,
    kept: Option<Session>,
}

impl Way {
    /// A session: the kept one at first, then new ones.
    pub(super) async fn session(&mut self, deadline: Instant) -> Result<(Session, Origin), EffectError> {
        match self.kept.take() {
            Some(session) => Ok((session, Origin::Kept)),
            None => Ok((Session::connect(&self.target, deadline).await?, Origin::New)),
        }
    }

    /// Who our session says it is, as an SQL literal.
    pub(super) fn name_literal(&self) -> String {
        format!("'{}'", self.target.application_name.replace('\'', "''"))
    }
}

/// Where a session came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Kept,
    New,
}

impl Origin {
    /// A kept session may have died unnoticed: what was asked on it can be asked again on a new one.
    pub(super) fn excuses(self, session: &Session, error: &EffectError) -> bool {
        self == Origin::Kept && !session.is_usable() && matches!(error, EffectError::Session(_))
    }
}

async fn tested(sessions: Vec<Session>, target: &Target, deadline: Instant) -> Vec<Session> {
    let mut alive = Vec::new();
    for mut session in sessions {
        if session.query("SELECT 1", deadline).await.is_ok() {
            alive.push(session);
        }
    }
    while alive.len() < KEPT {
        match Session::connect(target, deadline).await {
            Ok(session) => alive.push(session),
            Err(error) => {
                tracing::debug!(address = %target.address, %error, "session in advance not opened");
                break;
            }
        }
    }
    alive
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
