//! pgpivot keeps applications connected to the active side of a database pair.
//!
//! # The map
//!
//! Data flows one way: file and environment → [`config`] → [`routing`] snapshot → [`listener`] → [`relay`] → backends.
//! [`probe`]s and the data plane produce observations; the pure [`failover`] machine turns them into actions; the
//! [`daemon`] carries those out through [`store`], [`promote`], [`routing`] and [`connections`]. [`admin`] reads
//! published views and writes only by sending a command. [`ctl`] is a thin client of [`admin`]. [`cockroach_cloud`]
//! talks to the API of CockroachDB's vendor for whoever watches or promotes there, and [`pcr`] does there what an
//! operator asks for. [`patroni`] talks to the members of a Patroni cluster, where that is the authority.
//!
//! # Invariants
//!
//! - **Never two primaries.** No byte of a client reaches a side that is not the one latched as active, and no byte
//!   of such a side reaches a client.
//! - **Persist first, then act.** An intent is on disk before a promotion is ordered; a latch before traffic opens.
//!   Closing and cutting never wait for the disk.
//! - The pure rooms ([`types`], [`view`], [`backoff`], [`config`] but `source`, [`wire`], [`failover`]) import no
//!   runtime, socket, file, clock or random source. Time and chance are arguments.
//! - No room writes what another room decides: there is one machine per pair, and only its driver feeds it.

#[cfg(feature = "daemon")]
pub mod admin;
pub mod backoff;
pub mod client;
pub mod cockroach_cloud;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod connections;
#[cfg(feature = "daemon")]
pub mod ctl;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod demo;
#[cfg(feature = "daemon")]
pub mod failover;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "daemon")]
pub mod listener;
#[cfg(feature = "daemon")]
pub mod net;
#[cfg(feature = "daemon")]
pub mod patroni;
#[cfg(feature = "daemon")]
pub mod pcr;
#[cfg(feature = "daemon")]
pub mod probe;
#[cfg(feature = "daemon")]
pub mod promote;
#[cfg(feature = "daemon")]
pub mod relay;
#[cfg(feature = "daemon")]
pub mod routing;
#[cfg(feature = "daemon")]
pub mod sim;
#[cfg(feature = "daemon")]
pub mod store;
pub mod types;
pub mod view;
#[cfg(feature = "daemon")]
pub mod wire;
