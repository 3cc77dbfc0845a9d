//! Holds replies against `openapi.json`: no status, media type or key that it does not name, none missing that it
//! promises. Says nothing of values beyond type, enumeration and bounds; a real validator looks at those elsewhere.

use serde_json::Value;

use super::super::fixture::Reply;
use super::super::openapi::DOCUMENT;

pub(crate) fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("openapi.json is JSON")
}

/// The path as the document has it: `%3B` is `;`.
pub(crate) fn plain(path: &str) -> String {
    path.replace("%3B", ";").replace("%3b", ";")
}

/// What a `$ref` leads to, or the value itself.
pub(crate) fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(to) => document.pointer(&to[1..]).unwrap_or_else(|| panic!("{to} leads nowhere")),
        None => value,
    }
}

/// The reply to this request line must be one that the document names.
pub(crate) fn check(line: &str, reply: &Reply) {
    if reply.code == 404 && reply.problem() == "not-found" || reply.code == 405 {
        return;
    }
    let document = document();
    let (method, target) = line.split_once(' ').unwrap();
    let path = plain(target.split('?').next().unwrap());
    let item = resolved(&document, &document["paths"][&path]);
    let operation = &item[method.to_lowercase()];
    let response = resolved(&document, &operation["responses"][reply.code.to_string()]);
    assert!(!response.is_null(), "{line}: the document does not name status {}: {reply:?}", reply.code);
    let kind = reply.head.split("content-type: ").nth(1).map(|rest| rest.split([';', '\r']).next().unwrap());
    let Some(kind) = kind else {
        assert!(response.get("content").is_none(), "{line}: no content type: {reply:?}");
        return;
    };
    let schema = &response["content"][kind]["schema"];
    assert!(!schema.is_null(), "{line}: the document names no {kind} for status {}", reply.code);
    if kind.ends_with("json") {
        let found = complaints(&document, schema, &reply.json(), "");
        assert!(found.is_empty(), "{line}: {found:#?}\n{}", reply.body);
    }
}

/// What is wrong with a value, and where.
pub(crate) fn complaints(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolved(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let each: Vec<_> = choices.iter().map(|choice| complaints(document, choice, value, at)).collect();
        let fits = each.iter().filter(|found| found.is_empty()).count();
        return match fits {
            1 => Vec::new(),
            0 => each.into_iter().flatten().collect(),
            _ => vec![format!("{at}: fits {fits} of the choices")],
        };
    }
    let mut found = Vec::new();
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        several => several.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    };
    if !types.is_empty() && !types.iter().any(|known| is(value, known)) {
        found.push(format!("{at}: {value} is not {types:?}"));
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        found.push(format!("{at}: {value} is not one of {known:?}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{at}: {value} is not {}", schema["const"]));
    }
    if let (Some(number), Some(least)) = (value.as_f64(), schema["minimum"].as_f64())
        && number < least
    {
        found.push(format!("{at}: {value} is below {least}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let schema = schema["prefixItems"].get(index).unwrap_or(&schema["items"]);
        found.extend(complaints(document, schema, item, &format!("{at}/{index}")));
    }
    found.extend(members(document, schema, value, at));
    found
}

/// An object's keys: every one is named, and those are there that must be.
fn members(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let parts: Vec<&Value> = match schema["allOf"].as_array() {
        Some(parts) => parts.iter().map(|part| resolved(document, part)).collect(),
        None => vec![schema],
    };
    let (Some(object), true) = (value.as_object(), parts.iter().any(|part| part.get("properties").is_some())) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in object {
        match parts.iter().find_map(|part| part["properties"].get(key)) {
            Some(schema) => found.extend(complaints(document, schema, value, &format!("{at}/{key}"))),
            None => found.push(format!("{at}/{key} is not named")),
        }
    }
    for key in parts.iter().flat_map(|part| part["required"].as_array().into_iter().flatten()) {
        if !object.contains_key(key.as_str().unwrap()) {
            found.push(format!("{at}/{key} is missing"));
        }
    }
    found
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the document has a type {other:?}"),
    }
}
