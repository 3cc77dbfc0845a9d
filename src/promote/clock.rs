//! The clock of a cluster, read by SQL: the moment to which a planned failover goes is just after it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::EffectError;
use super::access::Access;
use super::setting::text;
use crate::net::session::Session;
use crate::net::virtual_cluster::{CLOCK, hybrid_time};
use crate::types::{BackendName, WallTime};

/// Connect, login and query.
const TIME: Duration = Duration::from_secs(5);

pub(super) async fn read(
    access: &Access,
    backend: &BackendName,
    addresses: &[SocketAddr],
) -> Result<WallTime, EffectError> {
    let deadline = Instant::now() + TIME;
    let mut session = access.open_any(backend, addresses, deadline).await?;
    let told = of(&mut session, deadline).await;
    session.close(deadline).await;
    told
}

/// The clock of the cluster at the other end.
pub(super) async fn of(session: &mut Session, deadline: Instant) -> Result<WallTime, EffectError> {
    let answer = text(session.query(CLOCK, deadline).await?, CLOCK)?;
    hybrid_time(&answer).ok_or(EffectError::Answer(CLOCK))
}
