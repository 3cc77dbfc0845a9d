//! T0 is the first adverse evidence, whenever it comes, and what was shown before it is no answer to a question since.

use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::WitnessRule;
use crate::failover::action::Command;

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
