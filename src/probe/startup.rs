//! The `startup` probe: a startup packet without credentials, and what the first answer says.

use tokio::time::Instant;

use super::classify;
use crate::config::Kind;
use crate::failover::observation::Verdict;
use crate::net::session::{Session, Target};
use crate::net::virtual_cluster;

/// Says hello, to the virtual cluster of that name or to whoever answers by default; the password in `target` is never
/// sent.
pub(super) async fn probe(kind: Kind, target: &Target, virtual_cluster: Option<&str>, deadline: Instant) -> Verdict {
    let option = virtual_cluster.map(virtual_cluster::option);
    let parameters: Vec<_> = option.iter().map(|option| ("options", option.as_str())).collect();
    match Session::greet_with(target, &parameters, deadline).await {
        Ok(()) => classify::serving(kind),
        Err(error) => {
            tracing::debug!(address = %target.address, %error, "startup probe");
            classify::greeting(kind, &error)
        }
    }
}
