//! The world: servers, daemons, wires and a clock that jumps from event to event. It knows no law; after each event it
//! hands what happened to `laws`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use pgpivot::failover::action::{Action, Gate};

use crate::chance::Chance;
use crate::core::Input;
use crate::daemon::{Conn, Daemon, address};
use crate::disk::Write;
use crate::faults::Fix;
use crate::laws::{Breach, Laws, Scene};
use crate::pair::Pair;
use crate::sabotage::Break;
use crate::scenario::Scenario;
use crate::server::{Row, Server, replicate};
use pgpivot::failover::observation::Verdict;

/// How a daemon reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Up,
    Blackhole,
    Unreachable,
}

#[derive(Debug, Clone)]
pub enum Happening {
    Fresh {
        address: SocketAddr,
        token: u64,
    },
    Sample {
        address: SocketAddr,
        token: u64,
    },
    /// A probe ends; without a verdict it reads the server now.
    Probed {
        address: SocketAddr,
        started: u64,
        fresh: bool,
        verdict: Option<Verdict>,
    },
    Tell(Input),
    Tick {
        token: u64,
    },
    Disk,
    Touch,
    Effect(Box<Action>),
    Traffic,
    Ack {
        conn: u64,
        row: Row,
    },
    Wake,
}

#[derive(Debug, Clone)]
pub enum Event {
    /// Something of a daemon's process; void when that has ended.
    Of {
        d: usize,
        process: u32,
        what: Happening,
    },
    Start {
        d: usize,
    },
    Replicate,
    Promoted {
        server: usize,
    },
    Fault,
    Command,
    Upkeep,
    Fix(Fix),
}

pub struct World {
    pub now: u64,
    pub chance: Chance,
    pub scenario: Scenario,
    pub servers: Vec<Server>,
    pub daemons: Vec<Daemon>,
    pub laws: Vec<Laws>,
    pub pair: Pair,
    pub links: Vec<Vec<Link>>,
    /// Between servers.
    pub wires: Vec<Vec<bool>>,
    /// Where an address leads.
    pub route: BTreeMap<SocketAddr, usize>,
    pub next_branch: u32,
    pub steps: u64,
    /// No more faults.
    pub calm: bool,
    pub breach: Option<Breach>,
    pub said: VecDeque<String>,
    pub verbose: bool,
    pub bug: Option<Break>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
}

/// Lines of the trace that are kept.
const TRACE: usize = 100_000;

impl World {
    pub fn new(scenario: Scenario, chance: Chance, bug: Option<Break>) -> Self {
        let count = scenario.backends;
        let daemons: Vec<Daemon> =
            (scenario.services.iter().enumerate()).map(|(d, service)| Daemon::new(d, service.clone())).collect();
        let mut world = Self {
            now: 1_000_000,
            chance,
            servers: (0..count).map(|i| Server::new(i, scenario.w)).collect(),
            laws: daemons.iter().map(|daemon| Laws::new(daemon.service.clone())).collect(),
            pair: Pair::default(),
            links: vec![vec![Link::Up; count]; daemons.len()],
            wires: vec![vec![true; count]; count],
            route: BTreeMap::new(),
            next_branch: 2,
            steps: 0,
            calm: false,
            breach: None,
            said: VecDeque::new(),
            verbose: false,
            bug,
            queue: BTreeMap::new(),
            sequence: 0,
            daemons,
            scenario,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for i in 0..self.servers.len() {
            for n in 0..self.scenario.addresses {
                self.route.insert(address(i, n), i);
            }
        }
        self.at(self.now, Event::Replicate);
        self.at(self.now + 10_000, Event::Fault);
        self.at(self.now + 12_000, Event::Command);
        self.at(self.now + 15_000, Event::Upkeep);
        for d in 0..self.daemons.len() {
            let after = self.chance.between(0, 3000) * d as u64;
            self.at(self.now + 10 + after, Event::Start { d });
        }
    }

    // ---- time ----

    pub fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((time.max(self.now), self.sequence), event);
    }

    pub fn soon(&mut self, d: usize, after: u64, what: Happening) {
        let process = self.daemons[d].process;
        self.at(self.now + after, Event::Of { d, process, what });
    }

    /// One event; `false` when a law is broken.
    pub fn step(&mut self) -> bool {
        let Some(((time, _), event)) = self.queue.pop_first() else {
            return false;
        };
        self.now = time;
        self.steps += 1;
        self.happen(event);
        self.check();
        self.breach.is_none()
    }

    /// Runs until that time.
    pub fn run_until(&mut self, time: u64) -> bool {
        while self.queue.first_key_value().is_some_and(|((next, _), _)| *next <= time) {
            if !self.step() {
                return false;
            }
        }
        self.now = time.max(self.now);
        true
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if self.verbose {
            if self.said.len() == TRACE {
                self.said.pop_front();
            }
            let line = format!("{:>9} {}", self.now, line());
            self.said.push_back(line);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Of { d, process, what } => self.happen_to(d, process, what),
            Event::Start { d } => self.start(d),
            Event::Replicate => {
                self.replicate();
                let pause = self.chance.between(40, 160);
                self.at(self.now + pause, Event::Replicate);
            }
            Event::Promoted { server } => self.promote_server(server),
            Event::Fault => self.fault(),
            Event::Command => self.random_command(),
            Event::Upkeep => self.upkeep(),
            Event::Fix(fix) => self.fix(fix),
        }
    }

    fn replicate(&mut self) {
        for i in 0..self.servers.len() {
            let up = self.servers[i].upstream.is_none_or(|up| self.wires[i][up]);
            replicate(&mut self.servers, i, up, self.now);
        }
    }

    fn happen_to(&mut self, d: usize, process: u32, what: Happening) {
        let lives = self.daemons[d].process == process && self.daemons[d].lives();
        if let Happening::Effect(action) = what {
            // What was sent before the daemon died may still arrive.
            if lives || self.chance.one_in(2) {
                self.effect(d, process, *action);
            }
            return;
        }
        if !lives {
            return;
        }
        match what {
            Happening::Fresh { address, token } => self.begin_fresh_when_due(d, address, token),
            Happening::Sample { address, token } => self.begin_sample_when_due(d, address, token),
            Happening::Probed { address, started, fresh, verdict } => self.probed(d, address, started, fresh, verdict),
            Happening::Tell(input) => self.tell(d, input),
            Happening::Tick { token } => {
                if self.daemons[d].tick.0 == token && self.daemons[d].sleep.is_none() {
                    self.daemons[d].tick.1 = u64::MAX;
                    self.watch_traffic(d);
                    self.tell(d, Input::Timeout);
                }
            }
            Happening::Disk => self.disk_turns(d),
            Happening::Touch => {
                self.write(d, Write { ticket: None, record: None });
                self.soon(d, 60_000, Happening::Touch);
            }
            Happening::Traffic => self.traffic(d),
            Happening::Ack { conn, row } => self.acknowledged(d, conn, row),
            Happening::Wake => self.wake(d),
            Happening::Effect(_) => {}
        }
    }

    // ---- orders ----

    pub fn carry_out(&mut self, d: usize, action: Action) {
        match action {
            Action::Persist { ticket, record } => self.write(d, Write { ticket: Some(ticket), record: Some(record) }),
            Action::Publish(gate) => self.publish(d, gate),
            Action::Cut { backend } => {
                self.daemons[d].conns.retain(|conn| conn.backend != backend);
                self.tell_live(d, &backend);
            }
            Action::Retire { backend, address, cut } => {
                if cut {
                    let there = |conn: &Conn| conn.backend == backend && address.is_none_or(|a| a == conn.address);
                    self.daemons[d].conns.retain(|conn| !there(conn));
                    self.tell_live(d, &backend);
                }
            }
            Action::DrainReaders { .. } => {}
            Action::ProbeNow { backend } => self.probe_now(d, &backend),
            Action::Unlock { episode } => self.unlock(d, episode.0),
            Action::Lock { episode, .. } if self.daemons[d].locks.insert(episode.0, Vec::new()).is_some() => {
                unreachable!("two locks for one episode");
            }
            other => {
                let after =
                    if self.chance.one_in(12) { self.chance.between(100, 3000) } else { self.chance.between(1, 20) };
                self.soon(d, after, Happening::Effect(Box::new(other)));
            }
        }
    }

    fn publish(&mut self, d: usize, gate: Gate) {
        self.daemons[d].gate = Some(gate);
    }

    fn write(&mut self, d: usize, write: Write) {
        self.daemons[d].disk.queue.push_back(write);
        self.kick_disk(d);
    }

    fn kick_disk(&mut self, d: usize) {
        let disk = &mut self.daemons[d].disk;
        if !disk.busy && !disk.queue.is_empty() {
            disk.busy = true;
            let after = disk.latency(&mut self.chance);
            self.soon(d, after, Happening::Disk);
        }
    }

    fn disk_turns(&mut self, d: usize) {
        let disk = &mut self.daemons[d].disk;
        let before = disk.holds().clone();
        let Some((write, result)) = disk.finish(&mut self.chance) else { return };
        disk.busy = false;
        let after = disk.holds().clone();
        self.say(|| {
            format!(
                "disk of {d}: ticket {:?} {result:?}, holds intent {:?} latch {:?}",
                write.ticket,
                after.intent,
                after.latch.as_ref().map(|l| (&l.active, l.epoch))
            )
        });
        let ordered = write.record.as_deref();
        self.laws[d].disk_changed(&before, &after, ordered);
        self.pair.disk_changed(d, &before, &after, &self.servers);
        let input = match write.ticket {
            Some(ticket) => Input::Outcome(pgpivot::failover::action::Outcome::Persisted { ticket, result }),
            None => Input::Disk(result.err()),
        };
        let after = if self.chance.one_in(20) { self.chance.between(1, 300) } else { 0 };
        self.soon(d, after, Happening::Tell(input));
        self.kick_disk(d);
    }

    // ---- laws ----

    fn check(&mut self) {
        for d in 0..self.daemons.len() {
            self.check_daemon(d);
        }
        if self.breach.is_none() {
            self.breach = self.pair.breach.take();
        }
    }

    pub fn check_daemon(&mut self, d: usize) {
        let scene = Scene::of(&self.daemons[d], self.now);
        self.laws[d].stands(&scene, &self.daemons[d]);
        if self.breach.is_none() {
            self.breach = self.laws[d].breach.take();
        }
    }
}
