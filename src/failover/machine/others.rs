//! Who else decides on the same servers: other daemons, as the servers name them, and other pairs of this daemon, whose
//! services were given other backends although these are the same servers. Of two, one decides and the other follows.

use std::time::Duration;

use super::{Machine, State};
use crate::failover::analysis;
use crate::failover::phase::EpisodeKind;
use crate::types::{Now, ServiceName, SystemId};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// Another pair of this daemon, as its own machine shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// Its (first) service.
    pub service: ServiceName,
    /// It stands before this one in the configuration.
    pub earlier: bool,
    /// Whose servers it leads; `None` = nothing is latched, or its probes cannot tell.
    pub system_id: Option<SystemId>,
    /// It promotes by itself.
    pub decides: bool,
    /// It is promoting now, by itself or commanded.
    pub promotes_now: bool,
}

impl Machine {
    /// This pair as the others of the daemon must know it.
    pub fn as_sibling(&self) -> Sibling {
        let promotes = |kind| matches!(kind, EpisodeKind::Failover | EpisodeKind::Switchover);
        Sibling {
            service: self.service.name.clone(),
            earlier: false,
            system_id: self.system(),
            decides: self.decides() && !self.service.failover.standby_serves,
            promotes_now: matches!(&self.state, State::Episode(run) if promotes(run.intent.kind)),
        }
    }

    /// The other pairs of this daemon as they are now.
    pub fn handle_siblings(&mut self, siblings: Vec<Sibling>, now: Now) {
        if self.siblings != siblings {
            self.siblings = siblings;
            self.advance(now);
        }
    }

    fn system(&self) -> Option<SystemId> {
        Some(self.latch()?.identity.as_ref()?.system_id)
    }

    /// Other pairs of this daemon that lead the same servers. Where every side serves nothing is promoted, and several
    /// services may each have their own way.
    pub(super) fn kin(&self) -> impl Iterator<Item = &Sibling> {
        let system = self.system().filter(|_| !self.service.failover.standby_serves);
        self.siblings.iter().filter(move |sibling| system.is_some() && sibling.system_id == system)
    }

    /// Another daemon was seen on these servers within 24 hours.
    pub(super) fn others_of_late(&self, now: Now) -> bool {
        self.sees_daemons() || self.record.other_daemon_seen.is_some_and(|seen| now.wall.since(seen) < DAY)
    }

    /// Other sessions bear our name, too: a promoter's, for one.
    pub(super) fn sees_daemons(&self) -> bool {
        self.daemons.keys().any(|name| name.starts_with("s-") || name.starts_with("o-"))
    }

    /// What was seen of other daemons outlives a restart; an hour's precision is enough for that.
    pub(super) fn note_others(&mut self, now: Now) {
        let seen = self.record.other_daemon_seen;
        let known = seen.is_some_and(|seen| now.wall.since(seen) < HOUR && seen.since(now.wall) < HOUR);
        if self.sees_daemons() && !known && matches!(self.state, State::Watching) && self.aside.is_none() {
            self.record.other_daemon_seen = Some(now.wall);
            self.persist_aside(now);
        }
    }

    /// Everybody else who leads these servers, for the view.
    pub(in crate::failover) fn others(&self) -> Vec<String> {
        let kin = self.kin().map(|sibling| format!("service {} of this daemon", sibling.service));
        self.daemons.keys().cloned().chain(kin).collect()
    }

    /// The pair of this daemon that decides in this one's place, and what to do about it. Neither fence nor synchronous
    /// replication makes two of them safe: each would hold the lock on a candidate of its own.
    pub(super) fn elder_sibling(&self) -> Option<String> {
        let elder = |sibling: &&Sibling| sibling.decides && sibling.earlier || sibling.promotes_now;
        let sibling = self.kin().find(elder)?;
        let system = sibling.system_id.map_or_else(String::new, |system| format!(" (system {system})"));
        let does = if sibling.promotes_now { "promotes" } else { "decides" };
        Some(format!(
            "service {elder} of this daemon {does} on the same servers{system}, and this one follows: give both the \
             same backends, so that they share one decision, or this one authority = \"observe\"",
            elder = sibling.service,
        ))
    }

    /// An older daemon that decides on this pair, unless something else keeps two apart.
    pub(in crate::failover) fn older_decider(&self) -> Option<&String> {
        if self.service.failover.fence_required || self.only_sync_candidate() {
            return None;
        }
        // Known to them as one that only observes, since it does not decide for longer than it runs: they make no room.
        let unknown = self.daemon.starts_with("o-");
        self.daemons.keys().find(|name| name.starts_with("s-") && (unknown || **name < self.daemon))
    }

    /// Is the one standby here the one that commits wait for? Names do not tell who is who: nobody else may stream.
    fn only_sync_candidate(&self) -> bool {
        let Some(active) = self.active_side() else { return false };
        let Some(facts) = active.facts.as_ref().map(|heard| &heard.facts) else { return false };
        let mut standbys = self.sides.iter().filter(|side| !self.is_active(&side.name));
        let (Some(standby), None) = (standbys.next(), standbys.next()) else { return false };
        let streams = standby.witness.sender().is_some_and(|sender| analysis::is_at(active, sender));
        let synchronous = facts.sync.as_ref().is_some_and(|sync| sync.synchronous == facts.standbys);
        streams && synchronous && facts.standbys.len() == 1
    }
}
