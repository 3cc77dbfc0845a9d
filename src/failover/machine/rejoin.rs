//! Where probes show neither lines nor roles, nothing tells a rebuilt server from an old primary that came back as it
//! was. A side that an episode left is therefore nobody's candidate until an operator says that it follows again.

use super::Machine;
use super::command::{Answer, refusal};
use crate::failover::action::{Receipt, Refusal};
use crate::failover::analysis;
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{Intent, Latch, Record};
use crate::failover::side::Side;
use crate::types::{BackendName, Now};

impl Machine {
    /// Who is left by this episode is remembered with the latch; who is opened to, is not left any more.
    pub(super) fn leave(&self, record: &mut Record, intent: &Intent) {
        record.left.retain(|name| *name != intent.to);
        if let Some(from) =
            intent.from.as_ref().filter(|from| self.service.promotes_blindly() && !record.left.contains(from))
        {
            record.left.push(from.clone());
        }
    }

    /// The sides know it from the record.
    pub(super) fn mark_left(&mut self) {
        let blind = self.service.promotes_blindly();
        for side in &mut self.sides {
            side.left = blind && self.record.left.contains(&side.name);
        }
    }

    pub(super) fn command_rejoin(&mut self, backend: &BackendName, dry_run: bool, now: Now) -> Answer {
        let latch = self.ready()?;
        let side = self.known(backend)?;
        if *backend == latch.active {
            return Err(refusal(
                "already_active",
                format!("{backend} is active (epoch {}): it follows nobody", latch.epoch),
            ));
        }
        if self.replicates() {
            let said = format!(
                "{backend} is a cluster: it comes back by a stream from {}; `proxyctl failback full`",
                latch.active
            );
            return Err(refusal("needs_stream", said));
        }
        follows(side, &latch)?;
        if latch.identity.is_some() && self.knows_identity() {
            return Ok(receipt(format!("{backend} streams from {}: it is a standby of it already", latch.active)));
        }
        if side.state() != Health::Up {
            return Err(refusal("not_up", format!("{backend} is {}", side.state().as_str())));
        }
        if side.role() == Role::Primary {
            return Err(refusal("is_primary", format!("{backend} says that it is primary: it follows nobody")));
        }
        if !side.left {
            return Ok(receipt(format!(
                "no failover left {backend} since it was last rebuilt: there is nothing to state"
            )));
        }
        if !dry_run {
            self.record.left.retain(|name| name != backend);
            self.mark_left();
            self.persist_aside(now);
        }
        Ok(receipt(format!(
            "{backend} counts as a standby of {} again, by your word: its probe cannot show it",
            latch.active
        )))
    }
}

/// Does it stream from the latched side, as far as that can be shown?
pub(super) fn follows(side: &Side, latch: &Latch) -> Result<(), Refusal> {
    let name = &side.name;
    if let Some(why) = &side.quarantine {
        return Err(refusal(
            "quarantined",
            format!("{name} is quarantined: {why}; once it streams from {}, it is released", latch.active),
        ));
    }
    match &latch.identity {
        Some(identity) if !analysis::streams_on(side, identity.timeline) => Err(refusal(
            "not_rebuilt",
            format!(
                "{name} is {} and does not stream from {} on timeline {}: rebuild it as a standby first",
                side.state().as_str(),
                latch.active,
                identity.timeline
            ),
        )),
        _ => Ok(()),
    }
}

fn receipt(sentence: String) -> Receipt {
    Receipt { sentence, episode: None, steps: Vec::new() }
}
