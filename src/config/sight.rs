//! What the probes of a service can see: who a server is, whom it follows, whether it is primary.

use super::{HttpProbe, Kind, ProbeKind, Promoter, Service};

impl HttpProbe {
    /// A path of Patroni's that passes on the primary alone.
    pub fn is_primary_path(path: &str) -> bool {
        matches!(path.split('?').next(), Some("/primary" | "/leader" | "/master" | "/read-write"))
    }
}

impl ProbeKind {
    /// Who passes it is primary, and nobody else passes.
    pub fn primary_only(&self) -> bool {
        matches!(self, Self::Http(http) if http.primary_only)
    }
}

impl Service {
    /// Its probes show who a server is and whom it follows.
    pub fn shows_lines(&self) -> bool {
        // A CockroachDB cluster shows none: its login proves that it serves, and nothing more.
        self.kind == Kind::Postgres && matches!(self.probe.kind, ProbeKind::Sql { .. })
    }

    /// There are standbys, and no probe shows whom they follow.
    pub fn is_blind(&self) -> bool {
        let shows = self.shows_lines() || self.replication.is_some() || self.probe.kind.primary_only();
        !shows && !self.failover.standby_serves
    }

    /// They are promoted all the same.
    pub fn promotes_blindly(&self) -> bool {
        self.is_blind() && !matches!(self.failover.promoter, Promoter::None)
    }
}
