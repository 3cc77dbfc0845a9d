//! Our own connections to servers: names to addresses, dialling, TLS and a minimal PostgreSQL client.
//! Relayed connections of clients are not made here; what a server's answer means for health is `probe`'s.

pub mod dial;
pub mod fault;
pub mod resolve;
pub mod session;
pub mod tls;
