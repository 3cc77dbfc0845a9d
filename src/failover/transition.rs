//! The edges between phases as one table, which prints itself as a graph. An edge that is not here is a bug, and counted.

use super::phase::Phase;

/// One edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// From.
    pub from: Phase,
    /// To.
    pub to: Phase,
    /// When it is taken.
    pub why: &'static str,
}

const fn e(from: Phase, to: Phase, why: &'static str) -> Edge {
    Edge { from, to, why }
}

use Phase::{Blocked, Confirming, Fencing, Paused, Promoting, Settling, Starting, Steady, Suspect, Switching};

/// Every edge.
pub const EDGES: &[Edge] = &[
    e(Starting, Steady, "the latched side proved itself"),
    e(Starting, Fencing, "an open intent is taken up again"),
    e(Starting, Promoting, "an intent that was sent is taken up again"),
    e(Starting, Switching, "the first latch, or a proven successor, is being written"),
    e(Starting, Blocked, "the start checks cannot pass"),
    e(Starting, Paused, "the latched side proved itself; decisions are paused"),
    e(Starting, Settling, "the new side proved itself, soon after a switch"),
    e(Steady, Suspect, "first adverse evidence"),
    e(Steady, Confirming, "the threshold is reached at once"),
    e(Steady, Fencing, "an operator began an episode, or one that others began is followed"),
    e(Steady, Switching, "a promotion somebody else made is adopted"),
    e(Steady, Blocked, "something must not be decided"),
    e(Steady, Paused, "an operator paused decisions"),
    e(Steady, Starting, "this daemon slept: the start checks run again"),
    e(Suspect, Steady, "it answers again"),
    e(Suspect, Settling, "it answers again, soon after a switch"),
    e(Suspect, Confirming, "the threshold is reached"),
    e(Suspect, Fencing, "it is dead, or an operator began an episode"),
    e(Suspect, Blocked, "something must not be decided"),
    e(Suspect, Switching, "a promotion somebody else made is adopted"),
    e(Suspect, Paused, "an operator paused decisions"),
    e(Suspect, Starting, "this daemon slept: the start checks run again"),
    e(Confirming, Steady, "it answers again"),
    e(Confirming, Settling, "it answers again, soon after a switch"),
    e(Confirming, Fencing, "confirmed: the intent is being written"),
    e(Confirming, Blocked, "something must not be decided"),
    e(Confirming, Switching, "a promotion somebody else made is adopted"),
    e(Confirming, Paused, "an operator paused decisions"),
    e(Confirming, Starting, "this daemon slept: the start checks run again"),
    e(Blocked, Steady, "the reason is gone"),
    e(Blocked, Suspect, "the reason is gone, the evidence stands"),
    e(Blocked, Confirming, "the reason is gone, the threshold is still reached"),
    e(Blocked, Fencing, "the reason is gone, or an operator began an episode"),
    e(Blocked, Switching, "proven, adopted by an operator, or followed"),
    e(Blocked, Starting, "this daemon slept, or the latched side can be opened at last: the start checks run again"),
    e(Blocked, Paused, "the reason is gone; decisions are paused"),
    e(Blocked, Settling, "the reason is gone"),
    e(Paused, Steady, "an operator resumed"),
    e(Paused, Suspect, "an operator resumed, the evidence stands"),
    e(Paused, Confirming, "an operator resumed, the threshold is still reached"),
    e(Paused, Settling, "an operator resumed soon after a switch"),
    e(Paused, Blocked, "something must not be decided"),
    e(Paused, Fencing, "an operator began an episode"),
    e(Paused, Switching, "a promotion somebody else made is adopted"),
    e(Paused, Starting, "this daemon slept: the start checks run again"),
    e(Fencing, Promoting, "sent is on disk"),
    e(Fencing, Switching, "traffic moves without a promotion"),
    e(Fencing, Steady, "called off before it was sent"),
    e(Fencing, Suspect, "called off; the evidence stands, below the threshold"),
    e(Fencing, Confirming, "called off; the evidence stands"),
    e(Fencing, Blocked, "called off: something must not be decided"),
    e(Fencing, Paused, "called off; decisions are paused"),
    e(Fencing, Starting, "called off; the old side must prove itself again"),
    e(Fencing, Settling, "called off soon after a switch"),
    e(Promoting, Switching, "the new side proves to be primary"),
    e(Promoting, Blocked, "nothing proves it in time, or somebody else was promoted: pending"),
    e(Promoting, Fencing, "nothing was promoted, or it is given up: called off"),
    e(Switching, Settling, "the latch is on disk: open"),
    e(Switching, Paused, "the latch is on disk: open; decisions are paused"),
    e(Switching, Blocked, "the state cannot be written, or a rival stands"),
    e(Switching, Fencing, "what was to be adopted does not prove itself any more"),
    e(Switching, Starting, "the latch is on disk; the start checks are still owed"),
    e(Settling, Steady, "calm"),
    e(Settling, Suspect, "first adverse evidence about the new side"),
    e(Settling, Confirming, "the threshold is reached at once"),
    e(Settling, Fencing, "an operator began an episode"),
    e(Settling, Blocked, "something must not be decided"),
    e(Settling, Paused, "an operator paused decisions"),
    e(Settling, Switching, "a promotion somebody else made is adopted"),
    e(Settling, Starting, "this daemon slept: the start checks run again"),
];

/// The edge between two phases, if there is one.
pub fn edge(from: Phase, to: Phase) -> Option<&'static Edge> {
    EDGES.iter().find(|edge| edge.from == from && edge.to == to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_edge_stands_twice_and_every_phase_is_entered_and_left() {
        for (i, edge) in EDGES.iter().enumerate() {
            assert!(edge.from != edge.to);
            assert!(!EDGES[i + 1..].iter().any(|other| (other.from, other.to) == (edge.from, edge.to)), "{edge:?}");
        }
        for phase in Phase::ALL {
            assert!(EDGES.iter().any(|edge| edge.from == phase), "{phase:?} is never left");
            assert!(phase == Starting || EDGES.iter().any(|edge| edge.to == phase), "{phase:?} is never entered");
        }
    }
}
