//! What one daemon was told about each backend, counted anew and plainly, as the laws count it. Written from the laws,
//! not from the machine: where a law leaves room, it is on the machine's side.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use pgpivot::config::Service;
use pgpivot::failover::observation::{Facts, Failure, Observation, Receiver, Role, Unknown, Verdict};
use pgpivot::failover::phase::Identity;
use pgpivot::types::{Lsn, SystemId, Timeline};

use crate::daemon::millis;

/// One address.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    pub down: bool,
    /// When it became so.
    pub down_since: u64,
    pub fails: u32,
    /// Of the last run of failures: how many began a fast interval apart, but for timers, and the start of the last of
    /// those. Looks in quick succession are one.
    run: (u32, u64),
    passes: u32,
    pub passed: Option<u64>,
    /// Start, and how.
    pub failed: Option<(u64, Failure)>,
    /// Starts of refusals in a row.
    pub refusals: Vec<u64>,
    /// Start and end of the newest one.
    pub refused: Option<(u64, u64)>,
    /// Newest start of any verdict that counted, and of one that was no failure.
    newest: u64,
    pub unfailed: u64,
    recovering: Option<u64>,
    /// It recovered, and has not passed often enough since.
    returning: bool,
    recoveries: Vec<u64>,
    /// The end of the last probe of any sort.
    pub heard: Option<u64>,
    /// The newest answer, by its start.
    pub told: Option<(u64, Facts)>,
    /// Start of the newest answer that told its role and timeline.
    pub placed: Option<u64>,
}

/// One backend.
#[derive(Debug, Clone, Default)]
pub struct Ear {
    pub counters: BTreeMap<SocketAddr, Counter>,
    /// The newest answer of any address: start, end, what.
    pub told: Option<(u64, u64, Facts)>,
    /// A probe that began later failed.
    pub failed_since_told: bool,
    /// Starts of the first and the newest answer in a row that claim to be primary.
    pub claim: Option<(u64, u64)>,
    /// When a row last streamed on a timeline.
    pub streamed: BTreeMap<Timeline, u64>,
    /// The greatest position that a row showed, by timeline.
    rows: BTreeMap<Timeline, u64>,
    /// That of the latched timeline when the active side became suspect.
    pub before: Option<u64>,
    /// A row was seen not long before the first adverse evidence: without one, none now means nothing.
    pub row_before: bool,
    /// From whom it streamed last.
    pub sender: Option<String>,
    pub kept_lost: Option<u64>,
    pub live: usize,
    /// First and last word of a shutdown since it last served.
    pub stopping: Option<(u64, u64)>,
    /// Newest sign of life on any connection.
    pub alive: Option<u64>,
    /// Newest node key by a fresh connect; it changed.
    pub indirect: bool,
    /// Clock minus ours, and whether it moved by half a second.
    offset: Option<i64>,
    pub clock_jumped: bool,
    /// Newest position shown as primary, by line.
    flushed: BTreeMap<Line, u64>,
}

/// System, timeline, and where that branched off: two timelines may bear one number.
type Line = (SystemId, Timeline, Option<Lsn>);

impl Counter {
    fn hear(&mut self, seen: &Observation, service: &Service, now: u64) {
        let started = millis(seen.started);
        self.heard = self.heard.max(Some(millis(seen.finished)));
        let overtaken = self.newest > started;
        match &seen.verdict {
            Verdict::Answered(facts) => {
                if facts.role != Role::Unknown && facts.timeline.is_some() {
                    self.placed = self.placed.max(Some(started));
                }
                if self.told.as_ref().is_none_or(|(newest, _)| *newest <= started) {
                    self.told = Some((started, (**facts).clone()));
                }
                if seen.fresh && !overtaken {
                    self.pass(started, service, now);
                }
            }
            Verdict::Unknown(why) if seen.fresh && why.proves_life() && !overtaken => {
                (self.newest, self.unfailed) = (started, started);
                self.fails = 0;
                self.refusals.clear();
                self.down = false;
            }
            Verdict::Unknown(_) => {}
            Verdict::Recovering if overtaken => {}
            Verdict::Recovering => self.recover(started, service, now),
            Verdict::Failed(how) if seen.fresh => {
                if *how == Failure::Refused {
                    self.refused = self.refused.max(Some((started, millis(seen.finished))));
                }
                self.fail(started, *how, service, now);
            }
            Verdict::Failed(_) => {}
        }
    }

    fn pass(&mut self, started: u64, service: &Service, now: u64) {
        (self.newest, self.unfailed) = (started, started);
        self.passed = self.passed.max(Some(started));
        self.passes += 1;
        self.fails = 0;
        self.recovering = None;
        self.returning &= self.passes < service.probe.rise;
        self.refusals.clear();
        self.recoveries.retain(|at| now - at < 120_000);
        if self.passes >= service.probe.rise && self.recoveries.len() < 3 {
            self.down = false;
        }
    }

    fn fail(&mut self, started: u64, how: Failure, service: &Service, now: u64) {
        if self.unfailed > started {
            return;
        }
        self.newest = self.newest.max(started);
        self.passes = 0;
        let apart = u64::try_from(service.probe.fast_interval.as_millis()).unwrap() * 9 / 10;
        match self.fails {
            0 => self.run = (1, started),
            _ if started >= self.run.1 + apart => self.run = (self.run.0 + 1, started),
            _ => {}
        }
        self.fails += 1;
        if self.failed.is_none_or(|(failed, _)| failed <= started) {
            self.failed = Some((started, how));
        }
        if how == Failure::Refused {
            self.refusals.push(started);
            self.refusals.sort_unstable();
        } else {
            self.refusals.clear();
        }
        if self.fails >= service.probe.fall {
            self.sink(now);
        }
    }

    fn recover(&mut self, started: u64, service: &Service, now: u64) {
        (self.newest, self.unfailed) = (started, started);
        self.passes = 0;
        self.returning = true;
        self.refusals.clear();
        if self.recovering.is_none() {
            self.recovering = Some(now);
            self.recoveries.retain(|at| now - at < 120_000);
            self.recoveries.push(now);
        }
        let patience = u64::try_from(service.failover.recovery_patience.as_millis()).unwrap();
        let lasts = now - self.recovering.unwrap_or(now) >= patience;
        if lasts || self.recoveries.len() >= 3 {
            self.failed = Some((now, Failure::BadReply));
            self.run = (service.probe.fall, now);
            self.sink(now);
        } else {
            self.down = false;
        }
    }

    fn sink(&mut self, now: u64) {
        if !self.down {
            self.down = true;
            self.down_since = now;
        }
    }

    fn forget(&mut self) {
        let (recoveries, told) = (std::mem::take(&mut self.recoveries), self.told.take());
        *self = Self { recoveries, told, placed: self.placed, ..Self::default() };
    }

    /// Down also for one that counts looks in quick succession once.
    pub fn surely_down(&self, service: &Service) -> bool {
        self.down && self.run.0 >= service.probe.fall
    }

    /// It is not up again yet, or recovered three times within two minutes: that counts as down, whatever it answers since.
    pub fn recovers(&self, now: u64) -> bool {
        self.returning || self.recoveries.iter().filter(|at| now - **at < 120_000).count() >= 3
    }

    /// The newest fresh verdict, by its start, is a failure that began then.
    pub fn failing(&self) -> Option<u64> {
        let (failed, _) = self.failed?;
        self.passed.is_none_or(|passed| passed < failed).then_some(failed)
    }
}

impl Ear {
    pub fn resolved(&mut self, addresses: &[SocketAddr]) {
        // Whatever stood between stood at the old ones.
        self.indirect &= addresses.iter().all(|address| self.counters.contains_key(address));
        self.counters.retain(|known, _| addresses.contains(known));
        for address in addresses {
            self.counters.entry(*address).or_default();
        }
    }

    pub fn hear(&mut self, seen: &Observation, service: &Service, now: u64, wall: i64) {
        let (started, finished) = (millis(seen.started), millis(seen.finished));
        let alone = self.counters.len() == 1;
        let Some(counter) = self.counters.get_mut(&seen.address) else { return };
        let before = counter.told.as_ref().filter(|(told, _)| *told <= started).and_then(|(_, f)| f.node.clone());
        counter.hear(seen, service, now);
        match &seen.verdict {
            Verdict::Answered(facts) => {
                if seen.fresh && alone && before.is_some() && facts.node.is_some() && before != facts.node {
                    self.indirect = true;
                }
                self.alive = self.alive.max(Some(finished));
                // Asked before the last word, it does not show that it serves again.
                if seen.fresh && self.stopping.is_some_and(|(_, last)| started >= last) {
                    self.stopping = None;
                }
                self.told_something(seen, facts, wall);
            }
            Verdict::Unknown(why) if why.proves_life() => self.alive = self.alive.max(Some(finished)),
            Verdict::Failed(how) => {
                if *how == Failure::ShuttingDown {
                    let first = self.stopping.map_or(finished, |(first, _)| first);
                    self.stopping = Some((first, finished));
                }
            }
            Verdict::Unknown(_) | Verdict::Recovering => {}
        }
        if !matches!(seen.verdict, Verdict::Answered(_)) {
            self.failed_since_told |= self.told.as_ref().is_some_and(|(told, ..)| *told <= started);
        }
    }

    fn told_something(&mut self, seen: &Observation, facts: &Facts, wall: i64) {
        let (started, finished) = (millis(seen.started), millis(seen.finished));
        if self.told.as_ref().is_some_and(|(newest, ..)| *newest > started) {
            return;
        }
        self.failed_since_told = false;
        if let Some(clock) = facts.clock {
            let offset = clock.0 - wall;
            self.clock_jumped = self.offset.is_some_and(|before| (before - offset).abs() >= 400_000);
            self.offset = Some(offset);
        }
        if facts.role == Role::Primary {
            let first = self.claim.map_or(started, |(first, _)| first);
            self.claim = Some((first, started));
            if let (Some(system), Some(timeline), Some(lsn)) = (facts.system_id, facts.timeline, facts.lsn) {
                let began = facts.history.as_ref().and_then(|history| history.last()).map(|at| at.switch_lsn);
                let flushed = self.flushed.entry((system, timeline, began)).or_default();
                // A primary's position never goes back, unless people restored the server.
                *flushed = lsn.0;
            }
        } else {
            self.claim = None;
        }
        if let Receiver::Row(row) = &facts.receiver
            && let (true, Some(timeline)) = (row.streaming, row.timeline)
        {
            self.streamed.insert(timeline, finished);
            let position = self.rows.entry(timeline).or_default();
            *position = (*position).max(row.lsn.map_or(0, |lsn| lsn.0));
            self.sender.clone_from(&row.sender);
        }
        self.told = Some((started, finished, facts.clone()));
    }

    /// The active side becomes suspect: what is shown from now on may be new.
    pub fn suspects(&mut self, timeline: Option<Timeline>) {
        self.before = timeline.and_then(|timeline| self.rows.get(&timeline).copied());
    }

    /// This daemon slept: what it counted is worth nothing.
    pub fn forget(&mut self) {
        for counter in self.counters.values_mut() {
            counter.forget();
        }
        self.kept_lost = None;
        self.claim = None;
    }

    /// The newest position it showed as primary of this line.
    pub fn flushed(&self, on: &Identity) -> Option<u64> {
        self.flushed.get(&(on.system_id, on.timeline, on.switch_lsn)).copied()
    }

    pub fn facts(&self) -> Option<&Facts> {
        self.told.as_ref().map(|(.., facts)| facts)
    }

    pub fn is_down(&self) -> bool {
        !self.counters.is_empty() && self.counters.values().all(|counter| counter.down)
    }

    pub fn down_since(&self) -> u64 {
        self.counters.values().map(|counter| counter.down_since).max().unwrap_or(0)
    }

    /// The newest failure of any address.
    pub fn newest_failure(&self) -> Option<u64> {
        self.counters.values().filter_map(|c| c.failed.map(|(at, _)| at)).max()
    }

    /// Says it was primary in two answers 200 ms apart, nothing else having been heard since.
    pub fn claims(&self) -> bool {
        self.claim.is_some_and(|(first, last)| last - first >= 200)
    }

    /// Is it well known that its server lives but says nothing useful?
    pub fn lives(verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Answered(_) => true,
            Verdict::Unknown(why) => *why != Unknown::OwnDelay && why.proves_life(),
            _ => false,
        }
    }
}

/// Does this server's line run through the latched one, as its history tells?
pub fn descends(facts: &Facts, latched: &Identity, streamed: bool) -> bool {
    let (Some(system), Some(timeline)) = (facts.system_id, facts.timeline) else { return false };
    if system != latched.system_id || timeline <= latched.timeline {
        return false;
    }
    let Some(history) = &facts.history else { return streamed };
    let Some(at) = history.iter().position(|a| a.timeline == latched.timeline) else { return false };
    // The latched timeline began where it is known to have begun.
    match (latched.switch_lsn, at.checked_sub(1).map(|before| history[before].switch_lsn)) {
        (Some(known), Some(shown)) => known == shown,
        _ => true,
    }
}

/// Does this answer show the latched server, serving as primary?
pub fn proves(facts: &Facts, latched: &Identity) -> bool {
    facts.role == Role::Primary && on_line(facts, latched)
}

/// Identifier, timeline, and where that branched off, as far as it is told.
pub fn on_line(facts: &Facts, latched: &Identity) -> bool {
    let began = facts.history.as_ref().and_then(|history| history.last());
    let elsewhere = began.is_some_and(|shown| latched.switch_lsn.is_some_and(|known| known != shown.switch_lsn));
    facts.system_id == Some(latched.system_id) && facts.timeline == Some(latched.timeline) && !elsewhere
}
