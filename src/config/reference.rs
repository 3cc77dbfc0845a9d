//! The configuration reference as Markdown. What a key accepts and what holds without it are asked of the validation,
//! so that neither is written a second time; the words around them are in `tables` and `variables`.

mod defaults;
mod tables;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::defaults::Known;
use self::tables::{Key, TABLES, Table};
use self::variables::VARIABLES;

/// `docs/configuration.md`, to the byte.
pub fn markdown() -> String {
    let known = defaults::known();
    let mut text = HEAD.to_owned();
    for table in TABLES {
        text.push_str(&section(table, &known));
    }
    text.push_str(ENVIRONMENT);
    for variable in VARIABLES {
        let sets: Vec<String> = variable.sets.iter().map(|key| format!("`{key}`")).collect();
        let sets = if sets.is_empty() { String::new() } else { format!(" ({})", sets.join(", ")) };
        text.push_str(&format!("| `{}` | {}{sets} |\n", variable.name, variable.meaning));
    }
    text
}

fn section(table: &Table, known: &Known) -> String {
    let mut text = format!("\n## `{}`\n\n", table.header);
    if !table.note.is_empty() {
        text.push_str(&format!("{}\n\n", table.note));
    }
    text.push_str("| key | value | default | |\n|---|---|---|---|\n");
    for key in table.keys {
        let path = format!("{}{}", table.prefix, key.name);
        let value = value(&path, key, known);
        let default = default(&path, key, known);
        text.push_str(&format!("| `{}` | {value} | {default} | {}{} |\n", key.name, key.meaning, set_by(&path)));
    }
    text
}

/// As noted by the validation, by hand only where that notes nothing.
fn value(path: &str, key: &Key, known: &Known) -> String {
    let mut kinds: Vec<(String, Vec<&str>)> = Vec::new();
    for (label, accepts) in known.accepted.get(path).into_iter().flatten() {
        let text = accepts.to_string();
        match kinds.iter_mut().find(|(other, _)| *other == text) {
            Some((_, labels)) => labels.push(label),
            None => kinds.push((text, vec![label])),
        }
    }
    let mut texts: Vec<String> = match kinds.as_slice() {
        [] => Vec::new(),
        [(one, _)] => vec![one.clone()],
        several => several.iter().map(|(text, labels)| format!("{}: {text}", kind(labels[0]))).collect(),
    };
    texts.extend((!key.value.is_empty()).then(|| key.value.to_owned()));
    texts.join("; ")
}

/// What holds where the key is left out.
fn default(path: &str, key: &Key, known: &Known) -> String {
    if !key.otherwise.is_empty() {
        return key.otherwise.to_owned();
    }
    let values = known.defaults.get(path).cloned().unwrap_or_default();
    let mut shown: Vec<(String, Vec<&str>)> = Vec::new();
    for (label, value) in &values {
        match shown.iter_mut().find(|(other, _)| other == value) {
            Some((_, labels)) => labels.push(label),
            None => shown.push((value.clone(), vec![label])),
        }
    }
    let code = |value: &str| match value {
        "not set" => "none".to_owned(),
        words if words.starts_with(defaults::IN_WORDS) => words.trim_start_matches(defaults::IN_WORDS).to_owned(),
        value => format!("`{value}`"),
    };
    match shown.as_slice() {
        [(one, _)] => code(one),
        // Of the clusters' three ways the ones that differ from each other are named, else the kind alone.
        several => {
            let of_kind = several.len() == 2
                && values.iter().filter(|(label, _)| *label != "postgres").count() == 3
                && several.iter().any(|(_, labels)| labels.as_slice() == ["postgres"]);
            let named = |labels: &[&str]| match (of_kind, labels) {
                (true, [_, _, ..]) => "cockroach".to_owned(),
                (_, labels) => labels.iter().map(|label| with(label)).collect::<Vec<_>>().join(", "),
            };
            let texts = several.iter().map(|(value, labels)| format!("{}: {}", named(labels), code(value)));
            texts.collect::<Vec<_>>().join("; ")
        }
    }
}

fn kind(label: &str) -> &str {
    if label.starts_with("cockroach") { "cockroach" } else { "postgres" }
}

fn with(label: &str) -> String {
    match label {
        "cockroach" => "cockroach without replication".into(),
        "cockroach_cloud" | "cockroach_sql" => format!("with `{label}`"),
        other => other.into(),
    }
}

/// The variables that set a key.
fn set_by(path: &str) -> String {
    let found: Vec<String> =
        VARIABLES.iter().filter(|v| v.sets.contains(&path)).map(|v| format!("`{}`", v.name)).collect();
    if found.is_empty() { String::new() } else { format!(". Environment: {}", found.join(", ")) }
}

/// Per key, for each sample that has it: (label, value).
type PerSample<T> = BTreeMap<String, Vec<(&'static str, T)>>;

const HEAD: &str = "\
# Configuration reference

Printed by `pgpivot --reference`; a test keeps this page the same. [The examples](../config) are files to start from, and

```sh
pgpivot --check config/postgres-pair.toml
```

says what a file means and reports every problem of it in one run. The environment wins over the file, and the file over the
defaults. Unknown keys are problems. A *time* is written as `\"500ms\"`, `\"2s\"`, `\"5m\"` or `\"1h\"`, a *size* as `\"512KiB\"`
or `\"16MiB\"`, a *number* without quotes; both ends of a range are allowed. Where a default depends on `kind`, each is
named; *none* means that nothing is set, *required* that there must be one. SIGHUP reads the file anew, says what changed,
and names what takes a restart.
";

const ENVIRONMENT: &str = "
## Environment

Also from a file `.env` in the directory where pgpivot starts; the environment wins over it. An empty value counts as
none. [`.env.example`](../.env.example) has every one of them. In brackets: the key that it sets.

| variable | |
|---|---|
";
