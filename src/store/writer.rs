//! The thread that writes: jobs go in without waiting, answers come back through a callback, so that the driver never
//! waits for a disk. Records go before events; second copies and the history's sync wait for a pause in the work.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{SharedStore, Store, StoreError};
use crate::failover::action::Event;
use crate::failover::phase::Record;

/// Records and touches that may wait; one more is refused at once.
const WRITES: usize = 64;
/// Events that may wait; then the oldest is dropped and counted.
const EVENTS: usize = 8192;
/// The pause after which second copies are made and the history is brought to disk.
const PAUSE: Duration = Duration::from_millis(250);
/// The history is brought to disk at the latest after so many events.
const UNSYNCED: usize = 64;

/// Owner of the writing thread. Dropped without [`Writer::close`], it lets the thread finish its queue on its own.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    writes: VecDeque<Write>,
    events: VecDeque<(String, Event)>,
    dropped: u64,
    history_error: Option<String>,
    closing: bool,
    ended: bool,
}

struct Write {
    pair: String,
    /// `None` = touch.
    record: Option<Box<Record>>,
    reply: Reply,
}

impl Writer {
    /// Starts the thread.
    pub fn start(store: SharedStore) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let inside = shared.clone();
        let run = move || {
            let _end = End(&inside);
            Work {
                store: &store,
                shared: &inside,
                unmirrored: BTreeSet::new(),
                unsynced: 0,
                unwritten: None,
                unsaved: None,
            }
            .run();
        };
        let thread = std::thread::Builder::new().name("state".into()).spawn(run)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Writes a record. `reply` gets the ticket back once the record survives a power cut, or why it does not; it
    /// runs on the writer's thread (or at once, on the caller's, when too much is waiting) and must not block.
    pub fn persist(
        &self,
        pair: &str,
        record: Box<Record>,
        ticket: u64,
        reply: impl FnOnce(u64, Result<(), StoreError>) + Send + 'static,
    ) {
        let reply = Box::new(move |result| reply(ticket, result));
        self.submit(Write { pair: pair.to_owned(), record: Some(record), reply });
    }

    /// Writes the current record of `pair` once more: does the disk take writes?
    pub fn touch(&self, pair: &str, reply: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.submit(Write { pair: pair.to_owned(), record: None, reply: Box::new(reply) });
    }

    /// Adds an event to the pair's history. Nobody waits for it; see [`Writer::history_error`].
    pub fn append(&self, pair: &str, event: Event) {
        let mut queue = self.shared.lock();
        if queue.events.len() == EVENTS {
            queue.events.pop_front();
            queue.dropped += 1;
            queue.history_error = Some(format!("{} events were dropped: the disk is too slow", queue.dropped));
        }
        queue.events.push_back((pair.to_owned(), event));
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Why the history is not written now; `None` while it is.
    pub fn history_error(&self) -> Option<String> {
        self.shared.lock().history_error.clone()
    }

    /// Has the thread ended, other than by [`Writer::close`]?
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Takes nothing more, lets the thread finish its queue and waits for that at most `patience`. `false` = it is
    /// still writing, or it panicked. Blocks.
    pub fn close(&self, patience: Duration) -> bool {
        self.order_end();
        let deadline = Instant::now() + patience;
        let mut queue = self.shared.lock();
        while !queue.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(queue);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }

    fn order_end(&self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
    }

    fn submit(&self, write: Write) {
        let mut queue = self.shared.lock();
        let waiting = queue.writes.len();
        let refusal = if queue.ended || queue.closing {
            StoreError::Ended
        } else if waiting >= WRITES {
            StoreError::Backlog { waiting }
        } else {
            queue.writes.push_back(write);
            drop(queue);
            return self.shared.changed.notify_all();
        };
        drop(queue);
        (write.reply)(Err(refusal));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.order_end();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.shared.lock();
        let mut text = f.debug_struct("Writer");
        text.field("writes", &queue.writes.len()).field("events", &queue.events.len());
        text.field("ended", &queue.ended).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever ends the thread, a panic too: nobody waits for an answer that will not come.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.ended = true;
        let left = std::mem::take(&mut queue.writes);
        drop(queue);
        self.0.changed.notify_all();
        for write in left {
            (write.reply)(Err(StoreError::Ended));
        }
    }
}

enum Next {
    Write(Write),
    Events(Vec<(String, Event)>),
    Pause,
    End,
}

struct Work<'a> {
    store: &'a Store,
    shared: &'a Shared,
    /// Pairs whose last record has no second copy.
    unmirrored: BTreeSet<String>,
    /// Events appended since the last sync.
    unsynced: usize,
    /// Why the last event could not be added.
    unwritten: Option<String>,
    /// Why the last sync failed.
    unsaved: Option<String>,
}

impl Work<'_> {
    fn run(&mut self) {
        loop {
            match self.next() {
                Next::Write(write) => self.write(write),
                Next::Events(events) => self.append(&events),
                Next::Pause => self.settle(),
                Next::End => return self.settle(),
            }
        }
    }

    fn next(&self) -> Next {
        let mut queue = self.shared.lock();
        loop {
            if let Some(write) = queue.writes.pop_front() {
                return Next::Write(write);
            }
            if !queue.events.is_empty() {
                let some = queue.events.len().min(UNSYNCED);
                return Next::Events(queue.events.drain(..some).collect());
            }
            if queue.closing {
                return Next::End;
            }
            if self.unmirrored.is_empty() && self.unsynced == 0 {
                queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.shared.changed.wait_timeout(queue, PAUSE);
            let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = again;
            if timeout.timed_out() && queue.writes.is_empty() && queue.events.is_empty() {
                return Next::Pause;
            }
        }
    }

    fn write(&mut self, write: Write) {
        let result = match &write.record {
            Some(record) => self.store.write(&write.pair, record),
            None => self.store.touch(&write.pair),
        };
        if result.is_ok() && write.record.is_some() {
            self.unmirrored.insert(write.pair);
        }
        (write.reply)(result);
    }

    fn append(&mut self, events: &[(String, Event)]) {
        let mut result = Ok(());
        for (pair, event) in events {
            result = self.store.append(pair, event);
            self.unsynced += usize::from(result.is_ok());
        }
        self.unwritten = result.err().map(|error| error.to_string());
        self.note_history();
        if self.unsynced >= UNSYNCED {
            self.sync();
        }
    }

    /// Second copies and the history's sync. A failure is not repeated here: the next write or touch meets it.
    fn settle(&mut self) {
        self.sync();
        for pair in std::mem::take(&mut self.unmirrored) {
            if let Err(error) = self.store.mirror(&pair) {
                tracing::warn!(%pair, %error, "second copy of the state not written");
            }
        }
    }

    fn sync(&mut self) {
        if std::mem::take(&mut self.unsynced) > 0 {
            self.unsaved = self.store.sync_history().err().map(|error| error.to_string());
            self.note_history();
        }
    }

    /// An event that could be added says nothing of the disk, and a sync that had nothing to do says nothing of events.
    fn note_history(&self) {
        let error = self.unwritten.as_ref().or(self.unsaved.as_ref());
        let mut queue = self.shared.lock();
        match (error, queue.history_error.is_some()) {
            (None, true) => tracing::info!("history is written again"),
            (Some(error), false) => tracing::warn!(error, "history not written"),
            _ => {}
        }
        queue.history_error = error.cloned();
    }
}

#[cfg(test)]
mod tests;
