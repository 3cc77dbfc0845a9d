//! One client of a simulated PostgreSQL server: its login, its place on the server's list, its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::backend::{Seat, Shared};
use super::conversation::{Line, options};
use super::eval::Session;
use super::model::{Entry, Side};
use crate::wire::startup::{self, FirstPacket, Garbage};

/// For a client to log in.
const LOGIN: Duration = Duration::from_secs(10);
/// Client sessions at one time.
const MOST_SESSIONS: usize = 100;
/// The settings that a client is told as it logs in.
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

/// Serves a client until one of both goes.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, side: Side, life: CancellationToken) {
    let mut connection = Connection { line: Line::new(stream), shared, side };
    tokio::select! {
        // A crash: neither a word nor an orderly end.
        () = life.cancelled() => { let _ = connection.line.stream.set_zero_linger(); }
        result = connection.run() => if let Err(error) = result {
            tracing::debug!(%error, side = side.as_str(), "simulated connection");
        }
    }
}

struct Connection {
    line: Line<TcpStream>,
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
            return self.line.flush().await;
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
            self.line.fatal(b"53300", "sorry, too many clients already");
            return self.line.flush().await;
        }
        let seat = Seat::new(shared.clone(), self.side);
        tokio::select! {
            result = self.line.converse(session, !pid, &seat, &REPORTED) => result,
            () = end.cancelled() => {
                self.line.out.0.clear();
                self.line.fatal(b"57P01", "terminating connection due to administrator command");
                self.line.flush().await
            }
        }
    }

    /// Up to the startup packet; `None` = there is no session to be had.
    async fn login(&mut self) -> io::Result<Option<Session>> {
        loop {
            match startup::parse(&self.line.buffer) {
                FirstPacket::NeedMore { .. } if self.line.more().await? => {}
                FirstPacket::SslRequest | FirstPacket::GssencRequest => {
                    self.line.stream.write_all(b"N").await?;
                    self.line.buffer.drain(..8);
                }
                FirstPacket::Startup { minor, length } => return Ok(Some(self.welcome(minor, length))),
                FirstPacket::Garbage(garbage @ Garbage::Protocol { .. }) => {
                    self.line.fatal(b"0A000", &garbage.to_string());
                    return Ok(None);
                }
                // There is never anything to cancel.
                _ => return Ok(None),
            }
        }
    }

    fn welcome(&mut self, minor: u16, length: usize) -> Session {
        let packet: Vec<u8> = self.line.buffer.drain(..length).collect();
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
            self.line.out.message(b'v', |body| body.extend([0; 8]));
        }
        let pid = self.shared.next_pid();
        Session { pid, user, database, started: super::now(), settings, transaction: None }
    }
}
