//! Metrics of what was configured, against which the others are judged: who decides, how far a standby may be behind,
//! how many clients may wait.

use super::{Filled, Sheet, int};
use crate::view::ServiceStatus;

pub(super) fn policy(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let one = &["service"][..];
    let info = "Always 1; who decides and who promotes is in the labels.";
    let info = sheet.gauge("pgpivot_service_info", info, &["service", "kind", "authority", "promoter"])?;
    let automatic = "1 where a standby is promoted without anybody's word once the active side is proven dead.";
    let automatic = sheet.gauge("pgpivot_automatic", automatic, one)?;
    let held = sheet.gauge("pgpivot_held_connections_limit", "Clients that may wait at one time.", one)?;
    let bytes = "Servers: a standby that is further behind is not promoted.";
    let bytes = sheet.gauge("pgpivot_max_lag_bytes", bytes, one)?;
    let time = "Clusters: a standby that is further behind is not promoted.";
    let time = sheet.float("pgpivot_max_lag_seconds", time, one)?;
    for s in services {
        let name = [s.name.as_str()];
        info.with_label_values(&[name[0], &s.kind, &s.authority, &s.promoter]).set(1);
        automatic.with_label_values(&name).set(i64::from(s.automatic));
        held.with_label_values(&name).set(int(s.max_held));
        if let Some(limit) = s.max_lag_bytes {
            bytes.with_label_values(&name).set(int(limit));
        }
        if let Some(limit) = s.max_lag_ms {
            time.with_label_values(&name).set(limit as f64 / 1e3);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{LIVELY, render};
    use crate::admin::fixture;

    #[test]
    fn the_lag_of_servers_is_judged_in_bytes_and_that_of_clusters_in_seconds() {
        let (servers, clusters) = (fixture::steady(), fixture::clusters());
        let (servers, clusters) = (render(&servers, LIVELY).unwrap(), render(&clusters, LIVELY).unwrap());
        for (text, line) in [
            (&servers, "pgpivot_max_lag_bytes{service=\"main\"} 16777216\n"),
            (&servers, "pgpivot_held_connections_limit{service=\"main\"} 1000\n"),
            (&servers, "pgpivot_automatic{service=\"main\"} 1\n"),
            (&clusters, "pgpivot_max_lag_seconds{service=\"main\"} 60\n"),
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        assert!(!servers.contains("pgpivot_max_lag_seconds") && !clusters.contains("pgpivot_max_lag_bytes"));
        let info =
            "pgpivot_service_info{authority=\"self\",kind=\"postgres\",promoter=\"postgres\",service=\"main\"} 1\n";
        assert!(servers.contains(info), "{servers}");
    }
}
