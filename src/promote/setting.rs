//! Changing one setting of a server for all to come: ALTER SYSTEM, reload, and waiting until a fresh session shows it.
//! `postgresql.auto.conf`, where it stands then, is not replicated; a base backup copies it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::EffectError;
use super::access::Access;
use crate::net::session::{Rows, Session, SessionError};
use crate::types::BackendName;

const POLL: Duration = Duration::from_millis(25);
/// Beyond the time that is waited for a setting, for the last answer about it.
const ANSWER: Duration = Duration::from_secs(1);
const SET_SYNC: Duration = Duration::from_secs(5);

/// One setting and what it shall become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) name: &'static str,
    /// What `SHOW` says once it is so.
    pub(super) wanted: &'a str,
    /// The statement.
    pub(super) sql: &'a str,
}

/// Who is waited for at a commit; empty = nobody.
pub(super) async fn set_sync(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    names: &str,
) -> Result<(), EffectError> {
    let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{}'", names.replace('\'', "''"));
    let setting = Setting { name: "synchronous_standby_names", wanted: names, sql: &sql };
    let deadline = Instant::now() + SET_SYNC;
    let mut session = access.open(backend, address, deadline).await?;
    order(&mut session, setting, deadline).await?;
    let shown = shown_to_newcomers(access, backend, address, setting, deadline).await;
    session.close(deadline).await;
    shown.map(drop)
}

/// Writes the setting and tells the server to read it.
pub(super) async fn order(session: &mut Session, setting: Setting<'_>, deadline: Instant) -> Result<(), EffectError> {
    if let Err(error) = session.query(setting.sql, deadline).await {
        let what = format!("ALTER SYSTEM ON PARAMETER {}", setting.name);
        return Err(denied(session, error, "ALTER SYSTEM is not allowed", &what, deadline).await);
    }
    call(session, "pg_reload_conf()", "pg_reload_conf()", deadline).await.map(drop)
}

/// Calls a function that may have to be granted; `signature` is how GRANT names it.
pub(super) async fn call(
    session: &mut Session,
    expression: &str,
    signature: &'static str,
    deadline: Instant,
) -> Result<String, EffectError> {
    match session.query(&format!("SELECT {expression}"), deadline).await {
        Ok(rows) => text(rows, signature),
        Err(error) => {
            let what = format!("EXECUTE ON FUNCTION {signature}");
            Err(denied(session, error, "a function may not be called", &what, deadline).await)
        }
    }
}

/// A refused statement with the grant that would allow it; every other failure as it is.
pub(super) async fn denied(
    session: &mut Session,
    error: SessionError,
    missing: &'static str,
    what: &str,
    deadline: Instant,
) -> EffectError {
    if error.sqlstate() != Some("42501") {
        return EffectError::Session(error);
    }
    // Functions are granted per database: the statement must be typed in ours.
    let sql = "SELECT quote_ident(session_user) || ', in database ' || quote_ident(current_database())";
    match session.query(sql, deadline).await {
        Ok(rows) => {
            let to = text(rows, "session_user").unwrap_or_default();
            EffectError::Denied { missing, grant: format!("GRANT {what} TO {to}") }
        }
        Err(_) => EffectError::Session(error),
    }
}

/// Waits until a session that begins now has the setting: then every session does that begins later, and the server has
/// told all others. Gives that session.
pub(super) async fn shown_to_newcomers(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    setting: Setting<'_>,
    deadline: Instant,
) -> Result<Session, EffectError> {
    let sql = format!("SELECT current_setting('{}')", setting.name);
    loop {
        let mut session = access.open(backend, address, deadline + ANSWER).await?;
        let found = text(session.query(&sql, deadline + ANSWER).await?, "a setting")?;
        if found == setting.wanted {
            return Ok(session);
        }
        session.close(deadline).await;
        if Instant::now() + POLL >= deadline {
            return Err(EffectError::SettingStays { name: setting.name, wanted: setting.wanted.to_owned(), found });
        }
        sleep(POLL).await;
    }
}

/// The only column of the only row.
pub(super) fn text(rows: Rows, asked: &'static str) -> Result<String, EffectError> {
    let first = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    first.ok_or(EffectError::Answer(asked))
}
