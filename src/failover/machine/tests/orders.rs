//! How the stage carries out what the machine orders.

use super::stage::{Mood, Stage};
use crate::failover::action::{Action, Latched, LockResult, Outcome, PromotionResult, Repoint};
use crate::types::{BackendName, Lsn, SystemId, Timeline};

impl Stage {
    pub(super) fn carry_out(&mut self, action: Action) {
        if self.loses.is_some_and(|loses| loses(&action)) {
            return;
        }
        match action {
            Action::Persist { ticket, record } => {
                if self.hold_write.is_some_and(|holds| holds(&record)) {
                    self.hold_write = None;
                    self.waiting = Some(Vec::new());
                }
                if self.disk_ok || self.disk_lies {
                    self.writes += 1;
                    self.disk = *record;
                }
                let result = if self.disk_ok { Ok(()) } else { Err("no space left on device".into()) };
                self.told(Outcome::Persisted { ticket, result });
            }
            Action::DrainReaders { backend } => self.drained.push(backend),
            Action::Retire { backend, address, cut } => self.retired.push((backend, address, cut)),
            Action::Publish(_)
            | Action::ReadStreams { .. }
            | Action::ReadClock { .. }
            | Action::OrderPatroni { .. }
            | Action::ReadPatroni => {}
            Action::Unlock { .. } => self.unlocks += 1,
            Action::Cut { backend } => {
                self.cuts.push(backend.clone());
                let (connections, bytes) = (self.attached, self.relayed);
                self.told(Outcome::Cut { backend, connections, bytes });
            }
            Action::ProbeNow { backend } => {
                let i = Self::index(&backend);
                self.next_probe[i] = self.now;
            }
            Action::Fence { episode, backend } => {
                self.fenced.push(backend);
                let result = self.fence.clone();
                self.told(Outcome::Fenced { episode, result });
            }
            Action::Lock { episode, backends, needed } => {
                let known = || backends.iter().filter(|name| self.machine.address_of(name).is_some());
                let free = known().filter(|name| !self.servers[Self::index(name)].locked_by_other).count();
                let result = match known().count() {
                    known if known < needed => LockResult::Failed("too few backends have an address".into()),
                    _ if free >= needed => LockResult::Held,
                    _ => LockResult::Busy,
                };
                self.told(Outcome::Locked { episode, result });
            }
            Action::Promote { episode, backend, .. } => {
                let i = Self::index(&backend);
                self.promotions.push(backend);
                let result = if self.servers[i].mood == Mood::Well && self.servers[i].promotes {
                    self.promote(i);
                    PromotionResult::Done
                } else {
                    PromotionResult::Unknown("no answer in time".into())
                };
                self.told(Outcome::Promotion { episode, result });
            }
            Action::Freeze { episode, backend, latched } => {
                let i = Self::index(&backend);
                self.freezes.push(format!("freeze {backend}"));
                let result = self.finds(&backend, latched.as_ref()).map(|()| {
                    self.servers[i].frozen = true;
                    Lsn(self.servers[i].lsn)
                });
                self.told(Outcome::Frozen { episode, result });
            }
            Action::Unfreeze { episode, backend, latched } => {
                let i = Self::index(&backend);
                self.freezes.push(format!("unfreeze {backend}"));
                let result = self.finds(&backend, latched.as_ref()).map(|()| self.servers[i].frozen = false);
                self.told(Outcome::Unfrozen { episode, result });
            }
            Action::ReadFlush { episode, backend, latched } => {
                let lsn = Lsn(self.servers[Self::index(&backend)].lsn);
                let result = self.finds(&backend, latched.as_ref()).map(|()| lsn);
                self.told(Outcome::FlushRead { episode, result });
            }
            Action::Soften { backend, server, ends } => {
                let i = Self::index(&backend);
                self.freezes.push(format!("soften {backend}{}", if ends { "" } else { " again" }));
                let found = match self.servers[i].primary {
                    true => self.finds(&backend, Some(&server)),
                    false => Err("it is no primary".into()),
                };
                let result = found.map(|()| {
                    self.servers[i].frozen = true;
                    crate::failover::action::Softened { ended: 3, gaps: self.gaps.clone() }
                });
                self.told(Outcome::Softened { backend, result });
            }
            Action::Thaw { backend, .. } => {
                let i = Self::index(&backend);
                self.freezes.push(format!("thaw {backend}"));
                let result = match self.servers[i].primary {
                    true => Err("it is no standby".into()),
                    false => {
                        self.servers[i].frozen = false;
                        Ok(())
                    }
                };
                self.told(Outcome::Thawed { backend, result });
            }
            Action::Rejoin(order) => self.rejoins.push(order),
            Action::StopRejoin { backend } => self.stopped.push(backend),
            Action::SetSync { episode, backend, names } => {
                let i = Self::index(&backend);
                let result = self.sync_refused.clone().map_or(Ok(()), Err);
                if result.is_ok() {
                    self.servers[i].sync_names = names;
                }
                self.told(Outcome::SyncSet { episode, result });
            }
            Action::Repoint(order) => {
                let (backend, epoch) = (order.backend.clone(), order.epoch);
                let result = self.repoint(&order);
                self.told(Outcome::Repointed { backend, epoch, result });
            }
        }
    }

    /// `ALTER SYSTEM SET primary_conninfo` on a standby that answers.
    fn repoint(&mut self, order: &Repoint) -> Result<String, String> {
        let (i, to) = (Self::index(&order.backend), Self::index(&order.primary));
        self.repointed.push(order.backend.clone());
        if let Some(why) = &self.repoint_refused {
            return Err(why.clone());
        }
        let server = &self.servers[i];
        if server.mood != Mood::Well || server.primary {
            return Err("no answer in time".into());
        }
        order.allows(Timeline(server.timeline), Some(Lsn(server.lsn)))?;
        let source = self.servers[to].clone();
        let server = &mut self.servers[i];
        (server.upstream, server.timeline, server.ancestors) = (Some(to), source.timeline, source.ancestors);
        Ok(format!("{} is pointed at {}", order.backend, order.primary))
    }

    /// A server that answers, and is the one that the order is meant for.
    fn finds(&self, backend: &BackendName, latched: Option<&Latched>) -> Result<(), String> {
        let server = &self.servers[Self::index(backend)];
        if server.mood != Mood::Well {
            return Err("no answer in time".into());
        }
        let is = |latched: &Latched| {
            latched.system_id == SystemId(server.system)
                && (!server.primary || latched.timeline == Timeline(server.timeline))
                && latched.node.as_ref().is_none_or(|node| *node == server.node)
        };
        match latched.is_some_and(is) {
            true => Ok(()),
            false => Err(format!("this is not the server that is latched ({latched:?})")),
        }
    }

    /// An outcome comes at once, or waits to be delivered.
    fn told(&mut self, outcome: Outcome) {
        match &mut self.waiting {
            Some(waiting) => waiting.push(outcome),
            None => {
                let at = self.at();
                self.machine.handle_outcome(outcome, at);
            }
        }
    }

    /// What waited comes, and from now on outcomes come at once again.
    pub(super) fn deliver(&mut self) {
        for outcome in self.waiting.take().unwrap_or_default() {
            let at = self.at();
            self.machine.handle_outcome(outcome, at);
            self.obey();
        }
    }

    /// The writes that wait for their answer failed.
    pub(super) fn fail_writes(&mut self) {
        for outcome in self.waiting.iter_mut().flatten() {
            if let Outcome::Persisted { result, .. } = outcome {
                *result = Err("input/output error".into());
            }
        }
    }
}
