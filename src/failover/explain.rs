//! The machine in words: the view, what would happen next, and the graph of phases. Changes nothing.

mod patroni;
mod streams;

use std::fmt::Write as _;
use std::time::Duration;

use super::analysis::Lineage;
use super::candidate;
use super::durability;
use super::health::State as Health;
use super::machine::Machine;
use super::observation::{Role, Unknown};
use super::phase::{Administered, BlockReason, EpisodeKind, Phase, Stage};
use super::side::Side;
use super::transition;
use crate::config::{Authority, ConfiguredRole, Kind, Promoter, Target};
use crate::types::{Lsn, Now};
use crate::view::{
    AdminStatus, BackendStatus, Blocked, Durability, EndpointStatus, Episode, Following, Level, ListenerStatus,
    ProbeStatus, ServiceStatus, SwitchCount,
};

/// The phases and their edges as a Mermaid state diagram.
pub fn graph() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> starting\n");
    for edge in transition::EDGES {
        let _ = writeln!(text, "    {} --> {}: {}", edge.from.as_str(), edge.to.as_str(), edge.why);
    }
    text
}

fn admin(order: &Administered) -> AdminStatus {
    AdminStatus {
        state: order.state.as_str().into(),
        by: order.by.name.clone(),
        note: order.by.note.clone(),
        since: order.since,
    }
}

fn configured(role: ConfiguredRole) -> &'static str {
    match role {
        ConfiguredRole::Primary => "primary",
        ConfiguredRole::Standby => "standby",
    }
}

impl Machine {
    /// Everything known about the service; counters of the data plane are the driver's to fill in.
    pub fn view(&self, now: Now) -> ServiceStatus {
        let latch = self.latch();
        let blocked = self.block.as_ref().map(|block| Blocked {
            reason: block.reason.as_str().into(),
            sentence: block.sentence.clone(),
            since: block.since,
        });
        let (open, closed_why) = match self.gate() {
            Some(super::action::Gate::Open { hold, .. }) => {
                let why = if self.follows_patroni() {
                    "newcomers wait: Patroni changes its leader"
                } else {
                    "newcomers wait until running work has ended"
                };
                let rests = || self.newcomers_rest();
                (!hold && rests().is_none(), if *hold { Some(why.into()) } else { rests() })
            }
            Some(super::action::Gate::Closed { why }) => (false, Some(why.clone())),
            None => (false, None),
        };
        let failover = &self.service.failover;
        let backends: Vec<BackendStatus> = self.sides.iter().map(|side| self.backend(side, now)).collect();
        let sees = latch.filter(|_| self.knows_identity());
        let durability = sees.and_then(|latch| durability::judge(&self.service, &self.sides, latch, now.at));
        ServiceStatus {
            name: self.service.name.clone(),
            kind: match self.service.kind {
                Kind::Postgres => "postgres".into(),
                Kind::Cockroach => "cockroach".into(),
            },
            phase: self.phase.as_str().into(),
            state: self.public_state().into(),
            level: self.level(&backends, now).max(self.level_of_standbys(&backends, durability.as_ref())),
            active: latch.map(|latch| latch.active.clone()),
            epoch: latch.map(|latch| latch.epoch).unwrap_or_default(),
            since: latch.map(|latch| latch.since),
            why: latch.map_or_else(|| "nothing is latched yet".into(), |latch| latch.why.clone()),
            evidence: self.evidence.clone(),
            next: self.next_sentence(now),
            blocked,
            paused: self.record.paused.as_ref().map(|pause| format!("paused by {} at {}", pause.by.name, pause.since)),
            open,
            closed_why,
            held: 0,
            budget_left: self.budget_left(now.wall),
            budget: failover.max_per_day,
            cooldown_until: self.cooldown_left(now.wall).map(|left| now.wall.plus(left)),
            automatic: self.decides() && !failover.standby_serves,
            max_lag_bytes: (self.service.kind == Kind::Postgres).then_some(failover.max_lag),
            max_lag_ms: self.service.replication.as_ref().map(|_| millis(failover.max_replication_lag)),
            max_held: failover.max_held as u64,
            authority: match failover.authority {
                Authority::SelfDecides => "self".into(),
                Authority::Observe => "observe".into(),
                Authority::Patroni => "patroni".into(),
            },
            promoter: failover.promoter.as_str().into(),
            armed: backends.iter().any(|backend| backend.armed),
            other_daemons: self.others(),
            episode: self.episode(),
            episodes: self.record.last_episode.0,
            switches: self.switches(),
            beside: self.beside,
            detection_crash_ms: 0,
            detection_hang_ms: None,
            backends,
            listeners: self.listeners(),
            fall: self.service.probe.fall,
            decides_at: self.decides_at(now),
            replication: self.replication_status(now),
            patroni: self.patroni_status(),
            rejoin: self.rejoin_status(),
            durability,
        }
    }

    /// When the delay is over, while it is waited for.
    fn decides_at(&self, now: Now) -> Option<crate::types::WallTime> {
        let threshold = self.suspicion.as_ref().filter(|_| self.decides())?.threshold?;
        let until = threshold + self.service.failover.delay;
        (until > now.at).then(|| now.wall.plus(until.since(now.at)))
    }

    fn switches(&self) -> Vec<SwitchCount> {
        let word = |kind: EpisodeKind| match kind {
            EpisodeKind::Failover => "failover",
            EpisodeKind::Switchover => "switchover",
            EpisodeKind::Route => "route",
            EpisodeKind::Follow => "follow",
        };
        let count = |(&(operator, kind, switched), &count): (&(bool, EpisodeKind, bool), &u64)| SwitchCount {
            trigger: if operator { "operator" } else { "automatic" }.into(),
            kind: word(kind).into(),
            outcome: if switched { "switched" } else { "cancelled" }.into(),
            count,
        };
        self.counts.iter().map(count).collect()
    }

    fn listeners(&self) -> Vec<ListenerStatus> {
        let listener = |l: &crate::config::Listener| ListenerStatus {
            address: l.address,
            target: match l.target {
                Target::Active => "active".into(),
                Target::ReadOnly => "read_only".into(),
            },
            connections: 0,
            limit: l.max_connections as u64,
            tls: l.tls.status(),
            refused: vec![],
            counters: crate::view::Counters::default(),
        };
        self.service.listeners.iter().map(listener).collect()
    }

    fn episode(&self) -> Option<Episode> {
        let super::machine::State::Episode(run) = &self.state else {
            return self.ordered();
        };
        let intent = &run.intent;
        Some(Episode {
            id: intent.id.0,
            kind: match intent.kind {
                EpisodeKind::Failover => "failover",
                EpisodeKind::Switchover => "switchover",
                EpisodeKind::Route => "route",
                EpisodeKind::Follow => "follow",
            }
            .into(),
            from: intent.from.clone(),
            to: intent.to.clone(),
            stage: match intent.stage {
                Stage::Intent => "intent",
                Stage::Freezing => "freezing",
                Stage::Sent => "sent",
            }
            .into(),
            why: intent.why.clone(),
            decided_at: intent.decided_at,
            operator: intent.operator.as_ref().map(|operator| operator.name.clone()),
        })
    }

    fn backend(&self, side: &Side, now: Now) -> BackendStatus {
        let active = self.is_active(&side.name);
        let latch = self.latch();
        let identity = latch.and_then(|latch| latch.identity.as_ref());
        let flushed = self.active_side().zip(identity).and_then(|(active, identity)| active.flushed(identity));
        let flushed = flushed.map(|(lsn, _)| lsn);
        let facts = side.facts.as_ref().map(|heard| &heard.facts);
        let standby = !active && facts.is_some_and(|facts| facts.role == Role::Standby);
        // Every other side has its reason, what it is now and what it says of itself notwithstanding.
        let unarmed_why = if active || latch.is_none() { Vec::new() } else { self.unarmed(side, flushed, now) };
        BackendStatus {
            name: side.name.clone(),
            active,
            role: match side.role() {
                Role::Primary => "primary",
                Role::Standby => "standby",
                Role::Unknown => "unknown",
            }
            .into(),
            health: side.state().as_str().into(),
            health_since: side.state_since().map(|at| wall_of(at, now)),
            quarantined: side.quarantine.clone(),
            fence: self.grade_of(&side.name).map(|grade| grade.as_str().into()),
            note: side.note.clone(),
            admin: self.own_order(&side.name, None).map(admin),
            weight: side.config.weight,
            tier: if active || self.serves_beside(side) { "active" } else { "backup" }.into(),
            system_id: facts.and_then(|facts| facts.system_id),
            timeline: facts.and_then(|facts| facts.timeline),
            lsn: facts.and_then(|facts| facts.lsn),
            lag_bytes: if standby {
                facts.and_then(|facts| facts.lsn).zip(flushed).map(|(lsn, f)| lsn.behind(f))
            } else {
                None
            },
            replay_backlog_ms: side.replays_for().filter(|_| standby).map(millis),
            replay_backlog_bytes: side.facts.as_ref().filter(|_| standby).and_then(super::side::Heard::backlog),
            read_age_ms: self.shown_age(side, now).filter(|_| standby),
            no_readers_why: self.no_readers(side).filter(|_| !active),
            witness: standby.then(|| self.witness_word(side)),
            armed: latch.is_some() && (standby || !self.knows_identity() && !active) && unarmed_why.is_empty(),
            unarmed_why,
            following: self
                .standing_now(side)
                .map(|(standing, sentence)| Following { state: standing.as_str().into(), sentence }),
            failures: side.failures(),
            failed_probes: side.failed_probes,
            recoveries: side.recoveries,
            probes: side.probes,
            last_probe: side.last_probe.as_ref().map(|probe| ProbeStatus {
                at: probe.at,
                took_us: u64::try_from(probe.took.as_micros()).unwrap_or(u64::MAX),
                text: probe.text.clone(),
            }),
            probe_durations: side.durations.clone(),
            connect_durations: crate::view::Durations::default(),
            connections: side.live as u64,
            endpoints: side
                .addresses
                .iter()
                .map(|(ip, address)| EndpointStatus {
                    address: address.configured.clone(),
                    ip: *ip,
                    health: address.health.state().as_str().into(),
                    admin: self.own_order(&side.name, Some(*ip)).map(admin),
                    connections: 0,
                    counters: crate::view::Counters::default(),
                })
                .collect(),
            addresses: side.config.addresses.clone(),
            cluster_id: side.config.cluster_id.clone(),
            configured_role: side.config.role.map(|role| configured(role).into()),
            sslmode: Some(side.config.tls.mode.as_str().into()),
            sslrootcert: side.config.tls.ca_file.as_ref().map(|file| file.display().to_string()),
        }
    }

    fn serves_beside(&self, side: &Side) -> bool {
        self.service.failover.standby_serves && side.config.role == Some(ConfiguredRole::Primary)
    }

    fn witness_word(&self, side: &Side) -> String {
        let timeline = self.latch().and_then(|latch| latch.identity.as_ref()).map(|identity| identity.timeline);
        match side.witness.testimony() {
            super::witness::Testimony::Unknown if side.witness.usable(timeline) => "streaming".into(),
            testimony => testimony.as_str().into(),
        }
    }

    /// The seeds' public state, derived, never stored.
    fn public_state(&self) -> &'static str {
        let active_up = self.active_side().is_some_and(|side| side.state() == Health::Up);
        let helps = |side: &Side| side.state() == Health::Up && side.quarantine.is_none();
        let others_up = self.sides.iter().any(|side| !self.is_active(&side.name) && helps(side));
        match self.phase {
            Phase::Fencing | Phase::Promoting | Phase::Switching => "failover_in_progress",
            Phase::Settling if self.record.last_episode.0 > 1 => "failover_complete",
            _ if active_up && (others_up || self.sides.len() == 1) => "healthy",
            _ if self.active_side().is_some_and(|side| side.state() == Health::Recovering) => "recovery_in_progress",
            _ if active_up || others_up => "degraded",
            _ => "unknown",
        }
    }

    fn level(&self, backends: &[BackendStatus], now: Now) -> Level {
        let quarantined = backends.iter().any(|backend| backend.quarantined.is_some());
        let calm_block =
            |reason| matches!(reason, BlockReason::NotAutomatic | BlockReason::Cooldown | BlockReason::SecondDecider);
        let down = self.active_side().is_none_or(|side| side.state() != Health::Up);
        if self.disk_error.is_some() || self.budget_left(now.wall) == 0 && self.decides() {
            return Level::Bad;
        }
        match &self.block {
            Some(block) if !calm_block(block.reason) || down => return Level::Bad,
            _ => {}
        }
        if quarantined {
            return Level::Bad;
        }
        let unarmed =
            self.decides() && !self.service.failover.standby_serves && !backends.iter().any(|backend| backend.armed);
        let busy = !matches!(self.phase, Phase::Steady | Phase::Settling);
        let taken_out = !self.record().administered.is_empty();
        if busy || unarmed || down || taken_out || self.block.is_some() { Level::Warn } else { Level::Ok }
    }

    /// A standby that cannot follow any more is no standby, and commits that wait for nobody wait for ever.
    fn level_of_standbys(&self, backends: &[BackendStatus], durability: Option<&Durability>) -> Level {
        let lost = |backend: &BackendStatus| {
            backend.following.as_ref().is_some_and(|f| matches!(f.state.as_str(), "orphan" | "adrift"))
        };
        let standbys = if backends.iter().any(lost) { Level::Warn } else { Level::Ok };
        standbys.max(durability.map(|durability| durability.level).unwrap_or_default())
    }

    /// What would happen next, one sentence.
    fn next_sentence(&self, now: Now) -> String {
        let Some(latch) = self.latch() else {
            return "traffic opens as soon as the active side is proven, or adopted by an operator".into();
        };
        if let super::machine::State::Episode(run) = &self.state {
            return match &run.step {
                super::machine::Step::Promoting { .. } => {
                    format!("traffic opens to {} when it proves to be primary", run.intent.to)
                }
                super::machine::Step::Cancelling { .. } => {
                    format!("{} is opened again", latch.active)
                }
                _ if matches!(run.intent.kind, EpisodeKind::Route | EpisodeKind::Follow) => {
                    format!("traffic opens to {}, nothing is promoted", run.intent.to)
                }
                _ => format!("{} is promoted and traffic opens to it", run.intent.to),
            };
        }
        if let Some(ask) = &self.following.ask {
            return format!("traffic opens to {} when that proves to be primary", ask.target());
        }
        if let Some(block) = &self.block {
            return match block.reason {
                BlockReason::NotAutomatic | BlockReason::NotLeader if self.follows_patroni() => {
                    "whoever Patroni promotes is followed as soon as it proves to be primary".into()
                }
                BlockReason::Cooldown => {
                    "the decision is taken when the cool-down has passed, if the evidence still stands".into()
                }
                BlockReason::NotAutomatic if self.service.failover.authority == Authority::Observe => {
                    "a promotion made by somebody else is followed as soon as it is proven".into()
                }
                BlockReason::SecondDecider => {
                    "a promotion made by who decides is followed as soon as it is proven".into()
                }
                BlockReason::LatchUnproven => format!("traffic opens when {} proves itself", latch.active),
                _ => "nothing, until the evidence changes or an operator decides".into(),
            };
        }
        if let Some(said) = self.active_in_maint().filter(|_| self.decides()) {
            return said;
        }
        if self.decides() && self.record.paused.is_some() {
            return "nothing is decided until `proxyctl resume`; `proxyctl failover` still works".into();
        }
        if self.service.failover.standby_serves {
            return format!(
                "if {} fails {} probes in a row, traffic moves to the best side that is up",
                latch.active, self.service.probe.fall
            );
        }
        if !self.decides() {
            return match self.service.failover.authority {
                Authority::Patroni => "whoever Patroni promotes is followed as soon as it proves to be primary".into(),
                Authority::Observe => "a promotion made by somebody else is followed as soon as it is proven".into(),
                Authority::SelfDecides if self.service.probe.kind.primary_only() => {
                    format!("if {} no longer passes its check, traffic follows the standby that does", latch.active)
                }
                Authority::SelfDecides if matches!(self.service.failover.promoter, Promoter::None) => {
                    "nothing is promoted: `proxyctl failover --route-only` moves traffic".into()
                }
                Authority::SelfDecides => "nothing is decided automatically: `proxyctl failover` does it".into(),
            };
        }
        if let Some(older) = self.older_decider() {
            return format!("daemon {older} decides on this pair; a promotion it makes is followed");
        }
        if self.budget_left(now.wall) == 0 {
            return "nothing automatic: the failovers of these 24 hours are spent".into();
        }
        let identity = latch.identity.as_ref();
        let ranked = candidate::rank(&self.service, &self.sides, &latch.active, identity, None, now.at);
        match ranked.iter().find(|(_, verdict)| matches!(verdict, candidate::Verdict::Fit { .. })) {
            Some((side, verdict)) => {
                let unarmed = self.unarmed(side, None, now);
                match unarmed.first().filter(|_| self.replicates()) {
                    Some(why) => format!(
                        "if {} dies, {} ({verdict}) is not promoted by itself: {why}; `proxyctl failover --force` promotes it",
                        latch.active, side.name
                    ),
                    None if self.replicates() => format!(
                        "if {0} dies, {1} ({verdict}) is promoted; what {0} acknowledged and {1} has not received by then is lost",
                        latch.active, side.name
                    ),
                    None => format!("if {} dies, {} ({verdict}) is promoted", latch.active, side.name),
                }
            }
            None => format!("if {} dies, {}", latch.active, candidate::refusal(&ranked).1),
        }
    }

    /// What keeps a standby from being promoted right now.
    fn unarmed(&self, side: &Side, flushed: Option<Lsn>, now: Now) -> Vec<String> {
        let identity = self.latch().and_then(|latch| latch.identity.as_ref());
        let disk_ok = self.disk_error.is_none();
        let mut why = candidate::unarmed(&self.service, side, identity, flushed, disk_ok, now.at);
        why.extend(self.configured_moment(&side.name, now));
        if let Some(active) = self.active_side().filter(|active| active.indirect && self.decides()) {
            let name = &active.name;
            why.push(format!(
                "a pooler or balancer stands before {name}: what answers there may be any server, so its death is not decided by itself; name the server's own address"
            ));
        }
        why
    }

    /// Why the probe of a side says nothing, when that is so.
    pub fn unknown_of(&self, side: &Side) -> Option<Unknown> {
        side.addresses.values().find_map(|address| address.health.unknown())
    }

    /// Does a rival beside the latched side descend from it?
    pub fn has_rival(&self) -> bool {
        self.sides.iter().any(|side| {
            !self.is_active(&side.name)
                && side.role() == Role::Primary
                && self.lineage_of(side) == Some(Lineage::Descends)
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn wall_of(at: crate::types::Moment, now: Now) -> crate::types::WallTime {
    let ago = i64::try_from(now.at.since(at).as_micros()).unwrap_or(i64::MAX);
    crate::types::WallTime(now.wall.0.saturating_sub(ago))
}
