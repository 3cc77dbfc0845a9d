//! A check that passes on the primary alone, and somebody else who promotes.

use super::plan;
use super::stage::{Mood, Stage};
use crate::config::{Authority, HttpProbe, ProbeKind, Promoter, Service};
use crate::failover::action::{Command, Gate};

pub(super) fn service(backends: usize) -> Service {
    let mut service = plan::service(backends);
    service.probe.kind = ProbeKind::Http(HttpProbe {
        path: "/primary".into(),
        port: None,
        tls: false,
        expect_status: vec![200],
        expect_body: None,
        primary_only: true,
    });
    service.failover.promoter = Promoter::None;
    service.failover.authority = Authority::Observe;
    service
}

/// West was promoted when east died, and is followed.
fn followed() -> Stage {
    let mut stage = Stage::steady_with(service(2));
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(1000);
    stage.promote(1);
    stage.until(30_000, |stage| stage.active() == "west" && stage.is_open());
    stage.run(5000);
    stage
}

#[test]
fn whoever_is_promoted_is_followed_there_and_back_again() {
    let mut stage = followed();
    stage.rebuild(0, 1);
    stage.run(20_000);
    stage.servers[1].mood = Mood::Dead;
    stage.run(1000);
    stage.promote(0);
    stage.until(30_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn an_old_primary_that_came_back_as_it_was_is_not_followed_when_the_new_one_dies() {
    let mut stage = followed();
    stage.servers[0].mood = Mood::Well;
    stage.until(20_000, |stage| stage.view().blocked.is_some_and(|block| block.reason == "split brain"));
    stage.servers[1].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!(stage.active(), "west");
    let said = stage.view().blocked.unwrap().sentence;
    assert!(said.contains("may be an old primary as it was; `proxyctl adopt east`"), "{said}");
    stage.command(&Command::Adopt { backend: "east".into() }).unwrap();
    stage.until(10_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn one_that_comes_back_only_when_the_new_one_is_dead_is_not_followed_either() {
    let mut stage = followed();
    stage.servers[1].mood = Mood::Dead;
    stage.run(20_000);
    stage.servers[0].mood = Mood::Well;
    stage.run(60_000);
    assert_eq!(stage.active(), "west");
}

#[test]
fn a_second_primary_beside_the_active_one_gets_no_reader_and_is_named() {
    let mut stage = Stage::steady_with(service(2));
    stage.run(5000);
    stage.promote(1);
    stage.until(20_000, |stage| stage.view().blocked.is_some_and(|block| block.reason == "split brain"));
    let Some(Gate::Open { active, readers, .. }) = stage.machine.gate() else { panic!("closed") };
    assert_eq!((active.as_str(), readers.len()), ("east", 0));
    assert!(stage.cuts.iter().any(|cut| cut.as_str() == "west"), "whoever is there is cut");
    let said = stage.view().blocked.unwrap().sentence;
    assert!(said.contains("west passes the check as primary as well, beside east"), "{said}");
}
