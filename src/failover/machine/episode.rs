//! The steps of an episode in their order: intent, cut, recheck, fence, lock, `sent`, promote, prove, latch.
//! What only a switchover does stands in `switchover`, the end in `latch`.

use std::time::Duration;

use super::latch::identity_of;
use super::{Machine, Run, State, Step};
use crate::config::{ProbeKind, Promoter, WitnessRule};
use crate::failover::action::{Action, EventKind, PromotionResult, Rechecked};
use crate::failover::analysis::{self, Lineage};
use crate::failover::candidate;
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{BlockReason, EpisodeKind, Identity, Intent, Stage};
use crate::failover::side::Side;
use crate::failover::witness::Testimony;
use crate::types::{BackendName, Moment, Now};

/// A fence ends itself after 35 s, a try for the lock after 3 s.
const FENCE_PATIENCE: Duration = Duration::from_secs(45);
/// A promoter ends itself this long after `promote_timeout` at the latest.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// What was seen longer ago than this when the intent is on disk is no last look.
const LAST_LOOK: Duration = Duration::from_millis(100);

impl Machine {
    /// One turn of the episode.
    pub(super) fn advance_episode(&mut self, now: Now) {
        self.expire_write(now);
        let State::Episode(run) = &self.state else {
            return;
        };
        match run.step.clone() {
            Step::Rechecking { from, until } => self.recheck(from, until, now),
            Step::Draining { until } => self.drained(until, now),
            Step::Freezing { until } if now.at >= until => {
                self.cancel("the old primary could not be frozen in time".into(), now)
            }
            Step::Replaying { since, lsn, until } => self.replayed(since, lsn, until, now),
            Step::Fencing if self.step_lasts(FENCE_PATIENCE, now) => {
                self.unanswered(BlockReason::FenceFailed, "the node fence", now);
            }
            Step::Locking if self.run().is_some_and(|run| run.locked) && self.reviewed() => self.review(now),
            Step::Locking if self.step_lasts(LOCK_PATIENCE, now) => {
                self.unanswered(BlockReason::LockBusy, "the lock between daemons", now);
            }
            Step::Promoting { since } => self.prove(since, now),
            Step::ClearingSync { until } if now.at >= until => self.latch_new(now),
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

    /// Every backend that can be asked has answered since the lock was asked for, and as many as must grant it: whoever
    /// held it before may have promoted one.
    fn reviewed(&self) -> bool {
        let Some(run) = self.run() else { return false };
        let heard = |side: &Side| side.facts.as_ref().is_some_and(|heard| heard.started >= run.step_since);
        let answered = self.bystanders().filter(|side| heard(side)).count();
        1 + answered >= self.grants_needed() && self.bystanders().all(|side| side.state() != Health::Up || heard(side))
    }

    /// A majority, the candidate among it. The old side is down: of three, the two that are left are the majority.
    fn grants_needed(&self) -> usize {
        (self.sides.len() / 2 + 1).min(1 + self.bystanders().count())
    }

    /// Neither the old side nor the candidate.
    fn bystanders(&self) -> impl Iterator<Item = &Side> {
        let (from, to) = self.run().map_or((None, None), |run| (run.intent.from.as_ref(), Some(&run.intent.to)));
        self.sides.iter().filter(move |side| Some(&side.name) != from && Some(&side.name) != to)
    }

    /// The lock is held: nobody else may have been promoted by now.
    fn review(&mut self, now: Now) {
        let successor = self.bystanders().find(|side| self.descends(side)).map(|side| side.name.clone());
        match (successor, self.strayed()) {
            (Some(name), _) => {
                self.set_back(BlockReason::SplitBrain, format!("{name} was promoted by somebody else"), now);
            }
            (None, Some(why)) => self.set_back(BlockReason::NoCandidate, why, now),
            (None, None) => self.send("the lock between daemons is held".into(), now),
        }
    }

    /// The candidate follows another line by now: people rebuilt it meanwhile.
    pub(super) fn strayed(&self) -> Option<String> {
        candidate::strays(self.side(&self.run()?.intent.to)?, self.latch()?.identity.as_ref()?)
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
            EpisodeKind::Follow => self.adopt(now),
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
        (run.rechecked, run.fence_failed) = (None, true);
        self.step(again, format!("{said}; the old side is looked at again"), now);
    }

    /// The last look at the old side, after the cut.
    fn recheck(&mut self, from: Moment, until: Moment, now: Now) {
        let Some(run) = self.run() else { return };
        let (intent, over_idle) = (run.intent.clone(), run.over_idle);
        let decided = self.evidence_from(run.began);
        let Some(name) = intent.from.clone() else {
            return self.rechecked("there is no old side".into(), now);
        };
        if intent.forced {
            return self.rechecked("forced by an operator".into(), now);
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
        let lost = !promotes || self.candidate_lost(&intent.to, now);
        if let Some(said) = premade.filter(|_| lost) {
            return self.rechecked(said, now);
        }
        if failed && lost {
            return self.rechecked(format!("{name} failed another probe"), now);
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
    fn candidate_lost(&self, name: &BackendName, now: Now) -> bool {
        let optional = self.service.failover.witness == WitnessRule::Optional || !self.knows_identity();
        let lost = |side: &Side| side.witness.testimony().lost() && analysis::says_so_now(side, &self.service, now.at);
        self.side(name).is_some_and(|side| side.state() == Health::Up && (optional || lost(side)))
    }

    pub(super) fn rechecked(&mut self, said: String, now: Now) {
        let Some(run) = self.run_mut() else { return };
        run.rechecked = Some(Rechecked { sentence: said.clone() });
        if run.intent.kind == EpisodeKind::Route {
            return self.latch_new(now);
        }
        let (episode, from, needed) = (run.intent.id, run.intent.from.clone(), run.fence_needed);
        let tried = run.fence_failed;
        let fences = !tried && self.service.failover.fence_command.is_some();
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
        let Some(run) = self.run() else { return };
        let (episode, to, from) = (run.intent.id, run.intent.to.clone(), run.intent.from.clone());
        if !matches!(self.service.probe.kind, ProbeKind::Sql { .. }) {
            return self.send(said, now);
        }
        let mut backends = vec![to];
        if self.sides.len() > 2 {
            let others = self.sides.iter().map(|side| side.name.clone());
            backends
                .extend(others.filter(|name| Some(name) != from.as_ref() && *name != backends[0]).collect::<Vec<_>>());
        }
        let needed = self.grants_needed();
        self.step(Step::Locking, said, now);
        if let Some(run) = self.run_mut() {
            run.lock_asked = true;
        }
        self.actions.push_back(Action::Lock { episode, backends, needed });
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

    pub(super) fn sent(&mut self, now: Now) {
        let Some(run) = self.run_mut() else { return };
        run.ordered = None;
        self.step(Step::Promoting { since: now.at }, "sent is on disk: no way back".into(), now);
        self.prove(now.at, now);
    }

    fn order_promotion(&mut self, now: Now) {
        let Some(run) = self.run_mut() else { return };
        let rechecked = run.rechecked.clone().unwrap_or(Rechecked { sentence: "already sent before a restart".into() });
        run.ordered = Some(now.at);
        run.word = None;
        let (episode, epoch, backend) = (run.intent.id, run.intent.epoch, run.intent.to.clone());
        let (kind, from) = (run.intent.kind, run.intent.from.clone());
        self.actions.push_back(Action::Promote { episode, epoch, backend, rechecked });
        if let (EpisodeKind::Switchover, Some(backend)) = (kind, from) {
            self.actions.push_back(Action::ReadFlush { episode, backend });
        }
    }

    /// Looks for the proof; without it the promotion stays pending, for ever if need be.
    fn prove(&mut self, since: Moment, now: Now) {
        let Some(run) = self.run() else { return };
        let (to, id, word, ordered) = (run.intent.to.clone(), run.intent.id, run.word.clone(), run.ordered);
        if run.intent.kind == EpisodeKind::Follow {
            return self.prove_adopted(since, now);
        }
        if self.is_proven(&to, since) {
            let took = self.run().and_then(|run| run.ordered).map_or(0, |at| now.at.since(at).as_millis());
            return self.promoted(format!("{to} proves to be primary, {took} ms after the order"), now);
        }
        let strayed = self.strayed().is_some();
        match (ordered, word) {
            (None, _) if !strayed => return self.order_promotion(now),
            (_, Some((_, PromotionResult::Refused(why)))) => return self.refused(why, now),
            // Ordering again is safe (a primary says 55000), and needed where the first order never arrived.
            (Some(ordered), Some((at, PromotionResult::Unknown(_))))
                if !strayed
                    && now.at.since(at) >= Duration::from_secs(1)
                    && now.at.since(ordered) >= Duration::from_secs(2)
                    && self.still_standby(&to, at) =>
            {
                self.order_promotion(now);
            }
            (Some(ordered), None)
                if !strayed && now.at.since(ordered) >= self.service.failover.promote_timeout + ORDER_PATIENCE =>
            {
                self.order_promotion(now);
            }
            _ => {}
        }
        if now.at.since(since) >= self.service.failover.promote_timeout {
            let waited = now.at.since(since).as_secs();
            let said = format!(
                "the promotion of {to} (episode {id}) was ordered {waited} s ago and nothing proves it: look at {to}; if it is off for good, `proxyctl abandon {to}`"
            );
            self.set_block(Some((BlockReason::PromotionPending, said)), now);
        }
    }

    /// Was it heard to be a standby since? Probes that see no roles cannot tell.
    fn still_standby(&self, name: &BackendName, since: Moment) -> bool {
        let heard = self.side(name).and_then(|side| side.facts.as_ref());
        !self.knows_identity() || heard.is_some_and(|heard| heard.started > since && heard.facts.role == Role::Standby)
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
    fn prove_adopted(&mut self, since: Moment, now: Now) {
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
            return side.serves().then_some(None);
        }
        let proof = identity_of(facts).filter(|_| facts.role == Role::Primary)?;
        let latched = self.latch().and_then(|latch| latch.identity.as_ref());
        let descends = |identity| analysis::lineage(facts, identity, true) == Lineage::Descends;
        // An operator's word takes the place of the proof that one line continues the other.
        (intent.operator.is_some() || latched.is_none_or(descends)).then_some(Some(proof))
    }

    /// Does the new side prove to be primary on a line that descends from the latched one?
    fn is_proven(&mut self, to: &BackendName, since: Moment) -> bool {
        let identity = self.latch().and_then(|latch| latch.identity.clone());
        let Some(side) = self.side(to) else {
            return false;
        };
        let Some(heard) = side.facts.as_ref().filter(|heard| heard.started >= since) else {
            return false;
        };
        match identity {
            Some(identity) => {
                let facts = &heard.facts;
                let proven =
                    facts.role == Role::Primary && analysis::lineage(facts, &identity, true) == Lineage::Descends;
                if proven {
                    let proof = identity_of(facts);
                    if let Some(run) = self.run_mut() {
                        run.proven = proof;
                    }
                }
                proven
            }
            // Without identities the promoter's word and a check that passes afterwards are all there is.
            None => {
                let done = self.run().is_some_and(|run| {
                    run.word.as_ref().is_some_and(|(at, word)| *word == PromotionResult::Done && heard.started >= *at)
                });
                done && side.state() == Health::Up
            }
        }
    }

    /// Proven: before opening, commits must be able to end.
    fn promoted(&mut self, said: String, now: Now) {
        self.block = None;
        let Some(run) = self.run() else { return };
        let (episode, to) = (run.intent.id, run.intent.to.clone());
        let blocked = self.side(&to).and_then(|side| side.facts.as_ref()).and_then(|heard| heard.facts.sync.clone());
        match blocked.filter(|sync| sync.blocks_commits()) {
            Some(sync) if self.service.failover.sync_after_failover == crate::config::SyncRule::Clear => {
                let until = now.at + Duration::from_secs(5);
                self.step(
                    Step::ClearingSync { until },
                    format!("{said}; clearing synchronous_standby_names ({})", sync.names),
                    now,
                );
                self.actions.push_back(Action::ClearSync { episode, backend: to });
            }
            Some(sync) => {
                if let Some(run) = self.run_mut() {
                    run.notes.push(format!(
                        "commits on {to} wait for a synchronous standby that is not there (synchronous_standby_names = '{}')",
                        sync.names
                    ));
                }
                self.tell(now, EventKind::Step, said);
                self.latch_new(now);
            }
            None => {
                self.tell(now, EventKind::Step, said);
                self.latch_new(now);
            }
        }
    }

    /// A command's exit 3: it did not promote and will not.
    fn refused(&mut self, why: String, now: Now) {
        self.cancel(format!("the promoter refused: {why}"), now);
    }
}

impl Machine {
    /// May this service's standbys be promoted by us?
    pub(super) fn can_promote(&self) -> bool {
        !matches!(self.service.failover.promoter, Promoter::None)
    }
}
