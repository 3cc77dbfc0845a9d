//! The proxy is killed with -9 at every step that it persists, before the write, between write and sync, and after: when
//! it is started again there is exactly one active side, and it stays the same one.

use crate::harness::status::is_active;
use crate::harness::{Checker, Daemon, Pair, SOON, Writers, eventually};
use pgpivot::store::crash::{CRASH_POINTS, Step, When};
use std::time::Duration;

/// For the daemon to reach the step at which it dies, and to come back.
const STEP: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_its_first_latch_the_proxy_latches_the_primary_when_it_is_started_again() {
    at_every_moment_of(Step::Latch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_the_intent_of_a_failover_the_proxy_ends_on_one_side() {
    at_every_moment_of(Step::Intent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_it_orders_the_promotion_the_proxy_ends_on_one_side() {
    at_every_moment_of(Step::Sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_latches_the_new_side_the_proxy_ends_on_the_new_side() {
    at_every_moment_of(Step::Latched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_freezes_the_old_primary_the_proxy_undoes_or_completes_the_switchover() {
    at_every_moment_of(Step::Freezing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_calls_a_switchover_off_the_proxy_serves_the_old_side_again() {
    at_every_moment_of(Step::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_undoes_a_freeze_the_proxy_serves_the_old_side_again() {
    at_every_moment_of(Step::Unfrozen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_writes_a_pause_down_the_proxy_serves_the_same_side() {
    at_every_moment_of(Step::Note).await;
}

/// What makes the daemon reach a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    Start,
    PrimaryKilled,
    Switchover,
    SwitchoverCalledOff,
    Pause,
}

/// Where a step is played. A step without an arm does not compile.
fn scene_of(step: Step) -> Scene {
    match step {
        Step::Latch => Scene::Start,
        Step::Intent | Step::Sent | Step::Latched => Scene::PrimaryKilled,
        Step::Freezing => Scene::Switchover,
        Step::Cancelled | Step::Unfrozen => Scene::SwitchoverCalledOff,
        Step::Note => Scene::Pause,
    }
}

async fn at_every_moment_of(step: Step) {
    if !cfg!(feature = "crash-points") {
        panic!("needs --features crash-points: run scripts/test");
    }
    let moments: Vec<When> = CRASH_POINTS.iter().filter(|(s, _)| *s == step).map(|(_, when)| *when).collect();
    assert!(moments.contains(&When::Between), "the list of crash points lacks the moment between write and sync");
    for when in moments {
        println!("--- killed at {step}:{when}");
        one_side_after_a_crash(step, when).await;
    }
}

async fn one_side_after_a_crash(step: Step, when: When) {
    let scene = scene_of(step);
    let pair = Pair::plan().synchronous().start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).environment("PGPIVOT_CRASH_AT", &format!("{step}:{when}"));
    let daemon = if scene == Scene::Start { plan.launch() } else { plan.start().await };
    let writers = Writers::start(daemon.listen, 4);
    if scene != Scene::Start {
        writers.go_on_at(pair.east.port, 20, SOON).await;
    }
    play(scene, &pair, &daemon).await;
    daemon.clear_environment();
    daemon.launch();
    let shown = daemon.until("one side is active", STEP, |s| s.open && s.active.is_some()).await;
    let (new, old) = if is_active(&shown, "west") { (&pair.west, &pair.east) } else { (&pair.east, &pair.west) };
    writers.go_on_at(new.port, 50, STEP).await;
    if step == Step::Latched {
        assert!(is_active(&shown, "west"), "the promotion was ordered: there is no way back\n{shown:#?}");
    }
    if is_active(&shown, "east") {
        assert!(!pair.west.is_primary().await, "west was promoted and east is active\n{}", daemon.log_tail());
    }

    daemon.kill().await;
    daemon.launch();
    let again = daemon.until("the same side is active", STEP, |s| s.open && s.active == shown.active).await;
    assert_eq!(again.epoch, shown.epoch);
    writers.go_on_at(new.port, 20, STEP).await;
    let journal = writers.stop().await;
    Checker { journal: &journal, new, old }.no_acknowledged_row_is_lost().await;
}

/// Plays the scene until the daemon is dead, and leaves both servers running.
async fn play(scene: Scene, pair: &Pair, daemon: &Daemon) {
    match scene {
        Scene::Start => {}
        Scene::PrimaryKilled => pair.east.kill().await,
        Scene::Switchover => command(daemon, "/failover/switchover").await,
        Scene::SwitchoverCalledOff => {
            pair.west.run("SELECT pg_wal_replay_pause()").await;
            command(daemon, "/failover/switchover").await;
        }
        Scene::Pause => command(daemon, "/failover/pause").await,
    }
    daemon.ended(STEP).await;
    match scene {
        // The worst that can be: the old primary is back before the proxy is.
        Scene::PrimaryKilled => pair.east.start().await,
        Scene::SwitchoverCalledOff => pair.west.run("SELECT pg_wal_replay_resume()").await,
        Scene::Start | Scene::Switchover | Scene::Pause => {}
    }
}

/// Gives a command until it is taken; the daemon may die before it answers.
async fn command(daemon: &Daemon, path: &str) {
    eventually(&format!("{path} is taken"), SOON, async || match daemon.post(path, "{}").await {
        Ok((200, _)) | Err(_) => Ok(()),
        Ok((code, body)) => Err(format!("{code}: {body}")),
    })
    .await;
}
