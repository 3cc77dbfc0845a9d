//! The daemon's own logins at CockroachDB clusters: probes that log in, and the operator's user of self-hosted ones. Users
//! and passwords come along with the replication.

use crate::harness::clouds::{Clouds, EAST, WEST};
use crate::harness::plan::DaemonPlan;
use crate::harness::self_hosted::clusters_with;
use crate::harness::status::{find, is_active};
use crate::harness::{Daemon, SOON, eventually};
use pgpivot::sim::Side;
use pgpivot::sim::cloud::{Auth, Operation};
use pgpivot::types::Secret;
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(60);

/// The application, the probes and the operator, each with a password of its own.
fn users() -> Auth {
    let user = |name: &str| (name.to_owned(), Secret::new(format!("{name}-word")));
    Auth::Scram(["app", "pgpivot", "ops"].map(user).into())
}

fn write_password(file: &Path, password: &str) {
    std::fs::write(file, format!("{password}\n")).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The application commits a row.
async fn commit(daemon: &Daemon, id: i64) {
    eventually(&format!("row {id} is committed"), SOON, async || {
        let (host, port) = (daemon.listen.ip(), daemon.listen.port());
        let text = format!("host={host} port={port} user=app password=app-word dbname=defaultdb");
        let connecting = tokio_postgres::connect(&text, tokio_postgres::NoTls).await;
        let (client, connection) = connecting.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let sql = format!("INSERT INTO commits (id) VALUES ({id})");
        client.batch_execute(&sql).await.map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_that_log_in_with_a_password_see_a_failover_through_and_never_show_it() {
    let clouds = Clouds::with(users()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    write_password(&file, "pgpivot-word");
    let plan = clouds.plan().probe("kind", "sql").probe("user", "pgpivot");
    let daemon = plan.probe("password_file", file.to_str().unwrap()).start().await;
    commit(&daemon, 1).await;
    let before = clouds.cloud.logins(Side::East);
    eventually("probes log in", SOON, async || match clouds.cloud.logins(Side::East) {
        now if now > before => Ok(()),
        now => Err(now.to_string()),
    })
    .await;
    clouds.crash(EAST).await;
    daemon.until_active(WEST, FAILOVER).await;
    commit(&daemon, 2).await;
    assert_eq!(clouds.cloud.taken(Operation::PatchStream), 1);
    assert!(!daemon.log().contains("pgpivot-word"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_refused_moves_nothing_and_is_named_until_it_is_corrected() {
    let clouds = Clouds::with(users()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    write_password(&file, "pgpivot-word");
    let plan = clouds.plan().probe("kind", "sql").probe("user", "pgpivot");
    let daemon = plan.probe("password_file", file.to_str().unwrap()).start().await;
    write_password(&file, "a mistake");
    daemon.signal(Signal::HUP);
    let refused = |s: &pgpivot::view::ServiceStatus| {
        find(s, EAST).last_probe.as_ref().is_some_and(|probe| probe.text.contains("refuses the probe's login"))
    };
    daemon.until("the refusal is shown", SOON, refused).await;
    daemon
        .stays("east is active", Duration::from_secs(5), |s| s.open && is_active(s, EAST) && s.episode.is_none())
        .await;
    commit(&daemon, 1).await;
    assert!(!daemon.log().contains("a mistake"));

    // From the start on nobody is let in, since nothing proves who is who; and the reason is there.
    daemon.kill().await;
    daemon.launch();
    let shown = daemon.until("blocked", SOON, |s| s.blocked.is_some()).await;
    let sentence = shown.blocked.unwrap().sentence;
    assert!(!shown.open && sentence.contains("refuses the probe's login"), "{sentence}");
    write_password(&file, "pgpivot-word");
    daemon.signal(Signal::HUP);
    daemon.until("open and armed", SOON, |s| s.open && s.armed).await;
    assert_eq!(clouds.cloud.requests(Operation::PatchStream), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn self_hosted_clusters_are_failed_over_by_a_user_with_a_password() {
    let cloud = clusters_with(users()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ops");
    write_password(&file, "ops-word");
    let daemon = DaemonPlan::self_hosted(&cloud).replication("password_file", file.to_str().unwrap()).launch();
    daemon.until("open and armed", SOON, |s| s.open && s.armed).await;
    commit(&daemon, 1).await;

    write_password(&file, "a mistake");
    daemon.ctl_done(&["reload"]).await;
    let shown = daemon.until("not armed", SOON, |s| !s.armed && s.open).await;
    let why = format!("{:?}", find(&shown, WEST).unarmed_why);
    eventually("the reason is the refused password", SOON, async || {
        let service = daemon.service().await;
        let all = format!("{:?} {:?}", service.replication, service.backends);
        if all.contains("28P01") { Ok(()) } else { Err(format!("{why}: {all}")) }
    })
    .await;
    daemon.stays("east is active", Duration::from_secs(3), |s| s.open && is_active(s, EAST)).await;

    write_password(&file, "ops-word");
    daemon.ctl_done(&["reload"]).await;
    daemon.until("armed again", SOON, |s| s.open && s.armed).await;
    cloud.crash(Side::East).await.unwrap();
    daemon.until_active(WEST, FAILOVER).await;
    commit(&daemon, 2).await;
    let log = daemon.log();
    assert!(!log.contains("ops-word") && !log.contains("a mistake"));
}
