//! What the orders of a machine do to servers, when, and what is told of it afterwards: sometimes late, sometimes never.

use std::net::SocketAddr;

use pgpivot::config::Promoter;
use pgpivot::failover::action::{Action, Latched, LockResult, Outcome, PromotionResult, Repoint, Softened};
use pgpivot::failover::phase::EpisodeId;
use pgpivot::types::{BackendName, Lsn, SystemId, Timeline};

use crate::core::Input;
use crate::faults::Fix;
use crate::server::{Holder, Mood, Promotes, Queued};
use crate::world::{Event, Happening, Link, World};

impl World {
    pub fn effect(&mut self, d: usize, process: u32, action: Action) {
        let outcome = match action {
            Action::Fence { episode, backend } => {
                let result = self.fence(&backend);
                Outcome::Fenced { episode, result }
            }
            Action::Lock { episode, backends, needed } => {
                return self.lock(d, process, episode, &backends, needed);
            }
            Action::Promote { episode, backend, .. } => {
                let result = self.promote_as_ordered(d, &backend);
                Outcome::Promotion { episode, result }
            }
            Action::Freeze { episode, backend, latched } => {
                let result = self.freeze(d, &backend, latched.as_ref());
                Outcome::Frozen { episode, result }
            }
            Action::Unfreeze { episode, backend, latched } => {
                let result = self.unfreeze(d, &backend, latched.as_ref());
                Outcome::Unfrozen { episode, result }
            }
            Action::Soften { backend, server, .. } => {
                let result = self.soften(d, &backend, &server);
                Outcome::Softened { backend, result }
            }
            Action::Thaw { backend, system_id } => {
                let result = self.thaw(d, &backend, system_id);
                Outcome::Thawed { backend, result }
            }
            Action::ReadFlush { episode, backend, latched } => {
                let result = self.read_flush(d, &backend, latched.as_ref());
                Outcome::FlushRead { episode, result }
            }
            Action::SetSync { episode, backend, names } => {
                let result = self.set_sync(d, &backend, names);
                Outcome::SyncSet { episode, result }
            }
            Action::Repoint(order) => {
                let result = self.repoint(d, &order);
                Outcome::Repointed { backend: order.backend, epoch: order.epoch, result }
            }
            _ => return,
        };
        self.report(d, process, outcome);
    }

    fn report(&mut self, d: usize, process: u32, outcome: Outcome) {
        // A task that ended badly says nothing.
        if !self.calm && self.chance.one_in(80) {
            return self.say(|| format!("lost: {outcome:?}"));
        }
        let after = if self.chance.one_in(15) { self.chance.between(100, 6000) } else { self.chance.between(1, 20) };
        let what = Happening::Tell(Input::Outcome(outcome));
        self.at(self.now + after, Event::Of { d, process, what });
    }

    fn target(&self, d: usize, backend: &BackendName) -> Option<usize> {
        let machine = &self.daemons[d].core.as_ref()?.machine;
        let known = || self.daemons[d].addresses.get(backend)?.first().map(|(_, address)| *address);
        let address: SocketAddr = machine.address_of(backend).or_else(known)?;
        Some(self.route[&address])
    }

    /// A server that an order of ours reaches and that obeys now.
    fn obedient(&self, d: usize, backend: &BackendName) -> Result<usize, String> {
        let index = self.target(d, backend).ok_or("no address")?;
        let mood = self.servers[index].mood;
        match (self.links[d][index], mood) {
            (Link::Up, Mood::Well | Mood::Stuck) => Ok(index),
            (Link::Up, Mood::Dead) => Err("connection refused".into()),
            _ => Err("no answer in time".into()),
        }
    }

    fn queue_on(&mut self, d: usize, backend: &BackendName, what: Queued) {
        // A stopped server finds in its socket what was sent to it.
        if let Some(index) = self.target(d, backend)
            && self.links[d][index] == Link::Up
            && self.servers[index].mood == Mood::Stopped
            && self.chance.one_in(2)
        {
            self.servers[index].queued.push(what);
        }
    }

    fn fence(&mut self, backend: &BackendName) -> Result<(), String> {
        let index = crate::daemon::index_of(backend);
        if self.chance.one_in(3) {
            return Err("the power switch does not answer".into());
        }
        if self.servers[index].mood != Mood::Dead {
            self.server_dies(index);
        }
        Ok(())
    }

    fn lock(&mut self, d: usize, process: u32, episode: EpisodeId, backends: &[BackendName], needed: usize) {
        let holder = Holder { daemon: d, process, episode: episode.0 };
        let (mut granted, mut refused) = (Vec::new(), false);
        for backend in backends {
            if let Ok(index) = self.obedient(d, backend) {
                let server = &mut self.servers[index];
                if server.holder.is_none() && !server.stranger_holds && granted.len() < needed {
                    server.holder = Some(holder);
                    granted.push(index);
                } else if granted.len() < needed {
                    refused = true;
                }
            }
        }
        if granted.len() >= needed {
            let lives = self.daemons[d].process == process && self.daemons[d].lives();
            match self.daemons[d].locks.get_mut(&episode.0) {
                Some(on) if lives => *on = granted,
                // Nobody wants it any more: the task lets it go at once.
                _ if lives => granted.iter().for_each(|index| self.servers[*index].holder = None),
                // A daemon that died: its servers will notice.
                _ => granted
                    .iter()
                    .for_each(|index| self.later(300, Fix::Release { server: *index, daemon: d, process })),
            }
            return self.report(d, process, Outcome::Locked { episode, result: LockResult::Held });
        }
        for index in granted {
            self.servers[index].holder = None;
        }
        let result = if refused { LockResult::Busy } else { LockResult::Failed("nobody could be asked".into()) };
        self.report(d, process, Outcome::Locked { episode, result });
    }

    pub fn unlock(&mut self, d: usize, episode: u64) {
        let process = self.daemons[d].process;
        let Some(on) = self.daemons[d].locks.remove(&episode) else { return };
        for server in on {
            let holder = &mut self.servers[server].holder;
            if *holder == Some(Holder { daemon: d, process, episode }) {
                *holder = None;
            }
        }
    }

    /// The session that held it ended, and the daemon notices.
    pub fn lock_lost(&mut self, holder: Holder) {
        let result = LockResult::Failed("a session that held it ended".into());
        let what = Happening::Tell(Input::Outcome(Outcome::Locked { episode: EpisodeId(holder.episode), result }));
        let after = self.chance.between(1, 50);
        self.at(self.now + after, Event::Of { d: holder.daemon, process: holder.process, what });
    }

    fn promote_as_ordered(&mut self, d: usize, backend: &BackendName) -> PromotionResult {
        let command = matches!(self.daemons[d].service.failover.promoter, Promoter::Command(_));
        let index = match self.obedient(d, backend) {
            Ok(index) => index,
            Err(why) => {
                self.queue_on(d, backend, Queued::Promote);
                return PromotionResult::Unknown(why);
            }
        };
        if self.servers[index].primary {
            return PromotionResult::Done;
        }
        if command && self.servers[index].promotes == Promotes::Never && self.chance.one_in(2) {
            return PromotionResult::Refused("exit status 3".into());
        }
        if !command {
            // Our own promoter takes back a freeze of long ago.
            self.servers[index].frozen = false;
        }
        self.pair_promotes(d, index);
        match self.servers[index].promotes {
            Promotes::AtOnce => self.promote_server(index),
            Promotes::Later(after) => self.at(self.now + after, Event::Promoted { server: index }),
            Promotes::Never => {}
        }
        match self.chance.below(6) {
            0 => PromotionResult::Unknown("pg_promote() returned false".into()),
            _ => PromotionResult::Done,
        }
    }

    /// It becomes primary now, whoever wanted it.
    pub fn promote_server(&mut self, index: usize) {
        if self.servers[index].mood == Mood::Dead || self.servers[index].primary {
            return;
        }
        let branch = self.next_branch;
        self.next_branch += 1;
        self.servers[index].promote(branch);
        self.say(|| format!("server {index} is primary on branch {branch}"));
    }

    /// The server itself shows to be the one that the order is meant for.
    fn is_meant(&self, index: usize, latched: Option<&Latched>) -> Result<(), String> {
        let server = &self.servers[index];
        let is = |latched: &Latched| {
            latched.system_id.0 == server.system
                && (!server.primary || latched.timeline.0 == server.timeline)
                && latched.node.as_ref().is_none_or(|node| *node == server.node)
        };
        if latched.is_none_or(is) { Ok(()) } else { Err("this is not the server that is latched".into()) }
    }

    fn freeze(&mut self, d: usize, backend: &BackendName, latched: Option<&Latched>) -> Result<Lsn, String> {
        let index = match self.obedient(d, backend) {
            Ok(index) => index,
            Err(why) => {
                self.queue_on(d, backend, Queued::Freeze);
                return Err(why);
            }
        };
        if !self.servers[index].primary {
            return Err("it is no primary".into());
        }
        self.is_meant(index, latched)?;
        self.servers[index].frozen = true;
        if self.chance.one_in(8) {
            return Err("sessions stay".into());
        }
        Ok(Lsn(self.servers[index].flush))
    }

    fn unfreeze(&mut self, d: usize, backend: &BackendName, latched: Option<&Latched>) -> Result<(), String> {
        let index = match self.obedient(d, backend) {
            Ok(index) => index,
            Err(why) => {
                self.queue_on(d, backend, Queued::Unfreeze);
                return Err(why);
            }
        };
        self.is_meant(index, latched)?;
        self.servers[index].frozen = false;
        if self.chance.one_in(8) { Err("no answer in time".into()) } else { Ok(()) }
    }

    /// A side that was left.
    fn soften(&mut self, d: usize, backend: &BackendName, server: &Latched) -> Result<Softened, String> {
        let index = self.obedient(d, backend)?;
        if !self.servers[index].primary {
            return Err("it is no primary".into());
        }
        self.is_meant(index, Some(server))?;
        self.servers[index].frozen = true;
        let gaps = if self.chance.one_in(6) { vec!["somebody stays".into()] } else { Vec::new() };
        Ok(Softened { ended: 0, gaps })
    }

    fn thaw(&mut self, d: usize, backend: &BackendName, system: SystemId) -> Result<(), String> {
        let index = self.obedient(d, backend)?;
        if self.servers[index].primary || self.servers[index].system != system.0 {
            return Err("it is no standby of this system".into());
        }
        self.servers[index].frozen = false;
        if self.chance.one_in(8) { Err("no answer in time".into()) } else { Ok(()) }
    }

    fn read_flush(&mut self, d: usize, backend: &BackendName, latched: Option<&Latched>) -> Result<Lsn, String> {
        let index = self.obedient(d, backend)?;
        self.is_meant(index, latched)?;
        if self.servers[index].primary { Ok(Lsn(self.servers[index].flush)) } else { Err("it is no primary".into()) }
    }

    fn set_sync(&mut self, d: usize, backend: &BackendName, names: String) -> Result<(), String> {
        let index = self.obedient(d, backend)?;
        self.servers[index].sync_names = names;
        Ok(())
    }

    /// The standby itself is asked once more, and its receiver begins anew: it streams if it can.
    fn repoint(&mut self, d: usize, order: &Repoint) -> Result<String, String> {
        let (index, to) = (self.obedient(d, &order.backend)?, self.target(d, &order.primary).ok_or("no address")?);
        let server = &mut self.servers[index];
        if server.primary || server.system != order.system_id.0 {
            return Err("it is no standby of this pair".into());
        }
        order.allows(Timeline(server.timeline), Some(Lsn(server.replay)))?;
        server.upstream = Some(to);
        server.stream = None;
        Ok(format!("{} is pointed at {}", order.backend, order.primary))
    }

    /// The server's processes run again: what stood in its sockets is done first.
    pub fn server_resumes(&mut self, index: usize) {
        self.servers[index].mood = Mood::Well;
        for queued in std::mem::take(&mut self.servers[index].queued) {
            match queued {
                Queued::Promote => self.promote_server(index),
                Queued::Freeze => self.servers[index].frozen = self.servers[index].primary,
                Queued::Unfreeze => self.servers[index].frozen = false,
                Queued::Write { daemon, conn } => self.executes(index, daemon, conn),
            }
        }
    }

    /// kill -9 of the postmaster, or the power.
    pub fn server_dies(&mut self, index: usize) {
        self.say(|| format!("server {index} dies"));
        if let Some(holder) = self.servers[index].holder {
            self.lock_lost(holder);
        }
        self.servers[index].die();
        self.sessions_end(index, false);
    }

    /// Every session on it ends; who can hear it, hears it.
    pub fn sessions_end(&mut self, index: usize, announced: bool) {
        for d in 0..self.daemons.len() {
            if self.links[d][index] != Link::Up || !self.daemons[d].lives() {
                continue;
            }
            self.kept_connections_end(d, index, announced);
            self.clients_end(d, index);
        }
    }

    pub fn release(&mut self, server: usize, daemon: usize, process: u32) {
        if self.servers[server].holder.is_some_and(|h| h.daemon == daemon && h.process == process) {
            self.servers[server].holder = None;
        }
    }

    pub fn later(&mut self, after: u64, fix: Fix) {
        self.at(self.now + after, Event::Fix(fix));
    }
}
