//! Several statements on one connection. Nothing of it is ever sent again: whoever began it knows what it meant.

use std::fmt;
use std::ops::{Deref, DerefMut};

use sqlx::{PgConnection, Postgres, SqlStr};

use super::error::PoolError;
use super::lend::Need;
use super::session::Written;
use super::sqlx_error::failure;
use super::{PoolManager, QueryIntent};

/// A transaction; rolled back when it is dropped. Execute on `&mut *transaction`.
///
/// One that reads is READ ONLY, so that it is the same on a replica and on the primary that stands in for it.
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    manager: PoolManager,
    server: usize,
    // Dropped after the transaction's end.
    _written: Option<Written>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.manager.fleet().servers[self.server].name;
        f.debug_struct("Transaction").field("server", server).finish_non_exhaustive()
    }
}

impl Transaction {
    pub(super) async fn begin(
        manager: &PoolManager,
        intent: QueryIntent,
        need: Need,
        written: Option<Written>,
    ) -> Result<Self, PoolError> {
        let lent = manager.fleet().lend(intent, need, &[]).await?;
        let server = lent.server;
        let begin = match intent {
            QueryIntent::Read => "BEGIN READ ONLY",
            QueryIntent::Write => "BEGIN",
        };
        let begun = sqlx::Transaction::begin(lent.connection, Some(SqlStr::from_static(begin))).await;
        let inner = begun.inspect_err(|error| heard(manager, server, intent, error))?;
        manager.fleet().servers[server].answered();
        Ok(Self { inner, manager: manager.clone(), server, _written: written })
    }

    /// Makes it last. An error that says nothing of the server's refusal leaves open whether it did.
    pub async fn commit(self) -> Result<(), PoolError> {
        let (manager, server) = (self.manager, self.server);
        let done = self.inner.commit().await;
        Ok(done.inspect_err(|error| heard(&manager, server, QueryIntent::Write, error))?)
    }

    /// Undoes it.
    pub async fn rollback(self) -> Result<(), PoolError> {
        Ok(self.inner.rollback().await?)
    }
}

fn heard(manager: &PoolManager, server: usize, intent: QueryIntent, error: &sqlx::Error) {
    let server = &manager.fleet().servers[server];
    match failure(error, intent).blames_server() {
        true => server.let_down(),
        false => server.answered(),
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.inner
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}
