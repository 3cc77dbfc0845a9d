//! Three servers: who is chosen, and what is ordered for those that are left.

use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::{Service, Survivors, SyncRule};
use crate::failover::action::{Command, EventKind};

/// `west` is preferred, `north` is left.
fn three() -> Service {
    let mut three = service(3);
    three.backends[1].priority = 1;
    three.failover.survivors = Survivors::Repoint;
    three
}

fn following(stage: &Stage, i: usize) -> String {
    stage.view().backends[i].following.as_ref().map_or_else(String::new, |following| following.state.clone())
}

/// The active side dies, and `west` is active.
fn fail_over(stage: &mut Stage) {
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(8000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn who_is_left_is_pointed_at_the_new_primary_once_that_is_open_and_follows() {
    let mut stage = Stage::steady_with(three());
    fail_over(&mut stage);
    stage.until(5000, |stage| following(stage, 2) == "follower");
    assert_eq!(stage.repointed.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["north"]);
    let at = |what: &str| stage.log.iter().rposition(|line| line.contains(what)).unwrap();
    let latched =
        stage.log.iter().position(|line| line.contains("Persist") && line.contains("epoch: Epoch(2), since")).unwrap();
    assert!(latched < at("Repoint"), "the latch is on disk before anybody is led to it");
    assert!(stage.said("north was chosen") || stage.said("west was chosen"));
    assert!(stage.said("north follows west on timeline 2"));
    stage.run(20_000);
    assert_eq!(stage.repointed.len(), 1, "who follows is left alone");
}

#[test]
fn an_order_that_fails_is_given_again_ever_more_seldom_and_its_reason_is_told_once() {
    let mut stage = Stage::steady_with(three());
    stage.repoint_refused = Some("type this".into());
    fail_over(&mut stage);
    stage.run(120_000);
    let tries = stage.repointed.len();
    assert!((5..=8).contains(&tries), "{tries} tries in two minutes");
    let told = stage.events.iter().filter(|e| e.kind == EventKind::Notice && e.sentence.contains("type this")).count();
    assert_eq!(told, 1);
    let shown = stage.view().backends[2].following.clone().unwrap();
    assert!(shown.state == "adrift" && shown.sentence.contains("type this"), "{shown:?}");
    stage.repoint_refused = None;
    stage.until(61_000, |stage| following(stage, 2) == "follower");
}

#[test]
fn who_stands_beyond_the_branch_is_an_orphan_and_pointed_nowhere() {
    let mut orphan = three();
    orphan.backends[2].promote = false;
    let mut stage = Stage::steady_with(orphan);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(20);
    stage.servers[2].lsn += 500;
    stage.until(8000, |stage| stage.active() == "west" && stage.is_open());
    stage.until(5000, |stage| following(stage, 2) == "orphan");
    stage.run(20_000);
    assert!(stage.repointed.is_empty());
    assert!(stage.said("north is an orphan"));
}

#[test]
fn where_it_is_to_be_reported_nobody_is_pointed_anywhere_and_it_says_what_to_type() {
    let mut report = three();
    report.failover.survivors = Survivors::Report;
    report.backends[1].replication_address = Some("west.internal:6432".parse().unwrap());
    let mut stage = Stage::steady_with(report);
    fail_over(&mut stage);
    stage.run(10_000);
    assert!(stage.repointed.is_empty());
    assert!(stage.said("host=west.internal port=6432"));
}

#[test]
fn an_excluded_standby_is_never_promoted_not_by_force_either() {
    let mut excluded = three();
    excluded.backends[1].promote = false;
    excluded.backends[2].promote = false;
    let mut stage = Stage::steady_with(excluded);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert!(stage.promotions.is_empty());
    let to = Some("west".into());
    let force = Command::Failover { to, force: true, route_only: false, at: None };
    let refusal = stage.command(&force).unwrap_err();
    assert!(refusal.sentence.contains("promote = false"), "{refusal}");
    let blocked = stage.view().blocked.unwrap();
    assert!(blocked.sentence.contains("west is kept") && blocked.sentence.contains("north is kept"), "{blocked:?}");
}

#[test]
fn synchronous_names_are_those_of_the_standbys_that_are_left() {
    for (survivors, names) in [(Survivors::Repoint, "FIRST 1 (north)"), (Survivors::Report, "")] {
        let mut sync = three();
        (sync.failover.sync_after_failover, sync.failover.survivors) = (SyncRule::Adapt, survivors);
        let mut stage = Stage::steady_with(sync);
        stage.run(5000);
        stage.servers[1].sync_names = "FIRST 2 (east, north)".into();
        stage.servers[0].mood = Mood::Dead;
        stage.until(8000, |stage| stage.active() == "west" && stage.is_open());
        assert_eq!(stage.servers[1].sync_names, names);
        assert_eq!(stage.said("no standby is left"), names.is_empty());
        // The stage's standbys never count as synchronous: nobody is waited for who does not come.
        stage.run(10_000);
        assert_eq!(stage.servers[1].sync_names, "");
    }
}

fn adapting() -> Stage {
    let mut service = three();
    service.failover.sync_after_failover = SyncRule::Adapt;
    let mut stage = Stage::steady_with(service);
    stage.run(5000);
    stage.servers[1].sync_names = "FIRST 2 (east, north)".into();
    stage.servers[0].mood = Mood::Dead;
    stage
}

#[test]
fn commits_that_wait_are_relieved_once_the_server_takes_the_setting() {
    let mut stage = adapting();
    stage.sync_refused = Some("canceling statement due to statement timeout".into());
    stage.until(8000, |stage| stage.active() == "west" && stage.is_open());
    stage.run(20_000);
    assert_eq!(stage.servers[1].sync_names, "FIRST 2 (east, north)");
    let told = |stage: &Stage| {
        stage.events.iter().filter(|event| event.sentence.starts_with("synchronous_standby_names could not be")).count()
    };
    assert_eq!(told(&stage), 1, "the same refusal is told once");
    stage.sync_refused = None;
    stage.until(60_000, |stage| stage.servers[1].sync_names.is_empty());
    assert!(stage.said("synchronous_standby_names could be set after all"));
}

#[test]
fn commits_that_wait_are_relieved_by_a_daemon_that_was_started_just_after_the_failover() {
    let mut stage = adapting();
    stage.until(8000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.servers[1].sync_names, "FIRST 1 (north)");
    stage.restart(500);
    stage.until(20_000, |stage| stage.servers[1].sync_names.is_empty());

    // Long after it, what an operator has set since is left alone.
    stage.servers[1].sync_names = "FIRST 1 (north)".into();
    stage.run(120_000);
    stage.restart(500);
    stage.run(60_000);
    assert_eq!(stage.servers[1].sync_names, "FIRST 1 (north)");
}

#[test]
fn one_of_three_is_not_promoted_before_another_one_can_be_asked() {
    let mut stage = Stage::steady_with(three());
    stage.run(5000);
    stage.servers[2].mood = Mood::Dead;
    stage.run(20_000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(60_000);
    assert!(stage.promotions.is_empty() && stage.active() == "east", "{:?}", stage.promotions);
    stage.servers[2].mood = Mood::Well;
    stage.until(60_000, |stage| stage.active() != "east" && stage.is_open());
    assert_eq!(stage.promotions.len(), 1);
}
