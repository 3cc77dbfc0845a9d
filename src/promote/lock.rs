//! The lock between daemons: a session-level advisory lock on the candidate (with three backends or more, on a
//! majority), held by sessions of our own through the promotion. It works on a standby and survives its promotion.
//!
//! An advisory lock belongs to one database of a server: daemons of one pair must log in to the same one. Its key is
//! two integers, as `pg_locks` shows them: `classid` 1885827190 ("pgpv") and `objid` folded from the system identifier.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::EffectError;
use super::access::{Access, Way};
use super::setting::{call, text};
use crate::failover::action::LockResult;
use crate::net::session::Session;
use crate::types::BackendName;

/// "pgpv".
const CLASS: i32 = 0x7067_7076;
/// For taking it, on all backends at once.
const TAKE: Duration = Duration::from_secs(2);
/// For letting it go in good order; after that the connections are simply closed.
const RELEASE: Duration = Duration::from_secs(1);

/// Holds the lock: while it lives and [`LockGuard::lost`] waits, at least `needed` servers keep it for us.
/// Dropped, it closes its connections, and the servers let go.
#[derive(Debug)]
pub struct LockGuard {
    holders: JoinSet<()>,
    needed: usize,
    release: CancellationToken,
}

impl LockGuard {
    /// Resolves when fewer servers than needed still hold it. Cancel safe.
    pub async fn lost(&mut self) {
        while self.holders.len() >= self.needed {
            if self.holders.join_next().await.is_none() {
                // Nothing was needed and nothing is held.
                return std::future::pending().await;
            }
        }
    }

    /// Is it still held, as far as the servers' last word goes?
    pub fn is_held(&mut self) -> bool {
        while self.holders.try_join_next().is_some() {}
        self.holders.len() >= self.needed
    }

    fn hold(&mut self, mut session: Session) {
        let release = self.release.clone();
        self.holders.spawn(async move {
            tokio::select! {
                error = session.closed() => tracing::warn!(%error, "a session that held the lock was lost"),
                () = release.cancelled() => {
                    let deadline = Instant::now() + RELEASE;
                    // In so many words: a closed connection lets go only when the server gets to read it.
                    let _ = session.query("SELECT pg_advisory_unlock_all()", deadline).await;
                    session.close(deadline).await;
                }
            }
        });
    }

    /// Lets it go, at most 1 s.
    pub async fn release(mut self) {
        self.release.cancel();
        let deadline = Instant::now() + RELEASE;
        while let Ok(Some(_)) = timeout_at(deadline, self.holders.join_next()).await {}
    }
}

/// What one server said.
enum Answer {
    Granted(Session),
    Refused,
    Unreachable(EffectError),
}

/// Asks all at once; the first `needed` grants decide.
pub(super) async fn take(
    access: &Access,
    backends: &[(BackendName, SocketAddr)],
    needed: usize,
) -> (LockResult, Option<LockGuard>) {
    let deadline = Instant::now() + TAKE;
    let mut asked = JoinSet::new();
    for (backend, address) in backends {
        let (way, backend) = (access.way(backend, *address), backend.clone());
        asked.spawn(async move { (backend, ask(way, deadline).await) });
    }
    let mut guard = LockGuard { holders: JoinSet::new(), needed, release: CancellationToken::new() };
    let (mut refused, mut failed) = (false, None);
    while guard.holders.len() < needed && guard.holders.len() + asked.len() >= needed {
        let Some(Ok((backend, answer))) = asked.join_next().await else {
            break;
        };
        match answer {
            Answer::Granted(session) => guard.hold(session),
            Answer::Refused => refused = true,
            Answer::Unreachable(error) => {
                tracing::info!(%backend, %error, "lock not asked for");
                failed = Some(error);
            }
        }
    }
    if guard.holders.len() >= needed {
        return (LockResult::Held, Some(guard));
    }
    // Whoever was asked and has not answered: closing the connection takes the question back, or the lock.
    asked.shutdown().await;
    guard.release().await;
    let result = match failed {
        _ if refused => LockResult::Busy,
        Some(error) => LockResult::Failed(error.to_string()),
        None => LockResult::Failed("fewer backends were asked than grants are needed".into()),
    };
    (result, None)
}

async fn ask(way: Result<Way, EffectError>, deadline: Instant) -> Answer {
    match try_on(way, deadline).await {
        Ok((true, session)) => Answer::Granted(session),
        Ok((false, mut session)) => {
            let holder = holder(&mut session, deadline).await;
            tracing::info!(holder, "lock is held by somebody else");
            session.close(deadline).await;
            Answer::Refused
        }
        Err(error) => Answer::Unreachable(error),
    }
}

async fn try_on(way: Result<Way, EffectError>, deadline: Instant) -> Result<(bool, Session), EffectError> {
    let mut way = way?;
    let name = way.name_literal();
    loop {
        let (mut session, origin) = way.session(deadline).await?;
        match try_lock(&mut session, &name, deadline).await {
            Err(error) if origin.excuses(&session, &error) => {}
            granted => return Ok((granted?, session)),
        }
    }
}

async fn try_lock(session: &mut Session, name: &str, deadline: Instant) -> Result<bool, EffectError> {
    // A session opened in advance still bears the epoch of that time.
    session.query(&format!("SET application_name = {name}"), deadline).await?;
    let key = "(s # (s >> 32))::bit(32)::int) FROM (SELECT system_identifier AS s FROM pg_control_system()) AS pair";
    let expression = format!("pg_try_advisory_lock({CLASS}, {key}");
    Ok(call(session, &expression, "pg_control_system()", deadline).await? == "t")
}

/// Who holds it, for the log.
async fn holder(session: &mut Session, deadline: Instant) -> Option<String> {
    let sql = format!(
        "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND l.classid = {CLASS} AND l.objsubid = 2 AND l.granted LIMIT 1"
    );
    text(session.query(&sql, deadline).await.ok()?, "the holder").ok()
}
