//! What a round comes down to: the journal of the applications held against what the servers hold.

use super::harness::checker::rows;
use super::harness::pair::Pair;
use super::harness::writer::{Acknowledged, IDS_OF_A_WRITER, Journal};
use super::peer::{Decision, PeerKind};
use super::round::Round;
use super::scenario::Scenario;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was seen of a round while it was played.
#[derive(Debug)]
pub struct Seen {
    /// What applications were told.
    pub journal: Journal,
    /// The most connections open at one time, from the blow until the new side served.
    pub most_open: usize,
    /// The blow.
    pub struck: Instant,
    /// The same, microseconds since 1970.
    pub struck_us: i64,
    /// Until when the new side refused writes, microseconds since 1970.
    pub accepted_us: Option<i64>,
    /// What the peer decided.
    pub decision: Decision,
}

/// The figures of a round. Times are milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// From 1.
    pub round: u32,
    /// What happened.
    pub scenario: Scenario,
    /// To whom.
    pub peer: PeerKind,
    /// By SQLSTATE, or `closed` for a connection that ended without one.
    pub errors: BTreeMap<String, usize>,
    /// Connections open at one time while it happened, at most.
    pub open: usize,
    /// Errors of the session that met most.
    pub most_errors_of_one: usize,
    /// Errors of connections that never stood.
    pub newcomers: usize,
    /// The longest time without a commit of anybody.
    pub gap: f64,
    /// The longest time without a commit of one session.
    pub wait: f64,
    /// From the blow to the decision; none where an operator decides.
    pub decision: Option<f64>,
    /// From the blow until the new side said that it takes writes.
    pub accepted: Option<f64>,
    /// From then until the first commit through the peer.
    pub added: Option<f64>,
    /// Of that, until the peer had its proof that the new side is primary.
    pub proof: Option<f64>,
    /// Of that, from the proof until the peer let applications in.
    pub latch: Option<f64>,
    /// Rows that the new side acknowledged and does not have.
    pub lost: usize,
    /// Rows that applications sent after the latch and the old side has.
    pub written_to_old: usize,
    /// Rows that the old side acknowledged after the latch.
    pub acknowledged_by_old: usize,
    /// Rows that the old side acknowledged before the latch and had not shipped: the price of asynchronous replication.
    pub never_shipped: usize,
    /// Applications that were told "read-only transaction".
    pub read_only: usize,
    /// Applications that waited for a minute in vain.
    pub stuck: usize,
    /// Rows acknowledged by both sides.
    pub acknowledged: usize,
    /// The peer's own account.
    pub steps: Vec<String>,
}

impl Figures {
    /// Looks at both servers, which must run.
    pub async fn of(round: Round, seen: &Seen, pair: &Pair) -> Self {
        let (told, errors) = (&seen.journal.acknowledged, &seen.journal.errors);
        let latched_us = seen.decision.latched_us.unwrap_or(i64::MAX);
        // The old side first: what an application left under way may still arrive on the new one.
        let (there, here) = (rows(&pair.east).await, rows(&pair.west).await);
        let by = |port: u16, which: &dyn Fn(&Acknowledged) -> bool| {
            told.iter().filter(|row| row.server == port && which(row)).count()
        };
        let after_latch = |row: &Acknowledged| seen.wall_us(row.at) > latched_us;
        let is_lost = |row: &Acknowledged| !here.contains_key(&row.id);
        let (old, new) = (pair.east.port, pair.west.port);
        let first_us = told.iter().find(|row| row.server == new).map(|row| seen.wall_us(row.at));
        let ms = |later: Option<i64>, earlier: Option<i64>| Some((later? - earlier?) as f64 / 1e3);
        let (decided_us, struck_us) = (Some(seen.decision.decided_us), Some(seen.struck_us));
        Self {
            round: round.number,
            scenario: round.scenario,
            peer: round.peer,
            errors: errors.clone(),
            open: seen.most_open,
            most_errors_of_one: most_errors_of_one(&seen.journal),
            newcomers: seen.journal.failures.iter().filter(|failure| !failure.connected).count(),
            gap: seen.journal.longest_gap().as_secs_f64() * 1e3,
            wait: longest_wait(told).as_secs_f64() * 1e3,
            decision: ms(decided_us, struck_us).filter(|_| round.scenario != Scenario::Switchover),
            accepted: ms(seen.accepted_us, struck_us),
            added: ms(first_us, seen.accepted_us),
            proof: ms(seen.decision.proven_us, seen.accepted_us),
            latch: ms(seen.decision.latched_us, seen.decision.proven_us),
            lost: by(new, &is_lost),
            written_to_old: there.values().filter(|sent_us| **sent_us > latched_us).count(),
            acknowledged_by_old: by(old, &after_latch),
            never_shipped: by(old, &|row| is_lost(row) && !after_latch(row)),
            read_only: errors.get("25006").copied().unwrap_or_default(),
            stuck: errors.iter().filter(|(word, _)| word.starts_with("stuck")).map(|(_, times)| times).sum(),
            acknowledged: told.len(),
            steps: seen.decision.steps.clone(),
        }
    }

    /// All errors together.
    pub fn error_count(&self) -> usize {
        self.errors.values().sum()
    }
}

impl Seen {
    /// A moment of the clock that measures, on the clock that people read.
    fn wall_us(&self, at: Instant) -> i64 {
        self.struck_us + (signed_ms(at, self.struck) * 1e3) as i64
    }
}

fn signed_ms(later: Instant, earlier: Instant) -> f64 {
    match later.checked_duration_since(earlier) {
        Some(after) => after.as_secs_f64() * 1e3,
        None => -(earlier.duration_since(later).as_secs_f64() * 1e3),
    }
}

/// Over all sessions; which one wrote a row stands in its id.
fn longest_wait(told: &[Acknowledged]) -> Duration {
    let mut last: BTreeMap<i64, Instant> = BTreeMap::new();
    let waits = told.iter().filter_map(|row| {
        let earlier = last.insert(row.id / IDS_OF_A_WRITER, row.at)?;
        Some(row.at.duration_since(earlier))
    });
    waits.max().unwrap_or_default()
}

fn most_errors_of_one(journal: &Journal) -> usize {
    let mut by_writer: BTreeMap<i32, usize> = BTreeMap::new();
    for failure in &journal.failures {
        *by_writer.entry(failure.writer).or_default() += 1;
    }
    by_writer.into_values().max().unwrap_or_default()
}
