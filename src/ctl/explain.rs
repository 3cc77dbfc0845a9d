//! `explain`: the evidence in words. What is seen, what is next, what stands in the way, and the statement to type.

use super::render::{Paint, duration, words};
use crate::view::{BackendStatus, Level, ServiceStatus, Status};

/// Columns of the labels.
const LABEL: usize = 14;

/// The phases of the decision core and the edges between them, as a Mermaid diagram.
pub(super) fn graph() -> String {
    crate::failover::explain::graph()
}

/// One paragraph per service.
pub(super) fn render(status: &Status, services: &[&ServiceStatus], paint: Paint) -> String {
    let mut out = String::new();
    for service in services {
        if !out.is_empty() {
            out.push('\n');
        }
        one(&mut out, status, service, paint);
    }
    if let Some(error) = &status.state_error {
        out.push('\n');
        paint.labelled(
            &mut out,
            LABEL,
            "state",
            |l| paint.level(Level::Bad, l),
            &format!("cannot be written, so nothing can be switched: {error}"),
        );
    }
    out
}

/// The same for machines.
pub(super) fn json(s: &ServiceStatus) -> serde_json::Value {
    let backends: Vec<_> = s
        .backends
        .iter()
        .map(|b| {
            serde_json::json!({
                "name": b.name, "active": b.active, "armed": b.armed, "unarmed_why": b.unarmed_why,
                "witness": b.witness, "quarantined": b.quarantined,
            })
        })
        .collect();
    serde_json::json!({
        "service": s.name, "phase": s.phase, "meaning": meaning(&s.phase), "active": s.active, "epoch": s.epoch, "why": s.why,
        "evidence": s.evidence, "next": s.next, "blocked": s.blocked, "paused": s.paused, "budget_left": s.budget_left,
        "cooldown_until": s.cooldown_until, "armed": s.armed, "other_daemons": s.other_daemons, "backends": backends,
    })
}

fn one(out: &mut String, status: &Status, s: &ServiceStatus, paint: Paint) {
    out.push_str(&format!("{}\n", paint.strong(s.name.as_str())));
    let mut line = |label: &str, level: Option<Level>, sentence: &str| {
        paint.labelled(
            out,
            LABEL,
            label,
            |l| level.map_or_else(|| l.to_owned(), |level| paint.level(level, l)),
            sentence,
        );
    };
    line("  phase", None, &format!("{}: {}", s.phase, meaning(&s.phase)));
    let active = s
        .active
        .as_ref()
        .map_or("no side is latched yet".to_owned(), |a| format!("{a} is latched, epoch {}: {}", s.epoch, s.why));
    line("  active", None, &active);
    line("  evidence", None, &s.evidence);
    line("  next", None, &s.next);
    match &s.blocked {
        Some(b) => {
            let since = duration(status.at.since(b.since));
            line("  blocked", Some(Level::Bad), &format!("{} for {since}: {}", words(&b.reason), b.sentence));
        }
        None => line("  blocked", None, "by nothing"),
    }
    if let Some(by) = &s.paused {
        line("  paused", Some(Level::Warn), &format!("{by}; `proxyctl resume` ends it"));
    }
    if s.budget_left == 0 {
        line(
            "  budget",
            Some(Level::Bad),
            &format!("all {} automatic failovers of 24 h are spent; only an operator can start one", s.budget),
        );
    } else {
        line("  budget", None, &format!("{} of {} automatic failovers left in 24 h", s.budget_left, s.budget));
    }
    if let Some(until) = s.cooldown_until.filter(|u| *u > status.at) {
        line(
            "  cool-down",
            Some(Level::Warn),
            &format!("no automatic failover for another {}", duration(until.since(status.at))),
        );
    }
    if !s.other_daemons.is_empty() {
        line("  others", Some(Level::Warn), &format!("they watch this pair, too: {}", s.other_daemons.join(", ")));
    }
    for b in &s.backends {
        for (level, sentence) in backend(status, b) {
            line(&format!("  {}", b.name), level, &sentence);
        }
    }
}

/// What there is to say of one backend, the most important first.
fn backend(status: &Status, b: &BackendStatus) -> Vec<(Option<Level>, String)> {
    let mut said = Vec::new();
    if let Some(why) = &b.quarantined {
        said.push((Some(Level::Bad), format!("quarantined, gets not one byte: {why}")));
    }
    let mut now = format!("{}, says it is {}", b.health, b.role);
    if let Some(p) = &b.last_probe {
        now.push_str(&format!("; last probe {} ago: {}", duration(status.at.since(p.at)), p.text));
    }
    if b.failures > 0 {
        now.push_str(&format!("; {} failure(s) in a row", b.failures));
    }
    said.push((None, now));
    if b.active {
        return said;
    }
    if let Some(witness) = b.witness.as_ref().filter(|w| *w != "unknown") {
        said.push((None, format!("its stream: {witness}")));
    }
    if let Some(quarantined) = &b.quarantined {
        // That is said already; what else is missing may be why the quarantine does not end.
        let other = b.unarmed_why.iter().filter(|why| !why.contains(quarantined.as_str()));
        said.extend(other.map(|why| (Some(Level::Warn), format!("also: {why}"))));
        return said;
    }
    match (b.armed, b.unarmed_why.is_empty()) {
        (true, _) => said.push((Some(Level::Ok), "armed: it could be promoted right now".to_owned())),
        (false, true) => said.push((Some(Level::Warn), "not armed: it could not be promoted right now".to_owned())),
        (false, false) => said.extend(b.unarmed_why.iter().map(|why| (Some(Level::Warn), format!("not armed: {why}")))),
    }
    said
}

/// A phase in words.
fn meaning(phase: &str) -> &'static str {
    match phase {
        "starting" => "the start checks have not passed, newcomers wait",
        "steady" => "all well, or nothing that counts",
        "suspect" => "something speaks against the active side, not yet enough",
        "confirming" => "the threshold is reached: delay, witness, recheck",
        "fencing" => "the intent is on disk and the old side is cut: last recheck, fence, lock",
        "promoting" => "the promotion is ordered; there is no way back until the new side proves itself",
        "switching" => "the new side is proven, the latch is being written",
        "settling" => "open to the new side, waiting for its first calm probes",
        "blocked" => "something must not be decided",
        "paused" => "an operator stopped new decisions",
        _ => "a phase this proxyctl does not know; is the daemon newer?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::sample;
    use crate::failover::phase::Phase;

    #[test]
    fn it_names_what_is_missing_with_the_statement_to_type() {
        let status = sample::blocked();
        let text = render(&status, &[&status.services[0]], Paint::new(false));
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains("not armed: the login may not execute pg_promote; type on us-west: GRANT EXECUTE ON FUNCTION pg_promote TO pgpivot"), "{text}");
        assert!(flat.contains("blocked witness alive for 12.00 s"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn on_a_narrow_terminal_sentences_are_broken_between_words() {
        let status = sample::blocked();
        for columns in [60, 45] {
            let text = render(&status, &[&status.services[0]], Paint::new(false).within(columns));
            assert!(text.lines().all(|l| l.chars().count() <= columns), "{text}");
        }
    }

    #[test]
    fn a_quarantine_that_does_not_end_names_what_is_missing() {
        let mut status = sample::blocked();
        let side = status.services[0].backends.iter_mut().find(|b| !b.unarmed_why.is_empty()).unwrap();
        side.quarantined = Some("it is primary on timeline 3".into());
        side.unarmed_why.insert(0, "us-west is quarantined: it is primary on timeline 3".into());
        let text = render(&status, &[&status.services[0]], Paint::new(false));
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains("also: the login may not execute pg_promote"), "{text}");
        assert_eq!(flat.matches("it is primary on timeline 3").count(), 1, "{text}");
    }

    #[test]
    fn every_phase_has_its_words() {
        for phase in Phase::ALL {
            assert!(!meaning(phase.as_str()).contains("does not know"), "{}", phase.as_str());
        }
    }
}
