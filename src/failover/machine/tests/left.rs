//! Where probes show neither lines nor roles: a side that a failover left is promoted again only on an operator's word.

use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::{ProbeKind, Service, WitnessRule};
use crate::failover::action::Command;

fn blind(backends: usize) -> Service {
    let mut service = service(backends);
    service.probe.kind = ProbeKind::Tcp;
    service.failover.witness = WitnessRule::Optional;
    service.backends[1].priority = 1;
    service.failover.cooldown = std::time::Duration::from_secs(1);
    service
}

/// East died, west was promoted, and east is up again as it was.
fn returned(backends: usize) -> Stage {
    let mut stage = Stage::steady_with(blind(backends));
    stage.run(3000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "west" && stage.is_open());
    stage.servers[0].mood = Mood::Well;
    stage.run(15_000);
    stage
}

fn rejoin(stage: &mut Stage) -> String {
    stage.command(&Command::Rejoin { backend: "east".into() }).map_or_else(|no| no.sentence, |receipt| receipt.sentence)
}

#[test]
fn an_old_primary_that_came_back_as_it_was_is_not_promoted_when_the_new_one_dies() {
    let mut stage = returned(2);
    let expected = stage.view().next;
    assert!(expected.contains("`proxyctl rejoin east`"), "nobody is told beforehand: {expected}");
    stage.servers[1].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!((stage.promotions.len(), stage.active()), (1, "west"));
    let said = stage.view().blocked.unwrap().sentence;
    for part in ["east was active before", "may lack", "`proxyctl rejoin east`", "--force"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_side_that_nobody_left_takes_over_before_one_that_was() {
    let mut stage = returned(3);
    stage.servers[1].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "north" && stage.is_open());
}

#[test]
fn once_an_operator_says_that_it_follows_it_is_promoted_by_itself() {
    let mut stage = returned(2);
    stage.rebuild(0, 1);
    stage.run(3000);
    let said = rejoin(&mut stage);
    assert!(said.contains("counts as a standby of west again"), "{said}");
    let said = rejoin(&mut stage);
    assert!(said.contains("nothing to state"), "{said}");
    stage.restart(500);
    stage.run(3000);
    stage.servers[1].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn a_restart_does_not_make_a_side_that_was_left_a_candidate() {
    let mut stage = returned(2);
    stage.restart(500);
    stage.run(3000);
    stage.servers[1].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!((stage.promotions.len(), stage.active()), (1, "west"));
}

#[test]
fn force_promotes_it_all_the_same_and_says_that_the_loss_is_not_known() {
    let mut stage = returned(2);
    stage.servers[1].mood = Mood::Dead;
    stage.run(20_000);
    let failover = |force| Command::Failover { to: None, force, route_only: false, at: None };
    let refused = stage.command(&failover(false)).unwrap_err();
    assert_eq!(refused.code, "no_candidate", "{}", refused.sentence);
    let begun = stage.command(&failover(true)).unwrap();
    assert!(begun.sentence.contains("how much may be lost is not known"), "{}", begun.sentence);
    stage.until(10_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn nobody_states_that_the_active_side_or_one_that_is_down_follows() {
    let mut stage = returned(2);
    let refused = stage.command(&Command::Rejoin { backend: "west".into() }).unwrap_err();
    assert_eq!(refused.code, "already_active");
    stage.servers[0].mood = Mood::Dead;
    stage.run(15_000);
    let refused = stage.command(&Command::Rejoin { backend: "east".into() }).unwrap_err();
    assert_eq!(refused.code, "not_up", "{}", refused.sentence);
}

#[test]
fn where_probes_show_lines_a_statement_must_agree_with_what_they_show() {
    let mut stage = Stage::steady_with(service(2));
    stage.run(3000);
    let said = rejoin(&mut stage);
    assert!(said.contains("east is active"), "{said}");
    let receipt = stage.command(&Command::Rejoin { backend: "west".into() }).unwrap();
    assert!(receipt.sentence.contains("west streams from east"), "{}", receipt.sentence);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    let refused = stage.command(&Command::Rejoin { backend: "east".into() }).unwrap_err();
    assert_eq!(refused.code, "not_rebuilt", "{}", refused.sentence);
}
