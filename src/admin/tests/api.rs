//! The failover API: its replies in every state, whole, beside what they were (`tests/samples/api/STATE.json`), and its
//! document beside its routes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::super::routes;
use super::document::{document, plain, resolved};
use super::*;
use crate::view::Status;

const STATES: [&str; 6] =
    ["healthy", "degraded", "failover_in_progress", "failover_complete", "recovery_in_progress", "unknown"];

/// A view in which the service is so.
fn in_state(state: &str) -> Status {
    let mut status = match state {
        "healthy" => fixture::steady(),
        "failover_in_progress" => fixture::promoting(),
        "failover_complete" => fixture::quarantined(),
        _ => fixture::blocked(),
    };
    let service = &mut status.services[0];
    match state {
        "failover_complete" => service.phase = "settling".into(),
        "recovery_in_progress" => service.backends[0].health = "recovering".into(),
        "unknown" => {
            service.backends[1].health = "down".into();
            // Not looked at yet by this daemon.
            service.backends[1].last_probe = None;
        }
        _ => {}
    }
    if ["failover_complete", "recovery_in_progress", "unknown"].contains(&state) {
        service.state = state.into();
    }
    assert_eq!(service.state, state);
    status
}

#[test]
fn in_every_state_the_replies_are_what_they_were() {
    for state in STATES {
        let served = Served::start(in_state(state));
        let mut replies = serde_json::Map::new();
        for path in ["/failover/status", "/failover/metrics", "/failover/health", "/failover/history", "/health"] {
            let mut reply = served.get(path).json();
            if path == "/failover/status" {
                // The view as it is, which has samples of its own.
                let services = reply.as_object_mut().unwrap().remove("services");
                assert_eq!(services, serde_json::to_value(&in_state(state).services).ok());
            }
            replies.insert(path.to_owned(), reply);
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/samples/api/{state}.json"));
        let replies = Value::Object(replies);
        if std::env::var_os("PGPIVOT_WRITE_SAMPLES").is_some() {
            std::fs::write(&file, serde_json::to_string_pretty(&replies).unwrap() + "\n").unwrap();
        }
        let known = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let known: Value = serde_json::from_str(&known).unwrap();
        assert_eq!(replies, known, "{state}: if the new replies are right, run with PGPIVOT_WRITE_SAMPLES=1");
    }
}

#[test]
fn a_script_made_for_the_older_names_finds_them_and_their_units() {
    let served = Served::start(in_state("degraded"));
    let moment = |value: &Value| {
        let text = value.as_str().unwrap();
        assert!(text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(), "{text}");
    };
    for path in ["/failover/status", "/failover/health", "/failover/status?service=main"] {
        let reply = served.get(path).json();
        assert_eq!(reply["state"], "degraded");
        let (primary, standby) = (&reply["primary"], &reply["standbys"][0]);
        assert_eq!((&primary["healthy"], &standby["healthy"]), (&json!(false), &json!(true)), "{path}");
        assert!(primary["failureCount"].as_u64().unwrap() > 0 && primary["responseTime"].as_f64().unwrap() > 0.0);
        moment(&primary["lastHealthCheck"]);
        moment(&primary["downSince"]);
        assert_eq!((&standby["failureCount"], &standby["downSince"]), (&json!(0), &json!(null)), "{path}");
        assert_eq!((&primary["promotionEligible"], &standby["promotionEligible"]), (&json!(false), &json!(false)));
    }
    for path in ["/failover/status", "/failover/metrics", "/failover/history"] {
        assert_eq!(served.get(path).json()["failoverCount"], 2, "{path}");
    }
    served.publish(|status| *status = in_state("healthy"));
    assert_eq!(served.get("/failover/status").json()["standbys"][0]["promotionEligible"], true);
}

#[test]
fn of_several_services_the_status_shows_the_databases_of_the_one_that_is_named() {
    let served = Served::start(fixture::two());
    assert_eq!(served.get("/failover/status").json().get("primary"), None);
    assert_eq!(served.get("/failover/status?service=billing").json()["primary"]["name"], "us-east");
}

#[test]
fn the_document_names_every_route_with_its_methods_and_no_other() {
    let served = Served::start(fixture::steady());
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let named: BTreeSet<String> = paths.keys().cloned().collect();
    let served_paths: Vec<&str> = routes::table().into_iter().map(|(path, _)| path).collect();
    assert_eq!(named, served_paths.iter().map(|path| plain(path)).collect::<BTreeSet<_>>());
    for path in served_paths {
        let reply = served.ask(&format!("OPTIONS {path}"), "", "");
        assert_eq!((reply.code, reply.problem().as_str()), (405, "method-not-allowed"), "{path}");
        let allow = reply.head.split("allow: ").nth(1).unwrap().split("\r\n").next().unwrap();
        // HEAD goes with every GET.
        let allow: Vec<&str> = allow.split(", ").filter(|method| *method != "head").collect();
        let item = resolved(&document, &paths[&plain(path)]).as_object().unwrap();
        assert_eq!(allow, item.keys().map(String::as_str).collect::<Vec<_>>(), "{path}");
    }
}

#[test]
fn the_document_is_served_and_whole() {
    let served = Served::start(fixture::steady());
    let reply = served.get("/openapi.json");
    assert!(reply.head.contains("content-type: application/json\r\n"), "{}", reply.head);
    let document = reply.json();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut rest = vec![&document];
    let mut references = BTreeSet::new();
    while let Some(value) = rest.pop() {
        resolved(&document, value);
        references.extend(value.get("$ref").and_then(Value::as_str));
        rest.extend(value.as_object().into_iter().flat_map(serde_json::Map::values));
        rest.extend(value.as_array().into_iter().flatten());
    }
    for (kind, parts) in
        document["components"].as_object().unwrap().iter().filter(|(kind, _)| *kind != "securitySchemes")
    {
        for name in parts.as_object().unwrap().keys() {
            assert!(references.contains(format!("#/components/{kind}/{name}").as_str()), "nobody needs {kind}/{name}");
        }
    }
}

#[test]
fn every_reply_on_every_sample_is_one_that_the_document_describes() {
    let document = document();
    let samples = fixture::all().into_iter().map(|(_, status)| status);
    for status in samples.chain(STATES.map(in_state)).chain([fixture::two()]) {
        let served = Served::start(status);
        for (path, item) in document["paths"].as_object().unwrap() {
            let one = if path == "/connection" { "?service=main" } else { "" };
            if item.get("get").is_some() && path != "/events" {
                served.get(&format!("{path}{one}"));
            }
        }
    }
}

#[test]
fn every_problem_has_a_status_that_the_document_names() {
    let served = Served::with(fixture::two(), with_tokens());
    for (line, head, body, code) in [
        ("POST /failover/pause", "", "", 401),
        ("POST /failover/pause", "authorization: Bearer s3cret\r\n", "[]", 400),
        ("POST /failover/trigger?service=main", "authorization: Bearer s3cret\r\n", r#"["us-west", true]"#, 400),
        ("POST /failover/pause", "authorization: Bearer s3cret\r\ncontent-type: text/plain\r\n", "{}", 415),
        ("POST /failover/trigger", "authorization: Bearer s3cret\r\n", "", 400),
        ("POST /failover/pause?service=nope", "authorization: Bearer s3cret\r\n", "", 404),
        ("GET /failover/health?service=nope", "", "", 404),
        ("GET /stats?fragment=maybe", "", "", 400),
        ("GET /live", "content-length: 65537\r\n", "", 413),
    ] {
        let reply = served.ask(line, head, body);
        assert_eq!(reply.code, code, "{line}: {reply:?}");
        reply.problem();
    }
}

#[test]
fn a_body_is_taken_under_its_right_name_or_none() {
    let mut served = Served::start(fixture::steady());
    for kind in ["", "content-type: application/json\r\n", "content-type: Application/JSON; charset=utf-8\r\n"] {
        let (reply, seen) = served.command("POST /failover/switchover", kind, r#"{"to": "us-west"}"#, Ok(receipt()));
        assert_eq!((reply.code, seen.order), (200, Order::Command(Command::Switchover { to: Some("us-west".into()) })));
    }
    // Nothing is said in it, so it does not matter what it is called.
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    assert_eq!(served.command("POST /failover/pause", form, "", Ok(receipt())).0.code, 200);
}

#[test]
fn a_name_that_no_backend_can_have_goes_no_further_than_the_reply() {
    let served = Served::start(fixture::steady());
    for name in ["x".repeat(60_000), "us-west\n".to_owned(), String::new(), "US-West".to_owned()] {
        for (path, key) in [("/failover/adopt", "backend"), ("/failover/trigger", "to"), ("/failover/restore", "to")] {
            let reply = served.ask(&format!("POST {path}"), "", &json!({ key: name }).to_string());
            assert_eq!((reply.code, reply.problem().as_str()), (400, "bad-body"), "{path}");
            assert!(reply.body.len() < 500 && reply.body.contains("cannot be the name"), "{reply:?}");
        }
    }
}
