//! Replies of Patroni as recorded, and as other versions of it write them.

use super::*;

/// As Patroni 3.0 answered it: three members, one of them a synchronous standby.
const THREE: &str = r#"{"members": [
  {"name": "db1", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1",
   "port": 5432, "timeline": 4},
  {"name": "db2", "role": "sync_standby", "state": "running", "api_url": "http://10.0.0.2:8008/patroni",
   "host": "db2.example.com", "port": 5433, "timeline": 4, "tags": {"nofailover": true, "clonefrom": true}, "lag": 16384},
  {"name": "db3", "role": "replica", "state": "start failed", "api_url": "https://10.0.0.3/patroni", "host": "10.0.0.3",
   "port": 5432, "pending_restart": true, "lag": "unknown"}],
  "pause": true,
  "scheduled_switchover": {"at": "2030-09-24T10:36:00+02:00", "from": "db1", "to": "db2"}}"#;

fn parsed(body: &str) -> Cluster {
    Cluster::parse(body.as_bytes()).unwrap()
}

#[test]
fn a_cluster_is_read_with_everything_that_people_ask_for() {
    let cluster = parsed(THREE);
    let leader = cluster.leader().unwrap();
    assert_eq!((leader.name.as_str(), leader.timeline, leader.lag), ("db1", Some(Timeline(4)), None));
    assert_eq!(leader.host.as_ref().unwrap().to_string(), "10.0.0.1:5432");
    assert_eq!(leader.api.as_ref().unwrap().to_string(), "10.0.0.1:8008");
    let [_, second, third] = cluster.members.as_slice() else { panic!("{cluster:?}") };
    assert_eq!((&second.role, second.lag, second.nofailover), (&Role::Sync, Some(16384), true));
    assert_eq!(second.host.as_ref().unwrap().to_string(), "db2.example.com:5433");
    assert_eq!((third.state.as_str(), third.lag, third.timeline, third.runs()), ("start failed", None, None, false));
    assert_eq!((third.pending_restart, third.api.as_ref().unwrap().port), (true, 443));
    assert!(cluster.paused);
    let scheduled = cluster.scheduled.unwrap();
    assert_eq!((scheduled.at.as_str(), scheduled.to.as_deref()), ("2030-09-24T10:36:00+02:00", Some("db2")));
}

#[test]
fn the_leader_is_known_by_any_of_the_words_it_was_ever_given() {
    for word in ["leader", "master", "primary", "standby_leader"] {
        let cluster = parsed(&format!(r#"{{"members": [{{"name": "a", "role": "{word}"}}], "scope": "main"}}"#));
        assert_eq!(cluster.leader().map(|member| member.name.as_str()), Some("a"), "{word}");
    }
    for word in ["replica", "sync_standby", "quorum_standby", "uninitialized", "promoted"] {
        let cluster = parsed(&format!(r#"{{"members": [{{"name": "a", "role": "{word}"}}]}}"#));
        assert_eq!(cluster.leader(), None, "{word}");
    }
}

#[test]
fn what_is_missing_or_new_or_of_another_type_is_unknown_and_no_error() {
    let cluster = parsed(
        r#"{"members": [{"name": "a", "role": "replica", "state": "streaming", "host": "h", "port": "5433",
            "receive_lag": 0, "replay_lag": "unknown", "lsn": "0/4000148", "tags": "none", "timeline": "x",
            "pending_restart_reason": {}}, {"role": "leader"}, 5],
            "pause": "no", "scheduled_switchover": [1], "extra": null}"#,
    );
    let [member] = cluster.members.as_slice() else { panic!("a member without a name is none: {cluster:?}") };
    assert_eq!(member.host.as_ref().unwrap().to_string(), "h:5433");
    assert_eq!((member.timeline, member.lag, member.nofailover, member.runs()), (None, None, false, true));
    assert_eq!((cluster.paused, cluster.scheduled), (false, None));
}

#[test]
fn a_priority_of_nought_is_as_good_as_nofailover() {
    let tagged = |tags: &str| {
        let body = format!(r#"{{"members": [{{"name": "a", "role": "replica", "tags": {tags}}}]}}"#);
        parsed(&body).members[0].nofailover
    };
    assert!(tagged(r#"{"failover_priority": 0}"#) && tagged(r#"{"failover_priority": "0"}"#));
    assert!(tagged(r#"{"nofailover": "True", "failover_priority": 5}"#));
    assert!(!tagged(r#"{"nofailover": false, "failover_priority": 0}"#), "the older word wins, as with Patroni");
    assert!(!tagged(r#"{"failover_priority": 1}"#) && !tagged("{}"));
}

#[test]
fn what_is_no_cluster_is_told_apart() {
    assert_eq!(Cluster::parse(b"<html>"), Err(NotPatroni::NotJson));
    assert_eq!(Cluster::parse(b"{}"), Err(NotPatroni::NoMembers));
    assert_eq!(Cluster::parse(b"[]"), Err(NotPatroni::NoMembers));
    assert_eq!(history(b"{}"), Err(NotPatroni::NoList));
}

#[test]
fn a_name_can_neither_break_a_line_nor_fill_a_page() {
    let long = "x".repeat(5000);
    let body = serde_json::json!({"members": [{"name": format!("a\nb{long}"), "role": "leader"}]}).to_string();
    let name = parsed(&body).members.remove(0).name;
    assert!(name.starts_with("a bx") && name.len() == MAX_TEXT, "{name}");
    let many: Vec<_> = (0..200).map(|n| serde_json::json!({"name": n.to_string()})).collect();
    assert_eq!(parsed(&serde_json::json!({ "members": many }).to_string()).members.len(), MAX_MEMBERS);
}

#[test]
fn the_history_tells_why_a_timeline_ended_and_who_came_after() {
    let lines = history(
        br#"[[1, 25623960, "no recovery target specified"],
             [2, 25624344, "no recovery target specified", "2019-09-23T16:57:57+02:00"],
             [3, 25625344, "before 2000-01-01 00:00:00+00", "2019-09-24T09:33:52.110000+02:00", "db2"]]"#,
    )
    .unwrap();
    assert_eq!((lines[0].timeline, lines[0].at, &lines[0].leader), (Timeline(1), None, &None));
    assert_eq!(lines[1].at.unwrap().0, 1_569_250_677_000_000);
    assert_eq!((lines[2].leader.as_deref(), lines[2].reason.as_str()), (Some("db2"), "before 2000-01-01 00:00:00+00"));
}
