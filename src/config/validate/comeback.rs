//! What becomes of a side that was left, in `[service.NAME.failover]`: made read-only where it still serves, and made a
//! standby again by a command.

use std::time::Duration;

use super::super::Authority;
use super::super::raw;
use super::command;
use super::failover::{Policy, Word};
use super::section::Section;

pub(super) struct Comeback {
    pub(super) soft_fence: bool,
    pub(super) rejoin_command: Option<Vec<String>>,
    pub(super) rejoin_timeout: Duration,
}

impl Comeback {
    /// `sees_lines`: the probe tells timelines.
    pub(super) fn build(
        s: &mut Section<'_>,
        service: &str,
        raw: &raw::Failover,
        policy: Policy,
        word: Word,
        sees_lines: bool,
    ) -> Self {
        let decides = policy.authority == Authority::SelfDecides && !policy.standby_serves;
        let default = sees_lines && decides && matches!(word, Word::Postgres | Word::Command);
        let soft_fence = s.flag(&raw.soft_fence, default);
        if soft_fence && !(sees_lines && decides) {
            let (because, way) = match (policy.standby_serves, policy.authority) {
                (true, _) => {
                    ("with standby_serves = true every side serves on purpose", "remove one of the two".into())
                }
                (_, Authority::Observe) => (
                    "with authority = \"observe\" somebody else looks after the servers",
                    "remove one of the two".into(),
                ),
                (_, Authority::Patroni) => {
                    ("with authority = \"patroni\" Patroni looks after the servers", "remove one of the two".into())
                }
                (_, Authority::SelfDecides) => (
                    "this probe cannot show that a server is the old primary of this pair",
                    format!("write kind = \"sql\" in [{service}.probe] of a PostgreSQL pair, or remove it"),
                ),
            };
            s.problem("soft_fence", format!("makes an old primary read-only, and {because}; {way}"));
        }
        let rejoin_command = command::argv_with(s, "rejoin_command", &raw.rejoin_command, command::OF_REJOINING);
        if rejoin_command.is_some() && !sees_lines {
            s.problem(
                "rejoin_command",
                format!(
                    "makes an old primary a standby again, and this probe cannot show what it needs nor that it streams; \
                     write kind = \"sql\" in [{service}.probe] of a PostgreSQL pair, or remove it"
                ),
            );
        }
        let range = Duration::from_secs(10)..=Duration::from_secs(7 * 86400);
        let rejoin_timeout = s.duration("rejoin_timeout", &raw.rejoin_timeout, range, Duration::from_secs(1800));
        if raw.rejoin_timeout.is_some() && raw.rejoin_command.is_none() {
            s.problem("rejoin_timeout", "is never used without rejoin_command; write that, or remove it");
        }
        Self { soft_fence, rejoin_command, rejoin_timeout }
    }
}
