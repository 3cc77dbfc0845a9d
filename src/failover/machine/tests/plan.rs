//! The configuration of the stage's service.

use std::time::Duration;

use super::stage::NAMES;
use crate::config::{self, Authority, Promoter, Service, WitnessRule};

pub(crate) fn service(backends: usize) -> Service {
    let backend = |i: usize| config::Backend {
        name: NAMES[i].into(),
        addresses: vec![format!("{}.example:5432", NAMES[i]).parse().unwrap()],
        role: Some(if i == 0 { config::ConfiguredRole::Primary } else { config::ConfiguredRole::Standby }),
        weight: 100,
        priority: 100,
        promote: true,
        replication_address: None,
        tls: config::Tls { mode: config::TlsMode::Disable, ca_file: None, server_name: None },
        cluster_id: None,
        member: None,
    };
    let login = config::Login { user: "pgpivot".into(), database: "postgres".into(), password: None };
    let seconds = Duration::from_secs;
    Service {
        name: "main".into(),
        kind: config::Kind::Postgres,
        workers: 1,
        listeners: Vec::new(),
        backends: (0..backends).map(backend).collect(),
        probe: config::Probe {
            kind: config::ProbeKind::Sql { login: login.clone() },
            interval: seconds(2),
            fast_interval: Duration::from_millis(500),
            down_interval: seconds(2),
            timeout: seconds(1),
            fall: 3,
            rise: 2,
            jitter_percent: 0,
            hang_trigger: seconds(2),
            passive: true,
        },
        failover: config::Failover {
            automatic: true,
            delay: Duration::ZERO,
            cooldown: seconds(60),
            max_per_day: 3,
            max_lag: 16 << 20,
            max_replication_lag: seconds(120),
            max_disconnect: seconds(10),
            witness: WitnessRule::Required,
            hold_timeout: seconds(30),
            max_held: 1000,
            max_held_per_address: 200,
            release_rate: 1000,
            drain_timeout: seconds(5),
            promoter: Promoter::Postgres { login },
            promote_timeout: seconds(60),
            authority: Authority::SelfDecides,
            fence_command: None,
            fence_required: false,
            soft_fence: false,
            rejoin_command: None,
            rejoin_timeout: seconds(1800),
            standby_serves: false,
            foreign_promotion: None,
            sync_after_failover: config::SyncRule::Report,
            survivors: config::Survivors::Report,
            follow_command: None,
            recovery_patience: seconds(30),
            restart_grace: seconds(10),
            hung_grace: seconds(10),
            verify_wait: seconds(2),
        },
        replication: None,
        read_only: config::ReadOnly { max_lag: Some(seconds(10)) },
        patroni: None,
        connection: config::Connection {
            connect_timeout: seconds(3),
            first_packet_timeout: seconds(10),
            keepalive: seconds(30),
            user_timeout: seconds(30),
        },
    }
}
