//! `--route-only`: the side that is left takes no writes any more before the other one is opened.

use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::{ProbeKind, Promoter, Service};
use crate::failover::action::{Action, Command, Operator, Outcome};
use crate::failover::phase::Phase;

fn fenced() -> Service {
    let mut fenced = service(2);
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    fenced
}

/// East is active, and somebody promoted west beside it.
fn beside(service: Service) -> Stage {
    let mut stage = Stage::steady_with(service);
    stage.run(5000);
    stage.promote(1);
    stage.until(10_000, |stage| stage.view().blocked.is_some_and(|block| block.reason == "split brain"));
    stage
}

fn route_only() -> Command {
    Command::Failover { to: Some("west".into()), force: false, route_only: true, at: None }
}

#[test]
fn traffic_leaves_a_living_side_only_when_its_fence_has_succeeded() {
    let mut stage = beside(fenced());
    let (operator, at) = (Operator { name: "ada".into(), note: None }, stage.at());
    let explained = stage.machine.handle_command(&route_only(), &operator, true, at).unwrap();
    assert!(explained.steps[1].contains("run the node fence on east; unless it succeeds, everything is undone"));
    assert_eq!((stage.active(), stage.fenced.len()), ("east", 0), "a dry run fences nobody");
    let before = stage.log.len();
    stage.command(&route_only()).unwrap();
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.fenced, ["east".into()]);
    let orders: Vec<&str> = stage.log[before..].iter().map(|order| order.split(' ').nth(1).unwrap()).collect();
    let ordered = |word: &str| orders.iter().position(|order| order.starts_with(word)).unwrap();
    let latch = orders.iter().rposition(|order| order.starts_with("Persist")).unwrap();
    assert!(ordered("Persist") < ordered("Cut") && ordered("Cut") < ordered("Fence") && ordered("Fence") < latch);
    assert!(stage.said("east was fenced before"));
    assert_eq!((stage.epoch(), stage.promotions.len()), (2, 0));
}

#[test]
fn a_fence_that_fails_leaves_everything_as_it_was() {
    let mut stage = beside(fenced());
    stage.fence = Err("power switch does not answer".into());
    stage.command(&route_only()).unwrap();
    stage.until(10_000, Stage::is_open);
    assert_eq!((stage.active(), stage.epoch()), ("east", 1));
    assert!(stage.said("called off: the node fence failed: power switch does not answer"));
}

#[test]
fn without_a_fence_a_living_side_is_not_left_and_the_remedy_is_named() {
    let mut stage = beside(service(2));
    let refused = stage.command(&route_only()).unwrap_err();
    assert_eq!(refused.code, "not_fenced");
    assert!(refused.sentence.contains("Stop it, or configure fence_command"), "{refused}");
}

#[test]
fn a_side_in_recovery_takes_no_writes_and_needs_no_fence() {
    let mut stage = Stage::steady_with(fenced());
    stage.run(5000);
    stage.servers[0].primary = false;
    stage.promote(1);
    let said = |stage: &Stage, i: usize, role: &str| stage.view().backends[i].role == role;
    stage.until(5000, |stage| said(stage, 0, "standby") && said(stage, 1, "primary"));
    let receipt = stage.command(&route_only()).unwrap();
    assert!(!receipt.steps.iter().any(|step| step.contains("fence")), "{receipt:?}");
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.said("commanded by ada; east is in recovery") && stage.fenced.is_empty());
}

fn routing_only() -> Service {
    let mut plain = service(2);
    plain.failover.promoter = Promoter::None;
    plain.probe.kind = ProbeKind::Tcp;
    plain
}

#[test]
fn a_side_that_came_back_while_the_intent_was_written_is_not_left() {
    let mut stage = Stage::steady_with(routing_only());
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.view().backends[0].health == "down");
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.command(&route_only()).unwrap();
    stage.servers[0].mood = Mood::Well;
    stage.until(10_000, |stage| stage.view().backends[0].health == "up");
    stage.deliver();
    stage.until(5000, |stage| stage.is_open() && stage.machine.phase() == Phase::Steady);
    assert_eq!((stage.active(), stage.epoch()), ("east", 1));
    assert!(stage.said("east may take writes again"));
}

#[test]
fn nobody_is_fenced_for_a_side_that_does_not_serve_any_more() {
    let mut stage = Stage::steady_with(Service { failover: fenced().failover, ..routing_only() });
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.command(&route_only()).unwrap();
    stage.servers[1].mood = Mood::Dead;
    stage.until(4000, |stage| stage.view().backends[1].health == "down");
    stage.deliver();
    stage.until(10_000, Stage::is_open);
    assert_eq!((stage.active(), stage.epoch(), stage.fenced.len()), ("east", 1, 0));
    assert!(stage.said("west does not prove to serve any more: down"));
}

#[test]
fn a_side_that_stopped_to_serve_during_the_fence_is_not_opened() {
    let mut stage = beside(fenced());
    stage.loses = Some(|action| matches!(action, Action::Fence { .. }));
    stage.command(&route_only()).unwrap();
    stage.until(1000, |stage| stage.said("being fenced"));
    stage.servers[1].mood = Mood::Dead;
    stage.until(5000, |stage| stage.view().backends[1].health == "down");
    let (episode, at) = (stage.machine.record().last_episode, stage.at());
    stage.machine.handle_outcome(Outcome::Fenced { episode, result: Ok(()) }, at);
    stage.obey();
    stage.until(10_000, Stage::is_open);
    assert_eq!((stage.active(), stage.epoch()), ("east", 1));
    assert!(stage.said("west does not prove to serve any more: down"));
}
