//! What a probe of one address does, whichever its kind: fresh, on the kept connection, or waiting for that to end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::http::{self, HttpTarget};
use super::sql::{Kept, Sampled, SqlProbe};
use super::{Common, application_name, startup, tcp};
use crate::config::{Login, ProbeKind};
use crate::failover::observation::{Unknown, Verdict};
use crate::net::session::Target;
use crate::types::{Epoch, HostPort};

/// The check of one address.
#[derive(Debug)]
pub(super) struct Check {
    common: Arc<Common>,
    address: SocketAddr,
    server_name: String,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Tcp,
    Startup(Login),
    Sql(Login, SqlProbe),
    Http(HttpTarget),
}

impl Check {
    /// `name` is what the configuration calls `address`.
    pub(super) fn new(common: Arc<Common>, name: &HostPort, address: SocketAddr) -> Self {
        let way = match &common.probe.kind {
            ProbeKind::Tcp => Way::Tcp,
            ProbeKind::Startup { login } => Way::Startup(login.clone()),
            ProbeKind::Sql { login } => {
                let promoter = common.promoter.as_ref().unwrap_or(login);
                let probe = SqlProbe::new(common.kind, common.probe.timeout, login, promoter);
                Way::Sql(login.clone(), probe.on(common.virtual_cluster.as_deref()))
            }
            ProbeKind::Http(ask) => Way::Http(HttpTarget {
                address: SocketAddr::new(address.ip(), ask.port.unwrap_or(address.port())),
                host: name.host.to_string(),
                tls: ask.tls.then(|| Arc::clone(&common.tls)),
                ask: ask.clone(),
            }),
        };
        Self { server_name: common.tls.name_for(&name.host), common, address, way }
    }

    /// Whether a connection is kept and sampled between fresh probes.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.way, Way::Sql(..))
    }

    /// On a connection made for it, everything by `deadline`; the connection comes back when it may be kept.
    pub(super) async fn fresh(&self, epoch: Epoch, deadline: Instant) -> (Verdict, Option<Kept>) {
        match &self.way {
            Way::Tcp => (tcp::probe(self.address, deadline).await, None),
            Way::Startup(login) => {
                let (target, common) = (self.target(login, epoch), &self.common);
                let named = common.virtual_cluster.as_deref();
                (startup::probe(common.kind, &target, named, deadline).await, None)
            }
            Way::Sql(login, probe) => probe.fresh(&self.target(login, epoch), deadline).await,
            Way::Http(target) => (http::probe(target, deadline).await, None),
        }
    }

    /// On the kept connection.
    pub(super) async fn sample(&self, kept: Kept, epoch: Epoch, deadline: Instant) -> Sampled {
        match &self.way {
            Way::Sql(login, probe) => probe.sample(kept, &self.target(login, epoch), deadline).await,
            // Nothing is kept by these; nothing is learned.
            Way::Tcp | Way::Startup(_) | Way::Http(_) => {
                Sampled { verdict: Verdict::Unknown(Unknown::OwnDelay), kept: None, lost: false }
            }
        }
    }

    /// Resolves when the server ends the kept connection, with what that says, if anything. Pending for ever while
    /// nothing is kept. Cancel safe.
    pub(super) async fn ended(&self, kept: &mut Option<Kept>) -> Option<Verdict> {
        match (&self.way, kept) {
            (Way::Sql(_, probe), Some(kept)) => probe.ended(kept, self.address).await,
            _ => std::future::pending().await,
        }
    }

    /// Whether a promotion of this server may be near.
    pub(super) fn expect_promotion(&self, near: bool, epoch: Epoch) {
        if let Way::Sql(login, probe) = &self.way {
            probe.expect_promotion(near, &self.target(login, epoch));
        }
    }

    fn target(&self, login: &Login, epoch: Epoch) -> Target {
        Target {
            address: self.address,
            server_name: self.server_name.clone(),
            tls: Arc::clone(&self.common.tls),
            login: login.clone(),
            application_name: application_name(&self.common.daemon, &self.common.service, epoch),
            replication: false,
        }
    }
}
