//! What survives a restart: one [`Record`] per pair (latch, intent) and the history of decisions.
//! Holds no decision: the machine says what to write and when. Files and their layout are `file`'s, `slots`' and
//! `history`'s; `writer` carries jobs to a thread of its own, so that a slow disk never stops the driver.

pub mod crash;
pub mod fault;
pub mod file;
pub mod history;
mod journal;
mod lock;
pub mod memory;
mod slot;
mod slots;
pub mod writer;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::failover::action::Event;
use crate::failover::phase::Record;

pub use fault::Faults;
pub use history::{HistoryLine, HistoryReader, Verified};
pub use slot::{CAPACITY, encoded_len};
pub use writer::Writer;

/// Where records and history live. All calls block; the driver goes through a [`Writer`].
#[derive(Debug)]
pub enum Store {
    /// A state directory.
    File(file::FileStore),
    /// Nothing survives: for tests and the demo.
    Memory(memory::MemoryStore),
}

impl Store {
    /// Opens (or creates, mode 0700) the state directory, takes its lock in the name of `daemon`, and reads the
    /// record of every pair found there. Nothing is overwritten when a record cannot be read.
    pub fn open(dir: &Path, daemon: &str) -> Result<(Store, HashMap<String, Record>), StoreError> {
        Self::open_with(dir, daemon, Faults::none())
    }

    /// As [`Store::open`], with a disk that fails on order.
    pub fn open_with(dir: &Path, daemon: &str, faults: Faults) -> Result<(Store, HashMap<String, Record>), StoreError> {
        let (store, records) = file::FileStore::open(dir, daemon, faults)?;
        Ok((Store::File(store), records))
    }

    /// A store that forgets.
    pub fn memory() -> Store {
        Store::Memory(memory::MemoryStore::default())
    }

    /// Writes the record; when this returns `Ok` it survives a power cut. Creates the pair's files at its first
    /// record. After an `Err` a restart finds either this record or the one before, never a mix.
    pub fn write(&self, pair: &str, record: &Record) -> Result<(), StoreError> {
        match self {
            Store::File(store) => store.write(pair, record),
            Store::Memory(store) => store.write(pair, record),
        }
    }

    /// Writes the current record once more into the older slot: proves that the disk takes writes. Creates the
    /// pair's files with an empty record if there are none.
    pub fn touch(&self, pair: &str) -> Result<(), StoreError> {
        match self {
            Store::File(store) => store.touch(pair),
            Store::Memory(_) => Ok(()),
        }
    }

    /// Gives the last record of `pair` its second copy if it has none yet. From then on damage to either slot loses
    /// nothing; until then a slot that cannot be read can only be a write that was never confirmed.
    pub fn mirror(&self, pair: &str) -> Result<(), StoreError> {
        match self {
            Store::File(store) => store.mirror(pair),
            Store::Memory(_) => Ok(()),
        }
    }

    /// Adds an event to the pair's history. It is on disk only after [`Store::sync_history`].
    pub fn append(&self, pair: &str, event: &Event) -> Result<(), StoreError> {
        match self {
            Store::File(store) => store.append(pair, event),
            Store::Memory(store) => store.append(pair, event),
        }
    }

    /// Brings what was appended to disk, for all pairs.
    pub fn sync_history(&self) -> Result<(), StoreError> {
        match self {
            Store::File(store) => store.sync_history(),
            Store::Memory(_) => Ok(()),
        }
    }

    /// Reads the pair's history without locking anybody out; cheap to clone, for the admin server.
    pub fn reader(&self, pair: &str) -> Result<HistoryReader, StoreError> {
        match self {
            Store::File(store) => store.reader(pair),
            Store::Memory(store) => Ok(store.reader(pair)),
        }
    }

    /// The newest `limit` lines of the pair's history, oldest first.
    pub fn history(&self, pair: &str, limit: usize) -> Result<Vec<HistoryLine>, StoreError> {
        self.reader(pair)?.history(limit)
    }

    /// Checks the chain of every pair, by pair.
    pub fn verify_history(&self) -> Result<Vec<(String, Verified)>, StoreError> {
        let pairs = match self {
            Store::File(store) => store.pairs()?,
            Store::Memory(store) => store.pairs(),
        };
        let check = |pair: String| {
            let verified = self.reader(&pair)?.verify()?;
            Ok((pair, verified))
        };
        pairs.into_iter().map(check).collect()
    }
}

/// Who holds a state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// As it wrote itself into the lock file.
    Daemon {
        /// Process id in the holder's namespace.
        pid: u32,
        /// Its name.
        name: String,
        /// RFC 3339.
        since: String,
    },
    /// It has not written its name, or not in a way we read.
    Unnamed,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon { pid, name, since } => write!(f, "daemon {name} (pid {pid}, since {since})"),
            Self::Unnamed => f.write_str("another process that has not written its name"),
        }
    }
}

/// Why a slot holds no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotDamage {
    /// The file ends before or inside it.
    #[error("the file ends too early")]
    Short,
    /// Only zeros.
    #[error("it is empty")]
    Empty,
    /// Magic, length or checksum do not fit.
    #[error("its checksum does not match")]
    Checksum,
    /// EIO or the like.
    #[error("it cannot be read ({0})")]
    Unreadable(io::ErrorKind),
}

/// What an intact slot holds that this version cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A format number that we do not know.
    #[error("was written in format {0} by another version of pgpivot")]
    Version(u32),
    /// Valid by checksum, but not our record.
    #[error("holds a record that this version cannot read (line {line}, column {column})")]
    Payload {
        /// Of the JSON text.
        line: usize,
        /// Of the JSON text.
        column: usize,
    },
    /// The file was copied from elsewhere.
    #[error("belongs to the pair {0:?}")]
    Pair(String),
}

/// What we were doing when the system refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Creating a file or directory.
    Create,
    /// Opening.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Bringing to disk.
    Sync,
    /// Removing.
    Remove,
    /// Taking the lock.
    Lock,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "created",
            Self::Open => "opened",
            Self::Read => "read",
            Self::Write => "written",
            Self::Sync => "brought to disk",
            Self::Remove => "removed",
            Self::Lock => "locked",
        })
    }
}

/// Why the state cannot be read or written, each with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// EACCES, EPERM, EROFS.
    #[error(
        "{} cannot be {doing}: {}; give the daemon's user write access to the state directory, or set [state] path",
        path.display(),
        source
    )]
    NotWritable {
        /// What was touched.
        path: PathBuf,
        /// How.
        doing: Doing,
        /// The system's word.
        source: io::Error,
    },
    /// ENOSPC, EDQUOT.
    #[error("{} cannot be {doing}: the disk is full ({}); free some space, pgpivot tries again by itself", path.display(), source)]
    Full {
        /// What was touched.
        path: PathBuf,
        /// How.
        doing: Doing,
        /// The system's word.
        source: io::Error,
    },
    /// EEXIST, ENOTDIR, EISDIR: a file where a directory belongs, or the other way round.
    #[error("{} cannot be {doing}: something else stands there ({}); move it away, or set another [state] path", path.display(), source)]
    Occupied {
        /// What was touched.
        path: PathBuf,
        /// How.
        doing: Doing,
        /// The system's word.
        source: io::Error,
    },
    /// Somebody holds the lock.
    #[error("state directory {} is in use by {holder}; stop it, or give this daemon another [state] path", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// By whom.
        holder: Holder,
    },
    /// Neither slot holds a record.
    #[error(
        "state file {} is corrupt (first slot: {first}; second slot: {second}); nothing was overwritten. Move the file \
         away, start again, and if the servers alone do not prove which side is active, say it with `proxyctl adopt BACKEND`",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with the first slot.
        first: SlotDamage,
        /// What is wrong with the second slot.
        second: SlotDamage,
    },
    /// An intact slot that is not for us.
    #[error(
        "state file {} {what}; nothing was overwritten. Run the version that wrote it, or move the file away, start \
         again, and say with `proxyctl adopt BACKEND` which side is active",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: Foreign,
    },
    /// The record does not fit into a slot; nothing was touched.
    #[error("the record of {pair} has {bytes} bytes, a slot takes {limit}; nothing was written")]
    Oversize {
        /// Which pair.
        pair: String,
        /// Its length.
        bytes: usize,
        /// [`CAPACITY`].
        limit: usize,
    },
    /// The record makes no JSON; nothing was touched.
    #[error("the record of {pair} cannot be written down: {source}")]
    Encoding {
        /// Which pair.
        pair: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Somebody took the file away or put another in its place while it was in use.
    #[error(
        "state file {} was moved or replaced while the daemon runs; put it back, or restart the daemon",
        path.display()
    )]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// A slot that failed before was rewritten and does not read back as written.
    #[error("state file {}: a slot that failed before still does not hold what is written to it; move the state directory to a sound disk", path.display())]
    Condemned {
        /// The file.
        path: PathBuf,
    },
    /// A name that makes no directory name.
    #[error("{0:?} is no usable pair name: 1 to 80 characters are needed")]
    PairName(String),
    /// An event that makes a line longer than a line may be.
    #[error("an event of {bytes} bytes is too long for the history")]
    LongEvent {
        /// Its length.
        bytes: usize,
    },
    /// Too many jobs wait for the disk.
    #[error("the disk is too slow: {waiting} writes are waiting")]
    Backlog {
        /// How many.
        waiting: usize,
    },
    /// The writer has ended.
    #[error("the state writer has ended")]
    Ended,
    /// Anything else the system says.
    #[error("{} cannot be {doing}: {source}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// How.
        doing: Doing,
        /// The system's word.
        source: io::Error,
    },
}

impl StoreError {
    fn io(path: &Path, doing: Doing, source: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let path = path.to_path_buf();
        match source.kind() {
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Self::NotWritable { path, doing, source },
            Kind::StorageFull | Kind::QuotaExceeded => Self::Full { path, doing, source },
            Kind::AlreadyExists | Kind::NotADirectory | Kind::IsADirectory => Self::Occupied { path, doing, source },
            _ => Self::Io { path, doing, source },
        }
    }
}

/// A store that several owners share: the writer thread and those who read history.
pub type SharedStore = Arc<Store>;
