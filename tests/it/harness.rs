//! The stage of the integration tests: servers, daemon, clients and the faults they meet. Holds no expectation of its
//! own about the daemon; those stand in the themes.

pub mod binaries;
pub mod browser;
pub mod checker;
pub mod clouds;
pub mod cluster;
pub mod daemon;
pub mod eventually;
pub mod http;
pub mod identity;
pub mod network;
pub mod pair;
pub mod patroni;
pub mod plan;
pub mod ports;
pub mod processes;
pub mod psql;
pub mod self_hosted;
pub mod status;
pub mod template;
pub mod writer;

pub use browser::Browser;
pub use checker::Checker;
pub use cluster::{Cluster, Shutdown};
pub use daemon::Daemon;
pub use eventually::{SOON, eventually};
pub use identity::Identity;
pub use pair::Pair;
pub use psql::Psql;
pub use writer::Writers;
