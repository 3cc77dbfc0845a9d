//! What stands on the side that was left when a promotion of somebody else is followed: this daemon relayed to it until
//! it knew. Counted from the last answer in which the new side was still a standby to the cut, and named.

use super::Machine;
use crate::failover::action::EventKind;
use crate::failover::analysis;
use crate::failover::observation::Role;
use crate::failover::phase::{EpisodeId, EpisodeKind, Identity, Intent};
use crate::failover::relayed::CutOff;
use crate::failover::side::Side;
use crate::types::{BackendName, Lsn, Moment, Now};

/// What the left side shows in its first answer after the cut is told once more.
#[derive(Debug)]
pub(super) struct Aftermath {
    episode: EpisodeId,
    from: BackendName,
    to: BackendName,
    left: Identity,
    branched: Lsn,
    since: Moment,
    /// Bytes of log that were named already.
    told: u64,
}

impl Machine {
    pub(super) fn was_cut(&mut self, backend: &BackendName, connections: usize, bytes: u64, now: Now) {
        if let Some(side) = self.side_mut(backend) {
            side.relayed.note(now.at, bytes);
            side.cut = Some(CutOff { at: now.at, connections });
        }
    }

    /// The side that becomes active is counted anew, and who else is a standby is seen anew.
    pub(super) fn count_anew(&mut self, active: &BackendName) {
        for side in &mut self.sides {
            side.standby = None;
            if side.name == *active {
                side.relayed.begin();
            }
        }
    }

    /// For the event of an episode that followed somebody else; `left`: the line that was latched before.
    pub(super) fn tell_beside(&mut self, intent: &Intent, left: Option<Identity>, now: Now) -> String {
        self.aftermath = None;
        let Some(name) = intent.from.as_ref().filter(|from| **from != intent.to) else { return String::new() };
        let (Some(from), Some(to)) = (self.side(name), self.side(&intent.to)) else { return String::new() };
        if intent.kind != EpisodeKind::Follow {
            return String::new();
        }
        let cut = from.cut.map_or(now.at, |cut| cut.at);
        let branched = left.as_ref().and_then(|left| self.branched(left));
        let log = left.as_ref().and_then(|left| from.flushed(left)).zip(branched);
        let (bytes, mut said) = match log {
            Some(((flushed, at), branched)) => {
                let seen = match at >= cut {
                    true => "seen as it was cut".to_owned(),
                    false => format!("last seen {:.1} s before the cut", cut.since(at).as_secs_f64()),
                };
                let bytes = branched.behind(flushed);
                let said = match bytes {
                    0 => format!("{name}, {seen}, showed no log beyond {branched}, where {} branched off", to.name),
                    _ => format!(
                        "{bytes} bytes of log written on {name} after {branched}, where {} branched off, stand only there ({seen})",
                        to.name
                    ),
                };
                (bytes, said)
            }
            None if self.replicates() => {
                (0, format!("how much of what {name} acknowledged stands only there is not known"))
            }
            None => (0, format!("how much of the log of {name} stands only there is not known")),
        };
        let (connections, relayed, traffic) = self.traffic_beside(from, to, cut);
        said.push_str(&traffic);
        self.aftermath = left.zip(branched).map(|(left, branched)| Aftermath {
            episode: intent.id,
            from: name.clone(),
            to: intent.to.clone(),
            left,
            branched,
            since: cut,
            told: bytes,
        });
        self.beside.connections += connections;
        self.beside.relayed_bytes += relayed;
        self.beside.log_bytes += bytes;
        format!("; {said}")
    }

    /// What this daemon itself relayed meanwhile: connections cut, bytes, and the two in words.
    fn traffic_beside(&self, from: &Side, to: &Side, cut: Moment) -> (u64, u64, String) {
        let (before, since, when) = match to.standby {
            Some(seen) => (seen.relayed, Some(seen.asked), format!("{} was last seen as a standby", to.name)),
            None if self.latched_at.is_some() => {
                (Some(from.relayed.first()), self.latched_at, format!("{} became active", from.name))
            }
            None => (Some(from.relayed.first()), None, "this daemon started".to_owned()),
        };
        let within = from.cut.filter(|off| since.is_none_or(|since| off.at >= since));
        let connections = within.map_or(0, |off| off.connections as u64);
        let span = since.map_or_else(String::new, |since| format!("in the {:.1} s ", cut.since(since).as_secs_f64()));
        let relayed = before.map(|before| from.relayed.latest().saturating_sub(before));
        let bytes = match relayed {
            Some(bytes) => format!("{bytes} bytes were relayed to it {span}since {when}"),
            None => format!("how much was relayed to it {span}since {when} is not known"),
        };
        let plural = if connections == 1 { "connection was" } else { "connections were" };
        (connections, relayed.unwrap_or(0), format!("; {connections} client {plural} cut, and {bytes}"))
    }

    /// Where the line that is latched now left the one before.
    fn branched(&self, left: &Identity) -> Option<Lsn> {
        let latched = self.latch()?.identity.as_ref()?;
        latched.ancestors.iter().find(|ancestor| ancestor.timeline == left.timeline).map(|a| a.switch_lsn)
    }

    /// The first answer of the left side after the cut: nothing that was relayed came after it.
    pub(super) fn tell_aftermath(&mut self, now: Now) {
        let Some(after) = &self.aftermath else { return };
        let heard = self.side(&after.from).and_then(|side| side.facts.as_ref());
        let Some(heard) = heard.filter(|heard| heard.started >= after.since) else { return };
        let facts = &heard.facts;
        let stands = facts.lsn.filter(|_| facts.role == Role::Primary && analysis::same_line(facts, &after.left));
        if let Some(lsn) = stands {
            let bytes = after.branched.behind(lsn);
            let said = format!(
                "episode {}: after the cut {} stands at {lsn}: {bytes} bytes of its log after {}, where {} branched off, stand only there",
                after.episode, after.from, after.branched, after.to
            );
            self.beside.log_bytes += bytes.saturating_sub(after.told);
            self.tell(now, EventKind::Notice, said);
        }
        self.aftermath = None;
    }
}
