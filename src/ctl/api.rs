//! The HTTP client: one request per connection over TCP or a unix socket, each with a deadline and a bounded reply.
//! Knows paths and types of the API, not what is done with them.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::history::Line;
use super::target::Target;
use crate::failover::action::Receipt;
use crate::types::{Secret, ServiceName};
use crate::view::{ChainStatus, Problem, Status};

/// A longer reply is refused.
const REPLY_LIMIT: usize = 8 << 20;
/// For one request, from the connect to the last byte.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// A daemon, and who we are to it.
#[derive(Debug)]
pub(super) struct Api {
    target: Target,
    token: Option<Secret>,
    note: Option<String>,
    deadline: Duration,
}

/// Why there is no answer, or none that was hoped for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Nobody accepts connections there.
    #[error(
        "no pgpivot answers at {target} ({cause}); is it running? \
         Name another one with --url http://host:port, --socket /path or PGPIVOT_URL"
    )]
    Unreachable {
        /// What was tried.
        target: Target,
        /// In words.
        cause: String,
    },
    /// It accepted the connection and did not answer.
    #[error("{target} takes connections and does not answer ({cause})")]
    NoAnswer {
        /// What was tried.
        target: Target,
        /// In words.
        cause: String,
    },
    /// The same, after a command.
    #[error(
        "{target} took the command and did not answer ({cause}); whether it was carried out is not known: see `proxyctl status`"
    )]
    AnswerLost {
        /// What was tried.
        target: Target,
        /// In words.
        cause: String,
    },
    /// Something else listens there.
    #[error(
        "{target} answers, but not as a pgpivot does ({cause}); name another address with --url, --socket or PGPIVOT_URL"
    )]
    NotPgpivot {
        /// What was tried.
        target: Target,
        /// In words.
        cause: String,
    },
    /// The daemon said no.
    #[error("{}", sentence(.0))]
    Refused(Box<Problem>),
}

impl ApiError {
    /// The daemon was reached and said no.
    pub(super) fn refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// A problem as one sentence, with what to do about a missing token.
fn sentence(problem: &Problem) -> String {
    let said = match problem.detail.is_empty() {
        true => format!("{} ({})", problem.title, problem.status),
        false => problem.detail.clone(),
    };
    match problem.status {
        401 | 403 => format!("{said} (the token comes from --token-file or PGPIVOT_TOKEN; --socket needs none)"),
        _ => said,
    }
}

/// What a check of the audit trails found.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Chains {
    /// None of them is broken.
    pub(super) whole: bool,
    /// One of each pair.
    pub(super) pairs: Vec<ChainStatus>,
}

impl Api {
    /// `note` goes into the history beside the identity that the daemon knows.
    pub(super) fn new(target: Target, token: Option<Secret>, note: Option<String>) -> Self {
        Self { target, token, note, deadline: REQUEST_DEADLINE }
    }

    /// Where it is.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Everything the page shows.
    pub(super) async fn status(&self) -> Result<Status, ApiError> {
        self.call(Method::GET, "/failover/status", None).await
    }

    /// The newest `limit` lines of the history, oldest first whatever order they come in.
    pub(super) async fn history(&self, service: Option<&str>, limit: u32) -> Result<Vec<Value>, ApiError> {
        #[derive(serde::Deserialize)]
        struct History {
            #[serde(alias = "entries")]
            lines: Vec<Value>,
        }
        let mut path = format!("/failover/history?limit={limit}");
        if let Some(service) = service {
            path.push_str("&service=");
            path.push_str(&percent(service));
        }
        let mut lines = self.call::<History>(Method::GET, &path, None).await?.lines;
        let at = |line: Option<&Value>| line.map(Line::read).map(|l| l.at);
        if at(lines.first()) > at(lines.last()) {
            lines.reverse();
        }
        Ok(lines)
    }

    /// Is the audit trail of every pair what was written?
    pub(super) async fn verify_history(&self) -> Result<Chains, ApiError> {
        self.call(Method::GET, "/failover/history/verify", None).await
    }

    /// Commands one service, or all of them.
    pub(super) async fn command(
        &self,
        service: Option<&ServiceName>,
        verb: &str,
        body: &Value,
        dry_run: bool,
    ) -> Result<Receipt, ApiError> {
        let service = service.map(|s| format!("&service={}", percent(s.as_str()))).unwrap_or_default();
        let path = format!("/failover/{verb}?dry_run={dry_run}{service}");
        self.call(Method::POST, &path, Some(body)).await
    }

    /// Has the configuration read again.
    pub(super) async fn reload(&self, dry_run: bool) -> Result<Receipt, ApiError> {
        self.call(Method::POST, &format!("/reload?dry_run={dry_run}"), Some(&Value::Object(serde_json::Map::new())))
            .await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, ApiError> {
        let (status, reply) = self.reply(method, path, body).await.map_err(|error| match error {
            ApiError::NoAnswer { target, cause } if body.is_some() => ApiError::AnswerLost { target, cause },
            error => error,
        })?;
        if status.is_success() {
            return serde_json::from_slice(&reply).map_err(|e| self.not_pgpivot(format!("{path}: {e}")));
        }
        match serde_json::from_slice::<Problem>(&reply) {
            Ok(problem) => Err(ApiError::Refused(Box::new(problem))),
            Err(_) => Err(self.not_pgpivot(format!("{path}: status {}", status.as_u16()))),
        }
    }

    async fn reply(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes), ApiError> {
        let deadline = Instant::now() + self.deadline;
        let request = self
            .request(method, path, body)
            .map_err(|e| self.no_answer(format!("the request cannot be written: {e}")))?;
        match &self.target {
            Target::Http(address) => {
                let connect = TcpStream::connect((&*address.host, address.port));
                self.exchange(self.connected(connect, deadline).await?, request, deadline).await
            }
            Target::Unix(path) => {
                self.exchange(self.connected(UnixStream::connect(path), deadline).await?, request, deadline).await
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.target.host_header())
            .header("accept", "application/json")
            .header("connection", "close")
            .header("user-agent", concat!("proxyctl/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        if let Some(note) = &self.note {
            // A header takes visible ASCII only.
            let note: String = note.chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).take(200).collect();
            request = request.header("x-operator", note.trim());
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
        request.body(Full::new(bytes))
    }

    async fn connected<S>(
        &self,
        connect: impl Future<Output = io::Result<S>>,
        deadline: Instant,
    ) -> Result<S, ApiError> {
        let cause = match timeout_at(deadline, connect).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => in_words(&error),
            Err(_) => format!("no connection within {} s", self.deadline.as_secs()),
        };
        Err(ApiError::Unreachable { target: self.target.clone(), cause })
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<(StatusCode, Bytes), ApiError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match timeout_at(deadline, self.exchange_unbounded(stream, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.no_answer(format!("nothing within {} s", self.deadline.as_secs()))),
        }
    }

    async fn exchange_unbounded<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ApiError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let lost = |e: hyper::Error| match e.is_parse() {
            true => self.not_pgpivot(e.to_string()),
            false => self.no_answer(e.to_string()),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let answer = async {
            let reply = sender.send_request(request).await.map_err(lost)?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), REPLY_LIMIT).collect().await;
            let body = body.map_err(|e| {
                self.no_answer(format!("a reply that ends early or is longer than {} MiB: {e}", REPLY_LIMIT >> 20))
            })?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here rather than in a task of its own; it may end before the reply was read.
        tokio::pin!(connection, answer);
        let mut open = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = &mut connection, if open => open = false,
            }
        }
    }

    fn no_answer(&self, cause: String) -> ApiError {
        ApiError::NoAnswer { target: self.target.clone(), cause }
    }

    fn not_pgpivot(&self, cause: String) -> ApiError {
        ApiError::NotPgpivot { target: self.target.clone(), cause }
    }
}

/// An I/O error without the number that nobody reads.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NotFound => "no such socket".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Percent-encodes what is not unreserved in a query.
pub(super) fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            // Formatting into a String cannot fail.
            _ => drop(write!(out, "%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use serde_json::json;
    use tokio::sync::{broadcast, mpsc};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin::{AdminState, CommandRequest, Order, Settings, serve};
    use crate::ctl::sample;
    use crate::failover::action::{Command, Refusal};

    /// The real server, with a daemon behind it that takes every command but a restore.
    fn server(settings: Settings) -> (crate::admin::Admin, CancellationToken, mpsc::Receiver<CommandRequest>) {
        let (commands, orders) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let state = AdminState {
            status: Arc::new(ArcSwap::from_pointee(sample::steady())),
            commands,
            events: broadcast::Sender::new(4),
            history: Arc::new(|_, limit| (0..limit as i64).rev().map(|i| json!({ "event": { "at": i } })).collect()),
            verify: Arc::new(|| Ok(Vec::new())),
            ready: Arc::new(|| Ok(())),
            live: Arc::new(|| Ok(())),
        };
        (serve(&settings, state, stop.clone()).unwrap(), stop, orders)
    }

    fn api(target: Target) -> Api {
        Api::new(target, Some(Secret::new("s3cret".into())), Some("alice".into()))
    }

    #[tokio::test]
    async fn what_the_server_says_is_understood() {
        let settings = Settings {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            tokens: vec![("ops".into(), Secret::new("s3cret".into()))],
            ..Settings::default()
        };
        let (admin, stop, mut orders) = server(settings);
        let api = api(Target::parse(&admin.listen().unwrap().to_string()).unwrap());
        assert_eq!(api.status().await.unwrap(), sample::steady());
        let lines = api.history(Some("main"), 3).await.unwrap();
        assert_eq!(lines.iter().map(|l| Line::read(l).at.0).collect::<Vec<_>>(), [0, 1, 2]);

        let body = json!({ "to": "us-west", "force": false, "route_only": true, "reason": "drill" });
        let service = ServiceName::new("main");
        let (taken, order) = tokio::join!(api.command(Some(&service), "trigger", &body, true), async {
            let order = orders.recv().await.unwrap();
            let receipt = Receipt { sentence: "would".into(), episode: None, steps: vec!["cut".into()] };
            assert_eq!((order.dry_run, order.operator.name.as_str()), (true, "ops"));
            order.reply.send(Ok(receipt)).unwrap();
            order.order
        });
        assert_eq!(taken.unwrap().steps, ["cut"]);
        let wanted = Command::Failover { to: Some("us-west".into()), force: false, route_only: true, at: None };
        assert_eq!(order, Order::Command(wanted));

        let refusal = Refusal { code: "wrong_timeline".into(), sentence: "us-east is on timeline 1".into() };
        let body = json!({ "to": null });
        let (refused, ()) = tokio::join!(api.command(None, "restore", &body, false), async {
            orders.recv().await.unwrap().reply.send(Err(refusal)).unwrap();
        });
        let refused = refused.unwrap_err();
        assert!(refused.refused() && refused.to_string() == "us-east is on timeline 1", "{refused}");
        stop.cancel();
        assert!(admin.join());
    }

    #[tokio::test]
    async fn the_unix_socket_needs_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let (admin, stop, _orders) = server(Settings { socket: Some(socket.clone()), ..Settings::default() });
        let api = Api::new(Target::Unix(socket), None, None);
        assert_eq!(api.status().await.unwrap().daemon, "host:4711");
        stop.cancel();
        assert!(admin.join());
    }
}
