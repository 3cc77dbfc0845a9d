//! Sockets and our own connections: options, names, TLS, dialling, and a minimal PostgreSQL session.
//! Clients' bytes are `relay`'s; what a reply means is `probe`'s.

#[cfg(test)]
pub(crate) mod certificates;
pub mod channel;
pub mod conninfo;
pub mod dial;
pub mod fault;
pub mod resolve;
#[cfg(test)]
pub(crate) mod scripted;
pub mod session;
pub mod socket;
pub mod sockopt;
pub mod terminate;
pub mod tls;
pub mod virtual_cluster;
