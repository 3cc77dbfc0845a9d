//! What the evidence means: lineage of a claim, death of the active side, what the witnesses say together.
//! Functions over what was heard; no state, no effect.

use std::time::Duration;

use super::candidate::{self, Verdict as Fitness};
use super::health::State;
use super::observation::{Facts, Failure, Role};
use super::phase::{BlockReason, Identity};
use super::side::Side;
use super::witness::Testimony;
use crate::config::{Service, WitnessRule};
use crate::types::{BackendName, Moment, Timeline, WallTime};

/// How a claim to be primary stands to the latch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lineage {
    /// A higher timeline that branched off the latched one.
    Descends,
    /// The latched timeline itself.
    Same,
    /// A timeline below the latched one.
    Older,
    /// Another system identifier, or a branch that does not contain the latched timeline.
    Stranger,
    /// Higher, but its history could not be read.
    Unproven,
}

/// Compares what a server shows with the latch. `streamed`: it was seen streaming on the latched timeline, which proves
/// descent where its history is not to be read.
pub fn lineage(facts: &Facts, latched: &Identity, streamed: bool) -> Lineage {
    let (Some(system_id), Some(timeline)) = (facts.system_id, facts.timeline) else {
        return Lineage::Unproven;
    };
    if system_id != latched.system_id {
        return Lineage::Stranger;
    }
    if timeline == latched.timeline {
        return if same_line(facts, latched) { Lineage::Same } else { Lineage::Stranger };
    }
    if timeline < latched.timeline {
        return Lineage::Older;
    }
    match &facts.history {
        None if streamed => Lineage::Descends,
        None => Lineage::Unproven,
        Some(ancestors) => {
            let contains = ancestors.iter().any(|a| a.timeline == latched.timeline);
            let parent = ancestors.iter().take_while(|a| a.timeline < latched.timeline).last();
            let same_branch = match (latched.switch_lsn, parent) {
                (Some(switched), Some(parent)) => parent.switch_lsn == switched,
                _ => true,
            };
            if contains && same_branch { Lineage::Descends } else { Lineage::Stranger }
        }
    }
}

/// Does it show the latched line itself? Timelines bear the same number when two standbys of one line were promoted:
/// where they branched off tells them apart, if both are known.
pub fn same_line(facts: &Facts, latched: &Identity) -> bool {
    facts.system_id == Some(latched.system_id)
        && facts.timeline == Some(latched.timeline)
        && facts.branched().zip(latched.switch_lsn).is_none_or(|(shown, known)| shown == known)
}

/// Adverse evidence about the active side, from its first sign on.
#[derive(Debug, Clone)]
pub struct Suspicion {
    /// The first adverse evidence.
    pub t0: Moment,
    /// The same on the wall clock.
    pub wall: WallTime,
    /// What it was.
    pub why: String,
    /// When `fall` was reached.
    pub threshold: Option<Moment>,
    /// Since when the witness says *idle* while every fresh probe times out.
    pub idle_since: Option<Moment>,
}

/// What is to be made of the active side.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// Below the threshold.
    Suspect(String),
    /// The threshold is reached; something is waited for.
    Waiting(String),
    /// It must not be decided.
    Blocked(BlockReason, String),
    /// Decide.
    Decide(Decision),
}

/// A failover is justified.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The candidate.
    pub to: BackendName,
    /// The evidence in one sentence.
    pub why: String,
    /// The evidence is so fresh that it is its own recheck.
    pub rechecked: bool,
    /// Only after a successful node fence.
    pub fence_needed: bool,
    /// A standby still gets heartbeats.
    pub over_idle: bool,
}

/// The evidence as one argument.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The configuration.
    pub service: &'a Service,
    /// All backends.
    pub sides: &'a [Side],
    /// The latched one.
    pub active: &'a Side,
    /// What it proved to be.
    pub identity: Option<&'a Identity>,
    /// Since when and why it is suspect.
    pub suspicion: &'a Suspicion,
    /// The clock that decides.
    pub now: Moment,
}

const REFUSALS_NEEDED: usize = 3;
const REFUSALS_SPAN: Duration = Duration::from_millis(230);
/// The last connect and the last sample are the recheck: what ended longer ago is no last look.
const DEATH_FRESH: Duration = Duration::from_millis(100);
/// How often standbys are sampled while the active side is suspect.
const SAMPLING: Duration = Duration::from_millis(250);
const SHUTDOWN_MEMORY: Duration = Duration::from_secs(60);

/// Judges a suspect active side of a pair whose standbys must be promoted.
pub fn judge(e: &Evidence<'_>) -> Finding {
    if let Some(reason) = dead(e) {
        return decide(e, reason, true);
    }
    if e.active.state() != State::Down {
        return Finding::Suspect(format!("{} is suspect: {}", e.active.name, e.suspicion.why));
    }
    let Some(threshold) = e.suspicion.threshold else {
        return Finding::Suspect(format!("{} is suspect: {}", e.active.name, e.suspicion.why));
    };
    let failover = &e.service.failover;
    if e.now < threshold + failover.delay {
        return Finding::Waiting(format!("{} is down; waiting {:?} before the recheck", e.active.name, failover.delay));
    }
    if let Some((first, _)) = e.active.stopping
        && e.now < first + failover.restart_grace
    {
        let grace = failover.restart_grace;
        return Finding::Waiting(format!(
            "{} was shut down on purpose; waiting {grace:?} for its restart",
            e.active.name
        ));
    }
    let fresh = e.service.probe.fast_interval + e.service.probe.timeout + Duration::from_millis(500);
    let recent = Moment(e.now.0.saturating_sub(fresh));
    if !e.active.failed_since(recent) {
        return Finding::Waiting(format!("{} is down; waiting for a fresh probe to confirm it", e.active.name));
    }
    let newest = newest_failure(e.active);
    if e.active.alive() > newest.map(|(started, _)| started) {
        return Finding::Blocked(
            BlockReason::HungNotDead,
            format!(
                "{} takes no new connections, but open ones still get answers: it is hung, not dead",
                e.active.name
            ),
        );
    }
    let how = newest.map_or_else(String::new, |(_, failure)| format!(" ({failure})"));
    decide(e, format!("{} failed {} probes in a row{how}", e.active.name, e.active.failures()), false)
}

/// Judges a suspect active side where every side always serves: no witness, no promotion.
pub fn judge_route(e: &Evidence<'_>, tier_up: bool) -> Finding {
    if tier_up {
        return Finding::Suspect(format!("{} is suspect: {}; its tier still serves", e.active.name, e.suspicion.why));
    }
    if e.active.state() != State::Down {
        return Finding::Suspect(format!("{} is suspect: {}", e.active.name, e.suspicion.why));
    }
    let waiting = |text: &str| Finding::Waiting(format!("{} is down; {text}", e.active.name));
    let Some(threshold) = e.suspicion.threshold else {
        return Finding::Suspect(format!("{} is suspect: {}", e.active.name, e.suspicion.why));
    };
    if e.now < threshold + e.service.failover.delay {
        return waiting("waiting for the configured delay");
    }
    let fresh = e.service.probe.fast_interval + e.service.probe.timeout + Duration::from_millis(500);
    if !e.active.failed_since(Moment(e.now.0.saturating_sub(fresh))) {
        return waiting("waiting for a fresh probe to confirm it");
    }
    match candidate::best_server(e.sides, &e.active.name) {
        Some(to) => Finding::Decide(Decision {
            to: to.name.clone(),
            why: format!("{} failed {} probes in a row and {} serves", e.active.name, e.active.failures(), to.name),
            rechecked: false,
            fence_needed: false,
            over_idle: false,
        }),
        None => {
            Finding::Blocked(BlockReason::NoCandidate, format!("{} is down and no other backend is up", e.active.name))
        }
    }
}

/// The death path: the sentence that proves it, or `None`.
fn dead(e: &Evidence<'_>) -> Option<String> {
    let delayed = !e.service.failover.delay.is_zero();
    if delayed || !e.service.probe.passive || e.active.indirect || e.active.live > 0 {
        return None;
    }
    if e.active.stopping.is_some_and(|(_, last)| e.now.since(last) < SHUTDOWN_MEMORY) {
        return None;
    }
    if !e.active.lost_for_good() || e.active.addresses.is_empty() {
        return None;
    }
    let longest = e.service.probe.fast_interval.max(DEATH_FRESH);
    let is_last_look =
        |began: Moment, ended: Moment| e.now.since(ended) <= DEATH_FRESH && e.now.since(began) <= longest;
    let mut first_refusal = e.now;
    for address in e.active.addresses.values() {
        let refusals = address.health.refusals();
        let (first, last) = (refusals.first()?, refusals.last()?);
        let (began, ended, _) = address.health.failed()?;
        if refusals.len() < REFUSALS_NEEDED || last.since(*first) < REFUSALS_SPAN || !is_last_look(began, ended) {
            return None;
        }
        first_refusal = first_refusal.min(*first);
    }
    let others = || e.sides.iter().filter(|side| side.name != e.active.name && side.quarantine.is_none());
    if others().any(|side| side.witness.testimony().alive()) {
        return None;
    }
    let gone = others().find(|side| {
        let sampled = side.witness.sampled();
        side.witness.testimony() == Testimony::Gone
            && sampled.is_some_and(|(began, ended)| began > first_refusal && is_last_look(began, ended))
    })?;
    Some({
        format!(
            "{} is dead: every connection ended, {REFUSALS_NEEDED} fresh connects to each address were refused, and {} lost its replication stream",
            e.active.name, gone.name
        )
    })
}

fn newest_failure(side: &Side) -> Option<(Moment, Failure)> {
    side.addresses
        .values()
        .filter_map(|a| a.health.failed())
        .map(|(started, _, how)| (started, how))
        .max_by_key(|f| f.0)
}

/// Death is established; asks the witnesses and the candidates.
fn decide(e: &Evidence<'_>, why: String, rechecked: bool) -> Finding {
    let mut over_idle = false;
    // Who gets new log outweighs who gets heartbeats.
    let others = e.sides.iter().filter(|side| side.name != e.active.name && side.witness.testimony().alive());
    if let Some(side) = others.max_by_key(|side| side.witness.testimony()) {
        match hung_with_idle_witness(e, side) {
            Ok(()) => over_idle = true,
            Err(finding) => return finding,
        }
    }
    let fence_needed = over_idle || e.service.failover.fence_required;
    let fit = candidate::rank(e.service, e.sides, &e.active.name, e.identity, Some(e.suspicion.t0), e.now);
    let mut unknown = None;
    for (side, fitness) in &fit {
        let Fitness::Fit { .. } = fitness else {
            continue;
        };
        if e.identity.is_some() && !side.witness.asked() {
            // Nor does a lesser one that was asked before it.
            return Finding::Waiting(format!("{why}; waiting for a fresh sample of {}", side.name));
        }
        let testimony = side.witness.testimony();
        let optional = e.service.failover.witness == WitnessRule::Optional;
        let counts = testimony.lost() || over_idle && testimony == Testimony::Idle;
        if counts && !says_so_now(side, e.service, e.now) {
            return Finding::Waiting(format!("{why}; waiting for a fresh sample of {}", side.name));
        }
        if counts {
            let said = format!("{why}; {} says {} and is {}", side.name, testimony.as_str(), fitness);
            return Finding::Decide(Decision { to: side.name.clone(), why: said, rechecked, fence_needed, over_idle });
        }
        if side.witness.usable(e.identity.map(|i| i.timeline)) {
            // It has most: a lesser one that has noticed already does not take its place.
            let name = &side.name;
            return Finding::Waiting(format!(
                "{why}; waiting for {name} to notice the silence of its replication stream"
            ));
        } else if optional {
            let said = format!("{why}; {} is {}, without a witness", side.name, fitness);
            return Finding::Decide(Decision { to: side.name.clone(), why: said, rechecked, fence_needed, over_idle });
        } else {
            unknown.get_or_insert(side.name.clone());
        }
    }
    if let Some(name) = unknown {
        return Finding::Blocked(
            BlockReason::WitnessUnknown,
            format!(
                "{why}, but {name} cannot testify about its replication stream{}: look at both sides, then `proxyctl failover --force`",
                mute_because(e.sides, &name)
            ),
        );
    }
    let (reason, said) = candidate::refusal(&fit);
    Finding::Blocked(reason, format!("{why}, but {said}"))
}

/// Why a stream between clusters says nothing.
fn mute_because(sides: &[Side], name: &BackendName) -> String {
    let side = sides.iter().find(|side| side.name == *name);
    let why = side.and_then(|side| side.witness.replication()?.mute_because());
    why.map_or_else(String::new, |why| format!(" ({why})"))
}

/// Is what this standby testifies from a sample that is recent enough to act upon?
pub fn says_so_now(side: &Side, service: &Service, now: Moment) -> bool {
    let oldest = service.probe.fast_interval + service.probe.timeout + SAMPLING;
    side.witness.sampled().is_some_and(|(began, _)| now.since(began) <= oldest)
}

fn hung_with_idle_witness(e: &Evidence<'_>, side: &Side) -> Result<(), Finding> {
    let testimony = side.witness.testimony();
    let timed_out =
        e.active.addresses.values().all(|a| a.health.failed().is_some_and(|(.., f)| f == Failure::TimedOut));
    if testimony == Testimony::Idle && timed_out {
        let waited = e.suspicion.idle_since.is_some_and(|since| e.now.since(since) >= e.service.failover.hung_grace);
        return match (waited, e.service.failover.fence_command.is_some()) {
            (true, true) => Ok(()),
            (false, true) => {
                Err(Finding::Waiting(format!("{} does not answer, but still sends to {}", e.active.name, side.name)))
            }
            (true, false) => Err(Finding::Blocked(
                BlockReason::HungNotDead,
                format!(
                    "{} has answered nothing from here for {} s, but still sends to {}: hung, not dead, or cut off from here; if it is hung, stop it, then `proxyctl failover`",
                    e.active.name,
                    e.service.failover.hung_grace.as_secs(),
                    side.name
                ),
            )),
            (false, false) => Err(still_hears(e, side)),
        };
    }
    Err(still_hears(e, side))
}

fn still_hears(e: &Evidence<'_>, side: &Side) -> Finding {
    // It may live or not: clocks that contradict each other prove neither, and what moved may be the primary's word.
    if let Some((at, clock)) = side.witness.replication().and_then(|witness| witness.runs_ahead()) {
        let (active, name) = (&e.active.name, &side.name);
        let said = format!(
            "{active} cannot be reached from here, and the replicated time {at} of the stream to {name} is ahead of its source's clock, {clock}: one of them is wrong, so whether {active} lives cannot be told; look at both clusters, then `proxyctl failover --force`"
        );
        return Finding::Blocked(BlockReason::WitnessAlive, said);
    }
    Finding::Blocked(
        BlockReason::WitnessAlive,
        format!(
            "{} cannot be reached from here, but {} still receives from it ({}): it lives, so nothing is promoted",
            e.active.name,
            side.name,
            side.witness.testimony().as_str()
        ),
    )
}

/// Why the latched side may get no byte although it answers, from its newest answer.
pub fn mismatch(active: &Side, identity: Option<&Identity>) -> Option<(BlockReason, String)> {
    let identity = identity?;
    let facts = &active.facts.as_ref()?.facts;
    let name = &active.name;
    if facts.role == Role::Standby {
        return Some((BlockReason::RoleMismatch, format!("{name} is latched as active, but says it is a standby")));
    }
    if facts.role != Role::Primary {
        return None;
    }
    match lineage(facts, identity, true) {
        Lineage::Same => None,
        Lineage::Descends => {
            let shown = facts.timeline.map_or(0, |t| t.0);
            let said = format!(
                "{name} shows timeline {shown}, the latch says {}: `proxyctl adopt {name}` if that is right",
                identity.timeline
            );
            Some((BlockReason::Rewound, said))
        }
        Lineage::Unproven => None,
        Lineage::Older | Lineage::Stranger => {
            let said = format!(
                "{name} is not the server that was latched: it shows system {} timeline {}, the latch says {} and {}",
                facts.system_id.map_or_else(|| "unknown".into(), |s| s.to_string()),
                facts.timeline.map_or_else(|| "unknown".into(), |t| t.to_string()),
                identity.system_id,
                identity.timeline
            );
            Some((BlockReason::LatchUnproven, said))
        }
    }
}

/// Two backends that are one server. What was heard at an address that is not theirs any more says nothing.
pub fn same_server(sides: &[Side]) -> Option<String> {
    let node = |side: &Side| {
        let heard = side.facts.as_ref()?;
        let mut here = side.addresses.values().filter_map(|address| address.facts.as_ref());
        here.any(|facts| facts.started == heard.started).then(|| heard.facts.node.clone())?
    };
    for (i, side) in sides.iter().enumerate() {
        for other in &sides[i + 1..] {
            if let (Some(a), Some(b)) = (node(side), node(other))
                && a == b
            {
                return Some(format!("{} and {} are one server ({a}): correct their addresses", side.name, other.name));
            }
        }
    }
    None
}

/// Is the upstream of `standby` another backend than the latched one? An upstream that cannot be recognised counts as
/// the latched one: host names differ from machine to machine.
pub fn cascades(sender: Option<&str>, sides: &[Side], standby: &BackendName, active: &BackendName) -> bool {
    let Some(sender) = sender else { return false };
    if sides.iter().any(|side| side.name == *active && is_at(side, sender)) {
        return false;
    }
    sides.iter().any(|side| side.name != *active && side.name != *standby && is_at(side, sender))
}

/// Is this the server that a standby calls so?
pub fn is_at(side: &Side, sender: &str) -> bool {
    side.addresses
        .iter()
        .any(|(ip, a)| ip.to_string() == sender || a.configured.as_ref().is_some_and(|c| c.to_string() == sender))
        || side.facts.as_ref().and_then(|h| h.facts.node.as_deref()) == Some(sender)
}

/// The timeline a standby last streamed on is the latched one.
pub fn streams_on(side: &Side, timeline: Timeline) -> bool {
    side.facts.as_ref().is_some_and(|heard| match &heard.facts.receiver {
        super::observation::Receiver::Row(row) => row.streaming && row.timeline == Some(timeline),
        _ => false,
    })
}
