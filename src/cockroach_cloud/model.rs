//! What the Cloud API says and is told, as data: pure, shared with the simulator. Reading is forgiving: unknown
//! fields and values pass, a missing, null or empty optional field is absent, a number may come as text.
//! Only what nothing could be done without (ids, a stream's status and sides) must be there.

mod id;
mod reading;
mod word;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use reading::{line, number, or_default, time, whole};

pub use id::{ClusterId, IdError, StreamId};
pub use word::{
    CloudProvider, ClusterState, DeleteProtection, NetworkVisibility, NodeStatus, OperationStatus, Plan, StreamStatus,
    UpgradeStatus,
};

/// A cluster as the control plane records it. No field tells whether it serves SQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Its name; empty when not told.
    #[serde(default, deserialize_with = "line")]
    pub name: String,
    /// `v25.2.1`; empty when not told.
    #[serde(default, deserialize_with = "line")]
    pub cockroach_version: String,
    /// What was bought.
    #[serde(default, deserialize_with = "or_default")]
    pub plan: Plan,
    /// Whose machines.
    #[serde(default, deserialize_with = "or_default")]
    pub cloud_provider: CloudProvider,
    /// The record's state.
    #[serde(default, deserialize_with = "or_default")]
    pub state: ClusterState,
    /// What the vendor is doing to it.
    #[serde(default, deserialize_with = "or_default")]
    pub operation_status: OperationStatus,
    /// Where its version stands.
    #[serde(default, deserialize_with = "or_default")]
    pub upgrade_status: UpgradeStatus,
    /// The name of its SQL interface, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_dns: Option<String>,
    /// Its regions.
    #[serde(default, deserialize_with = "or_default")]
    pub regions: Vec<Region>,
    /// Its machines.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ClusterConfig,
    /// Where it can be reached from.
    #[serde(default, deserialize_with = "or_default")]
    pub network_visibility: NetworkVisibility,
    /// Whether it can be deleted.
    #[serde(default, deserialize_with = "or_default")]
    pub delete_protection: DeleteProtection,
    /// When it was ordered.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When the record last changed.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When it was deleted.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}

/// A region of a cluster and its names, all without a port; a name that does not exist is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// The provider's code, `us-east1`.
    #[serde(default, deserialize_with = "line")]
    pub name: String,
    /// The public SQL name, behind the IP allow list.
    #[serde(default, deserialize_with = "line")]
    pub sql_dns: String,
    /// The DB Console.
    #[serde(default, deserialize_with = "line")]
    pub ui_dns: String,
    /// AWS PrivateLink, Azure Private Link, GCP VPC peering.
    #[serde(default, deserialize_with = "line")]
    pub internal_dns: String,
    /// GCP Private Service Connect.
    #[serde(default, deserialize_with = "line")]
    pub private_endpoint_dns: String,
    /// 0 for shared plans.
    #[serde(default, deserialize_with = "whole")]
    pub node_count: i64,
    /// Only with several regions on a shared plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<bool>,
}

/// The machines of a cluster: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Machines of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedicated: Option<Dedicated>,
    /// Shared ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serverless: Option<Serverless>,
}

/// Machines of one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dedicated {
    /// The provider's word.
    #[serde(default, deserialize_with = "line")]
    pub machine_type: String,
    /// Virtual processors.
    #[serde(default, deserialize_with = "whole")]
    pub num_virtual_cpus: i64,
    /// Storage, GiB.
    #[serde(default, deserialize_with = "whole")]
    pub storage_gib: i64,
    /// Memory, GiB.
    #[serde(default, deserialize_with = "number")]
    pub memory_gib: f64,
    /// Disk operations per second.
    #[serde(default, deserialize_with = "whole")]
    pub disk_iops: i64,
}

/// A cluster on a shared plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Serverless {
    /// The name under which the vendor's proxy knows it.
    #[serde(default, deserialize_with = "line")]
    pub routing_id: String,
}

/// A node of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The name of its pod, as disruptions take it.
    #[serde(default, deserialize_with = "line")]
    pub name: String,
    /// Its region.
    #[serde(default, deserialize_with = "line")]
    pub region_name: String,
    /// What the control plane knows of it.
    #[serde(default, deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// A physical replication stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicationStream {
    /// Its id.
    pub id: StreamId,
    /// Where it stands.
    pub status: StreamStatus,
    /// From which cluster.
    pub primary_cluster_id: ClusterId,
    /// To which cluster.
    pub standby_cluster_id: ClusterId,
    /// When it was ordered.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Up to when the standby has everything; refreshed about every 30 s, only while replicating. Absent during the
    /// initial scan.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub replicated_time: Option<Timestamp>,
    /// How far that is behind by the vendor's clock, seconds; only while replicating.
    #[serde(default, deserialize_with = "reading::maybe_whole", skip_serializing_if = "Option::is_none")]
    pub replication_lag_seconds: Option<i64>,
    /// The earliest time that a failover may choose; only while replicating.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub retained_time: Option<Timestamp>,
    /// The time that was asked for, when it was a future one.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub failover_at: Option<Timestamp>,
    /// As of when the standby was activated; only when completed. Commits after it are lost.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Timestamp>,
    /// When it was cancelled.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub canceled_at: Option<Timestamp>,
}

/// Where the next page of a list is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pagination {
    /// Empty or absent on the last page.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub next_page: String,
    /// Empty or absent on the first page.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub previous_page: String,
}

/// One page of clusters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterList {
    /// The clusters.
    #[serde(deserialize_with = "or_default")]
    pub clusters: Vec<Cluster>,
    /// `null` and absent are common.
    #[serde(default)]
    pub pagination: Option<Pagination>,
}

/// One page of nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// The nodes.
    #[serde(deserialize_with = "or_default")]
    pub nodes: Vec<Node>,
    /// `null` and absent are common.
    #[serde(default)]
    pub pagination: Option<Pagination>,
}

/// One page of replication streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicationStreamList {
    /// The streams.
    #[serde(deserialize_with = "or_default")]
    pub physical_replication_streams: Vec<ReplicationStream>,
    /// `null` and absent are common.
    #[serde(default)]
    pub pagination: Option<Pagination>,
}

/// Which streams to list; what is not set does not narrow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamFilter {
    /// From this cluster.
    pub primary: Option<ClusterId>,
    /// To this cluster.
    pub standby: Option<ClusterId>,
    /// From or to this cluster.
    pub cluster: Option<ClusterId>,
    /// Whether completed ones are listed. The API's own default is not documented: say which.
    pub show_completed: Option<bool>,
}

/// The order for a new stream. **Its standby loses what it holds.**
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOrder {
    /// From which cluster.
    pub primary_cluster_id: ClusterId,
    /// To which cluster.
    pub standby_cluster_id: ClusterId,
}

/// A change of a stream. The API allows only REPLICATING → FAILING_OVER and REPLICATING → CANCELED.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamUpdate {
    /// The status to go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StreamStatus>,
    /// As of when: at most an hour ahead and not before the stream's `retained_time`. Absent: the latest consistent
    /// time.
    #[serde(default, deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub failover_at: Option<Timestamp>,
}

impl StreamUpdate {
    /// Fail over as of `at`, or as of the latest consistent time.
    pub fn failover(at: Option<Timestamp>) -> Self {
        Self { status: Some(StreamStatus::FailingOver), failover_at: at }
    }

    /// End the stream without a failover.
    pub fn cancel() -> Self {
        Self { status: Some(StreamStatus::Canceled), failover_at: None }
    }
}

/// The whole set of a cluster's disruptions, read and written as one: a region left out is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disruptions {
    /// Empty: nothing is disrupted.
    #[serde(default, deserialize_with = "or_default")]
    pub regional_disruptor_specifications: Vec<Disruption>,
}

/// The disruption of one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disruption {
    /// The provider's code: `us-east1` on GCP, `us-east-1` on AWS, `eastus` on Azure.
    pub region_code: String,
    /// All of it; false with `azs` or `pods`.
    #[serde(default, deserialize_with = "or_default")]
    pub is_whole_region: bool,
    /// Availability zones, without the provider's prefix.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub azs: Vec<String>,
    /// Names of nodes.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
}

impl Disruption {
    /// Takes a whole region down.
    pub fn whole_region(region_code: impl Into<String>) -> Self {
        Self { region_code: region_code.into(), is_whole_region: true, azs: Vec::new(), pods: Vec::new() }
    }
}

/// How to connect to a cluster. The text has a placeholder where a password goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionString {
    /// As one text.
    #[serde(default, deserialize_with = "or_default")]
    pub connection_string: String,
    /// In parts.
    pub params: ConnectionParams,
}

/// The parts of a connection string: the only place where the API tells a port. Its keys are capitalised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionParams {
    /// The name of the SQL interface.
    #[serde(rename = "Host")]
    pub host: String,
    /// 1 to 65535; text on the wire.
    #[serde(rename = "Port", with = "reading::port")]
    pub port: u16,
    /// The database; empty when not told.
    #[serde(rename = "Database", default, deserialize_with = "line")]
    pub database: String,
    /// The user that was asked for.
    #[serde(rename = "Username", default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// The body of an error, when it is one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// A gRPC code.
    #[serde(default, deserialize_with = "whole")]
    pub code: i64,
    /// What is wrong.
    #[serde(default, deserialize_with = "or_default")]
    pub message: String,
    /// Machine-readable particulars, as they came.
    #[serde(default, deserialize_with = "or_default")]
    pub details: Vec<serde_json::Value>,
}

#[cfg(test)]
mod tests;
