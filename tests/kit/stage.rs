//! Served views: every sample, and those no sample shows.

use std::time::Duration;

use pgpivot::types::Epoch;
use pgpivot::view::{Status, SwitchCount};

use super::served::{Served, sample};

/// A server for each state that a daemon can be in.
pub(crate) fn all() -> Vec<Served> {
    let names = [
        "steady",
        "suspect",
        "promoting",
        "blocked",
        "quarantined",
        "exhausted",
        "clusters",
        "clusters_first_scan",
        "clusters_failing_over",
    ];
    let mut all: Vec<Served> = names.iter().map(|name| Served::start(name)).collect();
    let two = Served::start("steady");
    let mut status = sample("steady");
    let mut other = status.services[0].clone();
    other.name = "billing".into();
    status.services.push(other);
    two.publish(status);
    all.extend([two, troubled(), clusters_behind()]);
    all
}

/// All that can be wrong at one time besides what the samples show.
pub(crate) fn troubled() -> Served {
    let served = Served::start("steady");
    let mut status = sample("steady");
    status.state_error = Some("no space left on device".into());
    let service = &mut status.services[0];
    service.state = "unknown".into();
    service.blocked = sample("blocked").services[0].blocked.clone();
    if let Some(blocked) = &mut service.blocked {
        blocked.reason = "promotion pending".into();
    }
    service.paused = Some("paused by local".into());
    service.armed = false;
    service.other_daemons = vec!["s-host:1".into()];
    service.held = 5;
    for listener in &mut service.listeners {
        listener.connections = listener.limit;
    }
    for side in &mut service.backends {
        side.lag_bytes = service.max_lag_bytes.map(|limit| limit + 1);
        side.connect_durations.add(Duration::from_millis(3));
        side.probe_durations.add(Duration::from_millis(3));
        side.replay_backlog_bytes = Some(1);
        for endpoint in &mut side.endpoints {
            endpoint.counters.cut = vec![("demoted".into(), 1)];
        }
    }
    service.switches.push(SwitchCount {
        trigger: "automatic".into(),
        kind: "failover".into(),
        outcome: "switched".into(),
        count: 1,
    });
    served.publish(status);
    served
}

/// Clusters whose stream lags.
pub(crate) fn clusters_behind() -> Served {
    let served = Served::start("clusters");
    let mut status = sample("clusters");
    let service = &mut status.services[0];
    let limit = service.max_lag_ms.unwrap();
    service.replication.as_mut().unwrap().streams[0].lag_ms = Some(limit + 1000);
    served.publish(status);
    served
}

/// What happens while somebody looks: a failover, bytes beside it, a task that ends.
pub(crate) fn happens(status: &mut Status) {
    status.task_failures += 1;
    let service = &mut status.services[0];
    service.epoch = Epoch(service.epoch.0 + 1);
    service.beside.log_bytes += 4096;
    for switch in &mut service.switches {
        switch.count += 1;
    }
}
