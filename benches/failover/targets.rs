//! What pgpivot may not miss: counts, which hold on any machine, and times, which are for a quiet one.

use super::figures::Figures;
use super::peer::PeerKind;
use super::report::Report;
use super::scenario::Scenario;

/// Milliseconds from the blow to the decision.
pub fn decision(scenario: Scenario) -> Option<f64> {
    match scenario {
        Scenario::Kill9 | Scenario::Comeback => Some(500.0),
        Scenario::Sigstop | Scenario::Blackhole => Some(3000.0),
        Scenario::Switchover => None,
    }
}

/// Milliseconds from the new side's readiness to the first commit through the proxy.
pub const ADDED: f64 = 200.0;

/// Every round of pgpivot in which a count is wrong.
pub fn missed_counts(report: &Report) -> Vec<String> {
    let ours = report.figures.iter().filter(|f| f.peer == PeerKind::Pgpivot);
    ours.flat_map(wrong_counts).collect()
}

fn wrong_counts(f: &Figures) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut none = |what: &str, times: usize| {
        if times > 0 {
            wrong.push(format!("round {} {}: {times} {what}; must be 0", f.round, f.scenario));
        }
    };
    none("rows that the latched side acknowledged are lost", f.lost);
    none("rows were written to the old side after the latch", f.written_to_old);
    none("rows were acknowledged by the old side after the latch", f.acknowledged_by_old);
    none("times an application was told 25006", f.read_only);
    none("times an application got stuck", f.stuck);
    if f.error_count() > f.open {
        wrong.push(format!(
            "round {} {}: {} errors on {} open connections: {:?}",
            f.round,
            f.scenario,
            f.error_count(),
            f.open,
            f.errors
        ));
    }
    wrong
}
