//! What the API is known to write, and what it may write one day, is read.

use super::*;

const A: &str = "00000000-0000-0000-0000-00000000000a";
const B: &str = "00000000-0000-0000-0000-00000000000b";

fn stream(rest: &str) -> Result<ReplicationStream, serde_json::Error> {
    serde_json::from_str(&format!(
        r#"{{"id":"00000000-0000-0000-0000-000000000001","primary_cluster_id":"{A}","standby_cluster_id":"{B}"{rest}}}"#
    ))
}

#[test]
fn a_replicating_stream_is_read_with_all_its_times() {
    let read = stream(
        r#","status":"REPLICATING","created_at":"2026-01-02T15:04:05Z","replicated_time":"2026-01-03T15:04:04.123456Z",
        "replication_lag_seconds":31,"retained_time":"2026-01-02T15:04:06Z""#,
    )
    .unwrap();
    assert_eq!(read.status, StreamStatus::Replicating);
    assert_eq!(read.replicated_time.unwrap().to_string(), "2026-01-03T15:04:04.123456Z");
    assert_eq!(read.retained_time.unwrap().to_string(), "2026-01-02T15:04:06Z");
    assert_eq!(read.replication_lag_seconds, Some(31));
    assert_eq!(read.primary_cluster_id, A.parse().unwrap());
    assert_eq!((read.failover_at, read.activated_at, read.canceled_at), (None, None, None));
}

#[test]
fn values_and_fields_of_later_times_are_no_error() {
    let read = stream(r#","status":"PAUSED","mood":{"deep":[1,2]},"activation_at":"2026-01-02T15:04:05Z""#).unwrap();
    assert_eq!(read.status, StreamStatus::Other("PAUSED".into()));
    assert_eq!(read.status.to_string(), "PAUSED");
    assert_eq!(read.activated_at, None, "the vendor's sample misspells the name: no time is made of it");
    let cluster: Cluster =
        serde_json::from_str(&format!(r#"{{"id":"{A}","state":"NAPPING","operation_status":"X_RUNNING"}}"#)).unwrap();
    assert_eq!(cluster.state, ClusterState::Other("NAPPING".into()));
    assert!(cluster.operation_status.is_running() && !cluster.operation_status.is_failed());
    assert_eq!(cluster.plan.to_string(), "unknown");
}

#[test]
fn a_field_that_is_null_or_empty_is_absent() {
    let read = stream(
        r#","status":"COMPLETED","created_at":null,"replicated_time":"","replication_lag_seconds":null,
        "failover_at":"0001-01-01T00:00:00Z","activated_at":"2026-01-02T15:04:05+02:00""#,
    )
    .unwrap();
    assert_eq!((read.created_at, read.replicated_time, read.failover_at), (None, None, None));
    assert_eq!(read.replication_lag_seconds, None);
    assert_eq!(read.activated_at.unwrap().to_string(), "2026-01-02T13:04:05Z");
    let text = format!(r#"{{"id":"{A}","name":null,"regions":null,"config":null,"state":null}}"#);
    let cluster: Cluster = serde_json::from_str(&text).unwrap();
    assert_eq!((cluster.name.as_str(), cluster.regions.len()), ("", 0));
    assert_eq!(cluster.state, ClusterState::default());
}

#[test]
fn whole_numbers_may_come_as_text() {
    let read = stream(r#","status":"REPLICATING","replication_lag_seconds":"42""#).unwrap();
    assert_eq!(read.replication_lag_seconds, Some(42));
    let region: Region = serde_json::from_str(r#"{"node_count":"3","name":"us-east1"}"#).unwrap();
    assert_eq!(region.node_count, 3);
    assert!(stream(r#","status":"REPLICATING","replication_lag_seconds":"soon""#).is_err());
}

#[test]
fn a_stream_without_status_sides_or_a_readable_time_is_an_error_that_says_so() {
    assert!(stream("").unwrap_err().to_string().contains("missing field `status`"));
    let broken = stream(r#","status":"REPLICATING","replicated_time":"yesterday""#).unwrap_err().to_string();
    assert!(broken.contains("RFC 3339"), "{broken}");
    let text = r#"{"id":"x","status":"STARTING","primary_cluster_id":"a","standby_cluster_id":"b"}"#;
    assert!(serde_json::from_str::<ReplicationStream>(text).unwrap_err().to_string().contains("UUID"));
}

#[test]
fn a_list_without_pages_is_one_page() {
    for text in [
        r#"{"physical_replication_streams":[],"pagination":null}"#,
        r#"{"physical_replication_streams":[]}"#,
        r#"{"physical_replication_streams":null,"pagination":{}}"#,
        r#"{"physical_replication_streams":[],"pagination":{"next_page":null,"previous_page":""}}"#,
    ] {
        let list: ReplicationStreamList = serde_json::from_str(text).unwrap();
        assert!(list.physical_replication_streams.is_empty());
        assert_eq!(list.pagination.unwrap_or_default().next_page, "");
    }
    assert!(serde_json::from_str::<ReplicationStreamList>("{}").is_err(), "some other object is no empty list");
}

#[test]
fn a_connection_string_has_capitalised_keys_and_its_port_is_text() {
    let text = r#"{"connection_string":"postgresql://…","params":{"Host":"h.example","Port":"26257","Database":"d"}}"#;
    let read: ConnectionString = serde_json::from_str(text).unwrap();
    assert_eq!((read.params.host.as_str(), read.params.port), ("h.example", 26257));
    assert_eq!(serde_json::to_value(&read.params).unwrap()["Port"], "26257");
    for port in [r#""0""#, r#""70000""#, r#""x""#, "null"] {
        let text = format!(r#"{{"params":{{"Host":"h","Port":{port}}}}}"#);
        assert!(serde_json::from_str::<ConnectionString>(&text).is_err(), "{port}");
    }
}

#[test]
fn a_failover_to_the_latest_time_sends_the_status_alone() {
    let to_text = |update: &StreamUpdate| serde_json::to_string(update).unwrap();
    assert_eq!(to_text(&StreamUpdate::failover(None)), r#"{"status":"FAILING_OVER"}"#);
    assert_eq!(to_text(&StreamUpdate::cancel()), r#"{"status":"CANCELED"}"#);
    let at = "2026-01-02T15:04:05.5Z".parse().unwrap();
    let text = r#"{"status":"FAILING_OVER","failover_at":"2026-01-02T15:04:05.5Z"}"#;
    assert_eq!(to_text(&StreamUpdate::failover(Some(at))), text);
}

#[test]
fn disruptions_are_written_without_empty_parts() {
    let set = Disruptions { regional_disruptor_specifications: vec![Disruption::whole_region("us-east1")] };
    let text = r#"{"regional_disruptor_specifications":[{"region_code":"us-east1","is_whole_region":true}]}"#;
    assert_eq!(serde_json::to_string(&set).unwrap(), text);
    assert_eq!(serde_json::from_str::<Disruptions>("{}").unwrap(), Disruptions::default());
}

#[test]
fn a_name_or_a_word_that_would_forge_a_line_or_turn_it_round_is_shown_as_one_plain_line() {
    let text = r#"{"id": "00000000-0000-0000-0000-000000000001", "name": "shop\u001b[2J-\u202eeast\n", "state": "NAPPING\n2026 all is well"}"#;
    let cluster: Cluster = serde_json::from_str(text).unwrap();
    assert_eq!(cluster.name, "shop [2J- east");
    assert_eq!(cluster.state.as_str(), "NAPPING 2026 all is well");
}
