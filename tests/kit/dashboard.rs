//! The dashboard: it reads, its panels stand apart, each has a query, and every query finds something.

use std::collections::BTreeSet;

use serde_json::Value;

use super::exported::Exported;
use super::prometheus::{Prometheus, until_nothing_is_left};
use super::promql::missing;
use super::rules::word;
use super::stage;
use super::tools::{text, yaml};

const DATASOURCE: &str = "${datasource}";

fn dashboard() -> Value {
    serde_json::from_str(&text("docker/grafana/pgpivot.json")).unwrap()
}

/// Panels that show something, with their queries.
fn shown(dashboard: &Value) -> Vec<(String, Vec<String>)> {
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let queries =
        |panel: &Value| panel["targets"].as_array().unwrap().iter().map(|t| word(t, "expr").to_owned()).collect();
    panels.map(|panel| (word(panel, "title").to_owned(), queries(panel))).collect()
}

#[test]
fn the_dashboard_has_a_choice_of_the_source_and_panels_that_stand_apart() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let source = variables.iter().find(|v| v["type"] == "datasource").expect("a variable for the source");
    assert_eq!((&source["name"], &source["query"]), (&"datasource".into(), &"prometheus".into()));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids stand twice");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} covers another panel", panel["title"]);
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(!word(panel, "description").is_empty(), "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|t| !word(t, "expr").is_empty()), "dead: {panel}");
        let own = targets.iter().map(|target| &target["datasource"]).chain([&panel["datasource"]]);
        own.for_each(|source| assert_eq!(source["uid"], DATASOURCE, "{panel}"));
        let letters: BTreeSet<&str> = targets.iter().map(|target| word(target, "refId")).collect();
        assert_eq!(letters.len(), targets.len(), "{panel}");
    }
    let titles: BTreeSet<String> = shown(&dashboard).into_iter().map(|(title, _)| title).collect();
    assert_eq!(titles.len(), shown(&dashboard).len(), "titles stand twice");
}

#[test]
fn every_metric_and_label_of_the_dashboard_is_exported() {
    let exported = Exported::by_a_daemon();
    let dashboard = dashboard();
    for (title, queries) in shown(&dashboard) {
        for query in queries {
            assert_eq!(missing(&query, &exported), Vec::<String>::new(), "{title}: {query}");
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        assert_eq!(missing(word(annotation, "expr"), &exported), Vec::<String>::new());
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap().iter().filter(|v| v["type"] == "query") {
        let query = word(&variable["query"], "query").strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (metric, label) = query.split_once(", ").unwrap();
        assert!(exported.kind(metric).is_some(), "{query}");
        assert!(label == "instance" || exported.values(metric, label).is_some(), "{query}");
    }
}

#[test]
fn no_panel_is_dead() {
    let served = stage::all();
    let prometheus = Prometheus::scraping(&served.iter().map(super::served::Served::address).collect::<Vec<_>>());
    let filled = |query: &str| {
        let one_range = query.replace("$__rate_interval", "10s").replace("$__range", "1m");
        let query = one_range.replace("$instance", ".*").replace("$service", ".*");
        assert!(!query.contains('$'), "{query}");
        query
    };
    let shown = shown(&dashboard());
    until_nothing_is_left("panels with a query that finds nothing", || {
        let queries = shown.iter().flat_map(|(title, queries)| queries.iter().map(move |query| (title, query)));
        let dead = queries.filter(|(_, query)| prometheus.ask(&filled(query)).is_empty());
        dead.map(|(title, query)| format!("{title}: {query}")).collect()
    });
}

#[test]
fn grafana_is_told_where_the_dashboard_and_its_source_are() {
    let source = yaml("docker/grafana/provisioning/datasources/prometheus.yml").remove(0);
    assert_eq!(source["datasources"][0]["type"], "prometheus");
    let provider = yaml("docker/grafana/provisioning/dashboards/pgpivot.yml").remove(0);
    let folder = word(&provider["providers"][0]["options"], "path");
    let compose = text("compose.yaml");
    assert!(compose.contains(&format!("./docker/grafana/pgpivot.json:{folder}/pgpivot.json:ro")), "{compose}");
}
