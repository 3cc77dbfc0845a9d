//! Which server a statement meets, while all live and when some do not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgpivot::client::pool_manager::{FailoverState, PoolError, PoolManager, QueryIntent};
use sqlx::Row;
use tracing_subscriber::fmt::MakeWriter;

use crate::cluster::Shutdown;
use crate::eventually::{SOON, eventually};
use crate::pair::Pair;
use crate::stage::{Three, patient, until, url, who};

#[tokio::test(flavor = "multi_thread")]
async fn writes_reach_the_primary_and_reads_are_shared_out_among_the_standbys() {
    let three = Three::start().await;
    let pools = PoolManager::initialize(url(three.east()), [url(three.west()), url(&three.north)]).await.unwrap();
    let mut met = BTreeMap::new();
    for _ in 0..10 {
        *met.entry(who(pools.read()).await).or_insert(0) += 1;
    }
    assert_eq!(met, BTreeMap::from([(three.west().port, 5), (three.north.port, 5)]));
    assert_eq!(who(pools.write()).await, three.east().port);

    // As with a pool of sqlx's own.
    let port = async |pool: &sqlx::PgPool| -> i32 {
        sqlx::query_scalar("SELECT inet_server_port()").fetch_one(pool).await.unwrap()
    };
    assert_eq!(port(pools.get_pool(QueryIntent::Write)).await, i32::from(three.east().port));
    assert_eq!(port(pools.primary()).await, i32::from(three.east().port));
    assert_ne!(port(pools.get_pool(QueryIntent::Read)).await, i32::from(three.east().port));
    assert_ne!(port(pools.replica().unwrap()).await, i32::from(three.east().port));

    let insert = sqlx::query("INSERT INTO kept VALUES ($1, $2) RETURNING id").bind(1).bind(10);
    let rows = pools.query(QueryIntent::Write, insert).await.unwrap();
    assert_eq!(rows[0].get::<i32, _>(0), 1);
    let mut transaction = pools.begin(QueryIntent::Write).await.unwrap();
    sqlx::query("UPDATE kept SET value = 11").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let mut undone = pools.begin(QueryIntent::Write).await.unwrap();
    sqlx::query("UPDATE kept SET value = 12").execute(&mut *undone).await.unwrap();
    drop(undone);
    assert_eq!(three.east().ask("SELECT value FROM kept").await, "11");
    let mut reading = pools.begin(QueryIntent::Read).await.unwrap();
    let refused = sqlx::query("DELETE FROM kept").execute(&mut *reading).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "25006");
    drop(reading);
    let mut client = pools.client(QueryIntent::Write).await.unwrap();
    sqlx::query("SET application_name = 'mine'").execute(&mut *client).await.unwrap();
    let row = sqlx::query("SHOW application_name").fetch_one(&mut *client).await.unwrap();
    assert_eq!(row.get::<String, _>(0), "mine");

    let metrics = pools.metrics();
    assert_eq!((metrics.pools[0].writes, metrics.pools[1].reads, metrics.pools[2].reads), (2, 5, 5));
    until("only the client's connection is in use", || match pools.metrics().pools[0].utilisation {
        0.1 => Ok(()),
        more => Err(more.to_string()),
    })
    .await;
    assert_eq!(metrics.pools[1].latency.count, 5);
    assert_eq!((metrics.state, metrics.fallbacks, metrics.failovers), (FailoverState::Healthy, 0, 0));
    let health = serde_json::to_value(pools.health().await).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let healthy = serde_json::json!({
        "status": "healthy", "version": version, "db_primary": "connected", "db_replica": "connected",
    });
    assert_eq!(health, healthy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_rows_is_read_as_it_comes_and_its_connection_is_free_when_nobody_reads_on() {
    use futures_util::StreamExt;
    use sqlx::Executor;
    let three = Three::start().await;
    let pools = three.plan().max_connections(1).connect().await.unwrap();
    for _ in 0..3 {
        let mut rows = pools.write().fetch("SELECT generate_series(1, 1000000)");
        let first = rows.next().await.unwrap().unwrap();
        assert_eq!(first.get::<i32, _>(0), 1);
    }
    let all = pools.read().fetch("SELECT generate_series(1, 5000)").collect::<Vec<_>>().await;
    assert_eq!(all.len(), 5000);
    assert!(all.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_avoid_a_standby_that_dies_go_to_the_primary_when_both_are_gone_and_return_when_they_do() {
    let three = Three::start().await;
    let pools = three.plan().connect().await.unwrap();
    who(pools.read()).await;
    who(pools.read()).await;
    three.west().kill().await;
    for _ in 0..6 {
        assert_eq!(who(pools.read()).await, three.north.port, "the one that lives");
    }
    assert_eq!(pools.health().await.status_code(), 503);
    three.north.stop(Shutdown::Fast).await;
    assert_eq!(who(pools.read()).await, three.east().port);
    assert!(pools.replica().is_none());
    assert_eq!(pools.health().await.db_replica, Some("disconnected"));
    assert_eq!(pools.status().state, FailoverState::Degraded);
    assert!(pools.metrics().fallbacks > 0);

    three.west().start().await;
    three.north.start().await;
    until("both are read from again", || match pools.status().state {
        FailoverState::Healthy => Ok(()),
        _ => Err(format!("{:#?}", pools.status())),
    })
    .await;
    // The breaker lets one statement try after its time.
    eventually("a replica answers", SOON, async || {
        if who(pools.read()).await == three.east().port { Err("the primary does".into()) } else { Ok(()) }
    })
    .await;
    assert_eq!(pools.health().await.status_code(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_of_a_dead_server_opens_and_closes_when_it_answers_again() {
    let three = Three::start().await;
    let builder = patient(PoolManager::builder(url(three.east()))).acquire_timeout(Duration::from_millis(500));
    let pools = builder.breaker(3, Duration::from_secs(600)).connect().await.unwrap();
    assert_eq!(who(pools.write()).await, three.east().port);
    three.east().kill().await;
    for _ in 0..3 {
        sqlx::query("SELECT 1").execute(pools.write()).await.unwrap_err();
    }
    let error = sqlx::query("SELECT 1").execute(pools.write()).await.unwrap_err();
    assert!(matches!(PoolError::of(&error), Some(PoolError::CircuitOpen { .. })), "{error:?}");
    assert_ne!(pools.status().servers[0].breaker, "closed");
    three.east().start().await;
    // Long before its ten minutes are over: somebody saw the server answer.
    eventually("a statement is let through", SOON, async || {
        sqlx::query("SELECT 1").execute(pools.write()).await.map_err(|error| error.to_string())
    })
    .await;
    let metrics = pools.metrics();
    assert_eq!((metrics.pools[0].breaker, metrics.pools[0].breaker_openings), ("closed", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_connection_is_taken_who_wants_one_is_told_so_in_time() {
    let three = Three::start().await;
    let builder = PoolManager::builder(url(three.east())).max_connections(2);
    let pools = builder.acquire_timeout(Duration::from_millis(500)).connect().await.unwrap();
    let held = [pools.client(QueryIntent::Write).await.unwrap(), pools.client(QueryIntent::Write).await.unwrap()];
    let error = pools.begin(QueryIntent::Write).await.unwrap_err();
    assert!(matches!(error, PoolError::Exhausted { max: 2, .. }), "{error:?}");
    let metrics = pools.metrics();
    assert_eq!((metrics.pools[0].utilisation, metrics.pools[0].exhausted), (1.0, 1));
    assert_eq!(metrics.pools[0].breaker, "closed", "the server is well");
    drop(held);
    pools.begin(QueryIntent::Write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_every_connection_and_every_task() {
    let three = Three::start().await;
    let pools = three.plan().close_timeout(Duration::ZERO).connect().await.unwrap();
    who(pools.write()).await;
    who(pools.read()).await;
    let held = pools.client(QueryIntent::Write).await.unwrap();
    assert_eq!(pools.close().await, 1, "the one that is held");
    drop(held);
    let error = sqlx::query("SELECT 1").execute(pools.read()).await.unwrap_err();
    assert!(matches!(error, sqlx::Error::PoolClosed), "{error:?}");
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    for cluster in [three.east(), three.west(), &three.north] {
        eventually("nobody is connected", SOON, async || match cluster.ask(open).await.as_str() {
            "0" => Ok(()),
            more => Err(format!("{more} connections to {}", cluster.name)),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_stop_and_start_when_told() {
    let three = Three::start().await;
    let pools = three.plan().health_checks(false).connect().await.unwrap();
    let checked = || pools.status().servers[0].last_health_check.clone();
    let first = checked();
    pools.check_health().await;
    let asked = checked();
    assert_ne!(first, asked, "one that is asked for is made");
    three.west().kill().await;
    let quiet = async || {
        let before = checked();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(checked(), before, "nobody looks by himself, five intervals long");
    };
    quiet().await;
    assert!(pools.status().servers[1].connected);
    pools.start_health_checks();
    until("the loss is noticed", || if pools.status().servers[1].connected { Err("not yet".into()) } else { Ok(()) })
        .await;
    pools.stop_health_checks();
    // One may be under way.
    pools.check_health().await;
    quiet().await;
    assert_eq!(pools.status().servers[0].failure_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_out_a_restart_of_the_only_server_and_those_after_it_are_served_at_once() {
    let pair = Pair::start().await;
    pair.east.run("CREATE TABLE kept (id int PRIMARY KEY, value int); ALTER TABLE kept OWNER TO app").await;
    let east = &pair.east;
    let pools = PoolManager::builder(url(east)).acquire_timeout(SOON).connect().await.unwrap();
    east.stop(Shutdown::Fast).await;
    let write = async |id: i32| sqlx::query("INSERT INTO kept VALUES ($1, 0)").bind(id).execute(pools.write()).await;
    let (first, ()) = tokio::join!(write(1), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        east.start().await;
    });
    first.unwrap();
    write(2).await.unwrap();
    assert_eq!(east.ask("SELECT count(*) FROM kept").await, "2");
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_what_happens_to_the_servers_and_no_password() {
    let kept = Kept::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(kept.clone());
    tracing::subscriber::set_global_default(subscriber.with_ansi(false).finish()).unwrap();
    let three = Three::start().await;
    three.east().run("ALTER ROLE app PASSWORD 'rosebud'").await;
    three.follow().await;
    let secret = |text: String| text.replace("app:app@", "app:rosebud@");
    let builder = PoolManager::builder(secret(url(three.east()))).replica(secret(url(three.west())));
    let builder = builder.acquire_timeout(SOON).reconnect(Duration::from_millis(1), Duration::from_millis(2), 3);
    let pools = builder.health_check_interval(Duration::from_millis(50)).connect().await.unwrap();
    who(pools.read()).await;
    three.west().kill().await;
    until("it is given up", || if pools.status().servers[1].gave_up { Ok(()) } else { Err("not yet".into()) }).await;
    let log = || String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    for (level, words) in [
        ("INFO", "database replica configured, read queries are routed to it"),
        ("INFO", "database connection established"),
        ("WARN", "connection attempt failed"),
        ("ERROR", "failed to establish connection"),
    ] {
        assert!(log().lines().any(|line| line.contains(level) && line.contains(words)), "{words}\n{}", log());
    }
    assert!(!log().contains("rosebud"), "{}", log());
}
