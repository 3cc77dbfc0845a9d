//! Two services of one daemon in front of the same servers, which they call by other names.

use crate::harness::status::is_active;
use crate::harness::{Daemon, Pair, SOON, eventually};
use pgpivot::view::ServiceStatus;
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn of_two_services_on_the_same_servers_the_first_one_decides_and_the_other_follows() {
    let pair = Pair::start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).beside("reports", &[("one", &pair.east), ("two", &pair.west)]);
    let daemon = plan.launch();
    daemon.until_active("east", SOON).await;
    daemon.until("it sees the other one", SOON, |s| !s.other_daemons.is_empty()).await;
    let sees = |s: &ServiceStatus| s.open && s.blocked.is_some() && !s.other_daemons.is_empty();
    let shown = reports(&daemon, "it sees the other one", sees).await;
    let block = shown.blocked.unwrap();
    assert_eq!(block.reason, "second decider");
    assert!(block.sentence.contains("service main of this daemon decides on the same servers"), "{}", block.sentence);
    let status = daemon.ctl_done(&["status"]).await;
    assert!(status.out.contains("service main of this daemon"), "{}", status.out);
    assert!(status.out.contains("service reports of this daemon"), "{}", status.out);
    let (_, page) = daemon.fetch("/stats").await.unwrap();
    assert!(page.contains("service main of this daemon"), "the page does not name it");
    for command in [&["switchover"][..], &["failover", "--force"]] {
        let refused = daemon.ctl(&[command, &["--service", "reports", "--yes"]].concat()).await;
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        assert!(format!("{}{}", refused.out, refused.talk).contains("service main"), "{refused:#?}");
    }

    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    let after = reports(&daemon, "it followed", |s| s.open && is_active(s, "two")).await;
    assert_eq!(after.budget_left, after.budget, "following uses no budget");
    assert_eq!(pair.west.ask("SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)").await, "00000002");
}

async fn reports(daemon: &Daemon, what: &str, is_so: impl Fn(&ServiceStatus) -> bool) -> ServiceStatus {
    eventually(&format!("reports shows: {what}"), FAILOVER, async || {
        let status = daemon.try_status().await?;
        match status.services.into_iter().find(|service| service.name.as_str() == "reports") {
            Some(service) if is_so(&service) => Ok(service),
            other => Err(format!("{other:#?}\n{}", daemon.log_tail())),
        }
    })
    .await
}
