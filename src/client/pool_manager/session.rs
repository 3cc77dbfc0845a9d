//! Somebody who reads what they wrote: remembers that something was written, and takes a token of it for the next read.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::PoolError;
use super::lend::Need;
use super::route::Route;
use super::token::Token;
use super::transaction::Transaction;
use super::{PoolManager, QueryIntent};

/// Reads see every write that was made through the same session before them; those of others as any read does.
///
/// The first read after a write asks the primary how far its log is, and then waits for a replica or goes to the primary,
/// as [`Route::after`]. Make one for each request or user; it holds no connection.
#[derive(Debug)]
pub struct Session {
    manager: PoolManager,
    /// +1 at the beginning and the end of each write.
    writes: Arc<AtomicU64>,
    /// The number of `writes` that the token covers.
    covered: Mutex<(u64, Option<Token>)>,
}

impl Session {
    pub(super) fn new(manager: PoolManager) -> Self {
        Self { manager, writes: Arc::default(), covered: Mutex::default() }
    }

    /// A session that goes on from a token, as one brought by a cookie.
    pub(super) fn after(manager: PoolManager, token: Token) -> Self {
        Self { covered: Mutex::new((0, Some(token))), ..Self::new(manager) }
    }

    /// To the primary.
    pub fn write(&self) -> Route<'_> {
        self.route(QueryIntent::Write)
    }

    /// To whoever has seen the writes of this session.
    pub fn read(&self) -> Route<'_> {
        self.route(QueryIntent::Read)
    }

    /// As [`PoolManager::begin`], within the session: a transaction that reads sees its writes.
    pub async fn begin(&self, intent: QueryIntent) -> Result<Transaction, PoolError> {
        match intent {
            QueryIntent::Write => Transaction::begin(&self.manager, intent, Need::Nothing, Some(self.written())).await,
            QueryIntent::Read => Transaction::begin(&self.manager, intent, self.need().await, None).await,
        }
    }

    /// What a reader elsewhere must have seen to see the writes of this session; `None` = nothing was written.
    pub async fn token(&self) -> Result<Option<Token>, PoolError> {
        let writes = self.writes.load(SeqCst);
        let (covered, token) = *self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        if covered == writes {
            return Ok(token);
        }
        // Taken after the count was read: it covers at least those.
        let token = self.manager.token().await?;
        let mut kept = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 < writes {
            *kept = (writes, Some(token));
        }
        Ok(Some(token))
    }

    /// What the next read must have seen.
    pub(super) async fn need(&self) -> Need {
        match self.token().await {
            Ok(None) => Need::Nothing,
            Ok(Some(token)) => Need::Token(token),
            Err(_) => Need::Primary,
        }
    }

    /// A write begins; it ends when what this returns is dropped.
    pub(super) fn written(&self) -> Written {
        self.writes.fetch_add(1, SeqCst);
        Written(self.writes.clone())
    }

    fn route(&self, intent: QueryIntent) -> Route<'_> {
        Route { manager: &self.manager, intent, need: Need::Nothing, session: Some(self) }
    }
}

/// Counts the end of a write, also of one that was dropped on the way and may have taken effect.
#[derive(Debug)]
pub(super) struct Written(Arc<AtomicU64>);

impl Drop for Written {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}
