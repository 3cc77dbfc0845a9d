//! What the driver does to servers on the machine's order: promote, lock, freeze, fence, and their undoing.
//! Each order is idempotent, has its deadline inside, and decides nothing; proof of what came of it is `probe`'s.

mod access;
mod clock;
mod cockroach_cloud;
mod cockroach_sql;
mod command;
pub mod error;
mod fence;
mod freeze;
mod latched;
pub mod lock;
mod none;
mod patroni;
mod postgres;
mod process;
mod rejoin;
mod repoint;
mod service;
mod setting;
mod soft;
mod survey;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::{Backend, CockroachSql, Failover, ProbeKind, Promoter as Configured, Replication, Service};
use crate::failover::action::{
    Latched, LockResult, PromotionResult, RejoinOrder, Rejoining, Repoint, Softened, Survey,
};
use crate::failover::phase::StreamOrder;
use crate::types::{BackendName, Epoch, HostPort, Lsn, SystemId, WallTime};

use access::Access;
pub use error::EffectError;
pub use lock::LockGuard;

/// Makes one standby writable.
pub trait Promoter {
    /// Promotes; repeating it does no harm. The word that comes back proves nothing.
    fn promote(&self, order: &Order<'_>) -> impl Future<Output = PromotionResult> + Send;
}

/// Whom to promote.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The candidate.
    pub backend: &'a BackendName,
    /// The very address that was proven.
    pub address: SocketAddr,
    /// The epoch it will open.
    pub epoch: Epoch,
}

/// All effects on the servers of one service.
#[derive(Debug)]
pub struct Effects {
    access: Access,
    promoter: Kind,
    /// Self-hosted clusters: the virtual cluster that is stopped and served.
    virtual_cluster: Option<CockroachSql>,
    fence_command: Option<Vec<String>>,
    /// To order a change from, where Patroni is the authority.
    patroni: Option<crate::patroni::Client>,
    rejoin_command: Option<Vec<String>>,
    rejoin_timeout: Duration,
    follow_command: Option<Vec<String>>,
    promote_timeout: Duration,
}

#[derive(Debug)]
enum Kind {
    None(none::Nobody),
    Command(command::Command),
    Postgres,
    CockroachCloud(cockroach_cloud::CockroachCloud),
    CockroachSql(cockroach_sql::CockroachSql),
}

impl Effects {
    /// Takes what it needs from the configuration. TLS settings that cannot be used are told when a server is to be
    /// reached, each time.
    pub fn build(service: &Service, daemon: &str) -> Effects {
        let Failover { promoter, promote_timeout, fence_command, .. } = &service.failover;
        let virtual_cluster = match &service.replication {
            Some(Replication::Sql(settings)) => Some(settings.clone()),
            Some(Replication::Cloud(_)) | None => None,
        };
        let login = match (promoter, &service.probe.kind) {
            _ if virtual_cluster.is_some() => virtual_cluster.as_ref().map(|settings| settings.login.clone()),
            (Configured::Postgres { login }, _) | (_, ProbeKind::Sql { login }) => Some(login.clone()),
            // Without a password nobody is let in.
            (_, ProbeKind::Startup { login }) if login.password.is_some() => Some(login.clone()),
            _ => None,
        };
        let promoter = match promoter {
            Configured::None => Kind::None(none::Nobody),
            Configured::Command(argv) => Kind::Command(command::Command::new(argv.clone(), *promote_timeout)),
            Configured::Postgres { .. } => Kind::Postgres,
            Configured::CockroachCloud | Configured::CockroachSql => match &service.replication {
                Some(Replication::Cloud(cloud)) => Kind::CockroachCloud(cockroach_cloud::CockroachCloud::new(cloud)),
                Some(Replication::Sql(sql)) => Kind::CockroachSql(cockroach_sql::CockroachSql::new(sql.clone())),
                None => Kind::None(none::Nobody),
            },
        };
        Effects {
            access: Access::build(service, daemon, login),
            promoter,
            virtual_cluster,
            fence_command: fence_command.clone(),
            // What cannot be used was told when the probes were to start with it.
            patroni: service.patroni.as_ref().and_then(|settings| crate::patroni::Client::build(settings).ok()),
            rejoin_command: service.failover.rejoin_command.clone(),
            rejoin_timeout: service.failover.rejoin_timeout,
            follow_command: service.failover.follow_command.clone(),
            promote_timeout: *promote_timeout,
        }
    }

    /// The epoch that our sessions show in `application_name` from now on.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.access.set_epoch(epoch);
    }

    /// Which configured name each address of a backend came from: a certificate is checked against that name.
    pub fn learn(&self, backend: &BackendName, addresses: &[(HostPort, SocketAddr)]) {
        self.access.learn(backend, addresses);
    }

    /// Opens and tests the sessions with which these standbys would be locked and promoted, and lets others go: in the
    /// hour of need a server may have no slot left. At most 3 s.
    pub async fn keep(&self, standbys: &[(BackendName, SocketAddr)]) {
        self.access.keep(standbys).await;
    }

    /// Reads the clock of a cluster, at the first of these addresses that answers. At most 5 s. `stop`: serves nobody
    /// there first, and at most 15 s in all; [`Effects::unfreeze`] undoes that.
    pub async fn read_clock(
        &self,
        backend: &BackendName,
        addresses: &[SocketAddr],
        stop: bool,
    ) -> Result<WallTime, String> {
        said(match &self.virtual_cluster {
            Some(settings) if stop => service::stop_and_read_clock(&self.access, settings, backend, addresses).await,
            _ => clock::read(&self.access, backend, addresses).await,
        })
    }

    /// Orders the promotion, at most `promote_timeout` and (for a command that will not end) 5 s more.
    pub async fn promote(
        &self,
        backend: &Backend,
        address: SocketAddr,
        epoch: Epoch,
        stream: Option<&StreamOrder>,
    ) -> PromotionResult {
        let order = Order { backend: &backend.name, address, epoch };
        match &self.promoter {
            Kind::None(promoter) => promoter.promote(&order).await,
            Kind::Command(promoter) => promoter.promote(&order).await,
            Kind::Postgres => {
                let promoter = postgres::Postgres { access: &self.access, timeout: self.promote_timeout };
                promoter.promote(&order).await
            }
            Kind::CockroachCloud(promoter) => promoter.fail_over(stream).await,
            Kind::CockroachSql(promoter) => promoter.fail_over(&self.access, &order, stream).await,
        }
    }

    /// Takes the lock on at least `needed` of these backends, at most 2 s. The guard holds it.
    pub async fn lock(&self, backends: &[(BackendName, SocketAddr)], needed: usize) -> (LockResult, Option<LockGuard>) {
        lock::take(&self.access, backends, needed).await
    }

    /// Makes the latched primary read-only, ends its clients, and waits until its log stands still.
    /// At most 20 s. See `freeze` for what it does not bind.
    pub async fn freeze(
        &self,
        backend: &BackendName,
        address: SocketAddr,
        latched: Option<&Latched>,
    ) -> Result<Lsn, String> {
        said(freeze::freeze(&self.access, backend, address, latched).await)
    }

    /// Undoes [`Effects::freeze`], also one that was only half done. At most 6 s.
    pub async fn unfreeze(
        &self,
        backend: &BackendName,
        address: SocketAddr,
        latched: Option<&Latched>,
    ) -> Result<(), String> {
        said(match &self.virtual_cluster {
            Some(settings) => service::start(&self.access, settings, backend, address).await,
            None => freeze::unfreeze(&self.access, backend, address, latched).await,
        })
    }

    /// Reads the flush position of the latched primary. At most 2 s.
    pub async fn read_flush(
        &self,
        backend: &BackendName,
        address: SocketAddr,
        latched: Option<&Latched>,
    ) -> Result<Lsn, String> {
        said(freeze::read_flush(&self.access, backend, address, latched).await)
    }

    /// Makes a side that was left read-only and, if asked to, ends its clients. At most 12 s. See `soft`.
    pub async fn soften(
        &self,
        backend: &BackendName,
        address: SocketAddr,
        server: &Latched,
        ends: bool,
    ) -> Result<Softened, String> {
        said(soft::soften(&self.access, backend, address, server, ends).await)
    }

    /// Undoes [`Effects::soften`] on a standby of this system. At most 6 s.
    pub async fn thaw(&self, backend: &BackendName, address: SocketAddr, system_id: SystemId) -> Result<(), String> {
        said(soft::thaw(&self.access, backend, address, system_id).await)
    }

    /// Reads an old primary and the latched one, at most 5 s.
    pub async fn survey(
        &self,
        side: (&BackendName, Option<SocketAddr>),
        source: (&BackendName, Option<SocketAddr>),
    ) -> Survey {
        survey::survey(&self.access, side, source).await
    }

    /// Runs `rejoin_command`, at most `rejoin_timeout` and (for one that will not end) 5 s more; what it writes goes to
    /// `file`. `off` ends it. It outlives the end of this future.
    pub async fn rejoin(
        &self,
        order: &RejoinOrder,
        backends: (&Backend, &Backend),
        file: &Path,
        off: &CancellationToken,
        tell: impl Fn(Rejoining),
    ) {
        let Some(template) = &self.rejoin_command else {
            return tell(Rejoining::Failed("no rejoin_command is configured any more".into()));
        };
        // As configured: the server may answer nothing, and its host may be known by that name alone.
        let address = |backend: &Backend| backend.addresses.first().map(ToString::to_string).unwrap_or_default();
        let values = [
            ("{backend}", order.backend.to_string()),
            ("{address}", address(backends.0)),
            ("{primary}", order.primary.to_string()),
            ("{primary_address}", address(backends.1)),
            ("{method}", order.method.as_str().to_owned()),
            ("{epoch}", self.access.epoch().to_string()),
        ];
        let argv = process::filled(template, &values);
        rejoin::run(&argv, file, order.running, self.rejoin_timeout, off, &tell).await;
    }

    /// Sets `synchronous_standby_names`. At most 6 s.
    pub async fn set_sync(&self, backend: &BackendName, address: SocketAddr, names: &str) -> Result<(), String> {
        said(setting::set_sync(&self.access, backend, address, names).await)
    }

    /// Points the standby at `at` to the new primary, which this daemon reaches at `primary`. At most 15 s by SQL, then
    /// 65 s by `follow_command`.
    pub async fn repoint(
        &self,
        order: &Repoint,
        at: SocketAddr,
        primary: Option<SocketAddr>,
    ) -> Result<String, String> {
        repoint::repoint(&self.access, order, at, primary, self.follow_command.as_deref()).await
    }

    /// Runs the node fence, at most 30 s and (for one that will not end) 5 s more; or where there is no command for it,
    /// serves a self-hosted virtual cluster to nobody, at most 5 s.
    pub async fn fence(&self, backend: &Backend, addresses: &[SocketAddr]) -> Result<(), String> {
        said(match (&self.fence_command, &self.virtual_cluster) {
            (None, Some(settings)) if settings.stop_service => {
                service::stop(&self.access, settings, &backend.name, addresses).await
            }
            (command, _) => fence::fence(command.as_deref(), backend, self.access.epoch()).await,
        })
    }
}

fn said<T>(result: Result<T, EffectError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}
