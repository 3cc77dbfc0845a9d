//! The record file of one pair: two preallocated slots, overwritten in turn.
//!
//! - The slot with the newest record is never the one that is written, so it is never at risk.
//! - A slot whose write or sync failed is condemned: what it holds is unknown, and after a failed sync the kernel's
//!   cache is no witness. It stays the one to write next until it was rewritten and read back from the disk.
//! - A confirmed record gets a second copy (`mirror`) as soon as the disk is idle. So at a restart a damaged slot
//!   beside a valid one is a write that nobody was told of, or a copy; either way falling back loses nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::crash::{self, Step, When};
use super::fault::{Faults, Operation};
use super::slot::{self, Content, SIZE};
use super::{Doing, SlotDamage, StoreError};
use crate::failover::phase::Record;

/// Both slots of one pair, open for writing.
#[derive(Debug)]
pub(super) struct Slots {
    path: PathBuf,
    pair: String,
    file: File,
    faults: Faults,
    record: Record,
    /// Which slot holds `record`: 0 or 1.
    newest: usize,
    /// Its number. A failed write leaves it: the next one goes to the same slot again.
    sequence: u64,
    /// The other slot failed and was not verified since.
    condemned: bool,
    /// Both slots hold `record`.
    mirrored: bool,
}

impl Slots {
    /// Reads an existing file; `None` if there is none.
    pub(super) fn open(path: &Path, pair: &str, faults: &Faults) -> Result<Option<Self>, StoreError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(path, Doing::Open, error)),
        };
        let found = [read_slot(&file, 0, pair), read_slot(&file, 1, pair)];
        let (newest, sequence, record) = choose(path, found)?;
        let faults = faults.clone();
        let (path, pair) = (path.to_path_buf(), pair.to_owned());
        Ok(Some(Self { path, pair, file, faults, record, newest, sequence, condemned: false, mirrored: false }))
    }

    /// Makes the file with an empty record in both slots. It appears complete or not at all.
    pub(super) fn create(path: &Path, pair: &str, faults: &Faults) -> Result<Self, StoreError> {
        let failed = |doing| move |error| StoreError::io(path, doing, error);
        if path.exists() {
            return Err(StoreError::Moved { path: path.to_path_buf() });
        }
        let record = Record::default();
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        faults.check(Operation::Create).map_err(failed(Doing::Create))?;
        let file = options.open(&new).map_err(failed(Doing::Create))?;
        for (n, sequence) in [(0, 1), (1, 2)] {
            let bytes = slot::encode(pair, sequence, &record)?;
            let written = faults.write(Operation::WriteSlot, &file, &bytes[..], offset(n));
            written.map_err(failed(Doing::Write))?;
        }
        faults.sync(Operation::SyncSlot, &file).map_err(failed(Doing::Sync))?;
        std::fs::rename(&new, path).map_err(failed(Doing::Create))?;
        sync_parent(path).map_err(failed(Doing::Sync))?;
        let (path, pair, faults) = (path.to_path_buf(), pair.to_owned(), faults.clone());
        Ok(Self { path, pair, file, faults, record, newest: 1, sequence: 2, condemned: false, mirrored: true })
    }

    /// The last record that is known to be on disk.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Writes a record over the older slot and brings it to disk.
    pub(super) fn write(&mut self, record: &Record) -> Result<(), StoreError> {
        let step = Step::between(&self.record, record);
        self.put(record, Some(step))?;
        self.record = record.clone();
        self.mirrored = false;
        Ok(())
    }

    /// Writes the current record over the older slot.
    pub(super) fn rewrite(&mut self) -> Result<(), StoreError> {
        let record = self.record.clone();
        self.put(&record, None)?;
        self.mirrored = true;
        Ok(())
    }

    /// As [`Slots::rewrite`], if there is no second copy yet.
    pub(super) fn mirror(&mut self) -> Result<(), StoreError> {
        if self.mirrored { Ok(()) } else { self.rewrite() }
    }

    fn put(&mut self, record: &Record, step: Option<Step>) -> Result<(), StoreError> {
        let target = 1 - self.newest;
        let bytes = slot::encode(&self.pair, self.sequence + 1, record)?;
        self.still_ours()?;
        crash::reach(step, When::Before);
        let repair = std::mem::replace(&mut self.condemned, true);
        let written = self.faults.write(Operation::WriteSlot, &self.file, &bytes[..], offset(target));
        written.map_err(|error| StoreError::io(&self.path, Doing::Write, error))?;
        crash::reach(step, When::Between);
        let synced = self.faults.sync(Operation::SyncSlot, &self.file);
        synced.map_err(|error| StoreError::io(&self.path, Doing::Sync, error))?;
        if repair {
            self.verify(target, &bytes[..])?;
        }
        self.condemned = false;
        self.newest = target;
        self.sequence += 1;
        crash::reach(step, When::After);
        Ok(())
    }

    /// The name still leads to the file that we hold: a record in an unlinked file would be lost at a restart.
    fn still_ours(&self) -> Result<(), StoreError> {
        let read = |error| StoreError::io(&self.path, Doing::Read, error);
        let ours = self.file.metadata().map_err(read)?;
        match std::fs::metadata(&self.path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            Ok(_) => Err(StoreError::Moved { path: self.path.clone() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::Moved { path: self.path.clone() }),
            Err(error) => Err(read(error)),
        }
    }

    /// Reads a slot back past the cache.
    fn verify(&self, n: usize, expected: &[u8]) -> Result<(), StoreError> {
        let failed = |error| StoreError::io(&self.path, Doing::Read, error);
        self.faults.check(Operation::VerifySlot).map_err(failed)?;
        let advice = rustix::fs::Advice::DontNeed;
        rustix::fs::fadvise(&self.file, offset(n), NonZeroU64::new(SIZE as u64), advice)
            .map_err(|error| failed(error.into()))?;
        let mut found = [0; SIZE];
        self.file.read_exact_at(&mut found, offset(n)).map_err(failed)?;
        if found == *expected { Ok(()) } else { Err(StoreError::Condemned { path: self.path.clone() }) }
    }
}

/// Which of two slots counts, its number, its record.
fn choose(path: &Path, found: [Content; 2]) -> Result<(usize, u64, Record), StoreError> {
    let path = || path.to_path_buf();
    match found {
        [Content::Foreign(what), _] | [_, Content::Foreign(what)] => Err(StoreError::Foreign { path: path(), what }),
        [Content::Damaged(first), Content::Damaged(second)] => Err(StoreError::Corrupt { path: path(), first, second }),
        [Content::Valid { sequence, record }, Content::Damaged(damage)] => {
            fell_back(&path(), 1, damage, sequence);
            Ok((0, sequence, *record))
        }
        [Content::Damaged(damage), Content::Valid { sequence, record }] => {
            fell_back(&path(), 0, damage, sequence);
            Ok((1, sequence, *record))
        }
        [Content::Valid { sequence: a, record: first }, Content::Valid { sequence: b, record: second }] => {
            Ok(if a > b { (0, a, *first) } else { (1, b, *second) })
        }
    }
}

fn fell_back(path: &Path, slot: usize, damage: SlotDamage, sequence: u64) {
    tracing::warn!(path = %path.display(), slot, %damage, sequence, "state slot not usable, the other one counts");
}

fn read_slot(file: &File, n: usize, pair: &str) -> Content {
    let mut bytes = [0; SIZE];
    match file.read_exact_at(&mut bytes, offset(n)) {
        Ok(()) => slot::decode(pair, &bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Content::Damaged(SlotDamage::Short),
        Err(error) => Content::Damaged(SlotDamage::Unreadable(error.kind())),
    }
}

fn offset(n: usize) -> u64 {
    (n * SIZE) as u64
}

/// Makes the name of `path` itself survive a power cut.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
