//! What operators may command where clusters replicate: a planned switchover to a moment of its own choosing, a
//! failover to a given one, and the way home, which leads through a reverse stream.

use super::command::{Answer, refusal};
use super::streams::is_accounted;
use super::{Machine, Step};
use crate::config::Replication;
use crate::failover::action::{Operator, Refusal};
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::{EpisodeKind, Latch};
use crate::failover::replication::Status;
use crate::types::{BackendName, Now, WallTime};

impl Machine {
    /// Both clusters healthy: the stream goes to a moment just after the last commit.
    pub(super) fn switchover_clusters(
        &mut self,
        latch: &Latch,
        to: Option<&BackendName>,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        let target = self.candidate(latch, to, false, now)?;
        let healthy = self.active_side().is_some_and(|side| side.state() == Health::Up) && self.suspicion.is_none();
        if !healthy {
            return Err(refusal(
                "not_healthy",
                format!("{} is not healthy: {}. Use `proxyctl failover`", latch.active, self.evidence),
            ));
        }
        let drain = self.service.failover.drain_timeout;
        let clock = match self.stops_service() {
            true => format!("STOP SERVICE on {}, then read its clock", latch.active),
            false => format!("read the clock of {}; nothing stops clients that reach it past pgpivot", latch.active),
        };
        let steps = vec![
            format!("hold newcomers, let running work end for up to {drain:?}, then cut"),
            clock,
            format!("fail the stream over to a moment just after it and wait until it has completed on {target}"),
            format!("open to {target} in epoch {} once it serves", latch.epoch.next()),
        ];
        let why = format!("commanded by {}", operator.name);
        let sentence = format!("switching over from {} to {target}", latch.active);
        self.start(EpisodeKind::Switchover, target, why, false, operator, dry_run, (sentence, steps), now)
    }

    /// May a failover to that moment be begun? Refused before anything is sent.
    pub(super) fn check_moment(&self, to: &BackendName, at: Option<WallTime>, now: Now) -> Result<(), Refusal> {
        match at {
            Some(_) if !self.replicates() => Err(refusal(
                "no_moment",
                "a moment to fail over to can be chosen only where clusters replicate: leave --at out",
            )),
            Some(at) => self.within_window(to, at, now).map_err(|why| refusal("outside_window", why)),
            None => Ok(()),
        }
    }

    /// Traffic home: by the reverse stream, or by an operator's word that says what is lost.
    pub(super) fn restore_clusters(
        &mut self,
        latch: &Latch,
        home: &BackendName,
        force: bool,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if force {
            return self.restore_by_force(latch, home, operator, dry_run, now);
        }
        let returned =
            self.streams.newest_completed().filter(|stream| stream.to == *home && stream.from == latch.active);
        // One that the latch took account of says nothing of what was written since.
        let returned = returned.filter(|stream| !is_accounted(latch, stream));
        if let Some(stream) = returned {
            let (id, serves) = (stream.id.clone(), self.serves_as_primary(home));
            if !serves {
                return Err(refusal("not_serving", format!("stream {id} completed, but {home} does not serve yet")));
            }
            let steps = vec![
                format!("cut every connection of {}", latch.active),
                format!("latch {home} and open to it in epoch {}; nothing is promoted", latch.epoch.next()),
            ];
            let why = format!("commanded by {}; stream {id} from {} completed", operator.name, latch.active);
            let sentence = format!("moving traffic home to {home}: stream {id} completed");
            return self.start(
                EpisodeKind::Follow,
                home.clone(),
                why,
                false,
                operator,
                dry_run,
                (sentence, steps),
                now,
            );
        }
        let live: Vec<_> =
            self.streams.live(&latch.active, home).map(|k| (k.stream.id.clone(), k.stream.status)).collect();
        match live.as_slice() {
            [] => Err(refusal(
                "no_reverse_stream",
                format!(
                    "no stream leads from {0} back to {home}, which lacks everything written since: {1}; or --force, and everything written to {0} since is missing",
                    latch.active,
                    self.way_back(&latch.active, home)
                ),
            )),
            [(id, Status::Starting)] => Err(refusal(
                "still_starting",
                format!(
                    "stream {id} from {} to {home} is starting: `proxyctl failback status`, then again",
                    latch.active
                ),
            )),
            _ => self.switchover_clusters(latch, Some(home), operator, dry_run, now),
        }
    }

    /// How a stream home is made.
    fn way_back(&self, active: &BackendName, home: &BackendName) -> String {
        let Some(Replication::Sql(sql)) = &self.service.replication else {
            return format!("`proxyctl failback create-stream` makes one, and ERASES what is on {home} first");
        };
        let name = format!("\"{}\"", sql.virtual_cluster.replace('"', "\"\""));
        format!(
            "on {home}'s system virtual cluster, `ALTER VIRTUAL CLUSTER {name} STOP SERVICE`, then `ALTER VIRTUAL CLUSTER {name} START REPLICATION OF {name} ON '<uri of {active}>'` makes one (incremental within 24 h of the failover), and ERASES what only {home} has; then again"
        )
    }

    fn restore_by_force(
        &mut self,
        latch: &Latch,
        home: &BackendName,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if !self.serves_as_primary(home) {
            let side = self.known(home)?;
            let shown = side.last_probe.as_ref().map_or("nothing was heard", |probe| probe.text.as_str());
            return Err(refusal("not_serving", format!("{home} does not serve ({shown}): traffic cannot go there")));
        }
        let loss = self.missing_on(home).unwrap_or_default();
        let steps = vec![
            format!("close the gate and cut every connection of {}", latch.active),
            format!("open to {home} in epoch {}; nothing is promoted", latch.epoch.next()),
        ];
        let note = operator.note.as_deref().map_or_else(String::new, |note| format!(" ({note})"));
        let why = format!("commanded by {} with --force{note}; {loss}", operator.name);
        let unread = self.streams.trouble().map_or_else(String::new, |trouble| {
            format!(". The streams cannot be read now ({trouble}): should they show later that one completed after those known here, traffic follows it")
        });
        let sentence = format!("moving traffic home to {home}: {loss}{unread}");
        // An operator takes it as it is: nothing is fenced, and nothing is proven but that it serves.
        self.start(EpisodeKind::Follow, home.clone(), why, true, operator, dry_run, (sentence, steps), now)
    }

    /// What traffic would not find on a cluster that no stream has made the successor of the active one.
    pub(super) fn missing_on(&self, target: &BackendName) -> Option<String> {
        let latch = self.latch().filter(|latch| self.replicates() && latch.active != *target)?;
        let newer = self.streams.newest_completed().filter(|stream| !is_accounted(latch, stream));
        newer.is_none_or(|stream| stream.to != *target).then(|| {
            format!(
                "everything that was written to {} since {} is missing on {target}, and the two go apart from here",
                latch.active, latch.since
            )
        })
    }

    /// The latch takes account of all that completed, with the next write.
    pub(super) fn account_for_all(&mut self) {
        let activation = self.newest_activation();
        if let Some(latch) = &mut self.record.latch {
            latch.replication = activation;
        }
    }

    /// Up, and by its own word a primary.
    pub(super) fn serves_as_primary(&self, name: &BackendName) -> bool {
        self.side(name).is_some_and(|side| side.state() == Health::Up && side.role() == Role::Primary && side.serves())
    }

    /// A failover of a stream cannot be given up while it runs, unless its target is down.
    pub(super) fn may_abandon_stream(&self, backend: &BackendName) -> Result<(), Refusal> {
        let Some(run) = self.run().filter(|run| matches!(run.step, Step::Promoting { .. })) else { return Ok(()) };
        let Some(order) = &run.intent.stream else { return Ok(()) };
        let known = self.streams.by_id(&order.id);
        let status = known.map_or(Status::Unknown, |known| known.stream.status);
        let ordered = run.word.as_ref().map(|(at, _)| *at).max(run.ordered).unwrap_or(run.step_since);
        let flies = run.ordered.is_some() && run.word.is_none();
        let heard = !flies && known.is_some_and(|known| known.started > ordered);
        let promoted = !heard
            || matches!(status, Status::FailingOver | Status::Completed) && known.is_some_and(|known| !known.gone);
        let down = self.side(backend).is_none_or(|side| side.state() == Health::Down);
        if !heard && !down {
            return Err(refusal(
                "unheard",
                format!(
                    "stream {} was not read since it was ordered: whether {backend} is being promoted is not known",
                    order.id
                ),
            ));
        }
        if promoted && !down {
            return Err(refusal(
                "failing_over",
                format!("stream {} is {}: it cannot be taken back", order.id, status.as_str()),
            ));
        }
        Ok(())
    }
}
