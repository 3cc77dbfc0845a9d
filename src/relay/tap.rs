//! Somebody who listens to what a server says, as it is read, until he has heard enough: then he is gone.

use std::fmt;

/// `true` = enough.
type Hears = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Listens to one server.
pub(super) struct Tap(Hears);

impl Tap {
    pub(super) fn new(hears: Hears) -> Self {
        Self(hears)
    }

    /// The server said this; `true` = there is nothing more to listen for.
    pub(super) fn hears(&mut self, bytes: &[u8]) -> bool {
        (self.0)(bytes)
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}
