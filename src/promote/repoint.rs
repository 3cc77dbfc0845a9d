//! Points a standby at the new primary: the place in `primary_conninfo` is exchanged by ALTER SYSTEM and a reload, and
//! the slot that it streams from is made there. Where SQL may not, the operator's command does it. The standby itself
//! must prove first that it stands on the line that was left.
//!
//! `primary_conninfo` may hold a password: it is shown nowhere, and no statement that has it is sent that would be
//! refused, for servers log those.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::EffectError;
use super::access::Access;
use super::error::Ended;
use super::process::{self, Values};
use super::setting::{call, text};
use crate::failover::action::Repoint;
use crate::net::conninfo::{Conninfo, ConninfoError};
use crate::net::session::Session;
use crate::types::{Epoch, Lsn, Timeline};

/// Everything on both servers.
const ALL: Duration = Duration::from_secs(15);
/// For the setting to be seen.
const SHOWN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(25);
/// The operator's command.
const COMMAND: Duration = Duration::from_secs(60);
/// The first version that takes another `primary_conninfo` by a reload.
const RELOADS: u32 = 130_000;
/// The first one in which ALTER SYSTEM can be granted.
const GRANTS: u32 = 150_000;

/// Where it stands, and what this login may do.
const WHO: &str = "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), \
    pg_last_wal_replay_lsn(), coalesce((SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming'), \
    (SELECT nullif(min_recovery_end_timeline, 0) FROM pg_control_recovery()), \
    (SELECT timeline_id FROM pg_control_checkpoint())), current_setting('server_version_num'), \
    (SELECT rolsuper FROM pg_roles WHERE rolname = session_user), \
    pg_has_role(session_user, 'pg_read_all_settings', 'USAGE'), \
    has_function_privilege('pg_reload_conf()', 'EXECUTE'), quote_ident(session_user), quote_ident(current_database())";

/// Why a standby was not pointed at the new primary.
#[derive(Debug, thiserror::Error)]
enum NotPointed {
    /// A server could not be asked.
    #[error(transparent)]
    Effect(#[from] EffectError),
    /// It was promoted meanwhile.
    #[error("it says that it is primary")]
    Primary,
    /// Another server answers there.
    #[error("it belongs to another system")]
    Stranger,
    /// It cannot go on along the new line.
    #[error("{why}; it needs pg_rewind or pg_basebackup")]
    Line {
        /// As the decision core says it.
        why: String,
    },
    /// What stands in its configuration.
    #[error("its primary_conninfo {0}")]
    Conninfo(#[from] ConninfoError),
    /// It would take a restart.
    #[error("its version takes another primary_conninfo only at a restart")]
    Old,
    /// The login may not.
    #[error("this login may not do it; for the next time, type on the primary: {grants}")]
    Denied {
        /// The statements.
        grants: String,
    },
    /// It is set where ALTER SYSTEM does not reach.
    #[error("primary_conninfo stays what it was: it is set on the command line, or the file has an error")]
    Stays,
    /// There is no slot for it.
    #[error(
        "it is pointed there, but its slot {slot} is missing: {error}; type there: SELECT pg_create_physical_replication_slot('{slot}', true)"
    )]
    Slot {
        /// Its name.
        slot: String,
        /// Why none was made.
        error: Box<EffectError>,
    },
}

impl NotPointed {
    /// Something that the operator's command may be able to do.
    fn is_ours_alone(&self) -> bool {
        matches!(
            self,
            Self::Old
                | Self::Denied { .. }
                | Self::Stays
                | Self::Conninfo(_)
                | Self::Effect(EffectError::NoLogin | EffectError::Denied { .. })
        )
    }
}

/// Points it there; the sentence says how, or what to type. `at` = the standby, `primary` = where this daemon reaches the
/// new primary.
pub(super) async fn repoint(
    access: &Access,
    order: &Repoint,
    at: SocketAddr,
    primary: Option<SocketAddr>,
    command: Option<&[String]>,
) -> Result<String, String> {
    let Repoint { backend, address, epoch, .. } = order;
    match (by_sql(access, order, at, primary).await, command) {
        (Ok(said), _) => Ok(said),
        (Err(error), Some(command)) if error.is_ours_alone() => {
            tracing::info!(%backend, %error, "not pointed by SQL, follow_command is run");
            by_command(command, order, *epoch).await.map_err(|error| error.to_string())
        }
        (Err(error), _) if error.is_ours_alone() => Err(format!(
            "on {backend}, with host={} port={} in the primary_conninfo that it has, type: ALTER SYSTEM SET primary_conninfo = '…'; SELECT pg_reload_conf(); ({error})",
            address.host, address.port
        )),
        (Err(error), _) => Err(error.to_string()),
    }
}

async fn by_command(command: &[String], order: &Repoint, epoch: Epoch) -> Result<String, EffectError> {
    let Repoint { backend, primary, address, .. } = order;
    let values = Values { backend, primary: Some(primary), address: address.to_string(), epoch };
    let argv = process::argv(command, &values);
    let finished = process::run(&argv, COMMAND).await?;
    match finished.ended {
        Ended::Exit(0) => Ok(format!("follow_command pointed {backend} at {primary} ({address})")),
        ended => {
            let program = argv.into_iter().next().unwrap_or_default();
            Err(EffectError::Command { program, ended, said: finished.said })
        }
    }
}

async fn by_sql(
    access: &Access,
    order: &Repoint,
    at: SocketAddr,
    primary: Option<SocketAddr>,
) -> Result<String, NotPointed> {
    let Repoint { backend, primary: name, address, .. } = order;
    let deadline = Instant::now() + ALL;
    let mut session = access.open(backend, at, deadline).await?;
    let who = Who::read(&mut session, deadline).await?;
    if who.may_follow(order)? {
        return Ok(format!("{backend} is on timeline {} already", order.timeline));
    }
    who.may_be_pointed(&mut session, deadline).await?;
    let old = Conninfo::parse(&setting(&mut session, "primary_conninfo", deadline).await?)?;
    let slot = setting(&mut session, "primary_slot_name", deadline).await?;
    let made = match (slot.is_empty(), primary) {
        (false, Some(primary)) => make_slot(access, order, primary, &slot, deadline).await,
        _ => Ok(false),
    };
    let already = old.leads_to(address);
    if !already {
        let new = old.redirected(address).to_string();
        let statement = format!("ALTER SYSTEM SET primary_conninfo = {}", literal(&new));
        session.query(&statement, deadline).await.map_err(EffectError::from)?;
        call(&mut session, "pg_reload_conf()", "pg_reload_conf()", deadline).await?;
        shown(access, order, at, &new).await?;
    }
    session.close(deadline).await;
    let said = format!("{backend} is pointed at {name} ({address}){}", if already { " already" } else { "" });
    match made {
        Ok(true) => Ok(format!("{said}, and its slot {slot} was made there")),
        Ok(false) => Ok(said),
        Err(error) => Err(NotPointed::Slot { slot, error: Box::new(error) }),
    }
}

/// What a standby says of itself and of us.
struct Who {
    standby: bool,
    system_id: Option<u64>,
    replayed: Option<Lsn>,
    timeline: Option<Timeline>,
    version: u32,
    superuser: bool,
    reads_settings: bool,
    reloads: bool,
    user: String,
    database: String,
}

impl Who {
    async fn read(session: &mut Session, deadline: Instant) -> Result<Self, NotPointed> {
        let rows = match session.query(WHO, deadline).await {
            Ok(rows) => rows,
            Err(error) => {
                let what = "EXECUTE ON FUNCTION pg_control_system(), pg_control_recovery(), pg_control_checkpoint()";
                let missing = "where it stands may not be read";
                return Err(super::setting::denied(session, error, missing, what, deadline).await.into());
            }
        };
        let row = rows.into_iter().next().unwrap_or_default();
        Self::parse(&row).ok_or(NotPointed::Effect(EffectError::Answer("where it stands")))
    }

    fn parse(row: &[Option<String>]) -> Option<Self> {
        let [standby, system, replayed, timeline, version, superuser, reads, reloads, user, database] = row else {
            return None;
        };
        let is = |value: &Option<String>| value.as_deref() == Some("t");
        Some(Self {
            standby: is(standby),
            system_id: system.as_deref().and_then(|id| id.parse().ok()),
            replayed: replayed.as_deref().and_then(|lsn| lsn.parse().ok()),
            timeline: timeline.as_deref().and_then(|timeline| timeline.parse().ok()).map(Timeline),
            version: version.as_deref()?.parse().ok()?,
            superuser: is(superuser),
            reads_settings: is(reads),
            reloads: is(reloads),
            user: user.clone()?,
            database: database.clone()?,
        })
    }

    /// `true` = it is on the new line already.
    fn may_follow(&self, order: &Repoint) -> Result<bool, NotPointed> {
        if !self.standby {
            return Err(NotPointed::Primary);
        }
        if self.system_id != Some(order.system_id.0) {
            return Err(NotPointed::Stranger);
        }
        let timeline = self.timeline.ok_or(NotPointed::Effect(EffectError::Answer("its timeline")))?;
        order.allows(timeline, self.replayed).map_err(|why| NotPointed::Line { why })?;
        Ok(timeline == order.timeline)
    }

    async fn may_be_pointed(&self, session: &mut Session, deadline: Instant) -> Result<(), NotPointed> {
        if self.version < RELOADS {
            return Err(NotPointed::Old);
        }
        if self.superuser {
            return Ok(());
        }
        let sets = match self.version >= GRANTS {
            true => {
                let sql = "SELECT has_parameter_privilege('primary_conninfo', 'ALTER SYSTEM')";
                let answer = session.query(sql, deadline).await.map_err(EffectError::from)?;
                text(answer, "has_parameter_privilege()")? == "t"
            }
            false => false,
        };
        let (user, database) = (&self.user, &self.database);
        let alter = match self.version >= GRANTS {
            true => format!("GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO {user};"),
            false => format!("ALTER ROLE {user} SUPERUSER; (before version 15 nothing less will do)"),
        };
        let missing = [
            (sets, alter),
            (self.reads_settings, format!("GRANT pg_read_all_settings TO {user};")),
            (self.reloads, format!("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {user}; (in database {database})")),
        ];
        let grants: Vec<String> = missing.into_iter().filter(|(has, _)| !has).map(|(_, grant)| grant).collect();
        if grants.is_empty() { Ok(()) } else { Err(NotPointed::Denied { grants: grants.join(" ") }) }
    }
}

async fn setting(session: &mut Session, name: &str, deadline: Instant) -> Result<String, EffectError> {
    text(session.query(&format!("SELECT current_setting('{name}')"), deadline).await?, "a setting")
}

/// The slot that the standby streams from, on the new primary. `true` = there was none.
async fn make_slot(
    access: &Access,
    order: &Repoint,
    primary: SocketAddr,
    slot: &str,
    deadline: Instant,
) -> Result<bool, EffectError> {
    let mut session = access.open(&order.primary, primary, deadline).await?;
    let slot = literal(slot);
    let sql = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = {slot}");
    let known = text(session.query(&sql, deadline).await?, "its slots")? != "0";
    if !known {
        let sql = format!("SELECT slot_name FROM pg_create_physical_replication_slot({slot}, true)");
        session.query(&sql, deadline).await?;
    }
    session.close(deadline).await;
    Ok(!known)
}

/// Waits until a session that begins now has the setting: then the receiver was told as well.
async fn shown(access: &Access, order: &Repoint, at: SocketAddr, wanted: &str) -> Result<(), NotPointed> {
    let deadline = Instant::now() + SHOWN;
    loop {
        let mut session = access.open(&order.backend, at, deadline).await?;
        let found = setting(&mut session, "primary_conninfo", deadline).await?;
        session.close(deadline).await;
        if found == wanted {
            return Ok(());
        }
        if Instant::now() + POLL >= deadline {
            return Err(NotPointed::Stays);
        }
        sleep(POLL).await;
    }
}

/// As an SQL literal, whatever `standard_conforming_strings` is.
fn literal(value: &str) -> String {
    format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::observation::Ancestor;
    use crate::types::SystemId;

    fn order() -> Repoint {
        let ancestor = |timeline, lsn| Ancestor { timeline: Timeline(timeline), switch_lsn: Lsn(lsn) };
        Repoint {
            epoch: Epoch(4),
            backend: "north".into(),
            primary: "west".into(),
            address: "db2:5432".parse().unwrap(),
            system_id: SystemId(7),
            timeline: Timeline(5),
            ancestors: vec![ancestor(1, 0x100), ancestor(3, 0x300)],
        }
    }

    fn who(standby: &str, system: &str, replayed: &str, timeline: &str) -> Who {
        let row = [standby, system, replayed, timeline, "150004", "f", "t", "t", "pgpivot", "postgres"];
        Who::parse(&row.map(|value| Some(value.to_owned()))).unwrap()
    }

    #[test]
    fn only_a_standby_that_stands_on_the_line_that_was_left_is_pointed_anywhere() {
        let said = |who: Who| who.may_follow(&order()).map_err(|error| error.to_string());
        assert_eq!(said(who("t", "7", "0/300", "3")), Ok(false));
        assert_eq!(said(who("t", "7", "0/80", "1")), Ok(false));
        assert_eq!(said(who("t", "7", "0/900", "5")), Ok(true));
        assert_eq!(said(who("f", "7", "0/80", "1")), Err("it says that it is primary".into()));
        assert_eq!(said(who("t", "8", "0/80", "1")), Err("it belongs to another system".into()));
        assert!(
            said(who("t", "7", "0/301", "3")).unwrap_err().contains("0/301, beyond where timeline 5 left timeline 3")
        );
        assert!(said(who("t", "7", "0/80", "4")).unwrap_err().contains("does not lead to timeline 5"));
        assert!(said(who("t", "7", "0/80", "6")).unwrap_err().contains("pg_rewind"));
    }

    #[test]
    fn a_literal_holds_whatever_is_in_it() {
        assert_eq!(literal("host=a password='it\\'s'"), "E'host=a password=''it\\\\''s'''");
    }
}
