//! What is ordered from Patroni, and what it says to that.

/// An order to Patroni, with its own names of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatroniOrder {
    /// The leader changes, planned.
    Switchover {
        /// Who it must be now.
        leader: String,
        /// Who is next; `None` = Patroni chooses.
        candidate: Option<String>,
    },
    /// This member is promoted, whoever leads.
    Failover {
        /// Who.
        candidate: String,
    },
}

impl PatroniOrder {
    /// Below the API's root.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Switchover { .. } => "switchover",
            Self::Failover { .. } => "failover",
        }
    }

    /// As JSON.
    pub fn body(&self) -> String {
        let body = match self {
            Self::Switchover { leader, candidate: Some(candidate) } => {
                serde_json::json!({ "leader": leader, "candidate": candidate })
            }
            Self::Switchover { leader, candidate: None } => serde_json::json!({ "leader": leader }),
            Self::Failover { candidate } => serde_json::json!({ "candidate": candidate }),
        };
        body.to_string()
    }
}

/// What came of an order to Patroni.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatroniSays {
    /// Done, in its words; still to be proven.
    Taken(String),
    /// It was not done: 412, 503, 401 …
    Refused(String),
    /// It never left.
    NotSent(String),
    /// Nobody knows.
    Unknown(String),
}
