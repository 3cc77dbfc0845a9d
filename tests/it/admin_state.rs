//! Backends that operators take out by hand, and what becomes of who is connected there and of who comes.

use crate::harness::status::{find, is_active};
use crate::harness::{Browser, Daemon, Pair, Psql, SOON, eventually};
use std::net::SocketAddr;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

const WATCH: Duration = Duration::from_secs(5);

async fn client_at(address: SocketAddr) -> Result<(Client, u16), String> {
    let line = format!("host=127.0.0.1 port={} user=app password=app dbname=app", address.port());
    let (client, connection) = tokio_postgres::connect(&line, NoTls).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let row = client.query_one("SELECT inet_server_port()", &[]).await.map_err(|error| error.to_string())?;
    let port: i32 = row.get(0);
    Ok((client, u16::try_from(port).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn in_drain_open_sessions_live_on_and_newcomers_go_elsewhere() {
    let pair = Pair::start().await;
    let north = pair.add_standby("north").await;
    let (plan, readers) = Daemon::plan(&[&pair.east, &pair.west, &north]).read_only_listener();
    let daemon = plan.start().await;
    let fit = |name: &'static str| move |s: &pgpivot::view::ServiceStatus| find(s, name).no_readers_why.is_none();
    daemon.until("west and north take readers", SOON, |s| fit("west")(s) && fit("north")(s)).await;
    let mut open = Vec::new();
    while open.len() < 4 || open.iter().all(|(_, port)| *port != pair.west.port) {
        open.push(client_at(readers).await.unwrap());
    }
    let said = daemon.ctl_done(&["backend", "west", "drain", "--note", "kernel update"]).await.out;
    assert!(said.contains("west is in drain") && said.contains("who is connected there stays"), "{said}");
    for _ in 0..20 {
        assert_eq!(client_at(readers).await.unwrap().1, north.port);
    }
    for (client, _) in &open {
        client.query_one("SELECT 1", &[]).await.unwrap();
    }
    let shown = daemon.backend("west").await;
    assert!(!shown.armed && shown.health == "up" && shown.probes > 0, "{shown:#?}");
    assert!(shown.unarmed_why[0].contains("kernel update"), "{:?}", shown.unarmed_why);
    assert!(shown.no_readers_why.unwrap().contains("west is in drain"));
    let history = daemon.ctl_done(&["history", "--json"]).await.out;
    assert!(history.contains("backend drain") && history.contains("kernel update"), "{history}");
    let (_, csv) = daemon.fetch("/stats;csv").await.unwrap();
    assert!(csv.lines().any(|line| line.contains(",west,") && line.contains(",DRAIN,")), "{csv}");
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    let wanted = "pgpivot_backend_admin_state{backend=\"west\",service=\"main\",state=\"drain\"} 1";
    assert!(metrics.contains(wanted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_maint_sessions_are_cut_newcomers_wait_and_nothing_fails_over_until_ready() {
    let pair = Pair::start().await;
    let plan = Daemon::plan(&[&pair.east, &pair.west]).failover("drain_timeout", "1s").failover("hold_timeout", "3s");
    let daemon = plan.start().await;
    let (client, _) = client_at(daemon.listen).await.unwrap();
    let running = tokio::spawn(async move { client.query_one("SELECT pg_sleep(600)", &[]).await });
    daemon.until("it is attached", SOON, |s| find(s, "east").connections == 1).await;
    let unasked = daemon.ctl(&["backend", "east", "maint"]).await;
    assert_eq!(unasked.code, Some(2), "maint cuts, so it is confirmed: {unasked:#?}");
    daemon.ctl_done(&["backend", "east", "maint", "--yes", "--note", "new disk"]).await;
    assert!(running.await.unwrap().is_err(), "the session was not cut");
    let turned_away = Psql::in_clear(daemon.listen).say("SELECT 1").await;
    let told = &turned_away.talk;
    assert!(told.contains("east is in maint") && told.contains("new disk"), "{turned_away:#?}");
    let before = daemon.service().await;
    pair.east.kill().await;
    let calm = |s: &_| is_active(s, "east");
    daemon.stays("nobody is promoted", Duration::from_secs(10), calm).await;
    assert!(!pair.west.is_primary().await);
    pair.east.start().await;
    daemon.ctl_done(&["backend", "east", "ready"]).await;
    eventually("clients are served", SOON, async || client_at(daemon.listen).await.map(|_| ())).await;
    assert_eq!(daemon.service().await.epoch, before.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_remembers_who_is_in_drain_and_does_not_promote_it() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    daemon.ctl_done(&["backend", "west", "drain"]).await;
    daemon.kill().await;
    daemon.launch();
    daemon.until_active("east", SOON).await;
    let shown = daemon.ctl_done(&["backend", "west", "--json"]).await.out;
    assert!(shown.contains("\"state\":\"drain\""), "{shown}");
    pair.east.kill().await;
    let why =
        |s: &pgpivot::view::ServiceStatus| s.blocked.as_ref().is_some_and(|b| b.sentence.contains("west is in drain"));
    daemon.until("the reason is told", SOON, why).await;
    daemon.stays("west is not promoted", WATCH, |s| is_active(s, "east")).await;
    daemon.ctl_done(&["backend", "west", "ready"]).await;
    daemon.until_active("west", SOON).await;
    let unknown = daemon.ctl(&["backend", "wset", "drain"]).await;
    assert!(unknown.code == Some(1) && unknown.talk.contains("east, west"), "{unknown:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_button_asks_for_the_token_shows_what_follows_and_does_it_when_confirmed() {
    let pair = Pair::start().await;
    let daemon = Daemon::plan(&[&pair.east, &pair.west]).token("ada", "s3cret").start().await;
    let browser = Browser::open().await;
    browser.go(&format!("http://{}/stats", daemon.admin)).await;
    browser.reads("steady", SOON).await;
    browser.ask("document.querySelector('button[data-backend=west][data-state=drain]').click()").await;
    browser.reads("token", SOON).await;
    browser
        .ask("(document.getElementById('order-token').value = 's3cret', document.getElementById('order-go').click())")
        .await;
    browser.reads("it is not promoted until it is ready", SOON).await;
    assert!(daemon.backend("west").await.admin.is_none(), "done before it was confirmed");
    browser
        .ask("(document.getElementById('order-note').value = 'by hand', document.getElementById('order-go').click())")
        .await;
    let shown = daemon.until("west is in drain", SOON, |s| find(s, "west").admin.is_some()).await;
    let admin = find(&shown, "west").admin.clone().unwrap();
    assert_eq!((admin.by.as_str(), admin.note.as_deref()), ("ada", Some("by hand")));
    browser.reads("in drain, set by ada (by hand)", SOON).await;
}
