//! The stage of the integration tests: servers, daemon, clients and the faults they meet. Holds no expectation of its
//! own about the daemon; those stand in the themes.

pub mod binaries;
pub mod cluster;
pub mod eventually;
pub mod network;
pub mod pair;
pub mod ports;
pub mod processes;
pub mod template;

pub use cluster::{Cluster, Shutdown};
pub use eventually::{SOON, eventually};
pub use pair::Pair;
