//! Sockets and how to reach a server: the map of this room, no code.

pub mod socket;
pub mod sockopt;
