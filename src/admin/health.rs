//! `/live`, `/ready`, `/health` and the machine-readable `/failover/*`: what orchestrators and scripts ask.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::control::{query, service};
use super::problem::Fault;
use super::server::Shared;
use crate::types::ServiceName;
use crate::view::databases::{Database, Databases, stamp};
use crate::view::{BackendStatus, ServiceStatus, Status};

pub(super) use crate::view::databases::failovers;

/// Lines of history when nobody says how many, and at most.
const HISTORY_DEFAULT: usize = 100;
const HISTORY_LIMIT: usize = 1000;
/// How long the history's file may take.
const HISTORY_PATIENCE: Duration = Duration::from_secs(5);

/// `?service=NAME`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    pub(super) service: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    service: Option<String>,
    limit: Option<usize>,
}

/// `GET /live`: for liveness, it says nothing of the databases.
pub(super) async fn live(State(shared): State<Arc<Shared>>) -> Response {
    match (shared.state.live)() {
        Ok(()) => Json(json!({ "status": "live" })).into_response(),
        Err(sentence) => Fault::NotLive { sentence }.into_response(),
    }
}

/// `GET /ready`: routing is published and the state can be written.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match is_ready(&shared) {
        Ok(()) => Json(json!({ "status": "ready" })).into_response(),
        Err(sentence) => Fault::NotReady { sentence }.into_response(),
    }
}

/// Why it is not.
pub(super) fn is_ready(shared: &Shared) -> Result<(), String> {
    let unwritable = || match &shared.state.status.load().state_error {
        None => Ok(()),
        Some(cause) => Err(format!("the state cannot be written, so nothing can fail over: {cause}")),
    };
    (shared.state.ready)().and_then(|()| unwritable())
}

/// `GET /health`: 200 while every configured database serves, 503 otherwise.
pub(super) async fn summary(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let status = shared.state.status.load_full();
    let services = chosen(&status, &uri)?;
    let each: Vec<Summary> = services.iter().map(|s| Summary::of(s)).collect();
    let overall = each.iter().map(|s| s.status).max().unwrap_or(Overall::Unhealthy);
    let mut body = json!({ "status": overall, "version": status.version });
    match each.as_slice() {
        [only] => {
            body["db_primary"] = json!(only.db_primary);
            body["db_replica"] = json!(only.db_replica);
            body["active_cluster"] = json!(only.active_cluster);
        }
        several => {
            let worst = |word: fn(&Summary) -> Option<&'static str>| {
                let words = || several.iter().filter_map(word);
                words().find(|w| *w != CONNECTED).or_else(|| words().next())
            };
            body["db_primary"] = json!(worst(|s| Some(s.db_primary)));
            body["db_replica"] = json!(worst(|s| s.db_replica));
            body["services"] = json!(several);
        }
    }
    let code = if overall == Overall::Healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, Json(body)).into_response())
}

const CONNECTED: &str = "connected";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Overall {
    /// Every side serves.
    Healthy,
    /// The active side serves, another does not.
    Degraded,
    /// The active side does not serve, or newcomers are held.
    Unhealthy,
}

#[derive(Debug, Serialize)]
struct Summary {
    service: ServiceName,
    status: Overall,
    db_primary: &'static str,
    db_replica: Option<&'static str>,
    active_cluster: Option<String>,
}

impl Summary {
    fn of(service: &ServiceStatus) -> Self {
        let db_primary = active(service).map_or("disconnected", connection_word);
        let words: Vec<_> = standbys(service).map(connection_word).collect();
        let db_replica = words.iter().find(|w| **w != CONNECTED).or(words.first()).copied();
        let status = match (db_primary, db_replica) {
            (CONNECTED, _) if !service.open => Overall::Unhealthy,
            (CONNECTED, None | Some(CONNECTED)) => Overall::Healthy,
            (CONNECTED, Some(_)) => Overall::Degraded,
            _ => Overall::Unhealthy,
        };
        let id = |b: &BackendStatus| b.cluster_id.clone().unwrap_or_else(|| b.name.to_string());
        let active_cluster = active(service).map(id);
        Self { service: service.name.clone(), status, db_primary, db_replica, active_cluster }
    }
}

fn connection_word(backend: &BackendStatus) -> &'static str {
    match backend.health.as_str() {
        _ if backend.quarantined.is_some() => "quarantined",
        "up" => CONNECTED,
        "down" => "disconnected",
        "recovering" => "recovering",
        _ => "unknown",
    }
}

/// The backend that the latch names.
pub(super) fn active(service: &ServiceStatus) -> Option<&BackendStatus> {
    service.backends.iter().find(|b| b.active)
}

/// Every other one, in the order of the configuration.
pub(super) fn standbys(service: &ServiceStatus) -> impl Iterator<Item = &BackendStatus> {
    service.backends.iter().filter(|b| !b.active)
}

/// It serves: up, and not quarantined.
pub(super) fn is_healthy(backend: &BackendStatus) -> bool {
    connection_word(backend) == CONNECTED
}

/// The whole view, and where it is of one service its databases once more under the names that older scripts read.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(flatten)]
    databases: Option<Databases>,
}

/// `GET /failover/status`.
pub(super) async fn status(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let mut status = shared.state.status.load_full();
    let which: Which = query(uri.query())?;
    if which.service.is_some() {
        let name = service(&status, which.service.as_deref(), false)?;
        Arc::make_mut(&mut status).services.retain(|s| Some(&s.name) == name.as_ref());
    }
    let databases = match status.services.as_slice() {
        [only] => Some(Databases::of(only)),
        _ => None,
    };
    Ok(Json(Told { status: &status, databases }).into_response())
}

/// `GET /failover/metrics`: counts per service as JSON.
pub(super) async fn figures(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let status = shared.state.status.load_full();
    let figures = |s: &ServiceStatus| {
        json!({
            "service": s.name,
            "state": s.state,
            "phase": s.phase,
            "epoch": s.epoch,
            "failoverCount": failovers(s),
            "episodes": s.episodes,
            "switches": s.switches,
            "recoveries": recoveries(s),
            "health_check_failures": s.backends.iter().map(|b| b.failed_probes).sum::<u64>(),
            "health_checks": s.backends.iter().map(|b| b.probes).sum::<u64>(),
            "primary_healthy": active(s).is_some_and(is_healthy),
            "standbys_healthy": standbys(s).map(is_healthy).collect::<Vec<_>>(),
            "held": s.held,
            "connections": s.backends.iter().map(|b| b.connections).sum::<u64>(),
            "budget": s.budget,
            "budget_left": s.budget_left,
            "cooldown_until": s.cooldown_until.map(stamp),
            "detection_crash_ms": s.detection_crash_ms,
            "detection_hang_ms": s.detection_hang_ms,
        })
    };
    Ok(per_service(&status, &uri, figures)?.into_response())
}

/// One side in `/failover/health`: what older scripts read, and what else is known.
#[derive(Serialize)]
struct Side<'a> {
    #[serde(flatten)]
    database: Database,
    health: &'a str,
    role: &'a str,
    quarantined: Option<&'a str>,
    last_result: Option<&'a str>,
    lag_bytes: Option<u64>,
    witness: Option<&'a str>,
    why_not: &'a [String],
}

impl<'a> Side<'a> {
    fn of(backend: &'a BackendStatus) -> Self {
        Self {
            database: Database::of(backend),
            health: &backend.health,
            role: &backend.role,
            quarantined: backend.quarantined.as_deref(),
            last_result: backend.last_probe.as_ref().map(|p| p.text.as_str()),
            lag_bytes: backend.lag_bytes,
            witness: backend.witness.as_deref(),
            why_not: &backend.unarmed_why,
        }
    }
}

/// `GET /failover/health`: what is known of every side.
pub(super) async fn detail(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let status = shared.state.status.load_full();
    let health = |s: &ServiceStatus| {
        json!({
            "service": s.name,
            "state": s.state,
            "evidence": s.evidence,
            "primary": active(s).map(Side::of),
            "standbys": standbys(s).map(Side::of).collect::<Vec<_>>(),
        })
    };
    Ok(per_service(&status, &uri, health)?.into_response())
}

/// `GET /failover/history?limit=100`: newest first.
pub(super) async fn history(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let page: Page = query(uri.query())?;
    let limit = page.limit.unwrap_or(HISTORY_DEFAULT);
    if !(1..=HISTORY_LIMIT).contains(&limit) {
        return Err(Fault::BadQuery { detail: format!("limit is a number from 1 to {HISTORY_LIMIT}") });
    }
    let status = shared.state.status.load_full();
    let name = page.service.as_deref();
    let name = if name.is_some() { service(&status, name, false)? } else { None };
    let meant = status.services.iter().filter(|s| name.as_ref().is_none_or(|n| *n == s.name));
    let failovers: u64 = meant.map(failovers).sum();
    let reader = shared.state.history.clone();
    let lines = from_disk(&shared, move || reader(name.as_ref(), limit)).await?;
    Ok(Json(json!({ "failoverCount": failovers, "lines": lines })).into_response())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `GET /failover/history/verify`: is every line what was written, and none missing in between?
pub(super) async fn verify(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let Nothing {} = query(uri.query())?;
    let check = shared.state.verify.clone();
    let pairs = from_disk(&shared, move || check()).await?.map_err(|sentence| Fault::Unverified { sentence })?;
    let whole = pairs.iter().all(|pair| pair.broken == 0);
    Ok(Json(json!({ "whole": whole, "pairs": pairs })).into_response())
}

/// Few read at one time, and none for long: a disk that hangs must not take a thread per request.
async fn from_disk<T: Send + 'static>(shared: &Shared, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let slots = Arc::clone(&shared.history_readers);
    let reading = async move {
        let slot = slots.acquire_owned().await.ok()?;
        let read = move || {
            let found = read();
            drop(slot);
            found
        };
        tokio::task::spawn_blocking(read).await.ok()
    };
    timeout(HISTORY_PATIENCE, reading).await.ok().flatten().ok_or(Fault::History)
}

/// The object itself for one service, `{"services": […]}` for several.
fn per_service(status: &Status, uri: &Uri, one: impl Fn(&ServiceStatus) -> Value) -> Result<Json<Value>, Fault> {
    Ok(Json(match chosen(status, uri)?.as_slice() {
        [only] => one(only),
        several => json!({ "services": several.iter().map(|s| one(s)).collect::<Vec<_>>() }),
    }))
}

/// The services `?service=` means; all without it.
pub(super) fn chosen<'a>(status: &'a Status, uri: &Uri) -> Result<Vec<&'a ServiceStatus>, Fault> {
    let which: Which = query(uri.query())?;
    let name = service(status, which.service.as_deref(), false)?;
    Ok(status.services.iter().filter(|s| name.as_ref().is_none_or(|n| *n == s.name)).collect())
}

/// Times a side came back up.
pub(super) fn recoveries(service: &ServiceStatus) -> u64 {
    service.backends.iter().map(|b| b.recoveries).sum()
}
