//! `sent` is on disk: the promotion is ordered, proven, or pending. A first order follows the review under the lock; one
//! that is taken up after a restart, and every repeated one, reviews again.

use std::time::Duration;

use super::latch::identity_of;
use super::{Lock, Machine, Step};
use crate::config::SyncRule;
use crate::failover::action::{Action, EventKind, LockResult, PromotionResult, Rechecked};
use crate::failover::analysis::{self, Lineage};
use crate::failover::candidate;
use crate::failover::health::State as Health;
use crate::failover::observation::{Role, SyncState};
use crate::failover::phase::{BlockReason, EpisodeKind};
use crate::failover::side::{Claim, Side};
use crate::types::{BackendName, Moment, Now};

/// A promoter ends itself this long after `promote_timeout` at the latest.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);
/// A try for the lock ends itself after 3 s.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Until the lock is tried for again.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn sent(&mut self, now: Now) {
        let Some(run) = self.run_mut() else { return };
        run.ordered = None;
        self.step(Step::Promoting { since: now.at }, "sent is on disk: no way back".into(), now);
        self.prove(now.at, now);
    }

    /// Looks for the proof; without it the promotion stays pending, for ever if need be.
    pub(super) fn prove(&mut self, since: Moment, now: Now) {
        let Some(run) = self.run() else { return };
        if run.intent.stream.is_some() {
            return self.prove_stream(since, now);
        }
        let (to, id, word, ordered) = (run.intent.to.clone(), run.intent.id, run.word.clone(), run.ordered);
        if run.intent.kind == EpisodeKind::Follow {
            return self.prove_adopted(since, now);
        }
        if self.is_proven(&to, since) {
            let took = self.run().and_then(|run| run.ordered).map_or(0, |at| now.at.since(at).as_millis());
            return self.promoted(format!("{to} proves to be primary, {took} ms after the order"), now);
        }
        if let Some((_, PromotionResult::Refused(why))) = word {
            return self.refused(why, now);
        }
        if self.yields(since, now) {
            return;
        }
        let held_back = match self.order_due(now).then(|| self.may_order(since, now)) {
            Some(Ok(())) => {
                self.order_promotion(now);
                None
            }
            Some(Err(why)) => {
                self.evidence = format!("{to} is not promoted: {why}");
                Some(why)
            }
            None => None,
        };
        if now.at.since(since) >= self.service.failover.promote_timeout {
            let waited = now.at.since(since).as_secs();
            let what = match ordered {
                Some(_) => format!("was ordered {waited} s ago"),
                None => format!("was taken up {waited} s ago"),
            };
            let why = held_back.map(|why| format!(", it is not ordered now: {why}")).unwrap_or_default();
            let last = match &word {
                Some((_, PromotionResult::Unknown(said) | PromotionResult::NotSent(said))) => format!(" ({said})"),
                _ => String::new(),
            };
            let made = if self.knows_identity() {
                String::new()
            } else {
                format!("if it is primary, `proxyctl adopt {to}`; ")
            };
            let said = format!(
                "the promotion of {to} (episode {id}) {what} and nothing proves it{why}{last}: look at {to}; {made}if it is off for good, `proxyctl abandon {to}`"
            );
            self.set_block(Some((BlockReason::PromotionPending, said)), now);
        }
    }

    /// Ordering again is safe (a primary says 55000), and needed where the first order never arrived.
    fn order_due(&self, now: Now) -> bool {
        let Some(run) = self.run() else { return false };
        match (run.ordered, &run.word) {
            (None, _) => true,
            (Some(ordered), Some((at, PromotionResult::Unknown(_) | PromotionResult::NotSent(_)))) => {
                now.at.since(*at) >= Duration::from_secs(1) && now.at.since(ordered) >= Duration::from_secs(2)
            }
            (Some(ordered), None) => now.at.since(ordered) >= self.service.failover.promote_timeout + ORDER_PATIENCE,
            _ => false,
        }
    }

    /// May it be ordered now? The first order follows the review that `sent` rests on. Any other was preceded by a time in
    /// which others may have decided: under the lock, everybody must have been heard since.
    fn may_order(&mut self, since: Moment, now: Now) -> Result<(), String> {
        if let Some(why) = self.strayed() {
            return Err(why);
        }
        let Some(run) = self.run() else { return Ok(()) };
        let first = run.ordered.is_none() && !run.resumed;
        if first || !self.knows_identity() {
            return Ok(());
        }
        let spoken = run.word.as_ref().map(|(at, _)| *at);
        let from = since.max(self.woke).max(run.ordered.unwrap_or_default()).max(spoken.unwrap_or_default());
        let (to, lock) = (run.intent.to.clone(), run.lock);
        if !self.still_standby(&to, from) {
            return Err(format!("{to} has not said since that it is a standby"));
        }
        let missed = run.lock_missed.clone();
        match lock {
            Lock::Held { since } if self.reviewed(since.max(from), true, now) => Ok(()),
            Lock::Held { .. } => Err("not every other backend was heard since".into()),
            lock => {
                let waits = match lock {
                    Lock::Denied { at } => now.at.since(at) < LOCK_PAUSE,
                    Lock::Asked { since } => now.at.since(since) < LOCK_PATIENCE,
                    Lock::Free | Lock::Held { .. } => false,
                };
                if !waits {
                    self.ask_lock(now);
                }
                Err(missed.unwrap_or_else(|| "the lock between daemons is being taken".into()))
            }
        }
    }

    /// Asks for the lock; an older try is let go first.
    pub(super) fn ask_lock(&mut self, now: Now) {
        let Some(run) = self.run() else { return };
        let (episode, to, again) = (run.intent.id, run.intent.to.clone(), run.lock != Lock::Free);
        let mut backends = vec![to];
        if self.sides.len() > 2 {
            backends.extend(self.bystanders().map(|side| side.name.clone()));
        }
        let needed = self.grants_needed();
        if let Some(run) = self.run_mut() {
            run.lock = Lock::Asked { since: now.at };
        }
        if again {
            self.actions.push_back(Action::Unlock { episode });
        }
        self.actions.push_back(Action::Lock { episode, backends, needed });
    }

    /// What came of asking after `sent`, or the lock was lost: nothing is ordered without it.
    pub(super) fn locked_again(&mut self, result: LockResult, now: Now) {
        let Some(run) = self.run_mut() else { return };
        let said = match result {
            LockResult::Held if matches!(run.lock, Lock::Asked { .. }) => {
                run.lock = Lock::Held { since: now.at };
                run.lock_missed = None;
                self.probe_all();
                return;
            }
            LockResult::Held => return,
            LockResult::Busy => "another daemon holds the lock: it decides, this one watches".to_owned(),
            LockResult::Failed(why) => format!("the lock between daemons is not held: {why}"),
        };
        run.lock = Lock::Denied { at: now.at };
        if run.lock_missed.as_ref() != Some(&said) {
            run.lock_missed = Some(said.clone());
            self.tell(now, EventKind::Step, said);
        }
    }

    /// Somebody else was promoted: nothing more is ordered. The episode ends if the candidate follows another line, too;
    /// otherwise an order that is on its way may still come true, and people decide.
    fn yields(&mut self, since: Moment, now: Now) -> bool {
        let Some(run) = self.run() else { return false };
        let (episode, to, lock) = (run.intent.id, run.intent.to.clone(), run.lock);
        let Some(side) = self.successor() else { return false };
        let (name, proven) = (side.name.clone(), side.claim.as_ref().is_some_and(Claim::proven));
        if let (true, true, Some(why)) = (proven, self.still_standby(&to, since), self.strayed()) {
            self.cancel(format!("{name} was promoted by somebody else, and {why}"), now);
            return true;
        }
        if matches!(lock, Lock::Held { .. }) {
            // Who goes on from there may need it.
            if let Some(run) = self.run_mut() {
                run.lock = Lock::Denied { at: now.at };
            }
            self.actions.push_back(Action::Unlock { episode });
        }
        let said = format!(
            "{name} is primary on a timeline that descends from the latched one, and the promotion of {to} (episode {episode}) is pending: it is not ordered; look at both, end the episode with `proxyctl abandon {to}`, then `proxyctl adopt {name}`"
        );
        self.evidence.clone_from(&said);
        self.set_block(Some((BlockReason::SplitBrain, said)), now);
        true
    }

    /// Who else is primary on a line that continues the latched one.
    pub(super) fn successor(&self) -> Option<&Side> {
        let run = self.run()?;
        let identity = self.latch()?.identity.as_ref()?;
        let goes_on = |side: &&Side| {
            let streamed = side.witness.followed() || Some(&side.name) == run.intent.from.as_ref();
            side.name != run.intent.to
                && side.role() == Role::Primary
                && side
                    .facts
                    .as_ref()
                    .is_some_and(|heard| analysis::lineage(&heard.facts, identity, streamed) == Lineage::Descends)
        };
        self.sides.iter().find(goes_on)
    }

    /// What forbids the first order by now.
    pub(super) fn overtaken(&self, now: Now) -> Option<String> {
        let successor = self.successor().map(|side| format!("{} was promoted by somebody else", side.name));
        let late = self.look_is_old(now).then(|| "the last look at the old side is too old by now".to_owned());
        successor.or_else(|| self.strayed()).or_else(|| self.unfounded()).or(late)
    }

    pub(super) fn order_promotion(&mut self, now: Now) {
        let Some(run) = self.run_mut() else { return };
        let rechecked = run.rechecked.clone().unwrap_or(Rechecked { sentence: "already sent before a restart".into() });
        run.ordered = Some(now.at);
        run.orders += 1;
        run.word = None;
        run.unheeded.clear();
        let (episode, epoch, backend) = (run.intent.id, run.intent.epoch, run.intent.to.clone());
        let (kind, from, stream) = (run.intent.kind, run.intent.from.clone(), run.intent.stream.clone());
        let clusters = stream.is_some();
        self.actions.push_back(Action::Promote { episode, epoch, backend, rechecked, stream });
        if let (EpisodeKind::Switchover, Some(backend), false) = (kind, from, clusters) {
            let latched = self.latched_server(&backend);
            self.actions.push_back(Action::ReadFlush { episode, backend, latched });
        }
    }

    /// Was it heard to be a standby since? Probes that see no roles cannot tell.
    pub(super) fn still_standby(&self, name: &BackendName, since: Moment) -> bool {
        let heard = self.side(name).and_then(|side| side.facts.as_ref());
        !self.knows_identity() || heard.is_some_and(|heard| heard.started > since && heard.facts.role == Role::Standby)
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
    pub(super) fn promoted(&mut self, said: String, now: Now) {
        self.block = None;
        let Some(run) = self.run() else { return };
        let (episode, to) = (run.intent.id, run.intent.to.clone());
        let blocked = self.side(&to).and_then(|side| side.facts.as_ref()).and_then(|heard| heard.facts.sync.clone());
        let Some(sync) = blocked.filter(SyncState::blocks_commits) else {
            self.tell(now, EventKind::Step, said);
            return self.latch_new(now);
        };
        match self.sync_wanted(&to, &sync) {
            Ok(names) if names != sync.names => {
                let until = now.at + Duration::from_secs(5);
                let step = Step::SettingSync { until };
                let what = if names.is_empty() { "emptied".into() } else { format!("set to '{names}'") };
                self.step(step, format!("{said}; synchronous_standby_names ('{}') is being {what}", sync.names), now);
                let adapts = self.service.failover.sync_after_failover == SyncRule::Adapt;
                if let (true, Some(run)) = (names.is_empty() && adapts, self.run_mut()) {
                    run.notes.push(format!(
                        "no standby is left that commits on {to} could wait for: synchronous_standby_names was '{}' and is empty now",
                        sync.names
                    ));
                }
                self.actions.push_back(Action::SetSync { episode: Some(episode), backend: to, names });
            }
            kept => {
                let why = match kept {
                    Ok(_) => "until its standbys follow".to_owned(),
                    Err(why) => why,
                };
                if let Some(run) = self.run_mut() {
                    run.notes.push(format!(
                        "commits on {to} wait for a synchronous standby that is not there (synchronous_standby_names = '{}'): {why}",
                        sync.names
                    ));
                }
                self.tell(now, EventKind::Step, said);
                self.latch_new(now);
            }
        }
    }

    /// What `synchronous_standby_names` shall become, or why it stays.
    fn sync_wanted(&self, to: &BackendName, sync: &SyncState) -> Result<String, String> {
        match self.service.failover.sync_after_failover {
            SyncRule::Clear => Ok(String::new()),
            SyncRule::Adapt => self.narrowed(to, sync),
            SyncRule::Report => Err("sync_after_failover is \"report\"".into()),
        }
    }

    /// A command's exit 3: it did not promote and will not.
    fn refused(&mut self, why: String, now: Now) {
        self.cancel(format!("the promoter refused: {why}"), now);
    }

    /// As many of the bystanders as must grant the lock have answered since, and of the others everybody who can be asked:
    /// whoever held the lock before may have promoted one. With `all`, the old side and who does not answer count, too.
    fn reviewed(&self, since: Moment, all: bool, now: Now) -> bool {
        let Some(run) = self.run() else { return false };
        let answered = |side: &Side| {
            side.facts.as_ref().is_some_and(|heard| heard.started >= since && heard.facts.role != Role::Unknown)
        };
        let nameless = now.at.since(run.began) >= self.service.failover.verify_wait;
        let silent = |side: &Side| !all || side.heard_since(since, false) || side.addresses.is_empty() && nameless;
        let heard = |side: &Side| answered(side) || side.state() != Health::Up && silent(side);
        let from = self.sides.iter().filter(|side| all && Some(&side.name) == run.intent.from.as_ref());
        1 + self.bystanders().filter(|side| answered(side)).count() >= self.grants_needed()
            && self.bystanders().chain(from).all(heard)
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

    /// The lock for `sent` is held, and everybody who can be asked has answered since it was asked for.
    pub(super) fn reviewed_under_lock(&self, now: Now) -> bool {
        self.run()
            .is_some_and(|run| matches!(run.lock, Lock::Held { .. }) && self.reviewed(run.step_since, run.resumed, now))
    }

    /// The lock is held: nobody else may have been promoted by now.
    pub(super) fn review(&mut self, now: Now) {
        let successor = self.successor().map(|side| side.name.clone());
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
}
