//! Where Patroni is the authority: its word closes the gate to a side that it does not lead by, and hastens the look at
//! the one it names; its silence moves nothing. What opens the gate to another side is that side's own proof.

use std::collections::BTreeMap;

use super::Machine;
use crate::failover::action::EventKind;
use crate::failover::patroni::{Reading, Report, Standing};
use crate::failover::phase::{BlockReason, Latch};
use crate::patroni::model::{Cluster, Ended, Member};
use crate::types::{BackendName, Moment, Now, WallTime};

/// What is known of Patroni.
#[derive(Debug, Default)]
pub(in crate::failover) struct Following {
    /// The newest answer.
    pub(in crate::failover) heard: Option<Heard>,
    /// Since when no member answers, and what they say instead.
    pub(in crate::failover) trouble: Option<(WallTime, String)>,
    /// Which member each backend is.
    pub(in crate::failover) members: BTreeMap<BackendName, String>,
    /// The last attempt began then, whatever came of it.
    attempted: Option<Moment>,
    /// What an operator ordered and is under way.
    pub(in crate::failover) ask: Option<super::patroni_order::Ask>,
}

/// An answer and its times.
#[derive(Debug)]
pub(in crate::failover) struct Heard {
    pub(in crate::failover) started: Moment,
    pub(in crate::failover) at: WallTime,
    pub(in crate::failover) reading: Reading,
}

impl Machine {
    /// One attempt at reading Patroni.
    pub fn handle_patroni(&mut self, report: &Report, now: Now) {
        if self.service.patroni.is_none() || report.started < self.woke {
            return;
        }
        self.following.attempted = Some(report.started);
        match &report.result {
            Ok(reading) => self.heard_patroni(reading, report.started, now),
            Err(said) => {
                if self.following.trouble.is_none() {
                    self.tell(
                        now,
                        EventKind::Notice,
                        format!("patroni: no member answers, which moves nothing: {said}"),
                    );
                }
                let since = self.following.trouble.take().map_or(now.wall, |(since, _)| since);
                self.following.trouble = Some((since, said.clone()));
            }
        }
        self.advance(now);
    }

    fn heard_patroni(&mut self, reading: &Reading, started: Moment, now: Now) {
        let members = reading.matched(&self.sides);
        let before = self.following.heard.take();
        let mut said = Vec::new();
        if let Some((since, _)) = self.following.trouble.take() {
            said.push(format!("patroni: {} answers again, after {} s", reading.via, now.wall.since(since).as_secs()));
        }
        changes(before.as_ref().map(|heard| &heard.reading), reading, &mut said);
        if before.is_none() || members != self.following.members {
            said.extend(self.unmatched(reading, &members));
        }
        let anew = before.as_ref().is_none_or(|heard| named(&heard.reading.cluster) != named(&reading.cluster));
        self.following.members = members;
        self.following.heard = Some(Heard { started, at: now.wall, reading: reading.clone() });
        for sentence in said {
            self.tell(now, EventKind::Notice, sentence);
        }
        if anew {
            self.probe_all();
        }
    }

    /// Who is in one of the two lists alone.
    fn unmatched(&self, reading: &Reading, members: &BTreeMap<BackendName, String>) -> Option<String> {
        let strangers = strangers(&reading.cluster, members);
        let strangers = strangers.map(|member| match &member.host {
            Some(host) => format!("member {} at {host} is no backend here", member.name),
            None => format!("member {} is no backend here", member.name),
        });
        let missing = self.sides.iter().filter(|side| !members.contains_key(&side.name));
        let missing = missing.map(|side| format!("backend {} is no member it knows", side.name));
        let all: Vec<String> = strangers.chain(missing).collect();
        (!all.is_empty()).then(|| {
            format!("patroni: {}; correct the addresses, or name it: member = \"…\" at the backend", all.join(", "))
        })
    }

    /// The newest answer.
    pub(in crate::failover) fn patroni_word(&self) -> Option<&Reading> {
        self.following.heard.as_ref().map(|heard| &heard.reading)
    }

    /// What Patroni holds of the latched side.
    pub(in crate::failover) fn standing(&self) -> Standing<'_> {
        let (Some(heard), Some(latch)) = (&self.following.heard, self.latch()) else { return Standing::Unknown };
        let own = self.following.members.get(&latch.active).map(String::as_str);
        let standing = heard.reading.standing(own, latch.identity.as_ref().map(|identity| identity.timeline));
        match standing {
            Standing::Leader | Standing::Leaving(_) => standing,
            // What was asked for before the latch changed says nothing against its side.
            _ if Some(heard.started) >= self.latched_at => standing,
            _ => Standing::Unknown,
        }
    }

    /// Why Patroni's word keeps the latched side from every byte. It stands until Patroni says something else, or an
    /// operator adopts: its silence takes nothing back.
    pub(super) fn disowned(&self) -> Option<(BlockReason, String)> {
        let Latch { active, .. } = self.latch()?;
        let said = match self.standing() {
            Standing::Unknown | Standing::Leader | Standing::Leaving(_) => return None,
            Standing::Another(leader) => match self.backend_of(leader) {
                Some(backend) => {
                    format!(
                        "Patroni names {} its leader: {backend} is opened to as soon as it proves to be primary",
                        leader.name
                    )
                }
                None => format!(
                    "Patroni names {} its leader, which is no backend here: configure it, or `patronictl switchover`",
                    leader.name
                ),
            },
            Standing::Nobody => {
                "Patroni has no leader: its key is gone; whoever is promoted is followed as soon as that is proven"
                    .to_owned()
            }
        };
        let silent = match &self.following.trouble {
            Some(_) => format!("; no member answers any more: `proxyctl adopt {active}` opens it again by your word"),
            None => String::new(),
        };
        Some((BlockReason::NotLeader, format!("{active} gets nothing, {said}{silent}")))
    }

    /// The backend that this member is.
    pub(in crate::failover) fn backend_of(&self, member: &Member) -> Option<&BackendName> {
        self.following.members.iter().find(|(_, name)| **name == member.name).map(|(backend, _)| backend)
    }

    /// Newcomers wait although the latched side may still serve: what they begin would end at once.
    pub(super) fn holds_for_patroni(&self) -> bool {
        self.following.ask.is_some() || matches!(self.standing(), Standing::Leaving(_))
    }

    /// Patroni is about to change, or has changed: look as often as can be.
    pub fn hastens_patroni(&self) -> bool {
        self.holds_for_patroni() || self.disowned().is_some()
    }

    /// At the start its word is waited for as the other backends' is.
    pub(super) fn patroni_asked_since(&self, since: Moment) -> bool {
        self.service.patroni.is_none() || self.following.attempted >= Some(since)
    }

    /// Patroni names this backend its leader.
    pub(super) fn patroni_names(&self, backend: &BackendName) -> bool {
        let leader = self.patroni_word().and_then(|reading| reading.cluster.leader());
        leader.is_some_and(|leader| self.following.members.get(backend) == Some(&leader.name))
    }
}

/// Members that are no backend.
pub(in crate::failover) fn strangers<'a>(
    cluster: &'a Cluster,
    members: &'a BTreeMap<BackendName, String>,
) -> impl Iterator<Item = &'a Member> {
    cluster.members.iter().filter(|member| !members.values().any(|name| *name == member.name))
}

fn named(cluster: &Cluster) -> Option<(&str, Option<crate::types::Timeline>)> {
    cluster.leader().map(|leader| (leader.name.as_str(), leader.timeline))
}

/// What an operator will want to find in the history.
fn changes(before: Option<&Reading>, reading: &Reading, said: &mut Vec<String>) {
    let (then, now) = (before.map(|reading| &reading.cluster), &reading.cluster);
    if then.is_none_or(|then| named(then) != named(now)) {
        said.push(match now.leader() {
            Some(leader) => format!("patroni: {} is {}{}", leader.name, leader.role.as_str(), line_of(leader, reading)),
            None => "patroni: there is no leader".to_owned(),
        });
    }
    let paused = then.is_some_and(|then| then.paused);
    match (paused, now.paused) {
        (false, true) => said.push("patroni: paused, it promotes nobody by itself".to_owned()),
        (true, false) => said.push("patroni: resumed".to_owned()),
        _ => {}
    }
    let scheduled = then.and_then(|then| then.scheduled.as_ref());
    match &now.scheduled {
        next if next.as_ref() == scheduled => {}
        Some(next) => {
            let to = next.to.as_deref().unwrap_or("whom it chooses");
            said.push(format!("patroni: a switchover to {to} is scheduled for {}", next.at));
        }
        None => said.push("patroni: no switchover is scheduled any more".to_owned()),
    }
}

/// `, timeline 3 (no recovery target specified, 2026-01-31T…)`.
fn line_of(leader: &Member, reading: &Reading) -> String {
    let Some(timeline) = leader.timeline else { return String::new() };
    let mut text = format!(", timeline {timeline}");
    let came = |ended: &&Ended| ended.timeline.0.checked_add(1) == Some(timeline.0);
    if let Some(ended) = reading.ended.as_ref().filter(came) {
        let at = ended.at.map_or_else(String::new, |at| format!(" at {at}"));
        text.push_str(&format!(" ({} ended{at}: {})", ended.timeline, ended.reason));
    }
    text
}
