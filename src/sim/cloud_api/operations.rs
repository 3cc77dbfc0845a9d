//! The operations of the simulated Cloud API: which one a request is, and what it does to the world.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use serde_json::{Value, json};

use super::super::cloud::refusal::Refusal;
use super::super::cloud::site::Site;
use super::super::cloud::world::Disruption;
use super::desk::Operation;
use super::reply::{self, Reply};
use crate::types::WallTime;

const PREFIX: &str = "/api/v1/";

/// A request that names an operation.
#[derive(Debug)]
pub(super) struct Ask {
    operation: Operation,
    /// Of the cluster or stream; empty in lists.
    id: String,
    query: Vec<(String, String)>,
}

impl Ask {
    /// `None` = there is no such operation.
    pub(super) fn read(method: &Method, path: &str, query: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix(PREFIX)?.split('/').collect();
        let (operation, id) = match (method.as_str(), parts.as_slice()) {
            ("GET", ["clusters"]) => (Operation::ListClusters, ""),
            ("GET", ["clusters", id]) => (Operation::GetCluster, *id),
            ("GET", ["clusters", id, "nodes"]) => (Operation::ListNodes, *id),
            ("GET", ["clusters", id, "disrupt"]) => (Operation::GetDisruption, *id),
            ("PUT", ["clusters", id, "disrupt"]) => (Operation::PutDisruption, *id),
            ("GET", ["clusters", id, "connection-string"]) => (Operation::ConnectionString, *id),
            ("GET", ["physical-replication-streams"]) => (Operation::ListStreams, ""),
            ("POST", ["physical-replication-streams"]) => (Operation::CreateStream, ""),
            ("GET", ["physical-replication-streams", id]) => (Operation::GetStream, *id),
            ("PATCH", ["physical-replication-streams", id]) => (Operation::PatchStream, *id),
            _ => return None,
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = query.map(|(name, value)| (decode(name), decode(value))).collect();
        Some(Self { operation, id: id.to_owned(), query })
    }

    pub(super) fn operation(&self) -> Operation {
        self.operation
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }
}

pub(super) async fn carry_out(ask: Ask, body: &[u8], site: &Arc<Site>) -> Reply {
    let result = match ask.operation {
        Operation::ListClusters => list_clusters(&ask, site),
        Operation::GetCluster => get_cluster(&ask, site),
        Operation::ListNodes => list_nodes(&ask, site),
        Operation::GetDisruption => get_disruption(&ask, site),
        Operation::PutDisruption => put_disruption(&ask, body, site).await,
        Operation::ConnectionString => connection_string(&ask, site),
        Operation::ListStreams => list_streams(&ask, site),
        Operation::CreateStream => create_stream(body, site),
        Operation::GetStream => get_stream(&ask, site),
        Operation::PatchStream => patch_stream(&ask, body, site),
    };
    match result {
        Ok(body) => {
            site.desk.took(ask.operation);
            Reply::json(&body)
        }
        Err(refusal) => refusal.into(),
    }
}

fn list_clusters(ask: &Ask, site: &Site) -> Result<Value, Refusal> {
    let (world, _) = site.world_now();
    let all = world.clusters.iter().map(|cluster| (cluster.id.clone(), reply::cluster(cluster, site))).collect();
    page(ask, site, "clusters", all)
}

fn get_cluster(ask: &Ask, site: &Site) -> Result<Value, Refusal> {
    let (world, _) = site.world_now();
    let cluster = world.cluster(&ask.id)?;
    Ok(reply::cluster(&world.clusters[cluster], site))
}

fn list_nodes(ask: &Ask, site: &Site) -> Result<Value, Refusal> {
    let (world, _) = site.world_now();
    let cluster = &world.clusters[world.cluster(&ask.id)?];
    let wanted = ask.parameter("region_name").is_none_or(|region| region == cluster.region);
    let nodes = cluster.nodes().into_iter().filter(|_| wanted);
    let all = nodes.map(|(name, lives)| (name.clone(), reply::node(cluster, &name, lives))).collect();
    page(ask, site, "nodes", all)
}

fn get_disruption(ask: &Ask, site: &Site) -> Result<Value, Refusal> {
    let (world, _) = site.world_now();
    let cluster = world.cluster(&ask.id)?;
    Ok(reply::disruptions(&world.clusters[cluster].disruptions))
}

async fn put_disruption(ask: &Ask, body: &[u8], site: &Arc<Site>) -> Result<Value, Refusal> {
    let cluster = site.world_now().0.cluster(&ask.id)?;
    let body = object(body)?;
    let new = match &body["regional_disruptor_specifications"] {
        Value::Null => Vec::new(),
        Value::Array(each) => each.iter().map(disruption).collect::<Result<_, _>>()?,
        _ => return Err(Refusal::BadField("regional_disruptor_specifications")),
    };
    site.disrupt(cluster, new).await?;
    get_disruption(ask, site)
}

fn disruption(specification: &Value) -> Result<Disruption, Refusal> {
    let texts = |name: &'static str| match &specification[name] {
        Value::Null => Ok(Vec::new()),
        Value::Array(each) => {
            let texts = each.iter().map(|text| text.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or(Refusal::BadField(name))
        }
        _ => Err(Refusal::BadField(name)),
    };
    Ok(Disruption {
        region: specification["region_code"].as_str().ok_or(Refusal::BadField("region_code"))?.to_owned(),
        whole: specification["is_whole_region"].as_bool().ok_or(Refusal::BadField("is_whole_region"))?,
        azs: texts("azs")?,
        pods: texts("pods")?,
    })
}

fn connection_string(ask: &Ask, site: &Site) -> Result<Value, Refusal> {
    let (world, _) = site.world_now();
    let cluster = &world.clusters[world.cluster(&ask.id)?];
    if !matches!(ask.parameter("os"), Some("MAC" | "LINUX" | "WINDOWS")) {
        return Err(Refusal::BadField("os"));
    }
    let database = ask.parameter("database").unwrap_or("defaultdb");
    let login = ask.parameter("sql_user").map_or_else(String::new, |user| format!("{user}@"));
    let address = cluster.address;
    let mut params = json!({
        "Host": address.ip().to_string(),
        "Port": address.port().to_string(),
        "Database": database,
        "X-Added-Later": "1",
    });
    if let Some(user) = ask.parameter("sql_user") {
        params["Username"] = json!(user);
    }
    let text = format!("postgresql://{login}{address}/{database}?sslmode=verify-full");
    Ok(json!({"connection_string": text, "params": params}))
}

fn list_streams(ask: &Ask, site: &Site) -> Result<Value, Refusal> {
    let (world, now) = site.world_now();
    let completed = match ask.parameter("show_completed") {
        None => site.desk.shows_completed(),
        Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(Refusal::BadField("show_completed")),
    };
    let named = |name: &str, ids: &[usize]| {
        ask.parameter(name).is_none_or(|id| ids.iter().any(|cluster| world.clusters[*cluster].id == id))
    };
    let wanted = world.streams.iter().filter(|stream| {
        named("primary_cluster_id", &[stream.primary])
            && named("standby_cluster_id", &[stream.standby])
            && named("cluster_id", &[stream.primary, stream.standby])
            && (completed || stream.status() != "COMPLETED")
    });
    let all = wanted.map(|stream| (stream.id.clone(), reply::stream(stream, &world, now))).collect();
    page(ask, site, "physical_replication_streams", all)
}

fn create_stream(body: &[u8], site: &Site) -> Result<Value, Refusal> {
    let body = object(body)?;
    let id = |name: &'static str| body[name].as_str().ok_or(Refusal::BadField(name));
    let (primary, standby) = (id("primary_cluster_id")?, id("standby_cluster_id")?);
    let reply = {
        let (mut world, now) = site.world_now();
        let (primary, standby) = (world.cluster(primary)?, world.cluster(standby)?);
        let stream = world.create(primary, standby, now)?.clone();
        reply::stream(&stream, &world, now)
    };
    site.changed();
    Ok(reply)
}

fn get_stream(ask: &Ask, site: &Site) -> Result<Value, Refusal> {
    let (world, now) = site.world_now();
    Ok(reply::stream(world.stream(&ask.id)?, &world, now))
}

fn patch_stream(ask: &Ask, body: &[u8], site: &Site) -> Result<Value, Refusal> {
    let body = object(body)?;
    let at = match &body["failover_at"] {
        Value::Null => None,
        Value::String(text) => Some(time(text)?),
        _ => return Err(Refusal::BadField("failover_at")),
    };
    let (mut world, now) = site.world_now();
    world.stream(&ask.id)?;
    match body["status"].as_str() {
        Some("FAILING_OVER") => drop(world.fail_over(&ask.id, at, now)?),
        Some("CANCELED") if at.is_some() => return Err(Refusal::BadField("failover_at")),
        Some("CANCELED") => world.cancel(&ask.id, now)?,
        Some(to @ ("STARTING" | "REPLICATING" | "COMPLETED")) => {
            let to = match to {
                "STARTING" => "STARTING",
                "REPLICATING" => "REPLICATING",
                _ => "COMPLETED",
            };
            return Err(Refusal::Transition { from: world.stream(&ask.id)?.status(), to });
        }
        _ => return Err(Refusal::BadField("status")),
    }
    Ok(reply::stream(world.stream(&ask.id)?, &world, now))
}

fn object(body: &[u8]) -> Result<Value, Refusal> {
    let value: Value = serde_json::from_slice(body).map_err(|_| Refusal::BadField("the body: it is no JSON"))?;
    if value.is_object() { Ok(value) } else { Err(Refusal::BadField("the body: it is no JSON object")) }
}

fn time(text: &str) -> Result<WallTime, Refusal> {
    let parsed = text.parse::<jiff::Timestamp>();
    parsed.map(|at| WallTime(at.as_microsecond())).map_err(|_| Refusal::BadField("failover_at"))
}

/// One page of a list whose entries have keys; the pagination is null when the page is all.
fn page(ask: &Ask, site: &Site, name: &str, mut all: Vec<(String, Value)>) -> Result<Value, Refusal> {
    let limit = match ask.parameter("pagination.limit").map(str::parse::<usize>) {
        None => site.desk.page_size(),
        Some(Ok(limit @ 1..)) => limit.min(site.desk.page_size()),
        Some(_) => return Err(Refusal::BadField("pagination.limit")),
    };
    match ask.parameter("pagination.sort_order") {
        None | Some("ASC") => {}
        Some("DESC") => all.reverse(),
        Some(_) => return Err(Refusal::BadField("pagination.sort_order")),
    }
    let start = match ask.parameter("pagination.page") {
        None => 0,
        Some(key) => {
            let key = URL_SAFE_NO_PAD.decode(key).map_err(|_| Refusal::BadField("pagination.page"))?;
            let found = all.iter().position(|(id, _)| id.as_bytes() == key);
            found.ok_or(Refusal::BadField("pagination.page"))?
        }
    };
    let key = |n: usize| all.get(n).map(|(id, _)| URL_SAFE_NO_PAD.encode(id));
    let mut pagination = serde_json::Map::new();
    if let Some(next) = key(start + limit) {
        pagination.insert("next_page".into(), json!(next));
    }
    if start > 0 {
        pagination.insert("previous_page".into(), json!(key(start.saturating_sub(limit))));
    }
    let pagination = if pagination.is_empty() { Value::Null } else { Value::Object(pagination) };
    let rows: Vec<Value> = all.into_iter().skip(start).take(limit).map(|(_, value)| value).collect();
    Ok(json!({name: rows, "pagination": pagination, "x_total": 0}))
}

/// Percent-decoding of a query's part.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
