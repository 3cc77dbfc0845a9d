//! What came of an episode's actions, matched to the step that waits for it; anything older is dropped.

use std::time::Duration;

use super::watch::kind_word;
use super::{Aside, Lock, Machine, Step};
use crate::failover::action::{Action, EventKind, LockResult, Outcome, PromotionResult};
use crate::failover::phase::{BlockReason, EpisodeId, EpisodeKind, Stage};
use crate::types::Now;

const WRITE_PATIENCE: Duration = Duration::from_secs(5);

impl Machine {
    /// An outcome that belongs to the episode; one of an older episode is dropped.
    pub(super) fn episode_outcome(&mut self, outcome: Outcome, now: Now) {
        if let (None, Outcome::Frozen { episode, .. }) = (self.run(), &outcome) {
            return self.frozen_late(*episode, now);
        }
        let Some(run) = self.run() else { return };
        if outcome.episode() != Some(run.intent.id) {
            return;
        }
        let (needed, step) = (run.fence_needed, run.step.clone());
        let routes = run.intent.kind == EpisodeKind::Route;
        if matches!((&outcome, &step), (Outcome::Fenced { result: Ok(()), .. }, Step::Fencing)) {
            self.note_stopped();
            if let Some(run) = self.run_mut() {
                run.intent.fenced = true;
            }
        }
        match (outcome, step) {
            (Outcome::Fenced { result: Ok(()), .. }, Step::Fencing) if routes => self.route_fenced(now),
            (Outcome::Fenced { result: Ok(()), .. }, Step::Fencing) => {
                if let Some(run) = self.run_mut() {
                    run.fence_over = true;
                }
                self.lock("the node fence succeeded".into(), now)
            }
            (Outcome::Fenced { result: Err(why), .. }, Step::Fencing) if needed => {
                self.set_back(BlockReason::FenceFailed, format!("the node fence failed: {why}"), now);
            }
            (Outcome::Fenced { result: Err(why), .. }, Step::Fencing) => {
                self.unfenced(&why, now);
            }
            (Outcome::Locked { result: LockResult::Held, .. }, Step::Locking) => {
                if let Some(run) = self.run_mut() {
                    run.lock = Lock::Held { since: now.at };
                }
            }
            (Outcome::Locked { result, .. }, Step::Promoting { .. }) => self.locked_again(result, now),
            (Outcome::Locked { result: LockResult::Busy, .. }, Step::Locking) => {
                self.set_back(BlockReason::LockBusy, "another daemon holds the lock: it decides".into(), now);
            }
            (Outcome::Locked { result: LockResult::Failed(why), .. }, Step::Locking) => {
                self.set_back(BlockReason::LockBusy, format!("the lock could not be taken: {why}"), now);
            }
            (Outcome::Locked { result: LockResult::Failed(why), .. }, Step::Sending { .. }) => {
                if let Some(run) = self.run_mut() {
                    run.void = Some(format!("the lock between daemons was lost: {why}"));
                }
            }
            (Outcome::Promotion { result, .. }, Step::Promoting { .. }) => {
                let result = self.as_far_as_it_goes(result);
                let said = match &result {
                    PromotionResult::Done if self.order().is_some() => "the failover was taken".to_owned(),
                    PromotionResult::Done => "the promoter says it is done".to_owned(),
                    PromotionResult::Unknown(why) => format!("the promotion is pending: {why}"),
                    PromotionResult::NotSent(why) => format!("the order did not leave and is given again: {why}"),
                    PromotionResult::Refused(why) => format!("the promoter refuses: {why}"),
                };
                if let Some(run) = self.run_mut() {
                    // What was never sent uses up none of the orders.
                    run.orders -= u32::from(matches!(result, PromotionResult::NotSent(_)) && run.orders > 0);
                    run.word = Some((now.at, result));
                }
                self.tell(now, EventKind::Step, said);
                if let Some(order) = self.order() {
                    self.actions.push_back(Action::ReadStreams { stream: Some(order.id) });
                }
            }
            (Outcome::Frozen { result, .. }, Step::Freezing { .. }) => self.frozen(result, now),
            (Outcome::ClockRead { result, .. }, Step::Freezing { .. }) => self.clock_read(result, now),
            (Outcome::FlushRead { result, .. }, _) => {
                if let Some(run) = self.run_mut() {
                    run.flush_after = Some(result);
                }
            }
            (Outcome::SyncSet { result, .. }, Step::SettingSync { .. }) => {
                if let (Err(why), Some(run)) = (result, self.run_mut()) {
                    run.notes.push(format!("synchronous_standby_names could not be set: {why}"));
                }
                self.latch_new(now);
            }
            _ => {}
        }
    }

    /// A refusal is the end only where nothing was ordered before: an earlier order may have been carried out, and be why.
    fn as_far_as_it_goes(&self, result: PromotionResult) -> PromotionResult {
        let first = self.run().is_some_and(|run| run.orders <= 1 && !run.resumed);
        match result {
            PromotionResult::Refused(why) if self.order().is_none() && !first => {
                PromotionResult::Unknown(format!("{why}; but it was ordered before, and may be promoted"))
            }
            result => result,
        }
    }

    /// A write of the record ended.
    pub(super) fn persisted(&mut self, ticket: u64, result: Result<(), String>, now: Now) {
        let step = self.run().map(|run| run.step.clone());
        if ticket >= self.answered {
            self.answered = ticket;
            self.handle_disk_result(&result, now);
        }
        let retry = now.at + Duration::from_secs(1);
        if self.aside == Some(Aside::Written { ticket }) {
            self.aside = result.is_err().then_some(Aside::Failed { retry });
        }
        match (step, result) {
            (Some(Step::Deciding { ticket: t }), Ok(())) if t == ticket => self.decided(now),
            (Some(Step::Deciding { ticket: t } | Step::MarkFreezing { ticket: t }), Err(why)) if t == ticket => {
                self.cancel_unwritten(&why, now);
            }
            (Some(Step::MarkFreezing { ticket: t }), Ok(())) if t == ticket => self.freeze(now),
            (Some(Step::Sending { ticket: t }), Ok(())) if t == ticket => {
                match self.run_mut().and_then(|run| run.void.take()).or_else(|| self.overtaken(now)) {
                    Some(why) => self.unsend(&why, now),
                    None => self.sent(now),
                }
            }
            (Some(Step::Sending { ticket: t }), Err(why)) if t == ticket => {
                self.unsend(&format!("the state cannot be written: {why}"), now);
                self.block_on_disk(&why, now);
            }
            (Some(Step::Latching { ticket: Some(t), .. }), Ok(())) if t == ticket => self.latched(now),
            (Some(Step::Latching { ticket: Some(t), .. }), Err(_)) if t == ticket => {
                if let Some(run) = self.run_mut() {
                    run.step = Step::Latching { ticket: None, retry };
                }
            }
            (Some(Step::Cancelling { ticket: Some(t), why, .. }), Ok(())) if t == ticket => self.cancelled(&why, now),
            (Some(Step::Cancelling { ticket: Some(t), why, .. }), Err(error)) if t == ticket => {
                if let Some(run) = self.run_mut() {
                    run.step = Step::Cancelling { ticket: None, retry, why };
                }
                self.block_on_disk(&error, now);
            }
            _ => {}
        }
    }

    pub(super) fn handle_disk_result(&mut self, result: &Result<(), String>, now: Now) {
        let error = result.as_ref().err().cloned();
        if error != self.disk_error {
            if let Some(why) = &error {
                self.tell(now, EventKind::Blocked, format!("cannot fail over: the state cannot be written: {why}"));
            }
            self.disk_error = error;
        }
    }

    /// The intent may or may not be on disk, where it outranks the latch: the old side waits for a written cancellation.
    fn cancel_unwritten(&mut self, why: &str, now: Now) {
        self.cancel(format!("the state cannot be written: {why}"), now);
        self.block_on_disk(why, now);
    }

    /// The end of an episode waits for the disk, and says so.
    fn block_on_disk(&mut self, why: &str, now: Now) {
        let Some(run) = self.run() else { return };
        let said = format!(
            "episode {} ({}) is called off, which must be written before traffic flows again, and the state cannot be written: {why}",
            run.intent.id,
            kind_word(run.intent.kind)
        );
        self.set_block(Some((BlockReason::Disk, said)), now);
    }

    /// `sent` may or may not be on disk: only a written cancellation may reopen the old side.
    pub(super) fn unsend(&mut self, why: &str, now: Now) {
        let Some(run) = self.run_mut() else { return };
        run.intent.stage = Stage::Intent;
        if run.intent.kind == EpisodeKind::Failover {
            self.record.spent.pop();
        }
        self.cancel(why.to_owned(), now);
    }

    /// A write that takes longer than this counts as failed: a hung disk never answers. The writes behind it keep
    /// their order, so a late success of this one is overwritten.
    pub(super) fn expire_write(&mut self, now: Now) {
        let Some(run) = self.run() else { return };
        let waited = now.at.since(run.step_since);
        let ticket = match &run.step {
            Step::Deciding { ticket } | Step::MarkFreezing { ticket } | Step::Sending { ticket } => *ticket,
            _ => return,
        };
        if waited >= WRITE_PATIENCE {
            self.persisted(ticket, Err(format!("no answer from the disk for {} s", WRITE_PATIENCE.as_secs())), now);
        }
    }
}

impl Outcome {
    /// Whose it is; `None` for a write or a cut.
    pub fn episode(&self) -> Option<EpisodeId> {
        match self {
            Self::Persisted { .. }
            | Self::Cut { .. }
            | Self::Softened { .. }
            | Self::Thawed { .. }
            | Self::Surveyed { .. }
            | Self::Rejoining { .. }
            | Self::Repointed { .. } => None,
            Self::SyncSet { episode, .. } => *episode,
            Self::Fenced { episode, .. }
            | Self::Locked { episode, .. }
            | Self::Promotion { episode, .. }
            | Self::Frozen { episode, .. }
            | Self::Unfrozen { episode, .. }
            | Self::FlushRead { episode, .. }
            | Self::ClockRead { episode, .. }
            | Self::PatroniSaid { episode, .. } => Some(*episode),
        }
    }
}
