//! The `tcp` probe: a connect and nothing more. It proves that something listens, never that a database serves.

use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};

use super::classify;
use crate::failover::observation::Verdict;
use crate::net::dial;
use crate::net::fault::{Cause, SessionError, Step};

/// Connects and hangs up.
pub(super) async fn probe(address: SocketAddr, deadline: Instant) -> Verdict {
    match timeout_at(deadline, dial::tcp(address)).await.unwrap_or(Err(Cause::TimedOut)) {
        Ok(_) => Verdict::Answered(Box::default()),
        Err(cause) => classify::session(&SessionError { step: Step::Connect, cause }),
    }
}
