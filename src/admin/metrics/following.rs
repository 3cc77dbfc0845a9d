//! How standbys stand to the active side, and what could be lost.

use super::{Filled, Sheet, backends, int};
use crate::view::{Following, ServiceStatus};

pub(super) fn fill(sheet: &Sheet, services: &[ServiceStatus]) -> Filled {
    let labels = &["service", "backend", "state"];
    let following = "1 for how the standby stands to the active side.";
    let following = sheet.gauge("pgpivot_backend_following", following, labels)?;
    for (labels, b) in backends(services) {
        for state in b.following.iter().flat_map(|_| Following::STATES) {
            let is = b.following.as_ref().is_some_and(|f| f.state == state);
            following.with_label_values(&[labels[0], labels[1], state]).set(i64::from(is));
        }
    }
    let one = &["service"][..];
    let synchronous = "1 while commits on the active side wait for standbys.";
    let synchronous = sheet.gauge("pgpivot_synchronous", synchronous, one)?;
    let waiting = "1 while commits wait for standbys that are not there.";
    let waiting = sheet.gauge("pgpivot_commits_waiting", waiting, one)?;
    let at_risk = "1 while an acknowledged commit could be lost with the active side.";
    let at_risk = sheet.gauge("pgpivot_commits_at_risk", at_risk, one)?;
    let loss = "What the best candidate lacked of the log when it was last seen; 0 where no commit can be lost.";
    let loss = sheet.gauge("pgpivot_possible_loss_bytes", loss, one)?;
    for (s, d) in services.iter().filter_map(|s| Some((s, s.durability.as_ref()?))) {
        let name = [s.name.as_str()];
        synchronous.with_label_values(&name).set(i64::from(d.synchronous));
        waiting.with_label_values(&name).set(i64::from(d.waiting));
        at_risk.with_label_values(&name).set(i64::from(d.at_risk));
        if let Some(bytes) = d.loss_bytes {
            loss.with_label_values(&name).set(int(bytes));
        }
    }
    Ok(())
}
