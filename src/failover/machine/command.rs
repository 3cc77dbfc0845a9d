//! What operators may command, and why they are refused. Force overrides witness, lag, cool-down and budget; never
//! order, start, epoch, persistence or identity.

use super::watch::{bounded, kind_word};
use super::{Machine, Run, State, Step};
use crate::config::WitnessRule;
use crate::failover::action::{Command, EventKind, Operator, Receipt, Refusal};
use crate::failover::analysis::{self, Lineage};
use crate::failover::candidate::{self, Verdict as Fitness};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{BackendState, EpisodeKind, Intent, Latch, Pause, Stage};
use crate::failover::side::Side;
use crate::types::{BackendName, Now, WallTime};

pub(super) type Answer = Result<Receipt, Refusal>;

impl Machine {
    /// An operator's command. With `dry_run` nothing happens: the receipt says what would.
    pub fn handle_command(&mut self, command: &Command, operator: &Operator, dry_run: bool, now: Now) -> Answer {
        let operator = &Operator { name: bounded(operator.name.clone()), note: operator.note.clone().map(bounded) };
        let answer = match command {
            Command::Failover { route_only: true, .. } if self.follows_patroni() => Err(refusal(
                "patroni_decides",
                "with authority = \"patroni\" traffic goes where Patroni's leader proves to be: leave --route-only out",
            )),
            Command::Failover { to, route_only: true, .. } => self.command_route(to.as_ref(), operator, dry_run, now),
            Command::Failover { to, force, at, .. } => {
                self.command_failover(to.as_ref(), *force, *at, operator, dry_run, now)
            }
            Command::Switchover { to } => self.command_switchover(to.as_ref(), operator, dry_run, now),
            Command::Restore { to, force } => self.command_restore(to.as_ref(), *force, operator, dry_run, now),
            Command::Adopt { backend } => self.command_adopt(backend, operator, dry_run, now),
            Command::Rejoin { backend, method } => self.command_rejoin(backend, *method, operator, dry_run, now),
            Command::SetState { backend, address, state } => {
                self.command_state(backend, address.as_ref(), *state, operator, dry_run, now)
            }
            Command::Pause => Ok(self.command_pause(operator, dry_run, now)),
            Command::Resume => Ok(self.command_resume(dry_run, now)),
            Command::CheckHealth => Ok(self.command_check(dry_run)),
            Command::Abandon { backend } => self.command_abandon(backend, dry_run, now),
        };
        if !dry_run {
            let said = match &answer {
                Ok(receipt) => format!("{} commanded {}: {}", operator.name, word(command), receipt.sentence),
                Err(refusal) => format!("{} commanded {}, refused: {}", operator.name, word(command), refusal.sentence),
            };
            self.tell_as(now, EventKind::Command, said, None, Some(operator.clone()));
        }
        self.advance(now);
        answer
    }

    /// The latch, if the machine is in a state in which an episode may begin.
    pub(super) fn ready(&self) -> Result<Latch, Refusal> {
        match &self.state {
            State::Episode(run) => Err(refusal(
                "episode_running",
                format!(
                    "episode {} ({} to {}) is under way: wait for its end",
                    run.intent.id,
                    kind_word(run.intent.kind),
                    run.intent.to
                ),
            )),
            State::Starting { .. } => {
                Err(refusal("starting", format!("the start checks have not passed: {}", self.evidence)))
            }
            State::Watching => match self.latch() {
                Some(_) if let Some(said) = self.elder_sibling() => {
                    Err(refusal("second_decider", format!("command it there: {said}")))
                }
                Some(latch) if self.disk_error.is_none() => Ok(latch.clone()),
                Some(_) => Err(refusal("disk", "the state cannot be written, so nothing may be switched")),
                None => Err(refusal("no_latch", "no side is latched yet: `proxyctl adopt BACKEND`")),
            },
        }
    }

    pub(super) fn running_to(&self, to: Option<&BackendName>, kinds: &[EpisodeKind]) -> Option<Receipt> {
        let run = self.run()?;
        let same = kinds.contains(&run.intent.kind) && to.is_none_or(|to| *to == run.intent.to);
        same.then(|| Receipt {
            sentence: format!("episode {} to {} is already under way", run.intent.id, run.intent.to),
            episode: Some(run.intent.id),
            steps: Vec::new(),
        })
    }

    pub(super) fn known(&self, name: &BackendName) -> Result<&Side, Refusal> {
        self.side(name).ok_or_else(|| {
            let names: Vec<&str> = self.sides.iter().map(|side| side.name.as_str()).collect();
            let asked = match name.as_str().trim() {
                "" => "no backend is named".to_owned(),
                _ => format!("there is no backend {name}"),
            };
            refusal("unknown_backend", format!("{asked}; there are {}", names.join(", ")))
        })
    }

    /// The named candidate, or the best one.
    pub(super) fn candidate(
        &self,
        latch: &Latch,
        to: Option<&BackendName>,
        stale_too: bool,
        now: Now,
    ) -> Result<BackendName, Refusal> {
        let t0 = self.suspicion.as_ref().map_or(now.at, |suspicion| suspicion.t0);
        let ranked =
            candidate::rank(&self.service, &self.sides, &latch.active, latch.identity.as_ref(), Some(t0), now.at);
        let takes = |verdict: &Fitness| {
            matches!(verdict, Fitness::Fit { .. }) || stale_too && matches!(verdict, Fitness::Stale(_))
        };
        if let Some(to) = to {
            self.known(to)?;
            if *to == latch.active {
                return Err(refusal("already_active", format!("{to} is already active (epoch {})", latch.epoch)));
            }
            return match ranked.iter().find(|(side, _)| side.name == *to) {
                Some((_, verdict)) if takes(verdict) => Ok(to.clone()),
                Some((_, verdict)) => Err(refusal("unfit", verdict.to_string())),
                None => Err(refusal("unfit", format!("{to} is not a candidate"))),
            };
        }
        match ranked.iter().find(|(_, verdict)| takes(verdict)) {
            Some((side, _)) => Ok(side.name.clone()),
            None => Err(refusal("no_candidate", candidate::refusal(&ranked).1)),
        }
    }

    fn command_failover(
        &mut self,
        to: Option<&BackendName>,
        force: bool,
        at: Option<WallTime>,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if let Some(receipt) =
            self.running_to(to, &[EpisodeKind::Failover, EpisodeKind::Switchover, EpisodeKind::Route])
        {
            let again = if force { self.order_again(dry_run, now) } else { None };
            return Ok(again.unwrap_or(receipt));
        }
        if self.follows_patroni() {
            if force || at.is_some() {
                let said = "Patroni's failover asks for no health and knows no time: leave --force and --at out";
                return Err(refusal("patroni_decides", said));
            }
            return self.command_patroni(EpisodeKind::Failover, to, operator, dry_run, now);
        }
        let latch = self.ready()?;
        if self.service.failover.standby_serves {
            return self.command_route(to, operator, dry_run, now);
        }
        self.needs_promoter()?;
        let healthy = self.active_side().is_some_and(|side| side.state() == Health::Up)
            && self.suspicion.is_none()
            && self.mismatch.is_none();
        if healthy && !force {
            if !self.knows_identity() && !self.replicates() {
                return Err(refusal(
                    "healthy",
                    format!("{} is healthy: --force moves away from it all the same", latch.active),
                ));
            }
            if at.is_some() {
                return Err(refusal(
                    "healthy",
                    format!(
                        "{} is healthy: a switchover chooses its moment itself; leave --at out, or --force",
                        latch.active
                    ),
                ));
            }
            let mut receipt = self.command_switchover(to, operator, dry_run, now)?;
            receipt.sentence = format!("{} is healthy, so this is a switchover: {}", latch.active, receipt.sentence);
            return Ok(receipt);
        }
        self.no_successor(force)?;
        let target = self.candidate(&latch, to, force, now)?;
        self.check_moment(&target, at, now)?;
        if !force {
            self.witness_allows(&target, now)?;
        }
        let state = self.active_side().map_or("unknown", |side| side.state().as_str());
        let why = format!(
            "commanded by {}{}; {} is {state}{}",
            operator.name,
            if force { " with --force" } else { "" },
            latch.active,
            if force { format!("; {}", self.at_stake(&target, now)) } else { String::new() },
        );
        let steps = vec![
            format!("close the gate and cut every connection of {}", latch.active),
            if force {
                "skip recheck, witness, lag, cool-down and budget".into()
            } else {
                format!("probe {} once more", latch.active)
            },
            match at.filter(|at| *at > now.wall) {
                Some(at) => format!("promote {target} as of {at}: until then nobody is served"),
                None => format!("promote {target}"),
            },
            format!("open to {target} in epoch {} once it proves to be primary", latch.epoch.next()),
        ];
        let warn = if force && healthy {
            format!(" {} is healthy: acknowledged rows may be lost.", latch.active)
        } else {
            String::new()
        };
        let stake = if force { format!(" Known of the loss: {}.", self.at_stake(&target, now)) } else { String::new() };
        let sentence = format!("failing over from {} to {target}.{warn}{stake}", latch.active);
        let mut intent = self.intent(EpisodeKind::Failover, target, why, now);
        (intent.operator, intent.forced) = (Some(operator.clone()), force);
        if let Some(stream) = intent.stream.as_mut().filter(|_| at.is_some()) {
            stream.failover_at = at;
        }
        Ok(self.start_episode(intent, dry_run, (sentence, steps), now))
    }

    /// An operator's failover without force waits for the witness as an automatic one does.
    fn witness_allows(&self, target: &BackendName, now: Now) -> Result<(), Refusal> {
        if !self.knows_identity() && !self.replicates() {
            return Ok(());
        }
        if let Some(side) = self.sides.iter().find(|side| side.witness.testimony().alive()) {
            let said =
                format!("{} still receives from the active side: it lives. Stop it first, or use --force", side.name);
            return Err(refusal("witness_alive", said));
        }
        match self.side(target) {
            Some(side) if side.witness.testimony().lost() && analysis::says_so_now(side, &self.service, now.at) => {
                Ok(())
            }
            Some(side)
                if self.service.failover.witness == WitnessRule::Optional && !side.witness.usable(self.timeline()) =>
            {
                Ok(())
            }
            _ => Err(refusal(
                "witness_unknown",
                format!("{target} does not say yet that its replication stream is lost: try again, or use --force"),
            )),
        }
    }

    /// A successor of the latched side always wins: nobody is promoted beside it, not by force either.
    fn no_successor(&self, force: bool) -> Result<(), Refusal> {
        match self.rival() {
            Some((_, said)) if !force || self.has_rival() => Err(refusal("split_brain", said)),
            _ => Ok(()),
        }
    }

    fn needs_promoter(&self) -> Result<(), Refusal> {
        if self.can_promote() {
            return Ok(());
        }
        Err(refusal(
            "no_promoter",
            "promoter is \"none\": promote the standby yourself, pgpivot follows; or move traffic with --route-only",
        ))
    }

    pub(super) fn command_switchover(
        &mut self,
        to: Option<&BackendName>,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if let Some(receipt) = self.running_to(to, &[EpisodeKind::Switchover]) {
            return Ok(receipt);
        }
        if self.follows_patroni() {
            return self.command_patroni(EpisodeKind::Switchover, to, operator, dry_run, now);
        }
        let latch = self.ready()?;
        if self.service.failover.standby_serves {
            return self.command_route(to, operator, dry_run, now);
        }
        self.needs_promoter()?;
        if self.replicates() {
            return self.switchover_clusters(&latch, to, operator, dry_run, now);
        }
        if !self.knows_identity() {
            return Err(refusal("needs_sql", "a switchover without loss needs probe kind \"sql\""));
        }
        self.no_successor(false)?;
        let target = self.candidate(&latch, to, false, now)?;
        let active_ok =
            self.active_side().is_some_and(|side| side.state() == Health::Up && side.role() == Role::Primary);
        if !active_ok || self.mismatch.is_some() || self.suspicion.is_some() {
            return Err(refusal(
                "not_healthy",
                format!("{} is not healthy: {}. Use `proxyctl failover`", latch.active, self.evidence),
            ));
        }
        if let Some(identity) = &latch.identity
            && !self.side(&target).is_some_and(|side| analysis::streams_on(side, identity.timeline))
        {
            return Err(refusal("not_streaming", format!("{target} does not stream from {} now", latch.active)));
        }
        let steps = vec![
            format!(
                "hold newcomers, let running work end for up to {:?}, then cut",
                self.service.failover.drain_timeout
            ),
            format!("make {} read-only and read its last position", latch.active),
            format!("wait until {target} has replayed it; otherwise everything is undone"),
            format!("promote {target} and open to it in epoch {}", latch.epoch.next()),
        ];
        let why = format!("commanded by {}", operator.name);
        let sentence = format!("switching over from {} to {target}", latch.active);
        self.start(EpisodeKind::Switchover, target, why, false, operator, dry_run, (sentence, steps), now)
    }

    fn command_pause(&mut self, operator: &Operator, dry_run: bool, now: Now) -> Receipt {
        let sentence = match &self.record.paused {
            Some(pause) => format!("already paused by {}", pause.by.name),
            None => {
                "paused: nothing is decided automatically until `proxyctl resume`; detection, holding and cutting go on"
                    .to_owned()
            }
        };
        if !dry_run && self.record.paused.is_none() {
            self.record.paused = Some(Pause { by: operator.clone(), since: now.wall });
            self.persist_aside(now);
        }
        Receipt { sentence, episode: None, steps: Vec::new() }
    }

    fn command_resume(&mut self, dry_run: bool, now: Now) -> Receipt {
        let paused = self.record.paused.is_some();
        if !dry_run && paused {
            self.record.paused = None;
            self.persist_aside(now);
        }
        let sentence = if paused { "resumed: automatic decisions are allowed again" } else { "was not paused" };
        Receipt { sentence: sentence.into(), episode: None, steps: Vec::new() }
    }

    fn command_check(&mut self, dry_run: bool) -> Receipt {
        if !dry_run {
            self.probe_all();
        }
        Receipt { sentence: "every backend is being probed".into(), episode: None, steps: Vec::new() }
    }

    #[expect(clippy::too_many_arguments, reason = "one call site per command; a struct would only rename them")]
    pub(super) fn start(
        &mut self,
        kind: EpisodeKind,
        to: BackendName,
        why: String,
        forced: bool,
        operator: &Operator,
        dry_run: bool,
        (sentence, steps): (String, Vec<String>),
        now: Now,
    ) -> Answer {
        let mut intent = self.intent(kind, to, why, now);
        intent.operator = Some(operator.clone());
        intent.forced = forced;
        if kind == EpisodeKind::Follow {
            intent.stage = Stage::Sent;
        }
        Ok(self.start_episode(intent, dry_run, (sentence, steps), now))
    }

    /// Begins it, unless this is a dry run.
    fn start_episode(
        &mut self,
        intent: Intent,
        dry_run: bool,
        (sentence, steps): (String, Vec<String>),
        now: Now,
    ) -> Receipt {
        let (id, kind) = (intent.id, intent.kind);
        if !dry_run {
            let closed = kind != EpisodeKind::Switchover;
            let mut run = Run::new(intent, Step::Deciding { ticket: 0 }, closed, now.at);
            run.fence_needed = match kind {
                EpisodeKind::Failover => self.service.failover.fence_required,
                EpisodeKind::Route => self.fences_first(now),
                EpisodeKind::Switchover | EpisodeKind::Follow => false,
            };
            if self.suspicion.is_none() {
                let clock = self.witness_clock(now).filter(|_| self.replicates());
                for side in &mut self.sides {
                    side.witness.begin(now.at, clock);
                }
            }
            self.begin(run, now);
        }
        Receipt { sentence, episode: (!dry_run).then_some(id), steps }
    }

    /// How a rival stands to the latch, for the view.
    pub(in crate::failover) fn lineage_of(&self, side: &Side) -> Option<Lineage> {
        let identity = self.latch()?.identity.as_ref()?;
        Some(analysis::lineage(&side.facts.as_ref()?.facts, identity, side.witness.followed()))
    }
}

pub(super) fn refusal(code: &str, sentence: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), sentence: sentence.into() }
}

fn word(command: &Command) -> &'static str {
    match command {
        Command::Failover { route_only: true, .. } => "failover --route-only",
        Command::Failover { .. } => "failover",
        Command::Switchover { .. } => "switchover",
        Command::Restore { .. } => "restore",
        Command::Adopt { .. } => "adopt",
        Command::Rejoin { .. } => "rejoin",
        Command::SetState { state, .. } => match state {
            BackendState::Ready => "backend ready",
            BackendState::Drain => "backend drain",
            BackendState::Maint => "backend maint",
        },
        Command::Pause => "pause",
        Command::Resume => "resume",
        Command::CheckHealth => "check-health",
        Command::Abandon { .. } => "abandon",
    }
}
