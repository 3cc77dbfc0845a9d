//! A minimal PostgreSQL client for our own few queries: connect, TLS, login, simple query, text rows.
//! No pool, no retry, no types, no extended protocol; connections of clients never come here.

mod frames;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzzed;
mod login;

use std::net::SocketAddr;
use std::sync::Arc;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message, RowDescriptionBody};
use postgres_protocol::message::frontend;
use tokio::time::{Instant, timeout_at};

use super::dial;
pub use super::fault::{Cause, ProtocolFault, SessionError, Step};
use super::tls::ClientTls;
use crate::config::{Login, TlsMode};

use frames::{Frames, MAX_MESSAGE, server_error};

/// Where to log in, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The very address.
    pub address: SocketAddr,
    /// The name its certificate must bear; see [`ClientTls::name_for`].
    pub server_name: String,
    /// The backend's TLS settings.
    pub tls: Arc<ClientTls>,
    /// User, database, password.
    pub login: Login,
    /// Shown in `pg_stat_activity`; PostgreSQL keeps 63 bytes.
    pub application_name: String,
    /// A walsender (`replication=database`): takes IDENTIFY_SYSTEM and TIMELINE_HISTORY besides SQL.
    pub replication: bool,
}

/// The text rows of one result: NULL is `None`.
pub type Rows = Vec<Vec<Option<String>>>;

/// One result with the names of its columns, for answers whose columns differ from version to version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// In the server's order.
    pub columns: Vec<String>,
    /// As many values each.
    pub rows: Rows,
}

impl Table {
    /// The value of the column of that name, row by row; NULL and a column that is not there are both `None`.
    pub fn column(&self, name: &str) -> impl Iterator<Item = Option<&str>> {
        let at = self.columns.iter().position(|column| column == name);
        self.rows.iter().map(move |row| row.get(at?)?.as_deref())
    }

    /// Is there a column of that name?
    pub fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column == name)
    }
}

/// A connection that is logged in and idle between two calls.
#[derive(Debug)]
pub struct Session {
    frames: Frames,
    /// An exchange was begun and not ended: what comes next from the server is not the answer to the next query.
    abandoned: bool,
}

impl Session {
    /// Connects and logs in, everything by `deadline`.
    pub async fn connect(target: &Target, deadline: Instant) -> Result<Self, SessionError> {
        Self::connect_with(target, &[], deadline).await
    }

    /// As [`Session::connect`], with further startup parameters, `options` for example.
    pub async fn connect_with(
        target: &Target,
        parameters: &[(&str, &str)],
        deadline: Instant,
    ) -> Result<Self, SessionError> {
        let mut step = Step::Connect;
        let opened = timeout_at(deadline, open(target, parameters, Goal::Ready, &mut step)).await;
        match opened {
            Ok(Ok(Greeted { frames, .. })) => Ok(Self { frames, abandoned: false }),
            Ok(Err(cause)) => Err(SessionError { step, cause }),
            Err(_) => Err(SessionError { step, cause: Cause::TimedOut }),
        }
    }

    /// Says hello without credentials: `Ok` once the server asks for a password or lets us in, which is as far as a
    /// server comes that serves. An error that follows a login without password counts as its answer.
    pub async fn greet(target: &Target, deadline: Instant) -> Result<(), SessionError> {
        Self::greet_with(target, &[], deadline).await
    }

    /// As [`Session::greet`], with further startup parameters.
    pub async fn greet_with(
        target: &Target,
        parameters: &[(&str, &str)],
        deadline: Instant,
    ) -> Result<(), SessionError> {
        let mut step = Step::Connect;
        let greeted = timeout_at(deadline, open(target, parameters, Goal::Greeting, &mut step)).await;
        let mut frames = match greeted {
            Ok(Ok(Greeted { frames, let_in: true })) => frames,
            Ok(Ok(Greeted { let_in: false, .. })) => return Ok(()),
            Ok(Err(cause)) => return Err(SessionError { step, cause }),
            Err(_) => {
                return Err(SessionError { step, cause: Cause::TimedOut });
            }
        };
        // Leaving in the middle of the server's greeting would stand in its log as a lost connection.
        match timeout_at(deadline, login::until_ready(&mut frames)).await {
            Ok(Err(cause @ Cause::Sqlstate { .. })) => Err(SessionError { step: Step::Authenticate, cause }),
            Ok(Ok(())) => {
                let _ = timeout_at(deadline, frames.terminate()).await;
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// Runs one or more statements and gives the rows of the last result. An error of the server leaves the session
    /// usable unless the server ended it. Not cancel safe: dropped before its end it leaves a session that only
    /// answers [`ProtocolFault::Abandoned`], as it does after a timeout.
    pub async fn query(&mut self, sql: &str, deadline: Instant) -> Result<Rows, SessionError> {
        self.query_table(sql, deadline).await.map(|table| table.rows)
    }

    /// As [`Session::query`], with the names of the columns.
    pub async fn query_table(&mut self, sql: &str, deadline: Instant) -> Result<Table, SessionError> {
        let result = if self.abandoned {
            Err(ProtocolFault::Abandoned.into())
        } else {
            self.abandoned = true;
            timeout_at(deadline, self.exchange(sql)).await.unwrap_or(Err(Cause::TimedOut))
        };
        result.map_err(|cause| SessionError { step: Step::Query, cause })
    }

    /// Resolves when the server ends the connection, with its word about it; until then it swallows what comes
    /// unasked. Cancel safe. Meant for the time between two queries.
    pub async fn closed(&mut self) -> SessionError {
        let cause = match self.frames.next().await {
            Ok(Message::ErrorResponse(body)) => server_error(body.fields()),
            Ok(_) => ProtocolFault::Unexpected.into(),
            Err(cause) => cause,
        };
        self.abandoned = true;
        SessionError { step: Step::Query, cause }
    }

    /// Whether another query may be tried.
    pub fn is_usable(&self) -> bool {
        !self.abandoned
    }

    /// Whether TLS protects it.
    pub fn is_encrypted(&self) -> bool {
        self.frames.is_encrypted()
    }

    /// Takes leave; what the server makes of it is of no interest after `deadline`.
    pub async fn close(self, deadline: Instant) {
        let _ = timeout_at(deadline, self.frames.terminate()).await;
    }

    async fn exchange(&mut self, sql: &str) -> Result<Table, Cause> {
        frontend::query(sql, &mut self.frames.outgoing).map_err(|_| ProtocolFault::ZeroByte)?;
        self.frames.flush().await?;
        let (mut table, mut size, mut refused) = (Table::default(), 0_usize, None);
        loop {
            match self.frames.next().await {
                Ok(Message::RowDescription(body)) => {
                    table = Table { columns: column_names(&body)?, rows: Rows::new() };
                }
                Ok(Message::DataRow(row)) => {
                    size = size.saturating_add(row.buffer().len());
                    if size > MAX_MESSAGE {
                        return Err(ProtocolFault::TooLarge(size).into());
                    }
                    table.rows.push(text_row(&row)?);
                }
                Ok(Message::CommandComplete(_) | Message::EmptyQueryResponse) => {}
                Ok(Message::ErrorResponse(body)) => refused = Some(server_error(body.fields())),
                Ok(Message::ReadyForQuery(_)) => {
                    self.abandoned = false;
                    return refused.map_or(Ok(table), Err);
                }
                Ok(_) => return Err(ProtocolFault::Unexpected.into()),
                // A FATAL is followed by the end of the stream instead of ReadyForQuery.
                Err(cause) => return Err(refused.unwrap_or(cause)),
            }
        }
    }
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// To the first answer to the startup packet.
    Greeting,
    /// To ReadyForQuery.
    Ready,
}

struct Greeted {
    frames: Frames,
    /// No password was asked for.
    let_in: bool,
}

async fn open(target: &Target, parameters: &[(&str, &str)], goal: Goal, step: &mut Step) -> Result<Greeted, Cause> {
    match open_once(target, parameters, goal, true, step).await {
        Err(cause) if target.tls.mode() == TlsMode::Prefer && tls_was_the_reason(*step, &cause) => {
            open_once(target, parameters, goal, false, step).await
        }
        other => other,
    }
}

/// As libpq's `prefer`: a failed handshake, or a server that does not want this login encrypted.
fn tls_was_the_reason(step: Step, cause: &Cause) -> bool {
    match cause {
        Cause::Handshake(_) | Cause::Certificate(_) => step == Step::Tls,
        Cause::Sqlstate { code, .. } => code == "28000",
        _ => false,
    }
}

async fn open_once(
    target: &Target,
    parameters: &[(&str, &str)],
    goal: Goal,
    try_tls: bool,
    step: &mut Step,
) -> Result<Greeted, Cause> {
    let channel = if try_tls {
        dial::postgres(target.address, &target.server_name, &target.tls, step).await?
    } else {
        dial::plaintext(target.address, step).await?
    };
    let mut frames = Frames::new(channel);
    *step = Step::Startup;
    let mut all = vec![
        ("user", target.login.user.as_str()),
        ("database", target.login.database.as_str()),
        ("application_name", target.application_name.as_str()),
        ("client_encoding", "UTF8"),
    ];
    if target.replication {
        all.push(("replication", "database"));
    }
    all.extend_from_slice(parameters);
    login::start(&mut frames, &all).await?;
    let let_in = match goal {
        Goal::Greeting => login::first_answer(&mut frames).await?,
        Goal::Ready => login::authenticate(&mut frames, &target.login, step).await.map(|()| true)?,
    };
    Ok(Greeted { frames, let_in })
}

// Both grow with what is there: how many columns there are is only the server's word.

fn column_names(body: &RowDescriptionBody) -> Result<Vec<String>, ProtocolFault> {
    let (mut fields, mut names) = (body.fields(), Vec::new());
    while let Some(field) = fields.next().map_err(|_| ProtocolFault::Malformed)? {
        names.push(field.name().to_owned());
    }
    Ok(names)
}

fn text_row(row: &DataRowBody) -> Result<Vec<Option<String>>, ProtocolFault> {
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&row.buffer()[range]).into_owned();
    let (mut ranges, mut texts) = (row.ranges(), Vec::new());
    while let Some(range) = ranges.next().map_err(|_| ProtocolFault::Malformed)? {
        texts.push(range.map(text));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests;
