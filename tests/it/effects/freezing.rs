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
    let lsn = effects.freeze(&east(), pair.east.address(), None).await.unwrap();

    for client in [&idle_in_transaction, &defiant] {
        let error = client.batch_execute("COMMIT").await.unwrap_err();
        assert!(error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
    }
    let newcomer = app(&pair.east).await;
    let error = newcomer.batch_execute("INSERT INTO ledger VALUES (2, 1, 1, 1)").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
    assert_eq!(effects.read_flush(&east(), pair.east.address(), None).await, Ok(lsn));
    assert_eq!(pair.east.ask("SELECT count(*) FROM ledger").await, "0");
    // Replication was not disturbed: all that is there arrives.
    eventually("the standby has all", SOON, async || {
        let replayed: Lsn = pair.west.ask("SELECT pg_last_wal_replay_lsn()").await.parse().unwrap();
        if replayed >= lsn { Ok(()) } else { Err(format!("{replayed} of {lsn}")) }
    })
    .await;
    assert_eq!(effects.freeze(&east(), pair.east.address(), None).await, Ok(lsn), "a second time does no harm");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undone_freeze_leaves_nothing_behind_however_often_it_is_undone() {
    let pair = Pair::start().await;
    let effects = effects(&pair);
    let before = auto_conf(&pair.east);
    effects.freeze(&east(), pair.east.address(), None).await.unwrap();
    for _ in 0..2 {
        effects.unfreeze(&east(), pair.east.address(), None).await.unwrap();
        let newcomer = app(&pair.east).await;
        newcomer.batch_execute("INSERT INTO ledger SELECT 1 + count(*), 1, 1, 1 FROM ledger").await.unwrap();
    }
    assert_eq!(auto_conf(&pair.east), before);
    effects.unfreeze(&west(), pair.west.address(), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_sessions_survive_a_freeze_and_who_only_takes_our_name_does_not() {
    let pair = Pair::start().await;
    let ours = connect(&pair.east, "pgpivot", "pgpivot/other-daemon/main/1").await;
    let impostor = connect(&pair.east, "app", "pgpivot/other-daemon/main/1").await;
    effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap();
    ours.batch_execute("SELECT 1").await.unwrap();
    impostor.batch_execute("SELECT 1").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_outlives_the_freeze() {
    let pair = Pair::plan().setting("max_prepared_transactions", "5").start().await;
    app(&pair.east)
        .await
        .batch_execute("BEGIN; INSERT INTO ledger VALUES (1, 1, 1, 1); PREPARE TRANSACTION 'two'")
        .await
        .unwrap();
    effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap();
    pair.east.stop(Shutdown::Immediate).await;
    pair.west.promote();
    app(&pair.west).await.batch_execute("COMMIT PREPARED 'two'").await.unwrap();
    assert_eq!(pair.west.ask("SELECT count(*) FROM ledger").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_in_a_transaction_is_named_and_nothing_is_frozen_an_idle_one_hinders_nobody() {
    let pair = Pair::start().await;
    let operator = pair.east.client().await;
    operator.batch_execute("BEGIN; INSERT INTO ledger VALUES (1, 1, 1, 1)").await.unwrap();
    let error = effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap_err();
    assert!(error.contains("1 sessions of superusers (postgres) are in a transaction"), "{error}");
    assert_eq!(pair.east.ask("SHOW default_transaction_read_only").await, "off", "nothing was changed");
    operator.batch_execute("ROLLBACK").await.unwrap();
    let lsn = effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap();
    let error = operator.batch_execute("INSERT INTO ledger VALUES (1, 1, 1, 1)").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
    assert_eq!(effects(&pair).read_flush(&east(), pair.east.address(), None).await, Ok(lsn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_login_ends_superusers_too() {
    let pair = Pair::start().await;
    pair.east.run("ALTER ROLE pgpivot SUPERUSER").await;
    let operator = pair.east.client().await;
    operator.batch_execute("BEGIN; INSERT INTO ledger VALUES (1, 1, 1, 1)").await.unwrap();
    effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap();
    operator.batch_execute("COMMIT").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_overrides_the_freeze_is_named() {
    let pair = Pair::start().await;
    pair.east.run("ALTER ROLE app IN DATABASE app SET default_transaction_read_only = off").await;
    let error = effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap_err();
    assert!(error.starts_with("role app in database app sets default_transaction_read_only itself"), "{error}");
    assert_eq!(pair.east.ask("SHOW default_transaction_read_only").await, "off");
    pair.east.run("ALTER ROLE app IN DATABASE app SET default_transaction_read_only = on").await;
    effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap();
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
        as_superuser(&pair.east, revoke).await;
        let error = effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap_err();
        assert!(error.contains(grant), "{error}");
        as_superuser(&pair.east, grant).await;
    }
    effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_goes_on_moving_is_no_freeze() {
    let pair = Pair::start().await;
    // Somebody past the proxy whom the freeze does not reach.
    let address = pair.east.address();
    let writer = tokio::spawn(async move {
        loop {
            if let Ok(client) = try_connect(address, "pgpivot", "pgpivot/pretends/main/1").await {
                let noise = "SET default_transaction_read_only = off; SELECT txid_current()";
                while client.batch_execute(noise).await.is_ok() {}
            }
        }
    });
    let error = effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap_err();
    writer.abort();
    assert!(error.contains("the log does not stand still"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_and_a_server_that_is_gone_are_not_frozen() {
    let pair = Pair::start().await;
    let effects = effects(&pair);
    let error = effects.freeze(&west(), pair.west.address(), None).await.unwrap_err();
    assert!(error.contains("it is no primary"), "{error}");
    let error = effects.read_flush(&west(), pair.west.address(), None).await.unwrap_err();
    assert!(error.contains("it is no primary"), "{error}");
    pair.east.stop(Shutdown::Immediate).await;
    effects.freeze(&east(), pair.east.address(), None).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_not_waited_for_is_below_the_position_of_the_freeze() {
    let pair = Pair::plan().setting("wal_writer_delay", "2s").start().await;
    let client = app(&pair.east).await;
    client.batch_execute("SET synchronous_commit = off; INSERT INTO ledger VALUES (1, 1, 1, 1)").await.unwrap();
    let lsn = effects(&pair).freeze(&east(), pair.east.address(), None).await.unwrap();
    eventually("the standby has all", SOON, async || {
        let replayed: Lsn = pair.west.ask("SELECT pg_last_wal_replay_lsn()").await.parse().unwrap();
        if replayed >= lsn { Ok(()) } else { Err(format!("{replayed} of {lsn}")) }
    })
    .await;
    assert_eq!(pair.west.ask("SELECT count(*) FROM ledger").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_latched_server_is_frozen_read_and_released() {
    let pair = Pair::start().await;
    let effects = effects(&pair);
    let (east, address) = (east(), pair.east.address());
    let known = latched(&pair.east).await;
    let system_id = SystemId(known.system_id.0 + 1);
    let others = [
        Latched { system_id, ..known.clone() },
        Latched { timeline: Timeline(2), ..known.clone() },
        Latched { node: Some("192.0.2.7:5432".into()), ..known.clone() },
    ];
    for other in others {
        let error = effects.freeze(&east, address, Some(&other)).await.unwrap_err();
        assert!(error.starts_with("this is not the server that is latched: it shows system "), "{error}");
        assert!(error.contains(&format!("at {address}, latched is system {}", other.system_id)), "{error}");
        assert_eq!(pair.east.ask("SHOW default_transaction_read_only").await, "off", "nothing was changed");
        let error = effects.read_flush(&east, address, Some(&other)).await.unwrap_err();
        assert!(error.contains("not the server that is latched"), "{error}");
    }
    let lsn = effects.freeze(&east, address, Some(&known)).await.unwrap();
    assert_eq!(effects.read_flush(&east, address, Some(&known)).await, Ok(lsn));
    let stranger = Latched { system_id, ..known.clone() };
    effects.unfreeze(&east, address, Some(&stranger)).await.unwrap_err();
    assert_eq!(pair.east.ask("SHOW default_transaction_read_only").await, "on", "nothing was changed");
    let revoke = "SET transaction_read_only = off; REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC, pgpivot";
    as_superuser(&pair.east, revoke).await;
    let error = effects.freeze(&east, address, Some(&known)).await.unwrap_err();
    assert!(error.contains("GRANT EXECUTE ON FUNCTION pg_control_system() TO pgpivot"), "{error}");
    effects.unfreeze(&east, address, Some(&known)).await.unwrap();
    assert_eq!(pair.east.ask("SHOW default_transaction_read_only").await, "off");
}

/// As the machine would name it: what its last probe showed.
async fn latched(server: &Cluster) -> Latched {
    let system = server.ask("SELECT system_identifier FROM pg_control_system()").await;
    let timeline = server.ask("SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)").await;
    Latched {
        system_id: SystemId(system.parse().unwrap()),
        timeline: Timeline(u32::from_str_radix(&timeline, 16).unwrap()),
        node: Some(server.address().to_string()),
    }
}
