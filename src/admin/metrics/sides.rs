//! What each side says of itself and how far behind it is.

use super::{Filled, Sheet, backends, int};
use crate::failover::phase::{BackendState, Grade};
use crate::view::ServiceStatus;

pub(super) fn sides(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let two = &["service", "backend"][..];
    let active = sheet.gauge("pgpivot_active", "1 for the side that the latch names.", two)?;
    let role = "1 for what the side says of itself.";
    let role = sheet.gauge("pgpivot_backend_role", role, &["service", "backend", "role"])?;
    let health = "1 for the side's health.";
    let health = sheet.gauge("pgpivot_backend_health", health, &["service", "backend", "health"])?;
    let quarantined = "1 while the side gets not one byte.";
    let quarantined = sheet.gauge("pgpivot_backend_quarantined", quarantined, two)?;
    let admin = "1 for the administrative state that operators gave it.";
    let admin = sheet.gauge("pgpivot_backend_admin_state", admin, &["service", "backend", "state"])?;
    let fence = "1 for what keeps writes from a side that was left and has not come back.";
    let fence = sheet.gauge("pgpivot_fence", fence, &["service", "backend", "grade"])?;
    let weight = sheet.gauge("pgpivot_backend_weight", "Share within its tier.", two)?;
    let timeline = sheet.gauge("pgpivot_backend_timeline", "Timeline.", two)?;
    let lsn = "Position in the log: primary flushed, standby received.";
    let lsn = sheet.gauge("pgpivot_backend_lsn_bytes", lsn, two)?;
    let lag = "Standby: bytes behind the primary's last seen flush position.";
    let lag = sheet.gauge("pgpivot_backend_lag_bytes", lag, two)?;
    let replay = "Standby: received but not yet replayed.";
    let replay = sheet.gauge("pgpivot_backend_replay_backlog_bytes", replay, two)?;
    let takes = "Standby: how long that would take at the pace of late.";
    let takes = sheet.float("pgpivot_backend_replay_backlog_seconds", takes, two)?;
    let age = "Standby: every commit acknowledged so long ago is shown to its readers.";
    let age = sheet.float("pgpivot_backend_read_age_seconds", age, two)?;
    let witness = "1 for what the standby testifies of the primary.";
    let witness = sheet.gauge("pgpivot_witness", witness, &["service", "backend", "witness"])?;
    let armed = sheet.gauge("pgpivot_backend_armed", "1 while this standby could be promoted right now.", two)?;
    for (labels, b) in backends(services) {
        let worded = |word| [labels[0], labels[1], word];
        active.with_label_values(&labels).set(i64::from(b.active));
        role.with_label_values(&worded(&b.role)).set(1);
        health.with_label_values(&worded(&b.health)).set(1);
        quarantined.with_label_values(&labels).set(i64::from(b.quarantined.is_some()));
        for state in BackendState::ALL.map(BackendState::as_str) {
            admin.with_label_values(&worded(state)).set(i64::from(b.admin_state() == state));
        }
        for grade in b.fence.iter().flat_map(|_| Grade::ALL) {
            let reached = b.fence.as_deref() == Some(grade.as_str());
            fence.with_label_values(&worded(grade.as_str())).set(i64::from(reached));
        }
        weight.with_label_values(&labels).set(i64::from(b.weight));
        armed.with_label_values(&labels).set(i64::from(b.armed));
        if let Some(word) = &b.witness {
            witness.with_label_values(&worded(word)).set(1);
        }
        let known = [
            (&timeline, b.timeline.map(|t| u64::from(t.0))),
            (&lsn, b.lsn.map(|l| l.0)),
            (&lag, b.lag_bytes),
            (&replay, b.replay_backlog_bytes),
        ];
        if let Some(ms) = b.replay_backlog_ms {
            takes.with_label_values(&labels).set(ms as f64 / 1e3);
        }
        if let Some(ms) = b.read_age_ms {
            age.with_label_values(&labels).set(ms as f64 / 1e3);
        }
        for (family, value) in known {
            if let Some(value) = value {
                family.with_label_values(&labels).set(int(value));
            }
        }
    }
    Ok(())
}
