//! How the stage carries out what the machine orders.

use super::stage::{Mood, Stage};
use crate::failover::action::{Action, LockResult, Outcome, PromotionResult};
use crate::types::Lsn;

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
            Action::Publish(_) | Action::ReadStreams { .. } | Action::ReadClock { .. } => {}
            Action::Unlock { .. } => self.unlocks += 1,
            Action::Cut { backend } => self.cuts.push(backend),
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
            Action::Freeze { episode, backend } => {
                let i = Self::index(&backend);
                self.freezes.push(format!("freeze {backend}"));
                let server = &mut self.servers[i];
                let result = if server.mood == Mood::Well {
                    server.frozen = true;
                    Ok(Lsn(server.lsn))
                } else {
                    Err("no answer in time".into())
                };
                self.told(Outcome::Frozen { episode, result });
            }
            Action::Unfreeze { episode, backend } => {
                let i = Self::index(&backend);
                self.freezes.push(format!("unfreeze {backend}"));
                let server = &mut self.servers[i];
                let result = if server.mood == Mood::Well {
                    server.frozen = false;
                    Ok(())
                } else {
                    Err("no answer in time".into())
                };
                self.told(Outcome::Unfrozen { episode, result });
            }
            Action::ReadFlush { episode, backend } => {
                let server = &self.servers[Self::index(&backend)];
                let result = if server.mood == Mood::Well { Ok(Lsn(server.lsn)) } else { Err("no answer".into()) };
                self.told(Outcome::FlushRead { episode, result });
            }
            Action::ClearSync { episode, backend } => {
                let i = Self::index(&backend);
                self.servers[i].sync_names.clear();
                self.told(Outcome::SyncCleared { episode, result: Ok(()) });
            }
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
