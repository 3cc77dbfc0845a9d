//! The client: one method per operation, each with its deadline inside.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::rustls::RootCertStore;
use tracing::debug;

use super::error::{Cause, Error, Step, Trouble, Unreadable};
use super::limit::Limit;
use super::model::{
    Cluster, ClusterId, ClusterList, ConnectionString, Disruption, Disruptions, Node, NodeList, Pagination,
    ReplicationStream, ReplicationStreamList, StreamFilter, StreamId, StreamOrder, StreamUpdate,
};
use super::operation::{ApiPath, Operation};
use super::retry::Retry;
use super::settings::{BuildError, Settings, TIMEOUTS, system_roots};
use super::transport::{RawReply, Transport};

/// The most pages that a list is read for; one with more is an error.
pub const MAX_PAGES: usize = 20;
/// A 429 that does not say how long to wait means this.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

/// The client. Its clones share their rate limit: four reads and one write a second, and short bursts; further calls
/// wait for their turn within their deadline.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeout: Duration,
}

struct Inner {
    transport: Transport,
    limit: Mutex<Limit>,
}

/// A value and when the API said it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<T> {
    /// What was asked for.
    pub value: T,
    /// The server's clock when it replied, whole seconds; of a list, that of its last page. `None` if it did not tell
    /// it readably.
    pub date: Option<Timestamp>,
    /// From sending to the head of the reply: by how much `date` can be off.
    pub took: Duration,
}

impl<T> Reply<T> {
    /// The same reply with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reply<U> {
        Reply { value: f(self.value), date: self.date, took: self.took }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.inner.transport.base().as_str();
        f.debug_struct("Client").field("base_url", &base).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// Checks the settings and loads the system's root certificates. Sends nothing.
    pub fn build(settings: &Settings) -> Result<Self, BuildError> {
        Self::build_trusting(settings, system_roots)
    }

    pub(super) fn build_trusting(
        settings: &Settings,
        roots: impl FnOnce() -> Result<RootCertStore, BuildError>,
    ) -> Result<Self, BuildError> {
        let inner = Inner { transport: Transport::build(settings, roots)?, limit: Mutex::new(Limit::new()) };
        Ok(Self { inner: Arc::new(inner), timeout: settings.timeout })
    }

    /// A clone with another deadline, 100 ms to 300 s, brought within. It shares the rate limit.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { inner: Arc::clone(&self.inner), timeout: timeout.clamp(*TIMEOUTS.start(), *TIMEOUTS.end()) }
    }

    /// Lists the clusters that the service account may see.
    pub async fn clusters(&self) -> Result<Reply<Vec<Cluster>>, Error> {
        self.list(Operation::Clusters, Vec::new(), |page: ClusterList| (page.clusters, page.pagination)).await
    }

    /// Reads a cluster: the control plane's record, no probe of SQL.
    pub async fn cluster(&self, id: ClusterId) -> Result<Reply<Cluster>, Error> {
        self.read(Operation::Cluster(id), &[]).await
    }

    /// Lists the nodes of a cluster.
    pub async fn nodes(&self, id: ClusterId) -> Result<Reply<Vec<Node>>, Error> {
        self.list(Operation::Nodes(id), Vec::new(), |page: NodeList| (page.nodes, page.pagination)).await
    }

    /// Lists replication streams, all pages within one deadline.
    pub async fn streams(&self, filter: &StreamFilter) -> Result<Reply<Vec<ReplicationStream>>, Error> {
        let ids = [
            ("primary_cluster_id", filter.primary),
            ("standby_cluster_id", filter.standby),
            ("cluster_id", filter.cluster),
        ];
        let mut query: Vec<_> = ids.into_iter().filter_map(|(key, id)| Some((key, id?.to_string()))).collect();
        query.extend(filter.show_completed.map(|show| ("show_completed", show.to_string())));
        let take = |page: ReplicationStreamList| (page.physical_replication_streams, page.pagination);
        self.list(Operation::Streams, query, take).await
    }

    /// Reads a replication stream.
    pub async fn stream(&self, id: StreamId) -> Result<Reply<ReplicationStream>, Error> {
        self.read(Operation::Stream(id), &[]).await
    }

    /// Orders a replication stream; **the standby loses what it holds**. There is no idempotency key: after an error
    /// that may have taken effect, list the streams before ordering again. Not cancel safe.
    pub async fn create_stream(
        &self,
        primary: ClusterId,
        standby: ClusterId,
    ) -> Result<Reply<ReplicationStream>, Error> {
        let order = StreamOrder { primary_cluster_id: primary, standby_cluster_id: standby };
        self.write(Operation::CreateStream { primary, standby }, json!(order)).await
    }

    /// Changes a replication stream; sent once. After an error that may have taken effect, read the stream. Not
    /// cancel safe.
    pub async fn update_stream(&self, id: StreamId, update: &StreamUpdate) -> Result<Reply<ReplicationStream>, Error> {
        self.write(Operation::UpdateStream(id), json!(update)).await
    }

    /// Ends a replication stream without a failover; as [`update_stream`](Self::update_stream).
    pub async fn cancel_stream(&self, id: StreamId) -> Result<Reply<ReplicationStream>, Error> {
        self.update_stream(id, &StreamUpdate::cancel()).await
    }

    /// Reads what of a cluster is disrupted on purpose; empty: nothing.
    pub async fn disruptions(&self, id: ClusterId) -> Result<Reply<Vec<Disruption>>, Error> {
        let reply: Reply<Disruptions> = self.read(Operation::Disruptions(id), &[]).await?;
        Ok(reply.map(|set| set.regional_disruptor_specifications))
    }

    /// Replaces the whole set of a cluster's disruptions; an empty one ends them. Not cancel safe.
    pub async fn set_disruptions(
        &self,
        id: ClusterId,
        disruptions: Vec<Disruption>,
    ) -> Result<Reply<Vec<Disruption>>, Error> {
        let set = Disruptions { regional_disruptor_specifications: disruptions };
        let reply: Reply<Disruptions> = self.write(Operation::SetDisruptions(id), json!(set)).await?;
        Ok(reply.map(|set| set.regional_disruptor_specifications))
    }

    /// Reads how to connect to a cluster; what is not set is the API's default. It has no password.
    pub async fn connection_string(
        &self,
        id: ClusterId,
        database: Option<&str>,
        sql_user: Option<&str>,
    ) -> Result<Reply<ConnectionString>, Error> {
        let mut query = vec![("os", "LINUX".to_owned())];
        query.extend(database.map(|name| ("database", name.to_owned())));
        query.extend(sql_user.map(|name| ("sql_user", name.to_owned())));
        self.read(Operation::ConnectionString(id), &query).await
    }

    /// Reads any path once and shows the reply of whatever status, the secret masked.
    pub async fn raw(&self, path: &ApiPath) -> Result<Reply<RawReply>, Error> {
        let operation = Operation::Raw(path.clone());
        let deadline = self.deadline();
        let raw = async {
            self.turn(&operation, deadline).await?;
            let arrived = self.inner.transport.send(&operation, &[], None, deadline).await?;
            let value = self.inner.transport.raw(&arrived)?;
            Ok(Reply { value, date: arrived.date, took: arrived.took })
        };
        let result: Result<_, Trouble> = raw.await;
        result.map_err(|trouble| Error { operation, trouble, tries: 1 })
    }

    async fn read<T: DeserializeOwned>(
        &self,
        operation: Operation,
        query: &[(&str, String)],
    ) -> Result<Reply<T>, Error> {
        self.call(&operation, query, None, self.deadline()).await
    }

    async fn write<T: DeserializeOwned>(&self, operation: Operation, body: Value) -> Result<Reply<T>, Error> {
        self.call(&operation, &[], Some(body.to_string().as_bytes()), self.deadline()).await
    }

    /// All pages of a list, within one deadline.
    async fn list<L: DeserializeOwned, T>(
        &self,
        operation: Operation,
        mut query: Vec<(&str, String)>,
        take: impl Fn(L) -> (Vec<T>, Option<Pagination>),
    ) -> Result<Reply<Vec<T>>, Error> {
        let deadline = self.deadline();
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        let filters = query.len();
        for _ in 0..MAX_PAGES {
            let reply: Reply<L> = self.call(&operation, &query, None, deadline).await?;
            let (items, pagination) = take(reply.value);
            all.extend(items);
            let next = pagination.unwrap_or_default().next_page;
            if next.is_empty() {
                return Ok(Reply { value: all, date: reply.date, took: reply.took });
            }
            if !seen.insert(next.clone()) {
                break;
            }
            query.truncate(filters);
            query.push(("pagination.page", next));
        }
        Err(Error { operation, trouble: Trouble::Unreadable { status: 200, what: Unreadable::EndlessPages }, tries: 1 })
    }

    /// One call: waits for its turn, sends, and tries again if it is a read and the trouble may pass.
    async fn call<T: DeserializeOwned>(
        &self,
        operation: &Operation,
        query: &[(&str, String)],
        body: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<Reply<T>, Error> {
        let mut retry = Retry::new();
        let mut last = None;
        let mut tries = 0;
        let trouble = loop {
            // Once it was sent, what came of that is worth more to know than that there is no further turn.
            if let Err(no_turn) = self.turn(operation, deadline).await {
                break last.unwrap_or(no_turn);
            }
            tries += 1;
            let trouble = match self.try_once(operation, query, body, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(trouble) => trouble,
            };
            self.heed(&trouble);
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if operation.is_write() { None } else { retry.next(&trouble, left, chance()) };
            let Some(wait) = wait else { break trouble };
            debug!(%operation, %trouble, wait_ms = wait.as_millis(), "cloud API call is tried again");
            last = Some(trouble);
            sleep(wait).await;
        };
        Err(Error { operation: operation.clone(), trouble, tries: tries.max(1) })
    }

    async fn try_once<T: DeserializeOwned>(
        &self,
        operation: &Operation,
        query: &[(&str, String)],
        body: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<Reply<T>, Trouble> {
        let arrived = self.inner.transport.send(operation, query, body, deadline).await?;
        let value = self.inner.transport.judge(&arrived)?;
        Ok(Reply { value, date: arrived.date, took: arrived.took })
    }

    /// Waits for a turn under the rate limit.
    async fn turn(&self, operation: &Operation, deadline: Instant) -> Result<(), Trouble> {
        let turn = self.limit(|limit| limit.turn(operation.is_write(), Instant::now(), deadline));
        let at = turn.ok_or(Trouble::Unreachable { step: Step::Turn, cause: Cause::TimedOut })?;
        sleep_until(at).await;
        Ok(())
    }

    /// After a 429, all clones wait.
    fn heed(&self, trouble: &Trouble) {
        if let Trouble::Refused(answer) = trouble
            && answer.status == 429
        {
            let wait = answer.retry_after.unwrap_or(DEFAULT_PAUSE);
            self.limit(|limit| limit.pause(wait, Instant::now()));
        }
    }

    fn limit<T>(&self, f: impl FnOnce(&mut Limit) -> T) -> T {
        f(&mut self.inner.limit.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
}

/// A random byte; without a source of chance, always the same.
fn chance() -> u8 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
