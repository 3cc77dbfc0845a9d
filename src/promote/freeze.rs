//! A switchover's first half on the old primary: read-only for newcomers, no client left, the log standing still.
//!
//! What it binds: every session that begins later is read-only by default, and every client session that began before
//! is ended, so transactions left open and sessions that had set themselves read-write are gone. Only superusers can
//! end superusers: for another login theirs stay, if they are in no transaction; their next one is read-only by default.
//! Walsenders stay, so that the standby gets all, commits that were never waited for included.
//!
//! What it does not bind: who connects anew past the proxy, or is a superuser, and sets himself read-write; COMMIT
//! PREPARED of a transaction prepared before; workers inside the server. A write of theirs shows as a log that moves,
//! here or at the read after the promotion was sent. A prepared transaction is in the log and goes along to the new
//! primary.
//!
//! Whoever answers must be the latched server: an address may lead to another one since a probe last asked.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::EffectError;
use super::access::Access;
use super::latched::must_be_latched;
use super::setting::{self, Setting, order, shown_to_newcomers};
use crate::failover::action::Latched;
use crate::net::session::Session;
use crate::types::{BackendName, Lsn};

pub(super) const READ_ONLY: Setting<'static> = Setting {
    name: "default_transaction_read_only",
    wanted: "on",
    sql: "ALTER SYSTEM SET default_transaction_read_only = on",
};
pub(super) const READ_WRITE: Setting<'static> = Setting {
    name: "default_transaction_read_only",
    wanted: "off",
    sql: "ALTER SYSTEM RESET default_transaction_read_only",
};

/// For the setting to reach newcomers.
const SETTING: Duration = Duration::from_secs(5);
/// For transactions of superusers, before anything is changed.
const SUPERUSERS: Duration = Duration::from_secs(2);
/// For sessions to end.
const SESSIONS: Duration = Duration::from_secs(5);
/// For the log to stand still.
const STILL: Duration = Duration::from_secs(5);
/// It stands still when it is the same so much later.
const APART: Duration = Duration::from_millis(200);
const READ: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(25);
/// Beyond the time that is waited for something, for the last answer about it.
const ANSWER: Duration = Duration::from_secs(1);

/// Everybody's client sessions but those of pgpivot itself: by name and by login, for anybody can take the name.
/// `NULL` where statistics may not be read.
const CLIENTS: &str = "FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid \
    WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() \
    AND NOT (a.application_name LIKE 'pgpivot/%' AND a.usename = session_user)";
/// Only a superuser may end a superuser.
const OURS_TO_END: &str = "(NOT coalesce(r.rolsuper, false) OR \
    (SELECT rolsuper FROM pg_roles WHERE rolname = session_user))";

/// Freezes a primary and says where its log stands. Repeating it does no harm. What can be known to stand in the way is
/// looked for before anything is changed.
pub(super) async fn freeze(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    latched: Option<&Latched>,
) -> Result<Lsn, EffectError> {
    let deadline = Instant::now() + SETTING;
    let mut session = access.open(backend, address, deadline).await?;
    must_be_primary(&mut session, deadline).await?;
    must_be_latched(&mut session, latched, deadline).await?;
    must_see_sessions(&mut session, deadline).await?;
    must_bind_everybody(&mut session, deadline).await?;
    Clients::within_reach(&mut session, Instant::now() + SUPERUSERS).await?;
    order(&mut session, READ_ONLY, deadline).await?;
    let newcomer = shown_to_newcomers(access, backend, address, READ_ONLY, deadline).await?;
    end_clients(&mut session, newcomer, Instant::now() + SESSIONS).await.1?;
    let deadline = Instant::now() + STILL;
    flush(&mut session, deadline).await?;
    let lsn = still(&mut session, deadline).await;
    session.close(Instant::now() + POLL).await;
    lsn
}

/// Takes the freeze back, whole or half. A server that is a standby by now takes it as well.
pub(super) async fn unfreeze(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    latched: Option<&Latched>,
) -> Result<(), EffectError> {
    let deadline = Instant::now() + SETTING;
    let mut session = access.open(backend, address, deadline).await?;
    match must_be_latched(&mut session, latched, deadline).await {
        // A side must not stay read-only because a grant was taken from us.
        Ok(()) | Err(EffectError::Denied { .. }) => {}
        Err(error) => return Err(error),
    }
    order(&mut session, READ_WRITE, deadline).await?;
    let newcomer = shown_to_newcomers(access, backend, address, READ_WRITE, deadline).await?;
    newcomer.close(deadline).await;
    session.close(deadline).await;
    Ok(())
}

/// Takes back what a freeze of long ago left on a server that is about to become primary. Best effort: a promotion must
/// not fail for it.
pub(super) async fn thaw_candidate(session: &mut Session, deadline: Instant) -> Result<bool, EffectError> {
    let sql = "SELECT count(*) FROM pg_settings WHERE name = 'default_transaction_read_only' \
               AND setting = 'on' AND source = 'configuration file'";
    if setting::text(session.query(sql, deadline).await?, "a setting")? == "0" {
        return Ok(false);
    }
    order(session, READ_WRITE, deadline).await?;
    Ok(true)
}

/// The flush position of the latched primary.
pub(super) async fn read_flush(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    latched: Option<&Latched>,
) -> Result<Lsn, EffectError> {
    let deadline = Instant::now() + READ;
    let mut session = access.open(backend, address, deadline).await?;
    must_be_primary(&mut session, deadline).await?;
    must_be_latched(&mut session, latched, deadline).await?;
    let end = End::read(&mut session, deadline).await;
    session.close(deadline).await;
    end.map(|end| end.flushed)
}

pub(super) async fn must_be_primary(session: &mut Session, deadline: Instant) -> Result<(), EffectError> {
    match setting::text(session.query("SELECT pg_is_in_recovery()", deadline).await?, "pg_is_in_recovery()")?.as_str() {
        "f" => Ok(()),
        _ => Err(EffectError::NotPrimary),
    }
}

/// Without the right to see other people's sessions none of them would be found, let alone ended.
pub(super) async fn must_see_sessions(session: &mut Session, deadline: Instant) -> Result<(), EffectError> {
    let roles = [
        ("pg_read_all_stats", "other users' sessions may not be seen"),
        ("pg_signal_backend", "other users' sessions may not be ended"),
    ];
    for (role, missing) in roles {
        let sql = format!(
            "SELECT CASE WHEN pg_has_role(session_user, '{role}', 'USAGE') THEN '' ELSE quote_ident(session_user) END"
        );
        let user = setting::text(session.query(&sql, deadline).await?, "pg_has_role()")?;
        if !user.is_empty() {
            return Err(EffectError::Denied { missing, grant: format!("GRANT {role} TO {user}") });
        }
    }
    Ok(())
}

/// A value set for a role or a database outranks the server's.
pub(super) async fn must_bind_everybody(session: &mut Session, deadline: Instant) -> Result<(), EffectError> {
    let sql = "SELECT concat_ws(' in ', 'role ' || nullif(r.rolname, ''), 'database ' || d.datname) \
        FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase \
        CROSS JOIN unnest(s.setconfig) AS c(entry) WHERE entry LIKE 'default\\_transaction\\_read\\_only=%' \
        AND NOT split_part(entry, '=', 2)::boolean ORDER BY 1 LIMIT 1";
    match setting::text(session.query(sql, deadline).await?, "pg_db_role_setting") {
        Ok(whose) => Err(EffectError::Override(whose)),
        Err(_) => Ok(()),
    }
}

/// Clients that hinder a freeze.
struct Clients {
    all: usize,
    /// Superusers in a transaction, whom we may not end.
    beyond_us: usize,
    /// Their names.
    names: String,
}

impl Clients {
    /// Those that began `before`.
    async fn count(session: &mut Session, before: &str, deadline: Instant) -> Result<Self, EffectError> {
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE NOT {OURS_TO_END}), \
             string_agg(DISTINCT a.usename, ', ') FILTER (WHERE NOT {OURS_TO_END}) \
             {CLIENTS} AND a.backend_start < '{before}' AND ({OURS_TO_END} OR a.state IS DISTINCT FROM 'idle')"
        );
        let row = session.query(&sql, deadline).await?.into_iter().next().unwrap_or_default();
        let column = |n: usize| row.get(n).and_then(Option::as_deref).unwrap_or_default();
        let number = |n| column(n).parse().map_err(|_| EffectError::Answer("a count of sessions"));
        Ok(Self { all: number(0)?, beyond_us: number(1)?, names: column(2).to_owned() })
    }

    /// Waits for superusers to end their transactions.
    async fn within_reach(session: &mut Session, deadline: Instant) -> Result<(), EffectError> {
        loop {
            let clients = Self::count(session, "infinity", deadline + ANSWER).await?;
            if clients.beyond_us == 0 {
                return Ok(());
            }
            if Instant::now() + POLL >= deadline {
                return Err(clients.hindrance(Duration::ZERO));
            }
            sleep(POLL).await;
        }
    }

    fn hindrance(self, waited: Duration) -> EffectError {
        if self.beyond_us > 0 {
            EffectError::Superusers { count: self.beyond_us, users: self.names }
        } else {
            EffectError::SessionsStay { count: self.all, waited }
        }
    }
}

/// Ends every client session until none is left that began before the newcomer: those after it are read-only. How many
/// were there at first, too.
pub(super) async fn end_clients(
    session: &mut Session,
    newcomer: Session,
    deadline: Instant,
) -> (u64, Result<(), EffectError>) {
    let mut first = None;
    let result = end_all(session, newcomer, &mut first, deadline).await;
    (first.unwrap_or_default(), result)
}

async fn end_all(
    session: &mut Session,
    mut newcomer: Session,
    first: &mut Option<u64>,
    deadline: Instant,
) -> Result<(), EffectError> {
    let began = Instant::now();
    let sql = "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let since = setting::text(newcomer.query(sql, deadline).await?, "backend_start")?;
    newcomer.close(deadline).await;
    let end = format!("SELECT pg_terminate_backend(a.pid) {CLIENTS} AND {OURS_TO_END}");
    loop {
        let ended = session.query(&end, deadline + ANSWER).await?;
        first.get_or_insert(ended.len() as u64);
        let left = Clients::count(session, &since, deadline + ANSWER).await?;
        if left.all == 0 {
            return Ok(());
        }
        if Instant::now() + POLL >= deadline {
            return Err(left.hindrance(began.elapsed()));
        }
        sleep(POLL).await;
    }
}

/// Brings to disk what clients were told is committed with `synchronous_commit = off`: only flushed log reaches a standby,
/// and the server takes its time. A message in the log is the least that makes a commit flush it.
async fn flush(session: &mut Session, deadline: Instant) -> Result<(), EffectError> {
    let end = End::read(session, deadline).await?;
    if end.flushed >= end.inserted {
        return Ok(());
    }
    let sql = "BEGIN READ WRITE; SET LOCAL synchronous_commit = local; \
        SELECT pg_logical_emit_message(true, 'pgpivot', 'frozen'); COMMIT";
    match session.query(sql, deadline).await {
        Ok(_) => Ok(()),
        Err(error) => {
            session.query("ROLLBACK", deadline).await?;
            let what = "EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text)";
            Err(setting::denied(session, error, "a function may not be called", what, deadline).await)
        }
    }
}

/// Where the log ends: on disk, and in memory, where a commit that nobody waits for is seen first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    flushed: Lsn,
    inserted: Lsn,
}

impl End {
    async fn read(session: &mut Session, deadline: Instant) -> Result<Self, EffectError> {
        let sql = "SELECT pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()";
        let row = session.query(sql, deadline).await?.into_iter().next().unwrap_or_default();
        let column = |n: usize| row.get(n).and_then(Option::as_deref).and_then(|text| text.parse().ok());
        match (column(0), column(1)) {
            (Some(flushed), Some(inserted)) => Ok(Self { flushed, inserted }),
            _ => Err(EffectError::Answer("its position")),
        }
    }
}

/// Waits until the log ends at the same position twice, 200 ms apart, and says where.
async fn still(session: &mut Session, deadline: Instant) -> Result<Lsn, EffectError> {
    let began = Instant::now();
    let first = End::read(session, deadline).await?;
    let mut before = first;
    loop {
        sleep(APART).await;
        let now = End::read(session, deadline + ANSWER).await?;
        if now == before {
            return Ok(now.flushed);
        }
        if Instant::now() + APART >= deadline {
            return Err(EffectError::NotStill { from: first.inserted, to: now.inserted, waited: began.elapsed() });
        }
        before = now;
    }
}
