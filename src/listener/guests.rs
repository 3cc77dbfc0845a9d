//! Who is at a listener, by client address, and how fast they come: what keeps one client from taking the places of
//! all. It counts and knows no socket.
//!
//! Who is over a limit is let in far enough to be told so, or to cancel a query; of those there are few at a time, per
//! address and in all, and the rest is closed without a word.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{ListenerLimits, Rate};
use crate::connections::Limit;

/// How many may be over a limit at a time, and how many of one address.
pub(super) const MOST_OVER: u64 = 64;
const MOST_OVER_OF_ONE: u32 = 8;
/// Addresses that are remembered although none of theirs is open: beyond it they start anew.
const MOST_REMEMBERED: usize = 65_536;
/// No sweep below.
const FEW: usize = 1024;

/// The guests of one listener, on all its threads.
#[derive(Debug, Default)]
pub(super) struct Guests {
    table: Mutex<Table>,
    over: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    all: Bucket,
    by_address: HashMap<Address, Entry>,
    /// With so many addresses the next sweep is due.
    sweep_at: usize,
}

/// An IPv4 address, or the upper half of an IPv6 one: whoever has one of a /64 has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Address(u64);

impl Address {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(u64::from(ip.to_bits())),
            // No address of ::/64 is anybody's but loopback, so none is taken for an IPv4 one.
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// Over a limit or not.
    open: u32,
    over: u32,
    bucket: Bucket,
}

/// When everything that was taken has flowed back; `None` or past = full.
#[derive(Debug, Default, Clone, Copy)]
struct Bucket(Option<Instant>);

impl Bucket {
    fn is_full(self, now: Instant) -> bool {
        self.0.is_none_or(|full| full <= now)
    }

    /// Takes one, unless it is empty.
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let depth = rate.interval() * rate.burst;
        // A configuration loaded since may allow less debt than there is.
        let full = self.0.map_or(now, |full| full.clamp(now, now + depth));
        let then = full + rate.interval();
        let taken = then <= now + depth;
        self.0 = Some(if taken { then } else { full });
        taken
    }

    fn give_back(&mut self, interval: Duration) {
        self.0 = self.0.and_then(|full| full.checked_sub(interval));
    }
}

/// What a client is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Over {
    #[error("too many connections from this address: max_connections_per_address is {0}")]
    Address(u64),
    #[error("connections come too fast: connection_rate is {0}/s")]
    Rate(u32),
    #[error("connections from this address come too fast: connection_rate_per_address is {0}/s")]
    AddressRate(u32),
}

impl Over {
    pub(super) fn limit(self) -> Limit {
        match self {
            Self::Address(_) => Limit::AddressConnections,
            Self::Rate(_) => Limit::Rate,
            Self::AddressRate(_) => Limit::AddressRate,
        }
    }
}

/// A client at the door, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Arc<Guests>,
    address: Address,
}

/// A client that is over a limit and may hear so, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Tolerated {
    guests: Arc<Guests>,
    address: Address,
}

impl Guests {
    /// Counts a client. `Err` = it is over a limit, and so are as many as may be told so now.
    pub(super) fn enter(
        self: &Arc<Self>,
        ip: IpAddr,
        limits: &ListenerLimits,
        now: Instant,
    ) -> Result<(Guest, Option<(Over, Tolerated)>), Over> {
        let address = Address::of(ip);
        let mut table = self.lock();
        table.sweep(now);
        let Table { all, by_address, .. } = &mut *table;
        let entry = by_address.entry(address).or_default();
        let over = entry.over_what(all, limits, now);
        if let Some(over) = over {
            if entry.over >= MOST_OVER_OF_ONE || self.over.load(Relaxed) >= MOST_OVER {
                return Err(over);
            }
            entry.over += 1;
            self.over.fetch_add(1, Relaxed);
        }
        entry.open += 1;
        let over = over.map(|over| (over, Tolerated { guests: self.clone(), address }));
        Ok((Guest { guests: self.clone(), address }, over))
    }

    /// How many are in although they are over a limit.
    pub(super) fn over(&self) -> u64 {
        self.over.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// It opened no session: what it took of the rates is given back.
    pub(super) fn give_back(&self, limits: &ListenerLimits) {
        let mut table = self.guests.lock();
        if let Some(rate) = limits.rate {
            table.all.give_back(rate.interval());
        }
        if let (Some(rate), Some(entry)) = (limits.rate_per_address, table.by_address.get_mut(&self.address)) {
            entry.bucket.give_back(rate.interval());
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut table = self.guests.lock();
        let Some(entry) = table.by_address.get_mut(&self.address) else { return };
        entry.open -= 1;
        if entry.open == 0 && entry.bucket.0.is_none() {
            table.by_address.remove(&self.address);
        }
    }
}

impl Drop for Tolerated {
    fn drop(&mut self) {
        self.guests.over.fetch_sub(1, Relaxed);
        if let Some(entry) = self.guests.lock().by_address.get_mut(&self.address) {
            entry.over = entry.over.saturating_sub(1);
        }
    }
}

impl Entry {
    /// What belongs to all is touched last: one client's flood takes nothing of it.
    fn over_what(&mut self, all: &mut Bucket, limits: &ListenerLimits, now: Instant) -> Option<Over> {
        if let Some(most) = limits.per_address
            && u64::from(self.open.saturating_sub(self.over)) >= most
        {
            return Some(Over::Address(most));
        }
        if let Some(rate) = limits.rate_per_address
            && !self.bucket.take(rate, now)
        {
            return Some(Over::AddressRate(rate.per_second));
        }
        let rate = limits.rate.filter(|rate| !all.take(*rate, now))?;
        if let Some(own) = limits.rate_per_address {
            self.bucket.give_back(own.interval());
        }
        Some(Over::Rate(rate.per_second))
    }
}

impl Table {
    /// Forgets addresses of which there is nothing to remember. Costs little per newcomer: the next sweep is due when
    /// the table has doubled.
    fn sweep(&mut self, now: Instant) {
        if self.by_address.len() < self.sweep_at.max(FEW) {
            return;
        }
        self.by_address.retain(|_, entry| entry.open > 0 || !entry.bucket.is_full(now));
        let open = self.by_address.values().filter(|entry| entry.open > 0).count();
        if self.by_address.len() - open >= MOST_REMEMBERED / 2 {
            self.by_address.retain(|_, entry| entry.open > 0);
        }
        self.by_address.shrink_to(FEW);
        self.sweep_at = (self.by_address.len() * 2).min(self.by_address.len() + MOST_REMEMBERED / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn rate(per_second: u32, burst: u32) -> Option<Rate> {
        Some(Rate { per_second, burst })
    }

    fn what(entered: &(Guest, Option<(Over, Tolerated)>)) -> Option<Over> {
        entered.1.as_ref().map(|(over, _)| *over)
    }

    #[test]
    fn a_burst_passes_and_then_an_even_stream() {
        let (mut bucket, now, rate) = (Bucket::default(), Instant::now(), Rate { per_second: 10, burst: 3 });
        assert_eq!([(); 5].map(|()| bucket.take(rate, now)), [true, true, true, false, false]);
        let later = now + Duration::from_millis(100);
        assert_eq!([(); 2].map(|()| bucket.take(rate, later)), [true, false]);
        assert!(!bucket.is_full(later) && bucket.is_full(later + Duration::from_millis(300)));
    }

    #[test]
    fn a_limit_that_was_lowered_or_raised_holds_from_the_next_newcomer_on() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        let (slow, fast) = (Rate { per_second: 1, burst: 1000 }, Rate { per_second: 1000, burst: 10 });
        assert!((0..1000).all(|_| bucket.take(slow, now)));
        assert!(!bucket.take(fast, now), "the debt is that of the new limit, and not paid");
        assert!(bucket.take(fast, now + Duration::from_millis(1)), "and no more than that");
    }

    #[test]
    fn an_address_is_one_of_ipv4_mapped_or_not_and_a_64_of_ipv6() {
        let guests = Arc::new(Guests::default());
        let limits = ListenerLimits { per_address: Some(1), ..ListenerLimits::default() };
        let now = Instant::now();
        let enter = |text| guests.enter(ip(text), &limits, now).unwrap();
        let first = [enter("192.0.2.1"), enter("192.0.2.2"), enter("2001:db8::1"), enter("2001:db8:0:1::1")];
        assert!(first.iter().all(|(_, over)| over.is_none()));
        for same in ["::ffff:192.0.2.1", "2001:db8::ffff:1"] {
            assert_eq!(what(&enter(same)), Some(Over::Address(1)), "{same}");
        }
        drop(first);
        assert_eq!(what(&enter("2001:db8::ffff:1")), None);
    }

    #[test]
    fn those_over_a_limit_are_few_and_take_nothing_from_others() {
        let guests = Arc::new(Guests::default());
        let limits = ListenerLimits { per_address: Some(1), rate: rate(1000, 10), rate_per_address: rate(10, 2) };
        let now = Instant::now();
        let flood: Vec<_> = (0..100).map(|_| guests.enter(ip("192.0.2.1"), &limits, now)).collect();
        assert_eq!(flood.iter().flatten().count(), 1 + MOST_OVER_OF_ONE as usize);
        assert_eq!(guests.over(), u64::from(MOST_OVER_OF_ONE));
        let good = (2..11).map(|n| guests.enter(ip(&format!("192.0.2.{n}")), &limits, now).unwrap());
        assert!(good.collect::<Vec<_>>().iter().all(|(_, over)| over.is_none()));
        drop(flood);
        assert_eq!(guests.over(), 0);
    }

    #[test]
    fn what_a_cancel_took_of_the_rates_is_given_back() {
        let guests = Arc::new(Guests::default());
        let limits = ListenerLimits { rate: rate(1, 1), rate_per_address: rate(1, 1), ..ListenerLimits::default() };
        let now = Instant::now();
        let (cancel, over) = guests.enter(ip("192.0.2.1"), &limits, now).unwrap();
        assert!(over.is_none());
        cancel.give_back(&limits);
        let enter = || guests.enter(ip("192.0.2.1"), &limits, now).unwrap();
        assert_eq!(what(&enter()), None);
        assert_eq!(what(&enter()), Some(Over::AddressRate(1)));
    }

    #[test]
    fn a_flood_from_everywhere_leaves_a_table_that_is_bounded_and_empties() {
        let guests = Arc::new(Guests::default());
        let limits = ListenerLimits { rate_per_address: rate(1, 1), ..ListenerLimits::default() };
        let now = Instant::now();
        let stays = guests.enter(ip("192.0.2.1"), &limits, now).unwrap();
        for n in 0..200_000_u32 {
            guests.enter(IpAddr::V4((0x0a00_0000 + n).into()), &limits, now).unwrap();
            assert!(guests.lock().by_address.len() <= MOST_REMEMBERED + 1);
        }
        let later = now + Duration::from_secs(2);
        guests.lock().sweep_at = 0;
        guests.enter(ip("192.0.2.2"), &limits, later).unwrap();
        assert_eq!(guests.lock().by_address.len(), 2);
        drop(stays);
    }
}
