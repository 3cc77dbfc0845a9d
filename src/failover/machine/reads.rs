//! Who serves `read_only` listeners, and how who serves them no longer is left: drained when it falls behind or is
//! promoted, cut when it is down. Who may not be sent one byte is `gate`'s business.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Machine, State};
use crate::config::Target;
use crate::failover::action::{Action, EventKind};
use crate::failover::analysis;
use crate::failover::candidate;
use crate::failover::health::State as Health;
use crate::failover::observation::{Observation, Role, Verdict};
use crate::failover::phase::Identity;
use crate::failover::reads::Trail;
use crate::failover::side::Side;
use crate::types::{BackendName, Epoch, Lsn, Moment, Now, Timeline};

/// What is known of readers.
#[derive(Debug, Default)]
pub(super) struct Readers {
    trail: Trail,
    standings: BTreeMap<BackendName, Standing>,
    /// Readers that the active side kept from when it was a standby are to be moved once another one is fit.
    promoted: Option<BackendName>,
    epoch: Option<Epoch>,
}

/// One side, as far as reading goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Standing {
    unfit: Option<Unfit>,
    /// Readers may have come since they were last moved or cut.
    open: bool,
    shown: Shown,
    /// It was left for being behind: it comes back at half of the limit.
    behind: bool,
    /// It was left at that time, and what is still attached is cut then.
    cut_at: Option<Moment>,
    /// When its age crosses the limit unless it is heard again.
    ages_at: Option<Moment>,
}

/// What one side shows to readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shown {
    /// It last streamed on this timeline.
    followed: Option<Timeline>,
    replayed: Option<Lsn>,
    /// Every commit acknowledged by then.
    all_of: Option<Moment>,
}

/// Why a side takes no readers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unfit {
    why: String,
    leave: Leave,
}

/// What becomes of readers that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// Somebody else's business, or nothing is known.
    Stay,
    /// What they read is too old.
    Drain,
    /// Nothing comes from there.
    Cut,
}

impl Readers {
    pub(super) fn fit(&self, name: &BackendName) -> bool {
        self.standings.get(name).is_some_and(|standing| standing.unfit.is_none())
    }

    /// Why not; `None` = it is fit, or nothing was judged yet.
    pub(super) fn refusal(&self, name: &BackendName) -> Option<&str> {
        Some(&self.standings.get(name)?.unfit.as_ref()?.why)
    }

    /// When one of them must be looked at again.
    pub(super) fn next(&self, now: Moment) -> Moment {
        let due = self.standings.values().flat_map(|standing| [standing.cut_at, standing.ages_at]).flatten();
        due.filter(|at| *at > now).min().unwrap_or(Moment(Duration::MAX))
    }
}

impl Machine {
    /// The active side told how far its log is.
    pub(super) fn trail(&mut self, seen: &Observation) {
        let Verdict::Answered(facts) = &seen.verdict else { return };
        let Some(identity) = self.record.latch.as_ref().and_then(|latch| latch.identity.as_ref()) else { return };
        if let (Role::Primary, Some(lsn), true) = (facts.role, facts.lsn, facts.timeline == Some(identity.timeline)) {
            self.readers.trail.note(identity, seen.started, lsn);
        }
    }

    /// How old what this standby shows may be.
    fn age(&self, shown: &Shown, now: Moment) -> Option<Duration> {
        let probe = &self.service.probe;
        // Without a word of the active side for so long nothing newer is known to be.
        let patience = probe.interval * 2 + probe.timeout;
        Some(self.readers.trail.until(patience, now).since(shown.all_of?))
    }

    fn shown(&self, side: &Side, identity: &Identity) -> Shown {
        let was = self.readers.standings.get(&side.name).map(|standing| standing.shown).unwrap_or_default();
        let Some(heard) = &side.facts else { return Shown::default() };
        let replayed = heard.facts.replay_lsn;
        if side.role() != Role::Standby || candidate::strays(side, identity).is_some() || replayed < was.replayed {
            // Another server, or this one restored from a backup.
            return Shown { replayed, ..Shown::default() };
        }
        let followed =
            if analysis::streams_on(side, identity.timeline) { Some(identity.timeline) } else { was.followed };
        let on_line = followed == Some(identity.timeline);
        let now = replayed.filter(|_| on_line).and_then(|lsn| self.readers.trail.shows(identity, lsn));
        Shown { followed, replayed, all_of: was.all_of.max(now) }
    }

    /// For the view: its age in milliseconds, if that is known.
    pub(in crate::failover) fn shown_age(&self, side: &Side, now: Now) -> Option<u64> {
        let age = self.age(&self.readers.standings.get(&side.name)?.shown, now.at)?;
        u64::try_from(age.as_millis()).ok()
    }

    /// For the view: why it takes no readers, where there are any.
    pub(in crate::failover) fn no_readers(&self, side: &Side) -> Option<String> {
        let reads = self.service.listeners.iter().any(|listener| listener.target == Target::ReadOnly);
        self.readers.refusal(&side.name).or(side.excluded.as_deref()).filter(|_| reads).map(str::to_owned)
    }

    /// Who takes readers now. Those of a side that does not any more are moved, while no episode has other plans.
    pub(super) fn judge_readers(&mut self, now: Now) {
        let judged: Vec<_> = self.sides.iter().map(|side| (side.name.clone(), self.judged(side, now))).collect();
        self.readers.standings = judged.into_iter().collect();
        if !matches!(self.state, State::Watching) || self.latch().is_none() {
            return;
        }
        let names: Vec<_> = self.readers.standings.keys().cloned().collect();
        for name in names {
            self.leave(&name, now);
        }
        self.leave_promoted();
    }

    fn judged(&self, side: &Side, now: Now) -> Standing {
        let none = Standing::default();
        let was = self.readers.standings.get(&side.name).unwrap_or(&none);
        let identity = self.latch().and_then(|latch| latch.identity.as_ref());
        let shown = identity.map(|identity| self.shown(side, identity)).unwrap_or_default();
        let unfit = self.unfit(side, identity, &shown);
        let kept = Standing { unfit, open: was.open, shown, behind: was.behind, cut_at: was.cut_at, ages_at: None };
        if kept.unfit.is_some() || identity.is_none() {
            return kept;
        }
        let fit = Standing { open: true, ..kept.clone() };
        let Some(limit) = self.service.read_only.max_lag else { return fit };
        let name = &side.name;
        let Some(age) = self.age(&shown, now.at) else {
            let why = format!("it is not known yet how old what {name} shows is");
            return Standing { unfit: Some(Unfit { why, leave: Leave::Stay }), ..kept };
        };
        if age <= if was.behind { limit / 2 } else { limit } {
            let ages_at = now.at + limit.saturating_sub(age) + Duration::from_millis(1);
            return Standing { behind: false, cut_at: None, ages_at: Some(ages_at), ..fit };
        }
        let why = format!("what {name} shows is {:.1} s old (read_only.max_lag is {limit:?})", age.as_secs_f64());
        Standing { unfit: Some(Unfit { why, leave: Leave::Drain }), behind: true, ..kept }
    }

    /// Why it takes no readers, but for what it shows being old.
    fn unfit(&self, side: &Side, identity: Option<&Identity>, shown: &Shown) -> Option<Unfit> {
        let name = &side.name;
        let unfit = |leave: Leave, why: String| Some(Unfit { why, leave });
        if self.latch().is_none() {
            return unfit(Leave::Stay, "no side is latched yet".into());
        }
        // Of clusters the other one is a standby that serves nobody, or an old primary.
        if self.replicates() {
            return unfit(Leave::Stay, format!("{name} is a cluster: while it is replicated to it serves nobody"));
        }
        if self.service.probe.kind.primary_only() {
            return unfit(
                Leave::Stay,
                format!("the check passes on the primary alone: nothing tells whether {name} is up"),
            );
        }
        if self.is_active(name) {
            return unfit(Leave::Stay, format!("{name} is active: it serves readers when no standby is fit"));
        }
        if let Some(why) = &side.quarantine {
            return unfit(Leave::Stay, format!("{name} is quarantined: {why}"));
        }
        if side.unproven {
            return unfit(Leave::Stay, format!("nothing shows whom {name} follows"));
        }
        match side.state() {
            Health::Up => {}
            Health::Down => return unfit(Leave::Cut, format!("{name} is down")),
            other => return unfit(Leave::Stay, format!("{name} is {}", other.as_str())),
        }
        let identity = identity?;
        if side.role() != Role::Standby {
            return unfit(Leave::Stay, format!("{name} is not a standby"));
        }
        if let Some(why) = candidate::strays(side, identity) {
            return unfit(Leave::Stay, why);
        }
        if analysis::streams_on(side, identity.timeline) {
            return None;
        }
        // A standby whose primary died, or whose stream breaks for a moment, has what it has: only its age counts.
        if self.service.read_only.max_lag.is_some() && shown.followed == Some(identity.timeline) {
            return None;
        }
        unfit(Leave::Stay, format!("{name} does not stream on timeline {}", identity.timeline))
    }

    fn leave(&mut self, name: &BackendName, now: Now) {
        let drain_for = self.service.failover.drain_timeout;
        let Some(standing) = self.readers.standings.get_mut(name) else { return };
        let Some(unfit) = &standing.unfit else { return };
        match unfit.leave {
            Leave::Drain if standing.open => {
                standing.open = false;
                standing.cut_at = Some(now.at + drain_for);
                let said = format!("readers are moved off {name}: {}", unfit.why);
                self.actions.push_back(Action::DrainReaders { backend: name.clone() });
                self.tell(now, EventKind::Notice, said);
            }
            Leave::Drain if standing.cut_at.is_some_and(|at| at <= now.at) => {
                standing.cut_at = None;
                self.actions.push_back(Action::Cut { backend: name.clone() });
            }
            Leave::Cut if standing.open || standing.cut_at.is_some() => {
                standing.open = false;
                standing.cut_at = None;
                self.actions.push_back(Action::Cut { backend: name.clone() });
            }
            Leave::Drain | Leave::Cut => {}
            Leave::Stay => standing.cut_at = None,
        }
    }

    /// A standby that became active keeps its readers until another one can take them.
    fn leave_promoted(&mut self) {
        let Some((active, epoch)) = self.latch().map(|latch| (latch.active.clone(), latch.epoch)) else { return };
        let changed = self.readers.epoch.replace(epoch).is_some_and(|before| before != epoch);
        if changed {
            self.readers.promoted = Some(active.clone());
        }
        let takes = |side: &Side| side.excluded.is_none() && self.readers.fit(&side.name);
        let another = self.sides.iter().any(takes);
        if another && self.readers.promoted.take_if(|name| *name == active).is_some() {
            self.actions.push_back(Action::DrainReaders { backend: active });
        }
    }
}
