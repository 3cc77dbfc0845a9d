//! The laws as sentences, on a stage of simulated servers.

mod admin_state;
mod bad_luck;
mod barred;
mod beside;
mod cluster_chance;
mod cluster_failover;
mod cluster_orders;
mod cluster_return;
mod cluster_stopped;
mod cluster_traps;
mod clusters;
mod fenced;
mod first_evidence;
mod interrupted;
mod left;
mod orders;
mod overtaken;
mod patch;
mod patroni;
pub(in crate::failover) mod plan;
mod primary_only;
mod reads;
mod rejoining;
mod resumed;
mod servers;
mod siblings;
mod stage;
mod stale;
mod survivors;
mod swapped;
mod unproven;

use super::*;
use crate::config::{ProbeKind, SyncRule, WitnessRule};
use crate::failover::action::Command;
use crate::failover::observation::Evidence;
use plan::service;
use stage::{Mood, Stage};

fn failover(force: bool) -> Command {
    Command::Failover { to: None, force, route_only: false, at: None }
}

#[test]
fn the_only_primary_that_a_standby_streams_from_becomes_the_first_latch() {
    let mut stage = Stage::steady();
    assert_eq!((stage.active(), stage.epoch()), ("east", 1));
    stage.run(1000);
    assert!(stage.is_open());
    assert_eq!(stage.disk.latch.as_ref().unwrap().active.as_str(), "east");
}

#[test]
fn two_primaries_without_a_latch_are_held_until_an_operator_adopts_one() {
    let mut stage = Stage::with(service(2));
    stage.promote(1);
    stage.run(5000);
    assert_eq!(stage.machine.phase(), Phase::Blocked);
    assert!(!stage.is_open());
    assert!(stage.view().blocked.unwrap().sentence.contains("adopt"));
    stage.command(&Command::Adopt { backend: "west".into() }).unwrap();
    stage.until(3000, Stage::is_open);
    assert_eq!(stage.active(), "west");
    stage.run(3000);
    let shown = stage.view();
    let why = shown.backends[0].quarantined.as_ref().unwrap();
    assert!(why.contains("rebuild it as a standby of west (pg_rewind or pg_basebackup)"), "no remedy: {why}");
    assert_eq!(shown.state, "degraded", "one side alone serves");
}

#[test]
fn without_the_grant_the_first_start_names_it_instead_of_denying_the_stream() {
    let mut stage = Stage::with(service(2));
    stage.servers[1].unreadable = true;
    stage.run(5000);
    let said = stage.view().blocked.unwrap().sentence;
    assert!(said.contains("GRANT pg_read_all_stats"), "{said}");
}

#[test]
fn a_killed_primary_is_replaced_within_half_a_second() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    let died = stage.now;
    stage.until(2000, |stage| stage.said("episode 2"));
    assert!(stage.now - died <= 500, "decided after {} ms", stage.now - died);
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.epoch(), 2);
    assert_eq!(stage.promotions.len(), 1);
    assert_eq!(stage.cuts, ["east".into()]);
}

#[test]
fn an_answer_from_before_the_first_evidence_does_not_call_a_failover_off() {
    let mut stage = Stage::steady();
    stage.run(5000);
    let due = stage.next_probe[0];
    stage.until(3000, |stage| stage.next_probe[0] > due);
    stage.run(10);
    stage.servers[0].mood = Mood::Dead;
    // The death path samples the standby at once.
    stage.next_probe[1] = stage.now;
    stage.until(2000, |stage| stage.promotions.len() == 1);
    assert!(!stage.said("called off"), "{:#?}", stage.events);
}

#[test]
fn the_last_words_of_a_killed_primary_to_its_clients_are_no_sign_of_life() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    let died = stage.now;
    stage.until(100, |stage| stage.machine.cadence() == Cadence::Death);
    stage.run(20);
    let at = stage.at();
    stage.machine.handle_evidence(&Evidence::Answered { backend: "east".into(), at: at.at }, at);
    stage.until(2000, |stage| stage.said("episode 2"));
    assert!(stage.now - died <= 500, "decided after {} ms", stage.now - died);
}

#[test]
fn clients_wait_for_the_promoted_side_no_longer_than_one_question_takes() {
    for command in [failover(true), Command::Switchover { to: None }] {
        let mut stage = Stage::steady();
        stage.run(5000);
        stage.command(&command).unwrap();
        stage.until(20_000, |stage| !stage.promotions.is_empty());
        let promoted = stage.now;
        stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
        assert!(stage.now - promoted <= 60, "opened {} ms after the promotion", stage.now - promoted);
    }
}

#[test]
fn a_promotion_that_does_not_come_is_waited_for_at_leisure() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].promotes = false;
    stage.command(&failover(true)).unwrap();
    stage.until(20_000, |stage| stage.machine.cadence() == Cadence::Proof);
    stage.run(6000);
    assert_eq!((stage.machine.phase(), stage.machine.cadence()), (Phase::Promoting, Cadence::Episode));
}

#[test]
fn a_hung_primary_is_replaced_once_its_stream_is_silent() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Hung;
    let hung = stage.now;
    stage.until(10_000, |stage| stage.said("episode 2"));
    assert!(stage.now - hung <= 6000, "decided after {} ms", stage.now - hung);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_primary_that_only_this_daemon_cannot_reach_is_not_replaced() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::CutOff;
    stage.until(20_000, |stage| stage.machine.phase() == Phase::Blocked);
    assert_eq!(stage.view().blocked.unwrap().reason, "witness alive");
    stage.run(60_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
    stage.servers[0].mood = Mood::Well;
    stage.until(5000, |stage| stage.machine.phase() == Phase::Steady);
}

#[test]
fn a_primary_that_sends_heartbeats_counts_as_living_for_ten_seconds_and_then_as_hung() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].quiet = true;
    stage.servers[0].mood = Mood::CutOff;
    stage.until(20_000, |stage| stage.view().blocked.is_some());
    let since = stage.now;
    assert_eq!(stage.view().blocked.unwrap().reason, "witness alive");
    stage.until(15_000, |stage| stage.view().blocked.unwrap().reason == "hung, not dead");
    assert!(stage.now - since >= 8000, "called hung after {} ms", stage.now - since);
    stage.run(60_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
}

#[test]
fn a_full_server_a_recovering_one_and_a_clean_restart_are_not_replaced() {
    for (mood, lasting) in [(Mood::Full, 60_000), (Mood::Recovering, 20_000), (Mood::ShuttingDown, 4000)] {
        let mut stage = Stage::steady();
        stage.run(5000);
        stage.servers[0].mood = mood.clone();
        stage.run(lasting);
        stage.servers[0].mood = Mood::Well;
        stage.run(10_000);
        assert_eq!((stage.active(), stage.promotions.len()), ("east", 0), "{mood:?}");
        assert!(stage.is_open());
    }
}

#[test]
fn newcomers_wait_while_the_active_side_recovers() {
    let mut stage = Stage::steady();
    stage.servers[0].mood = Mood::Recovering;
    stage.until(5000, |stage| !stage.view().open);
    stage.servers[0].mood = Mood::Well;
    stage.until(5000, |stage| stage.view().open);
}

#[test]
fn the_old_primary_gets_not_one_byte_when_it_comes_back_and_is_let_in_when_it_streams() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    stage.servers[0].mood = Mood::Well;
    stage.run(10_000);
    assert!(stage.view().backends[0].quarantined.is_some());
    assert_eq!(stage.active(), "west");
    let refused = stage.command(&Command::Restore { to: None, force: false }).unwrap_err();
    assert_eq!(refused.code, "quarantined");
    stage.rebuild(0, 1);
    stage.until(10_000, |stage| stage.view().backends[0].quarantined.is_none());
    stage.run(5000);
    stage.command(&Command::Restore { to: None, force: false }).unwrap();
    stage.until(10_000, |stage| stage.active() == "east" && stage.is_open());
    assert!(stage.said("no acknowledged row was lost"));
    assert_eq!(stage.epoch(), 3);
}

#[test]
fn the_history_names_what_an_episode_changes_before_and_after() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    let told: Vec<_> = stage.events.iter().filter_map(|event| Some((event.kind, event.change.clone()?))).collect();
    let [.., (EventKind::Decided, decided), (EventKind::Switched, switched)] = told.as_slice() else {
        panic!("{told:#?}");
    };
    assert_eq!(decided, switched);
    assert_eq!((decided.from.as_ref(), decided.from_epoch.0), (Some(&"east".into()), 1));
    assert_eq!((decided.to.as_str(), decided.to_epoch.0, decided.trigger.as_str()), ("west", 2, "automatic"));
}

#[test]
fn a_switchover_freezes_replays_and_promotes() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.freezes, ["freeze east"]);
    assert!(stage.said("no acknowledged row was lost"));
}

#[test]
fn a_switchover_whose_candidate_does_not_catch_up_is_undone() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].upstream = None;
    stage.servers[0].lsn += 100;
    let answer = stage.command(&Command::Switchover { to: None });
    assert!(answer.is_ok());
    stage.until(20_000, |stage| stage.said("called off"));
    stage.until(10_000, |stage| stage.is_open() && stage.machine.phase() == Phase::Steady);
    assert_eq!((stage.active(), stage.epoch()), ("east", 1));
    assert!(!stage.servers[0].frozen);
    assert_eq!(stage.freezes.last().unwrap(), "unfreeze east");
}

#[test]
fn after_one_failover_the_cool_down_holds_and_then_the_budget() {
    let mut short = service(2);
    short.failover.max_per_day = 1;
    let mut stage = Stage::steady_with(short);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    stage.rebuild(0, 1);
    stage.run(15_000);
    stage.servers[1].mood = Mood::Dead;
    stage.until(10_000, |stage| stage.machine.phase() == Phase::Blocked);
    assert_eq!(stage.view().blocked.unwrap().reason, "cool-down");
    stage.until(60_000, |stage| stage.view().blocked.is_some_and(|b| b.reason == "budget exhausted"));
    assert_eq!(stage.active(), "west");
    stage.command(&failover(true)).unwrap();
    stage.until(10_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn killed_at_any_write_the_daemon_ends_up_on_one_side_and_stays_there() {
    for stop_after in 1..12 {
        let mut stage = Stage::steady();
        stage.run(5000);
        let base = stage.writes;
        stage.servers[0].mood = Mood::Dead;
        stage.until(10_000, |stage| stage.writes >= base + stop_after || stage.active() == "west" && stage.is_open());
        stage.restart(300);
        stage.until(40_000, |stage| {
            stage.active() == "west" && stage.is_open() || stage.machine.phase() == Phase::Blocked
        });
        let settled = stage.active().to_owned();
        stage.run(20_000);
        assert_eq!(stage.active(), settled);
        if settled == "east" {
            assert_eq!(stage.promotions.len(), 0, "promoted, but latched elsewhere");
        }
    }
}

#[test]
fn without_a_writable_disk_nothing_is_promoted() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.disk_ok = false;
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert_eq!(stage.promotions.len(), 0);
    assert_eq!(stage.view().blocked.unwrap().reason, "disk");
}

#[test]
fn a_pending_promotion_is_neither_given_up_nor_tried_elsewhere() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].promotes = false;
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| !stage.promotions.is_empty());
    stage.servers[0].mood = Mood::Well;
    stage.until(90_000, |stage| stage.machine.phase() == Phase::Blocked);
    assert_eq!(stage.view().blocked.unwrap().reason, "promotion pending");
    assert!(!stage.is_open());
    stage.promote(1);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_latched_side_that_says_it_is_a_standby_is_cut_at_once() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].primary = false;
    stage.until(5000, |stage| !stage.is_open());
    assert_eq!(stage.cuts, ["east".into()]);
    assert_eq!(stage.view().blocked.unwrap().reason, "role mismatch");
}

#[test]
fn a_standby_too_far_behind_is_not_promoted_without_force() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].lsn += 1 << 30;
    let behind = stage.servers[1].lsn;
    stage.run(3000);
    stage.servers[0].mood = Mood::Dead;
    stage.servers[1].lsn = behind;
    stage.until(20_000, |stage| stage.machine.phase() == Phase::Blocked);
    assert_eq!(stage.view().blocked.unwrap().reason, "stale standby");
    assert_eq!(stage.promotions.len(), 0);
    stage.command(&failover(true)).unwrap();
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_busy_lock_leaves_the_decision_to_the_other_daemon() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].locked_by_other = true;
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert_eq!(stage.promotions.len(), 0);
    assert!(stage.said("another daemon holds the lock"));
}

#[test]
fn an_older_daemon_on_the_pair_decides_and_the_younger_follows() {
    let mut stage = Stage::steady();
    stage.servers[1].daemons = vec!["pgpivot/s-01/main/1".into()];
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.machine.phase() == Phase::Blocked);
    assert_eq!(stage.view().blocked.unwrap().reason, "second decider");
    stage.promote(1);
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.promotions.len(), 0);
}

#[test]
fn a_required_fence_that_fails_keeps_the_standby_a_standby() {
    let mut fenced = service(2);
    fenced.failover.fence_required = true;
    fenced.failover.fence_command = Some(vec!["fence".into()]);
    let mut stage = Stage::steady_with(fenced);
    stage.fence = Err("power switch does not answer".into());
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert_eq!(stage.promotions.len(), 0);
    assert_eq!(stage.view().blocked.unwrap().reason, "fence failed");
    stage.fence = Ok(());
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_primary_that_dies_right_after_the_first_latch_is_replaced() {
    let mut stage = Stage::with(service(2));
    stage.until(5000, |stage| stage.is_open());
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn paused_nothing_is_decided_and_a_resume_decides() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.command(&Command::Pause).unwrap();
    assert!(stage.view().next.contains("until `proxyctl resume`"), "{}", stage.view().next);
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert_eq!(stage.promotions.len(), 0);
    stage.command(&Command::Resume).unwrap();
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn without_a_witness_nothing_is_promoted_unless_it_is_optional() {
    for (rule, promoted) in [(WitnessRule::Required, false), (WitnessRule::Optional, true)] {
        let mut lonely = service(2);
        lonely.failover.witness = rule;
        let mut stage = Stage::steady_with(lonely);
        stage.run(5000);
        stage.servers[0].mood = Mood::Hung;
        stage.servers[1].unreadable = true;
        stage.run(20_000);
        assert_eq!(!stage.promotions.is_empty(), promoted, "{rule:?}");
    }
}

#[test]
fn sides_that_always_serve_move_the_latch_without_a_promotion() {
    let mut plain = service(2);
    plain.failover.standby_serves = true;
    plain.failover.promoter = Promoter::None;
    plain.probe.kind = ProbeKind::Tcp;
    let mut stage = Stage::steady_with(plain);
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
    stage.servers[0].mood = Mood::Well;
    stage.run(20_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("west", 0));
}

#[test]
fn a_new_primary_that_waits_for_a_missing_synchronous_standby_is_reported_or_cleared() {
    for rule in [SyncRule::Report, SyncRule::Clear] {
        let mut sync = service(2);
        sync.failover.sync_after_failover = rule;
        let mut stage = Stage::steady_with(sync);
        stage.run(5000);
        stage.servers[1].sync_names = "east".into();
        stage.servers[0].mood = Mood::Dead;
        stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
        assert_eq!(stage.said("wait for a synchronous standby"), rule == SyncRule::Report);
        assert_eq!(stage.servers[1].sync_names.is_empty(), rule == SyncRule::Clear);
    }
}

#[test]
fn a_second_primary_on_the_latched_timeline_is_split_brain() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[1].primary = true;
    stage.run(5000);
    assert_eq!(stage.view().blocked.unwrap().reason, "split brain");
    assert!(stage.view().backends[1].quarantined.is_some());
    assert_eq!(stage.active(), "east");
}

#[test]
fn every_edge_taken_is_in_the_table() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    stage.run(10_000);
    for (from, to) in stage.machine.edges().keys() {
        assert!(crate::failover::transition::edge(*from, *to).is_some(), "{from:?} → {to:?}");
    }
}
