//! The proxy itself is killed, told to read its file again, told to stop: what it must still know and whom it must not
//! disturb.

use crate::harness::status::{find, is_active, traffic};
use crate::harness::{Checker, Cluster, Daemon, Pair, SOON, Writers, eventually};
use pgpivot::view::ServiceStatus;
use rustix::process::Signal;
use std::time::Duration;
use toml::{Table, Value};

/// A wrong decision would come within this.
const WATCH: Duration = Duration::from_secs(5);

const FAILOVER: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_remembers_the_failover_although_the_old_primary_is_back() {
    let pair = Pair::plan().synchronous().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.kill().await;
    let before = daemon.until_active("west", FAILOVER).await;
    writers.go_on_at(pair.west.port, 50, SOON).await;
    daemon.kill().await;
    let logins = pair.east.logins_of("app");
    pair.east.start().await;
    daemon.launch();
    let after = daemon.until_active("west", SOON).await;
    assert_eq!((after.epoch, after.since, &after.why), (before.epoch, before.since, &before.why));
    daemon.until("quarantine", SOON, |s| find(s, "east").quarantined.is_some()).await;
    writers.go_on_at(pair.west.port, 50, SOON).await;
    let journal = writers.stop().await;
    assert_eq!(traffic(&daemon.backend("east").await), (0, 0, 0));
    assert_eq!(pair.east.logins_of("app"), logins);
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rival_that_was_promoted_while_the_proxy_was_down_is_not_followed() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    daemon.kill().await;
    pair.west.promote();
    assert!(pair.east.is_primary().await && pair.west.is_primary().await);
    daemon.launch();
    daemon.until("a rival is seen", SOON, |s| find(s, "west").role == "primary").await;
    daemon.stays("a lone daemon follows no rival", WATCH, |s| !is_active(s, "west")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_the_file_again_disturbs_none_of_200_connections() {
    let pair = Pair::plan().setting("max_connections", "250").start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start_at_pace(daemon.listen, 200, Duration::from_millis(400));
    eventually("200 are connected", Duration::from_secs(60), async || match writers.journal().logins {
        200 => Ok(()),
        other => Err(format!("{other} are")),
    })
    .await;
    let extra = crate::harness::ports::free_port();
    for round in 0..6_i64 {
        let before = daemon.try_status().await.unwrap();
        daemon.edit_service(|service| {
            let west = service["backend"][1].as_table_mut().unwrap();
            west.insert("weight".into(), (round + 1).into());
            let listeners = service["listener"].as_array_mut().unwrap();
            listeners.truncate(1);
            if round % 2 == 0 {
                let mut listener = Table::new();
                listener.insert("address".into(), format!("127.0.0.1:{extra}").into());
                listeners.push(Value::Table(listener));
            }
        });
        daemon.signal(Signal::HUP);
        let listeners = if round % 2 == 0 { 2 } else { 1 };
        daemon
            .until("the change", SOON, |s| {
                find(s, "west").weight == u32::try_from(round + 1).unwrap() && s.listeners.len() == listeners
            })
            .await;
        assert!(daemon.try_status().await.unwrap().generation >= before.generation);
        writers.go_on_at(pair.east.port, 200, SOON).await;
    }
    let journal = writers.stop().await;
    assert_eq!((journal.error_count(), journal.logins), (0, 200), "{:?}", journal.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_rotated_is_used_after_sighup_and_nothing_fails_over_until_then() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 20, SOON).await;
    pair.east.run("ALTER ROLE pgpivot PASSWORD 'rotated-in-time'").await;
    let told = |s: &ServiceStatus, name| find(s, name).last_probe.as_ref().map_or(String::new(), |p| p.text.clone());
    daemon
        .until("the refused logins are shown", SOON, |s| {
            ["east", "west"].iter().all(|name| told(s, name).contains("refuses the probe's login"))
        })
        .await;
    daemon
        .stays("east is active", Duration::from_secs(6), |s| s.open && is_active(s, "east") && s.episode.is_none())
        .await;
    writers.go_on_at(pair.east.port, 20, SOON).await;

    daemon.write_password("rotated-in-time");
    daemon.signal(Signal::HUP);
    daemon
        .until("both are logged in to again", SOON, |s| {
            s.armed && ["east", "west"].iter().all(|name| find(s, name).health == "up" && told(s, name) == "answered")
        })
        .await;
    // The promotion logs in with it as well.
    pair.east.kill().await;
    daemon.until_active("west", SOON).await;
    writers.go_on_at(pair.west.port, 20, SOON).await;
    writers.stop().await;
    assert!(!daemon.log().contains("rotated-in-time"), "the log shows the password");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_is_complained_of() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 20, SOON).await;
    daemon.overwrite_config("[service.main]\nkind = \"oracle\"\nwheight = 3\n");
    daemon.signal(Signal::HUP);
    eventually("the log names the key", SOON, async || {
        let log = daemon.log();
        if log.contains("wheight") && log.contains("oracle") { Ok(()) } else { Err(daemon.log_tail()) }
    })
    .await;
    writers.go_on_at(pair.east.port, 50, SOON).await;
    let journal = writers.stop().await;
    assert_eq!(journal.error_count(), 0, "{:?}", journal.errors);
    let shown = daemon.service().await;
    assert!(shown.open && is_active(&shown, "east") && shown.backends.len() == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_told_to_stop_lets_running_work_end() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let child = crate::harness::Psql::to(daemon.listen).begin("SELECT 'done' FROM pg_sleep(3)");
    sleeps_at(&pair.east).await;
    daemon.signal(Signal::TERM);
    let spoken = crate::harness::psql::heard(child).await;
    assert_eq!((spoken.code, spoken.out.trim()), (Some(0), "done"), "{spoken:#?}");
    let status = daemon.ended(SOON).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_the_proxy_at_once() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let child = crate::harness::Psql::to(daemon.listen).begin("SELECT pg_sleep(50)");
    sleeps_at(&pair.east).await;
    daemon.signal(Signal::TERM);
    eventually("it stops accepting", SOON, async || match tokio::net::TcpStream::connect(daemon.listen).await {
        Ok(_) => Err("still accepts".to_owned()),
        Err(_) => Ok(()),
    })
    .await;
    assert!(daemon.runs(), "it must wait for its client");
    daemon.signal(Signal::TERM);
    daemon.ended(Duration::from_secs(3)).await;
    drop(child);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_state_is_refused_and_told_by_whom() {
    let pair = Pair::start().await;
    let first = Daemon::start(&[&pair.east, &pair.west]).await;
    let second = Daemon::plan(&[&pair.east, &pair.west]).state(&first.state_path()).launch();
    let status = second.ended(SOON).await;
    assert!(!status.success());
    let log = second.log();
    assert!(log.contains(&first.pid().to_string()), "the holder is not named: {log}");
    assert!(first.service().await.open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_told_to_stop_is_not_ready_while_it_lets_work_end() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let mut config = tokio_postgres::Config::new();
    config.host(daemon.listen.ip().to_string()).port(daemon.listen.port()).user("app").password("app").dbname("app");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN").await.unwrap();
    daemon.signal(Signal::TERM);
    eventually("it is not ready", SOON, async || match daemon.fetch("/ready").await {
        Ok((503, said)) if said.contains("shutting down") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    client.batch_execute("COMMIT").await.unwrap();
    assert!(daemon.ended(SOON).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_s_port_that_is_taken_is_named() {
    let pair = Pair::start().await;
    let first = Daemon::start(&[&pair.east, &pair.west]).await;
    let second = Daemon::plan(&[&pair.east, &pair.west]).admin(first.admin).launch();
    let status = second.ended(SOON).await;
    assert_eq!(status.code(), Some(1));
    assert!(second.log().contains(&format!("admin.listen = {}", first.admin)), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let pair = Pair::start().await;
    let first = Daemon::start(&[&pair.east, &pair.west]).await;
    let second = Daemon::plan(&[&pair.east, &pair.west]).listen(first.listen).launch();
    let status = second.ended(SOON).await;
    assert!(!status.success());
    assert!(second.log().contains(&first.listen.to_string()), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_stops_the_proxy_with_a_remedy_and_is_not_overwritten() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    daemon.kill().await;
    let slots = daemon.state_path().join("main.pair/latch");
    let mut bytes = std::fs::read(&slots).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&slots, &bytes).unwrap();
    daemon.launch();
    let status = daemon.ended(SOON).await;
    assert!(!status.success());
    let log = daemon.log();
    assert!(log.contains("latch") && log.contains("main"), "the damaged file is not named: {}", daemon.log_tail());
    assert_eq!(std::fs::read(&slots).unwrap(), bytes, "the evidence was overwritten");
}

/// A client that is attached may not have said anything yet.
async fn sleeps_at(server: &Cluster) {
    let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    eventually("a statement runs", SOON, async || match server.ask(running).await.as_str() {
        "1" => Ok(()),
        count => Err(format!("{count} run")),
    })
    .await;
}
