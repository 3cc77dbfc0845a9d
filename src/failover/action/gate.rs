//! The gate: who gets traffic, as the machine publishes it.

use std::net::SocketAddr;

use crate::types::{BackendName, Epoch};

/// Who gets traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Nobody: newcomers are held.
    Closed {
        /// Why, for page and log.
        why: String,
    },
    /// The latched side.
    Open {
        /// The latched backend.
        active: BackendName,
        /// Its epoch.
        epoch: Epoch,
        /// Every backend that may take `active` traffic (more than one only where sides always serve).
        tier: Vec<OpenBackend>,
        /// Standbys that may take `read_only` traffic.
        readers: Vec<OpenBackend>,
        /// Newcomers wait although the side serves (a switchover's drain).
        hold: bool,
    },
}

/// One backend of an open gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBackend {
    /// Its name.
    pub name: BackendName,
    /// Its share within the tier.
    pub weight: u32,
    /// Addresses proven under this epoch and not down, that newcomers may go to.
    pub addresses: Vec<SocketAddr>,
    /// As `addresses`, but an operator took newcomers from them: who is connected there stays, and may cancel.
    pub resting: Vec<SocketAddr>,
    /// Newcomers go to none of them for that reason: which administrative state, and who set it.
    pub rests: Option<String>,
}

impl OpenBackend {
    /// Every address that may be spoken to.
    pub fn all(&self) -> Vec<SocketAddr> {
        self.addresses.iter().chain(&self.resting).copied().collect()
    }
}
