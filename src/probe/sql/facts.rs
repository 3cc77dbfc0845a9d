//! The one query of the `sql` probe and the reading of its one row. Pure: no connection.

use std::time::Duration;

use crate::failover::observation::{Facts, Receiver, ReceiverRow, Role, SyncState};
use crate::types::{Lsn, SystemId, Timeline, WallTime};

/// Everything a sample reads, in one round trip, the same text for a primary and a standby of PostgreSQL 12 to 18.
///
/// - The role is read once: a standby that is promoted meanwhile answers as a standby, and nothing raises.
/// - The receiver goes through `to_jsonb` because PostgreSQL 12 has `received_lsn` where later ones have
///   `written_lsn`. Without `pg_read_all_stats` its row is there and its columns are NULL.
/// - The timeline never comes from `pg_control_checkpoint()`: that lags a promotion by a checkpoint.
pub const PROBE_SQL: &str = "\
WITH self AS MATERIALIZED (
  SELECT pg_is_in_recovery() AS standby,
         pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS stats,
         split_part(current_setting('application_name'), '/', 2) AS daemon
), receiver AS MATERIALIZED (
  SELECT to_jsonb(r) AS j FROM pg_stat_wal_receiver r LIMIT 1
), walsender AS MATERIALIZED (
  SELECT application_name, state, sync_state FROM pg_stat_replication
)
SELECT
  self.standby,
  (SELECT system_identifier FROM pg_control_system()),
  CASE WHEN NOT self.standby THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
  CASE WHEN self.standby THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
       ELSE pg_current_wal_flush_lsn() END,
  CASE WHEN self.standby THEN pg_last_wal_replay_lsn() END,
  host(inet_server_addr()) || ':' || inet_server_port(),
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
  (SELECT count(*) FROM receiver),
  receiver.j->>'status',
  receiver.j->>'received_tli',
  greatest(coalesce(receiver.j->>'written_lsn', receiver.j->>'received_lsn')::pg_lsn,
           (receiver.j->>'latest_end_lsn')::pg_lsn),
  (extract(epoch FROM (receiver.j->>'last_msg_send_time')::timestamptz) * 1000000)::bigint,
  (extract(epoch FROM (receiver.j->>'last_msg_receipt_time')::timestamptz) * 1000000)::bigint,
  (receiver.j->>'sender_host') || ':' || (receiver.j->>'sender_port'),
  (extract(epoch FROM current_setting('wal_receiver_timeout')::interval) * 1000)::bigint,
  (SELECT has_function_privilege(r.oid, 'pg_promote(boolean, integer)', 'EXECUTE') FROM pg_roles r
    WHERE r.rolname = coalesce(nullif(current_setting('pgpivot.promoter', true), ''), current_user)),
  self.stats,
  current_setting('synchronous_standby_names'),
  (SELECT string_agg(application_name, chr(10)) FROM walsender WHERE sync_state IN ('sync', 'quorum')),
  (SELECT string_agg(application_name, chr(10)) FROM walsender WHERE state = 'streaming'),
  (SELECT string_agg(DISTINCT application_name, chr(10)) FROM pg_stat_activity
    WHERE application_name LIKE 'pgpivot/%' AND split_part(application_name, '/', 2) <> self.daemon),
  receiver.j->>'conninfo',
  current_setting('synchronous_commit')
FROM self LEFT JOIN receiver ON true";

/// The part of [`PROBE_SQL`] that an administrator may have revoked.
const SYSTEM_IDENTIFIER: &str = "(SELECT system_identifier FROM pg_control_system())";

/// A row that is not the answer to [`PROBE_SQL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer to the probe's query is not what was asked for")]
pub(super) struct BadRow;

/// [`PROBE_SQL`] for a login that may not execute `pg_control_system()`.
pub(super) fn without_system_identifier() -> String {
    PROBE_SQL.replace(SYSTEM_IDENTIFIER, "NULL")
}

/// Reads the one row.
pub(super) fn parse(rows: &[Vec<Option<String>>]) -> Result<Facts, BadRow> {
    let [row] = rows else { return Err(BadRow) };
    let mut columns = row.iter().map(Option::as_deref);
    let mut next = || columns.next().ok_or(BadRow);

    let standby = truth(next()?)?.ok_or(BadRow)?;
    let mut facts = Facts { role: if standby { Role::Standby } else { Role::Primary }, ..Facts::default() };
    facts.system_id = number(next()?)?.map(SystemId);
    let timeline = next()?.map(|hex| u32::from_str_radix(hex, 16)).transpose().map_err(|_| BadRow)?;
    facts.lsn = lsn(next()?)?;
    facts.replay_lsn = lsn(next()?)?;
    facts.node = next()?.map(str::to_owned);
    facts.clock = number(next()?)?.map(WallTime);

    let rows_of_receiver: u64 = number(next()?)?.ok_or(BadRow)?;
    let status = next()?;
    let mut receiver = ReceiverRow {
        streaming: status == Some("streaming"),
        timeline: number(next()?)?.map(Timeline),
        lsn: lsn(next()?)?,
        sent: number(next()?)?.map(WallTime),
        received: number(next()?)?.map(WallTime),
        sender: next()?.map(str::to_owned),
        application_name: None,
    };
    let receiver_timeout = number(next()?)?.map(Duration::from_millis);
    let may_promote = truth(next()?)?;
    let may_read_stats = truth(next()?)?.ok_or(BadRow)?;
    facts.may_read_stats = Some(may_read_stats);
    let sync_names = next()?.unwrap_or_default();
    let synchronous = lines(next()?);
    let standbys = lines(next()?);
    facts.daemons = lines(next()?);
    receiver.application_name = next()?.and_then(application_name);
    let commit = next()?.unwrap_or_default().to_owned();

    if standby {
        facts.timeline = receiver.timeline;
        facts.receiver = match (rows_of_receiver, status) {
            (0, _) => Receiver::Gone,
            (_, None) => Receiver::Unknown,
            (_, Some(_)) => Receiver::Row(receiver),
        };
        facts.receiver_timeout = receiver_timeout;
        facts.may_promote = may_promote;
    } else {
        facts.timeline = timeline.map(Timeline);
        // Who is synchronous cannot be seen without the privilege, and nobody would be a false alarm.
        let visible = may_read_stats || sync_names.trim().is_empty();
        facts.sync = visible.then(|| SyncState { names: sync_names.to_owned(), synchronous, commit });
        facts.standbys = standbys;
    }
    Ok(facts)
}

/// Under which name a standby is listed at its upstream. `pg_stat_wal_receiver` shows the options of the connection one
/// after the other and quotes nothing.
fn application_name(conninfo: &str) -> Option<String> {
    option(conninfo, "application_name").or_else(|| option(conninfo, "fallback_application_name"))
}

fn option(conninfo: &str, key: &str) -> Option<String> {
    let is_key = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let mut found: Option<String> = None;
    for word in conninfo.split(' ') {
        match (word.split_once('='), &mut found) {
            (Some((known, _)), Some(_)) if is_key(known) => break,
            (Some((known, value)), None) if known == key => found = Some(value.to_owned()),
            (_, Some(value)) => {
                value.push(' ');
                value.push_str(word);
            }
            (_, None) => {}
        }
    }
    found.filter(|value| !value.is_empty())
}

fn truth(value: Option<&str>) -> Result<Option<bool>, BadRow> {
    match value {
        None => Ok(None),
        Some("t") => Ok(Some(true)),
        Some("f") => Ok(Some(false)),
        Some(_) => Err(BadRow),
    }
}

fn number<T: std::str::FromStr>(value: Option<&str>) -> Result<Option<T>, BadRow> {
    value.map(str::parse).transpose().map_err(|_| BadRow)
}

fn lsn(value: Option<&str>) -> Result<Option<Lsn>, BadRow> {
    number(value)
}

fn lines(value: Option<&str>) -> Vec<String> {
    value.unwrap_or_default().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns in the order of [`PROBE_SQL`]; `~` = NULL.
    fn row(text: &str) -> Vec<Vec<Option<String>>> {
        vec![text.split('|').map(|value| (value != "~").then(|| value.replace("\\n", "\n"))).collect()]
    }

    #[test]
    fn a_streaming_standby_tells_what_it_receives_and_from_whom() {
        let facts = parse(&row(
            "t|7710212129376727583|~|0/3003260|0/3003258|127.0.0.1:5542|1763637653488119|1|streaming|1|0/3003260|\
             1763637653400000|1763637653400500|127.0.0.1:5541|60000|t|t||~|~|~|user=r application_name=north 1 sslmode=prefer|on",
        ))
        .unwrap();
        assert_eq!(facts.role, Role::Standby);
        assert_eq!(facts.timeline, Some(Timeline(1)));
        assert_eq!((facts.lsn, facts.replay_lsn), (Some(Lsn(0x0300_3260)), Some(Lsn(0x0300_3258))));
        assert_eq!(facts.receiver_timeout, Some(Duration::from_secs(60)));
        assert_eq!((facts.may_promote, facts.may_read_stats, facts.sync), (Some(true), Some(true), None));
        let Receiver::Row(receiver) = facts.receiver else { panic!("a row was expected") };
        assert!(receiver.streaming);
        assert_eq!(receiver.sent, Some(WallTime(1_763_637_653_400_000)));
        assert_eq!(receiver.sender.as_deref(), Some("127.0.0.1:5541"));
        assert_eq!(receiver.application_name.as_deref(), Some("north 1"));
    }

    #[test]
    fn a_receiver_that_is_gone_is_told_from_one_that_must_not_be_seen() {
        let gone = "t|1|~|0/1|0/1|~|1|0|~|~|~|~|~|~|60000|f|f||~|~|~|~|on";
        assert_eq!(parse(&row(gone)).unwrap().receiver, Receiver::Gone);
        let hidden = "t|1|~|0/1|0/1|~|1|1|~|~|~|~|~|~|60000|f|f||~|~|~|~|on";
        assert_eq!(parse(&row(hidden)).unwrap().receiver, Receiver::Unknown);
    }

    #[test]
    fn a_primary_tells_its_timeline_its_standbys_and_the_other_daemons() {
        let facts = parse(&row(
            "f|5|0000000A|2/0|~|10.0.0.1:5432|1|0|~|~|~|~|~|~|0|~|t|ANY 1 (s1,s2)|s1|s1\\ns2|pgpivot/b/main/3|~|remote_apply",
        ))
        .unwrap();
        assert_eq!((facts.role, facts.timeline), (Role::Primary, Some(Timeline(10))));
        assert_eq!(facts.receiver, Receiver::Unknown);
        assert_eq!(facts.receiver_timeout, None);
        assert_eq!(facts.standbys, ["s1", "s2"]);
        assert_eq!(facts.daemons, ["pgpivot/b/main/3"]);
        let sync = facts.sync.unwrap();
        assert_eq!((sync.names.as_str(), sync.blocks_commits()), ("ANY 1 (s1,s2)", false));
        assert_eq!(sync.commit, "remote_apply");
    }

    #[test]
    fn a_login_that_cannot_see_synchronous_standbys_raises_no_false_alarm() {
        let blind = "f|5|00000001|2/0|~|~|1|0|~|~|~|~|~|~|0|~|f|s1|~|~|~|~|on";
        assert_eq!(parse(&row(blind)).unwrap().sync, None);
    }

    #[test]
    fn a_row_of_another_shape_is_refused() {
        assert_eq!(parse(&[]), Err(BadRow));
        assert_eq!(parse(&row("t|1")), Err(BadRow));
        assert_eq!(parse(&row("maybe|1|~|~|~|~|1|0|~|~|~|~|~|~|0|~|t||~|~|~|~|on")), Err(BadRow));
    }

    #[test]
    fn the_system_identifier_can_be_left_out_of_the_query() {
        assert!(PROBE_SQL.contains(SYSTEM_IDENTIFIER));
        assert!(!without_system_identifier().contains("pg_control_system"));
    }
}
