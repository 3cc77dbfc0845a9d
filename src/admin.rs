//! The admin server: page, HAProxy CSV, metrics, health, commands and live events on a thread of its own, so that a
//! saturated data plane still answers. It reads published views and writes only by sending a command.
//! Holds what the daemon hands in and gets back; each surface has its own file.
//!
//! # Who may do what
//!
//! - Over the unix socket (mode 0600) whoever may open it commands, as `uid N` by the kernel's word.
//! - Over TCP with tokens configured, a command needs `Authorization: Bearer TOKEN`; the token's name is the operator.
//! - Over TCP without tokens, only a caller on loopback commands, as `local`; not one that a reverse proxy speaks for.
//! - Reading needs no token. `Host` must be a literal address, `localhost`, this machine's own name or one of
//!   [`Settings::hosts`], so that no web page can reach us by a name of its own; and a page of another origin cannot
//!   send a command. `X-Operator` is a note for the history, never an identity.

mod auth;
mod control;
mod csv;
mod events;
mod health;
mod metrics;
mod openapi;
mod problem;
mod routes;
mod server;
mod sidecar;
mod socket;
mod stall;
mod stats;
mod words;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use self::server::{Admin, AdminError, serve};
use crate::failover::action::{Command, Event, Operator, Receipt, Refusal};
use crate::types::{Secret, ServiceName};
use crate::view::{ChainStatus, Status};

/// Where to listen and whom to believe.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Page, metrics, API; `None` = not over TCP. Off loopback it takes commands only with a token.
    pub listen: Option<SocketAddr>,
    /// The same over a unix socket (mode 0600); whoever may open it may command, as `uid N`.
    pub socket: Option<PathBuf>,
    /// A listener that serves `/metrics` and nothing else.
    pub metrics_listen: Option<SocketAddr>,
    /// Operator name and bearer token. With at least one, every command over TCP needs one of them.
    pub tokens: Vec<(String, Secret)>,
    /// Names by which `Host` may call this server, besides `localhost`, this machine's name and literal addresses.
    pub hosts: Vec<String>,
    /// User and password that `/connection` fills in for a caller with a token or on the unix socket.
    pub credentials: Option<(String, Secret)>,
}

/// Answers "is it so?" with the sentence that says why not. Called on the admin thread: it must not wait.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Checks the chain of every pair's audit trail; reads all of it.
pub type HistoryCheck = Arc<dyn Fn() -> Result<Vec<ChainStatus>, String> + Send + Sync>;
/// Reads the newest `limit` history lines, newest first, of one service or of all. May read a file: it is called on a
/// thread that may block.
pub type HistoryReader = Arc<dyn Fn(Option<&ServiceName>, usize) -> Vec<serde_json::Value> + Send + Sync>;

/// What the daemon lends the admin server.
#[derive(Clone)]
pub struct AdminState {
    /// The published view.
    pub status: Arc<ArcSwap<Status>>,
    /// The way of every command; bounded.
    pub commands: mpsc::Sender<CommandRequest>,
    /// What happens, as it happens.
    pub events: broadcast::Sender<ServiceEvent>,
    /// The audit trail.
    pub history: HistoryReader,
    /// Is it what was written?
    pub verify: HistoryCheck,
    /// `/ready`: routing is published and the state can be written.
    pub ready: Check,
    /// `/live`: the decision loop turns.
    pub live: Check,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").finish_non_exhaustive()
    }
}

/// An event and the service it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceEvent {
    /// Whose.
    pub service: ServiceName,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A command on its way to the daemon.
#[derive(Debug)]
pub struct CommandRequest {
    /// Which service; `None` = all of them (pause, resume, check-health, reload).
    pub service: Option<ServiceName>,
    /// What is wanted.
    pub order: Order,
    /// Who wants it.
    pub operator: Operator,
    /// Explain instead of acting.
    pub dry_run: bool,
    /// Where the answer goes. Closed once the caller gave up: such a request must not be carried out any more.
    pub reply: oneshot::Sender<Result<Receipt, Refusal>>,
}

/// What a [`CommandRequest`] wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Of the decision core.
    Command(Command),
    /// Of the daemon: read the configuration again.
    Reload,
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
