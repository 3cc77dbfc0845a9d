//! Who may get a byte now: the gate and the connections behind it, held against the disk and against what was told.

use pgpivot::failover::action::{Gate, OpenBackend};
use pgpivot::failover::observation::{Facts, Receiver, Role};
use pgpivot::failover::phase::{EpisodeKind, Record, Stage};
use pgpivot::types::{BackendName, Epoch};

use crate::daemon::Daemon;
use crate::ears::{Ear, descends, on_line, proves};
use crate::laws::{Law, Laws, Scene};

impl Laws {
    /// After every step.
    pub fn stands(&mut self, scene: &Scene<'_>, daemon: &Daemon) {
        if !daemon.lives() {
            return;
        }
        if let Some(Gate::Open { active, epoch, tier, readers, hold }) = &daemon.gate {
            self.leads(active, *epoch, *hold, scene);
            self.started(active, scene);
            for open in tier.iter().chain(readers) {
                self.takes_newcomers(open);
            }
            for open in tier {
                self.may_take_writes(active, open);
            }
            for open in readers {
                self.may_be_read(open);
            }
            let frozen = self.froze.contains(active) && !hold;
            self.demand(Law::Freeze, !frozen, || format!("{active} is opened and still read-only"));
        }
        let attached = daemon.conns.iter().map(|conn| conn.backend.clone());
        let led: Vec<BackendName> = self.led.iter().cloned().chain(attached).collect();
        for backend in led {
            let why = self.forbidden_side(&backend, scene.disk);
            self.demand(Law::Cut, why.is_none(), || {
                format!("{backend} may still have connections: {}", why.unwrap_or_default())
            });
        }
    }

    fn leads(&mut self, active: &BackendName, epoch: Epoch, hold: bool, scene: &Scene<'_>) {
        let Some(latch) = &scene.disk.latch else {
            return self.broken(Law::LatchOnDisk, format!("open to {active} without a latch on disk"));
        };
        let same = latch.active == *active && latch.epoch == epoch;
        let said =
            (!same).then(|| format!("open to {active} in epoch {epoch}, on disk {} in {}", latch.active, latch.epoch));
        self.demand(Law::LatchOnDisk, said.is_none(), || said.unwrap_or_default());
        self.demand(Law::Epoch, epoch >= self.last_epoch, || format!("open in epoch {epoch} again"));
        self.last_epoch = self.last_epoch.max(epoch);
        let left = scene.disk.intent.as_ref().filter(|intent| intent.from.as_ref() == Some(active));
        let drains = left.is_none_or(|i| hold && i.kind == EpisodeKind::Switchover && i.stage == Stage::Intent);
        let said = (!drains).then(|| format!("open to {active}, which {left:?} leaves"));
        self.demand(Law::IntentOutranks, said.is_none(), || said.unwrap_or_default());
        if let Some(why) = self.astray(active) {
            self.broken(Law::RoleMismatch, format!("open to {active}: {why}"));
        }
    }

    /// Why the latched side is not what was latched, by its newest answer.
    fn astray(&self, active: &BackendName) -> Option<String> {
        let identity = self.identity().filter(|_| self.sql())?;
        let facts = self.ears.get(active)?.facts()?;
        let known = facts.system_id.is_some() && facts.timeline.is_some();
        let told = facts.role == Role::Standby || facts.role == Role::Primary && known && !on_line(facts, identity);
        told.then(|| format!("it says {:?}, {:?}", facts.role, facts.timeline))
    }

    /// The start checks, once per process and per long sleep.
    fn started(&mut self, active: &BackendName, scene: &Scene<'_>) {
        if self.passed_start {
            return;
        }
        self.passed_start = true;
        let woke = self.woke;
        let identity = self.identity().filter(|_| self.sql()).cloned();
        let shows = |ear: &Ear| {
            ear.counters.values().any(|counter| {
                counter.told.as_ref().is_some_and(|(started, facts)| {
                    *started >= woke && identity.as_ref().is_none_or(|identity| proves(facts, identity))
                })
            })
        };
        let proven = self.ears.get(active).is_some_and(shows);
        self.demand(Law::StartChecks, proven, || format!("open to {active}, which has not proven itself since {woke}"));
        let wait = u64::try_from(self.service.failover.verify_wait.as_millis()).unwrap();
        // Where probes tell roles, only who told its role and timeline was heard; one whose stream is lost since shows none.
        let sql = self.sql();
        let heard = |ear: &Ear| {
            ear.counters.values().all(|counter| {
                let heard = if sql { counter.placed } else { counter.heard };
                heard.is_some_and(|at| at >= woke)
            })
        };
        let unheard = self.ears.iter().find(|(name, ear)| *name != active && (!heard(ear) || ear.counters.is_empty()));
        let waited = self.others_heard || scene.now - woke >= wait;
        let said = format!("open to {active} before {:?} was heard", unheard.map(|(name, _)| name));
        self.demand(Law::StartChecks, unheard.is_none() || waited, || said);
        let Some(identity) = identity else { return };
        let higher = self.ears.iter().find(|(name, ear)| {
            let since = ear.told.as_ref().is_some_and(|(started, ..)| *started >= woke);
            let streamed = ear.streamed.contains_key(&identity.timeline);
            let primary = |facts: &Facts| facts.role == Role::Primary && descends(facts, &identity, streamed);
            *name != active && since && ear.facts().is_some_and(primary)
        });
        let said = format!("open to {active} although {:?} is its successor", higher.map(|(name, _)| name));
        self.demand(Law::StartChecks, higher.is_none(), || said);
    }

    fn may_take_writes(&mut self, active: &BackendName, open: &OpenBackend) {
        let serves = self.service.failover.standby_serves;
        self.demand(Law::Timeline, open.name == *active || serves, || {
            format!("{} takes writes beside {active}", open.name)
        });
        let identity = self.identity().filter(|_| self.sql()).cloned();
        for address in &open.addresses {
            let counter = self.ears.get(&open.name).and_then(|ear| ear.counters.get(address));
            let told = counter.and_then(|counter| counter.told.as_ref()).map(|(_, facts)| facts);
            let fits = match (&identity, told) {
                (_, None) => false,
                (Some(identity), Some(facts)) => proves(facts, identity),
                (None, Some(_)) => true,
            };
            let said = (!fits).then(|| format!("{address} of {} takes writes and shows {told:?}", open.name));
            self.demand(Law::Timeline, said.is_none(), || said.unwrap_or_default());
        }
    }

    fn may_be_read(&mut self, open: &OpenBackend) {
        let Some(identity) = self.identity().filter(|_| self.sql()).cloned() else { return };
        // Who streams from nobody now has what it has: it must have come from the latched line.
        let newest = self.ears.get(&open.name).and_then(|ear| ear.streamed.iter().max_by_key(|(_, at)| **at));
        let came = newest.is_some_and(|(timeline, _)| *timeline == identity.timeline);
        let follows = |facts: &Facts| {
            let on_line = match &facts.receiver {
                Receiver::Row(row) => row.timeline == Some(identity.timeline),
                Receiver::Gone | Receiver::Unknown => came,
            };
            facts.role == Role::Standby && facts.system_id == Some(identity.system_id) && on_line
        };
        for address in &open.addresses {
            let counter = self.ears.get(&open.name).and_then(|ear| ear.counters.get(address));
            let told = counter.and_then(|counter| counter.told.as_ref()).map(|(_, facts)| facts);
            let fits = told.is_some_and(follows);
            let said = (!fits).then(|| format!("{address} of {} is read and shows {told:?}", open.name));
            self.demand(Law::Timeline, said.is_none(), || said.unwrap_or_default());
        }
    }

    /// Why this side may have no connection.
    fn forbidden_side(&self, backend: &BackendName, disk: &Record) -> Option<String> {
        let Some(latch) = &disk.latch else { return Some("nothing is latched on disk".into()) };
        if latch.active != *backend && !self.service.failover.standby_serves {
            return Some(format!("{} is latched on disk", latch.active));
        }
        let left = disk.intent.as_ref().filter(|intent| intent.from.as_ref() == Some(backend));
        if let Some(intent) = left
            && !(intent.kind == EpisodeKind::Switchover && intent.stage == Stage::Intent)
        {
            return Some(format!("{intent:?} is on disk"));
        }
        if latch.active == *backend { self.astray(backend) } else { None }
    }

    pub fn cuts(&mut self, backend: &BackendName, scene: &Scene<'_>) {
        self.led.remove(backend);
        if self.active() != Some(backend) {
            return;
        }
        let leaves =
            |record: &Record| record.intent.as_ref().is_some_and(|intent| intent.from.as_ref() == Some(backend));
        let excused = leaves(&self.ordered) || leaves(scene.disk) || self.astray(backend).is_some();
        self.demand(Law::NeedlessCut, excused, || format!("{backend} is cut without an episode"));
    }

    /// A client's bytes are handed to a server.
    pub fn byte_to(&mut self, backend: &BackendName, epoch: Epoch, disk: &Record, _now: u64) {
        let why = self.forbidden_side(backend, disk);
        self.demand(Law::Cut, why.is_none(), || format!("a byte to {backend}: {}", why.unwrap_or_default()));
        let latched = disk.latch.as_ref().map(|latch| latch.epoch);
        let serves = self.service.failover.standby_serves;
        self.demand(Law::Epoch, latched == Some(epoch) || serves, || {
            format!("a byte of epoch {epoch}, on disk {latched:?}")
        });
    }
}
