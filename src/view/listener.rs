//! A listener as it is shown: where it is, how full, and what its limits turned away.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Counters;
use crate::types::WallTime;

/// One listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Where clients connect.
    pub address: SocketAddr,
    /// `active` or `read_only`.
    pub target: String,
    /// Open now, held ones included.
    pub connections: u64,
    /// `max_connections`.
    pub limit: u64,
    /// How it ends clients' TLS; `None` = TLS passes through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Connections refused since the start, by the limit they were over.
    #[serde(default)]
    pub refused: Vec<(String, u64)>,
    /// Counters since the start.
    #[serde(flatten)]
    pub counters: Counters,
}

/// How a listener ends clients' TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerTls {
    /// Who does not encrypt is refused.
    pub require: bool,
    /// When its certificate expires; `None` = it cannot be told.
    pub expires: Option<WallTime>,
}
