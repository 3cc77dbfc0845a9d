//! Probes: one task per address checks it in the pace the decision core orders and reports stamped verdicts.
//! Nothing is counted here and nothing decided: fall and rise are `failover`'s.
//!
//! For the reader of the reports:
//! - `fresh` verdicts come from a connection made for the probe. With kind `sql` the kept connection is sampled
//!   besides, so a silent server gives two verdicts per interval until the kept connection is given up; what counts
//!   towards `fall` should be the fresh ones alone.
//! - [`Evidence::ProbeConnectionLost`] comes at once; if the server said why (57P01, 57P02), that verdict precedes it.
//! - [`ProbeReport::Addresses`] precedes the first verdict of every address it names.

mod addresses;
mod check;
mod classify;
mod cockroach_cloud;
mod cockroach_sql;
mod http;
mod patroni;
mod schedule;
mod sql;
mod startup;
mod streams;
mod tcp;
mod timing;
mod watcher;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::cockroach_cloud::model::ClusterId;
use crate::cockroach_cloud::{BuildError, Client};
use crate::config::{Backend, HttpProbe, Kind, Login, ProbeKind, Promoter, Replication, Service, Tls, TlsMode};
use crate::failover::action::Cadence;
use crate::failover::observation::{Evidence, Observation};
use crate::failover::replication::Report;
use crate::net::resolve::Resolver;
use crate::net::tls::{ClientTls, TlsConfigError};
use crate::types::{BackendName, Epoch, HostPort, Now};

use cockroach_cloud::Cloud;
use cockroach_sql::{Ours, Sql};
pub use sql::PROBE_SQL;
use streams::{Pace, Source};

/// PostgreSQL cuts `application_name` after so many bytes.
const MAX_APPLICATION_NAME: usize = 63;
/// A task that panicked is started again after this.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// How long [`Probes::stop`] waits for its tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What probes tell their driver.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeReport {
    /// One verdict about one address.
    Observation(Observation),
    /// The addresses of a backend, at the start and whenever they change; those not named any more are probed no more.
    Addresses {
        /// Whose.
        backend: BackendName,
        /// Configured name and what it stands for now; empty while no name resolves.
        addresses: Vec<(HostPort, SocketAddr)>,
    },
    /// What a kept connection saw without asking.
    Evidence(Evidence),
    /// One reading of the replication streams between clusters.
    Streams(Report),
    /// One attempt at reading Patroni.
    Patroni(Box<crate::failover::patroni::Report>),
    /// What the control plane records of a cluster beside its normal state; `None` = nothing.
    ClusterNote {
        /// Of which cluster.
        backend: BackendName,
        /// In the vendor's words.
        note: Option<String>,
    },
    /// A probe task panicked; it was started again.
    TaskFailed {
        /// Whose.
        backend: BackendName,
        /// What the runtime says of it.
        error: String,
    },
}

/// The probes of one service. Dropping it ends them without waiting.
#[derive(Debug)]
pub struct Probes {
    orders: watch::Sender<Orders>,
    pokes: HashMap<BackendName, watch::Sender<u64>>,
    /// Clusters: to the reader of their streams.
    streams: Option<streams::Orders>,
    /// To the reader of Patroni.
    patroni: Option<patroni::Orders>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why probes cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The TLS settings of a backend.
    #[error("backend {backend}: {cause}")]
    Tls {
        /// Whose settings.
        backend: BackendName,
        /// What is wrong with them.
        cause: TlsConfigError,
    },
    /// The settings of the Cloud API.
    #[error("cockroach_cloud: {0}")]
    Cloud(#[from] BuildError),
    /// The settings of Patroni's members.
    #[error("patroni: {0}")]
    Patroni(#[from] crate::patroni::BuildError),
}

/// What the decision core orders, the same for all tasks of a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Orders {
    cadence: Cadence,
    /// When this cadence was ordered.
    since: Instant,
    active: Option<BackendName>,
    epoch: Epoch,
}

/// What all tasks of one backend share.
#[derive(Debug)]
struct Common {
    backend: BackendName,
    kind: Kind,
    probe: crate::config::Probe,
    daemon: String,
    service: String,
    tls: Arc<ClientTls>,
    promoter: Option<Login>,
    /// Self-hosted: the one that is replicated. A standby's default may be another one, which would answer for it.
    virtual_cluster: Option<String>,
    sender: mpsc::Sender<ProbeReport>,
    clock: fn() -> Now,
}

impl Probes {
    /// Starts probing every backend of `service` at once, in the calm cadence and with no side active. Must be called
    /// within the runtime the probes shall live on.
    ///
    /// # Errors
    /// When a backend's `ca_file` cannot be used.
    pub fn start(
        service: &Service,
        daemon: &str,
        sender: mpsc::Sender<ProbeReport>,
        clock: fn() -> Now,
    ) -> Result<Self, ProbeError> {
        Self::start_with(service, daemon, sender, clock, Resolver::default())
    }

    /// Could [`Probes::start`] use these settings? Connects to nobody.
    pub fn check(service: &Service) -> Result<(), ProbeError> {
        Self::tls(service)?;
        if let Some(Replication::Sql(_)) = &service.replication {
            system_tls(service)?;
        }
        if let Some(settings) = &service.patroni {
            crate::patroni::Client::build(settings)?;
        }
        Ok(cloud(service).map(drop)?)
    }

    fn tls(service: &Service) -> Result<Vec<(&Backend, Arc<ClientTls>)>, ProbeError> {
        let mut all = Vec::new();
        for backend in &service.backends {
            let tls = tls_for(&service.probe.kind, &backend.tls);
            all.push((backend, tls.map_err(|cause| ProbeError::Tls { backend: backend.name.clone(), cause })?));
        }
        Ok(all)
    }

    fn start_with(
        service: &Service,
        daemon: &str,
        sender: mpsc::Sender<ProbeReport>,
        clock: fn() -> Now,
        resolver: Resolver,
    ) -> Result<Self, ProbeError> {
        let calm = Orders { cadence: Cadence::Calm, since: Instant::now(), active: None, epoch: Epoch::default() };
        let (orders, _) = watch::channel(calm);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let resolver = Arc::new(resolver);
        let mut probes = Self { orders, pokes: HashMap::new(), streams: None, patroni: None, tasks, stop };
        let cloud = cloud(service)?;
        if let Some(replication) = &service.replication {
            let source = match replication {
                Replication::Sql(settings) => {
                    let clusters = system_tls(service)?;
                    let ours = Ours {
                        daemon: daemon.to_owned(),
                        service: service.name.as_str().to_owned(),
                        orders: probes.orders.subscribe(),
                    };
                    Source::Sql(Sql::new(settings, clusters, service.probe.timeout, Arc::clone(&resolver), ours))
                }
                Replication::Cloud(settings) => {
                    let client = cloud.clone().map_or_else(|| cockroach_cloud::client(settings), Ok)?;
                    Source::Cloud(Cloud::new(client, &service.backends))
                }
            };
            let (orders, ears) = streams::channel(replication.refresh());
            let reader = streams::run(Arc::new(source), ears, sender.clone(), clock, probes.stop.clone());
            probes.tasks.spawn(reader);
            probes.streams = Some(orders);
            if let Some(client) = &cloud {
                let (clusters, every) = (cockroach_cloud::clusters(&service.backends), replication.refresh() * 2);
                let records = cockroach_cloud::records(client.clone(), clusters, every, sender.clone());
                let stop = probes.stop.clone();
                probes.tasks.spawn(async move {
                    let _ = stop.run_until_cancelled(records).await;
                });
            }
        }
        if let Some(settings) = &service.patroni {
            let client = crate::patroni::Client::build(settings)?;
            let (orders, ears) = patroni::channel();
            let (interval, resolver) = (settings.interval, Arc::clone(&resolver));
            let reader = patroni::Reader { client, interval, resolver, sender: sender.clone(), clock };
            probes.tasks.spawn(patroni::run(reader, ears, probes.stop.clone()));
            probes.patroni = Some(orders);
        }
        for (backend, tls) in Self::tls(service)? {
            let common = Arc::new(Common {
                backend: backend.name.clone(),
                kind: service.kind,
                probe: service.probe.clone(),
                daemon: daemon.to_owned(),
                service: service.name.as_str().to_owned(),
                tls,
                promoter: promoter_login(&service.failover.promoter),
                virtual_cluster: match &service.replication {
                    Some(Replication::Sql(sql)) => Some(sql.virtual_cluster.clone()),
                    Some(Replication::Cloud(_)) | None => None,
                },
                sender: sender.clone(),
                clock,
            });
            let (poke, poked) = watch::channel(0);
            probes.pokes.insert(backend.name.clone(), poke);
            let ears = watcher::Ears { orders: probes.orders.subscribe(), poked };
            let names = Names { configured: backend.addresses.clone(), asked: asked(backend, cloud.as_ref()) };
            probes.tasks.spawn(supervise(common, names, Arc::clone(&resolver), ears, probes.stop.clone()));
        }
        probes.tasks.close();
        Ok(probes)
    }

    /// From now on in this pace; the same cadence again changes nothing.
    pub fn set_cadence(&self, cadence: Cadence) {
        self.orders.send_if_modified(|orders| {
            let changed = orders.cadence != cadence;
            if changed {
                (orders.cadence, orders.since) = (cadence, Instant::now());
            }
            changed
        });
    }

    /// Which side is active, and the epoch that our connections are named after.
    pub fn set_active(&self, active: Option<BackendName>, epoch: Epoch) {
        self.orders.send_if_modified(|orders| {
            let changed = orders.active != active || orders.epoch != epoch;
            if changed {
                (orders.active, orders.epoch) = (active, epoch);
            }
            changed
        });
    }

    /// Starts a fresh probe of every address of this backend at once.
    pub fn probe_now(&self, backend: &BackendName) {
        if let Some(poke) = self.pokes.get(backend) {
            poke.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Clusters: how often the streams are read from now on, and which of them matters.
    pub fn set_stream_pace(&self, one: Duration, all: Duration, stream: Option<&str>) {
        let Some(streams) = &self.streams else { return };
        streams.pace.send_if_modified(|pace| {
            let wanted = Pace { one, all, stream: stream.map(str::to_owned) };
            let changed = *pace != wanted;
            if changed {
                *pace = wanted;
            }
            changed
        });
    }

    /// Clusters: reads this stream, or all of them, as soon as a reading that is under way has ended.
    pub fn read_streams(&self, stream: Option<String>) {
        if let Some(streams) = &self.streams {
            // As many as may wait are waiting: they will read the same.
            let _ = streams.at_once.try_send(stream);
        }
    }

    /// Reads Patroni as often as can be, or at its interval.
    pub fn hasten_patroni(&self, hastens: bool) {
        if let Some(patroni) = &self.patroni {
            patroni.hasten(hastens);
        }
    }

    /// Reads Patroni as soon as a reading that is under way has ended.
    pub fn read_patroni(&self) {
        if let Some(patroni) = &self.patroni {
            patroni.read_now();
        }
    }

    /// Ends all probes and waits for them, 2 s at most.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "probes did not end in time");
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keeps one backend watched: a panic is told, and ends nothing but itself.
async fn supervise(
    common: Arc<Common>,
    names: Names,
    resolver: Arc<Resolver>,
    ears: watcher::Ears,
    stop: CancellationToken,
) {
    let Some(names) = stop.run_until_cancelled(names.known(&common.backend)).await else { return };
    loop {
        let run = addresses::run(common.clone(), names.clone(), resolver.clone(), ears.clone(), stop.clone());
        let Err(error) = AbortOnDropHandle::new(tokio::spawn(run)).await else { return };
        let report = ProbeReport::TaskFailed { backend: common.backend.clone(), error: error.to_string() };
        if common.sender.send(report).await.is_err() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AFTER_PANIC) => {}
        }
    }
}

/// How a backend is called.
struct Names {
    configured: Vec<HostPort>,
    /// Where its address can be asked for, when none is configured.
    asked: Option<(Client, ClusterId)>,
}

impl Names {
    async fn known(self, backend: &BackendName) -> Vec<HostPort> {
        match self.asked {
            Some((client, id)) if self.configured.is_empty() => {
                vec![cockroach_cloud::address(&client, backend, id).await]
            }
            _ => self.configured,
        }
    }
}

fn asked(backend: &Backend, cloud: Option<&Client>) -> Option<(Client, ClusterId)> {
    Some((cloud?.clone(), backend.cluster_id.as_ref()?.parse().ok()?))
}

fn cloud(service: &Service) -> Result<Option<Client>, BuildError> {
    match &service.replication {
        Some(Replication::Cloud(settings)) => cockroach_cloud::client(settings).map(Some),
        Some(Replication::Sql(_)) | None => Ok(None),
    }
}

/// The TLS settings as they stand, for sessions on the `system` virtual clusters.
fn system_tls(service: &Service) -> Result<Vec<(&Backend, Arc<ClientTls>)>, ProbeError> {
    let built = service.backends.iter().map(|backend| match ClientTls::build(&backend.tls) {
        Ok(tls) => Ok((backend, tls)),
        Err(cause) => Err(ProbeError::Tls { backend: backend.name.clone(), cause }),
    });
    built.collect()
}

/// The backend's TLS settings; an `http` probe with `tls` encrypts whatever `mode` says of the database port.
fn tls_for(kind: &ProbeKind, tls: &Tls) -> Result<Arc<ClientTls>, TlsConfigError> {
    let https = matches!(kind, ProbeKind::Http(HttpProbe { tls: true, .. }));
    match tls.mode {
        TlsMode::Disable if https => ClientTls::build(&Tls { mode: TlsMode::Require, ..tls.clone() }),
        _ => ClientTls::build(tls),
    }
}

fn promoter_login(promoter: &Promoter) -> Option<Login> {
    match promoter {
        Promoter::Postgres { login } => Some(login.clone()),
        Promoter::None | Promoter::Command(_) | Promoter::CockroachCloud | Promoter::CockroachSql => None,
    }
}

/// `pgpivot/<daemon>/<service>/<epoch>` within what PostgreSQL keeps: a name that is too long is cut and ends in a
/// checksum of the whole, so that two daemons never look like one.
fn application_name(daemon: &str, service: &str, epoch: Epoch) -> String {
    let epoch = epoch.to_string();
    let room = MAX_APPLICATION_NAME - "pgpivot///".len() - epoch.len();
    let service = shortened(service, room / 2);
    let daemon = shortened(daemon, room - service.len());
    format!("pgpivot/{daemon}/{service}/{epoch}")
}

fn shortened(name: &str, room: usize) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_graphic() && c != '/' { c } else { '_' }).collect();
    if plain.len() <= room && plain == name {
        return plain;
    }
    let checksum = format!("~{:08x}", crc32c::crc32c(name.as_bytes()));
    let head = plain.len().min(room.saturating_sub(checksum.len()));
    format!("{}{checksum}", &plain[..head])
}

#[cfg(test)]
mod tests;
