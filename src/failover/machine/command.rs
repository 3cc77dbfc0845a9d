//! What operators may command, and why they are refused. Force overrides witness, lag, cool-down and budget; never
//! order, start, epoch, persistence or identity.

use super::watch::kind_word;
use super::{Machine, Run, State, Step};
use crate::config::{ConfiguredRole, WitnessRule};
use crate::failover::action::{Command, EventKind, Operator, Receipt, Refusal};
use crate::failover::analysis::{self, Lineage};
use crate::failover::candidate::{self, Verdict as Fitness};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{EpisodeKind, Latch, Pause, Stage};
use crate::failover::side::Side;
use crate::types::{BackendName, Now};

type Answer = Result<Receipt, Refusal>;

impl Machine {
    /// An operator's command. With `dry_run` nothing happens: the receipt says what would.
    pub fn handle_command(&mut self, command: &Command, operator: &Operator, dry_run: bool, now: Now) -> Answer {
        let answer = match command {
            Command::Failover {
                to, route_only: true, ..
            } => self.command_route(to.as_ref(), operator, dry_run, now),
            Command::Failover { to, force, .. } => self.command_failover(to.as_ref(), *force, operator, dry_run, now),
            Command::Switchover { to } => self.command_switchover(to.as_ref(), operator, dry_run, now),
            Command::Restore { to } => self.command_restore(to.as_ref(), operator, dry_run, now),
            Command::Adopt { backend } => self.command_adopt(backend, operator, dry_run, now),
            Command::Pause => Ok(self.command_pause(operator, dry_run, now)),
            Command::Resume => Ok(self.command_resume(dry_run)),
            Command::CheckHealth => Ok(self.command_check(dry_run)),
            Command::Abandon { backend } => self.command_abandon(backend, dry_run, now),
        };
        if !dry_run {
            let said = match &answer {
                Ok(receipt) => format!("{} commanded {}: {}", operator.name, word(command), receipt.sentence),
                Err(refusal) => format!(
                    "{} commanded {}, refused: {}",
                    operator.name,
                    word(command),
                    refusal.sentence
                ),
            };
            self.tell_as(now, EventKind::Command, said, None, Some(operator.clone()));
        }
        self.advance(now);
        answer
    }

    /// The latch, if the machine is in a state in which an episode may begin.
    fn ready(&self) -> Result<Latch, Refusal> {
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
            State::Starting { .. } => Err(refusal(
                "starting",
                format!("the start checks have not passed: {}", self.evidence),
            )),
            State::Watching => match self.latch() {
                Some(latch) if self.disk_error.is_none() => Ok(latch.clone()),
                Some(_) => Err(refusal(
                    "disk",
                    "the state cannot be written, so nothing may be switched",
                )),
                None => Err(refusal("no_latch", "no side is latched yet: `proxyctl adopt BACKEND`")),
            },
        }
    }

    fn running_to(&self, to: Option<&BackendName>, kinds: &[EpisodeKind]) -> Option<Receipt> {
        let run = self.run()?;
        let same = kinds.contains(&run.intent.kind) && to.is_none_or(|to| *to == run.intent.to);
        same.then(|| Receipt {
            sentence: format!("episode {} to {} is already under way", run.intent.id, run.intent.to),
            episode: Some(run.intent.id),
            steps: Vec::new(),
        })
    }

    fn known(&self, name: &BackendName) -> Result<&Side, Refusal> {
        self.side(name).ok_or_else(|| {
            let names: Vec<&str> = self.sides.iter().map(|side| side.name.as_str()).collect();
            refusal(
                "unknown_backend",
                format!("there is no backend {name}; there are {}", names.join(", ")),
            )
        })
    }

    /// The named candidate, or the best one.
    fn candidate(&self, latch: &Latch, to: Option<&BackendName>, stale_too: bool) -> Result<BackendName, Refusal> {
        let now = crate::types::Moment::default();
        let t0 = self.suspicion.as_ref().map_or(now, |suspicion| suspicion.t0);
        let ranked = candidate::rank(
            &self.service,
            &self.sides,
            &latch.active,
            latch.identity.as_ref(),
            Some(t0),
            now,
        );
        let takes = |verdict: &Fitness| {
            matches!(verdict, Fitness::Fit { .. }) || stale_too && matches!(verdict, Fitness::Stale(_))
        };
        if let Some(to) = to {
            self.known(to)?;
            if *to == latch.active {
                return Err(refusal(
                    "already_active",
                    format!("{to} is already active (epoch {})", latch.epoch),
                ));
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
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if let Some(receipt) = self.running_to(
            to,
            &[EpisodeKind::Failover, EpisodeKind::Switchover, EpisodeKind::Route],
        ) {
            return Ok(receipt);
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
            if !self.knows_identity() {
                return Err(refusal(
                    "healthy",
                    format!("{} is healthy: --force moves away from it all the same", latch.active),
                ));
            }
            let mut receipt = self.command_switchover(to, operator, dry_run, now)?;
            receipt.sentence = format!(
                "{} is healthy, so this is a switchover: {}",
                latch.active, receipt.sentence
            );
            return Ok(receipt);
        }
        let target = self.candidate(&latch, to, force)?;
        if !force {
            self.witness_allows(&target)?;
        }
        let state = self.active_side().map_or("unknown", |side| side.state().as_str());
        let why = format!(
            "commanded by {}{}; {} is {state}",
            operator.name,
            if force { " with --force" } else { "" },
            latch.active
        );
        let steps = vec![
            format!("close the gate and cut every connection of {}", latch.active),
            if force {
                "skip recheck, witness, lag, cool-down and budget".into()
            } else {
                format!("probe {} once more", latch.active)
            },
            format!("promote {target}"),
            format!(
                "open to {target} in epoch {} once it proves to be primary",
                latch.epoch.next()
            ),
        ];
        let warn = if force && healthy {
            format!(" {} is healthy: acknowledged rows may be lost.", latch.active)
        } else {
            String::new()
        };
        let sentence = format!("failing over from {} to {target}.{warn}", latch.active);
        self.start(
            EpisodeKind::Failover,
            target,
            why,
            force,
            operator,
            dry_run,
            (sentence, steps),
            now,
        )
    }

    /// An operator's failover without force waits for the witness as an automatic one does.
    fn witness_allows(&self, target: &BackendName) -> Result<(), Refusal> {
        if self.service.failover.witness == WitnessRule::Optional || !self.knows_identity() {
            return Ok(());
        }
        if let Some(side) = self.sides.iter().find(|side| side.witness.testimony().alive()) {
            let said = format!(
                "{} still receives from the active side: it lives. Stop it first, or use --force",
                side.name
            );
            return Err(refusal("witness_alive", said));
        }
        match self.side(target) {
            Some(side) if side.witness.testimony().lost() => Ok(()),
            _ => Err(refusal(
                "witness_unknown",
                format!("{target} does not say yet that its replication stream is lost: try again, or use --force"),
            )),
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

    fn command_switchover(&mut self, to: Option<&BackendName>, operator: &Operator, dry_run: bool, now: Now) -> Answer {
        if let Some(receipt) = self.running_to(to, &[EpisodeKind::Switchover]) {
            return Ok(receipt);
        }
        let latch = self.ready()?;
        if self.service.failover.standby_serves {
            return self.command_route(to, operator, dry_run, now);
        }
        self.needs_promoter()?;
        if !self.knows_identity() {
            return Err(refusal(
                "needs_sql",
                "a switchover without loss needs probe kind \"sql\"",
            ));
        }
        let target = self.candidate(&latch, to, false)?;
        let active_ok = self
            .active_side()
            .is_some_and(|side| side.state() == Health::Up && side.role() == Role::Primary);
        if !active_ok || self.mismatch.is_some() || self.suspicion.is_some() {
            return Err(refusal(
                "not_healthy",
                format!(
                    "{} is not healthy: {}. Use `proxyctl failover`",
                    latch.active, self.evidence
                ),
            ));
        }
        if let Some(identity) = &latch.identity
            && !self
                .side(&target)
                .is_some_and(|side| analysis::streams_on(side, identity.timeline))
        {
            return Err(refusal(
                "not_streaming",
                format!("{target} does not stream from {} now", latch.active),
            ));
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
        self.start(
            EpisodeKind::Switchover,
            target,
            why,
            false,
            operator,
            dry_run,
            (sentence, steps),
            now,
        )
    }

    fn command_restore(&mut self, to: Option<&BackendName>, operator: &Operator, dry_run: bool, now: Now) -> Answer {
        let latch = self.ready()?;
        let home = match to {
            Some(to) => self.known(to)?.name.clone(),
            None => {
                let configured = self
                    .sides
                    .iter()
                    .find(|side| side.config.role == Some(ConfiguredRole::Primary));
                let Some(side) = configured else {
                    return Err(refusal(
                        "no_home",
                        "no backend has role = \"primary\": name one with --to",
                    ));
                };
                side.name.clone()
            }
        };
        if home == latch.active {
            return Err(refusal(
                "already_home",
                format!("{home} is active already (epoch {})", latch.epoch),
            ));
        }
        let side = self.known(&home)?;
        if let Some(why) = &side.quarantine {
            return Err(refusal(
                "quarantined",
                format!(
                    "{home} is quarantined: {why}. Rebuild it as a standby of {} (pg_rewind or pg_basebackup), then restore",
                    latch.active
                ),
            ));
        }
        if let Some(identity) = &latch.identity
            && !analysis::streams_on(side, identity.timeline)
        {
            return Err(refusal(
                "not_rebuilt",
                format!(
                    "{home} is {} and does not stream from {} on timeline {}: rebuild it as a standby, then restore",
                    side.state().as_str(),
                    latch.active,
                    identity.timeline
                ),
            ));
        }
        self.command_switchover(Some(&home), operator, dry_run, now)
    }

    fn command_route(&mut self, to: Option<&BackendName>, operator: &Operator, dry_run: bool, now: Now) -> Answer {
        if let Some(receipt) = self.running_to(to, &[EpisodeKind::Route]) {
            return Ok(receipt);
        }
        let latch = self.ready()?;
        let target = match to {
            Some(to) => self.known(to)?,
            None => candidate::best_server(&self.sides, &latch.active)
                .ok_or_else(|| refusal("no_candidate", "no other backend is up"))?,
        };
        if target.name == latch.active {
            return Err(refusal(
                "already_active",
                format!("{} is already active (epoch {})", target.name, latch.epoch),
            ));
        }
        if target.state() != Health::Up || target.quarantine.is_some() {
            let why = target
                .quarantine
                .clone()
                .unwrap_or_else(|| target.state().as_str().to_owned());
            return Err(refusal(
                "unfit",
                format!("{} does not prove to serve: {why}", target.name),
            ));
        }
        if !self.service.failover.standby_serves {
            if self.knows_identity() && target.role() != Role::Primary {
                return Err(refusal(
                    "not_primary",
                    format!(
                        "{} is not a primary: route-only would send writes to a standby",
                        target.name
                    ),
                ));
            }
            let down = self.active_side().is_none_or(|side| side.state() == Health::Down);
            if !down {
                return Err(refusal(
                    "not_fenced",
                    format!(
                        "{} is neither down nor fenced: two primaries would take writes",
                        latch.active
                    ),
                ));
            }
        }
        let target = target.name.clone();
        let steps = vec![
            format!("close the gate and cut every connection of {}", latch.active),
            format!("open to {target} in epoch {}; nothing is promoted", latch.epoch.next()),
        ];
        let sentence = format!("moving traffic from {} to {target}", latch.active);
        let why = format!("commanded by {}", operator.name);
        self.start(
            EpisodeKind::Route,
            target,
            why,
            true,
            operator,
            dry_run,
            (sentence, steps),
            now,
        )
    }

    fn command_adopt(&mut self, backend: &BackendName, operator: &Operator, dry_run: bool, now: Now) -> Answer {
        if let State::Episode(run) = &self.state {
            return Err(refusal(
                "episode_running",
                format!("episode {} is under way: wait for its end", run.intent.id),
            ));
        }
        let side = self.known(backend)?;
        if self.is_active(backend) && self.mismatch.is_none() && matches!(self.state, State::Watching) {
            return Err(refusal("already_active", format!("{backend} is already active")));
        }
        if self.knows_identity() {
            let facts = side.facts.as_ref().map(|heard| &heard.facts);
            let Some(facts) =
                facts.filter(|f| f.role == Role::Primary && f.system_id.is_some() && f.timeline.is_some())
            else {
                let shown = side
                    .last_probe
                    .as_ref()
                    .map_or("nothing was heard", |probe| probe.text.as_str());
                return Err(refusal(
                    "not_primary",
                    format!("{backend} does not prove to be primary ({shown}): promote it first"),
                ));
            };
            let higher = self.sides.iter().find(|other| {
                other.name != *backend
                    && other.role() == Role::Primary
                    && other
                        .facts
                        .as_ref()
                        .is_some_and(|h| h.facts.system_id == facts.system_id && h.facts.timeline > facts.timeline)
            });
            if let Some(other) = higher {
                return Err(refusal(
                    "newer_primary",
                    format!("{} is primary on a higher timeline: adopt that one", other.name),
                ));
            }
        } else if side.state() != Health::Up {
            return Err(refusal("not_up", format!("{backend} is {}", side.state().as_str())));
        }
        let active = self.latch().map(|latch| latch.active.clone());
        let steps = vec![
            active.map_or_else(
                || "nobody is cut".to_owned(),
                |name| format!("cut every connection of {name}"),
            ),
            format!("latch {backend} and open to it; nothing is promoted"),
        ];
        let why = format!("adopted by {}", operator.name);
        self.start(
            EpisodeKind::Follow,
            backend.clone(),
            why,
            false,
            operator,
            dry_run,
            (format!("adopting {backend}"), steps),
            now,
        )
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
            self.record.paused = Some(Pause {
                by: operator.clone(),
                since: now.wall,
            });
            self.persist();
        }
        Receipt {
            sentence,
            episode: None,
            steps: Vec::new(),
        }
    }

    fn command_resume(&mut self, dry_run: bool) -> Receipt {
        let paused = self.record.paused.is_some();
        if !dry_run && paused {
            self.record.paused = None;
            self.persist();
        }
        let sentence = if paused {
            "resumed: automatic decisions are allowed again"
        } else {
            "was not paused"
        };
        Receipt {
            sentence: sentence.into(),
            episode: None,
            steps: Vec::new(),
        }
    }

    fn command_check(&mut self, dry_run: bool) -> Receipt {
        if !dry_run {
            self.probe_all();
        }
        Receipt {
            sentence: "every backend is being probed".into(),
            episode: None,
            steps: Vec::new(),
        }
    }

    fn command_abandon(&mut self, backend: &BackendName, dry_run: bool, now: Now) -> Answer {
        let pending = self
            .run()
            .filter(|run| run.intent.to == *backend && matches!(run.step, Step::Promoting { .. }));
        let Some(run) = pending else {
            return Err(refusal(
                "nothing_pending",
                format!("no promotion of {backend} is pending"),
            ));
        };
        let id = run.intent.id;
        let from = run
            .intent
            .from
            .as_ref()
            .map_or("nobody", BackendName::as_str)
            .to_owned();
        if self.side(backend).is_some_and(|side| side.state() == Health::Up) {
            return Err(refusal("target_answers", format!("{backend} answers: it is not off")));
        }
        if !dry_run {
            self.cancel(format!("an operator states that {backend} is off"), now);
        }
        let sentence =
            format!("episode {id} ends without {backend}; traffic goes back to {from} once it proves itself");
        Ok(Receipt {
            sentence,
            episode: Some(id),
            steps: Vec::new(),
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call site per command; a struct would only rename them"
    )]
    fn start(
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
        let id = intent.id;
        if !dry_run {
            let closed = kind != EpisodeKind::Switchover;
            let mut run = Run::new(intent, Step::Deciding { ticket: 0 }, closed, now.at);
            run.fence_needed = self.service.failover.fence_required && kind == EpisodeKind::Failover;
            if self.suspicion.is_none() {
                for side in &mut self.sides {
                    side.witness.begin(now.at, None);
                }
            }
            self.begin(run, now);
        }
        Ok(Receipt {
            sentence,
            episode: (!dry_run).then_some(id),
            steps,
        })
    }

    /// How a rival stands to the latch, for the view.
    pub(in crate::failover) fn lineage_of(&self, side: &Side) -> Option<Lineage> {
        let identity = self.latch()?.identity.as_ref()?;
        Some(analysis::lineage(
            &side.facts.as_ref()?.facts,
            identity,
            side.witness.streamed_at().is_some(),
        ))
    }
}

fn refusal(code: &str, sentence: impl Into<String>) -> Refusal {
    Refusal {
        code: code.into(),
        sentence: sentence.into(),
    }
}

fn word(command: &Command) -> &'static str {
    match command {
        Command::Failover { route_only: true, .. } => "failover --route-only",
        Command::Failover { .. } => "failover",
        Command::Switchover { .. } => "switchover",
        Command::Restore { .. } => "restore",
        Command::Adopt { .. } => "adopt",
        Command::Pause => "pause",
        Command::Resume => "resume",
        Command::CheckHealth => "check-health",
        Command::Abandon { .. } => "abandon",
    }
}
