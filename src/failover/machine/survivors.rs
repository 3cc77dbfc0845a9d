//! After the latch moved: standbys that stayed on the line that was left are pointed at the new primary, and synchronous
//! replication is narrowed to those that are left. It follows from the latch and what is heard, belongs to no episode,
//! and keeps no gate waiting.

use std::time::Duration;

use super::{Machine, State};
use crate::config::{Survivors, SyncRule};
use crate::failover::action::{Action, EventKind, Repoint};
use crate::failover::health::State as Health;
use crate::failover::observation::{Role, SyncState};
use crate::failover::phase::{Identity, Latch};
use crate::failover::side::Side;
use crate::failover::survivors::{self, Standing};
use crate::failover::sync_names::SyncNames;
use crate::types::{BackendName, Epoch, HostPort, Moment, Now};

/// An order that was not answered by then never will be: it ends itself before.
const ANSWER: Duration = Duration::from_secs(90);
/// Between two tries: doubled from 2 s up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Commits that still wait so long after the latch wait for somebody who does not come.
/// How old a latch is that a daemon which starts may have to finish this for.
const YOUNG: Duration = Duration::from_secs(60);
const SYNC_PATIENCE: Duration = Duration::from_secs(5);

/// What was done for one standby under this epoch.
#[derive(Debug, Default)]
pub(in crate::failover) struct Care {
    epoch: Epoch,
    tries: u32,
    /// No order before.
    next: Moment,
    asked: Option<Moment>,
    /// What came of the last order.
    last: Option<Result<String, String>>,
    told: Option<Standing>,
}

/// `synchronous_standby_names` was set for standbys that had still to come.
#[derive(Debug)]
pub(in crate::failover) struct Awaited {
    since: Moment,
    asked: bool,
    /// How often it was asked for in vain, and why last.
    tries: u32,
    refused: Option<String>,
}

impl Awaited {
    fn from(since: Moment) -> Self {
        Self { since, asked: false, tries: 0, refused: None }
    }

    fn due(&self) -> Moment {
        self.since + (SYNC_PATIENCE * (1 << self.tries.min(6))).min(LONGEST_PAUSE)
    }
}

impl Care {
    fn pause(&self) -> Duration {
        Duration::from_secs(1 << self.tries.clamp(1, 6)).min(LONGEST_PAUSE)
    }
}

impl Machine {
    /// Tells how standbys stand, and orders what is due.
    pub(super) fn mind_survivors(&mut self, now: Now) {
        let Some(latch) = self.latch().filter(|latch| latch.epoch > Epoch(1)).cloned() else { return };
        let Some(identity) = latch.identity.as_ref().filter(|_| matches!(self.state, State::Watching)) else { return };
        let up = self.sides.iter().filter(|side| side.state() == Health::Up);
        let standings: Vec<_> =
            up.filter_map(|side| Some((side.name.clone(), self.relation(side, &latch.active, identity)?))).collect();
        for (name, standing) in standings {
            let care = self.care.entry(name.clone()).or_default();
            if care.epoch != latch.epoch {
                *care = Care { epoch: latch.epoch, ..Care::default() };
            }
            self.tell_standing(&name, &standing, &latch, now);
            if matches!(standing, Standing::Adrift(_)) && self.repoints() && self.leads() {
                self.point(&name, &latch, identity, now);
            }
        }
        self.relieve(now);
    }

    fn relation(&self, side: &Side, active: &BackendName, identity: &Identity) -> Option<Standing> {
        self.knows_identity().then(|| survivors::standing(side, &self.sides, active, identity)).flatten()
    }

    /// For the view: how this standby stands to the latched side, and what was done about it.
    pub(in crate::failover) fn standing_now(&self, side: &Side) -> Option<(Standing, String)> {
        let latch = self.latch()?;
        let standing = self.relation(side, &latch.active, latch.identity.as_ref()?)?;
        let mut said = standing.sentence(&side.name, &latch.active);
        if let Standing::Adrift(_) = &standing {
            let care = self.care.get(&side.name).filter(|care| care.epoch == latch.epoch);
            match care.and_then(|care| care.last.as_ref()) {
                Some(Ok(_)) => said.push_str(
                    "; it was pointed there and does not stream yet: its log says why (password, pg_hba.conf, slot)",
                ),
                Some(Err(why)) => said = format!("{said}; {why}"),
                None if self.repoints() && latch.epoch > Epoch(1) => said.push_str("; it is being pointed there"),
                None => said = format!("{said}; {}", self.to_type(&side.name, &latch.active)),
            }
        }
        Some((standing, said))
    }

    /// Standbys are pointed at the new primary by this daemon.
    fn repoints(&self) -> bool {
        let failover = &self.service.failover;
        failover.survivors == Survivors::Repoint && !failover.standby_serves && self.record.paused.is_none()
    }

    /// The latched side is there to be followed.
    fn leads(&self) -> bool {
        self.mismatch.is_none()
            && self.active_side().is_some_and(|side| side.state() == Health::Up && side.role() == Role::Primary)
    }

    fn tell_standing(&mut self, name: &BackendName, standing: &Standing, latch: &Latch, now: Now) {
        let (repoints, ours, active) = (self.repoints(), self.latched_at.is_some(), &latch.active);
        let Some(care) = self.care.get_mut(name) else { return };
        let word = |standing: &Standing| standing.as_str();
        if care.told.as_ref().map(word) == Some(word(standing)) {
            return;
        }
        let before = care.told.replace(standing.clone());
        let said = standing.sentence(name, active);
        match standing {
            Standing::Follows if before.is_some() || ours => {
                care.tries = 0;
                let on = latch.identity.as_ref().map(|identity| format!(" on timeline {}", identity.timeline));
                self.tell(now, EventKind::Notice, format!("{said}{}", on.unwrap_or_default()));
            }
            Standing::Orphan(_) => self.tell(now, EventKind::Notice, format!("{name} is an orphan: {said}")),
            Standing::Adrift(_) if !repoints => {
                let said = format!("{said}; {}", self.to_type(name, active));
                self.tell(now, EventKind::Notice, said);
            }
            _ => {}
        }
    }

    fn point(&mut self, name: &BackendName, latch: &Latch, identity: &Identity, now: Now) {
        let Some(address) = self.address_for_standbys(&latch.active) else { return };
        let Some(care) = self.care.get_mut(name) else { return };
        if care.asked.is_some_and(|at| now.at.since(at) < ANSWER) || now.at < care.next {
            return;
        }
        care.asked = Some(now.at);
        care.tries += 1;
        self.actions.push_back(Action::Repoint(Box::new(Repoint {
            epoch: latch.epoch,
            backend: name.clone(),
            primary: latch.active.clone(),
            address,
            system_id: identity.system_id,
            timeline: identity.timeline,
            ancestors: identity.ancestors.clone(),
        })));
    }

    /// What came of an order.
    pub(super) fn repointed(&mut self, name: &BackendName, epoch: Epoch, result: Result<String, String>, now: Now) {
        let Some(active) = self.latch().filter(|latch| latch.epoch == epoch).map(|latch| latch.active.clone()) else {
            return;
        };
        let Some(care) = self.care.get_mut(name).filter(|care| care.epoch == epoch) else { return };
        care.asked = None;
        care.next = now.at + care.pause();
        let new = care.last.as_ref() != Some(&result);
        care.last = Some(result.clone());
        match result {
            Ok(said) if new => self.tell(now, EventKind::Notice, said),
            Err(why) if new => self.tell(now, EventKind::Notice, format!("{name} does not follow {active}: {why}")),
            _ => {}
        }
        // Whether it follows now is a probe's word.
        self.actions.push_back(Action::ProbeNow { backend: name.clone() });
    }

    /// Where other servers reach this one.
    fn address_for_standbys(&self, name: &BackendName) -> Option<HostPort> {
        let side = self.side(name)?;
        let at = self.address_of(name).and_then(|at| side.addresses.get(&at)?.configured.clone());
        side.config.replication_address.clone().or(at).or_else(|| side.config.addresses.first().cloned())
    }

    fn to_type(&self, name: &BackendName, active: &BackendName) -> String {
        match self.address_for_standbys(active) {
            Some(place) => survivors::to_type(name, &place),
            None => format!("point its primary_conninfo at {active}"),
        }
    }

    // ---- synchronous replication ----

    /// `synchronous_standby_names` of the new side for the standbys that are left; empty = nobody is.
    pub(super) fn narrowed(&self, to: &BackendName, sync: &SyncState) -> Result<String, String> {
        let names = SyncNames::parse(&sync.names).map_err(|error| format!("{:?} {error}", sync.names))?;
        let (Some(names), Some(run)) = (names, self.run()) else { return Ok(String::new()) };
        let side = self.side(to).and_then(|side| side.facts.as_ref());
        let streaming = side.map(|heard| heard.facts.standbys.clone()).unwrap_or_default();
        let mut left: Vec<String> = streaming;
        if let Some(identity) = &run.proven {
            for side in self
                .sides
                .iter()
                .filter(|side| side.state() == Health::Up && Some(&side.name) != run.intent.from.as_ref())
            {
                let comes = match self.relation(side, to, identity) {
                    Some(Standing::Follows | Standing::Returns) => true,
                    Some(Standing::Adrift(_)) => self.repoints(),
                    _ => false,
                };
                let called = side.upstream.as_ref().and_then(|upstream| upstream.application_name.clone());
                match called.filter(|_| comes) {
                    Some(called) if !left.contains(&called) => left.push(called),
                    None if comes => {
                        return Err(format!("under which name {} streams is not known", side.name));
                    }
                    _ => {}
                }
            }
        }
        let left: Vec<&str> = left.iter().map(String::as_str).collect();
        Ok(names.narrowed(&left).map(|names| names.to_string()).unwrap_or_default())
    }

    /// The latch stands and commits may wait for standbys that have still to come.
    pub(super) fn await_standbys(&mut self, now: Now) {
        let adapts = self.service.failover.sync_after_failover == SyncRule::Adapt;
        self.awaited = adapts.then(|| Awaited::from(now.at));
    }

    /// Whoever latched it may have died before it was seen that they do not come.
    pub(in crate::failover) fn await_standbys_still(&mut self, now: Now) {
        let young = |latch: &Latch| latch.epoch > Epoch(1) && now.wall.since(latch.since) <= YOUNG;
        if self.latch().is_some_and(young) {
            self.await_standbys(now);
        }
    }

    /// Who should have come did not: commits wait for nobody who is not there.
    fn relieve(&mut self, now: Now) {
        let Some(due) = self.awaited.as_ref().filter(|awaited| !awaited.asked).map(Awaited::due) else { return };
        let heard = self.active_side().and_then(|side| side.facts.as_ref());
        let Some(heard) = heard.filter(|heard| now.at >= due && heard.started >= due) else { return };
        let blocked = heard.facts.sync.clone().filter(SyncState::blocks_commits);
        let (Some(sync), Some(backend)) = (blocked, self.active_name()) else {
            self.awaited = None;
            return;
        };
        let there: Vec<&str> = heard.facts.standbys.iter().map(String::as_str).collect();
        let names = SyncNames::parse(&sync.names).ok().flatten().and_then(|names| names.narrowed(&there));
        let names = names.map(|names| names.to_string()).unwrap_or_default();
        let again = self.awaited.as_ref().is_some_and(|awaited| awaited.tries > 0);
        let said = format!(
            "commits on {backend} still waited for standbys that did not come: synchronous_standby_names = '{}' becomes '{names}'",
            sync.names
        );
        if let Some(awaited) = &mut self.awaited {
            awaited.asked = true;
        }
        if !again {
            self.tell(now, EventKind::Notice, said);
        }
        self.actions.push_back(Action::SetSync { episode: None, backend, names });
    }

    /// What came of that. In vain, it is asked for again, ever more slowly: commits may hang until it is done.
    pub(super) fn relieved(&mut self, result: Result<(), String>, now: Now) {
        let Some(asked) = self.awaited.take() else { return };
        let Err(why) = result else {
            if asked.tries > 0 {
                self.tell(now, EventKind::Notice, "synchronous_standby_names could be set after all".into());
            }
            return;
        };
        if asked.refused.as_ref() != Some(&why) {
            self.tell(now, EventKind::Notice, format!("synchronous_standby_names could not be set: {why}"));
        }
        let tries = asked.tries.saturating_add(1);
        self.awaited = Some(Awaited { since: now.at, asked: false, tries, refused: Some(why) });
    }
}
