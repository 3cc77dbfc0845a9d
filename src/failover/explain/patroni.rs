//! What Patroni says, in words. Changes nothing.

use crate::failover::machine::Machine;
use crate::patroni::model::{Member, Scheduled};
use crate::view::{Episode, PatroniMember, PatroniStatus};

impl Machine {
    pub(super) fn patroni_status(&self) -> Option<PatroniStatus> {
        self.service.patroni.as_ref()?;
        let heard = self.following.heard.as_ref();
        let cluster = heard.map(|heard| &heard.reading.cluster);
        let unmatched = self.sides.iter().filter(|side| !self.following.members.contains_key(&side.name));
        Some(PatroniStatus {
            via: heard.map(|heard| heard.reading.via.clone()),
            read_at: heard.map(|heard| heard.at),
            trouble: self.following.trouble.clone(),
            leader: cluster.and_then(|cluster| cluster.leader()).map(|leader| leader.name.clone()),
            paused: cluster.is_some_and(|cluster| cluster.paused),
            scheduled: cluster.and_then(|cluster| cluster.scheduled.as_ref()).map(scheduled),
            members: cluster.iter().flat_map(|cluster| &cluster.members).map(|member| self.member(member)).collect(),
            unmatched: unmatched.filter(|_| heard.is_some()).map(|side| side.name.clone()).collect(),
        })
    }

    fn member(&self, member: &Member) -> PatroniMember {
        PatroniMember {
            name: member.name.clone(),
            backend: self.backend_of(member).cloned(),
            host: member.host.clone(),
            role: member.role.as_str().to_owned(),
            state: member.state.clone(),
            timeline: member.timeline,
            lag_bytes: member.lag,
            nofailover: member.nofailover,
            pending_restart: member.pending_restart,
        }
    }

    /// An order to Patroni, shown as the episode that it becomes.
    pub(super) fn ordered(&self) -> Option<Episode> {
        let ask = self.following.ask.as_ref()?;
        Some(Episode {
            id: ask.id.0,
            kind: crate::failover::machine::kind_word(ask.kind).to_owned(),
            from: self.active_name(),
            to: crate::types::BackendName::new(ask.target()),
            stage: "ordered".into(),
            why: ask.sentence(),
            decided_at: ask.decided_at,
            operator: Some(ask.operator.name.clone()),
        })
    }
}

fn scheduled(planned: &Scheduled) -> String {
    let from = planned.from.as_ref().map_or_else(String::new, |from| format!("from {from} "));
    format!("{from}to {} at {}", planned.to.as_deref().unwrap_or("whom Patroni chooses"), planned.at)
}
