//! Two standbys and more: who takes over, who never does, and what becomes of those that are left.

use crate::harness::status::{blocked, find, is_active};
use crate::harness::{Cluster, Daemon, Pair, Psql, SOON, Shutdown, eventually};
use pgpivot::view::{Level, ServiceStatus};
use std::time::Duration;

/// For a failover with the fast preset on a busy machine.
const FAILOVER: Duration = Duration::from_secs(20);
/// For how long a test watches that something does not happen.
const WATCH: Duration = Duration::from_secs(6);
/// What config/postgres-role.sql grants for pointing standbys at a new primary.
const MAY_POINT: &str =
    "GRANT pg_read_all_settings TO pgpivot; GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO pgpivot";

/// `east` with `west` and `north` behind it; pgpivot may point them elsewhere.
async fn three() -> (Pair, Cluster) {
    let pair = Pair::start().await;
    let north = pair.add_standby("north").await;
    pair.east.run(MAY_POINT).await;
    pair.east.is_followed_by(&pair.west).await;
    pair.east.is_followed_by(&north).await;
    (pair, north)
}

/// The standby receives nothing more; all else in its `primary_conninfo` stays.
async fn disconnect(standby: &Cluster, from: &Cluster) {
    let conninfo = standby.ask("SHOW primary_conninfo").await;
    let nowhere = conninfo.replace(&from.port.to_string(), "1").replace('\'', "''");
    standby.run(&format!("ALTER SYSTEM SET primary_conninfo = '{nowhere}'")).await;
    standby.reload();
    eventually("it receives nothing", SOON, async || {
        match standby.ask("SELECT count(*) FROM pg_stat_wal_receiver").await.as_str() {
            "0" => Ok(()),
            _ => Err(standby.log_tail()),
        }
    })
    .await;
}

async fn write(server: &Cluster, first: u32) {
    let rows = format!("INSERT INTO ledger SELECT i, 1, 1, 1 FROM generate_series({first}, {first} + 999) i");
    server.run(&rows).await;
}

fn state_of<'a>(service: &'a ServiceStatus, name: &str) -> &'a str {
    find(service, name).following.as_ref().map_or("", |following| &following.state)
}

async fn until_follows(daemon: &Daemon, standby: &Cluster, primary: &Cluster) {
    let what = format!("{} follows {}", standby.name, primary.name);
    daemon.until(&what, SOON, |s| state_of(s, &standby.name) == "follower").await;
    primary.is_followed_by(standby).await;
}

async fn history(daemon: &Daemon) -> String {
    daemon.ctl_done(&["history", "--json"]).await.out
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_advanced_standby_takes_over_whatever_the_priorities_and_the_other_one_follows_it() {
    let (pair, north) = three().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west, &north]).backend("west", "priority", 1);
    let daemon = plan.start().await;
    disconnect(&pair.west, &pair.east).await;
    write(&pair.east, 1).await;
    pair.east.is_followed_by(&north).await;
    pair.east.kill().await;
    daemon.until_active("north", FAILOVER).await;
    assert!(!pair.west.is_primary().await);
    until_follows(&daemon, &pair.west, &north).await;
    assert_eq!(pair.west.ask("SELECT count(*) FROM ledger").await, "1000");
    let slots = north.ask("SELECT string_agg(slot_name, ',') FROM pg_replication_slots WHERE active").await;
    assert_eq!(slots, "west", "the slot that west streams from was made on the new primary");
    let told = history(&daemon).await;
    assert!(told.contains("north was chosen"), "{told}");
    assert!(told.contains("west is pointed at north") && told.contains("west follows north on timeline 2"), "{told}");
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    let following = "pgpivot_backend_following{backend=\"west\",service=\"main\",state=\"follower\"} 1";
    assert!(metrics.contains(following), "{metrics}");
    assert!(!daemon.log().contains("password=") && !told.contains("password="), "a password was shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_a_foreign_and_an_excluded_standby_are_never_promoted_and_each_no_has_its_reason() {
    let (pair, north) = three().await;
    let foreign = Cluster::stranger("foreign");
    std::fs::write(foreign.data().join("standby.signal"), "").unwrap();
    foreign.start().await;
    let servers = [&pair.east, &pair.west, &north, &foreign];
    let plan = Daemon::plan(&servers).backend("north", "promote", false).failover("max_lag", "1KiB");
    let daemon = plan.start().await;
    let before = daemon.service().await;
    disconnect(&pair.west, &pair.east).await;
    write(&pair.east, 1).await;
    daemon.until("west lags", SOON, |s| find(s, "west").lag_bytes.is_some_and(|lag| lag > 1024)).await;
    pair.east.kill().await;
    daemon.until("nobody may take over", FAILOVER, |s| !blocked(s).is_empty()).await;
    daemon.stays("nobody is promoted", WATCH, |s| s.epoch == before.epoch && is_active(s, "east")).await;
    for server in [&pair.west, &north, &foreign] {
        assert!(!server.is_primary().await, "{} was promoted", server.name);
    }
    let said = daemon.ctl_done(&["status"]).await.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for reason in
        ["north is kept from being promoted by promote = false", "foreign belongs to another system", "not armed west"]
    {
        assert!(said.contains(reason), "{reason:?} is not in {said}");
    }
    let why = daemon.service().await.blocked.unwrap().sentence;
    assert!(
        why.contains("west is") && why.contains("bytes behind") || why.contains("west had stopped streaming"),
        "{why}"
    );
    let (_, page) = daemon.fetch("/stats").await.unwrap();
    assert!(page.contains("kept from being promoted") && page.contains("belongs to another system"), "{page}");
    let refused = daemon.ctl(&["failover", "--to", "north", "--force", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.talk.contains("promote = false"), "{refused:?}");
    assert!(!north.is_primary().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_switchover_the_other_standby_follows_the_new_primary_without_a_hand() {
    let (pair, north) = three().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west, &north]).await;
    write(&pair.east, 1).await;
    daemon.ctl_done(&["switchover", "--to", "west", "--yes"]).await;
    daemon.until_active("west", FAILOVER).await;
    until_follows(&daemon, &north, &pair.west).await;
    write(&pair.west, 5001).await;
    pair.west.is_followed_by(&north).await;
    assert_eq!(north.ask("SELECT count(*) FROM ledger").await, "2000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_has_more_than_the_new_primary_is_shown_as_an_orphan_and_left_alone() {
    let (pair, north) = three().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west, &north]).failover("authority", "observe");
    let plan = plan.failover("promoter", "none").failover("survivors", "repoint");
    let daemon = plan.launch();
    daemon.until_active("east", SOON).await;
    disconnect(&pair.west, &pair.east).await;
    write(&pair.east, 1).await;
    pair.east.is_followed_by(&north).await;
    let conninfo = north.ask("SHOW primary_conninfo").await;
    pair.east.kill().await;
    pair.west.promote();
    daemon.until_active("west", FAILOVER).await;
    let shown = daemon.until("north is an orphan", SOON, |s| state_of(s, "north") == "orphan").await;
    let said = &find(&shown, "north").following.as_ref().unwrap().sentence;
    assert!(said.contains("bytes beyond where timeline 2 left timeline 1") && said.contains("pg_rewind"), "{said}");
    assert!(shown.level >= Level::Warn, "{:?}", shown.level);
    daemon.stays("an orphan", WATCH, |s| state_of(s, "north") == "orphan").await;
    assert_eq!(north.ask("SHOW primary_conninfo").await, conninfo);
    let status = daemon.ctl_done(&["status"]).await.out;
    assert!(status.contains("orphan") && history(&daemon).await.contains("north is an orphan"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_grants_the_sentence_to_type_is_shown_and_the_command_does_it() {
    let pair = Pair::start().await;
    let north = pair.add_standby("north").await;
    let daemon = Daemon::plan(&[&pair.east, &pair.west, &north]).backend("west", "priority", 1).start().await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    let place = format!("host=127.0.0.1 port={}", pair.west.port);
    let told =
        |s: &ServiceStatus| find(s, "north").following.as_ref().is_some_and(|f| f.sentence.contains("GRANT ALTER"));
    let shown = daemon.until("what to type", SOON, told).await;
    let said = &find(&shown, "north").following.as_ref().unwrap().sentence;
    assert!(said.contains(&place) && said.contains("ALTER SYSTEM SET primary_conninfo"), "{said}");
    assert!(said.contains("GRANT pg_read_all_settings TO pgpivot"), "{said}");
    assert!(
        !north.log_tail().contains("password="),
        "a refused statement with the password stands in the server's log"
    );
    // Whoever may do it does what a person would type.
    let script = std::env::temp_dir().join(format!("pgpivot-it-follow-{}", north.port));
    let told = script.with_extension("told");
    let text = format!("#!/bin/sh\necho \"$@\" > {}\n", told.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let argv = [script.to_str().unwrap(), "{backend}", "{primary}", "{address}"].map(toml::Value::from).to_vec();
    daemon.edit_service(|service| {
        service["failover"].as_table_mut().unwrap().insert("follow_command".into(), argv.into());
    });
    daemon.ctl_done(&["reload"]).await;
    let wanted = format!("north west 127.0.0.1:{}\n", pair.west.port);
    eventually("the command ran", SOON * 3, async || match std::fs::read_to_string(&told) {
        Ok(text) if text == wanted => Ok(()),
        other => Err(format!("{other:?}\n{}", daemon.log_tail())),
    })
    .await;
    let _ = (std::fs::remove_file(&script), std::fs::remove_file(&told));
    // Done by hand, as the sentence says.
    let conninfo =
        north.ask("SHOW primary_conninfo").await.replace(&pair.east.port.to_string(), &pair.west.port.to_string());
    pair.west.run("SELECT pg_create_physical_replication_slot('north', true)").await;
    north.run(&format!("ALTER SYSTEM SET primary_conninfo = '{}'", conninfo.replace('\'', "''"))).await;
    north.reload();
    until_follows(&daemon, &north, &pair.west).await;
}

/// Every server waits for the others when it is primary.
async fn wait_for(servers: &[&Cluster], names: &str) {
    for server in servers {
        server.run(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await;
        server.reload();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_commit_after_a_failover_waits_for_the_standby_that_is_left_and_returns() {
    let (pair, north) = three().await;
    wait_for(&[&pair.east, &pair.west, &north], "ANY 1 (east, west, north)").await;
    let plan = Daemon::plan(&[&pair.east, &pair.west, &north]).backend("west", "priority", 1);
    let daemon = plan.failover("sync_after_failover", "adapt").start().await;
    let safe = |s: &ServiceStatus| s.durability.as_ref().is_some_and(|d| d.synchronous && !d.at_risk);
    let shown = daemon.until("nothing can be lost", SOON, safe).await;
    let shown = shown.durability.unwrap();
    assert!(shown.sentence.starts_with("no acknowledged commit would be lost") && shown.loss_bytes == Some(0));
    pair.east.kill().await;
    let active =
        daemon.until("one of two took over", FAILOVER, |s| s.open && !is_active(s, "east")).await.active.unwrap();
    let (new, left) = if active.as_str() == "west" { (&pair.west, &north) } else { (&north, &pair.west) };
    let psql = Psql::to(daemon.listen);
    let commit = psql.say("INSERT INTO ledger VALUES (1, 1, 1, 1)");
    let said = tokio::time::timeout(SOON, commit).await.expect("the first commit hangs");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(new.ask("SHOW synchronous_standby_names").await, format!("ANY 1 ({})", left.name));
    until_follows(&daemon, left, new).await;
    daemon.until("nothing can be lost again", SOON, safe).await;
    let told = history(&daemon).await;
    assert!(told.contains("synchronous_standby_names ('ANY 1 (east, west, north)') is being set to"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_does_not_wait_for_ever_for_a_standby_that_cannot_be_pointed_at_the_new_primary() {
    let pair = Pair::start().await;
    let north = pair.add_standby("north").await;
    wait_for(&[&pair.east, &pair.west, &north], "FIRST 1 (west, north, east)").await;
    let plan = Daemon::plan(&[&pair.east, &pair.west, &north]);
    let daemon = plan.failover("sync_after_failover", "adapt").start().await;
    pair.east.kill().await;
    daemon.until("one of two took over", FAILOVER, |s| s.open && !is_active(s, "east")).await;
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    assert!(metrics.contains("pgpivot_possible_loss_bytes{"), "{metrics}");
    let psql = Psql::to(daemon.listen);
    let commit = psql.say("INSERT INTO ledger VALUES (1, 1, 1, 1)");
    let said = tokio::time::timeout(SOON, commit).await.expect("the first commit hangs");
    assert_eq!(said.code, Some(0), "{said:?}");
    let red =
        |s: &ServiceStatus| s.level == Level::Bad && s.durability.as_ref().is_some_and(|d| d.at_risk && !d.synchronous);
    daemon.until("commits wait for nobody, in red", SOON, red).await;
    let told = history(&daemon).await;
    assert!(told.contains("still waited for standbys that did not come"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_standby_is_left_commits_wait_for_nobody_and_that_is_red() {
    let pair = Pair::start().await;
    wait_for(&[&pair.east, &pair.west], "west, east").await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("sync_after_failover", "adapt");
    let daemon = plan.start().await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    let said = Psql::to(daemon.listen).say("INSERT INTO ledger VALUES (1, 1, 1, 1)").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let red = |s: &ServiceStatus| s.level == Level::Bad && s.durability.as_ref().is_some_and(|d| d.at_risk);
    daemon.until("commits wait for nobody, in red", SOON, red).await;
    let status = daemon.ctl_done(&["status"]).await.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(status.contains("an acknowledged commit could be lost, it waits for no standby"), "{status}");
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    assert!(metrics.contains("pgpivot_commits_at_risk{service=\"main\"} 1"), "{metrics}");
    pair.west.stop(Shutdown::Fast).await;
}
