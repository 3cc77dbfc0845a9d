//! What only a planned switchover does: drain, freeze the old primary, let the candidate replay to its last position,
//! and release a side that was frozen.

use std::time::Duration;

use super::{Machine, State, Step};
use crate::failover::action::{Action, EventKind, Latched};
use crate::failover::analysis;
use crate::failover::phase::{BlockReason, EpisodeId, EpisodeKind, Stage};
use crate::types::{BackendName, Lsn, Moment, Now};

const FREEZE_TIME: Duration = Duration::from_secs(15);
const REPLAY_TIME: Duration = Duration::from_secs(5);

impl Machine {
    /// The position of a server that is not the latched one says nothing of the line that the candidate follows.
    pub(super) fn unfounded(&self) -> Option<String> {
        self.run().filter(|run| run.intent.kind == EpisodeKind::Switchover)?;
        self.astray().map(|(_, why)| why)
    }

    /// Running work ended, or its time is up: from here on the old primary gets no byte.
    pub(super) fn drained(&mut self, until: Moment, now: Now) {
        let Some(run) = self.run() else { return };
        let Some(from) = run.intent.from.clone() else {
            return;
        };
        let live = self.side(&from).map_or(0, |side| side.live);
        if live > 0 && now.at < until {
            return;
        }
        let Some(run) = self.run_mut() else { return };
        run.closed = true;
        run.intent.stage = Stage::Freezing;
        self.record.intent = self.run().map(|run| run.intent.clone());
        let undo = !self.replicates() || self.stops_service();
        if undo && !self.record.frozen.contains(&from) {
            self.record.frozen.push(from.clone());
        }
        let ticket = self.persist();
        let said =
            if live == 0 { "drained".to_owned() } else { format!("drained but for {live} connections, which are cut") };
        self.step(Step::MarkFreezing { ticket }, said, now);
    }

    /// `freezing` is on disk.
    pub(super) fn freeze(&mut self, now: Now) {
        if self.replicates() {
            return self.read_clock(now);
        }
        let Some(run) = self.run() else { return };
        let (episode, from) = (run.intent.id, run.intent.from.clone());
        let Some(backend) = from else { return };
        self.step(Step::Freezing { until: now.at + FREEZE_TIME }, format!("{backend} is being made read-only"), now);
        let latched = self.latched_server(&backend);
        self.actions.push_back(Action::Freeze { episode, backend, latched });
    }

    /// Whom an order to the latched side must find: the line of the latch, at the node that was heard there last.
    pub(super) fn latched_server(&self, backend: &BackendName) -> Option<Latched> {
        let identity = self.latch()?.identity.as_ref()?;
        let side = self.side(backend).filter(|side| !side.indirect);
        let address = self.address_of(backend).and_then(|address| side?.addresses.get(&address));
        let heard = address.and_then(|address| address.facts.as_ref());
        let node = heard.filter(|heard| analysis::same_line(&heard.facts, identity)).and_then(|h| h.facts.node.clone());
        Some(Latched { system_id: identity.system_id, timeline: identity.timeline, node })
    }

    /// The old primary stands still, or could not be brought to it.
    pub(super) fn frozen(&mut self, result: Result<Lsn, String>, now: Now) {
        match result {
            Ok(lsn) => {
                if let Some(run) = self.run_mut() {
                    run.intent.frozen_at = Some(lsn);
                }
                let step = Step::Replaying { since: now.at, lsn, until: now.at + REPLAY_TIME };
                self.step(step, format!("the old primary takes no writes and stands still at {lsn}"), now);
            }
            Err(why) => self.cancel(format!("the old primary could not be frozen: {why}"), now),
        }
    }

    /// The candidate has received and replayed all of it, or did not in time.
    pub(super) fn replayed(&mut self, since: Moment, lsn: Lsn, until: Moment, now: Now) {
        let Some(run) = self.run() else { return };
        let to = run.intent.to.clone();
        let reached = self.side(&to).and_then(|side| side.facts.as_ref()).is_some_and(|heard| {
            let at_least = |position: Option<Lsn>| position.is_some_and(|position| position >= lsn);
            heard.started >= since && at_least(heard.facts.lsn) && at_least(heard.facts.replay_lsn)
        });
        if reached {
            if let Some(run) = self.run_mut() {
                run.rechecked =
                    Some(crate::failover::action::Rechecked { sentence: format!("{to} replayed up to {lsn}") });
            }
            self.lock(format!("{to} replayed up to {lsn}"), now);
        } else if now.at >= until {
            self.cancel(format!("{to} did not reach {lsn} within {} s", REPLAY_TIME.as_secs()), now);
        }
    }

    /// It is read-only by our doing, or may be.
    pub(super) fn active_is_frozen(&self) -> bool {
        self.latch().is_some_and(|latch| self.record.frozen.contains(&latch.active))
    }

    /// The active side must not stay read-only: releases it before it is opened (after a cancelled switchover, or when
    /// a side that was frozen once becomes active again).
    pub(super) fn release_frozen(&mut self, now: Now) {
        let Some(active) = self.active_name() else {
            return;
        };
        if !self.record.frozen.contains(&active) {
            self.releasing = None;
            return;
        }
        // An address that leads to another server would have that one released; and beside a successor, which may be
        // another daemon's, a side that takes writes again would be the second primary.
        if self.astray().is_some() || self.has_rival() || self.is_tended(&active, now) {
            return;
        }
        if self.releasing.is_none_or(|at| now.at.since(at) >= Duration::from_secs(5)) {
            self.releasing = Some(now.at);
            let episode = self.record.last_episode;
            let latched = self.latched_server(&active);
            self.actions.push_back(Action::Unfreeze { episode, backend: active, latched });
        }
    }

    /// The latched side stays read-only, since another one looks like its successor.
    pub(super) fn held_read_only(&self) -> Option<(BlockReason, String)> {
        let active = self.active_name().filter(|_| self.active_is_frozen() && self.has_rival())?;
        let said = format!(
            "{active} is read-only and is not released: another backend is primary on a timeline that descends from it; once it proves so, it is followed, or `proxyctl adopt` decides"
        );
        Some((BlockReason::SplitBrain, said))
    }

    /// A freeze came to its end after its switchover was called off, and perhaps after the release: the active side may
    /// be read-only again.
    pub(super) fn frozen_late(&mut self, episode: EpisodeId, now: Now) {
        let over = self.run().is_none() && self.record.last_episode == episode;
        let Some(active) = self.active_name().filter(|_| over) else { return };
        if !self.record.frozen.contains(&active) {
            self.record.frozen.push(active);
            self.persist_aside(now);
        }
        self.releasing = None;
    }

    /// The release ended. One that was ordered before the last episode may be of another side.
    pub(super) fn unfrozen(&mut self, episode: EpisodeId, result: Result<(), String>, now: Now) {
        let Some(active) = self.active_name() else {
            return;
        };
        let stale = episode != self.record.last_episode || self.astray().is_some();
        if stale || !matches!(self.state, State::Watching) || !self.record.frozen.contains(&active) {
            return;
        }
        match result {
            Ok(()) => {
                self.record.frozen.retain(|name| *name != active);
                self.persist_aside(now);
                self.releasing = None;
                self.tell(now, EventKind::Notice, format!("{active} takes writes again"));
            }
            Err(why) => {
                // Again in a second, not at once.
                self.releasing = Some(Moment(now.at.0.saturating_sub(Duration::from_secs(4))));
                self.evidence = format!("{active} is still read-only: {why}");
            }
        }
    }
}
