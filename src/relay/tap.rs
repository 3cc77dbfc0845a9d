//! Listens to what a server says until the key of the session has come, and tells it. Only while a client logs in: then
//! it is gone.

use std::fmt;

use crate::wire::backend_key::{KeyWatch, Seen};

type Tell = Box<dyn FnOnce(Box<[u8]>) + Send>;

/// Listens to one server.
pub(super) struct Tap {
    watch: KeyWatch,
    tell: Option<Tell>,
}

impl Tap {
    pub(super) fn new(tell: Tell) -> Self {
        Self { watch: KeyWatch::default(), tell: Some(tell) }
    }

    /// The server said this; `true` = there is nothing more to listen for.
    pub(super) fn hears(&mut self, bytes: &[u8]) -> bool {
        match self.watch.see(bytes) {
            Seen::More => return false,
            Seen::Key(key) => self.tell.take().into_iter().for_each(|tell| tell(key.clone())),
            Seen::Over => {}
        }
        true
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}
