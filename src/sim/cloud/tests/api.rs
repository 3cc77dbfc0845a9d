//! The API of the simulated cloud: who may ask, what it shows, what goes wrong on demand.

use super::*;

#[tokio::test]
async fn without_the_secret_or_in_an_unknown_version_nothing_is_told() {
    let cloud = start(quick()).await;
    let path = format!("/api/v1/clusters/{}", cloud.cluster_id(Side::East));
    let ask = |secret: &str, version: &str| {
        let request = Request::builder()
            .uri(&path)
            .header("host", "simulated")
            .header("authorization", secret)
            .header("cc-version", version);
        send(&cloud, request.body(Full::default()).unwrap())
    };
    let right = format!("Bearer {}", cloud.secret().expose());
    let denied = ask("Bearer wrong", "2024-09-16").await.unwrap();
    assert_eq!((denied.status, &denied.json()["code"]), (401, &json!(16)));
    let unknown = ask(&right, "2030-01-01").await.unwrap();
    assert_eq!(unknown.status, 400);
    assert!(unknown.json()["message"].as_str().unwrap().contains("Cc-Version"));
    assert_eq!(ask(&right, "2024-09-16").await.unwrap().status, 200);
    assert_eq!(call(&cloud, "GET", "clusters/no-such-cluster", None).await.status, 404);
    assert_eq!(call(&cloud, "GET", "nothing", None).await.status, 404);
    assert_eq!(cloud.requests(Operation::GetCluster), 4);
}

#[tokio::test]
async fn a_cluster_is_shown_with_its_region_its_nodes_and_its_address() {
    let cloud = start(quick()).await;
    let id = cloud.cluster_id(Side::East);
    let cluster = get(&cloud, &format!("clusters/{id}")).await;
    assert_eq!(
        (&cluster["id"], &cluster["plan"], &cluster["state"]),
        (&json!(id), &json!("ADVANCED"), &json!("CREATED"))
    );
    assert_eq!(cluster["operation_status"], "UNSPECIFIED");
    assert_eq!(cluster["regions"][0]["name"], "us-east-1");
    assert_eq!(cluster["delete_protection"], "ENABLED");
    assert!(cluster["config"]["dedicated"]["num_virtual_cpus"].is_i64());
    assert_eq!(get(&cloud, "clusters").await["clusters"].as_array().unwrap().len(), 2);

    let address = cloud.sql_address(Side::East);
    let path = format!("clusters/{id}/connection-string?os=LINUX&database=shop&sql_user=a%20b");
    let connection = get(&cloud, &path).await;
    let params = &connection["params"];
    assert_eq!((&params["Host"], &params["Port"]), (&json!("127.0.0.1"), &json!(address.port().to_string())));
    assert_eq!((&params["Database"], &params["Username"]), (&json!("shop"), &json!("a b")));
    assert_eq!(
        call(&cloud, "GET", &format!("clusters/{id}/connection-string"), None).await.status,
        400,
        "os is needed"
    );

    cloud.report(Side::East, Some("LOCKED"), Some("CRDB_SOMETHING_NEW_RUNNING"));
    let cluster = get(&cloud, &format!("clusters/{id}")).await;
    assert_eq!(
        (&cluster["state"], &cluster["operation_status"]),
        (&json!("LOCKED"), &json!("CRDB_SOMETHING_NEW_RUNNING"))
    );
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let cloud = start(quick()).await;
    let path = format!("clusters/{}/nodes", cloud.cluster_id(Side::East));
    let whole = get(&cloud, &path).await;
    assert_eq!((whole["nodes"].as_array().unwrap().len(), &whole["pagination"]), (3, &Value::Null));
    cloud.set_page_size(2);
    let first = get(&cloud, &path).await;
    assert_eq!(first["nodes"].as_array().unwrap().len(), 2);
    let next = first["pagination"]["next_page"].as_str().unwrap();
    let second = get(&cloud, &format!("{path}?pagination.page={next}")).await;
    assert_eq!(second["nodes"][0], whole["nodes"][2]);
    assert!(second["pagination"].get("next_page").is_none() && second["pagination"]["previous_page"].is_string());
    assert_eq!(get(&cloud, &format!("{path}?pagination.limit=1")).await["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(call(&cloud, "GET", &format!("{path}?pagination.page=nonsense"), None).await.status, 400);
}

#[tokio::test]
async fn streams_are_filtered_by_their_clusters() {
    let cloud = start(quick()).await;
    let (east, west) = (cloud.cluster_id(Side::East), cloud.cluster_id(Side::West));
    let count = |query: String| {
        let cloud = &cloud;
        async move {
            let list = get(cloud, &format!("physical-replication-streams?{query}")).await;
            list["physical_replication_streams"].as_array().unwrap().len()
        }
    };
    assert_eq!(count(format!("primary_cluster_id={east}&standby_cluster_id={west}")).await, 1);
    assert_eq!(count(format!("primary_cluster_id={west}")).await, 0);
    assert_eq!(count(format!("cluster_id={west}")).await, 1);
}

#[tokio::test]
async fn a_reply_can_be_lost_before_and_after_the_change_took_effect() {
    let cloud =
        start(Settings { pace: Pace { failover: Duration::from_secs(3600), ..Pace::instant() }, ..quick() }).await;
    let status = || cloud.stream_status(cloud.stream_id().unwrap()).unwrap();
    let ask = || send(&cloud, request(&cloud, "PATCH", &stream_path(&cloud), Some(json!({"status": "FAILING_OVER"}))));
    cloud.fault(Operation::PatchStream, ApiFault::LostBefore, Times::Next(1));
    assert!(ask().await.is_err());
    assert_eq!(status(), "REPLICATING");
    cloud.fault(Operation::PatchStream, ApiFault::LostAfter, Times::Next(1));
    assert!(ask().await.is_err());
    assert_eq!(status(), "FAILING_OVER");
    assert_eq!(cloud.requests(Operation::PatchStream), 2);
    assert_eq!(cloud.requests(Operation::GetStream), 0);
}

#[tokio::test]
async fn replies_go_wrong_as_often_as_they_are_told_to() {
    let cloud = start(quick()).await;
    let path = format!("clusters/{}", cloud.cluster_id(Side::East));
    cloud.fault(Operation::GetCluster, ApiFault::Status(503), Times::Next(2));
    cloud.fault(None, ApiFault::Html(502), Times::Next(1));
    cloud.fault(Operation::GetCluster, ApiFault::Redirect("https://elsewhere.invalid/".into()), Times::Next(1));
    cloud.fault(Operation::GetCluster, ApiFault::RateLimited { retry_after: 7 }, Times::Next(1));
    cloud.fault(Operation::GetCluster, ApiFault::Truncated, Times::UntilCleared);
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let answer = call(&cloud, "GET", &path, None).await;
        match answer.status {
            502 => assert!(answer.text.starts_with("<html>")),
            307 => assert_eq!(answer.headers["location"], "https://elsewhere.invalid/"),
            429 => assert_eq!(answer.headers["retry-after"], "7"),
            200 => assert!(serde_json::from_str::<Value>(&answer.text).is_err(), "{}", answer.text),
            _ => assert!(answer.json()["message"].is_string()),
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [503, 503, 502, 307, 429, 200]);
    cloud.clear_faults();
    cloud.fault(Operation::GetCluster, ApiFault::Slow(Duration::from_millis(100)), Times::Next(1));
    let asked = Instant::now();
    assert_eq!(get(&cloud, &path).await["name"], "shop-east");
    assert!(asked.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_request_can_be_left_without_an_answer() {
    let cloud = start(quick()).await;
    cloud.fault(Operation::ListStreams, ApiFault::Hang, Times::Next(1));
    let mut hanging = Box::pin(call(&cloud, "GET", "physical-replication-streams", None));
    let arrived = until("the request is there", || cloud.requests(Operation::ListStreams) == 1);
    tokio::select! {
        answer = &mut hanging => panic!("an answer: {answer:?}"),
        () = arrived => {}
    }
    get(&cloud, "physical-replication-streams").await;
    let answered = tokio::select! { biased; _ = &mut hanging => true, () = std::future::ready(()) => false };
    assert!(!answered);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let cloud = start(Settings { rate_limit: Some(3), ..quick() }).await;
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let answer = call(&cloud, "GET", "clusters", None).await;
        if answer.status == 429 {
            assert_eq!(answer.headers["retry-after"], "1");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses.contains(&429), "200 requests in a row");
    cloud.set_rate_limit(None);
    assert_eq!(call(&cloud, "GET", "clusters", None).await.status, 200);
}

#[tokio::test]
async fn the_clouds_clock_may_be_another_than_ours() {
    let cloud = start(quick()).await;
    cloud.set_clock_offset(Duration::from_secs(600), false);
    let answer = call(&cloud, "GET", &stream_path(&cloud), None).await;
    let date = answer.headers["date"].to_str().unwrap();
    let date = jiff::fmt::rfc2822::parse(date).unwrap().timestamp();
    let ahead = date.as_second() - jiff::Timestamp::now().as_second();
    assert!((590..=601).contains(&ahead), "{ahead} s");
    let replicated: jiff::Timestamp = answer.json()["replicated_time"].as_str().unwrap().parse().unwrap();
    assert!(date.as_second() - replicated.as_second() < 30, "its times are of the same clock");
}

#[tokio::test]
async fn a_disruption_is_set_replaced_and_cleared_as_a_whole() {
    let cloud = start(quick()).await;
    let id = cloud.cluster_id(Side::East);
    let path = format!("clusters/{id}/disrupt");
    let put = |body: Value| call(&cloud, "PUT", &path, Some(body));
    let whole = json!({"regional_disruptor_specifications": [{"region_code": "us-east-1", "is_whole_region": true}]});
    assert_eq!(get(&cloud, &path).await, json!({"regional_disruptor_specifications": []}));
    for wrong in [
        json!({"regional_disruptor_specifications": [{"region_code": "nowhere", "is_whole_region": true}]}),
        json!({"regional_disruptor_specifications": [{"region_code": "us-east-1", "is_whole_region": false}]}),
        json!({"regional_disruptor_specifications": [{"region_code": "us-east-1", "is_whole_region": true, "azs": ["a"]}]}),
        json!({"regional_disruptor_specifications": [{"is_whole_region": true}]}),
    ] {
        assert_eq!(put(wrong.clone()).await.status, 400, "{wrong}");
    }
    assert_eq!(put(whole).await.status, 200);
    let cluster = get(&cloud, &format!("clusters/{id}")).await;
    assert_eq!(
        (&cluster["state"], &cluster["operation_status"]),
        (&json!("CREATED"), &json!("CRDB_CLUSTER_DISRUPTION_RUNNING"))
    );
    let nodes = get(&cloud, &format!("clusters/{id}/nodes")).await;
    assert_eq!(nodes["nodes"][0]["status"], "NOT_READY");
    let pod = nodes["nodes"][0]["name"].clone();
    let part = json!({"regional_disruptor_specifications": [
        {"region_code": "us-east-1", "is_whole_region": false, "pods": [pod]},
    ]});
    assert_eq!(put(part).await.status, 200);
    let nodes = get(&cloud, &format!("clusters/{id}/nodes")).await;
    assert_eq!((&nodes["nodes"][0]["status"], &nodes["nodes"][1]["status"]), (&json!("NOT_READY"), &json!("LIVE")));
    assert_eq!(put(json!({})).await.json(), json!({"regional_disruptor_specifications": []}));
}
