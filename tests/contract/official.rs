//! Holds the table against the vendor's OpenAPI document.

use serde_json::Value;

use super::table::{Field, Kind, Need, ROWS, SHAPES};

/// Where the table and the document differ; empty when they agree.
pub fn differences(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for row in ROWS {
        let name = format!("{} {}", row.method, row.path);
        let operation = &document["paths"][row.path][row.method.to_lowercase()];
        if operation.is_null() {
            found.push(format!("{name} is not in the document"));
            continue;
        }
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none);
        for field in row.query {
            match parameters.iter().find(|p| p["name"] == field.name && p["in"] == "query") {
                Some(parameter) => kind(document, field, &parameter["schema"], &name, &mut found),
                None => found.push(format!("{name} takes no {}", field.name)),
            }
        }
        for parameter in parameters.iter().filter(|p| p["required"] == true && p["in"] == "query") {
            if !row.query.iter().any(|field| parameter["name"] == field.name && field.need == Need::Must) {
                found.push(format!("{name} requires {}", parameter["name"]));
            }
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        match row.body {
            Some(shape) => object(document, shape, body, false, &name, &mut found),
            None if !body.is_null() => found.push(format!("{name} takes a body")),
            None => {}
        }
        let reply = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        if reply["$ref"] != format!("#/components/schemas/{}", row.reply) {
            found.push(format!("{name} replies {reply}, not {}", row.reply));
        }
        let error = &operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"];
        if error != "#/components/schemas/Status" {
            found.push(format!("{name} says its errors as {error}"));
        }
    }
    for shape in SHAPES {
        object(document, shape.name, &document["components"]["schemas"][shape.name], true, shape.name, &mut found);
    }
    found
}

/// The table's shape against a schema. An inline one, as one body has, need not say what is required.
fn object(document: &Value, shape: &str, schema: &Value, strict: bool, at: &str, found: &mut Vec<String>) {
    let schema = resolve(document, schema);
    if schema["type"] != "object" {
        found.push(format!("{at}: {shape} is no object of the document"));
        return;
    }
    let fields = super::table::shape(shape).fields;
    let none = Vec::new();
    let required = schema["required"].as_array().unwrap_or(&none);
    for field in fields {
        let property = &schema["properties"][field.name];
        if property.is_null() {
            found.push(format!("{at}: {shape} has no {}", field.name));
            continue;
        }
        kind(document, field, property, &format!("{at}: {shape}"), found);
        let is_required = required.iter().any(|name| name == field.name);
        if strict && is_required != (field.need != Need::May) {
            found.push(format!("{at}: {shape}.{} is required: {is_required}", field.name));
        }
    }
    if at != shape {
        for name in required {
            if !fields.iter().any(|field| name == field.name && field.need != Need::May) {
                found.push(format!("{at} requires {name}, which we may not send"));
            }
        }
    }
}

fn kind(document: &Value, field: &Field, schema: &Value, at: &str, found: &mut Vec<String>) {
    let named = |name: &str| format!("#/components/schemas/{name}");
    let target = resolve(document, schema);
    let words = |expected: &[&str]| {
        target["enum"].as_array().is_some_and(|all| all.iter().all(|w| expected.iter().any(|e| w == e)))
    };
    let good = match &field.kind {
        Kind::Text | Kind::Id => target["type"] == "string" && target["enum"].is_null() && target["format"].is_null(),
        Kind::Time => target["type"] == "string" && target["format"] == "date-time",
        Kind::Whole => target["type"] == "integer",
        Kind::Number => target["type"] == "number",
        Kind::Flag => target["type"] == "boolean",
        // Every word of the document is known, and every word that is known is the document's.
        Kind::Word(Some(name), known) => {
            schema["$ref"] == named(name)
                && words(known)
                && target["enum"].as_array().map(Vec::len) == Some(known.len())
        }
        // Ours are among its.
        Kind::Word(None, sent) => {
            let all = target["enum"].as_array();
            all.is_some_and(|all| sent.iter().all(|word| all.iter().any(|known| known == word)))
        }
        Kind::Object(name) => schema["$ref"] == named(name),
        Kind::Objects(name) => target["type"] == "array" && target["items"]["$ref"] == named(name),
        Kind::Texts => target["type"] == "array" && target["items"]["type"] == "string",
    };
    if !good {
        found.push(format!("{at}: {} is {target}, not {:?}", field.name, field.kind));
    }
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/components/schemas/")) {
        Some(name) => &document["components"]["schemas"][name],
        None => schema,
    }
}
