//! What the daemon's orders do to real servers, without a daemon: promote, lock, freeze, clear, and their undoing.

use crate::harness::{Cluster, Pair, SOON, Shutdown, eventually};
use pgpivot::config::{self, Config, Promoter, Service, TlsMode};
use pgpivot::failover::action::{LockResult, PromotionResult};
use pgpivot::promote::Effects;
use pgpivot::types::{BackendName, Epoch, Lsn, Secret};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

mod freezing {
    //! A switchover's first half.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_frozen_primary_has_no_client_takes_no_write_and_stands_still() {
        let pair = Pair::start().await;
        let idle_in_transaction = app(&pair.east).await;
        idle_in_transaction.batch_execute("BEGIN; INSERT INTO ledger VALUES (1, 1, 1, 1)").await.unwrap();
        let defiant = app(&pair.east).await;
        defiant.batch_execute("SET default_transaction_read_only = off").await.unwrap();
        let effects = effects(&pair);
        let lsn = effects.freeze(&east(), pair.east.address()).await.unwrap();

        for client in [&idle_in_transaction, &defiant] {
            let error = client.batch_execute("COMMIT").await.unwrap_err();
            assert!(error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
        }
        let newcomer = app(&pair.east).await;
        let error = newcomer.batch_execute("INSERT INTO ledger VALUES (2, 1, 1, 1)").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
        assert_eq!(effects.read_flush(&east(), pair.east.address()).await, Ok(lsn));
        assert_eq!(pair.east.ask("SELECT count(*) FROM ledger").await, "0");
        // Replication was not disturbed: all that is there arrives.
        eventually("the standby has all", SOON, async || {
            let replayed: Lsn = pair.west.ask("SELECT pg_last_wal_replay_lsn()").await.parse().unwrap();
            if replayed >= lsn { Ok(()) } else { Err(format!("{replayed} of {lsn}")) }
        })
        .await;
        assert_eq!(effects.freeze(&east(), pair.east.address()).await, Ok(lsn), "a second time does no harm");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_undone_freeze_leaves_nothing_behind_however_often_it_is_undone() {
        let pair = Pair::start().await;
        let effects = effects(&pair);
        let before = auto_conf(&pair.east);
        effects.freeze(&east(), pair.east.address()).await.unwrap();
        for _ in 0..2 {
            effects.unfreeze(&east(), pair.east.address()).await.unwrap();
            let newcomer = app(&pair.east).await;
            newcomer.batch_execute("INSERT INTO ledger SELECT 1 + count(*), 1, 1, 1 FROM ledger").await.unwrap();
        }
        assert_eq!(auto_conf(&pair.east), before);
        effects.unfreeze(&west(), pair.west.address()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn our_own_sessions_survive_a_freeze_and_who_only_takes_our_name_does_not() {
        let pair = Pair::start().await;
        let ours = connect(&pair.east, "pgpivot", "pgpivot/other-daemon/main/1").await;
        let impostor = connect(&pair.east, "app", "pgpivot/other-daemon/main/1").await;
        effects(&pair).freeze(&east(), pair.east.address()).await.unwrap();
        ours.batch_execute("SELECT 1").await.unwrap();
        impostor.batch_execute("SELECT 1").await.unwrap_err();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_prepared_transaction_outlives_the_freeze() {
        let pair = Pair::plan().setting("max_prepared_transactions", "5").start().await;
        app(&pair.east).await.batch_execute("BEGIN; INSERT INTO ledger VALUES (1, 1, 1, 1); PREPARE TRANSACTION 'two'").await.unwrap();
        effects(&pair).freeze(&east(), pair.east.address()).await.unwrap();
        pair.east.stop(Shutdown::Immediate).await;
        pair.west.promote();
        app(&pair.west).await.batch_execute("COMMIT PREPARED 'two'").await.unwrap();
        assert_eq!(pair.west.ask("SELECT count(*) FROM ledger").await, "1");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_superuser_who_is_connected_is_named_and_the_freeze_fails() {
        let pair = Pair::start().await;
        let _operator = pair.east.client().await;
        let error = effects(&pair).freeze(&east(), pair.east.address()).await.unwrap_err();
        assert!(error.contains("1 sessions of superusers (postgres) cannot be ended"), "{error}");
        pair.east.run("ALTER ROLE pgpivot SUPERUSER").await;
        effects(&pair).freeze(&east(), pair.east.address()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_role_that_overrides_the_freeze_is_named() {
        let pair = Pair::start().await;
        pair.east.run("ALTER ROLE app IN DATABASE app SET default_transaction_read_only = off").await;
        let error = effects(&pair).freeze(&east(), pair.east.address()).await.unwrap_err();
        assert!(error.starts_with("role app in database app sets default_transaction_read_only itself"), "{error}");
        assert_eq!(pair.east.ask("SHOW default_transaction_read_only").await, "off");
        pair.east.run("ALTER ROLE app IN DATABASE app SET default_transaction_read_only = on").await;
        effects(&pair).freeze(&east(), pair.east.address()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_missing_privilege_is_told_with_the_statement_that_grants_it() {
        let pair = Pair::start().await;
        for (revoke, grant) in [
            ("REVOKE pg_read_all_stats FROM pgpivot", "GRANT pg_read_all_stats TO pgpivot"),
            ("REVOKE pg_signal_backend FROM pgpivot", "GRANT pg_signal_backend TO pgpivot"),
            (
                "REVOKE ALTER SYSTEM ON PARAMETER default_transaction_read_only FROM pgpivot",
                "GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only TO pgpivot",
            ),
            (
                "REVOKE EXECUTE ON FUNCTION pg_reload_conf() FROM pgpivot",
                "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO pgpivot",
            ),
        ] {
            pair.east.run(revoke).await;
            let error = effects(&pair).freeze(&east(), pair.east.address()).await.unwrap_err();
            assert!(error.ends_with(grant), "{error}");
            pair.east.run(grant).await;
        }
        effects(&pair).freeze(&east(), pair.east.address()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_that_goes_on_moving_is_no_freeze() {
        let pair = Pair::start().await;
        pair.east.run("CREATE TABLE noise (n int)").await;
        // A superuser past the proxy who sets himself read-write, again and again: out of the freeze's reach.
        let address = pair.east.address();
        let writer = tokio::spawn(async move {
            loop {
                if let Ok(client) = try_connect(address, "pgpivot", "pgpivot/pretends/main/1").await {
                    let noise = "SET default_transaction_read_only = off; SELECT pg_logical_emit_message(false, 'n', 'n')";
                    let _ = client.batch_execute(noise).await;
                }
            }
        });
        pair.east.run("GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) TO pgpivot").await;
        let error = effects(&pair).freeze(&east(), pair.east.address()).await.unwrap_err();
        writer.abort();
        assert!(error.contains("the log does not stand still"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_standby_and_a_server_that_is_gone_are_not_frozen() {
        let pair = Pair::start().await;
        let effects = effects(&pair);
        let error = effects.freeze(&west(), pair.west.address()).await.unwrap_err();
        assert!(error.contains("it is no primary"), "{error}");
        let error = effects.read_flush(&west(), pair.west.address()).await.unwrap_err();
        assert!(error.contains("it is no primary"), "{error}");
        pair.east.stop(Shutdown::Immediate).await;
        effects.freeze(&east(), pair.east.address()).await.unwrap_err();
    }
}

mod promoting {
    //! `promoter = "postgres"`.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_promotion_can_be_ordered_again_and_again() {
        let pair = Pair::start().await;
        let effects = effects(&pair);
        let backend = backend(&pair, "west");
        for _ in 0..3 {
            assert_eq!(effects.promote(&backend, pair.west.address(), Epoch(2)).await, PromotionResult::Done);
        }
        becomes_primary(&pair.west).await;
        assert_eq!(effects.promote(&backend, pair.west.address(), Epoch(2)).await, PromotionResult::Done);
        assert_eq!(pair.west.ask("SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)").await, "00000002");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whatever_is_not_a_clear_word_is_unknown_and_quickly_so() {
        let pair = Pair::start().await;
        let effects = effects(&pair);
        let backend = backend(&pair, "west");
        let denied = "REVOKE EXECUTE ON FUNCTION pg_promote(boolean, integer) FROM pgpivot";
        pair.east.run(denied).await;
        pair.east.is_followed_by(&pair.west).await;
        let said = unknown(effects.promote(&backend, pair.west.address(), Epoch(2)).await);
        assert!(said.ends_with("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO pgpivot"), "{said}");
        effects.keep(&[(west(), pair.west.address())]).await;
        pair.west.freeze().await;
        let began = Instant::now();
        unknown(effects.promote(&backend, pair.west.address(), Epoch(2)).await);
        assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
        pair.west.thaw();
        pair.west.stop(Shutdown::Immediate).await;
        unknown(effects.promote(&backend, pair.west.address(), Epoch(2)).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_standby_without_a_free_slot_is_locked_and_promoted_all_the_same() {
        let pair = Pair::plan().setting("max_connections", "20").start().await;
        let effects = effects(&pair);
        let standby = [(west(), pair.west.address())];
        effects.keep(&standby).await;
        let mut readers = Vec::new();
        while let Ok(reader) = try_connect(pair.west.address(), "app", "reader").await {
            readers.push(reader);
        }
        assert!(readers.len() < 20);
        effects.keep(&standby).await;
        let (result, mut guard) = effects.lock(&standby, 1).await;
        assert_eq!(result, LockResult::Held);
        let done = effects.promote(&backend(&pair, "west"), pair.west.address(), Epoch(2)).await;
        assert_eq!(done, PromotionResult::Done);
        becomes_primary(&pair.west).await;
        assert!(guard.as_mut().unwrap().is_held());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_that_died_while_it_was_kept_costs_no_promotion() {
        let pair = Pair::start().await;
        let effects = effects(&pair);
        let standby = [(west(), pair.west.address())];
        effects.keep(&standby).await;
        pair.west.stop(Shutdown::Fast).await;
        pair.west.start().await;
        let (result, _guard) = effects.lock(&standby, 1).await;
        assert_eq!(result, LockResult::Held);
        let done = effects.promote(&backend(&pair, "west"), pair.west.address(), Epoch(2)).await;
        assert_eq!(done, PromotionResult::Done);
        becomes_primary(&pair.west).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_side_that_was_frozen_once_takes_writes_when_it_is_promoted() {
        let pair = Pair::start().await;
        let effects = effects(&pair);
        effects.freeze(&east(), pair.east.address()).await.unwrap();
        // As after a switchover whose old side was rebuilt from a backup that carries the setting.
        let standby = pair.add_standby("north").await;
        assert_eq!(standby.ask("SHOW default_transaction_read_only").await, "on");
        let mut service = service(&[&pair.east, &pair.west, &standby]);
        let backend = service.backends.remove(2);
        service.backends.push(backend.clone());
        let effects = Effects::build(&service, "test");
        assert_eq!(effects.promote(&backend, standby.address(), Epoch(3)).await, PromotionResult::Done);
        becomes_primary(&standby).await;
        eventually("it takes writes", SOON, async || {
            let newcomer = app(&standby).await;
            newcomer.batch_execute("INSERT INTO ledger VALUES (1, 1, 1, 1)").await.map_err(|error| error.to_string())
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_is_waited_for_at_a_commit_once_sync_is_cleared() {
        let pair = Pair::plan().synchronous().start().await;
        pair.west.stop(Shutdown::Immediate).await;
        let client = app(&pair.east).await;
        let commit = tokio::spawn(async move { client.batch_execute("INSERT INTO ledger VALUES (1, 1, 1, 1)").await });
        let effects = effects(&pair);
        for _ in 0..2 {
            effects.clear_sync(&east(), pair.east.address()).await.unwrap();
        }
        tokio::time::timeout(SOON, commit).await.expect("the commit still waits").unwrap().unwrap();
        pair.east.run("REVOKE ALTER SYSTEM ON PARAMETER synchronous_standby_names FROM pgpivot").await;
        let error = effects.clear_sync(&east(), pair.east.address()).await.unwrap_err();
        assert!(error.ends_with("GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO pgpivot"), "{error}");
    }

    async fn becomes_primary(server: &Cluster) {
        eventually("it is primary", SOON, async || {
            if server.is_primary().await { Ok(()) } else { Err(server.log_tail()) }
        })
        .await;
    }

    fn unknown(result: PromotionResult) -> String {
        match result {
            PromotionResult::Unknown(said) => said,
            other => panic!("{other:?}"),
        }
    }
}

mod locking {
    //! Two daemons, one candidate.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_daemons_one_has_the_lock_through_the_promotion_and_the_other_after_it() {
        let pair = Pair::start().await;
        let (left, right) = (effects(&pair), effects(&pair));
        let candidate = [(west(), pair.west.address())];
        left.set_epoch(Epoch(4));
        let (result, guard) = left.lock(&candidate, 1).await;
        assert_eq!(result, LockResult::Held);
        let names = "SELECT string_agg(application_name, ' ') FROM pg_locks JOIN pg_stat_activity USING (pid) \
                     WHERE locktype = 'advisory' AND classid = 1885827190 AND objsubid = 2";
        assert_eq!(pair.west.ask(names).await, "pgpivot/test/main/4");
        assert_eq!(right.lock(&candidate, 1).await.0, LockResult::Busy);
        pair.west.promote();
        let mut guard = guard.unwrap();
        assert!(guard.is_held());
        assert_eq!(right.lock(&candidate, 1).await.0, LockResult::Busy);
        guard.release().await;
        // The server lets go when it reads the farewell.
        let (result, guard) = eventually("the lock is free", SOON, async || match right.lock(&candidate, 1).await {
            (LockResult::Busy, _) => Err("busy".to_owned()),
            other => Ok(other),
        })
        .await;
        assert_eq!(result, LockResult::Held);
        drop(guard);
        eventually("dropping it frees it as well", SOON, async || match left.lock(&candidate, 1).await.0 {
            LockResult::Held => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lock_whose_server_dies_is_lost() {
        let pair = Pair::start().await;
        let effects = effects(&pair);
        let (_, guard) = effects.lock(&[(west(), pair.west.address())], 1).await;
        let mut guard = guard.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(200), guard.lost()).await;
        assert!(early.is_err() && guard.is_held());
        pair.west.kill().await;
        tokio::time::timeout(SOON, guard.lost()).await.expect("the loss is not told");
        assert!(!guard.is_held());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_majority_is_enough_and_less_is_busy_or_failed() {
        let pair = Pair::start().await;
        let north = pair.add_standby("north").await;
        let service = service(&[&pair.east, &pair.west, &north]);
        let (left, right) = (Effects::build(&service, "left"), Effects::build(&service, "right"));
        let all = [(east(), pair.east.address()), (west(), pair.west.address()), ("north".into(), north.address())];
        pair.east.stop(Shutdown::Immediate).await;
        let (result, guard) = left.lock(&all, 2).await;
        assert_eq!(result, LockResult::Held);
        assert_eq!(right.lock(&all, 2).await.0, LockResult::Busy);
        guard.unwrap().release().await;
        north.stop(Shutdown::Immediate).await;
        assert!(matches!(left.lock(&all, 2).await.0, LockResult::Failed(_)));
        // What was granted on the way to a failure is given back.
        eventually("nothing is left", SOON, async || match right.lock(&all, 1).await.0 {
            LockResult::Held => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_does_not_answer_keeps_nobody_for_long() {
        let pair = Pair::start().await;
        let effects = effects(&pair);
        pair.west.freeze().await;
        let began = Instant::now();
        let (result, guard) = effects.lock(&[(west(), pair.west.address())], 1).await;
        assert!(matches!(result, LockResult::Failed(_)) && guard.is_none(), "{result:?}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        pair.west.thaw();
    }
}

fn east() -> BackendName {
    "east".into()
}

fn west() -> BackendName {
    "west".into()
}

fn effects(pair: &Pair) -> Effects {
    Effects::build(&service(&[&pair.east, &pair.west]), "test")
}

fn backend(pair: &Pair, name: &str) -> config::Backend {
    let backends = service(&[&pair.east, &pair.west]).backends;
    backends.into_iter().find(|backend| backend.name.as_str() == name).unwrap()
}

async fn app(server: &Cluster) -> tokio_postgres::Client {
    connect(server, "app", "an application").await
}

async fn connect(server: &Cluster, user: &str, name: &str) -> tokio_postgres::Client {
    try_connect(server.address(), user, name).await.unwrap_or_else(|error| panic!("{error}\n{}", server.log_tail()))
}

async fn try_connect(to: SocketAddr, user: &str, name: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(to.ip().to_string()).port(to.port()).user(user).password(user).dbname("app").application_name(name);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn auto_conf(server: &Cluster) -> String {
    std::fs::read_to_string(server.data().join("postgresql.auto.conf")).unwrap()
}
