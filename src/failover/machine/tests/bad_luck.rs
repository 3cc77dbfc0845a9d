//! The laws under bad luck, as sentences: late answers, failing disks, restarts, stale evidence.

use std::time::Duration;

use super::failover;
use super::plan::service;
use super::stage::{Mood, NAMES, Stage, address};
use crate::config::{ForeignPromotion, WitnessRule};
use crate::failover::action::Command;
use crate::failover::observation::{Evidence, Failure, Observation, Verdict};
use crate::failover::phase::{Phase, Record, Stage as Written};
use crate::types::{Lsn, Moment};

impl Stage {
    /// The daemon was stopped for so long, and hears of it.
    pub(super) fn sleeps(&mut self, ms: u64) {
        self.now += ms;
        let at = self.at();
        self.machine.handle_delay(Duration::from_millis(ms), at);
        self.obey();
    }

    /// So many clients are attached.
    pub(super) fn connections(&mut self, i: usize, live: usize) {
        let at = self.at();
        self.machine.handle_evidence(&Evidence::Connections { backend: NAMES[i].into(), live }, at);
        self.obey();
    }

    /// A probe's verdict that comes by the way.
    pub(super) fn hears(&mut self, i: usize, started: u64, verdict: Verdict) {
        let moment = |ms| Moment(Duration::from_millis(ms));
        let seen = Observation {
            backend: NAMES[i].into(),
            address: address(i),
            started: moment(started),
            finished: moment(self.now),
            fresh: true,
            verdict,
        };
        let at = self.at();
        self.machine.handle_observation(&seen, at);
        self.obey();
    }
}

#[test]
fn after_a_long_sleep_traffic_waits_until_the_latched_side_answers_anew() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Hung;
    stage.sleeps(30_000);
    stage.run(4000);
    assert!(!stage.is_open(), "opened to a side that has not answered since the sleep");
    stage.servers[0].mood = Mood::Well;
    stage.until(5000, Stage::is_open);
}

#[test]
fn failures_from_before_a_sleep_do_not_count_after_it() {
    let mut stage = Stage::steady();
    stage.run(5000);
    let before = stage.now;
    stage.servers[0].mood = Mood::CutOff;
    stage.sleeps(1500);
    for _ in 0..3 {
        stage.hears(0, before, Verdict::Failed(Failure::TimedOut));
    }
    assert_eq!(stage.view().backends[0].health, "unknown");
}

#[test]
fn a_failover_whose_write_was_under_way_during_a_sleep_is_not_carried_out() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.hold_write = Some(is_sent);
    stage.servers[0].mood = Mood::Dead;
    stage.until(2000, |stage| stage.waiting.is_some());
    stage.sleeps(1500);
    stage.servers[0].mood = Mood::Well;
    stage.deliver();
    stage.run(5000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
    assert!(stage.is_open());
}

#[test]
fn an_intent_whose_write_failed_closes_the_old_side_until_the_disk_says_it_is_gone() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.disk_ok = false;
    stage.disk_lies = true;
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.servers[0].mood = Mood::Dead;
    stage.until(2000, |stage| stage.waiting.is_some());
    stage.disk_lies = false;
    stage.servers[0].mood = Mood::Well;
    stage.deliver();
    stage.run(10_000);
    assert!(stage.disk.intent.is_some() && !stage.is_open());
    assert_eq!(stage.view().blocked.unwrap().reason, "disk");
    stage.disk_ok = true;
    stage.until(5000, |stage| stage.is_open() && stage.machine.phase() == Phase::Steady);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}

#[test]
fn a_pause_while_the_latch_is_being_written_neither_undoes_it_nor_is_lost() {
    for resume in [false, true] {
        let mut stage = Stage::steady();
        stage.run(5000);
        if resume {
            stage.command(&Command::Pause).unwrap();
        }
        stage.hold_write = Some(|record| record.latch.as_ref().is_some_and(|latch| latch.epoch.0 == 2));
        stage.command(&failover(true)).unwrap();
        stage.until(5000, |stage| stage.waiting.is_some());
        stage.command(if resume { &Command::Resume } else { &Command::Pause }).unwrap();
        stage.deliver();
        stage.run(100);
        assert_eq!(stage.active(), "west");
        assert_eq!(stage.disk, *stage.machine.record());
        assert_eq!(stage.disk.paused.is_none(), resume);
    }
}

#[test]
fn a_pause_while_a_cancellation_is_being_written_does_not_bring_the_intent_back() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].upstream = None;
    stage.servers[0].lsn += 100;
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(10_000, |stage| stage.disk.intent.is_some());
    stage.hold_write = Some(|record| record.intent.is_none());
    stage.until(20_000, |stage| stage.waiting.is_some());
    stage.command(&Command::Pause).unwrap();
    stage.deliver();
    stage.run(1000);
    assert_eq!(stage.disk.intent, None);
    assert!(stage.disk.paused.is_some());
}

#[test]
fn a_pause_that_could_not_be_written_is_written_when_the_disk_is_well_again() {
    let mut stage = Stage::steady();
    stage.disk_ok = false;
    stage.command(&Command::Pause).unwrap();
    stage.run(3000);
    assert!(stage.disk.paused.is_none());
    stage.disk_ok = true;
    stage.run(3000);
    assert!(stage.disk.paused.is_some());
    stage.restart(100);
    stage.until(5000, |stage| stage.machine.phase() == Phase::Paused);
}

#[test]
fn a_switchover_that_could_not_be_sent_leaves_the_budget_alone() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    stage.rebuild(0, 1);
    stage.run(15_000);
    assert_eq!(stage.machine.record().spent.len(), 1);
    stage.hold_write = Some(is_sent);
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(20_000, |stage| stage.waiting.is_some());
    stage.fail_writes();
    stage.deliver();
    stage.run(10_000);
    assert_eq!((stage.active(), stage.machine.record().spent.len()), ("west", 1));
}

#[test]
fn an_adoption_cut_short_by_a_restart_is_proven_again_before_it_is_latched() {
    let mut stage = Stage::with(service(2));
    stage.promote(1);
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.command(&Command::Adopt { backend: "west".into() }).unwrap();
    assert!(stage.waiting.is_some());
    stage.restart(100);
    stage.until(10_000, Stage::is_open);
    let latch = stage.disk.latch.clone().unwrap();
    assert_eq!(latch.active.as_str(), "west");
    assert!(latch.identity.is_some(), "latched without knowing who it is");
}

#[test]
fn a_follower_restarted_in_the_middle_does_not_latch_a_side_that_is_no_longer_primary() {
    let mut follow = service(2);
    follow.failover.foreign_promotion = Some(ForeignPromotion::Follow);
    let mut stage = Stage::steady_with(follow);
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.promote(1);
    stage.until(5000, |stage| stage.waiting.is_some());
    stage.rebuild(1, 0);
    stage.restart(100);
    stage.run(30_000);
    assert_eq!(stage.active(), "east");
    assert!(stage.is_open());
}

#[test]
fn a_promotion_that_was_undone_while_its_adoption_was_being_written_is_not_latched() {
    let mut follow = service(2);
    follow.failover.foreign_promotion = Some(ForeignPromotion::Follow);
    let mut stage = Stage::steady_with(follow);
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.promote(1);
    stage.until(5000, |stage| stage.waiting.is_some());
    stage.rebuild(1, 0);
    stage.run(2000);
    stage.deliver();
    stage.run(10_000);
    assert_eq!(stage.active(), "east");
    assert!(stage.is_open());
}

#[test]
fn after_a_restart_in_the_middle_of_an_episode_a_successor_is_looked_for_before_opening() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.command(&Command::Switchover { to: Some("west".into()) }).unwrap();
    stage.promote(2);
    stage.disk_ok = false;
    stage.restart(100);
    // East is heard first, and north, which somebody promoted meanwhile, a moment later.
    stage.next_probe[2] = stage.now + 1800;
    stage.run(200);
    stage.disk_ok = true;
    stage.run(1500);
    assert!(!stage.is_open(), "opened before every backend was heard");
}

#[test]
fn a_promotion_finished_after_a_restart_opens_only_when_no_other_successor_is_there() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.hold_write = Some(is_sent);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.waiting.is_some());
    stage.promote(1);
    // Somebody went on from west to north, and this daemon hears of it last.
    stage.rebuild(2, 1);
    stage.promote(2);
    stage.servers[2].mood = Mood::Hung;
    stage.restart(100);
    stage.run(900);
    assert!(!stage.is_open(), "opened before every backend was heard");
}

#[test]
fn a_side_that_was_called_off_after_sent_proves_itself_before_traffic_returns() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].promotes = false;
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| !stage.promotions.is_empty());
    stage.servers[1].mood = Mood::Hung;
    stage.until(20_000, |stage| stage.view().backends[1].health == "down");
    stage.command(&Command::Abandon { backend: "west".into() }).unwrap();
    stage.run(5000);
    assert!(!stage.is_open(), "opened to a side that is dead");
    stage.servers[0].mood = Mood::Well;
    stage.until(5000, Stage::is_open);
    assert_eq!((stage.active(), stage.epoch()), ("east", 1));
}

#[test]
fn a_latched_side_that_turns_standby_before_the_start_checks_end_is_cut() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.sleeps(3000);
    stage.servers[0].primary = false;
    stage.next_probe[1] = stage.now + 3000;
    stage.run(500);
    assert_eq!(stage.cuts, ["east".into()]);
}

#[test]
fn a_latched_side_that_turns_standby_while_it_is_drained_is_cut_at_once() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.connections(0, 3);
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.run(100);
    assert!(stage.cuts.is_empty());
    stage.servers[0].primary = false;
    stage.run(500);
    assert_eq!(stage.cuts, ["east".into()]);
}

#[test]
fn the_latched_node_on_another_line_of_the_same_number_gets_not_one_byte() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.command(&failover(true)).unwrap();
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    // Rebuilt from the old primary and promoted by hand: timeline 2 once more, but not that one.
    stage.servers[1].ancestors[0].switch_lsn = Lsn(5);
    stage.until(5000, |stage| !stage.is_open());
    assert!(stage.cuts.contains(&"west".into()));
    assert_eq!(stage.view().blocked.unwrap().reason, "latch unproven");
}

#[test]
fn a_standby_that_never_followed_the_latched_timeline_is_not_promoted() {
    let mut three = service(3);
    three.failover.cooldown = Duration::ZERO;
    let mut stage = Stage::steady_with(three);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() != "east" && stage.is_open());
    let first = Stage::index(&stage.active().into());
    stage.run(1000);
    stage.servers[first].mood = Mood::Dead;
    stage.run(8000);
    assert_eq!(stage.promotions.len(), 1, "{:?}", stage.promotions);
}

#[test]
fn a_rebuilt_primary_is_measured_by_its_new_line() {
    let mut short = service(2);
    short.failover.cooldown = Duration::ZERO;
    let mut stage = Stage::steady_with(short);
    stage.run(5000);
    let behind = stage.servers[1].lsn;
    stage.servers[0].lsn += 1 << 30;
    stage.run(3000);
    stage.servers[0].mood = Mood::Dead;
    stage.servers[1].lsn = behind;
    stage.until(20_000, |stage| stage.machine.phase() == Phase::Blocked);
    stage.command(&failover(true)).unwrap();
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
    stage.rebuild(0, 1);
    stage.run(15_000);
    stage.command(&Command::Restore { to: None, force: false }).unwrap();
    stage.until(10_000, |stage| stage.active() == "east" && stage.is_open());
    stage.rebuild(1, 0);
    stage.run(15_000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_second_restart_on_purpose_is_waited_for_as_long_as_the_first() {
    let mut stage = Stage::steady();
    stage.run(5000);
    for pause in [3000, 6000] {
        stage.servers[0].mood = Mood::ShuttingDown;
        stage.run(pause);
        stage.servers[0].mood = Mood::Well;
        stage.run(15_000);
    }
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}

#[test]
fn the_standby_with_more_log_is_waited_for_until_it_notices_the_silence() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    // West has not noticed yet, and has more.
    stage.servers[1].upstream = None;
    stage.servers[1].lsn += 50;
    stage.until(10_000, |stage| !stage.promotions.is_empty());
    assert_eq!(stage.promotions, ["west".into()]);
}

#[test]
fn a_standby_with_more_log_is_asked_before_a_lesser_one_is_promoted() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    // North has more and lost its stream a moment ago.
    (stage.servers[2].upstream, stage.servers[2].had_row) = (None, false);
    stage.servers[2].lsn += 5000;
    stage.run(2500);
    stage.servers[0].mood = Mood::Dead;
    for _ in 0..40 {
        // It is asked last.
        stage.next_probe[2] = stage.now + 100;
        stage.run(10);
    }
    stage.until(10_000, |stage| !stage.promotions.is_empty());
    assert_eq!(stage.promotions, ["north".into()]);
}

#[test]
fn a_replay_backlog_is_shown_with_the_time_that_it_takes() {
    let mut stage = Stage::steady();
    stage.run(5000);
    for replayed in [400_000, 500_000] {
        stage.now += 1000;
        let mut facts = stage.facts(1);
        (facts.lsn, facts.replay_lsn) = (Some(Lsn(1_000_000)), Some(Lsn(replayed)));
        stage.hears(1, stage.now, Verdict::Answered(Box::new(facts)));
    }
    let shown = &stage.view().backends[1];
    assert_eq!((shown.replay_backlog_bytes, shown.replay_backlog_ms), (Some(500_000), Some(5000)));
}

#[test]
fn a_standby_that_nobody_streams_to_is_not_armed() {
    let mut stage = Stage::steady();
    stage.run(5000);
    assert!(stage.view().backends[1].armed);
    (stage.servers[1].upstream, stage.servers[1].had_row) = (None, false);
    stage.run(3000);
    let shown = stage.view();
    assert!(!shown.backends[1].armed && shown.backends[1].unarmed_why[0].contains("streams"), "{shown:#?}");
}

#[test]
fn a_standby_that_gets_new_log_outweighs_one_that_gets_heartbeats() {
    let mut fenced = service(3);
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    let mut stage = Stage::steady_with(fenced);
    stage.run(5000);
    stage.servers[0].mood = Mood::CutOff;
    stage.servers[1].upstream = None;
    for _ in 0..250 {
        stage.run(100);
        stage.servers[1].last_message = stage.now;
    }
    assert_eq!((stage.fenced.len(), stage.promotions.len()), (0, 0));
    assert_eq!(stage.view().blocked.unwrap().reason, "witness alive");
}

#[test]
fn an_optional_witness_that_hears_the_primary_still_refuses_a_plain_failover() {
    let mut lax = service(2);
    lax.failover.witness = WitnessRule::Optional;
    let mut stage = Stage::steady_with(lax);
    stage.run(5000);
    stage.servers[0].mood = Mood::CutOff;
    stage.until(20_000, |stage| stage.machine.phase() == Phase::Blocked);
    let refused = stage.command(&failover(false)).unwrap_err();
    assert_eq!(refused.code, "witness_alive");
}

#[test]
fn a_standby_that_stopped_streaming_long_ago_is_not_promoted_on_a_plain_command() {
    let mut lax = service(2);
    lax.failover.witness = WitnessRule::Optional;
    let mut stage = Stage::steady_with(lax);
    stage.run(5000);
    (stage.servers[1].upstream, stage.servers[1].had_row) = (None, false);
    stage.run(60_000);
    stage.servers[0].primary = false;
    stage.run(3000);
    let refused = stage.command(&failover(false)).unwrap_err();
    assert_eq!(refused.code, "no_candidate", "{refused}");
}

pub(super) fn is_sent(record: &Record) -> bool {
    record.intent.as_ref().is_some_and(|intent| intent.stage == Written::Sent)
}
