//! Commands over HTTP: who asks, what for, and the daemon's answer. Decides nothing: the decision core takes or refuses.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::auth::{Peer, note};
use super::problem::{Fault, quoted};
use super::server::Shared;
use super::{CommandRequest, Order};
use crate::config::validate::is_name;
use crate::failover::action::Command;
use crate::failover::phase::{BackendState, Method};
use crate::types::{BackendName, HostPort, ServiceName, WallTime};
use crate::view::Status;

/// The longest body, bytes.
pub(super) const BODY_LIMIT: usize = 64 * 1024;

/// The commands that have a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Trigger,
    Switchover,
    Restore,
    Adopt,
    Rejoin,
    Backend,
    Pause,
    Resume,
    CheckHealth,
    Abandon,
    Reload,
}

impl Verb {
    pub(super) const ALL: [Verb; 11] = [
        Self::Trigger,
        Self::Switchover,
        Self::Restore,
        Self::Adopt,
        Self::Rejoin,
        Self::Backend,
        Self::Pause,
        Self::Resume,
        Self::CheckHealth,
        Self::Abandon,
        Self::Reload,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Trigger => "/failover/trigger",
            Self::Switchover => "/failover/switchover",
            Self::Restore => "/failover/restore",
            Self::Adopt => "/failover/adopt",
            Self::Rejoin => "/failover/rejoin",
            Self::Backend => "/failover/backend",
            Self::Pause => "/failover/pause",
            Self::Resume => "/failover/resume",
            Self::CheckHealth => "/failover/check-health",
            Self::Abandon => "/failover/abandon",
            Self::Reload => "/reload",
        }
    }

    /// Moves one service's traffic: with several services the caller must say whose.
    fn is_specific(self) -> bool {
        !matches!(self, Self::Pause | Self::Resume | Self::CheckHealth | Self::Reload)
    }

    fn order(self, body: &[u8]) -> Result<(Order, Option<String>), Fault> {
        let named = |body: Named| (body.backend.0, body.reason);
        let side = |to: Option<Side>| to.map(|side| side.0);
        let (command, reason) = match self {
            Self::Trigger => {
                let Trigger { to, force, route_only, at, reason } = parse(body)?;
                let at = at.map(|at| WallTime(at.as_microsecond()));
                (Command::Failover { to: side(to), force, route_only, at }, reason)
            }
            Self::Switchover => {
                let Target { to, reason } = parse(body)?;
                (Command::Switchover { to: side(to) }, reason)
            }
            Self::Restore => {
                let Home { to, force, reason } = parse(body)?;
                (Command::Restore { to: side(to), force }, reason)
            }
            Self::Adopt => {
                let (backend, reason) = named(parse(body)?);
                (Command::Adopt { backend }, reason)
            }
            Self::Rejoin => {
                let Comeback { backend, method, reason } = parse(body)?;
                (Command::Rejoin { backend, method }, reason)
            }
            Self::Abandon => {
                let (backend, reason) = named(parse(body)?);
                (Command::Abandon { backend }, reason)
            }
            Self::Backend => {
                let Taken { backend, address, state, reason } = parse(body)?;
                (Command::SetState { backend: backend.0, address, state }, reason)
            }
            Self::Pause => (Command::Pause, parse::<Plain>(body)?.reason),
            Self::Resume => (Command::Resume, parse::<Plain>(body)?.reason),
            Self::CheckHealth => (Command::CheckHealth, parse::<Plain>(body)?.reason),
            Self::Reload => return Ok((Order::Reload, parse::<Plain>(body)?.reason)),
        };
        Ok((Order::Command(command), reason))
    }
}

/// A backend's name. What the configuration would not take as one goes no further: it would fill log and history.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Side(BackendName);

impl TryFrom<String> for Side {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if is_name(&name) {
            Ok(Self(BackendName::new(name)))
        } else {
            Err(format!("{:?} cannot be the name of a backend", quoted(&name)))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trigger {
    #[serde(default)]
    to: Option<Side>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    route_only: bool,
    /// RFC 3339.
    #[serde(default)]
    at: Option<jiff::Timestamp>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Home {
    #[serde(default)]
    to: Option<Side>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    #[serde(default)]
    to: Option<Side>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    backend: Side,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Comeback {
    backend: BackendName,
    #[serde(default)]
    method: Option<Method>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    backend: Side,
    #[serde(default)]
    address: Option<HostPort>,
    state: BackendState,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(default)]
    reason: Option<String>,
}

/// `?service=NAME&dry_run=true`. Anything else is refused: a misspelt `dry_run` must not act.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    service: Option<String>,
    dry_run: Option<String>,
}

/// A switch in a query: `?NAME` alone turns it on.
pub(super) fn switch(name: &str, value: Option<&str>) -> Result<bool, Fault> {
    match value {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => Err(Fault::BadQuery { detail: format!("{name} is true or false, not {:?}", quoted(other)) }),
    }
}

/// `POST` of one of the [`Verb`]s.
pub(super) async fn command(verb: Verb, State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match carry_out(verb, &shared, request).await {
        Ok(response) => response,
        Err(fault) => {
            tracing::info!(path = verb.path(), fault = %fault, "command not taken");
            fault.into_response()
        }
    }
}

async fn carry_out(verb: Verb, shared: &Shared, request: Request) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    let peer = *parts.extensions.get::<Peer>().ok_or(Fault::NoAuthority)?;
    let mut operator = shared.trust.load().operator(peer, &parts.headers)?;
    let asked: Asked = query(parts.uri.query())?;
    let dry_run = switch("dry_run", asked.dry_run.as_deref())?;
    let service = service(&shared.state.status.load(), asked.service.as_deref(), verb.is_specific())?;
    let body = read(body, shared.patience.body).await?;
    if !body.is_empty() {
        json(&parts.headers)?;
    }
    let (order, reason) = verb.order(&body)?;
    if let Some(reason) = reason.as_deref().map(note).filter(|r| !r.is_empty()) {
        operator.note = Some(operator.note.map_or_else(|| reason.clone(), |who| format!("{who}: {reason}")));
    }
    tracing::info!(path = verb.path(), operator = %operator.name, note = operator.note, dry_run, "command");
    let (reply, answer) = oneshot::channel();
    let wanted = CommandRequest { service, order, operator, dry_run, reply };
    let exchange = async {
        shared.state.commands.send(wanted).await.map_err(|_| Fault::Stopping)?;
        answer.await.map_err(|_| Fault::Stopping)
    };
    let patience = shared.patience.answer;
    let no_answer = |_| Fault::NoAnswer { seconds: patience.as_secs() };
    match timeout(patience, exchange).await.map_err(no_answer)?? {
        Ok(receipt) => Ok(Json(receipt).into_response()),
        Err(refusal) => Err(Fault::Refused(refusal)),
    }
}

async fn read(body: Body, patience: Duration) -> Result<Bytes, Fault> {
    match timeout(patience, to_bytes(body, BODY_LIMIT)).await {
        Err(_) => Err(Fault::SlowBody { seconds: patience.as_secs() }),
        Ok(Ok(body)) => Ok(body),
        Ok(Err(cause)) if is_length_limit(&cause) => Err(Fault::TooLarge { limit: BODY_LIMIT }),
        Ok(Err(_)) => Err(Fault::BadBody { detail: "the body ended before its announced length".to_owned() }),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = cause {
        if e.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = e.source();
    }
    false
}

/// What is called a form or a text is not taken for JSON; what is called nothing may be.
fn json(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = String::from_utf8_lossy(kind.as_bytes());
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Fault::NotJson { kind: quoted(essence) })
}

/// An empty body is an empty object. Nothing but an object will do: a list would be read as its fields in order.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    let bad = |why: &dyn std::fmt::Display| Fault::BadBody {
        detail: format!("the body is not the JSON this command takes: {why}"),
    };
    match body.trim_ascii() {
        b"" => serde_json::from_slice(b"{}"),
        [b'{', ..] => serde_json::from_slice(body),
        _ => return Err(bad(&"an object is expected, as in {\"reason\": \"maintenance\"}")),
    }
    .map_err(|e| bad(&e))
}

/// Reads the query, refusing keys it does not know.
pub(super) fn query<T: DeserializeOwned + Default>(query: Option<&str>) -> Result<T, Fault> {
    let Some(query) = query.filter(|q| !q.is_empty()) else { return Ok(T::default()) };
    let uri = format!("/?{query}").parse::<axum::http::Uri>().map_err(|e| Fault::BadQuery { detail: e.to_string() })?;
    let parsed = axum::extract::Query::<T>::try_from_uri(&uri);
    parsed.map(|q| q.0).map_err(|e| Fault::BadQuery { detail: quoted(&e.body_text()) })
}

/// Every command's body and its query. For the fuzz targets alone.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzzed(bytes: &[u8]) {
    for verb in Verb::ALL {
        let _ = verb.order(bytes);
    }
    let _ = std::str::from_utf8(bytes).map(|text| query::<Asked>(Some(text)));
}

/// The service that is meant: the named one, or the only one.
pub(super) fn service(status: &Status, name: Option<&str>, needed: bool) -> Result<Option<ServiceName>, Fault> {
    let known = || status.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, status.services.as_slice()) {
        (Some(name), services) => match services.iter().find(|s| s.name.as_str() == name) {
            Some(service) => Ok(Some(service.name.clone())),
            None => Err(Fault::UnknownService { name: quoted(name), known: known() }),
        },
        (None, [only]) => Ok(Some(only.name.clone())),
        (None, []) => Ok(None),
        (None, _) if needed => Err(Fault::ServiceNeeded { known: known() }),
        (None, _) => Ok(None),
    }
}
