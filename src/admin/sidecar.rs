//! `/connection` and `/clusters`: for applications that ask where the active side is instead of connecting through us.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::json;

use super::auth::Peer;
use super::control::{query, service};
use super::health::{active, chosen, is_healthy, standbys};
use super::problem::Fault;
use super::server::Shared;
use crate::types::Secret;
use crate::view::{BackendStatus, ServiceStatus};

/// `?service=NAME&database=NAME`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    service: Option<String>,
    database: Option<String>,
}

/// `GET /connection`: the active side as a URI. Credentials that the caller sent come back to it, and only where
/// nobody in between can read them; our own go to a caller with a token or on the unix socket.
pub(super) async fn connection(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let asked: Asked = query(uri.query())?;
    let status = shared.state.status.load_full();
    let name = service(&status, asked.service.as_deref(), true)?;
    let service = status.services.iter().find(|s| Some(&s.name) == name.as_ref());
    let nobody = || Fault::NotReady { sentence: "no side is active, so there is nothing to connect to".to_owned() };
    let service = service.ok_or_else(nobody)?;
    let side = active(service).ok_or_else(nobody)?;
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let sent = header("x-db-username").map(|user| {
        let password = header("x-db-password").filter(|_| peer.is_local()).map(|p| Secret::new(p.to_owned()));
        (user.to_owned(), password)
    });
    let trust = shared.trust.load();
    let ours = || trust.credentials(peer, &headers).map(|(user, password)| (user.clone(), Some(password.clone())));
    let connection = connection_uri(service, side, sent.or_else(ours), asked.database.as_deref()).ok_or_else(nobody)?;
    let standby = standbys(service).next().map(|b| &b.name);
    let primary = service.backends.iter().find(|b| b.tier != "backup").unwrap_or(side);
    Ok(Json(json!({
        "connection_string": connection,
        "active_cluster": side.name,
        "primary_cluster": primary.name,
        "standby_cluster": if primary.name == side.name { standby } else { Some(&side.name) },
        "open": service.open,
    }))
    .into_response())
}

fn connection_uri(
    service: &ServiceStatus,
    side: &BackendStatus,
    login: Option<(String, Option<Secret>)>,
    database: Option<&str>,
) -> Option<String> {
    let hosts: Vec<String> = side
        .endpoints
        .iter()
        .map(|e| e.address.as_ref().map_or_else(|| e.ip.to_string(), ToString::to_string))
        .fold(Vec::new(), |mut hosts, host| {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
            hosts
        });
    if hosts.is_empty() {
        return None;
    }
    let (default_database, sslmode) =
        if service.kind == "cockroach" { ("defaultdb", "require") } else { ("postgres", "prefer") };
    let login = match login {
        Some((user, Some(password))) => format!("{}:{}@", escape(&user), escape(password.expose())),
        Some((user, None)) => format!("{}@", escape(&user)),
        None => String::new(),
    };
    let database = escape(database.unwrap_or(default_database));
    Some(format!("postgresql://{login}{}/{database}?sslmode={sslmode}", hosts.join(",")))
}

/// Everything but the unreserved characters of RFC 3986.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// `GET /clusters`: every side with its health and names.
pub(super) async fn clusters(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let status = shared.state.status.load_full();
    let sides = chosen(&status, &uri)?.into_iter().flat_map(|s| {
        s.backends.iter().map(|b| {
            let names = b.endpoints.iter().map(|e| e.address.as_ref().map(ToString::to_string));
            json!({
                "service": s.name,
                "name": b.name,
                "active": b.active,
                "role": b.role,
                "health": b.health,
                "healthy": is_healthy(b),
                "dns": names.collect::<Vec<_>>(),
                "addresses": b.endpoints.iter().map(|e| e.ip.to_string()).collect::<Vec<_>>(),
            })
        })
    });
    Ok(Json(json!({ "clusters": sides.collect::<Vec<_>>() })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_cannot_break_out_of_its_place() {
        assert_eq!(escape("p@ss:w/rd?#%é"), "p%40ss%3Aw%2Frd%3F%23%25%C3%A9");
    }
}
