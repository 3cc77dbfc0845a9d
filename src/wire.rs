//! The little of PostgreSQL's wire protocol that the front door reads and writes: first packets and ErrorResponse.
//! Pure: bytes in, values out. Our own client's side of the protocol is `net::session`'s.

pub mod backend_key;
pub mod scram;
pub mod sqlstate;
pub mod startup;
