//! What is asked again, when, and what all clones wait for.

use std::time::Duration;

use super::server::{Act, Server, json};
use super::{A, S, client, stream};
use crate::cockroach_cloud::{Cause, Step, Trouble};

#[tokio::test]
async fn a_read_is_tried_again_and_succeeds() {
    let page = json(503, "<html>busy</html>");
    let server = Server::start([Act::ResetRead, page, json(200, &stream("REPLICATING"))]).await;
    let reply = client(&server).stream(S).await.unwrap();
    assert_eq!(reply.value.id, S);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_wait_that_is_asked_for_in_seconds_is_kept() {
    for status in [429, 503] {
        let wait = Act::reply(status, &[("retry-after", "1")], r#"{"code":8,"message":"rate limit exceeded"}"#);
        let server = Server::start([wait, json(200, &stream("REPLICATING"))]).await;
        client(&server).stream(S).await.unwrap();
        assert!(server.pause() >= Duration::from_secs(1), "{:?}", server.pause());
    }
}

#[tokio::test]
async fn a_wait_that_is_asked_for_as_a_time_is_kept_by_the_servers_clock() {
    // One second after the Date that the server sends, long past or to come by ours.
    let wait = Act::reply(429, &[("retry-after", "Thu, 26 Nov 2026 23:39:37 GMT")], "");
    let server = Server::start([wait, json(200, &stream("REPLICATING"))]).await;
    client(&server).stream(S).await.unwrap();
    assert!(server.pause() >= Duration::from_secs(1), "{:?}", server.pause());
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_ends_the_call_and_holds_the_clones() {
    let wait = Act::reply(429, &[("retry-after", "30")], r#"{"code":8,"message":"rate limit exceeded"}"#);
    let server = Server::start([wait]).await;
    let client = client(&server);
    let error = client.stream(S).await.unwrap_err();
    assert_eq!((error.retry_after(), error.tries), (Some(Duration::from_secs(30)), 1));
    assert!(!error.is_final());
    assert!(error.to_string().ends_with("(429 RESOURCE_EXHAUSTED): rate limit exceeded; it asks to wait 30 s"));
    let held = client.clone().cancel_stream(S).await.unwrap_err();
    assert_eq!(held.trouble, Trouble::Unreachable { step: Step::Turn, cause: Cause::TimedOut });
    assert!(!held.may_have_taken_effect());
    assert_eq!(server.requests().len(), 1, "nothing was sent meanwhile");
}

#[tokio::test]
async fn a_burst_of_clones_waits_its_turn() {
    let server = Server::start((0..6).map(|_| json(200, &format!(r#"{{"id":"{A}"}}"#)))).await;
    let client = client(&server);
    let started = tokio::time::Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let client = client.clone();
        calls.spawn(async move { client.cluster(A).await });
    }
    for result in calls.join_all().await {
        result.unwrap();
    }
    // Three at once, then four a second.
    assert!(started.elapsed() >= Duration::from_millis(750), "{:?}", started.elapsed());
    assert_eq!(server.requests().len(), 6);
}
