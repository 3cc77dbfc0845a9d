//! The daemon before CockroachDB clusters is killed with -9 at every step that it persists, over the simulated Cloud API
//! and over SQL: when it is started again there is one active side, one failover at most was ordered, and the history
//! is whole. Where nothing was ordered yet, the next death of the primary cluster moves traffic as ever.

use crate::harness::clouds::{Clouds, EAST, WEST, ids, insert, side, try_connect};
use crate::harness::plan::DaemonPlan;
use crate::harness::self_hosted::clusters;
use crate::harness::status::{blocked, is_active};
use crate::harness::{Daemon, SOON, eventually};
use pgpivot::sim::Side;
use pgpivot::sim::cloud::{ApiFault, Operation, Times};
use pgpivot::store::crash::{CRASH_POINTS, Step, When};
use pgpivot::view::ServiceStatus;
use std::time::Duration;

/// From the death of a cluster, or a command, to traffic on the other one, in the times of this stage.
const FAILOVER: Duration = Duration::from_secs(60);
/// As long as something is watched that must not change.
const WATCH: Duration = Duration::from_secs(2);

macro_rules! killed_at {
    ($($name:ident: $step:ident,)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn over_the_cloud_api_one_side_serves_and_one_order_is_given_at_most() {
                at_every_moment_of(Step::$step, Sort::Cloud).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn over_sql_one_side_serves_and_one_order_is_given_at_most() {
                at_every_moment_of(Step::$step, Sort::SelfHosted).await;
            }
        }
    )*};
}

killed_at! {
    at_its_first_latch: Latch,
    at_the_intent: Intent,
    before_it_stops_the_old_side_or_reads_its_clock: Freezing,
    before_it_orders_the_failover: Sent,
    while_it_calls_an_episode_off: Cancelled,
    while_it_latches_the_new_side: Latched,
    while_it_serves_the_old_side_again: Unfrozen,
    while_it_writes_a_pause_down: Note,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Cloud,
    SelfHosted,
}

/// What makes the daemon reach a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    Start,
    /// It stays dead.
    PrimaryDies,
    /// And is back before the daemon is: the worst that can be.
    PrimaryDiesAndIsBack,
    OrderedByOthers,
    Switchover,
    /// The source of the stream takes the order of no failover.
    FailoverRefused,
    SwitchoverRefused,
    Pause,
}

/// How it stands after the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    East,
    West,
    /// The order is on disk and what became of it is not: the gate stays closed until people decide.
    Pending,
}

/// Where a step is played. A step without an arm does not compile.
fn scenes(step: Step, sort: Sort) -> &'static [Scene] {
    match (step, sort) {
        (Step::Latch, _) => &[Scene::Start],
        (Step::Intent, _) => &[Scene::PrimaryDies, Scene::PrimaryDiesAndIsBack, Scene::Switchover],
        (Step::Freezing, _) => &[Scene::Switchover],
        (Step::Sent | Step::Latched, _) => {
            &[Scene::PrimaryDies, Scene::PrimaryDiesAndIsBack, Scene::OrderedByOthers, Scene::Switchover]
        }
        (Step::Cancelled, _) => &[Scene::FailoverRefused, Scene::SwitchoverRefused],
        // Nothing stops a cluster of the Cloud, so nothing is to be undone there.
        (Step::Unfrozen, Sort::Cloud) => &[],
        (Step::Unfrozen, Sort::SelfHosted) => &[Scene::SwitchoverRefused],
        (Step::Note, _) => &[Scene::Pause],
    }
}

/// There is no way back from `sent` on disk, and none forward from what came before it while the old side lives.
fn end(scene: Scene, step: Step, when: When) -> End {
    let written = when != When::Before;
    let sent = step == Step::Latched || step == Step::Sent && written;
    match scene {
        Scene::Start | Scene::Pause => End::East,
        Scene::PrimaryDies if step == Step::Intent && !written => End::East,
        Scene::PrimaryDies | Scene::OrderedByOthers => End::West,
        Scene::PrimaryDiesAndIsBack if step == Step::Sent && sent => End::Pending,
        Scene::PrimaryDiesAndIsBack | Scene::Switchover => {
            if sent {
                End::West
            } else {
                End::East
            }
        }
        Scene::FailoverRefused if written => End::East,
        Scene::FailoverRefused => End::Pending,
        // A planned one is ordered again: nobody was let in since.
        Scene::SwitchoverRefused if step == Step::Cancelled && !written => End::West,
        Scene::SwitchoverRefused => End::East,
    }
}

async fn at_every_moment_of(step: Step, sort: Sort) {
    if !cfg!(feature = "crash-points") {
        panic!("needs --features crash-points: run scripts/test");
    }
    let moments: Vec<When> = CRASH_POINTS.iter().filter(|(s, _)| *s == step).map(|(_, when)| *when).collect();
    assert_eq!(moments, [When::Before, When::Between, When::After]);
    for scene in scenes(step, sort) {
        let [before, between, after] = [0, 1, 2].map(|i| one_side_after_a_crash(*scene, step, moments[i], sort));
        tokio::join!(before, between, after);
    }
}

fn plan(clouds: &Clouds, sort: Sort) -> DaemonPlan {
    match sort {
        Sort::Cloud => clouds.plan().probe("kind", "sql").probe("user", "pgpivot"),
        Sort::SelfHosted => DaemonPlan::self_hosted(&clouds.cloud),
    }
}

async fn one_side_after_a_crash(scene: Scene, step: Step, when: When, sort: Sort) {
    let case = format!("{sort:?}, {scene:?}, killed at {step}:{when}");
    println!("--- {case}");
    let clouds = match sort {
        Sort::Cloud => Clouds::start().await,
        Sort::SelfHosted => Clouds { cloud: clusters().await },
    };
    let daemon = plan(&clouds, sort).environment("PGPIVOT_CRASH_AT", &format!("{step}:{when}")).launch();
    if scene != Scene::Start {
        daemon.until(&format!("{case}: open and armed"), SOON, |s| s.open && s.armed).await;
        commit(&daemon, 1).await;
        replicated(&clouds, 1).await;
    }
    refuse(&clouds, sort, matches!(scene, Scene::FailoverRefused | Scene::SwitchoverRefused));
    play(scene, &clouds, &daemon).await;
    println!("... {case}: played");
    daemon.ended(FAILOVER).await;
    if matches!(scene, Scene::PrimaryDiesAndIsBack | Scene::FailoverRefused) {
        clouds.cloud.revive(Side::East).await.unwrap();
    }
    refuse(&clouds, sort, false);
    daemon.clear_environment();
    daemon.launch();

    let expected = end(scene, step, when);
    if scene == Scene::PrimaryDies && expected == End::East {
        daemon.until(&format!("{case}: the start waits for east"), SOON, |s| blocked(s) == "latch unproven").await;
        clouds.cloud.revive(Side::East).await.unwrap();
    }
    if expected == End::Pending {
        people_decide(scene, &daemon, &clouds, &case).await;
    }
    let served = if expected == End::West || scene == Scene::PrimaryDiesAndIsBack && expected == End::Pending {
        WEST
    } else {
        EAST
    };
    let shown = daemon.until_active(served, FAILOVER).await;
    daemon.stays(&format!("{case}: {served} is active"), WATCH, |s| s.open && is_active(s, served)).await;
    assert_eq!(shown.epoch.0, if served == WEST { 2 } else { 1 }, "{case}");
    commit(&daemon, 2).await;

    if served == EAST {
        the_next_death_moves_traffic(scene, &daemon, &clouds, &case).await;
    }
    let orders = u64::from(sort == Sort::Cloud && scene != Scene::OrderedByOthers);
    assert_eq!(clouds.cloud.taken(Operation::PatchStream), orders, "{case}: orders that took effect");
    assert_eq!(clouds.cloud.stream_status(clouds.stream()), Some("COMPLETED"), "{case}");
    commit(&daemon, 3).await;
    let there = clouds.cloud.ids(Side::West);
    assert!([1, 3].iter().all(|id| there.contains(id)), "{case}: {there:?}");
    assert!(!clouds.cloud.ids(Side::East).contains(&3), "{case}: the old side got a row");
    let said = daemon.ctl_done(&["history", "--verify"]).await;
    assert!(said.out.contains("each of them is what was written"), "{case}: {said:?}");
}

/// Plays the scene; the daemon may die before it answers a command.
async fn play(scene: Scene, clouds: &Clouds, daemon: &Daemon) {
    match scene {
        Scene::Start => {}
        Scene::PrimaryDies | Scene::PrimaryDiesAndIsBack | Scene::FailoverRefused => clouds.crash(EAST).await,
        Scene::OrderedByOthers => assert!(clouds.cloud.fail_over(clouds.stream())),
        // One that is busy may call it off before the step.
        Scene::Switchover => command(daemon, "/failover/switchover", true).await,
        Scene::SwitchoverRefused => command(daemon, "/failover/switchover", false).await,
        Scene::Pause => command(daemon, "/failover/pause", false).await,
    }
}

/// Gives a command until it is taken, or until the daemon has died of it.
async fn command(daemon: &Daemon, path: &str, until_dead: bool) {
    eventually(&format!("{path} is taken"), FAILOVER, async || match daemon.post(path, "{}").await {
        Ok((200, _)) if !until_dead => Ok(()),
        Ok((code, body)) => Err(format!("{code}: {body}")),
        Err(error) if daemon.runs() => Err(error),
        Err(_) => Ok(()),
    })
    .await;
}

/// Whether whoever is asked for a failover of the stream refuses it.
fn refuse(clouds: &Clouds, sort: Sort, refused: bool) {
    match (sort, refused) {
        (Sort::Cloud, true) => {
            clouds.cloud.fault(Operation::PatchStream, ApiFault::Status(403), Times::UntilCleared);
        }
        (Sort::Cloud, false) => clouds.cloud.clear_faults(),
        (Sort::SelfHosted, refused) => clouds.cloud.set_privilege(Side::West, "REPLICATIONDEST", !refused),
    }
}

/// Nobody is let in anywhere until an operator says how it goes on.
async fn people_decide(scene: Scene, daemon: &Daemon, clouds: &Clouds, case: &str) {
    let pending = |s: &ServiceStatus| blocked(s) == "promotion pending";
    let shown = daemon.until(&format!("{case}: people decide"), FAILOVER, pending).await;
    let sentence = shown.blocked.unwrap().sentence;
    assert!(sentence.contains("proxyctl abandon west"), "{case}: {sentence}");
    daemon.stays(&format!("{case}: nobody is let in"), WATCH, |s| !s.open).await;
    assert_eq!(clouds.cloud.taken(Operation::PatchStream), 0, "{case}");
    if scene == Scene::FailoverRefused {
        daemon.ctl_done(&["abandon", WEST, "--reason", "it was refused", "--yes"]).await;
    } else {
        // It is dead after all: that is looked at, and the order repeated.
        clouds.crash(EAST).await;
    }
}

/// What was called off, or never begun, is no obstacle to the next failover.
async fn the_next_death_moves_traffic(scene: Scene, daemon: &Daemon, clouds: &Clouds, case: &str) {
    if scene == Scene::Pause && daemon.service().await.paused.is_some() {
        daemon.ctl_done(&["resume"]).await;
    }
    daemon.until(&format!("{case}: armed again"), SOON, |s| s.armed && s.episode.is_none()).await;
    commit(daemon, 1).await;
    replicated(clouds, 1).await;
    clouds.crash(EAST).await;
    daemon.until_active(WEST, FAILOVER).await;
}

/// Commits this row through the daemon.
async fn commit(daemon: &Daemon, id: i64) {
    eventually(&format!("row {id} is committed"), SOON, async || {
        let client = try_connect(daemon).await?;
        // Of a try that was cut off nothing is known.
        if insert(&client, id).await || ids(&client).await.contains(&id) { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
}

/// Waits until the other cluster has a row.
async fn replicated(clouds: &Clouds, id: i64) {
    eventually(&format!("row {id} is replicated"), SOON, async || match clouds.cloud.ids(side(WEST)) {
        there if there.contains(&id) => Ok(()),
        there => Err(format!("{there:?}")),
    })
    .await;
}
