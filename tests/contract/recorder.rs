//! A server on loopback that keeps every exchange and answers with samples of the table, or with what another server
//! on loopback says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::check::{Exchange, sample};
use super::table::{Need, row};

/// Where replies come from.
#[derive(Debug, Clone, Copy)]
enum Answers {
    /// The table, with the fields that are needed as much or more.
    Samples(Need),
    /// Somebody else.
    Server(SocketAddr),
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Recorder {
    pub url: String,
    kept: Kept,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone)]
struct Kept {
    answers: Answers,
    exchanges: Arc<Mutex<Vec<(Exchange, HeaderMap)>>>,
}

impl Recorder {
    /// Answers with the fields that are needed as `least` or more.
    pub async fn start(least: Need) -> Self {
        Self::answering(Answers::Samples(least)).await
    }

    /// Stands before a server, `http://host:port`.
    pub async fn before(url: &str) -> Self {
        Self::answering(Answers::Server(url.trim_start_matches("http://").parse().unwrap())).await
    }

    async fn answering(answers: Answers) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Kept { answers, exchanges: Arc::default() };
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
    let (status, reply) = match (kept.answers, row(&method, &path)) {
        (Answers::Server(server), _) => forwarded(server, &method, &uri, &headers, &body).await,
        (Answers::Samples(least), Some(row)) => (StatusCode::OK, paged(sample(row.reply, least), &query)),
        (Answers::Samples(_), None) => {
            (StatusCode::NOT_FOUND, serde_json::json!({"code": 5, "message": "not in the table"}))
        }
    };
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    let exchange = Exchange { method, path, query, body, status: status.as_u16(), reply: reply.clone() };
    kept.exchanges.lock().unwrap().push((exchange, headers));
    (status, Json(reply)).into_response()
}

async fn forwarded(
    server: SocketAddr,
    method: &str,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> (StatusCode, Value) {
    let stream = TokioIo::new(tokio::net::TcpStream::connect(server).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let path = uri.path_and_query().unwrap().as_str();
    let mut request = hyper::Request::builder().method(method).uri(path).body(Full::new(body.clone())).unwrap();
    *request.headers_mut() = headers.clone();
    let reply = sender.send_request(request).await.unwrap();
    let status = reply.status();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
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
