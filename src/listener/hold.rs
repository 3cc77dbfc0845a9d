//! The waiting room of a service: bounded in number and per address, first come first served over all worker threads,
//! emptied at a limited rate. It hands out turns and knows no socket; how long to wait is the session's matter.
//!
//! Turns are moments: when somebody finds the route open, everybody in line gets a slot in the order of arrival. So
//! nobody waits for another thread, and one that is stuck holds up nobody.
//!
//! While dials fail, slots are far apart: a server that is just coming back is asked by a few, not by everybody. The
//! first who is served calls the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Target;

/// Between two turns while dials fail.
const SCOUTS: Duration = Duration::from_millis(20);

/// Where newcomers of one service wait, in a line per target.
#[derive(Debug)]
pub(super) struct Room {
    state: Mutex<State>,
    /// By line: a newcomer must stand in it. Read without the lock by every newcomer.
    busy: [AtomicBool; 2],
    /// Everybody who has a place, for those who only look.
    gauge: Arc<AtomicU64>,
    /// Somebody was served where dials had failed.
    served: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    lines: [Line; 2],
    next_ticket: u64,
    places: usize,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug, Default)]
struct Line {
    /// The routing version that the slots were given under.
    version: u64,
    /// The last dial failed.
    failing: bool,
    /// Without a slot, by order of arrival.
    waiting: BTreeSet<u64>,
    slots: BTreeMap<u64, Instant>,
    /// The first slot that is free.
    next_slot: Option<Instant>,
    /// The last slot that was used.
    last_turn: Option<Instant>,
}

/// How many may wait, from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) places: usize,
    pub(super) per_address: usize,
}

/// Why nobody more may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("as many clients wait as may")]
    Room,
    #[error("as many clients of this address wait as may")]
    Address,
}

/// What a client in line may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Go, now.
    Go,
    /// Come back at that time, unless the route changes before.
    At(Instant),
    /// The caller's snapshot is older than one that somebody else has seen: look again.
    Stale,
}

impl Room {
    pub(super) fn new(gauge: Arc<AtomicU64>) -> Self {
        Self { state: Mutex::default(), busy: Default::default(), gauge, served: watch::Sender::new(()) }
    }

    /// Whether a newcomer may pass without standing in line.
    pub(super) fn lets_pass(&self, target: Target) -> bool {
        !self.busy[index(target)].load(Relaxed)
    }

    /// Takes a place at the end of a line.
    pub(super) fn enter(self: &Arc<Self>, target: Target, address: IpAddr, limits: Limits) -> Result<Place, Full> {
        let mut state = self.lock();
        if state.places >= limits.places {
            return Err(Full::Room);
        }
        let of_address = state.by_address.get(&address).copied().unwrap_or(0);
        if of_address >= limits.per_address {
            return Err(Full::Address);
        }
        state.by_address.insert(address, of_address + 1);
        state.places += 1;
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.lines[index(target)].waiting.insert(ticket);
        self.publish(&state);
        Ok(Place { room: self.clone(), served: self.served.subscribe(), target, address, ticket })
    }

    /// A client was served: where dials failed before, everybody is called.
    pub(super) fn succeeded(&self, target: Target) {
        if self.lets_pass(target) {
            return;
        }
        let mut state = self.lock();
        let line = &mut state.lines[index(target)];
        if line.failing {
            line.failing = false;
            line.recall_slots();
            self.publish(&state);
            self.served.send_replace(());
        }
    }

    /// Nobody whom this route leads to takes connections.
    pub(super) fn failed(&self, target: Target) {
        let mut state = self.lock();
        let line = &mut state.lines[index(target)];
        if !line.failing {
            line.failing = true;
            line.recall_slots();
            self.publish(&state);
        }
    }

    fn publish(&self, state: &State) {
        for (busy, line) in self.busy.iter().zip(&state.lines) {
            busy.store(line.failing || !line.is_empty(), Relaxed);
        }
        self.gauge.store(state.places as u64, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(target: Target) -> usize {
    match target {
        Target::Active => 0,
        Target::ReadOnly => 1,
    }
}

/// A place in the room, kept until its holder is attached or gives up. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    served: watch::Receiver<()>,
    target: Target,
    address: IpAddr,
    ticket: u64,
}

impl Place {
    /// The route is open in version `version`: is it this place's turn? Who went and comes back (its dial failed)
    /// has kept its place in the order.
    pub(super) fn turn(&self, version: u64, rate: u32, now: Instant) -> Turn {
        let mut state = self.room.lock();
        let turn = state.lines[index(self.target)].turn(self.ticket, version, rate, now);
        self.room.publish(&state);
        turn
    }

    /// The route is closed: a slot given before is void.
    pub(super) fn stay(&self) {
        let mut state = self.room.lock();
        let line = &mut state.lines[index(self.target)];
        line.slots.remove(&self.ticket);
        line.waiting.insert(self.ticket);
        self.room.publish(&state);
    }

    /// Out of line for a while, with the place and its order kept.
    pub(super) fn step_aside(&self) {
        let mut state = self.room.lock();
        state.lines[index(self.target)].leave(self.ticket);
        self.room.publish(&state);
    }

    /// Comes back when somebody was served where dials had failed. Cancel safe.
    pub(super) async fn called(&mut self) {
        // The room keeps the sender as long as there is a place in it.
        let _ = self.served.changed().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.lines[index(self.target)].leave(self.ticket);
        state.places -= 1;
        if let Some(of_address) = state.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                state.by_address.remove(&self.address);
            }
        }
        self.room.publish(&state);
    }
}

impl Line {
    fn turn(&mut self, ticket: u64, version: u64, rate: u32, now: Instant) -> Turn {
        if version < self.version {
            return Turn::Stale;
        }
        if version > self.version {
            self.version = version;
            self.failing = false;
            self.recall_slots();
        }
        if !self.slots.contains_key(&ticket) {
            self.waiting.insert(ticket);
            self.give_slots(now, rate);
        }
        match self.slots.get(&ticket) {
            Some(slot) if *slot > now => Turn::At(*slot),
            _ => {
                self.last_turn = self.slots.remove(&ticket).max(self.last_turn);
                Turn::Go
            }
        }
    }

    /// Everybody back in line, in the old order.
    fn recall_slots(&mut self) {
        self.waiting.extend(std::mem::take(&mut self.slots).into_keys());
        self.next_slot = None;
    }

    fn give_slots(&mut self, now: Instant, rate: u32) {
        let released = Duration::from_secs(1) / rate.max(1);
        let interval = if self.failing { released.max(SCOUTS) } else { released };
        let after_last = self.last_turn.map_or(now, |last| last + interval);
        let mut slot = self.next_slot.unwrap_or(after_last).max(now);
        for ticket in std::mem::take(&mut self.waiting) {
            self.slots.insert(ticket, slot);
            slot += interval;
        }
        self.next_slot = Some(slot);
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.remove(&ticket);
        self.slots.remove(&ticket);
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Limits = Limits { places: 100, per_address: 100 };
    const RATE: u32 = 10;
    const ACTIVE: Target = Target::Active;

    fn room() -> Arc<Room> {
        Arc::new(Room::new(Arc::default()))
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn who_came_first_goes_first_and_no_faster_than_the_rate() {
        let (room, start) = (room(), Instant::now());
        let places: Vec<_> = (0..3).map(|_| room.enter(ACTIVE, address(1), MANY).unwrap()).collect();
        assert!(!room.lets_pass(ACTIVE));
        // The last one notices the opening first.
        assert_eq!(places[2].turn(1, RATE, start), Turn::At(after(start, 200)));
        assert_eq!(places[1].turn(1, RATE, start), Turn::At(after(start, 100)));
        assert_eq!(places[0].turn(1, RATE, start), Turn::Go);
        assert_eq!(places[1].turn(1, RATE, after(start, 100)), Turn::Go);
        let late = room.enter(ACTIVE, address(1), MANY).unwrap();
        assert_eq!(late.turn(1, RATE, after(start, 150)), Turn::At(after(start, 300)), "behind who waits already");
        assert_eq!(places[2].turn(1, RATE, after(start, 200)), Turn::Go);
        assert_eq!(late.turn(1, RATE, after(start, 300)), Turn::Go);
        assert!(room.lets_pass(ACTIVE));
    }

    #[test]
    fn a_gate_that_closes_again_calls_everybody_back_in_the_old_order() {
        let (room, start) = (room(), Instant::now());
        let places: Vec<_> = (0..3).map(|_| room.enter(ACTIVE, address(1), MANY).unwrap()).collect();
        assert_eq!(places[0].turn(1, RATE, start), Turn::Go);
        assert_eq!(places[2].turn(1, RATE, start), Turn::At(after(start, 200)));
        for place in &places[1..] {
            place.stay();
        }
        let reopened = after(start, 5000);
        assert_eq!(places[2].turn(3, RATE, reopened), Turn::At(after(reopened, 100)));
        assert_eq!(places[1].turn(3, RATE, reopened), Turn::Go);
        assert_eq!(places[0].turn(2, RATE, reopened), Turn::Stale, "it looks at an older snapshot");
        assert_eq!(places[0].turn(3, RATE, reopened), Turn::At(after(reopened, 200)));
    }

    #[test]
    fn a_failed_dial_keeps_its_place_in_the_order() {
        let (room, start) = (room(), Instant::now());
        let places: Vec<_> = (0..2).map(|_| room.enter(ACTIVE, address(1), MANY).unwrap()).collect();
        assert_eq!(places[0].turn(1, RATE, start), Turn::Go);
        places[0].stay();
        places[1].stay();
        let later = after(start, 1000);
        assert_eq!(places[1].turn(2, RATE, later), Turn::At(after(later, 100)));
        assert_eq!(places[0].turn(2, RATE, later), Turn::Go);
    }

    #[test]
    fn a_republished_route_does_not_raise_the_rate() {
        let (room, start) = (room(), Instant::now());
        let places: Vec<_> = (0..3).map(|_| room.enter(ACTIVE, address(1), MANY).unwrap()).collect();
        assert_eq!(places[0].turn(1, RATE, start), Turn::Go);
        assert_eq!(places[1].turn(2, RATE, after(start, 1)), Turn::At(after(start, 100)));
        assert_eq!(places[1].turn(3, RATE, after(start, 2)), Turn::At(after(start, 100)));
    }

    #[tokio::test]
    async fn while_dials_fail_a_few_try_and_the_first_success_calls_everybody() {
        let (room, start) = (room(), Instant::now());
        let rate = 1000;
        let mut places: Vec<_> = (0..3).map(|_| room.enter(ACTIVE, address(1), MANY).unwrap()).collect();
        assert_eq!(places[0].turn(1, rate, start), Turn::Go);
        room.failed(ACTIVE);
        places[0].step_aside();
        assert_eq!(places[1].turn(1, rate, start), Turn::At(after(start, 20)));
        assert_eq!(places[2].turn(1, rate, start), Turn::At(after(start, 40)));
        assert!(room.lets_pass(Target::ReadOnly), "the other line is not concerned");
        assert_eq!(places[1].turn(1, rate, after(start, 20)), Turn::Go);
        room.succeeded(ACTIVE);
        places[2].called().await;
        assert_eq!(places[2].turn(1, rate, after(start, 21)), Turn::Go);
        drop(places);
        assert!(room.lets_pass(ACTIVE));
    }

    #[test]
    fn while_dials_fail_newcomers_stand_in_line_although_nobody_waits() {
        let room = room();
        room.failed(ACTIVE);
        assert!(!room.lets_pass(ACTIVE));
        room.succeeded(ACTIVE);
        assert!(room.lets_pass(ACTIVE));
    }

    #[test]
    fn places_are_bounded_and_freed() {
        let limits = Limits { places: 3, per_address: 2 };
        let gauge = Arc::new(AtomicU64::new(0));
        let room = Arc::new(Room::new(gauge.clone()));
        let first = room.enter(ACTIVE, address(1), limits).unwrap();
        let _second = room.enter(ACTIVE, address(1), limits).unwrap();
        assert_eq!(room.enter(ACTIVE, address(1), limits).unwrap_err(), Full::Address);
        let _third = room.enter(ACTIVE, address(2), limits).unwrap();
        assert_eq!(room.enter(ACTIVE, address(3), limits).unwrap_err(), Full::Room);
        assert_eq!(gauge.load(Relaxed), 3);
        drop(first);
        assert_eq!(gauge.load(Relaxed), 2);
        let again = room.enter(ACTIVE, address(1), limits).unwrap();
        again.step_aside();
        drop(again);
        drop((_second, _third));
        assert!(room.lets_pass(ACTIVE));
        assert!(room.lock().by_address.is_empty());
    }
}
