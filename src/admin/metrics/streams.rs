//! Metrics of the replication streams between clusters.

use super::{Filled, Sheet, seconds};
use crate::view::ServiceStatus;

pub(super) fn streams(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let way = &["service", "stream", "from", "to"][..];
    let readable = "1 while the replication streams can be read: what they testify is unknown otherwise.";
    let readable = sheet.gauge("pgpivot_replication_readable", readable, &["service"])?;
    let status = "1 for the status of a replication stream.";
    let status = sheet.gauge("pgpivot_replication_stream", status, &["service", "stream", "from", "to", "status"])?;
    let lag = "How far the standby cluster is behind, by the clock of who knows the stream.";
    let lag = sheet.float("pgpivot_replication_lag_seconds", lag, way)?;
    let replicated = "Up to when the standby cluster has everything, seconds since 1970.";
    let replicated = sheet.float("pgpivot_replication_replicated_time_seconds", replicated, way)?;
    for service in services {
        let Some(known) = &service.replication else { continue };
        let name = service.name.as_str();
        readable.with_label_values(&[name]).set(i64::from(known.trouble.is_none() && known.read_at.is_some()));
        for stream in &known.streams {
            let labels = [name, stream.id.as_str(), stream.from.as_str(), stream.to.as_str()];
            status.with_label_values(&[labels[0], labels[1], labels[2], labels[3], &stream.status]).set(1);
            if let Some(ms) = stream.lag_ms {
                lag.with_label_values(&labels).set(ms as f64 / 1e3);
            }
            if let Some(at) = stream.replicated_at {
                replicated.with_label_values(&labels).set(seconds(at));
            }
        }
    }
    Ok(())
}
