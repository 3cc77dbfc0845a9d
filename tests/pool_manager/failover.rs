//! Another server becomes the primary, ordered by somebody else.

use std::time::Duration;

use pgpivot::client::pool_manager::{FailoverState, PoolError, QueryIntent};
use sqlx::Row;

use crate::cluster::Shutdown;
use crate::eventually::{SOON, eventually};
use crate::stage::{Three, until, who};

#[tokio::test(flavor = "multi_thread")]
async fn writes_follow_a_standby_that_was_promoted_and_never_go_back_to_the_old_primary() {
    let three = Three::start().await;
    let pools = three.plan().connect().await.unwrap();
    sqlx::query("INSERT INTO kept VALUES (1, 1)").execute(pools.write()).await.unwrap();
    three.follow().await;
    three.east().kill().await;
    three.west().promote();
    // It waits for a primary; nothing was sent before there is one.
    sqlx::query("INSERT INTO kept VALUES (2, 2)").execute(pools.write()).await.unwrap();
    assert_eq!(three.west().ask("SELECT count(*) FROM kept").await, "2");
    assert_eq!(pools.metrics().failovers, 1);
    assert_eq!(who(pools.write()).await, three.west().port);
    let port: i32 = sqlx::query_scalar("SELECT inet_server_port()").fetch_one(pools.primary()).await.unwrap();
    assert_eq!(port, i32::from(three.west().port));

    three.east().start().await;
    until(
        "the old primary is seen",
        || {
            if pools.status().servers[0].connected { Ok(()) } else { Err("not yet".into()) }
        },
    )
    .await;
    assert_eq!(pools.status().servers[0].role, "primary", "it says so");
    for number in 3..=10 {
        sqlx::query("INSERT INTO kept VALUES ($1, $1)").bind(number).execute(pools.write()).await.unwrap();
        assert_ne!(who(pools.read()).await, three.east().port);
    }
    assert_eq!(three.east().ask("SELECT count(*) FROM kept").await, "1", "nothing was written there");
    assert_eq!(pools.status().state, FailoverState::RecoveryInProgress);

    three.east().rebuild_as_standby_of(three.west()).await;
    three.west().is_followed_by(three.east()).await;
    eventually("the old primary, a standby now, is read from", SOON, async || {
        if who(pools.read()).await == three.east().port { Ok(()) } else { Err(format!("{:#?}", pools.status())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switch_is_followed_and_no_write_goes_to_the_side_that_was_left() {
    let three = Three::start().await;
    let pools = three.plan().connect().await.unwrap();
    sqlx::query("INSERT INTO kept VALUES (1, 1)").execute(pools.write()).await.unwrap();
    three.east().stop(Shutdown::Fast).await;
    three.west().promote();
    three.east().rebuild_as_standby_of(three.west()).await;
    three.west().is_followed_by(three.east()).await;
    eventually("writes go to the new primary", SOON, async || {
        let insert = "INSERT INTO kept VALUES (2, 2) ON CONFLICT DO NOTHING";
        sqlx::query(insert).execute(pools.write()).await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(who(pools.write()).await, three.west().port);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_a_server_that_became_read_only_fails_once_and_the_primary_is_looked_for() {
    let three = Three::start().await;
    let hasty = three.plan().acquire_timeout(Duration::from_secs(2));
    let pools = hasty.health_checks(false).connect().await.unwrap();
    // As the daemon fences a node.
    three.east().run("ALTER SYSTEM SET default_transaction_read_only = on").await;
    three.east().reload();
    eventually("it refuses writes", SOON, async || {
        let insert = "INSERT INTO kept VALUES (1, 1) ON CONFLICT DO NOTHING";
        let Err(error) = sqlx::query(insert).execute(pools.write()).await else { return Err("it is taken".into()) };
        let code = error.as_database_error().and_then(|error| Some(error.code()?.into_owned()));
        // The second where a look, which a slow connection caused, came first.
        let refused =
            code.as_deref() == Some("25006") || matches!(PoolError::of(&error), Some(PoolError::NoPrimary { .. }));
        if refused { Ok(()) } else { Err(error.to_string()) }
    })
    .await;
    until("it is known", || match pools.status().primary {
        None => Ok(()),
        Some(primary) => Err(primary),
    })
    .await;
    three.west().promote();
    pools.check_health().await;
    assert_eq!(who(pools.write()).await, three.west().port);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_claim_to_be_the_primary_alike_neither_is_written_to() {
    let three = Three::start().await;
    let pools = three.plan().connect().await.unwrap();
    three.east().kill().await;
    three.west().promote();
    three.north.promote();
    eventually("both claims are known", SOON, async || {
        pools.check_health().await;
        match pools.begin(QueryIntent::Write).await {
            Err(PoolError::Contested { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let error = sqlx::query("INSERT INTO kept VALUES (9, 9)").execute(pools.write()).await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains(&three.west().address().to_string()) && told.contains(&three.north.address().to_string()),
        "{told}"
    );
    assert!(sqlx::query("SELECT 1").execute(pools.primary()).await.is_err(), "the pool for writes is closed");
    assert_eq!(pools.status().primary, None);
    three.north.stop(Shutdown::Fast).await;
    sqlx::query("INSERT INTO kept VALUES (9, 9)").execute(pools.write()).await.unwrap();
    let row = sqlx::query("SELECT count(*) FROM kept WHERE id = 9").fetch_one(pools.write()).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 1);
}
