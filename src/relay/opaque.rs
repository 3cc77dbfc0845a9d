//! The epoll engine: one hand-written future per connection, both directions in it.
//! It knows two sockets (or TLS on them), a count and an order; nothing of services, sides or the protocol, but for one
//! glance at the end of what a server sent (see `flow::Tail`), so that an ordered end can say its reason.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::net::TcpStream;

use super::flow::{BUFFER, Broken, Flow, Step, Tail};
use super::line::Line;
use super::meter::{Meter, Tally};
use super::orders::{Cut, Orders, Writing};
use super::tap::Tap;
use super::{By, Ended, Reason};
use crate::net::sockopt;

/// Steps of one poll before other connections get their turn.
const STEPS: usize = 32;
/// Bytes of one poll before other connections get their turn.
const BYTES: usize = 1024 * 1024;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// The future behind [`super::attach`].
#[must_use = "a relay moves bytes only while it is awaited"]
#[derive(Debug)]
pub struct Relay<'m, L = TcpStream> {
    pair: Pair<L>,
    orders: Orders,
    meter: &'m Meter,
    /// The waker that `orders` has.
    waker: Option<Waker>,
    /// The client spoke last, as counted in `meter`.
    waits: bool,
    /// `meter` was told that the server ended.
    told: bool,
    over: bool,
}

#[derive(Debug)]
struct Pair<L> {
    client: L,
    server: L,
    /// Client to server.
    up: Flow,
    /// Server to client.
    down: Flow,
    /// Who ended first, and how.
    first: Option<(By, Reason)>,
    /// The client takes nothing any more.
    client_gone: bool,
}

impl<'m, L: Line> Relay<'m, L> {
    pub(super) fn new(client: L, server: L, orders: Orders, meter: &'m Meter) -> Self {
        let (up, down) = (Flow::default(), Flow::default());
        let pair = Pair { client, server, up, down, first: None, client_gone: false };
        Self { pair, orders, meter, waker: None, waits: false, told: false, over: false }
    }

    /// Calls `hears` with what the server says, as it is read, until it returns `true`. It must not block.
    pub fn heard_by(mut self, hears: impl FnMut(&[u8]) -> bool + Send + 'static) -> Self {
        self.pair.down.tap = Some(Box::new(Tap::new(Box::new(hears))));
        self
    }

    /// What the server has said before the relay began.
    pub fn after(mut self, said: Vec<u8>) -> Self {
        self.pair.down.keep(said);
        self
    }

    fn know(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
            self.orders.set_waker(waker);
        }
    }
}

impl<L: Line> Future for Relay<'_, L> {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        if this.over {
            return Poll::Pending;
        }
        this.know(cx.waker());
        let mut tally = Tally::default();
        let outcome = SHARED.with_borrow_mut(|buffer| {
            let writing = this.orders.begin()?;
            this.pair.pump(cx, &writing, buffer, &mut tally)
        });
        this.meter.add(&tally, &mut this.waits);
        // Whoever cuts may silence the server's socket as well: what that looks like from here is not the server's doing.
        let outcome = match outcome {
            Ok(Poll::Ready(_)) => this.orders.cut_reason().map_or(outcome, Err),
            Ok(Poll::Pending) | Err(_) => outcome,
        };
        if tally.server_end && !this.told && this.orders.cut_reason().is_none() {
            this.told = true;
            this.meter.server_ended(this.orders.number());
        }
        let (by, reason) = match outcome {
            Ok(Poll::Pending) if this.orders.is_draining() && this.pair.is_idle() => {
                this.pair.part(this.orders.farewell());
                (By::Order, Reason::Drained)
            }
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(end)) => end,
            Err(cut) => {
                this.pair.cut(this.orders.farewell());
                (By::Order, Reason::Cut(cut))
            }
        };
        this.over = true;
        let (bytes_in, bytes_out) = (this.pair.up.moved, this.pair.down.moved);
        Poll::Ready(Ended { by, reason, bytes_in, bytes_out })
    }
}

impl<L> Drop for Relay<'_, L> {
    fn drop(&mut self) {
        self.meter.release(&mut self.waits);
        // Else task, relay, orders and waker would hold each other.
        self.orders.forget_waker();
    }
}

impl<L: Line> Pair<L> {
    /// Moves what can be moved now, within the budget of one poll.
    fn pump(
        &mut self,
        cx: &mut Context<'_>,
        gate: &Writing<'_>,
        buffer: &mut [u8],
        tally: &mut Tally,
    ) -> Result<Poll<(By, Reason)>, Cut> {
        let (mut up, mut down) = (true, true);
        let mut moved = 0;
        for _ in 0..STEPS {
            if up {
                let step = self.up.step(cx, &mut self.client, &mut self.server, gate, buffer);
                match self.after_up(step, tally)? {
                    Next::On(bytes) => moved += bytes,
                    Next::Blocked => up = false,
                    Next::Over(by, reason) => return Ok(Poll::Ready((by, reason))),
                }
            }
            if down {
                let was_there = !self.client_gone;
                let step = self.down.step(cx, &mut self.server, &mut self.client, gate, buffer);
                match self.after_down(step, tally)? {
                    Next::On(bytes) => moved += bytes,
                    Next::Blocked => down = false,
                    Next::Over(by, reason) => return Ok(Poll::Ready((by, reason))),
                }
                // A client that is gone still has its last bytes delivered, unless that would take waiting.
                up |= self.client_gone && was_there;
            }
            if let Some(end) = self.end() {
                return Ok(Poll::Ready(end));
            }
            if !up && !down {
                return Ok(Poll::Pending);
            }
            if moved >= BYTES {
                break;
            }
        }
        let_others_run(cx);
        Ok(Poll::Pending)
    }

    fn after_up(&mut self, step: Result<Step, Broken>, tally: &mut Tally) -> Result<Next, Cut> {
        Ok(match step {
            Ok(Step::Moved { bytes, spliced }) => {
                tally.bytes_in += bytes as u64;
                tally.spliced += if spliced { bytes as u64 } else { 0 };
                if self.down.tail == Tail::Idle && bytes > 0 {
                    self.down.tail = Tail::Ready;
                }
                Next::On(bytes)
            }
            Ok(Step::Blocked) => Next::Blocked,
            Ok(Step::Ended) => {
                self.first.get_or_insert((By::Client, Reason::Closed));
                Next::Blocked
            }
            Err(Broken::Source(e)) => self.over(By::Client, Reason::of(&e)),
            // What the server said last may still be unread: it is delivered before the end.
            Err(Broken::Sink(e)) => {
                tally.server_end = true;
                self.first.get_or_insert((By::Server, Reason::of(&e)));
                self.up.abandon();
                Next::Blocked
            }
            Err(Broken::Cut(cut)) => return Err(cut),
        })
    }

    fn after_down(&mut self, step: Result<Step, Broken>, tally: &mut Tally) -> Result<Next, Cut> {
        Ok(match step {
            Ok(Step::Moved { bytes, spliced }) => {
                tally.bytes_out += bytes as u64;
                tally.spliced += if spliced { bytes as u64 } else { 0 };
                Next::On(bytes)
            }
            Ok(Step::Blocked) => Next::Blocked,
            Ok(Step::Ended) => {
                tally.server_end = true;
                self.first.get_or_insert((By::Server, Reason::Closed));
                Next::Blocked
            }
            Err(Broken::Source(e)) => {
                tally.server_end = true;
                self.over(By::Server, Reason::of(&e))
            }
            Err(Broken::Sink(e)) => {
                self.first.get_or_insert((By::Client, Reason::of(&e)));
                self.down.abandon();
                self.client_gone = true;
                Next::Blocked
            }
            Err(Broken::Cut(cut)) => return Err(cut),
        })
    }

    fn over(&mut self, by: By, reason: Reason) -> Next {
        let (by, reason) = *self.first.get_or_insert((by, reason));
        Next::Over(by, reason)
    }

    /// Both directions ended, or the client is gone and its last bytes would have to wait.
    fn end(&self) -> Option<(By, Reason)> {
        let last_bytes_stuck = self.client_gone && self.up.holds();
        let over = last_bytes_stuck || (self.up.has_ended() && self.down.has_ended());
        if over { self.first } else { None }
    }

    /// The server is outside of a transaction and the client waits for nothing, as far as can be seen.
    fn is_idle(&self) -> bool {
        self.down.tail == Tail::Idle && !self.down.holds() && !self.up.holds()
    }

    /// Ends both connections at once. Towards the server by a reset: bytes it did not acknowledge are taken back.
    fn cut(&mut self, farewell: &[u8]) {
        // Failing leaves an ordinary close, which a socket in that state does anyway.
        let _ = sockopt::reset_on_close(self.server.socket());
        self.part(farewell);
    }

    /// Says farewell to the client where a whole message of ours can stand, and closes. If bytes of the server are
    /// still on our side of the wire, the connection is reset instead, so that they do not arrive after the order.
    fn part(&mut self, farewell: &[u8]) {
        let undelivered = self.down.holds() || sockopt::unsent(self.client.socket()).is_ok_and(|bytes| bytes > 0);
        if undelivered {
            let _ = sockopt::reset_on_close(self.client.socket());
            return;
        }
        let whole = self.down.tail != Tail::Unknown;
        if whole && !self.down.has_ended() && !farewell.is_empty() {
            // Whoever does not take a hundred bytes now gets the close without them.
            self.client.say(farewell);
        }
        // Bytes left unread would turn the close into a reset, which can overtake the farewell.
        SHARED.with_borrow_mut(|buffer| {
            let _ = self.client.socket().try_read(buffer);
        });
        self.client.end(whole);
    }
}

/// Comes back after the runtime has looked at the sockets again. A plain wake would put a bulk connection through
/// some sixty polls before anybody's new bytes were noticed.
fn let_others_run(cx: &mut Context<'_>) {
    let yielded = std::pin::pin!(tokio::task::yield_now());
    if yielded.poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

/// What follows a step.
enum Next {
    On(usize),
    Blocked,
    Over(By, Reason),
}
