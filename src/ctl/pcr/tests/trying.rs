//! Disruptions and tests.

use super::*;

#[tokio::test]
async fn a_cluster_is_disrupted_only_by_its_full_name() {
    let stage = Stage::replicated().await;
    let wrong = stage.proxyctl("simulate disrupt", Some("shop\n")).await;
    assert!(wrong.code == 1 && wrong.err.contains("that is not the name of the cluster"), "{}", wrong.err);
    let given = stage.proxyctl("simulate disrupt --cluster-name east --yes", None).await;
    assert_eq!(given.code, 1, "{}", given.err);
    let nobody = stage.proxyctl("simulate disrupt --yes", None).await;
    assert!(nobody.code == 2 && nobody.err.contains("say --cluster-name shop-east"), "{}", nobody.err);
    let dry = stage.proxyctl("simulate disrupt --dry-run", None).await;
    assert!(dry.code == 0 && dry.words.contains("take us-east-1 down as a whole"), "{}", dry.out);
    assert_eq!(stage.writes(), 0);
    let typed = stage.proxyctl("simulate disrupt", Some("shop-east\n")).await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    let status = stage.proxyctl("simulate status", None).await;
    assert_eq!(status.out, "east is disrupted in us-east-1\nwest is not disrupted\n");
    let restored = stage.proxyctl("simulate restore", None).await;
    assert_eq!((restored.code, restored.out.as_str()), (0, "east is not disrupted any more (it was in us-east-1)\n"));
    assert_eq!(stage.json("simulate status --cluster primary").await[0]["disruptions"], serde_json::json!([]));
}

#[tokio::test]
async fn the_standby_is_disrupted_where_it_is_named_and_a_region_must_be_one() {
    let stage = Stage::replicated().await;
    let line = "simulate disrupt --cluster standby --cluster-name shop-west --region us-west-2";
    assert_eq!(stage.proxyctl(line, None).await.code, 0);
    let status = stage.proxyctl("simulate status --cluster standby", None).await;
    assert_eq!(status.out, "west is disrupted in us-west-2\n");
    let nowhere = stage.proxyctl("simulate disrupt --cluster-name shop-east --region mars", None).await;
    assert!(nowhere.code == 2 && nowhere.err.contains("east has no region mars; it has us-east-1"), "{}", nowhere.err);
}

#[tokio::test]
async fn what_is_protected_or_looks_like_production_is_never_disrupted() {
    let mut settings = quick(Initial::Replicating);
    settings.clusters[1].name = "shop-PRODuction".into();
    let stage = Stage::start(settings).await;
    stage.cloud.set_delete_protection(0, true);
    for (line, words) in [
        ("simulate disrupt --cluster-name shop-east", "delete protection is on"),
        ("simulate disrupt --cluster standby --cluster-name shop-PRODuction", "it is a production cluster"),
        ("test failover --cluster-name shop-east", "delete protection is on"),
        ("test automated --cluster-name shop-east", "delete protection is on"),
    ] {
        let ran = stage.yes(line).await;
        assert!(ran.code == 1 && ran.err.contains(words), "{line}: {}", ran.err);
    }
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn a_connection_test_tells_each_part_and_what_to_do_about_it() {
    let stage = Stage::replicated().await;
    let ran = stage.proxyctl("test connection", None).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.ends_with("7 of 7 checks passed\n"), "{}", ran.out);
    assert!(ran.words.contains("a standby, as it should be"), "{}", ran.out);
    stage.cloud.crash(0).await.unwrap();
    let ran = stage.proxyctl("test connection", None).await;
    assert!(
        ran.code == 1 && ran.words.contains("FAIL SQL of east") && ran.words.contains("IP allow list"),
        "{}",
        ran.out
    );
    stage.cloud.fault(None, ApiFault::Status(401), Times::UntilCleared);
    let ran = stage.proxyctl("test connection", None).await;
    assert!(ran.code == 1 && ran.words.contains("→ the secret key is not accepted"), "{}", ran.out);
    stage.cloud.clear_faults();
    stage.cloud.fault(None, ApiFault::LostBefore, Times::UntilCleared);
    assert_eq!(stage.proxyctl("test connection --json", None).await.code, 2);
}

#[tokio::test]
async fn a_connection_test_knows_which_side_was_promoted() {
    let stage = Stage::failed_over().await;
    let ran = stage.proxyctl("test connection", None).await;
    assert!(ran.code == 1 && ran.words.contains("no stream leads from west to east"), "{}", ran.out);
    assert!(ran.words.contains("→ create one: `proxyctl failback create-stream`"), "{}", ran.out);
}

#[tokio::test]
async fn a_monitoring_test_looks_three_times_and_does_nothing() {
    let stage = Stage::replicated().await;
    let ran = stage.proxyctl("test monitoring --interval 1ms", None).await;
    assert_eq!((ran.code, ran.out.matches("nothing: east serves").count()), (0, 3), "{}", ran.out);
    stage.cloud.crash(0).await.unwrap();
    let ran = stage.proxyctl("test monitoring --interval 1ms", None).await;
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.words.contains("wait: 2 of 3 failures of east"), "{}", ran.out);
    assert!(ran.words.contains("3 failures of east: wait FAILOVER_DELAY"), "{}", ran.out);
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn a_failover_test_watches_the_stream_and_ends_its_disruption() {
    let stage = Stage::replicated().await;
    let id = stage.cloud.stream_id().unwrap().to_owned();
    // Somebody else fails over, as a monitor does.
    let other = async {
        stage.until("the disruption", || stage.cloud.requests(Operation::PutDisruption) == 1).await;
        stage.client.update_stream(id.parse().unwrap(), &StreamUpdate::failover(None)).await.unwrap();
    };
    let (ran, ()) = tokio::join!(stage.proxyctl("test failover --cluster-name shop-east", None), other);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.words.contains("west became active"), "{}", ran.out);
    assert_eq!(stage.json("simulate status --cluster primary").await[0]["disruptions"], serde_json::json!([]));
}

#[tokio::test]
async fn a_failover_test_that_sees_none_ends_its_disruption_though_the_api_is_in_trouble() {
    let stage = Stage::replicated().await;
    let trouble = async {
        stage.until("the disruption", || stage.cloud.requests(Operation::PutDisruption) == 1).await;
        stage.cloud.fault(Operation::PutDisruption, ApiFault::Status(503), Times::Next(1));
    };
    let (ran, ()) = tokio::join!(stage.proxyctl("test failover --cluster-name shop-east --timeout 1s", None), trouble);
    assert!(ran.code == 1 && ran.words.contains("nobody failed over"), "{}{}", ran.out, ran.err);
    assert_eq!(stage.cloud.requests(Operation::PutDisruption), 3);
    assert_eq!(stage.json("simulate status --cluster primary").await[0]["disruptions"], serde_json::json!([]));
}

#[tokio::test]
async fn a_schedule_is_checked_as_a_whole_run_and_reported() {
    let stage = Stage::replicated().await;
    let file = stage.folder.path().join("drill.toml");
    std::fs::write(&file, "schedule = [{ at = 'soon', action = 'disrupt' }, { at = '1s', action = 'dance' }]").unwrap();
    let line = format!("test automated --schedule {} --cluster-name shop-east", file.display());
    let wrong = stage.proxyctl(&line, None).await;
    assert!(
        wrong.code == 2 && wrong.err.contains("step 1: at") && wrong.err.contains("step 2: action"),
        "{}",
        wrong.err
    );
    std::fs::write(
        &file,
        "schedule = [\n{ at = '0s', action = 'disrupt', cluster = 'primary' },\n{ at = '50ms', action = 'status' },\n\
         { at = '100ms', action = 'restore' },\n{ at = '100ms', action = 'disrupt', regions = ['us-east-1'] }]",
    )
    .unwrap();
    let unnamed = stage.proxyctl(&line.replace("shop-east", "shop"), None).await;
    assert_eq!((unnamed.code, stage.writes()), (1, 0), "{}", unnamed.err);
    let ran = stage.proxyctl(&line, None).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["passed"], report["steps"].as_array().unwrap().len()), (&true.into(), 4));
    assert_eq!(report["steps"][1]["seen"]["clusters"][0]["sql"]["answer"], "silent");
    assert_eq!(report["cleared"][0]["ok"], true);
    assert_eq!(stage.json("simulate status --cluster primary").await[0]["disruptions"], serde_json::json!([]));
    let kept = stage.folder.path().join("report.json");
    let ran = stage.proxyctl(&format!("{line} --report {}", kept.display()), None).await;
    assert!(ran.code == 0 && ran.words.contains("the test passed"), "{}{}", ran.out, ran.err);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(kept).unwrap()).unwrap();
    assert_eq!(report["passed"], true);
}

#[tokio::test]
async fn a_setting_is_shown_and_a_dangerous_one_refused() {
    let stage = Stage::replicated().await;
    let ran = stage.proxyctl("settings --setting server.time_until_store_dead --value 15m0s", None).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "SET CLUSTER SETTING server.time_until_store_dead = '15m0s';\n"));
    assert!(ran.err.contains("system virtual cluster"), "{}", ran.err);
    let reset = stage.proxyctl("settings --setting kv.rangefeed.enabled --reset --json", None).await;
    assert_eq!(reset.out, "{\"executed\":false,\"statement\":\"RESET CLUSTER SETTING kv.rangefeed.enabled;\"}\n");
    let short = stage.proxyctl("settings --setting server.time_until_store_dead --value 1m", None).await;
    assert!(short.code == 1 && short.err.contains("cannot be shorter than 1m15s"), "{}", short.err);
    let name = stage.proxyctl("settings --setting a;b --value 1", None).await;
    assert!(name.code == 2 && name.err.contains("is no name of a cluster setting"), "{}", name.err);
}

#[tokio::test]
async fn a_second_region_of_a_schedule_is_disrupted_beside_the_first() {
    let stage = Stage::replicated().await;
    // Of two regions, which the simulated clusters have not.
    let set = std::sync::Mutex::new(serde_json::json!([]));
    let api = Scripted::start(move |asked| {
        let mut set = set.lock().unwrap();
        let shown = |set: &Value| ok(&serde_json::json!({ "regional_disruptor_specifications": set }));
        match asked.line.split_once(' ') {
            Some(("PUT", _)) => {
                let wanted: Value = serde_json::from_str(&asked.body).unwrap();
                *set = wanted.get("regional_disruptor_specifications").cloned().unwrap_or(serde_json::json!([]));
                shown(&set)
            }
            Some(("GET", path)) if path.ends_with("/disrupt") => shown(&set),
            _ => ok(&serde_json::json!({ "id": "00000000-0000-0000-0000-000000000001", "name": "shop-east",
                "delete_protection": "DISABLED", "regions": [{ "name": "r1" }, { "name": "r2" }] })),
        }
    })
    .await;
    let file = stage.folder.path().join("pgpivot.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&stage.cloud.api_url(), &api.url())).unwrap();
    let drill = stage.folder.path().join("drill.toml");
    std::fs::write(
        &drill,
        "schedule = [{ at = '0s', action = 'disrupt', regions = ['r1'] }, { at = '10ms', action = 'disrupt', \
         regions = ['r2'] }]",
    )
    .unwrap();
    let line = format!("test automated --schedule {} --cluster-name shop-east", drill.display());
    let ran = stage.proxyctl(&line, None).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let orders: Vec<_> = api.asked().into_iter().filter(|asked| asked.line.starts_with("PUT ")).collect();
    assert_eq!(orders.len(), 3, "two disruptions and their end");
    assert!(orders[1].body.contains("r1") && orders[1].body.contains("r2"), "{}", orders[1].body);
}
