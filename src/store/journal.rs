//! The writing side of a pair's history: preallocated segments, a torn end cut at open, the oldest segment dropped.
//! The format and the reading side are `history`'s.
//!
//! Failing here never blocks a decision: what could not be written is counted, and the next line that can be written
//! is preceded by one that says how many are missing.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use super::fault::{Faults, Operation};
use super::history::{self, HistoryLine, SEGMENT, SEGMENTS, Segment, Tail};
use super::lock::now;
use super::slots::sync_parent;
use super::{Doing, StoreError};
use crate::failover::action::{Event, EventKind};

/// The history of one pair, open for writing from its first event on.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    faults: Faults,
    limits: Limits,
    open: Option<Open>,
    /// Events that could not be written since the last one that could.
    missed: u64,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) segment: u64,
    pub(super) segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment: SEGMENT, segments: SEGMENTS }
    }
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    file: File,
    /// Where the next line goes.
    size: u64,
    last: Option<HistoryLine>,
    unsynced: bool,
    /// What was found at the end and must still be noted.
    found: Option<String>,
}

impl Journal {
    pub(super) fn new(dir: PathBuf, faults: Faults, limits: Limits) -> Self {
        Self { dir, faults, limits, open: None, missed: 0 }
    }

    /// Cuts a torn end, if there is a history at all.
    pub(super) fn recover(&mut self) -> Result<(), StoreError> {
        if !history::segments(&self.dir)?.is_empty() {
            self.opened()?;
        }
        Ok(())
    }

    /// Adds one event, and what must be said before it.
    pub(super) fn append(&mut self, event: &Event) -> Result<(), StoreError> {
        let result = self.try_append(event);
        match &result {
            Ok(()) => self.missed = 0,
            Err(_) => self.missed = self.missed.saturating_add(1),
        }
        result
    }

    /// Brings what was added to disk.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        let Some(open) = self.open.as_mut().filter(|open| open.unsynced) else {
            return Ok(());
        };
        let synced = self.faults.sync(Operation::SyncHistory, &open.file);
        synced.map_err(|error| StoreError::io(&open.segment.path, Doing::Sync, error))?;
        open.unsynced = false;
        Ok(())
    }

    fn try_append(&mut self, event: &Event) -> Result<(), StoreError> {
        if let Some(found) = self.opened()?.found.clone() {
            self.add_notice(event, found)?;
            self.opened()?.found = None;
        }
        if self.missed > 0 {
            self.add_notice(event, format!("{} events before this one could not be written", self.missed))?;
            self.missed = 0;
        }
        self.add(event)
    }

    fn add_notice(&mut self, event: &Event, sentence: String) -> Result<(), StoreError> {
        let (epoch, active) = (event.epoch, event.active.clone());
        let kind = EventKind::Notice;
        self.add(&Event {
            at: now(),
            episode: None,
            epoch,
            kind,
            sentence,
            took: None,
            operator: None,
            active,
            change: None,
        })
    }

    fn add(&mut self, event: &Event) -> Result<(), StoreError> {
        let line = HistoryLine::after(self.opened()?.last.as_ref(), event)?;
        let text = format!("{line}\n");
        if self.is_full_for(text.len()) {
            self.rotate()?;
        }
        let faults = self.faults.clone();
        let open = self.opened()?;
        let written = faults.write(Operation::WriteHistory, &open.file, text.as_bytes(), open.size);
        if let Err(error) = written {
            let failure = StoreError::io(&open.segment.path, Doing::Write, error);
            // Half a line may stand there: whatever cannot be cut now is found when the segment is opened again.
            if open.file.set_len(open.size).is_err() {
                self.open = None;
            }
            return Err(failure);
        }
        open.size += text.len() as u64;
        open.last = Some(line);
        open.unsynced = true;
        Ok(())
    }

    fn is_full_for(&self, length: usize) -> bool {
        let full = |open: &Open| open.size > 0 && open.size + length as u64 > self.limits.segment;
        self.open.as_ref().is_some_and(full)
    }

    /// The open segment; opens it, or makes the first one.
    fn opened(&mut self) -> Result<&mut Open, StoreError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.open_last()?,
        };
        Ok(self.open.insert(open))
    }

    fn open_last(&self) -> Result<Open, StoreError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| StoreError::io(&self.dir, Doing::Create, error))?;
        let mut segments = history::segments(&self.dir)?;
        let Some(segment) = segments.pop() else {
            return self.create(Segment::new(&self.dir, 1), None);
        };
        let failed = |doing| move |error| StoreError::io(&self.dir, doing, error);
        let file = OpenOptions::new().read(true).write(true).open(&segment.path).map_err(failed(Doing::Open))?;
        let bytes = history::load_bytes(&segment.path).map_err(failed(Doing::Read))?;
        let Tail { mut last, end, torn } = history::tail(&bytes);
        let (length, name) = (bytes.len() as u64, segment.name());
        let (size, found) = match length - end {
            0 => (end, None),
            rest if torn => {
                file.set_len(end).map_err(failed(Doing::Write))?;
                (end, Some(format!("a torn end of {rest} bytes was cut from {name}")))
            }
            rest => (length, Some(format!("the last {rest} bytes of {name} are damaged and were left as they are"))),
        };
        if let Some(sentence) = &found {
            tracing::warn!(path = %segment.path.display(), what = %sentence, "history end not whole");
        }
        for older in segments.iter().rev() {
            if last.is_some() {
                break;
            }
            last = history::tail(&history::load_bytes(&older.path).map_err(failed(Doing::Read))?).last;
        }
        reserve(&file, self.limits.segment);
        Ok(Open { segment, file, size, last, unsynced: found.is_some(), found })
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        let Some(old) = self.open.take() else { return Ok(()) };
        let next = Segment::new(&self.dir, old.segment.number + 1);
        self.drop_oldest(self.limits.segments.saturating_sub(1))?;
        self.open = Some(self.create(next, old.last)?);
        Ok(())
    }

    fn create(&self, segment: Segment, last: Option<HistoryLine>) -> Result<Open, StoreError> {
        let failed = |error| StoreError::io(&segment.path, Doing::Create, error);
        self.faults.check(Operation::Create).map_err(failed)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&segment.path).map_err(failed)?;
        reserve(&file, self.limits.segment);
        sync_parent(&segment.path).map_err(failed)?;
        Ok(Open { segment, file, size: 0, last, unsynced: false, found: None })
    }

    /// Drops segments until at most `kept` are left.
    fn drop_oldest(&self, kept: usize) -> Result<(), StoreError> {
        let segments = history::segments(&self.dir)?;
        let excess = segments.len().saturating_sub(kept);
        for segment in &segments[..excess] {
            let removed = std::fs::remove_file(&segment.path);
            removed.map_err(|error| StoreError::io(&segment.path, Doing::Remove, error))?;
        }
        Ok(())
    }
}

/// Asks for the blocks of a whole segment, so that a disk that fills up later does not stop the history. The file's
/// length stays what was written. A file system that cannot do this grows the file line by line.
fn reserve(file: &File, length: u64) {
    let reserved = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, length);
    if let Err(error) = reserved {
        tracing::debug!(%error, "history segment not preallocated");
    }
}

#[cfg(test)]
mod tests;
