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

#[cfg(test)]
mod tests {
    use super::super::{LIVELY, render};
    use crate::admin::fixture;

    #[test]
    fn a_stream_is_its_status_its_lag_and_its_time_and_what_has_ended_has_no_lag() {
        let mut status = fixture::clusters_first_scan();
        let known = status.services[0].replication.as_mut().unwrap();
        (known.trouble, known.streams[1].lag_ms) = (None, Some(2_500));
        known.streams[1].replicated_at = Some(crate::types::WallTime(1_785_841_733_500_000));
        let text = render(&status, LIVELY).unwrap();
        let ids = [0, 1].map(|n| status.services[0].replication.as_ref().unwrap().streams[n].id.clone());
        let line = |name: &str, from: &str, to: &str, status: &str, value: &str| {
            let stream = &ids[usize::from(from == "us-west")];
            format!("{name}{{from=\"{from}\",service=\"main\",{status}stream=\"{stream}\",to=\"{to}\"}} {value}\n")
        };
        for line in [
            line("pgpivot_replication_stream", "us-west", "us-east", "status=\"replicating\",", "1"),
            line("pgpivot_replication_stream", "us-east", "us-west", "status=\"completed\",", "1"),
            line("pgpivot_replication_lag_seconds", "us-west", "us-east", "", "2.5"),
            line("pgpivot_replication_replicated_time_seconds", "us-west", "us-east", "", "1785841733.5"),
            "pgpivot_replication_readable{service=\"main\"} 1\n".to_owned(),
        ] {
            assert!(text.contains(&line), "no {line} in {text}");
        }
        assert_eq!(text.matches("pgpivot_replication_lag_seconds{").count(), 1, "{text}");
    }

    #[test]
    fn streams_that_cannot_be_read_are_told_and_servers_have_none() {
        let unread = render(&fixture::clusters_first_scan(), LIVELY).unwrap();
        assert!(unread.contains("pgpivot_replication_readable{service=\"main\"} 0\n"), "{unread}");
        let mut never = fixture::clusters();
        never.services[0].replication.as_mut().unwrap().read_at = None;
        assert!(render(&never, LIVELY).unwrap().contains("pgpivot_replication_readable{service=\"main\"} 0\n"));
        assert!(!render(&fixture::steady(), LIVELY).unwrap().contains("pgpivot_replication_"));
    }
}
