//! Patroni decides: its word closes, proof opens, silence does nothing, and orders are passed on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::service;
use super::stage::{Mood, NAMES, Stage, address};
use crate::config::{Authority, Patroni, Promoter, Service};
use crate::failover::action::{Command, EventKind, Gate, Outcome, PatroniSays};
use crate::failover::patroni::{Reading, Report};
use crate::failover::phase::EpisodeId;
use crate::patroni::model::{Cluster, Member, Role, Scheduled};
use crate::types::{HostPort, Timeline};

fn following() -> Service {
    let mut service = service(2);
    service.failover.authority = Authority::Patroni;
    service.failover.promoter = Promoter::None;
    service.patroni = Some(Patroni {
        addresses: vec!["east.example:8008".parse().unwrap()],
        tls: false,
        ca_file: None,
        certificate: None,
        login: None,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        order_timeout: Duration::from_secs(30),
    });
    service
}

/// Both members run; this one leads, on this timeline.
fn reading(leader: Option<(usize, u32)>) -> Reading {
    let member = |i: usize| Member {
        name: format!("pg-{}", NAMES[i]),
        role: if leader.is_some_and(|(at, _)| at == i) { Role::Leader } else { Role::Replica },
        state: "running".into(),
        host: Some(HostPort { host: format!("{}.internal", NAMES[i]).into(), port: 5432 }),
        api: None,
        timeline: leader.map(|(_, timeline)| Timeline(timeline)),
        lag: Some(0),
        nofailover: false,
        pending_restart: false,
    };
    let members: Vec<Member> = (0..2).map(member).collect();
    let addresses = (0..2).map(|i| (members[i].name.clone(), vec![address(i)])).collect();
    let cluster = Cluster { members, paused: false, scheduled: None };
    Reading { via: "east.example:8008".parse().unwrap(), cluster, primary: BTreeMap::new(), addresses, ended: None }
}

impl Stage {
    fn hears_patroni(&mut self, result: Result<Reading, String>) {
        let now = self.at();
        self.machine.handle_patroni(&Report { started: now.at, finished: now.at, result }, now);
        self.obey();
    }

    fn patroni_says(&mut self, episode: EpisodeId, says: PatroniSays) {
        let at = self.at();
        self.machine.handle_outcome(Outcome::PatroniSaid { episode, says }, at);
        self.obey();
    }

    fn holds(&self) -> bool {
        matches!(self.machine.gate(), Some(Gate::Open { hold: true, .. }))
    }
}

/// East is active and Patroni says so.
fn steady() -> Stage {
    let mut stage = Stage::with(following());
    stage.hears_patroni(Ok(reading(Some((0, 1)))));
    stage.until(10_000, |stage| stage.is_open());
    stage.run(5000);
    assert!(stage.is_open() && !stage.holds());
    stage
}

fn reason(stage: &Stage) -> String {
    stage.view().blocked.map_or_else(String::new, |block| block.reason)
}

#[test]
fn another_leader_closes_the_gate_at_once_and_opens_it_only_by_proof() {
    let mut stage = steady();
    stage.hears_patroni(Ok(reading(Some((1, 1)))));
    assert!(!stage.is_open() && stage.cuts == ["east".into()], "closed and cut in the same turn: {:?}", stage.cuts);
    assert_eq!((stage.active(), reason(&stage).as_str()), ("east", "not leader"));
    stage.run(20_000);
    assert_eq!((stage.active(), stage.is_open()), ("east", false), "a word alone opens to nobody");
    stage.promote(1);
    stage.until(2000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.promotions.is_empty() && stage.said("patroni: pg-west is leader"));
}

#[test]
fn the_one_that_patroni_names_is_looked_at_often() {
    let mut stage = steady();
    // Between two calm probes.
    stage.run(300);
    stage.servers[0].mood = Mood::Dead;
    stage.promote(1);
    stage.hears_patroni(Ok(reading(Some((1, 2)))));
    stage.until(1000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn an_answer_that_is_older_than_the_latch_is_not_heeded() {
    let mut stage = steady();
    stage.promote(1);
    stage.hears_patroni(Ok(reading(Some((1, 2)))));
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open());
    stage.hears_patroni(Ok(reading(Some((0, 1)))));
    stage.run(5000);
    assert_eq!((stage.active(), stage.is_open()), ("west", true));
}

#[test]
fn while_no_member_answers_nothing_moves_and_it_is_said_once() {
    let mut stage = steady();
    for _ in 0..60 {
        stage.hears_patroni(Err("east.example:8008 cannot be reached".into()));
        stage.run(1000);
        assert!(stage.is_open() && !stage.holds());
    }
    assert_eq!((stage.active(), stage.epoch()), ("east", 1));
    assert_eq!(stage.events.iter().filter(|event| event.sentence.contains("no member answers")).count(), 1);
    assert!(stage.view().patroni.unwrap().trouble.is_some());
    // What servers prove suffices.
    stage.servers[0].mood = Mood::Dead;
    stage.promote(1);
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.promotions.is_empty());
}

#[test]
fn a_leader_key_that_is_gone_closes_the_gate_unless_patroni_is_paused_or_its_holder_still_claims_it() {
    let paused = |mut reading: Reading| {
        reading.cluster.paused = true;
        reading
    };
    let claimed = |mut reading: Reading| {
        reading.primary.insert("pg-east".into(), true);
        reading
    };
    let mut stage = steady();
    for reading in [paused(reading(None)), claimed(reading(None))] {
        stage.hears_patroni(Ok(reading));
        stage.run(3000);
        assert!(stage.is_open());
    }
    let mut lapsed = reading(None);
    lapsed.primary.insert("pg-east".into(), false);
    stage.hears_patroni(Ok(lapsed));
    assert!(!stage.is_open() && stage.cuts == ["east".into()]);
    stage.hears_patroni(Ok(reading(Some((0, 1)))));
    stage.run(100);
    assert_eq!((stage.active(), stage.epoch(), stage.is_open()), ("east", 1, true), "it took its key back");
}

#[test]
fn a_word_against_the_active_side_outlives_silence_until_an_operator_decides() {
    let mut stage = steady();
    stage.hears_patroni(Ok(reading(None)));
    stage.hears_patroni(Err("nobody is there".into()));
    stage.run(60_000);
    assert!(!stage.is_open(), "silence takes nothing back");
    assert!(stage.view().blocked.unwrap().sentence.contains("`proxyctl adopt east`"));
    stage.command(&Command::Adopt { backend: "east".into() }).unwrap();
    stage.until(2000, |stage| stage.active() == "east" && stage.is_open());
    assert_eq!(stage.epoch(), 2);
}

#[test]
fn a_leader_that_is_about_to_stop_gets_no_newcomers() {
    let mut stage = steady();
    let mut stopping = reading(Some((0, 1)));
    stopping.cluster.members[0].state = "stopping".into();
    stage.hears_patroni(Ok(stopping));
    assert!(stage.holds() && stage.cuts.is_empty(), "what runs is Patroni's to end");
}

#[test]
fn a_cluster_whose_members_are_no_backends_closes_nothing_and_is_named() {
    let mut stage = steady();
    let mut strange = reading(Some((1, 1)));
    strange.addresses = BTreeMap::new();
    stage.hears_patroni(Ok(strange));
    stage.run(3000);
    assert!(stage.is_open(), "east may be that very leader under another address");
    assert!(stage.said("member pg-west at west.internal:5432 is no backend here"));
    assert!(stage.said("backend east is no member it knows"));
    assert_eq!(stage.view().patroni.unwrap().unmatched.len(), 2);
}

#[test]
fn a_name_in_the_configuration_finds_a_member_that_no_address_does() {
    let mut named = following();
    named.backends[0].member = Some("pg-east".into());
    let mut stage = Stage::with(named);
    let mut distant = reading(Some((1, 1)));
    distant.addresses = BTreeMap::new();
    stage.until(10_000, |stage| stage.is_open());
    stage.hears_patroni(Ok(distant));
    assert!(!stage.is_open(), "east is a replica by its name");
    let said = stage.view().blocked.unwrap().sentence;
    assert!(said.contains("pg-west its leader, which is no backend here"), "{said}");
}

#[test]
fn nobody_is_ever_promoted_here() {
    for mood in [Mood::Dead, Mood::Hung] {
        let mut stage = steady();
        stage.servers[0].mood = mood;
        stage.run(300_000);
        assert_eq!((stage.active(), stage.promotions.len(), stage.epoch()), ("east", 0, 1));
        assert_eq!(reason(&stage), "not automatic");
    }
}

#[test]
fn a_switchover_is_ordered_holds_newcomers_and_becomes_the_episode_that_was_promised() {
    let mut stage = steady();
    let receipt = stage.command(&Command::Switchover { to: Some("west".into()) }).unwrap();
    let episode = receipt.episode.unwrap();
    assert!(stage.holds() && stage.cuts.is_empty());
    assert!(receipt.steps.concat().contains(r#"POST /switchover {"candidate":"pg-west","leader":"pg-east"}"#));
    let ordered = stage.log.iter().filter(|line| line.contains("OrderPatroni")).count();
    assert_eq!(ordered, 1);
    let again = stage.command(&Command::Switchover { to: Some("west".into()) }).unwrap();
    assert_eq!((again.episode, ordered), (Some(episode), 1), "the same order again is the same order");
    let other = Command::Failover { to: Some("west".into()), force: false, route_only: false, at: None };
    assert_eq!(stage.command(&other).unwrap_err().code, "episode_running");
    let shown = stage.view().episode.unwrap();
    assert_eq!((shown.id, shown.kind.as_str(), shown.to.as_str()), (episode.0, "switchover", "west"));
    // As Patroni does it: the old one stops, the new one is promoted.
    stage.servers[0].mood = Mood::ShuttingDown;
    stage.run(500);
    stage.servers[0].mood = Mood::Dead;
    stage.promote(1);
    stage.patroni_says(episode, PatroniSays::Taken("Successfully switched over to \"pg-west\"".into()));
    stage.until(3000, |stage| stage.active() == "west" && stage.is_open() && !stage.holds());
    assert_eq!(stage.machine.record().last_episode, episode);
    assert!(stage.said("ada had ordered that switchover from Patroni"));
}

#[test]
fn what_patroni_refuses_ends_the_order_and_lets_newcomers_go_on() {
    let mut stage = steady();
    let first = stage.command(&Command::Switchover { to: None }).unwrap().episode.unwrap();
    assert!(stage.holds());
    stage.patroni_says(first, PatroniSays::Refused("east answers 412: no good candidates".into()));
    assert!(stage.is_open() && !stage.holds());
    let end = stage.events.iter().rfind(|event| event.kind == EventKind::Cancelled).unwrap();
    assert_eq!(end.episode, Some(first));
    assert!(end.sentence.contains("412: no good candidates"), "{}", end.sentence);
    let second = stage.command(&Command::Switchover { to: None }).unwrap().episode.unwrap();
    assert!(second > first, "a number is used once");
}

#[test]
fn an_order_whose_answer_was_lost_is_judged_by_what_patroni_shows() {
    let mut stage = steady();
    let episode = stage.command(&Command::Switchover { to: None }).unwrap().episode.unwrap();
    stage.patroni_says(episode, PatroniSays::Unknown("no answer in time".into()));
    for _ in 0..10 {
        stage.hears_patroni(Ok(reading(Some((0, 1)))));
        stage.run(1000);
        assert!(stage.holds(), "it may have been taken");
    }
    for _ in 0..6 {
        stage.run(1000);
        stage.hears_patroni(Ok(reading(Some((0, 1)))));
    }
    assert!(stage.is_open() && !stage.holds() && stage.said("no change came of the order"));
    assert_eq!((stage.active(), stage.epoch()), ("east", 1));
}

#[test]
fn an_order_that_would_make_no_sense_is_refused_before_it_is_sent() {
    let mut stage = Stage::with(following());
    stage.hears_patroni(Err("east.example:8008 cannot be reached".into()));
    stage.until(10_000, |stage| stage.is_open());
    let switchover = |to: Option<&str>| Command::Switchover { to: to.map(Into::into) };
    let failover =
        |to: Option<&str>| Command::Failover { to: to.map(Into::into), force: false, route_only: false, at: None };
    let refused = stage.command(&switchover(None)).unwrap_err();
    assert!(refused.code == "patroni_unknown" && refused.sentence.contains("cannot be reached"), "{refused:?}");
    stage.hears_patroni(Ok(reading(Some((0, 1)))));
    for (command, code) in [
        (failover(None), "needs_target"),
        (failover(Some("east")), "already_active"),
        (failover(Some("nowhere")), "unknown_backend"),
        (Command::Failover { to: None, force: true, route_only: false, at: None }, "patroni_decides"),
        (Command::Failover { to: Some("west".into()), force: false, route_only: true, at: None }, "patroni_decides"),
    ] {
        assert_eq!(stage.command(&command).unwrap_err().code, code, "{command:?}");
    }
    stage.hears_patroni(Ok(reading(None)));
    assert_eq!(stage.command(&switchover(Some("west"))).unwrap_err().code, "not_leader");
    assert!(stage.log.iter().all(|line| !line.contains("OrderPatroni")));
    assert!(stage.command(&failover(Some("west"))).is_ok(), "without a leader a failover names whom to promote");
}

#[test]
fn what_people_ask_of_patroni_is_shown_and_told() {
    let mut stage = steady();
    let mut next = reading(Some((0, 1)));
    next.cluster.paused = true;
    next.cluster.members[1].nofailover = true;
    let planned = Scheduled { at: "2030-01-01T00:00:00Z".into(), from: None, to: Some("pg-west".into()) };
    next.cluster.scheduled = Some(planned);
    stage.hears_patroni(Ok(next));
    let shown = stage.view().patroni.unwrap();
    assert!(shown.paused && shown.members[1].nofailover);
    assert_eq!(shown.members[1].backend.as_ref().unwrap().as_str(), "west");
    assert_eq!(shown.scheduled.as_deref(), Some("to pg-west at 2030-01-01T00:00:00Z"));
    assert!(stage.said("patroni: paused") && stage.said("a switchover to pg-west is scheduled"));
    assert!(stage.is_open());
}

#[test]
fn an_order_needs_no_answer_newer_than_the_latch_if_the_last_one_names_the_active_side() {
    let mut stage = Stage::with(following());
    stage.hears_patroni(Ok(reading(Some((0, 1)))));
    stage.until(10_000, |stage| stage.is_open());
    assert!(stage.command(&Command::Switchover { to: Some("west".into()) }).is_ok());
}
