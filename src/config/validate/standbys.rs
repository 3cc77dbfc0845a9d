//! What becomes of the other standbys of a pair after a failover: who points them at the new primary, and where.

use super::super::raw::{self, Text};
use super::super::{Authority, Kind, Probe, ProbeKind, Promoter, Service, Survivors};
use super::Problems;
use super::command::{self, OF_FOLLOWING};
use super::failover::Policy;
use super::section::{Section, shown};
use crate::types::HostPort;

pub(super) struct Standbys {
    pub(super) survivors: Survivors,
    pub(super) follow_command: Option<Vec<String>>,
}

/// `survivors` and `follow_command`. `promotes`: this daemon logs in to promote, so it may try to point others.
pub(super) fn build(
    s: &mut Section<'_>,
    service: &str,
    raw: &raw::Failover,
    policy: Policy,
    promotes: bool,
    kind: Kind,
    probe: &Probe,
) -> Standbys {
    let words = [("repoint", Survivors::Repoint), ("report", Survivors::Report)];
    let written = s.choice("survivors", &raw.survivors, &words, &[]);
    let follow_command = command::argv_with(s, "follow_command", &raw.follow_command, OF_FOLLOWING);
    let given = raw.follow_command.is_some();
    let key = if written == Some(Survivors::Repoint) { "survivors" } else { "follow_command" };
    if given && written == Some(Survivors::Report) {
        s.problem("follow_command", "is never used with survivors = \"report\"; remove one of the two");
    } else if (given || written == Some(Survivors::Repoint))
        && let Some(why) = refuse(service, policy, kind, probe)
    {
        s.problem(key, why);
    }
    let by_default = match policy.authority {
        _ if given => Survivors::Repoint,
        Authority::SelfDecides if promotes => Survivors::Repoint,
        Authority::SelfDecides | Authority::Observe => Survivors::Report,
    };
    Standbys { survivors: written.unwrap_or(by_default), follow_command }
}

/// Why no standby can be pointed anywhere here, and what would be right.
fn refuse(service: &str, policy: Policy, kind: Kind, probe: &Probe) -> Option<String> {
    if kind == Kind::Cockroach {
        return Some(
            "points PostgreSQL standbys at their new primary, and this is kind = \"cockroach\"; remove it".into(),
        );
    }
    if policy.standby_serves {
        return Some(
            "is never used with standby_serves = true, where nobody is promoted; remove one of the two".into(),
        );
    }
    let sees = matches!(probe.kind, ProbeKind::Sql { .. });
    (!sees).then(|| {
        format!(
            "needs to see which server follows which line, and a probe of kind {} does not; write kind = \"sql\" in \
             [{service}.probe], or remove it",
            probe.kind.as_str()
        )
    })
}

/// `replication_address` of a backend.
pub(super) fn replication_address(section: &mut Section<'_>, raw: &Option<Text>) -> Option<HostPort> {
    let Text(text) = raw.as_ref()?;
    match text.parse::<HostPort>() {
        Ok(address) => Some(address),
        Err(error) => {
            section.problem("replication_address", format!("{} {error}", shown(text)));
            None
        }
    }
}

/// Somebody must be allowed to take over where somebody is to be promoted.
pub(super) fn check(path: &str, service: &Service, problems: &mut Problems) {
    let promotes = !matches!(service.failover.promoter, Promoter::None);
    if promotes && !service.backends.is_empty() && service.backends.iter().all(|backend| !backend.promote) {
        problems.add(
            format!("{path}.backend"),
            "every backend has promote = false, so none could ever take over; take it out at one, or write promoter = \
             \"none\" in the failover table",
        );
    }
}
