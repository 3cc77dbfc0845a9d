//! The figures of a run as tables: ratios of each round, their median and range, and the figures themselves.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Figures, Quantity, median, shown};
use super::peer::PeerKind;
use super::scenario::Scenario;
use super::surroundings::Surroundings;

/// What was measured.
#[derive(Debug)]
pub struct Report {
    /// On what.
    pub surroundings: Surroundings,
    all: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    round: u32,
    scenario: Scenario,
    peer: PeerKind,
    figures: Figures,
}

impl Report {
    /// Nothing yet.
    pub fn new(surroundings: Surroundings) -> Self {
        Self { surroundings, all: Vec::new() }
    }

    /// One more.
    pub fn add(&mut self, round: u32, scenario: Scenario, peer: PeerKind, figures: Figures) {
        self.all.push(Entry { round, scenario, peer, figures });
    }

    /// Everything, for programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&(&self.surroundings, &self.all)).unwrap()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut lines = vec![
            self.surroundings.to_string(),
            String::new(),
            "| load | what | direct | HAProxy t1 | HAProxy t2 | HAProxy, splice | pgpivot | ratio (range) | at most / least |"
                .into(),
            "|---|---|---:|---:|---:|---:|---:|---:|---:|".into(),
        ];
        for scenario in Scenario::ALL {
            for quantity in [Quantity::Cpu, Quantity::Rate, Quantity::Latency, Quantity::Memory, Quantity::Start] {
                lines.extend(self.row(scenario, quantity));
            }
        }
        lines.push(String::new());
        lines.push("medians; ratio = pgpivot to the better of HAProxy t1 and t2 in the same round".into());
        lines.push(
            "cpu: of the proxy, us for each operation or s for each GB; rate: operations or MB in a second".into(),
        );
        lines
            .push("latency: median, us; memory: bytes for each resting pair; start: MB before the first client".into());
        lines.join("\n")
    }

    fn row(&self, scenario: Scenario, quantity: Quantity) -> Option<String> {
        let cells: Vec<_> = PeerKind::ALL.iter().map(|peer| self.middle(scenario, *peer, quantity)).collect();
        if cells.iter().all(Option::is_none) {
            return None;
        }
        let cells: Vec<_> = cells.into_iter().map(|value| value.map_or("-".into(), shown)).collect();
        let mut ratios = self.ratios(scenario, quantity);
        let ratio = if ratios.is_empty() {
            "-".into()
        } else {
            let middle = median(&mut ratios);
            format!("{middle:.2} ({:.2}–{:.2})", ratios[0], ratios[ratios.len() - 1])
        };
        let target = scenario.target(quantity).map_or("-".into(), |target| format!("{target:.2}"));
        let what = format!("{quantity:?}").to_lowercase();
        Some(format!("| {scenario} | {what} | {} | {ratio} | {target} |", cells.join(" | ")))
    }

    fn middle(&self, scenario: Scenario, peer: PeerKind, quantity: Quantity) -> Option<f64> {
        let mine = self.all.iter().filter(|entry| (entry.scenario, entry.peer) == (scenario, peer));
        let mut values: Vec<f64> = mine.filter_map(|entry| entry.figures.0.get(&quantity).copied()).collect();
        (!values.is_empty()).then(|| median(&mut values))
    }

    /// One for each round in which both were measured, smallest first once the median was asked for.
    fn ratios(&self, scenario: Scenario, quantity: Quantity) -> Vec<f64> {
        let mut rounds: BTreeMap<u32, BTreeMap<PeerKind, f64>> = BTreeMap::new();
        for entry in self.all.iter().filter(|entry| entry.scenario == scenario) {
            if let Some(value) = entry.figures.0.get(&quantity) {
                rounds.entry(entry.round).or_default().insert(entry.peer, *value);
            }
        }
        let ratio = |peers: &BTreeMap<PeerKind, f64>| {
            let haproxy = [PeerKind::HaproxyT1, PeerKind::HaproxyT2].iter().filter_map(|peer| peers.get(peer).copied());
            let better = if quantity.more_is_better() { haproxy.reduce(f64::max) } else { haproxy.reduce(f64::min) };
            Some(peers.get(&PeerKind::Pgpivot)? / better?)
        };
        rounds.values().filter_map(ratio).collect()
    }
}
