//! One direction of a relay: read, write at once, keep only what the peer would not take.
//! Which direction it is, and what its end means for the other one, is known in `opaque`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::line::Line;
use super::orders::{Cut, Writing};
use super::splice::{Bulk, Progress};
use super::tap::Tap;

/// The one buffer of a thread, shared by all its connections.
pub(super) const BUFFER: usize = 256 * 1024;
/// How much of it a read is offered: filling it twice in a row is what makes a stream bulk.
pub(super) const WINDOW: usize = 32 * 1024;
/// A splice that brings less than this ends bulk.
pub(super) const SHORT: usize = WINDOW;

/// Why a direction cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The socket that is read.
    Source(io::Error),
    /// The socket that is written.
    Sink(io::Error),
    /// Ordered.
    Cut(Cut),
}

/// What one step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// That many bytes were handed over; more may be had at once.
    Moved { bytes: usize, spliced: bool },
    /// Nothing more now; the task will be woken.
    Blocked,
    /// End of stream, passed on.
    Ended,
}

#[derive(Debug)]
enum State {
    Copying,
    /// The peer did not take these; nothing is read until it did. None at all = they wait inside TLS.
    Kept {
        bytes: Box<[u8]>,
        sent: usize,
    },
    Bulk(Bulk),
    /// The end of the stream is not passed on yet; `clean` = it came with TLS's own word, or without TLS.
    Ending {
        clean: bool,
    },
    Ended,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Flow {
    state: State,
    /// Bytes handed to the sink.
    pub(super) moved: u64,
    /// Reads in a row that filled their window.
    full: u8,
    /// There was no pipe for this stretch of bulk: it is copied.
    no_splice: bool,
    /// The last bytes handed over, if they were seen.
    pub(super) tail: Tail,
    /// Who listens to what is read.
    pub(super) tap: Option<Box<Tap>>,
}

/// The end of what was handed over last, as far as it can be told without following the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tail {
    /// Anything: a message may be half delivered.
    #[default]
    Unknown,
    /// A ReadyForQuery inside of a transaction: no message is half delivered.
    Ready,
    /// A ReadyForQuery outside of a transaction.
    Idle,
}

impl Tail {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [.., b'Z', 0, 0, 0, 5, b'I'] => Self::Idle,
            [.., b'Z', 0, 0, 0, 5, b'T' | b'E'] => Self::Ready,
            _ => Self::Unknown,
        }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self { state: State::Copying, moved: 0, full: 0, no_splice: false, tail: Tail::Unknown, tap: None }
    }
}

impl Flow {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Bytes were read and not delivered yet.
    pub(super) fn holds(&self) -> bool {
        match &self.state {
            // Empty: TLS still has some of them. All sent: only a cut came before that was noted.
            State::Kept { bytes, sent } => *sent < bytes.len() || bytes.is_empty(),
            State::Bulk(bulk) => bulk.holds() > 0,
            State::Copying | State::Ending { .. } | State::Ended => false,
        }
    }

    /// Bytes that were read before the relay began; they are delivered first.
    pub(super) fn keep(&mut self, bytes: Vec<u8>) {
        self.tap.take_if(|tap| tap.hears(&bytes));
        if !bytes.is_empty() {
            self.state = State::Kept { bytes: bytes.into(), sent: 0 };
        }
    }

    /// Ends the direction without passing anything on; what it held is gone.
    pub(super) fn abandon(&mut self) {
        self.state = State::Ended;
    }

    /// One read and its write, or the delivery of what was kept.
    pub(super) fn step<L: Line>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut L,
        sink: &mut L,
        gate: &Writing<'_>,
        buffer: &mut [u8],
    ) -> Result<Step, Broken> {
        let step = match &mut self.state {
            State::Ended => Ok(Step::Blocked),
            State::Copying => self.copy(cx, source, sink, gate, buffer),
            State::Kept { .. } => self.deliver(cx, sink, gate),
            State::Bulk(bulk) => {
                let progress = bulk.step(cx, source.socket(), sink.socket(), gate);
                self.after_bulk(cx, progress?, sink)
            }
            State::Ending { clean } => {
                let clean = *clean;
                self.end(cx, sink, clean)
            }
        };
        if let Ok(Step::Moved { bytes, .. }) = step {
            self.moved += bytes as u64;
        }
        step
    }

    fn copy<L: Line>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut L,
        sink: &mut L,
        gate: &Writing<'_>,
        buffer: &mut [u8],
    ) -> Result<Step, Broken> {
        let plain = source.is_plain() && sink.is_plain();
        // Without splicing a stream that is bulk gets the whole buffer. TLS would keep what its peer does not take.
        let window = if self.full >= 2 && plain { buffer.len() } else { WINDOW.min(buffer.len()) };
        let mut into = ReadBuf::new(&mut buffer[..window]);
        // A short read clears tokio's readiness: the next poll_read waits for the next event without a syscall.
        match Pin::new(&mut *source).poll_read(cx, &mut into) {
            Poll::Pending => return Ok(Step::Blocked),
            // The connection ended and TLS did not: whoever reads on is told so in the same way.
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof && !source.is_plain() => {
                return self.end(cx, sink, false);
            }
            Poll::Ready(Err(e)) => return Err(Broken::Source(e)),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = into.filled();
        if bytes.is_empty() {
            return self.end(cx, sink, true);
        }
        self.tap.take_if(|tap| tap.hears(bytes));
        if bytes.len() >= WINDOW {
            self.full = (self.full + 1).min(2);
        } else {
            (self.full, self.no_splice) = (0, false);
        }
        let sent = push(cx, sink, bytes, gate)?;
        if sent < bytes.len() {
            self.tail = Tail::Unknown;
            self.state = State::Kept { bytes: bytes[sent..].into(), sent: 0 };
        } else {
            self.tail = Tail::of(bytes);
            if sink.poll_taken(cx).map_err(Broken::Sink)?.is_pending() {
                self.state = State::Kept { bytes: Box::default(), sent: 0 };
            } else if self.full >= 2 && !self.no_splice && plain {
                self.state = State::Bulk(Bulk::default());
            }
        }
        Ok(Step::Moved { bytes: sent, spliced: false })
    }

    fn deliver<L: Line>(&mut self, cx: &mut Context<'_>, sink: &mut L, gate: &Writing<'_>) -> Result<Step, Broken> {
        let State::Kept { bytes, sent } = &mut self.state else {
            return Ok(Step::Blocked);
        };
        let now = push(cx, sink, &bytes[*sent..], gate)?;
        *sent += now;
        if *sent == bytes.len() {
            if !bytes.is_empty() {
                self.tail = Tail::of(bytes);
            }
            gate.check().map_err(Broken::Cut)?;
            if sink.poll_taken(cx).map_err(Broken::Sink)?.is_pending() {
                self.state = State::Kept { bytes: Box::default(), sent: 0 };
                return Ok(if now == 0 { Step::Blocked } else { Step::Moved { bytes: now, spliced: false } });
            }
            self.state = State::Copying;
        } else if now == 0 {
            return Ok(Step::Blocked);
        }
        Ok(Step::Moved { bytes: now, spliced: false })
    }

    fn after_bulk<L: Line>(&mut self, cx: &mut Context<'_>, progress: Progress, sink: &mut L) -> Result<Step, Broken> {
        match progress {
            Progress::Blocked => Ok(Step::Blocked),
            Progress::End => self.end(cx, sink, true),
            Progress::Moved(bytes) => {
                self.tail = Tail::Unknown;
                Ok(Step::Moved { bytes, spliced: true })
            }
            Progress::Short(bytes) => {
                self.tail = Tail::Unknown;
                self.full = 0;
                self.state = State::Copying;
                Ok(Step::Moved { bytes, spliced: true })
            }
            Progress::Unavailable => {
                self.no_splice = true;
                self.state = State::Copying;
                Ok(Step::Moved { bytes: 0, spliced: false })
            }
        }
    }

    fn end<L: Line>(&mut self, cx: &mut Context<'_>, sink: &mut L, clean: bool) -> Result<Step, Broken> {
        match sink.poll_end(cx, clean) {
            Poll::Pending => {
                self.state = State::Ending { clean };
                Ok(Step::Blocked)
            }
            Poll::Ready(passed_on) => {
                self.state = State::Ended;
                passed_on.map(|()| Step::Ended).map_err(Broken::Sink)
            }
        }
    }
}

/// Writes until everything is taken or the socket is full; then the task will be woken when it is not.
fn push<L: Line>(cx: &mut Context<'_>, sink: &mut L, bytes: &[u8], gate: &Writing<'_>) -> Result<usize, Broken> {
    let mut sent = 0;
    while sent < bytes.len() {
        gate.check().map_err(Broken::Cut)?;
        match Pin::new(&mut *sink).poll_write(cx, &bytes[sent..]) {
            Poll::Pending => break,
            Poll::Ready(Ok(0)) => return Err(Broken::Sink(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => sent += n,
            Poll::Ready(Err(e)) => return Err(Broken::Sink(e)),
        }
    }
    Ok(sent)
}
