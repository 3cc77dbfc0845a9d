//! Replication between clusters of the simulated cloud, and failover through the API.

use super::*;

#[tokio::test]
async fn a_failover_gives_the_standby_what_had_arrived_and_leaves_the_old_primary_serving() {
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    east.batch_execute("INSERT INTO commits (id) VALUES (1), (2)").await.unwrap();
    until("the rows have arrived", || cloud.ids(Side::West) == [1, 2]).await;
    assert_eq!(refusal(&cloud, Side::West, "").await, "08000");
    assert!(!cloud.is_serving(Side::West));

    fail_over(&cloud).await;
    assert_eq!(cloud.requests(Operation::PatchStream), 1);
    assert_eq!(cloud.last_body(Operation::PatchStream).as_deref(), Some(r#"{"status":"FAILING_OVER"}"#));
    let stream = get(&cloud, &stream_path(&cloud)).await;
    assert_eq!(stream["status"], "COMPLETED");
    assert!(stream["activated_at"].is_string() && stream.get("replicated_time").is_none(), "{stream}");

    let west = connect(&cloud, Side::West).await;
    west.batch_execute("INSERT INTO commits (id) VALUES (3)").await.unwrap();
    east.batch_execute("INSERT INTO commits (id) VALUES (4)").await.unwrap();
    assert_eq!(cloud.ids(Side::West), [1, 2, 3]);
    assert_eq!(cloud.ids(Side::East), [1, 2, 4], "two primaries, as in life: nothing fences the old one");
}

#[tokio::test]
async fn what_was_committed_within_the_lag_is_lost() {
    let pace = Pace { lag: Duration::from_secs(3600), ..Pace::instant() };
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    east.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    until("the first row has arrived", || cloud.ids(Side::West) == [1]).await;
    cloud.set_pace(pace);
    east.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();
    cloud.crash(Side::East).await.unwrap();
    fail_over(&cloud).await;
    assert_eq!(cloud.ids(Side::West), [1]);
    assert_eq!(cloud.ids(Side::East), [1, 2], "acknowledged, and only on the dead side");
}

#[tokio::test]
async fn a_stream_shows_the_fields_that_its_status_has() {
    let day = Duration::from_secs(86_400);
    let pace = Pace { starting: day, scan: day, failover: day, ..Pace::instant() };
    let cloud = start(Settings { pace, initial: Initial::Starting, ..quick() }).await;
    let path = stream_path(&cloud);
    let has = |stream: &Value, names: [&str; 6]| names.map(|name| stream.get(name).is_some());
    let names =
        ["replicated_time", "replication_lag_seconds", "retained_time", "failover_at", "activated_at", "canceled_at"];

    let stream = get(&cloud, &path).await;
    assert_eq!((&stream["status"], has(&stream, names)), (&json!("STARTING"), [false; 6]));
    cloud.set_pace(Pace { starting: Duration::ZERO, ..pace });
    let stream = get(&cloud, &path).await;
    assert_eq!((&stream["status"], has(&stream, names)), (&json!("REPLICATING"), [false; 6]), "the initial scan");
    cloud.set_pace(Pace { failover: day, ..Pace::instant() });
    let stream = get(&cloud, &path).await;
    assert_eq!(has(&stream, names), [true, true, true, false, false, false], "{stream}");

    let future = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600);
    let stream = patch(&cloud, json!({"status": "FAILING_OVER", "failover_at": future.to_string()})).await.json();
    assert_eq!(
        (&stream["status"], has(&stream, names)),
        (&json!("FAILING_OVER"), [false, false, false, true, false, false])
    );
    assert_eq!(
        stream["failover_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second(),
        future.as_second()
    );
}

#[tokio::test]
async fn a_failover_may_go_back_to_the_retained_time_and_an_hour_ahead_and_no_further() {
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    east.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    until("the first row has arrived", || cloud.ids(Side::West) == [1]).await;
    let between = jiff::Timestamp::now();
    until("the clock has moved", || jiff::Timestamp::now() > between + jiff::SignedDuration::from_millis(1)).await;
    east.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();
    until("both rows have arrived", || cloud.ids(Side::West) == [1, 2]).await;

    let refused = |at: jiff::Timestamp| {
        let body = json!({"status": "FAILING_OVER", "failover_at": at.to_string()});
        let cloud = &cloud;
        async move { patch(cloud, body).await }
    };
    for wrong in [-3600 * 24, 3700] {
        let answer = refused(between + jiff::SignedDuration::from_secs(wrong)).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(3)), "{}", answer.text);
    }
    let answer = patch(&cloud, json!({"status": "FAILING_OVER", "failover_at": "yesterday"})).await;
    assert_eq!(answer.status, 400);
    let answer = patch(&cloud, json!({"status": "FAILING_OVER", "failover_at": between.to_string()})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.json().get("failover_at").is_none(), "it is in the past");
    completed(&cloud, cloud.stream_id().unwrap()).await;
    assert_eq!(cloud.ids(Side::West), [1]);
}

#[tokio::test]
async fn a_failover_in_the_future_waits_for_its_time_and_takes_what_is_committed_until_then() {
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    let answer = patch(&cloud, json!({"status": "FAILING_OVER", "failover_at": at.to_string()})).await;
    assert_eq!(answer.json()["status"], "FAILING_OVER");
    east.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    let in_time = jiff::Timestamp::now() < at;
    completed(&cloud, cloud.stream_id().unwrap()).await;
    assert!(jiff::Timestamp::now() >= at);
    assert_eq!(cloud.ids(Side::West) == [1], in_time);
}

#[tokio::test]
async fn only_a_replicating_stream_can_be_failed_over_or_canceled() {
    let pace = Pace { starting: Duration::from_secs(86_400), ..Pace::instant() };
    let cloud = start(Settings { pace, initial: Initial::Starting, ..quick() }).await;
    let refused = |body: Value, why: &'static str| {
        let cloud = &cloud;
        async move {
            let answer = patch(cloud, body).await;
            assert_eq!(answer.status, 400, "{why}: {}", answer.text);
            assert!(answer.json()["message"].is_string() && answer.json()["code"].is_i64(), "{why}");
        }
    };
    refused(json!({"status": "FAILING_OVER"}), "it starts").await;
    refused(json!({"status": "CANCELED"}), "it starts").await;
    cloud.set_pace(Pace { failover: Duration::from_secs(86_400), ..Pace::instant() });
    refused(json!({"status": "COMPLETED"}), "not by hand").await;
    refused(json!({"status": "RUNNING"}), "no such status").await;
    refused(json!({"failover_at": null}), "no status").await;
    assert_eq!(patch(&cloud, json!({"status": "FAILING_OVER"})).await.status, 200);
    refused(json!({"status": "FAILING_OVER"}), "it fails over already").await;
    refused(json!({"status": "CANCELED"}), "it fails over already").await;
    cloud.set_pace(Pace::instant());
    completed(&cloud, cloud.stream_id().unwrap()).await;
    refused(json!({"status": "FAILING_OVER"}), "it is over").await;
}

#[tokio::test]
async fn a_canceled_stream_leaves_its_standby_empty_and_out_of_service() {
    let cloud = start(quick()).await;
    assert_eq!(patch(&cloud, json!({"status": "CANCELED"})).await.json()["status"], "CANCELED");
    assert!(get(&cloud, &stream_path(&cloud)).await["canceled_at"].is_string());
    assert_eq!(refusal(&cloud, Side::West, "").await, "08000");
    let list = get(&cloud, "physical-replication-streams").await;
    assert_eq!(list["physical_replication_streams"][0]["status"], "CANCELED");
}

#[tokio::test]
async fn a_failback_erases_the_old_primary_and_brings_the_data_home() {
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    east.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    until("the row has arrived", || cloud.ids(Side::West) == [1]).await;
    fail_over(&cloud).await;
    east.batch_execute("INSERT INTO commits (id) VALUES (100)").await.unwrap();
    connect(&cloud, Side::West).await.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();

    let back = create(&cloud, Side::West, Side::East).await;
    until("sessions of the old primary are ended", || east.is_closed()).await;
    assert_eq!(refusal(&cloud, Side::East, "").await, "08000");
    until("the data have come", || cloud.ids(Side::East) == [1, 2]).await;
    let path = format!("physical-replication-streams/{back}");
    assert_eq!(call(&cloud, "PATCH", &path, Some(json!({"status": "FAILING_OVER"}))).await.status, 200);
    completed(&cloud, &back).await;
    assert_eq!(cloud.ids(Side::East), [1, 2], "row 100 is gone");
    connect(&cloud, Side::East).await.batch_execute("SELECT 1").await.unwrap();

    let hidden = get(&cloud, "physical-replication-streams").await;
    assert_eq!(hidden["physical_replication_streams"], json!([]), "completed ones only when asked for");
    let all = get(&cloud, "physical-replication-streams?show_completed=true").await;
    assert_eq!(all["physical_replication_streams"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn two_streams_run_beside_each_other_and_a_cluster_has_room_for_one_into_it() {
    let mut settings = quick();
    let third = ClusterSettings { name: "third".into(), region: "eu-west-1".into(), ..settings.clusters[0].clone() };
    settings.clusters.push(third);
    let cloud = start(settings).await;
    let second = create(&cloud, Side::East, 2).await;
    connect(&cloud, Side::East).await.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    until("the row has arrived everywhere", || cloud.ids(Side::West) == [1] && cloud.ids(2) == [1]).await;
    for (primary, standby) in [(0, 2), (0, 1), (1, 2), (1, 0), (0, 0)] {
        let body = json!({
            "primary_cluster_id": cloud.cluster_id(primary),
            "standby_cluster_id": cloud.cluster_id(standby),
        });
        let answer = call(&cloud, "POST", "physical-replication-streams", Some(body)).await;
        assert_eq!(answer.status, 400, "{primary} to {standby}: {}", answer.text);
    }
    fail_over(&cloud).await;
    assert_eq!(cloud.stream_status(&second), Some("REPLICATING"));
    assert!(cloud.is_serving(Side::West) && !cloud.is_serving(2));
}

#[tokio::test]
async fn a_failover_that_is_held_gets_to_its_end_when_it_is_let_go() {
    let cloud = start(quick()).await;
    cloud.hold_failovers(true);
    patch(&cloud, json!({"status": "FAILING_OVER"})).await;
    assert_eq!(get(&cloud, &stream_path(&cloud)).await["status"], "FAILING_OVER");
    assert_eq!(refusal(&cloud, Side::West, "").await, "08000");
    cloud.hold_failovers(false);
    assert_eq!(get(&cloud, &stream_path(&cloud)).await["status"], "COMPLETED");
}

#[tokio::test]
async fn somebody_else_may_steer_the_cloud_behind_the_apis_back() {
    let cloud = start(quick()).await;
    let first = cloud.stream_id().unwrap().to_owned();
    cloud.disrupt(Side::East, true).await;
    assert!(cloud.fail_over(&first) && !cloud.fail_over(&first) && !cloud.cancel(&first));
    completed(&cloud, &first).await;
    connect(&cloud, Side::West).await.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    cloud.disrupt(Side::East, false).await;
    let back = cloud.create_stream(Side::West, Side::East).unwrap();
    assert_eq!(cloud.create_stream(Side::West, Side::East), None);
    until("the row has arrived", || cloud.ids(Side::East) == [1]).await;
    assert!(!cloud.set_service(Side::East, true), "it is a standby");
    assert!(cloud.cancel(&back));
    assert_eq!(cloud.requests_in_all(), 0);
    assert!(cloud.set_service(Side::West, false));
    assert_eq!(refusal(&cloud, Side::West, "").await, "08000");
}

#[tokio::test]
async fn a_stream_can_be_doubled_canceled_in_its_failover_and_forgotten() {
    let cloud =
        start(Settings { pace: Pace { failover: Duration::from_secs(3600), ..Pace::instant() }, ..quick() }).await;
    let first = cloud.stream_id().unwrap().to_owned();
    let second = cloud.plant_stream(Side::East, Side::West);
    let list = get(&cloud, "physical-replication-streams").await;
    let listed: Vec<_> = list["physical_replication_streams"].as_array().unwrap().iter().map(|s| &s["id"]).collect();
    assert_eq!(listed.len(), 2, "{list}");
    assert!(listed.contains(&&json!(first)) && listed.contains(&&json!(second)), "{list}");
    assert_eq!(cloud.stream_status(&second), Some("REPLICATING"));
    assert!(cloud.cancel(&second) && !cloud.break_off(&second), "it has ended");
    patch(&cloud, json!({"status": "FAILING_OVER"})).await;
    assert_eq!((cloud.requests(Operation::PatchStream), cloud.taken(Operation::PatchStream)), (1, 1));
    assert!(!cloud.cancel(&first) && cloud.break_off(&first));
    assert_eq!(get(&cloud, &stream_path(&cloud)).await["status"], "CANCELED");
    assert!(!cloud.is_serving(Side::West), "it was never promoted");
    assert!(cloud.forget_stream(&first) && !cloud.forget_stream(&first));
    assert_eq!(cloud.stream_status(&first), None);
}
