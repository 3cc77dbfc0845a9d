//! Bulk: bytes pass from socket to socket through a pipe without being copied into this process.
//! The pipes come from a pool per thread; when to use this is the direction's decision, in `flow`.
//!
//! A pipe is filled only while it is empty, so that EAGAIN from a fill means "socket dry" and never "pipe full".

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::flow::{Broken, SHORT};
use super::orders::Writing;

/// What a pipe is asked to hold; without the right to it a pipe keeps the kernel's default (64 KiB).
const PIPE_SIZE: usize = 256 * 1024;
/// The kernel makes pipes tiny for users who have too many: copying is better than those.
const LEAST_SIZE: usize = 64 * 1024;
/// Pipes in use at one time in the whole process, two descriptors each; over it a direction goes on copying.
const MOST_IN_USE: usize = 256;
/// Clean pipes a thread keeps for later.
const MOST_POOLED: usize = 16;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    loaded: usize,
}

/// A direction in bulk: at most one pipe, held only while bytes are in it.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    pipe: Option<Pipe>,
    /// The last fill was short: back to copying once it is delivered.
    short: bool,
}

/// What one step of bulk came to.
pub(super) enum Progress {
    /// Bytes moved; more may be had at once.
    Moved(usize),
    /// The same, and the stream is no bulk any more.
    Short(usize),
    /// Nothing more now; the task will be woken.
    Blocked,
    /// End of stream; everything is delivered.
    End,
    /// No pipe to be had, or these sockets do not splice.
    Unavailable,
}

impl Bulk {
    /// Bytes that were read and not delivered.
    pub(super) fn holds(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.loaded)
    }

    /// Fills the pipe if it is empty, then delivers what is in it.
    pub(super) fn step(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        gate: &Writing<'_>,
    ) -> Result<Progress, Broken> {
        if self.holds() == 0 {
            match self.fill(cx, source)? {
                Progress::Moved(n) if n > 0 => {}
                other => return Ok(other),
            }
        }
        self.deliver(cx, sink, gate)
    }

    /// `Moved` = that much is in the pipe now.
    fn fill(&mut self, cx: &mut Context<'_>, source: &TcpStream) -> Result<Progress, Broken> {
        let Some(mut pipe) = self.pipe.take().or_else(take) else {
            return Ok(Progress::Unavailable);
        };
        let filled = source.try_io(Interest::READABLE, || splice_some(source, &pipe.write, pipe.size));
        if let Ok(n @ 1..) = filled {
            pipe.loaded = n;
            self.short = n < SHORT.min(pipe.size / 4);
            self.pipe = Some(pipe);
            return Ok(Progress::Moved(n));
        }
        put_back(pipe);
        match filled {
            Ok(_) => Ok(Progress::End),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(Progress::Moved(0)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                ready_or_blocked(source.poll_read_ready(cx)).map_err(Broken::Source)
            }
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::INVAL | Errno::NOSYS | Errno::PERM) => Ok(Progress::Unavailable),
                _ => Err(Broken::Source(e)),
            },
        }
    }

    fn deliver(&mut self, cx: &mut Context<'_>, sink: &TcpStream, gate: &Writing<'_>) -> Result<Progress, Broken> {
        let mut moved = 0;
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.loaded > 0) {
            gate.check().map_err(Broken::Cut)?;
            match sink.try_io(Interest::WRITABLE, || splice_some(&pipe.read, sink, pipe.loaded)) {
                Ok(0) => return Err(Broken::Sink(ErrorKind::WriteZero.into())),
                Ok(n) => {
                    pipe.loaded -= n;
                    moved += n;
                }
                // What was moved is told first; the next step finds the socket full.
                Err(e) if is_transient(&e) && moved > 0 => return Ok(Progress::Moved(moved)),
                Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(Progress::Moved(0)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return ready_or_blocked(sink.poll_write_ready(cx)).map_err(Broken::Sink);
                }
                Err(e) => return Err(Broken::Sink(e)),
            }
        }
        Ok(if self.short { Progress::Short(moved) } else { Progress::Moved(moved) })
    }
}

/// After EAGAIN: the task is woken later, or a new event has come already and the next step tries again.
fn ready_or_blocked(ready: Poll<io::Result<()>>) -> io::Result<Progress> {
    match ready {
        Poll::Pending => Ok(Progress::Blocked),
        Poll::Ready(result) => result.map(|()| Progress::Moved(0)),
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

impl Drop for Bulk {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            put_back(pipe);
        }
    }
}

fn splice_some(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}

/// A clean pipe of this thread's pool, or a new one.
fn take() -> Option<Pipe> {
    if IN_USE.fetch_add(1, Ordering::Relaxed) >= MOST_IN_USE {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    let pooled = POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
    let pipe = pooled.or_else(open);
    if pipe.is_none() {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
    }
    pipe
}

fn open() -> Option<Pipe> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    let size = fcntl_setpipe_size(&write, PIPE_SIZE).or_else(|_| fcntl_getpipe_size(&write)).ok()?;
    (size >= LEAST_SIZE).then_some(Pipe { read, write, size, loaded: 0 })
}

/// Clean pipes go back to the pool; one with bytes in it is closed, and the bytes with it.
fn put_back(pipe: Pipe) {
    IN_USE.fetch_sub(1, Ordering::Relaxed);
    if pipe.loaded > 0 {
        return;
    }
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < MOST_POOLED {
            pool.push(pipe);
        }
    });
}
