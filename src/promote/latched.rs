//! Is the server at the other end of this very connection the latched one? By system identifier, timeline and node key.
//! Two branches with one timeline number and one node key look the same here: the probes compare histories.

use std::fmt;

use tokio::time::Instant;

use super::EffectError;
use super::setting::denied;
use crate::failover::action::Latched;
use crate::net::session::Session;
use crate::types::{SystemId, Timeline};

/// The timeline never comes from `pg_control_checkpoint()`: that lags a promotion by a checkpoint.
const WHO: &str = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN \
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END, \
    host(inet_server_addr()) || ':' || inet_server_port(), (SELECT system_identifier FROM pg_control_system())";

/// What a server shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    system_id: SystemId,
    /// Of a primary.
    timeline: Option<Timeline>,
    node: Option<String>,
}

/// Asks before anything is changed. A standby shows no timeline here: an order that needs a primary asks for that itself.
pub(super) async fn must_be_latched(
    session: &mut Session,
    latched: Option<&Latched>,
    deadline: Instant,
) -> Result<(), EffectError> {
    let Some(latched) = latched else { return Ok(()) };
    let shown = Shown::read(session, deadline).await?;
    if shown.may_be(latched) {
        return Ok(());
    }
    let latched = Shown { system_id: latched.system_id, timeline: Some(latched.timeline), node: latched.node.clone() };
    Err(EffectError::Stranger { shown: Box::new(shown), latched: Box::new(latched) })
}

impl Shown {
    async fn read(session: &mut Session, deadline: Instant) -> Result<Self, EffectError> {
        let rows = match session.query(WHO, deadline).await {
            Ok(rows) => rows,
            Err(error) => {
                let what = "EXECUTE ON FUNCTION pg_control_system()";
                return Err(denied(session, error, "the system identifier may not be read", what, deadline).await);
            }
        };
        Self::parse(&rows.into_iter().next().unwrap_or_default()).ok_or(EffectError::Answer("who it is"))
    }

    fn parse(row: &[Option<String>]) -> Option<Self> {
        let [timeline, node, system_id] = row else { return None };
        let timeline = timeline.as_deref().map(|hex| u32::from_str_radix(hex, 16)).transpose().ok()?;
        let system_id = SystemId(system_id.as_deref()?.parse().ok()?);
        Some(Self { system_id, timeline: timeline.map(Timeline), node: node.clone() })
    }

    fn may_be(&self, latched: &Latched) -> bool {
        self.system_id == latched.system_id
            && self.timeline.is_none_or(|shown| shown == latched.timeline)
            && latched.node.as_ref().is_none_or(|node| self.node.as_ref() == Some(node))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system {}", self.system_id)?;
        if let Some(timeline) = self.timeline {
            write!(f, " timeline {timeline}")?;
        }
        if let Some(node) = &self.node {
            write!(f, " at {node}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(timeline: Option<&str>, node: Option<&str>, system: &str) -> Shown {
        Shown::parse(&[timeline.map(str::to_owned), node.map(str::to_owned), Some(system.to_owned())]).unwrap()
    }

    #[test]
    fn only_the_latched_server_passes() {
        let latched = |node: Option<&str>| Latched {
            system_id: SystemId(77),
            timeline: Timeline(26),
            node: node.map(Into::into),
        };
        let here = Some("10.0.0.1:5432");
        for (shown, passes) in [
            (shown(Some("0000001A"), here, "77"), true),
            (shown(None, here, "77"), true),
            (shown(Some("0000001A"), here, "78"), false),
            (shown(Some("0000001B"), here, "77"), false),
            (shown(Some("0000001A"), Some("10.0.0.2:5432"), "77"), false),
            (shown(Some("0000001A"), None, "77"), false),
        ] {
            assert_eq!(shown.may_be(&latched(here)), passes, "{shown}");
        }
        assert!(shown(Some("0000001A"), Some("10.0.0.2:5432"), "77").may_be(&latched(None)), "no node is known");
        assert_eq!(shown(Some("0000001A"), here, "77").to_string(), "system 77 timeline 26 at 10.0.0.1:5432");
    }
}
