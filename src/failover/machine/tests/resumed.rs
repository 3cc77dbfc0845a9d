//! What was open when the daemon ended, or is ordered again: never on less than the first time, never beside a successor.

use super::bad_luck::is_sent;
use super::failover;
use super::plan::service;
use super::stage::{Mood, NAMES, Stage};
use crate::failover::action::{Command, LockResult, Outcome};
use crate::failover::observation::{Failure, Verdict};
use crate::failover::phase::{Phase, Record};

/// East is dead, `sent` is on disk, and the daemon has not lived to order anything.
fn sent(backends: usize) -> Stage {
    ended_at(backends, is_sent)
}

/// The intent is on disk and no more.
fn decided() -> Stage {
    ended_at(2, |record| record.intent.is_some())
}

fn ended_at(backends: usize, write: fn(&Record) -> bool) -> Stage {
    let mut stage = Stage::steady_with(service(backends));
    stage.run(5000);
    stage.hold_write = Some(write);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.waiting.is_some());
    stage
}

fn target(stage: &Stage) -> usize {
    Stage::index(&stage.disk.intent.clone().unwrap().to)
}

fn blocked(stage: &Stage) -> String {
    stage.view().blocked.map(|blocked| blocked.reason).unwrap_or_default()
}

#[test]
fn a_promotion_that_was_sent_before_a_restart_is_finished_under_the_lock() {
    let mut stage = sent(2);
    stage.restart(300);
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.promotions, ["west".into()]);
    let at = |word: &str| stage.log.iter().position(|line| line.contains(word)).unwrap();
    assert!(at(" Lock ") < at(" Promote "), "{:#?}", stage.log);
    assert_eq!(stage.unlocks, 1);
}

#[test]
fn a_candidate_that_was_promoted_before_the_restart_proves_itself_and_is_not_ordered_again() {
    let mut stage = sent(2);
    stage.promote(1);
    stage.restart(300);
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.promotions.len(), 0);
}

#[test]
fn a_promotion_that_was_sent_is_not_ordered_where_traffic_came_home_on_a_newer_line_since() {
    let mut stage = sent(2);
    // Another daemon finished it, and restored later.
    stage.promote(1);
    stage.rebuild(0, 1);
    stage.promote(0);
    stage.rebuild(1, 0);
    stage.restart(3_600_000);
    stage.run(20_000);
    assert_eq!(stage.promotions.len(), 0);
    assert_eq!((stage.disk.intent.clone(), stage.is_open(), blocked(&stage).as_str()), (None, false, "rewound"));
    stage.command(&Command::Adopt { backend: "east".into() }).unwrap();
    stage.until(5000, |stage| stage.is_open() && stage.epoch() == 2);
}

#[test]
fn a_promotion_that_was_sent_is_not_ordered_beside_another_standby_that_was_promoted_since() {
    let mut stage = sent(3);
    let to = target(&stage);
    let other = 3 - to;
    stage.promote(other);
    stage.restart(300);
    stage.run(5000);
    assert_eq!((stage.promotions.len(), blocked(&stage).as_str()), (0, "split brain"));
    let said = stage.view().blocked.unwrap().sentence;
    for typed in [format!("proxyctl abandon {}", NAMES[to]), format!("proxyctl adopt {}", NAMES[other])] {
        assert!(said.contains(&typed), "{said}");
    }
    stage.command(&Command::Abandon { backend: NAMES[to].into() }).unwrap();
    stage.until(10_000, |stage| stage.active() == NAMES[other] && stage.is_open());
    assert_eq!(stage.promotions.len(), 0);
}

#[test]
fn a_promotion_that_was_sent_waits_for_every_backend_that_can_be_heard() {
    let mut stage = sent(2);
    stage.servers[0].mood = Mood::Hung;
    stage.restart(300);
    stage.run(900);
    assert_eq!(stage.promotions.len(), 0, "ordered before east was asked");
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_promotion_that_was_sent_only_watches_while_another_daemon_holds_the_lock() {
    let mut stage = sent(2);
    stage.servers[1].locked_by_other = true;
    stage.restart(300);
    stage.run(10_000);
    assert_eq!((stage.promotions.len(), stage.active()), (0, "east"));
    let said = stage.events.iter().filter(|event| event.sentence.contains("another daemon holds the lock")).count();
    assert_eq!(said, 1);
    assert!(stage.view().evidence.contains("another daemon holds the lock"), "{}", stage.view().evidence);
    stage.servers[1].locked_by_other = false;
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn after_the_lock_was_lost_nothing_is_ordered_again_until_it_is_held_again() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].promotes = false;
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.promotions.len() == 1);
    let (episode, at) = (stage.machine.record().last_episode, stage.at());
    stage.servers[1].locked_by_other = true;
    let result = LockResult::Failed("a session that held it ended".into());
    stage.machine.handle_outcome(Outcome::Locked { episode, result }, at);
    stage.obey();
    stage.run(20_000);
    assert_eq!(stage.promotions.len(), 1);
    stage.servers[1].locked_by_other = false;
    stage.servers[1].promotes = true;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.promotions.len(), 2);
}

#[test]
fn a_promotion_is_not_ordered_again_beside_a_successor() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.servers[1].promotes = false;
    stage.servers[2].promotes = false;
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.promotions.len() == 1);
    let other = 3 - target(&stage);
    stage.promote(other);
    stage.run(20_000);
    assert_eq!((stage.promotions.len(), blocked(&stage).as_str()), (1, "split brain"));
}

#[test]
fn an_intent_that_is_hours_old_is_called_off_after_a_restart() {
    let mut stage = decided();
    (stage.servers[1].upstream, stage.servers[1].had_row) = (None, false);
    stage.servers[0].mood = Mood::Hung;
    stage.restart(3 * 3_600_000);
    stage.run(1200);
    stage.servers[0].mood = Mood::Well;
    stage.until(10_000, Stage::is_open);
    stage.run(20_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}

#[test]
fn one_failed_probe_after_a_restart_does_not_carry_an_intent_further() {
    let mut stage = decided();
    (stage.servers[1].upstream, stage.servers[1].had_row) = (None, false);
    stage.servers[0].mood = Mood::Hung;
    stage.restart(300);
    stage.run(300);
    stage.hears(0, stage.now - 1, Verdict::Failed(Failure::TimedOut));
    stage.run(200);
    stage.servers[0].mood = Mood::Well;
    stage.until(10_000, Stage::is_open);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}

#[test]
fn an_intent_is_carried_further_after_a_restart_when_the_old_side_is_down_again() {
    let mut stage = decided();
    stage.restart(300);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!((stage.promotions.len(), stage.epoch()), (1, 2));
}

#[test]
fn an_intent_whose_candidate_is_not_fit_any_more_is_called_off_after_a_restart() {
    let mut stage = decided();
    (stage.servers[1].upstream, stage.servers[1].had_row, stage.servers[1].system) = (None, false, 99);
    stage.restart(300);
    stage.run(20_000);
    assert_eq!(stage.promotions.len(), 0);
    assert!(stage.said("belongs to another system"));
}

#[test]
fn an_intent_is_not_carried_further_after_a_restart_while_decisions_are_paused() {
    let mut stage = decided();
    stage.command(&Command::Pause).unwrap();
    stage.restart(300);
    stage.run(20_000);
    assert_eq!((stage.promotions.len(), stage.active()), (0, "east"));
}

#[test]
fn a_forced_failover_that_is_taken_up_after_a_restart_waits_for_its_candidate() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.command(&failover(true)).unwrap();
    stage.restart(300);
    assert_eq!(stage.machine.phase(), Phase::Fencing);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert!(!stage.said("called off"));
}

#[test]
fn a_promotion_that_was_sent_is_not_ordered_of_a_side_whose_stream_on_another_line_is_gone() {
    let mut stage = sent(2);
    let west = &mut stage.servers[1];
    (west.upstream, west.timeline, west.had_row) = (None, 7, true);
    stage.restart(300);
    stage.run(3000);
    stage.servers[1].had_row = false;
    stage.run(10_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}
