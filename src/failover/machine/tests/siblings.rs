//! Two pairs of one daemon that lead the same servers: one decides.

use super::failover;
use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::{Authority, Service};
use crate::failover::action::Command;
use crate::failover::machine::Sibling;
use crate::failover::phase::Phase;
use crate::types::SystemId;

fn sibling() -> Sibling {
    Sibling {
        service: "reports".into(),
        earlier: true,
        system_id: Some(SystemId(77)),
        decides: true,
        promotes_now: false,
    }
}

fn beside(sibling: Sibling, service: Service) -> Stage {
    let mut stage = Stage::steady_with(service);
    stage.run(5000);
    meets(&mut stage, sibling);
    stage
}

fn meets(stage: &mut Stage, sibling: Sibling) {
    let at = stage.at();
    stage.machine.handle_siblings(vec![sibling], at);
    stage.obey();
}

fn reason(stage: &Stage) -> Option<String> {
    stage.view().blocked.map(|block| block.reason)
}

#[test]
fn the_later_of_two_pairs_of_the_same_servers_promotes_nobody_and_follows_the_first() {
    let mut stage = beside(sibling(), service(2));
    let shown = stage.view();
    let said = shown.blocked.unwrap();
    assert_eq!(said.reason, "second decider");
    for part in ["service reports of this daemon decides", "system 77", "same backends", "authority = \"observe\""] {
        assert!(said.sentence.contains(part), "{}", said.sentence);
    }
    assert_eq!(shown.other_daemons, ["service reports of this daemon"]);
    assert!(stage.is_open(), "its clients are served all the same");
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
    stage.promote(1);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!((stage.promotions.len(), stage.machine.record().spent.len()), (0, 0));
}

#[test]
fn a_promotion_that_the_first_made_beside_a_living_primary_is_followed_as_well() {
    let mut stage = beside(sibling(), service(2));
    stage.promote(1);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.cuts.contains(&"east".into()));
}

#[test]
fn what_is_commanded_on_the_later_pair_is_refused_and_the_first_one_named() {
    let mut stage = beside(sibling(), service(2));
    let route = Command::Failover { to: None, force: true, route_only: true, at: None };
    for command in [failover(false), failover(true), Command::Switchover { to: None }, route] {
        let refused = stage.command(&command).unwrap_err();
        assert_eq!(refused.code, "second_decider");
        assert!(refused.sentence.starts_with("command it there: service reports"), "{refused}");
    }
    assert_eq!(stage.machine.record().last_episode.0, 1);
}

#[test]
fn neither_a_fence_nor_one_daemon_name_makes_two_pairs_safe() {
    let mut fenced = service(2);
    fenced.failover.fence_required = true;
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    let mut stage = beside(sibling(), fenced);
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert_eq!((stage.promotions.len(), stage.fenced.len()), (0, 0));
}

#[test]
fn a_pair_of_other_servers_or_a_later_or_observing_one_takes_nothing_away() {
    for other in [
        Sibling { system_id: Some(SystemId(78)), ..sibling() },
        Sibling { system_id: None, ..sibling() },
        Sibling { earlier: false, ..sibling() },
        Sibling { decides: false, ..sibling() },
    ] {
        let mut stage = beside(other.clone(), service(2));
        assert_eq!(reason(&stage), None, "{other:?}");
        stage.servers[0].mood = Mood::Dead;
        stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    }
}

#[test]
fn while_a_later_pair_promotes_the_first_one_does_not() {
    let promotes = Sibling { earlier: false, decides: false, promotes_now: true, ..sibling() };
    let mut stage = beside(promotes.clone(), service(2));
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert_eq!(stage.promotions.len(), 0);
    meets(&mut stage, Sibling { promotes_now: false, ..promotes });
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn an_observer_and_sides_that_always_serve_are_left_in_peace() {
    let mut observer = service(2);
    observer.failover.authority = Authority::Observe;
    let mut everywhere = service(2);
    everywhere.failover.standby_serves = true;
    for service in [observer, everywhere] {
        let stage = beside(sibling(), service);
        assert_eq!((stage.machine.phase(), reason(&stage)), (Phase::Steady, None));
    }
}

#[test]
fn a_pair_shows_the_others_what_it_leads_and_whether_it_promotes() {
    let mut stage = Stage::steady();
    let shown = stage.machine.as_sibling();
    assert_eq!((shown.service.as_str(), shown.system_id), ("main", Some(SystemId(77))));
    assert!(shown.decides && !shown.promotes_now);
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.command(&Command::Switchover { to: None }).unwrap();
    assert!(stage.machine.as_sibling().promotes_now);
}
