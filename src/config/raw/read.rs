//! TOML text into the mirror, collecting every mistake instead of stopping at the first: syntax with line and column,
//! unknown keys with the nearest known one, values of the wrong type. Judges no value.

use serde::de::value::Error as ValueError;
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use toml::{Table, Value};

use super::problem::{Problems, nearest};
use super::{Raw, Service, backend_path, listener_path, quoted, service_path};

/// Syntax mistakes that are reported at most: one mistake often brings others behind it.
const MAX_SYNTAX_PROBLEMS: usize = 5;

/// The tables of a whole file.
const ROOT: &[&str] = &["admin", "state", "service"];

/// Reads a file's text.
pub fn parse(text: &str) -> Raw {
    let mut raw = Raw::default();
    let Some(mut root) = table_of(text, &mut raw.problems) else {
        raw.broken = true;
        return raw;
    };
    let problems = &mut raw.problems;
    raw.admin = section(&mut root, "", "admin", problems);
    raw.state = section(&mut root, "", "state", problems);
    for (name, value) in take_table(&mut root, "", "service", problems) {
        let path = service_path(&name);
        match value {
            Value::Table(table) => raw.services.push((name, service(table, &path, problems))),
            other => problems.add(path, format!("is {}; write a table: [service.{name}]", article(&other))),
        }
    }
    for (key, _) in root {
        unknown(problems, "", &key, ROOT);
    }
    raw
}

fn table_of(text: &str, problems: &mut Problems) -> Option<Table> {
    let (_, errors) = toml::de::DeTable::parse_recoverable(text);
    for error in errors.iter().take(MAX_SYNTAX_PROBLEMS) {
        problems.add(place(text, error.span()), error.message());
    }
    if !errors.is_empty() {
        return None;
    }
    match text.parse::<Table>() {
        Ok(table) => Some(table),
        Err(error) => {
            problems.add(place(text, error.span()), error.message());
            None
        }
    }
}

/// `line 3, column 7`, both from 1, the column in characters.
fn place(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.as_bytes().get(..span.start.min(text.len()))) else {
        return String::new();
    };
    let before = String::from_utf8_lossy(before);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

fn service(mut table: Table, path: &str, problems: &mut Problems) -> Service {
    let listeners = rows(&mut table, path, "listener", problems);
    let backends = rows(&mut table, path, "backend", problems);
    let mut service = Service {
        probe: probe(&mut table, path, problems),
        failover: failover(&mut table, path, problems),
        cockroach_cloud: optional(&mut table, path, "cockroach_cloud", problems),
        cockroach_sql: optional(&mut table, path, "cockroach_sql", problems),
        read_only: section(&mut table, path, "read_only", problems),
        patroni: optional(&mut table, path, "patroni", problems),
        connection: section(&mut table, path, "connection", problems),
        ..read(table, path, problems)
    };
    for (index, mut row) in listeners.into_iter().enumerate() {
        let path = listener_path(path, index);
        let tls = section(&mut row, &path, "tls", problems);
        service.listener.push(super::Listener { tls, ..read(row, &path, problems) });
    }
    for (index, mut row) in backends.into_iter().enumerate() {
        let path = backend_path(path, index, row.get("name").and_then(Value::as_str));
        let tls = section(&mut row, &path, "tls", problems);
        service.backend.push(super::Backend { tls, ..read(row, &path, problems) });
    }
    service
}

fn probe(service: &mut Table, path: &str, problems: &mut Problems) -> super::Probe {
    let mut table = take_table(service, path, "probe", problems);
    let path = format!("{path}.probe");
    let tls = section(&mut table, &path, "tls", problems);
    let http = optional(&mut table, &path, "http", problems);
    super::Probe { tls, http, ..read(table, &path, problems) }
}

fn failover(service: &mut Table, path: &str, problems: &mut Problems) -> super::Failover {
    let mut table = take_table(service, path, "failover", problems);
    let path = format!("{path}.failover");
    let promoter_login = section(&mut table, &path, "promoter_login", problems);
    super::Failover { promoter_login, ..read(table, &path, problems) }
}

/// Takes the sub-table `key` out and reads it, where it matters whether it is there.
fn optional<T: DeserializeOwned + Default>(
    table: &mut Table,
    path: &str,
    key: &str,
    problems: &mut Problems,
) -> Option<T> {
    table.contains_key(key).then(|| section(table, path, key, problems))
}

/// Takes the sub-table `key` out and reads it.
fn section<T: DeserializeOwned + Default>(table: &mut Table, path: &str, key: &str, problems: &mut Problems) -> T {
    let inner = take_table(table, path, key, problems);
    read(inner, &join(path, key), problems)
}

fn take_table(table: &mut Table, path: &str, key: &str, problems: &mut Problems) -> Table {
    let path = join(path, key);
    match table.remove(key) {
        None => Table::new(),
        Some(Value::Table(inner)) => inner,
        Some(Value::Array(items)) if items.iter().all(Value::is_table) => {
            problems.add(&path, format!("is there more than once; write its header with single brackets: [{path}]"));
            Table::new()
        }
        Some(other) => {
            problems.add(&path, format!("is {}; write a table: [{path}]", article(&other)));
            Table::new()
        }
    }
}

/// Takes the tables `[[path.key]]` out.
fn rows(table: &mut Table, path: &str, key: &str, problems: &mut Problems) -> Vec<Table> {
    let path = join(path, key);
    let wanted = format!("write each with double brackets: [[{path}]]");
    let mut found = Vec::new();
    match table.remove(key) {
        None => {}
        Some(Value::Array(items)) => {
            for (index, item) in items.into_iter().enumerate() {
                match item {
                    Value::Table(row) => found.push(row),
                    other => problems.add(format!("{path}#{}", index + 1), format!("is {}; {wanted}", article(&other))),
                }
            }
        }
        Some(Value::Table(_)) => problems.add(path, format!("is a single table; {wanted}")),
        Some(other) => problems.add(path, format!("is {}; {wanted}", article(&other))),
    }
    found
}

/// Reads a table without sub-tables. Every key is optional, so each can be tried alone and one mistake hides no other.
fn read<T: DeserializeOwned + Default>(table: Table, path: &str, problems: &mut Problems) -> T {
    let known = keys::<T>();
    let mut good = Table::new();
    for (key, value) in table {
        if !known.contains(&key.as_str()) {
            unknown(problems, path, &key, known);
            continue;
        }
        let alone = Table::from_iter([(key.clone(), value.clone())]);
        match T::deserialize(alone) {
            Ok(_) => {
                good.insert(key, value);
            }
            Err(error) => problems.add(join(path, &key), error.message()),
        }
    }
    T::deserialize(good).unwrap_or_default()
}

fn unknown(problems: &mut Problems, path: &str, key: &str, known: &[&'static str]) {
    let message = match nearest(key, known.iter().copied()) {
        Some(meant) => format!("is not a known key; did you mean {meant}?"),
        None => format!("is not a known key; known here: {}", known.join(", ")),
    };
    problems.add(join(path, key), message);
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { quoted(key) } else { format!("{path}.{}", quoted(key)) }
}

fn article(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// Every table below the root: what stands before its keys in a path, from the service on, and all its keys.
#[cfg(test)]
pub(in crate::config) fn mirror() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("admin.", keys::<super::Admin>()),
        ("state.", keys::<super::State>()),
        ("", keys::<Service>()),
        ("listener.", keys::<super::Listener>()),
        ("listener.tls.", keys::<super::ListenerTls>()),
        ("backend.", keys::<super::Backend>()),
        ("backend.tls.", keys::<super::Tls>()),
        ("probe.", keys::<super::Probe>()),
        ("probe.tls.", keys::<super::Tls>()),
        ("probe.http.", keys::<super::Http>()),
        ("failover.", keys::<super::Failover>()),
        ("failover.promoter_login.", keys::<super::PromoterLogin>()),
        ("read_only.", keys::<super::ReadOnly>()),
        ("patroni.", keys::<super::Patroni>()),
        ("cockroach_cloud.", keys::<super::CockroachCloud>()),
        ("cockroach_sql.", keys::<super::CockroachSql>()),
        ("connection.", keys::<super::Connection>()),
    ]
}

/// The keys that a struct of the mirror has, as its derived `Deserialize` announces them.
fn keys<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // It always fails: it was only asked what it would like to read.
    let _ = T::deserialize(Asker(&mut found));
    found
}

/// A deserializer that notes the field names it is asked for and has nothing to give.
struct Asker<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asker<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ValueError> {
        Err(ValueError::custom("nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Admin, Probe, Text};
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let found = parse(text).problems.into_result().err().unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn services_keep_the_order_of_the_file() {
        let raw = parse("[service.z]\nkind = 'postgres'\n[service.a]\n[service.m.probe]\nfall = 2\n");
        let names: Vec<&str> = raw.services.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a", "m"]);
    }

    #[test]
    fn a_mistake_hides_no_other_in_the_same_table() {
        let raw = parse("[service.m.probe]\nx = 1\nfall = 'a'\nrise = 'b'\ninterval = '5s'\n");
        assert_eq!(raw.services[0].1.probe.interval, Some(Text::from("5s")));
        assert_eq!(raw.problems.into_result().unwrap_err().len(), 3);
    }

    #[test]
    fn a_syntax_mistake_is_placed_by_line_and_column_in_characters() {
        assert!(problems("a = 1\n\"é\" = \"x\" y\n")[0].starts_with("line 2, column 11: "));
        assert!(problems("[admin]\nlisten = \"abc\n")[0].starts_with("line 2, column "));
        assert!(parse("a = ").broken);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_not_repeated() {
        for key in ["fall", "jitter", "passive"] {
            let found = problems(&format!("[service.m.probe]\n{key} = \"hunter2\"\n"));
            assert!(found.len() == 1 && !found[0].contains("hunter2"), "{found:?}");
        }
        let found = problems("[[service.m.backend]]\naddresses = \"postgres://app:hunter2@db1\"\n");
        assert!(found.len() == 1 && !found[0].contains("hunter2"), "{found:?}");
    }

    #[test]
    fn the_mirror_announces_its_keys() {
        assert_eq!(keys::<Admin>(), ["listen", "socket", "token_file", "hosts", "metrics_listen"]);
        assert!(keys::<Probe>().contains(&"hang_trigger"));
        assert!(!keys::<Probe>().contains(&"password"), "a password is no key of the file");
    }

    /// Lines that look like a configuration, some of them broken.
    fn toml_ish() -> impl Strategy<Value = String> {
        let key = "(listen|kind|interval|fall|jitter|backend|listener|probe|http|tls|service|name|addresses|cluster_id|api_url|stream_id|failover_at|virtual_cluster|[a-z.\"' ]{0,6})";
        let value = "(\"[^\"\n]{0,8}\"|-?[0-9]{1,20}|[0-9.e]{1,6}|true|\\[[0-9\", ]{0,6}\\]|\\{ ?[a-z]{0,4} ?=? ?1? ?\\}|[^\n]{0,8})";
        let header = "(\\[admin\\]|\\[state\\]|\\[service\\]|\\[service\\.m\\]|\\[\\[service\\.m\\.backend\\]\\]|\\[\\[service\\.m\\.listener\\]\\]\
                      |\\[service\\.m\\.(probe|failover|read_only|connection|cockroach_cloud|cockroach_sql|patroni|probe\\.http|probe\\.tls|backend)\\]|\\[{0,2}[a-z.]{0,6}\\]{0,2})";
        let regex = |pattern: String| proptest::string::string_regex(&pattern).unwrap();
        let line = prop_oneof![3 => regex(format!("{key} = {value}")), 2 => regex(header.to_owned())];
        proptest::collection::vec(line, 0..16).prop_map(|lines| lines.join("\n"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_that_looks_like_toml_brings_the_parser_down(text in toml_ish()) {
            let raw = parse(&text);
            let _ = crate::config::validate::build(raw, &crate::config::env::Env::default(), 2);
        }

        #[test]
        fn no_text_at_all_brings_the_parser_down(text in any::<String>()) {
            let raw = parse(&text);
            let _ = crate::config::validate::build(raw, &crate::config::env::Env::default(), 2);
        }
    }
}
