//! Another server answers at the old side's address, and no probe has heard it yet.

use super::stage::{Server, Stage};
use crate::failover::action::Command;
use crate::failover::phase::{Phase, Stage as Stadium};

/// Swapped while `freezing` is being written.
fn swapped(swap: fn(&mut Server)) -> Stage {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.as_ref().is_some_and(|intent| intent.stage == Stadium::Freezing));
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(10_000, |stage| stage.waiting.is_some());
    swap(&mut stage.servers[0]);
    stage.deliver();
    stage
}

#[test]
fn a_server_that_is_not_the_latched_one_is_not_frozen_and_the_switchover_is_undone() {
    let swaps: [fn(&mut Server); 3] =
        [|server| server.system = 99, |server| server.timeline = 2, |server| server.node = "10.0.0.77:5432".into()];
    for swap in swaps {
        let mut stage = swapped(swap);
        assert!(stage.said("could not be frozen: this is not the server that is latched"));
        assert!(!stage.servers[0].frozen && stage.freezes[0] == "freeze east");
        stage.run(100);
        assert_eq!((stage.active(), stage.epoch(), stage.promotions.len()), ("east", 1, 0));
        // The latched server is back at its address.
        let mut home = Stage::steady().servers[0].clone();
        home.lsn = stage.servers[1].lsn;
        stage.servers[0] = home;
        stage.until(10_000, |stage| stage.is_open() && stage.machine.phase() == Phase::Steady);
        assert_eq!((stage.active(), stage.epoch()), ("east", 1));
        assert!(stage.machine.record().frozen.is_empty(), "the release is owed no more");
    }
}

#[test]
fn a_stranger_at_the_address_is_not_released_either() {
    let mut stage = swapped(|server| {
        server.system = 99;
        server.frozen = true;
    });
    stage.run(10);
    assert!(stage.freezes.contains(&"unfreeze east".to_owned()));
    assert!(stage.servers[0].frozen, "a setting of another server was changed");
}

#[test]
fn the_last_position_of_another_server_proves_nothing() {
    let mut stage = Stage::steady();
    stage.run(5000);
    stage.hold_write = Some(|record| record.intent.as_ref().is_some_and(|intent| intent.stage == Stadium::Sent));
    stage.command(&Command::Switchover { to: None }).unwrap();
    stage.until(10_000, |stage| stage.waiting.is_some());
    // The same position, by chance.
    stage.servers[0].node = "10.0.0.77:5432".into();
    stage.deliver();
    stage.until(5000, |stage| stage.active() == "west" && stage.is_open());
    assert!(stage.said("that no row was lost could not be proven"));
}
