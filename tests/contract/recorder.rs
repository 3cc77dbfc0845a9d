//! A server on loopback that keeps every exchange and answers with samples of the table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::check::{Exchange, sample};
use super::table::{Need, row};

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Recorder {
    pub url: String,
    kept: Kept,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone)]
struct Kept {
    least: Need,
    exchanges: Arc<Mutex<Vec<(Exchange, HeaderMap)>>>,
}

impl Recorder {
    /// Answers with the fields that are needed as `least` or more.
    pub async fn start(least: Need) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Kept { least, exchanges: Arc::default() };
        let router = Router::new().fallback(answer).with_state(kept.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, kept, _task: AbortOnDropHandle::new(task) }
    }

    pub fn exchanges(&self) -> Vec<(Exchange, HeaderMap)> {
        self.kept.exchanges.lock().unwrap().clone()
    }
}

async fn answer(
    State(kept): State<Kept>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (method, path) = (method.to_string(), uri.path().to_owned());
    let (status, reply) = match row(&method, &path) {
        Some(row) => (StatusCode::OK, paged(sample(row.reply, kept.least), &query)),
        None => (StatusCode::NOT_FOUND, serde_json::json!({"code": 5, "message": "not in the table"})),
    };
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    let exchange = Exchange { method, path, query, body, status: status.as_u16(), reply: reply.clone() };
    kept.exchanges.lock().unwrap().push((exchange, headers));
    (status, Json(reply)).into_response()
}

/// Every list has two pages.
fn paged(mut reply: Value, query: &BTreeMap<String, String>) -> Value {
    if let Some(pagination) = reply.get_mut("pagination")
        && !query.contains_key("pagination.page")
    {
        pagination["next_page"] = "page 2".into();
    }
    reply
}
