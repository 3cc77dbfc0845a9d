//! Statuses that the tests of this room render and serve.

use crate::types::{BackendName, Epoch, Timeline, WallTime};
use crate::view::{
    BackendStatus, Blocked, Counters, EndpointStatus, Episode, Level, ListenerStatus, ProbeStatus, ServiceStatus,
    Status,
};

/// 2026-11-20 11:03:00 UTC.
pub(super) const AT: WallTime = WallTime(1_795_172_580_000_000);

fn before(seconds: i64) -> WallTime {
    WallTime(AT.0 - seconds * 1_000_000)
}

/// All well: us-east active, us-west armed.
pub(super) fn steady() -> Status {
    Status {
        version: "0.1.0".into(),
        daemon: "host:4711".into(),
        generation: 9,
        at: AT,
        started: before(7380),
        state_error: None,
        task_failures: 0,
        services: vec![service()],
    }
}

/// The standby still receives, so nothing is decided.
pub(super) fn blocked() -> Status {
    let mut status = steady();
    let s = &mut status.services[0];
    s.phase = "blocked".into();
    s.level = Level::Bad;
    s.blocked = Some(Blocked {
        reason: "witness alive".into(),
        sentence: "us-west still receives from us-east: it lives, we cannot see it; look at the network between us"
            .into(),
        since: before(12),
    });
    s.held = 7;
    s.open = false;
    s.closed_why = Some("us-east does not answer".into());
    s.backends[0].health = "down".into();
    s.backends[1].armed = false;
    s.backends[1].unarmed_why = vec![
        "the login may not execute pg_promote; type on us-west: GRANT EXECUTE ON FUNCTION pg_promote TO pgpivot".into(),
    ];
    s.armed = false;
    status
}

/// An episode under way.
pub(super) fn promoting() -> Status {
    let mut status = steady();
    let s = &mut status.services[0];
    s.phase = "promoting".into();
    s.level = Level::Warn;
    s.open = false;
    s.episode = Some(Episode {
        id: 5,
        kind: "failover".into(),
        from: Some(BackendName::new("us-east")),
        to: BackendName::new("us-west"),
        stage: "sent".into(),
        why: "3 probes in a row were refused and us-west has lost its stream".into(),
        decided_at: before(1),
        operator: None,
    });
    status
}

/// After [`promoting`].
pub(super) fn switched() -> Status {
    let mut status = steady();
    let s = &mut status.services[0];
    s.active = Some(BackendName::new("us-west"));
    s.epoch = Epoch(4);
    s.since = Some(before(0));
    s.why = "failover: us-east died".into();
    s.episodes = 5;
    s.backends[0].active = false;
    s.backends[1].active = true;
    status
}

fn service() -> ServiceStatus {
    ServiceStatus {
        name: "main".into(),
        kind: "postgres".into(),
        phase: "steady".into(),
        state: "healthy".into(),
        level: Level::Ok,
        active: Some("us-east".into()),
        epoch: Epoch(3),
        since: Some(before(7380)),
        why: "first start, us-east proved to be the only primary".into(),
        evidence: "us-east answers as primary, us-west streams 0 bytes behind".into(),
        next: "nothing; should us-east die, us-west is promoted".into(),
        blocked: None,
        paused: None,
        open: true,
        closed_why: None,
        held: 0,
        budget_left: 3,
        budget: 3,
        cooldown_until: None,
        automatic: true,
        max_lag_bytes: Some(16 << 20),
        max_lag_ms: None,
        max_held: 1000,
        authority: "self".into(),
        promoter: "postgres".into(),
        armed: true,
        other_daemons: Vec::new(),
        episode: None,
        episodes: 4,
        switches: Vec::new(),
        beside: crate::view::Beside::default(),
        detection_crash_ms: 500,
        detection_hang_ms: Some(3000),
        backends: vec![backend("us-east", true), backend("us-west", false)],
        fall: 3,
        decides_at: None,
        replication: None,
        patroni: None,
        rejoin: None,
        durability: None,
        listeners: vec![ListenerStatus {
            address: "127.0.0.1:26257".parse().unwrap(),
            target: "active".into(),
            connections: 12,
            limit: 10_000,
            tls: None,
            refused: vec![("max_connections".into(), 0), ("connection_rate_per_address".into(), 2)],
            counters: Counters {
                sessions: 4_211,
                bytes_in: 3 << 20,
                bytes_out: 9 << 30,
                errors: 2,
                ..Counters::default()
            },
        }],
    }
}

fn backend(name: &str, active: bool) -> BackendStatus {
    BackendStatus {
        name: name.into(),
        active,
        role: if active { "primary" } else { "standby" }.into(),
        health: "up".into(),
        health_since: Some(before(7380)),
        quarantined: None,
        admin: None,
        fence: None,
        note: None,
        weight: if active { 100 } else { 10 },
        tier: if active { "active" } else { "backup" }.into(),
        system_id: None,
        timeline: Some(Timeline(1)),
        lsn: None,
        lag_bytes: (!active).then_some(1536),
        replay_backlog_bytes: None,
        replay_backlog_ms: None,
        read_age_ms: None,
        no_readers_why: None,
        witness: (!active).then(|| "streaming".into()),
        armed: !active,
        unarmed_why: Vec::new(),
        following: None,
        failures: 0,
        failed_probes: 0,
        probes: 3690,
        recoveries: 0,
        last_probe: Some(ProbeStatus { at: before(1), took_us: 900, text: "primary".into() }),
        probe_durations: crate::view::Durations::default(),
        connect_durations: crate::view::Durations::default(),
        connections: if active { 12 } else { 0 },
        endpoints: vec![EndpointStatus {
            address: Some(format!("{name}.example.com:5432").parse().unwrap()),
            ip: "192.0.2.1:5432".parse().unwrap(),
            health: "up".into(),
            admin: None,
            connections: 0,
            counters: Counters::default(),
        }],
        addresses: vec![format!("{name}.example.com:5432").parse().unwrap()],
        cluster_id: None,
        configured_role: Some(if active { "primary" } else { "standby" }.into()),
        sslmode: Some("prefer".into()),
        sslrootcert: None,
    }
}
