//! What a run is set in: how many servers and daemons, and a configuration that the validator would take.

use std::time::Duration;

use pgpivot::config::{
    Authority, Backend, ConfiguredRole, Connection, Failover, ForeignPromotion, HttpProbe, Kind, Login, Probe,
    ProbeKind, Promoter, ReadOnly, Service, Survivors, SyncRule, Tls, TlsMode, WitnessRule,
};

use crate::chance::Chance;

pub const NAMES: [&str; 3] = ["east", "west", "north"];

/// What goes wrong most in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Everything alike.
    Mixed,
    /// Servers die for a while, and the dead are rebuilt.
    Deaths,
    /// Servers hang and wires are cut.
    Silence,
    /// The daemon is killed, sleeps, and its disk fails.
    Daemon,
    /// Promotions that do not come, locks that are taken.
    Stubborn,
    /// People promote, rebuild and demote by hand.
    People,
    /// Commands, sensible or not.
    Commands,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub theme: Theme,
    /// One per daemon.
    pub services: Vec<Service>,
    pub backends: usize,
    /// A backend has this many addresses.
    pub addresses: usize,
    /// `wal_receiver_timeout` of all standbys, milliseconds.
    pub w: u64,
    /// How long faults go on, virtual milliseconds.
    pub length: u64,
    /// Mean pause between faults, milliseconds.
    pub pace: u64,
    /// How often an operator says something, beside faults.
    pub commands: u64,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn login() -> Login {
    Login { user: "pgpivot".into(), database: "postgres".into(), password: None }
}

impl Scenario {
    pub fn random(chance: &mut Chance) -> Self {
        let backends = chance.weighed(&[(5, 2), (3, 3)]);
        let mut first = service(backends);
        vary(&mut first, chance);
        let mut services = vec![first];
        let sql = matches!(services[0].probe.kind, ProbeKind::Sql { .. });
        if sql && chance.one_in(3) {
            services.push(beside(&services[0], chance));
        }
        let themes = [
            (3, Theme::Mixed),
            (4, Theme::Deaths),
            (2, Theme::Silence),
            (3, Theme::Daemon),
            (2, Theme::Stubborn),
            (2, Theme::People),
            (2, Theme::Commands),
        ];
        Self {
            theme: chance.weighed(&themes),
            services,
            backends,
            addresses: if chance.one_in(6) { 2 } else { 1 },
            w: chance.weighed(&[(6, 3000), (2, 10_000), (1, 60_000), (1, 0)]),
            length: chance.between(60_000, 240_000),
            pace: chance.weighed(&[(2, 1500), (3, 4000), (2, 10_000)]),
            commands: chance.weighed(&[(2, 1), (3, 4), (2, 12)]),
        }
    }
}

/// What a second daemon is configured as.
fn beside(first: &Service, chance: &mut Chance) -> Service {
    let mut service = first.clone();
    if chance.one_in(3) && !service.failover.standby_serves {
        service.failover.authority = Authority::Observe;
        service.failover.promoter = Promoter::None;
    } else if chance.one_in(4) {
        service.failover.automatic = !service.failover.automatic;
    }
    service
}

/// Every setting that the laws speak of, within what the validator allows.
fn vary(service: &mut Service, chance: &mut Chance) {
    let kind = chance.weighed(&[(12, 0), (2, 1), (2, 2)]);
    let (probe, failover) = (&mut service.probe, &mut service.failover);
    probe.interval = ms(chance.pick(&[1000, 2000, 2000, 5000]));
    probe.fast_interval = ms(chance.pick(&[300, 500, 500]));
    probe.down_interval = probe.interval;
    probe.fall = chance.weighed(&[(1, 2), (4, 3), (1, 5)]);
    probe.rise = chance.weighed(&[(1, 1), (4, 2), (1, 3)]);
    probe.hang_trigger = ms(chance.pick(&[500, 2000]));
    probe.passive = !chance.one_in(6);
    failover.automatic = !chance.one_in(8);
    failover.delay = ms(chance.weighed(&[(5, 0), (1, 2000)]));
    failover.cooldown = ms(chance.weighed(&[(4, 0), (4, 5000), (1, 60_000)]));
    failover.max_per_day = chance.weighed(&[(1, 1), (2, 3), (6, 100)]);
    failover.max_lag = chance.weighed(&[(1, 0), (2, 5000), (3, 16 << 20)]);
    failover.max_disconnect = ms(chance.weighed(&[(1, 2000), (3, 10_000)]));
    failover.drain_timeout = ms(chance.weighed(&[(1, 0), (1, 1000), (2, 5000)]));
    failover.promote_timeout = ms(chance.weighed(&[(1, 3000), (2, 20_000)]));
    failover.recovery_patience = ms(chance.weighed(&[(1, 3000), (2, 30_000)]));
    failover.restart_grace = ms(chance.weighed(&[(1, 2000), (2, 10_000)]));
    failover.hung_grace = ms(chance.weighed(&[(1, 2000), (2, 10_000)]));
    failover.sync_after_failover = chance.pick(&[SyncRule::Report, SyncRule::Clear, SyncRule::Adapt]);
    failover.survivors = if service.backends.len() > 2 { Survivors::Repoint } else { Survivors::Report };
    failover.foreign_promotion =
        chance.weighed(&[(3, None), (1, Some(ForeignPromotion::Follow)), (1, Some(ForeignPromotion::Block))]);
    if chance.one_in(4) {
        failover.fence_command = Some(vec!["fence".into(), "{backend}".into()]);
        failover.fence_required = chance.one_in(2);
    }
    match kind {
        0 => sql(service, chance),
        1 => http(service, chance),
        _ => tcp(service, chance),
    }
    if !service.failover.standby_serves && chance.one_in(5) && matches!(service.probe.kind, ProbeKind::Sql { .. }) {
        for backend in &mut service.backends {
            backend.role = None;
        }
    }
    for backend in &mut service.backends {
        backend.weight = u32::try_from(chance.between(1, 100)).unwrap();
        backend.priority = u32::try_from(chance.between(1, 3)).unwrap();
    }
}

fn sql(service: &mut Service, chance: &mut Chance) {
    service.probe.kind = ProbeKind::Sql { login: login() };
    let failover = &mut service.failover;
    failover.witness = chance.weighed(&[(3, WitnessRule::Required), (1, WitnessRule::Optional)]);
    match chance.below(10) {
        0 => {
            failover.authority = Authority::Observe;
            failover.promoter = Promoter::None;
        }
        1 => failover.promoter = Promoter::None,
        2 | 3 => failover.promoter = Promoter::Command(vec!["promote".into()]),
        _ => failover.promoter = Promoter::Postgres { login: login() },
    }
    let promotes = failover.promoter != Promoter::None;
    // Not drawn: what was drawn before it stays what it was.
    failover.soft_fence = promotes && failover.authority == Authority::SelfDecides && failover.max_per_day != 3;
}

fn http(service: &mut Service, chance: &mut Chance) {
    let path = chance.pick(&["/primary", "/health?ready=1"]);
    service.probe.kind = ProbeKind::Http(HttpProbe {
        path: path.into(),
        port: Some(8008),
        tls: false,
        expect_status: vec![200],
        expect_body: None,
        primary_only: path == "/primary",
    });
    let failover = &mut service.failover;
    failover.promoter = Promoter::None;
    if path != "/primary" && chance.one_in(3) {
        failover.promoter = Promoter::Command(vec!["promote".into()]);
        failover.witness = WitnessRule::Optional;
    } else if path != "/primary" {
        serving(service, chance);
    } else if chance.one_in(3) {
        failover.authority = Authority::Observe;
    }
}

fn tcp(service: &mut Service, chance: &mut Chance) {
    service.probe.kind = if chance.one_in(2) { ProbeKind::Tcp } else { ProbeKind::Startup { login: login() } };
    service.failover.promoter = Promoter::None;
    if chance.one_in(3) {
        service.failover.promoter = Promoter::Command(vec!["promote".into()]);
        service.failover.witness = WitnessRule::Optional;
    } else {
        serving(service, chance);
    }
}

/// Sides that always serve.
fn serving(service: &mut Service, chance: &mut Chance) {
    service.failover.standby_serves = true;
    service.failover.promoter = Promoter::None;
    if chance.one_in(2) && service.backends.len() > 2 {
        service.backends[1].role = Some(ConfiguredRole::Primary);
    }
}

/// A service with every default.
pub fn service(backends: usize) -> Service {
    let backend = |i: usize| Backend {
        name: NAMES[i].into(),
        addresses: vec![format!("{}.example:5432", NAMES[i]).parse().unwrap()],
        role: Some(if i == 0 { ConfiguredRole::Primary } else { ConfiguredRole::Standby }),
        weight: 100,
        priority: 100,
        promote: true,
        replication_address: None,
        tls: Tls { mode: TlsMode::Disable, ca_file: None, server_name: None },
        cluster_id: None,
        member: None,
    };
    Service {
        name: "main".into(),
        kind: Kind::Postgres,
        workers: 1,
        listeners: Vec::new(),
        backends: (0..backends).map(backend).collect(),
        probe: Probe {
            kind: ProbeKind::Sql { login: login() },
            interval: ms(2000),
            fast_interval: ms(500),
            down_interval: ms(2000),
            timeout: ms(1000),
            fall: 3,
            rise: 2,
            jitter_percent: 10,
            hang_trigger: ms(2000),
            passive: true,
        },
        failover: policy(),
        replication: None,
        read_only: ReadOnly { max_lag: Some(ms(10_000)) },
        patroni: None,
        connection: Connection {
            connect_timeout: ms(3000),
            first_packet_timeout: ms(10_000),
            keepalive: ms(30_000),
            user_timeout: ms(30_000),
        },
    }
}

fn policy() -> Failover {
    Failover {
        automatic: true,
        delay: Duration::ZERO,
        cooldown: ms(60_000),
        max_per_day: 3,
        max_lag: 16 << 20,
        max_replication_lag: ms(120_000),
        max_disconnect: ms(10_000),
        witness: WitnessRule::Required,
        hold_timeout: ms(30_000),
        max_held: 1000,
        max_held_per_address: 200,
        release_rate: 1000,
        drain_timeout: ms(5000),
        promoter: Promoter::Postgres { login: login() },
        promote_timeout: ms(60_000),
        authority: Authority::SelfDecides,
        fence_command: None,
        fence_required: false,
        soft_fence: false,
        rejoin_command: None,
        rejoin_timeout: ms(1_800_000),
        standby_serves: false,
        foreign_promotion: None,
        sync_after_failover: SyncRule::Report,
        survivors: Survivors::Report,
        follow_command: None,
        recovery_patience: ms(30_000),
        restart_grace: ms(10_000),
        hung_grace: ms(10_000),
        verify_wait: ms(2000),
    }
}
