//! The simulated cloud as its users see it: drivers, raw sockets, a plain HTTP client. Here: how they are made.

mod api;
mod self_hosted;
mod streams;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls};

use super::super::Side;
use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

/// A cloud that is quick about everything, with the first cluster replicated to the second one.
fn quick() -> Settings {
    Settings { pace: Pace::instant(), rate_limit: None, ..Settings::default() }
}

async fn start(settings: Settings) -> Cloud {
    Cloud::start(settings).await.unwrap()
}

/// A reply of the API.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// One request on a connection of its own; an error when there is no whole reply.
async fn send(cloud: &Cloud, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
    let stream = TcpStream::connect(cloud.api).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, text })
    };
    let answer = timeout(DEADLINE, exchange).await.expect("a reply in time");
    connection.abort();
    answer
}

fn request(cloud: &Cloud, method: &str, path: &str, body: Option<Value>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("/api/v1/{path}"))
        .header("host", "simulated")
        .header("authorization", format!("Bearer {}", cloud.secret().expose()))
        .header("cc-version", "2024-09-16")
        .body(Full::from(body.map_or_else(String::new, |body| body.to_string())))
        .unwrap()
}

async fn call(cloud: &Cloud, method: &str, path: &str, body: Option<Value>) -> Answer {
    send(cloud, request(cloud, method, path, body)).await.unwrap()
}

async fn get(cloud: &Cloud, path: &str) -> Value {
    let answer = call(cloud, "GET", path, None).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

fn stream_path(cloud: &Cloud) -> String {
    format!("physical-replication-streams/{}", cloud.stream_id().unwrap())
}

async fn patch(cloud: &Cloud, body: Value) -> Answer {
    call(cloud, "PATCH", &stream_path(cloud), Some(body)).await
}

/// Creates a stream and gives its id.
async fn create(cloud: &Cloud, primary: impl Into<Number>, standby: impl Into<Number>) -> String {
    let body = json!({
        "primary_cluster_id": cloud.cluster_id(primary),
        "standby_cluster_id": cloud.cluster_id(standby),
    });
    let answer = call(cloud, "POST", "physical-replication-streams", Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn fail_over(cloud: &Cloud) {
    let answer = patch(cloud, json!({"status": "FAILING_OVER"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    completed(cloud, cloud.stream_id().unwrap()).await;
}

async fn completed(cloud: &Cloud, id: &str) {
    until("the stream is completed", || cloud.stream_status(id) == Some("COMPLETED")).await;
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

async fn try_connect(address: SocketAddr, more: &str) -> Result<Client, tokio_postgres::Error> {
    let text = format!("host={} port={} user=app {more}", address.ip(), address.port());
    let connecting = tokio_postgres::connect(&text, NoTls);
    let (client, connection) = timeout(DEADLINE, connecting).await.expect("an answer in time")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect(cloud: &Cloud, cluster: impl Into<Number>) -> Client {
    try_connect(cloud.sql_address(cluster), "").await.unwrap()
}

/// On the virtual cluster that steers.
async fn system(cloud: &Cloud, cluster: impl Into<Number>) -> Client {
    try_connect(cloud.sql_address(cluster), "options='-ccluster=system'").await.unwrap()
}

/// The SQLSTATE with which a login is refused.
async fn refusal(cloud: &Cloud, cluster: impl Into<Number>, more: &str) -> String {
    let Err(error) = try_connect(cloud.sql_address(cluster), more).await else { panic!("let in: {more}") };
    code(&error)
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or("none", |code| code.code()).to_owned()
}

/// What comes back for these bytes until the server falls silent or hangs up, at least one byte.
async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut reply = vec![0; 4096];
    let length = timeout(DEADLINE, stream.read(&mut reply)).await.expect("a reply in time").unwrap();
    reply.truncate(length);
    reply
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}
