//! What is sent a second time, and what never: connections are cut after they have carried a statement to the server.

use pgpivot::client::pool_manager::{PoolManager, QueryIntent};
use sqlx::Row;

use crate::cut::Wire;
use crate::eventually::{SOON, eventually};
use crate::stage::{Three, patient, url, url_to};

const WORDS: &str = "marked words";

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_not_sent_again_however_it_is_sent() {
    let three = Three::start().await;
    three.east().run("CREATE TABLE counted (id serial); ALTER TABLE counted OWNER TO app").await;
    let wire = Wire::to(three.east().address(), WORDS, 2).await;
    let pools = patient(PoolManager::builder(url_to(&wire.address.to_string()))).connect().await.unwrap();
    let insert = "INSERT INTO counted DEFAULT VALUES /* marked words */";
    let error = sqlx::raw_sql(insert).execute(pools.write()).await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Io(_)), "{error:?}");
    assert_eq!(wire.carried(), 1);
    eventually("the server, which has got it, carries it out", SOON, async || {
        match three.east().ask("SELECT count(*) FROM counted").await.as_str() {
            "1" => Ok(()),
            count => Err(format!("{count} rows")),
        }
    })
    .await;

    // Prepared, it goes in two steps; it is lost with the first.
    let error = sqlx::query(insert).execute(pools.write()).await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Io(_)), "{error:?}");
    assert_eq!(wire.carried(), 2);
    assert_eq!(pools.metrics().retries, 0);
    sqlx::query(insert).execute(pools.write()).await.unwrap();
    assert_eq!(three.east().ask("SELECT count(*) FROM counted").await, "2", "one of the three was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_answer_is_lost_is_sent_once_more_and_no_oftener() {
    let three = Three::start().await;
    let wire = Wire::to(three.east().address(), WORDS, 3).await;
    let builder = patient(PoolManager::builder(url_to(&wire.address.to_string())));
    // Three failures in a row would open it.
    let pools = builder.breaker(1000, SOON).connect().await.unwrap();
    let select = "SELECT 7 /* marked words */";
    let error = sqlx::query(select).fetch_one(pools.read()).await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Io(_)), "{error:?}");
    assert_eq!((wire.carried(), pools.metrics().retries), (2, 1));
    let row = sqlx::query(select).fetch_one(pools.read()).await.unwrap();
    assert_eq!(row.get::<i32, _>(0), 7);
    assert_eq!((wire.carried(), pools.metrics().retries), (4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_a_replica_let_down_is_answered_by_another_server() {
    let three = Three::start().await;
    let wire = Wire::to(three.west().address(), WORDS, 1000).await;
    let builder = patient(PoolManager::builder(url(three.east()))).replica(url_to(&wire.address.to_string()));
    let pools = builder.connect().await.unwrap();
    let row = sqlx::query("SELECT inet_server_port() /* marked words */").fetch_one(pools.read()).await.unwrap();
    assert_eq!(row.get::<i32, _>(0), i32::from(three.east().port));
    assert_eq!(wire.carried(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_transaction_or_of_several_statements_is_sent_again() {
    let three = Three::start().await;
    let wire = Wire::to(three.east().address(), WORDS, 3).await;
    let pools = patient(PoolManager::builder(url_to(&wire.address.to_string()))).connect().await.unwrap();
    let select = "SELECT 7 /* marked words */";
    let mut reading = pools.begin(QueryIntent::Read).await.unwrap();
    let error = sqlx::query(select).fetch_one(&mut *reading).await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Io(_)), "{error:?}");
    drop(reading);
    assert_eq!(wire.carried(), 1);
    let mut client = pools.client(QueryIntent::Read).await.unwrap();
    sqlx::query(select).fetch_one(&mut *client).await.unwrap_err();
    drop(client);
    assert_eq!(wire.carried(), 2);
    sqlx::raw_sql("SELECT 1; SELECT 2 /* marked words */").execute(pools.read()).await.unwrap_err();
    assert_eq!((wire.carried(), pools.metrics().retries), (3, 0));
}
