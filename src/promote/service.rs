//! Serving a virtual cluster of self-hosted CockroachDB, and serving it to nobody: the vendor's only fence, and what a
//! planned switchover begins with. Each order looks first and may be repeated.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::EffectError;
use super::access::Access;
use super::clock;
use crate::config::CockroachSql;
use crate::net::session::{Session, SessionError};
use crate::net::virtual_cluster::{self as vc, Service, State};
use crate::types::{BackendName, WallTime};

/// Connect, login, STOP SERVICE, and nobody served any more.
const STOP: Duration = Duration::from_secs(5);
/// For all addresses to say so, too.
const UNSERVED: Duration = Duration::from_secs(5);
/// Connect, login, START SERVICE.
const START: Duration = Duration::from_secs(5);
/// The clock, after all that.
const CLOCK: Duration = Duration::from_secs(2);
/// One look at one address.
const LOOK: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// Stops the service and waits until the cluster says that it is stopped.
pub(super) async fn stop(
    access: &Access,
    settings: &CockroachSql,
    backend: &BackendName,
    addresses: &[SocketAddr],
) -> Result<(), EffectError> {
    let deadline = Instant::now() + STOP;
    let mut session = access.open_any(backend, addresses, deadline).await?;
    let stopped = stopped(&mut session, settings, deadline).await;
    session.close(deadline).await;
    stopped
}

/// The same; then no address serves anybody, and the clock after that is above everything that was ever acknowledged.
pub(super) async fn stop_and_read_clock(
    access: &Access,
    settings: &CockroachSql,
    backend: &BackendName,
    addresses: &[SocketAddr],
) -> Result<WallTime, EffectError> {
    let deadline = Instant::now() + STOP;
    let mut session = access.open_any(backend, addresses, deadline).await?;
    stopped(&mut session, settings, deadline).await?;
    let name = &settings.virtual_cluster;
    let unserved_by = Instant::now() + UNSERVED;
    for address in addresses {
        unserved(access, backend, *address, name, unserved_by).await?;
    }
    let deadline = Instant::now() + CLOCK;
    let clock = clock::of(&mut session, deadline).await;
    session.close(deadline).await;
    clock
}

/// Serves it, if it is a cluster of its own.
pub(super) async fn start(
    access: &Access,
    settings: &CockroachSql,
    backend: &BackendName,
    address: SocketAddr,
) -> Result<(), EffectError> {
    let deadline = Instant::now() + START;
    let mut session = access.open(backend, address, deadline).await?;
    let shown = shown(&mut session, settings, deadline).await?;
    if shown.state != State::Ready {
        return Err(EffectError::Replicates { name: settings.virtual_cluster.clone(), state: shown.state });
    }
    if shown.is_stopped() {
        order(&mut session, settings, &vc::start_service(&settings.virtual_cluster), deadline).await?;
    }
    session.close(deadline).await;
    Ok(())
}

/// State and service, by the cluster's own word.
pub(super) async fn shown(
    session: &mut Session,
    settings: &CockroachSql,
    deadline: Instant,
) -> Result<Service, EffectError> {
    let table = session.query_table(&vc::show(&settings.virtual_cluster), deadline).await;
    Ok(vc::service(&table.map_err(|error| ungranted(settings, error))?)?)
}

/// Gives one order.
pub(super) async fn order(
    session: &mut Session,
    settings: &CockroachSql,
    sql: &str,
    deadline: Instant,
) -> Result<(), EffectError> {
    session.query(sql, deadline).await.map(drop).map_err(|error| ungranted(settings, error))
}

/// A refusal for a missing privilege comes with the statement that grants it.
pub(super) fn ungranted(settings: &CockroachSql, error: SessionError) -> EffectError {
    match error.sqlstate() {
        Some("42501") => EffectError::Ungranted { grant: vc::grant(&settings.login.user) },
        _ => EffectError::Session(error),
    }
}

async fn stopped(session: &mut Session, settings: &CockroachSql, deadline: Instant) -> Result<(), EffectError> {
    if shown(session, settings, deadline).await?.is_stopped() {
        return Ok(());
    }
    order(session, settings, &vc::stop_service(&settings.virtual_cluster), deadline).await?;
    loop {
        let shown = shown(session, settings, deadline).await?;
        if shown.is_stopped() {
            return Ok(());
        }
        if Instant::now() + POLL >= deadline {
            let left = format!("it is still {}", shown.mode);
            return Err(EffectError::StillServed { left, waited: STOP });
        }
        sleep(POLL).await;
    }
}

/// A node learns of it a moment later than the one that took the order.
async fn unserved(
    access: &Access,
    backend: &BackendName,
    address: SocketAddr,
    name: &str,
    deadline: Instant,
) -> Result<(), EffectError> {
    loop {
        let served = access.is_served(backend, address, name, Instant::now() + LOOK).await;
        if served == Some(false) {
            return Ok(());
        }
        if Instant::now() + POLL >= deadline {
            let said = if served.is_some() { "still serves" } else { "does not tell whether it serves" };
            return Err(EffectError::StillServed { left: format!("{address} {said}"), waited: UNSERVED });
        }
        sleep(POLL).await;
    }
}
