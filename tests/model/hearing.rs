//! What a daemon is told, as the reference takes it down: probes, evidence, outcomes, commands, late wakes.

use pgpivot::failover::action::{Command, LockResult, Outcome, PromotionResult};
use pgpivot::failover::observation::{Evidence, Observation, Unknown, Verdict};
use pgpivot::failover::phase::{EpisodeKind, Record, Stage};

use crate::core::{Answer, Input};
use crate::daemon::millis;
use crate::ears::Ear;
use crate::laws::{Laws, Scene};

impl Laws {
    pub fn hears(&mut self, input: &Input, scene: &Scene<'_>) {
        let wall = scene.clock.wall.0 - i64::try_from(scene.now).unwrap() * 1000;
        self.wall_jumped |= (wall - self.wall_offset).abs() > 100_000;
        self.wall_offset = wall;
        self.accepted = None;
        match input {
            Input::Addresses(backend, list) => {
                let list: Vec<_> = list.iter().map(|(_, address)| *address).collect();
                self.ears.entry(backend.clone()).or_default().resolved(&list);
            }
            Input::Seen(seen) => self.hears_probe(seen, scene),
            Input::Evidence(evidence) => self.hears_evidence(evidence, scene.now),
            Input::Outcome(outcome) => self.hears_outcome(outcome, scene.now),
            Input::Disk(error) => self.disk_error = error.is_some(),
            Input::Config(service) => self.service = (**service).clone(),
            Input::Command(_, dry_run) => self.explaining = *dry_run,
            Input::Delay(late) => self.slept(*late, scene),
            Input::Timeout => {}
        }
    }

    fn hears_probe(&mut self, seen: &Observation, scene: &Scene<'_>) {
        let now = scene.now;
        let active = self.active().cloned();
        let service = self.service.clone();
        let Some(ear) = self.ears.get_mut(&seen.backend) else { return };
        if !ear.counters.contains_key(&seen.address) || millis(seen.started) < self.late {
            return;
        }
        ear.hear(seen, &service, now, scene.clock.wall.0);
        if let Verdict::Answered(facts) = &seen.verdict {
            self.proves_promotion(&seen.backend);
            for application in &facts.daemons {
                let name = application.split('/').nth(1).unwrap_or_default().to_owned();
                if name != self.name {
                    self.others.insert(name, now);
                }
            }
        }
        if active.as_ref() == Some(&seen.backend) {
            if matches!(seen.verdict, Verdict::Answered(_)) {
                self.wall_jumped = false;
            }
            self.weigh(seen, now);
        }
    }

    /// Does it begin or end the time in which the active side is suspect?
    fn weigh(&mut self, seen: &Observation, now: u64) {
        let down = self.ears[&seen.backend].is_down();
        if down {
            self.down_first.get_or_insert(now);
        }
        let adverse = match &seen.verdict {
            Verdict::Failed(_) => seen.fresh,
            Verdict::Recovering | Verdict::Unknown(Unknown::CrashShutdown) => true,
            _ => false,
        };
        if adverse {
            self.maybe_adverse(now);
            if self.surely_adverse(seen) {
                self.adverse(now);
            }
        } else if seen.fresh && Ear::lives(&seen.verdict) {
            let ear = &self.ears[&seen.backend];
            let calm = !down && ear.counters.values().all(|counter| counter.fails == 0 && !counter.down);
            let began = self.t0_high.or(self.t0_low).unwrap_or(0);
            if calm && millis(seen.started) >= began {
                (self.t0_low, self.down_first) = (None, None);
            }
            self.t0_high = None;
        }
    }

    /// A failure that a later probe overtook is no evidence any more, and one of several addresses may be out of order.
    fn surely_adverse(&self, seen: &Observation) -> bool {
        let counters = &self.ears[&seen.backend].counters;
        let overtaken = counters[&seen.address].unfailed > millis(seen.started);
        !overtaken && (counters.values().all(|counter| counter.failing().is_some()) || counters.len() == 1)
    }

    fn maybe_adverse(&mut self, now: u64) {
        if self.t0_low.is_some() {
            return;
        }
        self.t0_low = Some(now);
        let timeline = self.identity().map(|identity| identity.timeline);
        let node =
            self.active().and_then(|name| self.ears.get(name)).and_then(Ear::facts).map(|facts| facts.node.clone());
        for ear in self.ears.values_mut() {
            let streamed = timeline.and_then(|timeline| ear.streamed.get(&timeline));
            // Below another standby it was no row of the latched side's.
            let direct = node.as_ref() == Some(&ear.sender);
            ear.row_before = direct && streamed.is_some_and(|at| now - at <= 10_000);
        }
    }

    fn adverse(&mut self, now: u64) {
        self.maybe_adverse(now);
        if self.t0_high.is_none() {
            self.t0_high = Some(now);
            let timeline = self.timeline();
            self.ears.values_mut().for_each(|ear| ear.suspects(timeline));
        }
    }

    fn hears_evidence(&mut self, evidence: &Evidence, now: u64) {
        let active = self.active() == Some(evidence.backend());
        let trigger = u64::try_from(self.service.probe.hang_trigger.as_millis()).unwrap();
        let Some(ear) = self.ears.get_mut(evidence.backend()) else { return };
        let adverse = match evidence {
            Evidence::ConnectFailed { .. } => true,
            Evidence::Connections { live, .. } => {
                ear.live = *live;
                false
            }
            Evidence::ProbeConnectionLost { .. } => {
                ear.kept_lost = Some(now);
                true
            }
            Evidence::Answered { at, .. } => {
                ear.alive = ear.alive.max(Some(millis(*at)));
                false
            }
            Evidence::Unanswered { since, .. } => now - millis(*since) >= trigger,
            Evidence::ServerEnded { .. } | Evidence::Relayed { .. } => false,
        };
        if adverse && active && self.service.probe.passive {
            self.adverse(now);
        }
    }

    fn hears_outcome(&mut self, outcome: &Outcome, now: u64) {
        if let Outcome::Persisted { ticket, result } = outcome {
            return self.hears_write(*ticket, result, now);
        }
        if let Outcome::Unfrozen { result: Ok(()), .. } = outcome
            && let Some(backend) = self.unfreezing.take()
        {
            self.froze.remove(&backend);
        }
        if let Outcome::Thawed { backend, result: Ok(()) } = outcome {
            self.froze.remove(backend);
        }
        let Some(course) = self.course.as_mut().filter(|c| outcome.episode() == Some(c.intent.id)) else { return };
        match outcome {
            Outcome::Fenced { result, .. } => course.fenced = Some(result.is_ok()),
            Outcome::Locked { result, .. } => {
                course.locked = *result == LockResult::Held;
                if course.locked {
                    course.locked_at = now;
                }
            }
            Outcome::Frozen { result: Ok(lsn), .. } => course.frozen = Some((lsn.0, now)),
            // Behind an order of which nothing is known a refusal may be its echo.
            Outcome::Promotion { result: PromotionResult::Refused(_), .. } => {
                course.refused = course.orders <= 1 && course.resumed.is_none();
            }
            Outcome::Promotion { result: PromotionResult::Done, .. } => course.done = true,
            _ => {}
        }
    }

    fn hears_write(&mut self, ticket: u64, result: &Result<(), String>, now: u64) {
        let newest = ticket >= self.answered;
        if newest {
            self.answered = ticket;
            self.disk_error = result.is_err();
        }
        let Some(record) = self.tickets.remove(&ticket) else { return };
        if result.is_ok() && newest {
            self.ends_with(ticket, &record);
        }
        let Some(course) = self.course.as_mut() else { return };
        let Some(intent) = record.intent.filter(|intent| intent.id == course.intent.id) else { return };
        match result {
            Ok(()) => {
                course.written.get_or_insert(now);
            }
            Err(_) => course.sent_failed |= intent.stage == Stage::Sent,
        }
    }

    /// An episode may have ended with this record.
    fn ends_with(&mut self, ticket: u64, record: &Record) {
        if self.latch != record.latch {
            self.latch.clone_from(&record.latch);
            (self.t0_low, self.down_first) = (None, None);
            for ear in self.ears.values_mut() {
                ear.claim = None;
            }
        }
        let own = self.course.as_ref().is_some_and(|course| ticket > course.ticket);
        if record.intent.is_none() && own {
            self.course = None;
            self.t0_high = None;
        }
    }

    pub fn slept(&mut self, late: u64, scene: &Scene<'_>) {
        if late <= 500 {
            return;
        }
        self.late = scene.now;
        for ear in self.ears.values_mut() {
            ear.forget();
        }
        (self.t0_low, self.t0_high, self.down_first) = (None, None, None);
        let sent = scene.disk.intent.as_ref().is_some_and(|intent| intent.stage == Stage::Sent);
        if let Some(course) = &mut self.course
            && !sent
            && course.intent.kind != EpisodeKind::Follow
        {
            course.void = true;
        }
        if late > 2000 {
            self.woke = scene.now;
            self.passed_start = false;
        }
    }

    pub fn answered(&mut self, command: &Command, dry_run: bool, answer: &Answer) {
        let Ok(receipt) = answer else { return };
        if dry_run {
            return;
        }
        self.accepted = Some(command.clone());
        match command {
            Command::Pause => self.paused = true,
            Command::Resume => self.paused = false,
            Command::SetState { backend, address, state } => self.sets(backend, address.as_ref(), *state),
            Command::Rejoin { backend, .. } => {
                // Where nothing was doubted, it doubts nobody else.
                if let Some(vouched) = &mut self.vouched {
                    vouched.insert(backend.clone());
                }
            }
            // No probe could prove it.
            Command::Adopt { backend } if !self.sql() => {
                if let Some(course) = self.course.as_mut().filter(|course| course.intent.to == *backend) {
                    (course.proven, course.done) = (true, true);
                }
            }
            Command::Abandon { backend } => {
                // It may have been promoted all the same.
                let all = || self.ears.keys().cloned().collect();
                self.vouched.get_or_insert_with(all).remove(backend);
                if let Some(course) = &mut self.course {
                    course.abandoned = true;
                }
            }
            _ => {}
        }
        if let Some(id) = receipt.episode {
            self.commands.entry(id).or_insert_with(|| command.clone());
        }
    }

    /// A command that was only to be explained has been.
    pub fn explained(&mut self) {
        self.explaining = false;
    }
}
