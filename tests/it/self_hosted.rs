//! Self-hosted CockroachDB clusters, one replicated to the other, failed over and switched over by SQL alone.

use crate::harness::plan::DaemonPlan;
use crate::harness::self_hosted::{Rows, clusters, daemon, session, state, steer};
use crate::harness::status::{blocked, is_active};
use crate::harness::{Daemon, SOON, eventually};
use pgpivot::sim::cloud::Reach;
use pgpivot::sim::{Cloud, Side};
use pgpivot::view::ServiceStatus;
use std::time::Duration;

/// From a cluster's death to the other one's service; most of it is waiting for the stream's silence.
const FAILOVER: Duration = Duration::from_secs(40);

/// For how long a test watches that something does not happen; the stream's silence would be decided upon by then.
const WATCH: Duration = Duration::from_secs(6);

const COMPLETE: &str = "ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO LATEST";
const GRANT: &str = "GRANT SYSTEM MANAGEVIRTUALCLUSTER, REPLICATIONDEST, VIEWJOB TO \"ops\"";

/// The daemon shows this text where it says why nothing goes on, or what it sees.
fn says(service: &ServiceStatus, text: &str) -> bool {
    let blocked = service.blocked.as_ref().map_or("", |blocked| &blocked.sentence);
    blocked.contains(text) || service.evidence.contains(text)
}

async fn until_history(daemon: &Daemon, text: &str) {
    eventually(&format!("the history tells {text:?}"), SOON, async || {
        let said = daemon.ctl_done(&["history", "--json"]).await.out;
        if said.contains(text) { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Waits until all that was acknowledged so far has come over.
async fn replicated(cloud: &Cloud, rows: &Rows) -> Vec<i64> {
    let told = rows.told();
    eventually("these rows are replicated", SOON, async || {
        let there = cloud.ids(Side::West);
        let missing = told.iter().filter(|id| there.binary_search(id).is_err()).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} are not")) }
    })
    .await;
    told
}

/// Every row of the old side up to some moment, and none after it, but those of the new side's own time.
fn is_cut_at_one_moment(cloud: &Cloud) {
    let (old, new) = (cloud.rows(Side::East), cloud.rows(Side::West));
    let missing = old.iter().filter(|(id, _)| !new.contains_key(id)).map(|(_, at)| *at).min();
    let last = old.iter().filter(|(id, _)| new.contains_key(id)).map(|(_, at)| *at).max();
    assert!(last.is_some(), "nothing came over");
    assert!(missing.is_none_or(|missing| Some(missing) > last), "a hole: {missing:?} lacks, {last:?} is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_cluster_dies_the_other_is_promoted_and_served_and_applications_go_on() {
    let cloud = clusters().await;
    steer(&cloud, Side::West, "SET CLUSTER SETTING server.controller.default_target_cluster = 'system'").await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    let before = daemon.service().await;
    let rows = Rows::start(daemon.listen);
    rows.go_on(200, SOON).await;
    let settled = replicated(&cloud, &rows).await;
    cloud.crash(Side::East).await.unwrap();
    let after = daemon.until_active("west", FAILOVER).await;
    assert_eq!(after.epoch, before.epoch.next());
    assert!(cloud.is_serving(Side::West));
    rows.go_on(50, SOON).await;
    rows.stop();
    is_cut_at_one_moment(&cloud);
    let there = cloud.ids(Side::West);
    assert!(settled.iter().all(|id| there.binary_search(id).is_ok()), "what was replicated is there");
    until_history(&daemon, "what east acknowledged after ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_made_by_hand_is_followed_and_the_forgotten_start_service_is_made_up_for() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    let rows = Rows::start(daemon.listen);
    rows.go_on(50, SOON).await;
    replicated(&cloud, &rows).await;
    steer(&cloud, Side::West, COMPLETE).await;
    daemon.until_active("west", FAILOVER).await;
    assert!(cloud.is_serving(Side::West));
    rows.go_on(20, SOON).await;
    rows.stop();
    is_cut_at_one_moment(&cloud);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_only_we_cannot_reach_is_left_alone_while_its_replication_goes_on() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    cloud.set_reach(Side::East, Reach::Silent).await.unwrap();
    daemon.until("east is down, and its replication speaks for it", SOON, |s| blocked(s) == "witness alive").await;
    daemon.stays("east is not replaced", WATCH, |s| is_active(s, "east")).await;
    assert_eq!(state(&cloud, Side::West).await, "replicating");
    cloud.set_reach(Side::East, Reach::Normal).await.unwrap();
    daemon.until("nothing is wrong", SOON, |s| s.open && s.armed && s.blocked.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_job_that_has_failed_blocks_the_failover_in_its_own_words() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    assert!(cloud.break_job(Side::West));
    daemon.until("not armed", SOON, |s| !s.armed).await;
    cloud.crash(Side::East).await.unwrap();
    let shown = daemon.until("blocked", FAILOVER, |s| says(s, "stalled (replication error, job ")).await;
    assert!(says(&shown, "simulated failure") && is_active(&shown, "east"), "{shown:#?}");
    assert_eq!(state(&cloud, Side::West).await, "replication error", "nothing was ordered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_while_it_fails_over_is_no_success_and_an_operator_is_told() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    cloud.hold_failovers(true);
    cloud.crash(Side::East).await.unwrap();
    daemon.until("it fails over", FAILOVER, |s| says(s, "has been failing over")).await;
    assert!(cloud.break_job(Side::West));
    let shown = daemon.until("it has failed", SOON, |s| says(s, "canceled (replication error, job ")).await;
    assert!(says(&shown, "nothing goes back by itself") && !shown.open, "{shown:#?}");
    assert!(says(&shown, "proxyctl abandon west") && is_active(&shown, "east"), "{shown:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_side_that_hangs_at_stop_service_does_not_keep_a_failover_back_unless_a_fence_is_required() {
    let cloud = clusters().await;
    let fenced = DaemonPlan::self_hosted(&cloud).failover("fence", "required");
    let daemon = daemon(fenced).await;
    let rows = Rows::start(daemon.listen);
    rows.go_on(50, SOON).await;
    cloud.hang_stop_service(Side::East, true);
    let force = ["failover", "--to", "west", "--force", "--yes", "--reason", "a drill"];
    daemon.ctl(&force).await;
    until_history(&daemon, "the node fence failed: query: no answer in time").await;
    let called_off = daemon.until_active("east", SOON).await;
    assert_eq!(state(&cloud, Side::West).await, "replicating");
    rows.go_on(20, SOON).await;

    daemon.edit_service(|service| {
        service["failover"].as_table_mut().unwrap().insert("fence".into(), "optional".into());
    });
    daemon.ctl_done(&["reload"]).await;
    daemon.ctl(&force).await;
    let after = daemon.until_active("west", FAILOVER).await;
    assert_eq!(after.epoch, called_off.epoch.next());
    until_history(&daemon, "the node fence failed, which is allowed here: query: no answer in time").await;
    rows.go_on(20, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_failover_stops_the_old_side_first_where_a_fence_is_required() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud).failover("fence", "required")).await;
    let beside = session(cloud.sql_address(Side::East), "").await.unwrap();
    daemon.ctl(&["failover", "--to", "west", "--force", "--yes", "--reason", "a drill"]).await;
    daemon.until_active("west", FAILOVER).await;
    assert!(!cloud.is_serving(Side::East), "its service is stopped");
    assert!(beside.batch_execute("INSERT INTO commits (id) VALUES (1)").await.is_err(), "for others, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switchover_under_load_loses_no_acknowledged_row_and_says_so() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    let rows = Rows::start(daemon.listen);
    rows.go_on(200, SOON).await;
    daemon.ctl_done(&["switchover", "--to", "west", "--yes"]).await;
    daemon.until_active("west", FAILOVER).await;
    rows.go_on(100, SOON).await;
    let told = rows.stop();
    let there = cloud.ids(Side::West);
    let lost: Vec<_> = told.iter().filter(|id| there.binary_search(id).is_err()).collect();
    assert!(lost.is_empty(), "{lost:?} of {} are lost", told.len());
    assert!(!cloud.is_serving(Side::East));
    until_history(&daemon, "no acknowledged row was lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_home_leads_through_a_replication_back_and_the_stopped_cluster_serves_again() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    let rows = Rows::start(daemon.listen);
    rows.go_on(50, SOON).await;
    daemon.ctl_done(&["switchover", "--to", "west", "--yes"]).await;
    daemon.until_active("west", FAILOVER).await;
    rows.go_on(20, SOON).await;
    let refused = daemon.ctl(&["restore", "--yes"]).await;
    assert!(refused.code != Some(0) && refused.talk.contains("no stream leads from west back to east"), "{refused:?}");
    assert!(refused.talk.contains("START REPLICATION OF"), "the statement that makes one: {refused:?}");
    let config = daemon.state_path().with_file_name("pgpivot.toml");
    let cloud_only = daemon.ctl(&["--config", config.to_str().unwrap(), "failback", "create-stream", "--yes"]).await;
    assert!(cloud_only.code != Some(0) && cloud_only.talk.contains("self-hosted"), "{cloud_only:?}");
    let west = cloud.sql_address(Side::West);
    let back = format!("ALTER VIRTUAL CLUSTER main START REPLICATION OF main ON 'postgresql://root@{west}'");
    steer(&cloud, Side::East, &back).await;
    daemon.until("east could be promoted", SOON, |s| s.open && s.armed).await;
    daemon.ctl_done(&["restore", "--yes"]).await;
    let home = daemon.until_active("east", FAILOVER).await;
    assert_eq!(home.epoch.0, 3);
    rows.go_on(50, SOON).await;
    assert!(cloud.is_serving(Side::East) && !cloud.is_serving(Side::West));
    let (told, there) = (rows.stop(), cloud.ids(Side::East));
    let lost: Vec<_> = told.iter().filter(|id| there.binary_search(id).is_err()).collect();
    assert!(lost.is_empty(), "{lost:?} of {} are lost on the way there and back", told.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_that_is_refused_serves_the_old_side_again() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    let rows = Rows::start(daemon.listen);
    rows.go_on(50, SOON).await;
    cloud.set_privilege(Side::West, "REPLICATIONDEST", false);
    daemon.ctl(&["switchover", "--to", "west", "--yes"]).await;
    until_history(&daemon, &GRANT.replace('"', "\\\"")).await;
    daemon.until_active("east", SOON).await;
    assert!(cloud.is_serving(Side::East));
    rows.go_on(50, SOON).await;
    assert_eq!(state(&cloud, Side::West).await, "replicating");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_killed_while_the_standby_fails_over_goes_on_where_it_was() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    let before = daemon.service().await;
    cloud.hold_failovers(true);
    cloud.crash(Side::East).await.unwrap();
    eventually("the standby fails over", FAILOVER, async || match state(&cloud, Side::West).await.as_str() {
        "replication failing over" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    daemon.kill().await;
    cloud.revive(Side::East).await.unwrap();
    cloud.hold_failovers(false);
    eventually("it is ready, and serves nobody", SOON, async || match state(&cloud, Side::West).await.as_str() {
        "ready" if !cloud.is_serving(Side::West) => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    let logins = cloud.logins(Side::East);
    daemon.launch();
    let rows = Rows::start(daemon.listen);
    let after = daemon.until_active("west", FAILOVER).await;
    assert_eq!(after.epoch, before.epoch.next());
    rows.go_on(20, SOON).await;
    let told = rows.stop();
    let (old, new) = (cloud.ids(Side::East), cloud.ids(Side::West));
    assert!(told.iter().all(|id| new.binary_search(id).is_ok()));
    assert!(old.is_empty(), "the old side got rows although it lives again ({logins} logins before): {old:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_killed_while_it_stops_the_old_side_starts_its_service_again() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    let rows = Rows::start(daemon.listen);
    rows.go_on(50, SOON).await;
    cloud.hang_stop_service(Side::East, true);
    let commanded = daemon.post("/failover/switchover", "{\"to\":\"west\"}").await.unwrap();
    assert!(commanded.0 < 300, "{commanded:?}");
    until_history(&daemon, "east is being stopped, then its clock is read").await;
    daemon.kill().await;
    cloud.hang_stop_service(Side::East, false);
    steer(&cloud, Side::East, "ALTER VIRTUAL CLUSTER main STOP SERVICE").await;
    daemon.launch();
    daemon.until_active("east", FAILOVER).await;
    assert!(cloud.is_serving(Side::East));
    rows.go_on(50, SOON).await;
    assert_eq!(state(&cloud, Side::West).await, "replicating");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_privilege_to_fail_over_nothing_happens_until_it_is_granted() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    cloud.set_privilege(Side::West, "REPLICATIONDEST", false);
    cloud.crash(Side::East).await.unwrap();
    let shown = daemon.until("refused", FAILOVER, |s| says(s, GRANT)).await;
    assert!(is_active(&shown, "east"));
    assert_eq!(state(&cloud, Side::West).await, "replicating");
    cloud.set_privilege(Side::West, "REPLICATIONDEST", true);
    daemon.until_active("west", FAILOVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_cluster_that_may_not_be_served_by_us_is_told_with_the_grant_to_type() {
    let cloud = clusters().await;
    let daemon = daemon(DaemonPlan::self_hosted(&cloud)).await;
    cloud.hold_failovers(true);
    cloud.crash(Side::East).await.unwrap();
    daemon.until("it fails over", FAILOVER, |s| says(s, "has been failing over")).await;
    cloud.set_privilege(Side::West, "MODIFYCLUSTERSETTING", false);
    cloud.set_privilege(Side::West, "STARTSERVICE", false);
    cloud.hold_failovers(false);
    let shown = daemon.until("not served", SOON, |s| says(s, "waiting for west to serve") && says(s, GRANT)).await;
    assert!(!shown.open);
    cloud.set_privilege(Side::West, "STARTSERVICE", true);
    daemon.until_active("west", SOON).await;
}
