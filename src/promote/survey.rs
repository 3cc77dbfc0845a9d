//! Reads an old primary and the latched one before the first is made a standby of the second. Changes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::EffectError;
use super::access::Access;
use crate::failover::action::{Source, Standing, Survey};
use crate::net::session::Session;
use crate::types::{BackendName, Lsn, SystemId, Timeline};

/// For each of the two.
const PATIENCE: Duration = Duration::from_secs(4);

/// The timeline of a primary never comes from its last checkpoint, which lags a promotion; a standby that does not
/// stream has nothing newer.
const STANDING: &str = "SELECT (SELECT system_identifier FROM pg_control_system()), pg_is_in_recovery(), \
    CASE WHEN pg_is_in_recovery() THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), \
        nullif((SELECT min_recovery_end_timeline FROM pg_control_recovery()), 0), \
        (SELECT timeline_id FROM pg_control_checkpoint())) END, \
    CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END, \
    CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) \
        ELSE greatest(pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()) END, \
    (current_setting('wal_log_hints')::boolean OR current_setting('data_checksums')::boolean) \
        AND current_setting('full_page_writes')::boolean";
/// Only log of whole segments counts, and of whatever timeline.
const OLDEST: &str = "SELECT min(substr(name, 9)), \
    (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size') \
    FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";
const DATA: &str = "SELECT current_setting('data_directory')";

/// Both of them; each says for itself why it cannot be read.
pub(super) async fn survey(
    access: &Access,
    side: (&BackendName, Option<SocketAddr>),
    source: (&BackendName, Option<SocketAddr>),
) -> Survey {
    let of = |(name, address): (&BackendName, Option<SocketAddr>)| {
        address.ok_or_else(|| EffectError::NoAddress(name.clone()).to_string())
    };
    let (side_read, source_read) =
        tokio::join!(async { standing(access, side.0, of(side)?).await.map_err(|error| error.to_string()) }, async {
            standing(access, source.0, of(source)?).await.map_err(|error| error.to_string())
        },);
    let source = source_read.and_then(|standing: Standing| match (standing.in_recovery, standing.timeline) {
        (false, Some(timeline)) => Ok(Source { system_id: standing.system_id, timeline, oldest: standing.oldest }),
        _ => Err(EffectError::NotPrimary.to_string()),
    });
    Survey { side: side_read, source }
}

async fn standing(access: &Access, backend: &BackendName, address: SocketAddr) -> Result<Standing, EffectError> {
    let deadline = Instant::now() + PATIENCE;
    let mut session = access.open(backend, address, deadline).await?;
    let row = session.query(STANDING, deadline).await?.into_iter().next().unwrap_or_default();
    let mut standing = parse(&row).ok_or(EffectError::Answer("how it stands"))?;
    standing.oldest = oldest(&mut session, deadline).await;
    // Both may be refused, and nothing depends on them.
    let data = session.query(DATA, deadline).await.ok();
    standing.data = data.and_then(|rows| rows.into_iter().next()?.into_iter().next()?);
    session.close(deadline).await;
    Ok(standing)
}

fn parse(row: &[Option<String>]) -> Option<Standing> {
    let [system, recovery, standby, primary, lsn, rewindable] = row else { return None };
    let timeline = match (standby, primary) {
        (Some(number), _) => number.parse().ok().map(Timeline),
        (None, Some(hex)) => u32::from_str_radix(hex, 16).ok().map(Timeline),
        (None, None) => None,
    };
    Some(Standing {
        system_id: SystemId(system.as_deref()?.parse().ok()?),
        in_recovery: recovery.as_deref()? == "t",
        timeline,
        lsn: lsn.as_deref().and_then(|text| text.parse().ok()),
        rewindable: rewindable.as_deref()? == "t",
        oldest: None,
        data: None,
    })
}

/// Where the oldest log file begins; `None` where that may not be seen.
async fn oldest(session: &mut Session, deadline: Instant) -> Option<Lsn> {
    let row = session.query(OLDEST, deadline).await.ok()?.into_iter().next()?;
    begins(row.first()?.as_deref()?, row.get(1)?.as_deref()?)
}

/// `XXXXXXXXYYYYYYYY` of a log file's name: which 4 GiB, and which segment in them.
fn begins(name: &str, segment: &str) -> Option<Lsn> {
    let (high, low) = name.split_at_checked(8)?;
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    Some(Lsn((number(high)? << 32).checked_add(number(low)?.checked_mul(segment.parse().ok()?)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_tells_its_timeline_by_its_log_file_and_a_standby_by_a_number() {
        let row = |texts: [Option<&str>; 6]| texts.map(|text| text.map(str::to_owned));
        let primary =
            parse(&row([Some("77"), Some("f"), None, Some("0000001A"), Some("0/3018058"), Some("t")])).unwrap();
        assert_eq!((primary.timeline, primary.in_recovery, primary.rewindable), (Some(Timeline(26)), false, true));
        assert_eq!(primary.lsn, Some(Lsn(0x301_8058)));
        let standby = parse(&row([Some("77"), Some("t"), Some("3"), None, None, Some("f")])).unwrap();
        assert_eq!((standby.timeline, standby.in_recovery, standby.lsn), (Some(Timeline(3)), true, None));
        assert_eq!(parse(&row([None, Some("t"), Some("3"), None, None, Some("f")])), None, "who it is must be known");
    }

    #[test]
    fn the_oldest_log_file_tells_where_it_begins() {
        assert_eq!(begins("0000000000000003", "16777216"), Some(Lsn(0x300_0000)));
        assert_eq!(begins("00000002000000FF", "16777216"), Some(Lsn(0x2_FF00_0000)));
        assert_eq!(begins("00000001", "16777216"), None);
    }
}
