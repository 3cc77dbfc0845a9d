//! Words that were overtaken: what was heard earlier must not outweigh what was heard, decided or discarded since.

use super::bad_luck::is_sent;
use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::{Authority, ProbeKind, Promoter, WitnessRule};
use crate::failover::action::{Command, Outcome};
use crate::failover::observation::{Ancestor, Facts, Failure, Receiver, Role, Verdict};
use crate::failover::phase::{Phase, Record, Stage as IntentStage};
use crate::types::{Lsn, Timeline};

#[test]
fn without_identities_a_side_whose_newest_probe_failed_is_not_followed() {
    let mut stage = Stage::steady_with(super::primary_only::service(2));
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.promote(1);
    stage.next_probe[1] = stage.now + 60_000;
    for _ in 0..2 {
        stage.run(100);
        let facts = Facts { role: Role::Primary, ..Facts::default() };
        stage.hears(1, stage.now, Verdict::Answered(Box::new(facts)));
    }
    stage.servers[1].mood = Mood::Dead;
    stage.run(100);
    stage.hears(1, stage.now, Verdict::Failed(Failure::Refused));
    stage.until(5000, |stage| stage.view().backends[0].health == "down");
    assert_eq!(stage.view().backends[1].health, "up");
    assert_eq!(stage.active(), "east", "moved to a side that refuses");
}

#[test]
fn where_all_sides_serve_traffic_does_not_move_to_one_whose_newest_probe_failed() {
    let mut plain = service(2);
    plain.failover.standby_serves = true;
    plain.failover.promoter = Promoter::None;
    plain.probe.kind = ProbeKind::Tcp;
    let mut stage = Stage::steady_with(plain);
    stage.run(5000);
    stage.next_probe[1] = stage.now + 60_000;
    stage.hears(1, stage.now, Verdict::Failed(Failure::Refused));
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.view().backends[0].health == "down");
    stage.run(1000);
    assert_eq!((stage.active(), stage.view().backends[1].health.as_str()), ("east", "up"));
    let to = Some("west".into());
    let refused = stage.command(&Command::Failover { to, force: true, route_only: true, at: None }).unwrap_err();
    assert_eq!(refused.code, "unfit", "{refused}");
    stage.next_probe[1] = stage.now;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_refusal_that_was_overtaken_by_an_answer_is_no_first_evidence() {
    let mut stage = Stage::steady();
    stage.run(5000);
    let before = stage.now - 20;
    stage.hears(0, stage.now, Verdict::Answered(Box::new(stage.facts(0))));
    stage.hears(0, before, Verdict::Failed(Failure::Refused));
    assert_eq!(stage.machine.phase(), Phase::Steady);
}

#[test]
fn newcomers_are_not_held_for_a_recovery_that_is_over() {
    let mut stage = Stage::steady();
    stage.run(5000);
    let before = stage.now - 20;
    stage.hears(0, stage.now, Verdict::Answered(Box::new(stage.facts(0))));
    stage.hears(0, before, Verdict::Recovering);
    assert!(stage.view().open);
    assert_eq!(stage.machine.phase(), Phase::Steady);
}

#[test]
fn an_answer_from_before_a_refusal_does_not_make_a_candidate_of_a_dead_standby() {
    let mut stage = Stage::steady();
    stage.run(5000);
    let before = stage.now - 10;
    let facts = stage.facts(1);
    stage.servers[1].mood = Mood::Dead;
    stage.run(10_000);
    assert_eq!(stage.view().backends[1].health, "down");
    for _ in 0..3 {
        stage.hears(1, before, Verdict::Answered(Box::new(facts.clone())));
    }
    assert_eq!(stage.view().backends[1].health, "down");
}

#[test]
fn a_claim_from_before_the_latch_changed_is_proven_anew_before_it_is_followed() {
    let mut observer = service(2);
    observer.failover.authority = Authority::Observe;
    let mut stage = Stage::steady_with(observer);
    stage.run(5000);
    stage.hold_write = Some(|record| record.latch.as_ref().is_some_and(|latch| latch.epoch.0 == 2));
    stage.promote(1);
    stage.until(5000, |stage| stage.waiting.is_some());
    // East is taken back to be primary on a line that goes on from the one that is being latched.
    let east = &mut stage.servers[0];
    east.timeline = 3;
    east.ancestors = [1, 2].map(|n| Ancestor { timeline: Timeline(n), switch_lsn: Lsn(9) }).to_vec();
    stage.servers[0].ancestors[0] = stage.servers[1].ancestors[0];
    stage.run(1000);
    stage.deliver();
    assert_eq!((stage.active(), stage.machine.record().last_episode.0), ("west", 2));
    stage.until(3000, |stage| stage.active() == "east");
}

#[test]
fn a_reason_from_before_a_sleep_is_not_shown_after_it() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::CutOff;
    stage.until(20_000, |stage| stage.machine.phase() == Phase::Blocked);
    stage.sleeps(5000);
    assert_eq!(stage.machine.phase(), Phase::Starting);
}

#[test]
fn a_candidate_that_follows_another_line_by_now_is_not_promoted() {
    let kinds: [fn(&Record) -> bool; 2] = [|record| record.intent.is_some(), is_sent];
    for kind in kinds {
        let mut stage = Stage::steady();
        stage.run(5000);
        stage.hold_write = Some(kind);
        stage.servers[0].mood = Mood::Dead;
        stage.until(2000, |stage| stage.waiting.is_some());
        // People rebuild it from an older server.
        let west = &mut stage.servers[1];
        (west.upstream, west.timeline, west.had_row) = (None, 7, true);
        stage.run(500);
        stage.deliver();
        stage.run(5000);
        assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
        assert!(stage.said("west streams on timeline 7"));
    }
}

#[test]
fn a_promotion_is_not_ordered_again_of_a_side_that_follows_another_line_by_now() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].promotes = false;
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.promotions.len() == 1);
    let west = &mut stage.servers[1];
    (west.upstream, west.timeline, west.had_row) = (None, 7, true);
    stage.run(10_000);
    assert_eq!(stage.promotions.len(), 1);
    assert_eq!((stage.active(), stage.is_open()), ("east", false));
}

#[test]
fn a_failed_write_that_is_answered_late_says_nothing_about_the_disk() {
    let mut stage = Stage::steady();
    stage.waiting = Some(Vec::new());
    stage.command(&Command::Pause).unwrap();
    let pause = stage.waiting.take().unwrap().pop().unwrap();
    stage.command(&Command::Resume).unwrap();
    let Outcome::Persisted { ticket, .. } = pause else { panic!("{pause:?}") };
    let at = stage.at();
    stage.machine.handle_outcome(Outcome::Persisted { ticket, result: Err("input/output error".into()) }, at);
    assert_eq!(stage.machine.disk_error(), None);
}

#[test]
fn a_standby_that_has_not_answered_since_it_refused_is_not_promoted() {
    let mut lax = service(2);
    lax.failover.witness = WitnessRule::Optional;
    let mut stage = Stage::steady_with(lax);
    stage.run(5000);
    stage.next_probe[1] = stage.now + 60_000;
    stage.servers[1].unreadable = true;
    stage.hears(1, stage.now, Verdict::Answered(Box::new(stage.facts(1))));
    stage.hears(1, stage.now + 1, Verdict::Failed(Failure::Refused));
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.machine.phase() == Phase::Blocked);
    assert_eq!(stage.promotions.len(), 0);
    stage.next_probe[1] = stage.now;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_standby_that_hears_the_primary_again_while_the_intent_is_written_ends_the_failover() {
    let mut patient = service(2);
    patient.probe.fall = 10;
    let mut stage = Stage::steady_with(patient);
    stage.run(5000);
    stage.command(&Command::Pause).unwrap();
    stage.servers[0].mood = Mood::Dead;
    stage.run(1000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.command(&Command::Resume).unwrap();
    stage.until(2000, |stage| stage.waiting.is_some());
    // It is back, and this daemon has only the standby's word so far.
    stage.servers[0].mood = Mood::CutOff;
    stage.run(30);
    (stage.servers[1].last_message, stage.servers[1].lsn) = (stage.now, stage.servers[1].lsn + 50);
    stage.hears(1, stage.now, Verdict::Answered(Box::new(stage.facts(1))));
    stage.deliver();
    stage.run(1000);
    assert_eq!(stage.promotions.len(), 0);
    assert!(stage.said("receives from east again"));
}

#[test]
fn a_standby_that_streamed_on_another_line_since_is_not_promoted_when_that_stream_is_gone() {
    let mut lax = service(2);
    lax.failover.witness = WitnessRule::Optional;
    let mut stage = Stage::steady_with(lax);
    stage.run(5000);
    (stage.servers[1].upstream, stage.servers[1].timeline) = (None, 7);
    stage.run(2500);
    stage.servers[1].had_row = false;
    stage.servers[0].mood = Mood::Dead;
    stage.run(5000);
    assert_eq!(stage.promotions.len(), 0);
}

#[test]
fn a_side_that_was_primary_when_it_last_let_us_in_is_neither_adopted_nor_followed() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.promote(1);
    stage.until(5000, |stage| stage.machine.phase() == Phase::Blocked);
    stage.servers[1].mood = Mood::Full;
    stage.run(15_000);
    let refused = stage.command(&Command::Adopt { backend: "west".into() }).unwrap_err();
    assert_eq!(refused.code, "not_primary", "{refused}");
    stage.servers[0].mood = Mood::Dead;
    stage.run(10_000);
    assert_eq!(stage.active(), "east");
    stage.servers[1].mood = Mood::Well;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn nobody_is_promoted_while_a_third_server_that_may_be_primary_by_now_does_not_answer() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.servers[1].mood = Mood::Hung;
    stage.run(10_000);
    // Another daemon promotes it; its probes hang, and its lock is free again.
    stage.promote(1);
    stage.command(&Command::Switchover { to: Some("north".into()) }).unwrap();
    stage.run(30_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}

#[test]
fn a_second_primary_that_shows_another_line_stays_one_beside_which_nobody_is_promoted() {
    let rival = |changes: Option<u64>| {
        let mut stage = Stage::steady_with(service(3));
        stage.run(5000);
        stage.promote(2);
        stage.until(5000, |stage| stage.said("north is primary too"));
        stage.servers[0].mood = Mood::Hung;
        while stage.disk.intent.is_none() && stage.active() == "east" {
            stage.run(10);
            assert!(stage.now < 1_060_000, "nothing came of it");
            if Some(stage.now) == changes {
                // People restored it from a backup and promoted it anew.
                let north = &mut stage.servers[2];
                (north.timeline, north.lsn) = (3, 500);
                north.ancestors = vec![Ancestor { timeline: Timeline(1), switch_lsn: Lsn(500) }];
            }
        }
        stage
    };
    let decides = rival(None).now;
    for early in (0..600).step_by(20) {
        let mut stage = rival(Some(decides - early));
        stage.run(5000);
        assert!(!stage.said("failover from east"), "{early} ms before the verdict");
        assert_eq!((stage.active(), stage.promotions.len()), ("north", 0));
    }
}

#[test]
fn a_switchover_ends_when_another_server_answers_for_the_old_side_before_it_is_sent() {
    let kinds: [fn(&Record) -> bool; 3] = [
        |record| record.intent.is_some(),
        |record| record.intent.as_ref().is_some_and(|intent| intent.stage == IntentStage::Freezing),
        is_sent,
    ];
    for kind in kinds {
        let mut stage = Stage::steady();
        stage.run(5000);
        stage.hold_write = Some(kind);
        stage.command(&Command::Switchover { to: None }).unwrap();
        stage.until(5000, |stage| stage.waiting.is_some());
        // People put another server in its place: that one's position says nothing of the line that west follows.
        (stage.servers[0].system, stage.servers[0].lsn) = (78, 500);
        stage.run(500);
        stage.deliver();
        stage.run(5000);
        assert_eq!((stage.active(), stage.promotions.len(), stage.is_open()), ("east", 0, false));
        assert!(stage.said("called off: east is not the server that was latched"));
    }
}

#[test]
fn nobody_is_promoted_beside_one_that_followed_the_latched_line_below_another_standby_and_hides_its_history() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.command(&Command::Switchover { to: Some("west".into()) }).unwrap();
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    stage.rebuild(0, 1);
    stage.rebuild(2, 1);
    stage.next_probe[2] = stage.now + 60_000;
    stage.run(3000);
    let mut below = stage.facts(2);
    if let Receiver::Row(row) = &mut below.receiver {
        row.sender = Some(stage.servers[0].node.clone());
    }
    stage.hears(2, stage.now, Verdict::Answered(Box::new(below)));
    stage.promote(2);
    let mut promoted = stage.facts(2);
    promoted.history = None;
    for _ in 0..2 {
        stage.run(300);
        stage.hears(2, stage.now, Verdict::Answered(Box::new(promoted.clone())));
    }
    let refused = stage.command(&Command::Switchover { to: Some("east".into()) }).unwrap_err();
    assert_eq!(refused.code, "split_brain", "{refused}");
}
