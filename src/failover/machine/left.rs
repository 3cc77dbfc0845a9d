//! Sides that were left: what keeps writes from each, making one read-only that still serves or comes back as a primary,
//! and taking that back when it streams as a standby. All of it after the decision and the opening, never before.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Machine, State};
use crate::failover::action::{Action, EventKind, Latched, Softened};
use crate::failover::analysis::{self, Lineage};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{Grade, Intent, Left, Record};
use crate::failover::side::Side;
use crate::types::{BackendName, Moment, Now};

/// Until a try that failed is made again.
const RETRY: Duration = Duration::from_secs(15);
/// The same where it was done and something may write all the same.
const GAPS: Duration = Duration::from_secs(60);
/// An order ends itself after 20 s.
const PATIENCE: Duration = Duration::from_secs(45);
/// Sides that are remembered; the record has one slot of 4 KiB.
const REMEMBERED: usize = 4;

/// What is known of the orders to sides that were left, since the start.
#[derive(Debug, Default)]
pub(super) struct Tending {
    /// Orders under way, since when.
    ordered: BTreeMap<BackendName, Moment>,
    /// Not again before.
    rests: BTreeMap<BackendName, Moment>,
    /// Found read-only since it makes its claim: its beginning.
    softened: BTreeMap<BackendName, Moment>,
    /// What was said last.
    said: BTreeMap<BackendName, String>,
}

impl Machine {
    /// An episode leaves a side: who that was, and what its fence reached.
    pub(super) fn note_left(&self, record: &mut Record, intent: &Intent) {
        record.left.retain(|left| left.backend != intent.to);
        let identity = self.latch().and_then(|latch| latch.identity.as_ref());
        let (Some(from), Some(identity), true) = (&intent.from, identity, self.knows_identity()) else { return };
        if *from == intent.to || self.service.failover.standby_serves {
            return;
        }
        let known = Latched { system_id: identity.system_id, timeline: identity.timeline, node: identity.node.clone() };
        let server = self.latched_server(from).filter(|server| server.node.is_some()).unwrap_or(known);
        let grade = match intent.frozen_at {
            _ if intent.fenced => Grade::NodeHard,
            Some(_) => Grade::NodeSoft,
            None => Grade::Route,
        };
        record.left.retain(|left| left.backend != *from);
        record.left.push(Left { backend: from.clone(), server, grade });
        let surplus = record.left.len().saturating_sub(REMEMBERED);
        record.left.drain(..surplus);
    }

    /// What keeps writes from it; `None` = it was not left.
    pub(in crate::failover) fn grade_of(&self, backend: &BackendName) -> Option<Grade> {
        self.record.left.iter().find(|left| left.backend == *backend).map(|left| left.grade)
    }

    /// The grade that the side reached which an episode left, for its last sentence.
    pub(super) fn tell_fence(&self, intent: &Intent) -> String {
        let left = intent.from.as_ref().and_then(|from| Some((from, self.grade_of(from)?)));
        left.map_or_else(String::new, |(from, grade)| format!("; {from} is fenced: {}", grade.as_str()))
    }

    /// One turn, while nothing is decided.
    pub(super) fn tend_left(&mut self, now: Now) {
        if !matches!(self.state, State::Watching) || self.latch().is_none_or(|latch| latch.identity.is_none()) {
            return;
        }
        self.tending.ordered.retain(|_, since| now.at.since(*since) < PATIENCE);
        self.settle_left(now);
        self.thaw_returned(now);
        self.soften_left(now);
    }

    /// Who streams from the active side was not left any more.
    fn settle_left(&mut self, now: Now) {
        let back: Vec<BackendName> =
            self.record.left.iter().map(|left| &left.backend).filter(|name| self.is_back(name)).cloned().collect();
        if back.is_empty() {
            return;
        }
        self.record.left.retain(|left| !back.contains(&left.backend));
        for name in back {
            self.tending.softened.remove(&name);
        }
        self.persist_aside(now);
    }

    /// It proves to be a standby that streams on the latched line, by an answer of this epoch.
    pub(super) fn is_back(&self, name: &BackendName) -> bool {
        let Some(identity) = self.latch().and_then(|latch| latch.identity.as_ref()) else { return false };
        self.side(name).filter(|side| side.quarantine.is_none() && side.state() == Health::Up).is_some_and(|side| {
            side.facts.as_ref().is_some_and(|heard| {
                Some(heard.started) >= self.latched_at
                    && heard.facts.role == Role::Standby
                    && heard.facts.system_id == Some(identity.system_id)
            }) && analysis::streams_on(side, identity.timeline)
        })
    }

    /// The active side proves to be the latched primary, by a recent answer and without a doubt: only then is anything
    /// done to another one.
    pub(super) fn active_proves(&self, now: Now) -> bool {
        let Some(identity) = self.latch().and_then(|latch| latch.identity.as_ref()) else { return false };
        let calm = self.mismatch.is_none() && self.suspicion.is_none() && !self.has_rival();
        let proves = |side: &Side| {
            side.state() == Health::Up
                && !side.indirect
                && side.facts.as_ref().is_some_and(|heard| {
                    now.at.since(heard.finished) <= self.patience()
                        && heard.facts.role == Role::Primary
                        && analysis::lineage(&heard.facts, identity, true) == Lineage::Same
                })
        };
        calm && self.active_side().is_some_and(proves)
    }

    fn soften_left(&mut self, now: Now) {
        if !self.service.failover.soft_fence || self.record.left.is_empty() || !self.active_proves(now) {
            return;
        }
        for left in self.record.left.clone() {
            let Some(claim) = self.still_serves(&left) else { continue };
            let name = &left.backend;
            if left.grade == Grade::NodeHard {
                let said = format!(
                    "{name} serves as primary on timeline {} although its node fence had succeeded: somebody started it again",
                    left.server.timeline
                );
                self.regrade(name, Grade::Route, said, now);
            }
            let rests = self.tending.rests.get(name).is_some_and(|until| now.at < *until);
            if self.tending.softened.get(name) == Some(&claim) || self.tending.ordered.contains_key(name) || rests {
                continue;
            }
            // The undo is on disk before anything is done.
            if !self.record.frozen.contains(name) {
                self.record.frozen.push(name.clone());
                self.persist_aside(now);
            }
            if self.aside.is_some() || self.disk_error.is_some() {
                continue;
            }
            self.tending.ordered.insert(name.clone(), now.at);
            let ends = self.grade_of(name) != Some(Grade::NodeSoft);
            let (backend, server) = (name.clone(), left.server.clone());
            self.actions.push_back(Action::Soften { backend, server, ends });
        }
    }

    /// It shows to be the very server that was left, serving as primary on the line that the latched one left behind.
    /// Since when it claims that.
    fn still_serves(&self, left: &Left) -> Option<Moment> {
        let identity = self.latch()?.identity.as_ref()?;
        let side = self.side(&left.backend).filter(|side| !side.indirect && !self.is_active(&side.name))?;
        let heard = side.facts.as_ref().filter(|heard| Some(heard.started) >= self.latched_at)?;
        let (facts, server) = (&heard.facts, &left.server);
        let itself = facts.role == Role::Primary
            && facts.system_id == Some(server.system_id)
            && facts.timeline == Some(server.timeline)
            && server.node.is_some()
            && facts.node == server.node;
        let left_behind = identity.system_id == server.system_id
            && identity.ancestors.iter().any(|ancestor| ancestor.timeline == server.timeline);
        (itself && left_behind && side.state() == Health::Up).then_some(())?;
        side.claim.as_ref().map(|claim| claim.since)
    }

    /// A side was made read-only, or could not be.
    pub(super) fn softened(&mut self, name: &BackendName, result: Result<Softened, String>, now: Now) {
        self.tending.ordered.remove(name);
        if self.is_active(name) {
            // It became active meanwhile: it may be read-only now.
            if !self.record.frozen.contains(name) {
                self.record.frozen.push(name.clone());
                self.persist_aside(now);
            }
            self.releasing = None;
            return;
        }
        let Some(left) = self.record.left.iter().find(|left| left.backend == *name).cloned() else { return };
        match result {
            Ok(done) if done.gaps.is_empty() => {
                if let Some(claim) = self.still_serves(&left) {
                    self.tending.softened.insert(name.clone(), claim);
                }
                let ended = match done.ended {
                    0 => "no client was connected past this proxy".into(),
                    1 => "1 client session was ended".into(),
                    many => format!("{many} client sessions were ended"),
                };
                self.regrade(name, Grade::NodeSoft, format!("{name} takes no writes any more: {ended}"), now);
                self.tending.said.remove(name);
            }
            Ok(done) => {
                self.tending.rests.insert(name.clone(), now.at + GAPS);
                let said = format!("{name} is read-only for newcomers, but {}", done.gaps.join("; "));
                self.tell_once(name, format!("{said}: its fence stays {}", left.grade.as_str()), now);
            }
            Err(why) => {
                self.tending.rests.insert(name.clone(), now.at + RETRY);
                let said =
                    format!("{name} could not be made read-only, its fence stays {}: {why}", left.grade.as_str());
                self.tell_once(name, said, now);
            }
        }
    }

    fn regrade(&mut self, name: &BackendName, grade: Grade, said: String, now: Now) {
        let Some(left) = self.record.left.iter_mut().find(|left| left.backend == *name) else { return };
        if left.grade == grade {
            return;
        }
        left.grade = grade;
        self.persist_aside(now);
        self.tell(now, EventKind::Notice, format!("{said}; {name} is fenced: {}", grade.as_str()));
    }

    /// A standby must not stay read-only for its next life as a primary.
    fn thaw_returned(&mut self, now: Now) {
        let Some(system_id) = self.latch().and_then(|latch| latch.identity.as_ref()).map(|identity| identity.system_id)
        else {
            return;
        };
        for backend in self.record.frozen.clone() {
            let rests = self.tending.rests.get(&backend).is_some_and(|until| now.at < *until);
            let busy = rests || self.tending.ordered.contains_key(&backend);
            if !busy && !self.is_active(&backend) && self.is_back(&backend) {
                self.tending.ordered.insert(backend.clone(), now.at);
                self.actions.push_back(Action::Thaw { backend, system_id });
            }
        }
    }

    /// That ended.
    pub(super) fn thawed(&mut self, name: &BackendName, result: Result<(), String>, now: Now) {
        self.tending.ordered.remove(name);
        if self.is_active(name) {
            return;
        }
        match result {
            Ok(()) => {
                self.record.frozen.retain(|frozen| frozen != name);
                self.persist_aside(now);
                self.tending.said.remove(name);
                self.tell(now, EventKind::Notice, format!("{name} is no longer kept read-only: it is a standby"));
            }
            Err(why) => {
                self.tending.rests.insert(name.clone(), now.at + GAPS);
                let said =
                    format!("{name} streams again, but is still set read-only for its next life as primary: {why}");
                self.tell_once(name, said, now);
            }
        }
    }

    /// An order to make it read-only is under way: it must not be released before that has ended.
    pub(super) fn is_tended(&self, name: &BackendName, now: Now) -> bool {
        self.tending.ordered.get(name).is_some_and(|since| now.at.since(*since) < PATIENCE)
    }

    fn tell_once(&mut self, name: &BackendName, said: String, now: Now) {
        if self.tending.said.get(name) != Some(&said) {
            self.tending.said.insert(name.clone(), said.clone());
            self.tell(now, EventKind::Notice, said);
        }
    }
}
