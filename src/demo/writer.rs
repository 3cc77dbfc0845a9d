//! The demo's application: one row after the other through the proxy, as any client would, and after every gap a count
//! of what was acknowledged and is no longer there. Prints nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::postgres::{WRITER_ROLE, target};
use crate::config::Login;
use crate::net::session::{Session, SessionError, Target};
use crate::net::tls::TlsConfigError;

/// Between two rows.
const PAUSE: Duration = Duration::from_millis(50);
/// Before the next attempt after a connection that was refused.
const RETRY: Duration = Duration::from_millis(100);
/// For a connection that is held, and for a statement. Longer than the proxy holds anybody.
const PATIENCE: Duration = Duration::from_secs(45);
/// Two commits further apart than this are a gap, even if the connection stood.
const GAP: Duration = Duration::from_millis(500);

/// What the writer saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A row was acknowledged.
    Commit {
        /// How many so far.
        rows: u64,
        /// From sending to acknowledgement.
        took: Duration,
        /// Port of the server that took it; 0 when it does not say.
        port: u16,
    },
    /// The connection broke, or none can be had.
    Broken {
        /// In words.
        why: String,
    },
    /// The first row after a gap was acknowledged.
    Gap {
        /// From the last acknowledged row to this one.
        lasted: Duration,
        /// Acknowledged rows that are gone since.
        lost: u64,
        /// Attempts that failed in between.
        errors: u32,
        /// Port of the server now.
        port: u16,
    },
}

impl Seen {
    /// Port of the server behind it.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Commit { port, .. } | Self::Gap { port, .. } => Some(*port),
            Self::Broken { .. } => None,
        }
    }
}

/// Writes until it is stopped or nobody listens any more.
pub async fn run(
    proxy: SocketAddr,
    database: &str,
    seen: mpsc::Sender<Seen>,
    stop: CancellationToken,
) -> Result<(), TlsConfigError> {
    let login = Login { user: WRITER_ROLE.into(), database: database.into(), password: None };
    let mut writer = Writer { target: target(proxy, login)?, seen, rows: 0, lost: 0, errors: 0, last: None };
    tokio::select! {
        () = writer.write() => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

struct Writer {
    target: Target,
    seen: mpsc::Sender<Seen>,
    /// Acknowledged so far; also the number of the last acknowledged row.
    rows: u64,
    /// Of these, known to be gone.
    lost: u64,
    /// Failed attempts since the last acknowledged row.
    errors: u32,
    /// When the last row was acknowledged.
    last: Option<Instant>,
}

/// Nobody listens any more.
struct Deaf;

impl Writer {
    async fn write(&mut self) {
        loop {
            let Err(error) = self.session().await else { return };
            self.errors = self.errors.saturating_add(1);
            if self.tell(Seen::Broken { why: error.to_string() }).await.is_err() {
                return;
            }
            sleep(RETRY).await;
        }
    }

    /// One connection, from login to its end.
    async fn session(&mut self) -> Result<(), SessionError> {
        let mut session = Session::connect(&self.target, deadline()).await?;
        let port = first(&mut session, "SELECT inet_server_port()::text").await?;
        let port = port.parse().unwrap_or_default();
        let mut fresh = true;
        loop {
            let (row, began) = (self.rows + 1, Instant::now());
            // The row that was under way when a connection broke may stand already.
            session
                .query(&format!("INSERT INTO commits (id) VALUES ({row}) ON CONFLICT DO NOTHING"), deadline())
                .await?;
            let before = self.last.replace(Instant::now());
            let lasted = before.map(|b| b.elapsed()).filter(|l| fresh || *l > GAP);
            if let Some(lasted) = lasted {
                let lost = self.count_lost(&mut session).await?;
                let gap = Seen::Gap { lasted, lost, errors: self.errors, port };
                if self.tell(gap).await.is_err() {
                    return Ok(());
                }
            }
            (self.rows, self.errors, fresh) = (row, 0, false);
            if self.tell(Seen::Commit { rows: row, took: began.elapsed(), port }).await.is_err() {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    /// How many acknowledged rows have gone since the last count.
    async fn count_lost(&mut self, session: &mut Session) -> Result<u64, SessionError> {
        let count = first(session, &format!("SELECT count(*) FROM commits WHERE id <= {}", self.rows)).await?;
        let kept: u64 = count.parse().unwrap_or_default();
        let lost = self.rows.saturating_sub(kept);
        let news = lost.saturating_sub(self.lost);
        self.lost = lost;
        Ok(news)
    }

    async fn tell(&self, seen: Seen) -> Result<(), Deaf> {
        self.seen.send(seen).await.map_err(|_| Deaf)
    }
}

/// The first column of the first row, empty when there is none.
async fn first(session: &mut Session, sql: &str) -> Result<String, SessionError> {
    let rows = session.query(sql, deadline()).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
