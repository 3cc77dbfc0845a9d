//! Which server answers at an address: two backends that are one, and one backend that is now this server and now that.

use std::net::SocketAddr;

use super::failover;
use super::plan::service;
use super::stage::{Mood, Stage};
use crate::failover::action::Command;
use crate::failover::observation::{Failure, Observation, Verdict};

fn reason(stage: &Stage) -> String {
    stage.view().blocked.map_or_else(String::new, |block| block.reason)
}

/// Well for a while.
fn seasoned() -> Stage {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage
}

#[test]
fn two_backends_that_are_one_server_are_named_and_nothing_is_promoted_by_itself() {
    let mut stage = seasoned();
    let node = stage.servers[0].node.clone();
    let own = std::mem::replace(&mut stage.servers[1].node, node);
    stage.until(10_000, |stage| reason(stage) == "same server");
    let said = stage.view().blocked.unwrap().sentence;
    assert!(said.contains("east and west are one server (10.0.0.1:5432): correct their addresses"), "{said}");
    assert!(stage.is_open(), "the latched side is served all the same");
    for mood in [Mood::Dead, Mood::Hung, Mood::Recovering] {
        stage.servers[0].mood = mood;
        stage.run(60_000);
        assert_eq!((stage.active(), stage.promotions.len(), reason(&stage).as_str()), ("east", 0, "same server"));
    }
    stage.servers[0].mood = Mood::Well;
    stage.servers[1].node = own;
    stage.until(30_000, |stage| reason(stage).is_empty() && stage.is_open());
    stage.servers[0].mood = Mood::Dead;
    stage.until(60_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn two_addresses_of_one_primary_are_never_latched_by_themselves_and_named_once_one_is() {
    let mut stage = Stage::with(service(2));
    stage.servers[1] = stage.servers[0].clone();
    stage.run(10_000);
    assert!(!stage.is_open() && stage.disk.latch.is_none());
    assert_eq!(reason(&stage), "same server");
    stage.command(&Command::Adopt { backend: "east".into() }).unwrap();
    stage.until(10_000, |stage| stage.is_open() && reason(stage) == "same server");
    let said = stage.view().blocked.unwrap().sentence;
    assert!(said.contains("east and west are one server (10.0.0.1:5432)"), "{said}");
    stage.servers[0].mood = Mood::Dead;
    stage.servers[1].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}

#[test]
fn a_primary_that_is_another_node_at_every_fresh_connect_is_never_replaced_by_itself() {
    for mood in [Mood::Dead, Mood::Hung] {
        let mut stage = seasoned();
        stage.servers[0].node = "10.0.0.9:5432".into();
        stage.run(5000);
        assert!(stage.is_open() && stage.active() == "east", "it is served: a balancer stands before it");
        let west = stage.view().backends.into_iter().find(|backend| backend.name.as_str() == "west").unwrap();
        assert!(!west.armed && west.unarmed_why[0].contains("a pooler or balancer stands before east"), "{west:?}");
        stage.servers[0].mood = mood.clone();
        stage.until(60_000, |stage| reason(stage) == "indirect identity");
        let said = stage.view().blocked.unwrap().sentence;
        assert!(said.contains("a pooler or balancer stands before the active side"), "{said}");
        stage.run(120_000);
        assert_eq!((stage.active(), stage.promotions.len(), reason(&stage).as_str()), ("east", 0, "indirect identity"));
        assert!(stage.machine.record().spent.is_empty(), "nothing was tried, {mood:?}");
        // A person may know better.
        stage.command(&failover(true)).unwrap();
        stage.until(60_000, |stage| stage.active() == "west" && stage.is_open());
        assert_eq!(stage.promotions.len(), 1);
    }
}

#[test]
fn a_standby_whose_node_changes_is_promoted_all_the_same() {
    let mut stage = seasoned();
    stage.servers[1].node = "10.0.0.9:5432".into();
    stage.run(5000);
    assert_eq!(reason(&stage), "");
    stage.servers[0].mood = Mood::Dead;
    stage.until(60_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_primary_that_moved_to_another_address_is_no_pooler_and_is_replaced_when_it_dies() {
    let mut stage = seasoned();
    let new: SocketAddr = "10.0.0.9:5432".parse().unwrap();
    stage.servers[0].node = new.to_string();
    let at = stage.at();
    // From here on the stage's own probes of it go to an address that is none of its any more.
    stage.machine.handle_addresses(&"east".into(), &[("east.example:5432".parse().unwrap(), new)], at);
    stage.obey();
    for _ in 0..10 {
        let facts = Box::new(stage.facts(0));
        hears(&mut stage, new, Verdict::Answered(facts));
    }
    assert!(stage.is_open() && reason(&stage).is_empty());
    stage.servers[0].mood = Mood::Dead;
    for _ in 0..600 {
        hears(&mut stage, new, Verdict::Failed(Failure::Refused));
    }
    assert_eq!((stage.active(), stage.promotions.len(), reason(&stage).as_str()), ("west", 1, ""));
}

#[test]
fn a_command_that_names_nobody_says_so() {
    let mut stage = seasoned();
    let mut asked = |name: &str| stage.command(&Command::Adopt { backend: name.into() }).unwrap_err().sentence;
    assert_eq!(asked(""), "no backend is named; there are east, west");
    assert_eq!(asked("north"), "there is no backend north; there are east, west");
}

#[test]
fn two_backends_that_swap_their_addresses_are_not_one_server_while_only_one_was_heard_at_its_new_one() {
    let mut stage = seasoned();
    let (east, west): (SocketAddr, SocketAddr) = ("10.0.0.1:5432".parse().unwrap(), "10.0.0.2:5432".parse().unwrap());
    let at = stage.at();
    stage.machine.handle_addresses(&"east".into(), &[("west.example:5432".parse().unwrap(), west)], at);
    stage.machine.handle_addresses(&"west".into(), &[("east.example:5432".parse().unwrap(), east)], at);
    stage.obey();
    // The server there shows its own address, under which west was heard last.
    let facts = Box::new(stage.facts(1));
    assert_eq!(facts.node.as_deref(), Some("10.0.0.2:5432"));
    hears(&mut stage, west, Verdict::Answered(facts));
    assert_ne!(reason(&stage), "same server");
}

/// A fresh probe of east at this address, and a while.
fn hears(stage: &mut Stage, address: SocketAddr, verdict: Verdict) {
    let now = stage.at();
    let seen = Observation { backend: "east".into(), address, started: now.at, finished: now.at, fresh: true, verdict };
    stage.machine.handle_observation(&seen, now);
    stage.obey();
    stage.run(100);
}
