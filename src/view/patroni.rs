//! What Patroni says of a service's servers.

use serde::{Deserialize, Serialize};

use crate::types::{BackendName, HostPort, Timeline, WallTime};

/// Where Patroni is the authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatroniStatus {
    /// Whose API answered last.
    pub via: Option<HostPort>,
    /// When it was last read.
    pub read_at: Option<WallTime>,
    /// Why no member answers, and since when; `None` = one does.
    pub trouble: Option<(WallTime, String)>,
    /// The member that holds the leader key.
    pub leader: Option<String>,
    /// Maintenance mode: Patroni promotes nobody by itself.
    pub paused: bool,
    /// The switchover that is to come, in words.
    pub scheduled: Option<String>,
    /// In the order of their names.
    pub members: Vec<PatroniMember>,
    /// Backends that are none of its members.
    pub unmatched: Vec<BackendName>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatroniMember {
    /// Its name in Patroni.
    pub name: String,
    /// The backend that it is; `None` = it is not configured here.
    pub backend: Option<BackendName>,
    /// Where its PostgreSQL is reached, by its own word.
    pub host: Option<HostPort>,
    /// `leader`, `standby leader`, `sync standby`, `replica`, or Patroni's own word.
    pub role: String,
    /// `running`, `streaming`, `stopped` …
    pub state: String,
    /// Of its last report.
    pub timeline: Option<Timeline>,
    /// Bytes behind the leader.
    pub lag_bytes: Option<u64>,
    /// It is never promoted.
    pub nofailover: bool,
    /// A changed setting waits for a restart.
    pub pending_restart: bool,
}

impl PatroniStatus {
    /// What stands out, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.paused {
            notes.push("Patroni is paused: it promotes nobody by itself".to_owned());
        }
        if self.leader.is_none() && self.read_at.is_some() {
            notes.push("there is no leader".to_owned());
        }
        notes.extend(self.scheduled.iter().map(|planned| format!("a switchover is scheduled {planned}")));
        notes.extend(self.unmatched.iter().map(|name| format!("backend {name} is no member that Patroni knows")));
        notes
    }
}

impl PatroniMember {
    /// What stands out, in a few words.
    pub fn notes(&self) -> String {
        let notes = [(self.nofailover, "nofailover"), (self.pending_restart, "pending restart")];
        let notes: Vec<&str> = notes.into_iter().filter(|(is, _)| *is).map(|(_, note)| note).collect();
        notes.join(", ")
    }
}
