//! The steps of an episode in their order: intent, cut, recheck, fence, lock, `sent`, promote, prove, latch.
//! What only a switchover does stands in `switchover`, what follows `sent` in `promotion`, the end in `latch`.

use std::time::Duration;

use super::latch::identity_of;
use super::promotion::LOCK_PATIENCE;
use super::{Machine, Run, State, Step};
use crate::config::{Promoter, WitnessRule};
use crate::failover::action::{Action, EventKind, Rechecked};
use crate::failover::analysis::{self, Lineage};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{BlockReason, EpisodeKind, Identity, Intent, Stage};
use crate::failover::side::Side;
use crate::failover::witness::Testimony;
use crate::types::{BackendName, Moment, Now};

/// A fence ends itself after 35 s.
const FENCE_PATIENCE: Duration = Duration::from_secs(45);
/// What was seen longer ago than this when the intent is on disk is no last look.
const LAST_LOOK: Duration = Duration::from_millis(100);

impl Machine {
    /// One turn of the episode.
    pub(super) fn advance_episode(&mut self, now: Now) {
        self.expire_write(now);
        if let Some(why) = self.unfounded().filter(|_| self.run().is_some_and(Run::may_be_cancelled)) {
            return self.cancel(why, now);
        }
        let State::Episode(run) = &self.state else {
            return;
        };
        match run.step.clone() {
            Step::Rereading { from, until } => self.reread_ended(from, until, now),
            Step::Rechecking { from, until } => self.recheck(from, until, now),
            Step::Draining { until } => self.drained(until, now),
            Step::Freezing { until } if now.at >= until => {
                self.cancel("the old primary could not be frozen in time".into(), now)
            }
            Step::Replaying { since, lsn, until } => self.replayed(since, lsn, until, now),
            Step::Fencing if self.step_lasts(FENCE_PATIENCE, now) => {
                self.unanswered(BlockReason::FenceFailed, "the node fence", now);
            }
            Step::Locking if self.reviewed_under_lock(now) => self.review(now),
            Step::Locking if self.step_lasts(LOCK_PATIENCE, now) => {
                self.unanswered(BlockReason::LockBusy, "the lock between daemons", now);
            }
            Step::Promoting { since } => self.prove(since, now),
            Step::SettingSync { until } if now.at >= until => self.latch_new(now),
            Step::Latching { ticket: None, retry } if now.at >= retry => self.latch_new(now),
            Step::Cancelling { ticket: None, retry, why } if now.at >= retry => self.cancel(why, now),
            _ => {}
        }
    }

    /// Enters the next step; how long the last one took goes to the history.
    pub(super) fn step(&mut self, step: Step, said: String, now: Now) {
        let State::Episode(run) = &mut self.state else {
            return;
        };
        let took = now.at.since(run.step_since);
        run.step = step;
        run.step_since = now.at;
        self.tell_as(now, EventKind::Step, said, Some(took), None);
    }

    fn step_lasts(&self, patience: Duration, now: Now) -> bool {
        self.run().is_some_and(|run| now.at.since(run.step_since) >= patience)
    }

    /// The order was lost: nothing is heard of it any more.
    fn unanswered(&mut self, reason: BlockReason, what: &str, now: Now) {
        self.set_back(reason, format!("{what} gave no answer in time"), now);
    }

    pub(super) fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            State::Episode(run) => Some(run),
            _ => None,
        }
    }

    pub(super) fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Episode(run) => Some(run),
            _ => None,
        }
    }

    /// The intent is on disk.
    pub(super) fn decided(&mut self, now: Now) {
        let again = self.last_look(now);
        let Some(run) = self.run_mut() else { return };
        run.rechecked = run.rechecked.take().filter(|_| now.at.since(run.began) <= LAST_LOOK);
        match run.intent.kind {
            EpisodeKind::Follow if run.intent.stream.is_some() => self.sent(now),
            EpisodeKind::Follow => self.adopt(now),
            EpisodeKind::Failover if run.intent.stream.is_some() => {
                self.reread("intent written; the old side is cut off".into(), now);
            }
            EpisodeKind::Switchover => {
                let until = now.at + self.service.failover.drain_timeout;
                self.step(Step::Draining { until }, "intent written; newcomers wait, running work may end".into(), now);
            }
            EpisodeKind::Failover | EpisodeKind::Route => {
                self.step(again, "intent written; the old side is cut off".into(), now);
            }
        }
    }

    /// What was seen before a slow write or a long fence is no last look.
    fn last_look(&self, now: Now) -> Step {
        let patience = self.service.probe.timeout * 2 + Duration::from_secs(10);
        let from = Moment(now.at.0.saturating_sub(self.service.probe.fast_interval));
        Step::Rechecking { from, until: now.at + patience }
    }

    /// The fence failed and need not succeed; but it took its time.
    pub(super) fn unfenced(&mut self, why: &str, now: Now) {
        let said = format!("the node fence failed, which is allowed here: {why}");
        let again = self.last_look(now);
        let fast = self.service.probe.fast_interval;
        let Some(run) = self.run_mut() else { return };
        if now.at.since(run.step_since) <= fast {
            return self.lock(said, now);
        }
        (run.rechecked, run.fence_over) = (None, true);
        if run.intent.stream.is_some() {
            return self.reread(said, now);
        }
        self.step(again, format!("{said}; the old side is looked at again"), now);
    }

    /// The last look at the old side, after the cut.
    fn recheck(&mut self, from: Moment, until: Moment, now: Now) {
        let Some(run) = self.run() else { return };
        let (intent, resumed, over_idle) = (run.intent.clone(), run.resumed, run.over_idle);
        let decided = self.evidence_from(run.began);
        let Some(name) = intent.from.clone() else {
            return self.rechecked("there is no old side".into(), now);
        };
        if intent.forced {
            return if resumed {
                self.force_again(from, until, now)
            } else {
                self.rechecked("forced by an operator".into(), now)
            };
        }
        let premade = run.rechecked.as_ref().map(|rechecked| rechecked.sentence.clone());
        let Some(side) = self.side(&name) else { return };
        // An answer from before the first evidence says nothing against it.
        let evidence = self.suspicion.as_ref().map_or(Moment::default(), |suspicion| suspicion.t0);
        if side.passed_after(decided.min(from), evidence) {
            return self.cancel(format!("{name} answers again"), now);
        }
        let failed = side.failed_since(from);
        let hears = |testimony| testimony == Testimony::Writing || testimony == Testimony::Idle && !over_idle;
        if intent.kind == EpisodeKind::Failover
            && let Some(other) = self.sides.iter().find(|s| s.name != name && hears(s.witness.testimony()))
        {
            let said = format!("{} receives from {name} again", other.name);
            return self.cancel(said, now);
        }
        if let Some(why) = self.strayed().filter(|_| intent.kind == EpisodeKind::Failover) {
            return self.set_back(BlockReason::NoCandidate, why, now);
        }
        // A stream that came back is no death, whatever was sent in it so far.
        let promotes = intent.kind == EpisodeKind::Failover && intent.operator.is_none() && !over_idle;
        let lost = match resumed && intent.stream.is_some() {
            true => self.is_unmoved(),
            false => !promotes || self.candidate_lost(&intent.to, now),
        };
        if let Some(said) = premade.filter(|_| lost) {
            return self.rechecked(said, now);
        }
        if failed && lost && (!resumed || intent.stream.is_some()) {
            return self.rechecked(format!("{name} failed another probe"), now);
        }
        if failed && let Some(judged) = self.judge_again(&intent, now) {
            return match judged {
                Ok(()) => {
                    self.rechecked(format!("{name} is down and {} is fit, also after the restart", intent.to), now)
                }
                Err(why) => self.cancel(why, now),
            };
        }
        if now.at >= until {
            self.cancel(format!("the recheck of {name} came to no verdict"), now);
        }
    }

    /// From when on a probe counts as a look at the old side: shortly before the decision, but after the first evidence.
    pub(super) fn evidence_from(&self, decided: Moment) -> Moment {
        let before = Moment(decided.0.saturating_sub(self.service.probe.fast_interval));
        before.max(self.suspicion.as_ref().map_or(before, |suspicion| suspicion.t0))
    }

    /// The candidate's own stream must be lost now, too.
    pub(super) fn candidate_lost(&self, name: &BackendName, now: Now) -> bool {
        let blind = !self.knows_identity() && !self.replicates();
        let optional = self.service.failover.witness == WitnessRule::Optional || blind;
        let lost = |side: &Side| side.witness.testimony().lost() && analysis::says_so_now(side, &self.service, now.at);
        self.side(name).is_some_and(|side| side.state() == Health::Up && (optional || lost(side)))
    }

    pub(super) fn rechecked(&mut self, said: String, now: Now) {
        let Some(run) = self.run_mut() else { return };
        run.rechecked = Some(Rechecked { sentence: said.clone() });
        if run.intent.kind == EpisodeKind::Route {
            return self.route(now);
        }
        let (episode, from, needed) = (run.intent.id, run.intent.from.clone(), run.fence_needed);
        let tried = run.fence_over;
        let fences = !tried && self.can_fence();
        match (fences, from) {
            (true, Some(backend)) => {
                self.step(Step::Fencing, format!("rechecked: {said}"), now);
                self.actions.push_back(Action::Fence { episode, backend });
            }
            (false, _) if needed => {
                self.cancel("a node fence is needed and no fence_command is configured".into(), now);
            }
            _ => self.lock(format!("rechecked: {said}"), now),
        }
    }

    /// Takes the lock between daemons, where there are servers that can hold one.
    pub(super) fn lock(&mut self, said: String, now: Now) {
        if self.look_is_old(now) {
            return self.reread(said, now);
        }
        if !self.knows_identity() {
            return self.send(said, now);
        }
        self.step(Step::Locking, said, now);
        self.ask_lock(now);
    }

    /// Writes `sent`. What is promoted from here on is proven or pending, never taken back.
    pub(super) fn send(&mut self, said: String, now: Now) {
        let Some(run) = self.run_mut() else { return };
        run.intent.stage = Stage::Sent;
        let intent = run.intent.clone();
        if intent.kind == EpisodeKind::Failover {
            self.record.spent.retain(|at| now.wall.since(*at) < Duration::from_secs(24 * 3600));
            self.record.spent.push(intent.decided_at);
        }
        self.record.intent = Some(intent);
        let ticket = self.persist();
        self.step(Step::Sending { ticket }, said, now);
    }

    /// The intent to adopt a side is on disk: it must still prove what it was adopted for.
    fn adopt(&mut self, now: Now) {
        let Some(run) = self.run() else { return };
        let to = run.intent.to.clone();
        match self.adoptable(&run.intent, Moment::default()) {
            Some(proof) => {
                if let Some(run) = self.run_mut() {
                    run.proven = proof;
                }
                self.latch_new(now);
            }
            None => self.cancel(format!("{to} does not prove to be primary any more"), now),
        }
    }

    /// A promotion of somebody else, taken up again after a restart: its proof must be fresh.
    pub(super) fn prove_adopted(&mut self, since: Moment, now: Now) {
        let Some(run) = self.run() else { return };
        let waited = now.at.since(since) >= self.service.failover.verify_wait + Duration::from_secs(10);
        if waited || self.adoptable(&run.intent, since).is_some() {
            self.adopt(now);
        }
    }

    /// What the adopted side proves to be, by an answer to a probe that began at `since` or later.
    fn adoptable(&self, intent: &Intent, since: Moment) -> Option<Option<Identity>> {
        let side = self.side(&intent.to)?;
        let facts = side.facts.as_ref().filter(|heard| heard.started >= since).map(|heard| &heard.facts)?;
        if !self.knows_identity() {
            let primary = !self.replicates() || side.role() == Role::Primary;
            return (side.serves() && primary).then_some(None);
        }
        let proof = identity_of(facts).filter(|_| facts.role == Role::Primary)?;
        let latched = self.latch().and_then(|latch| latch.identity.as_ref());
        let descends = |identity| analysis::lineage(facts, identity, true) == Lineage::Descends;
        // An operator's word takes the place of the proof that one line continues the other.
        (intent.operator.is_some() || latched.is_none_or(descends)).then_some(Some(proof))
    }
}

impl Machine {
    /// May this service's standbys be promoted by us?
    pub(super) fn can_promote(&self) -> bool {
        !matches!(self.service.failover.promoter, Promoter::None)
    }
}
