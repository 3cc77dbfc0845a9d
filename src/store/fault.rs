//! A disk that fails on order, for tests: a hook asked before every write and sync of the file store.
//! In production there is no hook, and nothing is asked.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What is about to be done to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A slot is overwritten.
    WriteSlot,
    /// A slot is brought to disk.
    SyncSlot,
    /// A rewritten slot is read back.
    VerifySlot,
    /// A line is added to the history.
    WriteHistory,
    /// The history is brought to disk.
    SyncHistory,
    /// A file is created.
    Create,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, this error comes back.
    Error(io::ErrorKind),
    /// A write stops after so many bytes, then this error comes back: what a power cut leaves.
    CutAfter(usize, io::ErrorKind),
}

type Hook = dyn Fn(Operation) -> Option<Fault> + Send + Sync;

/// The hook, or none.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Hook>>);

impl Faults {
    /// A sound disk.
    pub fn none() -> Self {
        Self(None)
    }

    /// Asks `hook` before every operation.
    pub fn ask(hook: impl Fn(Operation) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    /// Writes all of `bytes` at `offset`.
    pub(super) fn write(&self, op: Operation, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.ordered(op) {
            None => file.write_all_at(bytes, offset),
            Some(Fault::Error(kind)) => Err(kind.into()),
            Some(Fault::CutAfter(kept, kind)) => {
                file.write_all_at(&bytes[..kept.min(bytes.len())], offset)?;
                Err(kind.into())
            }
        }
    }

    /// Brings the file's data to disk.
    pub(super) fn sync(&self, op: Operation, file: &File) -> io::Result<()> {
        self.check(op)?;
        file.sync_data()
    }

    /// Fails if it was ordered to.
    pub(super) fn check(&self, op: Operation) -> io::Result<()> {
        match self.ordered(op) {
            None => Ok(()),
            Some(Fault::Error(kind) | Fault::CutAfter(_, kind)) => Err(kind.into()),
        }
    }

    fn ordered(&self, op: Operation) -> Option<Fault> {
        self.0.as_ref().and_then(|hook| hook(op))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(hook)" } else { "Faults(none)" })
    }
}
