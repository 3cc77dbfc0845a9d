//! The latch stands: suspicion begins and ends, claims are judged, and a failover is decided or refused with a reason.

use std::time::Duration;

use super::{Block, Machine, Run, State, Step};
use crate::config::Authority;
use crate::failover::action::{Action, EventKind, Rechecked};
use crate::failover::analysis::{self, Decision, Finding, Suspicion};
use crate::failover::candidate;
use crate::failover::health::State as Health;
use crate::failover::observation::{Failure, Observation, Unknown, Verdict};
use crate::failover::phase::{BlockReason, EpisodeId, EpisodeKind, Intent, Phase, Stage};
use crate::failover::side::Side;
use crate::failover::witness::Testimony;
use crate::types::{BackendName, Moment, Now, WallTime};

/// An isolated daemon says so after that.
const BLIND: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Machine {
    /// Weighs one observation of the active side: it may begin or end a suspicion.
    pub(super) fn weigh(&mut self, seen: &Observation, now: Now) {
        if !self.weighs() || !seen.fresh {
            return;
        }
        match &seen.verdict {
            Verdict::Failed(failure) => {
                let Some(side) = self.side(&seen.backend) else { return };
                let known = side.addresses.get(&seen.address).and_then(|address| address.health.failed());
                let counts = known.is_some_and(|(started, ..)| started >= seen.started);
                if side.failures() > 0 || side.state() == Health::Down {
                    self.suspect(format!("a probe failed: {failure}"), now);
                }
                if *failure == Failure::Refused && counts && self.suspicion.is_none() {
                    self.suspect("a probe was refused".into(), now);
                }
            }
            Verdict::Answered(_) => self.relax(seen.started, now),
            Verdict::Unknown(why) if why.proves_life() => self.relax(seen.started, now),
            Verdict::Recovering if self.side(&seen.backend).is_some_and(|side| side.state() == Health::Up) => {}
            Verdict::Unknown(Unknown::CrashShutdown) | Verdict::Recovering => {
                self.suspect("the server is recovering from a crash or starting up".into(), now);
            }
            Verdict::Unknown(_) => {}
        }
    }

    /// A switchover is decided on a side that is well, and what is forced on no evidence at all: what comes in the middle of
    /// them is first evidence for what follows if they are called off. Any other episode rests on what is frozen.
    fn weighs(&self) -> bool {
        match &self.state {
            State::Watching => true,
            State::Episode(run) => run.intent.kind == EpisodeKind::Switchover || run.intent.forced,
            State::Starting { .. } => false,
        }
    }

    /// Adverse evidence: T0 if it is the first.
    pub(super) fn suspect(&mut self, why: String, now: Now) {
        if self.suspicion.is_some() || !self.weighs() || self.latch().is_none() {
            return;
        }
        let c0 = self.witness_clock(now);
        for side in &mut self.sides {
            side.witness.begin(now.at, c0);
        }
        self.suspicion = Some(Suspicion { t0: now.at, wall: now.wall, why, threshold: None, idle_since: None });
    }

    /// The clock by which the witnesses tell before from after: the primary's; between clusters, their streams'.
    pub(super) fn witness_clock(&self, now: Now) -> Option<WallTime> {
        if self.replicates() {
            return self.streams.clock(now);
        }
        let side = self.active_side().filter(|side| !side.clock_jumped)?;
        Some(WallTime(now.wall.0.saturating_add(side.offset?)))
    }

    fn relax(&mut self, started: Moment, now: Now) {
        let Some(suspicion) = &self.suspicion else {
            return;
        };
        let up = self.active_side().is_some_and(|side| side.state() != Health::Down && side.failures() == 0);
        if started >= suspicion.t0 && up {
            let lasted = now.at.since(suspicion.t0).as_millis();
            if suspicion.threshold.is_some() && matches!(self.state, State::Watching) {
                self.tell(
                    now,
                    EventKind::Notice,
                    format!("the active side answers again after {lasted} ms: nothing is done"),
                );
            }
            self.suspicion = None;
            for side in &mut self.sides {
                side.witness.end();
            }
        }
    }

    /// One turn of watching.
    pub(super) fn advance_watch(&mut self, now: Now) {
        self.mismatch = self.astray();
        if let (Some(since), None, false) = (self.owed, &self.mismatch, self.active_is_frozen()) {
            // Only now could it be opened: when the start checks pass, as at any start.
            self.owed = None;
            self.state = State::Starting { since };
            return;
        }
        self.release_frozen(now);
        if self.settling.is_some_and(|until| now.at >= until) {
            self.settling = None;
        }
        if self.follow_if_due(now) {
            return;
        }
        if let Some(ask) = &self.following.ask {
            self.evidence = ask.sentence();
            return self.set_block(None, now);
        }
        let finding = self.finding(now);
        match finding {
            None => {
                let block = self.standing_block(now);
                self.evidence = block.as_ref().map_or_else(|| self.calm_sentence(now), |(_, said)| said.clone());
                self.set_block(block, now);
            }
            Some(Finding::Suspect(said) | Finding::Waiting(said)) => {
                let block = self.standing_block(now);
                self.set_block(block, now);
                self.evidence = said;
            }
            Some(Finding::Blocked(reason, said)) => {
                let (reason, said) = self.as_nobody_promotes(now).unwrap_or((reason, said));
                self.evidence.clone_from(&said);
                self.set_block(Some((reason, said)), now);
            }
            Some(Finding::Decide(decision)) => match self.forbidden(&decision, now) {
                Some((reason, said)) => {
                    self.evidence = format!("{}; {said}", decision.why);
                    self.set_block(Some((reason, format!("{}; {said}", decision.why))), now);
                }
                None => self.begin_failover(decision, now),
            },
        }
    }

    /// Where nobody is promoted by us, what would keep a promotion back is beside the point.
    fn as_nobody_promotes(&self, now: Now) -> Option<(BlockReason, String)> {
        if self.can_promote() || self.service.failover.standby_serves {
            return None;
        }
        self.standing_block(now).or_else(|| {
            let active = self.active_side()?;
            let way = match (self.service.failover.authority, self.service.probe.kind.primary_only()) {
                (Authority::Patroni, _) => "whoever Patroni promotes is followed as soon as that is proven",
                (Authority::Observe, _) | (_, true) => "whoever else is promoted is followed as soon as that is proven",
                _ if self.knows_identity() => "promote the standby yourself: it is followed once it proves that",
                _ => "promote the standby yourself, then `proxyctl failover --route-only` moves traffic to it",
            };
            let shown = active.last_probe.as_ref().map_or("nothing was heard", |probe| probe.text.as_str());
            Some((
                BlockReason::NotAutomatic,
                format!("{} is down ({shown}), and nobody is promoted here: {way}", active.name),
            ))
        })
    }

    fn finding(&mut self, now: Now) -> Option<Finding> {
        let down = self.active_side()?.state() == Health::Down;
        let idle = self.sides.iter().any(|side| side.witness.testimony() == Testimony::Idle);
        let suspicion = self.suspicion.as_mut()?;
        if down {
            suspicion.threshold.get_or_insert(now.at);
        }
        suspicion.idle_since = if idle { suspicion.idle_since.or(Some(now.at)) } else { None };
        let latch = self.record.latch.as_ref()?;
        let suspicion = self.suspicion.as_ref()?;
        let evidence = analysis::Evidence {
            service: &self.service,
            sides: &self.sides,
            active: self.active_side()?,
            identity: latch.identity.as_ref(),
            suspicion,
            now: now.at,
        };
        Some(if self.service.failover.standby_serves {
            analysis::judge_route(&evidence, self.tier_peers(latch).next().is_some())
        } else {
            analysis::judge(&evidence)
        })
    }

    /// What must be said although the active side is not suspect.
    fn standing_block(&self, now: Now) -> Option<(BlockReason, String)> {
        if let Some(mismatch) = &self.mismatch {
            return Some(mismatch.clone());
        }
        if let Some(said) = analysis::same_server(&self.sides) {
            return Some((BlockReason::SameServer, said));
        }
        let elder = self.elder_sibling().filter(|_| self.decides()).map(|said| (BlockReason::SecondDecider, said));
        self.disowned()
            .or_else(|| self.rival())
            .or_else(|| self.held_read_only())
            .or_else(|| self.stream_block(now))
            .or(elder)
    }

    /// What keeps an established decision from being carried out automatically.
    pub(super) fn forbidden(&self, decision: &Decision, now: Now) -> Option<(BlockReason, String)> {
        let because = |reason, said: &str| Some((reason, said.to_owned()));
        if let Some(standing) = self.standing_block(now) {
            return Some(standing);
        }
        if !self.decides() {
            return because(
                BlockReason::NotAutomatic,
                match self.service.failover.authority {
                    Authority::Observe => "this daemon only observes and waits for a proven promotion",
                    Authority::Patroni => "Patroni decides, and what it promotes is followed once proven",
                    Authority::SelfDecides => "automatic failover is off: `proxyctl failover`",
                },
            );
        }
        if let Some(pause) = &self.record.paused {
            return Some((BlockReason::NotAutomatic, format!("paused by {}: `proxyctl resume`", pause.by.name)));
        }
        if let Some(said) = self.active_in_maint().or_else(|| self.unseen_since_maint(now)) {
            return Some((BlockReason::NotAutomatic, said));
        }
        if let Some(error) = &self.disk_error {
            return Some((BlockReason::Disk, format!("the state cannot be written: {error}")));
        }
        if self.active_side().is_some_and(|side| side.indirect) {
            return because(
                BlockReason::IndirectIdentity,
                "a pooler or balancer stands before the active side: no automatic promotion",
            );
        }
        if let Some((until, reason, said)) = &self.setback
            && now.at < *until
        {
            return Some((*reason, said.clone()));
        }
        if let Some(older) = self.older_decider() {
            return Some((
                BlockReason::SecondDecider,
                format!("daemon {older} was here first and decides on this pair"),
            ));
        }
        if let Some(left) = self.cooldown_left(now.wall) {
            return Some((
                BlockReason::Cooldown,
                format!("the last episode was too recent, {} s of cool-down left", left.as_secs()),
            ));
        }
        if self.budget_left(now.wall) == 0 {
            let max = self.service.failover.max_per_day;
            return Some((
                BlockReason::BudgetExhausted,
                format!("{max} failovers within 24 h are spent: `proxyctl failover --force`"),
            ));
        }
        if let Some(why) = self.configured_moment(&decision.to, now) {
            return Some((BlockReason::NoCandidate, why));
        }
        if decision.fence_needed && !self.can_fence() {
            return because(BlockReason::FenceFailed, "a node fence is needed and no fence_command is configured");
        }
        None
    }

    fn begin_failover(&mut self, decision: Decision, now: Now) {
        let kind = if self.service.failover.standby_serves { EpisodeKind::Route } else { EpisodeKind::Failover };
        let intent = self.intent(kind, decision.to, decision.why.clone(), now);
        self.evidence.clone_from(&decision.why);
        let mut run = Run::new(intent, Step::Deciding { ticket: 0 }, true, now.at);
        run.fence_needed = decision.fence_needed;
        run.over_idle = decision.over_idle;
        if decision.rechecked {
            run.rechecked = Some(Rechecked { sentence: decision.why });
        }
        self.begin(run, now);
    }

    /// A fresh intent from the latched side to `to`.
    pub(super) fn intent(&self, kind: EpisodeKind, to: BackendName, why: String, now: Now) -> Intent {
        let (from, epoch) = match self.latch() {
            Some(latch) => (Some(latch.active.clone()), latch.epoch.next()),
            None => (None, crate::types::Epoch(1)),
        };
        let stream = self.stream_order(kind, &to);
        Intent {
            id: EpisodeId(self.record.last_episode.0 + 1),
            epoch,
            from,
            to,
            kind,
            stage: Stage::Intent,
            why: bounded(why),
            decided_at: now.wall,
            operator: None,
            forced: false,
            frozen_at: None,
            stream,
            fenced: false,
        }
    }

    /// Writes the intent down, and begins. Closing and cutting do not wait for the disk.
    pub(super) fn begin(&mut self, mut run: Run, now: Now) {
        self.record.last_episode = run.intent.id;
        self.record.intent = Some(run.intent.clone());
        let ticket = self.persist();
        run.step = Step::Deciding { ticket };
        run.unchecked = match self.state {
            State::Starting { since } => Some(since),
            _ => self.owed.take(),
        };
        let from = run.intent.from.clone();
        let said = format!(
            "episode {}: {} from {} to {}: {}",
            run.intent.id,
            kind_word(run.intent.kind),
            from.as_ref().map_or("nobody", BackendName::as_str),
            run.intent.to,
            run.intent.why
        );
        let operator = run.intent.operator.clone();
        let passed_over = self.passed_over(&run.intent, now);
        self.block = None;
        self.state = State::Episode(Box::new(run));
        self.tell_as(now, EventKind::Decided, said, None, operator);
        if let Some(said) = passed_over {
            self.tell(now, EventKind::Step, said);
        }
        if let Some(from) = from {
            self.actions.push_back(Action::ProbeNow { backend: from });
        }
    }

    /// The other standbys' reasons at the decision.
    fn passed_over(&self, intent: &Intent, now: Now) -> Option<String> {
        let promotes = matches!(intent.kind, EpisodeKind::Failover | EpisodeKind::Switchover);
        let latch = self.latch().filter(|_| promotes)?;
        let t0 = self.suspicion.as_ref().map(|suspicion| suspicion.t0);
        let identity = latch.identity.as_ref();
        let ranked = candidate::rank(&self.service, &self.sides, &latch.active, identity, t0, now.at);
        candidate::passed_over(&ranked, &intent.to)
    }

    pub(super) fn set_block(&mut self, block: Option<(BlockReason, String)>, now: Now) {
        match (block, &mut self.block) {
            (None, _) => self.block = None,
            (Some((reason, sentence)), Some(standing)) if standing.reason == reason => standing.sentence = sentence,
            (Some((reason, sentence)), standing) => {
                let was_blocked = standing.is_some();
                *standing = Some(Block { reason, sentence: sentence.clone(), since: now.wall });
                if was_blocked && self.phase == Phase::Blocked {
                    self.tell(now, EventKind::Blocked, format!("{}: {sentence}", reason.as_str()));
                }
            }
        }
    }

    /// Why the latched side may get no byte although it answers.
    pub(super) fn astray(&self) -> Option<(BlockReason, String)> {
        analysis::mismatch(self.active_side()?, self.latch()?.identity.as_ref())
    }

    /// Nothing was heard of any other backend for so long that it may have been promoted by others.
    fn blind(&self, now: Now) -> Option<String> {
        if let Some(replication) = &self.service.replication {
            let gap = now.at.since(self.streams.read()?.max(self.woke));
            return (gap >= replication.refresh() * 3)
                .then(|| format!("; blind to failovers by others: no stream was read for {} s", gap.as_secs()));
        }
        let heard = |side: &Side| side.facts.as_ref().map_or(Moment::default(), |heard| heard.finished);
        let others: Vec<&Side> = self.sides.iter().filter(|side| !self.is_active(&side.name)).collect();
        let last = others.iter().map(|side| heard(side)).max()?.max(self.woke);
        let gap = now.at.since(last);
        let names: Vec<&str> = others.iter().map(|side| side.name.as_str()).collect();
        (self.knows_identity() && gap >= BLIND)
            .then(|| format!("; blind to promotions by others: {} not heard for {} s", names.join(", "), gap.as_secs()))
    }

    fn calm_sentence(&self, now: Now) -> String {
        let Some(side) = self.active_side() else {
            return "nothing is latched".into();
        };
        match side.state() {
            Health::Up => {
                format!("{} answers as it should{}", side.name, self.blind(now).unwrap_or_default())
            }
            Health::Recovering => {
                format!("{} is starting up or recovering; newcomers wait", side.name)
            }
            Health::Down | Health::Unknown => {
                let why = side.last_probe.as_ref().map_or("nothing was heard", |probe| probe.text.as_str());
                format!("{}: {why}", side.name)
            }
        }
    }

    /// How long no new automatic episode may begin.
    pub(in crate::failover) fn cooldown_left(&self, now: WallTime) -> Option<Duration> {
        let left = self.record.cooldown_until?.since(now).min(self.service.failover.cooldown);
        (!left.is_zero()).then_some(left)
    }

    /// Automatic failovers left within 24 hours.
    pub(in crate::failover) fn budget_left(&self, now: WallTime) -> u32 {
        let spent = self.record.spent.iter().filter(|at| now.since(**at) < DAY).count();
        self.service.failover.max_per_day.saturating_sub(u32::try_from(spent).unwrap_or(u32::MAX))
    }
}

pub(in crate::failover) fn kind_word(kind: EpisodeKind) -> &'static str {
    match kind {
        EpisodeKind::Failover => "failover",
        EpisodeKind::Switchover => "switchover",
        EpisodeKind::Route => "route",
        EpisodeKind::Follow => "follow",
    }
}

/// What goes into the record is bounded: one slot of the store holds it all.
pub(super) fn bounded(mut text: String) -> String {
    const LONGEST: usize = 400;
    if text.len() > LONGEST {
        let mut end = LONGEST;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}
