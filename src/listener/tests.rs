//! The front door as a client sees it: real sockets on loopback, servers on script, gates published by hand.

mod cut;
mod hold;
mod lifecycle;
mod limits;
pub(super) mod proxy;
mod serve;
mod tls;
mod triage;
