//! What the data plane and the kept connections saw without asking: a reason to look, or a sign of life.

use super::{Machine, State};
use crate::failover::action::Action;
use crate::failover::observation::Evidence;
use crate::types::Now;

impl Machine {
    /// What the data plane and the kept connections saw.
    pub fn handle_evidence(&mut self, evidence: &Evidence, now: Now) {
        let trigger = self.service.probe.hang_trigger;
        let passive = self.service.probe.passive;
        let active = self.active_name();
        let backend = evidence.backend().clone();
        let is_active = active.as_ref() == Some(&backend);
        let Some(side) = self.side_mut(&backend) else {
            return;
        };
        let mut adverse = None;
        let mut probe = false;
        match evidence {
            Evidence::ConnectFailed { failure, .. } => adverse = Some(format!("a client's connect failed: {failure}")),
            Evidence::ServerEnded { .. } => probe = true,
            Evidence::Connections { live, .. } => {
                probe = *live == 0 && side.live > 0;
                side.live = *live;
            }
            Evidence::ProbeConnectionLost { .. } => {
                side.kept_lost = Some(now.at);
                adverse = Some("the probe's kept connection was lost".to_owned());
            }
            Evidence::Answered { at, .. } => {
                for address in side.addresses.values_mut() {
                    address.health.answered(*at);
                }
            }
            Evidence::Unanswered { since, .. } if now.at.since(*since) >= trigger => {
                let waited = now.at.since(*since).as_millis();
                adverse = Some(format!("a request stands without any byte back for {waited} ms"));
            }
            Evidence::Unanswered { .. } => {}
            Evidence::Relayed { bytes, .. } => return side.relayed.note(now.at, *bytes),
        }
        if is_active && passive {
            if let Some(why) = adverse {
                let fresh = self.suspicion.is_none();
                self.suspect(why, now);
                probe |= fresh;
            }
            if probe && matches!(self.state, State::Watching) {
                self.actions.push_back(Action::ProbeNow { backend });
            }
        }
        self.advance(now);
    }
}
