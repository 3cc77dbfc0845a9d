//! Probes as the daemon's `probe` room makes them: paced by the cadence, overlapping, fresh ones and samples of a kept
//! connection, late when the daemon was. What a probe finds is the server's mood and the wire's.

use std::net::SocketAddr;

use pgpivot::config::ProbeKind;
use pgpivot::failover::action::Cadence;
use pgpivot::failover::observation::{Evidence, Facts, Failure, Observation, Role, Unknown, Verdict};
use pgpivot::types::{BackendName, HostPort};

use crate::core::Input;
use crate::daemon::{Timers, moment};
use crate::server::Mood;
use crate::world::{Happening, Link, World};

/// Fresh and sampled how often, milliseconds, and how many fresh ones at once.
struct Plan {
    fresh: u64,
    sample: u64,
    overlap: u32,
}

impl World {
    pub fn learn(&mut self, d: usize, backend: BackendName, list: Vec<(HostPort, SocketAddr)>) {
        let old = self.daemons[d].addresses.insert(backend, list.clone()).unwrap_or_default();
        for (_, gone) in old.iter().filter(|(_, old)| !list.iter().any(|(_, new)| new == old)) {
            self.daemons[d].timers.remove(gone);
        }
        for (_, address) in list {
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.daemons[d].timers.entry(address) {
                vacant.insert(Timers::default());
                self.schedule_fresh(d, address, 0);
                self.schedule_sample(d, address, 500);
            }
        }
    }

    fn timeout(&self, d: usize) -> u64 {
        u64::try_from(self.daemons[d].service.probe.timeout.as_millis()).unwrap()
    }

    fn keeps(&self, d: usize) -> bool {
        matches!(self.daemons[d].service.probe.kind, ProbeKind::Sql { .. })
    }

    fn plan(&self, d: usize, address: SocketAddr) -> Plan {
        let daemon = &self.daemons[d];
        let probe = &daemon.service.probe;
        let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap();
        let active = daemon.backend_of(address) == daemon.active();
        let down = daemon.timers.get(&address).is_some_and(|t| t.failures >= probe.fall);
        let (fast, interval) = (ms(probe.fast_interval), ms(probe.interval));
        let plan = |fresh, sample, overlap| Plan { fresh, sample, overlap };
        let chosen = match (daemon.cadence, active) {
            (Cadence::Calm, true) => plan(if down { ms(probe.down_interval) } else { interval }, interval, 1),
            (Cadence::Calm, false) => plan(if down { ms(probe.down_interval) } else { interval }, fast, 1),
            (Cadence::Fast, true) => plan(fast, fast, 8),
            (Cadence::Fast, false) => plan(interval, 250, 8),
            (Cadence::Death, true) | (Cadence::Episode, _) => plan(250, 250, 8),
            (Cadence::Death, false) => plan(interval, 100, 8),
            (Cadence::Proof, true) => plan(250, 250, 8),
            (Cadence::Proof, false) => plan(250, 25, 8),
        };
        if self.keeps(d) || chosen.overlap == 1 {
            chosen
        } else {
            Plan { fresh: chosen.fresh.min(chosen.sample), ..chosen }
        }
    }

    /// The cadence or the active side changed: everything is due at once, or calms down.
    pub fn pace(&mut self, d: usize) {
        let Some(core) = &self.daemons[d].core else { return };
        let (cadence, active) = (core.machine.cadence(), self.daemons[d].active());
        let daemon = &mut self.daemons[d];
        if daemon.cadence == cadence && daemon.paced_for == active {
            return;
        }
        (daemon.cadence, daemon.paced_for) = (cadence, active);
        let all: Vec<SocketAddr> = daemon.timers.keys().copied().collect();
        for address in all {
            if let Some(timers) = self.daemons[d].timers.get_mut(&address) {
                (timers.begun, timers.since) = (0, self.now);
            }
            let plan = self.plan(d, address);
            let calm = cadence == Cadence::Calm;
            self.schedule_fresh(d, address, if calm { plan.fresh } else { 0 });
            self.schedule_sample(d, address, if calm { plan.sample } else { 0 });
        }
    }

    fn schedule_fresh(&mut self, d: usize, address: SocketAddr, after: u64) {
        let Some(timers) = self.daemons[d].timers.get_mut(&address) else { return };
        timers.fresh += 1;
        let token = timers.fresh;
        self.soon(d, after, Happening::Fresh { address, token });
    }

    fn schedule_sample(&mut self, d: usize, address: SocketAddr, after: u64) {
        if !self.keeps(d) {
            return;
        }
        let Some(timers) = self.daemons[d].timers.get_mut(&address) else { return };
        timers.sample += 1;
        let token = timers.sample;
        self.soon(d, after, Happening::Sample { address, token });
    }

    pub fn probe_now(&mut self, d: usize, backend: &BackendName) {
        let list = self.daemons[d].addresses.get(backend).cloned().unwrap_or_default();
        for (_, address) in list {
            self.begin_fresh(d, address, 8);
        }
    }

    pub fn begin_fresh_when_due(&mut self, d: usize, address: SocketAddr, token: u64) {
        if self.daemons[d].timers.get(&address).is_none_or(|timers| timers.fresh != token) {
            return;
        }
        let plan = self.plan(d, address);
        self.begin_fresh(d, address, plan.overlap);
        let death = self.daemons[d].cadence == Cadence::Death
            && self.daemons[d].backend_of(address) == self.daemons[d].active();
        let Some(timers) = self.daemons[d].timers.get_mut(&address) else { return };
        timers.begun += 1;
        let burst = [0, 100, 250].get(usize::try_from(timers.begun).unwrap()).copied();
        let due = timers.since + burst.unwrap_or(0);
        let after = if death && burst.is_some() && due > self.now { due - self.now } else { plan.fresh };
        let jitter = if self.daemons[d].cadence == Cadence::Calm { self.chance.below(plan.fresh / 10 + 1) } else { 0 };
        self.schedule_fresh(d, address, after + jitter);
    }

    pub fn begin_sample_when_due(&mut self, d: usize, address: SocketAddr, token: u64) {
        let Some(timers) = self.daemons[d].timers.get_mut(&address) else { return };
        if timers.sample != token {
            return;
        }
        if timers.kept && !timers.sampling {
            timers.sampling = true;
            self.begin_probe(d, address, false);
        } else if !timers.kept && !timers.sampling && self.daemons[d].cadence != Cadence::Calm {
            self.begin_fresh(d, address, 1);
        }
        let plan = self.plan(d, address);
        self.schedule_sample(d, address, plan.sample);
    }

    fn begin_fresh(&mut self, d: usize, address: SocketAddr, overlap: u32) {
        let Some(timers) = self.daemons[d].timers.get_mut(&address) else { return };
        if timers.outstanding >= overlap {
            return;
        }
        timers.outstanding += 1;
        self.begin_probe(d, address, true);
    }

    fn begin_probe(&mut self, d: usize, address: SocketAddr, fresh: bool) {
        if let Some(sleep) = self.daemons[d].sleep {
            // Its timer fires when the daemon wakes, and knows that it is late.
            let verdict = Some(Verdict::Unknown(Unknown::OwnDelay));
            let what = Happening::Probed { address, started: sleep.until, fresh, verdict };
            return self.soon(d, sleep.until - self.now, what);
        }
        let verdict = self.read(d, address, fresh);
        let took = match &verdict {
            Verdict::Failed(Failure::TimedOut) => self.timeout(d),
            _ if self.chance.one_in(40) => self.chance.between(50, self.timeout(d) - 50),
            _ => self.chance.between(1, 15),
        };
        // What it reads, it reads early or late.
        let late = self.chance.one_in(2) && took < self.timeout(d);
        let verdict = if late { None } else { Some(verdict) };
        let started = self.now;
        self.soon(d, took, Happening::Probed { address, started, fresh, verdict });
    }

    pub fn probed(&mut self, d: usize, address: SocketAddr, started: u64, fresh: bool, verdict: Option<Verdict>) {
        let Some(backend) = self.daemons[d].backend_of(address) else { return };
        let mut verdict = verdict.unwrap_or_else(|| self.read(d, address, fresh));
        if self.daemons[d].sleep.is_some() && self.chance.one_in(2) {
            verdict = Verdict::Unknown(Unknown::OwnDelay);
        }
        let Some(timers) = self.daemons[d].timers.get_mut(&address) else { return };
        let mut lost = false;
        if fresh {
            timers.outstanding = timers.outstanding.saturating_sub(1);
            match &verdict {
                Verdict::Answered(_) => {
                    timers.failures = 0;
                    timers.kept = true;
                }
                Verdict::Failed(_) => timers.failures += 1,
                _ => {}
            }
        } else {
            timers.sampling = false;
            lost = timers.kept && matches!(verdict, Verdict::Failed(_));
            timers.kept &= !lost;
        }
        let seen = Observation {
            backend: backend.clone(),
            address,
            started: moment(started),
            finished: moment(self.now),
            fresh,
            verdict,
        };
        self.tell(d, Input::Seen(Box::new(seen)));
        if lost {
            self.tell(d, Input::Evidence(Evidence::ProbeConnectionLost { backend }));
        }
    }

    /// What a probe would find now.
    fn read(&mut self, d: usize, address: SocketAddr, fresh: bool) -> Verdict {
        let index = self.route[&address];
        match self.links[d][index] {
            Link::Blackhole => return Verdict::Failed(Failure::TimedOut),
            Link::Unreachable => return Verdict::Failed(Failure::Unreachable),
            Link::Up => {}
        }
        match self.chance.below(if self.calm { u64::MAX } else { 600 }) {
            0 => return Verdict::Unknown(Unknown::OwnDelay),
            1 => return Verdict::Failed(Failure::Lost),
            2 => return Verdict::Failed(Failure::TimedOut),
            _ => {}
        }
        let (mood, primary) = (self.servers[index].mood, self.servers[index].primary);
        match &self.daemons[d].service.probe.kind {
            ProbeKind::Sql { .. } => self.read_sql(d, index, fresh),
            ProbeKind::Tcp => match mood {
                Mood::Dead | Mood::ShuttingDown => Verdict::Failed(Failure::Refused),
                _ => Verdict::Answered(Box::default()),
            },
            ProbeKind::Startup { .. } => refusal(mood).unwrap_or_else(|| Verdict::Answered(Box::default())),
            ProbeKind::Http(http) if http.primary_only => match refusal(mood) {
                Some(Verdict::Failed(how)) => Verdict::Failed(how),
                None if primary => Verdict::Answered(Box::new(Facts { role: Role::Primary, ..Facts::default() })),
                _ => Verdict::Failed(Failure::BadReply),
            },
            ProbeKind::Http(_) => match refusal(mood) {
                None => Verdict::Answered(Box::default()),
                Some(Verdict::Failed(how)) => Verdict::Failed(how),
                Some(_) => Verdict::Failed(Failure::BadReply),
            },
        }
    }

    fn read_sql(&self, d: usize, index: usize, fresh: bool) -> Verdict {
        let server = &self.servers[index];
        let answers = if fresh { refusal(server.mood) } else { kept_refusal(server.mood) };
        if let Some(refusal) = answers {
            return refusal;
        }
        let nodes: Vec<String> = self.servers.iter().map(|server| server.node.clone()).collect();
        Verdict::Answered(Box::new(server.facts(self.now, &nodes, self.names_at(d, index))))
    }

    /// The other daemons that this server knows.
    fn names_at(&self, d: usize, index: usize) -> Vec<String> {
        let there = |other: &&crate::daemon::Daemon| {
            other.index != d && other.lives() && self.links[other.index][index] == Link::Up
        };
        let name = |other: &crate::daemon::Daemon| format!("pgpivot/{}/main/{}", other.name, other.epoch());
        let mut names: Vec<String> = self.daemons.iter().filter(there).map(name).collect();
        names.extend(self.servers[index].ghosts.iter().cloned());
        names
    }
}

/// What a new connection meets; `None` = an answer.
fn refusal(mood: Mood) -> Option<Verdict> {
    match mood {
        Mood::Well => None,
        Mood::Dead => Some(Verdict::Failed(Failure::Refused)),
        Mood::Stopped | Mood::Stuck => Some(Verdict::Failed(Failure::TimedOut)),
        Mood::Recovering => Some(Verdict::Recovering),
        Mood::Full => Some(Verdict::Unknown(Unknown::TooManyConnections)),
        Mood::ShuttingDown => Some(Verdict::Failed(Failure::ShuttingDown)),
        Mood::Locked => Some(Verdict::Unknown(Unknown::Authentication)),
    }
}

/// What a kept connection meets.
fn kept_refusal(mood: Mood) -> Option<Verdict> {
    match mood {
        Mood::Well | Mood::Stuck | Mood::Full | Mood::Locked => None,
        Mood::Stopped => Some(Verdict::Failed(Failure::TimedOut)),
        Mood::Dead | Mood::Recovering => Some(Verdict::Failed(Failure::Lost)),
        Mood::ShuttingDown => Some(Verdict::Failed(Failure::ShuttingDown)),
    }
}
