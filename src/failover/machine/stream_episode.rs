//! What only an episode of clusters does: the stream is read again before the last look, failed over by its id, and the
//! new side proves itself on the wire once the stream has completed. A planned one names the moment itself.

use std::time::Duration;

use super::streams::is_accounted;
use super::{Machine, Step};
use crate::config::{Promoter, Replication};
use crate::failover::action::{Action, EventKind, PromotionResult, Receipt, Rechecked};
use crate::failover::candidate::{self, Verdict};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{BlockReason, EpisodeKind, Stage, StreamOrder};
use crate::failover::replication::{Known, Report, Status, Stream};
use crate::types::{BackendName, Moment, Now, WallTime};

/// The last look at the old side ends at most this long before the order.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// The clocks of a cluster's nodes differ by less than this: nothing is committed above a clock and this.
const CLOCK_MARGIN: Duration = Duration::from_secs(1);
/// The same where only a clock outside the cluster could be read.
const FOREIGN_CLOCK_MARGIN: Duration = Duration::from_secs(5);
/// The first order, and twice again.
pub(super) const MOST_ORDERS: u32 = 3;
/// Readings that show an order unheeded before it is given again.
const READS_NEEDED: usize = 3;
/// A decision this old is not ordered after a restart while its old side answers.
const STALE_DECISION: Duration = Duration::from_secs(600);
/// Between two words on how far it is.
const PROGRESS: Duration = Duration::from_secs(60);
/// Between two probes of a side whose word is waited for.
const POKE: Duration = Duration::from_secs(1);

impl Machine {
    /// Reads the stream again before the last look: what was true at the decision may not be now.
    pub(super) fn reread(&mut self, said: String, now: Now) {
        let stream = self.order().map(|order| order.id);
        let patience = self.stream_patience() + self.service.probe.timeout;
        if let Some(run) = self.run_mut() {
            run.rechecked = None;
        }
        self.step(Step::Rereading { from: now.at, until: now.at + patience }, said, now);
        self.actions.push_back(Action::ReadStreams { stream });
    }

    /// The reading came, or did not.
    pub(super) fn reread_ended(&mut self, from: Moment, until: Moment, now: Now) {
        let (Some(run), Some(order)) = (self.run(), self.order()) else {
            return self.cancel("no stream is known that could be failed over".into(), now);
        };
        let (kind, to, forced, resumed) = (run.intent.kind, run.intent.to.clone(), run.intent.forced, run.resumed);
        let Some(known) = self.streams.by_id(&order.id).filter(|known| known.started >= from).cloned() else {
            if now.at >= until {
                let why = self.streams.trouble().unwrap_or("no answer").to_owned();
                self.set_back(
                    BlockReason::WitnessUnknown,
                    format!("stream {} could not be read again: {why}", order.id),
                    now,
                );
            }
            return;
        };
        if self.streams.fails_over(&known.stream, now) || known.stream.status == Status::Completed {
            return self.join_others(&known, now);
        }
        let unheard = self.side(&to).is_some_and(|side| side.state() == Health::Unknown);
        if unheard && now.at < until {
            return;
        }
        // A decision from before a restart vouches for what the standby lacked then.
        if let Err(why) = self.still_replicates(&to, &known, forced || resumed) {
            return self.set_back(BlockReason::NoCandidate, why, now);
        }
        let said = format!("stream {} replicates", order.id);
        let Some(run) = self.run_mut() else { return };
        if kind == EpisodeKind::Switchover {
            run.rechecked = Some(Rechecked { sentence: said.clone() });
            return self.send(said, now);
        }
        let from_side = run.intent.from.clone();
        let patience = self.service.probe.timeout * 2 + Duration::from_secs(10);
        self.step(Step::Rechecking { from: now.at, until: now.at + patience }, said, now);
        if let Some(backend) = from_side {
            self.actions.push_back(Action::ProbeNow { backend });
        }
    }

    /// Somebody else was faster: their failover is adopted, nothing is ordered.
    fn join_others(&mut self, known: &Known, now: Now) {
        let said = format!("stream {} is {} already: adopted", known.stream.id, known.stream.status.as_str());
        if let Some(run) = self.run_mut() {
            run.intent.kind = EpisodeKind::Follow;
            run.intent.stage = Stage::Sent;
        }
        self.send(said, now);
    }

    fn still_replicates(&self, to: &BackendName, known: &Known, stale_too: bool) -> Result<(), String> {
        let (id, status) = (&known.stream.id, known.stream.status);
        if known.gone || status != Status::Replicating || known.stream.replicated.is_none() {
            let word = if known.gone { "gone".to_owned() } else { known.stream.state() };
            return Err(format!(
                "stream {id} is {word}: only one that replicates, with a replicated time, is failed over"
            ));
        }
        let Some(side) = self.side(to) else { return Ok(()) };
        match candidate::still_fit(&self.service, side, None, None) {
            Verdict::Unfit(why) => Err(why),
            Verdict::Stale(why) if !stale_too => Err(why),
            _ => Ok(()),
        }
    }

    /// The order, while an episode of clusters runs.
    pub(super) fn order(&self) -> Option<StreamOrder> {
        self.run()?.intent.stream.clone()
    }

    /// How long one reading may take, with some to spare.
    fn stream_patience(&self) -> Duration {
        let timeout = match &self.service.replication {
            Some(Replication::Cloud(cloud)) => cloud.timeout,
            _ => self.service.probe.timeout,
        };
        timeout * 2 + Duration::from_secs(5)
    }

    /// The last look at the old side is too old to order a failover upon it.
    pub(super) fn look_is_old(&self, now: Now) -> bool {
        let Some(run) = self.run().filter(|_| self.replicates()) else { return false };
        if run.intent.kind != EpisodeKind::Failover || run.intent.forced {
            return false;
        }
        let from = run.intent.from.as_ref().and_then(|from| self.side(from));
        let ended = from.and_then(|side| side.addresses.values().filter_map(|a| a.health.failed()).map(|f| f.1).max());
        ended.is_none_or(|ended| now.at.since(ended) > LAST_LOOK)
    }

    /// The stream has not moved on since it was decided: the primary that it comes from is as silent as it was.
    pub(super) fn is_unmoved(&self) -> bool {
        let Some(order) = self.order() else { return false };
        let now = self.streams.by_id(&order.id).and_then(|known| known.stream.replicated);
        now.is_some() && now <= order.replicated
    }

    /// `sent` is on disk: ordered, then watched until the stream has completed and the new side serves.
    pub(super) fn prove_stream(&mut self, since: Moment, now: Now) {
        let (Some(run), Some(order)) = (self.run(), self.order()) else { return };
        let (kind, to, id) = (run.intent.kind, run.intent.to.clone(), run.intent.id);
        let known = self.streams.by_id(&order.id).filter(|known| known.started >= since).cloned();
        match &known {
            Some(known) if known.stream.status == Status::Completed => {
                if self.went_back(known, now) {
                    return;
                }
                if self.prove_activated(known, now) {
                    return;
                }
                let word = match self.run().and_then(|run| run.word.as_ref()) {
                    Some((_, PromotionResult::Done)) | None => String::new(),
                    Some((
                        _,
                        PromotionResult::Refused(why) | PromotionResult::Unknown(why) | PromotionResult::NotSent(why),
                    )) => format!(" ({why})"),
                };
                self.evidence = format!("stream {} has completed; waiting for {to} to serve{word}", order.id);
                self.tell_progress(Status::Completed, now);
            }
            Some(known) if known.gone || known.stream.status == Status::Canceled => {
                let word = if known.gone { "gone".to_owned() } else { known.stream.state() };
                let said = format!(
                    "stream {} is {word}: the failover to {to} (episode {id}) failed, and nothing goes back by itself; look at both clusters, then `proxyctl abandon {to}` reopens the old side",
                    order.id
                );
                self.evidence.clone_from(&said);
                return self.set_block(Some((BlockReason::PromotionPending, said)), now);
            }
            Some(known) if known.stream.status == Status::FailingOver => {
                self.set_block(None, now);
                let waited = now.at.since(known.entered).as_secs();
                let at = known.stream.failover_at.map_or_else(String::new, |at| format!(" to {at}"));
                self.evidence = format!("stream {} has been failing over{at} for {waited} s", order.id);
                self.tell_progress(Status::FailingOver, now);
            }
            _ if kind != EpisodeKind::Follow => {
                if self.refused_by_source(known.as_ref(), now) || self.needless(now) {
                    return;
                }
                if self.stream_order_due(now) {
                    self.order_promotion(now);
                } else if let Some(said) = self.goes_unheeded(&order.id, now) {
                    self.evidence.clone_from(&said);
                    return self.set_block(Some((BlockReason::PromotionPending, said)), now);
                }
            }
            _ => {}
        }
        self.alert_pending(since, &order, now);
    }

    /// How far it is goes to the log as well, when it changes and once a minute.
    fn tell_progress(&mut self, status: Status, now: Now) {
        let Some(run) = self.run_mut() else { return };
        if run.told.is_some_and(|(told, at)| told == status && now.at.since(at) < PROGRESS) {
            return;
        }
        run.told = Some((status, now.at));
        let said = self.evidence.clone();
        self.tell(now, EventKind::Step, said);
    }

    /// Others have failed over again since, back to the side that is latched: it stays so.
    fn went_back(&mut self, known: &Known, now: Now) -> bool {
        let Some(latch) = self.latch() else { return false };
        let newest = self.streams.newest_completed().filter(|newest| {
            newest.id != known.stream.id
                && newest.activated > known.stream.activated
                && newest.to == latch.active
                && !is_accounted(latch, newest)
        });
        let Some(newest) = newest else { return false };
        let said = format!("stream {} completed after it and made {} the primary again", newest.id, newest.to);
        self.account_for_all();
        self.cancel(said, now);
        true
    }

    fn alert_pending(&mut self, since: Moment, order: &StreamOrder, now: Now) {
        let waited = now.at.since(since);
        if waited < self.service.failover.promote_timeout {
            return;
        }
        let Some(run) = self.run() else { return };
        let (to, id) = (&run.intent.to, run.intent.id);
        let why = self.streams.trouble().map_or_else(String::new, |trouble| format!(" (last reading: {trouble})"));
        let said = format!(
            "the failover of stream {} to {to} (episode {id}) was sent {} s ago and {to} does not serve yet{why}: it is still watched; look at the stream",
            order.id,
            waited.as_secs()
        );
        self.set_block(Some((BlockReason::PromotionPending, said)), now);
    }

    /// The new side serves on the wire, by an answer that began after the stream was seen completed.
    fn prove_activated(&mut self, known: &Known, now: Now) -> bool {
        let Some(run) = self.run() else { return false };
        let (to, poked) = (run.intent.to.clone(), run.poked);
        // Others may have failed over again since: all streams are read once more before anybody is let in.
        let told = self.streams.told_since(known.entered);
        let serves = told
            && self.side(&to).is_some_and(|side| {
                let heard = side.facts.as_ref().filter(|heard| heard.started >= known.entered);
                side.serves() && heard.is_some_and(|heard| heard.facts.role == Role::Primary)
            });
        if serves {
            let at = known.stream.activated.map_or_else(String::new, |at| format!(" with everything up to {at}"));
            self.promoted(format!("stream {} has completed and {to} serves{at}", known.stream.id), now);
            return true;
        }
        if poked.is_none_or(|at| now.at.since(at) >= POKE) {
            if let Some(run) = self.run_mut() {
                run.poked = Some(now.at);
            }
            if !told {
                self.actions.push_back(Action::ReadStreams { stream: None });
            }
            self.actions.push_back(Action::ProbeNow { backend: to });
            // Of its own accord a self-hosted cluster serves nothing.
            let again = self.service.failover.promoter == Promoter::CockroachSql;
            let idle = self.run().is_some_and(|run| {
                run.ordered.is_none_or(|at| now.at.since(at) >= POKE * 2)
                    && (run.word.is_some() || run.ordered.is_none())
            });
            if again && idle {
                self.order_promotion(now);
            }
        }
        false
    }

    /// The source refused the one and only order, and shows since that it did not take it.
    fn refused_by_source(&mut self, known: Option<&Known>, now: Now) -> bool {
        let Some(run) = self.run() else { return false };
        let Some((at, PromotionResult::Refused(why))) = run.word.clone() else { return false };
        let span = run.unheeded.first().zip(run.unheeded.last()).map(|(first, last)| last.since(*first));
        let long_enough = run.unheeded.len() >= READS_NEEDED && span.is_some_and(|span| span >= self.refresh() / 2);
        // One reading may be of an older copy, and others may have been quicker.
        let untouched =
            long_enough && known.is_some_and(|known| known.started > at && known.stream.status == Status::Replicating);
        if !untouched || run.orders != 1 || run.resumed {
            return false;
        }
        self.setback = Some((now.at + self.service.failover.cooldown, BlockReason::NoCandidate, why.clone()));
        // Nothing was taken: the latched side need not prove itself anew, and nothing of the budget is spent.
        self.unsend(&format!("the failover was refused: {why}"), now);
        true
    }

    /// No order ever left, and the side that it was to replace answers again: nothing has to be waited out.
    fn needless(&mut self, now: Now) -> bool {
        let Some(run) = self.run().filter(|run| run.orders == 0 && !run.resumed && !run.intent.forced) else {
            return false;
        };
        let Some((at, PromotionResult::NotSent(why))) = run.word.clone() else { return false };
        let Some(side) = run.intent.from.as_ref().and_then(|from| self.side(from)) else { return false };
        if run.intent.kind != EpisodeKind::Failover || side.passed().is_none_or(|passed| passed < at) {
            return false;
        }
        let said = format!("{} answers again, and no order left ({why})", side.name);
        self.unsend(&said, now);
        true
    }

    /// The first order goes out at once. One that may have been lost is repeated only when three readings over half a
    /// refresh show it unheeded and the old side fails another probe.
    fn stream_order_due(&mut self, now: Now) -> bool {
        let Some(run) = self.run() else { return false };
        if run.ordered.is_none() && !run.resumed {
            return true;
        }
        let answered = run.ordered.is_none() || run.word.is_some();
        let span = run.unheeded.first().zip(run.unheeded.last()).map(|(first, last)| last.since(*first));
        let long_enough = span.is_some_and(|span| span >= self.refresh() / 2);
        if run.orders >= run.orders_allowed || !answered || run.unheeded.len() < READS_NEEDED || !long_enough {
            return false;
        }
        if self.outlived(now) {
            return false;
        }
        if run.intent.kind != EpisodeKind::Failover || run.intent.forced {
            return true;
        }
        let (from, poked) = (run.intent.from.clone(), run.poked);
        let Some(side) = from.as_ref().and_then(|from| self.side(from)) else { return true };
        if poked.is_some_and(|poked| side.failed_since(poked)) && !self.look_is_old(now) {
            return true;
        }
        if poked.is_none_or(|at| now.at.since(at) >= POKE + self.service.probe.timeout) {
            let backend = side.name.clone();
            if let Some(run) = self.run_mut() {
                run.poked = Some(now.at);
            }
            self.actions.push_back(Action::ProbeNow { backend });
        }
        false
    }

    /// Of a process that ended long ago, and the side it was to replace answers.
    fn outlived(&self, now: Now) -> bool {
        let Some(run) = self.run().filter(|run| run.resumed && run.ordered.is_none()) else { return false };
        let (at, from) = (run.intent.decided_at, run.intent.from.as_ref());
        let age = now.wall.since(at).max(at.since(now.wall));
        age > STALE_DECISION && from.and_then(|from| self.side(from)).is_some_and(|side| side.state() == Health::Up)
    }

    /// Nothing more is ordered, and the stream shows none of what was: people decide.
    fn goes_unheeded(&self, id: &str, now: Now) -> Option<String> {
        let run = self.run()?;
        let (to, from) = (&run.intent.to, run.intent.from.as_ref()?);
        let settled = run.unheeded.len() > READS_NEEDED * 2 && (run.word.is_some() || run.ordered.is_none());
        let answers = run.poked.is_some_and(|at| self.side(from).is_some_and(|side| side.passed() >= Some(at)));
        let mut again = "";
        let why = match (run.orders >= run.orders_allowed, answers) {
            _ if !settled => return None,
            _ if self.outlived(now) => {
                format!("was decided at {}, long ago, and {from} answers, so it is not ordered", run.intent.decided_at)
            }
            (true, _) => {
                again = "`proxyctl failover --force` orders it anew, ";
                format!("was ordered {} times", run.orders)
            }
            (false, true) => format!("was ordered, and {from} answers again, so it is not repeated"),
            (false, false) => return None,
        };
        Some(format!(
            "the failover of stream {id} to {to} {why}; the stream still replicates as if nothing had been said: look at it; {again}`proxyctl abandon {to}` reopens {from}"
        ))
    }

    /// An operator who has seen why the orders went unheeded has it ordered as often again, each as carefully as before.
    pub(super) fn order_again(&mut self, dry_run: bool, now: Now) -> Option<Receipt> {
        let order = self.order()?;
        let run =
            self.run().filter(|run| run.orders >= run.orders_allowed && matches!(run.step, Step::Promoting { .. }))?;
        let (episode, to, orders) = (run.intent.id, run.intent.to.clone(), run.orders);
        self.goes_unheeded(&order.id, now)?;
        if let Some(run) = self.run_mut().filter(|_| !dry_run) {
            run.orders_allowed = orders + MOST_ORDERS;
        }
        Some(Receipt {
            sentence: format!(
                "the failover of stream {} to {to} (episode {episode}) is ordered anew; {orders} orders went unheeded",
                order.id
            ),
            episode: Some(episode),
            steps: vec![format!("order it, up to {MOST_ORDERS} times, unless the old side answers")],
        })
    }

    fn refresh(&self) -> Duration {
        self.service.replication.as_ref().map_or(Duration::ZERO, Replication::refresh)
    }

    /// A reading after the order that shows the stream as it was.
    pub(super) fn count_unheeded(&mut self, streams: &[Stream], report: &Report) {
        let Some(order) = self.order() else { return };
        let Some(run) = self.run_mut().filter(|run| matches!(run.step, Step::Promoting { .. })) else { return };
        let from = run.word.as_ref().map(|(at, _)| *at).max(run.ordered).unwrap_or(run.step_since);
        let untouched = |stream: &&Stream| stream.id == order.id && stream.status == Status::Replicating;
        if report.started > from && streams.iter().any(|stream| untouched(&stream)) {
            run.unheeded.truncate(READS_NEEDED * 2);
            run.unheeded.push(report.finished);
        }
    }

    /// Planned: the drain is over, the old primary is cut off from here; its clock tells the moment to go to.
    pub(super) fn read_clock(&mut self, now: Now) {
        let Some(run) = self.run() else { return };
        let (episode, Some(backend)) = (run.intent.id, run.intent.from.clone()) else { return };
        let stop = self.stops_service();
        let said = if stop {
            format!("{backend} is being stopped, then its clock is read")
        } else {
            format!("the clock of {backend} is being read")
        };
        let until = now.at + self.service.probe.timeout * 2 + Duration::from_secs(15);
        self.step(Step::Freezing { until }, said, now);
        self.actions.push_back(Action::ReadClock { episode, backend, stop });
    }

    /// Self-hosted clusters can be stopped.
    pub(super) fn stops_service(&self) -> bool {
        matches!(&self.service.replication, Some(Replication::Sql(sql)) if sql.stop_service)
    }

    /// Is there a means to keep writes from a side by that side's own doing?
    pub(super) fn can_fence(&self) -> bool {
        self.service.failover.fence_command.is_some() || self.stops_service()
    }

    /// Fenced by STOP SERVICE: should it ever be the active side again, its service is started first. Goes to disk with
    /// whatever is written next, `sent` or the end of a try that was called off.
    pub(super) fn note_stopped(&mut self) {
        let from = self.run().and_then(|run| run.intent.from.clone());
        let stopped = self.stops_service() && self.service.failover.fence_command.is_none();
        if let Some(from) = from.filter(|from| stopped && !self.record.frozen.contains(from)) {
            self.record.frozen.push(from);
        }
    }

    /// The clock that tells the moment, and what it proves.
    pub(super) fn clock_read(&mut self, result: Result<WallTime, String>, now: Now) {
        let stopped = self.stops_service();
        let foreign = self.streams.clock(now).filter(|_| !stopped);
        let (at, stopped_at, note) = match (result, foreign) {
            (Ok(clock), _) if stopped => (clock.plus(CLOCK_MARGIN), Some(clock), None),
            (Ok(clock), _) => {
                let note =
                    "nothing stops other clients of the old side: what they wrote after the cut is not known here";
                (clock.plus(CLOCK_MARGIN), None, Some(note.to_owned()))
            }
            (Err(why), Some(clock)) => {
                let note = format!(
                    "that no row was lost could not be proven: the old side's own clock could not be read ({why})"
                );
                (clock.plus(FOREIGN_CLOCK_MARGIN), None, Some(note))
            }
            (Err(why), None) => return self.cancel(format!("the old side's clock could not be read: {why}"), now),
        };
        let Some(run) = self.run_mut() else { return };
        run.notes.extend(note);
        if let Some(order) = &mut run.intent.stream {
            (order.failover_at, order.stopped_at) = (Some(at), stopped_at);
        }
        self.reread(format!("to be failed over to {at}, just after everything that was acknowledged"), now);
    }

    /// What the end of an episode of clusters says of losses.
    pub(super) fn stream_loss(&self, order: &StreamOrder, from: Option<&BackendName>) -> String {
        let Some(stream) = self.streams.by_id(&order.id).map(|known| &known.stream) else { return String::new() };
        let from = from.map_or("the old side", BackendName::as_str);
        // A source that does not tell the moment itself shows a later one.
        match (order.stopped_at, stream.activated.filter(|_| stream.trouble.is_none())) {
            (Some(stopped), Some(activated)) if activated >= stopped => "; no acknowledged row was lost".into(),
            (_, Some(activated)) => format!("; what {from} acknowledged after {activated} is not there"),
            _ => format!("; up to when it has what {from} acknowledged is not told"),
        }
    }
}
