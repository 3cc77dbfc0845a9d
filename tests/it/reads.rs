//! Readers: `target = "read_only"` leads to standbys that show what is new enough, and away from those that do not.

use crate::harness::status::{find, is_active};
use crate::harness::{Daemon, Pair, SOON, eventually};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

const WATCH: Duration = Duration::from_secs(15);

async fn reader_at(address: SocketAddr) -> Result<(Client, u16), String> {
    let line = format!("host=127.0.0.1 port={} user=app password=app dbname=app", address.port());
    let (client, connection) = tokio_postgres::connect(&line, NoTls).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let row = client.query_one("SELECT inet_server_port()", &[]).await.map_err(|error| error.to_string())?;
    let port: i32 = row.get(0);
    Ok((client, u16::try_from(port).unwrap()))
}

async fn fit(daemon: &Daemon, names: &[&str]) {
    let named = format!("{names:?} take readers");
    daemon.until(&named, SOON, |s| names.iter().all(|name| find(s, name).no_readers_why.is_none())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_spread_over_standbys_by_their_weight() {
    let pair = Pair::start().await;
    let north = pair.add_standby("north").await;
    let (plan, readers) = Daemon::plan(&[&pair.east, &pair.west, &north]).read_only_listener();
    let daemon = plan.backend("west", "weight", 300).backend("north", "weight", 100).start().await;
    fit(&daemon, &["west", "north"]).await;
    let mut shares: BTreeMap<u16, u32> = BTreeMap::new();
    for _ in 0..200 {
        let (_, port) = reader_at(readers).await.unwrap();
        *shares.entry(port).or_default() += 1;
    }
    let share = |port: u16| f64::from(shares.get(&port).copied().unwrap_or(0)) / 200.0;
    let off = (share(pair.west.port) - 0.75).abs().max((share(north.port) - 0.25).abs());
    assert!(off <= 0.01 && share(pair.east.port) == 0.0, "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_what_is_older_than_the_limit_when_a_standby_stops_replaying() {
    let pair = Pair::start().await;
    let (plan, readers) = Daemon::plan(&[&pair.east, &pair.west]).read_only_listener();
    let daemon = plan.read_only("max_lag", "5s").start().await;
    fit(&daemon, &["west"]).await;
    pair.east.run("CREATE TABLE clock (at bigint)").await;
    pair.east.run("INSERT INTO clock VALUES (0); GRANT SELECT ON clock TO app").await;
    let begun = Instant::now();
    let written = tokio::spawn(write_the_time(pair.east.client().await, begun));

    let mut reader = eventually("a reader at west that sees the clock", SOON, async || {
        let (client, port) = reader_at(readers).await?;
        let row = client.query_one("SELECT at FROM clock", &[]).await.map_err(|e| e.to_string())?;
        let (at, right): (i64, bool) = (row.get(0), port == pair.west.port);
        if at > 0 && right { Ok(client) } else { Err(format!("{at} at port {port}")) }
    })
    .await;
    pair.west.run("SELECT pg_wal_replay_pause()").await;
    let (paused, mut oldest, mut moved) = (Instant::now(), Duration::ZERO, None);
    while paused.elapsed() < WATCH {
        let asked = begun.elapsed();
        // A session that is asked to end says so at its next statement; who reads connects again.
        let Ok(row) = reader.query_one("SELECT at, inet_server_port() FROM clock", &[]).await else {
            reader = eventually("another reader", SOON, async || Ok(reader_at(readers).await?.0)).await;
            continue;
        };
        let (at, port): (i64, i32) = (row.get(0), row.get(1));
        oldest = oldest.max(asked.saturating_sub(Duration::from_millis(u64::try_from(at).unwrap())));
        if port == i32::from(pair.east.port) {
            moved.get_or_insert_with(|| paused.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    written.abort();
    let shown = daemon.backend("west").await;
    assert!(moved.is_some(), "nobody was moved: {shown:#?}");
    // The limit, what the session may take to end, and a loaded machine; without moving it were 15 s.
    assert!(oldest < Duration::from_secs(5 + 4), "a read was {oldest:?} old; moved after {moved:?}");
    assert!(shown.no_readers_why.as_deref().is_some_and(|why| why.contains("read_only.max_lag is 5s")), "{shown:#?}");

    pair.west.run("SELECT pg_wal_replay_resume()").await;
    fit(&daemon, &["west"]).await;
    eventually("a reader at west again", SOON, async || match reader_at(readers).await? {
        (_, port) if port == pair.west.port => Ok(()),
        (_, port) => Err(format!("at port {port}")),
    })
    .await;
}

/// Writes the milliseconds since `begun`, again and again.
async fn write_the_time(client: Client, begun: Instant) {
    loop {
        let now = i64::try_from(begun.elapsed().as_millis()).unwrap();
        client.execute("UPDATE clock SET at = $1", &[&now]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_stays_where_it_is_while_the_primary_is_dead_and_nobody_decides() {
    let pair = Pair::start().await;
    let (plan, readers) = Daemon::plan(&[&pair.east, &pair.west]).read_only_listener();
    let daemon = plan.failover("automatic", false).start().await;
    fit(&daemon, &["west"]).await;
    let (reader, port) = reader_at(readers).await.unwrap();
    assert_eq!(port, pair.west.port);
    pair.east.kill().await;
    daemon.until("east is down", SOON, |s| find(s, "east").health == "down").await;
    daemon
        .stays("west takes readers", WATCH, |s| is_active(s, "east") && find(s, "west").no_readers_why.is_none())
        .await;
    reader.query_one("SELECT 1", &[]).await.unwrap();
    assert_eq!(reader_at(readers).await.unwrap().1, pair.west.port);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_standby_that_dies_or_becomes_active_go_on_at_another_one() {
    let pair = Pair::start().await;
    let north = pair.add_standby("north").await;
    let servers = [&pair.east, &pair.west, &north];
    let (plan, readers) = Daemon::plan(&servers).failover("survivors", "repoint").read_only_listener();
    let daemon = plan.backend("west", "priority", 1).start().await;
    fit(&daemon, &["west", "north"]).await;
    let at = async |wanted: u16| {
        eventually("a reader there", SOON, async || {
            let (client, port) = reader_at(readers).await?;
            if port == wanted { Ok(client) } else { Err(format!("at {port}")) }
        })
        .await
    };
    let ends = async |client: Client| {
        eventually("the reader's connection ends", SOON, async || {
            if client.is_closed() { Ok(()) } else { Err("it is open".into()) }
        })
        .await;
    };

    // Hung, not closed: nothing tells the reader but us.
    let reader = at(north.port).await;
    north.freeze().await;
    ends(reader).await;
    assert_eq!(reader_at(readers).await.unwrap().1, pair.west.port);
    north.thaw();
    fit(&daemon, &["west", "north"]).await;

    let reader = at(pair.west.port).await;
    daemon.ctl_done(&["switchover", "--to", "west", "--yes"]).await;
    daemon.until_active("west", SOON).await;
    ends(reader).await;
    fit(&daemon, &["north"]).await;
    assert_ne!(reader_at(readers).await.unwrap().1, pair.west.port);
}
