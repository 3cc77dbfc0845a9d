//! The stage itself: a pair starts, replicates, dies, is rebuilt. No daemon takes part.

use crate::harness::{Checker, Cluster, Pair, Psql, SOON, Shutdown, Writers, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_replicates() {
    let pair = Pair::start().await;
    assert!(pair.east.is_primary().await);
    assert!(!pair.west.is_primary().await);
    pair.east.run("INSERT INTO ledger VALUES (1, 1, 1, 1)").await;
    pair.east.is_followed_by(&pair.west).await;
    assert_eq!(pair.west.ask("SELECT count(*) FROM ledger").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_replaced_and_rebuilt() {
    let pair = Pair::start().await;
    pair.east.kill().await;
    assert!(!pair.east.runs());
    pair.west.promote();
    assert!(pair.west.is_primary().await);
    pair.east.rebuild_as_standby_of(&pair.west).await;
    assert!(!pair.east.is_primary().await);
    pair.west.is_followed_by(&pair.east).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_comes_back_as_a_primary() {
    let pair = Pair::start().await;
    pair.east.kill().await;
    pair.west.promote();
    pair.east.start().await;
    assert!(pair.east.is_primary().await && pair.west.is_primary().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_answers_again_when_it_is_thawed() {
    let pair = Pair::start().await;
    let client = pair.east.client().await;
    pair.east.freeze().await;
    let answer = tokio::time::timeout(std::time::Duration::from_millis(300), client.simple_query("SELECT 1")).await;
    assert!(answer.is_err(), "a frozen server answered");
    pair.east.thaw();
    assert_eq!(pair.east.ask("SELECT 1").await, "1");
    pair.east.is_followed_by(&pair.west).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_goes_on_while_the_postmaster_alone_is_frozen() {
    let pair = Pair::start().await;
    let client = pair.east.client().await;
    pair.east.freeze_postmaster();
    client.batch_execute("INSERT INTO ledger VALUES (1, 1, 1, 1)").await.unwrap();
    eventually("the row arrives", SOON, async || match pair.west.ask("SELECT count(*) FROM ledger").await.as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_recovers_from_the_crash_of_one_backend() {
    let pair = Pair::start().await;
    pair.east.crash_one_backend().await;
    eventually("east answers again", SOON, async || pair.east.try_ask("SELECT 1").await.map_err(|e| e.to_string()))
        .await;
    assert!(pair.east.runs() && pair.east.is_primary().await);
    pair.east.is_followed_by(&pair.west).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_wire_swallows_packets_while_the_standby_still_streams() {
    let pair = Pair::plan().behind_a_wire().start().await;
    let reach = async || {
        let connect = tokio::net::TcpStream::connect(pair.east.address());
        tokio::time::timeout(std::time::Duration::from_millis(300), connect).await.is_ok_and(|c| c.is_ok())
    };
    assert!(reach().await);
    pair.wire().cut_wire(pair.east.port);
    assert!(!reach().await);
    pair.east.run("INSERT INTO ledger VALUES (1, 1, 1, 1)").await;
    pair.east.is_followed_by(&pair.west).await;
    pair.wire().heal();
    assert!(reach().await);
    pair.wire().swallow(pair.east.port);
    assert!(!reach().await);
    eventually("the standby loses its stream", SOON, async || {
        match pair.west.ask("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'").await.as_str() {
            "0" => Ok(()),
            other => Err(format!("{other} streams")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_server_joins_and_all_stop() {
    let pair = Pair::start().await;
    let north = pair.add_standby("north").await;
    assert!(!north.is_primary().await);
    north.stop(Shutdown::Immediate).await;
    pair.stop().await;
    assert!(!pair.east.runs() && !pair.west.runs() && !north.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_switch_passes_the_checker() {
    let pair = Pair::plan().synchronous().start().await;
    let writers = Writers::start(pair.east.address(), 3);
    writers.go_on_at(pair.east.port, 50, SOON).await;
    let mut journal = writers.stop().await;
    assert_eq!(journal.error_count(), 0, "{:?}", journal.errors);
    pair.east.stop(Shutdown::Fast).await;
    pair.west.promote();
    let writers = Writers::start(pair.west.address(), 3);
    writers.go_on_at(pair.west.port, 50, SOON).await;
    journal.append(writers.stop().await);
    Checker { journal: &journal, new: &pair.west, old: &pair.east }.no_acknowledged_row_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_primaries_do_not_pass_the_checker() {
    let pair = Pair::start().await;
    pair.west.promote();
    let (here, there) = (Writers::start(pair.west.address(), 2), Writers::start(pair.east.address(), 2));
    here.go_on_at(pair.west.port, 20, SOON).await;
    there.go_on_at(pair.east.port, 20, SOON).await;
    let mut journal = here.stop().await;
    journal.append(there.stop().await);
    let checker = Checker { journal: &journal, new: &pair.west, old: &pair.east };
    let found = checker.breaches().await.join("\n");
    assert!(found.contains("were acknowledged by the old side when the new one served already"), "{found}");
    assert!(found.contains("were sent to the old side after the cut"), "{found}");
    assert!(checker.losses().await.is_some());
    pair.west.run("DELETE FROM ledger").await;
    let found = checker.breaches().await.join("\n");
    assert!(found.contains("that the latched side acknowledged are lost"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_demands_tls_and_a_stranger_is_no_relative() {
    let pair = Pair::plan().tls_only().start().await;
    assert_eq!(Psql::over_tls(pair.east.address()).ask("SELECT 1").await, "1");
    let stranger = Cluster::stranger("stranger");
    stranger.start().await;
    let identity = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(pair.east.ask(identity).await, pair.west.ask(identity).await);
    assert_ne!(pair.east.ask(identity).await, stranger.ask(identity).await);
}
