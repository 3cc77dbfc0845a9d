//! The active side dies, hangs, is cut off, or only seems to: what applications and operators see of it.

use crate::harness::psql::heard;
use crate::harness::status::{blocked, find, is_active, traffic};
use crate::harness::{Checker, Cluster, Daemon, Pair, Psql, SOON, Writers, eventually};
use pgpivot::view::{Level, ServiceStatus};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use toml::{Table, Value};

/// For a failover with the fast preset on a busy machine; the benches measure how long it really takes.
const FAILOVER: Duration = Duration::from_secs(15);
/// For how long a test watches that something does not happen.
const WATCH: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_is_killed_the_writers_go_on_at_the_promoted_standby() {
    let pair = Pair::plan().synchronous().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let before = daemon.service().await;
    let writers = Writers::start(daemon.listen, 8);
    writers.go_on_at(pair.east.port, 100, SOON).await;
    pair.east.kill().await;
    let after = daemon.until_active("west", FAILOVER).await;
    assert_eq!(after.epoch, before.epoch.next());
    assert!(!after.why.is_empty());
    writers.go_on_at(pair.west.port, 100, SOON).await;
    let count = writers.count;
    let journal = writers.stop().await;
    println!("longest gap {:?}, errors {:?}", journal.longest_gap(), journal.errors);
    assert!(journal.error_count() <= count, "more errors than connections: {:?}", journal.errors);
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_the_next_promotion_are_there_before_the_pair_has_settled() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    daemon.until_active("east", SOON).await;
    // One that samples, one for the lock, one for the promotion.
    let ours = "SELECT count(*) FROM pg_stat_activity \
                WHERE application_name LIKE 'pgpivot/%' AND backend_type = 'client backend' AND state = 'idle'";
    eventually("three sessions are kept", SOON, async || {
        let kept: u32 = pair.west.ask(ours).await.parse().unwrap();
        assert!(!daemon.log().contains("settling → steady"), "only now there are {kept}");
        if kept >= 3 { Ok(()) } else { Err(format!("{kept} are")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_process_of_the_primary_is_stopped_the_writers_go_on_at_the_standby() {
    let pair = Pair::plan().synchronous().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 8);
    writers.go_on_at(pair.east.port, 100, SOON).await;
    pair.east.freeze().await;
    daemon.until_active("west", FAILOVER).await;
    writers.go_on_at(pair.west.port, 100, SOON).await;
    pair.east.thaw();
    daemon.until("east is quarantined", SOON, |s| find(s, "east").quarantined.is_some()).await;
    writers.go_on_at(pair.west.port, 100, SOON).await;
    let count = writers.count;
    let journal = writers.stop().await;
    println!("longest gap {:?}, errors {:?}", journal.longest_gap(), journal.errors);
    assert!(journal.error_count() <= count, "more errors than connections: {:?}", journal.errors);
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_postmaster_alone_is_stopped_is_shown_as_hung_and_not_replaced() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.freeze_postmaster();
    daemon.stays("east is active while it answers", WATCH, |s| is_active(s, "east")).await;
    let journal = writers.stop().await;
    assert_eq!(journal.error_count(), 0, "connections that were open must go on: {:?}", journal.errors);
    daemon.until("hung, not dead", Duration::from_secs(40), |s| blocked(s) == "hung, not dead").await;
    daemon.stays("east is active", WATCH, |s| is_active(s, "east")).await;
    assert!(!pair.west.is_primary().await);
    pair.east.thaw();
    daemon.until("steady", SOON, |s| s.open && s.phase == "steady" && is_active(s, "east")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_swallows_every_packet_the_writers_go_on_at_the_standby() {
    let pair = Pair::plan().synchronous().behind_a_wire().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 8);
    writers.go_on_at(pair.east.port, 100, SOON).await;
    pair.wire().swallow(pair.east.port);
    daemon.until_active("west", FAILOVER).await;
    writers.go_on_at(pair.west.port, 100, SOON).await;
    pair.wire().heal();
    daemon.until("east is quarantined", SOON, |s| find(s, "east").quarantined.is_some()).await;
    writers.go_on_at(pair.west.port, 100, SOON).await;
    let count = writers.count;
    let journal = writers.stop().await;
    println!("longest gap {:?}, errors {:?}", journal.longest_gap(), journal.errors);
    assert!(journal.error_count() <= count, "more errors than connections: {:?}", journal.errors);
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_recovers_from_the_crash_of_a_backend_stays_active() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let before = daemon.service().await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.crash_one_backend().await;
    writers.go_on_at(pair.east.port, 50, SOON).await;
    daemon.stays("east is active", WATCH, |s| is_active(s, "east")).await;
    let after = daemon.until("steady", SOON, |s| s.open && s.phase == "steady").await;
    assert_eq!((after.epoch, after.episodes), (before.epoch, before.episodes));
    assert!(!pair.west.is_primary().await);
    let journal = writers.stop().await;
    assert_eq!(journal.acknowledged_by(pair.west.port), 0);
    assert_eq!(journal.errors.get("25006"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_a_free_connection_slot_stays_active() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let before = daemon.service().await;
    let hogs = take_every_slot(pair.east.address()).await;
    assert!(hogs.len() > 50, "only {} slots were free", hogs.len());
    daemon
        .stays("east is active and not down", WATCH, |s| is_active(s, "east") && find(s, "east").health != "down")
        .await;
    drop(hogs);
    let after = daemon.until("steady", SOON, |s| s.open && s.phase == "steady").await;
    assert_eq!((after.epoch, after.episodes), (before.epoch, before.episodes));
    assert!(!pair.west.is_primary().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_comes_back_is_quarantined_and_gets_not_one_byte() {
    let pair = Pair::plan().synchronous().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    writers.go_on_at(pair.west.port, 50, SOON).await;
    let before = daemon.backend("east").await;
    let logins = pair.east.logins_of("app");
    pair.east.start().await;
    assert!(pair.east.is_primary().await, "it knows nothing of the failover");
    let shown = daemon.until("quarantine", SOON, |s| find(s, "east").quarantined.is_some()).await;
    assert_eq!(shown.level, Level::Bad);
    assert!(is_active(&shown, "west"));
    let patient =
        |s: &_| is_active(s, "west") && find(s, "east").quarantined.is_some() && find(s, "east").connections == 0;
    daemon.stays("east is quarantined", WATCH, patient).await;
    writers.go_on_at(pair.west.port, 50, SOON).await;
    assert_eq!(traffic(&daemon.backend("east").await), traffic(&before));
    assert_eq!(pair.east.logins_of("app"), logins);
    let journal = writers.stop().await;
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_cut_off_from_a_living_primary_promotes_nobody_and_says_why() {
    let pair = Pair::plan().behind_a_wire().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let before = daemon.service().await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.wire().cut_wire(pair.east.port);
    let stuck = daemon.until("blocked by the witness", FAILOVER, |s| blocked(s) == "witness alive").await;
    let sentence = &stuck.blocked.as_ref().unwrap().sentence;
    assert!(sentence.contains("west"), "names no witness: {sentence}");
    assert_eq!(stuck.level, Level::Bad);
    for row in 0..20 {
        pair.east.run(&format!("INSERT INTO ledger VALUES (-{row} - 1, 0, 1, 1)")).await;
    }
    daemon.stays("nobody is promoted", WATCH, |s| is_active(s, "east") && s.epoch == before.epoch).await;
    assert!(!pair.west.is_primary().await);
    pair.wire().heal();
    writers.go_on_at(pair.east.port, 50, Duration::from_secs(60)).await;
    daemon.until("steady", SOON, |s| s.open && s.phase == "steady" && is_active(s, "east")).await;
    let journal = writers.stop().await;
    assert_eq!(journal.acknowledged_by(pair.west.port), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_and_returns_again_and_again_is_replaced_once() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let before = daemon.service().await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    for _ in 0..3 {
        pair.east.start().await;
        writers.go_on_at(pair.west.port, 50, SOON).await;
        pair.east.kill().await;
        writers.go_on_at(pair.west.port, 50, SOON).await;
    }
    let after = daemon.until("west is active", SOON, |s| s.open && is_active(s, "west")).await;
    assert_eq!(after.epoch, before.epoch.next());
    let journal = writers.stop().await;
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.never_two_primaries().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_death_within_the_cool_down_waits_for_its_end() {
    let pair = Pair::start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("cooldown", "20s").failover("hold_timeout", "60s");
    let daemon = plan.start().await;
    pair.east.kill().await;
    let first = daemon.until_active("west", FAILOVER).await;
    pair.east.rebuild_as_standby_of(&pair.west).await;
    daemon.until("east is armed", SOON, |s| find(s, "east").armed).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.west.port, 50, SOON).await;
    pair.west.kill().await;
    let waiting = daemon.until("cool-down", FAILOVER, |s| blocked(s) == "cool-down").await;
    assert_eq!(waiting.epoch, first.epoch);
    assert!(waiting.cooldown_until.is_some());
    let second = daemon.until_active("east", Duration::from_secs(40)).await;
    assert_eq!(second.epoch, first.epoch.next());
    writers.go_on_at(pair.east.port, 50, SOON).await;
    let journal = writers.stop().await;
    Checker { journal: &journal, new: &pair.east, old: &pair.west }.never_two_primaries().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_budget_leaves_the_next_failover_to_an_operator() {
    let pair = Pair::start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("cooldown", "1s").failover("max_per_day", 1);
    let daemon = plan.start().await;
    pair.east.kill().await;
    let first = daemon.until_active("west", FAILOVER).await;
    assert_eq!(first.budget_left, 0);
    pair.east.rebuild_as_standby_of(&pair.west).await;
    daemon.until("east is armed", SOON, |s| find(s, "east").armed).await;
    pair.west.kill().await;
    let held = daemon.until("budget exhausted", FAILOVER, |s| blocked(s) == "budget exhausted").await;
    assert_eq!(held.level, Level::Bad);
    daemon.stays("nobody is promoted", WATCH, |s| is_active(s, "west") && s.epoch == first.epoch).await;
    daemon.ctl_done(&["failover", "--to", "east", "--force", "--yes"]).await;
    daemon.until_active("east", FAILOVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_pair_in_the_place_of_a_backend_is_quarantined() {
    let pair = Pair::start().await;
    let stranger = Cluster::stranger("stranger");
    stranger.start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    daemon.edit_service(|service| {
        let mut backend = Table::new();
        backend.insert("name".into(), "stranger".into());
        backend.insert("addresses".into(), vec![stranger.address().to_string()].into());
        service["backend"].as_array_mut().unwrap().push(Value::Table(backend));
    });
    daemon.signal(Signal::HUP);
    let seen = |s: &ServiceStatus| s.backends.len() == 3 && find(s, "stranger").quarantined.is_some();
    let shown = daemon.until("quarantine", SOON, seen).await;
    assert_ne!(find(&shown, "stranger").system_id, find(&shown, "east").system_id);
    let writers = Writers::start(daemon.listen, 2);
    writers.go_on_at(pair.east.port, 20, SOON).await;
    pair.east.kill().await;
    daemon.until_active("west", FAILOVER).await;
    writers.go_on_at(pair.west.port, 20, SOON).await;
    assert_eq!((traffic(&daemon.backend("stranger").await), stranger.logins_of("app")), ((0, 0, 0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_of_the_probe_is_no_reason_to_fail_over() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    pair.east.run("ALTER ROLE pgpivot PASSWORD 'changed'").await;
    pair.east.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgpivot'").await;
    daemon
        .stays("east is active and not down", WATCH, |s| is_active(s, "east") && find(s, "east").health != "down")
        .await;
    let told = |s: &ServiceStatus| {
        find(s, "east").last_probe.as_ref().is_some_and(|probe| probe.text.contains("refuses the probe's login"))
    };
    daemon.until("the reason is shown", SOON, |s| find(s, "east").health == "unknown" && told(s)).await;
    assert!(!pair.west.is_primary().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_primary_is_waited_for() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    pair.east.stop(crate::harness::Shutdown::Fast).await;
    pair.east.start().await;
    writers.go_on_at(pair.east.port, 50, SOON).await;
    daemon.stays("east is active", WATCH, |s| is_active(s, "east")).await;
    assert!(!pair.west.is_primary().await);
    let journal = writers.stop().await;
    assert_eq!(journal.acknowledged_by(pair.west.port), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_during_a_failover_waits_instead_of_failing() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    pair.east.kill().await;
    let psql = Psql::to(daemon.listen);
    let newcomers: Vec<_> = (0..10).map(|_| psql.begin("SELECT inet_server_port()")).collect();
    for newcomer in newcomers {
        let spoken = heard(newcomer).await;
        assert_eq!((spoken.code, spoken.out.trim()), (Some(0), pair.west.port.to_string().as_str()), "{spoken:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_longer_than_the_hold_is_told_so_with_57p03() {
    let pair = Pair::start().await;
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).failover("hold_timeout", "2s").start().await;
    pair.west.kill().await;
    pair.east.kill().await;
    daemon.until("closed", FAILOVER, |s| !s.open || find(s, "east").health == "down").await;
    let begun = Instant::now();
    let Err(error) = as_app(daemon.listen).connect(NoTls).await else { panic!("nobody can serve") };
    assert_eq!(error.code().map(SqlState::code), Some("57P03"), "{error:?}\n{}", daemon.log_tail());
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
}

/// Connections as `app`, as many as the server takes.
async fn take_every_slot(server: SocketAddr) -> Vec<Client> {
    let mut clients = Vec::new();
    while let Ok((client, connection)) = as_app(server).connect(NoTls).await {
        tokio::spawn(connection);
        clients.push(client);
    }
    clients
}

fn as_app(to: SocketAddr) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host(to.ip().to_string()).port(to.port()).user("app").password("app").dbname("app");
    config
}
