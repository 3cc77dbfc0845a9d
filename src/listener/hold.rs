//! The waiting room of a service: bounded in number and per address, first come first served over all worker threads,
//! emptied at a limited rate. It hands out turns and knows no socket; how long to wait is the session's matter.
//!
//! Turns are moments: when somebody finds the route open, everybody in line gets a slot in the order of arrival. So
//! nobody waits for another thread, and one that is stuck holds up nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Where newcomers of one service wait.
#[derive(Debug)]
pub(super) struct Room {
    state: Mutex<State>,
    /// Who is in line now; read without the lock by every newcomer.
    in_line: AtomicUsize,
    /// Everybody who has a place, for those who only look.
    gauge: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    /// The routing version that the slots were given under.
    version: u64,
    /// Without a slot, by order of arrival.
    waiting: BTreeSet<u64>,
    slots: BTreeMap<u64, Instant>,
    /// The first slot that is free.
    next_slot: Option<Instant>,
    /// The last slot that was used.
    last_turn: Option<Instant>,
    next_ticket: u64,
    places: usize,
    by_address: HashMap<IpAddr, usize>,
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
        Self {
            state: Mutex::default(),
            in_line: AtomicUsize::new(0),
            gauge,
        }
    }

    /// Whether a newcomer may pass without standing in line.
    pub(super) fn is_line_empty(&self) -> bool {
        self.in_line.load(Relaxed) == 0
    }

    /// Takes a place at the end of the line.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, limits: Limits) -> Result<Place, Full> {
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
        state.waiting.insert(ticket);
        self.publish(&state);
        drop(state);
        Ok(Place {
            room: self.clone(),
            address,
            ticket,
        })
    }

    fn publish(&self, state: &State) {
        self.in_line.store(state.waiting.len() + state.slots.len(), Relaxed);
        self.gauge.store(state.places as u64, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the room, kept until its holder is attached or gives up. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    address: IpAddr,
    ticket: u64,
}

impl Place {
    /// The route is open in version `version`: is it this place's turn? Who went and comes back (its dial failed)
    /// has kept its place in the order.
    pub(super) fn turn(&self, version: u64, rate: u32, now: Instant) -> Turn {
        let mut state = self.room.lock();
        if version < state.version {
            return Turn::Stale;
        }
        if version > state.version {
            state.version = version;
            state.recall_slots();
        }
        if !state.slots.contains_key(&self.ticket) {
            state.waiting.insert(self.ticket);
            state.give_slots(now, Duration::from_secs(1) / rate.max(1));
        }
        let turn = match state.slots.get(&self.ticket) {
            Some(slot) if *slot > now => Turn::At(*slot),
            _ => {
                state.last_turn = state.slots.remove(&self.ticket).max(state.last_turn);
                Turn::Go
            }
        };
        self.room.publish(&state);
        turn
    }

    /// The route is closed: a slot given before is void.
    pub(super) fn stay(&self) {
        let mut state = self.room.lock();
        state.slots.remove(&self.ticket);
        state.waiting.insert(self.ticket);
        self.room.publish(&state);
    }

    /// Out of line for a while, with the place and its order kept: newcomers need not queue behind a pause.
    pub(super) fn step_aside(&self) {
        let mut state = self.room.lock();
        state.leave_line(self.ticket);
        self.room.publish(&state);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.leave_line(self.ticket);
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

impl State {
    /// Everybody back in line, in the old order.
    fn recall_slots(&mut self) {
        self.waiting.extend(std::mem::take(&mut self.slots).into_keys());
        self.next_slot = None;
    }

    fn give_slots(&mut self, now: Instant, interval: Duration) {
        let after_last = self.last_turn.map_or(now, |last| last + interval);
        let mut slot = self.next_slot.unwrap_or(after_last).max(now);
        for ticket in std::mem::take(&mut self.waiting) {
            self.slots.insert(ticket, slot);
            slot += interval;
        }
        self.next_slot = Some(slot);
    }

    fn leave_line(&mut self, ticket: u64) {
        self.waiting.remove(&ticket);
        self.slots.remove(&ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Limits = Limits {
        places: 100,
        per_address: 100,
    };
    const RATE: u32 = 10;

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
        let places: Vec<_> = (0..3).map(|_| room.enter(address(1), MANY).unwrap()).collect();
        assert!(!room.is_line_empty());
        // The last one notices the opening first.
        assert_eq!(places[2].turn(1, RATE, start), Turn::At(after(start, 200)));
        assert_eq!(places[1].turn(1, RATE, start), Turn::At(after(start, 100)));
        assert_eq!(places[0].turn(1, RATE, start), Turn::Go);
        assert_eq!(places[1].turn(1, RATE, after(start, 100)), Turn::Go);
        let late = room.enter(address(1), MANY).unwrap();
        assert_eq!(
            late.turn(1, RATE, after(start, 150)),
            Turn::At(after(start, 300)),
            "behind who waits already"
        );
        assert_eq!(places[2].turn(1, RATE, after(start, 200)), Turn::Go);
        assert_eq!(late.turn(1, RATE, after(start, 300)), Turn::Go);
        assert!(room.is_line_empty());
    }

    #[test]
    fn a_gate_that_closes_again_calls_everybody_back_in_the_old_order() {
        let (room, start) = (room(), Instant::now());
        let places: Vec<_> = (0..3).map(|_| room.enter(address(1), MANY).unwrap()).collect();
        assert_eq!(places[0].turn(1, RATE, start), Turn::Go);
        assert_eq!(places[2].turn(1, RATE, start), Turn::At(after(start, 200)));
        for place in &places[1..] {
            place.stay();
        }
        let reopened = after(start, 5000);
        assert_eq!(places[2].turn(3, RATE, reopened), Turn::At(after(reopened, 100)));
        assert_eq!(places[1].turn(3, RATE, reopened), Turn::Go);
        assert_eq!(
            places[0].turn(2, RATE, reopened),
            Turn::Stale,
            "it looks at an older snapshot"
        );
        assert_eq!(places[0].turn(3, RATE, reopened), Turn::At(after(reopened, 200)));
    }

    #[test]
    fn a_failed_dial_keeps_its_place_in_the_order() {
        let (room, start) = (room(), Instant::now());
        let places: Vec<_> = (0..2).map(|_| room.enter(address(1), MANY).unwrap()).collect();
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
        let places: Vec<_> = (0..3).map(|_| room.enter(address(1), MANY).unwrap()).collect();
        assert_eq!(places[0].turn(1, RATE, start), Turn::Go);
        assert_eq!(places[1].turn(2, RATE, after(start, 1)), Turn::At(after(start, 100)));
        assert_eq!(places[1].turn(3, RATE, after(start, 2)), Turn::At(after(start, 100)));
    }

    #[test]
    fn places_are_bounded_and_freed() {
        let limits = Limits {
            places: 3,
            per_address: 2,
        };
        let gauge = Arc::new(AtomicU64::new(0));
        let room = Arc::new(Room::new(gauge.clone()));
        let first = room.enter(address(1), limits).unwrap();
        let _second = room.enter(address(1), limits).unwrap();
        assert_eq!(room.enter(address(1), limits).unwrap_err(), Full::Address);
        let _third = room.enter(address(2), limits).unwrap();
        assert_eq!(room.enter(address(3), limits).unwrap_err(), Full::Room);
        assert_eq!(gauge.load(Relaxed), 3);
        drop(first);
        assert_eq!(gauge.load(Relaxed), 2);
        let again = room.enter(address(1), limits).unwrap();
        again.step_aside();
        drop(again);
        drop((_second, _third));
        assert!(room.is_line_empty());
        assert!(room.lock().by_address.is_empty());
    }
}
