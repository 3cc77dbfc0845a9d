//! Makes one part of the daemon die, so that tests see what becomes of the rest: `PGPIVOT_PANIC_IN=<part>:<file>`, once
//! the file is there. Without the feature `crash-points` nothing ever dies.

#[cfg(feature = "crash-points")]
use crate::{listener::Listeners, store::Writer};

/// Panics in the thread or task that calls it.
#[cfg(feature = "crash-points")]
pub(super) fn reach(part: &str) {
    assert!(!is_due(part), "ordered by PGPIVOT_PANIC_IN");
}

/// Without the feature: nothing.
#[cfg(not(feature = "crash-points"))]
pub(super) fn reach(_: &str) {}

/// Makes threads panic that pass no place of the daemon's own.
#[cfg(feature = "crash-points")]
pub(super) fn strike(writer: &Writer, listeners: &Listeners) {
    if is_due("writer") && !writer.has_ended() {
        writer.touch("nobody", |_| reach("writer"));
    }
    if is_due("worker") {
        listeners.break_a_thread();
    }
}

#[cfg(feature = "crash-points")]
fn is_due(part: &str) -> bool {
    let order = std::env::var("PGPIVOT_PANIC_IN").unwrap_or_default();
    order.split_once(':').is_some_and(|(wanted, file)| wanted == part && std::path::Path::new(file).exists())
}
