//! What operators took newcomers from gets none, is not promoted, and changes nothing that is known.

use super::plan::service;
use super::stage::{Mood, Stage, address};
use crate::failover::action::{Command, Gate, Operator, Receipt, Refusal};
use crate::failover::machine::Machine;
use crate::failover::phase::BackendState;
use crate::types::HostPort;

fn set(stage: &mut Stage, backend: &str, state: BackendState) -> Result<Receipt, Refusal> {
    stage.command(&Command::SetState { backend: backend.into(), address: None, state })
}

/// Who takes newcomers of `active` listeners.
fn takes(stage: &Stage) -> Vec<String> {
    match stage.machine.gate() {
        Some(Gate::Open { tier, .. }) => {
            tier.iter().filter(|open| !open.addresses.is_empty()).map(|open| open.name.to_string()).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn newcomers_wait_for_an_active_side_in_drain_and_are_told_who_did_that() {
    let mut stage = Stage::steady();
    assert_eq!(takes(&stage), ["east"]);
    let said = set(&mut stage, "east", BackendState::Drain).unwrap().sentence;
    assert!(said.contains("it stays active") && said.contains("who is connected there stays"), "{said}");
    stage.run(10_000);
    assert!(takes(&stage).is_empty() && stage.cuts.is_empty() && stage.retired.is_empty());
    let view = stage.view();
    let why = view.closed_why.unwrap();
    assert!(!view.open && why.contains("east is in drain, set by ada"), "{why}");
    assert_eq!(stage.active(), "east");
    set(&mut stage, "east", BackendState::Ready).unwrap();
    assert_eq!(takes(&stage), ["east"]);
}

#[test]
fn in_maint_whoever_is_connected_is_asked_to_end_and_cut_when_the_time_is_over() {
    let mut stage = Stage::steady();
    set(&mut stage, "west", BackendState::Maint).unwrap();
    assert_eq!(stage.retired, [("west".into(), None, false)]);
    stage.run(4_900);
    assert_eq!(stage.retired.len(), 1, "cut before drain_timeout");
    stage.run(200);
    assert_eq!(stage.retired[1..], [("west".into(), None, true)]);
}

#[test]
fn who_is_ready_again_in_time_is_not_cut() {
    let mut stage = Stage::steady();
    set(&mut stage, "west", BackendState::Maint).unwrap();
    stage.run(2_000);
    set(&mut stage, "west", BackendState::Ready).unwrap();
    stage.run(20_000);
    assert_eq!(stage.retired, [("west".into(), None, false)]);
}

#[test]
fn a_standby_in_drain_is_not_promoted_and_says_why() {
    let mut stage = Stage::steady();
    set(&mut stage, "west", BackendState::Drain).unwrap();
    stage.run(1_000);
    let view = stage.view();
    assert!(view.backends[1].unarmed_why[0].contains("west is in drain, set by ada"), "{:?}", view.backends[1]);
    let refused = stage.command(&Command::Switchover { to: Some("west".into()) }).unwrap_err();
    assert!(refused.sentence.contains("proxyctl backend west ready"), "{refused:?}");
    stage.servers[0].mood = Mood::Dead;
    stage.run(30_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
    let force = Command::Failover { to: Some("west".into()), force: true, route_only: false, at: None };
    assert!(stage.command(&force).is_err(), "force overrides no administrative state");
    set(&mut stage, "west", BackendState::Ready).unwrap();
    stage.run(30_000);
    assert_eq!(stage.active(), "west");
}

#[test]
fn an_active_side_in_maint_that_goes_down_is_not_left_until_somebody_says_so() {
    let mut stage = Stage::steady();
    set(&mut stage, "east", BackendState::Maint).unwrap();
    stage.servers[0].mood = Mood::Dead;
    stage.run(60_000);
    assert_eq!((stage.active(), stage.promotions.len()), ("east", 0));
    let blocked = stage.view().blocked.unwrap();
    assert!(blocked.sentence.contains("east is in maint, set by ada"), "{blocked:?}");
    stage.command(&Command::Failover { to: None, force: false, route_only: false, at: None }).unwrap();
    stage.run(10_000);
    assert_eq!(stage.active(), "west");
}

#[test]
fn an_active_side_that_came_back_during_maint_is_looked_at_again_before_it_is_left() {
    let mut stage = Stage::steady();
    set(&mut stage, "east", BackendState::Maint).unwrap();
    stage.servers[0].mood = Mood::Dead;
    stage.run(20_000);
    // Back, and nobody has looked yet.
    stage.servers[0].mood = Mood::Well;
    set(&mut stage, "east", BackendState::Ready).unwrap();
    stage.until(10_000, Stage::is_open);
    stage.run(10_000);
    assert_eq!((stage.active(), stage.epoch(), stage.promotions.len()), ("east", 1, 0));
    assert!(!stage.said("episode 2: failover"), "not even begun");
}

#[test]
fn an_active_side_in_drain_that_dies_is_left_as_ever() {
    let mut stage = Stage::steady();
    set(&mut stage, "east", BackendState::Drain).unwrap();
    stage.servers[0].mood = Mood::Dead;
    stage.run(30_000);
    assert_eq!(stage.active(), "west");
}

#[test]
fn a_restart_keeps_it_and_forgets_what_the_configuration_no_longer_has() {
    let mut stage = Stage::steady_with(service(3));
    set(&mut stage, "west", BackendState::Maint).unwrap();
    set(&mut stage, "north", BackendState::Drain).unwrap();
    stage.restart(500);
    stage.run(5_000);
    let view = stage.view();
    let states: Vec<&str> = view.backends.iter().map(|backend| backend.admin_state()).collect();
    assert_eq!(states, ["ready", "maint", "drain"]);
    let at = stage.at();
    let mut smaller = Machine::new(service(2), "s-06".into(), stage.disk.clone(), at);
    let said: Vec<String> = std::iter::from_fn(|| smaller.poll_event()).map(|event| event.sentence).collect();
    let gone = "north is in drain, set by ada: forgotten, the configuration has no backend north";
    assert!(said.iter().any(|sentence| sentence == gone), "{said:?}");
    assert_eq!(smaller.record().administered.len(), 1, "{:?}", smaller.record().administered);
}

#[test]
fn one_address_is_taken_out_by_itself_and_unknown_names_are_answered_with_the_known_ones() {
    let mut stage = Stage::steady();
    let known: HostPort = address(0).to_string().parse().unwrap();
    let state = BackendState::Drain;
    stage.command(&Command::SetState { backend: "east".into(), address: Some(known.clone()), state }).unwrap();
    let Some(Gate::Open { tier, .. }) = stage.machine.gate() else { panic!("closed") };
    assert_eq!((tier[0].addresses.len(), tier[0].resting.as_slice()), (0, &[address(0)][..]));
    let other: HostPort = "10.9.9.9:5432".parse().unwrap();
    let refused =
        stage.command(&Command::SetState { backend: "east".into(), address: Some(other), state }).unwrap_err();
    assert_eq!(refused.code, "unknown_address");
    assert!(refused.sentence.contains(&known.to_string()), "{refused:?}");
    let refused = set(&mut stage, "easst", state).unwrap_err();
    assert!(refused.code == "unknown_backend" && refused.sentence.contains("east, west"), "{refused:?}");
}

#[test]
fn more_orders_than_the_record_has_room_for_are_refused() {
    let mut stage = Stage::steady();
    let many: Vec<_> = (1..60u8).map(|n| (format!("10.9.0.{n}:5432").parse().unwrap(), [10, 9, 0, n])).collect();
    let many: Vec<(HostPort, _)> = many.into_iter().map(|(name, ip)| (name, (ip, 5432).into())).collect();
    let at = stage.at();
    stage.machine.handle_addresses(&"west".into(), &many, at);
    stage.obey();
    let operator = Operator { name: "ada".repeat(100), note: Some("why \"so\"\n".repeat(100)) };
    let mut taken = many.iter().map(|(address, _)| {
        let (address, state) = (Some(address.clone()), BackendState::Drain);
        let at = stage.at();
        let command = Command::SetState { backend: "west".into(), address, state };
        let answer = stage.machine.handle_command(&command, &operator, false, at);
        stage.obey();
        answer
    });
    let refused = taken.find_map(Result::err).unwrap();
    assert_eq!(refused.code, "too_many_states");
    drop(taken);
    let orders = serde_json::to_vec(&stage.disk.administered).unwrap();
    assert!((800..=1200).contains(&orders.len()), "{} bytes", orders.len());
}
