//! `promoter = "postgres"`.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_can_be_ordered_again_and_again() {
    let pair = Pair::start().await;
    let effects = effects(&pair);
    let backend = backend(&pair, "west");
    for _ in 0..3 {
        assert_eq!(effects.promote(&backend, pair.west.address(), Epoch(2), None).await, PromotionResult::Done);
    }
    becomes_primary(&pair.west).await;
    assert_eq!(effects.promote(&backend, pair.west.address(), Epoch(2), None).await, PromotionResult::Done);
    assert_eq!(pair.west.ask("SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)").await, "00000002");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_a_clear_word_is_unknown_and_quickly_so() {
    let pair = Pair::start().await;
    let effects = effects(&pair);
    let backend = backend(&pair, "west");
    let denied = "REVOKE EXECUTE ON FUNCTION pg_promote(boolean, integer) FROM pgpivot";
    as_superuser(&pair.east, denied).await;
    pair.east.is_followed_by(&pair.west).await;
    let said = unknown(effects.promote(&backend, pair.west.address(), Epoch(2), None).await);
    assert!(
        said.ends_with("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO pgpivot, in database postgres"),
        "{said}"
    );
    effects.keep(&[(west(), pair.west.address())]).await;
    pair.west.freeze().await;
    let began = Instant::now();
    unknown(effects.promote(&backend, pair.west.address(), Epoch(2), None).await);
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    pair.west.thaw();
    pair.west.stop(Shutdown::Immediate).await;
    unknown(effects.promote(&backend, pair.west.address(), Epoch(2), None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_without_a_free_slot_is_locked_and_promoted_all_the_same() {
    let pair = Pair::plan().setting("superuser_reserved_connections", "85").start().await;
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
    let done = effects.promote(&backend(&pair, "west"), pair.west.address(), Epoch(2), None).await;
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
    let done = effects.promote(&backend(&pair, "west"), pair.west.address(), Epoch(2), None).await;
    assert_eq!(done, PromotionResult::Done);
    becomes_primary(&pair.west).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_was_frozen_once_takes_writes_when_it_is_promoted() {
    let pair = Pair::start().await;
    let effects = effects(&pair);
    effects.freeze(&east(), pair.east.address(), None).await.unwrap();
    // As after a switchover whose old side was rebuilt from a backup that carries the setting.
    let standby = pair.add_standby("north").await;
    assert_eq!(standby.ask("SHOW default_transaction_read_only").await, "on");
    let mut service = service(&[&pair.east, &pair.west, &standby]);
    let backend = service.backends.remove(2);
    service.backends.push(backend.clone());
    let effects = Effects::build(&service, "test");
    assert_eq!(effects.promote(&backend, standby.address(), Epoch(3), None).await, PromotionResult::Done);
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
        effects.set_sync(&east(), pair.east.address(), "").await.unwrap();
    }
    tokio::time::timeout(SOON, commit).await.expect("the commit still waits").unwrap().unwrap();
    pair.east.run("REVOKE ALTER SYSTEM ON PARAMETER synchronous_standby_names FROM pgpivot").await;
    let error = effects.set_sync(&east(), pair.east.address(), "").await.unwrap_err();
    assert!(error.contains("GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO pgpivot"), "{error}");
}

async fn becomes_primary(server: &Cluster) {
    eventually("it is primary", SOON, async || if server.is_primary().await { Ok(()) } else { Err(server.log_tail()) })
        .await;
}

fn unknown(result: PromotionResult) -> String {
    match result {
        PromotionResult::Unknown(said) => said,
        other => panic!("{other:?}"),
    }
}
