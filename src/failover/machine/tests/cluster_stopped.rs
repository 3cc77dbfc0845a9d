//! Self-hosted clusters: STOP SERVICE as a fence and as the first half of a switchover, and that nothing stays stopped.

use std::time::Duration;

use super::clusters::{self, Cluster, Clusters, EAST, Patch};
use crate::config::{CockroachSql, Login, Promoter, Replication, Service};
use crate::failover::action::Command;
use crate::failover::replication::Status;

fn service() -> Service {
    let mut service = clusters::service();
    service.failover.promoter = Promoter::CockroachSql;
    service.replication = Some(Replication::Sql(CockroachSql {
        login: Login { user: "pgpivot".into(), database: "defaultdb".into(), password: None },
        virtual_cluster: "main".into(),
        stop_service: true,
        default_target: true,
        refresh: Duration::from_secs(30),
    }));
    service
}

fn dies(stage: &mut Clusters) {
    stage.clusters[EAST] = Cluster::Dead;
}

const FORCED: Command = Command::Failover { to: None, force: true, route_only: false, at: None };

#[test]
fn a_switchover_stops_the_old_side_and_proves_that_nothing_was_lost() {
    let mut stage = Clusters::steady_with(service());
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(200_000, |stage| stage.active() == "west" && stage.is_open());
    assert_eq!(stage.clusters[EAST], Cluster::Stopped);
    assert!(stage.said("no acknowledged row was lost"));
    assert!(stage.unfrozen.is_empty(), "it stays stopped");
}

#[test]
fn a_switchover_that_is_refused_starts_the_old_side_again_before_it_is_opened() {
    let mut stage = Clusters::steady_with(service());
    stage.patch = Patch::Refused;
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(60_000, |stage| stage.said("the failover was refused: 403"));
    stage.until(60_000, |stage| stage.is_open() && stage.active() == "east");
    assert_eq!((stage.unfrozen.len(), stage.clusters[EAST]), (1, Cluster::Serves));
    assert!(stage.disk.frozen.is_empty());
}

#[test]
fn a_restart_after_the_old_side_was_stopped_starts_it_again() {
    let mut stage = Clusters::steady_with(service());
    stage.api = clusters::Api::Unreachable;
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(60_000, |stage| stage.clusters[EAST] == Cluster::Stopped);
    stage.restart(1_000);
    stage.run(60_000);
    assert!(stage.unfrozen.is_empty(), "as long as nobody can tell whether the other side was promoted meanwhile");
    assert!(!stage.is_open());
    stage.api = clusters::Api::Well;
    stage.until(120_000, |stage| stage.is_open() && stage.active() == "east");
    assert_eq!(stage.clusters[EAST], Cluster::Serves);
}

#[test]
fn a_refused_failover_is_tried_again_when_its_time_has_come() {
    let mut stage = Clusters::steady_with(service());
    stage.patch = Patch::Refused;
    stage.fence = Err("connection refused".into());
    dies(&mut stage);
    stage.until(600_000, |stage| stage.said("the failover was refused: 403"));
    assert!(stage.said("the node fence failed, which is allowed here: connection refused"));
    stage.patch = Patch::Taken;
    stage.until(600_000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.patches.len() >= 2);
}

#[test]
fn where_a_fence_is_required_stop_service_is_one_and_must_succeed() {
    let mut required = service();
    required.failover.fence_required = true;
    let mut stage = Clusters::steady_with(required);
    stage.fence = Err("connection refused".into());
    dies(&mut stage);
    stage.until(600_000, |stage| stage.said("the node fence failed: connection refused"));
    stage.run(300_000);
    assert!(stage.patches.is_empty() && stage.active() == "east", "{}", stage.blocked());
    stage.fence = Ok(());
    stage.until(600_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_side_that_was_fenced_for_a_failover_which_was_then_refused_is_started_again() {
    let mut stage = Clusters::steady_with(service());
    stage.patch = Patch::Refused;
    stage.command(&FORCED).unwrap();
    stage.until(60_000, |stage| stage.said("the failover was refused: 403"));
    stage.until(60_000, |stage| stage.is_open() && stage.active() == "east");
    assert_eq!(stage.clusters[EAST], Cluster::Serves);
}

#[test]
fn a_replication_that_is_in_trouble_or_at_its_end_says_why_it_cannot_be_failed_over() {
    for (status, word) in [(Status::Stalled, "stalled"), (Status::Canceled, "canceled")] {
        let mut stage = Clusters::steady_with(service());
        (stage.streams[0].status, stage.streams[0].trouble) =
            (status, Some("replication error, job 7: disk full".into()));
        dies(&mut stage);
        stage.run(600_000);
        let wanted = format!("s1 to west is {word} (replication error, job 7: disk full)");
        let ended = format!("s1 is {word} (replication error, job 7: disk full)");
        assert!(stage.blocked().contains(&wanted) || stage.blocked().contains(&ended), "{}", stage.blocked());
        assert!(stage.patches.is_empty());
    }
}
