//! What `/metrics` exports, over all states a daemon can be in that the samples show: families with HELP and TYPE, and
//! the values that their labels take.

use std::collections::{BTreeMap, BTreeSet};

use super::stage;

/// Everything that was exported.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    helped: BTreeSet<String>,
    kinds: BTreeMap<String, String>,
    /// By the series' name: every label with the values it took.
    labels: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Exported {
    /// Served by the real admin server, sample by sample.
    pub(crate) fn by_a_daemon() -> Self {
        let mut exported = Self::default();
        for served in stage::all() {
            exported.read(&super::served::get(served.address(), "/metrics"));
        }
        assert!(exported.kinds.len() > 50, "{:?}", exported.kinds);
        exported
    }

    pub(crate) fn read(&mut self, text: &str) {
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["#", "HELP", name, _, ..] => drop(self.helped.insert((*name).to_owned())),
                ["#", "TYPE", name, kind] => drop(self.kinds.insert((*name).to_owned(), (*kind).to_owned())),
                _ => self.series(line),
            }
        }
    }

    fn series(&mut self, line: &str) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or_else(|| panic!("no series: {line}")));
        let labels = self.labels.entry(name.to_owned()).or_default();
        let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')) else { return };
        for pair in inside.0.split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            labels.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }

    /// The TYPE of a series' family, if it is exported with HELP and TYPE.
    pub(crate) fn kind(&self, series: &str) -> Option<&str> {
        let parts = ["", "_bucket", "_sum", "_count"];
        let family = parts.iter().find_map(|part| {
            let family = series.strip_suffix(part)?;
            self.kinds.get_key_value(family).filter(|(_, kind)| part.is_empty() || *kind == "histogram")
        });
        let (family, kind) = family.filter(|_| self.labels.contains_key(series))?;
        self.helped.contains(family).then_some(kind)
    }

    /// What a label of a series was; `None` = it has no such label.
    pub(crate) fn values(&self, series: &str, label: &str) -> Option<&BTreeSet<String>> {
        self.labels.get(series)?.get(label)
    }

    /// The labels of a series.
    pub(crate) fn labels(&self, series: &str) -> BTreeSet<&str> {
        self.labels.get(series).into_iter().flat_map(|labels| labels.keys().map(String::as_str)).collect()
    }
}

#[test]
fn what_a_daemon_exports_is_read_as_it_stands() {
    let mut exported = Exported::default();
    exported.read(
        "# HELP a_total How often.\n# TYPE a_total counter\na_total{x=\"1:2\",y=\"b c\"} 4\n# TYPE b gauge\nb 1\n",
    );
    assert_eq!(exported.kind("a_total"), Some("counter"));
    assert!(exported.values("a_total", "y").unwrap().contains("b c") && exported.values("a_total", "z").is_none());
    assert_eq!((exported.kind("b"), exported.kind("c")), (None, None), "without HELP, or not at all");
}
