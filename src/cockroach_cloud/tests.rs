//! The client against servers on loopback that answer, or fail to, by script.

mod lists;
mod repeats;
mod secrets;
mod server;
mod tls;
mod troubles;
mod writes;

use std::time::Duration;

use super::model::{
    ClusterId, ClusterState, Disruption, NodeStatus, StreamFilter, StreamId, StreamStatus, StreamUpdate,
};
use super::{Client, Settings};
use crate::types::Secret;
use server::{Act, Server, json};

const SECRET: &str = "CCDB1_verySecretKey";
const A: ClusterId = ClusterId::from_bits(0xa);
const B: ClusterId = ClusterId::from_bits(0xb);
const S: StreamId = StreamId::from_bits(1);

fn settings(base_url: &str) -> Settings {
    Settings { base_url: base_url.into(), ..Settings::new(Secret::new(SECRET.into())) }
}

fn client(server: &Server) -> Client {
    Client::build(&settings(&server.url)).unwrap()
}

fn impatient(server: &Server) -> Client {
    client(server).with_timeout(Duration::from_millis(400))
}

fn stream(status: &str) -> String {
    format!(r#"{{"id":"{S}","status":"{status}","primary_cluster_id":"{A}","standby_cluster_id":"{B}"}}"#)
}

#[tokio::test]
async fn a_cluster_is_read_with_the_token_the_version_and_our_name() {
    let body = format!(r#"{{"id":"{A}","name":"east","state":"CREATED","operation_status":"UNSPECIFIED"}}"#);
    let server = Server::start([json(200, &body)]).await;
    let reply = client(&server).cluster(A).await.unwrap();
    assert_eq!((reply.value.id, reply.value.name.as_str()), (A, "east"));
    assert_eq!(reply.value.state, ClusterState::Created);
    assert_eq!(reply.date.unwrap().to_string(), "2026-11-26T23:39:36Z", "the server's clock comes along");
    let request = server.requests().remove(0);
    assert!(request.starts_with(&format!("GET /api/v1/clusters/{A} HTTP/1.1\r\n")), "{request}");
    for header in [
        format!("authorization: Bearer {SECRET}"),
        "cc-version: 2024-09-16".into(),
        concat!("user-agent: pgpivot/", env!("CARGO_PKG_VERSION")).into(),
        "accept: application/json".into(),
    ] {
        assert!(request.contains(&format!("\r\n{header}\r\n")), "{header} in {request}");
    }
    assert!(!request.contains("accept-encoding"), "{request}");
}

#[tokio::test]
async fn a_prefix_of_the_base_url_is_kept() {
    let server = Server::start([json(200, &stream("STARTING"))]).await;
    let settings = settings(&format!("{}/cloud/", server.url));
    let reply = Client::build(&settings).unwrap().stream(S).await.unwrap();
    assert_eq!(reply.value.status, StreamStatus::Starting);
    let request = server.requests().remove(0);
    assert!(request.starts_with(&format!("GET /cloud/api/v1/physical-replication-streams/{S} HTTP")), "{request}");
}

#[tokio::test]
async fn nodes_and_connection_strings_are_read() {
    let nodes = r#"{"nodes":[{"name":"crdb-0","region_name":"us-east1","status":"NOT_READY"}],"pagination":null}"#;
    let string = r#"{"connection_string":"postgresql://…","params":{"Host":"h","Port":"26257","Database":"a b"}}"#;
    let server = Server::start([json(200, nodes), json(200, string)]).await;
    let client = client(&server);
    let nodes = client.nodes(A).await.unwrap().value;
    assert_eq!((nodes[0].name.as_str(), &nodes[0].status), ("crdb-0", &NodeStatus::NotReady));
    let params = client.connection_string(A, Some("a b"), Some("x&os=MAC")).await.unwrap().value.params;
    assert_eq!((params.host.as_str(), params.port, params.database.as_str()), ("h", 26257, "a b"));
    let path = format!("GET /api/v1/clusters/{A}/connection-string?os=LINUX&database=a+b&sql_user=x%26os%3DMAC HTTP");
    assert!(server.requests()[1].starts_with(&path), "{}", server.requests()[1]);
}

#[tokio::test]
async fn a_stream_is_ordered_failed_over_and_cancelled() {
    let replies = ["STARTING", "FAILING_OVER", "CANCELED"].map(|status| json(200, &stream(status)));
    let server = Server::start(replies).await;
    let client = client(&server);
    assert_eq!(client.create_stream(A, B).await.unwrap().value.status, StreamStatus::Starting);
    let update = StreamUpdate::failover(Some("2026-01-02T15:04:05Z".parse().unwrap()));
    assert_eq!(client.update_stream(S, &update).await.unwrap().value.status, StreamStatus::FailingOver);
    assert_eq!(client.cancel_stream(S).await.unwrap().value.status, StreamStatus::Canceled);
    let requests = server.requests();
    let order = format!(r#"{{"primary_cluster_id":"{A}","standby_cluster_id":"{B}"}}"#);
    assert!(requests[0].starts_with("POST /api/v1/physical-replication-streams HTTP"), "{}", requests[0]);
    assert!(requests[0].contains("\r\ncontent-type: application/json\r\n"), "{}", requests[0]);
    assert_eq!(server::body_of(&requests[0]), order);
    assert!(requests[1].starts_with(&format!("PATCH /api/v1/physical-replication-streams/{S} HTTP")));
    let failover: serde_json::Value = serde_json::from_str(server::body_of(&requests[1])).unwrap();
    assert_eq!(failover, serde_json::json!({"status": "FAILING_OVER", "failover_at": "2026-01-02T15:04:05Z"}));
    assert_eq!(server::body_of(&requests[2]), r#"{"status":"CANCELED"}"#);
}

#[tokio::test]
async fn disruptions_are_read_replaced_and_ended() {
    let one = r#"{"regional_disruptor_specifications":[{"region_code":"us-east1","is_whole_region":true}]}"#;
    let server = Server::start([json(200, one), json(200, one), json(200, "{}")]).await;
    let client = client(&server);
    let whole = vec![Disruption::whole_region("us-east1")];
    assert_eq!(client.disruptions(A).await.unwrap().value, whole);
    assert_eq!(client.set_disruptions(A, whole.clone()).await.unwrap().value, whole);
    assert_eq!(client.set_disruptions(A, Vec::new()).await.unwrap().value, []);
    let requests = server.requests();
    assert!(requests[1].starts_with(&format!("PUT /api/v1/clusters/{A}/disrupt HTTP")), "{}", requests[1]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(server::body_of(&requests[1])).unwrap()["regional_disruptor_specifications"]
            [0]["is_whole_region"],
        true
    );
    assert_eq!(server::body_of(&requests[2]), r#"{"regional_disruptor_specifications":[]}"#);
}

#[tokio::test]
async fn any_path_can_be_shown_as_it_is_answered() {
    let page = Act::reply(502, &[("content-type", "text/html"), ("set-cookie", "x=1")], "<html>no</html>");
    let server = Server::start([page]).await;
    let reply = client(&server).raw(&"/api/v1/clusters?show_inactive=true".parse().unwrap()).await.unwrap().value;
    assert_eq!((reply.status, reply.body.as_str()), (502, "<html>no</html>"));
    assert!(reply.headers.contains(&("content-type".into(), "text/html".into())), "{:?}", reply.headers);
    assert!(!reply.headers.iter().any(|(name, _)| name == "set-cookie"), "{:?}", reply.headers);
    assert_eq!(server.requests().len(), 1, "shown as it is, and not asked again");
    assert!(server.requests()[0].starts_with("GET /api/v1/clusters?show_inactive=true HTTP"));
}

#[tokio::test]
async fn a_date_that_is_none_is_no_error() {
    for date in ["yesterday", "", "Mon, 26 Nov 2026 23:39:36 GMT"] {
        let server = Server::start([Act::dated(200, date, &stream("REPLICATING"))]).await;
        let reply = client(&server).stream(S).await.unwrap();
        assert_eq!(reply.date, None, "{date:?}");
    }
}

#[tokio::test]
async fn a_filter_says_exactly_what_it_is_given() {
    let empty = r#"{"physical_replication_streams":[]}"#;
    let server = Server::start([json(200, empty), json(200, empty)]).await;
    let client = client(&server);
    client.streams(&StreamFilter::default()).await.unwrap();
    let filter = StreamFilter { primary: Some(A), standby: Some(B), cluster: Some(A), show_completed: Some(false) };
    client.streams(&filter).await.unwrap();
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /api/v1/physical-replication-streams HTTP"), "{}", requests[0]);
    let query = format!("primary_cluster_id={A}&standby_cluster_id={B}&cluster_id={A}&show_completed=false");
    assert!(requests[1].starts_with(&format!("GET /api/v1/physical-replication-streams?{query} HTTP")));
}
