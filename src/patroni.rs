//! Patroni's REST API: what its members say of the cluster, and orders to change the leader. Asks, orders and reports;
//! decides nothing. Several members are tried: every one of them answers for all.

mod client;
mod error;
pub mod model;

pub use client::{Client, MAX_BODY};
pub use error::{BuildError, Cause, Trouble};
