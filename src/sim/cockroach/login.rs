//! One client of a simulated cluster up to its session: TLS, the choice of a virtual cluster, draining, the user, the
//! password, in CockroachDB's order; and the end of the session.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::super::cloud::site::Site;
use super::super::cloud::{Auth, Reach};
use super::super::conversation::{Line, options};
use super::super::eval::Session;
use super::super::message::Fields;
use super::SYSTEM;
use super::gate::{Entry, Verdict};
use super::scram::{self, ScramError, Verifier};
use super::stream::Stream;
use super::tenant::Tenant;
use crate::wire::startup::{self, FirstPacket, Garbage};

/// For a client to log in, once it is its turn.
const LOGIN: Duration = Duration::from_secs(30);
/// For a client that is sent away to take the word.
const LEAVE: Duration = Duration::from_secs(2);
/// The database of a client that names none.
const DEFAULT_DATABASE: &str = "defaultdb";
/// The settings that a client is told as it logs in.
const REPORTED: [&str; 10] = [
    "server_version",
    "server_encoding",
    "client_encoding",
    "application_name",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
    "crdb_version",
];

/// A client's connection.
pub(super) struct Client {
    line: Line<Stream>,
    site: Arc<Site>,
    cluster: usize,
    pid: u32,
}

/// A session on its cluster's list, for as long as it lasts.
struct Registered {
    site: Arc<Site>,
    cluster: usize,
    pid: u32,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.site.gates[self.cluster].state().sessions.remove(&self.pid);
    }
}

impl Client {
    pub(super) fn new(stream: TcpStream, site: Arc<Site>, cluster: usize, pid: u32) -> Self {
        Self { line: Line::new(Stream::Plain(stream)), site, cluster, pid }
    }

    /// From the first packet to the end of the session.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        match self.site.reach(self.cluster) {
            Reach::Reset => {
                self.line.stream.reset_at_end();
                return Ok(());
            }
            Reach::Slow(delay) => sleep(delay).await,
            _ => {}
        }
        let Ok(Some((session, system))) = timeout(LOGIN, self.login()).await.unwrap_or(Ok(None)) else {
            return self.line.flush().await;
        };
        let secret = random_u32();
        let entry = Entry { secret, on_main: !system };
        {
            let mut state = self.site.gates[self.cluster].state();
            state.logins += 1;
            state.sessions.insert(self.pid, entry);
        }
        let _registered = Registered { site: self.site.clone(), cluster: self.cluster, pid: self.pid };
        let tenant = Tenant { site: self.site.clone(), cluster: self.cluster, system };
        self.line.converse(session, secret, &tenant, &REPORTED).await
    }

    /// The last word, and whether the end is a reset.
    pub(super) async fn leave(mut self, verdict: Verdict) {
        match verdict {
            Verdict::Reset | Verdict::Hang => self.line.stream.reset_at_end(),
            Verdict::Ended => {
                self.line.out.0.clear();
                self.line.fatal(b"57P01", "server is shutting down");
                let _ = timeout(LEAVE, self.line.flush()).await;
            }
            Verdict::GoOn => {
                let _ = timeout(LEAVE, self.line.stream.shutdown()).await;
            }
        }
    }

    /// Up to the session, and whether it is on the system virtual cluster; `None` = there is none to be had.
    async fn login(&mut self) -> io::Result<Option<(Session, bool)>> {
        loop {
            match startup::parse(&self.line.buffer) {
                FirstPacket::NeedMore { .. } if self.line.more().await? => {}
                FirstPacket::SslRequest => {
                    self.line.buffer.drain(..8);
                    // Bytes that came along unasked are refused, as by CockroachDB.
                    if !self.line.buffer.is_empty() || self.line.stream.is_tls() {
                        return Ok(None);
                    }
                    let tls = self.site.tls.clone();
                    self.line.stream.write_all(if tls.is_some() { b"S" } else { b"N" }).await?;
                    if let Some(config) = tls {
                        self.line.stream.encrypt(config).await?;
                    }
                }
                FirstPacket::Startup { minor: 0, length } => return self.enter(length).await,
                FirstPacket::Startup { .. } | FirstPacket::Garbage(Garbage::Protocol { .. }) => {
                    return self.refuse(b"08P01", "unknown protocol version");
                }
                FirstPacket::GssencRequest => return self.refuse(b"08P01", "GSS encryption is not supported"),
                FirstPacket::Cancel { process, length } => {
                    self.cancel(process, length);
                    return Ok(None);
                }
                _ => return Ok(None),
            }
        }
    }

    fn cancel(&self, process: u32, length: usize) {
        let secret = self.line.buffer.get(12..length).and_then(|key| key.try_into().ok()).map(u32::from_be_bytes);
        let mut state = self.site.gates[self.cluster].state();
        let matched = state.sessions.get(&process).is_some_and(|entry| Some(entry.secret) == secret);
        state.cancels.seen += 1;
        state.cancels.matched += u64::from(matched);
    }

    async fn enter(&mut self, length: usize) -> io::Result<Option<(Session, bool)>> {
        let packet: Vec<u8> = self.line.buffer.drain(..length).collect();
        if self.site.tls.is_some() && !self.site.accepts_plain && !self.line.stream.is_tls() {
            return self.refuse(b"08P01", "node is running secure mode, SSL connection required");
        }
        let (mut session, named) = self.session(&packet);
        let tenant = named.unwrap_or_else(|| self.site.default_tenant(self.cluster));
        if !self.site.serves(self.cluster, &tenant) {
            return self.refuse(b"08000", &format!("service unavailable for target tenant ({tenant})"));
        }
        match self.site.reach(self.cluster) {
            Reach::Draining => return self.refuse(b"57P01", "server is not accepting clients, try another node"),
            Reach::Full => return self.refuse(b"53300", "sorry, too many clients already"),
            Reach::WrongPassword => {
                let text = format!("password authentication failed for user {}", session.user);
                return self.refuse(b"28P01", &text);
            }
            Reach::NotPermitted => return self.refuse(b"28000", "authentication rejected by configuration"),
            _ if self.site.is_full(self.cluster) => return self.refuse(b"53300", "sorry, too many clients already"),
            _ => {}
        }
        session.started = self.site.now();
        let system = tenant == SYSTEM;
        match self.authenticate(&session.user).await? {
            Ok(()) => Ok(Some((session, system))),
            Err(ScramError::WrongPassword) => {
                let text = format!("password authentication failed for user {}", session.user);
                self.refuse(b"28P01", &text)
            }
            Err(error) => self.refuse(b"08P01", &error.to_string()),
        }
    }

    /// The session that a startup packet asks for, and the virtual cluster that it names.
    fn session(&self, packet: &[u8]) -> (Session, Option<String>) {
        let (mut user, mut database, mut tenant) = (String::new(), String::new(), None);
        let mut settings = BTreeMap::new();
        for (name, value) in startup::parameters(packet) {
            match name.to_lowercase().as_str() {
                "user" => user = value.to_owned(),
                "database" => database = value.to_owned(),
                "options" => settings.extend(options(value)),
                name => {
                    settings.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        if let Some(name) = settings.remove("cluster") {
            tenant = Some(name);
        }
        if let Some(rest) = database.strip_prefix("cluster:") {
            let (name, inner) = rest.split_once('/').unwrap_or((rest, ""));
            (tenant, database) = (Some(name.to_owned()), inner.to_owned());
        }
        if database.is_empty() {
            DEFAULT_DATABASE.clone_into(&mut database);
        }
        let started = self.site.now();
        (Session { pid: self.pid, user, database, started, settings, transaction: None }, tenant)
    }

    /// Asks for the password, if it takes one.
    async fn authenticate(&mut self, user: &str) -> io::Result<Result<(), ScramError>> {
        let site = self.site.clone();
        let verifier = match site.verifiers.get(user) {
            _ if site.auth == Auth::Trust => return Ok(Ok(())),
            None => return Ok(Err(ScramError::WrongPassword)),
            Some(verifier) => verifier,
        };
        self.exchange(verifier).await
    }

    async fn exchange(&mut self, verifier: &Verifier) -> io::Result<Result<(), ScramError>> {
        self.ask(10, format!("{}\0\0", scram::MECHANISM).as_bytes()).await?;
        let Some(body) = self.answer().await? else { return Ok(Err(ScramError::Malformed)) };
        let mut fields = Fields(&body);
        let first = match (fields.text(), fields.value()) {
            (Ok(scram::MECHANISM), Ok(Some(first))) => std::str::from_utf8(first).unwrap_or_default(),
            _ => return Ok(Err(ScramError::Malformed)),
        };
        let exchange = match verifier.begin(first, &nonce()) {
            Ok(exchange) => exchange,
            Err(error) => return Ok(Err(error)),
        };
        self.ask(11, exchange.server_first().as_bytes()).await?;
        let Some(last) = self.answer().await? else { return Ok(Err(ScramError::Malformed)) };
        match exchange.finish(std::str::from_utf8(&last).unwrap_or_default()) {
            Ok(word) => self.ask(12, word.as_bytes()).await.map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn ask(&mut self, code: u32, data: &[u8]) -> io::Result<()> {
        self.line.out.message(b'R', |body| {
            body.extend(code.to_be_bytes());
            body.extend(data);
        });
        self.line.flush().await
    }

    /// The body of the client's next message, which must be one of authentication.
    async fn answer(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.line.take() {
                Ok(Some((b'p', body))) => return Ok(Some(body)),
                Ok(None) if self.line.more().await? => {}
                _ => return Ok(None),
            }
        }
    }

    fn refuse<T>(&mut self, code: &[u8; 5], message: &str) -> io::Result<Option<T>> {
        self.line.fatal(code, message);
        Ok(None)
    }
}

fn random_u32() -> u32 {
    getrandom::u32().unwrap_or(0x5eed)
}

/// Printable and without a comma, as SCRAM wants it.
fn nonce() -> String {
    let mut bytes = [0; 18];
    let _ = getrandom::fill(&mut bytes);
    STANDARD_NO_PAD.encode(bytes)
}
