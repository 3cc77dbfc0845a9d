//! The state directory: its lock, and per pair a directory with the record file and the history.
//!
//! ```text
//! <state>/lock                          who holds the directory
//! <state>/<pair>.pair/latch             two slots (`slots`)
//! <state>/<pair>.pair/history/*.jsonl   the chained history (`history`, `journal`)
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::Faults;
use super::history::HistoryReader;
use super::journal::{Journal, Limits};
use super::lock::Lock;
use super::slots::{Slots, sync_parent};
use super::{Doing, StoreError};
use crate::failover::action::Event;
use crate::failover::phase::Record;

pub use super::crash::CRASH_POINTS;

/// Longest name of a pair, bytes.
const NAME: usize = 80;
const SUFFIX: &str = ".pair";

/// A state directory, locked for this process until dropped.
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
    faults: Faults,
    pairs: Mutex<BTreeMap<String, Arc<Pair>>>,
    _lock: Lock,
}

#[derive(Debug)]
struct Pair {
    dir: PathBuf,
    /// `None` until the first record.
    slots: Mutex<Option<Slots>>,
    journal: Mutex<Journal>,
}

impl FileStore {
    pub(super) fn open(
        dir: &Path,
        daemon: &str,
        faults: Faults,
    ) -> Result<(Self, HashMap<String, Record>), StoreError> {
        make_dir(dir)?;
        let lock = Lock::take(dir, daemon)?;
        let (mut pairs, mut records) = (BTreeMap::new(), HashMap::new());
        for name in pair_names(dir)? {
            let pair = Pair::open(dir, &name, &faults)?;
            if let Some(slots) = &*locked(&pair.slots) {
                records.insert(name.clone(), slots.record().clone());
            }
            pairs.insert(name, Arc::new(pair));
        }
        let dir = dir.to_path_buf();
        Ok((Self { dir, faults, pairs: Mutex::new(pairs), _lock: lock }, records))
    }

    pub(super) fn write(&self, pair: &str, record: &Record) -> Result<(), StoreError> {
        self.with_slots(pair, |slots| slots.write(record))
    }

    pub(super) fn touch(&self, pair: &str) -> Result<(), StoreError> {
        self.with_slots(pair, Slots::rewrite)
    }

    pub(super) fn mirror(&self, pair: &str) -> Result<(), StoreError> {
        self.with_slots(pair, Slots::mirror)
    }

    pub(super) fn append(&self, pair: &str, event: &Event) -> Result<(), StoreError> {
        locked(&self.pair(pair)?.journal).append(event)
    }

    pub(super) fn sync_history(&self) -> Result<(), StoreError> {
        let pairs: Vec<_> = locked(&self.pairs).values().cloned().collect();
        // Every pair gets its turn; the first failure is told.
        let results: Vec<_> = pairs.iter().map(|pair| locked(&pair.journal).sync()).collect();
        results.into_iter().collect()
    }

    pub(super) fn reader(&self, pair: &str) -> Result<HistoryReader, StoreError> {
        Ok(HistoryReader::of_segments(self.dir.join(dir_name(pair)?).join("history")))
    }

    pub(super) fn pairs(&self) -> Result<Vec<String>, StoreError> {
        pair_names(&self.dir)
    }

    fn with_slots(&self, name: &str, act: impl FnOnce(&mut Slots) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let pair = self.pair(name)?;
        let mut slots = locked(&pair.slots);
        match &mut *slots {
            Some(slots) => act(slots),
            None => {
                make_dir(&pair.dir)?;
                let parent = sync_parent(&pair.dir);
                parent.map_err(|error| StoreError::io(&self.dir, Doing::Sync, error))?;
                act(slots.insert(Slots::create(&pair.latch(), name, &self.faults)?))
            }
        }
    }

    fn pair(&self, name: &str) -> Result<Arc<Pair>, StoreError> {
        let mut pairs = locked(&self.pairs);
        if let Some(pair) = pairs.get(name) {
            return Ok(pair.clone());
        }
        let pair = Arc::new(Pair::new(self.dir.join(dir_name(name)?), &self.faults));
        pairs.insert(name.to_owned(), pair.clone());
        Ok(pair)
    }
}

impl Pair {
    fn new(dir: PathBuf, faults: &Faults) -> Self {
        let journal = Journal::new(dir.join("history"), faults.clone(), Limits::default());
        Self { dir, slots: Mutex::new(None), journal: Mutex::new(journal) }
    }

    fn open(state: &Path, name: &str, faults: &Faults) -> Result<Self, StoreError> {
        let pair = Self::new(state.join(dir_name(name)?), faults);
        *locked(&pair.slots) = Slots::open(&pair.latch(), name, faults)?;
        if let Err(error) = locked(&pair.journal).recover() {
            // The history must not keep the daemon from starting; the next event tries again.
            tracing::warn!(pair = name, %error, "history not opened");
        }
        Ok(pair)
    }

    fn latch(&self) -> PathBuf {
        self.dir.join("latch")
    }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| StoreError::io(dir, Doing::Create, error))
}

fn pair_names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |error| StoreError::io(dir, Doing::Read, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        names.extend(pair_name(&entry.map_err(failed)?.file_name()));
    }
    names.sort();
    Ok(names)
}

/// `<pair>.pair`, every byte but letters, digits, `-` and `_` as `%XX`.
fn dir_name(pair: &str) -> Result<String, StoreError> {
    if pair.is_empty() || pair.len() > NAME {
        return Err(StoreError::PairName(pair.to_owned()));
    }
    let mut name = String::new();
    for byte in pair.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(name + SUFFIX)
}

/// The pair whose directory this is; `None` for anything else that stands there.
fn pair_name(dir: &OsStr) -> Option<String> {
    let mut rest = dir.to_str()?.strip_suffix(SUFFIX)?.as_bytes();
    let mut bytes = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    // Only what we would have named so ourselves.
    (dir_name(&name).ok()?.as_str() == dir).then_some(name)
}

/// What a panic elsewhere left behind is still what is on disk.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
