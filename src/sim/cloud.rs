//! A simulated CockroachDB Cloud: clusters that speak the wire, physical cluster replication between them, and the Cloud
//! API over both. For the demo and for tests; it proves nothing about CockroachDB.
//!
//! A standby does not serve (08000); commits reach it with a lag, and a failover really loses what it had not got.
//! Everything is there when [`Cloud::start`] returns; dropped, it resets its connections and closes its listeners.

mod faults;
mod pace;
pub(super) mod refusal;
pub(super) mod replication;
mod settings;
pub(super) mod site;
#[cfg(test)]
mod tests;
pub(super) mod world;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
pub use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cloud_api;
use super::cloud_api::desk::Desk;
pub use super::cloud_api::desk::{ApiFault, Operation, Times};
pub use super::cockroach::gate::Cancels;
use super::cockroach::gate::Gate;
use super::cockroach::scram::Verifier;
use crate::types::{Secret, WallTime};
pub use pace::Pace;
pub use settings::{Auth, ClusterSettings, Initial, Mode, Number, Outage, Reach, Sessions, Settings};
use site::Site;
use world::{Cluster, Disruption, World};

/// For the tasks of a cloud that is stopped.
const END: Duration = Duration::from_secs(5);

/// A running simulated cloud. A cluster's number that does not exist makes its methods panic.
#[derive(Debug)]
pub struct Cloud {
    site: Arc<Site>,
    api: SocketAddr,
    stream: Option<String>,
}

impl Cloud {
    /// Starts everything on the current tokio runtime. Fails when an address is taken, or with fewer than two clusters.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        if settings.clusters.len() < 2 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a simulated cloud has two clusters at least"));
        }
        let now = super::now();
        let api = TcpListener::bind(settings.api).await?;
        let mut listeners = Vec::new();
        for cluster in &settings.clusters {
            listeners.push(TcpListener::bind(cluster.sql).await?);
        }
        let addresses: Vec<SocketAddr> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let mut world = build(&settings, &addresses, now);
        let stream = begin(&mut world, settings.initial, now)?;
        let site = Arc::new(site(settings, world, &addresses)?);
        let api_address = api.local_addr()?;
        site.tasks.spawn(cloud_api::serve(api, site.clone()));
        for (cluster, listener) in listeners.into_iter().enumerate() {
            site.gates[cluster].open(listener, &site, cluster).await;
        }
        Ok(Self { site, api: api_address, stream })
    }

    /// The API's base, without `/api/v1`.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// Its bearer token.
    pub fn secret(&self) -> &Secret {
        &self.site.secret
    }

    /// A cluster's id in the API.
    pub fn cluster_id(&self, cluster: impl Into<Number>) -> String {
        self.site.world_now().0.clusters[cluster.into().0].id.clone()
    }

    /// Where a cluster listens for SQL, also while it does not.
    pub fn sql_address(&self, cluster: impl Into<Number>) -> SocketAddr {
        self.site.gates[cluster.into().0].address
    }

    /// The initial stream; `None` = there was none.
    pub fn stream_id(&self) -> Option<&str> {
        self.stream.as_deref()
    }

    /// The status of a stream as the API shows it; `None` = there is no such stream.
    pub fn stream_status(&self, id: &str) -> Option<&'static str> {
        self.site.world_now().0.stream(id).ok().map(replication::Stream::status)
    }

    /// Begins a stream behind the API's back, and gives its id; `None` = the cloud refuses it.
    pub fn create_stream(&self, primary: impl Into<Number>, standby: impl Into<Number>) -> Option<String> {
        let id = {
            let (mut world, now) = self.site.world_now();
            world.create(primary.into().0, standby.into().0, now).ok()?.id.clone()
        };
        self.site.changed();
        Some(id)
    }

    /// Fails a stream over to its latest replicated time behind the API's back; `false` = the cloud refuses it.
    pub fn fail_over(&self, stream: &str) -> bool {
        let (mut world, now) = self.site.world_now();
        world.fail_over(stream, None, now).is_ok()
    }

    /// Cancels a stream behind the API's back; `false` = the cloud refuses it.
    pub fn cancel(&self, stream: &str) -> bool {
        let (mut world, now) = self.site.world_now();
        world.cancel(stream, now).is_ok()
    }

    /// Cuts off the whole region of a cluster behind the API's back, or ends every disruption of it.
    pub async fn disrupt(&self, cluster: impl Into<Number>, disrupted: bool) {
        let cluster = cluster.into().0;
        let region = self.site.world_now().0.clusters[cluster].region.clone();
        let whole = Disruption { region, whole: true, azs: Vec::new(), pods: Vec::new() };
        let refused = self.site.disrupt(cluster, if disrupted { vec![whole] } else { Vec::new() }).await.err();
        debug_assert_eq!(refused, None, "a whole region can always be cut off");
    }

    /// Starts or stops the service of a cluster's `main`, as START SERVICE and STOP SERVICE do; `false` = refused.
    pub fn set_service(&self, cluster: impl Into<Number>, served: bool) -> bool {
        let done = self.site.world_now().0.serve(cluster.into().0, served).is_ok();
        self.site.changed();
        done
    }

    /// Changes how long everything takes, from now on; what has begun ends by the new pace.
    pub fn set_pace(&self, pace: Pace) {
        let (mut world, now) = self.site.world_now();
        world.set_pace(pace, now);
    }

    /// How long everything takes.
    pub fn pace(&self) -> Pace {
        self.site.world_now().0.pace()
    }

    /// Keeps failovers from their end, or lets them get there.
    pub fn hold_failovers(&self, held: bool) {
        self.site.world_now().0.stuck = held;
    }

    /// Makes the job of the stream into a cluster fail. While it replicates it stands still until it is resumed or failed
    /// over; while it fails over it never gets there. `false` = there is no such stream.
    pub fn break_job(&self, standby: impl Into<Number>) -> bool {
        let (mut world, now) = self.site.world_now();
        world.break_job(standby.into().0, now).is_ok()
    }

    /// Keeps STOP SERVICE at a cluster waiting, or lets it go on.
    pub fn hang_stop_service(&self, cluster: impl Into<Number>, hangs: bool) {
        self.site.gates[cluster.into().0].state().stop_hangs = hangs;
        self.site.changed();
    }

    /// Takes a system privilege from everybody at a cluster, or gives it back: without `REPLICATIONDEST` nothing can be
    /// failed over, without `MANAGEVIRTUALCLUSTER` nothing shown or stopped, without `VIEWJOB` no job is shown, without
    /// `STARTSERVICE` (which is part of the former in life) no service is started.
    pub fn set_privilege(&self, cluster: impl Into<Number>, privilege: &str, granted: bool) {
        let revoked = &mut self.site.world_now().0.clusters[cluster.into().0].revoked;
        revoked.retain(|known| known != privilege);
        if !granted {
            revoked.push(privilege.to_owned());
        }
    }

    /// What a cluster holds, id and commit time; of a standby, what has arrived.
    pub fn rows(&self, cluster: impl Into<Number>) -> BTreeMap<i64, WallTime> {
        self.site.world_now().0.rows(cluster.into().0)
    }

    /// The ids of [`Cloud::rows`], ascending.
    pub fn ids(&self, cluster: impl Into<Number>) -> Vec<i64> {
        self.rows(cluster).into_keys().collect()
    }

    /// Does a cluster serve its clients, if it can be reached?
    pub fn is_serving(&self, cluster: impl Into<Number>) -> bool {
        self.site.world_now().0.serves(cluster.into().0)
    }

    /// Crashes a cluster: its connections are reset, connects are refused, replication from and to it stands still.
    /// Returns when that is so.
    pub async fn crash(&self, cluster: impl Into<Number>) -> io::Result<()> {
        self.site.set_crashed(cluster.into().0, true).await
    }

    /// Starts a crashed cluster, as it was.
    pub async fn revive(&self, cluster: impl Into<Number>) -> io::Result<()> {
        self.site.set_crashed(cluster.into().0, false).await
    }

    /// Changes what newcomers meet at a cluster; a crash and a disruption come before it. The cluster itself goes on,
    /// and so does replication.
    pub async fn set_reach(&self, cluster: impl Into<Number>, reach: Reach) -> io::Result<()> {
        let cluster = cluster.into().0;
        self.site.gates[cluster].state().reach = reach;
        self.site.settle(cluster).await
    }

    /// Changes what disruptions look like, those there are too.
    pub async fn set_outage(&self, outage: Outage) -> io::Result<()> {
        *self.site.outage.lock().unwrap_or_else(PoisonError::into_inner) = outage;
        for cluster in 0..self.site.gates.len() {
            self.site.settle(cluster).await?;
        }
        Ok(())
    }

    /// Resets every connection of a cluster.
    pub fn reset_sessions(&self, cluster: impl Into<Number>) {
        self.site.reset_sessions(cluster.into().0);
    }

    /// Sessions that are logged in at a cluster, on either virtual cluster.
    pub fn sessions(&self, cluster: impl Into<Number>) -> usize {
        self.site.gates[cluster.into().0].state().sessions.len()
    }

    /// Sessions that ever logged in at a cluster.
    pub fn logins(&self, cluster: impl Into<Number>) -> u64 {
        self.site.gates[cluster.into().0].state().logins
    }

    /// Connections that a cluster ever accepted, whatever became of them.
    pub fn accepted(&self, cluster: impl Into<Number>) -> u64 {
        self.site.gates[cluster.into().0].state().accepted
    }

    /// Cancel requests that reached a cluster.
    pub fn cancels(&self, cluster: impl Into<Number>) -> Cancels {
        self.site.gates[cluster.into().0].state().cancels
    }

    /// Overrides `state` and `operation_status` in the API's replies; `None` = what is true.
    pub fn report(&self, cluster: impl Into<Number>, state: Option<&str>, operation_status: Option<&str>) {
        let mut world = self.site.world_now().0;
        world.clusters[cluster.into().0].reported = (state.map(str::to_owned), operation_status.map(str::to_owned));
    }

    /// Whether the API shows a cluster's delete protection as ENABLED (the default) or DISABLED.
    pub fn set_delete_protection(&self, cluster: impl Into<Number>, enabled: bool) {
        self.site.world_now().0.clusters[cluster.into().0].delete_protection = enabled;
    }

    /// Makes API requests go wrong; `None` = whatever is asked. The oldest fault that fits a request is used.
    pub fn fault(&self, operation: impl Into<Option<Operation>>, fault: ApiFault, times: Times) {
        self.site.desk.fault(operation.into(), fault, times);
    }

    /// Ends all faults of the API.
    pub fn clear_faults(&self) {
        self.site.desk.clear_faults();
    }

    /// Requests of an operation that came in, also those that went wrong or were refused.
    pub fn requests(&self, operation: Operation) -> u64 {
        self.site.desk.seen(operation)
    }

    /// Requests of an operation that took effect, whatever became of their replies.
    pub fn taken(&self, operation: Operation) -> u64 {
        self.site.desk.taken(operation)
    }

    /// The body of the latest request of an operation, `None` = there was none.
    pub fn last_body(&self, operation: Operation) -> Option<String> {
        self.site.desk.last_body(operation).map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    /// All requests that came in.
    pub fn requests_in_all(&self) -> u64 {
        self.site.desk.seen_in_all()
    }

    /// API requests a second before 429; `None` = any number.
    pub fn set_rate_limit(&self, rate: Option<u32>) {
        self.site.desk.set_rate(rate);
    }

    /// Entries of an API list's page at most; at least 1.
    pub fn set_page_size(&self, size: usize) {
        self.site.desk.set_page_size(size);
    }

    /// Whether a list of streams shows completed ones when it is not told. False at first: the vendor does not say.
    pub fn set_shows_completed(&self, shows: bool) {
        self.site.desk.set_shows_completed(shows);
    }

    /// Sets the cloud's clock before or behind this machine's: the Date header and every time it tells or takes.
    pub fn set_clock_offset(&self, by: Duration, behind: bool) {
        self.site.set_ahead(by, behind);
    }

    /// Ends it; returns when all of its tasks have ended.
    pub async fn stop(self) {
        self.site.stop.cancel();
        self.site.tasks.close();
        if timeout(END, self.site.tasks.wait()).await.is_err() {
            tracing::warn!("a simulated cloud did not end in time");
        }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.site.stop.cancel();
        self.site.tasks.close();
    }
}

/// The clusters as they are before any stream.
fn build(settings: &Settings, addresses: &[SocketAddr], now: WallTime) -> World {
    let seed = getrandom::u64().unwrap_or(now.0.cast_unsigned());
    let alone = settings.initial == Initial::None && settings.mode == Mode::SelfHosted;
    let mut world = World::new(Vec::new(), settings.pace, seed);
    world.serves_itself = settings.mode == Mode::Cloud;
    for (n, (cluster, address)) in settings.clusters.iter().zip(addresses).enumerate() {
        let serves = n == 0 || !alone;
        let (id, sql_id) = (world.next_id(), world.next_id());
        world.clusters.push(Cluster {
            id,
            sql_id,
            name: cluster.name.clone(),
            region: cluster.region.clone(),
            created: now,
            updated: now,
            address: *address,
            delete_protection: true,
            reported: (None, None),
            settings: BTreeMap::new(),
            revoked: Vec::new(),
            disruptions: Vec::new(),
            crashed: false,
            exists: serves,
            shared: serves,
            rows: BTreeMap::new(),
        });
    }
    world
}

fn begin(world: &mut World, initial: Initial, now: WallTime) -> io::Result<Option<String>> {
    let begun = match initial {
        Initial::None => return Ok(None),
        Initial::Starting => world.create(0, 1, now).map(drop),
        Initial::Replicating => world.settle(0, 1, now),
    };
    begun.map_err(|refusal| io::Error::new(io::ErrorKind::InvalidInput, refusal))?;
    Ok(world.streams.first().map(|stream| stream.id.clone()))
}

fn site(settings: Settings, world: World, addresses: &[SocketAddr]) -> io::Result<Site> {
    let mut verifiers = HashMap::new();
    if let Auth::Scram(users) = &settings.auth {
        for (user, password) in users {
            let verifier = Verifier::of(password.expose()).ok_or(io::ErrorKind::InvalidInput)?;
            verifiers.insert(user.clone(), verifier);
        }
    }
    Ok(Site {
        world: Mutex::new(world),
        gates: addresses.iter().enumerate().map(|(n, address)| Gate::new(*address, n)).collect(),
        desk: Desk::new(settings.rate_limit, settings.page_size.max(1)),
        auth: settings.auth,
        verifiers,
        tls: settings.tls,
        accepts_plain: settings.accepts_plain,
        secret: settings.secret,
        version: settings.version,
        provider: settings.cloud_provider,
        most_sessions: settings.max_sessions,
        outage: Mutex::new(settings.outage),
        ahead: AtomicI64::new(0),
        changes: watch::Sender::new(0),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    })
}
