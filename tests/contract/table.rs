//! What we send to the CockroachDB Cloud API and what we read of its replies: operations, fields, kinds, words. One
//! table, held against the vendor's document, against our client, and against whatever simulates the API.

use pgpivot::cockroach_cloud::model as m;

/// One operation.
#[derive(Debug)]
pub struct Row {
    pub method: &'static str,
    /// As the document writes it, the base URL apart.
    pub path: &'static str,
    pub query: &'static [Field],
    /// The name of a [`Shape`].
    pub body: Option<&'static str>,
    /// The name of a [`Shape`].
    pub reply: &'static str,
}

/// One JSON object, under the document's name of it.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub fields: &'static [Field],
}

/// One field, or one parameter of a query.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub need: Need,
}

/// What a field holds.
#[derive(Debug)]
pub enum Kind {
    Text,
    Id,
    Time,
    Whole,
    Number,
    Flag,
    /// One of these; the document's name of the list, where it has one.
    Word(Option<&'static str>, &'static [&'static str]),
    Object(&'static str),
    Objects(&'static str),
    Texts,
}

/// Who can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The document requires it, and so do we.
    Must,
    /// The document requires it; we read replies without it all the same.
    Told,
    /// It may be absent.
    May,
}

use Kind::{Flag, Id, Number, Object, Objects, Text, Texts, Time, Whole, Word};
use Need::{May, Must, Told};

const fn f(name: &'static str, kind: Kind, need: Need) -> Field {
    Field { name, kind, need }
}

const PAGE: Field = f("pagination.page", Text, May);

pub const ROWS: &[Row] = &[
    Row { method: "GET", path: "/api/v1/clusters", query: &[PAGE], body: None, reply: "ListClustersResponse" },
    Row { method: "GET", path: "/api/v1/clusters/{cluster_id}", query: &[], body: None, reply: "Cluster" },
    Row {
        method: "GET",
        path: "/api/v1/clusters/{cluster_id}/nodes",
        query: &[PAGE],
        body: None,
        reply: "ListClusterNodesResponse",
    },
    Row {
        method: "GET",
        path: "/api/v1/clusters/{cluster_id}/disrupt",
        query: &[],
        body: None,
        reply: "ClusterDisruptionInfo",
    },
    Row {
        method: "PUT",
        path: "/api/v1/clusters/{cluster_id}/disrupt",
        query: &[],
        body: Some("ClusterDisruptionInfo"),
        reply: "ClusterDisruptionInfo",
    },
    Row {
        method: "GET",
        path: "/api/v1/clusters/{cluster_id}/connection-string",
        query: &[f("os", Word(None, &["LINUX"]), Must), f("database", Text, May), f("sql_user", Text, May)],
        body: None,
        reply: "GetConnectionStringResponse",
    },
    Row {
        method: "GET",
        path: "/api/v1/physical-replication-streams",
        query: &[
            f("primary_cluster_id", Id, May),
            f("standby_cluster_id", Id, May),
            f("cluster_id", Id, May),
            f("show_completed", Flag, May),
            PAGE,
        ],
        body: None,
        reply: "PhysicalReplicationStreamList",
    },
    Row {
        method: "POST",
        path: "/api/v1/physical-replication-streams",
        query: &[],
        body: Some("CreatePhysicalReplicationStreamRequest"),
        reply: "PhysicalReplicationStream",
    },
    Row {
        method: "GET",
        path: "/api/v1/physical-replication-streams/{id}",
        query: &[],
        body: None,
        reply: "PhysicalReplicationStream",
    },
    Row {
        method: "PATCH",
        path: "/api/v1/physical-replication-streams/{id}",
        query: &[],
        body: Some("UpdatePhysicalReplicationStreamSpec"),
        reply: "PhysicalReplicationStream",
    },
];

pub const SHAPES: &[Shape] = &[
    Shape {
        name: "Cluster",
        fields: &[
            f("id", Id, Must),
            f("name", Text, Told),
            f("cockroach_version", Text, Told),
            f("plan", Word(Some("Plan.Type"), m::Plan::KNOWN), Told),
            f("cloud_provider", Word(Some("CloudProvider.Type"), m::CloudProvider::KNOWN), Told),
            f("state", Word(Some("ClusterState.Type"), m::ClusterState::KNOWN), Told),
            f("operation_status", Word(Some("ClusterStatus.Type"), m::OperationStatus::KNOWN), Told),
            f("upgrade_status", Word(Some("ClusterUpgradeStatus.Type"), m::UpgradeStatus::KNOWN), Told),
            f("sql_dns", Text, May),
            f("regions", Objects("Region"), Told),
            f("config", Object("ClusterConfig"), Told),
            f("network_visibility", Word(Some("NetworkVisibility.Type"), m::NetworkVisibility::KNOWN), May),
            f("delete_protection", Word(Some("DeleteProtectionState.Type"), m::DeleteProtection::KNOWN), May),
            f("created_at", Time, May),
            f("updated_at", Time, May),
            f("deleted_at", Time, May),
        ],
    },
    Shape {
        name: "Region",
        fields: &[
            f("name", Text, Told),
            f("sql_dns", Text, Told),
            f("ui_dns", Text, Told),
            f("internal_dns", Text, Told),
            f("private_endpoint_dns", Text, Told),
            f("node_count", Whole, Told),
            f("primary", Flag, May),
        ],
    },
    Shape {
        name: "ClusterConfig",
        fields: &[
            f("dedicated", Object("DedicatedHardwareConfig"), May),
            f("serverless", Object("ServerlessClusterConfig"), May),
        ],
    },
    Shape {
        name: "DedicatedHardwareConfig",
        fields: &[
            f("machine_type", Text, Told),
            f("num_virtual_cpus", Whole, Told),
            f("storage_gib", Whole, Told),
            f("memory_gib", Number, Told),
            f("disk_iops", Whole, Told),
        ],
    },
    Shape { name: "ServerlessClusterConfig", fields: &[f("routing_id", Text, Told)] },
    Shape {
        name: "Node",
        fields: &[
            f("name", Text, Told),
            f("region_name", Text, Told),
            f("status", Word(Some("NodeStatus.Type"), m::NodeStatus::KNOWN), Told),
        ],
    },
    Shape {
        name: "PhysicalReplicationStream",
        fields: &[
            f("id", Id, Must),
            f("status", STREAM_STATUS, Must),
            f("primary_cluster_id", Id, Must),
            f("standby_cluster_id", Id, Must),
            f("created_at", Time, Told),
            f("replicated_time", Time, May),
            f("replication_lag_seconds", Whole, May),
            f("retained_time", Time, May),
            f("failover_at", Time, May),
            f("activated_at", Time, May),
            f("canceled_at", Time, May),
        ],
    },
    Shape { name: "KeysetPaginationResponse", fields: &[f("next_page", Text, May), f("previous_page", Text, May)] },
    Shape {
        name: "ListClustersResponse",
        fields: &[f("clusters", Objects("Cluster"), Must), f("pagination", PAGINATION, May)],
    },
    Shape {
        name: "ListClusterNodesResponse",
        fields: &[f("nodes", Objects("Node"), Must), f("pagination", PAGINATION, May)],
    },
    Shape {
        name: "PhysicalReplicationStreamList",
        fields: &[
            f("physical_replication_streams", Objects("PhysicalReplicationStream"), Must),
            f("pagination", PAGINATION, May),
        ],
    },
    Shape {
        name: "CreatePhysicalReplicationStreamRequest",
        fields: &[f("primary_cluster_id", Id, Must), f("standby_cluster_id", Id, Must)],
    },
    Shape {
        name: "UpdatePhysicalReplicationStreamSpec",
        fields: &[f("status", STREAM_STATUS, May), f("failover_at", Time, May)],
    },
    Shape {
        name: "ClusterDisruptionInfo",
        fields: &[f("regional_disruptor_specifications", Objects("RegionalDisruptorSpecification"), Told)],
    },
    Shape {
        name: "RegionalDisruptorSpecification",
        fields: &[
            f("region_code", Text, Must),
            f("is_whole_region", Flag, Told),
            f("azs", Texts, May),
            f("pods", Texts, May),
        ],
    },
    Shape {
        name: "GetConnectionStringResponse",
        fields: &[f("connection_string", Text, Told), f("params", Object("ConnectionStringParameters"), Must)],
    },
    Shape {
        name: "ConnectionStringParameters",
        fields: &[f("Host", Text, Must), f("Port", Text, Must), f("Database", Text, Told), f("Username", Text, May)],
    },
    Shape {
        name: "Status",
        fields: &[f("code", Whole, May), f("message", Text, May), f("details", Objects("Any"), May)],
    },
    Shape { name: "Any", fields: &[f("@type", Text, May)] },
];

const STREAM_STATUS: Kind = Word(Some("ReplicationStreamStatus.Type"), m::StreamStatus::KNOWN);
const PAGINATION: Kind = Object("KeysetPaginationResponse");

/// The row of a request; `path` without its query.
pub fn row(method: &str, path: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.method == method && fits(row.path, path))
}

pub fn shape(name: &str) -> &'static Shape {
    SHAPES.iter().find(|shape| shape.name == name).unwrap_or_else(|| panic!("the table has no shape {name}"))
}

fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(id)) if part.starts_with('{') && id.parse::<m::ClusterId>().is_ok() => {}
            (Some(part), Some(same)) if part == same => {}
            _ => return false,
        }
    }
}
