//! What operators took newcomers from, and what may not happen to it.

use std::net::SocketAddr;

use pgpivot::failover::action::{Command, OpenBackend};
use pgpivot::failover::phase::{BackendState, Intent};
use pgpivot::types::{BackendName, HostPort};

use crate::daemon::{address, index_of};
use crate::laws::{Law, Laws};
use crate::world::World;

impl Laws {
    /// A command was taken.
    pub fn sets(&mut self, backend: &BackendName, address: Option<&HostPort>, state: BackendState) {
        let address: Option<SocketAddr> =
            address.map(|known| format!("{}:{}", known.host, known.port).parse().unwrap());
        match state {
            BackendState::Ready if address.is_none() => self.administered.retain(|(name, _), _| name != backend),
            BackendState::Ready => drop(self.administered.remove(&(backend.clone(), address))),
            _ => drop(self.administered.insert((backend.clone(), address), state)),
        }
    }

    /// The gate leads newcomers there.
    pub fn takes_newcomers(&mut self, open: &OpenBackend) {
        for address in &open.addresses {
            let orders =
                [None, Some(*address)].map(|place| self.administered.get(&(open.name.clone(), place)).copied());
            let said = format!("newcomers go to {address} of {}, which is {orders:?}", open.name);
            self.demand(Law::Command, orders == [None, None], || said);
        }
    }

    /// All of it, or an address of it: then it may be all that it has.
    pub fn is_taken_out(&self, backend: &BackendName) -> bool {
        self.administered.keys().any(|(name, _)| name == backend)
    }

    /// Somebody is chosen to take over.
    pub fn is_candidate(&mut self, intent: &Intent) {
        let state = self.administered.get(&(intent.to.clone(), None)).copied();
        self.demand(Law::Candidate, state.is_none(), || format!("{} takes over and is in {state:?}", intent.to));
    }

    /// Nothing that the active side shows is a reason while somebody works on it.
    pub fn not_worked_on(&mut self, intent: &Intent) {
        let Some(from) = &intent.from else { return };
        let state = self.administered.get(&(from.clone(), None)).copied();
        self.demand(Law::Pause, state != Some(BackendState::Maint), || format!("decides although {from} is in maint"));
    }

    /// Connections are asked to end, or cut, because somebody said so.
    pub fn retires(&mut self, backend: &BackendName, address: Option<SocketAddr>, cut: bool) {
        let state = self.administered.get(&(backend.clone(), address)).copied();
        // The end of the time falls whenever it falls.
        self.demand(Law::DryRun, cut || !self.explaining, || {
            format!("{backend} is emptied and that was only asked about")
        });
        self.demand(Law::NeedlessCut, state == Some(BackendState::Maint), || {
            format!("{backend} {address:?} is emptied and is {state:?}")
        });
    }
}

impl World {
    pub fn any_state(&mut self, backend: BackendName) -> Command {
        let one = address(index_of(&backend), 0);
        let host_port = HostPort { host: one.ip().to_string().into(), port: one.port() };
        let address = self.chance.one_in(3).then_some(host_port);
        Command::SetState { backend, address, state: self.chance.pick(&BackendState::ALL) }
    }
}
