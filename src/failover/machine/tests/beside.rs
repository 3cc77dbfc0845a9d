//! A promotion that somebody else made while the old primary lives: kept out or followed, and what was written beside it.

use super::plan::service;
use super::stage::{Mood, NAMES, Stage};
use crate::config::{Authority, ForeignPromotion, Service};
use crate::failover::action::{Action, Command, EventKind};
use crate::failover::observation::{Evidence, Verdict};
use crate::failover::phase::Phase;
use crate::types::Lsn;

#[test]
fn a_lone_daemon_keeps_a_living_primary_beside_a_foreign_one_and_an_observer_follows() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.promote(1);
    stage.run(10_000);
    assert_eq!((stage.active(), stage.machine.phase()), ("east", Phase::Blocked));
    assert_eq!(stage.view().blocked.unwrap().reason, "split brain");

    let mut observer = service(2);
    observer.failover.authority = Authority::Observe;
    let mut stage = Stage::steady_with(observer);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(2000);
    assert_eq!(stage.promotions.len(), 0);
    assert!(stage.view().next.contains("is followed as soon as it is proven"), "{}", stage.view().next);
    stage.promote(1);
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.machine.record().spent.len(), 0);
}

#[test]
fn follow_is_chosen_by_configuration_over_the_default() {
    let mut follow = service(2);
    follow.failover.foreign_promotion = Some(ForeignPromotion::Follow);
    let mut stage = Stage::steady_with(follow);
    stage.run(5000);
    stage.promote(1);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.cuts.contains(&"east".into()));
}

fn follower() -> Service {
    let mut follow = service(2);
    follow.failover.foreign_promotion = Some(ForeignPromotion::Follow);
    follow
}

/// Clients have sent so much to the active side by now.
fn relays(stage: &mut Stage, bytes: u64) {
    stage.relayed = bytes;
    let (backend, at) = (NAMES[0].into(), stage.at());
    stage.machine.handle_evidence(&Evidence::Relayed { backend, bytes }, at);
    stage.obey();
}

fn followed(stage: &Stage) -> String {
    let told = stage.events.iter().rev().find(|event| event.kind == EventKind::Followed);
    told.expect("nothing was followed").sentence.clone()
}

#[test]
fn what_was_relayed_since_the_new_side_was_last_a_standby_is_counted_and_named() {
    let mut stage = Stage::steady_with(follower());
    stage.attached = 7;
    relays(&mut stage, 1000);
    stage.run(5000);
    stage.promote(1);
    let (branched, promoted) = (stage.servers[1].lsn, stage.now);
    stage.run(500);
    relays(&mut stage, 1800);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    let said = followed(&stage);
    assert!(said.contains("; 7 client connections were cut, and 800 bytes were relayed to it in the "), "{said}");
    assert!(said.contains(" s since west was last seen as a standby"), "{said}");
    let log = said.split_once(" bytes of log written on east after ").expect(&said);
    assert!(log.1.starts_with(&format!("{}, where west branched off, stand only there (last seen ", Lsn(branched))));
    let bytes: u64 = log.0.rsplit(' ').next().unwrap().parse().unwrap();
    // One byte every 10 ms, and east is looked at again in the end.
    assert!(bytes > 0 && bytes <= (stage.now - promoted) / 10, "{said}");
    let shown = stage.view().beside;
    assert_eq!((shown.connections, shown.relayed_bytes, shown.log_bytes), (7, 800, bytes));
}

#[test]
fn the_first_answer_of_the_old_side_after_the_cut_tells_the_rest() {
    let mut stage = Stage::steady_with(follower());
    stage.run(5000);
    // East is heard no more until it is cut.
    stage.next_probe[0] = stage.now + 60_000;
    stage.promote(1);
    let branched = Lsn(stage.servers[1].lsn);
    stage.until(5000, |stage| stage.active() == "west");
    let said = followed(&stage);
    assert!(
        said.contains(&format!("before the cut, showed no log beyond {branched}, where west branched off")),
        "{said}"
    );
    stage.until(1000, |stage| stage.said("after the cut east stands at"));
    let at = stage.events.iter().find(|event| event.sentence.contains("after the cut east stands")).unwrap();
    let lsn: Lsn = at.sentence.split("stands at ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
    let bytes = branched.behind(lsn);
    assert!(
        bytes > 0 && at.sentence.contains(&format!("{bytes} bytes of its log after {branched}")),
        "{}",
        at.sentence
    );
    assert_eq!(stage.view().beside.log_bytes, bytes);
    stage.run(5000);
    let times = stage.events.iter().filter(|event| event.sentence.contains("after the cut east stands")).count();
    assert_eq!(times, 1);
}

#[test]
fn an_operator_who_adopts_beside_a_relaying_side_is_told_as_well() {
    let mut stage = Stage::steady();
    stage.attached = 1;
    stage.run(5000);
    stage.promote(1);
    stage.run(10_000);
    relays(&mut stage, 333);
    stage.command(&Command::Adopt { backend: "west".into() }).unwrap();
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
    let said = followed(&stage);
    assert!(said.contains("; 1 client connection was cut, and 333 bytes were relayed to it in the 1"), "{said}");
    assert!(said.contains(" bytes of log written on east after "), "{said}");
}

#[test]
fn what_cannot_be_told_is_said_to_be_unknown() {
    let mut stage = Stage::steady();
    stage.run(5000);
    // On the latched timeline: where the two parted, nobody knows.
    stage.servers[1].primary = true;
    stage.until(5000, |stage| stage.machine.phase() == Phase::Blocked);
    stage.command(&Command::Adopt { backend: "west".into() }).unwrap();
    stage.until(3000, |stage| stage.active() == "west");
    let said = followed(&stage);
    assert!(said.contains("; how much of the log of east stands only there is not known; 0 client"), "{said}");
}

#[test]
fn after_a_restart_only_what_was_relayed_since_is_claimed() {
    let mut stage = Stage::steady_with(follower());
    stage.run(5000);
    stage.promote(1);
    stage.restart(300);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    let said = followed(&stage);
    assert!(said.contains("0 bytes were relayed to it since this daemon started"), "{said}");
}

#[test]
fn an_answer_that_took_too_long_leaves_it_unknown_how_much_was_relayed() {
    let mut stage = Stage::steady_with(follower());
    let asked = stage.now;
    for n in 0..20 {
        stage.run(1000);
        relays(&mut stage, n);
    }
    // The only answer of west since it was latched, as far as this daemon knows.
    let facts = stage.facts(1);
    stage.machine.side_mut(&"west".into()).unwrap().standby = None;
    stage.hears(1, asked, Verdict::Answered(Box::new(facts)));
    stage.next_probe[1] = stage.now;
    stage.promote(1);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    let said = followed(&stage);
    assert!(said.contains("how much was relayed to it in the "), "{said}");
}

#[test]
fn a_side_that_a_switchover_left_read_only_is_not_released_beside_a_successor() {
    let mut stage = Stage::steady();
    stage.loses = Some(|action| matches!(action, Action::Unfreeze { .. }));
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(10_000, |stage| stage.servers[0].frozen);
    stage.servers[1].mood = Mood::CutOff;
    stage.until(30_000, |stage| stage.said("is called off"));
    // Another daemon's switchover went on where this one's ended.
    stage.servers[1].mood = Mood::Well;
    stage.promote(1);
    stage.until(10_000, |stage| stage.machine.has_rival());
    stage.loses = None;
    stage.freezes.clear();
    stage.run(20_000);
    assert!(stage.freezes.is_empty(), "{:?}", stage.freezes);
}
