//! How the stage carries out what the machine orders.

use super::stage::{Mood, Stage};
use crate::failover::action::{Action, LockResult, Outcome, PromotionResult};
use crate::types::Lsn;

impl Stage {
    pub(super) fn carry_out(&mut self, action: Action) {
        let at = self.at();
        match action {
            Action::Persist { ticket, record } => {
                let result = if self.disk_ok {
                    self.writes += 1;
                    self.disk = *record;
                    Ok(())
                } else {
                    Err("no space left on device".into())
                };
                self.machine.handle_outcome(Outcome::Persisted { ticket, result }, at);
            }
            Action::Publish(_) | Action::Unlock { .. } => {}
            Action::Cut { backend } => self.cuts.push(backend),
            Action::ProbeNow { backend } => {
                let i = Self::index(&backend);
                self.next_probe[i] = self.now;
            }
            Action::Fence { episode, backend } => {
                self.fenced.push(backend);
                let result = self.fence.clone();
                self.machine.handle_outcome(Outcome::Fenced { episode, result }, at);
            }
            Action::Lock { episode, backends, needed } => {
                let free = backends.iter().filter(|name| !self.servers[Self::index(name)].locked_by_other).count();
                let result = if free >= needed { LockResult::Held } else { LockResult::Busy };
                self.machine.handle_outcome(Outcome::Locked { episode, result }, at);
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
                self.machine.handle_outcome(Outcome::Promotion { episode, result }, at);
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
                self.machine.handle_outcome(Outcome::Frozen { episode, result }, at);
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
                self.machine.handle_outcome(Outcome::Unfrozen { episode, result }, at);
            }
            Action::ReadFlush { episode, backend } => {
                let server = &self.servers[Self::index(&backend)];
                let result = if server.mood == Mood::Well { Ok(Lsn(server.lsn)) } else { Err("no answer".into()) };
                self.machine.handle_outcome(Outcome::FlushRead { episode, result }, at);
            }
            Action::ClearSync { episode, backend } => {
                let i = Self::index(&backend);
                self.servers[i].sync_names.clear();
                self.machine.handle_outcome(Outcome::SyncCleared { episode, result: Ok(()) }, at);
            }
        }
    }
}
