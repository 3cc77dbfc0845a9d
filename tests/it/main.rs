//! What a user sees, on real PostgreSQL: each module is a theme, each test a sentence of the manual.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod harness;

mod failover;
mod operators;
mod pairs;
mod relay;
mod restart;
