//! Making an old primary a standby again: asked for by an operator, weighed on what both servers show, done by a command
//! of the operator's, and watched until the server streams. It is only done while the active side proves to be primary,
//! never to the active side, and any change of the active side ends it.

use std::time::Duration;

use super::command::{Answer, refusal};
use super::{Machine, State};
use crate::failover::action::{self, Action, EventKind, Operator, Receipt, Refusal, RejoinOrder, Source, Survey};
use crate::failover::need::{self, Need};
use crate::failover::phase::{Latch, Method, Rejoin, RejoinStage};
use crate::failover::side::Side;
use crate::types::{BackendName, Moment, Now};
use crate::view::RejoinStatus;

mod typed;

/// What was read of the servers longer ago is read again.
const SURVEY_AGE: Duration = Duration::from_secs(15);
/// From the end of the command until the server must stream: it may have log to replay first.
const STREAMS_WITHIN: Duration = Duration::from_secs(300);
/// The same where nobody saw how the command ended.
const UNSEEN_WITHIN: Duration = Duration::from_secs(60);
/// Lines of one command that go into the history.
const TOLD_LINES: u32 = 100;
/// Of a name that goes into the record, bytes.
const LONGEST_NAME: usize = 60;

/// What is known of rejoins beside the record.
#[derive(Debug, Default)]
pub(super) struct Rejoining {
    survey: Option<(BackendName, Moment, Survey)>,
    /// The command was ordered by this process, or taken up by it.
    ordered: Option<Moment>,
    /// The note is this process' own: its command has not been started yet.
    own: bool,
    /// When the server must stream at the latest.
    until: Option<Moment>,
    lines: u32,
    /// The command's newest line.
    line: Option<String>,
    /// How the last one ended.
    last: Option<RejoinStatus>,
}

impl Machine {
    /// Both servers were read for a rejoin of this side.
    pub(super) fn surveyed(&mut self, backend: BackendName, survey: Survey, now: Now) {
        self.rejoining.survey = Some((backend, now.at, survey));
    }

    /// `rejoin` where probes show lines.
    pub(super) fn rejoin_server(
        &mut self,
        backend: &BackendName,
        method: Option<Method>,
        latch: &Latch,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if let Some(running) = &self.record.rejoin {
            return self.runs_already(running, backend);
        }
        let need = self.needs(backend, latch, now)?;
        let method = chosen(backend, &need, method)?;
        let loss = need.loss(backend.as_str(), method);
        let lost = loss.as_ref().map_or_else(String::new, |loss| format!("; {loss}"));
        let Some(program) = self.service.failover.rejoin_command.as_ref().and_then(|argv| argv.first()) else {
            let sentence = format!(
                "{need}{lost}. No rejoin_command is configured, so nothing runs by itself: type this on the host of {backend}, as the server's account"
            );
            return Ok(Receipt { sentence, episode: None, steps: self.typed(backend, latch, method) });
        };
        let mut steps = vec![format!("run {program} ({} of {backend} from {})", method.words(), latch.active)];
        steps.extend(need.unseen.iter().map(|unseen| format!("mind: {unseen}")));
        if !self
            .sides
            .iter()
            .any(|side| side.name != *backend && !self.is_active(&side.name) && self.is_back(&side.name))
        {
            steps.push(format!("until it streams, nobody can be promoted if {} dies", latch.active));
        }
        steps.push(format!("watch it stream from {}, and lift its quarantine then", latch.active));
        if !dry_run {
            self.record.rejoin = Some(Rejoin {
                backend: backend.clone(),
                primary: latch.active.clone(),
                epoch: latch.epoch,
                method,
                since: now.wall,
                by: short(&operator.name),
                parted: need.parted,
                stage: RejoinStage::Ordered,
            });
            self.rejoining = Rejoining { own: true, ..Rejoining::default() };
            self.persist_aside(now);
        }
        let sentence = format!("{need}{lost}");
        Ok(Receipt { sentence, episode: None, steps })
    }

    fn runs_already(&self, running: &Rejoin, asked: &BackendName) -> Answer {
        let said = format!(
            "the rejoin of {} by {}, ordered by {} at {}, is under way",
            running.backend,
            running.method.words(),
            running.by,
            running.since
        );
        match running.backend == *asked {
            true => Ok(Receipt { sentence: said, episode: None, steps: Vec::new() }),
            false => Err(refusal("rejoin_running", format!("{said}: one at a time"))),
        }
    }

    /// What it needs, by what both servers showed a moment ago.
    fn needs(&self, backend: &BackendName, latch: &Latch, now: Now) -> Result<Need, Refusal> {
        let Some(identity) = &latch.identity else { return Err(refusal("no_line", "the latch knows no timeline")) };
        if !self.active_proves(now) {
            let said = format!(
                "{} does not prove to be primary now ({}): nothing is rebuilt from it, and what {backend} has may be all there is",
                latch.active, self.evidence
            );
            return Err(refusal("active_unproven", said));
        }
        let survey = match &self.rejoining.survey {
            Some((of, at, survey)) if of == backend && now.at.since(*at) <= SURVEY_AGE => survey,
            _ => return Err(refusal("not_surveyed", format!("what {backend} shows was not read: try again"))),
        };
        if let Ok(Source { system_id, timeline, .. }) = &survey.source
            && (*system_id != identity.system_id || *timeline != identity.timeline)
        {
            let said =
                format!("{} shows system {system_id} timeline {timeline}, which is not what is latched", latch.active);
            return Err(refusal("active_unproven", said));
        }
        let facts = self.side(backend).and_then(|side| side.facts.as_ref()).map(|heard| &heard.facts);
        let shown = survey.side.as_ref().ok().and_then(|standing| standing.timeline);
        let history = facts.filter(|facts| facts.timeline == shown).and_then(|facts| facts.history.as_deref());
        Ok(need::of(backend.as_str(), survey, history, identity, latch.active.as_str()))
    }

    /// One turn.
    pub(super) fn tend_rejoin(&mut self, now: Now) {
        let Some(note) = self.record.rejoin.clone() else { return };
        if let Some(why) = self.overtakes(&note) {
            self.actions.push_back(Action::StopRejoin { backend: note.backend.clone() });
            return self.end_rejoin(&note, false, format!("the rejoin of {} is called off: {why}", note.backend), now);
        }
        match note.stage {
            RejoinStage::Ordered if !self.rejoining.own => {
                let said = format!(
                    "this daemon ended when the rejoin of {0} was about to begin, and it is not begun again by itself: \
                     look whether the command runs on this machine, then `proxyctl rejoin {0}`",
                    note.backend
                );
                self.end_rejoin(&note, false, said, now);
            }
            RejoinStage::Ordered => self.order_rejoin(&note, now),
            RejoinStage::Running(process) if self.rejoining.ordered.is_none() => {
                self.rejoining.ordered = Some(now.at);
                let order = RejoinOrder { running: Some(process), ..order_of(&note) };
                self.actions.push_back(Action::Rejoin(order));
                let said = format!("the rejoin of {} goes on after a restart of this daemon", note.backend);
                self.tell(now, EventKind::Notice, said);
            }
            RejoinStage::Running(_) => {}
            RejoinStage::Ended(_) => self.watch_rejoined(&note, now),
        }
    }

    /// A failover wins, and so does whatever else changed the active side.
    fn overtakes(&self, note: &Rejoin) -> Option<String> {
        let latch = self.latch()?;
        if latch.epoch != note.epoch {
            return Some(format!("{} is active in epoch {} now", latch.active, latch.epoch));
        }
        if self.side(&note.backend).is_none() {
            return Some("it is no backend of this service any more".into());
        }
        let waits = note.stage == RejoinStage::Ordered;
        let run = self.run().filter(|_| waits)?;
        Some(format!("episode {} began before its command was started", run.intent.id))
    }

    /// The note is on disk: the command is run, if all still stands as it was weighed.
    fn order_rejoin(&mut self, note: &Rejoin, now: Now) {
        if !matches!(self.state, State::Watching) || self.aside.is_some() || self.rejoining.ordered.is_some() {
            return;
        }
        if self.is_back(&note.backend) || !self.active_proves(now) {
            let said = format!(
                "the rejoin of {} is called off before its command was started: {}",
                note.backend,
                if self.is_back(&note.backend) { "it streams" } else { "the active side does not prove to be primary" }
            );
            return self.end_rejoin(note, false, said, now);
        }
        self.rejoining.ordered = Some(now.at);
        self.actions.push_back(Action::Rejoin(order_of(note)));
        let lost = note.parted.filter(|(_, bytes)| *bytes > 0 && note.method != Method::Follow);
        let lost = lost.map_or_else(String::new, |(at, bytes)| {
            format!("; {bytes} bytes of log written on it after the switch point {at} are given up")
        });
        let (by, name, method) = (&note.by, &note.backend, note.method.words());
        self.tell(
            now,
            EventKind::Notice,
            format!("{by} has {name} made a standby of {} by {method}{lost}", note.primary),
        );
    }

    /// News of the command.
    pub(super) fn hear_rejoining(&mut self, backend: &BackendName, news: action::Rejoining, now: Now) {
        let Some(note) = self.record.rejoin.clone().filter(|note| note.backend == *backend) else { return };
        if self.rejoining.ordered.is_none() {
            return;
        }
        match news {
            action::Rejoining::Started(process) => self.rejoin_stage(RejoinStage::Running(process), now),
            action::Rejoining::Said(line) => {
                let line = super::watch::bounded(line);
                self.rejoining.lines += 1;
                if self.rejoining.lines <= TOLD_LINES {
                    self.tell(now, EventKind::Notice, format!("rejoin of {backend}: {line}"));
                }
                self.rejoining.line = Some(line);
            }
            action::Rejoining::Done => self.rejoin_ran(STREAMS_WITHIN, now),
            action::Rejoining::Unseen => self.rejoin_ran(UNSEEN_WITHIN, now),
            // It may have done all there was to do before it failed.
            action::Rejoining::Failed(why) if self.streams_since(&note) => {
                self.rejoining.line = Some(super::watch::bounded(why));
                self.rejoin_ran(UNSEEN_WITHIN, now);
            }
            action::Rejoining::Failed(why) => {
                let said = format!(
                    "the rejoin of {backend} by {} failed: {why}; its data may be half rebuilt: `proxyctl rejoin {backend}` begins anew",
                    note.method.words()
                );
                self.end_rejoin(&note, false, said, now);
            }
        }
    }

    fn rejoin_ran(&mut self, patience: Duration, now: Now) {
        self.rejoining.until = Some(now.at + patience);
        self.rejoin_stage(RejoinStage::Ended(now.wall), now);
    }

    fn rejoin_stage(&mut self, stage: RejoinStage, now: Now) {
        if let Some(note) = &mut self.record.rejoin {
            note.stage = stage;
            self.persist_aside(now);
        }
    }

    /// The command has ended: the server streams, or must soon.
    fn watch_rejoined(&mut self, note: &Rejoin, now: Now) {
        let until = *self.rejoining.until.get_or_insert(now.at + STREAMS_WITHIN);
        self.rejoining.ordered.get_or_insert(now.at);
        if self.streams_since(note) {
            let took = now.wall.since(note.since);
            let lost = match note.parted {
                Some((at, bytes)) if bytes > 0 && note.method != Method::Follow => {
                    format!("; {bytes} bytes of log written on it after the switch point {at} are gone")
                }
                _ => String::new(),
            };
            let said = format!(
                "{} streams from {} again, after {} that took {} s{lost}",
                note.backend,
                note.primary,
                note.method.words(),
                took.as_secs()
            );
            self.end_rejoin(note, true, said, now);
        } else if now.at >= until {
            let shown = self.side(&note.backend).and_then(|side| side.last_probe.as_ref());
            let shown = shown.map_or_else(String::new, |probe| format!(" ({})", probe.text));
            let said = format!(
                "the command of the rejoin of {0} ended, and {0} does not stream from {1}{shown}: look at its log, then `proxyctl rejoin {0}`",
                note.backend, note.primary
            );
            self.end_rejoin(note, false, said, now);
        }
    }

    /// It streams by an answer that is younger than the order.
    fn streams_since(&self, note: &Rejoin) -> bool {
        let fresh =
            |side: &Side| side.facts.as_ref().is_some_and(|heard| Some(heard.started) >= self.rejoining.ordered);
        self.is_back(&note.backend) && self.side(&note.backend).is_some_and(fresh)
    }

    fn end_rejoin(&mut self, note: &Rejoin, done: bool, said: String, now: Now) {
        let ended = self.rejoin_shown(note, if done { "done" } else { "failed" }, Some(said.clone()));
        self.record.rejoin = None;
        self.rejoining = Rejoining { last: Some(ended), ..Rejoining::default() };
        self.persist_aside(now);
        self.tell(now, if done { EventKind::Released } else { EventKind::Notice }, said);
    }

    /// The rejoin under way, else the last one, for the view.
    pub(in crate::failover) fn rejoin_status(&self) -> Option<RejoinStatus> {
        let Some(note) = &self.record.rejoin else { return self.rejoining.last.clone() };
        let stage = match note.stage {
            RejoinStage::Ordered => "ordered",
            RejoinStage::Running(_) => "running",
            RejoinStage::Ended(_) => "waiting",
        };
        let said = match note.stage {
            RejoinStage::Ended(_) => Some(format!("the command ended; waiting until {} streams", note.backend)),
            _ => self.rejoining.line.clone(),
        };
        Some(self.rejoin_shown(note, stage, said))
    }

    fn rejoin_shown(&self, note: &Rejoin, stage: &str, said: Option<String>) -> RejoinStatus {
        RejoinStatus {
            backend: note.backend.clone(),
            method: note.method.as_str().into(),
            stage: stage.into(),
            since: note.since,
            operator: note.by.clone(),
            parted_at: note.parted.map(|(at, _)| at),
            bytes_given_up: note.parted.filter(|_| note.method != Method::Follow).map(|(_, bytes)| bytes),
            said,
        }
    }
}

/// The way that was asked for, if it is open; else the least that will do.
fn chosen(backend: &BackendName, need: &Need, asked: Option<Method>) -> Result<Method, Refusal> {
    match (asked, need.method) {
        (Some(asked), _) => match need.bar(asked) {
            Some(bar) => Err(refusal("method_barred", format!("{} will not do for {backend}: {bar}", asked.words()))),
            None => Ok(asked),
        },
        (None, Some(method)) => Ok(method),
        (None, None) => Err(refusal("unseen", need.why.clone())),
    }
}

fn order_of(note: &Rejoin) -> RejoinOrder {
    RejoinOrder { backend: note.backend.clone(), primary: note.primary.clone(), method: note.method, running: None }
}

fn short(name: &str) -> String {
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}
