//! A daemon's disk: two slots, writes one after the other, and failures of which nobody knows what they left behind.

use std::collections::VecDeque;

use pgpivot::failover::phase::Record;

use crate::chance::Chance;

/// How the disk fares now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fare {
    Well,
    /// Every write fails; what a failed write leaves behind is chance.
    Fails,
    /// Each write fails or not.
    Flaky,
    /// A write takes so many milliseconds.
    Slow(u64),
}

#[derive(Debug, Clone)]
pub struct Write {
    /// `None` = a touch.
    pub ticket: Option<u64>,
    pub record: Option<Box<Record>>,
}

#[derive(Debug, Clone)]
pub struct Disk {
    /// The slot that is known to be good.
    confirmed: Record,
    /// What the slot of a failed write holds, if that is valid.
    other: Option<Record>,
    pub queue: VecDeque<Write>,
    pub fare: Fare,
    pub busy: bool,
}

impl Disk {
    pub fn new() -> Self {
        Self { confirmed: Record::default(), other: None, queue: VecDeque::new(), fare: Fare::Well, busy: false }
    }

    /// What a restart would read.
    pub fn holds(&self) -> &Record {
        self.other.as_ref().unwrap_or(&self.confirmed)
    }

    pub fn latency(&self, chance: &mut Chance) -> u64 {
        match self.fare {
            Fare::Slow(ms) => ms,
            _ if chance.one_in(40) => chance.between(50, 400),
            _ => chance.between(1, 8),
        }
    }

    /// The write at the head ends: its ticket and result.
    pub fn finish(&mut self, chance: &mut Chance) -> Option<(Write, Result<(), String>)> {
        let write = self.queue.pop_front()?;
        let fails = match self.fare {
            Fare::Fails => true,
            Fare::Flaky => chance.one_in(2),
            Fare::Well | Fare::Slow(_) => false,
        };
        let record = write.record.clone().map_or_else(|| self.confirmed.clone(), |record| *record);
        if fails {
            self.leave(record, chance);
            return Some((write, Err("input/output error".into())));
        }
        self.confirmed = record;
        self.other = None;
        Some((write, Ok(())))
    }

    /// A write that failed reached the disk, tore its slot, or never began.
    fn leave(&mut self, record: Record, chance: &mut Chance) {
        match chance.below(4) {
            0 | 1 => self.other = Some(record),
            2 => self.other = None,
            _ => {}
        }
    }

    /// The daemon is gone: the write under way may still arrive, those behind it do not.
    pub fn orphan(&mut self, chance: &mut Chance) {
        if let (true, Some(write)) = (self.busy, self.queue.pop_front())
            && let Some(record) = write.record
        {
            self.leave(*record, chance);
        }
        self.queue.clear();
        self.busy = false;
        // What is read at the start is what counts from then on.
        self.confirmed = self.holds().clone();
        self.other = None;
    }
}
