//! Who gets traffic, from the state alone. Cutting goes with closing; opening was preceded by a latch on disk.

use std::collections::BTreeSet;

use super::{Machine, State};
use crate::failover::action::{Action, Gate, OpenBackend};
use crate::failover::candidate;
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{Administered, Latch};
use crate::failover::side::{Address, Side};
use crate::types::{BackendName, Now};

impl Machine {
    /// Publishes the gate when it changed; cuts the side that lost it.
    pub(super) fn sync_gate(&mut self, _now: Now) {
        let (gate, cut) = self.desired_gate();
        if self.gate.as_ref() != Some(&gate) {
            self.gate = Some(gate.clone());
            self.actions.push_back(Action::Publish(gate));
        }
        if self.cut != cut {
            if let Some(backend) = &cut {
                self.actions.push_back(Action::Cut { backend: backend.clone() });
            }
            self.cut = cut;
        }
        self.cut_barred();
    }

    /// Readers of a side that became somebody else's, or a primary of its own, are cut as well.
    fn cut_barred(&mut self) {
        let barred: BTreeSet<_> =
            self.sides.iter().filter(|side| self.is_barred(side)).map(|side| side.name.clone()).collect();
        let new = barred.difference(&self.barred).map(|backend| Action::Cut { backend: backend.clone() });
        self.actions.extend(new);
        self.barred = barred;
    }

    /// Not one byte may go there, though it is not the side that an episode leaves.
    fn is_barred(&self, side: &Side) -> bool {
        let promoted = self.record.intent.as_ref().is_some_and(|intent| intent.to == side.name);
        if self.is_active(&side.name) || promoted || self.service.failover.standby_serves || self.latch().is_none() {
            return false;
        }
        let Some(identity) = self.latch().and_then(|latch| latch.identity.as_ref()) else {
            return side.unproven || self.service.probe.kind.primary_only() && side.state() == Health::Up;
        };
        let now = side.facts.as_ref().is_some_and(|heard| Some(heard.started) >= self.latched_at);
        let strange = || side.role() == Role::Primary || candidate::strays(side, identity).is_some();
        side.quarantine.is_some() || now && strange()
    }

    fn desired_gate(&self) -> (Gate, Option<BackendName>) {
        let closed = |why: &str| Gate::Closed { why: why.to_owned() };
        let Some(latch) = self.latch() else {
            return (closed("no side is latched yet"), None);
        };
        // The latched side says that it is something else: closed and cut at once, whatever is under way.
        let astray = self.astray().or_else(|| self.disowned()).map(|(_, why)| why);
        match &self.state {
            State::Starting { .. } => {
                // An open intent outranks the latch, also while this daemon finds its feet.
                let from = self.record.intent.as_ref().and_then(|intent| intent.from.clone());
                let cut = from.or_else(|| astray.map(|_| latch.active.clone()));
                (closed("the start checks have not passed yet"), cut)
            }
            State::Episode(run) if run.closed => {
                (Gate::Closed { why: format!("traffic moves to {}", run.intent.to) }, run.intent.from.clone())
            }
            State::Episode(_) | State::Watching if let Some(why) = &astray => (closed(why), Some(latch.active.clone())),
            State::Episode(run) if run.unchecked.is_some() => (closed("the start checks have not passed yet"), None),
            State::Episode(_) => (self.open(latch, true), None),
            State::Watching => {
                if self.active_is_frozen() {
                    return (Gate::Closed { why: format!("{} is being released from read-only", latch.active) }, None);
                }
                let recovering = self.active_side().is_some_and(|side| side.state() == Health::Recovering);
                (self.open(latch, recovering || self.holds_for_patroni()), None)
            }
        }
    }

    fn open(&self, latch: &Latch, hold: bool) -> Gate {
        let identity = latch.identity.as_ref();
        let open = |side: &Side| {
            let proves = |address: &Address| match identity {
                Some(identity) if !self.is_active(&side.name) => Side::stays_behind(address, identity),
                _ => Side::proves(address, identity),
            };
            let proven = side.addresses.iter().filter(|(_, address)| proves(address)).map(|(ip, _)| *ip);
            let (resting, addresses): (Vec<_>, Vec<_>) = proven.partition(|ip| self.rests(side, *ip).is_some());
            let one =
                || self.rests(side, *resting.first()?).filter(|_| addresses.is_empty()).map(Administered::sentence);
            let rests = side.excluded.clone().or_else(one);
            OpenBackend { name: side.name.clone(), weight: side.config.weight, addresses, resting, rests }
        };
        let tier = self.sides.iter().filter(|side| self.serves_with(side, latch)).map(open).collect();
        let reads = |side: &&Side| self.readers.fit(&side.name);
        let readers = self.sides.iter().filter(reads).map(open).collect();
        Gate::Open { active: latch.active.clone(), epoch: latch.epoch, tier, readers, hold }
    }

    /// The latched side; where sides always serve, also those of the same configured role that are up.
    fn serves_with(&self, side: &Side, latch: &Latch) -> bool {
        if side.name == latch.active {
            // A tier of several drops a member that is down; a lone side stays, its newcomers wait.
            return side.state() != Health::Down || self.tier_peers(latch).count() == 0;
        }
        self.tier_members(latch).any(|peer| peer.name == side.name)
    }

    /// Other backends that share the active tier, are up, and take newcomers.
    pub(super) fn tier_peers<'a>(&'a self, latch: &Latch) -> impl Iterator<Item = &'a Side> {
        self.tier_members(latch).filter(|side| side.excluded.is_none())
    }

    /// The same, those included that an operator took newcomers from.
    fn tier_members<'a>(&'a self, latch: &Latch) -> impl Iterator<Item = &'a Side> {
        let role = self.side(&latch.active).and_then(|side| side.config.role);
        let active = latch.active.clone();
        let serves = self.service.failover.standby_serves;
        self.sides.iter().filter(move |side| {
            serves
                && side.name != active
                && role.is_some()
                && side.config.role == role
                && side.quarantine.is_none()
                && side.state() == Health::Up
        })
    }
}
