//! Clients: they attach where the gate leads, write, and remember what was acknowledged. A write is checked against the
//! latch on disk at the moment its bytes are handed to a server.

use pgpivot::failover::action::Gate;
use pgpivot::failover::observation::{Evidence, Failure, Observation, Verdict};
use pgpivot::failover::phase::Phase;
use pgpivot::types::BackendName;

use crate::core::Input;
use crate::daemon::{Conn, moment};
use crate::server::{Mood, Queued, Row};
use crate::world::{Happening, Link, World};

/// As many clients as attach.
const CLIENTS: usize = 4;
/// Bytes of log per row.
const BYTES: u64 = 10;

impl World {
    pub fn traffic(&mut self, d: usize) {
        let pause = self.chance.span(30, 1000);
        self.soon(d, pause, Happening::Traffic);
        if self.daemons[d].sleep.is_some_and(|sleep| sleep.whole) {
            return;
        }
        if self.chance.one_in(25) {
            self.leave(d);
        }
        if self.daemons[d].conns.len() < CLIENTS {
            self.attach(d);
        }
        let all: Vec<Conn> = self.daemons[d].conns.clone();
        for conn in all {
            if self.chance.one_in(2) {
                self.client_writes(d, &conn);
            }
        }
    }

    fn leave(&mut self, d: usize) {
        let all = std::mem::take(&mut self.daemons[d].conns);
        self.daemons[d].unanswered = None;
        for conn in all {
            self.tell_live(d, &conn.backend);
        }
    }

    fn attach(&mut self, d: usize) {
        let Some(Gate::Open { tier, epoch, hold: false, .. }) = self.daemons[d].gate.clone() else { return };
        let Some(member) = (!tier.is_empty()).then(|| self.chance.pick(&tier)) else { return };
        let Some(address) = (!member.addresses.is_empty()).then(|| self.chance.pick(&member.addresses)) else { return };
        let server = self.route[&address];
        let failure = match (self.links[d][server], self.servers[server].mood) {
            (Link::Up, Mood::Well) => None,
            (Link::Up, Mood::Dead) => Some((1, Failure::Refused)),
            (Link::Unreachable, _) => Some((5, Failure::Unreachable)),
            (Link::Up, Mood::Stopped | Mood::Stuck) | (Link::Blackhole, _) => Some((3000, Failure::TimedOut)),
            _ => return,
        };
        if let Some((after, failure)) = failure {
            let evidence = Evidence::ConnectFailed { backend: member.name, address, failure };
            return self.soon(d, after, Happening::Tell(Input::Evidence(evidence)));
        }
        let daemon = &mut self.daemons[d];
        daemon.next_conn += 1;
        let id = daemon.next_conn;
        daemon.conns.push(Conn { id, backend: member.name.clone(), epoch, server, address });
        self.tell_live(d, &member.name);
    }

    /// The machine hears how many are attached when that changes.
    pub fn tell_live(&mut self, d: usize, backend: &BackendName) {
        let live = self.daemons[d].conns.iter().filter(|conn| conn.backend == *backend).count();
        let told = self.daemons[d].told_live.insert(backend.clone(), live).unwrap_or(0);
        if live == 0 {
            let waits = self.daemons[d].unanswered.as_ref().is_some_and(|(of, _)| of == backend);
            if waits {
                self.daemons[d].unanswered = None;
            }
        }
        if told != live {
            let after = self.chance.between(0, 10);
            let evidence = Evidence::Connections { backend: backend.clone(), live };
            self.soon(d, after, Happening::Tell(Input::Evidence(evidence)));
        }
    }

    fn client_writes(&mut self, d: usize, conn: &Conn) {
        self.laws[d].byte_to(&conn.backend, conn.epoch, self.daemons[d].disk.holds(), self.now);
        if self.breach.is_none() {
            self.breach = self.laws[d].breach.take();
        }
        let reached = self.links[d][conn.server] == Link::Up;
        let mood = self.servers[conn.server].mood;
        if reached && mood.serves_sessions() {
            return self.executes(conn.server, d, conn.id);
        }
        if reached && mood == Mood::Stopped {
            self.servers[conn.server].queued.push(Queued::Write { daemon: d, conn: conn.id });
        }
        if self.daemons[d].unanswered.is_none() {
            self.daemons[d].unanswered = Some((conn.backend.clone(), self.now));
        }
    }

    /// The server carries out a statement; its answer travels back.
    pub fn executes(&mut self, index: usize, d: usize, conn: u64) {
        let server = &mut self.servers[index];
        if !server.primary || server.frozen {
            return;
        }
        server.flush += BYTES;
        server.replay = server.flush;
        let row = Row { branch: server.branch, lsn: server.flush };
        let after = self.chance.span(1, 300);
        self.soon(d, after, Happening::Ack { conn, row });
    }

    /// The answer arrives at the proxy: the client gets it if it is still attached.
    pub fn acknowledged(&mut self, d: usize, conn: u64, row: Row) {
        let Some(conn) = self.daemons[d].conns.iter().find(|known| known.id == conn).cloned() else { return };
        if self.links[d][conn.server] != Link::Up {
            return;
        }
        self.daemons[d].unanswered = None;
        self.pair.acknowledged(d, &conn, row);
        let phase = self.daemons[d].core.as_ref().map(|core| core.machine.phase());
        if phase != Some(Phase::Steady) && self.chance.one_in(4) {
            let evidence = Evidence::Answered { backend: conn.backend, at: moment(self.now) };
            self.tell(d, Input::Evidence(evidence));
        }
    }

    /// As the driver does at each of its timeouts.
    pub fn watch_traffic(&mut self, d: usize) {
        let Some((backend, since)) = self.daemons[d].unanswered.clone() else { return };
        let trigger = u64::try_from(self.daemons[d].service.probe.hang_trigger.as_millis()).unwrap();
        if self.daemons[d].active().as_ref() == Some(&backend) && self.now - since >= trigger {
            self.tell(d, Input::Evidence(Evidence::Unanswered { backend, since: moment(since) }));
        }
    }

    pub fn clients_end(&mut self, d: usize, server: usize) {
        let gone: Vec<Conn> = self.daemons[d].conns.iter().filter(|conn| conn.server == server).cloned().collect();
        self.daemons[d].conns.retain(|conn| conn.server != server);
        for conn in gone {
            let evidence = Evidence::ServerEnded { backend: conn.backend.clone() };
            let after = self.chance.between(0, 10);
            self.soon(d, after, Happening::Tell(Input::Evidence(evidence)));
            self.tell_live(d, &conn.backend);
        }
    }

    pub fn kept_connections_end(&mut self, d: usize, server: usize, announced: bool) {
        let kept: Vec<_> = (self.daemons[d].timers.iter())
            .filter(|(address, timers)| timers.kept && self.route[*address] == server)
            .map(|(address, _)| *address)
            .collect();
        for address in kept {
            let Some(backend) = self.daemons[d].backend_of(address) else { continue };
            if let Some(timers) = self.daemons[d].timers.get_mut(&address) {
                timers.kept = false;
            }
            let after = self.chance.between(1, 10);
            if announced {
                let seen = Observation {
                    backend: backend.clone(),
                    address,
                    started: moment(self.now + after),
                    finished: moment(self.now + after),
                    fresh: false,
                    verdict: Verdict::Failed(Failure::ShuttingDown),
                };
                self.soon(d, after, Happening::Tell(Input::Seen(Box::new(seen))));
            }
            self.soon(d, after, Happening::Tell(Input::Evidence(Evidence::ProbeConnectionLost { backend })));
        }
    }
}
