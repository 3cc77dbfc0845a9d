//! CockroachDB clusters joined by physical replication, behind the real daemon: the simulated Cloud plays the API and
//! the clusters. What a user sees when the primary cluster dies, when only the API does, and on the way home.

use crate::harness::clouds::{Clouds, EAST, WEST, connect, ids, insert, until_cut};
use crate::harness::status::{blocked, find, is_active, traffic};
use crate::harness::{SOON, eventually};
use pgpivot::sim::Side;
use pgpivot::sim::cloud::{ApiFault, Operation, Reach, Times};
use pgpivot::view::ServiceStatus;
use std::time::Duration;

/// From the death of a cluster to traffic on the other one, in the times of this stage.
const FAILOVER: Duration = Duration::from_secs(60);
/// As long as a failover would have taken several times over.
const LONG: Duration = Duration::from_secs(12);

fn quiet_on(name: &'static str) -> impl Fn(&ServiceStatus) -> bool {
    move |s| s.open && is_active(s, name) && s.episode.is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_cluster_dies_and_traffic_moves_once_the_stream_has_completed_and_the_other_serves() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let client = connect(&daemon).await;
    assert!(insert(&client, 1).await);
    clouds.crash(EAST).await;
    until_cut(&client).await;

    // Who comes now waits, and is let through to the new side.
    daemon.until("an episode runs", FAILOVER, |s| s.episode.is_some()).await;
    let (late, service) = tokio::join!(connect(&daemon), daemon.until_active(WEST, FAILOVER));
    assert!(insert(&late, 2).await);
    assert_eq!(clouds.cloud.last_body(Operation::PatchStream).unwrap(), r#"{"status":"FAILING_OVER"}"#);
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 1);
    assert_eq!(clouds.cloud.stream_status(clouds.stream()), Some("COMPLETED"));
    assert_eq!(service.epoch.0, 2);
    let (_, history) = daemon.fetch("/failover/history").await.unwrap();
    for said in ["east failed", "says silent", "replicates", "what east acknowledged after"] {
        assert!(history.contains(said), "the history does not say {said:?}: {history}");
    }
    assert!(
        !history.contains(clouds.cloud.secret().expose()) && !daemon.log().contains(clouds.cloud.secret().expose())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_primary_that_comes_back_gets_not_one_byte_also_after_a_restart() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.crash(EAST).await;
    daemon.until_active(WEST, FAILOVER).await;
    clouds.cloud.revive(Side::East).await.unwrap();
    daemon.until("east serves by itself", SOON, |s| find(s, EAST).role == "primary").await;
    let before = traffic(&daemon.backend(EAST).await);
    for id in 10..20 {
        assert!(insert(&connect(&daemon).await, id).await);
    }
    daemon.stays("west is active", Duration::from_secs(3), quiet_on(WEST)).await;
    assert_eq!(traffic(&daemon.backend(EAST).await), before);
    daemon.kill().await;
    daemon.launch();
    daemon.until_active(WEST, SOON).await;
    assert!(insert(&connect(&daemon).await, 20).await);
    assert!(clouds.cloud.ids(Side::East).iter().all(|id| *id < 10), "{:?}", clouds.cloud.ids(Side::East));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_fails_in_whatever_way_moves_nothing_while_the_clusters_serve() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    daemon.until("steady", SOON, |s| s.phase == "steady").await;
    let faults = [
        ApiFault::Status(401),
        ApiFault::Status(403),
        ApiFault::Status(404),
        ApiFault::Status(409),
        ApiFault::Status(500),
        ApiFault::Html(502),
        ApiFault::Truncated,
        ApiFault::Redirect("https://elsewhere.example/".into()),
        ApiFault::RateLimited { retry_after: 1 },
        ApiFault::LostBefore,
        ApiFault::Hang,
    ];
    for fault in faults {
        clouds.cloud.fault(None, fault.clone(), Times::UntilCleared);
        let what = format!("{fault:?} is shown");
        let service = daemon
            .until(&what, SOON, |s| s.replication.as_ref().is_some_and(|r| r.trouble.is_some()) && !s.armed)
            .await;
        assert!(quiet_on(EAST)(&service) && service.phase == "steady", "{fault:?}: {service:#?}");
        clouds.cloud.clear_faults();
        daemon.until("armed again", SOON, |s| s.armed).await;
    }
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_cannot_be_reached_from_here_but_still_replicates_is_not_replaced() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.cloud.set_reach(Side::East, Reach::Silent).await.unwrap();
    let service = daemon.until("blocked", FAILOVER, |s| blocked(s) == "witness alive").await;
    assert!(service.blocked.unwrap().sentence.contains("still receives from it"));
    daemon.stays("nothing is promoted", LONG, |s| is_active(s, EAST) && s.episode.is_none()).await;
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 0);
    clouds.cloud.set_reach(Side::East, Reach::Normal).await.unwrap();
    daemon.until("calm again", SOON, |s| quiet_on(EAST)(s) && s.blocked.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_clusters_and_the_api_are_out_of_reach_this_daemon_is_cut_off_and_does_nothing() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    for side in [Side::East, Side::West] {
        clouds.cloud.set_reach(side, Reach::Silent).await.unwrap();
    }
    clouds.cloud.fault(None, ApiFault::LostBefore, Times::UntilCleared);
    daemon.until("blocked", FAILOVER, |s| s.blocked.is_some()).await;
    daemon.stays("nothing is promoted", LONG, |s| is_active(s, EAST) && s.episode.is_none()).await;
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_primary_without_the_api_waits_for_the_api() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.cloud.fault(None, ApiFault::Status(503), Times::UntilCleared);
    daemon.until("the API is not heard", SOON, |s| !s.armed).await;
    clouds.crash(EAST).await;
    let service = daemon.until("blocked", FAILOVER, |s| blocked(s) == "witness unknown").await;
    assert!(service.blocked.unwrap().sentence.contains("503"), "the reason names the API's answer");
    clouds.cloud.clear_faults();
    daemon.until_active(WEST, FAILOVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_reply_is_lost_is_recognised_and_given_once() {
    for fault in [ApiFault::LostAfter, ApiFault::Truncated] {
        let clouds = Clouds::start().await;
        let daemon = clouds.daemon().await;
        clouds.cloud.fault(Operation::PatchStream, fault, Times::Next(1));
        clouds.crash(EAST).await;
        daemon.until_active(WEST, FAILOVER).await;
        assert_eq!(clouds.cloud.requests(Operation::PatchStream), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_never_took_effect_is_given_again_after_readings_that_show_it() {
    for fault in [ApiFault::LostBefore, ApiFault::Status(500), ApiFault::RateLimited { retry_after: 1 }] {
        let clouds = Clouds::start().await;
        let daemon = clouds.daemon().await;
        clouds.cloud.fault(Operation::PatchStream, fault, Times::Next(1));
        clouds.crash(EAST).await;
        daemon.until_active(WEST, FAILOVER).await;
        assert_eq!(clouds.cloud.requests(Operation::PatchStream), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_is_called_off_and_says_what_the_api_said() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.cloud.fault(Operation::PatchStream, ApiFault::Status(403), Times::Next(1));
    clouds.crash(EAST).await;
    eventually("the refusal is in the history", FAILOVER, async || {
        let (_, history) = daemon.fetch("/failover/history").await.unwrap();
        if history.contains("the failover was refused") && history.contains("403") { Ok(()) } else { Err(history) }
    })
    .await;
    // The evidence stands: it is tried again after the cool-down.
    clouds.cloud.revive(Side::East).await.unwrap();
    daemon.until("east again", FAILOVER, quiet_on(EAST)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_ordered_by_others_is_adopted_at_once() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let client = connect(&daemon).await;
    assert!(clouds.cloud.fail_over(clouds.stream()));
    until_cut(&client).await;
    let service = daemon.until_active(WEST, FAILOVER).await;
    assert_eq!(service.budget_left, service.budget, "it costs no budget");
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_make_one_failover_and_end_on_one_side() {
    let clouds = Clouds::start().await;
    let (one, two) = (clouds.daemon().await, clouds.daemon().await);
    clouds.crash(EAST).await;
    one.until_active(WEST, FAILOVER).await;
    two.until_active(WEST, FAILOVER).await;
    assert_eq!(clouds.cloud.stream_status(clouds.stream()), Some("COMPLETED"));
    // Both may have ordered it before either saw the other's: the API takes one, and neither insists.
    assert_eq!(clouds.cloud.taken(Operation::PatchStream), 1);
    assert!(clouds.cloud.requests(Operation::PatchStream) <= 2);
    assert!(insert(&connect(&one).await, 1).await && insert(&connect(&two).await, 2).await);
    assert!([1, 2].iter().all(|id| clouds.cloud.ids(Side::West).contains(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_a_full_cluster_or_a_refused_login_is_no_reason_to_fail_over() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    for reach in [Reach::Full, Reach::Slow(Duration::from_millis(700))] {
        clouds.cloud.set_reach(Side::East, reach).await.unwrap();
        daemon
            .stays(&format!("{reach:?}"), Duration::from_secs(6), |s| is_active(s, EAST) && s.episode.is_none())
            .await;
    }
    // Whoever refuses a login lives: not even suspect.
    let by_sql = clouds.plan().probe("kind", "sql").probe("user", "pgpivot").launch();
    for (reach, said) in [(Reach::WrongPassword, "28P01"), (Reach::NotPermitted, "28000")] {
        for daemon in [&daemon, &by_sql] {
            clouds.cloud.set_reach(Side::East, Reach::Normal).await.unwrap();
            daemon
                .until("east serves", SOON, |s| {
                    quiet_on(EAST)(s) && s.phase == "steady" && find(s, EAST).health == "up"
                })
                .await;
            clouds.cloud.set_reach(Side::East, reach).await.unwrap();
            eventually(&format!("a probe meets {reach:?}"), SOON, async || match daemon.log().contains(said) {
                true => Ok(()),
                false => Err(daemon.log_tail()),
            })
            .await;
            daemon.stays(said, Duration::from_secs(4), |s| quiet_on(EAST)(s) && s.phase == "steady").await;
        }
    }
    // A cluster that sends everybody away is failing; its stream says that it lives.
    clouds.cloud.set_reach(Side::East, Reach::Draining).await.unwrap();
    daemon.stays("draining", LONG, |s| is_active(s, EAST) && s.episode.is_none()).await;
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_goes_to_the_active_cluster_and_nowhere_else() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let client = connect(&daemon).await;
    client.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
    eventually("east heard it", SOON, async || match clouds.cloud.cancels(Side::East).matched {
        1 => Ok(()),
        n => Err(format!("{n}")),
    })
    .await;
    assert_eq!(clouds.cloud.cancels(Side::West).seen, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switchover_loses_no_row_and_says_what_it_cannot_know() {
    let clouds = Clouds::start().await;
    let daemon = clouds.plan().probe("kind", "sql").probe("user", "pgpivot").start().await;
    let client = connect(&daemon).await;
    let mut acknowledged = Vec::new();
    for id in 1..=50 {
        if insert(&client, id).await {
            acknowledged.push(id);
        }
    }
    let spoken = daemon.ctl_done(&["switchover", "--yes"]).await;
    assert!(spoken.out.contains(WEST), "{spoken:?}");
    daemon.until_active(WEST, FAILOVER).await;
    let after = ids(&connect(&daemon).await).await;
    assert!(acknowledged.iter().all(|id| after.contains(id)), "acknowledged {acknowledged:?}, there {after:?}");
    let body = clouds.cloud.last_body(Operation::PatchStream).unwrap();
    assert!(body.contains("failover_at"), "{body}");
    let (_, history) = daemon.fetch("/failover/history").await.unwrap();
    assert!(history.contains("nothing stops other clients of the old side"), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_is_refused_without_a_reverse_stream_and_brings_traffic_home_with_one() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.crash(EAST).await;
    daemon.until_active(WEST, FAILOVER).await;
    clouds.cloud.revive(Side::East).await.unwrap();
    daemon.until("east is up", SOON, |s| find(s, EAST).health == "up").await;
    let refused = daemon.ctl(&["restore", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.talk.contains("ERASES"), "{refused:?}");

    assert!(insert(&connect(&daemon).await, 7).await);
    clouds.cloud.create_stream(Side::West, Side::East).unwrap();
    daemon
        .until("the reverse stream replicates", SOON, |s| {
            let streams = &s.replication.as_ref().unwrap().streams;
            s.armed && streams.iter().any(|t| t.from.as_str() == WEST && t.replicated_at.is_some())
        })
        .await;
    daemon.ctl_done(&["restore", "--yes"]).await;
    let service = daemon.until_active(EAST, FAILOVER).await;
    assert_eq!(service.epoch.0, 3);
    assert_eq!(ids(&connect(&daemon).await).await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_by_force_says_what_is_lost_and_keeps_it_in_the_history() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.crash(EAST).await;
    daemon.until_active(WEST, FAILOVER).await;
    clouds.cloud.revive(Side::East).await.unwrap();
    daemon.until("east is up", SOON, |s| find(s, EAST).health == "up").await;
    let spoken = daemon.ctl_done(&["--reason", "drill", "restore", "--force", "--yes"]).await;
    assert!(format!("{}{}", spoken.out, spoken.talk).contains("is missing on east"), "{spoken:?}");
    daemon.until_active(EAST, FAILOVER).await;
    let (_, history) = daemon.fetch("/failover/history").await.unwrap();
    assert!(history.contains("--force (drill)"), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_outside_the_window_is_refused_before_anything_is_sent() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.crash(EAST).await;
    daemon.until("suspect", SOON, |s| s.phase != "steady").await;
    let refused = daemon.ctl(&["failover", "--force", "--yes", "--at", "2020-01-01T00:00:00Z"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.talk.contains("no longer retained"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_client_may_say_to_cockroachdb_stops_at_the_listener() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let mut client = tokio::net::TcpStream::connect(daemon.listen).await.unwrap();
    // A request for GSSAPI is declined here: the cluster would answer it with an error.
    client.write_all(&[0, 0, 0, 8, 4, 210, 22, 48]).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'N');
    let body = b"\0\x03\0\0user\0app\0crdb:Session_Revival_Token_Base64\0eA==\0\0";
    client.write_u32(u32::try_from(body.len() + 4).unwrap()).await.unwrap();
    client.write_all(body).await.unwrap();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).await.unwrap();
    let text = String::from_utf8_lossy(&reply);
    assert!(text.starts_with('E') && text.contains("08004") && text.contains("not for clients"), "{text}");
    assert_eq!(traffic(&daemon.backend(EAST).await).0, 0, "it never arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_vendor_does_to_a_cluster_is_shown_and_is_no_failure() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    clouds.cloud.report(Side::East, Some("LOCKED"), Some("CRDB_PATCH_RUNNING"));
    let service = daemon.until("the record is shown", SOON, |s| find(s, EAST).note.is_some()).await;
    assert_eq!(find(&service, EAST).note.as_deref(), Some("LOCKED, CRDB_PATCH_RUNNING"));
    daemon.stays("nothing moves", Duration::from_secs(4), quiet_on(EAST)).await;
    clouds.cloud.report(Side::East, Some("CREATED"), Some("UNSPECIFIED"));
    daemon.until("it is over", SOON, |s| find(s, EAST).note.is_none()).await;
    let (_, history) = daemon.fetch("/failover/history").await.unwrap();
    assert!(history.contains("CRDB_PATCH_RUNNING; that is no failure"), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_configured_by_its_id_alone_is_found_through_the_api() {
    let clouds = Clouds::start().await;
    let daemon = clouds.plan().without_addresses().launch();
    // The simulated clusters' names lead to no SQL port of theirs: what counts is that the name is used.
    daemon
        .until("the names are those of the API", SOON, |s| {
            s.backends.iter().all(|b| b.endpoints.iter().any(|e| e.address.as_ref().is_some_and(|a| a.port == 26257)))
        })
        .await;
}
