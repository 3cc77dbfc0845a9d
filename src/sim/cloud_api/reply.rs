//! Replies of the simulated Cloud API as JSON, built by hand from the vendor's document and never from the client's
//! model: a misreading there must not meet the same misreading here. Fields that no document names are added on purpose.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::cloud::refusal::Refusal;
use super::super::cloud::replication::{Phase, Stream};
use super::super::cloud::site::Site;
use super::super::cloud::world::{Cluster, Disruption, World};
use super::INTERNAL;
use crate::types::WallTime;

/// A reply before it has headers.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(body: &Value) -> Self {
        Self { status: 200, body: body.to_string().into() }
    }

    /// A `Status` body.
    pub(super) fn refusal(status: u16, code: i32, message: &str) -> Self {
        let body = json!({"code": code, "message": message, "details": [], "x_request_id": "simulated"});
        Self { status, body: body.to_string().into() }
    }

    pub(super) fn status(status: u16, message: &str) -> Self {
        Self::refusal(status, INTERNAL, message)
    }

    /// Half of it.
    pub(super) fn cut(mut self) -> Self {
        self.body.truncate(self.body.len() / 2);
        self
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = refusal.codes();
        Self::refusal(status, code, &refusal.to_string())
    }
}

/// A `Cluster`.
pub(super) fn cluster(cluster: &Cluster, site: &Site) -> Value {
    let host = cluster.address.ip().to_string();
    let disrupted = !cluster.disruptions.is_empty();
    let operation = if disrupted { "CRDB_CLUSTER_DISRUPTION_RUNNING" } else { "UNSPECIFIED" };
    let (state, reported) = &cluster.reported;
    json!({
        "id": cluster.id,
        "name": cluster.name,
        "cockroach_version": site.version,
        "upgrade_status": "FINALIZED",
        "plan": "ADVANCED",
        "cloud_provider": site.provider,
        "account_id": "",
        "state": state.as_deref().unwrap_or("CREATED"),
        "creator_id": "00000000-0000-4000-8000-000000000000",
        "operation_status": reported.as_deref().unwrap_or(operation),
        "config": {"dedicated": {
            "machine_type": "m6i.xlarge",
            "num_virtual_cpus": 4,
            "storage_gib": 150,
            "memory_gib": 16.0,
            "disk_iops": 3000,
        }},
        "regions": [{
            "name": cluster.region,
            "sql_dns": host,
            "ui_dns": format!("admin-{host}"),
            "internal_dns": format!("internal-{host}"),
            "private_endpoint_dns": "",
            "node_count": cluster.nodes().len(),
            "primary": false,
            "x_zone_count": 3,
        }],
        "sql_dns": host,
        "cidr_range": "172.28.0.0/16",
        "network_visibility": "PUBLIC",
        "egress_traffic_policy": "UNSPECIFIED",
        "delete_protection": if cluster.delete_protection { "ENABLED" } else { "DISABLED" },
        "labels": {},
        "created_at": time(cluster.created),
        "updated_at": time(cluster.updated),
        "deleted_at": null,
        "x_added_later": {"nested": [1, "two"]},
    })
}

/// A `Node`.
pub(super) fn node(cluster: &Cluster, name: &str, lives: bool) -> Value {
    let status = if lives { "LIVE" } else { "NOT_READY" };
    json!({"name": name, "region_name": cluster.region, "status": status, "x_uptime": 17})
}

/// A `PhysicalReplicationStream`: fields that its status does not have are left out.
pub(super) fn stream(stream: &Stream, world: &World, now: WallTime) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("id", json!(stream.id));
    put("status", json!(stream.status()));
    put("primary_cluster_id", json!(world.clusters[stream.primary].id));
    put("standby_cluster_id", json!(world.clusters[stream.standby].id));
    put("created_at", json!(time(stream.created)));
    put("x_added_later", json!(true));
    if let (Phase::Replicating, Some(replicated)) = (&stream.phase, stream.replicated) {
        put("replicated_time", json!(time(replicated)));
        put("replication_lag_seconds", json!(now.since(replicated).as_secs()));
        put("retained_time", json!(time(stream.retained)));
    }
    if let Some((to, true)) = stream.failover_time() {
        put("failover_at", json!(time(to)));
    }
    match &stream.phase {
        Phase::Completed { to, .. } => drop(put("activated_at", json!(time(*to)))),
        Phase::Canceled { at } => drop(put("canceled_at", json!(time(*at)))),
        _ => {}
    }
    Value::Object(fields)
}

/// A `ClusterDisruptionInfo`.
pub(super) fn disruptions(disruptions: &[Disruption]) -> Value {
    let each = disruptions.iter().map(|disruption| {
        json!({
            "region_code": disruption.region,
            "is_whole_region": disruption.whole,
            "azs": disruption.azs,
            "pods": disruption.pods,
        })
    });
    json!({"regional_disruptor_specifications": each.collect::<Vec<_>>()})
}

fn time(at: WallTime) -> String {
    jiff::Timestamp::from_microsecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
