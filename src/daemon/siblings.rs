//! What the pairs of one daemon know of each other: two that lead the same servers must not both decide.

use std::sync::{Arc, Mutex, PoisonError};

use crate::failover::machine::Sibling;

/// Every pair of the daemon, in the order in which they were started: that of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Siblings(Arc<Mutex<Vec<Sibling>>>);

/// A pair's place among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

impl Siblings {
    /// A pair comes after those that are there.
    pub(super) fn join(&self, own: Sibling) -> Place {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(own);
        Place(all.len() - 1)
    }

    /// What this pair is now.
    pub(super) fn post(&self, place: Place, own: Sibling) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = all.get_mut(place.0) {
            *shown = own;
        }
    }

    /// All but the one at `place`.
    pub(super) fn others(&self, place: Place) -> Vec<Sibling> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = all.iter().enumerate().filter(|(i, _)| *i != place.0);
        others.map(|(i, other)| Sibling { earlier: i < place.0, ..other.clone() }).collect()
    }
}
