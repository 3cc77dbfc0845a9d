//! Where probes show neither lines nor roles: once the active side changed, nobody is promoted before an operator's word.

use super::plan::service;
use super::stage::{Mood, Stage};
use crate::config::{HttpProbe, ProbeKind, Promoter, Service, WitnessRule};
use crate::failover::action::{Action, Command, Gate, Outcome, PromotionResult};

fn blind(backends: usize) -> Service {
    let mut service = service(backends);
    service.probe.kind = ProbeKind::Tcp;
    service.failover.witness = WitnessRule::Optional;
    service.backends[1].priority = 1;
    service.failover.cooldown = std::time::Duration::from_secs(1);
    service
}

/// East died, west was promoted, and east is up again as it was.
fn returned(backends: usize) -> Stage {
    let mut stage = Stage::steady_with(blind(backends));
    stage.run(3000);
    stage.servers[0].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "west" && stage.is_open());
    stage.servers[0].mood = Mood::Well;
    stage.run(15_000);
    stage
}

fn rejoin(stage: &mut Stage) -> String {
    stage
        .command(&Command::Rejoin { backend: "east".into(), method: None })
        .map_or_else(|no| no.sentence, |receipt| receipt.sentence)
}

#[test]
fn an_old_primary_that_came_back_as_it_was_is_not_promoted_when_the_new_one_dies() {
    let mut stage = returned(2);
    let expected = stage.view().next;
    assert!(expected.contains("`proxyctl rejoin east`"), "nobody is told beforehand: {expected}");
    stage.servers[1].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!((stage.promotions.len(), stage.active()), (1, "west"));
    let said = stage.view().blocked.unwrap().sentence;
    for part in ["east may lack all that was written since", "a tcp probe", "`proxyctl rejoin east`", "--force"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_third_server_is_not_promoted_either_before_somebody_says_that_it_follows_the_new_primary() {
    let mut stage = returned(3);
    stage.servers[1].mood = Mood::Dead;
    stage.run(30_000);
    assert_eq!((stage.promotions.len(), stage.active()), (1, "west"), "north may have stayed on the old line");
    let mut stage = returned(3);
    stage.rebuild(2, 1);
    stage.run(3000);
    stage.command(&Command::Rejoin { backend: "north".into(), method: None }).unwrap();
    stage.servers[1].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "north" && stage.is_open());
}

#[test]
fn readers_are_not_sent_to_a_server_that_may_be_a_primary_of_its_own() {
    let readers = |stage: &Stage| match stage.machine.gate() {
        Some(Gate::Open { readers, .. }) => readers.iter().map(|open| open.name.to_string()).collect::<Vec<_>>(),
        _ => panic!("closed"),
    };
    let mut stage = Stage::steady_with(blind(2));
    stage.run(3000);
    assert_eq!(readers(&stage), ["west"]);
    let mut stage = returned(2);
    assert_eq!(readers(&stage), Vec::<String>::new());
    stage.rebuild(0, 1);
    stage.run(3000);
    rejoin(&mut stage);
    assert_eq!(readers(&stage), ["east"]);
}

#[test]
fn a_target_that_was_given_up_is_not_promoted_a_second_time_as_if_nothing_had_been() {
    let mut stage = Stage::steady_with(blind(2));
    stage.run(3000);
    stage.loses = Some(|action| matches!(action, Action::Promote { .. }));
    stage.servers[0].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.log.iter().any(|line| line.contains("Promote")));
    stage.loses = None;
    stage.servers[1].mood = Mood::Dead;
    stage.run(15_000);
    stage.servers[0].mood = Mood::Well;
    stage.command(&Command::Abandon { backend: "west".into() }).unwrap();
    stage.until(30_000, |stage| stage.active() == "east" && stage.is_open());
    stage.servers[1].mood = Mood::Well;
    stage.run(15_000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!(stage.active(), "east");
    assert!(stage.view().blocked.unwrap().sentence.contains("`proxyctl rejoin west`"));
}

/// The latch was made by probes that showed no lines; from now on they do.
fn sees_lines(mut stage: Stage) -> Stage {
    let mut service = service(2);
    service.failover.witness = WitnessRule::Optional;
    stage.reconfigured(service);
    stage
}

#[test]
fn a_latch_that_was_made_without_lines_learns_them_where_a_standby_streams_from_the_one_primary() {
    let mut stage = returned(2);
    stage.rebuild(0, 1);
    let mut stage = sees_lines(stage);
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.disk.latch.as_ref().unwrap().identity.is_some());
    stage.run(5000);
    stage.servers[1].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn a_latch_that_was_made_without_lines_gets_no_traffic_beside_two_primaries_until_somebody_decides() {
    let mut stage = sees_lines(returned(2));
    stage.run(30_000);
    assert!(!stage.is_open());
    let said = stage.view().blocked.unwrap().sentence;
    assert!(said.contains("probes showed no timelines") && said.contains("`proxyctl adopt`"), "{said}");
    stage.command(&Command::Adopt { backend: "west".into() }).unwrap();
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    stage.servers[1].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!((stage.promotions.len(), stage.active()), (1, "west"), "east is the old primary as it was");
}

#[test]
fn once_an_operator_says_that_it_follows_it_is_promoted_by_itself() {
    let mut stage = returned(2);
    stage.rebuild(0, 1);
    stage.run(3000);
    let said = rejoin(&mut stage);
    assert!(said.contains("counts as a standby of west again"), "{said}");
    let said = rejoin(&mut stage);
    assert!(said.contains("nothing is doubted of east"), "{said}");
    stage.restart(500);
    stage.run(3000);
    stage.servers[1].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn a_restart_does_not_make_a_side_that_was_left_a_candidate() {
    let mut stage = returned(2);
    stage.restart(500);
    stage.run(3000);
    stage.servers[1].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!((stage.promotions.len(), stage.active()), (1, "west"));
}

#[test]
fn force_promotes_it_all_the_same_and_says_that_the_loss_is_not_known() {
    let mut stage = returned(2);
    stage.servers[1].mood = Mood::Dead;
    stage.run(20_000);
    let failover = |force| Command::Failover { to: None, force, route_only: false, at: None };
    let refused = stage.command(&failover(false)).unwrap_err();
    assert_eq!(refused.code, "no_candidate", "{}", refused.sentence);
    let begun = stage.command(&failover(true)).unwrap();
    assert!(begun.sentence.contains("how much may be lost is not known"), "{}", begun.sentence);
    stage.until(10_000, |stage| stage.active() == "east" && stage.is_open());
}

#[test]
fn nobody_states_that_the_active_side_or_one_that_is_down_follows() {
    let mut stage = returned(2);
    let refused = stage.command(&Command::Rejoin { backend: "west".into(), method: None }).unwrap_err();
    assert_eq!(refused.code, "already_active");
    stage.servers[0].mood = Mood::Dead;
    stage.run(15_000);
    let refused = stage.command(&Command::Rejoin { backend: "east".into(), method: None }).unwrap_err();
    assert_eq!(refused.code, "not_up", "{}", refused.sentence);
}

#[test]
fn where_probes_show_lines_a_statement_must_agree_with_what_they_show() {
    let mut stage = Stage::steady_with(service(2));
    stage.run(3000);
    let said = rejoin(&mut stage);
    assert!(said.contains("east is active"), "{said}");
    let receipt = stage.command(&Command::Rejoin { backend: "west".into(), method: None }).unwrap();
    assert!(receipt.sentence.contains("west streams from east"), "{}", receipt.sentence);
    stage.servers[0].mood = Mood::Dead;
    stage.until(20_000, |stage| stage.active() == "west" && stage.is_open());
    let refused = stage.command(&Command::Rejoin { backend: "east".into(), method: None }).unwrap_err();
    // What it needs is read from both servers first.
    assert_eq!(refused.code, "not_surveyed", "{}", refused.sentence);
}

#[test]
fn a_latch_with_a_line_that_probes_no_longer_show_waits_for_an_operator_and_says_so() {
    let mut stage = Stage::steady();
    stage.run(3000);
    stage.reconfigured(blind(2));
    stage.run(30_000);
    let said = stage.view().blocked.unwrap().sentence;
    assert!(!stage.is_open() && said.contains("where no probe of this kind can show it, `proxyctl adopt`"), "{said}");
    stage.command(&Command::Adopt { backend: "east".into() }).unwrap();
    stage.until(20_000, |stage| stage.active() == "east" && stage.is_open());
    // Nobody was replaced: who followed follows.
    stage.servers[0].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_word_on_a_standby_does_not_outlive_its_address_and_is_not_taken_while_nobody_leads() {
    let mut stage = returned(2);
    stage.rebuild(0, 1);
    stage.run(3000);
    rejoin(&mut stage);
    let mut moved = blind(2);
    moved.backends[0].addresses = vec!["elsewhere.example:5432".parse().unwrap()];
    let at = stage.at();
    stage.machine.handle_config(moved, at);
    stage.obey();
    stage.servers[1].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!(stage.active(), "west", "another server stands under that name");
    let refused = stage.command(&Command::Rejoin { backend: "east".into(), method: None }).unwrap_err();
    assert!(refused.code == "active_down" && refused.sentence.contains("--force"), "{}", refused.sentence);
}

#[test]
fn a_refusal_that_follows_an_order_of_which_nothing_is_known_opens_the_old_side_to_nobody() {
    let mut stage = Stage::steady_with(blind(2));
    stage.run(3000);
    stage.servers[1].promotes = false;
    stage.servers[0].mood = Mood::Dead;
    stage.until(30_000, |stage| stage.promotions.len() == 1);
    stage.restart(500);
    stage.servers[0].mood = Mood::Well;
    stage.until(30_000, |stage| stage.promotions.len() == 2);
    let (at, episode) = (stage.at(), stage.machine.record().last_episode);
    let result = PromotionResult::Refused("exit status 3".into());
    stage.machine.handle_outcome(Outcome::Promotion { episode, result }, at);
    stage.obey();
    assert!(stage.said("but it was ordered before, and may be promoted"));
    stage.run(90_000);
    assert!(!stage.is_open());
    let said = stage.view().blocked.unwrap().sentence;
    for part in ["(no answer in time)", "`proxyctl adopt west`", "`proxyctl abandon west`"] {
        assert!(said.contains(part), "{said}");
    }
    stage.command(&Command::Adopt { backend: "west".into() }).unwrap();
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
}

#[test]
fn a_check_that_a_standby_passes_too_moves_traffic_to_none_by_itself() {
    let mut service = blind(2);
    service.failover.promoter = Promoter::None;
    service.probe.kind = ProbeKind::Http(HttpProbe {
        path: "/health".into(),
        port: None,
        tls: false,
        expect_status: vec![200],
        expect_body: None,
        primary_only: false,
    });
    let mut stage = Stage::steady_with(service);
    stage.run(3000);
    stage.servers[0].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!(stage.active(), "east");
    let route = Command::Failover { to: None, force: false, route_only: true, at: None };
    stage.command(&route).unwrap();
    stage.until(10_000, |stage| stage.active() == "west" && stage.is_open());
}
