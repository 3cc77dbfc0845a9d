//! What a user sees, on real PostgreSQL: each module is a theme, each test a sentence of the manual.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod harness;

mod admin_state;
mod api;
mod clusters;
mod controller;
mod crash;
mod demo;
mod effects;
mod examples;
mod failover;
mod fences;
mod killed;
mod limits;
mod logins;
mod operators;
mod page;
mod pairs;
mod patroni;
mod probes;
mod reads;
mod rejoin;
mod relay;
mod reload;
mod restart;
mod runbook;
mod self_hosted;
mod siblings;
mod standbys;
mod streams;
mod threads;
mod tls;
