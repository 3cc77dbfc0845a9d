//! Which path leads where, what every request must pass first, and what every reply carries.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};

use super::auth::Peer;
use super::control::{BODY_LIMIT, Verb, command};
use super::problem::{Fault, PROBLEM_JSON, quoted};
use super::server::Shared;
use super::{csv, events, health, metrics, sidecar, stats};

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

/// Everything.
pub(super) fn all(shared: Arc<Shared>) -> Router {
    let mut router = Router::new()
        .route("/", get(|| async { Redirect::temporary("/stats") }))
        .route("/stats", get(stats::page))
        .route("/metrics", get(metrics::exposition))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/health", get(health::summary))
        .route("/failover/status", get(health::status))
        .route("/failover/metrics", get(health::figures))
        .route("/failover/health", get(health::detail))
        .route("/failover/history", get(health::history))
        .route("/failover/history/verify", get(health::verify))
        .route("/connection", get(sidecar::connection))
        .route("/clusters", get(sidecar::clusters))
        .route("/events", get(events::follow));
    for path in CSV_PATHS {
        router = router.route(path, get(csv::table));
    }
    for verb in Verb::ALL {
        router = router.route(verb.path(), post(move |state, request: Request| command(verb, state, request)));
    }
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
