//! The alert rules: promtool takes them and their unit tests, they ask for nothing that is not exported, and each is
//! raised by what a daemon really exports.

use std::net::TcpListener;

use serde_json::Value;

use super::exported::Exported;
use super::prometheus::{Prometheus, until_nothing_is_left};
use super::promql::{ADDED, missing, read};
use super::served::sample;
use super::tools::{PROMETHEUS, must, path, promtool, text, yaml};
use super::{served::Served, stage};

const RULES: &str = "docker/prometheus/pgpivot.rules.yml";
const TESTS: &str = "docker/prometheus/pgpivot.rules.test.yml";

/// Every rule, in the order of the file.
pub(crate) fn all() -> Vec<Value> {
    let file = yaml(RULES).remove(0);
    let groups = file["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

pub(crate) fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn promtool_takes_the_rules_and_the_configuration_and_passes_the_unit_tests() {
    let said = must(&mut promtool(&["check", "rules", RULES]), PROMETHEUS);
    assert!(said.contains(&format!("{} rules found", all().len())), "{said}");
    must(&mut promtool(&["check", "config", "docker/prometheus/prometheus.yml"]), PROMETHEUS);
    let said = must(&mut promtool(&["test", "rules", TESTS]), PROMETHEUS);
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn every_alert_is_seen_to_fire_and_to_keep_quiet_by_the_unit_tests() {
    let tests = yaml(TESTS).remove(0);
    let cases: Vec<&Value> =
        tests["tests"].as_array().unwrap().iter().flat_map(|t| t["alert_rule_test"].as_array().unwrap()).collect();
    for rule in all() {
        let name = word(&rule, "alert");
        let of = |fires: bool| {
            let expected =
                |case: &Value| case["exp_alerts"].as_array().is_some_and(|alerts| alerts.is_empty() != fires);
            cases.iter().any(|case| case["alertname"] == name && expected(case))
        };
        assert!(of(true) && of(false), "{name} is not tested both ways");
    }
}

#[test]
fn the_series_of_the_unit_tests_are_those_that_a_daemon_exports() {
    let exported = Exported::by_a_daemon();
    let tests = yaml(TESTS).remove(0);
    for series in tests["tests"].as_array().unwrap().iter().flat_map(|test| test["input_series"].as_array().unwrap()) {
        let series = word(series, "series");
        let (selectors, _) = read(series);
        let name = &selectors[0].name;
        if name == "up" {
            continue;
        }
        let labels: Vec<&str> =
            series.split(['{', ',', '}']).filter_map(|part| Some(part.trim().split_once('=')?.0)).collect();
        let known = exported.labels(name);
        assert!(exported.kind(name).is_some(), "{series}: no such metric");
        let unknown: Vec<_> =
            labels.iter().filter(|label| !ADDED.contains(label) && !known.contains(**label)).collect();
        assert!(unknown.is_empty(), "{series}: {name} has no {unknown:?}");
        // Where several services are, all that the seeds name bear one.
        let lacks: Vec<_> = known.iter().filter(|l| !labels.contains(*l) && !name.starts_with("failover_")).collect();
        assert!(lacks.is_empty(), "{series}: {name} is never without {lacks:?}");
        for word in ["reason", "phase"] {
            let value = series.split_once(&format!("{word}=\"")).map(|(_, rest)| rest.split('"').next().unwrap());
            let known = exported.values(name, word);
            assert!(value.is_none_or(|v| known.is_some_and(|known| known.contains(v))), "{series}: never {value:?}");
        }
    }
}

#[test]
fn every_metric_and_label_of_the_rules_is_exported_and_every_alert_leads_to_its_page() {
    let exported = Exported::by_a_daemon();
    for rule in all() {
        let (name, query) = (word(&rule, "alert"), word(&rule, "expr"));
        assert_eq!(missing(query, &exported), Vec::<String>::new(), "{name}");
        assert!(["critical", "warning"].contains(&word(&rule["labels"], "severity")), "{name}");
        let page = word(&rule["annotations"], "runbook_url");
        assert_eq!(page, format!("docs/runbook/{name}.md"));
        assert!(path(page).is_file(), "{page}");
        let known: Vec<&str> = read(query).0.iter().flat_map(|s| exported.labels(&s.name)).chain(ADDED).collect();
        for sentence in ["summary", "description"] {
            let sentence = word(&rule["annotations"], sentence);
            for used in sentence.split("$labels.").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                assert!(known.contains(&used), "{name}: no label {used} for {sentence:?}");
            }
        }
    }
}

#[test]
fn every_alert_is_raised_by_what_a_daemon_really_exports() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let names = ["steady", "promoting", "blocked", "quarantined", "exhausted"];
    let mut served: Vec<Served> = names.iter().map(|name| Served::start(name)).collect();
    served.extend([stage::troubled(), stage::clusters_behind()]);
    let mut targets: Vec<_> = served.iter().map(Served::address).collect();
    targets.push(nobody);
    let prometheus = Prometheus::scraping(&targets);
    let scraped = || prometheus.ask("count(count_over_time(pgpivot_build_info[1m]) >= 2)");
    until_nothing_is_left("every daemon is scraped twice", || {
        let count = scraped().first().map(|found| found["value"][1].to_string());
        if count == Some(format!("\"{}\"", served.len())) { Vec::new() } else { vec![format!("{count:?}")] }
    });
    let mut status = sample("steady");
    stage::happens(&mut status);
    served[0].publish(status);
    until_nothing_is_left("alerts that nothing raises", || {
        let calm = |rule: &Value| rule["health"] != "ok" || rule["state"] == "inactive";
        prometheus
            .rules()
            .iter()
            .filter(|rule| calm(rule))
            .map(|rule| format!("{} {}", rule["name"], rule["lastError"]))
            .collect()
    });
    // A rule raises what it is for and no more: the calm pair is named only for what has happened to it.
    let own = served[0].address().to_string();
    let raised: Vec<Value> =
        prometheus.rules().iter().flat_map(|rule| rule["alerts"].as_array().unwrap().clone()).collect();
    let mut of_it: Vec<&str> = raised
        .iter()
        .filter(|alert| alert["labels"]["instance"] == own.as_str())
        .map(|alert| alert["labels"]["alertname"].as_str().unwrap())
        .collect();
    of_it.sort_unstable();
    of_it.dedup();
    assert_eq!(of_it, ["FailoverOccurred", "PgpivotStalled", "PgpivotWrittenBeside"]);
    assert!(text(RULES).contains("job named pgpivot"), "the alert on a daemon that is gone needs that");
}
