//! Asks a server what it is: in recovery or not, on which line, how far. One statement on a connection that is given.

use sqlx::{Executor, PgConnection, Row};

use super::primary::{Role, Seen};
use crate::types::{Lsn, SystemId, Timeline};

/// For a role that may ask for everything.
const ALL: &str = "
SELECT r AS recovery, current_setting('default_transaction_read_only') = 'on' AS fenced,
  CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text AS position,
  CASE WHEN r THEN greatest((SELECT received_tli FROM pg_stat_wal_receiver),
      (SELECT timeline_id FROM pg_control_checkpoint()), (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8 END::text AS timeline,
  (SELECT system_identifier FROM pg_control_system())::text AS system,
  (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8::text AS started
FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS now";

/// For one that was denied the control file.
const LESS: &str = "
SELECT r AS recovery, current_setting('default_transaction_read_only') = 'on' AS fenced,
  CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text AS position,
  CASE WHEN r THEN (SELECT received_tli FROM pg_stat_wal_receiver)
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8 END::text AS timeline,
  NULL::text AS system, (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8::text AS started
FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS now";

const DENIED: &str = "42501";

/// What the server says of itself.
pub(super) async fn look(connection: &mut PgConnection) -> Result<Seen, sqlx::Error> {
    let version: String = connection.fetch_one("SELECT version()").await?.try_get(0)?;
    if version.contains("CockroachDB") {
        return Ok(Seen { role: Role::Cockroach, ..Seen::default() });
    }
    look_at_postgres(connection).await
}

/// As [`look`], where it is known that it is PostgreSQL.
pub(super) async fn look_at_postgres(connection: &mut PgConnection) -> Result<Seen, sqlx::Error> {
    let denied = |error: &sqlx::Error| error.as_database_error().is_some_and(|e| e.code().as_deref() == Some(DENIED));
    let row = match connection.fetch_one(ALL).await {
        Err(error) if denied(&error) => connection.fetch_one(LESS).await?,
        row => row?,
    };
    let number = |column: &str| -> Result<Option<i64>, sqlx::Error> {
        Ok(row.try_get::<Option<String>, _>(column)?.and_then(|text| text.parse().ok()))
    };
    let role = match row.try_get("recovery")? {
        true => Role::Standby,
        false => Role::Primary { writable: !row.try_get::<bool, _>("fenced")? },
    };
    Ok(Seen {
        role,
        timeline: number("timeline")?.and_then(|timeline| u32::try_from(timeline).ok()).map(Timeline),
        // Printed by PostgreSQL as a signed number.
        system: number("system")?.map(|system| SystemId(system.cast_unsigned())),
        started: number("started")?,
        position: row.try_get::<Option<String>, _>("position")?.and_then(|text| text.parse::<Lsn>().ok()),
    })
}
