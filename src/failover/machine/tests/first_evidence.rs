//! T0 is the first adverse evidence, whenever it comes, and what was shown before it is no answer to a question since.

use super::bad_luck::is_sent;
use super::failover;
use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::WitnessRule;
use crate::failover::action::{Action, Command};
use crate::failover::phase::{Phase, Stage as Written};

/// Three servers; west got less than north.
fn west_behind_north(witness: WitnessRule) -> Stage {
    let mut plain = service(3);
    plain.failover.witness = witness;
    let mut stage = Stage::steady_with(plain);
    stage.run(5000);
    stage.servers[1].upstream = None;
    stage.run(2500);
    let (west, north) = (stage.servers[1].lsn, stage.servers[2].lsn);
    assert!(west < north, "{west} {north}");
    stage
}

impl Stage {
    fn loses_its_stream(&mut self, i: usize) {
        (self.servers[i].upstream, self.servers[i].had_row) = (None, false);
    }

    /// The next question to it is far away.
    fn is_not_asked(&mut self, i: usize) {
        self.next_probe[i] = self.now + 60_000;
    }
}

#[test]
fn a_better_standby_whose_stream_was_lost_before_the_first_evidence_is_asked_again_before_a_lesser_one_is_promoted() {
    for witness in [WitnessRule::Required, WitnessRule::Optional] {
        let mut stage = west_behind_north(witness);
        stage.loses_its_stream(1);
        stage.loses_its_stream(2);
        stage.run(2500);
        stage.is_not_asked(2);
        stage.servers[0].mood = Mood::Dead;
        stage.run(5000);
        assert_eq!((stage.active(), stage.promotions.len()), ("east", 0), "{witness:?}");
        assert!(!stage.said("cannot testify"), "it was not asked");
        stage.next_probe[2] = stage.now;
        stage.until(5000, |stage| stage.active() == "north" && stage.is_open());
    }
}

#[test]
fn a_lesser_standby_is_not_promoted_after_a_switchover_to_it_that_was_called_off() {
    let mut stage = west_behind_north(WitnessRule::Required);
    stage.command(&Command::Switchover { to: Some("west".into()) }).unwrap();
    stage.until(10_000, |stage| !stage.freezes.is_empty());
    stage.servers[0].mood = Mood::Hung;
    stage.loses_its_stream(1);
    stage.loses_its_stream(2);
    stage.until(10_000, |stage| stage.said("called off: west did not reach"));
    stage.is_not_asked(2);
    stage.run(3000);
    stage.next_probe[2] = stage.now;
    stage.until(5000, |stage| stage.active() == "north" && stage.is_open());
    assert_eq!(stage.promotions, ["north".into()]);
}

#[test]
fn a_primary_that_hangs_in_the_middle_of_a_switchover_is_replaced_after_it() {
    let mut stage = Stage::steady();
    stage.run(5000);
    // The freeze is lost, and waited for for longer than a standby may have been without its stream.
    stage.loses = Some(|action| matches!(action, Action::Freeze { .. }));
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(10_000, |stage| stage.disk.intent.as_ref().is_some_and(|intent| intent.stage == Written::Freezing));
    stage.servers[0].mood = Mood::Hung;
    stage.until(20_000, |stage| stage.said("called off: the old primary could not be frozen in time"));
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_primary_that_hangs_in_the_middle_of_a_forced_failover_is_replaced_after_it() {
    let mut fenced = service(2);
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    fenced.failover.fence_required = true;
    let mut stage = Stage::steady_with(fenced);
    stage.run(5000);
    stage.loses = Some(|action| matches!(action, Action::Fence { .. }));
    stage.command(&failover(true)).unwrap();
    stage.until(10_000, |stage| stage.said("rechecked: forced"));
    stage.servers[0].mood = Mood::Hung;
    stage.until(50_000, |stage| stage.said("called off: the node fence gave no answer"));
    stage.loses = None;
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_failure_in_the_middle_of_a_switchover_is_forgotten_when_the_old_side_answers_again() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.hold_write = Some(is_sent);
    stage.connections(0, 1);
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.servers[0].mood = Mood::Dead;
    stage.run(300);
    stage.servers[0].mood = Mood::Well;
    stage.until(10_000, |stage| stage.waiting.is_some());
    stage.fail_writes();
    stage.deliver();
    stage.until(1000, |stage| stage.machine.phase() != Phase::Fencing);
    assert!(matches!(stage.machine.phase(), Phase::Steady | Phase::Blocked), "{:?}", stage.machine.phase());
    stage.until(5000, |stage| stage.machine.phase() == Phase::Steady && stage.is_open());
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}
