//! The order of steps: what is written before what is done, what a record may become, and which deeds an episode may
//! order when.

use pgpivot::config::Promoter;
use pgpivot::failover::action::{Action, Command, Latched, Repoint};
use pgpivot::failover::observation::Role;
use pgpivot::failover::phase::{EpisodeKind, Intent, Latch, Record, Stage};
use pgpivot::types::{BackendName, Epoch};

use crate::ears::{Ear, descends};
use crate::laws::{Course, Law, Laws, Scene};

impl Laws {
    // ---- on disk ----

    /// A record became another, by a write that was answered or one that was not.
    pub fn disk_changed(&mut self, before: &Record, after: &Record, written: Option<&Record>) {
        if before == after {
            return;
        }
        if written != Some(after) {
            // A torn slot, or a touch: the record before the last one counts again.
            return;
        }
        self.epoch_steps(before, after);
        self.intent_steps(before, after);
    }

    fn epoch_steps(&mut self, before: &Record, after: &Record) {
        let epoch = |record: &Record| record.latch.as_ref().map_or(Epoch::default(), |latch| latch.epoch);
        let (old, new) = (epoch(before), epoch(after));
        self.demand(Law::Epoch, new >= old && new.0 <= old.0 + 1, || format!("epoch {old} became {new} on disk"));
        self.demand(Law::Epoch, after.last_episode >= before.last_episode, || {
            format!("episode {} became {}", before.last_episode, after.last_episode)
        });
        if before.latch.as_ref().map(|l| &l.active) != after.latch.as_ref().map(|l| &l.active) {
            self.demand(Law::Epoch, new.0 == old.0 + 1, || format!("the active side changed within epoch {old}"));
        }
        if let (Some(old), Some(new)) = (&before.latch, &after.latch)
            && old.active != new.active
        {
            self.vouched = Some(std::collections::BTreeSet::new());
        }
        let identity = |record: &Record| record.latch.as_ref().and_then(|latch| latch.identity.clone());
        if new == old && identity(before) != identity(after) {
            self.broken(Law::LatchByEpisode, "who the latched side is changed without a new epoch");
        }
    }

    fn intent_steps(&mut self, before: &Record, after: &Record) {
        let place = |record: &Record| record.latch.as_ref().map(|latch| (latch.active.clone(), latch.epoch));
        let moved = place(before) != place(after);
        match (&before.intent, &after.intent) {
            (None, None) => {
                // The first latch leaves nobody: it is written by itself.
                let first = before.latch.is_none();
                self.demand(Law::LatchByEpisode, !moved || first, || "the latch changed without an episode".into());
            }
            (None, Some(intent)) => {
                self.demand(Law::LatchByEpisode, !moved, || "the latch changed with a new intent".into());
                self.new_intent(before, intent);
            }
            (Some(old), Some(new)) => {
                self.demand(Law::LatchByEpisode, !moved, || "the latch changed in the middle of an episode".into());
                let same = (old.id, old.epoch, &old.from, &old.to, old.kind)
                    == (new.id, new.epoch, &new.from, &new.to, new.kind);
                self.demand(Law::OneEpisode, same, || format!("{old:?} became {new:?} on disk"));
                self.demand(Law::NoWayBack, new.stage >= old.stage, || {
                    format!("stage {:?} became {:?}", old.stage, new.stage)
                });
            }
            (Some(intent), None) if moved => self.completed(intent, after),
            (Some(_), None) => {}
        }
    }

    fn new_intent(&mut self, before: &Record, intent: &Intent) {
        let (active, epoch) = match &before.latch {
            Some(latch) => (Some(latch.active.clone()), latch.epoch.next()),
            None => (None, Epoch(1)),
        };
        self.demand(Law::Epoch, intent.epoch == epoch, || {
            format!("an intent for epoch {} where {epoch} is next", intent.epoch)
        });
        self.demand(Law::LatchByEpisode, intent.from == active, || {
            format!("an intent from {:?}, latched is {active:?}", intent.from)
        });
        self.demand(Law::OneEpisode, intent.id > before.last_episode, || {
            format!("episode {} was there before", intent.id)
        });
        let stage = if intent.kind == EpisodeKind::Follow { Stage::Sent } else { Stage::Intent };
        self.demand(Law::WriteThenAct, intent.stage == stage, || {
            format!("a new {:?} at stage {:?}", intent.kind, intent.stage)
        });
    }

    fn completed(&mut self, intent: &Intent, after: &Record) {
        let Some(latch) = &after.latch else {
            return self.broken(Law::LatchByEpisode, "the latch is gone");
        };
        let as_meant = latch.active == intent.to && latch.epoch == intent.epoch;
        self.demand(Law::LatchByEpisode, as_meant, || format!("{intent:?} ended with {latch:?}"));
        let promotes = matches!(intent.kind, EpisodeKind::Failover | EpisodeKind::Switchover);
        self.demand(Law::WriteThenAct, !promotes || intent.stage == Stage::Sent, || {
            format!("latched at stage {:?} without `sent` on disk", intent.stage)
        });
        self.demand(Law::Timeline, !self.sql() || latch.identity.is_some(), || "latched without an identity".into());
    }

    // ---- as ordered ----

    pub fn orders_write(&mut self, ticket: u64, record: &Record, scene: &Scene<'_>) {
        let before = std::mem::replace(&mut self.ordered, record.clone());
        let known = self.course.as_ref().map(|course| course.intent.id);
        match &record.intent {
            Some(intent) if known != Some(intent.id) => {
                self.demand(Law::OneEpisode, known.is_none(), || {
                    format!("episode {} begins beside {known:?}", intent.id)
                });
                self.course = Some(Course { ticket, ..Course::of(intent.clone()) });
                self.decided(&intent.clone(), scene);
            }
            Some(intent) => {
                let sending =
                    intent.stage == Stage::Sent && self.course.as_ref().is_some_and(|course| !course.sent_ordered);
                if sending {
                    self.sends(&before, record, scene);
                }
            }
            None if self.latch.is_none() && record.latch.is_some() && known.is_none() => self.first(record),
            None if before.latch != record.latch => self.latches(record, scene),
            None if known.is_some() => self.calls_off(scene),
            None => {}
        }
    }

    /// `sent` is ordered to be written: what must have come before.
    fn sends(&mut self, before: &Record, record: &Record, scene: &Scene<'_>) {
        self.looks_again(scene);
        let Some(course) = self.course.clone() else { return };
        let intent = &course.intent;
        self.demand(Law::LateWake, !course.void, || "an intent from before a late wake is sent".into());
        let on_disk = scene.disk.intent.as_ref().is_some_and(|known| known.id == intent.id);
        self.demand(Law::WriteThenAct, on_disk, || "`sent` is ordered before the intent is on disk".into());
        self.demand(Law::Lock, !self.sql() || course.locked, || "`sent` without the lock".into());
        let fence = self.service.failover.fence_required && intent.kind == EpisodeKind::Failover || course.idle;
        self.demand(Law::Fence, !fence || course.fenced == Some(true), || {
            "`sent` without the fence that is needed".into()
        });
        let spends = intent.kind == EpisodeKind::Failover;
        self.demand(
            Law::Budget,
            !spends
                || record.spent.len() > before.spent.len()
                || !before.spent.is_empty() && record.spent.contains(&intent.decided_at),
            || "a failover was sent that the budget does not know".into(),
        );
        if let Some(course) = &mut self.course {
            course.sent_ordered = true;
        }
    }

    fn caught_up(&mut self) {
        let Some(course) = self.course.clone() else { return };
        let told = self.ears.get(&course.intent.to).and_then(|ear| ear.told.clone());
        let reached = match (course.frozen, told) {
            (Some((lsn, at)), Some((started, _, facts))) => {
                let at_least =
                    |position: Option<pgpivot::types::Lsn>| position.is_some_and(|position| position.0 >= lsn);
                started >= at && facts.role == Role::Standby && at_least(facts.lsn) && at_least(facts.replay_lsn)
            }
            _ => false,
        };
        self.demand(Law::NoLoss, reached, || format!("{} has not shown that it replayed all", course.intent.to));
    }

    /// A latch is ordered to be written: the new side must have proven itself.
    fn latches(&mut self, record: &Record, scene: &Scene<'_>) {
        let place = |latch: &Latch| (latch.active.clone(), latch.epoch, latch.identity.clone());
        if self.course.is_none() && self.latch.as_ref().map(place) == record.latch.as_ref().map(place) {
            // A pause while the latch was being written had it written again, and the first write has been answered.
            return;
        }
        let (Some(course), Some(latch)) = (self.course.clone(), &record.latch) else {
            return self.broken(Law::LatchByEpisode, "a latch without an episode");
        };
        let to = &course.intent.to;
        if matches!(course.intent.kind, EpisodeKind::Failover | EpisodeKind::Switchover) {
            if self.identity().is_some() {
                self.demand(Law::NoWayBack, course.proven || !self.sql(), || {
                    format!("{to} is latched and did not prove its promotion")
                });
            } else {
                self.demand(Law::NoWayBack, course.done, || format!("{to} is latched without the promoter's word"));
            }
        }
        if course.intent.kind == EpisodeKind::Route && !course.intent.forced {
            self.looks_again(scene);
        }
        if course.intent.kind == EpisodeKind::Route && self.sql() && !self.service.failover.standby_serves {
            let silenced = course.fenced == Some(true) || self.takes_no_writes(&course.intent, scene);
            self.demand(Law::Fence, silenced, || "opened beside a side that nothing keeps from writing".into());
        }
        let cooled = course.intent.from.is_none() || course.intent.kind == EpisodeKind::Follow;
        let until = scene.clock.wall.plus(self.service.failover.cooldown);
        self.demand(Law::Cooldown, cooled || record.cooldown_until == Some(until), || {
            "an episode ends without a cool-down".into()
        });
        self.demand(Law::Timeline, !self.sql() || latch.identity.is_some(), || {
            format!("{to} is latched without an identity")
        });
    }

    /// An answer of the side that was promoted may prove it.
    pub fn proves_promotion(&mut self, backend: &BackendName) {
        let Some(old) = self.identity().cloned() else { return };
        let told = self.ears.get(backend).and_then(|ear| ear.told.clone());
        let Some(course) = self.course.as_mut().filter(|course| course.intent.to == *backend) else { return };
        // The order of the process before counts as well.
        let since = course.resumed.or(course.ordered).unwrap_or(u64::MAX);
        course.proven |= told.is_some_and(|(started, _, facts)| {
            started >= since && facts.role == Role::Primary && descends(&facts, &old, true)
        });
    }

    /// The end without a change is ordered to be written.
    fn calls_off(&mut self, scene: &Scene<'_>) {
        let Some(course) = &self.course else { return };
        let sent = scene.disk.intent.as_ref().is_some_and(|i| i.id == course.intent.id && i.stage == Stage::Sent);
        let promotes = course.intent.kind != EpisodeKind::Follow && self.promoted.contains_key(&course.intent.id);
        let excused = course.refused || course.abandoned || self.yields(&course.intent.to);
        self.demand(Law::NoWayBack, !(sent && promotes) || excused, || {
            "called off after the promotion was ordered".into()
        });
    }

    // ---- deeds ----

    pub fn orders_deed(&mut self, action: &Action, scene: &Scene<'_>) {
        let (episode, backend) = match action {
            Action::Fence { episode, backend }
            | Action::Promote { episode, backend, .. }
            | Action::Freeze { episode, backend, .. }
            | Action::ReadFlush { episode, backend, .. }
            | Action::SetSync { episode: Some(episode), backend, .. } => (*episode, backend.clone()),
            Action::Lock { episode, backends, .. } => (*episode, backends[0].clone()),
            Action::SetSync { episode: None, backend, .. } => return self.belongs_to_latch(backend, scene),
            Action::Repoint(order) => return self.points(order, scene),
            _ => return,
        };
        let disk = scene.disk.intent.clone().filter(|intent| intent.id == episode);
        let Some(intent) = disk else {
            return self.broken(Law::WriteThenAct, format!("{action:?} is ordered and its intent is not on disk"));
        };
        let own = self.course.as_ref().is_some_and(|course| course.intent.id == episode);
        self.demand(Law::OneEpisode, own, || format!("{action:?} is not of the episode under way"));
        if let Action::Lock { backends, needed, .. } = action {
            self.asks_enough(backends, *needed, &intent.to);
        }
        match action {
            // After `sent` there is no last look any more.
            Action::Lock { .. } if self.course.as_ref().is_some_and(|course| course.sent_ordered) => {}
            Action::Lock { .. } if intent.kind == EpisodeKind::Switchover => self.caught_up(),
            Action::Fence { .. } | Action::Lock { .. } => self.looks_again(scene),
            Action::Freeze { latched, .. } => {
                self.names_latched(latched.as_ref());
                let marked = intent.stage >= Stage::Freezing && intent.from.as_ref() == Some(&backend);
                self.demand(Law::Freeze, marked, || format!("{backend} is frozen before that is on disk"));
                self.froze.insert(backend);
            }
            Action::Promote { epoch, rechecked, .. } => {
                self.demand(Law::Recheck, !rechecked.sentence().is_empty(), || {
                    "a promotion without its recheck".into()
                });
                self.demand(Law::Epoch, *epoch == intent.epoch, || {
                    format!("promotes for epoch {epoch}, on disk {}", intent.epoch)
                });
                self.promotes_now(&intent, &backend, scene);
            }
            _ => {}
        }
    }

    /// What follows from the latch alone waits until no episode is under way.
    fn belongs_to_latch(&mut self, primary: &BackendName, scene: &Scene<'_>) {
        let active = scene.disk.latch.as_ref().map(|latch| latch.active.clone());
        let calm = self.course.is_none() && scene.disk.intent.is_none();
        self.demand(Law::WriteThenAct, calm && active.as_ref() == Some(primary), || {
            format!("standbys are led to {primary}, on disk {active:?} is active")
        });
    }

    /// A standby is pointed at the latched side, and only one that last said that it is a standby.
    fn points(&mut self, order: &Repoint, scene: &Scene<'_>) {
        self.belongs_to_latch(&order.primary, scene);
        let standby =
            self.ears.get(&order.backend).and_then(Ear::facts).is_some_and(|facts| facts.role == Role::Standby);
        self.demand(Law::WriteThenAct, standby && order.backend != order.primary, || {
            format!("{} is pointed at {} and is no standby", order.backend, order.primary)
        });
        let line = self.identity().map(|identity| (identity.system_id, identity.timeline));
        self.demand(Law::Timeline, line == Some((order.system_id, order.timeline)), || {
            format!("{} is pointed at a line that is not the latched one", order.backend)
        });
    }

    /// An order to the latched side says whom it is meant for.
    fn names_latched(&mut self, latched: Option<&Latched>) {
        let named = latched.map(|latched| (latched.system_id, latched.timeline));
        let known = self.identity().map(|identity| (identity.system_id, identity.timeline));
        self.demand(Law::Freeze, named == known, || format!("meant for {named:?}, latched is {known:?}"));
    }

    /// The candidate's lock; of three or more sides, that of most.
    fn asks_enough(&mut self, backends: &[BackendName], needed: usize, to: &BackendName) {
        let sides = self.service.backends.len();
        let most = if sides > 2 { needed > sides / 2 } else { needed == backends.len() };
        let enough = most && needed > 0 && backends.contains(to);
        self.demand(Law::Lock, enough, || format!("asks {needed} of {backends:?} for the lock to promote {to}"));
    }

    fn promotes_now(&mut self, intent: &Intent, backend: &BackendName, scene: &Scene<'_>) {
        self.demand(Law::WriteThenAct, intent.stage == Stage::Sent, || "promotes and `sent` is not on disk".into());
        self.demand(Law::OneCandidate, intent.to == *backend, || {
            format!("promotes {backend}, the intent says {}", intent.to)
        });
        let before = self.promoted.insert(intent.id, backend.clone());
        self.demand(Law::OneCandidate, before.as_ref().is_none_or(|before| before == backend), || {
            format!("episode {} promotes {backend} after {before:?}", intent.id)
        });
        let may = self.service.failover.promoter != Promoter::None && intent.kind != EpisodeKind::Follow;
        self.demand(Law::Authority, may, || "promotes and has no promoter".into());
        self.nobody_else(intent);
        let Some(course) = &mut self.course else { return };
        course.ordered.get_or_insert(scene.now);
        course.orders += 1;
        let void = course.void && before.is_none();
        self.demand(Law::LateWake, !void, || "an intent from before a late wake is carried out".into());
    }

    /// Nobody is promoted beside a side that was, and nobody without the lock: under it all must have been heard before
    /// a promotion is ordered that another process, or this one, may have ordered before.
    fn nobody_else(&mut self, intent: &Intent) {
        let (Some(identity), Some(course), true) = (self.identity().cloned(), self.course.clone(), self.sql()) else {
            return;
        };
        let primary = |ear: &Ear| {
            ear.facts().is_some_and(|facts| facts.role == Role::Primary && descends(facts, &identity, false))
        };
        let successor = self.ears.iter().find(|(name, ear)| **name != intent.to && primary(ear));
        let successor = successor.map(|(name, _)| name.clone());
        self.demand(Law::SplitBrain, successor.is_none(), || {
            format!("promotes {} and {successor:?} was promoted", intent.to)
        });
        let Some(before) = course.ordered.or(course.resumed) else { return };
        self.demand(Law::Lock, course.locked, || format!("promotes {} again without the lock", intent.to));
        let since = course.locked_at.max(before);
        let heard = |ear: &Ear| {
            let answered = ear.told.as_ref().is_some_and(|(started, ..)| *started >= since);
            answered || ear.counters.values().all(|counter| counter.heard.is_some_and(|at| at >= since))
        };
        let unheard = self.ears.iter().find(|(name, ear)| **name != intent.to && !heard(ear));
        let unheard = unheard.map(|(name, _)| name.clone());
        self.demand(Law::SplitBrain, unheard.is_none(), || {
            format!("promotes {} again and has not heard {unheard:?} since", intent.to)
        });
        let told = self.ears.get(&intent.to).and_then(|ear| ear.told.clone());
        let standby = told.is_some_and(|(started, _, facts)| started >= before && facts.role == Role::Standby);
        let follows = standby && !self.seen_elsewhere(&intent.to);
        self.demand(Law::Timeline, follows, || format!("promotes {} again, which may be no standby", intent.to));
    }

    /// The candidate was seen on another line or in another system, and another side is primary on one that goes on from
    /// the latched one.
    fn yields(&self, to: &BackendName) -> bool {
        let Some(identity) = self.identity() else { return false };
        let goes_on = |ear: &Ear| ear.claims() && ear.facts().is_some_and(|facts| descends(facts, identity, true));
        let facts = self.ears.get(to).and_then(Ear::facts);
        let foreign = facts.and_then(|facts| facts.system_id).is_some_and(|system| system != identity.system_id);
        (foreign || self.seen_elsewhere(to)) && self.ears.iter().any(|(name, ear)| name != to && goes_on(ear))
    }

    pub fn orders_release(&mut self, backend: &BackendName, latched: Option<&Latched>) {
        self.names_latched(latched);
        let active = self.active().cloned();
        self.demand(Law::Freeze, active.as_ref() == Some(backend), || {
            format!("{backend} is released and is not active")
        });
        self.unfreezing = Some(backend.clone());
    }

    /// The last look at the old side must have found it failing, lately; and nobody may still hear it.
    fn looks_again(&mut self, scene: &Scene<'_>) {
        let Some(course) = &mut self.course else { return };
        if course.rechecked
            || course.intent.forced
            || !matches!(course.intent.kind, EpisodeKind::Failover | EpisodeKind::Route)
        {
            return;
        }
        course.rechecked = true;
        let (intent, idle, resumed) = (course.intent.clone(), course.idle, course.resumed);
        let course_age = course.age;
        let Some(written) = course.written else {
            return self.broken(Law::WriteThenAct, "goes on before the intent is known to be on disk");
        };
        let Some(from) = &intent.from else { return };
        let Some(ear) = self.ears.get(from) else { return };
        let fast = u64::try_from(self.service.probe.fast_interval.as_millis()).unwrap();
        let since = resumed.unwrap_or(written.saturating_sub(fast));
        let failing = ear.counters.values().all(|counter| counter.failing().is_some_and(|at| at >= since));
        let known = ear.counters.len();
        let down = ear.is_down();
        self.demand(Law::Recheck, failing && known > 0, || format!("no fresh failure of {from} since {since}"));
        if resumed.is_some() {
            self.demand(Law::Evidence, down, || format!("{from} is not down after the restart"));
            let (age, max) = (course_age, self.service.failover.max_disconnect);
            self.demand(Law::Candidate, age <= max, || format!("an intent {age:?} old is carried further"));
        }
        if intent.kind == EpisodeKind::Failover && !idle {
            self.nobody_hears(from, scene);
        }
    }
}

pub fn is_forced(command: &Command) -> bool {
    matches!(command, Command::Failover { force: true, .. } | Command::Failover { route_only: true, .. })
}
