//! The reference against the mirror, the validation and the environment.

use std::collections::{BTreeMap, BTreeSet};

use super::super::env::{Env, NAMES};
use super::super::raw::{self, read};
use super::super::validate::examine;
use super::defaults::{CORES, IN_WORDS, SAMPLES, known, plain, speaks};
use super::tables::{REQUIRED, TABLES};
use super::variables::VARIABLES;

/// Paths of all keys in the tables.
fn listed() -> BTreeSet<String> {
    TABLES.iter().flat_map(|table| table.keys.iter().map(|key| format!("{}{}", table.prefix, key.name))).collect()
}

#[test]
fn every_key_that_the_file_may_have_is_in_the_reference_and_no_other() {
    let mirror = read::mirror();
    let prefixes: Vec<&str> = mirror.iter().map(|(prefix, _)| *prefix).collect();
    let mut real = BTreeSet::new();
    for (prefix, keys) in &mirror {
        let paths = keys.iter().map(|key| format!("{prefix}{key}"));
        real.extend(paths.filter(|path| !prefixes.contains(&format!("{path}.").as_str())));
    }
    let listed = listed();
    let missing: Vec<&String> = real.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "{missing:?}: add each with a line of what it is for to its table in src/config/reference/tables.rs (a new table \
         to TABLES there and to `mirror` in src/config/raw/read.rs), then write docs/configuration.md anew: \
         PGPIVOT_WRITE_SAMPLES=1 cargo test --test documents"
    );
    let gone: Vec<&String> = listed.difference(&real).collect();
    assert!(gone.is_empty(), "{gone:?}: no such key; take it out of src/config/reference/tables.rs");
    for prefix in prefixes {
        assert!(TABLES.iter().any(|table| table.prefix == prefix), "{prefix}: add it to TABLES");
    }
}

#[test]
fn every_key_says_what_may_be_written_and_what_holds_without_it() {
    let known = known();
    for table in TABLES {
        for key in table.keys {
            let path = format!("{}{}", table.prefix, key.name);
            let noted = known.accepted.contains_key(&path);
            assert!(noted || !key.value.is_empty(), "{path}: say in tables.rs what is written");
            let in_rows = ["listener.", "backend."].contains(&table.prefix);
            let given = in_rows && SAMPLES.iter().any(|sample| sample.text.contains(&format!(" {} = ", key.name)));
            let default = known.defaults.contains_key(&path) && !given;
            assert!(default || !key.otherwise.is_empty(), "{path}: no sample of defaults.rs yields its default");
        }
    }
}

/// Refused where nothing uses them, also with their default.
const UNUSED: [&str; 2] = ["failover.rejoin_timeout", "probe.password_file"];

#[test]
fn a_default_that_is_written_into_the_file_changes_nothing() {
    let known = known();
    let mut checked = 0;
    for sample in SAMPLES {
        let (without, _) = super::defaults::read(sample.text);
        for (path, values) in known.defaults.iter().filter(|(path, _)| speaks(sample.label, path)) {
            let value = values.iter().find(|(label, _)| *label == sample.label).map(|(_, value)| value.as_str());
            let Some(value) = value.filter(|v| !["not set", "***", "[]"].contains(v) && !v.starts_with(IN_WORDS))
            else {
                continue;
            };
            // The login is shown whole, and its keys on their own.
            if UNUSED.contains(&path.as_str()) || path == "failover.promoter_login" {
                continue;
            }
            let Some(text) = written(sample.text, path, value) else { continue };
            let (with, problems) = super::defaults::read(&text);
            assert_eq!(problems.into_result().err(), None, "{}: {path} = {value}", sample.label);
            assert_eq!(with, without, "{}: {path} = {value}", sample.label);
            checked += 1;
        }
    }
    assert!(checked > 140, "only {checked} defaults were tried");
}

/// The sample with that key; `None` = it has it already.
fn written(sample: &str, path: &str, value: &str) -> Option<String> {
    let first = |after: &str, key: &str| {
        let row = sample.lines().find(|line| line.contains(after)).unwrap();
        (!row.contains(&format!("{key} = "))).then(|| sample.replacen(after, &format!("{after}{key} = {value}, "), 1))
    };
    if let Some(key) = path.strip_prefix("backend.") {
        return first("{ name = 'a', ", key);
    }
    if let Some(key) = path.strip_prefix("listener.") {
        return first("listener = [ { ", key);
    }
    let service = if path.starts_with("admin.") || path.starts_with("state.") { "" } else { "service.main." };
    let key = format!("{service}{path} = ");
    (!sample.contains(&key)).then(|| format!("{sample}{key}{value}\n"))
}

#[test]
fn what_is_said_to_be_required_is() {
    // Where each is written in the samples.
    let written = [
        ("kind", "service.main.kind = 'postgres'\n"),
        ("listener.address", "{ address = '127.0.0.1:26257' }"),
        ("backend.name", "name = 'a', "),
        ("backend.addresses", "addresses = ['db1.example.com:5432'], "),
        ("cockroach_cloud.secret_file", "service.main.cockroach_cloud.secret_file = '/secret'\n"),
        ("cockroach_sql.user", "service.main.cockroach_sql.user = 'pgpivot'\n"),
    ];
    let said: BTreeSet<String> = TABLES
        .iter()
        .flat_map(|table| {
            table.keys.iter().filter(|key| key.otherwise == REQUIRED).map(|key| format!("{}{}", table.prefix, key.name))
        })
        .collect();
    assert_eq!(said, written.iter().map(|(path, _)| (*path).to_owned()).collect());
    for (path, line) in written {
        let sample = SAMPLES.iter().find(|sample| sample.text.contains(line)).unwrap();
        let rest = match path {
            "listener.address" => "{ }",
            // The table stays.
            "cockroach_cloud.secret_file" => "service.main.cockroach_cloud.timeout = '9s'\n",
            "cockroach_sql.user" => "service.main.cockroach_sql.stop_service = true\n",
            _ => "",
        };
        let (_, problems) = super::defaults::read(&sample.text.replace(line, rest));
        let found = problems.into_result().unwrap_err();
        let named = |problem: &raw::problem::Problem| problem.path.ends_with(path.rsplit('.').next().unwrap());
        assert!(found.iter().any(named), "{path}: {found:?}");
    }
}

#[test]
fn every_variable_is_in_the_reference_in_the_order_of_the_example() {
    let listed: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(listed, NAMES, "add it to src/config/reference/variables.rs");
    let keys = self::listed();
    for variable in VARIABLES {
        for key in variable.sets {
            assert!(keys.contains(*key), "{}: {key} is no key", variable.name);
        }
    }
}

/// Environments that between them set every variable which another name of a key is.
const ENVIRONMENTS: [&[(&str, &str)]; 4] = [
    &[
        ("DATABASE_URL", "postgres://u:p@db1.example.com/shop?sslmode=verify-full&sslrootcert=/ca.pem"),
        ("DATABASE_REPLICA_URL", "postgres://u:p@db2.example.com/shop?sslmode=verify-full&sslrootcert=/ca.pem"),
        ("HEALTH_CHECK_INTERVAL", "3"),
        ("HEALTH_CHECK_TIMEOUT", "2"),
        ("FAILURE_THRESHOLD", "4"),
        ("FAILOVER_DELAY", "5"),
        ("ENABLE_PROMETHEUS", "true"),
        ("PROMETHEUS_PORT", "8001"),
        ("PGPIVOT_ADMIN", "127.0.0.1:8405"),
        ("STATE_DIRECTORY", "/srv/pgpivot:/srv/other"),
    ],
    &[
        ("DB_HOST", "db1.example.com"),
        ("DB_NAME", "shop"),
        ("DB_USER", "u"),
        ("PGPIVOT_STANDBYS", "db2.example.com"),
        ("FAILOVER_HEALTH_CHECK_INTERVAL", "3000"),
    ],
    &[
        ("COCKROACH_API_SECRET_KEY", "CCDB1_0123456789abcdef"),
        ("COCKROACH_API_URL", "https://api.example.com"),
        ("PRIMARY_CLUSTER_ID", "00000000-0000-0000-0000-000000000001"),
        ("STANDBY_CLUSTER_ID", "00000000-0000-0000-0000-000000000002"),
        ("PCR_STREAM_ID", "00000000-0000-0000-0000-000000000003"),
        ("FAILOVER_AT_TIMESTAMP", "2026-01-31T12:00:00Z"),
        ("PRIMARY_SQL_DNS", "a.example.com"),
        ("STANDBY_SQL_DNS", "b.example.com"),
        ("HEALTH_CHECK_TIMEOUT", "2"),
        ("DB_USERNAME", "u"),
    ],
    &[
        ("PRIMARY_CLUSTER_ENDPOINT", "postgres://u:p@a.example.com/shop?sslmode=verify-full&sslrootcert=/ca.pem"),
        ("STANDBY_SQL_DNS", "b.example.com"),
    ],
];

#[test]
fn every_key_that_a_variable_sets_is_named_at_it_and_no_other() {
    let mut set: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for variables in ENVIRONMENTS {
        let map = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (_, problems) = examine(raw::parse(""), &Env::parse(&map), CORES);
        for (path, variable) in problems.origins() {
            let path = plain(path);
            // A backend's name and role come with its address.
            if !["backend", "backend.name", "backend.role"].contains(&path.as_str()) {
                set.entry(variable).or_default().insert(path);
            }
        }
        assert_eq!(problems.into_result().err(), None, "{variables:?}");
    }
    for variable in VARIABLES {
        let found = set.remove(variable.name).unwrap_or_default();
        let said: BTreeSet<String> = variable.sets.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(said, found, "{}", variable.name);
    }
}
