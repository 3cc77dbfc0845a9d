//! The two clocks of the control plane, read together. Only drivers read them; the core gets what they say as an
//! argument.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::types::{Moment, Now, WallTime};

/// CLOCK_BOOTTIME (goes on while the machine sleeps) and the wall clock.
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let wall = clock_gettime(ClockId::Realtime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    let nanos = |n: i64| u32::try_from(n).unwrap_or(0);
    Now {
        at: Moment(Duration::new(part(boot.tv_sec), nanos(boot.tv_nsec))),
        wall: WallTime(wall.tv_sec.saturating_mul(1_000_000).saturating_add(wall.tv_nsec / 1000)),
    }
}

/// A name for this daemon that no other shares and that orders by age: `s-` decides, `o-` observes.
pub fn daemon_name(decides: bool, now: Now) -> String {
    let mut salt = [0_u8; 2];
    // Without a random source the process id tells two daemons of one second apart.
    if getrandom::fill(&mut salt).is_err() {
        salt = std::process::id().to_le_bytes()[..2].try_into().unwrap_or([0, 0]);
    }
    let kind = if decides { 's' } else { 'o' };
    format!("{kind}-{:012x}{:02x}{:02x}", now.wall.0 / 1000, salt[0], salt[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_daemons_name_sorts_first() {
        let at = |ms: i64| Now { wall: WallTime(ms * 1000), ..Now::default() };
        assert!(daemon_name(true, at(1_700_000_000_000)) < daemon_name(true, at(1_700_000_000_001)));
        assert!(daemon_name(true, now()).len() < 32);
    }
}
