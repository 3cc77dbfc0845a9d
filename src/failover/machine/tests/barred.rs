//! Readers of a side that became a primary of its own or another one's are cut; what is seen of other daemons counts at
//! once; another address is another server.

use super::plan::service;
use super::stage::{Mood, NAMES, Stage};
use crate::failover::health::Limits;
use crate::failover::observation::{Facts, Observation, Role, Verdict};
use crate::failover::side::Side;
use crate::types::{Moment, Now, WallTime};
use std::time::Duration;

fn cut(stage: &Stage, name: &str) -> usize {
    stage.cuts.iter().filter(|cut| cut.as_str() == name).count()
}

#[test]
fn readers_of_a_standby_that_is_promoted_by_hand_beside_a_living_primary_are_cut_once() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.promote(1);
    stage.until(10_000, |stage| cut(stage, "west") == 1);
    stage.run(30_000);
    assert_eq!((cut(&stage, "west"), cut(&stage, "east"), stage.active()), (1, 0, "east"));
}

#[test]
fn readers_of_a_standby_that_stayed_on_the_old_line_are_cut() {
    let mut stage = Stage::steady_with(service(3));
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() != "east" && stage.is_open());
    let left = NAMES.iter().position(|name| *name != "east" && *name != stage.active()).unwrap();
    stage.servers[0].mood = Mood::Well;
    stage.until(30_000, |stage| cut(stage, NAMES[left]) == 1);
}

#[test]
fn another_daemon_that_is_seen_now_makes_its_promotion_one_to_follow() {
    let mut stage = Stage::steady();
    stage.run(5000);
    assert_eq!(stage.disk.other_daemon_seen, None);
    for server in &mut stage.servers {
        server.daemons = vec!["pgpivot/s-09/main/1".into()];
    }
    stage.until(10_000, |stage| stage.disk.other_daemon_seen.is_some());
    let first: Option<WallTime> = stage.disk.other_daemon_seen;
    stage.run(600_000);
    assert_eq!(stage.disk.other_daemon_seen, first, "not a write a minute");
    stage.promote(1);
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
}

fn answers(ip: &str, node: &str, at: u64) -> Observation {
    let facts = Facts { role: Role::Primary, node: Some(node.into()), ..Facts::default() };
    Observation {
        backend: "east".into(),
        address: ip.parse().unwrap(),
        started: Moment(Duration::from_secs(at)),
        finished: Moment(Duration::from_secs(at)),
        fresh: true,
        verdict: Verdict::Answered(Box::new(facts)),
    }
}

#[test]
fn a_server_that_moved_to_another_address_is_no_pooler_but_two_servers_behind_one_are() {
    let config = service(2).backends[0].clone();
    let mut side = Side::new(&config);
    let limits = Limits { fall: 3, rise: 2, patience: Duration::from_secs(30), spacing: Duration::from_millis(450) };
    let configured = config.addresses[0].clone();
    let hear = |side: &mut Side, ip: &str, node: &str, at: u64| {
        side.resolved(&[(configured.clone(), ip.parse().unwrap())]);
        let now = Now { at: Moment(Duration::from_secs(at)), wall: WallTime(0) };
        assert!(side.observe(&answers(ip, node, at), limits, now));
        side.indirect
    };
    assert!(!hear(&mut side, "10.0.0.1:5432", "10.0.0.1:5432", 1));
    assert!(!hear(&mut side, "10.0.0.9:5432", "10.0.0.9:5432", 2), "it was rebuilt elsewhere");
    assert!(hear(&mut side, "10.0.0.9:5432", "10.0.0.7:5432", 3), "one address, two servers");
    assert!(!hear(&mut side, "10.0.0.8:5432", "10.0.0.8:5432", 4), "what stood between stood there");
}

#[test]
fn a_daemon_that_began_as_an_observer_and_was_told_to_decide_makes_room_for_whoever_decides() {
    let mut stage = Stage::steady();
    // Its name on the pair, which others go by, is from its start.
    stage.machine.daemon = "o-05".into();
    for server in &mut stage.servers {
        server.daemons = vec!["pgpivot/s-09/main/1".into()];
    }
    stage.run(5000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    assert_eq!((stage.promotions.len(), stage.view().blocked.unwrap().reason.as_str()), (0, "second decider"));
}
