//! What people type works through the proxy as it does without it: psql, pgbench, Ctrl-C, with TLS and without.

use crate::harness::psql::heard;
use crate::harness::status::find;
use crate::harness::{Cluster, Daemon, Pair, Psql, SOON, Shutdown, eventually, processes};
use rustix::process::Signal;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn psql_reads_and_writes_through_the_proxy() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let psql = Psql::to(daemon.listen);
    psql.ask("INSERT INTO ledger VALUES (1, 1, 1, 1)").await;
    assert_eq!(psql.ask("SELECT count(*) FROM ledger").await, "1");
    assert_eq!(psql.ask("SELECT inet_server_port()").await, pair.east.port.to_string());
    assert_eq!(pair.east.ask("SELECT count(*) FROM ledger").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_by_the_server_and_not_by_the_proxy() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let url = format!("postgresql://app:wrong@{}/app", daemon.listen);
    let spoken = Psql::to(daemon.listen).say_to(&url, "SELECT 1").await;
    assert_eq!(spoken.code, Some(2), "{spoken:#?}");
    assert!(spoken.talk.contains("password authentication failed"), "{spoken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_runs_through_the_proxy_without_an_error() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    pgbench_is_content(&Psql::to(daemon.listen)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_and_pgbench_run_through_the_proxy_when_the_server_demands_tls() {
    let pair = Pair::plan().tls_only().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let psql = Psql::over_tls(daemon.listen);
    assert_eq!(psql.ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await, "t");
    pgbench_is_content(&psql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_hears_the_refusal_of_a_server_that_demands_it() {
    let pair = Pair::plan().tls_only().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let url = format!("postgresql://app:app@{}/app?sslmode=disable", daemon.listen);
    let spoken = Psql::to(daemon.listen).say_to(&url, "SELECT 1").await;
    assert!(spoken.talk.contains("no pg_hba.conf entry") && spoken.talk.contains("no encryption"), "{spoken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_psql_cancels_the_statement() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    ctrl_c_cancels(&Psql::to(daemon.listen), &pair.east).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_psql_cancels_the_statement_at_the_standby_that_runs_it() {
    let pair = Pair::start().await;
    let (plan, readers) = Daemon::plan(&[&pair.east, &pair.west]).read_only_listener();
    let daemon = plan.start().await;
    daemon.until("west takes readers", SOON, |s| find(s, "west").no_readers_why.is_none()).await;
    ctrl_c_cancels(&Psql::to(readers), &pair.west).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_psql_cancels_the_statement_over_tls() {
    let pair = Pair::plan().tls_only().start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    ctrl_c_cancels(&Psql::over_tls(daemon.listen), &pair.east).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_megabytes_come_back_unchanged_in_both_directions() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let psql = Psql::to(daemon.listen);
    let through = psql.ask("SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300000) AS i").await;
    assert_eq!(through.len(), 300_000 * 32);
    let direct = pair.east.ask("SELECT md5(string_agg(md5(i::text), '')) FROM generate_series(1, 300000) AS i").await;
    psql.ask("CREATE TABLE bulk (text text)").await;
    psql.feed("COPY bulk FROM STDIN", &format!("{through}\n")).await;
    assert_eq!(pair.east.ask("SELECT md5(text) FROM bulk").await, direct);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_listener_leads_to_the_standby_and_to_the_primary_when_there_is_none() {
    let pair = Pair::start().await;
    let (plan, readers) = Daemon::plan(&[&pair.east, &pair.west]).read_only_listener();
    let daemon = plan.start().await;
    daemon.until("west takes readers", SOON, |s| find(s, "west").no_readers_why.is_none()).await;
    assert_eq!(Psql::to(readers).ask("SELECT inet_server_port()").await, pair.west.port.to_string());
    assert_eq!(Psql::to(daemon.listen).ask("SELECT inet_server_port()").await, pair.east.port.to_string());
    pair.west.stop(Shutdown::Fast).await;
    daemon.until("west is down", SOON, |s| find(s, "west").health == "down").await;
    assert_eq!(Psql::to(readers).ask("SELECT inet_server_port()").await, pair.east.port.to_string());
}

async fn pgbench_is_content(psql: &Psql) {
    psql.pgbench(&["--initialize", "--quiet", "--scale=1"]).await;
    let spoken = psql.pgbench(&["--client=4", "--jobs=2", "--transactions=200", "--no-vacuum"]).await;
    assert!(spoken.out.contains("number of transactions actually processed: 800/800"), "{spoken:#?}");
    assert!(spoken.out.contains("number of failed transactions: 0"), "{spoken:#?}");
}

pub(super) async fn ctrl_c_cancels(psql: &Psql, server: &Cluster) {
    let child = psql.begin("SELECT pg_sleep(60)");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
    let seen = async |wanted: &str| {
        eventually(&format!("{wanted} statement runs"), SOON, async || match server.ask(running).await {
            count if count == wanted => Ok(()),
            count => Err(format!("{count} run")),
        })
        .await;
    };
    seen("1").await;
    let pressed = Instant::now();
    processes::signal(child.id().unwrap(), Signal::INT);
    let spoken = heard(child).await;
    assert!(spoken.talk.contains("canceling statement due to user request"), "{spoken:#?}");
    assert!(pressed.elapsed() < Duration::from_secs(10), "it took {:?}", pressed.elapsed());
    seen("0").await;
}
