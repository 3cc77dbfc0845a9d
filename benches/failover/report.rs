//! The figures of a run as tables for people and as JSON for programs.

use super::figures::Figures;
use super::peer::PeerKind;
use super::round::Round;
use super::scenario::Scenario;
use super::surroundings::Surroundings;
use super::targets;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// All rounds that were played.
#[derive(Debug)]
pub struct Report {
    /// Where and beside what.
    pub surroundings: Surroundings,
    /// In the order of play.
    pub figures: Vec<Figures>,
    /// Rounds that could not be played to their end, and why.
    pub failures: Vec<String>,
}

impl Report {
    /// Nothing was played yet.
    pub fn new(surroundings: Surroundings) -> Self {
        Self { surroundings, figures: Vec::new(), failures: Vec::new() }
    }

    /// A round was played.
    pub fn add(&mut self, figures: Figures) {
        self.figures.push(figures);
    }

    /// A round was not.
    pub fn failed(&mut self, round: Round, why: &str) {
        self.failures.push(format!("{round}: {why}"));
    }

    /// Both tables, and what pgpivot must reach beside what it reached.
    pub fn table(&self) -> String {
        let mut parts = vec![self.surroundings.to_string(), self.rounds(), self.summary(), self.musts().join("\n")];
        if !self.failures.is_empty() {
            parts.push(format!("{} rounds failed:\n{}", self.failures.len(), self.failures.join("\n")));
        }
        parts.join("\n\n")
    }

    /// Every figure.
    pub fn json(&self) -> String {
        let summary: Vec<Value> = self.cells().iter().map(Cell::json).collect();
        let all = json!({
            "surroundings": self.surroundings,
            "rounds": self.figures,
            "summary": summary,
            "musts": self.musts(),
            "failures": self.failures,
        });
        format!("{all:#}\n")
    }

    fn rounds(&self) -> String {
        let mut header = vec!["scenario", "peer", "round"];
        header.extend(["errors / open", "by kind", "gap s", "wait s", "decision s", "accepts s"]);
        header.extend(["added s", "proof s", "latch s"]);
        header.extend(COUNTS);
        let mut table = plain(&header, 2);
        let mut rounds: Vec<&Figures> = self.figures.iter().collect();
        rounds.sort_by_key(|f| (f.scenario, f.peer, f.round));
        for f in rounds {
            let mut row = vec![f.scenario.to_string(), f.peer.to_string(), f.round.to_string()];
            row.extend([format!("{} / {}", f.error_count(), f.open), kinds(f)]);
            row.extend(
                [Some(f.gap), Some(f.wait), f.decision, f.accepted, f.added, f.proof, f.latch]
                    .map(|ms| ms.map_or("-".into(), seconds)),
            );
            row.extend(counts(f).map(|n| n.to_string()));
            table.add_row(row);
        }
        table.to_string()
    }

    fn summary(&self) -> String {
        let mut header = vec!["median (from – to)", "peer", "rounds"];
        header.extend(["errors", "open", "gap s", "wait s", "decision s", "added s"]);
        header.extend(COUNTS);
        let mut table = plain(&header, 2);
        for scenario in Scenario::ALL {
            let cells: Vec<Cell<'_>> = self.cells().into_iter().filter(|c| c.scenario == scenario).collect();
            for cell in &cells {
                let mut row = vec![scenario.to_string(), cell.peer.to_string(), cell.rounds.len().to_string()];
                row.extend([cell.errors().text(|n| format!("{n:.0}")), cell.open().text(|n| format!("{n:.0}"))]);
                row.extend([cell.gap(), cell.wait(), cell.decision(), cell.added()].map(|spread| spread.text(seconds)));
                row.extend(cell.counts().map(|n| n.to_string()));
                table.add_row(row);
            }
            if let [ours, theirs] = cells.as_slice() {
                let mut row = vec![scenario.to_string(), "ratio".into(), String::new()];
                let ratio = |theirs: Spread, ours: Spread| times(theirs.median, ours.median);
                row.extend([ratio(theirs.errors(), ours.errors()), String::new()]);
                row.extend([ratio(theirs.gap(), ours.gap()), ratio(theirs.wait(), ours.wait())]);
                row.extend([ratio(theirs.decision(), ours.decision()), ratio(theirs.added(), ours.added())]);
                table.add_row(row);
            }
        }
        format!(
            "{table}\nratio = HAProxy's median over pgpivot's; counts are sums over the rounds\n\
             gap: nobody commits; wait: one session does not; added: from when the new side accepts to the first commit\n\
             proof and latch are parts of added: until the peer knows, and until it lets applications in\n\
             lost: acknowledged by the new side and not there; to old: sent after the latch and on the old side\n\
             old acks: acknowledged by the old side after the latch; unshipped: acknowledged before it, not replicated"
        )
    }

    /// One line for each thing that pgpivot must reach.
    pub fn musts(&self) -> Vec<String> {
        let ours: Vec<Cell<'_>> = self.cells().into_iter().filter(|c| c.peer == PeerKind::Pgpivot).collect();
        let mut lines = Vec::new();
        for cell in &ours {
            if let Some(limit) = targets::decision(cell.scenario) {
                lines.push(cell.verdict("decision", |f| f.decision, limit));
            }
            lines.push(cell.verdict("time added", |f| f.added, targets::ADDED));
        }
        let wrong = targets::missed_counts(self);
        if !ours.is_empty() {
            lines.push(if wrong.is_empty() { "counts: all as they must be".into() } else { wrong.join("\n") });
        }
        lines
    }

    fn cells(&self) -> Vec<Cell<'_>> {
        let mut cells = Vec::new();
        for scenario in Scenario::ALL {
            for peer in PeerKind::ALL {
                let of = |f: &&Figures| f.scenario == scenario && f.peer == peer;
                let rounds: Vec<&Figures> = self.figures.iter().filter(of).collect();
                if !rounds.is_empty() {
                    cells.push(Cell { scenario, peer, rounds });
                }
            }
        }
        cells
    }
}

/// A round in one line, as it ends.
pub fn line(f: &Figures) -> String {
    let time = |ms: Option<f64>| ms.map_or("-".into(), seconds);
    format!(
        "round {} {:<10} {:<7}: {} errors / {} open {}, gap {} s, decision {} s, added {} s, lost {}, to old {}, unshipped {}",
        f.round,
        f.scenario,
        f.peer,
        f.error_count(),
        f.open,
        kinds(f),
        seconds(f.gap),
        time(f.decision),
        time(f.added),
        f.lost,
        f.written_to_old + f.acknowledged_by_old,
        f.never_shipped
    )
}

const COUNTS: [&str; 5] = ["lost", "to old", "old acks", "unshipped", "25006"];

fn counts(f: &Figures) -> [usize; 5] {
    [f.lost, f.written_to_old, f.acknowledged_by_old, f.never_shipped, f.read_only]
}

/// All rounds of one scenario with one peer.
#[derive(Debug)]
struct Cell<'a> {
    scenario: Scenario,
    peer: PeerKind,
    rounds: Vec<&'a Figures>,
}

impl Cell<'_> {
    fn errors(&self) -> Spread {
        self.over(|f| Some(f.error_count() as f64))
    }

    fn open(&self) -> Spread {
        self.over(|f| Some(f.open as f64))
    }

    fn gap(&self) -> Spread {
        self.over(|f| Some(f.gap))
    }

    fn wait(&self) -> Spread {
        self.over(|f| Some(f.wait))
    }

    fn decision(&self) -> Spread {
        self.over(|f| f.decision)
    }

    fn added(&self) -> Spread {
        self.over(|f| f.added)
    }

    fn verdict(&self, what: &str, figure: impl Fn(&Figures) -> Option<f64>, limit: f64) -> String {
        let spread = self.over(&figure);
        let missed = self.rounds.iter().filter(|f| figure(f).is_none_or(|ms| ms > limit)).count();
        let word = match missed {
            0 => "ok".to_owned(),
            _ => format!("MISSED in {missed} of {} rounds", self.rounds.len()),
        };
        let (text, limit) = (spread.text(seconds), seconds(limit));
        format!("{:<10} {what:<10} {text} s, at most {limit} s: {word}", self.scenario)
    }

    fn over(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Spread {
        Spread::of(self.rounds.iter().filter_map(|f| figure(f)).collect())
    }

    fn counts(&self) -> [usize; 5] {
        self.rounds.iter().fold([0; 5], |sum, f| {
            let more = counts(f);
            std::array::from_fn(|i| sum[i] + more[i])
        })
    }

    fn json(&self) -> Value {
        let spread = |s: Spread| json!({ "median": s.median, "from": s.from, "to": s.to });
        let [lost, written_to_old, acknowledged_by_old, never_shipped, read_only] = self.counts();
        json!({
            "scenario": self.scenario,
            "peer": self.peer,
            "rounds": self.rounds.len(),
            "errors": spread(self.errors()),
            "open": spread(self.open()),
            "gap_ms": spread(self.gap()),
            "wait_ms": spread(self.wait()),
            "decision_ms": spread(self.decision()),
            "added_ms": spread(self.added()),
            "lost": lost,
            "written_to_old": written_to_old,
            "acknowledged_by_old": acknowledged_by_old,
            "never_shipped": never_shipped,
            "read_only": read_only,
        })
    }
}

/// Where the values of several rounds lie; not a number when there are none.
#[derive(Debug, Clone, Copy)]
struct Spread {
    median: f64,
    from: f64,
    to: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        let n = values.len();
        let median = (middle(n.saturating_sub(1) / 2) + middle(n / 2)) / 2.0;
        Self { median, from: middle(0), to: middle(n.saturating_sub(1)) }
    }

    fn text(&self, unit: impl Fn(f64) -> String) -> String {
        if self.median.is_nan() {
            return "-".into();
        }
        format!("{} ({} – {})", unit(self.median), unit(self.from), unit(self.to))
    }
}

fn plain(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_cell_alignment(if i < words { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

fn kinds(f: &Figures) -> String {
    let kinds: Vec<String> = f.errors.iter().map(|(word, times)| format!("{word}:{times}")).collect();
    kinds.join(" ")
}

fn seconds(ms: f64) -> String {
    let s = ms / 1e3;
    if s.abs() < 1.0 { format!("{s:.3}") } else { format!("{s:.2}") }
}

/// How many times as much; nothing where there is nothing to divide by.
fn times(theirs: f64, ours: f64) -> String {
    let ratio = theirs / ours;
    if ratio.is_finite() && ratio >= 0.0 { format!("× {ratio:.1}") } else { String::new() }
}
