//! The configuration is read again while the daemon runs: what may not change is refused with its reason, and what runs
//! stays.

use crate::harness::clouds::{Clouds, EAST, WEST, connect, insert};
use crate::harness::status::{blocked, find, is_active};
use crate::harness::{Daemon, SOON, eventually};
use pgpivot::sim::cloud::Operation;
use pgpivot::view::ServiceStatus;
use rustix::process::Signal;
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(60);
/// Another cluster, which is none of this stage's.
const OTHER: &str = "00000000-0000-0000-0000-00000000beef";

/// Writes another cluster id at this backend.
fn name_cluster(daemon: &Daemon, backend: &str, id: &str) {
    daemon.edit_service(|service| {
        let mut backends = service["backend"].as_array_mut().unwrap().iter_mut();
        let found = backends.find(|one| one["name"].as_str() == Some(backend)).unwrap();
        found.as_table_mut().unwrap().insert("cluster_id".into(), id.into());
    });
}

async fn until_log(daemon: &Daemon, text: &str) {
    eventually(&format!("the log tells {text:?}"), SOON, async || match daemon.log().contains(text) {
        true => Ok(()),
        false => Err(daemon.log_tail()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_active_backend_does_not_become_another_cluster_by_a_reload_and_what_runs_stays() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let client = connect(&daemon).await;
    assert!(insert(&client, 1).await);
    let own = find(&daemon.service().await, EAST).cluster_id.clone().unwrap();
    name_cluster(&daemon, EAST, OTHER);

    daemon.signal(Signal::HUP);
    let why = format!("east is active for main as cluster {own} and cannot become cluster {OTHER}; switch over first");
    until_log(&daemon, &why).await;
    assert_eq!(daemon.log().matches("what runs stays").count(), 1, "{}", daemon.log_tail());
    let refused = daemon.ctl(&["reload"]).await;
    assert!(refused.code == Some(1) && refused.talk.contains(&why), "{refused:?}");
    assert!(insert(&client, 2).await, "the session goes on");
    let shown = daemon.until("as before", SOON, |s| s.open && s.armed && is_active(s, EAST)).await;
    assert_eq!(find(&shown, EAST).cluster_id.as_deref(), Some(own.as_str()));

    // Of the rest of that file nothing was taken over either, and a failover is what it was.
    clouds.crash(EAST).await;
    daemon.until_active(WEST, FAILOVER).await;
    assert_eq!(clouds.cloud.taken(Operation::PatchStream), 1);
    // Now it may: nothing is sent there.
    daemon.ctl_done(&["reload"]).await;
    daemon.until("east is another cluster", SOON, |s| find(s, EAST).cluster_id.as_deref() == Some(OTHER)).await;
    assert!(insert(&connect(&daemon).await, 3).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn started_with_another_cluster_under_the_active_name_nobody_is_let_in_until_that_is_said_to_be_right() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let own = find(&daemon.service().await, EAST).cluster_id.clone().unwrap();
    daemon.kill().await;
    name_cluster(&daemon, EAST, OTHER);
    daemon.launch();
    let shown = daemon.until("it says so", SOON, |s| blocked(s) == "latch unproven").await;
    let sentence = shown.blocked.unwrap().sentence;
    assert!(!shown.open && sentence.contains(&own) && sentence.contains(OTHER), "{sentence}");
    assert!(sentence.contains("proxyctl adopt east"), "{sentence}");
    // Corrected without a restart.
    name_cluster(&daemon, EAST, &own);
    daemon.ctl_done(&["reload"]).await;
    daemon.until("open and armed", SOON, |s| s.open && s.armed && is_active(s, EAST)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_becomes_another_cluster_is_no_candidate_until_a_stream_leads_to_that_one() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let client = connect(&daemon).await;
    let own = find(&daemon.service().await, WEST).cluster_id.clone().unwrap();
    name_cluster(&daemon, WEST, OTHER);
    daemon.ctl_done(&["reload"]).await;
    let none = "no replication stream leads from east to west";
    let unarmed = |s: &ServiceStatus| !s.armed && find(s, WEST).unarmed_why.iter().any(|why| why.contains(none));
    daemon.until("not armed, and why", SOON, unarmed).await;
    assert!(insert(&client, 1).await, "the session goes on");

    // The stream to the cluster that was meant before is nobody's to fail over.
    clouds.crash(EAST).await;
    daemon.until("blocked", FAILOVER, |s| !blocked(s).is_empty()).await;
    daemon.stays("nothing is ordered", Duration::from_secs(8), |s| is_active(s, EAST) && s.episode.is_none()).await;
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 0);

    clouds.cloud.revive(pgpivot::sim::Side::East).await.unwrap();
    name_cluster(&daemon, WEST, &own);
    daemon.ctl_done(&["reload"]).await;
    daemon.until("armed again", SOON, |s| s.open && s.armed && s.phase == "steady").await;
    clouds.crash(EAST).await;
    daemon.until_active(WEST, FAILOVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_side_that_a_failover_leads_to_does_not_become_another_cluster_meanwhile() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.cloud.hold_failovers(true);
    clouds.crash(EAST).await;
    daemon.until("it fails over", FAILOVER, |s| s.evidence.contains("has been failing over")).await;
    name_cluster(&daemon, WEST, OTHER);
    let refused = daemon.ctl(&["reload"]).await;
    assert!(refused.code == Some(1) && refused.talk.contains("traffic of main moves to west"), "{refused:?}");
    clouds.cloud.hold_failovers(false);
    daemon.until_active(WEST, FAILOVER).await;
}
