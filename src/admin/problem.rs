//! Every way a request can fail, as RFC 9457 problem JSON. Holds no check: those are made where their data is.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::failover::action::Refusal;
use crate::view::Problem;
use crate::view::sides::Moving;

/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("nothing is served at {path}; the page is /stats, the API starts at /failover/status")]
    NotFound { path: String },
    #[error("{path} takes {allow} only")]
    MethodNotAllowed { path: String, allow: String },
    #[error("{detail}")]
    BadQuery { detail: String },
    #[error("{detail}")]
    BadBody { detail: String },
    #[error("the body is called {kind:?}; send JSON and Content-Type: application/json")]
    NotJson { kind: String },
    #[error("the Host header names no host")]
    BadHost,
    #[error("the body is longer than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body did not arrive within {seconds} s")]
    SlowBody { seconds: u64 },
    #[error("this call needs a token: send Authorization: Bearer TOKEN with a token of admin.token_file")]
    TokenMissing,
    #[error("this token is not one of admin.token_file")]
    TokenUnknown,
    #[error(
        "no token is configured, so commands are taken on loopback and on the unix socket only; set admin.token_file"
    )]
    NoAuthority,
    #[error("this server is not called {host:?}; use its address, localhost, this machine's name, or send a token")]
    ForeignHost { host: String },
    #[error("a page of {origin:?} may not command this server")]
    ForeignOrigin { origin: String },
    #[error("say which service: ?service=NAME with one of {known}")]
    ServiceNeeded { known: String },
    #[error("there is no service {name:?}; there are {known}")]
    UnknownService { name: String, known: String },
    #[error("{}", .0.sentence)]
    Refused(Refusal),
    #[error("the daemon did not answer within {seconds} s; read /failover/status before you try again")]
    NoAnswer { seconds: u64 },
    #[error("the daemon is stopping and takes no command")]
    Stopping,
    #[error("the history could not be read in time")]
    History,
    #[error("the history could not be checked: {sentence}")]
    Unverified { sentence: String },
    #[error("{limit} clients follow events already")]
    Crowded { limit: usize },
    #[error("{detail}")]
    BadCredentials { detail: &'static str },
    #[error(
        "a password travels on this machine or over TLS only; ask /connection without X-DB-Password, or from this machine"
    )]
    ClearPassword,
    #[error("{sentence}")]
    NotReady { sentence: String },
    #[error(transparent)]
    Moving(#[from] Moving),
    #[error("{sentence}")]
    NotLive { sentence: String },
    #[error("the reply could not be rendered: {cause}")]
    Render { cause: String },
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } | Self::UnknownService { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadQuery { .. }
            | Self::BadBody { .. }
            | Self::BadCredentials { .. }
            | Self::BadHost
            | Self::ServiceNeeded { .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::TokenMissing | Self::TokenUnknown => StatusCode::UNAUTHORIZED,
            Self::ClearPassword | Self::NoAuthority | Self::ForeignHost { .. } | Self::ForeignOrigin { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::NoAnswer { .. }
            | Self::Stopping
            | Self::History
            | Self::Unverified { .. }
            | Self::Crowded { .. }
            | Self::NotReady { .. }
            | Self::Moving(_)
            | Self::NotLive { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Render { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable word for machines.
    fn word(&self) -> &str {
        match self {
            Self::NotFound { .. } => "not-found",
            Self::MethodNotAllowed { .. } => "method-not-allowed",
            Self::BadQuery { .. } => "bad-query",
            Self::BadBody { .. } => "bad-body",
            Self::NotJson { .. } => "not-json",
            Self::BadHost => "bad-host",
            Self::TooLarge { .. } => "too-large",
            Self::SlowBody { .. } => "slow-body",
            Self::TokenMissing => "token-missing",
            Self::TokenUnknown => "token-unknown",
            Self::NoAuthority => "no-authority",
            Self::ForeignHost { .. } => "foreign-host",
            Self::ForeignOrigin { .. } => "foreign-origin",
            Self::ServiceNeeded { .. } => "service-needed",
            Self::UnknownService { .. } => "unknown-service",
            Self::Refused(refusal) => &refusal.code,
            Self::NoAnswer { .. } => "no-answer",
            Self::Stopping => "stopping",
            Self::History | Self::Unverified { .. } => "history",
            Self::Crowded { .. } => "crowded",
            Self::BadCredentials { .. } => "bad-credentials",
            Self::ClearPassword => "clear-password",
            Self::NotReady { .. } | Self::Moving(_) => "not-ready",
            Self::NotLive { .. } => "not-live",
            Self::Render { .. } => "render",
        }
    }

    /// The body.
    pub(super) fn problem(&self) -> Problem {
        let status = self.status();
        Problem {
            kind: format!("about:pgpivot/{}", self.word()),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match &self {
            Self::TokenMissing => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pgpivot\""));
            }
            Self::TokenUnknown => {
                let challenge = HeaderValue::from_static("Bearer realm=\"pgpivot\", error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::MethodNotAllowed { allow, .. } => {
                if let Ok(allow) = HeaderValue::from_str(allow) {
                    headers.insert(header::ALLOW, allow);
                }
            }
            Self::Crowded { .. } | Self::NoAnswer { .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::Moving(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// What a caller sent, cut to a length that can be repeated to it.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
