//! Planned switchovers of clusters and the way home: by a reverse stream, or by an operator's word that says what is lost.

use super::clusters::{Cluster, Clusters, EAST, WEST, wall};
use crate::failover::action::Command;
use crate::failover::replication::Status;

fn restore(force: bool) -> Command {
    Command::Restore { to: None, force }
}

/// West is active since a failover; east is back as a cluster of its own.
pub(super) fn failed_over() -> Clusters {
    let mut stage = Clusters::steady();
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(600_000, |stage| stage.active() == "west" && stage.is_open());
    stage.clusters[EAST] = Cluster::Serves;
    stage.run(5 * 60_000);
    stage
}

#[test]
fn a_switchover_goes_to_a_moment_just_after_the_old_sides_clock() {
    let mut stage = Clusters::steady();
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(30_000, |stage| !stage.patches.is_empty());
    let (at, id, moment) = stage.patches[0].clone();
    assert_eq!(id, "s1");
    let ahead = moment.unwrap().since(wall(at));
    assert!((900..=2000).contains(&ahead.as_millis()), "{ahead:?} after the clock");
    assert!(!stage.is_open(), "newcomers wait");
    stage.until(200_000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.said("nothing stops other clients of the old side"), "what could not be proven is said");
}

#[test]
fn a_switchover_whose_clock_cannot_be_read_takes_the_apis_and_says_so() {
    let mut stage = Clusters::steady();
    stage.clock_readable = false;
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(200_000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.said("could not be proven"));
}

#[test]
fn a_failover_commanded_on_a_healthy_pair_of_clusters_is_a_switchover() {
    let mut stage = Clusters::steady();
    let order = Command::Failover { to: None, force: false, route_only: false, at: None };
    assert!(stage.command(&order).unwrap().sentence.contains("is healthy, so this is a switchover"));
    stage.until(200_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn restore_is_refused_without_a_reverse_stream_and_says_what_creating_one_erases() {
    let mut stage = failed_over();
    let refused = stage.command(&restore(false)).unwrap_err();
    assert_eq!(refused.code, "no_reverse_stream");
    assert!(refused.sentence.contains("ERASES what is on east"), "{}", refused.sentence);
    assert!(stage.command(&Command::Adopt { backend: "east".into() }).is_ok(), "an operator's word is one");
}

#[test]
fn restore_fails_the_reverse_stream_over_and_traffic_is_home() {
    let mut stage = failed_over();
    stage.create("s2", WEST, EAST);
    stage.run(5 * 60_000);
    assert_eq!(stage.active(), "west", "a stream alone moves nothing");
    stage.command(&restore(false)).unwrap();
    stage.until(300_000, |stage| stage.active() == "east" && stage.is_open());
    assert_eq!(stage.epoch(), 3);
    assert_eq!(stage.patches.last().unwrap().1, "s2");
}

#[test]
fn a_reverse_stream_that_others_failed_over_brings_traffic_home() {
    let mut stage = failed_over();
    stage.create("s2", WEST, EAST);
    stage.run(120_000);
    stage.fail_over("s2", None);
    stage.until(300_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn restore_by_force_says_and_records_what_is_lost_and_stays_where_it_was_put() {
    let mut stage = failed_over();
    let receipt = stage.command(&restore(true)).unwrap();
    assert!(receipt.sentence.contains("is missing on east"), "{}", receipt.sentence);
    stage.until(60_000, |stage| stage.active() == "east" && stage.is_open());
    let why = &stage.disk.latch.as_ref().unwrap().why;
    assert!(why.contains("ada") && why.contains("drill") && why.contains("missing"), "{why}");
    stage.run(10 * 60_000);
    stage.restart(1_000);
    stage.until(90_000, Clusters::is_open);
    assert_eq!(stage.active(), "east", "the old completed stream does not pull it back");
}

#[test]
fn restore_is_refused_while_the_reverse_stream_starts_and_by_force_while_the_home_does_not_serve() {
    let mut stage = failed_over();
    stage.create("s2", WEST, EAST);
    stage.streams[1].status = Status::Starting;
    stage.run(120_000);
    assert_eq!(stage.command(&restore(false)).unwrap_err().code, "still_starting");
    assert_eq!(stage.command(&restore(true)).unwrap_err().code, "not_serving");
    let order = Command::Failover { to: Some("east".into()), force: true, route_only: true, at: None };
    assert!(stage.command(&order).is_err(), "route-only would send writes to a standby");
    assert!(stage.command(&Command::Adopt { backend: "east".into() }).is_err());
}

#[test]
fn a_failover_that_others_made_and_took_back_while_it_was_followed_opens_to_nobody_who_was_left() {
    let mut stage = Clusters::steady();
    stage.serves_when_completed = false;
    stage.fail_over("s1", None);
    stage.until(200_000, |stage| stage.streams[0].status == Status::Completed && !stage.is_open());
    // West is promoted and not reached from here; others bring everything back to east.
    stage.clusters[WEST] = Cluster::Silent;
    stage.create("s2", WEST, EAST);
    stage.fail_over("s2", None);
    stage.complete("s2");
    stage.clusters = [Cluster::Serves, Cluster::Serves];
    stage.until(120_000, Clusters::is_open);
    assert_eq!(stage.active(), "east", "what stream s1 made is over");
    stage.run(5 * 60_000);
    assert_eq!(stage.active(), "east");
}
