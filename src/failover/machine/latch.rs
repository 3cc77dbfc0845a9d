//! How an episode ends: the latch on disk and traffic opened, or the cancellation on disk and the old side reopened.

use std::time::Duration;

use super::watch::kind_word;
use super::{Aside, Lock, Machine, State, Step};
use crate::failover::action::{Action, Change, EventKind};
use crate::failover::observation::Facts;
use crate::failover::phase::{BlockReason, EpisodeKind, Identity, Latch, Stage};
use crate::types::Now;

/// Who a server proves to be; `None` when it does not show enough.
pub(super) fn identity_of(facts: &Facts) -> Option<Identity> {
    let mut ancestors = facts.history.clone().unwrap_or_default();
    // The record has one slot of 4 KiB, and only the newest ancestors ever matter.
    ancestors.drain(..ancestors.len().saturating_sub(ANCESTORS));
    Some(Identity {
        system_id: facts.system_id?,
        timeline: facts.timeline?,
        switch_lsn: ancestors.last().map(|ancestor| ancestor.switch_lsn),
        ancestors,
        node: facts.node.clone(),
    })
}

/// Ancestors of the latched timeline that are kept, the newest.
const ANCESTORS: usize = 16;
/// How long a failed try keeps the next automatic one away.
const SETBACK: Duration = Duration::from_secs(5);
/// Between two automatic tries, whatever ended the first.
const BREATH: Duration = Duration::from_secs(1);
const SETTLING: Duration = Duration::from_secs(5);

impl Machine {
    /// Writes the latch; traffic opens when it is on disk.
    pub(super) fn latch_new(&mut self, now: Now) {
        let Some(run) = self.run() else { return };
        let intent = run.intent.clone();
        let shown =
            self.side(&intent.to).and_then(|side| side.facts.as_ref()).and_then(|heard| identity_of(&heard.facts));
        let identity = run.proven.clone().or(shown).filter(|_| self.knows_identity());
        let mut record = self.record.clone();
        record.latch = Some(Latch {
            active: intent.to.clone(),
            epoch: intent.epoch,
            since: now.wall,
            why: match intent.from {
                Some(_) => format!("{}: {}", kind_word(intent.kind), intent.why),
                None => intent.why.clone(),
            },
            identity,
            route_only: intent.kind == EpisodeKind::Route,
            replication: self.activation(),
            follower: self.follower_of(&intent.to),
            cluster: self.side(&intent.to).and_then(|side| side.config.cluster_id.clone()),
        });
        record.intent = None;
        self.void_vouchers(&mut record, &intent);
        self.note_left(&mut record, &intent);
        if intent.from.is_some() && intent.kind != EpisodeKind::Follow {
            record.cooldown_until = Some(now.wall.plus(self.service.failover.cooldown));
        }
        if self.sees_daemons() {
            record.other_daemon_seen = Some(now.wall);
        }
        // What is written is the state after the step; the machine takes it over only once it is on disk.
        let before = std::mem::replace(&mut self.record, record);
        let ticket = self.persist();
        let next = std::mem::replace(&mut self.record, before);
        let step = Step::Latching { ticket: Some(ticket), retry: now.at };
        self.step(step, format!("the latch of epoch {} is being written", intent.epoch), now);
        self.next_record = Some(Box::new(next));
    }

    /// The latch is on disk: open.
    pub(super) fn latched(&mut self, now: Now) {
        let Some(record) = self.next_record.take() else {
            return;
        };
        let State::Episode(run) = std::mem::replace(&mut self.state, State::Watching) else {
            return;
        };
        if let Some(since) = run.unchecked {
            self.state = State::Starting { since };
        }
        let left = self.latch().and_then(|latch| latch.identity.clone());
        self.record = *record;
        if run.intent.from.is_some() {
            self.counted(run.intent.operator.is_some(), run.intent.kind, true);
        }
        self.block = None;
        self.mismatch = None;
        self.suspicion = None;
        self.settling = Some(now.at + SETTLING);
        let to = run.intent.to.clone();
        for side in &mut self.sides {
            // What was streamed belongs to the line that was left.
            side.witness = Self::new_witness(&self.service);
            // And so does what was claimed beside it.
            side.claim = None;
            if side.name == to {
                side.quarantine = None;
                side.kept_lost = None;
                side.stopping = None;
            }
        }
        self.mark_unproven();
        self.remember_streams();
        self.find_inbound();
        if run.lock != Lock::Free {
            self.actions.push_back(Action::Unlock { episode: run.intent.id });
        }
        let took = now.at.since(run.began);
        let mut said = format!(
            "episode {}: {to} is active in epoch {}, {} ms after the decision",
            run.intent.id,
            run.intent.epoch,
            took.as_millis()
        );
        if let Some(order) = &run.intent.stream {
            said.push_str(&self.stream_loss(order, run.intent.from.as_ref()));
        }
        match (run.intent.frozen_at, &run.flush_after) {
            (Some(frozen), Some(Ok(after))) if frozen == *after => said.push_str("; no acknowledged row was lost"),
            (Some(_), Some(Ok(after))) => {
                said.push_str(&format!("; the old side moved on to {after} after it was frozen"))
            }
            (Some(_), _) => said.push_str("; that no row was lost could not be proven"),
            (None, _) => said.push_str(&self.loss_sentence(&run.intent)),
        }
        said.push_str(&self.tell_fence(&run.intent));
        said.push_str(&self.tell_beside(&run.intent, left, now));
        self.latched_at = Some(now.at);
        self.await_standbys(now);
        self.count_anew(&to);
        for note in &run.notes {
            said.push_str("; ");
            said.push_str(note);
        }
        let followed = run.intent.kind == EpisodeKind::Follow && run.intent.from.is_some();
        let kind = if followed { EventKind::Followed } else { EventKind::Switched };
        self.tell_as(now, kind, said, Some(took), run.intent.operator.clone());
        self.tell_last_of(&run.intent);
    }

    /// What was heard before the latch stood counts as seen streaming on it: the new side may die at once.
    fn remember_streams(&mut self) {
        let timeline = self.timeline();
        let active = self.active_name();
        let others = self.sides.iter().filter(|side| Some(&side.name) != active.as_ref());
        let heard: Vec<_> = others.filter_map(|side| Some((side.name.clone(), side.facts.clone()?))).collect();
        for (name, heard) in heard {
            let cascade = self.is_cascade(&name, &heard.facts);
            if let Some(side) = self.side_mut(&name) {
                side.witness.sample(heard.started, heard.finished, &heard.facts, timeline, cascade);
            }
        }
    }

    fn loss_sentence(&self, intent: &crate::failover::phase::Intent) -> String {
        if intent.kind != EpisodeKind::Failover || intent.stream.is_some() {
            return String::new();
        }
        let latched = self.latch().and_then(|latch| latch.identity.as_ref());
        let left = latched.and_then(Identity::parent);
        let from = intent.from.as_ref().and_then(|from| self.side(from));
        let flushed = from.zip(left).and_then(|(side, left)| side.flushed(&left)).map(|(lsn, _)| lsn);
        match (flushed, latched.and_then(|identity| identity.switch_lsn)) {
            (Some(flushed), Some(branched)) if branched >= flushed => {
                "; nothing that was last seen on the old side is missing".into()
            }
            (Some(flushed), Some(branched)) => {
                format!("; {} bytes of log last seen on the old side are lost", branched.behind(flushed))
            }
            _ => String::new(),
        }
    }

    /// Ends the episode without a change. The old side is reopened when that is on disk.
    pub(super) fn cancel(&mut self, why: String, now: Now) {
        if self.block.as_ref().is_some_and(|block| block.reason != BlockReason::Disk) {
            self.block = None;
        }
        let Some(run) = self.run_mut() else { return };
        if run.intent.stage == Stage::Sent {
            // Only a promoter's clean refusal or an operator who states that the target is off gets here after `sent`.
            run.intent.stage = Stage::Intent;
            run.unchecked.get_or_insert(now.at);
        }
        self.record.intent = None;
        let ticket = self.persist();
        self.record.intent = self.run().map(|run| run.intent.clone());
        let said = format!("called off: {why}");
        self.step(Step::Cancelling { ticket: Some(ticket), retry: now.at, why }, said, now);
    }

    /// Writes a change that belongs to no step, again if it fails. While the end of an episode is being written, that
    /// write is repeated with the change in it: one of its own would bring the episode back.
    pub(super) fn persist_aside(&mut self, now: Now) {
        match self.run().map(|run| run.step.clone()) {
            Some(Step::Latching { .. }) => self.latch_new(now),
            Some(Step::Cancelling { why, .. }) => self.cancel(why, now),
            _ => {
                let ticket = self.persist();
                self.aside = Some(Aside::Written { ticket });
            }
        }
    }

    pub(super) fn retry_aside(&mut self, now: Now) {
        if let Some(Aside::Failed { retry }) = self.aside
            && now.at >= retry
        {
            self.aside = None;
            self.persist_aside(now);
        }
    }

    /// Cancels, and keeps the next automatic try away for a while, with this reason shown.
    pub(super) fn set_back(&mut self, reason: BlockReason, why: String, now: Now) {
        self.setback = Some((now.at + SETBACK, reason, format!("the last try was called off: {why}")));
        self.cancel(why, now);
    }

    /// The cancellation is on disk.
    pub(super) fn cancelled(&mut self, why: &str, now: Now) {
        let State::Episode(run) = std::mem::replace(&mut self.state, State::Watching) else {
            return;
        };
        self.record.intent = None;
        self.block = None;
        self.counted(run.intent.operator.is_some(), run.intent.kind, false);
        if self.latch().is_none() {
            self.state = State::Starting { since: now.at };
        } else if let Some(since) = run.unchecked {
            self.state = State::Starting { since };
        }
        self.keep_suspicion();
        let rests = self.setback.as_ref().is_some_and(|(until, ..)| now.at < *until);
        if run.intent.operator.is_none() && !rests {
            // Whatever called it off: the same evidence does not begin the next one in the same instant.
            let said = format!("the last try was called off a moment ago: {why}");
            self.setback = Some((now.at + BREATH, BlockReason::Cooldown, said));
        }
        if run.lock != Lock::Free {
            self.actions.push_back(Action::Unlock { episode: run.intent.id });
        }
        let (id, kind) = (run.intent.id, kind_word(run.intent.kind));
        self.tell_as(
            now,
            EventKind::Cancelled,
            format!("episode {id} ({kind}) is called off: {why}"),
            None,
            run.intent.operator.clone(),
        );
        self.tell_last_of(&run.intent);
        self.probe_all();
    }

    /// A try was called off: the suspicion stands, with its T0 and what the witnesses said, unless the old side answers.
    fn keep_suspicion(&mut self) {
        let watching = matches!(self.state, State::Watching);
        let passed = self.active_side().and_then(crate::failover::side::Side::passed);
        let stands = self.suspicion.as_ref().is_some_and(|suspicion| passed.is_none_or(|passed| passed < suspicion.t0));
        if !(watching && stands) {
            self.suspicion = None;
            for side in &mut self.sides {
                side.witness.end();
            }
        }
    }

    fn counted(&mut self, by_operator: bool, kind: EpisodeKind, switched: bool) {
        *self.counts.entry((by_operator, kind, switched)).or_default() += 1;
    }

    /// The last sentence of an episode is said when it has already ended: it still belongs to it.
    fn tell_last_of(&mut self, intent: &crate::failover::phase::Intent) {
        if let Some(event) = self.events.back_mut() {
            event.episode = Some(intent.id);
            event.change = Some(Change::of(intent));
        }
    }
}
