//! Moving traffic without a promotion, on an operator's word or where every side serves. The side that is left takes no
//! writes any more before traffic opens elsewhere: it is down, in recovery, or its node fence has succeeded.

use super::command::{Answer, refusal};
use super::{Machine, Step};
use crate::failover::action::{Action, Operator};
use crate::failover::candidate;
use crate::failover::health::State as Health;
use crate::failover::observation::Role;
use crate::failover::phase::EpisodeKind;
use crate::failover::side::Side;
use crate::types::{BackendName, Now};

impl Machine {
    pub(super) fn command_route(
        &mut self,
        to: Option<&BackendName>,
        operator: &Operator,
        dry_run: bool,
        now: Now,
    ) -> Answer {
        if let Some(receipt) = self.running_to(to, &[EpisodeKind::Route]) {
            return Ok(receipt);
        }
        let latch = self.ready()?;
        let from = &latch.active;
        let target = match to {
            Some(to) => self.known(to)?,
            None => candidate::best_server(&self.sides, from)
                .ok_or_else(|| refusal("no_candidate", "no other backend is up"))?,
        };
        let to = target.name.clone();
        if to == *from {
            return Err(refusal("already_active", format!("{to} is already active (epoch {})", latch.epoch)));
        }
        if let Some(why) = &target.excluded {
            return Err(refusal("unfit", format!("{why}: `proxyctl backend {to} ready` first")));
        }
        if let Some(why) = serves_not(target) {
            return Err(refusal("unfit", format!("{to} does not prove to serve: {why}")));
        }
        if !self.may_take_writes(target) {
            return Err(refusal(
                "not_primary",
                format!("{to} is not a primary: route-only would send writes to a standby"),
            ));
        }
        let mut why = format!("commanded by {}", operator.name);
        let mut steps = vec![format!("close the gate and cut every connection of {from}")];
        if let Some(said) = self.takes_no_writes(now) {
            why.push_str(&format!("; {said}"));
        } else if self.fences_first(now) {
            if !self.can_fence() {
                return Err(refusal(
                    "not_fenced",
                    format!(
                        "{from} is neither down, nor in recovery, nor fenced: two primaries would take writes. Stop it, \
                         or configure fence_command, which is run first then"
                    ),
                ));
            }
            steps.push(format!("run the node fence on {from}; unless it succeeds, everything is undone"));
            why.push_str(&format!("; {from} still runs, so it is fenced first"));
        }
        steps.push(format!("open to {to} in epoch {}; nothing is promoted", latch.epoch.next()));
        let sentence = format!("moving traffic from {from} to {to}");
        self.start(EpisodeKind::Route, to, why, true, operator, dry_run, (sentence, steps), now)
    }

    /// Must the side that is left be fenced before traffic may go elsewhere?
    pub(super) fn fences_first(&self, now: Now) -> bool {
        !self.service.failover.standby_serves && self.takes_no_writes(now).is_none()
    }

    /// The intent is on disk and the old side is cut off.
    pub(super) fn route(&mut self, now: Now) {
        if self.service.failover.standby_serves {
            return self.latch_new(now);
        }
        if let Some(why) = self.lost_target() {
            return self.cancel(why, now);
        }
        let Some(run) = self.run() else { return };
        let (episode, fence, from) = (run.intent.id, run.fence_needed, run.intent.from.clone());
        match from {
            Some(backend) if fence => {
                self.step(Step::Fencing, format!("{backend} is cut off and being fenced"), now);
                self.actions.push_back(Action::Fence { episode, backend });
            }
            Some(backend) if self.fences_first(now) => self.cancel(format!("{backend} may take writes again"), now),
            _ => self.latch_new(now),
        }
    }

    /// The side that is left is fenced, and that took its time.
    pub(super) fn route_fenced(&mut self, now: Now) {
        if let Some(why) = self.lost_target() {
            return self.cancel(why, now);
        }
        let Some(run) = self.run_mut() else { return };
        if let Some(from) = &run.intent.from {
            run.notes.push(format!("{from} was fenced before"));
        }
        self.latch_new(now);
    }

    /// Why the side that traffic moves to is no longer what it was chosen for.
    fn lost_target(&self) -> Option<String> {
        let side = self.side(&self.run()?.intent.to)?;
        let why = serves_not(side).or_else(|| (!self.may_take_writes(side)).then(|| "it is not a primary".into()))?;
        Some(format!("{} does not prove to serve any more: {why}", side.name))
    }

    /// Nobody is asked where every side serves, or where the probes cannot tell.
    fn may_take_writes(&self, side: &Side) -> bool {
        let roleless = !self.knows_identity() && !self.replicates();
        self.service.failover.standby_serves || roleless || side.role() == Role::Primary
    }

    /// Why the latched side takes no writes, as far as the probes tell.
    fn takes_no_writes(&self, now: Now) -> Option<String> {
        let Some(side) = self.active_side() else { return Some("the side that is left is not configured".into()) };
        if side.state() == Health::Down {
            return Some(format!("{} is down", side.name));
        }
        let heard = side.facts.as_ref().filter(|heard| now.at.since(heard.finished) <= self.patience())?;
        (side.serves() && heard.facts.role == Role::Standby).then(|| format!("{} is in recovery", side.name))
    }
}

/// Why a side does not prove to serve.
fn serves_not(side: &Side) -> Option<String> {
    if let Some(why) = &side.quarantine {
        return Some(why.clone());
    }
    match side.state() {
        _ if side.serves() => None,
        Health::Up => Some("it has not answered since a probe failed".into()),
        state => Some(state.as_str().to_owned()),
    }
}
