//! Other backends that claim to be primary: quarantined, or followed once proven and allowed.

use super::{Machine, Run, State, Step};
use crate::config::{Authority, ForeignPromotion};
use crate::failover::action::EventKind;
use crate::failover::analysis::{self, Lineage};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{BlockReason, EpisodeKind, Identity, Stage};
use crate::failover::side::{Claim, Side};
use crate::types::{BackendName, Now};

impl Machine {
    /// Compares every other backend's claim to be primary with the latch: quarantine, or release.
    pub(super) fn judge_claims(&mut self, now: Now) {
        let Some(latch) = self.record.latch.clone() else {
            return;
        };
        let Some(identity) = &latch.identity else {
            return;
        };
        let target = match &self.state {
            State::Episode(run) if run.intent.stage == Stage::Sent => Some(run.intent.to.clone()),
            _ => None,
        };
        let mut said = Vec::new();
        for side in &mut self.sides {
            if side.name == latch.active || Some(&side.name) == target.as_ref() {
                continue;
            }
            let Some(heard) = side.facts.as_ref().filter(|heard| Some(heard.started) >= self.latched_at) else {
                continue;
            };
            let facts = &heard.facts;
            let streamed = side.witness.followed();
            let shown = facts.timeline.map_or_else(|| "an unknown timeline".into(), |t| format!("timeline {t}"));
            let verdict = match (facts.role, analysis::lineage(facts, identity, streamed)) {
                (Role::Primary, Lineage::Descends) => Ok(()),
                (Role::Primary, Lineage::Same) => Err(format!("it is primary on {shown} beside {}", latch.active)),
                (Role::Primary, Lineage::Older) => Err(format!(
                    "it is primary on {shown}, the latch is on {}; rebuild it as a standby of {} (pg_rewind or pg_basebackup), and it is let in by itself",
                    identity.timeline, latch.active
                )),
                (Role::Primary, Lineage::Unproven) => {
                    Err(format!("it is primary on {shown} and does not prove to descend from {}", identity.timeline))
                }
                (_, Lineage::Stranger) => Err(format!("it belongs to another system or branch ({shown})")),
                _ if side.quarantine.is_some() && !analysis::streams_on(side, identity.timeline) => {
                    continue;
                }
                _ => Ok(()),
            };
            match (verdict, &side.quarantine) {
                (Err(why), before) if before.as_ref() != Some(&why) => {
                    said.push((
                        EventKind::Quarantined,
                        format!("{} is quarantined, it gets not one byte: {why}", side.name),
                    ));
                    side.quarantine = Some(why);
                }
                (Ok(()), Some(_)) => {
                    said.push((EventKind::Released, format!("{} is no longer quarantined", side.name)));
                    side.quarantine = None;
                }
                _ => {}
            }
        }
        for (kind, sentence) in said {
            self.tell(now, kind, sentence);
        }
    }

    /// Another backend is primary beside the latched one.
    pub(super) fn rival(&self) -> Option<(BlockReason, String)> {
        let latch = self.latch()?;
        let Some(identity) = latch.identity.as_ref() else { return self.passing_rival() };
        let active_node = self.active_side()?.facts.as_ref().and_then(|heard| heard.facts.node.clone());
        self.sides.iter().filter(|side| side.name != latch.active).find_map(|side| {
            let facts = &side.facts.as_ref()?.facts;
            side.claim.as_ref().filter(|claim| claim.stands())?;
            let lineage = analysis::lineage(facts, identity, side.witness.followed());
            let beside = format!("{} is primary too ({}), beside {}", side.name, lineage_words(lineage), latch.active);
            match lineage {
                Lineage::Same if facts.node != active_node => Some((BlockReason::SplitBrain, beside)),
                Lineage::Descends => Some((
                    BlockReason::SplitBrain,
                    format!(
                        "{beside}: decide with `proxyctl adopt {0}`, which leaves what {1} alone has, or make {0} a standby of {1} again",
                        side.name, latch.active
                    ),
                )),
                _ => None,
            }
        })
    }

    /// A promotion that somebody else made is adopted as soon as it is proven and allowed.
    pub(super) fn follow_if_due(&mut self, now: Now) -> bool {
        let Some(latch) = self.record.latch.clone() else {
            return false;
        };
        if self.replicates() {
            return self.follow_stream(now);
        }
        let due = match &latch.identity {
            Some(_) => self.proven_successor(now),
            None => self.serving_successor(),
        };
        let Some((to, why)) = due else { return false };
        let mut intent = self.intent(EpisodeKind::Follow, to, why + &self.ordered_by(), now);
        intent.stage = Stage::Sent;
        self.begin(Run::new(intent, Step::Deciding { ticket: 0 }, true, now.at), now);
        true
    }

    pub(super) fn proven_successor(&self, now: Now) -> Option<(BackendName, String)> {
        let latch = self.latch()?;
        let identity = latch.identity.as_ref()?;
        let observe = self.service.failover.authority != Authority::SelfDecides;
        let rewound = matches!(&self.mismatch, Some((BlockReason::Rewound, _)));
        if observe && rewound && self.active_side().is_some_and(|active| self.continues(active, identity, now)) {
            return Some((
                latch.active.clone(),
                format!("{} shows a timeline that descends from the latched one", latch.active),
            ));
        }
        let side = self.sides.iter().find(|side| side.name != latch.active && self.continues(side, identity, now))?;
        let others = self.others_of_late(now) || self.kin().next().is_some();
        let follow = match self.service.failover.foreign_promotion {
            Some(rule) => rule == ForeignPromotion::Follow,
            None => observe || others,
        };
        let still_primary = self.active_side().is_some_and(|active| {
            active.state() != Health::Down
                && active.role() == Role::Primary
                && self.mismatch.is_none()
                && self.suspicion.is_none()
        });
        let dead = self.active_side().is_none_or(|active| active.state() == Health::Down) || self.mismatch.is_some();
        if follow || (!still_primary && dead) {
            let timeline = side.facts.as_ref().and_then(|heard| heard.facts.timeline).map_or(0, |t| t.0);
            return Some((
                side.name.clone(),
                format!(
                    "{} was promoted by somebody else: it proves to be primary on timeline {timeline}, a descendant of {}",
                    side.name, identity.timeline
                ),
            ));
        }
        None
    }

    /// It serves, and proved in two answers that it is primary on a line that continues the latched one.
    fn continues(&self, side: &Side, identity: &Identity, now: Now) -> bool {
        let streamed = side.witness.followed();
        side.state() == Health::Up
            && side.claim.as_ref().is_some_and(Claim::proven)
            && side.facts.as_ref().is_some_and(|heard| {
                heard.facts.role == Role::Primary
                    && now.at.since(heard.finished) <= self.patience()
                    && analysis::lineage(&heard.facts, identity, streamed) == Lineage::Descends
            })
    }

    /// A check that passes on the primary alone: another side passes it while the latched one is down. It must have been a
    /// live standby under this latch, and have passed only since the latched one does not: an old primary that came back
    /// as it was passes, too.
    pub(super) fn serving_successor(&self) -> Option<(BackendName, String)> {
        let active = self.active_side()?;
        if !self.service.probe.kind.primary_only()
            || self.service.failover.standby_serves
            || active.state() != Health::Down
        {
            return None;
        }
        let mut up = self.sides.iter().filter(|side| side.name != active.name && side.state() == Health::Up);
        let (first, second) = (up.next()?, up.next());
        (second.is_none() && first.serves() && self.was_promoted(first, active)).then(|| {
            (
                first.name.clone(),
                format!("{} no longer passes its check as primary and {} does", active.name, first.name),
            )
        })
    }

    fn was_promoted(&self, side: &Side, active: &Side) -> bool {
        let Some(claim) = &side.claim else { return false };
        side.refuses.is_some_and(|at| Some(at) >= self.latched_at && at < claim.since)
            && active.passed().is_none_or(|passed| passed < claim.since)
    }

    /// Who passes a check that passes on the primary alone, beside the side that is latched.
    fn passing_rival(&self) -> Option<(BlockReason, String)> {
        let active = self.active_side().filter(|_| self.service.probe.kind.primary_only())?;
        let serves = self.service.failover.standby_serves;
        let side =
            self.sides.iter().find(|s| s.name != active.name && s.state() == Health::Up && s.serves() && !serves)?;
        if self.was_promoted(side, active) {
            return None;
        }
        let said = match active.state() {
            Health::Down => format!(
                "{0} is down, and {1} passes the check as primary, but was not seen to be its standby before: it may be an old primary as it was; `proxyctl adopt {1}` if it is the right one",
                active.name, side.name
            ),
            _ => format!(
                "{0} passes the check as primary as well, beside {1}: it gets nothing; make it a standby of {1}, or `proxyctl adopt {0}`",
                side.name, active.name
            ),
        };
        Some((BlockReason::SplitBrain, said))
    }
}

fn lineage_words(lineage: Lineage) -> &'static str {
    match lineage {
        Lineage::Descends => "on a timeline that descends from the latched one",
        Lineage::Same => "on the latched timeline",
        Lineage::Older => "on an older timeline",
        Lineage::Stranger => "of another system",
        Lineage::Unproven => "of unproven descent",
    }
}
