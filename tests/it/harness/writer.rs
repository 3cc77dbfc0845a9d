//! Applications that write: each row has an id of its own and is sent once, and what became of it is kept. Holds no
//! judgement; `checker` compares the journal with the servers.

use super::eventually::eventually;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

/// A writer that waits longer than this reports itself as stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Numbers of writers are never used twice, so that no id is.
static NEXT: AtomicI32 = AtomicI32::new(1);
/// Ids of one writer are its number times this, and what follows.
pub const IDS_OF_A_WRITER: i64 = 1_000_000_000;
const INSERT: &str =
    "INSERT INTO ledger (id, writer, sent_us, server) VALUES ($1, $2, $3, inet_server_port()) RETURNING server";

/// A row that the application was told to be committed.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// Of the row.
    pub id: i64,
    /// The port of the server that said so, in its own words.
    pub server: u16,
    /// When it was sent, microseconds since 1970, and when the word came.
    pub sent_us: i64,
    /// When the word came.
    pub at: Instant,
}

/// An error that an application met.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "benches/failover tells errors by time and by writer")]
pub struct Failure {
    /// Whose.
    pub writer: i32,
    /// The SQLSTATE, or `closed` for a connection that ended without one.
    pub word: String,
    /// Did the connection stand, or was it still being made?
    pub connected: bool,
    /// When it was met.
    pub at: Instant,
}

/// What became of all that was sent.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// In the order in which the words came.
    pub acknowledged: Vec<Acknowledged>,
    /// By SQLSTATE, or `closed` for a connection that ended without one.
    pub errors: BTreeMap<String, usize>,
    /// The same errors, one by one.
    pub failures: Vec<Failure>,
    /// Connections that were opened.
    pub logins: usize,
}

impl Journal {
    /// The longest time without any acknowledgement, over all writers.
    pub fn longest_gap(&self) -> Duration {
        let pairs = self.acknowledged.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at));
        pairs.max().unwrap_or_default()
    }

    /// How many rows this server has acknowledged.
    pub fn acknowledged_by(&self, port: u16) -> usize {
        self.acknowledged.iter().filter(|row| row.server == port).count()
    }

    /// Adds what another group of writers was told.
    pub fn append(&mut self, other: Journal) {
        self.acknowledged.extend(other.acknowledged);
        self.acknowledged.sort_by_key(|row| row.at);
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.at);
        self.logins += other.logins;
        for (word, times) in other.errors {
            *self.errors.entry(word).or_default() += times;
        }
    }

    /// All errors together.
    pub fn error_count(&self) -> usize {
        self.errors.values().sum()
    }
}

/// Applications at work until they are stopped or dropped.
#[derive(Debug)]
pub struct Writers {
    journal: Arc<Mutex<Journal>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    open: Arc<Open>,
    /// How many connections are open at most.
    pub count: usize,
}

/// Connections that are open or being made.
#[derive(Debug, Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Counted as open while it lives.
struct Opened<'a>(&'a Open);

impl Open {
    fn enter(&self) -> Opened<'_> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Opened(self)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a connection lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    /// Until an error ends it.
    Long,
    /// For one row.
    Brief,
}

impl Writers {
    /// So many writers, each with one connection and a row every 10 ms.
    pub fn start(to: SocketAddr, count: usize) -> Self {
        Self::start_at_pace(to, count, Duration::from_millis(10))
    }

    /// So many writers, each with one connection and a row every `pace`.
    pub fn start_at_pace(to: SocketAddr, count: usize, pace: Duration) -> Self {
        Self::begin(to, count, pace, Stay::Long)
    }

    /// So many writers, each of which opens a connection every `pace`, writes one row and closes it.
    #[allow(dead_code, reason = "benches/failover mixes them in")]
    pub fn start_brief(to: SocketAddr, count: usize, pace: Duration) -> Self {
        Self::begin(to, count, pace, Stay::Brief)
    }

    fn begin(to: SocketAddr, count: usize, pace: Duration, stay: Stay) -> Self {
        let (journal, stop) = (Arc::new(Mutex::new(Journal::default())), CancellationToken::new());
        let open = Arc::new(Open::default());
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let writer = Writer {
                number: NEXT.fetch_add(1, Ordering::Relaxed),
                to,
                pace,
                stay,
                open: open.clone(),
                journal: journal.clone(),
            };
            let stopped = stop.clone().cancelled_owned();
            tasks.spawn(async move {
                tokio::select! {
                    () = stopped => {}
                    () = writer.run() => {}
                }
            });
        }
        Self { journal, stop, tasks, open, count }
    }

    /// Connections that are open or being made now; from here on the most are counted anew.
    #[allow(dead_code, reason = "benches/failover holds errors against it")]
    pub fn open_now(&self) -> usize {
        let now = self.open.now.load(Ordering::Relaxed);
        self.open.most.store(now, Ordering::Relaxed);
        now
    }

    /// The most that were open at one time since [`Writers::open_now`].
    #[allow(dead_code, reason = "benches/failover holds errors against it")]
    pub fn most_open(&self) -> usize {
        self.open.most.load(Ordering::Relaxed)
    }

    /// What became of the rows so far.
    pub fn journal(&self) -> Journal {
        self.journal.lock().unwrap().clone()
    }

    /// Waits until this server has acknowledged so many rows more than now.
    pub async fn go_on_at(&self, port: u16, rows: usize, within: Duration) {
        let before = self.journal().acknowledged_by(port);
        eventually(&format!("the server on port {port} acknowledges {rows} rows"), within, async || {
            let journal = self.journal();
            let more = journal.acknowledged_by(port) - before;
            if more >= rows { Ok(()) } else { Err(format!("{more} rows, errors {:?}", journal.errors)) }
        })
        .await;
    }

    /// Ends the applications and hands their journal out.
    pub async fn stop(mut self) -> Journal {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.journal()
    }
}

struct Writer {
    number: i32,
    to: SocketAddr,
    pace: Duration,
    stay: Stay,
    open: Arc<Open>,
    journal: Arc<Mutex<Journal>>,
}

impl Writer {
    async fn run(&self) {
        let mut next_id = i64::from(self.number) * IDS_OF_A_WRITER;
        let mut pace = interval(self.pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let _opened = self.open.enter();
            match timeout(STUCK, self.connect()).await {
                Err(_) => self.failed("stuck while connecting".to_owned(), false),
                Ok(Err(e)) => self.failed(word(&e), false),
                Ok(Ok(client)) => {
                    self.journal.lock().unwrap().logins += 1;
                    if let Err(word) = self.work(&client, &mut next_id, &mut pace).await {
                        self.failed(word, true);
                    }
                }
            }
        }
    }

    /// Writes until the connection has served, or the error that ended it.
    async fn work(&self, client: &Client, next_id: &mut i64, pace: &mut Interval) -> Result<(), String> {
        loop {
            if self.stay == Stay::Long {
                pace.tick().await;
            }
            *next_id += 1;
            match timeout(STUCK, self.write(client, *next_id)).await {
                Ok(Ok(())) if self.stay == Stay::Brief => return Ok(()),
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(word(&e)),
                Err(_) => return Err("stuck while writing".to_owned()),
            }
        }
    }

    fn failed(&self, word: String, connected: bool) {
        let mut journal = self.journal.lock().unwrap();
        *journal.errors.entry(word.clone()).or_default() += 1;
        journal.failures.push(Failure { writer: self.number, word, connected, at: Instant::now() });
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host(self.to.ip().to_string()).port(self.to.port()).user("app").password("app").dbname("app");
        let (client, connection) = config.application_name("writer").connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn write(&self, client: &Client, id: i64) -> Result<(), tokio_postgres::Error> {
        let sent_us = now_us();
        let row = client.query_one(INSERT, &[&id, &self.number, &sent_us]).await?;
        let server = u16::try_from(row.get::<_, i32>(0)).unwrap();
        let acknowledged = Acknowledged { id, server, sent_us, at: Instant::now() };
        self.journal.lock().unwrap().acknowledged.push(acknowledged);
        Ok(())
    }
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

/// The SQLSTATE, or `closed`.
fn word(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| "closed".to_owned(), |code| code.code().to_owned())
}
