//! What was seen too long ago, or was not seen at all, decides nothing.

use std::time::Duration;

use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::Authority;
use crate::failover::action::{Action, Command, Outcome};
use crate::failover::observation::{Ancestor, Receiver, Role, SyncState, Unknown, Verdict};
use crate::failover::phase::{EpisodeId, Phase};
use crate::types::{Lsn, Timeline};

fn began(stage: &Stage) -> bool {
    stage.machine.record().last_episode > EpisodeId(1)
}

#[test]
fn a_dead_primary_is_not_replaced_on_a_sample_of_its_standby_that_is_older_than_the_last_look_may_be() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(130);
    stage.hears(1, stage.now, Verdict::Answered(Box::new(stage.facts(1))));
    stage.next_probe[1] = stage.now + 350;
    stage.run(340);
    assert!(!began(&stage), "decided on a sample that is more than 100 ms old");
    stage.until(100, began);
}

#[test]
fn a_dead_primary_is_not_replaced_on_a_connect_that_is_older_than_the_last_look_may_be() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].had_row = true;
    stage.next_probe[1] = stage.now + 100_000;
    stage.servers[0].mood = Mood::Dead;
    stage.run(310);
    stage.next_probe[0] = stage.now + 350;
    stage.run(200);
    stage.hears(1, stage.now, Verdict::Answered(Box::new(stage.facts(1))));
    assert!(!began(&stage), "decided on a connect that is more than 100 ms old");
    stage.next_probe[1] = stage.now;
    stage.until(300, began);
}

#[test]
fn a_standby_whose_stream_is_back_while_the_intent_is_written_is_not_promoted() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.is_some());
    stage.servers[0].mood = Mood::Dead;
    stage.until(2000, |stage| stage.waiting.is_some());
    // A stream again, in which nothing has been sent since.
    stage.servers[1].had_row = true;
    let facts = stage.facts(1);
    stage.servers[1].had_row = false;
    stage.next_probe[1] = stage.now + 60_000;
    stage.hears(1, stage.now, Verdict::Answered(Box::new(facts)));
    stage.deliver();
    stage.run(1000);
    assert_eq!(stage.promotions.len(), 0);
}

fn optional_fence() -> Stage {
    let mut fenced = service(2);
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    let mut stage = Stage::steady_with(fenced);
    stage.loses = Some(|action| matches!(action, Action::Fence { .. }));
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(2000, |stage| stage.said("rechecked"));
    stage
}

fn fence_ends(stage: &mut Stage, result: Result<(), String>) {
    let episode = stage.machine.record().last_episode;
    let at = stage.at();
    stage.machine.handle_outcome(Outcome::Fenced { episode, result }, at);
    stage.obey();
}

#[test]
fn after_a_long_fence_that_failed_the_old_side_is_looked_at_again_and_not_fenced_again() {
    let mut stage = optional_fence();
    stage.servers[0].mood = Mood::Well;
    stage.run(5000);
    fence_ends(&mut stage, Err("timed out".into()));
    stage.run(5000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
    assert!(stage.said("east answers again"));

    let mut stage = optional_fence();
    stage.run(5000);
    fence_ends(&mut stage, Err("timed out".into()));
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.log.iter().filter(|order| order.contains("Fence {")).count(), 1);
}

#[test]
fn a_long_fence_that_succeeded_needs_no_other_look() {
    let mut stage = optional_fence();
    stage.run(5000);
    stage.next_probe[0] = stage.now + 60_000;
    fence_ends(&mut stage, Ok(()));
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn at_the_start_only_an_answer_that_shows_role_and_timeline_counts_as_heard() {
    for mood in [Mood::Dead, Mood::Full, Mood::Recovering] {
        let mut stage = Stage::steady();
        stage.run(1000);
        stage.servers[1].mood = mood;
        stage.restart(1000);
        stage.run(1500);
        assert!(!stage.is_open(), "opened although west was not heard");
        stage.until(1000, Stage::is_open);
    }
    let mut stage = Stage::steady();
    stage.run(1000);
    stage.restart(1000);
    stage.until(200, Stage::is_open);
}

#[test]
fn a_testimony_ends_with_a_sample_that_cannot_be_read() {
    for unreadable in [Verdict::Unknown(Unknown::TooManyConnections), Verdict::Recovering] {
        let mut stage = Stage::steady();
        stage.run(5000);
        stage.servers[0].mood = Mood::Dead;
        stage.run(100);
        stage.next_probe[1] = stage.now + 60_000;
        stage.hears(1, stage.now, Verdict::Answered(Box::new(stage.facts(1))));
        assert_eq!(stage.view().backends[1].witness.as_deref(), Some("gone"));
        stage.hears(1, stage.now, unreadable);
        assert_eq!(stage.view().backends[1].witness.as_deref(), Some("unknown"));
    }
}

#[test]
fn a_testimony_that_was_not_renewed_promotes_nobody() {
    let mut slow = service(2);
    slow.probe.fall = 7;
    let mut stage = Stage::steady_with(slow);
    stage.run(5000);
    stage.servers[0].mood = Mood::Hung;
    stage.servers[1].had_row = false;
    stage.servers[1].upstream = None;
    stage.until(3000, |stage| stage.view().backends[1].witness.as_deref() == Some("gone"));
    // Neither a word from the standby nor a failure.
    stage.next_probe[1] = stage.now + 4000;
    stage.run(3900);
    assert!(!began(&stage), "decided on a sample that is seconds old");
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn an_older_daemon_keeps_deciding_beside_a_synchronous_standby_that_may_be_another_one() {
    let lifts = |standbys: &[&str], synchronous: &[&str], sender: Option<&str>| {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut stage = Stage::steady();
        stage.run(2000);
        let mut west = stage.facts(1);
        west.daemons = vec!["pgpivot/s-01/main/1".into()];
        if let Receiver::Row(row) = &mut west.receiver {
            row.sender = sender.map(ToOwned::to_owned);
        }
        let mut east = stage.facts(0);
        east.standbys = names(standbys);
        east.sync = Some(SyncState { names: "ANY 1 (*)".into(), synchronous: names(synchronous), commit: "on".into() });
        stage.hears(0, stage.now, Verdict::Answered(Box::new(east)));
        stage.hears(1, stage.now, Verdict::Answered(Box::new(west)));
        stage.machine.older_decider().is_none()
    };
    let east = Some("10.0.0.1:5432");
    assert!(lifts(&["walreceiver"], &["walreceiver"], east));
    assert!(lifts(&["walreceiver"], &["walreceiver"], Some("east.example:5432")));
    assert!(!lifts(&["walreceiver", "other"], &["other"], east), "the standby here is asynchronous");
    assert!(!lifts(&["other"], &["other"], Some("10.0.0.9:5432")), "it streams from another standby");
    assert!(!lifts(&["other"], &["other"], None));
    assert!(!lifts(&["walreceiver"], &[], east));
}

#[test]
fn a_standby_is_measured_by_the_latched_line_whatever_the_old_primary_shows_meanwhile() {
    for role in [Role::Standby, Role::Primary] {
        let mut stage = Stage::steady();
        stage.run(5000);
        let latch = stage.machine.latch().unwrap().identity.clone().unwrap();
        let last = |stage: &Stage| stage.machine.active_side().unwrap().flushed(&latch);
        let before = last(&stage);
        assert!(before.is_some());
        let mut facts = stage.facts(0);
        (facts.role, facts.timeline) = (role, Some(Timeline(7)));
        facts.lsn = Some(Lsn(1));
        stage.hears(0, stage.now, Verdict::Answered(Box::new(facts)));
        assert_eq!(last(&stage), before);
    }
}

#[test]
fn what_is_not_renewed_for_longer_than_a_probe_may_take_is_old() {
    let mut stage = Stage::steady();
    stage.run(5000);
    let west = |stage: &Stage, after: u64| {
        let side = stage.machine.side(&"west".into()).unwrap();
        let (began, _) = side.witness.sampled().unwrap();
        crate::failover::analysis::says_so_now(side, &stage.machine.service, began + Duration::from_millis(after))
    };
    assert!(west(&stage, 1750));
    assert!(!west(&stage, 1751));
}

#[test]
fn the_start_checks_that_a_rewound_side_did_not_pass_are_owed_to_the_one_that_is_followed() {
    let mut observer = service(3);
    observer.failover.authority = Authority::Observe;
    let mut stage = Stage::steady_with(observer);
    stage.run(5000);
    // While this daemon is away, one after the other is promoted by hand, and the second one is not seen for long.
    stage.promote(1);
    stage.servers[2].ancestors = [1, 2].map(|n| Ancestor { timeline: Timeline(n), switch_lsn: Lsn(9) }).to_vec();
    stage.servers[2].ancestors[0] = stage.servers[1].ancestors[0];
    (stage.servers[2].primary, stage.servers[2].timeline) = (true, 3);
    stage.servers[0].primary = false;
    stage.hold_write = Some(|record| record.latch.as_ref().is_some_and(|latch| latch.epoch.0 == 2));
    stage.next_probe[2] = stage.now + 60_000;
    stage.restart(1000);
    stage.next_probe[2] = stage.now + 2300;
    stage.hold_write = Some(|record| record.latch.as_ref().is_some_and(|latch| latch.epoch.0 == 2));
    stage.until(6000, |stage| stage.waiting.is_some());
    stage.next_probe[2] = stage.now;
    stage.run(50);
    stage.servers[2].mood = Mood::Hung;
    stage.run(100);
    stage.deliver();
    assert_eq!(stage.active(), "west");
    assert!(!stage.is_open(), "opened beside a successor");
}

#[test]
fn a_latched_side_that_is_itself_again_after_the_start_is_not_opened_beside_its_successor() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    // Its address leads to another server for a while.
    stage.servers[0].primary = false;
    stage.restart(100);
    stage.until(5000, |stage| stage.said("role mismatch"));
    stage.run(3000);
    stage.next_probe[2] = stage.now + 60_000;
    stage.promote(2);
    let facts = stage.facts(2);
    stage.run(10);
    stage.hears(2, stage.now, Verdict::Answered(Box::new(facts)));
    stage.servers[0].primary = true;
    stage.until(5000, |stage| stage.view().evidence.contains("decides") || stage.is_open());
    assert!(!stage.is_open(), "opened beside north, which was promoted");
    assert_eq!(stage.view().blocked.unwrap().reason, "split brain");
}

#[test]
fn a_latched_side_that_is_itself_again_after_the_start_is_opened() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.servers[0].primary = false;
    stage.restart(100);
    stage.until(5000, |stage| stage.said("role mismatch"));
    stage.servers[0].primary = true;
    stage.until(3000, |stage| stage.is_open() && stage.machine.phase() == Phase::Steady);
}

#[test]
fn a_latched_side_that_takes_writes_again_after_the_start_is_not_opened_beside_its_successor() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.servers[0].frozen = true;
    stage.disk.frozen.push("east".into());
    stage.restart(100);
    stage.loses = Some(|action| matches!(action, Action::Unfreeze { .. }));
    stage.until(5000, |stage| stage.said("east proved to be the latched side"));
    stage.run(3000);
    stage.next_probe[2] = stage.now + 60_000;
    stage.promote(2);
    stage.run(10);
    stage.hears(2, stage.now, Verdict::Answered(Box::new(stage.facts(2))));
    stage.loses = None;
    stage.run(10_000);
    assert!(!stage.said("east takes writes again"), "released beside north, which was promoted");
    assert!(!stage.is_open(), "opened beside north, which was promoted");
    assert_eq!(stage.view().blocked.unwrap().reason, "split brain");
}

#[test]
fn a_forced_failover_says_what_is_known_of_the_loss() {
    let mut stage = Stage::steady();
    stage.run(5000);
    let mut west = stage.facts(1);
    west.lsn = Some(Lsn(100));
    stage.hears(0, stage.now, Verdict::Answered(Box::new(stage.facts(0))));
    let flushed = Lsn(stage.servers[0].lsn);
    stage.next_probe[0] = stage.now + 60_000;
    stage.run(700);
    stage.hears(1, stage.now, Verdict::Answered(Box::new(west)));
    let receipt = stage.command(&Command::Failover { to: None, force: true, route_only: false, at: None }).unwrap();
    let said = format!("west is at 0/64, {} bytes behind {flushed}, where east was seen 0.", flushed.0 - 100);
    assert!(receipt.sentence.contains(&said), "{}", receipt.sentence);
    assert!(stage.machine.record().intent.as_ref().is_none_or(|intent| intent.why.contains(&said)));
}

#[test]
fn a_plain_failover_waits_for_a_fresh_word_of_the_standby() {
    let mut slow = service(2);
    slow.failover.automatic = false;
    let mut stage = Stage::steady_with(slow);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(10_000);
    stage.next_probe[1] = stage.now + 60_000;
    stage.run(2000);
    let plain = Command::Failover { to: None, force: false, route_only: false, at: None };
    assert_eq!(stage.command(&plain).unwrap_err().code, "witness_unknown");
    stage.next_probe[1] = stage.now;
    stage.run(50);
    stage.command(&plain).unwrap();
}

#[test]
fn a_daemon_that_hears_no_other_backend_says_that_it_is_blind() {
    let mut stage = Stage::steady();
    stage.run(5000);
    assert!(!stage.view().evidence.contains("blind"));
    stage.servers[1].mood = Mood::CutOff;
    stage.run(8000);
    assert!(!stage.view().evidence.contains("blind"));
    stage.run(6000);
    assert!(stage.view().evidence.contains("blind to promotions by others: west not heard for"));
    stage.servers[1].mood = Mood::Well;
    stage.run(6000);
    assert!(!stage.view().evidence.contains("blind"));
}

#[test]
fn a_side_is_not_taken_for_released_while_its_address_leads_to_a_standby() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.loses =
        Some(|action| matches!(action, Action::Promote { .. } | Action::Unfreeze { .. } | Action::Lock { .. }));
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(8000, |stage| stage.servers[0].frozen);
    stage.restart(500);
    stage.loses = Some(|action| matches!(action, Action::Unfreeze { .. }));
    let facts = stage.facts(1);
    stage.next_probe[0] = stage.now + 60_000;
    stage.hears(0, stage.now, Verdict::Answered(Box::new(facts)));
    stage.run(3000);
    let ordered = |stage: &Stage| stage.log.iter().any(|order| order.contains("Unfreeze"));
    assert!(!ordered(&stage), "released through an address that leads elsewhere");
    stage.next_probe[0] = stage.now;
    stage.until(5000, ordered);
}
