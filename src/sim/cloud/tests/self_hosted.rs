//! Failover by SQL on the system virtual cluster, as self-hosted clusters have it.

use super::*;

fn self_hosted() -> Settings {
    Settings { mode: Mode::SelfHosted, ..quick() }
}

/// One text column of the first row.
async fn show(client: &Client, sql: &str, column: &str) -> String {
    let row = client.query_one(sql, &[]).await.unwrap();
    row.get::<_, Option<&str>>(column).unwrap_or("NULL").to_owned()
}

const STATUS: &str = "SHOW VIRTUAL CLUSTER main WITH REPLICATION STATUS";

async fn job(client: &Client) -> i64 {
    let sql = "SELECT job_id FROM [SHOW JOBS] WHERE job_type = 'REPLICATION STREAM INGESTION'";
    client.query(sql, &[]).await.unwrap().last().unwrap().get("job_id")
}

#[tokio::test]
async fn a_promoted_cluster_serves_nobody_until_its_service_is_started() {
    let cloud = start(self_hosted()).await;
    connect(&cloud, Side::East).await.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    until("the row has arrived", || cloud.ids(Side::West) == [1]).await;
    let west = system(&cloud, Side::West).await;
    assert_eq!(show(&west, STATUS, "status").await, "replicating");
    let row = west.query_one(STATUS, &[]).await.unwrap();
    assert!(row.get::<_, Option<std::time::SystemTime>>("replicated_time").is_some());
    let texts = west.simple_query(STATUS).await.unwrap();
    let tokio_postgres::SimpleQueryMessage::Row(text) = &texts[1] else { panic!("{texts:?}") };
    assert!(text.get("replication_lag").unwrap().starts_with("00:00:0"), "{text:?}");
    assert_eq!(text.get("failover_time"), None);

    let begun = west.simple_query("ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO LATEST").await.unwrap();
    let tokio_postgres::SimpleQueryMessage::Row(begun) = &begun[1] else { panic!("{begun:?}") };
    assert!(begun.get("failover_time").unwrap().ends_with(".0000000000"));
    let id = job(&west).await;
    assert_eq!(show(&west, &format!("SHOW JOB WHEN COMPLETE {id}"), "status").await, "succeeded");
    assert_eq!(show(&west, STATUS, "status").await, "ready");
    assert_eq!(show(&west, "SHOW VIRTUAL CLUSTER main", "service_mode").await, "none");
    assert_eq!(refusal(&cloud, Side::West, "").await, "08000", "promoted, and not serving");

    west.batch_execute(
        "ALTER VIRTUAL CLUSTER \"main\" START SERVICE SHARED;
         SET CLUSTER SETTING server.controller.default_target_cluster = 'main'",
    )
    .await
    .unwrap();
    assert_eq!(show(&west, "SHOW VIRTUAL CLUSTER main", "service_mode").await, "shared");
    assert_eq!(connect(&cloud, Side::West).await.query("SELECT id FROM commits", &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn stopping_the_service_ends_the_sessions_of_clients_and_keeps_the_system_one() {
    let cloud = start(self_hosted()).await;
    let (app, east) = (connect(&cloud, Side::East).await, system(&cloud, Side::East).await);
    cloud.hang_stop_service(Side::East, true);
    let mut stop = Box::pin(east.batch_execute("ALTER VIRTUAL CLUSTER main STOP SERVICE"));
    let hung = tokio::select! { _ = &mut stop => false, () = sleep(Duration::from_millis(50)) => true };
    assert!(hung && cloud.is_serving(Side::East));
    cloud.hang_stop_service(Side::East, false);
    stop.await.unwrap();
    until("the client is ended", || app.is_closed()).await;
    assert_eq!(refusal(&cloud, Side::East, "").await, "08000");
    assert_eq!(show(&east, "SHOW VIRTUAL CLUSTER main", "data_state").await, "ready");
    east.batch_execute("ALTER VIRTUAL CLUSTER main START SERVICE SHARED").await.unwrap();
    connect(&cloud, Side::East).await.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_job_that_fails_during_the_failover_never_gets_there() {
    let cloud = start(self_hosted()).await;
    cloud.hold_failovers(true);
    let west = system(&cloud, Side::West).await;
    west.simple_query("ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO LATEST").await.unwrap();
    assert_eq!(show(&west, STATUS, "status").await, "replication failing over");
    let again = west.batch_execute("ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO LATEST").await.unwrap_err();
    assert_eq!(code(&again), "55000");
    let id = job(&west).await;
    let wait = format!("SHOW JOB WHEN COMPLETE {id}");
    let (waited, ()) = tokio::join!(show(&west, &wait, "status"), async {
        assert!(cloud.break_job(Side::West));
    });
    assert_eq!(waited, "failed");
    assert_eq!(show(&west, STATUS, "status").await, "replication error");
    cloud.hold_failovers(false);
    let start = west.batch_execute("ALTER VIRTUAL CLUSTER main START SERVICE SHARED").await.unwrap_err();
    assert_eq!(code(&start), "55000");
}

#[tokio::test]
async fn a_job_that_fails_while_it_replicates_stands_still_until_it_is_resumed() {
    let cloud = start(self_hosted()).await;
    let west = system(&cloud, Side::West).await;
    assert!(cloud.break_job(Side::West));
    assert_eq!(show(&west, STATUS, "status").await, "replication error");
    connect(&cloud, Side::East).await.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    west.batch_execute("ALTER VIRTUAL CLUSTER main PAUSE REPLICATION").await.unwrap();
    assert_eq!(show(&west, STATUS, "status").await, "replication paused");
    assert!(cloud.ids(Side::West).is_empty());
    west.batch_execute("ALTER VIRTUAL CLUSTER main RESUME REPLICATION").await.unwrap();
    until("the row has arrived", || cloud.ids(Side::West) == [1]).await;
    assert_eq!(show(&west, STATUS, "status").await, "replicating");
}

#[tokio::test]
async fn a_replica_is_set_up_failed_over_to_a_time_and_failed_back_by_sql_alone() {
    let cloud = start(Settings { initial: Initial::None, ..self_hosted() }).await;
    let (east, west) = (system(&cloud, Side::East).await, system(&cloud, Side::West).await);
    connect(&cloud, Side::East).await.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    assert_eq!(code(&west.batch_execute("SHOW VIRTUAL CLUSTER main").await.unwrap_err()), "42704");
    let uri = |side| format!("postgresql://repl:it''s@{}/?options=-ccluster%3Dsystem", cloud.sql_address(side));
    let create = format!("CREATE VIRTUAL CLUSTER main FROM REPLICATION OF main ON '{}'", uri(Side::East));
    west.batch_execute(&create).await.unwrap();
    assert_eq!(code(&west.batch_execute(&create).await.unwrap_err()), "55000", "it exists");
    until("the row has arrived", || cloud.ids(Side::West) == [1]).await;
    let shown = show(&west, STATUS, "source_cluster_uri").await;
    assert!(shown.contains("repl:redacted@") && !shown.contains("it's"), "{shown}");
    assert_eq!(show(&west, STATUS, "source_tenant_name").await, "main");

    let ahead = "ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO SYSTEM TIME '+30m'";
    west.simple_query(ahead).await.unwrap();
    assert_eq!(show(&west, STATUS, "status").await, "replication pending failover");
    assert_eq!(code(&west.batch_execute(ahead).await.unwrap_err()), "55000", "one at a time");
    cloud.set_clock_offset(Duration::from_secs(3600), false);
    until("it is ready", || cloud.ids(Side::West) == [1] && !cloud.is_serving(Side::West)).await;
    let id = job(&west).await;
    assert_eq!(show(&west, &format!("SHOW JOB WHEN COMPLETE {id}"), "status").await, "succeeded");
    west.batch_execute("ALTER VIRTUAL CLUSTER main START SERVICE SHARED").await.unwrap();

    let back = format!("ALTER VIRTUAL CLUSTER main START REPLICATION OF main ON '{}'", uri(Side::West));
    assert_eq!(code(&east.batch_execute(&back).await.unwrap_err()), "55000", "it serves");
    east.batch_execute("ALTER VIRTUAL CLUSTER main STOP SERVICE").await.unwrap();
    east.batch_execute(&back).await.unwrap();
    connect(&cloud, Side::West).await.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();
    until("the row has come back", || cloud.ids(Side::East) == [1, 2]).await;
    east.simple_query("ALTER VIRTUAL CLUSTER main COMPLETE REPLICATION TO LATEST").await.unwrap();
    let id = job(&east).await;
    show(&east, &format!("SHOW JOB WHEN COMPLETE {id}"), "status").await;
    east.batch_execute("ALTER VIRTUAL CLUSTER main START SERVICE SHARED").await.unwrap();
    connect(&cloud, Side::East).await.batch_execute("INSERT INTO commits (id) VALUES (3)").await.unwrap();
}

#[tokio::test]
async fn the_default_virtual_cluster_is_the_one_that_is_set() {
    let cloud = start(self_hosted()).await;
    let east = system(&cloud, Side::East).await;
    east.batch_execute("SET CLUSTER SETTING server.controller.default_target_cluster = 'system'").await.unwrap();
    let unnamed = connect(&cloud, Side::East).await;
    assert_eq!(show(&unnamed, "SHOW VIRTUAL CLUSTER main", "name").await, "main");
    let named = try_connect(cloud.sql_address(Side::East), "options='-ccluster=main'").await.unwrap();
    named.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
}
