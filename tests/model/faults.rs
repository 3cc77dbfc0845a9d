//! What goes wrong, at random, and how it is mended: servers, wires, daemons, disks, clocks, and people who do things
//! to servers by hand. Also what operators command, at any time, sensible or not.

use std::net::SocketAddr;

use pgpivot::failover::action::Command;
use pgpivot::types::BackendName;

use crate::core::Input;
use crate::daemon::{Sleep, address};
use crate::disk::Fare;
use crate::scenario::{NAMES, Theme};
use crate::server::{Mood, Past, Promotes};
use crate::world::{Event, Happening, Link, World};

/// Something that ends a fault.
#[derive(Debug, Clone)]
pub enum Fix {
    /// A server notices that a daemon's sessions are gone.
    Release {
        server: usize,
        daemon: usize,
        process: u32,
    },
    Resume(usize),
    Wire(usize, usize),
    Link(usize, usize),
    Readable(usize),
    Replay(usize),
    Speed(usize),
    Promotes(usize),
    Unlock(usize),
    Ghosts(usize),
    Disk(usize),
    Rebuild(usize),
    Route(SocketAddr, usize),
    Resolve {
        d: usize,
        backend: usize,
    },
    Automatic {
        d: usize,
        automatic: bool,
    },
}

impl World {
    pub fn fault(&mut self) {
        if self.calm {
            return;
        }
        let next = self.chance.span(self.scenario.pace / 8, self.scenario.pace * 3);
        self.at(self.now + next, Event::Fault);
        let d = self.chance.index(self.daemons.len());
        let theme = if self.chance.one_in(3) { Theme::Mixed } else { self.scenario.theme };
        let [server, wire, daemon, tricks, people] = match theme {
            Theme::Mixed => [35, 15, 24, 10, 9],
            Theme::Deaths => [80, 5, 5, 5, 5],
            Theme::Silence => [50, 40, 5, 5, 0],
            Theme::Daemon => [30, 5, 60, 5, 0],
            Theme::Stubborn => [40, 5, 5, 45, 5],
            Theme::People => [20, 5, 5, 10, 60],
            Theme::Commands => [10, 5, 5, 5, 5],
        };
        let drawn = self.chance.below(100);
        match [server, wire, daemon, tricks, people]
            .iter()
            .scan(0, |sum, share| {
                *sum += share;
                Some(*sum)
            })
            .position(|sum| drawn < sum)
        {
            Some(0) => self.server_fault(),
            Some(1) => self.wire_fault(d),
            Some(2) => self.daemon_fault(d),
            Some(3) => self.trickery(),
            Some(4) => self.people(),
            _ => self.random_command_now(),
        }
    }

    /// For so long: often for a moment, often long enough to be acted upon.
    fn lasts(&mut self) -> u64 {
        if self.chance.one_in(2) { self.chance.span(200, 5000) } else { self.chance.between(4000, 40_000) }
    }

    /// People who look after servers: what was replaced or fell off is rebuilt, some time.
    pub fn upkeep(&mut self) {
        if self.calm {
            return;
        }
        let next = self.chance.between(3000, 20_000);
        self.at(self.now + next, Event::Upkeep);
        let Some(primary) = self.true_primary() else { return };
        let fallen = (0..self.servers.len()).find(|index| {
            let server = &self.servers[*index];
            let serves = !server.primary && server.stream.is_some();
            *index != primary && server.mood == Mood::Well && !serves
        });
        if let Some(index) = fallen {
            self.rebuild(index);
        }
    }

    /// Some server; more often the active one.
    fn victim(&mut self) -> usize {
        let d = self.chance.index(self.daemons.len());
        let active = self.daemons[d].active().map(|name| crate::daemon::index_of(&name));
        match active {
            Some(index) if !self.chance.one_in(3) => index,
            _ => self.chance.index(self.servers.len()),
        }
    }

    fn server_fault(&mut self) {
        let index = self.victim();
        let lasts = self.lasts();
        let hangs = if self.scenario.theme == Theme::Silence { 12 } else { 3 };
        let mood = self.chance.weighed(&[
            (if self.scenario.theme == Theme::Deaths { 20 } else { 6 }, Mood::Dead),
            (hangs, Mood::Stopped),
            (hangs, Mood::Stuck),
            (2, Mood::Recovering),
            (1, Mood::Full),
            (2, Mood::ShuttingDown),
            (1, Mood::Locked),
        ]);
        self.say(|| format!("fault: server {index} is {mood:?} for {lasts} ms"));
        if self.servers[index].mood == Mood::Stopped && !matches!(mood, Mood::Stopped | Mood::Dead | Mood::Recovering) {
            // What stands in its sockets is done before it does anything else.
            self.server_resumes(index);
        }
        match mood {
            Mood::Dead => self.server_dies(index),
            Mood::ShuttingDown => {
                self.servers[index].mood = mood;
                self.sessions_end(index, true);
            }
            Mood::Recovering => {
                self.servers[index].die();
                self.sessions_end(index, false);
                self.servers[index].mood = mood;
            }
            _ => self.servers[index].mood = mood,
        }
        self.later(lasts, Fix::Resume(index));
        if self.chance.one_in(3) {
            let after = self.chance.span(1000, 30_000);
            self.later(lasts + after, Fix::Rebuild(index));
        }
    }

    fn wire_fault(&mut self, d: usize) {
        let index = self.victim();
        let lasts = self.lasts();
        if self.chance.one_in(3) {
            let other = self.chance.index(self.servers.len());
            self.say(|| format!("fault: wire {index}-{other} is cut for {lasts} ms"));
            (self.wires[index][other], self.wires[other][index]) = (false, false);
            return self.later(lasts, Fix::Wire(index, other));
        }
        let link = self.chance.weighed(&[(3, Link::Blackhole), (1, Link::Unreachable)]);
        self.say(|| format!("fault: daemon {d} does not reach server {index} ({link:?}) for {lasts} ms"));
        self.links[d][index] = link;
        self.later(lasts, Fix::Link(d, index));
        if self.chance.one_in(4) {
            // The whole server is cut off.
            for other in 0..self.servers.len() {
                (self.wires[index][other], self.wires[other][index]) = (false, false);
                self.later(lasts, Fix::Wire(index, other));
            }
        }
    }

    fn daemon_fault(&mut self, d: usize) {
        if !self.daemons[d].lives() {
            return;
        }
        match self.chance.below(10) {
            0 => {
                self.kill(d);
                let after = self.chance.span(50, 20_000);
                self.at(self.now + after, Event::Start { d });
            }
            1 | 2 => {
                // Between two actions, some time.
                self.daemons[d].crash_in = Some(self.chance.span(0, 40));
            }
            3 | 4 => {
                let fare =
                    self.chance.pick(&[Fare::Fails, Fare::Flaky, Fare::Flaky, Fare::Slow(800), Fare::Slow(4000)]);
                let lasts = self.chance.span(500, 30_000);
                self.say(|| format!("fault: disk of {d} is {fare:?} for {lasts} ms"));
                self.daemons[d].disk.fare = fare;
                self.later(lasts, Fix::Disk(d));
            }
            5 | 6 => self.sleep(d),
            7 => {
                let jump = i64::try_from(self.chance.span(10, 4_000_000)).unwrap() * 1000;
                self.daemons[d].skew += if self.chance.one_in(2) { jump } else { -jump };
                self.say(|| format!("fault: wall clock of {d} jumps by {jump} us"));
            }
            8 => self.readdress(d),
            _ => self.reconfigure(d),
        }
    }

    fn sleep(&mut self, d: usize) {
        if self.daemons[d].sleep.is_some() {
            return;
        }
        let lasts = self.chance.span(300, 20_000);
        let whole = self.chance.one_in(2);
        self.say(|| format!("fault: daemon {d} sleeps for {lasts} ms"));
        self.daemons[d].sleep = Some(Sleep { since: self.now, until: self.now + lasts, whole });
        self.soon(d, lasts, Happening::Wake);
    }

    fn readdress(&mut self, d: usize) {
        if self.scenario.addresses < 2 {
            return;
        }
        let backend = self.chance.index(self.servers.len());
        let mut list = self.resolved(backend);
        let gone = self.chance.index(list.len());
        list.remove(gone);
        self.tell(d, Input::Addresses(NAMES[backend].into(), list));
        let lasts = self.chance.span(1000, 30_000);
        self.later(lasts, Fix::Resolve { d, backend });
    }

    fn reconfigure(&mut self, d: usize) {
        let automatic = self.daemons[d].service.failover.automatic;
        self.set_automatic(d, !automatic);
        let lasts = self.chance.span(1000, 30_000);
        self.later(lasts, Fix::Automatic { d, automatic });
    }

    fn set_automatic(&mut self, d: usize, automatic: bool) {
        if !self.daemons[d].lives() {
            return;
        }
        let mut service = self.daemons[d].service.clone();
        service.failover.automatic = automatic;
        self.tell(d, Input::Config(Box::new(service)));
    }

    /// What makes evidence misleading.
    fn trickery(&mut self) {
        let index = self.victim();
        let other = self.chance.index(self.servers.len());
        let lasts = self.lasts();
        self.say(|| format!("fault: trickery on {index} and {other} for {lasts} ms"));
        let trick = if self.scenario.theme == Theme::Stubborn {
            self.chance.pick(&[2, 3, 6, 6, 6, 7, 8])
        } else {
            self.chance.below(12)
        };
        match trick {
            0 => {
                let jump = i64::try_from(self.chance.span(100, 3_600_000)).unwrap() * 1000;
                let sign = if self.chance.one_in(2) { 1 } else { -1 };
                // A standby's clock tells silence: it does not jump while it is asked.
                if self.servers[index].primary {
                    self.servers[index].skew += sign * jump;
                }
            }
            1 => {
                // The receiver ends and comes back.
                self.servers[other].stream = None;
                self.servers[other].reconnect_at = self.now + self.chance.span(100, 6000);
            }
            2 => {
                self.servers[other].readable = false;
                self.servers[other].history_readable = self.chance.one_in(2);
                self.later(lasts, Fix::Readable(other));
            }
            3 => {
                self.servers[other].replay_paused = true;
                self.later(lasts, Fix::Replay(other));
            }
            4 | 5 => {
                // A load that the standbys cannot follow.
                let bulk = self.chance.span(1000, 1 << 30);
                if self.servers[index].primary
                    && !self.servers[index].frozen
                    && self.servers[index].mood.serves_sessions()
                {
                    self.servers[index].flush += bulk;
                    self.servers[index].replay = self.servers[index].flush;
                }
                self.servers[other].throughput = self.chance.span(1, 100_000);
                self.later(lasts, Fix::Speed(other));
            }
            6 => {
                let slow = self.chance.span(200, 30_000);
                self.servers[other].promotes = self.chance.pick(&[Promotes::Later(slow), Promotes::Never]);
                self.later(lasts, Fix::Promotes(other));
            }
            7 => {
                self.servers[other].stranger_holds = true;
                self.later(lasts, Fix::Unlock(other));
            }
            8 => {
                let age = self.chance.pick(&["s-000000000001", "s-zzzzzzzzzzzz", "o-000000000001"]);
                self.servers[other].ghosts.push(format!("pgpivot/{age}/main/1"));
                self.later(lasts, Fix::Ghosts(other));
            }
            9 => self.servers[other].sync_names = "somebody".into(),
            10 => {
                let n = usize::try_from(self.chance.below(self.scenario.addresses as u64)).unwrap();
                let wrong = address(index, n);
                self.pair.misrouted = true;
                self.route.insert(wrong, other);
                self.later(lasts, Fix::Route(wrong, index));
            }
            _ => {
                // Cascading replication, or back.
                let up = self.chance.index(self.servers.len());
                if up != other && !self.servers[other].primary {
                    self.servers[other].upstream = Some(up);
                }
            }
        }
    }

    /// What people do to servers by hand.
    fn people(&mut self) {
        let index = self.chance.index(self.servers.len());
        match self.chance.below(10) {
            0 | 1 => {
                self.say(|| format!("people: promote {index}"));
                self.pair.by_hand(index);
                self.promote_server(index);
            }
            2 => {
                // Restarted as a standby of another one.
                let up = self.chance.index(self.servers.len());
                if up != index && self.servers[index].primary {
                    self.say(|| format!("people: demote {index}"));
                    self.servers[index].primary = false;
                    self.servers[index].upstream = Some(up);
                }
            }
            3 if self.chance.one_in(3) => {
                self.say(|| format!("people: initdb on {index}"));
                self.servers[index].system += 1 + self.chance.below(5);
                self.servers[index].branch = self.next_branch;
                self.next_branch += 1;
                self.servers[index].past.clear();
                self.servers[index].timeline = 1;
                self.servers[index].primary = true;
                self.servers[index].upstream = None;
                self.servers[index].stream = None;
                self.pair.lost_with(index, &self.servers);
            }
            4 if self.chance.one_in(2) => self.point_in_time(index),
            _ => self.rebuild(index),
        }
    }

    /// Restored to an earlier point: another branch of the same system, on any timeline.
    fn point_in_time(&mut self, index: usize) {
        self.say(|| format!("people: point in time recovery on {index}"));
        let branch = self.next_branch;
        self.next_branch += 1;
        let ahead = u32::try_from(self.chance.below(3)).unwrap();
        let server = &mut self.servers[index];
        let back = (server.flush / 2).max(1);
        let own = Past { branch: server.branch, timeline: server.timeline, until: server.flush };
        server.past.push(own);
        let at = server.past.iter().position(|past| past.until >= back).unwrap_or(0);
        server.past.truncate(at + 1);
        if let Some(last) = server.past.last_mut() {
            last.until = back;
            server.timeline = last.timeline + 1 + ahead;
        }
        server.branch = branch;
        server.flush = back;
        server.replay = back;
        server.primary = true;
        server.upstream = None;
        server.stream = None;
        self.pair.lost_with(index, &self.servers);
    }

    /// The server that is primary for most.
    pub fn true_primary(&self) -> Option<usize> {
        let latched =
            self.daemons.iter().filter_map(|daemon| daemon.active()).map(|name| crate::daemon::index_of(&name));
        let good = |index: &usize| self.servers[*index].primary && self.servers[*index].mood == Mood::Well;
        latched.into_iter().find(good).or_else(|| {
            (0..self.servers.len())
                .filter(good)
                .max_by_key(|index| (self.servers[*index].system == 77, self.servers[*index].timeline))
        })
    }

    /// It follows, and no probe shows that.
    fn follows_unseen(&self, backend: &BackendName) -> bool {
        let server = &self.servers[crate::daemon::index_of(backend)];
        !self.laws[0].sql() && server.stream.is_some() && server.upstream == self.true_primary()
    }

    /// A base backup from whoever is primary.
    pub fn rebuild(&mut self, index: usize) {
        let Some(of) = self.true_primary().filter(|of| *of != index) else { return };
        self.say(|| format!("people: rebuild {index} from {of}"));
        if let Some(holder) = self.servers[index].holder {
            self.lock_lost(holder);
        }
        self.sessions_end(index, false);
        let source = self.servers[of].clone();
        self.servers[index].rebuild(&source, of, self.now);
        self.pair.lost_with(index, &self.servers);
    }

    pub fn fix(&mut self, fix: Fix) {
        match fix {
            Fix::Release { server, daemon, process } => self.release(server, daemon, process),
            Fix::Resume(index) => {
                if self.servers[index].mood == Mood::ShuttingDown && self.chance.one_in(2) {
                    // Down for a moment before it comes back.
                    self.server_dies(index);
                    return self.later(200, Fix::Resume(index));
                }
                self.server_resumes(index);
            }
            Fix::Wire(a, b) => (self.wires[a][b], self.wires[b][a]) = (true, true),
            Fix::Link(d, index) => self.links[d][index] = Link::Up,
            Fix::Readable(index) => (self.servers[index].readable, self.servers[index].history_readable) = (true, true),
            Fix::Replay(index) => self.servers[index].replay_paused = false,
            Fix::Speed(index) => self.servers[index].throughput = u64::MAX,
            Fix::Promotes(index) => self.servers[index].promotes = Promotes::AtOnce,
            Fix::Unlock(index) => self.servers[index].stranger_holds = false,
            Fix::Ghosts(index) => self.servers[index].ghosts.clear(),
            Fix::Disk(d) => self.daemons[d].disk.fare = Fare::Well,
            Fix::Rebuild(index) => {
                let replaced = self.true_primary().is_some_and(|primary| primary != index);
                if replaced && self.servers[index].mood == Mood::Well {
                    self.rebuild(index);
                }
            }
            Fix::Route(address, index) => {
                self.route.insert(address, index);
            }
            Fix::Resolve { d, backend } => {
                if self.daemons[d].lives() {
                    self.tell(d, Input::Addresses(NAMES[backend].into(), self.resolved(backend)));
                }
            }
            Fix::Automatic { d, automatic } => self.set_automatic(d, automatic),
        }
    }

    // ---- operators ----

    pub fn random_command(&mut self) {
        if self.calm {
            return;
        }
        let next = self.chance.span(1000, 90_000 / self.scenario.commands);
        self.at(self.now + next, Event::Command);
        self.random_command_now();
    }

    fn random_command_now(&mut self) {
        let d = self.chance.index(self.daemons.len());
        if !self.daemons[d].lives() || self.daemons[d].sleep.is_some() {
            return;
        }
        let command = self.any_command();
        let dry_run = self.chance.one_in(6);
        self.tell(d, Input::Command(command, dry_run));
    }

    fn any_command(&mut self) -> Command {
        let count = self.servers.len();
        let backend: BackendName = NAMES[self.chance.index(count)].into();
        let to = (!self.chance.one_in(3)).then(|| backend.clone());
        match self.chance.below(20) {
            0..3 => Command::Failover { to, force: false, route_only: false, at: None },
            3..5 => Command::Failover { to, force: true, route_only: false, at: None },
            5 | 6 => Command::Failover { to, force: false, route_only: true, at: None },
            7..11 => Command::Switchover { to },
            11 | 12 => Command::Restore { to, force: false },
            13 | 14 => Command::Adopt { backend },
            15 => Command::Pause,
            // In some worlds alone: it keeps sides out of use, and what the others reach becomes rare.
            17 if self.chance.seed() % 4 == 3 => self.any_state(backend),
            16 | 17 => Command::Resume,
            18 if self.follows_unseen(&backend) => Command::Rejoin { backend, method: None },
            18 => Command::CheckHealth,
            _ => Command::Abandon { backend },
        }
    }
}
