//! Reads after writes, on standbys that lag.

use std::time::Duration;

use pgpivot::client::pool_manager::{PoolManager, QueryIntent, Token};
use sqlx::Row;

use crate::eventually::{SOON, eventually};
use crate::stage::{Three, url, who};

const UPSERT: &str = "INSERT INTO kept VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET value = $1";
const SELECT: &str = "SELECT value FROM kept WHERE id = 1";

async fn value(route: pgpivot::client::pool_manager::Route<'_>) -> Option<i32> {
    let row = sqlx::query(SELECT).fetch_optional(route).await.unwrap();
    row.map(|row| row.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_never_reads_an_old_value_while_replay_lags_by_a_second() {
    let three = Three::start().await;
    for standby in [three.west(), &three.north] {
        standby.run("ALTER SYSTEM SET recovery_min_apply_delay = '1s'").await;
        standby.reload();
    }
    let pools = three.plan().replica_wait(Duration::from_millis(20)).connect().await.unwrap();
    let session = pools.session();
    let mut old = 0;
    for number in 1..=30 {
        sqlx::query(UPSERT).bind(number).execute(session.write()).await.unwrap();
        // The same without the session, to see that there is a lag.
        old += i32::from(value(pools.read()).await != Some(number));
        assert_eq!(value(session.read()).await, Some(number));
    }
    assert!(old > 0, "no standby lagged, so nothing was shown");

    let mut transaction = session.begin(QueryIntent::Write).await.unwrap();
    sqlx::query("UPDATE kept SET value = 99").execute(&mut *transaction).await.unwrap();
    assert_eq!(value(session.read()).await, Some(30), "not committed yet");
    transaction.commit().await.unwrap();
    assert_eq!(value(session.read()).await, Some(99));
    let mut reading = session.begin(QueryIntent::Read).await.unwrap();
    let row = sqlx::query(SELECT).fetch_one(&mut *reading).await.unwrap();
    assert_eq!(row.get::<i32, _>(0), 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_a_replica_that_is_about_to_have_it_and_avoids_one_that_stands_still() {
    let three = Three::start().await;
    let patience = Duration::from_secs(20);
    let pools = three.plan().replica_wait(patience).connect().await.unwrap();
    let session = pools.session();
    for number in 1..=10 {
        sqlx::query(UPSERT).bind(number).execute(session.write()).await.unwrap();
        assert_eq!(value(session.read()).await, Some(number));
    }
    assert_eq!(pools.metrics().fallbacks, 0, "the replicas answered all of them");
    assert_ne!(who(session.read()).await, three.east().port);
    pools.close().await;

    three.follow().await;
    for standby in [three.west(), &three.north] {
        standby.run("SELECT pg_wal_replay_pause()").await;
    }
    let hasty = three.plan().replica_wait(Duration::from_millis(50)).connect().await.unwrap();
    let session = hasty.session();
    sqlx::query(UPSERT).bind(11).execute(session.write()).await.unwrap();
    assert_eq!(value(session.read()).await, Some(11));
    assert_eq!(value(hasty.read()).await, Some(10), "a read that does not ask for it sees what the replica has");
    assert_eq!(who(session.read()).await, three.east().port);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_another_process_see_what_was_written() {
    let three = Three::start().await;
    let [one, other] = [three.plan(), three.plan()];
    let (one, other) = (one.connect().await.unwrap(), other.connect().await.unwrap());
    for standby in [three.west(), &three.north] {
        standby.run("SELECT pg_wal_replay_pause()").await;
    }
    sqlx::query(UPSERT).bind(5).execute(one.write()).await.unwrap();
    let token: Token = one.token().await.unwrap().to_string().parse().unwrap();
    assert_eq!(value(other.read()).await, None);
    assert_eq!(value(other.read().after(token)).await, Some(5));
    assert_eq!(value(other.session_after(token).read()).await, Some(5));
    for standby in [three.west(), &three.north] {
        standby.run("SELECT pg_wal_replay_resume()").await;
    }
    three.follow().await;
    eventually("a replica, which has it by now, answers", SOON, async || {
        if who(other.read().after(token)).await == three.east().port { Err("the primary".into()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replicas_a_session_reads_from_the_primary() {
    let three = Three::start().await;
    let pools = PoolManager::builder(url(three.east())).connect().await.unwrap();
    let session = pools.session();
    sqlx::query(UPSERT).bind(3).execute(session.write()).await.unwrap();
    assert_eq!(value(session.read()).await, Some(3));
    assert_eq!(serde_json::to_value(pools.health().await).unwrap()["db_replica"], serde_json::Value::Null);
}
