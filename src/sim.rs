//! A pair of simulated PostgreSQL servers that speak the wire: for the demo where PostgreSQL is not installed, and for
//! tests that need no disk. One table in memory, replication with a settable lag, crashes, promotion, timelines.
//!
//! It answers `psql`, drivers that use the extended protocol, and everything that pgpivot itself asks; whatever else
//! it is asked it refuses with 0A000 and a sentence. It proves nothing about PostgreSQL.
//!
//! `SELECT sim_crash()` crashes the server that it is sent to, `SELECT sim_revive()` starts the other one as it was,
//! `SELECT sim_rebuild()` starts the other one as a standby of this one.

mod backend;
mod connection;
mod eval;
mod extended;
mod fault;
mod functions;
mod lexer;
mod message;
mod model;
mod own;
mod sql;
mod statement;
mod value;

pub use backend::Pair;
pub use model::Side;

use crate::types::WallTime;

/// What it claims to be.
const SERVER_VERSION: &str = "15.0 (pgpivot simulation)";

fn now() -> WallTime {
    WallTime(jiff::Timestamp::now().as_microsecond())
}

#[cfg(test)]
mod tests;
