//! A daemon's process: it starts, hears one input at a time and obeys before the next, sleeps, wakes late, is killed
//! between any two actions.

use std::net::SocketAddr;

use pgpivot::failover::action::Action;
use pgpivot::types::HostPort;

use crate::core::{Core, Input};
use crate::daemon::{Sleep, address, index_of, millis};
use crate::faults::Fix;
use crate::laws::Scene;
use crate::sabotage::Saboteur;
use crate::scenario::NAMES;
use crate::world::{Event, Happening, Link, World};

impl World {
    pub fn start(&mut self, d: usize) {
        if self.daemons[d].lives() {
            return;
        }
        let salt = self.chance.below(0x1_0000);
        let daemon = &mut self.daemons[d];
        daemon.process += 1;
        let clock = daemon.clock(self.now);
        let kind = if daemon.decides() { 's' } else { 'o' };
        daemon.name = format!("{kind}-{:012x}{salt:04x}", clock.wall.0 / 1000);
        let (service, name, record) = (daemon.service.clone(), daemon.name.clone(), daemon.disk.holds().clone());
        self.laws[d].born(self.now, clock.wall, service.clone(), name.clone(), &record);
        self.say(|| format!("daemon {d} starts as {name}: {record:?}"));
        let saboteur = self.bug.map(Saboteur::new);
        self.daemons[d].core = Some(Core::start(service, name, record, clock, saboteur));
        self.daemons[d].tick = (0, u64::MAX);
        self.drain(d);
        for (backend, name) in NAMES.iter().enumerate().take(self.servers.len()) {
            let after = self.chance.between(1, 30);
            let list = self.resolved(backend);
            self.soon(d, after, Happening::Tell(Input::Addresses((*name).into(), list)));
        }
        self.soon(d, 5, Happening::Touch);
        let after = self.chance.between(10, 300);
        self.soon(d, after, Happening::Traffic);
    }

    pub fn resolved(&self, backend: usize) -> Vec<(HostPort, SocketAddr)> {
        let configured: HostPort = self.daemons[0].service.backends[backend].addresses[0].clone();
        (0..self.scenario.addresses).map(|n| (configured.clone(), address(backend, n))).collect()
    }

    /// kill -9.
    pub fn kill(&mut self, d: usize) {
        self.say(|| format!("daemon {d} is killed"));
        let process = self.daemons[d].process;
        self.daemons[d].note_edges();
        let daemon = &mut self.daemons[d];
        daemon.core = None;
        daemon.gate = None;
        daemon.conns.clear();
        daemon.unanswered = None;
        daemon.told_live.clear();
        daemon.timers.clear();
        daemon.addresses.clear();
        daemon.cadence = pgpivot::failover::action::Cadence::Calm;
        daemon.paced_for = None;
        daemon.inbox.clear();
        daemon.sleep = None;
        daemon.locks.clear();
        daemon.crash_in = None;
        let before = daemon.disk.holds().clone();
        let written = daemon.disk.orphan(&mut self.chance);
        let after = daemon.disk.holds().clone();
        self.laws[d].killed(&before, &after, written.as_deref());
        for server in 0..self.servers.len() {
            let quick = self.links[d][server] == Link::Up;
            let after = if quick { self.chance.between(0, 500) } else { self.chance.between(1000, 20_000) };
            self.at(self.now + after, Event::Fix(Fix::Release { server, daemon: d, process }));
        }
    }

    pub fn wake(&mut self, d: usize) {
        let Some(Sleep { since, until, .. }) = self.daemons[d].sleep else { return };
        if self.now < until {
            return;
        }
        self.daemons[d].sleep = None;
        // The timer that should have fired first.
        let due = self.daemons[d].tick.1.max(since).min(self.now);
        let late = self.now - due;
        self.say(|| format!("daemon {d} wakes {late} ms late"));
        if late > 500 {
            self.feed(d, Input::Delay(late));
        }
        self.daemons[d].tick.1 = u64::MAX;
        self.feed(d, Input::Timeout);
        while let Some(input) = self.daemons[d].inbox.pop_front() {
            if !self.daemons[d].lives() {
                return;
            }
            self.feed(d, input);
        }
    }

    /// An input arrives; a sleeper finds it when it wakes.
    pub fn tell(&mut self, d: usize, input: Input) {
        if self.daemons[d].sleep.is_some() {
            self.daemons[d].inbox.push_back(input);
        } else {
            self.feed(d, input);
        }
    }

    fn feed(&mut self, d: usize, input: Input) {
        if self.breach.is_some() {
            return;
        }
        let clock = self.daemons[d].clock(self.now);
        self.say(|| format!("daemon {d} hears {input:?}"));
        let scene = Scene::of(&self.daemons[d], self.now);
        self.laws[d].hears(&input, &scene);
        if let Input::Addresses(backend, list) = &input {
            self.learn(d, backend.clone(), list.clone());
        }
        if let Input::Config(service) = &input {
            self.daemons[d].service = (**service).clone();
        }
        let Some(core) = &mut self.daemons[d].core else { return };
        if let (Some(answer), Input::Command(command, dry_run)) = (core.handle(&input, clock), &input) {
            self.say(|| format!("  answer: {answer:?}"));
            self.laws[d].answered(command, *dry_run, &answer);
        }
        self.drain(d);
        if matches!(input, Input::Command(_, true)) {
            self.laws[d].explained();
        }
        self.check_daemon(d);
    }

    /// Carries out every action, then reads every event, as the driver does before it takes the next input.
    pub fn drain(&mut self, d: usize) {
        let clock = self.daemons[d].clock(self.now);
        loop {
            let Some(core) = &mut self.daemons[d].core else { return };
            let Some(action) = core.poll_action(clock) else { break };
            if let Some(left) = &mut self.daemons[d].crash_in {
                if *left == 0 {
                    self.kill(d);
                    let after = self.chance.span(50, 20_000);
                    self.at(self.now + after, Event::Start { d });
                    return;
                }
                *left -= 1;
            }
            self.say(|| format!("  daemon {d}: {action:?}"));
            let scene = Scene::of(&self.daemons[d], self.now);
            self.laws[d].orders(&action, &scene);
            if let Action::Promote { backend, .. } = &action {
                self.pair.orders_promotion(d, index_of(backend));
            }
            self.carry_out(d, action);
        }
        while let Some(event) = self.daemons[d].core.as_mut().and_then(Core::poll_event) {
            self.say(|| format!("  daemon {d} says {:?}: {}", event.kind, event.sentence));
            self.laws[d].says(&event);
            self.pair.says(d, &event, &self.servers);
        }
        self.pace(d);
        self.set_timer(d);
    }

    fn set_timer(&mut self, d: usize) {
        let clock = self.daemons[d].clock(self.now);
        let Some(core) = &self.daemons[d].core else { return };
        let due = millis(core.machine.poll_timeout(clock).0).min(self.now + 500);
        if due < self.daemons[d].tick.1 {
            let token = self.daemons[d].tick.0 + 1;
            self.daemons[d].tick = (token, due);
            self.soon(d, due - self.now, Happening::Tick { token });
        }
    }
}
