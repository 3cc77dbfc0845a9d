//! proxyctl as it is typed where clusters replicate: the real program, a `.env`, and a simulated cloud. Without a daemon,
//! and with the real one.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "clusters/stage.rs"]
mod stage;

use std::time::Duration;

use pgpivot::cockroach_cloud::model::StreamStatus;
use pgpivot::sim::cloud::{ApiFault, Auth, Initial, Operation, Pace, Settings, Times};
use pgpivot::types::Secret;
use serde_json::Value;

use stage::{PATIENCE, Stage, quick};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_table_works_with_an_env_file_alone() {
    let stage = Stage::replicated().await;
    for (line, words) in [
        ("status", "does not serve (08000)"),
        ("setup", "replicates primary to standby"),
        ("test connection", "7 of 7 checks passed"),
        ("test monitoring --interval 10ms", "nothing: primary serves"),
        ("test failover --dry-run", "end the disruption, whatever happened"),
        ("test automated --dry-run", "at 10s: disrupt primary"),
        ("failback status", "there is nothing to fail back"),
        ("simulate disrupt --cluster-name shop-east", "primary (shop-east) is disrupted in us-east-1"),
        ("simulate status", "primary is disrupted in us-east-1"),
        ("simulate restore", "primary is not disrupted any more"),
        (
            "settings --setting server.time_until_store_dead --value 15m0s",
            "SET CLUSTER SETTING server.time_until_store_dead = '15m0s';",
        ),
        ("debug", "x_added_later"),
    ] {
        let ran = stage.run(line).await;
        assert_eq!(ran.code, 0, "{line}: {}{}", ran.out, ran.err);
        assert!(ran.words.contains(words), "{line}: {}", ran.out);
        assert!(!format!("{}{}", ran.out, ran.err).contains(stage.cloud.secret().expose()), "{line} shows the secret");
        let json = stage.run(&format!("{line} --json")).await;
        let lines: Vec<_> = json.out.lines().map(serde_json::from_str::<Value>).collect();
        assert!(!lines.is_empty() && lines.iter().all(Result::is_ok), "{line} --json: {}", json.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_after_a_failover_leads_home() {
    let stage = Stage::failed_over().await;
    let status = stage.run("failback status").await;
    assert!(status.code == 0 && status.words.contains("proxyctl failback create-stream"), "{}", status.out);
    assert_eq!(stage.run("failback create-stream --yes").await.code, 0);
    let ready = stage.run("failback status").await;
    assert!(ready.words.contains("proxyctl failback initiate"), "{}", ready.out);
    assert_eq!(stage.run("failback initiate --yes").await.code, 0);
    assert!(stage.cloud.is_serving(0));
    assert_eq!(stage.run("setup --yes").await.code, 0);
    assert!(!stage.cloud.is_serving(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_env_file_alone_a_dead_primary_is_failed_over_and_brought_home() {
    let stage = Stage::replicated().await;
    let app = async |cluster: usize, sql: &str| {
        let at = stage.cloud.sql_address(cluster);
        let text = format!("host={} port={} user=app dbname=defaultdb", at.ip(), at.port());
        let (client, connection) = tokio_postgres::connect(&text, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
    };
    app(0, "INSERT INTO commits (id) VALUES (1)").await;
    stage.until("the row has arrived", async || stage.cloud.ids(1) == [1]).await;
    let serves = stage.run("failover --yes").await;
    assert!(serves.code == 1 && serves.err.contains("primary serves, and without a daemon nothing"), "{}", serves.err);

    stage.cloud.crash(0).await.unwrap();
    let nobody = stage.run("failover").await;
    assert!(nobody.code == 2 && nobody.err.contains("NOTHING FENCES primary"), "{}", nobody.err);
    assert_eq!(stage.cloud.requests(Operation::PatchStream), 0);
    let ran = stage.run("failover --yes").await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.words.contains("standby is a cluster of its own as of"), "{}", ran.out);
    assert!(ran.words.contains(&stage.cloud.sql_address(1).to_string()), "where to send the applications: {}", ran.out);
    app(1, "INSERT INTO commits (id) VALUES (2)").await;
    assert_eq!(stage.cloud.taken(Operation::PatchStream), 1);
    let again = stage.run("failover --yes").await;
    assert!(again.code == 1 && again.err.contains("proxyctl failback status"), "{}", again.err);

    stage.cloud.revive(0).await.unwrap();
    let home = stage.run("failback full --forward --yes").await;
    assert_eq!(home.code, 1, "{}{}", home.out, home.err);
    assert!(home.words.contains("stopped before standby is erased"), "{}{}", home.out, home.err);
    assert_eq!((stage.cloud.ids(0), stage.cloud.ids(1)), (vec![1, 2], vec![1, 2]), "nothing is lost or erased");
    assert_eq!(stage.cloud.taken(Operation::PatchStream), 2);
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
    // The applications have been moved; what was said again is meant.
    app(0, "INSERT INTO commits (id) VALUES (3)").await;
    let forward = stage.run("failback full --forward --yes").await;
    assert_eq!(forward.code, 0, "{}{}", forward.out, forward.err);
    stage.until("all is at the standby", async || stage.cloud.ids(1) == [1, 2, 3]).await;
    assert!(stage.cloud.is_serving(0) && !stage.cloud.is_serving(1));
    assert!(!stage.folder.path().join("pgpivot-state").exists(), "it needs no state of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_at_the_question_whether_to_erase_is_a_no_and_so_is_what_was_typed_before() {
    for key in [b"\x03".as_slice(), b"\x04", b"n\n"] {
        let stage = Stage::failed_over().await;
        let (code, screen) =
            stage.typed("failback full --forward", &[("Go on? [y/N]", b"y\ny\n"), ("Go on? [y/N]", key)]).await;
        assert_eq!(code, 1, "{key:?}: {screen}");
        assert!(screen.contains("stopped before standby is erased"), "{key:?}: {screen}");
        assert_eq!(stage.forward().await, [StreamStatus::Completed], "{key:?}: nothing was ordered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_while_a_failover_waits_for_silence_leaves_everything_as_it_is() {
    let stage = Stage::replicated().await;
    stage.cloud.crash(0).await.unwrap();
    let answers: [(&str, &[u8]); 2] = [("Go on? [y/N]", b"y\n"), ("silent at", b"\x03")];
    let (code, screen) = stage.typed("failover", &answers).await;
    assert!(code == 1 && screen.contains("not waiting any longer; nothing was done"), "{code}: {screen}");
    assert_eq!(stage.cloud.requests(Operation::PatchStream), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn failback_full_goes_on_wherever_it_was_killed() {
    let stage = Stage::failed_over().await;
    let patched = stage.cloud.requests(Operation::PatchStream);
    stage.cloud.set_pace(Pace { starting: HOUR, ..Pace::instant() });
    let mut child = stage.spawn("failback full --yes");
    stage.until("the stream starts", async || stage.reverse().await == [StreamStatus::Starting]).await;
    child.kill().await.unwrap();
    // Begun again while it starts, killed in its initial scan.
    let mut child = stage.spawn("failback full --yes");
    stage.cloud.set_pace(Pace { scan: HOUR, ..Pace::instant() });
    stage.until("the initial scan", async || stage.reverse().await == [StreamStatus::Replicating]).await;
    child.kill().await.unwrap();
    assert_eq!(stage.cloud.requests(Operation::PatchStream), patched, "it was failed over without a replicated_time");
    // Begun again in the scan, killed while it fails over.
    stage.cloud.hold_failovers(true);
    let mut child = stage.spawn("failback full --yes");
    stage.cloud.set_pace(Pace::instant());
    stage.until("the failover", async || stage.reverse().await == [StreamStatus::FailingOver]).await;
    child.kill().await.unwrap();
    // Begun again while it fails over: to the end.
    let child = stage.spawn("failback full --yes");
    stage.cloud.hold_failovers(false);
    let ran = stage.ended(child).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.words.contains("primary is a cluster of its own"), "{}", ran.out);
    // And once more, when it is over.
    let again = stage.run("failback full --yes").await;
    assert!(again.code == 0 && again.words.contains("primary is a cluster of its own"), "{}{}", again.out, again.err);
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1, "more than one stream was ordered");
    assert_eq!(stage.cloud.requests(Operation::PatchStream), patched + 1, "it was failed over more than once");
    assert!(stage.cloud.is_serving(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_right_after_the_order_leaves_one_stream_that_is_adopted() {
    let stage = Stage::start(quick(Initial::None)).await;
    // It takes effect at once, and its reply comes too late for the one that is killed.
    stage.cloud.fault(Operation::CreateStream, ApiFault::Slow(Duration::from_millis(1)), Times::Next(1));
    stage.cloud.set_pace(Pace { starting: HOUR, ..Pace::instant() });
    let mut child = stage.spawn("setup --yes");
    stage.until("the order", async || stage.forward().await == [StreamStatus::Starting]).await;
    child.kill().await.unwrap();
    stage.cloud.set_pace(Pace::instant());
    let ran = stage.run("setup --json").await;
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &said["outcome"]), (0, &"adopted".into()), "{}", ran.err);
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_wait_says_that_the_stream_goes_on() {
    let stage = Stage::start(quick(Initial::None)).await;
    stage.cloud.set_pace(Pace { starting: HOUR, ..Pace::instant() });
    let child = stage.spawn("setup --yes");
    stage.until("the wait", async || stage.cloud.requests(Operation::GetStream) > 0).await;
    stage::interrupt(&child);
    let ran = stage.ended(child).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("run the same command again to take it up"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_waiting_for_the_daemon_gets_json_where_json_was_asked_for() {
    let stage = Stage::replicated().await;
    let daemon = stage.daemon("primary", false).await;
    stage.until("armed", async || daemon.is_armed().await).await;
    stage.cloud.hold_failovers(true);
    let child = stage.spawn_with(&daemon, "switchover --yes --json");
    stage.until("the order", async || stage.cloud.requests(Operation::PatchStream) > 0).await;
    stage::interrupt(&child);
    let ran = stage.ended(child).await;
    let said: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
    assert_eq!((ran.code, &said["outcome"]), (1, &"under_way".into()), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_test_that_is_interrupted_ends_its_disruption() {
    let stage = Stage::replicated().await;
    for interrupt in [stage::interrupt, stage::terminate] {
        let before = stage.cloud.requests(Operation::PutDisruption);
        let child = stage.spawn("test failover --cluster-name shop-east");
        stage
            .until("the watch", async || {
                stage.cloud.requests(Operation::PutDisruption) > before && stage.disrupted().await
            })
            .await;
        interrupt(&child);
        let ran = stage.ended(child).await;
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
        assert!(ran.words.contains("the test was interrupted"), "{}", ran.out);
        assert!(!stage.disrupted().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_automated_test_that_is_interrupted_ends_its_disruption_and_reports() {
    let stage = Stage::replicated().await;
    let schedule = r#"[{"at": "0s", "action": "disrupt"}, {"at": "1h", "action": "restore"}]"#;
    std::fs::write(stage.folder.path().join("drill.json"), schedule).unwrap();
    let child = stage.spawn("test automated --schedule drill.json --cluster-name shop-east");
    stage.until("the disruption", async || stage.disrupted().await).await;
    stage::interrupt(&child);
    let ran = stage.ended(child).await;
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &report["interrupted"], &report["passed"]), (1, &true.into(), &false.into()), "{}", ran.err);
    assert!(!stage.disrupted().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_disrupted_that_looks_like_production() {
    let mut settings = quick(Initial::Replicating);
    settings.clusters[0].name = "Prod-shop".into();
    let stage = Stage::start(settings).await;
    for line in ["simulate disrupt --cluster-name Prod-shop --yes", "test failover --cluster-name Prod-shop --yes"] {
        let ran = stage.run(line).await;
        assert!(ran.code == 1 && ran.err.contains("production cluster"), "{line}: {}", ran.err);
    }
    let stage = Stage::replicated().await;
    stage.cloud.set_delete_protection(0, true);
    let ran = stage.run("simulate disrupt --cluster-name shop-east --yes").await;
    assert!(ran.code == 1 && ran.err.contains("delete protection"), "{}", ran.err);
    assert_eq!(stage.cloud.requests(Operation::PutDisruption), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_is_run_at_the_endpoint_with_its_own_login() {
    let users = vec![("app".to_owned(), Secret::new("password".into()))];
    let stage = Stage::start(Settings { auth: Auth::Scram(users), ..quick(Initial::Replicating) }).await;
    let line = "settings --setting server.time_until_store_dead --value 15m0s --execute";
    let none = stage.run(&format!("{line} --yes")).await;
    assert!(none.code == 2 && none.err.contains("PRIMARY_CLUSTER_ENDPOINT"), "{}", none.err);
    let at = stage.cloud.sql_address(0);
    stage.add_env(&format!("PRIMARY_CLUSTER_ENDPOINT=postgresql://app:password@{at}/defaultdb"));
    let nobody = stage.run(line).await;
    assert!(nobody.code == 2 && nobody.err.contains("say --yes"), "{}", nobody.err);
    let ran = stage.run(&format!("{line} --yes")).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "server.time_until_store_dead is 15m0s\n"), "{}", ran.err);
    assert!(ran.err.contains("system virtual cluster") && !ran.err.contains("password"), "{}", ran.err);
    let reset = stage.run("settings --setting server.time_until_store_dead --reset --execute --yes").await;
    assert_eq!((reset.code, reset.out.as_str()), (0, "server.time_until_store_dead is 00:05:00\n"), "{}", reset.err);
    let unknown = stage.run("settings --setting no.such_setting --value 1 --execute --yes").await;
    assert_eq!(unknown.code, 1, "{}", unknown.err);
    let short = stage.run("settings --setting server.time_until_store_dead --value 60s --execute --yes").await;
    assert!(short.code == 1 && short.err.contains("1m15s"), "{}", short.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_env_file_that_is_incomplete_or_wrong_is_explained() {
    let stage = Stage::replicated().await;
    stage.write_env("COCKROACH_API_SECRET_KEY=CCDB1_x\nPRIMARY_CLUSTER_ID=shop\n");
    for line in ["setup --yes", "status", "test connection", "debug"] {
        let ran = stage.run(line).await;
        assert_eq!(ran.code, 2, "{line}: {}{}", ran.out, ran.err);
        assert!(
            ran.err.contains("PRIMARY_CLUSTER_ID") && ran.err.contains("STANDBY_CLUSTER_ID"),
            "{line}: {}",
            ran.err
        );
    }
    stage.write_env("");
    let ran = stage.run("failback status").await;
    assert!(ran.code == 2 && ran.err.contains("COCKROACH_API_SECRET_KEY"), "{}", ran.err);
    assert!(stage.cloud.requests_in_all() == 0 && !stage.folder.path().join("pgpivot-state").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_daemon_traffic_goes_home_through_it() {
    let stage = Stage::failed_over().await;
    let daemon = stage.daemon("standby", false).await;
    let app = daemon.client().await;
    app.simple_query("SELECT 1").await.unwrap();
    let status = stage.run_with(&daemon, "failback status").await;
    assert!(
        status.code == 0 && status.words.contains("proxyctl failback create-stream"),
        "{}{}",
        status.out,
        status.err
    );
    let ran = stage.run_with(&daemon, "failback full --yes").await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(
        ran.err.contains("with the daemon at") && ran.words.contains("the daemon sends clients there"),
        "{}",
        ran.out
    );
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
    assert_eq!(daemon.active().await, "primary");
    // The daemon's own view, not that of the API.
    let shown = stage.run_with(&daemon, "status").await;
    assert!(shown.code == 0 && shown.words.contains("primary since"), "{}", shown.out);
    drop(app);
    let end = tokio::time::Instant::now() + PATIENCE;
    while daemon.client().await.simple_query("SELECT 1").await.is_err() {
        assert!(tokio::time::Instant::now() < end, "clients are not led home");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_daemon_initiate_is_its_restore_and_its_refusal_counts() {
    let stage = Stage::failed_over().await;
    let daemon = stage.daemon("standby", false).await;
    let refused = stage.run_with(&daemon, "failback initiate --yes").await;
    assert!(
        refused.code == 1 && refused.err.contains("no stream leads from standby back to primary"),
        "{}",
        refused.err
    );
    let created = stage.run_with(&daemon, "failback create-stream --yes").await;
    assert_eq!(created.code, 0, "{}", created.err);
    let dry = stage.run_with(&daemon, "failback initiate --dry-run").await;
    assert!(dry.code == 0 && dry.words.contains("hold newcomers"), "{}{}", dry.out, dry.err);
    let ran = stage.run_with(&daemon, "failback initiate --yes").await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(daemon.active().await, "primary");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_daemon_a_killed_failback_goes_on_with_what_the_daemon_does() {
    let stage = Stage::failed_over().await;
    let daemon = stage.daemon("standby", false).await;
    stage.cloud.hold_failovers(true);
    let mut child = stage.spawn_with(&daemon, "failback full --yes");
    stage.until("the failover", async || stage.reverse().await == [StreamStatus::FailingOver]).await;
    child.kill().await.unwrap();
    let patched = stage.cloud.requests(Operation::PatchStream);
    let child = stage.spawn_with(&daemon, "failback full --yes");
    stage.cloud.hold_failovers(false);
    let ran = stage.ended(child).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(daemon.active().await, "primary");
    assert_eq!(stage.cloud.requests(Operation::CreateStream), 1);
    assert_eq!(stage.cloud.requests(Operation::PatchStream), patched, "it was failed over twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_daemon_a_failover_test_watches_it_fail_over() {
    let stage = Stage::replicated().await;
    let daemon = stage.daemon("primary", true).await;
    let dry = stage.run_with(&daemon, "test failover --dry-run").await;
    assert!(dry.code == 0 && dry.words.contains("watch the daemon at http://"), "{}{}", dry.out, dry.err);
    // It counts on a stream whose replicated time it has seen move.
    stage.until("the daemon is armed", async || daemon.is_armed().await).await;
    let ran = stage.run_with(&daemon, "test failover --cluster-name shop-east --timeout 50s").await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.words.contains("standby became active"), "{}", ran.out);
    assert_eq!(daemon.active().await, "standby");
    assert!(!stage.disrupted().await);
}
