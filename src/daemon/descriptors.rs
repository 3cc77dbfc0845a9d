//! Room for connections: each needs three descriptors, and the usual soft limit of 1024 is meant for `select`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one; says so when that fails.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = limit.current, to = limit.maximum, "descriptor limit raised"),
        Err(error) => tracing::warn!(limit = limit.current, %error, "the descriptor limit cannot be raised"),
    }
}
