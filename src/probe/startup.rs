//! The `startup` probe: a startup packet without credentials, and what the first answer says.

use tokio::time::Instant;

use super::classify;
use crate::config::Kind;
use crate::failover::observation::Verdict;
use crate::net::session::{Session, Target};

/// Says hello; the password in `target` is never sent.
pub(super) async fn probe(kind: Kind, target: &Target, deadline: Instant) -> Verdict {
    match Session::greet(target, deadline).await {
        Ok(()) => classify::serving(kind),
        Err(error) => {
            tracing::debug!(address = %target.address, %error, "startup probe");
            classify::greeting(kind, &error)
        }
    }
}
