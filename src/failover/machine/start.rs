//! The start checks: the gate stays closed until the latched side proves itself, or the first latch is found.

use super::{Machine, Run, State, Step};
use crate::config::{ConfiguredRole, Promoter};
use crate::failover::action::EventKind;
use crate::failover::analysis::{self, Lineage};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{BlockReason, EpisodeKind, Stage};
use crate::failover::side::Side;
use crate::types::{BackendName, Moment, Now};

impl Machine {
    /// One turn of the start checks.
    pub(super) fn advance_start(&mut self, now: Now) {
        let State::Starting { since } = self.state else {
            return;
        };
        match &self.record.latch {
            Some(_) => self.verify_latch(since, now),
            None => self.find_latch(since, now),
        }
    }

    fn verify_latch(&mut self, since: Moment, now: Now) {
        let Some(latch) = self.record.latch.clone() else {
            return;
        };
        let Some(active) = self.active_side() else {
            let said = format!(
                "the latch names {}, which is not configured: configure it, or `proxyctl adopt` another backend",
                latch.active
            );
            self.evidence.clone_from(&said);
            self.set_block(Some((BlockReason::LatchUnproven, said)), now);
            return;
        };
        if let (Some(was), Some(is)) = (&latch.cluster, &active.config.cluster_id)
            && was != is
        {
            let said = format!(
                "{} is latched as cluster {was}, and the configuration names cluster {is}: correct its cluster_id, or if another cluster took its place, `proxyctl adopt {}`",
                latch.active, latch.active
            );
            self.evidence.clone_from(&said);
            return self.set_block(Some((BlockReason::LatchUnproven, said)), now);
        }
        if self.knows_identity() && latch.identity.is_none() {
            return self.learn_identity(&latch.active, since, now);
        }
        let patience = now.at.since(since) >= self.service.failover.verify_wait;
        let proven = active.addresses.values().any(|a| Side::proves_since(a, latch.identity.as_ref(), since));
        let mismatch = analysis::mismatch(active, latch.identity.as_ref())
            .filter(|_| active.facts.as_ref().is_some_and(|h| h.started >= since));
        let foreign = self.foreign_stream(now).is_some_and(|_| self.stream_block(now).is_none());
        let successor = foreign || self.sides.iter().any(|side| side.name != latch.active && self.descends(side));
        let tells = self.knows_identity();
        let others =
            self.sides.iter().filter(|side| side.name != latch.active).all(|side| side.heard_since(since, tells));
        let listed = !self.replicates() || self.streams.listed_since(since);
        let others = others && listed && self.patroni_asked_since(since);
        // Another one that serves is the old primary, unless it was never left or was replicated to since.
        let unexplained = (!listed && (latch.replication.is_none() || latch.follower.is_some()))
            .then(|| self.sides.iter().find(|side| side.name != latch.active && self.serves_as_primary(&side.name)))
            .flatten()
            .map(|side| side.name.clone());
        let routing_up = latch.identity.is_none() && active.state() == Health::Up;
        if successor {
            self.mismatch = mismatch;
            if !self.follow_if_due(now) {
                let said = format!(
                    "{} is latched, but another backend is primary on a timeline that descends from it: `proxyctl adopt` decides",
                    latch.active
                );
                self.evidence.clone_from(&said);
                self.set_block(Some((BlockReason::SplitBrain, said)), now);
            }
        } else if let Some(name) = unexplained {
            let said = format!(
                "{} is latched, but {name} serves as well, and the replication streams cannot be read: it may have been promoted by others; `proxyctl adopt` decides",
                latch.active
            );
            self.evidence.clone_from(&said);
            self.set_block(Some((BlockReason::SplitBrain, said)), now);
        } else if mismatch.is_some() {
            // Watching keeps the gate closed for a latched side that is not what it was, and says why.
            if patience || others {
                self.leave_start(since, now);
            }
        } else if (proven || routing_up) && (others || patience) {
            self.leave_start(since, now);
        } else if self.replicates() && others && self.active_is_frozen() {
            // Stopped by a switchover that came to nothing: it is released while the gate is closed, then proves itself.
            self.state = State::Watching;
            self.block = None;
            self.owed = Some(since);
        } else if patience {
            let last = active.last_probe.as_ref().map_or("nothing was heard", |probe| probe.text.as_str());
            let way = match self.replicates() {
                false if latch.identity.is_some() && !self.knows_identity() => {
                    "where no probe of this kind can show it, `proxyctl adopt` the side that is primary"
                }
                false => "`proxyctl adopt` another primary",
                true => {
                    "fail the stream over past this daemon, in the console or with `proxyctl failover` while this daemon is stopped: that is followed"
                }
            };
            let said = format!(
                "{} is latched in epoch {} and does not prove to be that server ({last}): bring it back, or {way}",
                latch.active, latch.epoch
            );
            self.evidence.clone_from(&said);
            self.set_block(Some((BlockReason::LatchUnproven, said)), now);
        } else {
            self.evidence = format!("waiting for {} to prove itself", latch.active);
        }
    }

    /// It was latched when probes showed no lines: as at a first latch, it must be the one primary, with a standby.
    fn learn_identity(&mut self, active: &BackendName, since: Moment, now: Now) {
        match self.first_active(since, now) {
            Ok((to, why)) if to == *active => {
                let mut intent = self.intent(EpisodeKind::Follow, to, why, now);
                intent.stage = Stage::Sent;
                self.begin(Run::new(intent, Step::Deciding { ticket: 0 }, true, now.at), now);
            }
            found if now.at.since(since) >= self.service.failover.verify_wait => {
                let seen = found.map_or_else(|why| why, |(other, _)| format!("{other} is primary"));
                let said = format!(
                    "{active} was latched when probes showed no timelines, and that it is that server is not proven ({seen}): `proxyctl adopt` the right one"
                );
                self.evidence.clone_from(&said);
                self.set_block(Some((BlockReason::LatchUnproven, said)), now);
            }
            _ => self.evidence = format!("waiting for {active} to prove itself"),
        }
    }

    pub(super) fn descends(&self, side: &Side) -> bool {
        let (Some(latch), Some(heard)) = (self.latch(), &side.facts) else {
            return false;
        };
        let Some(identity) = &latch.identity else {
            return false;
        };
        let streamed = side.witness.followed();
        side.role() == Role::Primary && analysis::lineage(&heard.facts, identity, streamed) == Lineage::Descends
    }

    fn leave_start(&mut self, since: Moment, now: Now) {
        self.state = State::Watching;
        self.block = None;
        self.mismatch = self.active_side().and_then(|side| analysis::mismatch(side, self.latch()?.identity.as_ref()));
        self.owed = (self.mismatch.is_some() || self.active_is_frozen()).then_some(since);
        if let (Some(latch), None) = (&self.record.latch, &self.mismatch) {
            let said = format!("{} proved to be the latched side of epoch {}", latch.active, latch.epoch);
            self.tell(now, EventKind::Notice, said);
        }
    }

    fn find_latch(&mut self, since: Moment, now: Now) {
        if let Some(said) = analysis::same_server(&self.sides) {
            self.evidence.clone_from(&said);
            return self.set_block(Some((BlockReason::SameServer, said)), now);
        }
        let patience = now.at.since(since) >= self.service.failover.verify_wait;
        match self.first_active(since, now) {
            Ok((to, why)) => {
                let mut intent = self.intent(EpisodeKind::Follow, to, why, now);
                intent.stage = Stage::Sent;
                // Nobody is left and nothing is promoted: the latch itself is the first thing written.
                let said = format!("episode {}: first latch on {}: {}", intent.id, intent.to, intent.why);
                self.record.last_episode = intent.id;
                let step = Step::Latching { ticket: None, retry: now.at };
                let mut run = Run::new(intent, step, true, now.at);
                // Plain routing opens to the configured side without asking the others.
                run.unchecked = self.knows_identity().then_some(since);
                self.state = State::Episode(Box::new(run));
                self.tell(now, EventKind::Decided, said);
            }
            Err(said) => {
                self.evidence.clone_from(&said);
                if patience {
                    self.set_block(Some((BlockReason::NoLatch, said)), now);
                }
            }
        }
    }

    /// The first latch: all backends heard, exactly one primary, and a standby streams from it; routing only: the
    /// configured primary once it is up.
    fn first_active(&self, since: Moment, now: Now) -> Result<(BackendName, String), String> {
        if self.replicates() {
            return self.first_replicated(since, now);
        }
        if !self.knows_identity() {
            return self.first_route();
        }
        let unheard: Vec<&str> = self
            .sides
            .iter()
            .filter(|s| s.facts.as_ref().is_none_or(|heard| heard.started < since))
            .map(|s| s.name.as_str())
            .collect();
        if !unheard.is_empty() {
            let last =
                self.sides.iter().filter_map(|s| s.last_probe.as_ref().map(|p| format!("{}: {}", s.name, p.text)));
            let last: Vec<String> = last.filter(|text| !text.ends_with(": answered")).collect();
            let tail = if last.is_empty() { String::new() } else { format!(" ({})", last.join("; ")) };
            return Err(format!(
                "no side is latched yet and {} did not prove its role{tail}; `proxyctl adopt BACKEND` decides",
                unheard.join(", ")
            ));
        }
        let primaries: Vec<&Side> = self.sides.iter().filter(|side| side.role() == Role::Primary).collect();
        let [primary] = primaries.as_slice() else {
            let names: Vec<&str> = primaries.iter().map(|side| side.name.as_str()).collect();
            return Err(match names.as_slice() {
                [] => {
                    "no side is latched yet and no backend is primary; promote one, or `proxyctl adopt BACKEND`".into()
                }
                names => format!(
                    "no side is latched yet and {} are all primary; `proxyctl adopt BACKEND` decides",
                    names.join(", ")
                ),
            });
        };
        let facts = primary.facts.as_ref().map(|heard| &heard.facts);
        let (Some(system), Some(timeline)) = (facts.and_then(|f| f.system_id), facts.and_then(|f| f.timeline)) else {
            return Err(format!(
                "{} is primary but shows no system identifier or timeline: check the probe's grants",
                primary.name
            ));
        };
        let follows = |side: &&Side| {
            side.facts.as_ref().is_some_and(|heard| heard.facts.system_id == Some(system))
                && analysis::streams_on(side, timeline)
        };
        match self.sides.iter().find(follows) {
            _ if self.patroni_names(&primary.name) => Ok((
                primary.name.clone(),
                format!("{} is the only primary (timeline {timeline}) and Patroni names it leader", primary.name),
            )),
            _ if self.sides.len() == 1 => {
                Ok((primary.name.clone(), format!("{} is primary and the only backend", primary.name)))
            }
            Some(standby) => Ok((
                primary.name.clone(),
                format!(
                    "{} is the only primary (timeline {timeline}) and {} streams from it",
                    primary.name, standby.name
                ),
            )),
            None if self.sides.iter().any(Self::hides_its_stream) => Err(format!(
                "no side is latched yet: {0} is primary, but whether a standby streams from it cannot be seen: \
                 GRANT pg_read_all_stats TO the probe's user on {0}, or `proxyctl adopt {0}`",
                primary.name
            )),
            None => Err(format!(
                "no side is latched yet: {} is primary, but no standby streams from it on timeline {timeline}; `proxyctl adopt {}` decides",
                primary.name, primary.name
            )),
        }
    }

    fn hides_its_stream(side: &Side) -> bool {
        side.role() == Role::Standby
            && side.facts.as_ref().is_some_and(|heard| heard.facts.may_read_stats == Some(false))
    }

    fn first_route(&self) -> Result<(BackendName, String), String> {
        let configured = self.sides.iter().find(|side| side.config.role == Some(ConfiguredRole::Primary));
        if let Some(side) = configured
            && side.state() == Health::Up
        {
            return Ok((side.name.clone(), format!("{} is configured as primary and is up", side.name)));
        }
        let serving = self.service.probe.kind.primary_only();
        let mut up = self.sides.iter().filter(|side| side.state() == Health::Up);
        if let (true, Some(side), None) =
            (serving && matches!(self.service.failover.promoter, Promoter::None), up.next(), up.next())
        {
            return Ok((side.name.clone(), format!("{} is the only backend that passes its check", side.name)));
        }
        match configured {
            Some(side) => Err(format!(
                "no side is latched yet and {}, configured as primary, is {}",
                side.name,
                side.state().as_str()
            )),
            None => {
                Err("no side is latched yet and no backend has role = \"primary\"; `proxyctl adopt BACKEND` decides"
                    .into())
            }
        }
    }
}
