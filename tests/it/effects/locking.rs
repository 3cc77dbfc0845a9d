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
    let (result, guard) = right.lock(&candidate, 1).await;
    assert_eq!(result, LockResult::Held, "a lock that was let go is free at once");
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
    assert_eq!(right.lock(&all, 1).await.0, LockResult::Held, "what was granted on the way to a failure is given back");
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
