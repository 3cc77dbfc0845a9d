//! As much of PromQL as tells which series a query reads: names, matchers, grouping labels. Whether it is a query is
//! promtool's to say.

use super::exported::Exported;

/// Labels that Prometheus adds.
pub(crate) const ADDED: [&str; 2] = ["instance", "job"];

/// One name in a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    /// Label and value, alternatives apart.
    matchers: Vec<(String, Vec<String>)>,
    /// Directly inside `rate` or `increase`.
    counted: bool,
}

/// A query's names, and the labels it groups or joins by.
pub(crate) fn read(query: &str) -> (Vec<Selector>, Vec<String>) {
    let (mut selectors, mut grouping) = (Vec::new(), Vec::new());
    let (mut rest, mut before) = (query, String::new());
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '"' || c == '[') {
        let between = rest[..at].trim().to_owned();
        rest = &rest[at..];
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').map_or("", |(_, after)| after);
            continue;
        }
        if rest.starts_with('[') {
            rest = rest.split_once(']').map_or("", |(_, after)| after);
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        rest = rest[end..].trim_start();
        match word.as_str() {
            "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" if rest.starts_with('(') => {
                let (inside, after) = rest[1..].split_once(')').unwrap_or((rest, ""));
                grouping.extend(inside.split(',').map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned));
                rest = after;
            }
            "or" | "and" | "unless" | "bool" | "offset" => {}
            // Before their `by (…)`.
            "sum" | "max" | "min" | "avg" | "count" => {}
            _ if rest.starts_with('(') => {}
            _ => {
                let inside = rest.strip_prefix('{').and_then(|inside| inside.split_once('}'));
                rest = inside.map_or(rest, |(_, after)| after);
                let matchers = inside.map_or_else(Vec::new, |(inside, _)| matchers(inside));
                let counted = between.ends_with('(') && matches!(before.as_str(), "rate" | "increase");
                selectors.push(Selector { name: word.clone(), matchers, counted });
            }
        }
        before = word;
    }
    (selectors, grouping)
}

fn matchers(inside: &str) -> Vec<(String, Vec<String>)> {
    let one = |text: &str| {
        let (label, value) = text.split_once(['=', '!']).unwrap_or_else(|| panic!("no matcher: {text}"));
        let value = value.trim_start_matches(['=', '~']).trim_matches('"');
        (label.trim().to_owned(), value.split('|').map(str::to_owned).collect())
    };
    inside.split(',').filter(|text| !text.trim().is_empty()).map(one).collect()
}

/// What a query asks for that no daemon exports.
pub(crate) fn missing(query: &str, exported: &Exported) -> Vec<String> {
    let (selectors, grouping) = read(query);
    let mut missing = Vec::new();
    for selector in selectors.iter().filter(|selector| selector.name != "up") {
        let name = &selector.name;
        match exported.kind(name) {
            None => missing.push(format!("no metric {name} with HELP and TYPE")),
            Some(kind) if selector.counted && kind == "gauge" => missing.push(format!("{name} is no counter")),
            Some(_) => {}
        }
        for (label, values) in selector.matchers.iter().filter(|(label, _)| !ADDED.contains(&label.as_str())) {
            let Some(known) = exported.values(name, label) else {
                missing.push(format!("{name} has no label {label}"));
                continue;
            };
            let literal = values.iter().filter(|value| !value.is_empty() && !value.contains('$') && *value != ".*");
            missing.extend(literal.filter(|v| !known.contains(*v)).map(|v| format!("{name}: {label} is never {v}")));
        }
    }
    let has = |label: &str| {
        ADDED.contains(&label) || label == "le" || selectors.iter().any(|s| exported.labels(&s.name).contains(label))
    };
    missing.extend(grouping.iter().filter(|label| !has(label)).map(|label| format!("nothing has a label {label}")));
    missing
}

#[test]
fn names_matchers_and_grouping_of_a_query_are_found_and_what_nobody_exports_is_named() {
    let query =
        "sum by(service, le) (rate(a_bucket{x=~\"1|$y\", z!=\"2\"}[$__range])) > ignoring(w) group_left() b or up == 0";
    let (selectors, grouping) = read(query);
    let names: Vec<(&str, bool)> = selectors.iter().map(|s| (s.name.as_str(), s.counted)).collect();
    assert_eq!(names, [("a_bucket", true), ("b", false), ("up", false)]);
    assert_eq!(grouping, ["service", "le", "w"]);
    assert_eq!(selectors[0].matchers[0], ("x".to_owned(), vec!["1".to_owned(), "$y".to_owned()]));
    let mut exported = Exported::default();
    exported.read("# HELP b Some.\n# TYPE b gauge\nb{x=\"1\"} 1\n");
    assert_eq!(
        missing("increase(b{x=\"2\", y=\"1\"}[5m]) + on(z) c", &exported),
        [
            "b is no counter",
            "b: x is never 2",
            "b has no label y",
            "no metric c with HELP and TYPE",
            "nothing has a label z"
        ]
    );
}
