//! Where probes show neither lines nor roles, nothing tells who follows whom. What the configuration says counts until the
//! active side changes; from then on a side is nobody's candidate until an operator says that it follows.

use super::Machine;
use super::command::{Answer, refusal};
use crate::config::Kind;
use crate::failover::action::{Operator, Receipt, Refusal};
use crate::failover::analysis;
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{Intent, Latch, Method, Record};
use crate::failover::side::Side;
use crate::types::{BackendName, Epoch, Now};

impl Machine {
    /// Another side becomes active: whatever was said of who follows is void.
    pub(super) fn void_vouchers(&self, record: &mut Record, intent: &Intent) {
        match &intent.from {
            Some(from) if *from != intent.to => record.vouched = Some(Vec::new()),
            // The same side once more: nothing changes for those who follow it.
            Some(_) => record.vouched = Some(self.all_vouched()),
            None => {}
        }
    }

    /// A promotion of it may have been made and was given up, or another server stands under its name now.
    pub(super) fn doubt(&mut self, name: &BackendName) {
        let mut rest = self.all_vouched();
        rest.retain(|side| side != name);
        self.record.vouched = Some(rest);
        self.mark_unproven();
    }

    fn all_vouched(&self) -> Vec<BackendName> {
        let vouched = self.vouched();
        self.sides.iter().map(|side| side.name.clone()).filter(|name| vouched(name)).collect()
    }

    fn vouched(&self) -> impl Fn(&BackendName) -> bool + use<> {
        let (list, moved) = (self.record.vouched.clone(), self.latch().is_some_and(|latch| latch.epoch > Epoch(1)));
        move |name| list.as_ref().map_or(!moved, |list| list.contains(name))
    }

    /// The sides know it from the record. A latch without a line was made by probes that showed none.
    pub(super) fn mark_unproven(&mut self) {
        let lineless = self.latch().is_some_and(|latch| latch.identity.is_none()) && self.service.shows_lines();
        let blind = self.service.is_blind() || lineless && !self.service.failover.standby_serves;
        let vouched = self.vouched();
        for side in &mut self.sides {
            side.unproven = blind && !vouched(&side.name);
        }
    }

    pub(super) fn command_rejoin(
        &mut self,
        backend: &BackendName,
        method: Option<Method>,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
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
        if latch.identity.is_some() && self.knows_identity() {
            return match follows(side, &latch) {
                Ok(()) => {
                    Ok(receipt(format!("{backend} streams from {}: it is a standby of it already", latch.active)))
                }
                Err(_) => self.rejoin_server(backend, method, &latch, operator, dry_run, now),
            };
        }
        follows(side, &latch)?;
        if method.is_some() {
            return Err(refusal(
                "needs_sql",
                "what a server needs is only seen by a probe of kind \"sql\": leave --method out",
            ));
        }
        if side.state() != Health::Up {
            return Err(refusal("not_up", format!("{backend} is {}", side.state().as_str())));
        }
        // It would be promoted at once, unasked.
        if self.active_side().is_none_or(|active| active.state() == Health::Down) {
            return Err(refusal(
                "active_down",
                format!(
                    "{} is down: nobody follows it now. `proxyctl failover --to {backend} --force` promotes {backend}, and what it has not received is lost",
                    latch.active
                ),
            ));
        }
        // Of CockroachDB it says only that it serves.
        if side.role() == Role::Primary && self.service.kind == Kind::Postgres {
            return Err(refusal("is_primary", format!("{backend} says that it is primary: it follows nobody")));
        }
        if !side.unproven {
            return Ok(receipt(format!("nothing is doubted of {backend}: there is nothing to state")));
        }
        if !dry_run {
            self.record.vouched.get_or_insert_default().push(backend.clone());
            self.mark_unproven();
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
