//! What was read of Patroni, matched with the backends: whom it names, and what that means for the latched side. It tells
//! whom to look at; what moves the latch is proof by SQL alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::side::Side;
use crate::patroni::model::{Cluster, Ended, Member};
use crate::types::{BackendName, HostPort, Moment};

/// One attempt at reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// When it began.
    pub started: Moment,
    /// When its result stood.
    pub finished: Moment,
    /// `Err` = no member answered, and what they said instead.
    pub result: Result<Reading, String>,
}

/// What a member answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Whose API.
    pub via: HostPort,
    /// `GET /cluster`.
    pub cluster: Cluster,
    /// `GET /primary` of those that were asked, by name: do they hold the leader key by their own word? Who does not
    /// answer is missing.
    pub primary: BTreeMap<String, bool>,
    /// What the members' hosts stand for now, by name.
    pub addresses: BTreeMap<String, Vec<SocketAddr>>,
    /// The newest line of `GET /history`, once it was asked for.
    pub ended: Option<Ended>,
}

/// What Patroni holds of the latched side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Nothing that could be told: it was not read, it is stale, or the latched side is none of its members.
    Unknown,
    /// It is the leader.
    Leader,
    /// It is, and is about to stop being so.
    Leaving(&'a Member),
    /// Another member is.
    Another(&'a Member),
    /// The leader key is gone, and the latched side does not claim it any more.
    Nobody,
}

impl Reading {
    /// Which member each backend is: by its configured name, else by the one address they have in common.
    pub fn matched(&self, sides: &[Side]) -> BTreeMap<BackendName, String> {
        let mut found = BTreeMap::new();
        for side in sides {
            let is = |member: &&Member| match &side.config.member {
                Some(name) => member.name == *name,
                None => self.is_at(member, side),
            };
            let mut members = self.cluster.members.iter().filter(is);
            // Two members at one address: a balancer stands there, and nobody knows who is who.
            if let (Some(member), None) = (members.next(), members.next()) {
                found.insert(side.name.clone(), member.name.clone());
            }
        }
        found
    }

    fn is_at(&self, member: &Member, side: &Side) -> bool {
        let Some(host) = &member.host else { return false };
        let named = side.config.addresses.iter().any(|address| {
            address.port == host.port && address.host.trim_end_matches('.').eq_ignore_ascii_case(&host.host)
        });
        let resolved = self.addresses.get(&member.name).into_iter().flatten();
        named || resolved.into_iter().any(|address| side.addresses.contains_key(address))
    }

    /// What it holds of the latched side, which is `own` among its members and on `timeline`.
    pub fn standing(&self, own: Option<&str>, timeline: Option<crate::types::Timeline>) -> Standing<'_> {
        let Some(own) = own.and_then(|own| self.cluster.member(own)) else { return Standing::Unknown };
        match self.cluster.leader() {
            Some(leader) if leader.name == own.name => match leader.state.as_str() {
                "stopping" | "restarting" | "stopped" => Standing::Leaving(leader),
                _ => Standing::Leader,
            },
            // An answer from before the latch changed: that leader was left.
            Some(leader) if leader.timeline.zip(timeline).is_some_and(|(theirs, ours)| theirs < ours) => {
                Standing::Unknown
            }
            Some(leader) => Standing::Another(leader),
            // In maintenance the key may lapse, and in failsafe mode its holder keeps what it holds.
            None if self.cluster.paused || self.primary.get(&own.name) == Some(&true) => Standing::Unknown,
            None => Standing::Nobody,
        }
    }
}
