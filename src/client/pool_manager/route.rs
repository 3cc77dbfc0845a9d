//! One statement on its way: an executor of sqlx that finds the server for it, sends it, and sends a read once more where
//! that is harmless. Bytes of a write leave once.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use sqlx::postgres::{PgArguments, PgConnection, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, Postgres, SqlSafeStr, SqlStr};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::error::PoolError;
use super::fleet::Fleet;
use super::lend::{Lent, Need};
use super::retry::{Failure, Tried, once_more, repeatable, steers_transaction};
use super::session::{Session, Written};
use super::sqlx_error::failure;
use super::token::Token;
use super::{PoolManager, QueryIntent};

type BoxFuture<'e, T> = Pin<Box<dyn Future<Output = T> + Send + 'e>>;
type Item = Either<PgQueryResult, PgRow>;

/// Where a statement goes: give it to `fetch_all`, `execute` and the like as one gives a pool.
///
/// Each statement gets a connection of its own and is a transaction of its own. A write is sent once, whatever happens; a
/// read is sent once more when the server let it down and no row was handed out yet, and only where it is one
/// statement that begins with SELECT, WITH, VALUES, TABLE or SHOW: do not hand functions that write to a read.
/// A future that is dropped may leave a write behind that takes effect.
#[derive(Debug, Clone, Copy)]
#[must_use = "a route does nothing until a statement is executed on it"]
pub struct Route<'m> {
    pub(super) manager: &'m PoolManager,
    pub(super) intent: QueryIntent,
    pub(super) need: Need,
    pub(super) session: Option<&'m Session>,
}

impl Route<'_> {
    /// The read sees at least what was committed when the token was taken: it waits for a replica for
    /// [`replica_wait`](super::PoolBuilder::replica_wait) at most and goes to the primary then. A write goes to the
    /// primary anyway.
    pub fn after(self, token: Token) -> Self {
        Self { need: Need::Token(token), ..self }
    }

    fn fleet(&self) -> &Fleet {
        self.manager.fleet()
    }

    /// What the read must have seen; for a write, the guard that tells the session of it in the end.
    async fn prepare(&self) -> (Need, Option<Written>) {
        match (self.session, self.intent) {
            (Some(session), QueryIntent::Write) => (self.need, Some(session.written())),
            (Some(session), QueryIntent::Read) if self.need == Need::Nothing => (session.need().await, None),
            _ => (self.need, None),
        }
    }
}

/// A statement that can be sent again.
#[derive(Clone)]
struct Statement {
    sql: SqlStr,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl Statement {
    fn of<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let persistent = query.persistent();
        let sql = query.sql();
        if steers_transaction(sql.as_str()) {
            return Err(PoolError::TransactionByHand.into());
        }
        Ok(Self { sql, arguments, persistent })
    }

    fn run(self, connection: &mut PgConnection) -> BoxStream<'_, Result<Item, sqlx::Error>> {
        match self.arguments {
            Some(arguments) => connection.fetch_many(sqlx::query_with(self.sql, arguments).persistent(self.persistent)),
            None => connection.fetch_many((self.sql, None::<PgArguments>)),
        }
    }
}

/// Which rows somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    None,
    First,
    All,
}

/// What came of a statement.
#[derive(Default)]
struct Gathered {
    rows: Vec<PgRow>,
    done: PgQueryResult,
}

impl Gathered {
    fn take(&mut self, item: Item, keep: Keep) {
        match item {
            Either::Left(done) => self.done.extend([done]),
            Either::Right(row) => match keep {
                Keep::All => self.rows.push(row),
                Keep::First if self.rows.is_empty() => self.rows.push(row),
                Keep::First | Keep::None => {}
            },
        }
    }
}

/// Where what the server says goes.
enum Sink<'s> {
    Gather(&'s mut Gathered, Keep),
    /// To whoever reads the stream; gone when nobody does.
    Pass(&'s mpsc::Sender<Result<Item, sqlx::Error>>, &'s mut bool),
}

impl Sink<'_> {
    /// `false` = nobody wants more.
    async fn take(&mut self, item: Item) -> bool {
        match self {
            Self::Gather(gathered, keep) => {
                gathered.take(item, *keep);
                true
            }
            Self::Pass(reader, passed) => {
                **passed = true;
                reader.send(Ok(item)).await.is_ok()
            }
        }
    }

    /// Before it is sent again.
    fn clear(&mut self) {
        if let Self::Gather(gathered, _) = self {
            **gathered = Gathered::default();
        }
    }

    fn has_passed(&self) -> bool {
        matches!(self, Self::Pass(_, true))
    }
}

impl Route<'_> {
    async fn send(&self, statement: Statement, mut sink: Sink<'_>) -> Result<(), sqlx::Error> {
        let (need, _written) = self.prepare().await;
        let repeatable = repeatable(statement.sql.as_str());
        let mut tried = Tried { intent: self.intent, sent: false, answered: false, again: 0, repeatable };
        let mut let_down = Vec::new();
        loop {
            let lent = self.fleet().lend(self.intent, need, &let_down).await?;
            let server = lent.server;
            let error = match self.send_to(lent, statement.clone(), &mut sink).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            tried = Tried { sent: true, answered: sink.has_passed(), ..tried };
            if !once_more(&tried, failure(&error, self.intent)) {
                return Err(error);
            }
            tried.again += 1;
            self.fleet().retries.fetch_add(1, Relaxed);
            tracing::info!(server = %self.fleet().servers[server].name, "a read was let down and is sent again");
            sink.clear();
            let_down.push(server);
        }
    }

    /// Sends it once.
    async fn send_to(&self, lent: Lent, statement: Statement, sink: &mut Sink<'_>) -> Result<(), sqlx::Error> {
        let fleet = self.fleet();
        let (server, began) = (&fleet.servers[lent.server], Instant::now());
        let mut connection = lent.connection;
        let limit = fleet.limits.query_timeout;
        let answer = async {
            let mut answer = statement.run(&mut connection);
            while let Some(item) = answer.next().await {
                if !sink.take(item?).await {
                    break;
                }
            }
            Ok(())
        };
        let outcome = match limit {
            None => answer.await,
            Some(after) => timeout(after, answer)
                .await
                .unwrap_or_else(|_| Err(PoolError::TooSlow { server: server.name.clone(), after }.into())),
        };
        server.meter.took(self.intent, began.elapsed());
        let Err(error) = outcome else {
            server.answered();
            return Ok(());
        };
        server.meter.errors.fetch_add(1, Relaxed);
        let too_slow = PoolError::of(&error).is_some();
        let failure = if too_slow { Failure::TooSlow } else { failure(&error, self.intent) };
        if failure.blames_server() || too_slow {
            // Nothing good comes of that connection any more; its place in the pool is free at once.
            drop(connection.detach());
        }
        match failure {
            Failure::Lost | Failure::NotServing => server.let_down(),
            Failure::TooSlow => server.abandoned(),
            // It answers, only not as the primary.
            Failure::ReadOnly if self.intent == QueryIntent::Write => {
                server.answered();
                server.retire();
                fleet.ask_all();
            }
            _ => server.answered(),
        }
        Err(error)
    }

    async fn gather(&self, statement: Result<Statement, sqlx::Error>, keep: Keep) -> Result<Gathered, sqlx::Error> {
        let mut gathered = Gathered::default();
        self.send(statement?, Sink::Gather(&mut gathered, keep)).await?;
        Ok(gathered)
    }
}

impl<'c> Executor<'c> for Route<'c> {
    type Database = Postgres;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<PgQueryResult, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let statement = Statement::of(query);
        Box::pin(async move { Ok(self.gather(statement, Keep::None).await?.done) })
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let statement = Statement::of(query);
        Box::pin(async move { Ok(self.gather(statement, Keep::All).await?.rows) })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let statement = Statement::of(query);
        Box::pin(async move { Ok(self.gather(statement, Keep::First).await?.rows.pop()) })
    }

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Item, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let statement = Statement::of(query);
        let (rows, reader) = mpsc::channel(1);
        let pump = async move {
            let mut passed = false;
            let sent = match statement {
                Ok(statement) => self.send(statement, Sink::Pass(&rows, &mut passed)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                // Nobody reads any more = nobody needs to know.
                let _ = rows.send(Err(error)).await;
            }
        };
        pumped(reader, pump).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let mut lent = self.fleet().lend(self.intent, self.need, &[]).await?;
            (&mut *lent.connection).prepare_with(sql.into_sql_str(), parameters).await
        })
    }
}

/// What the pump puts into the channel; the pump runs as the stream is read and ends with it.
fn pumped<T>(reader: mpsc::Receiver<T>, pump: impl Future<Output = ()>) -> impl Stream<Item = T> {
    let rows = stream::unfold(reader, async |mut reader| reader.recv().await.map(|item| (item, reader)));
    let pump = stream::once(pump).filter_map(|()| std::future::ready(None));
    stream::select(rows, pump)
}
