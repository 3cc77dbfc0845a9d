//! What is shown of an administrative state: an operator took newcomers from a backend or an address.

use serde::{Deserialize, Serialize};

use super::{BackendStatus, EndpointStatus};
use crate::types::WallTime;

/// An order that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminStatus {
    /// `drain` or `maint`.
    pub state: String,
    /// Who ordered it.
    pub by: String,
    /// The operator's note.
    pub note: Option<String>,
    /// Since when.
    pub since: WallTime,
}

impl AdminStatus {
    /// `in drain, set by alice (disk)`.
    pub fn sentence(&self) -> String {
        let note = self.note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
        format!("in {}, set by {}{note}", self.state, self.by)
    }
}

impl BackendStatus {
    /// `ready`, `drain` or `maint`.
    pub fn admin_state(&self) -> &str {
        self.admin.as_ref().map_or(READY, |admin| &admin.state)
    }

    /// The same of one of its addresses: its own, or the backend's.
    pub fn admin_state_of<'a>(&'a self, endpoint: &'a EndpointStatus) -> &'a str {
        let admin = self.admin.as_ref().or(endpoint.admin.as_ref());
        admin.map_or(READY, |admin| &admin.state)
    }
}

const READY: &str = "ready";
