//! The Cloud API as a witness: its replication streams between two clusters, and the host names of clusters that are
//! configured by their id alone.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::ProbeReport;
use super::streams::Shown;
use crate::cockroach_cloud::model::{
    Cluster, ClusterId, ClusterState, OperationStatus, ReplicationStream, StreamFilter, StreamId, StreamStatus,
};
use crate::cockroach_cloud::{BuildError, Client, Error, Reply, Settings};
use crate::config::{Backend, CockroachCloud};
use crate::failover::replication::{Status, Stream, Unread};
use crate::types::{BackendName, HostPort, WallTime};

/// The SQL port of a cluster; the API names hosts only.
const SQL_PORT: u16 = 26257;
/// Until the host of a cluster is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Reads streams through the API.
#[derive(Debug)]
pub(super) struct Cloud {
    client: Client,
    clusters: Vec<(BackendName, ClusterId)>,
}

/// A client as this configuration wants it.
pub(super) fn client(cloud: &CockroachCloud) -> Result<Client, BuildError> {
    let settings =
        Settings { base_url: cloud.api_url.clone(), timeout: cloud.timeout, ..Settings::new(cloud.secret.clone()) };
    Client::build(&settings)
}

impl Cloud {
    pub(super) fn new(client: Client, backends: &[Backend]) -> Self {
        Self { client, clusters: clusters(backends) }
    }

    /// This stream, or all between the clusters.
    pub(super) async fn read(&self, stream: Option<&str>) -> Result<Shown, Unread> {
        let reply = match stream {
            Some(id) => {
                let id: StreamId = id.parse().map_err(|error| unread(&error, false))?;
                self.client.stream(id).await.map(|reply| reply.map(|stream| vec![stream]))
            }
            None => {
                let cluster = self.clusters.first().map(|(_, id)| *id);
                let filter = StreamFilter { cluster, show_completed: Some(true), ..StreamFilter::default() };
                self.client.streams(&filter).await
            }
        };
        let Reply { value, date, took } = reply.map_err(|error: Error| unread(&error, error.is_gone()))?;
        let streams = value.iter().filter_map(|stream| self.stream(stream)).collect();
        // The server read its clock within that time.
        let clock = date.map(|date| wall(date).plus(took / 2));
        Ok(Shown { streams, clock, partly: false })
    }

    /// Of other clusters: nobody's business here.
    fn stream(&self, stream: &ReplicationStream) -> Option<Stream> {
        let name = |id: ClusterId| self.clusters.iter().find(|(_, known)| *known == id).map(|(name, _)| name.clone());
        Some(Stream {
            id: stream.id.to_string(),
            from: name(stream.primary_cluster_id)?,
            to: name(stream.standby_cluster_id)?,
            status: status(&stream.status),
            replicated: stream.replicated_time.map(wall),
            retained: stream.retained_time.map(wall),
            failover_at: stream.failover_at.map(wall),
            activated: stream.activated_at.map(wall),
        })
    }
}

/// Reads the control plane's record of each cluster now and then: what the vendor does to it is information, and never a
/// failure. Runs until nobody listens.
pub(super) async fn records(
    client: Client,
    backends: Vec<(BackendName, ClusterId)>,
    every: Duration,
    sender: mpsc::Sender<ProbeReport>,
) {
    let mut said: HashMap<BackendName, Option<String>> = HashMap::new();
    loop {
        for (backend, id) in &backends {
            // That the API cannot be read is said of the streams.
            let Ok(reply) = client.cluster(*id).await else { continue };
            let note = note(&reply.value);
            if said.get(backend) != Some(&note) {
                said.insert(backend.clone(), note.clone());
                let report = ProbeReport::ClusterNote { backend: backend.clone(), note };
                if sender.send(report).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Something else than a cluster at rest.
fn note(cluster: &Cluster) -> Option<String> {
    let state = (cluster.state != ClusterState::Created).then(|| cluster.state.to_string());
    let calm =
        matches!(&cluster.operation_status, OperationStatus::Unspecified) || *cluster.operation_status.as_str() == *"";
    let doing = (!calm).then(|| cluster.operation_status.to_string());
    let said: Vec<String> = [state, doing].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// Names and ids of the clusters that are configured by id.
pub(super) fn clusters(backends: &[Backend]) -> Vec<(BackendName, ClusterId)> {
    let id = |backend: &Backend| Some((backend.name.clone(), backend.cluster_id.as_ref()?.parse().ok()?));
    backends.iter().filter_map(id).collect()
}

/// The SQL address of a cluster that is configured by its id alone; asked for until the API tells it.
pub(super) async fn address(client: &Client, backend: &BackendName, id: ClusterId) -> HostPort {
    loop {
        match client.cluster(id).await {
            Ok(reply) => {
                let regional = reply.value.regions.iter().map(|region| &region.sql_dns);
                let host = reply.value.sql_dns.iter().chain(regional).find(|host| !host.is_empty());
                match host.map(|host| host.parse().or_else(|_| format!("{host}:{SQL_PORT}").parse::<HostPort>())) {
                    Some(Ok(address)) => return address,
                    Some(Err(error)) => tracing::warn!(%backend, %error, "the host the Cloud API names cannot be used"),
                    None => {
                        tracing::warn!(%backend, "the Cloud API names no SQL host for this cluster; configure addresses")
                    }
                }
            }
            Err(error) => tracing::warn!(%backend, %error, "the cluster's SQL host cannot be learned yet"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn status(status: &StreamStatus) -> Status {
    match status {
        StreamStatus::Starting => Status::Starting,
        StreamStatus::Replicating => Status::Replicating,
        StreamStatus::FailingOver => Status::FailingOver,
        StreamStatus::Completed => Status::Completed,
        StreamStatus::Canceled => Status::Canceled,
        StreamStatus::Other(_) => Status::Unknown,
    }
}

fn wall(at: Timestamp) -> WallTime {
    WallTime(at.as_microsecond())
}

fn unread(error: &dyn std::fmt::Display, gone: bool) -> Unread {
    Unread { sentence: error.to_string(), gone }
}
