//! Physical cluster replication as the latch sees it: what was read feeds the witnesses, a failover that others ordered
//! is adopted, and the start is reconciled with what was promoted last.

use std::borrow::Cow;
use std::time::Duration;

use super::{Machine, Run, State, Step};
use crate::config::{ConfiguredRole, ForeignPromotion, Replication, Service};
use crate::failover::action::{Action, EventKind};
use crate::failover::health::State as Health;
use crate::failover::observation::{Facts, Failure, Observation, Role, Verdict};
use crate::failover::phase::{BlockReason, EpisodeKind, Latch, Stage, StreamOrder};
use crate::failover::replication::{Activation, Known, Report, Scope, Status, Stream};
use crate::failover::side::Side;
use crate::failover::witness::Witness;
use crate::types::{BackendName, Moment, Now, WallTime};

impl Machine {
    /// One reading of the streams.
    pub fn handle_streams(&mut self, report: &Report, now: Now) {
        if report.started < self.woke || !self.replicates() {
            return;
        }
        self.know_ordered(report);
        self.streams.hear(report, now);
        match &report.result {
            Ok(streams) => {
                self.count_unheeded(streams, report);
                self.feed(report.started, now);
            }
            Err(unread) => {
                for side in &mut self.sides {
                    side.witness.unread(report.started, &unread.sentence);
                }
            }
        }
        self.find_inbound();
        self.advance(now);
    }

    /// A stream that was failed over before a restart and is gone since was never read by this process: that it is gone
    /// must be known of it all the same.
    fn know_ordered(&mut self, report: &Report) {
        let gone = report.result.as_ref().is_err_and(|unread| unread.gone);
        let (Some(run), Scope::One(id)) = (self.run().filter(|_| gone), &report.scope) else { return };
        let (Some(order), Some(from)) = (&run.intent.stream, &run.intent.from) else { return };
        if order.id == *id && self.streams.by_id(id).is_none() {
            let (from, to) = (from.clone(), run.intent.to.clone());
            self.streams.assume(Stream { status: Status::Canceled, ..Stream::unread(id.clone(), from, to) }, report);
        }
    }

    /// What the control plane records of a cluster: shown and written down, and it moves nothing.
    pub fn handle_note(&mut self, backend: &BackendName, note: Option<String>, now: Now) {
        let Some(side) = self.side_mut(backend) else { return };
        let before = std::mem::replace(&mut side.note, note.clone());
        let said = match (&before, note) {
            (_, Some(note)) => format!("{backend}: the control plane says {note}; that is no failure"),
            (Some(before), None) => format!("{backend}: the control plane no longer says {before}"),
            (None, None) => return,
        };
        self.tell(now, EventKind::Notice, said);
    }

    /// How often the driver reads the streams: one that matters by its id, and all of them.
    pub fn stream_pace(&self) -> Option<(Duration, Duration)> {
        let refresh = self.service.replication.as_ref()?.refresh();
        let calm = self.suspicion.is_none() && self.run().is_none() && self.latch().is_some();
        Some((if calm { refresh / 3 } else { refresh / 6 }, if calm { refresh * 2 } else { refresh / 3 }))
    }

    /// The stream that matters now: the one that is failed over, else the one towards the candidate.
    pub fn stream_to_watch(&self) -> Option<&str> {
        if let Some(order) = self.run().and_then(|run| run.intent.stream.as_ref()) {
            return Some(&order.id);
        }
        self.sides.iter().find_map(|side| Some(side.inbound.as_ref()?.as_ref().ok()?.stream.id.as_str()))
    }

    /// Clusters joined by physical replication.
    pub(in crate::failover) fn replicates(&self) -> bool {
        self.service.replication.is_some()
    }

    /// A witness as this service needs it.
    pub(super) fn new_witness(service: &Service) -> Witness {
        let most = service.failover.max_replication_lag;
        let of = |replication: &Replication| Witness::of_replication(replication.refresh(), most);
        service.replication.as_ref().map_or_else(Witness::default, of)
    }

    /// A standby cluster answers that it does not serve: that is how a live one answers. The same word from the active
    /// side is a failure.
    pub(super) fn as_cluster<'a>(&self, seen: &'a Observation) -> Cow<'a, Observation> {
        let standby = self.replicates() && !self.is_active(&seen.backend);
        if !standby || seen.verdict != Verdict::Failed(Failure::NotServing) {
            return Cow::Borrowed(seen);
        }
        let facts = Facts { role: Role::Standby, ..Facts::default() };
        Cow::Owned(Observation { verdict: Verdict::Answered(Box::new(facts)), ..seen.clone() })
    }

    /// Hands what was read at `started` to the standbys' witnesses.
    pub(super) fn feed(&mut self, started: Moment, now: Now) {
        let Some(active) = self.active_name() else { return };
        let Some(clock) = self.streams.clock(now) else { return };
        for side in self.sides.iter_mut().filter(|side| side.name != active) {
            let touched = |known: &&Known| {
                known.started == started && known.stream.from == active && known.stream.to == side.name
            };
            let ended = |known: &Known| known.gone || known.stream.status >= Status::Completed;
            let newest = self.streams.all().filter(touched).max_by_key(|known| !ended(known));
            if let Some(known) = newest {
                side.witness.replicated(known, clock);
            }
        }
    }

    /// For each standby the one stream that leads to it from the active side, or why there is none.
    pub(super) fn find_inbound(&mut self) {
        let Some(active) = self.active_name().filter(|_| self.replicates()) else { return };
        let found: Vec<_> = self.sides.iter().map(|side| self.inbound(&active, &side.name)).collect();
        for (side, found) in self.sides.iter_mut().zip(found) {
            side.inbound = (side.name != active).then_some(found);
        }
    }

    fn inbound(&self, from: &BackendName, to: &BackendName) -> Result<Known, String> {
        let live: Vec<&Known> = self.streams.live(from, to).collect();
        if let Some(id) = self.pinned(from) {
            return match live.iter().find(|known| known.stream.id == id) {
                Some(known) => Ok((*known).clone()),
                None => Err(format!(
                    "the configured stream {id} is none from {from} to {to} that could be failed over{}",
                    self.streams.by_id(id).map_or_else(String::new, |known| {
                        let stream = &known.stream;
                        format!(": it leads from {} to {} and is {}", stream.from, stream.to, stream.status.as_str())
                    })
                )),
            };
        }
        match live.as_slice() {
            [one] => Ok((*one).clone()),
            [] => match self.streams.trouble() {
                Some(trouble) => Err(format!("the replication streams cannot be read: {trouble}")),
                None => Err(format!("no replication stream leads from {from} to {to}{}", self.ended(from, to))),
            },
            several => {
                let word = |k: &&Known| format!("{} ({})", k.stream.id, k.stream.status.as_str());
                let several: Vec<String> = several.iter().map(word).collect();
                Err(format!(
                    "{} replication streams lead from {from} to {to}: {}; cancel all but one, or name one as stream_id",
                    several.len(),
                    several.join(", ")
                ))
            }
        }
    }

    /// What became of the one that did.
    fn ended(&self, from: &BackendName, to: &BackendName) -> String {
        let canceled = |known: &&Known| {
            let stream = &known.stream;
            stream.from == *from && stream.to == *to && !known.gone && stream.status == Status::Canceled
        };
        let newest = self.streams.all().filter(canceled).max_by_key(|known| known.started);
        newest.map_or_else(String::new, |known| format!(": {} is {}", known.stream.id, known.stream.state()))
    }

    /// The configured stream, where the configured primary is active.
    fn pinned(&self, from: &BackendName) -> Option<&str> {
        let Some(Replication::Cloud(cloud)) = &self.service.replication else { return None };
        let home = self.side(from)?.config.role == Some(ConfiguredRole::Primary);
        cloud.stream_id.as_deref().filter(|_| home)
    }

    /// What would be failed over: the stream towards this side.
    pub(super) fn stream_order(&self, kind: EpisodeKind, to: &BackendName) -> Option<StreamOrder> {
        if !matches!(kind, EpisodeKind::Failover | EpisodeKind::Switchover) {
            return None;
        }
        let stream = &self.side(to)?.inbound.as_ref()?.as_ref().ok()?.stream;
        let failover_at = match &self.service.replication {
            Some(Replication::Cloud(cloud)) if kind == EpisodeKind::Failover => cloud.failover_at,
            _ => None,
        };
        let replicated = self.side(to)?.witness.replication()?.replicated();
        Some(StreamOrder { id: stream.id.clone(), failover_at, replicated, stopped_at: None })
    }

    /// May this stream be failed over to that moment? At most an hour ahead, and not before what is retained.
    pub(super) fn within_window(&self, to: &BackendName, at: WallTime, now: Now) -> Result<(), String> {
        let Some(Some(Ok(known))) = self.side(to).map(|side| &side.inbound) else { return Ok(()) };
        let clock = self.streams.clock(now).unwrap_or(now.wall);
        let latest = clock.plus(Duration::from_secs(3600));
        if at > latest {
            return Err(format!("{at} is more than an hour ahead (it is {clock} there): the latest would be {latest}"));
        }
        match known.stream.retained {
            Some(retained) if at < retained => {
                Err(format!("{at} is no longer retained by stream {}: the earliest is {retained}", known.stream.id))
            }
            _ => Ok(()),
        }
    }

    /// Why the configured `failover_at` would keep this side from being promoted now.
    pub(in crate::failover) fn configured_moment(&self, to: &BackendName, now: Now) -> Option<String> {
        let Some(Replication::Cloud(cloud)) = &self.service.replication else { return None };
        let why = self.within_window(to, cloud.failover_at?, now).err()?;
        Some(format!("the configured failover_at cannot be used: {why}"))
    }

    /// What a latch that is written now takes account of: the stream that made it, else the newest completed one.
    pub(super) fn activation(&self) -> Option<Activation> {
        let order = self.order().and_then(|order| self.streams.by_id(&order.id));
        if let Some(stream) = order.map(|known| &known.stream).filter(|stream| stream.status == Status::Completed) {
            // Whatever was known as completed by then is accounted for, by whichever clock it was stamped.
            let at = stream.activated.max(self.newest_activation().map(|newest| newest.at)).unwrap_or_default();
            return Some(Activation { stream: stream.id.clone(), at });
        }
        self.newest_activation()
    }

    /// The stream that leads from this side to another one now.
    pub(super) fn follower_of(&self, active: &BackendName) -> Option<String> {
        let live = |side: &Side| self.streams.live(active, &side.name).next().map(|known| known.stream.id.clone());
        self.sides.iter().find_map(live)
    }

    /// Whoever is replicated to does not serve: should it do so at a start at which no stream can be read, others have
    /// promoted it.
    pub(super) fn note_follower(&mut self, now: Now) {
        let read = self.replicates() && self.streams.told_since(self.woke) && matches!(self.state, State::Watching);
        let Some(active) = self.active_name().filter(|_| read && self.aside.is_none()) else { return };
        let follower = self.follower_of(&active);
        if let Some(latch) = self.record.latch.as_mut().filter(|latch| latch.follower != follower) {
            latch.follower = follower;
            self.persist_aside(now);
        }
    }

    /// The newest completed stream, in whatever direction.
    pub(super) fn newest_activation(&self) -> Option<Activation> {
        let known = self.latch().and_then(|latch| latch.replication.clone());
        let newest = self
            .streams
            .newest_completed()
            .map(|stream| Activation { stream: stream.id.clone(), at: stream.activated.unwrap_or_default() });
        match (known, newest) {
            (Some(known), Some(newest)) if newest.at < known.at => Some(known),
            (known, newest) => newest.or(known),
        }
    }

    /// A stream that somebody else fails over, or failed over since the latch was written.
    pub(super) fn foreign_stream(&self, now: Now) -> Option<(Stream, String)> {
        let latch = self.latch().filter(|_| self.replicates())?;
        let mut all = self.streams.all().filter(|known| !known.gone).map(|known| &known.stream);
        if let Some(stream) = all.find(|s| s.from == latch.active && self.streams.fails_over(s, now)) {
            let said =
                format!("stream {} from {} to {} fails over, ordered by others", stream.id, stream.from, stream.to);
            return Some((stream.clone(), said));
        }
        let newest = self.streams.newest_completed().filter(|newest| newest.to != latch.active)?;
        let when = newest.activated.map_or_else(String::new, |at| format!(" at {at}"));
        let said = format!("stream {} from {} completed{when}, ordered by others", newest.id, newest.from);
        (!is_accounted(latch, newest)).then(|| (newest.clone(), said))
    }

    /// Adopts it: closed and cut at once, latched when the new side proves to serve.
    pub(super) fn follow_stream(&mut self, now: Now) -> bool {
        if self.service.failover.foreign_promotion == Some(ForeignPromotion::Block) {
            return false;
        }
        let Some((stream, why)) = self.foreign_stream(now) else { return false };
        if self.side(&stream.to).is_none() {
            return false;
        }
        let mut intent = self.intent(EpisodeKind::Follow, stream.to, why, now);
        intent.stage = Stage::Sent;
        intent.stream =
            Some(StreamOrder { id: stream.id, failover_at: stream.failover_at, replicated: None, stopped_at: None });
        self.begin(Run::new(intent, Step::Deciding { ticket: 0 }, true, now.at), now);
        self.actions.push_back(Action::ReadStreams { stream: self.stream_to_watch().map(str::to_owned) });
        true
    }

    /// What must be said of the streams although nothing is suspect.
    pub(super) fn stream_block(&self, now: Now) -> Option<(BlockReason, String)> {
        if let Some(block) = self.unexplained() {
            return Some(block);
        }
        let block = self.service.failover.foreign_promotion == Some(ForeignPromotion::Block);
        let (stream, said) = self.foreign_stream(now).filter(|_| block)?;
        let active = &self.latch()?.active;
        Some((
            BlockReason::SplitBrain,
            format!(
                "{said}, and foreign_promotion = \"block\" keeps {active}: decide with `proxyctl adopt {}`",
                stream.to
            ),
        ))
    }

    /// A standby serves by itself, and no stream that could be read says why.
    fn unexplained(&self) -> Option<(BlockReason, String)> {
        let trouble = self.streams.trouble().filter(|_| self.replicates())?;
        let side = self
            .sides
            .iter()
            .find(|side| !self.is_active(&side.name) && side.standby.is_some() && self.serves_as_primary(&side.name))?;
        let active = &self.latch()?.active;
        Some((
            BlockReason::SplitBrain,
            format!(
                "{} was a standby and serves by itself now, and the streams cannot be read ({trouble}): it may have been promoted by others, and what is written to {active} may be lost; `proxyctl adopt {}` decides",
                side.name, side.name
            ),
        ))
    }

    /// The first latch of a pair of clusters: what was promoted last, else where the stream comes from, else the
    /// configured primary; it must serve, and nothing may contradict.
    pub(super) fn first_replicated(&self, since: Moment, now: Now) -> Result<(BackendName, String), String> {
        if !self.streams.listed_since(since) {
            let why = self.streams.trouble().unwrap_or("not heard yet");
            return Err(format!("no side is latched yet, and the replication streams cannot be read: {why}"));
        }
        let all = || self.streams.all().filter(|known| !known.gone).map(|known| &known.stream);
        if let Some(stream) = all().find(|stream| self.streams.fails_over(stream, now)) {
            return Err(format!(
                "no side is latched yet, and stream {} from {} to {} fails over: waiting for its end",
                stream.id, stream.from, stream.to
            ));
        }
        let live = |stream: &&Stream| matches!(stream.status, Status::Starting | Status::Replicating | Status::Stalled);
        let completed = self.streams.newest_completed();
        let replicating = all().find(live);
        let (name, why) = match (completed, replicating) {
            (Some(completed), Some(stream)) if stream.from != completed.to => {
                return Err(format!(
                    "no side is latched yet: stream {} made {} a cluster of its own, but stream {} leads from {}; `proxyctl adopt` decides",
                    completed.id, completed.to, stream.id, stream.from
                ));
            }
            (Some(completed), _) => (&completed.to, format!("stream {} was failed over to it last", completed.id)),
            (None, Some(stream)) => (&stream.from, format!("stream {} replicates from it", stream.id)),
            (None, None) => {
                let Some(side) = self.sides.iter().find(|s| s.config.role == Some(ConfiguredRole::Primary)) else {
                    return Err("no side is latched yet, nothing replicates, and no backend has role = \"primary\"; `proxyctl adopt BACKEND` decides".into());
                };
                let rival = self.sides.iter().find(|s| s.name != side.name && s.role() == Role::Primary);
                if let Some(rival) = rival {
                    return Err(format!(
                        "no side is latched yet, nothing replicates, and {} serves as well as {}; `proxyctl adopt` decides",
                        rival.name, side.name
                    ));
                }
                let tells = |s: &Side| s.facts.as_ref().is_some_and(|heard| heard.started >= since);
                if let Some(mute) = self.sides.iter().find(|s| s.name != side.name && !tells(s)) {
                    return Err(format!(
                        "no side is latched yet, nothing replicates, and {} was not heard, which may have been promoted; `proxyctl adopt` decides",
                        mute.name
                    ));
                }
                (&side.name, "it is configured as primary and nothing replicates yet".to_owned())
            }
        };
        let serves = |side: &&Side| side.state() == Health::Up && side.role() == Role::Primary && side.serves();
        match self.side(name) {
            Some(side) if serves(&side) => Ok((name.clone(), format!("{name} serves, and {why}"))),
            Some(side) => {
                let shown = side.last_probe.as_ref().map_or("nothing was heard", |probe| probe.text.as_str());
                Err(format!("no side is latched yet: {why}, but {name} does not serve ({shown})"))
            }
            None => Err(format!("no side is latched yet: {name} is not configured")),
        }
    }
}

/// Did the latch know of it when it was written?
pub(super) fn is_accounted(latch: &Latch, stream: &Stream) -> bool {
    latch.replication.as_ref().is_some_and(|known| {
        known.stream == stream.id || stream.activated.is_some_and(|activated| activated <= known.at)
    })
}
