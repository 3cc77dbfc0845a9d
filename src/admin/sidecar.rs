//! `/connection` and `/clusters`: for applications that ask where the active side is instead of connecting through us.
//! Both answer from the latch as it is published now; nothing is kept here.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;

use super::auth::{Peer, is_private};
use super::control::{query, service};
use super::health::chosen;
use super::problem::Fault;
use super::server::Shared;
use crate::types::Secret;
use crate::view::dsn::{Dsn, DsnError};
use crate::view::sides::Clusters;

/// `?service=NAME&database=NAME`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    service: Option<String>,
    database: Option<String>,
}

/// `GET /connection`: the active side as a URI, unless it is being left. Credentials that the caller sent come back to it, and only where
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
    let sides = Clusters::of(status.services.iter().filter(|s| Some(&s.name) == name.as_ref()));
    if let Some(moving) = sides.moving() {
        return Err(moving.into());
    }
    let mut dsn = sides.active().ok_or(DsnError::NobodyActive).and_then(Dsn::to).map_err(not_ready)?;
    dsn.database = asked.database.or(dsn.database);
    match sent(&headers)? {
        Some((_, Some(_))) if !is_private(peer, &headers) => return Err(Fault::ClearPassword),
        Some((user, password)) => (dsn.user, dsn.password) = (Some(user), password),
        None => {
            if let Some((user, password)) = shared.trust.load().credentials(peer, &headers) {
                (dsn.user, dsn.password) = (Some(user.clone()), Some(password.clone()));
            }
        }
    }
    let connection = sides.connection(dsn.to_uri()).ok_or(not_ready(DsnError::NobodyActive))?;
    Ok(Json(connection).into_response())
}

fn not_ready(error: DsnError) -> Fault {
    Fault::NotReady { sentence: error.to_string() }
}

/// The login in `X-DB-Username` and `X-DB-Password`, UTF-8.
fn sent(headers: &HeaderMap) -> Result<Option<(String, Option<Secret>)>, Fault> {
    let text = |name: &str, detail| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Fault::BadCredentials { detail })?;
                Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
            }
            (Some(_), Some(_)) => Err(Fault::BadCredentials { detail }),
        }
    };
    let user = text("x-db-username", "X-DB-Username is not one UTF-8 text")?;
    let password = text("x-db-password", "X-DB-Password is not one UTF-8 text")?;
    match (user, password) {
        (None, Some(_)) => Err(Fault::BadCredentials { detail: "X-DB-Password came without X-DB-Username" }),
        (None, None) => Ok(None),
        (Some(user), password) => Ok(Some((user, password.map(Secret::new)))),
    }
}

/// `GET /clusters`: every side with its health and names.
pub(super) async fn clusters(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let status = shared.state.status.load_full();
    Ok(Json(Clusters::of(chosen(&status, &uri)?)).into_response())
}
