//! `GET /stats`: the page. It is rendered here, whole or as the fragment that a live page fetches after every event,
//! so that there is one renderer. What its parts say is built in `stats/`.

mod board;
mod decision;
mod patroni;
mod replication;
mod side;

use std::sync::{Arc, LazyLock};

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use self::board::Board;
use super::ServiceEvent;
use super::control::{query, switch};
use super::problem::Fault;
use super::server::Shared;
use crate::view::Status;

const STYLE: &str = include_str!("templates/page.css");
const SCRIPT: &str = include_str!("templates/page.js");
/// Lines of recent history on the page.
const RECENT: usize = 12;

/// Nothing is loaded from anywhere; only the page's own style and script, known by their digests, run.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest(STYLE),
        digest(SCRIPT)
    )
});

#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    style: &'static str,
    script: &'static str,
    board: Board,
}

#[derive(Template)]
#[template(path = "board.html")]
struct Fragment {
    board: Board,
}

/// `?fragment=1`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    fragment: Option<String>,
}

/// `GET /stats`.
pub(super) async fn page(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Fault> {
    let asked: Asked = query(uri.query())?;
    let status = shared.state.status.load_full();
    let text = render(&status, &shared.hub.recent(RECENT), switch("fragment", asked.fragment.as_deref())?)?;
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response();
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

fn render(status: &Status, recent: &[ServiceEvent], fragment: bool) -> Result<String, Fault> {
    let board = Board::build(status, recent);
    let text =
        if fragment { Fragment { board }.render() } else { Page { style: STYLE, script: SCRIPT, board }.render() };
    text.map_err(|e| Fault::Render { cause: e.to_string() })
}
