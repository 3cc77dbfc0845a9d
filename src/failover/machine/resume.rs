//! An intent that was open when the daemon ended: it is taken up again or cancelled, never decided again, and never on
//! less than it was decided on.

use std::time::Duration;

use super::watch::kind_word;
use super::{Machine, Run, State, Step};
use crate::failover::action::EventKind;
use crate::failover::analysis::Decision;
use crate::failover::candidate::{self, Verdict};
use crate::failover::health::State as Health;
use crate::failover::phase::{BlockReason, EpisodeKind, Intent, Stage};
use crate::failover::side::Side;
use crate::types::{Moment, Now};

impl Machine {
    pub(super) fn resume(&mut self, now: Now) {
        let Some(intent) = self.record.intent.clone() else {
            return;
        };
        // The decision proved that the candidate streamed until then; of the others it says nothing.
        for side in &mut self.sides {
            if side.name == intent.to {
                side.witness.resume(now.at);
            } else {
                side.witness.begin(now.at, None);
            }
        }
        let said =
            format!("episode {} ({}) is taken up again at stage {:?}", intent.id, kind_word(intent.kind), intent.stage);
        let automatic = intent.operator.is_none();
        let cancelled = |why: String| Step::Cancelling { ticket: None, retry: now.at, why };
        let step = match (intent.stage, intent.kind) {
            (Stage::Sent, _) => Step::Promoting { since: now.at },
            (Stage::Intent, EpisodeKind::Failover) if intent.stream.is_some() => {
                let patience = self.service.probe.timeout * 2 + Duration::from_secs(30);
                Step::Rereading { from: now.at, until: now.at + patience }
            }
            (Stage::Intent, EpisodeKind::Failover) if automatic && self.is_old(&intent, now) => {
                cancelled("it was decided too long before the restart".into())
            }
            (Stage::Intent, EpisodeKind::Failover) if automatic || intent.forced => {
                let probe = &self.service.probe;
                let down = (probe.fast_interval + probe.timeout) * probe.fall;
                let patience = down + self.service.failover.verify_wait + Duration::from_secs(10);
                Step::Rechecking { from: now.at, until: now.at + patience }
            }
            (Stage::Intent | Stage::Freezing, _) => {
                cancelled("it was interrupted by a restart before the promotion".into())
            }
        };
        if self.stops_service() && self.service.failover.fence_command.is_none() && intent.kind == EpisodeKind::Failover
        {
            // The fence may have taken effect before the end.
            if let Some(from) = intent.from.clone().filter(|from| !self.record.frozen.contains(from)) {
                self.record.frozen.push(from);
            }
        }
        let mut run = Run::new(intent, step, true, now.at);
        run.resumed = true;
        run.unchecked = Some(now.at);
        run.fence_needed = self.service.failover.fence_required;
        self.state = State::Episode(Box::new(run));
        self.tell(now, EventKind::Notice, said);
    }

    /// What the candidate streamed before the decision is no merit any more. A clock that was set back tells no age.
    fn is_old(&self, intent: &Intent, now: Now) -> bool {
        let age = now.wall.since(intent.decided_at).max(intent.decided_at.since(now.wall));
        age > self.service.failover.max_disconnect
    }

    /// A forced failover asks nothing but that the candidate can be reached.
    pub(super) fn force_again(&mut self, from: Moment, until: Moment, now: Now) {
        let Some(run) = self.run() else { return };
        let to = run.intent.to.clone();
        let heard = match self.side(&to) {
            Some(side) if !self.knows_identity() => side.heard_since(from, false) && side.state() == Health::Up,
            Some(_) => self.still_standby(&to, from),
            None => false,
        };
        if heard {
            self.rechecked("forced by an operator".into(), now);
        } else if now.at >= until {
            self.cancel(format!("{to} was not heard after the restart"), now);
        }
    }

    /// After a restart, with the old side failing: is it as dead as it was for the decision, the stream of the candidate
    /// lost and the candidate fit? `None`: not yet.
    pub(super) fn judge_again(&self, intent: &Intent, now: Now) -> Option<Result<(), String>> {
        let from = self.side(intent.from.as_ref()?)?;
        let to = self.side(&intent.to)?;
        let failing = from.addresses.values().filter_map(|address| address.health.failed()).map(|(at, ..)| at).max();
        let grace = self.service.failover.restart_grace;
        let stopped = from.stopping.is_some_and(|(first, _)| now.at.since(first) < grace);
        if from.state() != Health::Down || from.alive() > failing || stopped || !self.has_lost(to, now) {
            return None;
        }
        let decision = Decision {
            to: intent.to.clone(),
            why: intent.why.clone(),
            rechecked: false,
            fence_needed: self.service.failover.fence_required,
            over_idle: false,
        };
        match self.forbidden(&decision, now) {
            // It may be the shadow of the process that ended.
            Some((BlockReason::SecondDecider, _)) => return None,
            Some((_, said)) => return Some(Err(said)),
            None => {}
        }
        let identity = self.latch().and_then(|latch| latch.identity.as_ref());
        let flushed = identity.and_then(|identity| from.flushed(identity)).map(|(lsn, _)| lsn);
        match candidate::still_fit(&self.service, to, identity, flushed) {
            Verdict::Fit { .. } => Some(Ok(())),
            verdict => Some(Err(verdict.to_string())),
        }
    }

    /// Without a word of its own only where it could not say one.
    fn has_lost(&self, to: &Side, now: Now) -> bool {
        let mute = !to.witness.usable(self.timeline()) || to.witness.testimony().lost();
        mute && self.candidate_lost(&to.name, now)
    }
}
