//! A scripted daemon for the tests of this room: answers what the script says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A request as the daemon saw it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// `GET /path?query`.
    pub(super) line: String,
    /// Header lines, lower case.
    pub(super) head: String,
    /// As sent.
    pub(super) body: String,
}

/// Runs until it is dropped.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Scripted {
    /// `script`: from `GET /path?query` to status and body.
    pub(super) async fn start(script: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let remembered = asked.clone();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read(&mut stream).await;
                remembered.lock().unwrap().push(request.clone());
                let (status, body) = script(&request);
                let kind = if status < 300 { "json" } else { "problem+json" };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/{kind}\r\ncontent-length: {length}\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body.as_bytes()).await;
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read(stream: &mut tokio::net::TcpStream) -> Asked {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let wanted =
                head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            if body.len() >= wanted {
                let line = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
                return Asked { line, head, body: body.to_owned() };
            }
        }
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "the request ends early: {text}");
        bytes.extend_from_slice(&piece[..n]);
    }
}

pub(super) fn problem(status: u16, detail: &str) -> (u16, String) {
    (
        status,
        json!({ "type": "about:pgpivot/refused", "title": "Conflict", "status": status, "detail": detail }).to_string(),
    )
}

pub(super) fn receipt(sentence: &str, episode: Option<u64>, steps: &[&str]) -> (u16, String) {
    (200, json!({ "sentence": sentence, "episode": episode, "steps": steps }).to_string())
}

pub(super) fn ok(value: &impl serde::Serialize) -> (u16, String) {
    (200, serde_json::to_string(value).unwrap())
}

pub(super) fn event(at_ms: i64, episode: u64, kind: &str, sentence: &str) -> Value {
    let at = super::sample::AT.0 + at_ms * 1000;
    json!({ "service": "main", "at": at, "episode": episode, "epoch": 4, "kind": kind, "sentence": sentence, "took": null, "operator": null, "active": null })
}
