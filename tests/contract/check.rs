//! Holds an exchange with the API against the table, whoever answered: every field known and of its kind, nothing
//! required left out. Samples of every shape come from here too.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgpivot::cockroach_cloud::model::ClusterId;
use serde_json::{Map, Value, json};

use super::table::{Field, Kind, Need, row, shape};

/// A request and its reply.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// `Null` without a body.
    pub body: Value,
    pub status: u16,
    pub reply: Value,
}

/// What of an exchange is not in the table; empty when all is well. A reply other than 2xx is held against `Status`.
pub fn breaches(exchange: &Exchange) -> Vec<String> {
    let name = format!("{} {}", exchange.method, exchange.path);
    let Some(row) = row(&exchange.method, &exchange.path) else { return vec![format!("{name} is not in the table")] };
    let mut found = Vec::new();
    let query: Map<String, Value> = exchange.query.iter().map(|(k, v)| (k.clone(), from_query(v))).collect();
    fields(row.query, &query, &format!("{name}?"), &mut found);
    match row.body {
        Some(body) => value(&Kind::Object(body), &exchange.body, &format!("{name} sends "), &mut found),
        None if exchange.body != Value::Null => found.push(format!("{name} sends a body")),
        None => {}
    }
    let reply = if (200..300).contains(&exchange.status) { row.reply } else { "Status" };
    value(&Kind::Object(reply), &exchange.reply, &format!("{name} replies "), &mut found);
    found
}

fn from_query(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => Value::String(text.into()),
    }
}

fn fields(table: &[Field], object: &Map<String, Value>, at: &str, found: &mut Vec<String>) {
    for (name, value_of) in object {
        match table.iter().find(|field| field.name == name) {
            Some(field) => value(&field.kind, value_of, &format!("{at}{name}"), found),
            None => found.push(format!("{at}{name} is not in the table")),
        }
    }
    for field in table.iter().filter(|field| field.need != Need::May) {
        if !object.contains_key(field.name) {
            found.push(format!("{at}{} is missing", field.name));
        }
    }
}

fn value(kind: &Kind, value_of: &Value, at: &str, found: &mut Vec<String>) {
    let text = value_of.as_str();
    let good = match kind {
        Kind::Text => text.is_some(),
        Kind::Id => text.is_some_and(|text| text.parse::<ClusterId>().is_ok()),
        Kind::Time => text.is_some_and(|text| text.parse::<Timestamp>().is_ok()),
        Kind::Whole => value_of.is_i64(),
        Kind::Number => value_of.is_number(),
        Kind::Flag => value_of.is_boolean(),
        Kind::Word(_, words) => text.is_some_and(|text| words.contains(&text)),
        Kind::Texts => value_of.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        // The document's samples null what is not there.
        Kind::Object(_) if value_of.is_null() => at.ends_with("pagination"),
        Kind::Object("Any") => value_of.is_object(),
        Kind::Object(name) => match value_of.as_object() {
            Some(object) => {
                fields(shape(name).fields, object, &format!("{at}."), found);
                true
            }
            None => false,
        },
        Kind::Objects(name) => match value_of.as_array() {
            Some(all) => {
                for one in all {
                    value(&Kind::Object(name), one, &format!("{at}[]"), found);
                }
                true
            }
            None => false,
        },
    };
    if !good {
        found.push(format!("{at} is {value_of}, which is no {kind:?}"));
    }
}

/// A value of a shape, with every field that is needed as `least` or more.
pub fn sample(name: &str, least: Need) -> Value {
    let wanted = |need: Need| match least {
        Need::May => true,
        Need::Told => need != Need::May,
        Need::Must => need == Need::Must,
    };
    let fields = shape(name).fields.iter().filter(|field| wanted(field.need));
    Value::Object(fields.map(|field| (field.name.to_owned(), sample_of(field, least))).collect())
}

fn sample_of(field: &Field, least: Need) -> Value {
    match &field.kind {
        Kind::Text if field.name == "Port" => json!("26257"),
        // A next page would have to be read.
        Kind::Text if field.name == "next_page" => json!(""),
        Kind::Text => json!("some text"),
        Kind::Id => json!("35c4abb2-bb66-46d7-afed-25ebef5ed2aa"),
        Kind::Time => json!("2026-01-02T15:04:05.285067Z"),
        Kind::Whole => json!(7),
        Kind::Number => json!(15.25),
        Kind::Flag => json!(true),
        Kind::Word(_, words) => json!(words[0]),
        Kind::Object(name) => sample(name, least),
        Kind::Objects(name) => json!([sample(name, least), sample(name, least)]),
        Kind::Texts => json!(["a", "b"]),
    }
}
