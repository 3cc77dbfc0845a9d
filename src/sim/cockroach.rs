//! A simulated CockroachDB cluster on the wire: two virtual clusters behind one address. `main` is the one that
//! clients use and that replication carries; `system` steers it. What the clusters know is `cloud`'s world.

pub(super) mod gate;
mod login;
pub(super) mod scram;
pub(super) mod sql;
mod stream;
mod tenant;

/// The virtual cluster that clients use.
pub(super) const MAIN: &str = "main";
/// The virtual cluster that steers.
pub(super) const SYSTEM: &str = "system";
/// The PostgreSQL version that it claims to be compatible with, as every CockroachDB does.
const SERVER_VERSION: &str = "13.0.0";

/// What `version()` says.
fn version_text(version: &str) -> String {
    format!("CockroachDB CCL {version} (x86_64-pc-linux-gnu, built 2025/11/01 00:00:00, pgpivot simulation)")
}
