//! Orders that are refused, lost or never leave, and how long a failover of clusters waits.

use super::clusters::{Api, Cluster, Clusters, EAST, Patch, api_clock, service};
use crate::config::Replication;
use crate::failover::action::Command;
use crate::types::WallTime;

#[test]
fn refusals_of_the_api_spend_nothing_of_the_budget() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Refused;
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(3_600_000, |stage| stage.patches.len() == 5);
    // The fifth is under way.
    assert!(stage.disk.spent.len() <= 1, "{:?}", stage.disk.spent);
    stage.patch = Patch::Taken;
    stage.until(600_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn what_a_stream_once_took_to_catch_up_does_not_delay_the_next_failover() {
    let mut stage = Clusters::steady();
    stage.replicates = false;
    stage.run(20 * 60_000);
    stage.replicates = true;
    stage.run(20 * 60_000);
    stage.clusters[EAST] = Cluster::Dead;
    let died = stage.now;
    stage.until(600_000, |stage| !stage.patches.is_empty());
    let took = (stage.patches[0].0 - died) / 1000;
    assert!(took <= 240, "ordered after {took} s");
}

#[test]
fn orders_that_went_unheeded_are_given_anew_at_an_operators_word_and_the_failover_completes() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Lost;
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(600_000, |stage| stage.patches.len() == 3);
    stage.until(600_000, |stage| stage.blocked().contains("`proxyctl failover --force` orders it anew"));
    stage.patch = Patch::Taken;
    stage.run(10 * 60_000);
    assert_eq!(stage.patches.len(), 3, "not by itself");
    let order = |force| Command::Failover { to: None, force, route_only: false, at: None };
    assert!(stage.command(&order(false)).unwrap().sentence.contains("already under way"));
    let receipt = stage.command(&order(true)).unwrap();
    assert!(receipt.sentence.contains("ordered anew; 3 orders went unheeded"), "{}", receipt.sentence);
    stage.until(120_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.patches.len(), 4);
}

#[test]
fn orders_that_never_left_use_up_none_and_are_given_until_the_api_can_be_reached_again() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::NotSent;
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(900_000, |stage| stage.patches.len() == 5);
    assert!(stage.blocked().is_empty(), "{}", stage.blocked());
    let spaced = stage.patches.windows(2).all(|two| two[1].0 - two[0].0 >= 15_000);
    assert!(spaced, "not one upon the other: {:?}", stage.patches);
    stage.patch = Patch::Taken;
    stage.until(240_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.patches.len(), 6);
}

#[test]
fn a_primary_that_answers_again_before_any_order_left_is_not_failed_away_from() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::NotSent;
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(900_000, |stage| stage.patches.len() == 2);
    (stage.clusters[EAST], stage.patch, stage.api) = (Cluster::Serves, Patch::Taken, Api::Unreachable);
    stage.until(60_000, |stage| stage.active() == "east" && stage.is_open());
    stage.api = Api::Well;
    stage.run(600_000);
    assert_eq!((stage.patches.len(), stage.active(), stage.machine.record().spent.len()), (2, "east", 0));
}

#[test]
fn a_replicated_time_ahead_of_its_sources_clock_is_called_that_and_not_life() {
    let mut stage = Clusters::steady();
    (stage.clusters[EAST], stage.replicates) = (Cluster::Dead, false);
    stage.streams[0].replicated = Some(api_clock(stage.now + 3_600_000));
    stage.until(600_000, |stage| stage.blocked().contains("ahead of its source's clock"));
    stage.run(600_000);
    assert!(stage.patches.is_empty() && !stage.blocked().contains("lives,"), "{}", stage.blocked());
}

#[test]
fn how_far_a_failover_is_goes_to_the_history_when_it_changes_and_once_a_minute() {
    let mut stage = Clusters::steady();
    stage.takes = 150_000;
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(900_000, |stage| stage.active() == "west" && stage.is_open());
    let told = |part: &str| stage.events.iter().filter(|(_, event)| event.sentence.contains(part)).count();
    assert_eq!((told("has been failing over for"), told("waiting for west to serve")), (3, 1));
}

#[test]
fn what_would_be_lost_is_said_before_anything_happens() {
    let stage = Clusters::steady();
    let next = stage.machine.view(stage.at()).next;
    assert!(next.contains("what east acknowledged and west has not received by then is lost"), "{next}");
}

#[test]
fn a_configured_moment_that_cannot_be_reached_is_told_before_it_is_needed() {
    let mut service = service();
    let Some(Replication::Cloud(cloud)) = &mut service.replication else { panic!("no cloud") };
    cloud.failover_at = Some(WallTime(0));
    let mut stage = Clusters::steady_with(service);
    let view = stage.machine.view(stage.at());
    let west = view.backends.iter().find(|backend| backend.name.as_str() == "west").unwrap();
    let why = "the configured failover_at cannot be used";
    assert!(!west.armed && west.unarmed_why.iter().any(|said| said.contains(why)), "{west:?}");
    assert!(view.next.contains(why), "{}", view.next);
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(900_000, |stage| stage.blocked().contains(why));
    assert!(stage.patches.is_empty());
}
