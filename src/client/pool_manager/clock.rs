//! The clocks of a pool manager: the one that decides, counted from its start, and the one that people read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::types::{Moment, WallTime};

/// Since when moments are counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.0.elapsed())
    }

    /// Until that moment.
    pub(super) fn instant(&self, at: Moment) -> Instant {
        self.0 + at.0
    }
}

/// What people read.
pub(super) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
