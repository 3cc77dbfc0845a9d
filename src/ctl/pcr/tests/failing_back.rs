//! The way to the other side without a daemon, and the way home.

use super::*;

#[tokio::test]
async fn failback_goes_step_by_step_and_says_each_time_what_to_type_next() {
    let stage = Stage::failed_over().await;
    let next = async || stage.json("failback status").await["next"].as_str().unwrap_or("nothing").to_owned();
    assert_eq!(next().await, "proxyctl failback create-stream");
    let asked = stage.proxyctl("failback create-stream", Some("y\n")).await;
    assert_eq!(asked.code, 0, "{}", asked.err);
    assert!(asked.err.contains("EVERYTHING on cluster east (shop-east) is erased"), "{}", asked.err);
    assert_eq!(next().await, "proxyctl failback initiate");
    let ran = stage.proxyctl("failback initiate", Some("y\n")).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("NOTHING FENCES west"), "{}", ran.err);
    assert!(ran.words.contains("east is a cluster of its own as of"), "{}", ran.out);
    let words = &ran.words;
    assert!(words.contains(&format!("send the applications to {} now", stage.cloud.sql_address(0))), "{words}");
    assert!(words.contains("`proxyctl setup` replicates east to west again"), "{words}");
    assert!(stage.cloud.is_serving(0));
    assert_eq!(next().await, "proxyctl setup");
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
    // The first one was the failover.
    assert_eq!(stage.cloud.requests(Operation::PatchStream), 2);
}

#[tokio::test]
async fn failback_full_does_it_all_and_forward_sets_the_pair_up_again_once_the_applications_are_home() {
    let stage = Stage::failed_over().await;
    let ran = stage.yes("failback full --forward").await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.words.contains("stopped before west is erased: send the applications to east first"), "{}", ran.out);
    assert!(stage.cloud.is_serving(0) && stage.cloud.is_serving(1), "west still has what was written there");
    let ran = stage.yes("failback full --forward").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.words.contains("replicates east to west"), "{}", ran.out);
    assert!(stage.cloud.is_serving(0) && !stage.cloud.is_serving(1));
    assert_eq!(stage.streams_to(Which::Primary, StreamStatus::Completed).await, 1);
    assert_eq!(stage.streams_to(Which::Standby, StreamStatus::Replicating).await, 1);
    let status = stage.json("failback status").await;
    assert_eq!((&status["standing"], &status["next"]), (&"at_home".into(), &Value::Null));
}

#[tokio::test]
async fn failback_full_forward_asks_again_before_the_side_that_applications_still_use_is_erased() {
    let stage = Stage::failed_over().await;
    let ran = stage.proxyctl("failback full --forward", Some("y\nn\n")).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("everything on west is ERASED: are all applications moved?"), "{}", ran.err);
    assert!(stage.cloud.is_serving(0) && stage.cloud.is_serving(1));
    let stage = Stage::failed_over().await;
    let ran = stage.proxyctl("failback full --forward", Some("y\ny\n")).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!stage.cloud.is_serving(1));
}

#[tokio::test]
async fn failback_full_that_was_done_says_so_again_and_orders_nothing() {
    let stage = Stage::failed_over().await;
    assert_eq!(stage.yes("failback full").await.code, 0);
    let writes = stage.writes();
    let again = stage.yes("failback full").await;
    assert!(again.code == 0 && again.words.contains("east is a cluster of its own"), "{}{}", again.out, again.err);
    assert_eq!(stage.yes("failback initiate").await.code, 0);
    assert_eq!(stage.writes(), writes);
}

#[tokio::test]
async fn without_a_failover_there_is_nothing_to_fail_back() {
    let stage = Stage::replicated().await;
    for line in ["failback full", "failback create-stream", "failback initiate"] {
        let ran = stage.yes(line).await;
        assert_eq!(ran.code, 1, "{line}: {}", ran.err);
        assert!(ran.err.contains("nothing to fail back"), "{line}: {}", ran.err);
    }
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn a_failback_is_not_begun_before_the_stream_home_has_caught_up() {
    let stage = Stage::failed_over().await;
    let none = stage.yes("failback initiate").await;
    assert!(none.code == 1 && none.err.contains("proxyctl failback create-stream"), "{}", none.err);
    let hour = Duration::from_secs(3600);
    stage.cloud.set_pace(Pace { starting: hour, ..Pace::instant() });
    let late = stage.yes("failback create-stream --timeout 200ms").await;
    assert_eq!(late.code, 1, "{}", late.err);
    let starting = stage.yes("failback initiate").await;
    assert!(starting.code == 1 && starting.err.contains("starts from REPLICATING only"), "{}", starting.err);
    stage.cloud.set_pace(Pace { scan: hour, ..Pace::instant() });
    let scanning = stage.yes("failback initiate").await;
    assert!(scanning.code == 1 && scanning.err.contains("no replicated_time yet"), "{}", scanning.err);
    assert_eq!(stage.cloud.requests(Operation::PatchStream), 1);
}

#[tokio::test]
async fn a_stream_that_lacks_too_much_is_not_failed_over() {
    let stage = Stage::failed_over().await;
    stage.cloud.set_pace(Pace { lag: Duration::from_secs(600), ..Pace::instant() });
    stage.yes("failback create-stream").await;
    // The replicated time begins with the stream, so it is told to have begun long ago by the cloud's clock.
    stage.cloud.crash(1).await.unwrap();
    stage.cloud.set_clock_offset(Duration::from_secs(600), false);
    let ran = stage.yes("failback initiate").await;
    assert!(ran.code == 1 && ran.err.contains("more than the 120 s that max_lag allows"), "{}", ran.err);
    assert_eq!(stage.json("failback status").await["standing"], "behind");
    assert_eq!(stage.cloud.requests(Operation::PatchStream), 1);
}

#[tokio::test]
async fn a_failover_order_whose_reply_is_lost_is_resolved_by_reading() {
    let stage = Stage::failed_over().await;
    stage.yes("failback create-stream").await;
    stage.cloud.fault(Operation::PatchStream, ApiFault::LostAfter, Times::Next(1));
    let ran = stage.yes("failback initiate").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(stage.cloud.requests(Operation::PatchStream), 2);
}

#[tokio::test]
async fn a_failover_order_that_never_arrived_is_not_repeated_by_itself() {
    let stage = Stage::failed_over().await;
    stage.yes("failback create-stream").await;
    stage.cloud.fault(Operation::PatchStream, ApiFault::LostBefore, Times::Next(1));
    let ran = stage.yes("failback initiate").await;
    assert!(ran.code == 1 && ran.err.contains("The stream is still REPLICATING"), "{}", ran.err);
    assert_eq!(stage.cloud.requests(Operation::PatchStream), 2);
    assert_eq!(stage.yes("failback initiate").await.code, 0);
}

#[tokio::test]
async fn a_failover_that_is_under_way_is_only_waited_for() {
    let stage = Stage::failed_over().await;
    stage.yes("failback create-stream").await;
    stage.cloud.hold_failovers(true);
    let late = stage.yes("failback initiate --timeout 200ms").await;
    assert!(late.code == 1 && late.err.contains("FAILING_OVER"), "{}", late.err);
    assert_eq!(stage.json("failback status").await["standing"], "failing_over");
    stage.cloud.hold_failovers(false);
    let ran = stage.proxyctl("failback initiate", None).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(stage.cloud.requests(Operation::PatchStream), 2);
}

#[tokio::test]
async fn a_pinned_stream_of_earlier_times_is_pointed_out() {
    let stage = Stage::failed_over().await;
    stage.configure(&format!("stream_id = '{}'", stage.cloud.stream_id().unwrap()));
    assert_eq!(stage.yes("failback full").await.code, 0);
    let ran = stage.yes("setup").await;
    assert!(ran.code == 0 && ran.err.contains("PCR_STREAM_ID names another stream"), "{}", ran.err);
}

#[tokio::test]
async fn a_failover_without_a_daemon_says_that_nothing_is_fenced() {
    let stage = Stage::replicated().await;
    let serves = stage.yes("failover").await;
    assert!(serves.code == 1 && serves.err.contains("east serves, and without a daemon nothing"), "{}", serves.err);
    let elsewhere = stage.yes("failover --to east --force").await;
    assert!(elsewhere.code == 1 && elsewhere.err.contains("Name the standby"), "{}", elsewhere.err);
    let late = stage.yes("failover --force --at 2099-01-01T00:00:00Z").await;
    assert!(late.code == 1 && late.err.contains("an hour ahead"), "{}", late.err);
    stage.cloud.crash(0).await.unwrap();
    let nobody = stage.proxyctl("failover", None).await;
    assert!(nobody.code == 2 && nobody.err.contains("NOTHING FENCES east (refuses connections)"), "{}", nobody.err);
    assert_eq!(stage.writes(), 0);
    let ran = stage.proxyctl("failover", Some("y\n")).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.words.contains("west is a cluster of its own as of"), "{}", ran.out);
    assert!(stage.cloud.is_serving(1));
    let again = stage.yes("failover").await;
    assert!(again.code == 1 && again.err.contains("proxyctl failback status"), "{}", again.err);
    assert_eq!(stage.writes(), 1);
}

#[tokio::test]
async fn a_primary_that_answers_in_whatever_way_is_failed_over_only_by_force() {
    let stage = Stage::replicated().await;
    for (reach, heard) in [(Reach::Full, "53300"), (Reach::Draining, "57P01")] {
        stage.cloud.set_reach(0, reach).await.unwrap();
        let ran = stage.yes("failover").await;
        assert!(ran.code == 1 && ran.err.contains(heard) && ran.err.contains("--force"), "{reach:?}: {}", ran.err);
        assert!(ran.err.contains("east is not proven to be dead"), "{reach:?}: {}", ran.err);
    }
    assert_eq!(stage.writes(), 0);
    assert_eq!(stage.yes("failover --force").await.code, 0);
}

#[tokio::test]
async fn a_primary_whose_commits_still_arrive_is_failed_over_only_by_force() {
    let stage = Stage::replicated().await;
    for reach in [Reach::Silent, Reach::Refused] {
        stage.cloud.set_reach(0, reach).await.unwrap();
        let ran = stage.yes("failover").await;
        assert!(ran.code == 1 && ran.err.contains("west still receives what east commits"), "{reach:?}: {}", ran.err);
        assert!(ran.err.contains("--force"), "{reach:?}: {}", ran.err);
    }
    assert_eq!(stage.writes(), 0);
    assert_eq!(stage.yes("failover --force").await.code, 0);
}

#[tokio::test]
async fn a_primary_that_is_back_when_the_question_is_answered_is_not_failed_over() {
    let stage = Stage::replicated().await;
    stage.cloud.crash(0).await.unwrap();
    let back = async {
        // What is read once the question is answered.
        stage.until("the next look", || stage.cloud.requests(Operation::GetStream) >= 2).await;
        stage.cloud.revive(0).await.unwrap();
    };
    let (ran, ()) = tokio::join!(stage.proxyctl("failover", Some("y\n")), back);
    // By its answer, or by what it has committed since.
    assert!(ran.code == 1 && ran.err.contains("Go on?") && ran.err.contains("Nothing was done"), "{}", ran.err);
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn what_was_on_its_way_is_waited_for_before_a_primary_counts_as_silent() {
    let stage = Stage::replicated().await;
    // What east commits arrives later than one look after the other.
    stage.cloud.set_pace(Pace { lag: Duration::from_secs(2), ..Pace::instant() });
    stage.cloud.set_reach(0, Reach::Refused).await.unwrap();
    let ran = stage.yes("failover").await;
    assert!(ran.code == 1 && ran.err.contains("west still receives what east commits"), "{}", ran.err);
    assert!(ran.err.contains("wait until east counts as silent: nothing newer than"), "{}", ran.err);
    assert!(ran.err.contains("east refuses connections; its stream has everything up to"), "{}", ran.err);
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn a_primary_that_has_been_dead_for_long_is_failed_over_by_force_alone_and_that_is_said() {
    let stage = Stage::replicated().await;
    stage.cloud.crash(0).await.unwrap();
    stage.cloud.set_clock_offset(Duration::from_secs(600), false);
    let ran = stage.yes("failover").await;
    assert!(ran.code == 1 && ran.err.contains("or east has been dead for that long"), "{}", ran.err);
    assert!(ran.err.contains("say --force"), "{}", ran.err);
    assert_eq!(stage.writes(), 0);
    assert_eq!(stage.yes("failover --force").await.code, 0);
}

#[tokio::test]
async fn a_standby_or_an_api_that_is_away_keeps_a_failover_waiting_with_its_reason() {
    let stage = Stage::replicated().await;
    stage.cloud.crash(0).await.unwrap();
    stage.cloud.set_reach(1, Reach::Refused).await.unwrap();
    let ran = stage.yes("failover --timeout 4s").await;
    assert!(ran.code == 1 && ran.err.contains("west is not heard (refuses connections"), "{}", ran.err);
    stage.cloud.set_reach(1, Reach::Normal).await.unwrap();
    let before = stage.cloud.requests(Operation::GetStream);
    let away = async {
        stage.until("the second look", || stage.cloud.requests(Operation::GetStream) >= before + 2).await;
        stage.cloud.fault(Operation::GetStream, ApiFault::Status(503), Times::UntilCleared);
    };
    let (ran, ()) = tokio::join!(stage.yes("failover --timeout 4s"), away);
    assert!(ran.code == 1 && ran.err.contains("its stream") && ran.err.contains("503"), "{}", ran.err);
    stage.cloud.clear_faults();
    // Nobody has seen it move in the six refreshes before this look.
    let ran = stage.yes("failover").await;
    assert!(ran.code == 1 && ran.err.contains("was not seen to advance in the 6 s before"), "{}", ran.err);
    assert_eq!(stage.writes(), 0);
    assert_eq!(stage.yes("failover --force").await.code, 0);
    assert_eq!(stage.writes(), 1);
}

#[tokio::test]
async fn a_failover_by_others_while_silence_is_waited_for_is_only_watched() {
    let stage = Stage::replicated().await;
    stage.cloud.crash(0).await.unwrap();
    let others = async {
        stage.until("the wait", || stage.cloud.requests(Operation::GetStream) >= 2).await;
        assert!(stage.cloud.fail_over(stage.cloud.stream_id().unwrap()));
    };
    let (ran, ()) = tokio::join!(stage.yes("failover"), others);
    assert!(ran.code == 0 && ran.err.contains("by others meanwhile"), "{}", ran.err);
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn a_stream_that_is_not_the_configured_one_is_not_failed_over() {
    let stage = Stage::replicated().await;
    stage.configure("stream_id = '00000000-0000-0000-0000-000000000009'");
    stage.cloud.crash(0).await.unwrap();
    let ran = stage.yes("failover").await;
    assert!(ran.code == 1 && ran.err.contains("PCR_STREAM_ID"), "{}", ran.err);
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn what_only_a_daemon_can_do_says_that_there_is_none() {
    let stage = Stage::replicated().await;
    for line in ["failover --route-only", "switchover", "restore"] {
        let ran = stage.yes(line).await;
        assert!(ran.code == 2 && ran.err.contains("no pgpivot answers"), "{line}: {}", ran.err);
    }
}
