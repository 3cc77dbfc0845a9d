//! A server on loopback that does with each connection what the script says next, and keeps what it was sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// What happens to one connection.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Reads the request and writes these bytes.
    Say(Vec<u8>),
    /// Resets the connection without reading.
    ResetUnread,
    /// Reads the request and resets.
    ResetRead,
    /// Reads the request, writes these bytes and resets.
    SayAndReset(Vec<u8>),
    /// Reads the request, writes these bytes and says no more.
    SayAndHang(Vec<u8>),
    /// Reads the request and says nothing.
    Silence,
}

pub(super) struct Server {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    _task: AbortOnDropHandle<()>,
}

const DATE: &str = "Thu, 26 Nov 2026 23:39:36 GMT";

pub(super) fn json(status: u16, body: &str) -> Act {
    Act::reply(status, &[("content-type", "application/json")], body)
}

pub(super) fn body_of(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}

impl Act {
    pub(super) fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Act {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Self::Say(format!("{}{headers}\r\n{body}", head(status, DATE, body.len())).into_bytes())
    }

    pub(super) fn dated(status: u16, date: &str, body: &str) -> Act {
        Self::Say(format!("{}\r\n{body}", head(status, date, body.len())).into_bytes())
    }
}

fn head(status: u16, date: &str, length: usize) -> String {
    format!("HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-length: {length}\r\n")
}

impl Server {
    /// What comes after the script is answered with status 599.
    pub(super) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, script.into_iter().collect(), Arc::clone(&seen)));
        Self { url, seen, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    /// Between the first request and the second.
    pub(super) fn pause(&self) -> Duration {
        let seen = self.seen.lock().unwrap();
        seen[1].0 - seen[0].0
    }
}

async fn serve(listener: TcpListener, mut script: VecDeque<Act>, seen: Arc<Mutex<Vec<(Instant, String)>>>) {
    let mut silent = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let act = script.pop_front().unwrap_or_else(|| json(599, "the script has ended"));
        if !matches!(act, Act::ResetUnread) {
            let request = read_request(&mut stream).await;
            seen.lock().unwrap().push((Instant::now(), request));
        } else {
            seen.lock().unwrap().push((Instant::now(), String::new()));
        }
        match act {
            Act::Say(bytes) => {
                // Who has heard enough may hang up.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
            Act::SayAndReset(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                reset(stream);
            }
            Act::SayAndHang(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                silent.push(stream);
            }
            Act::ResetUnread | Act::ResetRead => reset(stream),
            Act::Silence => silent.push(stream),
        }
    }
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text.into_owned();
            }
        }
        // A client that starts TLS is not understood.
        let hello = bytes.first() == Some(&0x16);
        if hello || stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
}
