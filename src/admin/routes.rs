//! Which path leads where, what every request must pass first, and what every reply carries.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{MethodRouter, get, post};

use super::auth::Peer;
use super::control::{BODY_LIMIT, Verb, command};
use super::problem::{Fault, PROBLEM_JSON, quoted};
use super::server::Shared;
use super::{csv, events, health, metrics, openapi, sidecar, stats};

/// HAProxy takes any path that begins with its stats address; these are what exporters and agents make of one.
const CSV_PATHS: [&str; 8] = [
    "/stats;csv",
    "/stats%3Bcsv",
    "/stats%3bcsv",
    "/stats;csv;norefresh",
    "/stats/;csv",
    "/stats/;csv;norefresh",
    "/;csv",
    "/;csv;norefresh",
];

/// Every path and who answers there; `openapi.json` says the same to others.
pub(super) fn table() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    let mut table = vec![
        ("/", get(|| async { Redirect::temporary("/stats") })),
        ("/openapi.json", get(openapi::document)),
        ("/stats", get(stats::page)),
        ("/metrics", get(metrics::exposition)),
        ("/live", get(health::live)),
        ("/ready", get(health::ready)),
        ("/health", get(health::summary)),
        ("/failover/status", get(health::status)),
        ("/failover/metrics", get(health::figures)),
        ("/failover/health", get(health::detail)),
        ("/failover/history", get(health::history)),
        ("/failover/history/verify", get(health::verify)),
        ("/connection", get(sidecar::connection)),
        ("/clusters", get(sidecar::clusters)),
        ("/events", get(events::follow)),
    ];
    table.extend(CSV_PATHS.map(|path| (path, get(csv::table))));
    let order = |verb: Verb| post(move |state, request: Request| command(verb, state, request));
    table.extend(Verb::ALL.map(|verb| (verb.path(), order(verb))));
    table
}

/// Everything.
pub(super) fn all(shared: Arc<Shared>) -> Router {
    let router = table().into_iter().fold(Router::new(), |router, (path, answer)| router.route(path, answer));
    router.with_state(shared)
}

/// `/metrics` and nothing else.
pub(super) fn metrics_only(shared: Arc<Shared>) -> Router {
    Router::new().route("/metrics", get(metrics::exposition)).with_state(shared)
}

/// What is refused before any route is looked up.
pub(super) fn admit(shared: &Shared, peer: Peer, parts: &Parts) -> Result<(), Fault> {
    shared.trust.load().admit(peer, parts)?;
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_LIMIT as u64) {
        return Err(Fault::TooLarge { limit: BODY_LIMIT });
    }
    Ok(())
}

/// Turns the router's bare 404 and 405 into problems and adds what every reply carries.
pub(super) fn finish(path: &str, response: Response<Body>) -> Response<Body> {
    let told = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
    let mut response = match response.status() {
        StatusCode::NOT_FOUND if !told => Fault::NotFound { path: quoted(path) }.into_response(),
        StatusCode::METHOD_NOT_ALLOWED if !told => {
            let allow = response.headers().get(header::ALLOW).and_then(|v| v.to_str().ok()).unwrap_or("GET,HEAD");
            Fault::MethodNotAllowed { path: quoted(path), allow: allow.replace(',', ", ") }.into_response()
        }
        _ => response,
    };
    let headers = response.headers_mut();
    let mut add = |name, value| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    add(header::CACHE_CONTROL, "no-store");
    add(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    add(header::REFERRER_POLICY, "no-referrer");
    add(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    response
}
