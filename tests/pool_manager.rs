//! `PoolManager` on real PostgreSQL, a primary and two standbys: what an application sees when it reads and writes, when
//! servers die, and when another one becomes the primary.

#![allow(unreachable_pub, dead_code, reason = "a test binary exports nothing, and uses a part of the stage")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[path = "it/harness/binaries.rs"]
mod binaries;
#[path = "it/harness/cluster.rs"]
mod cluster;
#[path = "it/harness/eventually.rs"]
mod eventually;
#[path = "it/harness/network.rs"]
mod network;
#[path = "it/harness/pair.rs"]
mod pair;
#[path = "it/harness/ports.rs"]
mod ports;
#[path = "it/harness/processes.rs"]
mod processes;
#[path = "it/harness/template.rs"]
mod template;

#[path = "pool_manager/cut.rs"]
mod cut;
#[path = "pool_manager/failover.rs"]
mod failover;
#[path = "pool_manager/own_writes.rs"]
mod own_writes;
#[path = "pool_manager/routing.rs"]
mod routing;
#[path = "pool_manager/sent_once.rs"]
mod sent_once;
#[path = "pool_manager/stage.rs"]
mod stage;
