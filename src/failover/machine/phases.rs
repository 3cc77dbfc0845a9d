//! Phase, cadence and events, all derived from the state after each turn.

use std::time::Duration;

use super::{Machine, State};
use crate::failover::action::{Cadence, Change, Event, EventKind, Operator};
use crate::failover::health::State as Health;
use crate::failover::observation::Failure;
use crate::failover::phase::Phase;
use crate::failover::side::Side;
use crate::failover::transition;
use crate::types::{BackendName, Epoch, Now};

impl Machine {
    pub(super) fn sync_phase(&mut self, now: Now) {
        let phase = self.derive_phase();
        if phase == self.phase {
            return;
        }
        let from = std::mem::replace(&mut self.phase, phase);
        *self.edges.entry((from, phase)).or_default() += 1;
        let known = transition::edge(from, phase);
        let why = known.map_or("an edge the table does not know", |edge| edge.why);
        let said = match &self.block {
            Some(block) if phase == Phase::Blocked => {
                format!("{}: {}", block.reason.as_str(), block.sentence)
            }
            _ => format!("{} → {}: {why}", from.as_str(), phase.as_str()),
        };
        let kind = if phase == Phase::Blocked { EventKind::Blocked } else { EventKind::Phase };
        self.tell(now, kind, said);
    }

    pub(super) fn derive_phase(&self) -> Phase {
        match &self.state {
            State::Starting { .. } if self.block.is_some() => Phase::Blocked,
            State::Starting { .. } => Phase::Starting,
            State::Episode(run) => run.phase(self.block.is_some()),
            State::Watching if self.block.is_some() => Phase::Blocked,
            State::Watching if self.record.paused.is_some() => Phase::Paused,
            State::Watching => match &self.suspicion {
                Some(suspicion) if suspicion.threshold.is_some() => Phase::Confirming,
                Some(_) => Phase::Suspect,
                None if self.settling.is_some() => Phase::Settling,
                None => Phase::Steady,
            },
        }
    }

    pub(super) fn sync_cadence(&mut self, now: Now) {
        self.cadence = match &self.state {
            State::Episode(run) if run.awaits_proof(now.at) => Cadence::Proof,
            State::Episode(_) => Cadence::Episode,
            State::Starting { .. } => Cadence::Episode,
            State::Watching if self.hastens_patroni() => Cadence::Episode,
            State::Watching => match (&self.suspicion, self.active_side()) {
                (Some(_), Some(side)) if self.may_be_dead(side) => Cadence::Death,
                (Some(_), _) => Cadence::Fast,
                (None, _)
                    if self.mismatch.is_some()
                        || self.sides.iter().any(|s| s.claim.is_some() && !self.is_active(&s.name)) =>
                {
                    Cadence::Fast
                }
                (None, _) => Cadence::Calm,
            },
        };
    }

    pub(super) fn may_be_dead(&self, side: &Side) -> bool {
        let refused = side
            .addresses
            .values()
            .all(|a| a.health.failed().is_none_or(|(.., how)| how == Failure::Refused) || a.health.failures() == 0);
        self.service.probe.passive && side.lost_for_good() && refused && side.state() != Health::Down
    }

    pub(super) fn tell(&mut self, now: Now, kind: EventKind, sentence: String) {
        self.tell_as(now, kind, sentence, None, None);
    }

    pub(super) fn tell_as(
        &mut self,
        now: Now,
        kind: EventKind,
        sentence: String,
        took: Option<Duration>,
        operator: Option<Operator>,
    ) {
        let intent = self.run().map(|run| &run.intent);
        let episode = intent.map(|intent| intent.id);
        let change = intent.filter(|_| kind == EventKind::Decided).map(Change::of);
        let (active, epoch) = match &self.record.latch {
            Some(latch) => (Some(latch.active.clone()), latch.epoch),
            None => (None, Epoch::default()),
        };
        self.events.push_back(Event { at: now.wall, episode, epoch, kind, sentence, took, operator, active, change });
    }

    pub(super) fn tell_health(&mut self, backend: &BackendName, now: Now) {
        let Some(side) = self.side(backend) else {
            return;
        };
        let state = side.state();
        let last = side.last_probe.as_ref().map_or_else(String::new, |probe| format!(": {}", probe.text));
        if self.told.get(backend) == Some(&state) {
            return;
        }
        self.told.insert(backend.clone(), state);
        self.tell(now, EventKind::Health, format!("{backend} is {}{last}", state.as_str()));
    }
}
