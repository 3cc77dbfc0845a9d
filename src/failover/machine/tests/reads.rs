//! Readers: who takes them, and how they are moved when that changes.

use super::plan::service;
use super::stage::{Mood, NAMES, Stage};
use crate::config::Service;
use crate::failover::action::{Action, Command, Gate};
use crate::failover::phase::Phase;

fn readers(stage: &Stage) -> Vec<&str> {
    match stage.machine.gate() {
        Some(Gate::Open { readers, .. }) => readers.iter().map(|reader| reader.name.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn drained(stage: &Stage, name: &str) -> usize {
    stage.drained.iter().filter(|drained| drained.as_str() == name).count()
}

fn cut(stage: &Stage, name: &str) -> usize {
    stage.cuts.iter().filter(|cut| cut.as_str() == name).count()
}

#[test]
fn a_standby_whose_replay_stands_still_is_left_at_the_limit_and_its_readers_are_drained_then_cut() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    assert_eq!(readers(&stage), ["west", "north"]);
    stage.servers[1].replay_stopped = Some(stage.servers[1].lsn);
    let stopped = stage.now;
    stage.until(20_000, |stage| readers(stage) == ["north"]);
    let took = stage.now - stopped;
    assert!(took <= 10_000, "what it showed was {took} ms old at the end, the limit is 10 s");
    assert_eq!((drained(&stage, "west"), cut(&stage, "west")), (1, 0));
    stage.until(6_000, |stage| cut(stage, "west") == 1);
    stage.run(60_000);
    assert_eq!((drained(&stage, "west"), cut(&stage, "west"), cut(&stage, "north")), (1, 1, 0));

    stage.servers[1].replay_stopped = None;
    stage.until(10_000, |stage| readers(stage) == ["west", "north"]);
}

#[test]
fn an_idle_primary_makes_no_standby_old() {
    let mut stage = Stage::steady_with(service(3));
    for server in &mut stage.servers {
        server.quiet = true;
    }
    stage.run(60_000);
    assert_eq!(readers(&stage), ["west", "north"]);
}

#[test]
fn standbys_take_readers_while_the_primary_says_nothing() {
    let mut stage = Stage::steady_with(Service { failover: off(), ..service(3) });
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!((stage.active(), readers(&stage)), ("east", vec!["west", "north"]));
    assert!(stage.drained.is_empty() && cut(&stage, "west") + cut(&stage, "north") == 0);
}

fn off() -> crate::config::Failover {
    crate::config::Failover { automatic: false, ..service(3).failover }
}

#[test]
fn readers_of_a_standby_that_is_down_are_cut_and_those_of_one_that_is_merely_unheard_are_not() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.servers[1].mood = Mood::Full;
    stage.run(30_000);
    assert_eq!(cut(&stage, "west"), 0);
    stage.servers[1].mood = Mood::Hung;
    stage.until(30_000, |stage| cut(stage, "west") == 1);
    stage.run(30_000);
    assert_eq!((cut(&stage, "west"), cut(&stage, "north")), (1, 0));
}

#[test]
fn readers_of_a_standby_that_became_active_move_once_another_standby_is_fit() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() != "east" && stage.is_open());
    let new = stage.active().to_owned();
    assert_eq!((drained(&stage, &new), readers(&stage).len()), (0, 0), "there is nobody to move them to yet");
    let at = NAMES.iter().position(|name| *name == new).unwrap();
    let left = 3 - at;
    let (timeline, ancestors) = (stage.servers[at].timeline, stage.servers[at].ancestors.clone());
    let server = &mut stage.servers[left];
    (server.timeline, server.ancestors, server.upstream) = (timeline, ancestors, Some(at));
    stage.until(20_000, |stage| drained(stage, &new) == 1);
    stage.run(30_000);
    assert_eq!((drained(&stage, &new), cut(&stage, &new)), (1, 0));
}

#[test]
fn readers_of_a_standby_that_falls_behind_during_an_episode_are_moved_after_it() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    assert_eq!(readers(&stage), ["west", "north"]);
    // Nothing is heard of the freeze: the switchover gives up, and east goes on.
    stage.loses = Some(|action| matches!(action, Action::Freeze { .. }));
    stage.command(&Command::Switchover { to: Some("west".into()) }).unwrap();
    stage.servers[2].replay_stopped = Some(stage.servers[2].lsn);
    stage.until(20_000, |stage| stage.machine.readers.refusal(&"north".into()).is_some());
    assert_ne!(stage.machine.phase(), Phase::Steady, "it falls behind while the episode runs");
    assert_eq!(drained(&stage, "north"), 0);
    stage.until(120_000, |stage| stage.machine.phase() == Phase::Steady);
    assert_eq!(stage.active(), "east");
    stage.until(5_000, |stage| drained(stage, "north") == 1);
    stage.until(6_000, |stage| cut(stage, "north") == 1);
    stage.run(30_000);
    assert_eq!((drained(&stage, "north"), cut(&stage, "north")), (1, 1));
}
