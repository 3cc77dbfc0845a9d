//! One client of the simulated server: login, simple and extended query. What statements mean is `eval`'s.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::backend::Shared;
use super::eval::{Effect, Session};
use super::extended::Extended;
use super::fault::Fault;
use super::message::{self, Fields, Formats, Outgoing};
use super::model::{Entry, Side};
use super::sql;
use crate::wire::sqlstate::{Severity, Sqlstate, error_response};
use crate::wire::startup::{self, FirstPacket, Garbage};

/// For a client to log in.
const LOGIN: Duration = Duration::from_secs(10);
/// For a client to take an answer.
const TAKE: Duration = Duration::from_secs(300);
/// Client sessions at one time.
const MOST_SESSIONS: usize = 100;

/// Serves a client until one of both goes.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, side: Side, life: CancellationToken) {
    let mut connection = Connection { stream, buffer: Vec::new(), out: Outgoing::default(), shared, side };
    tokio::select! {
        // A crash: neither a word nor an orderly end.
        () = life.cancelled() => { let _ = connection.stream.set_zero_linger(); }
        result = connection.run() => if let Err(error) = result {
            tracing::debug!(%error, side = side.as_str(), "simulated connection");
        }
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    out: Outgoing,
    shared: Arc<Shared>,
    side: Side,
}

/// A logged-in session; leaving it takes it off the server.
struct Registered<'a> {
    shared: &'a Shared,
    side: Side,
    pid: u32,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut model = self.shared.model();
        let node = model.at(self.side, super::now());
        node.sessions.remove(&self.pid);
        node.locks.retain(|_, holder| *holder != self.pid);
    }
}

impl Connection {
    async fn run(&mut self) -> io::Result<()> {
        let Ok(Some(session)) = timeout(LOGIN, self.login()).await.unwrap_or(Ok(None)) else {
            return self.flush().await;
        };
        let end = CancellationToken::new();
        let entry = Entry {
            user: session.user.clone(),
            application_name: session.application_name(),
            started: session.started,
            end: end.clone(),
        };
        let shared = self.shared.clone();
        let pid = session.pid;
        let _registered = Registered { shared: &shared, side: self.side, pid };
        if !shared.enter(self.side, pid, entry, MOST_SESSIONS) {
            self.fatal(b"53300", "sorry, too many clients already");
            return self.flush().await;
        }
        tokio::select! {
            result = self.converse(session) => result,
            () = end.cancelled() => {
                self.out.0.clear();
                self.fatal(b"57P01", "terminating connection due to administrator command");
                self.flush().await
            }
        }
    }

    /// Up to the startup packet; `None` = there is no session to be had.
    async fn login(&mut self) -> io::Result<Option<Session>> {
        loop {
            match startup::parse(&self.buffer) {
                FirstPacket::NeedMore { .. } if self.more().await? => {}
                FirstPacket::SslRequest | FirstPacket::GssencRequest => {
                    self.stream.write_all(b"N").await?;
                    self.buffer.drain(..8);
                }
                FirstPacket::Startup { minor, length } => return Ok(Some(self.welcome(minor, length))),
                FirstPacket::Garbage(garbage @ Garbage::Protocol { .. }) => {
                    self.fatal(b"0A000", &garbage.to_string());
                    return Ok(None);
                }
                // There is never anything to cancel.
                _ => return Ok(None),
            }
        }
    }

    fn welcome(&mut self, minor: u16, length: usize) -> Session {
        let packet: Vec<u8> = self.buffer.drain(..length).collect();
        let (mut user, mut database) = (String::new(), String::new());
        let mut settings = std::collections::BTreeMap::new();
        for (name, value) in startup::parameters(&packet) {
            match name {
                "user" => user = value.to_owned(),
                "database" => database = value.to_owned(),
                "replication" => {}
                "options" => settings.extend(options(value)),
                name => {
                    settings.insert(name.to_lowercase(), value.to_owned());
                }
            }
        }
        if database.is_empty() {
            database.clone_from(&user);
        }
        if minor > 0 {
            self.out.message(b'v', |body| body.extend([0; 8]));
        }
        let pid = self.shared.next_pid();
        Session { pid, user, database, started: super::now(), settings, transaction: None }
    }

    async fn converse(&mut self, mut session: Session) -> io::Result<()> {
        self.greet(&mut session);
        self.flush().await?;
        let mut extended = Extended::default();
        loop {
            let (kind, body) = match self.take() {
                Ok(Some(message)) => message,
                Ok(None) if self.more().await? => continue,
                Ok(None) => return Ok(()),
                Err(fault) => {
                    self.out.0.extend(error(Severity::Fatal, &fault));
                    return self.flush().await;
                }
            };
            let effect = match kind {
                b'X' => return Ok(()),
                b'Q' => self.query(&mut session, &body),
                b'S' => {
                    extended.skipping = false;
                    self.out.ready(session.status());
                    None
                }
                _ => extended.handle(kind, Fields(&body), &mut session, &self.shared, self.side, &mut self.out),
            };
            if matches!(kind, b'Q' | b'S' | b'H') || effect.is_some() {
                self.flush().await?;
            }
            if let Some(effect) = effect {
                self.shared.carry_out(effect, self.side);
            }
        }
    }

    fn greet(&mut self, session: &mut Session) {
        self.out.message(b'R', |body| body.extend([0; 4]));
        const REPORTED: [&str; 11] = [
            "application_name",
            "client_encoding",
            "DateStyle",
            "default_transaction_read_only",
            "in_hot_standby",
            "integer_datetimes",
            "IntervalStyle",
            "server_encoding",
            "server_version",
            "standard_conforming_strings",
            "TimeZone",
        ];
        for name in REPORTED {
            let value = self.shared.context(self.side, session, |context| context.setting(name));
            self.out.parameter_status(name, &value.unwrap_or_default());
        }
        self.out.parameter_status("session_authorization", &session.user);
        self.out.parameter_status("is_superuser", "on");
        let pid = session.pid;
        self.out.message(b'K', |body| {
            body.extend(pid.to_be_bytes());
            body.extend((!pid).to_be_bytes());
        });
        self.out.ready(session.status());
    }

    /// A simple query: every statement commits by itself, unless a block is open.
    fn query(&mut self, session: &mut Session, body: &[u8]) -> Option<Effect> {
        let mut effect = None;
        if let Err(fault) = self.statements(session, body, &mut effect) {
            self.out.0.extend(error(Severity::Error, &fault));
        }
        self.out.ready(session.status());
        effect
    }

    fn statements(&mut self, session: &mut Session, body: &[u8], effect: &mut Option<Effect>) -> Result<(), Fault> {
        let parsed = sql::parse(Fields(body).text()?);
        let parsed = parsed.inspect_err(|_| session.fail())?;
        if parsed.is_empty() {
            self.out.empty(b'I');
        }
        for parsed in parsed {
            let columns = super::eval::columns(&parsed);
            let (answer, done) = self.shared.context(self.side, session, |context| {
                let answer = context.execute(&parsed.statement, &[]);
                (answer, context.effect)
            });
            let answer = answer?;
            *effect = effect.or(done);
            if let Some(columns) = columns {
                self.out.row_description(&columns, &Formats::default());
                for row in &answer.rows {
                    self.out.data_row(&columns, row, &Formats::default());
                }
            }
            self.out.complete(&answer.tag);
        }
        Ok(())
    }

    fn fatal(&mut self, code: &[u8; 5], message: &str) {
        self.out.0.extend(error_response(Severity::Fatal, Sqlstate::new(code), message, None));
    }

    /// The next whole message that is there.
    fn take(&mut self) -> Result<Option<(u8, Vec<u8>)>, Fault> {
        let Some((kind, body, length)) = message::first(&self.buffer)? else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.buffer.drain(..length);
        Ok(Some((kind, body)))
    }

    /// Reads on; `false` = the client has ended.
    async fn more(&mut self) -> io::Result<bool> {
        self.buffer.reserve(8 * 1024);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    async fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out.0);
        timeout(TAKE, self.stream.write_all(&out)).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// An ErrorResponse for a fault, with what to do about it.
pub(super) fn error(severity: Severity, fault: &Fault) -> Vec<u8> {
    let hint = match fault {
        Fault::NotSupported(_) => Some("install PostgreSQL and the demo uses it instead of the simulation"),
        _ => None,
    };
    error_response(severity, fault.code(), &fault.to_string(), hint)
}

/// The settings in `options`, as `-c name=value`; a backslash makes the next character literal.
fn options(text: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => words[..].last_mut().into_iter().for_each(|word| word.extend(chars.next())),
            c if c.is_whitespace() => words.push(String::new()),
            c => words[..].last_mut().into_iter().for_each(|word| word.push(c)),
        }
    }
    let setting = |word: &String| word.split_once('=').map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    words
        .iter()
        .map(|word| word.strip_prefix("-c").unwrap_or(word).to_owned())
        .filter_map(|word| setting(&word))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_startup_packet_are_settings() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            options("-c Search_Path=pg_catalog  -cjit=off -c a.b=x\\ y\\\\z"),
            [pair("search_path", "pg_catalog"), pair("jit", "off"), pair("a.b", "x y\\z")]
        );
        assert_eq!(options(""), []);
    }
}
