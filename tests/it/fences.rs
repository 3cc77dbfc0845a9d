//! What keeps writes from a side that was left: the proxy alone, the server's own setting, or a command that must succeed.

use crate::harness::status::{blocked, find, is_active};
use crate::harness::{Daemon, Pair, Psql, SOON, eventually};
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(5);
const INSERT: &str = "INSERT INTO ledger VALUES (-1, 0, 0, 0)";

fn grade<'a>(service: &'a pgpivot::view::ServiceStatus, name: &str) -> &'a str {
    find(service, name).fence.as_deref().unwrap_or_default()
}

async fn until_history_says(daemon: &Daemon, what: &str) {
    eventually(&format!("the history says: {what}"), SOON, async || {
        let said = daemon.ctl_done(&["history", "--json", "--limit", "200"]).await.out;
        if said.contains(what) { Ok(()) } else { Err(said) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_comes_back_takes_no_writes_even_past_the_proxy() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    pair.east.kill().await;
    let left = daemon.until_active("west", FAILOVER).await;
    assert_eq!(grade(&left, "east"), "route", "a dead server is fenced by nobody else");
    until_history_says(&daemon, "east is fenced: route").await;

    // Nobody is told what it needs of a server that cannot be asked.
    let unseen = daemon.ctl(&["rejoin", "east", "--dry-run"]).await;
    assert_eq!(unseen.code, Some(1), "{unseen:#?}");
    assert!(unseen.talk.contains("cannot be asked what it needs"), "{unseen:#?}");

    pair.east.start().await;
    daemon.until("east is read-only", SOON, |s| grade(s, "east") == "node-soft").await;
    let spoken = Psql::to(pair.east.address()).say(INSERT).await;
    assert!(spoken.talk.contains("read-only transaction"), "the old side takes writes: {spoken:#?}");
    assert_eq!(Psql::to(pair.west.address()).say(INSERT).await.code, Some(0), "the new side does not");
    until_history_says(&daemon, "east is fenced: node-soft").await;
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    for line in [
        "pgpivot_fence{backend=\"east\",grade=\"node-soft\",service=\"main\"} 1",
        "pgpivot_fence{backend=\"east\",grade=\"route\",service=\"main\"} 0",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    let status = daemon.ctl_done(&["status"]).await.out;
    assert!(status.contains("node-soft"), "{status}");

    // The way back is not lost in a restart of either.
    daemon.kill().await;
    daemon.launch();
    daemon.until("still known", SOON, |s| s.open && grade(s, "east") == "node-soft").await;
    pair.east.rebuild_as_standby_of(&pair.west).await;
    daemon.until("it was left no more", SOON, |s| find(s, "east").fence.is_none()).await;
    until_history_says(&daemon, "east is no longer kept read-only").await;
    assert_eq!(pair.east.ask("SHOW default_transaction_read_only").await, "off");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_write_past_the_proxy_are_ended_when_their_server_was_left() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let direct = Psql::to(pair.east.address()).begin("SELECT pg_sleep(600)");
    eventually("a client past the proxy", SOON, async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'";
        let count = pair.east.ask(sql).await;
        if count == "1" { Ok(()) } else { Err(count) }
    })
    .await;
    // Forced away from a server that lives.
    daemon.ctl_done(&["failover", "--to", "west", "--force", "--yes"]).await;
    daemon.until("east is read-only", SOON, |s| is_active(s, "west") && grade(s, "east") == "node-soft").await;
    let ended = tokio::time::timeout(SOON, direct.wait_with_output()).await.expect("it goes on").unwrap();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("terminating connection"), "{ended:?}");
    until_history_says(&daemon, "1 client session was ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_grants_the_fence_stays_weak_and_the_grant_to_type_is_told() {
    let weak = Pair::start().await;
    weak.east.run("REVOKE ALTER SYSTEM ON PARAMETER default_transaction_read_only FROM pgpivot").await;
    weak.east.is_followed_by(&weak.west).await;
    let daemon = Daemon::start(&[&weak.east, &weak.west]).await;
    weak.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    weak.east.start().await;
    until_history_says(&daemon, "GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only").await;
    assert_eq!(grade(&daemon.service().await, "east"), "route");
    daemon.stays("west serves", WATCH, |s| s.open && is_active(s, "west")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_fence_false_leaves_an_old_primary_as_it_is() {
    let pair = Pair::start().await;
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("soft_fence", false).start().await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    pair.east.start().await;
    daemon.until("quarantine", SOON, |s| find(s, "east").quarantined.is_some()).await;
    daemon.stays("it is only routed around", WATCH, |s| grade(s, "east") == "route").await;
    assert_eq!(Psql::to(pair.east.address()).say(INSERT).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_fence_that_fails_lets_nobody_be_promoted_and_says_why() {
    let pair = Pair::start().await;
    let (flag, folder) = {
        let folder = tempfile::tempdir().unwrap();
        (folder.path().join("works"), folder)
    };
    let script = format!("test -e {} || {{ echo 'the power switch does not answer' >&2; exit 1; }}", flag.display());
    let argv = ["/bin/sh", "-c", &script, "fence", "{backend}"].map(toml::Value::from).to_vec();
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("fence", "required").failover("fence_command", argv);
    let daemon = plan.start().await;
    let before = daemon.service().await;
    pair.east.kill().await;
    let shown = daemon.until("the fence failed", FAILOVER, |s| blocked(s) == "fence failed").await;
    let why = shown.blocked.unwrap().sentence;
    assert!(why.contains("the power switch does not answer"), "{why}");
    daemon.stays("nobody is promoted", WATCH, |s| is_active(s, "east") && s.epoch == before.epoch).await;
    assert!(!pair.west.is_primary().await);
    until_history_says(&daemon, "the power switch does not answer").await;

    std::fs::write(&flag, "").unwrap();
    let after = daemon.until_active("west", FAILOVER).await;
    assert_eq!(grade(&after, "east"), "node-hard");
    until_history_says(&daemon, "east is fenced: node-hard").await;
    drop(folder);
}
