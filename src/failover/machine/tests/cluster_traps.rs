//! Traps of clusters: streams that mislead, orders that outlive their reason, and commands whose price is not plain.

use super::cluster_return::failed_over;
use super::clusters::{Api, Cluster, Clusters, EAST, Patch, WEST, api_clock, service};
use crate::failover::action::{Command, Gate};
use crate::failover::replication::{Report, Scope, Status};
use crate::types::{Moment, WallTime};
use std::time::Duration;

#[test]
fn the_old_primary_is_no_reader() {
    let stage = failed_over();
    let Some(Gate::Open { readers, .. }) = stage.machine.gate() else { panic!("closed") };
    let names: Vec<_> = readers.iter().filter(|r| !r.addresses.is_empty()).map(|r| r.name.as_str()).collect();
    assert!(names.is_empty(), "{names:?} get read_only traffic");
}

/// Others brought the data home; `activated` is what the completed stream shows of it.
fn stays_home(activated: impl Fn(&Clusters) -> Option<WallTime>) {
    let mut stage = failed_over();
    stage.create("s2", WEST, EAST);
    stage.run(120_000);
    stage.takes = 100_000_000;
    stage.fail_over("s2", None);
    stage.run(60_000);
    let activated = activated(&stage);
    let s2 = &mut stage.streams[1];
    (s2.status, s2.replicated, s2.activated) = (Status::Completed, None, activated);
    stage.clusters[EAST] = Cluster::Serves;
    stage.until(120_000, |stage| stage.active() == "east");
    stage.run(10 * 60_000);
    assert_eq!((stage.active(), stage.epoch()), ("east", 3), "{}", stage.last_words());
}

#[test]
fn a_failback_whose_completed_stream_shows_no_time_stays_home() {
    stays_home(|_| None);
}

#[test]
fn a_failback_by_a_cluster_whose_clock_is_behind_stays_home() {
    stays_home(|stage| Some(WallTime(stage.streams[0].activated.unwrap().0 - 1_000_000)));
}

#[test]
fn an_order_of_which_nothing_was_heard_is_not_abandoned_on_what_was_read_before_it() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Parting;
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(600_000, |stage| !stage.patches.is_empty());
    // East is back; its stream fails over to west, which nobody here can know.
    stage.clusters[EAST] = Cluster::Serves;
    stage.run(60_000);
    let answer = stage.command(&Command::Abandon { backend: "west".into() });
    stage.run(120_000);
    let west = stage.clusters[WEST];
    assert!(
        answer.is_err() && !stage.is_open(),
        "west {west:?}; {answer:?}; open={} to {}\n{}",
        stage.is_open(),
        stage.active(),
        stage.last_words()
    );
}

#[test]
fn restore_takes_no_stream_that_completed_before_this_side_was_latched() {
    let mut stage = failed_over();
    stage.create("s2", WEST, EAST);
    stage.run(5 * 60_000);
    stage.command(&Command::Restore { to: None, force: false }).unwrap();
    stage.until(300_000, |stage| stage.active() == "east" && stage.is_open());
    stage.clusters[WEST] = Cluster::Serves;
    stage.run(5 * 60_000);
    stage.command(&Command::Restore { to: Some("west".into()), force: true }).unwrap();
    stage.until(60_000, |stage| stage.active() == "west" && stage.is_open());
    stage.run(60 * 60_000);
    let answer = stage.command(&Command::Restore { to: None, force: false });
    assert_eq!(answer.as_ref().map_err(|r| r.code.clone()), Err("no_reverse_stream".to_owned()), "{answer:?}");
}

#[test]
fn a_first_start_that_hears_nothing_of_the_other_cluster_and_no_stream_holds() {
    let mut stage = Clusters::new(service());
    stage.streams.clear();
    stage.clusters = [Cluster::Serves, Cluster::Silent];
    // The stage heard one reading at most; start anew.
    stage.disk = Default::default();
    stage.restart(1_000);
    stage.run(120_000);
    assert!(!stage.is_open(), "open to {}", stage.active());
}

#[test]
fn a_start_without_the_api_beside_a_standby_that_serves_by_itself_holds() {
    let mut stage = Clusters::steady();
    stage.api = Api::Unreachable;
    stage.restart(60_000);
    stage.fail_over("s1", None);
    stage.complete("s1");
    stage.restart(1_000);
    stage.run(120_000);
    assert!(
        !stage.is_open(),
        "open to {}: {} / {}",
        stage.active(),
        stage.blocked(),
        stage.machine.view(stage.at()).evidence
    );
}

#[test]
fn a_start_without_the_api_beside_a_cluster_that_was_replicated_to_and_serves_holds() {
    let mut stage = failed_over();
    stage.create("s2", WEST, EAST);
    stage.run(600_000);
    stage.api = Api::Unreachable;
    stage.restart(60_000);
    // Home, past the daemon.
    stage.fail_over("s2", None);
    stage.complete("s2");
    stage.restart(1_000);
    stage.run(120_000);
    assert!(!stage.is_open(), "open to {}", stage.active());
    assert!(stage.blocked().contains("east serves as well"), "{}", stage.blocked());
    stage.api = Api::Well;
    stage.until(240_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn a_start_without_the_api_beside_the_old_primary_as_it_was_goes_on() {
    let mut stage = failed_over();
    stage.clusters[EAST] = Cluster::Serves;
    stage.run(600_000);
    stage.api = Api::Unreachable;
    stage.restart(60_000);
    stage.until(120_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_running_daemon_without_the_api_says_that_the_standby_serves_by_itself() {
    let mut stage = Clusters::steady();
    stage.api = Api::Unreachable;
    stage.fail_over("s1", None);
    stage.complete("s1");
    stage.run(10 * 60_000);
    let view = stage.machine.view(stage.at());
    assert!(
        !stage.is_open() || !stage.blocked().is_empty() || view.evidence.contains("blind"),
        "{} | {} | open={}",
        stage.blocked(),
        view.evidence,
        stage.is_open()
    );
}

#[test]
fn an_api_whose_clock_jumps_ahead_makes_no_living_primary_silent() {
    let mut stage = Clusters::steady();
    // Cut off from here; it serves others and replicates on.
    stage.clusters[EAST] = Cluster::Silent;
    stage.until(120_000, |stage| stage.machine.suspicion.is_some());
    stage.run(1_000);
    stage.api_jump = 600_000;
    stage.run(15 * 60_000);
    assert!(stage.patches.is_empty(), "ordered {:?}\n{}", stage.patches, stage.last_words());
}

#[test]
fn what_fails_over_is_not_replicating_again_after_a_word_nobody_knows() {
    let mut stage = Clusters::steady();
    stage.takes = 10_000_000;
    stage.fail_over("s1", None);
    stage.run(30_000);
    stage.streams[0].status = Status::Unknown;
    stage.run(30_000);
    stage.streams[0].status = Status::Replicating;
    stage.run(30_000);
    let status = stage.machine.streams.by_id("s1").unwrap().stream.status;
    assert_eq!(status, Status::FailingOver, "{}", stage.blocked());
    assert!(stage.command(&Command::Abandon { backend: "west".into() }).is_err());
}

#[test]
fn a_stream_that_is_listed_no_more_stands_in_nobodys_way() {
    let mut stage = Clusters::steady();
    stage.api = Api::Unreachable;
    stage.run(10 * 60_000);
    // Canceled, no longer shown, and another one made in its place.
    stage.streams.clear();
    stage.create("s9", EAST, WEST);
    stage.api = Api::Well;
    // The list of all happens to be read first.
    let at = Moment(Duration::from_millis(stage.now));
    let report = Report {
        started: at,
        finished: at,
        scope: Scope::All,
        clock: Some(api_clock(stage.now)),
        result: Ok(stage.streams.clone()),
    };
    let now = stage.at();
    stage.machine.handle_streams(&report, now);
    stage.run(30 * 60_000);
    stage.clusters[EAST] = Cluster::Dead;
    stage.run(20 * 60_000);
    assert_eq!(stage.active(), "west", "{}", stage.blocked());
}

#[test]
fn the_readings_of_an_order_that_goes_unheeded_do_not_pile_up() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Lost;
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(600_000, |stage| stage.patches.len() == 3);
    stage.run(24 * 3600 * 1000);
    let kept = stage.machine.run().map_or(0, |run| run.unheeded.len());
    assert!(kept < 100, "{kept}");
}

#[test]
fn killed_after_stop_service_before_sent_the_old_side_does_not_stay_stopped() {
    let mut service = service();
    service.failover.promoter = crate::config::Promoter::CockroachSql;
    service.replication = Some(crate::config::Replication::Sql(crate::config::CockroachSql {
        login: crate::config::Login { user: "pgpivot".into(), database: "defaultdb".into(), password: None },
        virtual_cluster: "main".into(),
        stop_service: true,
        default_target: true,
        refresh: Duration::from_secs(30),
    }));
    let mut stage = Clusters::steady_with(service);
    // The fence took effect and the daemon ended before `sent` was on disk.
    let order = Command::Failover { to: None, force: true, route_only: false, at: None };
    let mut twin = std::mem::replace(&mut stage, Clusters::steady());
    twin.written.clear();
    twin.command(&order).unwrap();
    let intended = twin
        .written
        .iter()
        .find(|r| r.intent.as_ref().is_some_and(|i| i.stage == crate::failover::phase::Stage::Intent))
        .cloned()
        .unwrap();
    assert_eq!(twin.clusters[EAST], Cluster::Stopped);
    // What the order came to is undone: it was never given.
    let s1 = twin.streams.iter_mut().find(|s| s.id == "s1").unwrap();
    (s1.status, s1.failover_at) = (Status::Replicating, None);
    twin.completes.clear();
    twin.disk = intended;
    if let Some(i) = &mut twin.disk.intent {
        i.forced = false;
        i.operator = None;
    }
    twin.restart(1_000);
    twin.run(20 * 60_000);
    assert!(
        twin.is_open(),
        "{} | {} | {:?} | frozen {:?}\n{}",
        twin.blocked(),
        twin.machine.view(twin.at()).evidence,
        twin.clusters,
        twin.disk.frozen,
        twin.last_words()
    );
}

#[test]
fn adopt_of_the_old_primary_says_what_is_missing_there() {
    let mut stage = failed_over();
    let answer = stage.command(&Command::Adopt { backend: "east".into() });
    match answer {
        Err(_) => {}
        Ok(receipt) => assert!(
            receipt.sentence.contains("missing") || receipt.steps.iter().any(|s| s.contains("missing")),
            "{receipt:?}"
        ),
    }
}

#[test]
fn a_refusal_is_believed_only_after_it_was_seen_for_a_while() {
    // Others order it; ours is refused for that, and one reading is of before.
    let mut stage = Clusters::steady();
    stage.patch = Patch::Refused;
    stage.takes = 10_000_000;
    stage.clusters[EAST] = Cluster::Dead;
    stage.until(600_000, |stage| !stage.patches.is_empty());
    stage.clusters[EAST] = Cluster::Serves;
    let reads = stage.reads;
    stage.until(60_000, |stage| stage.said("the failover was refused: 403"));
    assert!(stage.reads - reads >= 3, "reopened after {} readings", stage.reads - reads);
}

#[test]
fn forced_home_while_the_streams_cannot_be_read_the_operator_is_told_what_may_move_traffic_again() {
    let mut stage = Clusters::steady();
    stage.api = Api::Unreachable;
    stage.fail_over("s1", None);
    stage.complete("s1");
    stage.run(60_000);
    stage.command(&Command::Adopt { backend: "west".into() }).unwrap();
    stage.until(60_000, |stage| stage.active() == "west" && stage.is_open());
    stage.clusters[EAST] = Cluster::Serves;
    stage.run(60_000);
    let receipt = stage.command(&Command::Restore { to: None, force: true }).unwrap();
    assert!(receipt.sentence.contains("traffic follows it"), "{}", receipt.sentence);
    stage.until(60_000, |stage| stage.active() == "east" && stage.is_open());
    stage.run(60_000);
    assert_eq!(stage.active(), "east", "{}", stage.last_words());
    stage.api = Api::Well;
    stage.until(10 * 60_000, |stage| stage.active() == "west" && stage.is_open());
}

/// Our own way home; what the API shows of it in the end is `activated`.
fn restored(activated: impl Fn(&Clusters) -> Option<WallTime>) -> Clusters {
    let mut stage = failed_over();
    stage.create("s2", WEST, EAST);
    stage.run(5 * 60_000);
    stage.takes = 100_000_000;
    stage.command(&Command::Restore { to: None, force: false }).unwrap();
    stage.until(60_000, |stage| stage.patches.len() == 2);
    stage.run(30_000);
    let at = activated(&stage);
    let s2 = stage.streams.iter_mut().find(|s| s.id == "s2").unwrap();
    (s2.status, s2.replicated, s2.failover_at, s2.activated) = (Status::Completed, None, None, at);
    stage.clusters[EAST] = Cluster::Serves;
    stage.run(5 * 60_000);
    stage
}

#[test]
fn our_own_restore_ends_at_home_although_the_completed_stream_shows_no_time_yet() {
    let stage = restored(|_| None);
    assert!(
        stage.is_open() && stage.active() == "east",
        "open={} to {}\n{}",
        stage.is_open(),
        stage.active(),
        stage.last_words()
    );
}

#[test]
fn our_own_restore_ends_at_home_although_the_clock_of_the_source_is_behind_that_of_the_first_one() {
    let stage = restored(|stage| Some(WallTime(stage.streams[0].activated.unwrap().0 - 1)));
    assert!(
        stage.is_open() && stage.active() == "east",
        "open={} to {}\n{}",
        stage.is_open(),
        stage.active(),
        stage.last_words()
    );
}

#[test]
fn a_decision_of_days_ago_is_not_ordered_after_a_restart() {
    let mut stage = Clusters::steady();
    stage.patch = Patch::Lost;
    let order = Command::Failover { to: None, force: true, route_only: false, at: None };
    stage.command(&order).unwrap();
    let sent = stage
        .written
        .iter()
        .find(|r| r.intent.as_ref().is_some_and(|i| i.stage == crate::failover::phase::Stage::Sent))
        .cloned()
        .unwrap();
    stage.patch = Patch::Taken;
    stage.patches.clear();
    stage.disk = sent;
    stage.restart(3 * 24 * 3600 * 1000);
    stage.run(10 * 60_000);
    assert!(stage.patches.is_empty(), "{:?}\n{}", stage.patches, stage.last_words());
    assert!(stage.blocked().contains("long ago"), "{}", stage.blocked());
    stage.command(&Command::Abandon { backend: "west".into() }).unwrap();
    stage.until(60_000, |stage| stage.is_open() && stage.active() == "east");
}

#[test]
fn while_no_stream_can_be_read_the_evidence_says_to_what_it_is_blind() {
    let mut stage = Clusters::steady();
    stage.api = Api::Unreachable;
    stage.run(10 * 60_000);
    let evidence = stage.machine.view(stage.at()).evidence;
    assert!(evidence.contains("blind to failovers by others"), "{evidence}");
    let next = stage.machine.view(stage.at()).next;
    assert!(next.contains("not promoted by itself") || next.contains("no standby can take over"), "{next}");
    stage.api = Api::Well;
    stage.run(60_000);
    let evidence = stage.machine.view(stage.at()).evidence;
    assert!(!evidence.contains("blind"), "{evidence}");
}

#[test]
fn a_rotated_secret_forgets_nothing_of_the_streams_and_another_address_of_the_api_does() {
    let mut stage = Clusters::steady();
    let mut service = stage.machine.service.clone();
    let Some(crate::config::Replication::Cloud(cloud)) = &mut service.replication else { panic!("no Cloud") };
    cloud.secret = crate::types::Secret::new("another one".into());
    let now = stage.at();
    stage.machine.handle_config(service.clone(), now);
    assert!(stage.machine.streams.by_id("s1").is_some());
    let Some(crate::config::Replication::Cloud(cloud)) = &mut service.replication else { panic!("no Cloud") };
    cloud.api_url = "https://api.example.com".into();
    stage.machine.handle_config(service, now);
    assert!(stage.machine.streams.by_id("s1").is_none());
}

#[test]
fn a_stream_to_the_cluster_that_was_the_standby_is_not_taken_for_one_to_the_cluster_that_is() {
    let mut stage = Clusters::steady();
    let mut service = stage.machine.service.clone();
    service.backends[WEST].cluster_id = Some("another-cluster".into());
    let now = stage.at();
    stage.machine.handle_config(service, now);
    assert!(stage.machine.streams.by_id("s1").is_none());
    assert!(stage.machine.side(&"west".into()).unwrap().witness.replication().unwrap().replicated().is_none());
}

#[test]
fn a_forced_failover_says_up_to_when_the_standby_has_what_was_acknowledged() {
    let mut stage = Clusters::steady();
    let order = Command::Failover { to: None, force: true, route_only: false, at: None };
    let receipt = stage.command(&order).unwrap();
    assert!(receipt.sentence.contains("west has what east acknowledged up to"), "{}", receipt.sentence);
}

#[test]
fn another_cluster_under_the_name_of_the_latched_one_gets_nothing_until_an_operator_adopts_it() {
    let with_id = |id: &str| {
        let mut service = service();
        service.backends[EAST].cluster_id = Some(id.into());
        service
    };
    let mut stage = Clusters::steady_with(with_id("cluster-a"));
    assert_eq!(stage.disk.latch.as_ref().unwrap().cluster.as_deref(), Some("cluster-a"));
    stage.reconfigured(with_id("cluster-b"));
    stage.run(120_000);
    let said = stage.blocked();
    assert!(!stage.is_open() && said.contains("cluster-a") && said.contains("cluster-b"), "{said}");
    stage.command(&Command::Adopt { backend: "east".into() }).unwrap();
    stage.until(60_000, |stage| stage.is_open() && stage.active() == "east");
    assert_eq!(stage.disk.latch.as_ref().unwrap().cluster.as_deref(), Some("cluster-b"));
}
