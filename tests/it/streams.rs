//! The streams between two clusters go wrong, behind the real daemon: there is one too many, or the one that is failed
//! over is canceled or vanishes on the way. Nothing is guessed then, and the stream is named.

use crate::harness::clouds::{Clouds, EAST, WEST, connect, insert, side, try_connect};
use crate::harness::status::{blocked, find, is_active, traffic};
use crate::harness::{Daemon, SOON, eventually};
use pgpivot::sim::Side;
use pgpivot::sim::cloud::Operation;
use pgpivot::view::ServiceStatus;
use std::time::Duration;

/// From the death of a cluster to traffic on the other one, in the times of this stage.
const FAILOVER: Duration = Duration::from_secs(60);
/// As long as a failover would have taken several times over.
const LONG: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_of_one_direction_are_named_and_none_is_failed_over() {
    let clouds = Clouds::start().await;
    let daemon = clouds.daemon().await;
    let second = clouds.cloud.plant_stream(side(EAST), side(WEST));
    let both = |said: &str| said.contains(&second) && said.contains(clouds.stream());
    let service = daemon.until("not armed", SOON, |s| !s.armed).await;
    let why = find(&service, WEST).unarmed_why.join(" ");
    assert!(both(&why), "{why}");
    let switchover = daemon.ctl(&["switchover", "--yes"]).await;
    assert!(switchover.code == Some(1) && both(&switchover.talk), "{switchover:?}");

    clouds.crash(EAST).await;
    let names_both = |s: &ServiceStatus| s.blocked.as_ref().is_some_and(|block| both(&block.sentence));
    daemon.until("blocked by both of them", FAILOVER, names_both).await;
    daemon.stays("nothing is promoted", LONG, |s| is_active(s, EAST) && s.episode.is_none()).await;
    for line in [&["failover", "--yes"][..], &["failover", "--force", "--yes"]] {
        let refused = daemon.ctl(line).await;
        assert!(refused.code == Some(1) && both(&refused.talk), "{line:?}: {refused:?}");
    }
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 0);
    // What it says to do helps.
    assert!(clouds.cloud.cancel(&second));
    daemon.until_active(WEST, FAILOVER).await;
    assert_eq!(clouds.cloud.stream_status(clouds.stream()), Some("COMPLETED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_canceled_during_its_failover_blocks_and_nothing_goes_back_by_itself() {
    let clouds = Clouds::start().await;
    let daemon = failing_over(&clouds).await;
    assert!(clouds.cloud.break_off(clouds.stream()));
    stands_still(&clouds, &daemon, "canceled").await;
    // The next daemon finds the same.
    daemon.kill().await;
    daemon.launch();
    stands_still(&clouds, &daemon, "canceled").await;
    given_up(&clouds, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_vanishes_during_its_failover_blocks_and_nothing_goes_back_by_itself() {
    let clouds = Clouds::start().await;
    let daemon = failing_over(&clouds).await;
    assert!(clouds.cloud.forget_stream(clouds.stream()));
    stands_still(&clouds, &daemon, "gone").await;
    given_up(&clouds, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_down_while_the_stream_vanished_lets_nobody_in_either() {
    let clouds = Clouds::start().await;
    let daemon = failing_over(&clouds).await;
    daemon.kill().await;
    assert!(clouds.cloud.forget_stream(clouds.stream()));
    daemon.launch();
    stands_still(&clouds, &daemon, "is gone").await;
    given_up(&clouds, &daemon).await;
}

/// East is dead, and the failover of its stream does not get to its end.
async fn failing_over(clouds: &Clouds) -> Daemon {
    let daemon = clouds.plan().failover("promote_timeout", "5s").start().await;
    assert!(insert(&connect(&daemon).await, 1).await);
    clouds.cloud.hold_failovers(true);
    clouds.crash(EAST).await;
    eventually("the stream fails over", FAILOVER, async || match clouds.cloud.stream_status(clouds.stream()) {
        Some("FAILING_OVER") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    daemon.until("promoting", SOON, |s| s.phase == "promoting" && s.evidence.contains("has been failing over")).await;
    daemon
}

/// Blocked with a word that names the stream, although the old side answers; nobody is let in anywhere.
async fn stands_still(clouds: &Clouds, daemon: &Daemon, word: &str) {
    let service = daemon
        .until("blocked", FAILOVER, |s| {
            blocked(s) == "promotion pending" && s.blocked.as_ref().is_some_and(|b| b.sentence.contains(word))
        })
        .await;
    let sentence = service.blocked.unwrap().sentence;
    assert!(sentence.contains(clouds.stream()), "{sentence}");
    let (_, history) = daemon.fetch("/failover/history").await.unwrap();
    assert!(history.contains("promotion pending: ") && history.contains(clouds.stream()), "{history}");

    clouds.cloud.revive(Side::East).await.unwrap();
    daemon.until("east answers again", SOON, |s| find(s, EAST).health == "up").await;
    let before = (traffic(&daemon.backend(EAST).await), traffic(&daemon.backend(WEST).await));
    let held = tokio::time::timeout(Duration::from_secs(1), try_connect(daemon)).await;
    assert!(!matches!(held, Ok(Ok(_))), "somebody was let in");
    daemon.stays("nobody is let in", LONG, |s| !s.open && s.episode.is_some()).await;
    assert_eq!((traffic(&daemon.backend(EAST).await), traffic(&daemon.backend(WEST).await)), before);
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 1);
    assert_eq!(clouds.cloud.ids(Side::East), [1]);
}

/// The way out that the sentence names.
async fn given_up(clouds: &Clouds, daemon: &Daemon) {
    daemon.ctl_done(&["abandon", WEST, "--reason", "it was never promoted", "--yes"]).await;
    let service = daemon.until_active(EAST, SOON).await;
    assert_eq!(service.epoch.0, 1);
    assert!(insert(&connect(daemon).await, 2).await);
    assert_eq!(clouds.cloud.ids(Side::East), [1, 2]);
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 1);
}
