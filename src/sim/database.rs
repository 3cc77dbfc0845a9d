//! What the session machinery asks of a server: its rows, its settings, and what only its kind knows. A server of a
//! PostgreSQL pair is one, a virtual cluster of CockroachDB another.

use std::collections::BTreeMap;

use super::eval::{Answer, Context, Session};
use super::fault::Fault;
use super::statement::Statement;
use super::value::Value;
use crate::types::WallTime;

/// Whose SQL is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    /// The virtual cluster that clients use.
    Cockroach,
    /// The one that steers the others, and has no table.
    CockroachSystem,
}

/// One server, held still for one statement.
pub(super) trait Database {
    /// The one table: id and when it was committed.
    fn rows(&self) -> &BTreeMap<i64, WallTime>;

    fn commit(&mut self, ids: Vec<i64>, now: WallTime) -> Result<(), Fault>;

    /// A setting of the server, by its lower-case name.
    fn setting(&self, name: &str) -> Option<String>;

    /// Does it refuse to write, whatever the session wants?
    fn is_standby(&self) -> bool;

    /// A session calls itself something else.
    fn rename(&mut self, session: &Session);

    /// A function that only this kind of server has.
    fn call(&mut self, name: &str, arguments: &[Value], session: &Session, now: WallTime) -> Result<Value, Fault>;

    /// A statement that only this kind of server has.
    fn perform(&mut self, statement: &Statement, session: &mut Session, now: WallTime) -> Result<Answer, Fault>;
}

/// Where the statements of one connection run.
pub(super) trait Host: Sync {
    fn dialect(&self) -> Dialect;

    /// Runs something for a session, with the whole simulation standing still.
    fn context<T>(&self, session: &mut Session, run: impl FnOnce(&mut Context<'_>) -> T) -> T;

    /// Until a statement has its time to run.
    fn wait(&self, statement: &Statement) -> impl Future<Output = ()> + Send;

    /// Has a statement asked for something beyond its answer?
    fn has_effect(&self) -> bool;

    /// Does it, once the answer is on its way.
    fn carry_out(&self);
}
