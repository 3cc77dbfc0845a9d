//! The order channel of one relayed connection: drain or cut, given from any thread, obeyed before the next write.
//! One allocation, one atomic, one waker; what an order does to the sockets is the engine's.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// Set while the relay's own thread may be inside a write.
const WRITING: u8 = 0b1000_0000;
/// End when nothing is under way.
const DRAIN: u8 = 0b0100_0000;
/// The code of a [`Cut`]; 0 = none.
const CUT: u8 = 0b0000_1111;

/// Why a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cut {
    /// Its side is not the latched one any more.
    Demoted = 1,
    /// Its side was removed from the configuration, or its address from the name.
    Removed = 2,
    /// An operator took the backend out.
    Operator = 3,
    /// It had not ended by itself when the drain's deadline came.
    DrainDeadline = 4,
    /// The daemon ends.
    Shutdown = 5,
    /// Its listener was removed from the configuration.
    ListenerRemoved = 6,
}

impl Cut {
    /// Every reason, in the order of their codes.
    pub const ALL: [Cut; 6] =
        [Cut::Demoted, Cut::Removed, Cut::Operator, Cut::DrainDeadline, Cut::Shutdown, Cut::ListenerRemoved];

    /// A word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Demoted => "demoted",
            Self::Removed => "removed",
            Self::Operator => "operator",
            Self::DrainDeadline => "drain_deadline",
            Self::Shutdown => "shutdown",
            Self::ListenerRemoved => "listener_removed",
        }
    }

    fn from_state(state: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cut| *cut as u8 == state & CUT)
    }
}

/// A cheap, shared handle on one relayed connection. Clones give orders to the same one.
#[derive(Debug, Clone)]
pub struct Orders(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
    farewell: &'static [u8],
    number: u64,
}

impl Default for Orders {
    fn default() -> Self {
        Self::new()
    }
}

impl Orders {
    /// A handle without orders, for one connection.
    pub fn new() -> Self {
        Self::with_farewell(b"")
    }

    /// As [`Orders::new`]; `farewell` is what an ordered end says to a client where a whole message of ours can
    /// stand (an ErrorResponse 57P01), before its connection is closed.
    pub fn with_farewell(farewell: &'static [u8]) -> Self {
        Self::numbered(0, farewell)
    }

    /// As [`Orders::with_farewell`]; `number` is the owner's, to know the connection again in a hook of the meter.
    pub fn numbered(number: u64, farewell: &'static [u8]) -> Self {
        Self(Arc::new(Inner { number, state: AtomicU8::new(0), waker: Mutex::new(None), farewell }))
    }

    /// Asks the connection to end as soon as nothing is under way: the server's last bytes were a ReadyForQuery
    /// outside of a transaction and the client sent nothing since. Under TLS that cannot be seen, so such a
    /// connection goes on until it ends or is cut.
    pub fn drain(&self) {
        self.0.state.fetch_or(DRAIN, Ordering::AcqRel);
        self.wake();
    }

    /// Cuts the connection: from now on no write is begun, in either direction. Never waits. The first reason stays.
    ///
    /// Returns `true` when no write is under way either, so that the promise holds already; `false` when the
    /// relay's thread is inside its last one this very moment: then [`Orders::is_silent`] tells when it is over.
    pub fn cut(&self, reason: Cut) -> bool {
        let set = |state: u8| (state & CUT == 0).then_some(state | reason as u8);
        let before = self.0.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
        self.wake();
        before.unwrap_or_else(|state| state) & WRITING == 0
    }

    /// Whether it was cut and no byte can be moved any more.
    pub fn is_silent(&self) -> bool {
        let state = self.0.state.load(Ordering::Acquire);
        state & CUT != 0 && state & WRITING == 0
    }

    /// The reason of the cut, if it was cut.
    pub fn cut_reason(&self) -> Option<Cut> {
        Cut::from_state(self.0.state.load(Ordering::Acquire))
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn is_draining(&self) -> bool {
        self.0.state.load(Ordering::Acquire) & DRAIN != 0
    }

    pub(super) fn farewell(&self) -> &'static [u8] {
        self.0.farewell
    }

    /// Opens a stretch in which writes may happen; `Err` = cut. After a cut none is ever opened again.
    pub(super) fn begin(&self) -> Result<Writing<'_>, Cut> {
        let open = |state: u8| (state & CUT == 0).then_some(state | WRITING);
        let before = self.0.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, open);
        match before {
            Ok(_) => Ok(Writing(self)),
            Err(state) => Err(Cut::from_state(state).unwrap_or(Cut::Demoted)),
        }
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    pub(super) fn forget_waker(&self) {
        *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn wake(&self) {
        let waker = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A stretch in which writes may happen; ends when dropped.
pub(super) struct Writing<'a>(&'a Orders);

impl Writing<'_> {
    /// To be asked before every single write.
    pub(super) fn check(&self) -> Result<(), Cut> {
        match self.0.cut_reason() {
            None => Ok(()),
            Some(cut) => Err(cut),
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.0.state.fetch_and(!WRITING, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn once_a_cut_connection_is_silent_its_thread_writes_nothing_more() {
        for _ in 0..40 {
            let (orders, written) = (Orders::new(), Arc::new(AtomicU64::new(0)));
            let (its_orders, its_written) = (orders.clone(), written.clone());
            let thread = std::thread::spawn(move || {
                for _ in 0..100_000 {
                    let Ok(writing) = its_orders.begin() else {
                        return;
                    };
                    for _ in 0..3 {
                        if writing.check().is_ok() {
                            its_written.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
            while written.load(Ordering::SeqCst) < 10 {
                std::hint::spin_loop();
            }
            let at_once = orders.cut(Cut::Demoted);
            while !orders.is_silent() {
                assert!(!at_once, "a cut that holds at once is silent at once");
                std::thread::yield_now();
            }
            let after = written.load(Ordering::SeqCst);
            thread.join().unwrap();
            assert_eq!(written.load(Ordering::SeqCst), after);
        }
    }

    #[test]
    fn a_cut_is_heard_between_two_writes() {
        let orders = Orders::new();
        let Ok(writing) = orders.begin() else { panic!("nothing was ordered") };
        assert_eq!(writing.check(), Ok(()));
        assert!(!orders.cut(Cut::Operator), "a write may be under way");
        assert_eq!(writing.check(), Err(Cut::Operator));
        assert!(!orders.is_silent());
        drop(writing);
        assert!(orders.is_silent());
        assert!(orders.begin().is_err());
    }

    #[test]
    fn the_first_reason_stays() {
        for first in Cut::ALL {
            let orders = Orders::new();
            orders.drain();
            assert_eq!(orders.cut_reason(), None);
            assert!(orders.cut(first));
            assert!(orders.cut(Cut::Shutdown));
            assert_eq!(orders.cut_reason(), Some(first));
            assert!(orders.is_draining());
        }
    }
}
