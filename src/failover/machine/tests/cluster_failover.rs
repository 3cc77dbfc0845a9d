//! Failovers of clusters joined by physical replication, as sentences: the timeline of the defaults, what blocks, what
//! is adopted, and what is never done twice.

use super::clusters::{Api, Cluster, Clusters, EAST, Patch, WEST, api_clock, service, stream, wall};
use crate::failover::action::Command;
use crate::failover::phase::{Phase, Stage};
use crate::failover::replication::Status;

fn dies(stage: &mut Clusters) -> u64 {
    // Right after a probe has passed: the worst case.
    let last = stage.probes.iter().rev().find(|(_, side)| *side == EAST).unwrap().0;
    while stage.now < last + 30_000 - 100 {
        stage.run(100);
    }
    stage.run(200);
    stage.clusters[EAST] = Cluster::Dead;
    stage.now
}

#[test]
fn with_the_defaults_checks_fail_at_30_60_and_90_seconds_and_the_failover_is_decided_at_two_and_a_half_minutes() {
    let mut stage = Clusters::steady();
    let died = dies(&mut stage);
    stage.until(400_000, |stage| !stage.patches.is_empty());
    let (ordered, id, at) = stage.patches[0].clone();
    assert_eq!((id.as_str(), at), ("s1", None), "the latest consistent time");
    let checks: Vec<u64> = stage
        .probes
        .iter()
        .filter(|(at, side)| *side == EAST && *at > died)
        .map(|(at, _)| (*at - died) / 1000)
        .collect();
    assert_eq!(checks[..3], [29, 59, 89], "T+0:30, T+1:00, T+1:30, counted from the last pass");
    let decided = (ordered - died) / 1000;
    assert!((149..=151).contains(&decided), "decided at T+{decided} s");
    assert_eq!(stage.cuts, [(ordered, "east".into())], "closed and cut when it was decided");
    stage.until(200_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.patches.len(), 1);
    assert!(stage.said("what east acknowledged after"), "the loss is said");
}

#[test]
fn traffic_opens_only_when_the_stream_has_completed_and_the_new_side_serves_on_the_wire() {
    let mut stage = Clusters::steady();
    stage.serves_when_completed = false;
    dies(&mut stage);
    stage.until(400_000, |stage| !stage.patches.is_empty());
    stage.run(60_000);
    assert!(!stage.is_open() && stage.machine.phase() == Phase::Promoting, "failing over");
    stage.until(60_000, |stage| stage.streams[0].status == Status::Completed);
    stage.run(20_000);
    assert!(!stage.is_open(), "completed by its word, but nobody is served");
    stage.clusters[WEST] = Cluster::Serves;
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_failover_that_takes_forty_minutes_is_watched_to_its_end_and_never_given_up() {
    let mut stage = Clusters::steady();
    stage.takes = 40 * 60_000;
    dies(&mut stage);
    stage.until(400_000, |stage| !stage.patches.is_empty());
    stage.run(30 * 60_000);
    assert_eq!(stage.machine.phase(), Phase::Promoting);
    stage.clusters[EAST] = Cluster::Serves;
    stage.until(15 * 60_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.patches.len(), 1);
}

#[test]
fn after_an_hour_a_failover_that_has_not_completed_alerts_and_is_watched_on() {
    let mut stage = Clusters::steady();
    stage.takes = 80 * 60_000;
    dies(&mut stage);
    stage.until(400_000, |stage| !stage.patches.is_empty());
    stage.run(61 * 60_000);
    assert!(stage.blocked().contains("promotion pending"), "{}", stage.blocked());
    stage.until(25 * 60_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_dead_api_beside_a_living_cluster_changes_nothing() {
    let mut stage = Clusters::steady();
    stage.api = Api::Unreachable;
    stage.run(30 * 60_000);
    assert!(stage.is_open() && stage.active() == "east" && stage.patches.is_empty());
    assert!(stage.machine.view(stage.at()).backends[1].unarmed_why[0].contains("cannot be read"));
}

#[test]
fn a_cluster_that_cannot_be_reached_from_here_but_still_replicates_is_not_replaced() {
    let mut stage = Clusters::steady();
    stage.clusters[EAST] = Cluster::Silent;
    stage.run(20 * 60_000);
    assert!(stage.patches.is_empty());
    assert!(stage.blocked().contains("witness alive"), "{}", stage.blocked());
    stage.replicates = false;
    stage.until(200_000, |stage| !stage.patches.is_empty());
}

#[test]
fn when_both_clusters_and_the_api_are_gone_this_daemon_is_cut_off_and_does_nothing() {
    let mut stage = Clusters::steady();
    stage.clusters = [Cluster::Silent; 2];
    stage.api = Api::Unreachable;
    stage.run(30 * 60_000);
    assert!(stage.patches.is_empty());
    assert!(!stage.blocked().is_empty());
}

#[test]
fn without_the_api_a_dead_cluster_is_not_replaced_and_the_reason_names_the_api() {
    let mut stage = Clusters::steady();
    stage.api = Api::Unreachable;
    dies(&mut stage);
    stage.run(10 * 60_000);
    assert!(stage.patches.is_empty());
    assert!(stage.blocked().contains("the API is unreachable"), "{}", stage.blocked());
    stage.api = Api::Well;
    stage.until(200_000, |stage| !stage.patches.is_empty());
}

#[test]
fn a_cluster_that_answers_again_before_the_order_calls_it_off() {
    let mut stage = Clusters::steady();
    dies(&mut stage);
    stage.run(125_000);
    stage.clusters[EAST] = Cluster::Serves;
    stage.run(10 * 60_000);
    assert!(stage.patches.is_empty() && stage.active() == "east" && stage.is_open());
}

#[test]
fn an_order_whose_reply_was_lost_is_recognised_by_reading_and_not_given_again() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::ReplyLost;
    dies(&mut stage);
    stage.until(500_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.patches.len(), 1);
}

#[test]
fn an_order_that_never_arrived_is_given_again_after_three_readings_and_another_look_and_at_most_twice() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Lost;
    dies(&mut stage);
    stage.until(400_000, |stage| !stage.patches.is_empty());
    let first = stage.patches[0].0;
    stage.until(120_000, |stage| stage.patches.len() == 2);
    assert!(stage.patches[1].0 - first >= 15_000, "not before fifteen seconds of readings");
    stage.until(120_000, |stage| stage.patches.len() == 3);
    stage.run(20 * 60_000);
    assert_eq!(stage.patches.len(), 3, "twice again, no more");
    assert!(!stage.is_open(), "sent is sent");
    stage.command(&Command::Abandon { backend: "west".into() }).unwrap();
    stage.clusters[EAST] = Cluster::Serves;
    stage.until(120_000, |stage| stage.is_open() && stage.active() == "east");
}

#[test]
fn an_order_that_never_arrived_is_not_given_again_to_a_side_whose_primary_answers() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Lost;
    dies(&mut stage);
    stage.until(400_000, |stage| !stage.patches.is_empty());
    stage.clusters[EAST] = Cluster::Serves;
    stage.run(10 * 60_000);
    assert_eq!(stage.patches.len(), 1);
    assert!(!stage.is_open(), "the old side stays closed: nobody knows that the order is lost");
}

#[test]
fn a_refused_order_reopens_the_old_side_once_the_stream_shows_that_it_was_not_taken() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Refused;
    dies(&mut stage);
    stage.until(400_000, |stage| !stage.patches.is_empty());
    stage.until(20_000, |stage| stage.said("the failover was refused: 403"));
    stage.clusters[EAST] = Cluster::Serves;
    stage.until(60_000, |stage| stage.is_open() && stage.active() == "east");
}

#[test]
fn a_failover_that_others_order_is_adopted_at_once_and_costs_no_budget() {
    let mut stage = Clusters::steady();
    let before = stage.machine.view(stage.at()).budget_left;
    stage.fail_over("s1", None);
    stage.until(15_000, |stage| !stage.is_open());
    assert_eq!(stage.cuts.len(), 1, "the old side is cut while the failover runs");
    stage.until(200_000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.patches.is_empty(), "nothing is ordered");
    assert_eq!(stage.machine.view(stage.at()).budget_left, before);
}

#[test]
fn a_failover_that_others_order_for_later_leaves_traffic_alone_until_then() {
    let mut stage = Clusters::steady();
    stage.takes = 10 * 60_000;
    let at = api_clock(stage.now + 5 * 60_000);
    stage.fail_over("s1", Some(at));
    stage.run(4 * 60_000);
    assert!(stage.is_open() && stage.active() == "east");
    stage.until(90_000, |stage| !stage.is_open());
    stage.until(10 * 60_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_failover_that_began_and_ended_between_two_readings_is_adopted_all_the_same() {
    let mut stage = Clusters::steady();
    stage.fail_over("s1", None);
    stage.complete("s1");
    stage.until(70_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn whoever_finds_the_stream_failing_over_at_the_last_reading_only_watches() {
    let mut stage = Clusters::steady();
    dies(&mut stage);
    stage.run(149_000 - 5_000);
    stage.fail_over("s1", None);
    stage.until(300_000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.patches.is_empty());
}

#[test]
fn the_old_primary_comes_back_and_gets_not_one_byte() {
    let mut stage = Clusters::steady();
    dies(&mut stage);
    stage.until(600_000, |stage| stage.active() == "west" && stage.is_open());
    stage.clusters[EAST] = Cluster::Serves;
    stage.run(30 * 60_000);
    assert_eq!((stage.active(), stage.epoch()), ("west", 2));
    stage.restart(5_000);
    stage.until(60_000, Clusters::is_open);
    stage.run(10 * 60_000);
    assert_eq!((stage.active(), stage.epoch()), ("west", 2));
}

#[test]
fn a_canceled_or_vanished_stream_stops_the_failover_and_nothing_goes_back_by_itself() {
    for vanishes in [false, true] {
        let mut stage = Clusters::steady();
        dies(&mut stage);
        stage.until(400_000, |stage| !stage.patches.is_empty());
        stage.run(5_000);
        if vanishes {
            stage.streams.clear();
        } else {
            stage.streams[0].status = Status::Canceled;
        }
        stage.clusters[EAST] = Cluster::Serves;
        stage.run(10 * 60_000);
        assert!(!stage.is_open() && stage.blocked().contains("abandon west"), "{}", stage.blocked());
        stage.command(&Command::Abandon { backend: "west".into() }).unwrap();
        stage.until(120_000, |stage| stage.is_open() && stage.active() == "east");
    }
}

#[test]
fn a_stream_in_its_first_scan_or_two_at_once_or_none_is_no_way_to_fail_over() {
    type Change = fn(&mut Clusters);
    let cases: [(Change, &str); 4] = [
        (|stage| stage.streams[0].status = Status::Starting, "is starting"),
        (|stage| stage.streams.push(stream("s2", EAST, WEST, Status::Starting)), "s2 (starting)"),
        (|stage| stage.streams[0].status = Status::Canceled, "no replication stream leads from east to west"),
        (
            |stage| {
                stage.replicates = false;
                stage.streams[0].replicated = None;
            },
            "first scan",
        ),
    ];
    for (change, said) in cases {
        let mut stage = Clusters::steady();
        change(&mut stage);
        stage.run(70_000);
        dies(&mut stage);
        stage.run(10 * 60_000);
        assert!(stage.patches.is_empty());
        assert!(stage.blocked().contains(said), "{said}: {}", stage.blocked());
        let refused = stage.command(&Command::Failover { to: None, force: true, route_only: false, at: None });
        assert!(refused.unwrap_err().sentence.contains(said), "{said}: not even by force");
    }
}

#[test]
fn a_stream_that_lags_more_than_max_lag_waits_for_an_operator_who_accepts_the_loss() {
    let mut plan = service();
    plan.failover.max_replication_lag = std::time::Duration::from_secs(60);
    let mut stage = Clusters::steady_with(plan);
    stage.replicates = false;
    stage.run(80_000);
    dies(&mut stage);
    stage.run(10 * 60_000);
    assert!(stage.blocked().contains("stale standby"), "{}", stage.blocked());
    stage.command(&Command::Failover { to: None, force: true, route_only: false, at: None }).unwrap();
    stage.until(200_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_moment_outside_the_window_is_refused_before_anything_is_sent() {
    let mut stage = Clusters::steady();
    dies(&mut stage);
    stage.run(130_000);
    stage.machine.view(stage.at());
    for (at, said) in [
        (api_clock(stage.now + 2 * 3600 * 1000), "more than an hour ahead"),
        (api_clock(stage.now - 5 * 3600 * 1000), "no longer retained"),
    ] {
        let order = Command::Failover { to: None, force: true, route_only: false, at: Some(at) };
        let refused = stage.command(&order).unwrap_err();
        assert!(refused.sentence.contains(said), "{}", refused.sentence);
    }
    assert!(stage.patches.is_empty() && stage.cuts.is_empty());
    let at = api_clock(stage.now - 60_000);
    let order = Command::Failover { to: None, force: true, route_only: false, at: Some(at) };
    stage.command(&order).unwrap();
    stage.until(60_000, |stage| !stage.patches.is_empty());
    assert_eq!(stage.patches[0].2, Some(at));
}

#[test]
fn killed_at_every_step_the_daemon_goes_on_with_the_same_failover_and_orders_it_once() {
    // From the first write of the intent to the latch, in steps of a second.
    for second in 0..100 {
        let mut stage = Clusters::steady();
        dies(&mut stage);
        stage.until(400_000, |stage| stage.disk.intent.is_some());
        stage.run(second * 1_000);
        let sent = stage.disk.intent.as_ref().is_some_and(|intent| intent.stage == Stage::Sent);
        stage.restart(3_000);
        stage.until(900_000, |stage| stage.active() == "west" && stage.is_open());
        assert_eq!(stage.patches.len(), 1, "killed {second} s after the intent (sent: {sent})");
        assert_eq!(stage.epoch(), 2);
    }
}

#[test]
fn killed_between_sent_and_the_order_it_reads_first_and_orders_when_nothing_was_taken() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Lost;
    dies(&mut stage);
    stage.until(400_000, |stage| !stage.patches.is_empty());
    stage.patches.clear();
    stage.patch = Patch::Taken;
    let sent = stage.now;
    stage.restart(1_000);
    stage.until(120_000, |stage| !stage.patches.is_empty());
    assert!(stage.patches[0].0 - sent >= 15_000, "three readings first");
    stage.until(200_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_start_is_reconciled_with_what_was_promoted_last() {
    // Never latched, failed over by others long ago: west is the one.
    let mut stage = Clusters::new(service());
    stage.streams[0].status = Status::Completed;
    stage.streams[0].activated = Some(wall(9_000_000));
    stage.clusters = [Cluster::Serves, Cluster::Serves];
    stage.until(60_000, Clusters::is_open);
    assert_eq!(stage.active(), "west");

    // It does not serve: the streams and the wire disagree.
    let mut stage = Clusters::new(service());
    stage.streams[0].status = Status::Completed;
    stage.streams[0].activated = Some(wall(9_000_000));
    stage.run(120_000);
    assert!(!stage.is_open() && stage.blocked().contains("west does not serve"), "{}", stage.blocked());

    // A later stream leads from the side that was left.
    let mut stage = Clusters::new(service());
    stage.streams[0].status = Status::Completed;
    stage.streams[0].activated = Some(wall(9_000_000));
    stage.streams.push(stream("s2", EAST, WEST, Status::Replicating));
    stage.clusters = [Cluster::Serves, Cluster::Standby];
    stage.run(120_000);
    assert!(!stage.is_open() && stage.blocked().contains("proxyctl adopt"), "{}", stage.blocked());
}

#[test]
fn a_failover_made_while_the_daemon_was_off_is_adopted_at_its_start() {
    let mut stage = Clusters::steady();
    stage.fail_over("s1", None);
    stage.complete("s1");
    stage.restart(600_000);
    stage.until(90_000, Clusters::is_open);
    assert_eq!(stage.active(), "west");
}

#[test]
fn a_start_without_the_api_opens_to_the_latched_side_that_serves() {
    let mut stage = Clusters::steady();
    stage.api = Api::Unreachable;
    stage.restart(10_000);
    stage.until(60_000, Clusters::is_open);
    assert_eq!(stage.active(), "east");
}
