//! May it be decided? The evidence, the witnesses, the candidate, and what forbids a decision, at the moment at which
//! an intent is first ordered to be written.

use pgpivot::config::{Authority, ConfiguredRole, ForeignPromotion, WitnessRule};
use pgpivot::failover::action::Command;
use pgpivot::failover::observation::{Failure, Receiver, ReceiverRow, Role};
use pgpivot::failover::phase::{EpisodeKind, Intent, Record};
use pgpivot::types::{BackendName, Timeline};

use crate::ears::{Counter, Ear, descends, on_line, proves};
use crate::laws::{Law, Laws, Scene};
use crate::ordering::is_forced;

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

impl Laws {
    pub fn decided(&mut self, intent: &Intent, scene: &Scene<'_>) {
        if let Some(command) = self.accepted.clone() {
            return self.commanded(&command, intent, scene);
        }
        self.demand(Law::DryRun, intent.operator.is_none(), || {
            "a command that was only to be explained began an episode".into()
        });
        match intent.kind {
            EpisodeKind::Failover => self.failover(intent, scene),
            EpisodeKind::Route => self.route(intent, scene),
            EpisodeKind::Follow => self.follow(intent, scene),
            EpisodeKind::Switchover => self.broken(Law::Authority, "a switchover that nobody commanded"),
        }
    }

    // ---- by an operator ----

    fn commanded(&mut self, command: &Command, intent: &Intent, scene: &Scene<'_>) {
        if intent.operator.is_none() {
            // Something else was due at that moment.
            self.accepted = None;
            return self.decided(intent, scene);
        }
        self.demand(Law::DryRun, !self.explaining, || {
            "a command that was only to be explained began an episode".into()
        });
        self.demand(Law::Command, !intent.forced || is_forced(command) || self.service.failover.standby_serves, || {
            format!("{command:?} was not forced, the episode is")
        });
        self.demand(Law::Disk, !self.disk_error || intent.kind == EpisodeKind::Follow, || {
            "begins and the state cannot be written".into()
        });
        let named = match command {
            Command::Failover { to, .. } | Command::Switchover { to } | Command::Restore { to, .. } => to.clone(),
            Command::Adopt { backend } => Some(backend.clone()),
            _ => None,
        };
        self.demand(Law::Command, named.is_none_or(|named| named == intent.to), || {
            format!("{command:?} moves to {}", intent.to)
        });
        match intent.kind {
            EpisodeKind::Failover => {
                self.alone(intent);
                self.fit(intent, scene);
                if !intent.forced {
                    self.witnessed(intent, scene);
                }
            }
            EpisodeKind::Switchover => {
                self.alone(intent);
                self.fit(intent, scene);
            }
            EpisodeKind::Route => self.serves(intent, scene),
            EpisodeKind::Follow => self.adopted(intent, scene),
        }
    }

    fn serves(&mut self, intent: &Intent, scene: &Scene<'_>) {
        if !self.sql() || self.service.failover.standby_serves {
            return;
        }
        let primary = self.ears.get(&intent.to).and_then(Ear::facts).is_some_and(|facts| facts.role == Role::Primary);
        self.demand(Law::Command, primary, || format!("route-only to {}, which is no primary", intent.to));
        let fences = self.service.failover.fence_command.is_some();
        let silenced = fences || self.takes_no_writes(intent, scene);
        self.demand(Law::Command, silenced, || "route-only away from a side that nothing keeps from writing".into());
    }

    /// Down, or in recovery by an answer of late.
    pub fn takes_no_writes(&self, intent: &Intent, scene: &Scene<'_>) -> bool {
        let Some(ear) = intent.from.as_ref().and_then(|from| self.ears.get(from)) else { return true };
        let recovers = ear
            .told
            .as_ref()
            .is_some_and(|(_, finished, facts)| facts.role == Role::Standby && scene.now - finished <= self.patience());
        ear.is_down() || recovers
    }

    fn adopted(&mut self, intent: &Intent, scene: &Scene<'_>) {
        if !self.sql() {
            return;
        }
        let told = self.ears.get(&intent.to).and_then(|ear| ear.told.clone());
        let primary = told.as_ref().is_some_and(|(.., facts)| facts.role == Role::Primary);
        self.demand(Law::Command, primary, || format!("adopts {}, which does not say that it is primary", intent.to));
        let fresh = told.is_some_and(|(_, finished, _)| scene.now - finished <= self.patience());
        self.demand(Law::Command, fresh, || format!("adopts {}, which was not heard lately", intent.to));
    }

    fn patience(&self) -> u64 {
        3 * ms(self.service.probe.interval.max(self.service.probe.down_interval)) + ms(self.service.probe.timeout)
    }

    // ---- by itself ----

    fn failover(&mut self, intent: &Intent, scene: &Scene<'_>) {
        let failover = self.service.failover.clone();
        let may = failover.automatic && failover.authority == Authority::SelfDecides && self.promotes();
        self.demand(Law::Authority, may && !failover.standby_serves, || "promotes and may not".into());
        self.allowed(scene);
        self.not_worked_on(intent);
        self.dead(intent, scene);
        self.witnessed(intent, scene);
        self.fit(intent, scene);
        self.best(intent, scene);
        self.alone(intent);
    }

    /// What keeps any automatic decision of ours from being taken.
    fn allowed(&mut self, scene: &Scene<'_>) {
        let failover = self.service.failover.clone();
        self.demand(Law::Pause, !self.paused, || "decides although paused".into());
        self.demand(Law::Disk, !self.disk_error, || "decides and the state cannot be written".into());
        let record = scene.disk;
        let left = record.cooldown_until.map_or(0, |until| ms(until.since(scene.clock.wall).min(failover.cooldown)));
        self.demand(Law::Cooldown, left == 0, || format!("decides with {left} ms of cool-down left"));
        let day = std::time::Duration::from_secs(24 * 3600);
        let spent = record.spent.iter().filter(|at| scene.clock.wall.since(**at) < day).count();
        self.demand(Law::Budget, (spent as u64) < u64::from(failover.max_per_day), || {
            format!("decides after {spent} within a day")
        });
        let older = self
            .others
            .iter()
            .find(|(name, seen)| name.starts_with("s-") && **name < self.name && scene.now - **seen < 10_000);
        let older = older.map(|(name, _)| name.clone());
        self.demand(Law::SecondDecider, older.is_none() || failover.fence_required, || {
            format!("decides beside {older:?}")
        });
    }

    fn dead(&mut self, intent: &Intent, scene: &Scene<'_>) {
        let Some(from) = &intent.from else { return };
        let Some(ear) = self.ears.get(from).cloned() else { return };
        if self.death_path(&ear, scene.now) {
            return;
        }
        let failover = self.service.failover.clone();
        self.demand(Law::Evidence, ear.is_down(), || format!("{from} is not down: {:?}", ear.counters));
        let first = self.down_first.unwrap_or(scene.now).min(ear.down_since());
        self.demand(Law::Evidence, scene.now - first >= ms(failover.delay), || "the delay is not over".into());
        let grace = failover.standby_serves
            || ear.stopping.is_none_or(|(first, _)| scene.now - first >= ms(failover.restart_grace));
        self.demand(Law::Evidence, grace, || format!("{from} was shut down on purpose a moment ago"));
        let failed = ear.newest_failure().unwrap_or(0);
        let fresh = ms(self.service.probe.fast_interval + self.service.probe.timeout) + 500;
        self.demand(Law::Evidence, scene.now - failed <= fresh, || format!("{from} failed last at {failed}"));
        if !failover.standby_serves {
            self.demand(Law::Evidence, ear.alive.is_none_or(|alive| alive <= failed), || {
                format!("{from} still answers")
            });
        }
        let indirect = ear.indirect && !failover.standby_serves;
        self.demand(Law::Evidence, !indirect, || format!("a pooler stands before {from}"));
    }

    /// Refused thrice at every address, no connection left, and a witness that lost it.
    fn death_path(&self, ear: &Ear, now: u64) -> bool {
        // The last connect and the last sample are the recheck.
        let is_last_look =
            |began: u64, ended: u64| now - ended <= 100 && now - began <= ms(self.service.probe.fast_interval).max(100);
        let probe = &self.service.probe;
        if !probe.passive || !self.service.failover.delay.is_zero() || ear.indirect || ear.live > 0 {
            return false;
        }
        let stopped = ear.stopping.is_some_and(|(_, last)| now - last < 60_000);
        let lost = ear.kept_lost.is_some_and(|at| ear.alive.is_none_or(|alive| alive <= at));
        let refused = ear.counters.values().all(|counter| {
            let (first, last) = (counter.refusals.first(), counter.refusals.last());
            let spread = first.zip(last).is_some_and(|(first, last)| last - first >= 230);
            let recent = counter.refused.is_some_and(|(began, ended)| is_last_look(began, ended));
            counter.refusals.len() >= 3 && spread && recent
        });
        let gone = |ear: &Ear| {
            let told = ear.told.as_ref().filter(|(began, ended, _)| is_last_look(*began, *ended));
            told.is_some_and(|(.., facts)| facts.receiver == Receiver::Gone)
        };
        !stopped && lost && refused && !ear.counters.is_empty() && self.ears.values().any(gone)
    }

    // ---- witnesses ----

    fn row(&self, ear: &Ear) -> Option<ReceiverRow> {
        match &ear.facts()?.receiver {
            Receiver::Row(row) if row.streaming && row.timeline == self.timeline() => Some(row.clone()),
            _ => None,
        }
    }

    pub fn timeline(&self) -> Option<Timeline> {
        self.identity().map(|identity| identity.timeline)
    }

    fn silent(ear: &Ear) -> bool {
        let Some(facts) = ear.facts() else { return false };
        let Receiver::Row(row) = &facts.receiver else { return false };
        let (Some(clock), Some(received), Some(w)) = (facts.clock, row.received, facts.receiver_timeout) else {
            return false;
        };
        !w.is_zero() && clock.since(received) > w / 2 + std::time::Duration::from_millis(500)
    }

    /// Its newest sample shows beyond doubt that the primary sent something after the first adverse evidence.
    fn surely_hears(&self, ear: &Ear, from: &BackendName) -> bool {
        let (Some(t0), Some((started, ..)), Some(active)) = (self.t0_high, &ear.told, self.ears.get(from)) else {
            return false;
        };
        let Some((asked, _, last)) = &active.told else { return false };
        if *started <= t0 || active.clock_jumped || self.wall_jumped || *asked > t0 || Self::silent(ear) {
            return false;
        }
        let Some(row) = self.row(ear).filter(|row| row.sender == last.node) else { return false };
        let (Some(clock), Some(sent)) = (last.clock, row.sent) else { return false };
        // The primary's clock at T0, as late as it can have been.
        let c0 = clock.0 + i64::try_from(t0 - asked).unwrap() * 1000;
        sent.0 >= c0 + 550_000
    }

    /// Its newest sample may be taken for a lost stream.
    fn may_have_lost(&self, ear: &Ear, now: u64) -> bool {
        let Some((started, _, facts)) = &ear.told else { return false };
        let oldest = ms(self.service.probe.fast_interval + self.service.probe.timeout) + 250;
        let after = self.t0_low.is_some_and(|t0| *started >= t0);
        let gone = facts.receiver == Receiver::Gone && facts.role == Role::Standby;
        after && now - started <= oldest && !ear.failed_since_told && (gone || Self::silent(ear))
    }

    /// Nobody but the old side itself may say that it lives.
    pub fn nobody_hears(&mut self, from: &BackendName, _scene: &Scene<'_>) {
        if !self.sql() {
            return;
        }
        let hears = self.ears.iter().find(|(name, ear)| *name != from && self.surely_hears(ear, from));
        let hears =
            hears.map(|(name, ear)| format!("{name} hears {from}: {:?}", ear.facts().map(|f| f.receiver.clone())));
        self.demand(Law::Witness, hears.is_none(), || hears.unwrap_or_default());
    }

    fn witnessed(&mut self, intent: &Intent, scene: &Scene<'_>) {
        let (Some(from), true) = (&intent.from, self.sql()) else { return };
        let heard: Vec<&Ear> = self.ears.iter().filter(|(name, _)| *name != from).map(|(_, ear)| ear).collect();
        let alive = heard.iter().any(|ear| self.surely_hears(ear, from));
        let lost = self.ears.get(&intent.to).is_some_and(|ear| self.may_have_lost(ear, scene.now));
        let optional = self.service.failover.witness == WitnessRule::Optional;
        let timed_out = self.ears.get(from).is_some_and(|ear| {
            ear.counters.values().all(|c| c.failed.is_some_and(|(_, how)| how == Failure::TimedOut))
        });
        let fence = self.service.failover.fence_command.is_some();
        let idle = alive && timed_out && fence && intent.operator.is_none();
        if idle {
            let writes = heard.iter().any(|ear| self.surely_writes(ear, from));
            self.demand(Law::Witness, !writes, || "a primary that writes is replaced".into());
            if let Some(course) = &mut self.course {
                course.idle = true;
            }
            return;
        }
        self.nobody_hears(from, scene);
        let node = self.ears.get(from).and_then(Ear::facts).and_then(|facts| facts.node.clone());
        let usable = self.ears.get(&intent.to).and_then(Ear::facts).is_some_and(|facts| {
            // Below another standby it says nothing about the primary.
            let direct = matches!(&facts.receiver, Receiver::Row(row) if row.sender == node);
            direct && facts.receiver_timeout.is_some_and(|w| !w.is_zero())
        });
        let fenced_idle = fence && timed_out && intent.operator.is_none();
        self.demand(Law::Witness, lost || optional && !usable || fenced_idle, || {
            format!("{} has not lost its stream", intent.to)
        });
    }

    /// New log was sent after the first adverse evidence: beyond what anybody had shown before, not only this standby.
    fn surely_writes(&self, ear: &Ear, from: &BackendName) -> bool {
        let Some(lsn) = self.row(ear).and_then(|row| row.lsn) else { return false };
        let shown = self.ears.get(from).and_then(|active| active.flushed(self.identity()?));
        let new = ear.before.is_some_and(|before| lsn.0 > before) && shown.is_none_or(|shown| lsn.0 > shown);
        self.surely_hears(ear, from) && new
    }

    // ---- the candidate ----

    fn fit(&mut self, intent: &Intent, scene: &Scene<'_>) {
        self.is_candidate(intent);
        let ear = self.ears.get(&intent.to).and_then(Ear::facts);
        let recovers = ear.is_some_and(|facts| facts.role == Role::Standby);
        let said = self.vouched.as_ref().is_none_or(|vouched| vouched.contains(&intent.to));
        self.demand(Law::Candidate, self.sql() || said || recovers || intent.forced, || {
            format!("nobody said that {} follows since the active side changed", intent.to)
        });
        let (Some(identity), true) = (self.identity().cloned(), self.sql()) else { return };
        let to = &intent.to;
        let Some(ear) = self.ears.get(to).cloned() else { return };
        let facts = ear.facts().cloned().unwrap_or_default();
        self.demand(Law::Timeline, facts.role == Role::Standby, || format!("{to} is promoted and is {:?}", facts.role));
        let same = facts.system_id == Some(identity.system_id);
        self.demand(Law::Timeline, same, || format!("{to} is promoted and is of another system"));
        let streamed = ear.streamed.get(&identity.timeline).copied();
        self.demand(Law::Candidate, streamed.is_some(), || format!("{to} never streamed on the latched timeline"));
        if intent.forced {
            return;
        }
        let t0 = self.t0_low.unwrap_or(scene.now);
        let gap = t0.saturating_sub(streamed.unwrap_or(0));
        let max = ms(self.service.failover.max_disconnect);
        self.demand(Law::Candidate, gap <= max, || format!("{to} streamed {gap} ms before the first evidence"));
        let flushed = intent.from.as_ref().and_then(|from| self.ears.get(from));
        let flushed = flushed.and_then(|ear| ear.flushed(&identity));
        let lag = flushed.zip(facts.lsn).map_or(0, |(flushed, lsn)| flushed.saturating_sub(lsn.0));
        self.demand(Law::Candidate, lag <= self.service.failover.max_lag, || format!("{to} is {lag} bytes behind"));
    }

    /// Nobody who could take over as well has more.
    fn best(&mut self, intent: &Intent, scene: &Scene<'_>) {
        let (Some(identity), Some(from)) = (self.identity().cloned(), &intent.from) else { return };
        let Some(own) = self.ears.get(&intent.to).and_then(Ear::facts).and_then(|facts| facts.lsn) else { return };
        let node = self.ears.get(from).and_then(Ear::facts).and_then(|facts| facts.node.clone());
        let better = self.ears.iter().find(|(name, ear)| {
            let facts = ear.facts().cloned().unwrap_or_default();
            let serves = |c: &Counter| !c.down && c.fails == 0 && c.passed.is_some() && !c.recovers(scene.now);
            let up = ear.counters.values().any(serves) && !ear.failed_since_told;
            let streams = ear.streamed.get(&identity.timeline).is_some_and(|at| Some(*at) >= self.t0_low);
            // One below another standby may be passed over: it cannot testify.
            *name != from
                && !self.is_taken_out(name)
                && **name != intent.to
                && up
                && streams
                && ear.row_before
                && ear.sender == node
                && facts.role == Role::Standby
                && facts.system_id == Some(identity.system_id)
                && facts.lsn.is_some_and(|lsn| lsn > own)
                && self.may_have_lost(ear, scene.now)
        });
        let said = better
            .map(|(name, ear)| format!("{name} has more than {}: {:?}", intent.to, ear.facts().and_then(|f| f.lsn)));
        self.demand(Law::Candidate, said.is_none(), || said.unwrap_or_default());
    }

    /// No other primary is known of, and no two backends are one server.
    fn alone(&mut self, intent: &Intent) {
        let Some(identity) = self.identity().cloned() else { return };
        let rival = self.ears.iter().find(|(name, ear)| {
            let Some(facts) = ear.facts() else { return false };
            let same = on_line(facts, &identity);
            let streamed = ear.streamed.contains_key(&identity.timeline);
            let primary = facts.role == Role::Primary && ear.claims();
            Some(*name) != intent.from.as_ref()
                && primary
                && (descends(facts, &identity, streamed)
                    || same && !intent.forced && self.other_node(facts.node.as_ref()))
        });
        let rival = rival.map(|(name, _)| name.clone());
        self.demand(Law::SplitBrain, rival.is_none(), || format!("decides beside {rival:?}, which is primary"));
    }

    fn other_node(&self, node: Option<&String>) -> bool {
        let active = self.active().and_then(|name| self.ears.get(name)).and_then(Ear::facts);
        active.is_some_and(|facts| facts.node.as_ref() != node)
    }

    // ---- without a promotion ----

    fn route(&mut self, intent: &Intent, scene: &Scene<'_>) {
        let failover = self.service.failover.clone();
        let may = failover.automatic && failover.authority == Authority::SelfDecides && failover.standby_serves;
        self.demand(Law::Authority, may, || "moves traffic and may not".into());
        self.allowed(scene);
        self.not_worked_on(intent);
        self.is_candidate(intent);
        self.dead(intent, scene);
        let up = self.ears.get(&intent.to).is_some_and(|ear| {
            let answers = ear.counters.values().any(|c| c.passed.is_some() && c.failing().is_none());
            answers || !ear.is_down() && ear.counters.values().any(|c| c.passed.is_some())
        });
        self.demand(Law::Candidate, up, || format!("{} is not up", intent.to));
    }

    fn follow(&mut self, intent: &Intent, scene: &Scene<'_>) {
        let Some(from) = &intent.from else {
            return self.broken(Law::LatchByEpisode, "an intent that leaves nobody");
        };
        let Some(ear) = self.ears.get(&intent.to).cloned() else { return };
        let down = self.ears.get(from).is_some_and(Ear::is_down);
        let Some(identity) = self.identity().cloned().filter(|_| self.sql()) else {
            let http = self.service.probe.kind.primary_only() && !self.service.failover.standby_serves;
            self.demand(Law::Foreign, http && down, || format!("{from} is not down"));
            let service = &self.service;
            let up = ear.counters.values().any(|c| c.passed.is_some() && !c.surely_down(service));
            return self.demand(Law::Foreign, up, || format!("{} does not serve", intent.to));
        };
        let facts = ear.facts().cloned().unwrap_or_default();
        let streamed = ear.streamed.contains_key(&identity.timeline) || from == &intent.to;
        let proven = facts.role == Role::Primary && descends(&facts, &identity, streamed);
        self.demand(Law::Foreign, proven, || format!("{} does not prove to descend: {facts:?}", intent.to));
        self.demand(Law::Foreign, ear.claims(), || format!("{} said only once that it is primary", intent.to));
        let heard = ear.told.as_ref().map_or(0, |(_, finished, _)| *finished);
        self.demand(Law::Foreign, scene.now - heard <= self.patience(), || {
            format!("{} was last heard at {heard}", intent.to)
        });
        let failover = &self.service.failover;
        let others = !self.others.is_empty() || scene.disk.other_daemon_seen.is_some();
        let follows = match failover.foreign_promotion {
            Some(rule) => rule == ForeignPromotion::Follow,
            None => failover.authority == Authority::Observe || others,
        };
        let active = self.ears.get(from).and_then(Ear::facts);
        let astray = active.is_some_and(|facts| !proves(facts, &identity));
        self.demand(Law::Foreign, follows || down || astray, || format!("follows although {from} still is primary"));
    }

    /// The first latch: who it is must be beyond doubt.
    pub fn first(&mut self, record: &Record) {
        let Some(latch) = record.latch.clone() else { return };
        self.demand(Law::Timeline, !self.sql() || latch.identity.is_some(), || "latched without an identity".into());
        let configured = self.service.backends.iter().find(|backend| backend.role == Some(ConfiguredRole::Primary));
        if !self.sql() {
            let configured = configured.is_some_and(|backend| backend.name == latch.active);
            let http = self.service.probe.kind.primary_only();
            // Routing only: nobody else need be heard.
            self.others_heard = true;
            return self.demand(Law::StartChecks, configured || http, || {
                format!("{} is not the configured primary", latch.active)
            });
        }
        let woke = self.woke;
        let heard = self.ears.values().all(|ear| ear.told.as_ref().is_some_and(|(started, ..)| *started >= woke));
        self.demand(Law::StartChecks, heard, || "not every backend was heard before the first latch".into());
        let primaries =
            self.ears.values().filter(|ear| ear.facts().is_some_and(|facts| facts.role == Role::Primary)).count();
        self.demand(Law::StartChecks, primaries == 1, || format!("{primaries} primaries at the first latch"));
        let facts = self.ears.get(&latch.active).and_then(Ear::facts).cloned().unwrap_or_default();
        let streams = |ear: &Ear| {
            ear.facts().is_some_and(|other| {
                let Receiver::Row(row) = &other.receiver else { return false };
                other.system_id == facts.system_id && row.streaming && row.timeline == facts.timeline
            })
        };
        self.demand(Law::StartChecks, self.ears.values().any(streams), || {
            "no standby streams from the first latch".into()
        });
    }
}
