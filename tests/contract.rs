//! The contract with the CockroachDB Cloud API: our client and its model do what the table says, and the table says
//! what the vendor's OpenAPI document does. That document is not part of this tree; `COCKROACH_CLOUD_OPENAPI` names it.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "contract/check.rs"]
mod check;
#[path = "contract/drive.rs"]
mod drive;
#[path = "contract/official.rs"]
mod official;
#[path = "contract/recorder.rs"]
mod recorder;
#[path = "contract/table.rs"]
mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use check::{breaches, sample};
use pgpivot::cockroach_cloud::model::{self as m, ClusterId, StreamId};
use pgpivot::sim::Side;
use pgpivot::sim::cloud::{Cloud, Pace, Settings};
use pgpivot::types::Secret;
use recorder::Recorder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use table::{Need, ROWS, SHAPES, shape};

const A: ClusterId = ClusterId::from_bits(0xa);
const B: ClusterId = ClusterId::from_bits(0xb);
const S: StreamId = StreamId::from_bits(1);

/// Without the variable only our own side is checked, by the other tests; this one then says so.
#[test]
fn the_table_agrees_with_the_vendors_document() {
    let Some(path) = std::env::var_os("COCKROACH_CLOUD_OPENAPI") else {
        println!("NOT CHECKED against the vendor's document: COCKROACH_CLOUD_OPENAPI names none.");
        println!("Only our own side was: the client and its model against tests/contract/table.rs.");
        return;
    };
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("COCKROACH_CLOUD_OPENAPI={path:?}: {error}"));
    let document: Value = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let found = official::differences(&document);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
    for (at, planted) in [
        ("/paths/~1api~1v1~1physical-replication-streams~1{id}/patch", Value::Null),
        ("/components/schemas/PhysicalReplicationStream/properties/replicated_time/format", Value::Null),
        ("/components/schemas/PhysicalReplicationStream/properties/activated_at", Value::Null),
        ("/components/schemas/ReplicationStreamStatus.Type/enum/0", "PAUSED".into()),
        ("/components/schemas/ConnectionStringParameters/required/1", "Username".into()),
        ("/components/schemas/CreatePhysicalReplicationStreamRequest/required/1", "dry_run".into()),
    ] {
        let mut changed = document.clone();
        *changed.pointer_mut(at).unwrap() = planted;
        assert!(!official::differences(&changed).is_empty(), "a change at {at} goes unnoticed");
    }
    println!("checked {} operations and {} shapes against {path:?}", ROWS.len(), SHAPES.len());
}

#[tokio::test]
async fn the_client_sends_what_the_table_says_and_all_of_it() {
    let recorder = Recorder::start(Need::May).await;
    let client = drive::client(&recorder.url);
    drive::reads(&client, A, S).await.unwrap();
    drive::writes(&client, A, B, S).await.unwrap();
    let exchanges = recorder.exchanges();
    let mut sent = BTreeSet::new();
    for (exchange, headers) in &exchanges {
        assert_eq!(breaches(exchange), Vec::<String>::new());
        assert_eq!(headers["authorization"], "Bearer CCDB1_contract");
        assert_eq!(headers["cc-version"], "2024-09-16");
        assert!(headers["user-agent"].to_str().unwrap().starts_with("pgpivot/"));
        let row = table::row(&exchange.method, &exchange.path).unwrap();
        let name = format!("{} {}", row.method, row.path);
        sent.extend(exchange.query.keys().map(|key| format!("{name}?{key}")));
        names(&exchange.body, &format!("{name} "), &mut sent);
        sent.insert(name);
    }
    let mut listed = BTreeSet::new();
    for row in ROWS {
        let name = format!("{} {}", row.method, row.path);
        listed.extend(row.query.iter().map(|field| format!("{name}?{}", field.name)));
        if let Some(body) = row.body {
            names(&sample(body, Need::May), &format!("{name} "), &mut listed);
        }
        listed.insert(name);
    }
    assert_eq!(sent, listed, "the table lists what nobody sends, or the other way round");
}

/// The names of all fields, the nested ones with their path.
fn names(value: &Value, at: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                into.insert(format!("{at}.{name}"));
                names(inner, &format!("{at}.{name}"), into);
            }
        }
        Value::Array(all) => all.iter().for_each(|inner| names(inner, at, into)),
        _ => {}
    }
}

#[tokio::test]
async fn the_client_reads_replies_with_no_more_than_it_needs() {
    let recorder = Recorder::start(Need::Must).await;
    let client = drive::client(&recorder.url);
    drive::reads(&client, A, S).await.unwrap();
    drive::writes(&client, A, B, S).await.unwrap();
}

#[test]
fn the_model_reads_and_writes_every_field_of_the_table() {
    let mut seen = BTreeSet::new();
    model::<m::Cluster>("Cluster", &mut seen);
    model::<m::Region>("Region", &mut seen);
    model::<m::ClusterConfig>("ClusterConfig", &mut seen);
    model::<m::Dedicated>("DedicatedHardwareConfig", &mut seen);
    model::<m::Serverless>("ServerlessClusterConfig", &mut seen);
    model::<m::Node>("Node", &mut seen);
    model::<m::ReplicationStream>("PhysicalReplicationStream", &mut seen);
    model::<m::Pagination>("KeysetPaginationResponse", &mut seen);
    model::<m::ClusterList>("ListClustersResponse", &mut seen);
    model::<m::NodeList>("ListClusterNodesResponse", &mut seen);
    model::<m::ReplicationStreamList>("PhysicalReplicationStreamList", &mut seen);
    model::<m::StreamOrder>("CreatePhysicalReplicationStreamRequest", &mut seen);
    model::<m::StreamUpdate>("UpdatePhysicalReplicationStreamSpec", &mut seen);
    model::<m::Disruptions>("ClusterDisruptionInfo", &mut seen);
    model::<m::Disruption>("RegionalDisruptorSpecification", &mut seen);
    model::<m::ConnectionString>("GetConnectionStringResponse", &mut seen);
    model::<m::ConnectionParams>("ConnectionStringParameters", &mut seen);
    model::<m::Status>("Status", &mut seen);
    let listed: BTreeSet<&str> = SHAPES.iter().map(|shape| shape.name).filter(|name| *name != "Any").collect();
    assert_eq!(seen, listed);
}

fn model<T: Serialize + DeserializeOwned>(name: &'static str, seen: &mut BTreeSet<&'static str>) {
    seen.insert(name);
    let whole = sample(name, Need::May);
    let read: T = serde_json::from_value(whole.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut written = serde_json::to_value(&read).unwrap();
    // An empty next page is not written.
    let mut expected = whole.clone();
    drop_empty(&mut expected);
    drop_empty(&mut written);
    assert_eq!(written, expected, "{name}");
    let mut later = sample(name, Need::Must);
    later["a_field_of_later_times"] = serde_json::json!({"x": [1]});
    assert!(serde_json::from_value::<T>(later).is_ok(), "{name} with a field of later times");
    for field in shape(name).fields {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(field.name);
        let error = serde_json::from_value::<T>(without).err();
        assert_eq!(error.is_some(), field.need == Need::Must, "{name} without {}: {error:?}", field.name);
    }
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, inner| *inner != "");
            object.values_mut().for_each(drop_empty);
        }
        Value::Array(all) => all.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

#[tokio::test]
async fn the_simulated_cloud_says_what_the_table_says() {
    let settings = Settings {
        secret: Secret::new("CCDB1_contract".into()),
        pace: Pace::instant(),
        page_size: 1,
        rate_limit: None,
        ..Settings::default()
    };
    let cloud = Cloud::start(settings).await.unwrap();
    let recorder = Recorder::before(&cloud.api_url()).await;
    let client = drive::client(&recorder.url);
    let [east, west]: [ClusterId; 2] = [Side::East, Side::West].map(|side| cloud.cluster_id(side).parse().unwrap());
    let stream: StreamId = cloud.stream_id().unwrap().parse().unwrap();
    drive::reads(&client, east, stream).await.unwrap();
    client.update_stream(stream, &m::StreamUpdate::failover(None)).await.unwrap();
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while client.stream(stream).await.unwrap().value.status != m::StreamStatus::Completed {
        assert!(tokio::time::Instant::now() < patience, "not completed");
    }
    let back = client.create_stream(west, east).await.unwrap().value;
    client.cancel_stream(back.id).await.unwrap();
    assert_eq!(client.stream(back.id).await.unwrap().value.status, m::StreamStatus::Canceled);
    let refused = client.cancel_stream(stream).await.unwrap_err();
    assert!(refused.is_final(), "{refused}");
    let whole = vec![m::Disruption::whole_region("us-west-2")];
    assert_eq!(client.set_disruptions(west, whole.clone()).await.unwrap().value, whole);
    client.disruptions(west).await.unwrap();
    client.set_disruptions(west, Vec::new()).await.unwrap();
    let mut rows = BTreeSet::new();
    for (exchange, _) in recorder.exchanges() {
        let mut told = exchange.clone();
        // Fields of later times, and null for what is not there, are said on purpose: as in life.
        forget_unknown(&mut told.reply);
        assert_eq!(breaches(&told), Vec::<String>::new(), "{exchange:?}");
        rows.insert(table::row(&exchange.method, &exchange.path).unwrap().path);
    }
    assert_eq!(rows.len(), ROWS.iter().map(|row| row.path).collect::<BTreeSet<_>>().len(), "every path was driven");
}

fn forget_unknown(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let known = |name: &str| SHAPES.iter().any(|shape| shape.fields.iter().any(|field| field.name == name));
            object.retain(|name, value| known(name) && !value.is_null());
            object.values_mut().for_each(forget_unknown);
        }
        Value::Array(all) => all.iter_mut().for_each(forget_unknown),
        _ => {}
    }
}

#[test]
fn a_breach_is_found() {
    let good = check::Exchange {
        method: "GET".into(),
        path: format!("/api/v1/physical-replication-streams/{S}"),
        query: Default::default(),
        body: Value::Null,
        status: 200,
        reply: sample("PhysicalReplicationStream", Need::Told),
    };
    assert_eq!(breaches(&good), Vec::<String>::new());
    let with = |field: &str, value: Value| {
        let mut bad = good.clone();
        bad.reply[field] = value;
        breaches(&bad)
    };
    for (field, value) in [
        ("activation_at", "2026-01-02T15:04:05Z".into()),
        ("status", "PAUSED".into()),
        ("replication_lag_seconds", "7".into()),
        ("replicated_time", "yesterday".into()),
        ("id", "1".into()),
    ] {
        let found = with(field, value);
        assert!(found.len() == 1 && found[0].contains(field), "{field}: {found:?}");
    }
    let missing = check::Exchange { reply: sample("PhysicalReplicationStream", Need::Must), ..good.clone() };
    assert!(breaches(&missing)[0].ends_with(".created_at is missing"), "{:?}", breaches(&missing));
    let refused =
        check::Exchange { status: 403, reply: serde_json::json!({"code": 7, "message": "no"}), ..good.clone() };
    assert_eq!(breaches(&refused), Vec::<String>::new());
    let unknown = check::Exchange { path: "/api/v1/folders".into(), ..good };
    assert!(breaches(&unknown)[0].ends_with("is not in the table"));
}
