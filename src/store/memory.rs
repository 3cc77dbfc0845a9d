//! A store that forgets at its end: for tests and for trying things out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::history::{HistoryLine, HistoryReader};
use super::{StoreError, slot};
use crate::failover::action::Event;
use crate::failover::phase::Record;

/// Lines kept per pair; the oldest go first.
const LINES: usize = 10_000;

/// Records and history by pair.
#[derive(Debug, Default)]
pub struct MemoryStore {
    pairs: Mutex<HashMap<String, Pair>>,
}

#[derive(Debug, Default)]
struct Pair {
    record: Record,
    lines: Arc<Mutex<VecDeque<HistoryLine>>>,
}

impl MemoryStore {
    pub(super) fn write(&self, pair: &str, record: &Record) -> Result<(), StoreError> {
        // The same limit as on disk, so that a test meets it.
        let bytes = slot::encoded_len(pair, record)?;
        if bytes > slot::CAPACITY {
            return Err(StoreError::Oversize { pair: pair.into(), bytes, limit: slot::CAPACITY });
        }
        self.lock().entry(pair.into()).or_default().record = record.clone();
        Ok(())
    }

    pub(super) fn append(&self, pair: &str, event: &Event) -> Result<(), StoreError> {
        let lines = self.lines(pair);
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = HistoryLine::after(lines.back(), event)?;
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
        Ok(())
    }

    pub(super) fn reader(&self, pair: &str) -> HistoryReader {
        HistoryReader::of_memory(self.lines(pair))
    }

    pub(super) fn pairs(&self) -> Vec<String> {
        let mut pairs: Vec<_> = self.lock().keys().cloned().collect();
        pairs.sort();
        pairs
    }

    /// The record last written for `pair`.
    pub fn record(&self, pair: &str) -> Option<Record> {
        self.lock().get(pair).map(|found| found.record.clone())
    }

    fn lines(&self, pair: &str) -> Arc<Mutex<VecDeque<HistoryLine>>> {
        self.lock().entry(pair.into()).or_default().lines.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
