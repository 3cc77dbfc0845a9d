//! Episodes under bad luck, as sentences: what comes between the intent and its end, and who turns up meanwhile.

use std::time::Duration;

use super::failover;
use super::plan::service;
use super::stage::{Mood, NAMES, Stage, address};
use crate::config::{Authority, ProbeKind, Promoter, WitnessRule};
use crate::failover::action::{Action, Command, Gate, Outcome};
use crate::failover::observation::{Ancestor, Observation, Verdict};
use crate::failover::phase::Phase;
use crate::types::{HostPort, Lsn, SystemId, Timeline};

#[test]
fn a_primary_that_came_back_while_the_intent_was_being_written_is_not_replaced() {
    let mut patient = service(2);
    patient.probe.fall = 10;
    let mut stage = Stage::steady_with(patient);
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.servers[0].mood = Mood::Dead;
    stage.until(2000, |stage| stage.waiting.is_some());
    stage.servers[0].mood = Mood::Well;
    stage.run(2000);
    stage.deliver();
    stage.run(5000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
    assert!(stage.is_open());
}

#[test]
fn evidence_that_grew_old_while_the_intent_was_being_written_is_looked_at_again() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.servers[0].mood = Mood::Dead;
    stage.until(2000, |stage| stage.waiting.is_some());
    // For a while nothing is heard of it.
    stage.next_probe[0] = stage.now + 4000;
    stage.run(3000);
    stage.deliver();
    stage.run(200);
    assert_eq!(stage.promotions.len(), 0, "promoted on evidence that is seconds old");
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_required_fence_does_not_overrule_a_standby_that_hears_the_primary_again() {
    let mut fenced = service(2);
    fenced.failover.fence_required = true;
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    let mut stage = Stage::steady_with(fenced);
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.servers[0].mood = Mood::Hung;
    stage.until(20_000, |stage| stage.waiting.is_some());
    // It writes again, and only this daemon does not reach it.
    stage.servers[0].mood = Mood::CutOff;
    stage.run(2000);
    stage.deliver();
    stage.run(2000);
    assert_eq!((stage.fenced.len(), stage.promotions.len()), (0, 0));
    assert!(stage.said("receives from east again"));
}

#[test]
fn a_lock_that_is_never_answered_is_given_up_and_let_go() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.loses = Some(|action| matches!(action, Action::Lock { .. }));
    stage.servers[0].mood = Mood::Dead;
    stage.until(2000, |stage| stage.said("episode 2"));
    stage.until(15_000, |stage| stage.said("episode 2 (failover) is called off"));
    assert_eq!(stage.unlocks, 1);
    stage.loses = None;
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_fence_that_is_never_answered_is_given_up() {
    let mut fenced = service(2);
    fenced.failover.fence_required = true;
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    let mut stage = Stage::steady_with(fenced);
    stage.run(5000);
    stage.loses = Some(|action| matches!(action, Action::Fence { .. }));
    stage.servers[0].mood = Mood::Dead;
    stage.until(60_000, |stage| stage.said("episode 2 (failover) is called off"));
    assert_eq!(stage.promotions.len(), 0);
}

#[test]
fn an_address_that_leads_to_another_server_is_not_read() {
    let mut stage = Stage::steady();
    stage.run(5000);
    let (configured, other): (HostPort, _) = ("west.example:5432".parse().unwrap(), "10.0.9.9:5432".parse().unwrap());
    let at = stage.at();
    let both = [(configured.clone(), address(1)), (configured, other)];
    stage.machine.handle_addresses(&"west".into(), &both, at);
    let mut stranger = stage.facts(0);
    stranger.system_id = Some(SystemId(99));
    let seen = Observation {
        backend: "west".into(),
        address: other,
        started: at.at,
        finished: at.at,
        fresh: true,
        verdict: Verdict::Answered(Box::new(stranger)),
    };
    stage.machine.handle_observation(&seen, at);
    stage.run(3000);
    let Some(Gate::Open { readers, .. }) = stage.machine.gate() else { panic!("closed") };
    let read: Vec<_> = readers.iter().flat_map(|open| open.addresses.clone()).collect();
    assert_eq!(read, [address(1)]);
}

#[test]
fn a_side_that_is_down_is_not_adopted_on_what_it_said_once() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.promote(1);
    stage.run(5000);
    stage.servers[1].mood = Mood::Dead;
    stage.run(10_000);
    let refused = stage.command(&Command::Adopt { backend: "west".into() }).unwrap_err();
    assert_eq!(refused.code, "not_primary");
}

#[test]
fn a_promotion_by_hand_is_not_followed_once_its_side_is_down() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.promote(1);
    stage.run(5000);
    stage.servers[1].mood = Mood::Dead;
    stage.run(10_000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(10_000);
    assert_eq!(stage.active(), "east", "followed a side that is down");
}

#[test]
fn an_observer_follows_a_rewound_node_only_on_two_answers_that_prove_it() {
    let mut observer = service(2);
    observer.failover.authority = Authority::Observe;
    let mut stage = Stage::steady_with(observer);
    stage.run(5000);
    let mut ahead = stage.facts(0);
    ahead.timeline = Some(Timeline(2));
    ahead.history = Some(vec![Ancestor { timeline: Timeline(1), switch_lsn: Lsn(7) }]);
    let once = stage.now;
    stage.hears(0, once, Verdict::Answered(Box::new(ahead.clone())));
    assert_eq!(stage.epoch(), 1, "followed on one answer");
    stage.now += 250;
    let later = stage.now;
    stage.hears(0, later, Verdict::Answered(Box::new(ahead)));
    assert_eq!((stage.active(), stage.epoch()), ("east", 2));
}

#[test]
fn a_freeze_that_comes_after_the_switchover_was_called_off_is_taken_back() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].upstream = None;
    stage.servers[0].lsn += 100;
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(20_000, |stage| stage.said("called off") && stage.is_open());
    let (episode, at) = (stage.machine.record().last_episode, stage.at());
    stage.servers[0].frozen = true;
    let late = Outcome::Frozen { episode, result: Err("sessions stay".into()) };
    stage.machine.handle_outcome(late, at);
    stage.obey();
    stage.until(10_000, |stage| stage.is_open() && !stage.servers[0].frozen);
}

#[test]
fn a_promotion_command_that_failed_is_run_again_also_where_probes_see_no_roles() {
    let mut plain = service(2);
    plain.probe.kind = ProbeKind::Tcp;
    plain.failover.promoter = Promoter::Command(vec!["promote".into()]);
    plain.failover.witness = WitnessRule::Optional;
    let mut stage = Stage::steady_with(plain);
    stage.run(5000);
    stage.servers[1].promotes = false;
    stage.servers[0].mood = Mood::Dead;
    stage.until(10_000, |stage| !stage.promotions.is_empty());
    stage.run(1000);
    stage.servers[1].promotes = true;
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_promotion_order_that_is_never_answered_is_given_again() {
    let mut plain = service(2);
    plain.failover.promote_timeout = Duration::from_secs(5);
    let mut stage = Stage::steady_with(plain);
    stage.run(5000);
    stage.loses = Some(|action| matches!(action, Action::Promote { .. }));
    stage.servers[0].mood = Mood::Dead;
    stage.until(10_000, |stage| stage.said("sent is on disk"));
    stage.loses = None;
    stage.until(30_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn before_the_first_latch_every_backend_is_heard_anew() {
    let mut stage = Stage::with(service(3));
    for standby in [1, 2] {
        (stage.servers[standby].upstream, stage.servers[standby].had_row) = (None, false);
    }
    stage.run(3000);
    assert_eq!(stage.disk.latch, None);
    stage.servers[1].mood = Mood::Hung;
    stage.sleeps(3000);
    stage.servers[2].upstream = Some(0);
    stage.run(5000);
    assert_eq!(stage.disk.latch, None, "latched although west was last heard before the sleep");
}

#[test]
fn a_candidate_that_comes_back_on_another_line_is_not_taken_for_the_promoted_one() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].promotes = false;
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| !stage.promotions.is_empty());
    let west = &mut stage.servers[1];
    (west.primary, west.timeline) = (true, 5);
    west.ancestors = vec![Ancestor { timeline: Timeline(3), switch_lsn: Lsn(9) }];
    stage.run(5000);
    assert!(!stage.is_open());
    assert_eq!(stage.active(), "east");
}

#[test]
fn a_long_sleep_closes_also_a_gate_that_a_cancelled_switchover_left_open() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.connections(0, 3);
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.disk_ok = false;
    stage.sleeps(1000);
    assert!(stage.is_open());
    stage.servers[0].mood = Mood::Hung;
    stage.sleeps(10_000);
    assert!(!stage.is_open(), "open after a sleep to a side that has not answered since");
}

#[test]
fn beside_a_proven_successor_nobody_else_is_promoted_by_command() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.promote(1);
    stage.until(5000, |stage| stage.machine.phase() == Phase::Blocked);
    for command in [Command::Switchover { to: Some("north".into()) }, failover(true)] {
        let refused = stage.command(&command).unwrap_err();
        assert_eq!(refused.code, "split_brain", "{refused}");
    }
    assert_eq!(stage.promotions.len(), 0);
}

#[test]
fn a_successor_that_appears_while_the_lock_is_taken_ends_the_episode() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.servers[0].mood = Mood::Dead;
    stage.until(2000, |stage| stage.waiting.is_some());
    let other = if stage.disk.intent.clone().unwrap().to.as_str() == "west" { 2 } else { 1 };
    // Another daemon finishes its own failover and lets the lock go; this one has heard nothing of it yet.
    stage.next_probe[other] = stage.now + 400;
    stage.promote(other);
    stage.deliver();
    stage.run(5000);
    assert_eq!(stage.promotions.len(), 0);
    assert_eq!(stage.active(), NAMES[other]);
}

#[test]
fn a_late_release_of_the_side_that_was_left_does_not_open_the_new_one() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
    // East is still marked read-only from then on, and its release does not come through, as a standby or later.
    stage.loses = Some(|action| matches!(action, Action::Unfreeze { .. } | Action::Thaw { .. }));
    stage.rebuild(0, 1);
    stage.run(10_000);
    let (before, at) = (stage.machine.record().last_episode, stage.at());
    stage.servers[0].frozen = true;
    stage.command(&failover(true)).unwrap();
    stage.until(10_000, |stage| stage.active() == "east" && stage.machine.phase() == Phase::Settling);
    assert!(!stage.is_open());
    stage.machine.handle_outcome(Outcome::Unfrozen { episode: before, result: Ok(()) }, at);
    stage.obey();
    assert!(!stage.is_open(), "opened to a side that is still read-only");
}

#[test]
fn a_standby_that_streams_on_another_timeline_by_now_is_not_promoted() {
    let mut lax = service(2);
    lax.failover.witness = WitnessRule::Optional;
    let mut stage = Stage::steady_with(lax);
    stage.run(5000);
    (stage.servers[1].upstream, stage.servers[1].timeline) = (None, 7);
    stage.servers[0].mood = Mood::Dead;
    stage.run(8000);
    assert_eq!(stage.promotions.len(), 0);
    assert_eq!(stage.view().blocked.unwrap().reason, "no candidate");
}

#[test]
fn where_all_sides_serve_one_that_recovers_again_is_waited_for() {
    let mut plain = service(2);
    plain.failover.standby_serves = true;
    plain.failover.promoter = Promoter::None;
    plain.failover.delay = Duration::from_secs(3);
    plain.probe.kind = ProbeKind::Tcp;
    let mut stage = Stage::steady_with(plain);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(10_000, |stage| stage.machine.phase() == Phase::Confirming);
    stage.servers[0].mood = Mood::Recovering;
    stage.run(10_000);
    assert_eq!(stage.active(), "east", "moved away from a side that is starting up");
}

#[test]
fn a_primary_that_dies_again_before_its_standby_came_back_is_still_replaced() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(150);
    stage.servers[0].mood = Mood::Well;
    stage.servers[1].upstream = None;
    stage.servers[1].had_row = false;
    stage.until(5000, |stage| stage.machine.phase() == Phase::Steady);
    stage.run(1000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_daemon_that_slept_discards_what_it_heard_and_proves_the_latch_again() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Hung;
    stage.run(2500);
    let at = stage.at();
    stage.machine.handle_delay(Duration::from_secs(30), at);
    stage.obey();
    assert_eq!(stage.machine.phase(), Phase::Starting);
    assert!(!stage.is_open());
    stage.servers[0].mood = Mood::Well;
    stage.until(5000, Stage::is_open);
    assert_eq!(stage.promotions.len(), 0);
}
