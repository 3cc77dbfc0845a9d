//! What operators ordered of backends and addresses: whether newcomers go there. Evidence is none of its business.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::failover::action::Operator;
use crate::types::{BackendName, WallTime};

/// Whether newcomers go to a backend, or to one address of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Takes newcomers when it is fit.
    #[default]
    Ready,
    /// No newcomers; who is connected stays.
    Drain,
    /// No newcomers; who is connected is asked to end, and cut after `drain_timeout`.
    Maint,
}

impl BackendState {
    /// Every state.
    pub const ALL: [BackendState; 3] = [BackendState::Ready, BackendState::Drain, BackendState::Maint];

    /// The word in commands, status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// One order that is in force. What is `ready` has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Administered {
    /// Which backend.
    pub backend: BackendName,
    /// One address of it; `None` = all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// `drain` or `maint`.
    pub state: BackendState,
    /// Who ordered it.
    pub by: Operator,
    /// Since when.
    pub since: WallTime,
}

impl Administered {
    /// `us-east`, or `us-east/10.0.0.1:5432`.
    pub fn name(&self) -> String {
        match self.address {
            Some(address) => format!("{}/{address}", self.backend),
            None => self.backend.to_string(),
        }
    }

    /// Which state, who set it and why, for whoever meets it.
    pub fn sentence(&self) -> String {
        let note = self.by.note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
        format!("{} is in {}, set by {}{note}", self.name(), self.state.as_str(), self.by.name)
    }

    /// Bytes that it takes in the record, at most.
    pub fn weight(&self) -> usize {
        const KEYS: usize = 96;
        let texts = [self.backend.as_str(), &self.by.name, self.by.note.as_deref().unwrap_or("null")];
        // Quotes and backslashes are written with one more byte; control characters never get here.
        let written = |text: &str| text.len() + text.matches(['"', '\\']).count();
        let address = self.address.map_or(0, |address| address.to_string().len() + 13);
        KEYS + address + texts.into_iter().map(written).sum::<usize>()
    }
}
