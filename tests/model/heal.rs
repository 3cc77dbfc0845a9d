//! The end of a run: every fault is mended, and people do what the page tells them. Then it must end well: one side,
//! open, writable, the same one for every daemon, nothing left locked or read-only.

use pgpivot::config::{ProbeKind, Service};
use pgpivot::failover::action::{Command, Gate};
use pgpivot::failover::phase::{BackendState, Intent, Phase};

use crate::core::Input;
use crate::daemon::index_of;
use crate::disk::Fare;
use crate::laws::{Breach, Law};
use crate::scenario::NAMES;
use crate::server::{Mood, Promotes};
use crate::world::{Event, Link, World};

impl World {
    /// Mends everything and waits for the end; `false` when a law is broken.
    pub fn heal(&mut self) -> bool {
        self.calm = true;
        self.mend();
        if !self.run_until(self.now + 25_000) {
            return false;
        }
        for round in 0..12 {
            self.mend();
            if self.is_well().is_none() {
                break;
            }
            self.people_help(round);
            if !self.run_until(self.now + 15_000) {
                return false;
            }
        }
        if let Some(why) = self.is_well() {
            self.breach = Some(Breach { law: Law::Settles, said: why });
            return false;
        }
        true
    }

    fn mend(&mut self) {
        for index in 0..self.servers.len() {
            if self.servers[index].mood != Mood::Well {
                self.server_resumes(index);
            }
            let server = &mut self.servers[index];
            server.promotes = Promotes::AtOnce;
            (server.readable, server.history_readable, server.replay_paused) = (true, true, false);
            server.throughput = u64::MAX;
            server.stranger_holds = false;
            server.ghosts.clear();
            for other in 0..self.servers.len() {
                self.wires[index][other] = true;
            }
            for d in 0..self.daemons.len() {
                self.links[d][index] = Link::Up;
            }
        }
        for (address, index) in self.route.clone() {
            let configured = (0..self.servers.len()).find(|i| (0..2).any(|n| crate::daemon::address(*i, n) == address));
            self.route.insert(address, configured.unwrap_or(index));
        }
        for d in 0..self.daemons.len() {
            self.daemons[d].disk.fare = Fare::Well;
            self.daemons[d].crash_in = None;
            if !self.daemons[d].lives() {
                self.at(self.now + 100, Event::Start { d });
                continue;
            }
            if self.daemons[d].core.as_ref().is_some_and(|core| core.machine.record().paused.is_some()) {
                self.tell(d, Input::Command(Command::Resume, false));
            }
            let taken_out = self.daemons[d].core.as_ref().map(|core| core.machine.record().administered.clone());
            for order in taken_out.unwrap_or_default() {
                let ready = Command::SetState { backend: order.backend, address: None, state: BackendState::Ready };
                self.tell(d, Input::Command(ready, false));
            }
            for (backend, name) in NAMES.iter().enumerate().take(self.servers.len()) {
                if self.daemons[d]
                    .addresses
                    .get(&(*name).into())
                    .is_some_and(|list| list.len() < self.scenario.addresses)
                {
                    let list = self.resolved(backend);
                    self.tell(d, Input::Addresses((*name).into(), list));
                }
            }
        }
    }

    /// What people do when the page is red: choose the server that is primary, make the others its standbys, adopt it.
    fn people_help(&mut self, round: usize) {
        let serves = self.daemons[0].service.failover.standby_serves;
        if serves || !has_roles(&self.daemons[0].service) && self.daemons.len() == 1 {
            return self.adopt_if_closed(round, index_of_first(self));
        }
        for d in 0..self.daemons.len() {
            let pending = self.daemons[d].core.as_ref().and_then(|core| core.machine.record().intent.clone());
            if let Some(intent) = pending {
                self.help_pending(d, round, &intent);
            }
        }
        let chosen = self.true_primary().unwrap_or(0);
        if !self.servers[chosen].primary {
            self.promote_server(chosen);
        }
        for other in 0..self.servers.len() {
            let follows = self.servers[other].upstream == Some(chosen) && self.servers[other].stream.is_some();
            if other != chosen && !follows {
                self.rebuild(other);
            }
        }
        self.servers[chosen].sync_names.clear();
        self.adopt_if_closed(round, chosen);
    }

    /// A promotion that nothing proves: made by hand, made possible again, or given up with its target off.
    fn help_pending(&mut self, d: usize, round: usize, intent: &Intent) {
        let to = index_of(&intent.to);
        match round % 4 {
            0 => self.promote_server(to),
            1 => {
                let from = intent.from.as_ref().map(index_of).filter(|from| *from != to);
                if let Some(from) = from {
                    let source = self.servers[from].clone();
                    self.servers[to].rebuild(&source, from, self.now);
                }
            }
            2 => {
                self.server_dies(to);
                self.run_until(self.now + 20_000);
                self.tell(d, Input::Command(Command::Abandon { backend: intent.to.clone() }, false));
                self.run_until(self.now + 5000);
                self.server_resumes(to);
            }
            _ => {}
        }
    }

    fn adopt_if_closed(&mut self, round: usize, chosen: usize) {
        if round == 0 {
            return;
        }
        for d in 0..self.daemons.len() {
            let leads = self.daemons[d].active() == Some(NAMES[chosen].into());
            if self.daemons[d].lives() && (!self.is_open(d) || !leads) {
                self.tell(d, Input::Command(Command::Adopt { backend: NAMES[chosen].into() }, false));
            }
        }
    }

    fn is_open(&self, d: usize) -> bool {
        match &self.daemons[d].gate {
            Some(Gate::Open { tier, hold: false, .. }) => tier.iter().any(|open| !open.addresses.is_empty()),
            _ => false,
        }
    }

    /// Why it is not well.
    fn is_well(&self) -> Option<String> {
        for d in 0..self.daemons.len() {
            let Some(core) = &self.daemons[d].core else { return Some(format!("daemon {d} does not live")) };
            let machine = &core.machine;
            let phase = machine.phase();
            if phase != Phase::Steady {
                let view = machine.view(self.daemons[d].clock(self.now));
                let told = view.blocked.map(|blocked| blocked.sentence);
                return Some(format!("daemon {d} is {phase:?} when all is well: {} {told:?}", view.evidence));
            }
            if !self.is_open(d) {
                return Some(format!("daemon {d} is steady and closed: {:?}", self.daemons[d].gate));
            }
            if self.daemons[d].disk.holds() != machine.record() {
                return Some(format!(
                    "daemon {d} believes {:?}, on disk is {:?}",
                    machine.record(),
                    self.daemons[d].disk.holds()
                ));
            }
            if machine.record().intent.is_some() {
                return Some(format!("daemon {d} is steady with an open intent"));
            }
        }
        let active: Vec<usize> =
            self.daemons.iter().filter_map(|daemon| daemon.active()).map(|name| index_of(&name)).collect();
        if active.windows(2).any(|two| two[0] != two[1]) {
            return Some(format!("the daemons lead to {active:?}"));
        }
        let server = &self.servers[active[0]];
        let writable = server.primary && !server.frozen;
        if has_roles(&self.daemons[0].service) && !writable {
            return Some(format!("the active server is primary: {}, frozen: {}", server.primary, server.frozen));
        }
        let locked = self.servers.iter().position(|server| server.holder.is_some());
        locked.map(|index| format!("the lock on server {index} is held by {:?}", self.servers[index].holder))
    }
}

/// Its probes tell a primary from a standby.
fn has_roles(service: &Service) -> bool {
    match &service.probe.kind {
        ProbeKind::Sql { .. } => true,
        ProbeKind::Http(http) => http.primary_only,
        _ => false,
    }
}

fn index_of_first(world: &World) -> usize {
    world.daemons[0].active().map_or(0, |name| index_of(&name))
}
