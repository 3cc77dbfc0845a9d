//! The typed client of the CockroachDB Cloud API: clusters, replication streams, disruptions, connection strings.
//! It tells what the API said and whom to blame when it said nothing, and which of two clusters is active by what the
//! list of streams says; what follows from that is decided elsewhere.
//!
//! - Every call ends by its deadline. Only reads are tried again; a write whose reply is lost is reported as one that
//!   may have taken effect, and has to be read back.
//! - Redirects are never followed, and proxies of the environment are not used: the bearer token goes to the
//!   configured host and to nobody else. Every call has a connection of its own, so that no order is lost on one that
//!   had died unseen, and the host's address is looked up afresh.
//! - Nothing here prints the token, not even when the server echoes it.

mod client;
mod error;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzzed;
mod limit;
pub mod model;
mod operation;
mod resolve;
mod retry;
mod settings;
mod standing;
mod text;
mod transport;

pub use client::{Client, MAX_PAGES, Reply};
pub use error::{Answer, Cause, Code, Error, MAX_ERROR, Step, Trouble, Unreadable};
pub use operation::{ApiPath, ApiPathError, Method, Operation};
pub(crate) use settings::plain_http;
pub use settings::{BuildError, DEFAULT_BASE_URL, DEFAULT_TIMEOUT, Settings, VERSION};
pub use standing::{Standing, newest_completed, standing};
pub use transport::{MAX_BODY, RawReply};

#[cfg(test)]
mod tests;
