//! The replies of the sidecar, and who is told a password. It asks the connection manager anew for each of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::client::{Clusters, ConnectionManager, Credentials, Dsn, DsnError, Error};
use crate::pcr::look::{self, Answer};
use crate::types::Secret;
use crate::view::Problem;
use crate::view::sides::{Cluster, Moving};

/// For the answer of a side.
const HELLO: Duration = Duration::from_secs(2);

/// Whom to ask, and what may be told to whom.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) manager: ConnectionManager,
    /// `DB_USERNAME` (or `DB_USER`) and `DB_PASSWORD`.
    pub(super) credentials: Option<Credentials>,
    /// `DB_NAME`.
    pub(super) database: Option<String>,
    pub(super) token: Option<Secret>,
}

/// Why a request is not answered as asked.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("nothing is served here; there are /health, /connection and /clusters")]
    NotFound,
    #[error("this service is only asked: send GET")]
    Method,
    #[error("this service is called by its address, localhost or this machine's name")]
    ForeignHost,
    #[error("{0}")]
    BadCredentials(&'static str),
    #[error("the query is not one of ?database=NAME")]
    BadQuery,
    #[error("a password travels on this machine only; ask /connection without X-DB-Password, or from this machine")]
    ClearPassword,
    #[error(transparent)]
    Moving(#[from] Moving),
    #[error(transparent)]
    Unknown(#[from] Error),
}

type Reply = Response<Full<Bytes>>;

impl Sidecar {
    /// Always one reply.
    pub(super) async fn answer(&self, head: Parts, peer: SocketAddr) -> Reply {
        let mut reply = match self.route(&head, peer).await {
            Ok(reply) => reply,
            Err(fault) => fault.reply(),
        };
        if head.method == Method::HEAD {
            *reply.body_mut() = Full::default();
        }
        let headers = reply.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        reply
    }

    async fn route(&self, head: &Parts, peer: SocketAddr) -> Result<Reply, Fault> {
        if !is_called_by_a_known_name(head) {
            return Err(Fault::ForeignHost);
        }
        let path = head.uri.path();
        if !matches!(path, "/health" | "/connection" | "/clusters") {
            return Err(Fault::NotFound);
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Fault::Method);
        }
        match path {
            "/health" => Ok(self.health().await),
            "/connection" => self.connection(head, peer).await,
            _ => Ok(json_reply(StatusCode::OK, &self.manager.sides().await?)),
        }
    }

    /// 200 while the active side is known and serves, or at least lives.
    async fn health(&self) -> Reply {
        let version = env!("CARGO_PKG_VERSION");
        let sides = match self.manager.sides().await {
            Ok(sides) => sides,
            Err(error) => {
                let body = json!({ "status": "unknown", "version": version, "active_cluster": null,
                    "detail": error.to_string() });
                return json_reply(StatusCode::SERVICE_UNAVAILABLE, &body);
            }
        };
        let active = sides.active();
        let status = match active {
            Some(side) if side.open => match side.health.as_str() {
                "up" if side.healthy => "healthy",
                // As from the Cloud API: it knows nothing of SQL.
                "unknown" => answering(side).await,
                _ => "unhealthy",
            },
            _ => "unhealthy",
        };
        let code = if status == "unhealthy" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        let active = active.map(Cluster::id);
        json_reply(code, &json!({ "status": status, "version": version, "active_cluster": active }))
    }

    async fn connection(&self, head: &Parts, peer: SocketAddr) -> Result<Reply, Fault> {
        let database = database(head.uri.query())?;
        let sent = sent(&head.headers)?;
        let private = peer.ip().to_canonical().is_loopback() && !is_forwarded(&head.headers);
        if !private && sent.as_ref().is_some_and(|login| login.password.is_some()) {
            return Err(Fault::ClearPassword);
        }
        let sides: Clusters = self.manager.sides().await?;
        if let Some(moving) = sides.moving() {
            return Err(moving.into());
        }
        let nobody = || Error::from(DsnError::NobodyActive);
        let mut dsn = Dsn::to(sides.active().ok_or_else(nobody)?).map_err(Error::from)?;
        dsn.database = database.or_else(|| self.database.clone()).or(dsn.database);
        let ours = || self.credentials.clone().filter(|_| private && self.shows_the_token(&head.headers));
        if let Some(login) = sent.or_else(ours) {
            (dsn.user, dsn.password) = (Some(login.user), login.password);
        }
        let connection = sides.connection(dsn.to_uri()).ok_or_else(nobody)?;
        Ok(json_reply(StatusCode::OK, &connection))
    }

    fn shows_the_token(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
        });
        let known = self.token.as_ref().map(|token| token.expose().as_bytes());
        shown.zip(known).is_some_and(|(shown, known)| shown.ct_eq(known).into())
    }
}

impl Fault {
    fn reply(&self) -> Reply {
        let (status, word) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign-host"),
            Self::BadCredentials(_) => (StatusCode::BAD_REQUEST, "bad-credentials"),
            Self::BadQuery => (StatusCode::BAD_REQUEST, "bad-query"),
            Self::ClearPassword => (StatusCode::FORBIDDEN, "clear-password"),
            Self::Unknown(_) | Self::Moving(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-ready"),
        };
        let problem = Problem {
            kind: format!("about:pgpivot/{word}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
        };
        let mut reply = json_reply(status, &problem);
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let more = match self {
            Self::Method => Some((header::ALLOW, "GET, HEAD")),
            Self::Moving(_) => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        reply.headers_mut().extend(more.map(|(name, value)| (name, HeaderValue::from_static(value))));
        reply
    }
}

/// What a side says itself, where nobody else knows.
async fn answering(side: &Cluster) -> &'static str {
    match look::greeted(&side.dns, HELLO).await {
        Answer::Serving => "healthy",
        // It lives: full, or it does not like who asks.
        Answer::Full | Answer::Draining | Answer::Other => "unknown",
        Answer::NotServing | Answer::Lost | Answer::Refused | Answer::Silent | Answer::Unknown => "unhealthy",
    }
}

fn json_reply(status: StatusCode, value: &impl Serialize) -> Reply {
    // Plain data: it always becomes JSON.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Against DNS rebinding: no web page can reach us by a name of its own. Browsers always send a name.
fn is_called_by_a_known_name(head: &Parts) -> bool {
    let mut names = head.headers.get_all(header::HOST).iter();
    let authority = match (names.next(), names.next()) {
        (None, _) => return true,
        (Some(name), None) => Authority::try_from(name.as_bytes()),
        (Some(_), Some(_)) => return false,
    };
    let Ok(authority) = authority else { return false };
    let host = authority.host().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    let own = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    host.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost") || host == own
}

/// A reverse proxy on this machine speaks for somebody who may be anywhere.
fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name))
}

/// The login in `X-DB-Username` and `X-DB-Password`, UTF-8.
fn sent(headers: &HeaderMap) -> Result<Option<Credentials>, Fault> {
    let text = |name: &str, wrong| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Fault::BadCredentials(wrong))?;
                Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
            }
            (Some(_), Some(_)) => Err(Fault::BadCredentials(wrong)),
        }
    };
    let user = text("x-db-username", "X-DB-Username is not one UTF-8 text")?;
    let password = text("x-db-password", "X-DB-Password is not one UTF-8 text")?;
    match (user, password) {
        (None, Some(_)) => Err(Fault::BadCredentials("X-DB-Password came without X-DB-Username")),
        (None, None) => Ok(None),
        (Some(user), password) => Ok(Some(Credentials { user, password: password.map(Secret::new) })),
    }
}

/// `?database=NAME`, percent-encoded.
fn database(query: Option<&str>) -> Result<Option<String>, Fault> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    match query.split_once('=') {
        Some(("database", name)) if !name.contains(['&', '=']) => decoded(name).map(Some).ok_or(Fault::BadQuery),
        _ => Err(Fault::BadQuery),
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let byte = match first {
            b'+' => b' ',
            b'%' => {
                let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
                rest = &tail[2..];
                u8::from_str_radix(hex, 16).ok()?
            }
            byte => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_as_browsers_and_curl_encode_it() {
        assert_eq!(database(Some("database=shop%20%26%C3%BC+co")).unwrap().as_deref(), Some("shop &ü co"));
        assert_eq!(database(None).unwrap(), None);
        for wrong in ["db=x", "database=%zz", "database=%4", "database=a&service=b", "database=%ff", "database"] {
            assert!(database(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
