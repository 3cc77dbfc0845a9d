//! The runbook: a page for every alert and no other, each with what it means, what to look at, what to type; what it
//! names is there. Its commands are run on a real pair by `it::runbook`.

use std::collections::BTreeSet;

use super::exported::Exported;
use super::promql::missing;
use super::rules::{all, word};
use super::tools::{files, path, text};

const FOLDER: &str = "docs/runbook";

fn pages() -> Vec<String> {
    files(FOLDER, ".md").into_iter().filter(|page| !page.ends_with("/README.md")).collect()
}

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() {
    let alerts: BTreeSet<String> = all().iter().map(|rule| format!("{FOLDER}/{}.md", word(rule, "alert"))).collect();
    assert_eq!(pages().into_iter().collect::<BTreeSet<_>>(), alerts);
    let list = text("docs/runbook/README.md");
    for rule in all() {
        let (name, severity) = (word(&rule, "alert"), word(&rule["labels"], "severity"));
        assert!(list.contains(&format!("| [{name}]({name}.md) | {severity} | ")), "{name} is not listed as {severity}");
    }
}

#[test]
fn every_page_says_what_it_means_what_to_look_at_and_what_to_type() {
    for page in pages() {
        let text = text(&page);
        let name = page.trim_start_matches("docs/runbook/").trim_end_matches(".md");
        let (meaning, rest) = text.split_once("\n## Look at\n").unwrap_or_else(|| panic!("{page}: nothing to look at"));
        let (look, typed) = rest.split_once("\n## Type\n").unwrap_or_else(|| panic!("{page}: nothing to type"));
        let meaning = meaning.strip_prefix(&format!("# {name}\n\n")).unwrap_or_else(|| panic!("{page}: another name"));
        assert!(meaning.len() > 80, "{page}");
        assert!(look.contains("```sh\n") && typed.contains("```sh\n"), "{page}: no commands");
    }
}

#[test]
fn what_the_pages_name_is_there() {
    let exported = Exported::by_a_daemon();
    for page in pages().into_iter().chain(["docs/runbook/README.md".to_owned()]) {
        let text = text(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let target = path(&page).parent().unwrap().join(link);
            assert!(target.exists(), "{page}: {link}");
        }
        let metrics =
            text.split('`').filter(|quoted| quoted.starts_with("pgpivot_") || quoted.starts_with("failover_"));
        for metric in metrics {
            assert_eq!(missing(metric, &exported), Vec::<String>::new(), "{page}");
        }
    }
}

#[test]
fn every_reason_that_blocks_has_a_line_or_an_alert_of_its_own() {
    let exported = Exported::by_a_daemon();
    let rules = all();
    let blocked = rules.iter().find(|rule| rule["alert"] == "PgpivotBlocked").unwrap();
    let apart = word(blocked, "expr").split('"').nth(1).unwrap().split('|').collect::<Vec<_>>();
    let page = text("docs/runbook/PgpivotBlocked.md");
    let lines: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).skip(1).collect();
    let reasons = exported.values("pgpivot_blocked", "reason").unwrap();
    for reason in reasons {
        let told = lines.contains(&reason.as_str());
        assert!(told != apart.contains(&reason.as_str()), "{reason}: a line {told}");
    }
    assert!(lines.iter().all(|line| reasons.contains(*line)), "{lines:?} {reasons:?}");
}
