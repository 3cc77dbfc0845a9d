//! Room for connections: each needs three descriptors, and the usual soft limit of 1024 is meant for `select`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Client, server, and one more of the server by which it is silenced.
const PER_CONNECTION: u64 = 3;
/// Files, probes, the admin API.
const OTHERS: u64 = 128;

/// Raises the soft limit of open files to the hard one and says what there is; warns where it is less than the
/// listeners of `config` may need.
pub(super) fn provide(config: &Config) {
    let limit = raise();
    let wanted = wanted(config);
    // `None` = without a limit.
    match limit {
        Some(limit) if limit < wanted => tracing::warn!(
            limit,
            wanted,
            "the descriptor limit does not cover max_connections of the listeners: raise it (LimitNOFILE, ulimit -Hn), \
             or lower max_connections"
        ),
        limit => tracing::info!(limit, wanted, "descriptors"),
    }
}

fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(limit = limit.current, %error, "the descriptor limit cannot be raised");
            limit.current
        }
    }
}

fn wanted(config: &Config) -> u64 {
    let listeners = config.services.iter().flat_map(|service| &service.listeners);
    let most: u64 = listeners.map(|listener| listener.max_connections as u64).sum();
    most * PER_CONNECTION + OTHERS
}
