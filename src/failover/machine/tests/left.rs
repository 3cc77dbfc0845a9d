//! Sides that were left: what their fence reached, who is made read-only, and who is released again.

use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::Service;
use crate::failover::action::{Action, Command};
use crate::failover::phase::Grade;
use crate::types::{SystemId, Timeline};

fn soft() -> Service {
    let mut soft = service(2);
    soft.failover.soft_fence = true;
    soft
}

fn grade(stage: &Stage) -> Option<String> {
    stage.view().backends[0].fence.clone()
}

/// East died, west is active, and east runs again as the primary that it was.
fn stale(service: Service) -> Stage {
    let mut stage = Stage::steady_with(service);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(grade(&stage).as_deref(), Some("route"));
    stage.servers[0].mood = Mood::Well;
    stage
}

#[test]
fn an_old_primary_that_comes_back_is_made_read_only_once_that_is_on_disk_and_history_says_so() {
    let mut stage = stale(soft());
    stage.until(10_000, |stage| grade(stage).as_deref() == Some("node-soft"));
    assert_eq!(stage.freezes, ["soften east"]);
    assert!(stage.servers[0].frozen && !stage.servers[1].frozen);
    assert!(stage.said("3 client sessions were ended; east is fenced: node-soft"));
    assert_eq!(stage.disk.left[0].grade, Grade::NodeSoft);
    stage.run(30_000);
    assert_eq!(stage.freezes, ["soften east"], "once is enough");
    let order = stage.log.iter().position(|line| line.contains("Soften")).unwrap();
    let owes = |line: &String| line.contains("Persist") && line.contains("frozen: [\"east\"]");
    assert!(stage.log[..order].iter().any(owes), "the undo was not written before");
}

#[test]
fn nothing_is_done_while_the_disk_does_not_take_the_undo() {
    let mut stage = stale(soft());
    stage.disk_ok = false;
    stage.run(10_000);
    assert_eq!(stage.freezes, Vec::<String>::new());
    stage.disk_ok = true;
    stage.until(10_000, |stage| grade(stage).as_deref() == Some("node-soft"));
}

#[test]
fn without_soft_fence_an_old_primary_is_left_as_it_is_and_only_routed_around() {
    let mut stage = stale(service(2));
    stage.run(20_000);
    assert_eq!((stage.freezes.len(), grade(&stage).as_deref()), (0, Some("route")));
    assert!(stage.said("east is fenced: route"));
}

#[test]
fn nobody_but_the_very_server_that_was_left_is_made_read_only() {
    for change in [
        |stage: &mut Stage| stage.servers[0].system = 78,
        |stage: &mut Stage| stage.servers[0].node = "10.9.9.9:5432".into(),
        |stage: &mut Stage| stage.promote(0),
    ] {
        let mut stage = Stage::steady_with(soft());
        stage.run(5000);
        stage.servers[0].mood = Mood::Dead;
        stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
        stage.servers[0].primary = false;
        change(&mut stage);
        stage.servers[0].primary = true;
        stage.servers[0].mood = Mood::Well;
        stage.run(20_000);
        assert_eq!(stage.freezes, Vec::<String>::new());
    }
}

#[test]
fn while_the_active_side_does_not_prove_to_be_primary_the_old_one_is_left_alone() {
    let mut stage = Stage::steady_with(soft());
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    stage.servers[1].mood = Mood::Dead;
    stage.run(10_000);
    stage.servers[0].mood = Mood::Well;
    stage.run(20_000);
    assert_eq!(stage.freezes, Vec::<String>::new(), "it may be all there is");
}

#[test]
fn what_a_setting_does_not_bind_keeps_the_grade_low_and_is_said_once() {
    let mut stage = stale(soft());
    stage.gaps = vec!["role boss sets default_transaction_read_only itself".into()];
    stage.run(150_000);
    assert_eq!(grade(&stage).as_deref(), Some("route"));
    let said = stage.events.iter().filter(|event| event.sentence.contains("role boss")).count();
    assert_eq!(said, 1);
    assert!(stage.freezes.len() >= 2, "it is tried again now and then");
    stage.gaps.clear();
    stage.until(90_000, |stage| grade(stage).as_deref() == Some("node-soft"));
}

#[test]
fn a_side_that_comes_back_as_a_standby_is_released_and_was_not_left_any_more() {
    let mut stage = stale(soft());
    stage.until(10_000, |stage| grade(stage).as_deref() == Some("node-soft"));
    stage.rebuild(0, 1);
    stage.servers[0].frozen = true;
    stage.until(10_000, |stage| grade(stage).is_none() && stage.machine.record().frozen.is_empty());
    assert_eq!(stage.freezes, ["soften east", "thaw east"]);
    assert!(!stage.servers[0].frozen && stage.disk.left.is_empty());
}

#[test]
fn a_side_that_became_active_while_it_was_being_made_read_only_is_released_after_that() {
    let mut stage = stale(soft());
    stage.loses = Some(|action| matches!(action, Action::Soften { .. }));
    stage.until(10_000, |stage| stage.log.iter().any(|line| line.contains("Soften")));
    stage.rebuild(0, 1);
    stage.servers[0].frozen = true;
    stage.run(5000);
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(10_000, |stage| stage.active() == "east");
    stage.run(5000);
    assert!(!stage.is_open(), "it may become read-only any moment");
    assert_eq!(stage.freezes, ["freeze west"]);
    stage.until(60_000, |stage| stage.active() == "east" && stage.is_open());
    assert!(stage.freezes.contains(&"unfreeze east".to_owned()) && !stage.servers[0].frozen, "{:?}", stage.freezes);
}

#[test]
fn a_node_fence_is_the_highest_grade_until_its_server_serves_again() {
    let mut fenced = soft();
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    let mut stage = Stage::steady_with(fenced);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(grade(&stage).as_deref(), Some("node-hard"));
    assert!(stage.said("east is fenced: node-hard"));
    stage.restart(500);
    stage.until(20_000, Stage::is_open);
    assert_eq!(grade(&stage).as_deref(), Some("node-hard"), "a restart forgets no fence");
    stage.servers[0].mood = Mood::Well;
    stage.until(10_000, |stage| grade(stage).as_deref() == Some("node-soft"));
    assert!(stage.said("although its node fence had succeeded"));
}

#[test]
fn a_switchover_leaves_its_old_primary_softly_fenced_without_ending_anybody_again() {
    let mut stage = Stage::steady_with(soft());
    stage.run(5000);
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(grade(&stage).as_deref(), Some("node-soft"));
    stage.run(10_000);
    assert_eq!(stage.freezes, ["freeze east", "soften east again"]);
    let server = &stage.disk.left[0].server;
    assert_eq!((server.system_id, server.timeline), (SystemId(77), Timeline(1)));
}
