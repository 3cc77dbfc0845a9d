//! A served sample view that the test can replace, and one GET.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgpivot::admin::{Admin, AdminState, ServiceEvent, Settings, serve};
use pgpivot::view::Status;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) fn sample(name: &str) -> Status {
    read(&format!("{name}.json"))
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/status").join(file);
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

/// Runs until it is dropped.
pub(crate) struct Served {
    admin: Option<Admin>,
    status: Arc<ArcSwap<Status>>,
    events: broadcast::Sender<ServiceEvent>,
    stop: CancellationToken,
}

impl Served {
    pub(crate) fn start(name: &str) -> Self {
        Self::at(name, ([127, 0, 0, 1], 0).into())
    }

    pub(crate) fn at(name: &str, listen: SocketAddr) -> Self {
        let status = Arc::new(ArcSwap::from_pointee(sample(name)));
        let events = broadcast::channel(16).0;
        let history: Vec<serde_json::Value> = read("events.json");
        let state = AdminState {
            status: Arc::clone(&status),
            commands: mpsc::channel(4).0,
            events: events.clone(),
            history: Arc::new(move |_, limit| history.iter().take(limit).cloned().collect()),
            verify: Arc::new(|| Ok(Vec::new())),
            ready: Arc::new(|| Ok(())),
            live: Arc::new(|| Ok(())),
        };
        let stop = CancellationToken::new();
        let admin = serve(&Settings { listen: Some(listen), ..Settings::default() }, state, stop.clone()).unwrap();
        Self { admin: Some(admin), status, events, stop }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.admin.as_ref().and_then(Admin::listen).unwrap()
    }

    pub(crate) fn publish(&self, status: Status) {
        self.status.store(Arc::new(status));
    }

    pub(crate) fn happen(&self, event: ServiceEvent) {
        self.events.send(event).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.admin.take().is_none_or(Admin::join);
        assert!(ended || std::thread::panicking(), "the admin thread panicked");
    }
}

/// The body of a GET that must succeed.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    body.to_owned()
}
