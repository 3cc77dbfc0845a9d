//! The clock of a cluster, read by SQL: the moment to which a planned failover goes is just after it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::EffectError;
use super::access::Access;
use super::setting::text;
use crate::types::{BackendName, WallTime};

/// Connect, login and query.
const TIME: Duration = Duration::from_secs(5);
/// In nanoseconds since 1970, with the logical part behind the point.
const QUERY: &str = "SELECT cluster_logical_timestamp()";

pub(super) async fn read(access: &Access, backend: &BackendName, address: SocketAddr) -> Result<WallTime, EffectError> {
    let deadline = Instant::now() + TIME;
    let mut session = access.open(backend, address, deadline).await?;
    let answer = text(session.query(QUERY, deadline).await?, QUERY)?;
    session.close(deadline).await;
    parse(&answer).ok_or(EffectError::Answer(QUERY))
}

/// A hybrid timestamp, `1713435000000000000.0000000000`.
pub(super) fn parse(text: &str) -> Option<WallTime> {
    let nanos: i64 = text.split('.').next()?.parse().ok()?;
    (nanos > 0).then_some(WallTime(nanos / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_timestamp_is_read_to_the_microsecond() {
        assert_eq!(parse("1713435000123456789.0000000003"), Some(WallTime(1_713_435_000_123_456)));
        for garbage in ["", "now", "-5.0", "0"] {
            assert_eq!(parse(garbage), None, "{garbage}");
        }
    }
}
