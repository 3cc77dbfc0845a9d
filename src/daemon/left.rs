//! Orders about sides that were left, carried out: made read-only, released, made standbys again.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use crate::failover::action::{Action, Outcome, RejoinOrder, Rejoining};
use crate::types::BackendName;

impl Driver {
    pub(super) fn tend(&mut self, action: Action) {
        let (effects, outcomes) = (self.effects.clone(), self.outcomes.clone());
        // An outcome nobody hears belongs to a driver that ended.
        let reply = move |outcome| drop(outcomes.send(outcome));
        let no_address = |backend: &BackendName| format!("{backend} has no address: its name does not resolve");
        match action {
            Action::Soften { backend, server, ends } => {
                let address = self.address(&backend);
                self.tasks.spawn(async move {
                    let result = match address {
                        Some(address) => effects.soften(&backend, address, &server, ends).await,
                        None => Err(no_address(&backend)),
                    };
                    reply(Outcome::Softened { backend, result });
                });
            }
            Action::Thaw { backend, system_id } => {
                let address = self.address(&backend);
                self.tasks.spawn(async move {
                    let result = match address {
                        Some(address) => effects.thaw(&backend, address, system_id).await,
                        None => Err(no_address(&backend)),
                    };
                    reply(Outcome::Thawed { backend, result });
                });
            }
            Action::Rejoin(order) => self.rejoin(order),
            Action::StopRejoin { backend } => {
                if let Some(off) = self.rejoins.remove(&backend) {
                    off.cancel();
                }
            }
            _ => {}
        }
    }

    fn rejoin(&mut self, order: RejoinOrder) {
        let (effects, outcomes) = (self.effects.clone(), self.outcomes.clone());
        let backend = order.backend.clone();
        let tell = move |news| drop(outcomes.send(Outcome::Rejoining { backend: backend.clone(), news }));
        let (Some(side), Some(primary)) = (self.backend(&order.backend), self.backend(&order.primary)) else {
            return tell(Rejoining::Failed("it is no backend of this service any more".into()));
        };
        let off = CancellationToken::new();
        if let Some(older) = self.rejoins.insert(order.backend.clone(), off.clone()) {
            older.cancel();
        }
        let file = self.said_by_rejoin(&order.backend);
        self.tasks.spawn(async move { effects.rejoin(&order, (&side, &primary), &file, &off, tell).await });
    }

    /// Where the command of a rejoin writes; the next one overwrites it.
    fn said_by_rejoin(&self, backend: &BackendName) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let name = format!("rejoin-{}-{}.log", self.key, backend);
        self.shared.state.join(name.replace(".log", "").chars().map(plain).collect::<String>() + ".log")
    }
}
