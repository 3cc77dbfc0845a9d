//! A logged-in session of a simulated server: its greeting, simple and extended query. What statements mean is
//! `eval`'s; logging in is each kind of server's own.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::database::{Dialect, Host};
use super::eval::Session;
use super::extended::Extended;
use super::fault::Fault;
use super::message::{self, Fields, Formats, Outgoing};
use super::sql;
use crate::wire::sqlstate::{Severity, Sqlstate, error_response};

/// For a client to take an answer.
const TAKE: Duration = Duration::from_secs(300);

/// A client's connection with what was read and what is to be sent.
#[derive(Debug)]
pub(super) struct Line<S> {
    pub(super) stream: S,
    pub(super) buffer: Vec<u8>,
    pub(super) out: Outgoing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), out: Outgoing::default() }
    }

    /// Greets a session that was let in, and answers it until it leaves. `reported`: the settings that it is told.
    pub(super) async fn converse(
        &mut self,
        mut session: Session,
        secret: u32,
        host: &impl Host,
        reported: &[&str],
    ) -> io::Result<()> {
        self.greet(&mut session, secret, host, reported);
        self.flush().await?;
        let mut extended = Extended::default();
        loop {
            let (kind, body) = match self.take() {
                Ok(Some(message)) => message,
                Ok(None) if self.more().await? => continue,
                Ok(None) => return Ok(()),
                Err(fault) => {
                    self.out.0.extend(error(Severity::Fatal, &fault, host.dialect()));
                    return self.flush().await;
                }
            };
            match kind {
                b'X' => return Ok(()),
                b'Q' => self.query(&mut session, &body, host).await,
                b'S' => {
                    extended.skipping = false;
                    self.out.ready(session.status());
                }
                _ => extended.handle(kind, Fields(&body), &mut session, host, &mut self.out).await,
            }
            let effect = host.has_effect();
            if matches!(kind, b'Q' | b'S' | b'H') || effect {
                self.flush().await?;
            }
            if effect {
                host.carry_out();
            }
        }
    }

    fn greet(&mut self, session: &mut Session, secret: u32, host: &impl Host, reported: &[&str]) {
        self.out.message(b'R', |body| body.extend([0; 4]));
        for name in reported {
            let value = host.context(session, |context| context.setting(name));
            self.out.parameter_status(name, &value.unwrap_or_default());
        }
        self.out.parameter_status("session_authorization", &session.user);
        self.out.parameter_status("is_superuser", "on");
        let pid = session.pid;
        self.out.message(b'K', |body| {
            body.extend(pid.to_be_bytes());
            body.extend(secret.to_be_bytes());
        });
        self.out.ready(session.status());
    }

    /// A simple query: every statement commits by itself, unless a block is open.
    async fn query(&mut self, session: &mut Session, body: &[u8], host: &impl Host) {
        if let Err(fault) = self.statements(session, body, host).await {
            self.out.0.extend(error(Severity::Error, &fault, host.dialect()));
        }
        self.out.ready(session.status());
    }

    async fn statements(&mut self, session: &mut Session, body: &[u8], host: &impl Host) -> Result<(), Fault> {
        let parsed = sql::parse(Fields(body).text()?, host.dialect());
        let parsed = parsed.inspect_err(|_| session.fail())?;
        if parsed.is_empty() {
            self.out.empty(b'I');
        }
        for parsed in parsed {
            let columns = super::eval::columns(&parsed);
            host.wait(&parsed.statement).await;
            let answer = host.context(session, |context| context.execute(&parsed.statement, &[]))?;
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

    pub(super) fn fatal(&mut self, code: &[u8; 5], message: &str) {
        self.out.0.extend(error_response(Severity::Fatal, Sqlstate::new(code), message, None));
    }

    /// The next whole message that is there.
    pub(super) fn take(&mut self) -> Result<Option<(u8, Vec<u8>)>, Fault> {
        let Some((kind, body, length)) = message::first(&self.buffer)? else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.buffer.drain(..length);
        Ok(Some((kind, body)))
    }

    /// Reads on; `false` = the client has ended.
    pub(super) async fn more(&mut self) -> io::Result<bool> {
        self.buffer.reserve(8 * 1024);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out.0);
        let send = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        timeout(TAKE, send).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// An ErrorResponse for a fault, with what to do about it.
pub(super) fn error(severity: Severity, fault: &Fault, dialect: Dialect) -> Vec<u8> {
    let hint = match (fault, dialect) {
        (Fault::NotSupported(_), Dialect::Postgres) => {
            Some("install PostgreSQL and the demo uses it instead of the simulation")
        }
        _ => None,
    };
    error_response(severity, fault.code(), &fault.to_string(), hint)
}

/// The settings in `options`, as `-c name=value` or `--name=value`; a backslash makes the next character literal.
pub(super) fn options(text: &str) -> Vec<(String, String)> {
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
        .map(|word| word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(word).to_owned())
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
