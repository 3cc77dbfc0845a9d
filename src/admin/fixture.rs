//! For the tests of this room: sample views (the same files that the page's browser test serves), a running server
//! with a scripted daemon behind it, and a raw HTTP client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::server::{Patience, serve_with};
use super::tests::document;
use super::{Admin, AdminState, CommandRequest, ServiceEvent, Settings};
use crate::failover::action::{Event, EventKind, Receipt, Refusal};
use crate::types::{BackendName, Epoch, Secret, Timeline, WallTime};
use crate::view::{ChainStatus, PatroniMember, PatroniStatus, Status};

fn parse(text: &str) -> Status {
    serde_json::from_str(text).expect("a sample status that reads")
}

macro_rules! samples {
    ($($name:ident),*) => {
        $(pub(crate) fn $name() -> Status {
            parse(include_str!(concat!("../../tests/samples/status/", stringify!($name), ".json")))
        })*

        /// Each with its name.
        pub(crate) fn all() -> Vec<(&'static str, Status)> {
            vec![$((stringify!($name), $name())),*]
        }
    };
}

samples!(
    steady,
    suspect,
    promoting,
    blocked,
    quarantined,
    exhausted,
    clusters,
    clusters_first_scan,
    clusters_failing_over
);

/// Two services.
pub(crate) fn two() -> Status {
    let mut status = steady();
    let mut other = status.services[0].clone();
    other.name = "billing".into();
    status.services.push(other);
    status
}

pub(crate) fn event(sentence: &str) -> ServiceEvent {
    let event = Event {
        at: steady().at,
        episode: None,
        epoch: Epoch(7),
        kind: EventKind::Notice,
        sentence: sentence.to_owned(),
        took: None,
        operator: None,
        active: None,
        change: None,
    };
    ServiceEvent { service: "main".into(), event }
}

pub(crate) fn token(name: &str, token: &str) -> (String, Secret) {
    (name.to_owned(), Secret::new(token.to_owned()))
}

/// A server that runs until it is dropped.
pub(crate) struct Served {
    pub(crate) admin: Option<Admin>,
    pub(crate) status: Arc<ArcSwap<Status>>,
    pub(crate) events: broadcast::Sender<ServiceEvent>,
    pub(crate) ready: Arc<Mutex<Result<(), String>>>,
    pub(crate) commands: mpsc::Receiver<CommandRequest>,
    pub(crate) stop: CancellationToken,
}

impl Served {
    pub(crate) fn start(status: Status) -> Self {
        Self::with(status, Settings { listen: Some(([127, 0, 0, 1], 0).into()), ..Settings::default() })
    }

    pub(crate) fn with(status: Status, settings: Settings) -> Self {
        let short = Duration::from_millis(300);
        Self::patient(status, settings, Patience { head: short, body: short, answer: short, write: short })
    }

    pub(crate) fn patient(status: Status, settings: Settings, patience: Patience) -> Self {
        let status = Arc::new(ArcSwap::from_pointee(status));
        let (sender, commands) = mpsc::channel(4);
        let events = broadcast::channel(16).0;
        let ready = Arc::new(Mutex::new(Ok(())));
        let checked = Arc::clone(&ready);
        let line = |n: usize, sentence: String| {
            let event = json!({ "at": 1_785_800_000_000_000_u64 + n as u64, "episode": null, "epoch": 7,
                "kind": "switched", "sentence": sentence, "took": null, "operator": null, "active": null });
            let digest = "0".repeat(64);
            json!({ "seq": n + 1, "time": "2026-08-03T23:33:20.000Z", "prev": digest, "event": event, "hash": digest })
        };
        let state = AdminState {
            status: Arc::clone(&status),
            commands: sender,
            events: events.clone(),
            history: Arc::new(move |service, limit| {
                let of = service.map(|name| format!(" of {name}")).unwrap_or_default();
                (0..limit.min(5)).map(|n| line(n, format!("line {n}{of}"))).collect()
            }),
            verify: Arc::new(|| Ok(vec![chain(0), chain(1)])),
            ready: Arc::new(move || checked.lock().unwrap().clone()),
            live: Arc::new(|| Ok(())),
        };
        let stop = CancellationToken::new();
        let admin = serve_with(&settings, state, stop.clone(), patience).unwrap();
        Self { admin: Some(admin), status, events, ready, commands, stop }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let address = self.admin.as_ref().and_then(Admin::listen).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// One request with `Host: localhost`; `head` holds further header lines. The document must name its reply.
    pub(crate) fn ask(&self, line: &str, head: &str, body: &str) -> Reply {
        let reply = exchange(self.connect(), line, &format!("host: localhost\r\n{head}"), body);
        document::check(line, &reply);
        reply
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), "", "")
    }

    /// Sends a command and answers it as the daemon would; gives what the daemon saw.
    pub(crate) fn command(
        &mut self,
        line: &str,
        head: &str,
        body: &str,
        answer: Result<Receipt, Refusal>,
    ) -> (Reply, CommandRequest) {
        let stream = self.connect();
        let head = format!("host: localhost\r\n{head}");
        self.command_on(stream, line, &head, body, answer)
    }

    pub(crate) fn command_on(
        &mut self,
        stream: impl Read + Write + Send + 'static,
        line: &str,
        head: &str,
        body: &str,
        answer: Result<Receipt, Refusal>,
    ) -> (Reply, CommandRequest) {
        let (line, head, body, asked) = (line.to_owned(), head.to_owned(), body.to_owned(), line.to_owned());
        let client = std::thread::spawn(move || exchange(stream, &line, &head, &body));
        let mut seen = self.commands.blocking_recv().expect("a command");
        let (unused, _) = tokio::sync::oneshot::channel();
        let reply = std::mem::replace(&mut seen.reply, unused);
        reply.send(answer).expect("a caller that waits");
        let reply = client.join().unwrap();
        document::check(&asked, &reply);
        (reply, seen)
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut Status)) {
        let mut status = Status::clone(&self.status.load());
        change(&mut status);
        self.status.store(Arc::new(status));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(admin) = self.admin.take() {
            assert!(admin.join(), "the admin thread panicked");
        }
    }
}

pub(crate) fn receipt() -> Receipt {
    Receipt { sentence: "begun".to_owned(), episode: None, steps: vec!["one".to_owned()] }
}

pub(crate) fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// A reply as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// Lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or_else(|| panic!("no status in {head}"));
        Self { code, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    /// A problem's word, after checking that it is one.
    pub(crate) fn problem(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.code, "{self:?}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{self:?}");
        problem["type"].as_str().unwrap().strip_prefix("about:pgpivot/").unwrap().to_owned()
    }
}

pub(crate) fn exchange(mut stream: impl Read + Write, line: &str, head: &str, body: &str) -> Reply {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let request = format!("{line} HTTP/1.1\r\n{head}{length}connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    Reply::parse(&String::from_utf8(text).unwrap())
}

/// Reads until `wanted` has come; panics with what did come after ten seconds.
pub(crate) fn read_until(stream: &mut TcpStream, got: &mut String, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut piece = [0; 65536];
    while !got.contains(wanted) {
        assert!(Instant::now() < deadline, "no {wanted:?} in {got}");
        let n = stream.read(&mut piece).unwrap_or_else(|e| panic!("{e} instead of {wanted:?} after {got}"));
        assert!(n > 0, "the stream ended without {wanted:?}: {got}");
        got.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
}

/// Of a pair with so many broken places.
pub(crate) fn chain(broken: u64) -> ChainStatus {
    let breaks = (0..broken).map(|n| format!("history.1, line {n}, is not what was written")).collect();
    ChainStatus { pair: format!("pair-{broken}"), lines: 5, first: Some(1), last: Some(5 + broken), broken, breaks }
}

/// Paused, with a switchover to come, a stranger among the members and a backend that is none of them.
pub(crate) fn patroni() -> PatroniStatus {
    let member = |name: &str, role: &str, lag_bytes| PatroniMember {
        name: name.into(),
        backend: Some(BackendName::new(name)),
        host: format!("{name}.example.com:5432").parse().ok(),
        role: role.into(),
        state: "running".into(),
        timeline: Some(Timeline(4)),
        lag_bytes,
        nofailover: false,
        pending_restart: false,
    };
    let stranger = PatroniMember {
        backend: None,
        state: "start failed".into(),
        timeline: None,
        nofailover: true,
        pending_restart: true,
        ..member("db3", "replica", None)
    };
    PatroniStatus {
        via: "db1.example.com:8008".parse().ok(),
        read_at: Some(WallTime(1_785_841_730_000_000)),
        trouble: None,
        leader: Some("db1".into()),
        paused: true,
        scheduled: Some("from db1 to db2 at 2030-09-24T10:36:00+02:00".into()),
        members: vec![member("db1", "leader", None), member("db2", "sync standby", Some(2048)), stranger],
        unmatched: vec!["us-west".into()],
    }
}
