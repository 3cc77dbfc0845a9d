//! The soft node fence on a side that was left: the freeze of a switchover, with nothing waited for. Whoever answers must
//! be the very server that was latched before, by system identifier, timeline and node; anybody else is left as he is.
//!
//! It binds what a freeze binds, and not what a freeze does not: see `freeze`. What is found to lie outside its reach is
//! told, and then it counts for nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::EffectError;
use super::access::Access;
use super::freeze::{self, READ_ONLY, READ_WRITE};
use super::latched::must_be_latched;
use super::setting::{order, shown_to_newcomers, text};
use crate::failover::action::{Latched, Softened};
use crate::types::{BackendName, SystemId};

/// For the setting to reach newcomers.
const SETTING: Duration = Duration::from_secs(5);
/// For sessions to end.
const SESSIONS: Duration = Duration::from_secs(5);

/// Makes it read-only, and ends its clients if asked to. Repeating it does no harm.
pub(super) async fn soften(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    server: &Latched,
    ends: bool,
) -> Result<Softened, EffectError> {
    let deadline = Instant::now() + SETTING;
    let mut session = access.open(backend, address, deadline).await?;
    freeze::must_be_primary(&mut session, deadline).await?;
    must_be_latched(&mut session, Some(server), deadline).await?;
    order(&mut session, READ_ONLY, deadline).await?;
    let newcomer = shown_to_newcomers(access, backend, address, READ_ONLY, deadline).await?;
    let mut done = Softened::default();
    let mut gap = |result: Result<(), EffectError>| match result {
        Err(error @ (EffectError::Session(_) | EffectError::Answer(_))) => Err(error),
        Err(error) => {
            done.gaps.push(error.to_string());
            Ok(())
        }
        Ok(()) => Ok(()),
    };
    gap(freeze::must_bind_everybody(&mut session, deadline).await)?;
    if ends {
        gap(freeze::must_see_sessions(&mut session, deadline).await)?;
        let (ended, result) = freeze::end_clients(&mut session, newcomer, Instant::now() + SESSIONS).await;
        gap(result)?;
        done.ended = ended;
    } else {
        newcomer.close(deadline).await;
    }
    session.close(Instant::now() + SETTING).await;
    Ok(done)
}

/// Takes it back on a standby of this system; a primary keeps it.
pub(super) async fn thaw(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    system_id: SystemId,
) -> Result<(), EffectError> {
    let deadline = Instant::now() + SETTING;
    let mut session = access.open(backend, address, deadline).await?;
    let recovery = text(session.query("SELECT pg_is_in_recovery()", deadline).await?, "pg_is_in_recovery()")?;
    if recovery != "t" {
        return Err(EffectError::NotStandby);
    }
    let found = text(session.query("SELECT system_identifier FROM pg_control_system()", deadline).await?, "who it is")?;
    if found.parse() != Ok(system_id.0) {
        return Err(EffectError::Answer("who it is"));
    }
    order(&mut session, READ_WRITE, deadline).await?;
    session.close(deadline).await;
    Ok(())
}
