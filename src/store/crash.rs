//! Where a test may kill the daemon: before a record is written, between write and sync, after the sync.
//! Without the feature `crash-points` the list is there and nothing ever dies.

use std::fmt;

use crate::failover::phase::{Record, Stage};

/// What a record that follows another means, for naming the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A latch without an episode: the first one, or an adopted one.
    Latch,
    /// An episode was decided.
    Intent,
    /// The old primary is about to be frozen.
    Freezing,
    /// The promotion is about to be ordered.
    Sent,
    /// The episode ended without a new active side.
    Cancelled,
    /// The episode ended with a new active side.
    Latched,
    /// The undo of a freeze is no longer owed.
    Unfrozen,
    /// Anything else: pause, budget, another daemon seen.
    Note,
}

/// When, within the write of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// Nothing was written.
    Before,
    /// Written, not yet brought to disk.
    Between,
    /// On disk, not yet acted upon.
    After,
}

/// Every place, as the environment variable `PGPIVOT_CRASH_AT` names them: `<step>:<when>`, and `:<n>` for the n-th
/// record of that step.
pub const CRASH_POINTS: [(Step, When); 24] = {
    let steps = Step::ALL;
    let mut points = [(Step::Latch, When::Before); 24];
    let mut i = 0;
    while i < points.len() {
        points[i] = (steps[i / 3], [When::Before, When::Between, When::After][i % 3]);
        i += 1;
    }
    points
};

impl Step {
    /// Every step.
    pub const ALL: [Step; 8] = [
        Step::Latch,
        Step::Intent,
        Step::Freezing,
        Step::Sent,
        Step::Cancelled,
        Step::Latched,
        Step::Unfrozen,
        Step::Note,
    ];

    /// The step that leads from `before` to `after`.
    pub fn between(before: &Record, after: &Record) -> Step {
        let epoch = |record: &Record| record.latch.as_ref().map(|latch| latch.epoch);
        let moved = epoch(before) != epoch(after);
        match (&before.intent, &after.intent) {
            (_, Some(intent)) => match intent.stage {
                Stage::Intent => Step::Intent,
                Stage::Freezing => Step::Freezing,
                Stage::Sent => Step::Sent,
            },
            (Some(_), None) if moved => Step::Latched,
            (Some(_), None) => Step::Cancelled,
            (None, None) if moved => Step::Latch,
            (None, None) if before.frozen.len() > after.frozen.len() => Step::Unfrozen,
            (None, None) => Step::Note,
        }
    }

    /// The word in `PGPIVOT_CRASH_AT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latch => "latch",
            Self::Intent => "intent",
            Self::Freezing => "freezing",
            Self::Sent => "sent",
            Self::Cancelled => "cancelled",
            Self::Latched => "latched",
            Self::Unfrozen => "unfrozen",
            Self::Note => "note",
        }
    }
}

impl When {
    /// The word in `PGPIVOT_CRASH_AT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Between => "between",
            Self::After => "after",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Dies here by SIGKILL if `PGPIVOT_CRASH_AT` says so; a rewrite of the same record is no step.
#[cfg(feature = "crash-points")]
pub(super) fn reach(step: Option<Step>, when: When) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static ORDER: LazyLock<Option<Order>> = LazyLock::new(|| Order::parse(&std::env::var("PGPIVOT_CRASH_AT").ok()?));
    static PASSED: AtomicU32 = AtomicU32::new(0);

    let (Some(order), Some(step)) = (&*ORDER, step) else {
        return;
    };
    if order.step != step.as_str() || order.when != when.as_str() {
        return;
    }
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 < order.nth {
        return;
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

/// Without the feature: nothing.
#[cfg(not(feature = "crash-points"))]
pub(super) fn reach(_: Option<Step>, _: When) {}

/// `<step>:<when>[:<n>]`.
#[cfg(any(test, feature = "crash-points"))]
#[derive(Debug, PartialEq, Eq)]
struct Order {
    step: String,
    when: String,
    nth: u32,
}

#[cfg(any(test, feature = "crash-points"))]
impl Order {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (step, when) = (parts.next()?, parts.next()?);
        let nth = parts.next().map_or(Some(1), |n| n.parse().ok())?;
        Some(Self { step: step.into(), when: when.into(), nth })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crash_point_is_listed_once_and_reads_back() {
        let mut seen = std::collections::HashSet::new();
        for (step, when) in CRASH_POINTS {
            let text = format!("{step}:{when}:2");
            let order = Order::parse(&text).unwrap();
            assert_eq!((order.step.as_str(), order.when.as_str(), order.nth), (step.as_str(), when.as_str(), 2));
            assert!(seen.insert(text));
        }
        assert_eq!(seen.len(), Step::ALL.len() * 3);
        assert_eq!(Order::parse("sent:between").unwrap().nth, 1);
        assert_eq!(Order::parse("sent"), None);
    }
}
