//! Everything heard about one backend: its addresses' health, what it says it is, its claim to be primary.
//! Holds no decision; `analysis` compares it with the latch.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::analysis;
use super::health::{Health, Limits, State};
use super::observation::{Facts, Failure, Observation, Receiver, Role, Unknown, Verdict};
use super::phase::Identity;
use super::relayed::{CutOff, Relayed, StandbySeen};
use super::replication::Known;
use super::survivors::Upstream;
use super::witness::Witness;
use crate::config;
use crate::types::{BackendName, HostPort, Lsn, Moment, Now, SystemId, Timeline, WallTime};
use crate::view::Durations;

/// One backend as heard.
#[derive(Debug, Clone)]
pub struct Side {
    /// Its name.
    pub name: BackendName,
    /// Its configuration.
    pub config: config::Backend,
    /// Its addresses, as resolved.
    pub addresses: BTreeMap<SocketAddr, Address>,
    /// The newest facts and when their probe began and ended.
    pub facts: Option<Heard>,
    /// As primary: its replication stream is not asked; as standby: what it testifies.
    pub witness: Witness,
    /// As standby: from whom it last streamed.
    pub upstream: Option<Upstream>,
    /// Clusters: the one stream that leads to it from the active side, or why there is none; `None` = nothing was read.
    pub inbound: Option<Result<Known, String>>,
    /// Clusters: what the control plane records of it, beside its normal state.
    pub note: Option<String>,
    /// Not one byte goes there, and why.
    pub quarantine: Option<String>,
    /// An operator took newcomers from all of it: it is no candidate, and why.
    pub excluded: Option<String>,
    /// The active side changed, and nothing can show whether this one has followed it since.
    pub unproven: bool,
    /// Start of the newest fresh probe that it answered, and not as it should.
    pub refuses: Option<Moment>,
    /// Its claim to be primary, while it makes one.
    pub claim: Option<Claim>,
    /// Relayed connections that live.
    pub live: usize,
    /// Bytes handed to it for clients.
    pub relayed: Relayed,
    /// When it was last cut.
    pub cut: Option<CutOff>,
    /// It last answered as a standby beside the side that is active now.
    pub standby: Option<StandbySeen>,
    /// When the probe's kept connection was last lost.
    pub kept_lost: Option<Moment>,
    /// The first and last word of a shutdown on purpose.
    pub stopping: Option<(Moment, Moment)>,
    /// The newest flush position it showed as primary, by line: what it says of another one takes nothing back.
    pub(super) flushed: Vec<Mark>,
    /// Its clock minus ours, microseconds, and by how much that moved between the last two probes.
    pub offset: Option<i64>,
    /// The offset moved by half a second or more: C0 is void.
    pub clock_jumped: bool,
    /// The node key changed between two fresh connects.
    pub indirect: bool,
    /// For the view.
    pub last_probe: Option<LastProbe>,
    /// Bytes per second that it replayed between its last two answers in which it had some to replay.
    pub replay_rate: Option<u64>,
    /// How long fresh probes took.
    pub durations: Durations,
    /// Probes since the start.
    pub probes: u64,
    /// Failed ones among them.
    pub failed_probes: u64,
    /// How often it came back from *down*.
    pub recoveries: u64,
}

/// One resolved address.
#[derive(Debug, Clone, Default)]
pub struct Address {
    /// As configured.
    pub configured: Option<HostPort>,
    /// Its counters.
    pub health: Health,
    /// What it proved last as an answer, by itself.
    pub facts: Option<Heard>,
}

/// A position on one line; two timelines may bear one number.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    system: SystemId,
    timeline: Timeline,
    /// Where it branched off, if that was told.
    branched: Option<Lsn>,
    lsn: Lsn,
    at: Moment,
}

/// So many lines of one server are remembered.
const LINES_KEPT: usize = 8;

/// Facts with their probe's times.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When the probe began.
    pub started: Moment,
    /// When it ended.
    pub finished: Moment,
    /// What it read.
    pub facts: Facts,
}

/// A backend that is not latched says that it is primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Start of the first probe that heard it on any timeline: who was restored and promoted anew was never a standby.
    pub since: Moment,
    /// Start of the first probe that heard it on this one.
    pub first: Moment,
    /// Start of the newest one.
    pub last: Moment,
    /// On this timeline.
    pub timeline: Option<Timeline>,
}

impl Claim {
    /// Two probes 200 ms apart heard it.
    pub fn proven(&self) -> bool {
        self.last.since(self.first) >= PROOF
    }

    /// The same on whatever timelines: enough to decide nothing beside it, not to follow it.
    pub fn stands(&self) -> bool {
        self.last.since(self.since) >= PROOF
    }
}

/// The last probe, for the view.
#[derive(Debug, Clone)]
pub struct LastProbe {
    /// When its verdict stood.
    pub at: WallTime,
    /// How long it took.
    pub took: Duration,
    /// In words.
    pub text: String,
}

/// Two answers this far apart prove a claim.
const PROOF: Duration = Duration::from_millis(200);
const CLOCK_JUMP_US: i64 = 500_000;
/// A replay's speed is measured over at least this long.
const RATE_OVER_MS: u64 = 200;

impl Side {
    /// A backend nothing was heard of yet.
    pub fn new(config: &config::Backend) -> Self {
        Self {
            name: config.name.clone(),
            config: config.clone(),
            addresses: BTreeMap::new(),
            facts: None,
            witness: Witness::default(),
            upstream: None,
            inbound: None,
            note: None,
            quarantine: None,
            excluded: None,
            unproven: false,
            refuses: None,
            claim: None,
            live: 0,
            relayed: Relayed::default(),
            cut: None,
            standby: None,
            kept_lost: None,
            stopping: None,
            flushed: Vec::new(),
            offset: None,
            clock_jumped: false,
            indirect: false,
            last_probe: None,
            replay_rate: None,
            durations: Durations::default(),
            probes: 0,
            failed_probes: 0,
            recoveries: 0,
        }
    }

    /// The addresses its names resolve to now; those that are gone are forgotten.
    pub fn resolved(&mut self, addresses: &[(HostPort, SocketAddr)]) {
        // Whatever stood between stood at the old ones.
        self.indirect &= addresses.iter().all(|(_, address)| self.addresses.contains_key(address));
        self.addresses.retain(|known, _| addresses.iter().any(|(_, address)| address == known));
        for (configured, address) in addresses {
            self.addresses.entry(*address).or_default().configured = Some(configured.clone());
        }
    }

    /// Takes one observation. Returns `false` for an address that is not (any more) one of its own.
    pub fn observe(&mut self, seen: &Observation, limits: Limits, now: Now) -> bool {
        let before = self.state();
        let known = self.count(seen, limits, now);
        self.recoveries += u64::from(before == State::Down && self.state() == State::Up);
        known
    }

    fn count(&mut self, seen: &Observation, limits: Limits, now: Now) -> bool {
        let alone = self.addresses.len() == 1;
        let Some(address) = self.addresses.get_mut(&seen.address) else {
            if let Verdict::Unknown(why @ Unknown::NoAddress) = &seen.verdict {
                self.last_probe = Some(LastProbe { at: now.wall, took: Duration::ZERO, text: why.to_string() });
            }
            return false;
        };
        address.health.count(seen.started, seen.finished, seen.fresh, &seen.verdict, limits);
        self.probes += 1;
        if seen.fresh {
            self.durations.add(seen.finished.since(seen.started));
        }
        let text = match &seen.verdict {
            Verdict::Answered(facts) => {
                let newer = address.facts.as_ref().is_none_or(|heard| heard.started <= seen.started);
                let before = address.facts.as_ref().filter(|_| newer && seen.fresh).and_then(|h| h.facts.node.as_ref());
                // Who stands at another address is another server, and no sign of anything between.
                self.indirect |=
                    before.is_some_and(|before| facts.node.as_ref().is_some_and(|node| node != before)) && alone;
                if newer {
                    address.facts = Some(Heard::of(seen, facts));
                }
                self.answered(seen, facts, now);
                "answered".to_owned()
            }
            Verdict::Recovering => "the server is starting up or in recovery".to_owned(),
            Verdict::Unknown(why) => why.to_string(),
            Verdict::Failed(failure) => {
                self.failed_probes += 1;
                if *failure == Failure::BadReply && self.refuses.is_none_or(|at| at < seen.started) {
                    (self.refuses, self.claim) = (Some(seen.started), None);
                }
                if *failure == Failure::ShuttingDown {
                    // One that served since was not being stopped any more.
                    let served = self.facts.as_ref().map(|heard| heard.finished);
                    let going_on = self.stopping.filter(|(_, last)| served.is_none_or(|served| served <= *last));
                    let first = going_on.map_or(seen.finished, |(first, _)| first);
                    self.stopping = Some((first, seen.finished));
                }
                failure.to_string()
            }
        };
        let newest = self.facts.as_ref().is_some_and(|heard| heard.started <= seen.started);
        if newest && !matches!(seen.verdict, Verdict::Answered(_)) {
            self.witness.sample_failed(seen.started);
        }
        if seen.fresh || !matches!(seen.verdict, Verdict::Answered(_)) {
            self.last_probe = Some(LastProbe { at: now.wall, took: seen.finished.since(seen.started), text });
        }
        true
    }

    fn answered(&mut self, seen: &Observation, facts: &Facts, now: Now) {
        if self.facts.as_ref().is_some_and(|heard| heard.started > seen.started) {
            return;
        }
        if let Some(clock) = facts.clock {
            let offset = clock.0 - now.wall.0;
            self.clock_jumped = self.offset.is_some_and(|before| (before - offset).abs() >= CLOCK_JUMP_US);
            self.offset = Some(offset);
        }
        self.claims(seen, facts);
        if seen.fresh && self.stopping.is_some_and(|(_, last)| seen.finished.since(last) > Duration::from_secs(60)) {
            self.stopping = None;
        }
        self.replays(seen, facts);
        Upstream::note(&mut self.upstream, facts);
        self.facts = Some(Heard::of(seen, facts));
    }

    /// It answered beside the active side, which had been handed so much when it was asked.
    pub fn answers_beside(&mut self, asked: Moment, role: Role, relayed: Option<u64>) {
        if role == Role::Standby && self.standby.is_none_or(|seen| seen.asked < asked) {
            self.standby = Some(StandbySeen { asked, relayed });
        }
    }

    fn replays(&mut self, seen: &Observation, facts: &Facts) {
        let Some(before) = &self.facts else { return };
        let ms = u64::try_from(seen.finished.since(before.finished).as_millis()).unwrap_or(u64::MAX);
        if let (Some(from), Some(to)) = (before.facts.replay_lsn, facts.replay_lsn)
            && before.backlog().is_some_and(|backlog| backlog > 0)
            && ms >= RATE_OVER_MS
        {
            self.replay_rate = Some(to.0.saturating_sub(from.0).saturating_mul(1000) / ms);
        }
    }

    /// How long it would replay what it has received; `None` = nothing says how fast it is.
    pub fn replays_for(&self) -> Option<Duration> {
        let backlog = self.facts.as_ref()?.backlog()?;
        match self.replay_rate {
            _ if backlog == 0 => Some(Duration::ZERO),
            Some(rate) if rate > 0 => Some(Duration::from_millis(backlog.saturating_mul(1000) / rate)),
            _ => None,
        }
    }

    /// What it claims as primary, and how far it got on that timeline; a standby claims nothing.
    fn claims(&mut self, seen: &Observation, facts: &Facts) {
        if facts.role != Role::Primary {
            self.claim = None;
            return;
        }
        self.mark(seen.finished, facts);
        match &mut self.claim {
            Some(claim) if claim.timeline == facts.timeline => {
                claim.last = claim.last.max(seen.started);
            }
            claim => {
                let since = claim.as_ref().map_or(seen.started, |claim| claim.since);
                *claim = Some(Claim { since, first: seen.started, last: seen.started, timeline: facts.timeline });
            }
        }
    }

    fn mark(&mut self, at: Moment, facts: &Facts) {
        let (Some(system), Some(timeline), Some(lsn)) = (facts.system_id, facts.timeline, facts.lsn) else {
            return;
        };
        let mark = Mark { system, timeline, branched: facts.branched(), lsn, at };
        let line = |mark: &Mark| (mark.system, mark.timeline, mark.branched);
        self.flushed.retain(|known| line(known) != line(&mark));
        self.flushed.push(mark);
        let surplus = self.flushed.len().saturating_sub(LINES_KEPT);
        self.flushed.drain(..surplus);
    }

    /// The newest flush position that it showed as primary of this line, and when.
    pub fn flushed(&self, on: &Identity) -> Option<(Lsn, Moment)> {
        let same = |mark: &&Mark| {
            mark.system == on.system_id
                && mark.timeline == on.timeline
                && mark.branched.zip(on.switch_lsn).is_none_or(|(shown, known)| shown == known)
        };
        self.flushed.iter().rev().find(same).map(|mark| (mark.lsn, mark.at))
    }

    /// Up if one address is, down if all are, else what is better known.
    pub fn state(&self) -> State {
        let states = || self.addresses.values().map(|address| address.health.state());
        if states().any(|state| state == State::Up) {
            State::Up
        } else if states().any(|state| state == State::Recovering) {
            State::Recovering
        } else if !self.addresses.is_empty() && states().all(|state| state == State::Down) {
            State::Down
        } else {
            State::Unknown
        }
    }

    /// When the aggregated state was entered (of the address that changed last).
    pub fn state_since(&self) -> Option<Moment> {
        self.addresses.values().map(|address| address.health.since()).max()
    }

    /// The most failures in a row of its best address.
    pub fn failures(&self) -> u32 {
        self.addresses.values().map(|address| address.health.failures()).min().unwrap_or(0)
    }

    /// Up, and an address that is up has answered since it last failed.
    pub fn serves(&self) -> bool {
        self.addresses.values().any(|address| {
            let answered = address.facts.as_ref().map(|heard| heard.started);
            let failed = address.health.failed().map(|(started, ..)| started);
            address.health.state() == State::Up && answered >= failed
        })
    }

    /// What it says it is.
    pub fn role(&self) -> Role {
        self.facts.as_ref().map_or(Role::Unknown, |heard| heard.facts.role)
    }

    /// Newest sign of life on any address or relayed connection.
    pub fn alive(&self) -> Option<Moment> {
        self.addresses.values().filter_map(|address| address.health.alive()).max()
    }

    /// Was the probe's kept connection lost, without an answer to a probe since? What clients got meanwhile says nothing:
    /// a dying server's farewells arrive in any order.
    pub fn lost_for_good(&self) -> bool {
        let spoke = self.addresses.values().filter_map(|address| address.health.spoke()).max();
        self.kept_lost.is_some_and(|at| spoke.is_none_or(|spoke| at >= spoke))
    }

    /// Every address has told who it is by an answer to a probe that began at `since` or later. Where probes tell no
    /// roles, any verdict will do.
    pub fn heard_since(&self, since: Moment, tells: bool) -> bool {
        let told = |heard: &Heard| {
            heard.started >= since && heard.facts.role != Role::Unknown && heard.facts.timeline.is_some()
        };
        let heard = |address: &Address| match tells {
            true => address.facts.as_ref().is_some_and(told),
            false => address.health.heard().is_some_and(|at| at >= since),
        };
        !self.addresses.is_empty() && self.addresses.values().all(heard)
    }

    /// Start of the newest fresh pass of any address.
    pub fn passed(&self) -> Option<Moment> {
        self.addresses.values().filter_map(|address| address.health.passed()).max()
    }

    /// Did a fresh probe pass that began at `from` or later and had its answer after `evidence`?
    pub fn passed_after(&self, from: Moment, evidence: Moment) -> bool {
        let answered = self.addresses.values().filter_map(|address| address.health.passed_by()).max();
        self.passed().is_some_and(|passed| passed >= from) && answered.is_some_and(|answered| answered >= evidence)
    }

    /// Did every address fail a fresh probe that began at `from` or later, and none pass one?
    pub fn failed_since(&self, from: Moment) -> bool {
        !self.addresses.is_empty()
            && self.passed().is_none_or(|passed| passed < from)
            && self.addresses.values().all(|a| a.health.failed().is_some_and(|(started, ..)| started >= from))
    }

    /// Does this address prove, by its own last answer, to be the latched server serving as primary?
    pub fn proves(address: &Address, identity: Option<&Identity>) -> bool {
        let Some(Heard { facts, .. }) = &address.facts else {
            return false;
        };
        match identity {
            None => true,
            Some(identity) => facts.role == Role::Primary && analysis::same_line(facts, identity),
        }
    }

    /// As [`Side::proves`], by an answer to a probe that began at `since` or later.
    pub fn proves_since(address: &Address, identity: Option<&Identity>, since: Moment) -> bool {
        address.facts.as_ref().is_some_and(|heard| heard.started >= since) && Self::proves(address, identity)
    }

    /// Does this address prove, by its own last answer, to be a standby of this system that streams on no other line?
    pub fn stays_behind(address: &Address, identity: &Identity) -> bool {
        let Some(Heard { facts, .. }) = &address.facts else {
            return false;
        };
        let elsewhere =
            matches!(&facts.receiver, Receiver::Row(row) if row.streaming && row.timeline != Some(identity.timeline));
        facts.role == Role::Standby && facts.system_id == Some(identity.system_id) && !elsewhere
    }

    /// Forgets counters and suspicion (this daemon slept or was late), keeps what was proven.
    pub fn forget(&mut self) {
        for address in self.addresses.values_mut() {
            address.health.reset();
        }
        self.witness.end();
        self.kept_lost = None;
        self.claim = None;
    }
}

impl Heard {
    fn of(seen: &Observation, facts: &Facts) -> Self {
        Self { started: seen.started, finished: seen.finished, facts: facts.clone() }
    }

    /// Bytes received but not replayed.
    pub fn backlog(&self) -> Option<u64> {
        Some(self.facts.replay_lsn?.behind(self.facts.lsn?))
    }
}
