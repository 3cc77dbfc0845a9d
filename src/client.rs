//! For applications written in Rust: which side is active, as a connection string, and how to come back after a
//! failover. Holds the promises; each source of answers has its own file.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pgpivot::client::ConnectionManager;
//!
//! // PGPIVOT_URL, or COCKROACH_API_SECRET_KEY with PRIMARY_CLUSTER_ID and STANDBY_CLUSTER_ID; DB_USERNAME, DB_PASSWORD.
//! let manager = ConnectionManager::from_env()?;
//! let stream = manager.with_retry(async |dsn| connect(dsn).await).await?;
//! # Ok(()) }
//! # async fn connect(_: String) -> Result<(), std::io::Error> { Ok(()) }
//! ```
//!
//! Use it with `default-features = false`: nothing of the daemon is compiled then. With `features = ["sqlx"]` there is a
//! `PoolManager` besides, which sends sqlx's statements to a primary or its replicas.
//!
//! # What it can know, and what it cannot
//!
//! - **From the daemon**, the answer is the latch: the side that traffic belongs to. It is kept for a second at most.
//! - **From the Cloud API** alone, without a daemon, it is a deduction from the replication streams: the source of the
//!   stream that lives, in either direction; else the standby of the newest completed one; else the configured primary.
//!   That knows nothing of who answers SQL, of a switch made on the
//!   network or by SQL, of streams that the API no longer lists, nor of a failover that began after the answer was kept:
//!   it is kept for a minute, and forgotten when the application [reports a failure](ConnectionManager::report_failure).
//! - **Neither can fence.** Applications that connect to the databases themselves, past the proxy, may be connected to an
//!   old primary, and stay so: its connections are cut by nobody. Where that must not be, connect to the proxy.

mod cloud;
mod connection_manager;
mod credentials;
mod daemon;
mod error;
#[cfg(feature = "sqlx")]
pub mod pool_manager;
mod settings;

pub use crate::types::{HostPort, Secret};
pub use crate::view::dsn::{Dsn, DsnError};
pub use crate::view::sides::{Cluster, Clusters};
pub use cloud::CloudSettings;
pub use connection_manager::ConnectionManager;
pub use credentials::Credentials;
pub use error::{DaemonTrouble, Error, RetryError, SettingsError};
#[cfg(feature = "sqlx")]
pub use pool_manager::{PoolBuilder, PoolError, PoolManager, QueryIntent};
pub use settings::{DEFAULT_DAEMON, Settings};

// Against the simulated cloud and the admin server, which only the daemon's build has.
#[cfg(test)]
#[cfg(feature = "daemon")]
mod tests;
