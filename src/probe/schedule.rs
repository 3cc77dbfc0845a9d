//! When the next probe of an address is due. Pure: cadence, time and chance are arguments.

use std::time::Duration;

use crate::config::{Kind, Probe};
use crate::failover::action::Cadence;

/// Probes of one address under way at once, at most.
pub(super) const MAX_OUTSTANDING: usize = 8;

/// A standby is sampled this often while the active side is suspect, and everything during an episode.
const WATCHFUL: Duration = Duration::from_millis(250);
/// A standby on the death path.
const HASTY: Duration = Duration::from_millis(100);
/// A standby whose promotion all clients wait for.
const PROMPT: Duration = Duration::from_millis(25);
/// Fresh connects to the active side after the death path was entered; then every [`WATCHFUL`].
const DEATH_OFFSETS: [Duration; 3] = [Duration::ZERO, HASTY, WATCHFUL];

/// A witness that does not answer within this is asked again on a new connection, however patient probes are.
const WITNESS_TIMEOUT: Duration = Duration::from_secs(1);

/// What the wait depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    /// Ordered by the decision core.
    pub(super) cadence: Cadence,
    /// The address belongs to the active side.
    pub(super) active: bool,
    /// Its last `fall` fresh probes failed.
    pub(super) down: bool,
}

/// How one address is probed in a situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// A fresh connection this often.
    pub(super) fresh: Duration,
    /// The first fresh ones after the cadence was entered, as offsets; empty = one at once.
    pub(super) burst: &'static [Duration],
    /// Fresh probes that may be under way when a further one is due.
    pub(super) overlap: usize,
    /// A query on the kept connection this often.
    pub(super) sample: Duration,
    /// Such a query is given up after this.
    pub(super) sample_timeout: Duration,
    /// Waits vary.
    pub(super) jitter: bool,
}

impl Plan {
    /// For kinds that keep no connection: what would be sampled in a hurry is probed afresh, at most ten times a second.
    pub(super) fn without_samples(self) -> Self {
        let fresh = if self.overlap > 1 { self.fresh.min(self.sample.max(HASTY)) } else { self.fresh };
        Self { fresh, ..self }
    }
}

/// Looks up the plan.
pub(super) fn plan(kind: Kind, probe: &Probe, now: Situation) -> Plan {
    let paced = |short: Duration| match kind {
        // A cluster behind a cloud's balancer is not hammered: its configured pace holds.
        Kind::Cockroach => probe.fast_interval,
        Kind::Postgres => short.min(probe.interval),
    };
    let sample_timeout = match (kind, now.active) {
        (Kind::Postgres, false) => probe.timeout.min(WITNESS_TIMEOUT),
        (Kind::Postgres, true) | (Kind::Cockroach, _) => probe.timeout,
    };
    let hurried = |fresh: Duration, sample: Duration| Plan {
        fresh,
        burst: &[],
        overlap: MAX_OUTSTANDING,
        sample,
        sample_timeout,
        jitter: false,
    };
    match (now.cadence, now.active) {
        (Cadence::Calm, active) => Plan {
            fresh: if now.down { probe.down_interval } else { probe.interval },
            burst: &[],
            overlap: 1,
            // A promotion made by somebody else shows on a standby, and must show soon.
            sample: if active { probe.interval } else { probe.fast_interval },
            sample_timeout,
            jitter: true,
        },
        (Cadence::Fast, true) => hurried(probe.fast_interval, probe.fast_interval),
        (Cadence::Fast, false) => hurried(probe.interval, paced(WATCHFUL)),
        (Cadence::Death, true) => Plan { burst: &DEATH_OFFSETS, ..hurried(paced(WATCHFUL), paced(WATCHFUL)) },
        (Cadence::Death, false) => hurried(probe.interval, paced(HASTY)),
        (Cadence::Proof, false) => hurried(paced(WATCHFUL), paced(PROMPT)),
        (Cadence::Episode | Cadence::Proof, _) => hurried(paced(WATCHFUL), paced(WATCHFUL)),
    }
}

/// `wait`, varied by up to `percent` of it either way; `chance` in 0..=255 chooses.
pub(super) fn varied(wait: Duration, percent: u8, chance: u8) -> Duration {
    let share = f64::from(percent.min(50)) / 100.0;
    wait.mul_f64(1.0 + share * (f64::from(chance) / 127.5 - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProbeKind;

    fn probe() -> Probe {
        Probe {
            kind: ProbeKind::Tcp,
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_millis(500),
            down_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
            jitter_percent: 10,
            hang_trigger: Duration::from_secs(2),
            passive: true,
        }
    }

    fn at(cadence: Cadence, active: bool) -> Plan {
        plan(Kind::Postgres, &probe(), Situation { cadence, active, down: false })
    }

    #[test]
    fn calm_probes_every_interval_and_an_endpoint_that_is_down_every_down_interval() {
        assert_eq!(at(Cadence::Calm, true).fresh, Duration::from_secs(2));
        let down = Situation { cadence: Cadence::Calm, active: false, down: true };
        assert_eq!(plan(Kind::Postgres, &probe(), down).fresh, Duration::from_secs(5));
        assert_eq!(at(Cadence::Calm, true).overlap, 1);
    }

    #[test]
    fn a_suspect_side_is_probed_every_fast_interval_and_its_standbys_four_times_a_second() {
        let (active, standby) = (at(Cadence::Fast, true), at(Cadence::Fast, false));
        assert_eq!((active.fresh, active.overlap), (Duration::from_millis(500), MAX_OUTSTANDING));
        assert_eq!(standby.sample, Duration::from_millis(250));
    }

    #[test]
    fn the_death_path_connects_at_0_100_and_250_ms_and_samples_standbys_ten_times_a_second() {
        let (active, standby) = (at(Cadence::Death, true), at(Cadence::Death, false));
        let offsets: Vec<u128> = active.burst.iter().map(Duration::as_millis).collect();
        assert_eq!(offsets, [0, 100, 250]);
        assert_eq!(active.fresh, Duration::from_millis(250));
        assert_eq!(standby.sample, Duration::from_millis(100));
    }

    #[test]
    fn an_episode_probes_everything_four_times_a_second() {
        for active in [true, false] {
            let plan = at(Cadence::Episode, active);
            assert_eq!((plan.fresh, plan.sample), (Duration::from_millis(250), Duration::from_millis(250)));
        }
    }

    #[test]
    fn a_witness_is_given_up_after_a_second_however_patient_probes_are() {
        let patient = Probe { timeout: Duration::from_secs(10), ..probe() };
        let of = |active| {
            let now = Situation { cadence: Cadence::Fast, active, down: false };
            plan(Kind::Postgres, &patient, now).sample_timeout
        };
        assert_eq!((of(false), of(true)), (Duration::from_secs(1), Duration::from_secs(10)));
    }

    #[test]
    fn a_standby_whose_word_all_wait_for_is_asked_forty_times_a_second_on_the_kept_connection_only() {
        let (active, standby) = (at(Cadence::Proof, true), at(Cadence::Proof, false));
        assert_eq!(active, at(Cadence::Episode, true));
        assert_eq!((standby.fresh, standby.sample), (Duration::from_millis(250), Duration::from_millis(25)));
        assert_eq!(standby.without_samples().fresh, Duration::from_millis(100));
    }

    #[test]
    fn a_cockroach_cluster_is_never_probed_faster_than_configured() {
        for cadence in [Cadence::Fast, Cadence::Death, Cadence::Episode, Cadence::Proof] {
            let now = Situation { cadence, active: true, down: false };
            assert_eq!(plan(Kind::Cockroach, &probe(), now).fresh, Duration::from_millis(500));
        }
    }

    #[test]
    fn jitter_stays_within_its_share_and_none_is_none() {
        let wait = Duration::from_secs(2);
        assert_eq!(varied(wait, 0, 255), wait);
        assert_eq!(varied(wait, 10, 0), Duration::from_millis(1800));
        assert_eq!(varied(wait, 10, 255), Duration::from_millis(2200));
    }
}
