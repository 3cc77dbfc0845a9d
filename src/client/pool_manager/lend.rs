//! Lends a connection: to the primary for writes, to a replica for reads, to one that has seen something for reads that
//! must. Nothing of the application's was sent while this tries one server after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::QueryIntent;
use super::error::PoolError;
use super::fleet::Fleet;
use super::look::look_at_postgres;
use super::primary::{Role, Seen, Writer};
use super::retry::Failure;
use super::server::Server;
use super::sqlx_error::failure;
use super::token::Token;

/// How long a pool may take before its server is looked at: sqlx tries to connect to one that refuses until its time is up.
const NUDGE: Duration = Duration::from_millis(30);
/// Between two such looks.
const NUDGE_AGAIN: Duration = Duration::from_millis(500);
/// Between two attempts to find a primary.
const PAUSE: Duration = Duration::from_millis(150);
/// Between two questions to a replica that lags, at first and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// A connection and whose it is.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) server: usize,
    pub(super) connection: PoolConnection<Postgres>,
}

/// What a read must have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// This.
    Token(Token),
    /// Whatever the primary has.
    Primary,
}

impl Fleet {
    /// When a connection must be found.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.acquire_timeout
    }

    /// `not` = servers that were tried already; they are tried again where there is no other.
    pub(super) async fn lend(&self, intent: QueryIntent, need: Need, not: &[usize]) -> Result<Lent, PoolError> {
        let began = Instant::now();
        if self.servers[0].pool.is_closed() {
            return Err(PoolError::Closed);
        }
        self.wanted();
        let lent = match (intent, need) {
            (QueryIntent::Write, _) | (QueryIntent::Read, Need::Primary) => self.lend_primary(self.deadline()).await,
            (QueryIntent::Read, Need::Nothing) => self.lend_reader(not, self.deadline()).await,
            (QueryIntent::Read, Need::Token(token)) => self.lend_seer(token, not, self.deadline()).await,
        }?;
        self.servers[lent.server].meter.waited(began.elapsed());
        Ok(lent)
    }

    async fn lend_primary(&self, deadline: Instant) -> Result<Lent, PoolError> {
        let (began, mut looked) = (Instant::now(), false);
        let mut failed = BTreeSet::new();
        loop {
            let writer = self.writer();
            let mut lacking = PoolError::NoPrimary { waited: began.elapsed() };
            match writer {
                // What was seen may be over: one of them was stopped, as the error asks for.
                Writer::Contested(_) if !looked => {
                    looked = true;
                    let _ = timeout_at(deadline, self.looked()).await;
                    continue;
                }
                Writer::Contested(servers) => return Err(PoolError::Contested { servers: self.names(&servers) }),
                Writer::Nobody => {}
                Writer::Server(index) => match self.acquire(index, deadline, &mut failed).await {
                    // It may have ceased to be the primary while we waited for the connection.
                    Ok(connection) if self.writer_index() == Some(index) => {
                        return Ok(Lent { server: index, connection });
                    }
                    Ok(_) => {
                        self.servers[index].abandoned();
                        continue;
                    }
                    Err(error @ (PoolError::Unreachable { .. } | PoolError::NoPrimary { .. })) => lacking = error,
                    // With others that may take over it is worth the wait, and who waits already goes on.
                    Err(error @ PoolError::CircuitOpen { .. }) if self.servers.len() > 1 || !failed.is_empty() => {
                        lacking = error;
                    }
                    Err(error) => return Err(error),
                },
            }
            if Instant::now() >= deadline {
                return Err(lacking);
            }
            self.ask_all();
            self.until_news(PAUSE.min(deadline - Instant::now())).await;
        }
    }

    async fn lend_reader(&self, not: &[usize], deadline: Instant) -> Result<Lent, PoolError> {
        let began = Instant::now();
        let (mut tried, mut spares) = (not.to_vec(), !not.is_empty());
        let (mut lacking, mut failed) = (None, BTreeSet::new());
        loop {
            let replica = self.replica(&tried);
            let primary = self.writer_index().filter(|index| !tried.contains(index));
            if let Some(index) = replica.or(primary) {
                match self.acquire(index, deadline, &mut failed).await {
                    Ok(connection) => {
                        self.count_fallback(replica.is_none());
                        return Ok(Lent { server: index, connection });
                    }
                    Err(error @ (PoolError::Closed | PoolError::Exhausted { .. })) => return Err(error),
                    // Whatever is wrong with a replica, a login that it refuses included: the primary will do.
                    Err(error @ PoolError::Sql(_)) if replica.is_none() => return Err(error),
                    Err(error) => lacking = Some(error),
                }
                tried.push(index);
            } else if spares {
                // There is no other: whoever let the read down may try again.
                (tried, spares) = (Vec::new(), false);
            } else {
                if Instant::now() >= deadline || self.all_are_left_alone() {
                    return Err(lacking.unwrap_or(PoolError::NoPrimary { waited: began.elapsed() }));
                }
                tried.clear();
                self.ask_all();
                self.until_news(PAUSE.min(deadline - Instant::now())).await;
            }
        }
    }

    /// From a replica that has seen it within the time allowed, else from the primary.
    async fn lend_seer(&self, token: Token, not: &[usize], deadline: Instant) -> Result<Lent, PoolError> {
        let patience = deadline.min(Instant::now() + self.limits.replica_wait);
        let may = |&index: &usize| {
            let server = &self.servers[index];
            !not.contains(&index) && server.is_fit() && token.is_on(server.seen().timeline)
        };
        if let Some(index) = self.balance((0..self.servers.len()).filter(may))
            && let Ok(connection) = self.acquire(index, deadline, &mut BTreeSet::new()).await
            && let Some(lent) = self.has_seen(Lent { server: index, connection }, token, patience).await
        {
            return Ok(lent);
        }
        self.count_fallback(true);
        let began = Instant::now();
        loop {
            let mut lent = self.lend_primary(deadline).await?;
            let server = &self.servers[lent.server];
            if server.seen().role == Role::Cockroach {
                return Ok(lent);
            }
            // It is asked itself: behind a name there may be another server by now.
            match timeout_at(deadline, look_at_postgres(&mut lent.connection)).await {
                Ok(Ok(Seen { role: Role::Primary { .. }, .. })) => return Ok(lent),
                Ok(Ok(_)) => server.retire(),
                Ok(Err(_)) | Err(_) => drop(lent.connection.detach()),
            }
            if Instant::now() >= deadline {
                return Err(PoolError::NoPrimary { waited: began.elapsed() });
            }
            server.ask();
            self.until_news(PAUSE.min(deadline - Instant::now())).await;
        }
    }

    /// The connection, once its server has replayed that far; `None` when it does not in time, or fails.
    async fn has_seen(&self, mut lent: Lent, token: Token, until: Instant) -> Option<Lent> {
        let mut pause = POLL.0;
        loop {
            let asked = look_at_postgres(&mut lent.connection);
            // A bit more, so that it is asked once even where no time is allowed.
            let seen = match timeout_at(until + POLL.1, asked).await {
                Ok(Ok(seen)) => seen,
                Ok(Err(_)) | Err(_) => {
                    // A question without its answer must not be left on a connection of the pool.
                    drop(lent.connection.detach());
                    self.servers[lent.server].ask();
                    return None;
                }
            };
            let is_standby = seen.role == Role::Standby;
            if is_standby && token.is_seen(seen.timeline, seen.position) {
                return Some(lent);
            }
            if !is_standby || Instant::now() + pause > until {
                return None;
            }
            sleep_until(Instant::now() + pause).await;
            pause = (pause * 2).min(POLL.1);
        }
    }

    /// Everything that was committed by now.
    pub(super) async fn token(&self) -> Result<Token, PoolError> {
        let deadline = self.deadline();
        let began = Instant::now();
        loop {
            let mut lent = self.lend_primary(deadline).await?;
            let server = &self.servers[lent.server];
            if server.seen().role == Role::Cockroach {
                return Ok(Token { position: None });
            }
            match timeout_at(deadline, look_at_postgres(&mut lent.connection)).await {
                Ok(Ok(seen @ Seen { role: Role::Primary { .. }, .. })) => {
                    return Ok(Token { position: seen.timeline.zip(seen.position) });
                }
                Ok(Ok(_)) => server.retire(),
                Ok(Err(error)) if failure(&error, QueryIntent::Read) == Failure::Theirs => return Err(error.into()),
                Ok(Err(_)) | Err(_) => drop(lent.connection.detach()),
            }
            if Instant::now() >= deadline {
                return Err(PoolError::NoPrimary { waited: began.elapsed() });
            }
            server.ask();
            self.until_news(PAUSE.min(deadline - Instant::now())).await;
        }
    }

    /// A connection of this server's pool. While the pool tries, a look may find that the server is gone. `failed`: the
    /// servers whose failure was counted for whoever waits; he counts once, however often he tries.
    async fn acquire(
        &self,
        index: usize,
        deadline: Instant,
        failed: &mut BTreeSet<usize>,
    ) -> Result<PoolConnection<Postgres>, PoolError> {
        let (server, began) = (&self.servers[index], Instant::now());
        if !server.enter() {
            let retry_in = server.standing().breaker.closed_in(self.clock.now());
            return Err(PoolError::CircuitOpen { server: server.name.clone(), retry_in });
        }
        let acquired = tokio::select! {
            biased;
            acquired = server.pool.acquire() => acquired.map_err(Some),
            () = is_gone(server) => Err(None),
            () = sleep_until(deadline) => Err(Some(sqlx::Error::PoolTimedOut)),
        };
        let error = match acquired {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let (name, waited) = (server.name.clone(), began.elapsed());
        let failure = error.as_ref().map_or(Failure::Lost, |error| failure(error, QueryIntent::Write));
        match (failure, error) {
            (Failure::Exhausted, _) if server.is_exhausted() => {
                server.abandoned();
                server.meter.exhausted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Err(PoolError::Exhausted { server: name, waited, max: self.limits.max_connections })
            }
            (Failure::Closed, _) => Err(PoolError::Closed),
            (Failure::Theirs | Failure::ReadOnly | Failure::Conflict | Failure::TooSlow, Some(error)) => {
                server.abandoned();
                Err(error.into())
            }
            _ => {
                if failed.insert(index) {
                    server.let_down();
                } else {
                    server.let_down_again();
                }
                Err(PoolError::Unreachable { server: name, waited })
            }
        }
    }

    fn all_are_left_alone(&self) -> bool {
        self.servers.iter().all(|server| server.standing().breaker.closed_in(self.clock.now()) > Duration::ZERO)
    }

    fn count_fallback(&self, fell_back: bool) {
        if fell_back && self.servers.len() > 1 {
            self.fallbacks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// Returns when a look that was made for this finds nobody.
async fn is_gone(server: &Server) {
    tokio::time::sleep(NUDGE).await;
    loop {
        server.looked().await;
        if !server.is_connected() {
            return;
        }
        tokio::time::sleep(NUDGE_AGAIN).await;
    }
}
