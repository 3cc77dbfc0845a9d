//! Changing one setting of a server for all to come: ALTER SYSTEM, reload, and waiting until a fresh session shows it.
//! `postgresql.auto.conf`, where it stands then, is not replicated; a base backup copies it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::EffectError;
use super::access::Access;
use super::error::denied;
use crate::net::session::{Rows, Session};
use crate::types::BackendName;

const POLL: Duration = Duration::from_millis(25);
const CLEAR_SYNC: Duration = Duration::from_secs(5);

/// One setting and what it shall become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    /// What `SHOW` says once it is so.
    pub(super) wanted: &'static str,
    /// The statement.
    pub(super) sql: &'static str,
}

/// Nobody is waited for at a commit.
const NO_SYNC: Setting =
    Setting { name: "synchronous_standby_names", wanted: "", sql: "ALTER SYSTEM SET synchronous_standby_names = ''" };

/// Empties `synchronous_standby_names`.
pub(super) async fn clear_sync(access: &Access, backend: &BackendName, address: SocketAddr) -> Result<(), EffectError> {
    let deadline = Instant::now() + CLEAR_SYNC;
    let mut session = access.open(backend, address, deadline).await?;
    order(&mut session, NO_SYNC, deadline).await?;
    let shown = shown_to_newcomers(access, backend, address, NO_SYNC, deadline).await;
    session.close(deadline).await;
    shown.map(drop)
}

/// Writes the setting and tells the server to read it.
pub(super) async fn order(session: &mut Session, setting: Setting, deadline: Instant) -> Result<(), EffectError> {
    let user = current_user(session, deadline).await?;
    let grant = format!("GRANT ALTER SYSTEM ON PARAMETER {} TO {user}", setting.name);
    let written = session.query(setting.sql, deadline).await;
    written.map_err(|error| denied(error, "ALTER SYSTEM is not allowed", grant))?;
    let grant = format!("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {user}");
    let reloaded = session.query("SELECT pg_reload_conf()", deadline).await;
    reloaded.map_err(|error| denied(error, "pg_reload_conf() is not allowed", grant))?;
    Ok(())
}

/// Waits until a session that begins now has the setting: then every session does that begins later, and the server has
/// told all others. Gives that session.
pub(super) async fn shown_to_newcomers(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    setting: Setting,
    deadline: Instant,
) -> Result<Session, EffectError> {
    let sql = format!("SELECT current_setting('{}')", setting.name);
    loop {
        let mut session = access.open(backend, address, deadline).await?;
        let found = text(session.query(&sql, deadline).await?, "a setting")?;
        if found == setting.wanted {
            return Ok(session);
        }
        session.close(deadline).await;
        if Instant::now() + POLL >= deadline {
            return Err(EffectError::SettingStays { name: setting.name, wanted: setting.wanted, found });
        }
        sleep(POLL).await;
    }
}

/// The login's name as an SQL identifier.
pub(super) async fn current_user(session: &mut Session, deadline: Instant) -> Result<String, EffectError> {
    text(session.query("SELECT quote_ident(session_user)", deadline).await?, "session_user")
}

/// The only column of the only row.
pub(super) fn text(rows: Rows, asked: &'static str) -> Result<String, EffectError> {
    let first = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    first.ok_or(EffectError::Answer(asked))
}
