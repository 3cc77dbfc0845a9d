//! One service: who is active and why, what is held, how far an episode is, what would happen next. Pure.

use std::time::Duration;

use super::board::{BAD, CALM, Fact, OK, Time, WARN, class, is_exhausted, level, mark, words};
use super::patroni::Patroni;
use super::replication::Replication;
use super::side::{Endpoint, Listener, Side};
use crate::admin::words::{bytes, count, fine_span, plural, until};
use crate::failover::phase::{BlockReason, Phase};
use crate::types::WallTime;
use crate::view::{Level, ServiceStatus};

pub(super) struct Service {
    pub(super) id: usize,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) level: &'static str,
    pub(super) mark: &'static str,
    pub(super) state: String,
    pub(super) phase: String,
    pub(super) track: Vec<Step>,
    pub(super) active: Option<String>,
    /// What the page names largest, and what that is.
    pub(super) headline: Option<String>,
    pub(super) label: &'static str,
    pub(super) epoch: u64,
    pub(super) since_what: String,
    pub(super) since: Option<Time>,
    pub(super) why: String,
    pub(super) evidence: String,
    pub(super) next: String,
    pub(super) verdict: Verdict,
    pub(super) notices: Vec<Notice>,
    pub(super) episode: Option<Episode>,
    pub(super) facts: Vec<Fact>,
    pub(super) sides: Vec<Side>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) listeners: Vec<Listener>,
    pub(super) replication: Option<Replication>,
    pub(super) patroni: Option<Patroni>,
}

/// The line under the active side's name: what it means for clients, and why they are held.
pub(super) struct Verdict {
    pub(super) level: &'static str,
    pub(super) text: String,
    pub(super) why: Option<String>,
}

/// A coloured box.
pub(super) struct Notice {
    pub(super) level: &'static str,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) since: Option<Time>,
}

pub(super) struct Step {
    pub(super) word: &'static str,
    pub(super) class: &'static str,
}

pub(super) struct Episode {
    pub(super) title: String,
    pub(super) why: String,
    pub(super) by: String,
    pub(super) decided: Time,
    pub(super) steps: Vec<Step>,
}

impl Service {
    pub(super) fn build(id: usize, s: &ServiceStatus, now: WallTime) -> Self {
        let level = class(level(s));
        Self {
            id,
            name: s.name.to_string(),
            kind: s.kind.clone(),
            level,
            mark: mark(level),
            state: words(&s.state),
            phase: s.phase.clone(),
            track: track(&s.phase),
            active: s.active.as_ref().map(ToString::to_string),
            headline: headline(s),
            label: if s.episode.is_some() { "Traffic moves" } else { "Active side" },
            epoch: s.epoch.0,
            since_what: match (&s.active, &s.episode) {
                (Some(active), Some(_)) => format!("{active} latched since"),
                _ => "since".to_owned(),
            },
            since: s.since.map(|at| Time::of(at, now)),
            why: s.why.clone(),
            evidence: s.evidence.clone(),
            next: s.next.clone(),
            verdict: verdict(s),
            notices: notices(s, now),
            episode: s.episode.as_ref().map(|e| Episode::build(e, &s.phase, now)),
            facts: facts(s, now),
            sides: s.backends.iter().map(|b| Side::build(b, s.replication.is_some(), now)).collect(),
            endpoints: s.backends.iter().flat_map(|b| b.endpoints.iter().map(|e| Endpoint::build(b, e))).collect(),
            listeners: s.listeners.iter().map(Listener::build).collect(),
            replication: s.replication.as_ref().map(|r| Replication::build(r, now)),
            patroni: s.patroni.as_ref().map(|p| Patroni::build(p, now)),
        }
    }
}

/// The active side, or where the traffic goes while an episode is under way.
fn headline(s: &ServiceStatus) -> Option<String> {
    match &s.episode {
        Some(e) => Some(match &e.from {
            Some(from) => format!("{from} → {}", e.to),
            None => format!("→ {}", e.to),
        }),
        None => s.active.as_ref().map(ToString::to_string),
    }
}

/// What it means for clients, in one line.
fn verdict(s: &ServiceStatus) -> Verdict {
    let health = s.backends.iter().find(|b| b.active).map_or("unknown", |b| b.health.as_str());
    let waits = match s.held {
        0 => "nobody waits yet".to_owned(),
        1 => "1 client waits".to_owned(),
        n => format!("{} clients wait", count(n)),
    };
    let (level, text) = match (&s.active, s.open, s.held, health) {
        _ if s.episode.is_some() && !s.open => (WARN, format!("Nobody is let in meanwhile: {waits}.")),
        (Some(_), true, 0, "up") => (OK, "Takes all traffic; nobody waits.".to_owned()),
        (Some(_), true, 0, "down") => (BAD, "Still takes all traffic, but it is down.".to_owned()),
        (Some(_), true, 0, other) => (WARN, format!("Takes all traffic; its health is {other}.")),
        (Some(_), true, held, _) => {
            (WARN, format!("Takes traffic; {} still to be let in.", plural(held, "client", "clients")))
        }
        (Some(_), false, ..) => (BAD, format!("Latched, but newcomers are held: {waits}.")),
        (None, ..) => (BAD, format!("Nobody is let in: {waits}.")),
    };
    Verdict { level, text, why: s.closed_why.clone().filter(|_| !s.open) }
}

fn notices(s: &ServiceStatus, now: WallTime) -> Vec<Notice> {
    let mut notices = Vec::new();
    if let Some(b) = &s.blocked {
        let title = format!("Blocked: {}", words(&b.reason));
        notices.push(Notice { level: BAD, title, text: b.sentence.clone(), since: Some(Time::of(b.since, now)) });
    }
    for b in &s.backends {
        if let Some(reason) = &b.quarantined {
            let title = format!("{} is quarantined: it gets not one byte", b.name);
            notices.push(Notice { level: BAD, title, text: reason.clone(), since: None });
        }
    }
    if let Some(rejoin) = s.rejoin.as_ref().filter(|rejoin| rejoin.runs()) {
        let title = format!("{} is being made a standby again", rejoin.backend);
        notices.push(Notice { level: WARN, title, text: rejoin.sentence(), since: Some(Time::of(rejoin.since, now)) });
    }
    let told = s.blocked.as_ref().is_some_and(|b| words(&b.reason) == BlockReason::BudgetExhausted.as_str());
    if is_exhausted(s) && !told {
        let text = format!(
            "All {} of the last 24 hours are spent. Detection and hold go on; only an operator's command moves the \
             traffic until one is free again.",
            plural(u64::from(s.budget), "automatic failover", "automatic failovers")
        );
        notices.push(Notice { level: BAD, title: "Budget exhausted".to_owned(), text, since: None });
    }
    if let Some(paused) = &s.paused {
        let title = "Paused: no automatic decision".to_owned();
        notices.push(Notice { level: WARN, title, text: paused.clone(), since: None });
    }
    if !s.other_daemons.is_empty() {
        let title = "Others watch this pair".to_owned();
        notices.push(Notice { level: CALM, title, text: s.other_daemons.join(", "), since: None });
    }
    notices
}

/// The way of a failover, with where the service stands; a phase beside that way comes first.
fn track(phase: &str) -> Vec<Step> {
    const WAY: [Phase; 7] = [
        Phase::Steady,
        Phase::Suspect,
        Phase::Confirming,
        Phase::Fencing,
        Phase::Promoting,
        Phase::Switching,
        Phase::Settling,
    ];
    let mut track = steps(WAY.map(Phase::as_str), WAY.iter().position(|p| p.as_str() == phase));
    let beside = [(Phase::Starting, "here"), (Phase::Blocked, "here bad"), (Phase::Paused, "here warn")];
    if let Some((phase, class)) = beside.into_iter().find(|(p, _)| p.as_str() == phase) {
        track.insert(0, Step { word: phase.as_str(), class });
    }
    track
}

fn steps<const N: usize>(words: [&'static str; N], here: Option<usize>) -> Vec<Step> {
    let class = |i: usize| match here {
        Some(at) if i < at => "done",
        Some(at) if i == at => "here",
        _ => "ahead",
    };
    words.into_iter().enumerate().map(|(i, word)| Step { word, class: class(i) }).collect()
}

impl Episode {
    fn build(e: &crate::view::Episode, phase: &str, now: WallTime) -> Self {
        let planned = e.kind == "switchover";
        let second = if planned { "old side frozen" } else { "old side cut off" };
        let third = match e.kind.as_str() {
            "route" | "follow" => "traffic moved",
            _ => "promotion sent",
        };
        let here = match (e.stage.as_str(), phase) {
            (_, "settling") => 4,
            (_, "switching") => 3,
            ("sent", _) => 2,
            _ => 1,
        };
        let from = e.from.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        Self {
            title: format!("{} #{}: {from} → {}", capital(&e.kind), e.id, e.to),
            why: e.why.clone(),
            by: e.operator.as_ref().map_or_else(|| "decided automatically".to_owned(), |o| format!("commanded by {o}")),
            decided: Time::of(e.decided_at, now),
            steps: steps(["decided", second, third, "new side proven", "open"], Some(here)),
        }
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn facts(s: &ServiceStatus, now: WallTime) -> Vec<Fact> {
    let fact = |label, value: String, note: String, level| Fact { label, value, note, level };
    let connected: u64 = s.backends.iter().map(|b| b.connections).sum();
    let limit: u64 = s.listeners.iter().map(|l| l.limit).sum();
    let allowed =
        if s.listeners.is_empty() { "no listener".to_owned() } else { format!("of {} allowed", count(limit)) };
    let gate = match (s.open, s.held) {
        (true, 0) => (OK, "newcomers pass"),
        (true, _) => (WARN, "are let in now"),
        (false, _) => (if s.episode.is_some() { WARN } else { BAD }, "newcomers are held"),
    };
    let armed = match (s.armed, s.promoter.as_str(), s.authority.as_str()) {
        (true, ..) => (OK, "yes", "ready to promote"),
        (false, _, "patroni") => (CALM, "following", "Patroni promotes"),
        (false, "none", _) => (CALM, "no promoter", "somebody else promotes"),
        (false, _, "observe") => (CALM, "observing", "somebody else promotes"),
        (false, ..) => (WARN, "no", "nothing ready to promote"),
    };
    let budget = match (s.budget, s.budget_left) {
        (0, _) => (CALM, "none".to_owned(), "max_per_day = 0: never automatically".to_owned()),
        (n, 0) => (BAD, "exhausted".to_owned(), format!("0 of {n} in 24 hours")),
        (n, left) => (OK, format!("{left} of {n}"), "in 24 hours".to_owned()),
    };
    let cooldown = match s.cooldown_until {
        Some(at) if at > now => (WARN, format!("ends {}", until(at, now)), "no decision before".to_owned()),
        _ => (CALM, "none".to_owned(), "decisions at once".to_owned()),
    };
    let ms = |ms| fine_span(Duration::from_millis(ms));
    let hang = s.detection_hang_ms.map_or_else(|| "never by itself".to_owned(), ms);
    let decides = match s.authority.as_str() {
        "observe" => "observe".to_owned(),
        "patroni" => "Patroni".to_owned(),
        _ => "this daemon".to_owned(),
    };
    let commits = s.durability.as_ref().map(|d| {
        let value = match (d.waiting, d.at_risk, d.loss_bytes) {
            (true, ..) => "wait".to_owned(),
            (_, false, _) => "none can be lost".to_owned(),
            (_, true, Some(n)) => format!("{} and more at risk", bytes(n)),
            (_, true, None) => "at risk".to_owned(),
        };
        fact(
            "Acknowledged commits",
            value,
            d.sentence.clone(),
            if d.at_risk && d.level == Level::Ok { CALM } else { class(d.level) },
        )
    });
    let switched: u64 = s.switches.iter().filter(|w| w.outcome == "switched").map(|w| w.count).sum();
    let facts = vec![
        fact("Clients connected", count(connected), allowed, CALM),
        fact("Clients waiting", count(s.held), gate.1.to_owned(), gate.0),
        fact("Standby armed", armed.1.to_owned(), armed.2.to_owned(), armed.0),
        fact("Automatic failovers left", budget.1, budget.2, budget.0),
        fact("Cool-down", cooldown.1, cooldown.2, cooldown.0),
        fact("Detection, worst case", ms(s.detection_crash_ms), format!("crash; hang: {hang}"), CALM),
        fact("Who decides", decides, format!("promoter {}", s.promoter), CALM),
        fact(
            "Switches since start",
            count(switched),
            format!("{} in all", plural(s.episodes, "episode", "episodes")),
            CALM,
        ),
    ];
    facts.into_iter().chain(commits).collect()
}
