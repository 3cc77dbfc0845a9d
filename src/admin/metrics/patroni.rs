//! Metrics of what Patroni says.

use super::{Filled, Sheet};
use crate::view::ServiceStatus;

pub(super) fn patroni(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let whose = &["service", "member"][..];
    let up = "1 while a member of Patroni's answers; 0 moves nothing.";
    let up = sheet.gauge("pgpivot_patroni_up", up, &["service"])?;
    let paused = "1 while Patroni is paused: it promotes nobody by itself.";
    let paused = sheet.gauge("pgpivot_patroni_paused", paused, &["service"])?;
    let leader = "1 for the member that holds Patroni's leader key.";
    let leader = sheet.gauge("pgpivot_patroni_leader", leader, whose)?;
    let lag = "Bytes that a member is behind the leader, by Patroni's word.";
    let lag = sheet.gauge("pgpivot_patroni_lag_bytes", lag, whose)?;
    for service in services {
        let Some(known) = &service.patroni else { continue };
        let name = service.name.as_str();
        up.with_label_values(&[name]).set(i64::from(known.trouble.is_none() && known.read_at.is_some()));
        paused.with_label_values(&[name]).set(i64::from(known.paused));
        for member in &known.members {
            let labels = [name, member.name.as_str()];
            leader.with_label_values(&labels).set(i64::from(known.leader.as_ref() == Some(&member.name)));
            if let Some(bytes) = member.lag_bytes {
                lag.with_label_values(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Pulse, render};
    use crate::admin::fixture;
    use crate::types::WallTime;

    const LIVELY: Pulse = Pulse { live: true, ready: true };

    #[test]
    fn an_alarm_can_ask_who_leads_and_whether_anybody_answers() {
        let mut status = fixture::steady();
        assert!(!render(&status, LIVELY).unwrap().contains("pgpivot_patroni_"));
        status.services[0].patroni = Some(fixture::patroni());
        let text = render(&status, LIVELY).unwrap();
        for line in [
            "pgpivot_patroni_up{service=\"main\"} 1\n",
            "pgpivot_patroni_paused{service=\"main\"} 1\n",
            "pgpivot_patroni_leader{member=\"db1\",service=\"main\"} 1\n",
            "pgpivot_patroni_leader{member=\"db2\",service=\"main\"} 0\n",
            "pgpivot_patroni_lag_bytes{member=\"db2\",service=\"main\"} 2048\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        status.services[0].patroni.as_mut().unwrap().trouble = Some((WallTime(0), "db1:8008 is silent".into()));
        assert!(render(&status, LIVELY).unwrap().contains("pgpivot_patroni_up{service=\"main\"} 0\n"));
    }
}
