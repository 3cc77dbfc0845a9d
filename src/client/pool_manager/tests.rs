//! The pool manager where no PostgreSQL is needed: settings, secrets, what a statement meets where nobody answers, and
//! CockroachDB, simulated.

use std::time::Duration;

use sqlx::Row;
use tokio::net::TcpListener;

use super::*;

const PASSWORD: &str = "s3cret,of:the@app";
const ESCAPED: &str = "s3cret%2Cof:the%40app";

fn variables<'v>(pairs: &'v [(&'v str, &'v str)]) -> impl Fn(&str) -> Option<String> + 'v {
    move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
}

fn servers(pairs: &[(&str, &str)]) -> Vec<String> {
    let servers = PoolBuilder::from_variables(variables(pairs)).unwrap().servers().unwrap();
    let told = |o: &sqlx::postgres::PgConnectOptions| {
        format!("{}@{}:{}/{}", o.get_username(), o.get_host(), o.get_port(), o.get_database().unwrap_or_default())
    };
    servers.iter().map(told).collect()
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    match PoolBuilder::from_variables(variables(pairs)).and_then(|builder| builder.servers()) {
        Ok(servers) => panic!("{} servers", servers.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn primary_and_replicas_come_from_the_environment() {
    let primary = format!("postgres://app:{ESCAPED}@db1.example.com/shop");
    assert_eq!(servers(&[("DATABASE_URL", &primary)]), ["app@db1.example.com:5432/shop"]);
    let replicas = format!("postgresql://ro:{ESCAPED}@db2:6432/shop, postgres://ro@db3/shop?sslmode=require,");
    assert_eq!(
        servers(&[("DATABASE_URL", &primary), ("DATABASE_REPLICA_URL", &replicas)]),
        ["app@db1.example.com:5432/shop", "ro@db2:6432/shop", "ro@db3:5432/shop"]
    );
}

#[test]
fn without_a_url_the_parts_of_one_will_do() {
    let parts = [
        ("DB_HOST", "db1"),
        ("DB_NAME", "shop"),
        ("DB_USER", "app"),
        ("DB_PASSWORD", PASSWORD),
        ("DB_SSL", "true"),
        ("PGPIVOT_STANDBYS", "db2:5433, db3:5434"),
        ("FAILOVER_HEALTH_CHECK_INTERVAL", "2500"),
    ];
    assert_eq!(servers(&parts), ["app@db1:5432/shop", "app@db2:5433/shop", "app@db3:5434/shop"]);
    let builder = PoolBuilder::from_variables(variables(&parts)).unwrap();
    assert_eq!(builder.limits.interval, Duration::from_millis(2500));
}

#[test]
fn what_is_wrong_is_told_without_the_text_that_may_hold_a_password() {
    let good = ("DATABASE_URL", "postgres://db1/shop");
    let odd = "postgres://app:s3cret/of:the@db/shop";
    let cases = [
        (vec![], "DATABASE_URL is not set"),
        (vec![("DATABASE_URL", odd)], "DATABASE_URL has a host or port that is none"),
        (vec![good, ("DATABASE_REPLICA_URL", "mysql://s3cret@db")], "DATABASE_REPLICA_URL is not a connection URL"),
        (vec![good, ("DATABASE_REPLICA_URL", "postgres://a,s3cret@b")], "DATABASE_REPLICA_URL (2) is not a connection"),
        (
            vec![("DATABASE_URL", "postgres://db?statement-cache-capacity=s3cret")],
            "DATABASE_URL has a part that the driver does not take",
        ),
        (vec![good, ("FAILOVER_HEALTH_CHECK_INTERVAL", "10s")], "FAILOVER_HEALTH_CHECK_INTERVAL must be a number"),
        (vec![good, ("FAILOVER_HEALTH_CHECK_INTERVAL", "1")], "FAILOVER_HEALTH_CHECK_INTERVAL must be from 10 ms"),
        (vec![("DB_HOST", "db"), ("DB_PORT", "0")], "DB_PORT must be a number from 1 to 65535"),
        (vec![("DB_HOST", "db"), ("PGPIVOT_STANDBYS", "db2")], "PGPIVOT_STANDBYS must be host:port"),
    ];
    for (pairs, expected) in cases {
        let told = refusal(&pairs);
        assert!(told.starts_with(expected), "{told:?} for {expected:?}");
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[test]
fn every_number_has_its_bounds() {
    let builder = || PoolManager::builder("postgres://db/shop");
    let (zero, day) = (Duration::ZERO, Duration::from_secs(86_400));
    let many = (0..33).fold(builder(), |builder, _| builder.replica("postgres://db/shop"));
    let wrong = [
        builder().max_connections(0),
        builder().max_connections(10_001),
        builder().acquire_timeout(zero),
        builder().query_timeout(zero),
        builder().reconnect(zero, day, 5),
        builder().reconnect(Duration::from_secs(2), Duration::from_secs(1), 5),
        builder().reconnect(Duration::from_secs(2), Duration::from_secs(32), 1001),
        builder().breaker(0, Duration::from_secs(1)),
        builder().breaker(3, zero),
        builder().health_check_interval(zero),
        builder().check_timeout(day),
        builder().unhealthy_after(0),
        builder().replica_wait(day),
        builder().close_timeout(day),
        many,
    ];
    for (number, builder) in wrong.iter().enumerate() {
        assert!(builder.servers().is_err(), "{number}: {builder:?}");
    }
    let defaults = builder().limits;
    assert_eq!((defaults.max_connections, defaults.acquire_timeout), (10, Duration::from_secs(5)));
    let seconds = Duration::from_secs;
    assert_eq!(defaults.schedule, super::reconnect::Schedule { first: seconds(2), max: seconds(32), attempts: 5 });
    assert!(builder().servers().is_ok());
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn url(address: &str) -> String {
    format!("postgres://app:{ESCAPED}@{address}/shop?sslmode=disable")
}

#[tokio::test]
async fn where_nobody_answers_statements_wait_for_the_time_allowed_and_say_who_could_not_be_reached() {
    let address = nobody().await;
    let patience = Duration::from_millis(400);
    let builder = PoolManager::builder(url(&address)).acquire_timeout(patience);
    let pools = builder.connect().await.unwrap();
    for intent in [QueryIntent::Read, QueryIntent::Write] {
        let began = Instant::now();
        let error = sqlx::query("SELECT 1").execute(pools.route(intent)).await.unwrap_err();
        assert!(
            matches!(PoolError::of(&error), Some(PoolError::Unreachable { server, .. }) if *server == address),
            "{error}"
        );
        assert!(began.elapsed() >= patience);
    }
    assert_eq!(pools.health().await.status_code(), 503);
    assert_eq!(pools.status().state, FailoverState::Unknown);
    assert_eq!(pools.close().await, 0);
    assert!(matches!(pools.begin(QueryIntent::Write).await, Err(PoolError::Closed)));
}

#[tokio::test]
async fn a_server_that_fails_three_times_in_a_row_is_left_alone_and_statements_fail_at_once() {
    let address = nobody().await;
    let builder = PoolManager::builder(url(&address)).acquire_timeout(Duration::from_secs(1));
    let pools = builder.breaker(3, Duration::from_secs(600)).connect().await.unwrap();
    for nth in 1..=3 {
        let began = Instant::now();
        let error = sqlx::query("SELECT 1").execute(pools.write()).await.unwrap_err();
        let told = PoolError::of(&error);
        let expected = match nth {
            3 => matches!(told, Some(PoolError::Unreachable { .. } | PoolError::CircuitOpen { .. })),
            _ => matches!(told, Some(PoolError::Unreachable { .. })),
        };
        assert!(expected && began.elapsed() >= Duration::from_secs(1), "{nth}: {error}");
    }
    let began = Instant::now();
    let error = sqlx::query("SELECT 1").execute(pools.read()).await.unwrap_err();
    assert!(matches!(PoolError::of(&error), Some(PoolError::CircuitOpen { .. })), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1), "the acquire timeout was not waited for");
    assert_eq!((pools.status().servers[0].breaker, pools.metrics().pools[0].breaker_openings), ("open", 1));
}

#[tokio::test]
async fn after_the_last_attempt_a_server_is_given_up_until_a_query_wants_it() {
    let address = nobody().await;
    let milli = Duration::from_millis;
    let builder = PoolManager::builder(url(&address)).reconnect(milli(1), milli(4), 5).acquire_timeout(milli(1));
    let pools = builder.connect().await.unwrap();
    let until = async |gave_up: bool| {
        let mut ticks = tokio::time::interval(milli(5));
        let patience = Instant::now() + Duration::from_secs(30);
        while pools.status().servers[0].gave_up != gave_up {
            assert!(Instant::now() < patience, "{:?}", pools.status());
            ticks.tick().await;
        }
    };
    until(true).await;
    let checks = pools.metrics().failed_checks;
    assert_eq!(checks, 6, "the first and five more");
    let listener = TcpListener::bind(&address).await.unwrap();
    let _ = pools.client(QueryIntent::Read).await;
    // The query made somebody connect, who was not told to otherwise.
    let met = tokio::time::timeout(Duration::from_secs(30), listener.accept()).await;
    met.expect("nobody tries").unwrap();
}

#[tokio::test]
async fn neither_debug_nor_errors_show_a_password() {
    let address = nobody().await;
    let builder = PoolManager::builder(url(&address)).replica(url(&address)).acquire_timeout(Duration::from_millis(50));
    let mut told = format!("{builder:?} {:?}", Address::from(url(&address)));
    let pools = builder.connect().await.unwrap();
    let error = pools.query(QueryIntent::Write, sqlx::query("SELECT 1")).await.unwrap_err();
    let session = pools.session();
    told += &format!(
        "{pools:?} {session:?} {:?} {:?} {error} {error:?}",
        session.read(),
        pools.get_pool(QueryIntent::Read)
    );
    told += &format!("{:?} {:?} {}", pools.status(), pools.health().await, pools.metrics().to_prometheus());
    assert!(told.contains(&address) && !told.contains("s3cret") && !told.contains("app:"), "{told}");
}

#[tokio::test]
async fn a_transaction_needs_a_connection_of_its_own() {
    let pools = PoolManager::builder(url(&nobody().await)).connect().await.unwrap();
    for sql in ["BEGIN", "/* a */ rollback"] {
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pools.write()).await.unwrap_err();
        assert!(matches!(PoolError::of(&error), Some(PoolError::TransactionByHand)), "{error}");
    }
}

#[tokio::test]
async fn when_the_last_clone_is_dropped_nobody_looks_at_the_servers_any_more() {
    let pools = PoolManager::builder(url(&nobody().await)).connect().await.unwrap();
    let fleet = Arc::downgrade(&pools.inner.fleet);
    let clone = pools.clone();
    drop(pools);
    assert!(fleet.upgrade().is_some());
    drop(clone);
    let patience = Instant::now() + Duration::from_secs(30);
    while fleet.upgrade().is_some() {
        assert!(Instant::now() < patience, "a task holds on to the servers");
        tokio::task::yield_now().await;
    }
}

/// On the simulated cluster, which only the daemon's build has.
#[cfg(feature = "daemon")]
#[tokio::test]
async fn a_cockroach_cluster_is_the_primary_and_a_replica_that_is_one_is_left_alone() {
    use crate::sim::Side;
    use crate::sim::cloud::{Cloud, Pace, Settings as Simulated};

    let cloud = Cloud::start(Simulated { pace: Pace::instant(), rate_limit: None, ..Simulated::default() });
    let cloud = cloud.await.unwrap();
    let url = format!("postgres://app@{}/defaultdb?sslmode=disable", cloud.sql_address(Side::East));
    let pools = PoolManager::initialize(url.as_str(), [url.as_str()]).await.unwrap();
    assert!(pools.replica().is_none());
    assert_eq!(pools.status().servers[0].role, "cockroach");
    let session = pools.session();
    let insert = "INSERT INTO commits (id) VALUES ($1)";
    sqlx::query(insert).bind(7_i64).execute(session.write()).await.unwrap();
    let row = sqlx::query("SELECT count(*), max(id) FROM commits").fetch_one(session.read()).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (1, 7));
    assert_eq!(session.token().await.unwrap().unwrap().to_string(), "primary");
    assert_eq!(pools.metrics().pools[1].reads, 0);
    pools.close().await;
}
