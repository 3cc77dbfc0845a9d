//! The sidecar as applications use it, typed as a user types it: `proxyctl service` beside a daemon and without one, and
//! the daemon's own endpoints, over a simulated cloud. What they say is parsed by libpq itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "sidecar/stage.rs"]
mod stage;

use pgpivot::cockroach_cloud::model::StreamUpdate;
use pgpivot::cockroach_cloud::{Client, Settings as Api};
use pgpivot::sim::Side;
use pgpivot::sim::cloud::{Auth, Cloud, Operation, Pace, Reach, Settings};
use pgpivot::types::Secret;
use serde_json::{Value, json};
use stage::{Daemon, Sidecar, eventually, parsed_by_libpq, psql};

/// Every ASCII character that may stand in the middle of a header's value.
const EVERY_CHARACTER: &str = "!\"#$%&'()*+,-./0:;<=>?@A[\\]^_`a{|} ~";
const TOKEN: &str = "0123456789abcdef-token";

/// Asks for `/connection`: status, head and body.
type Get<'a> = &'a dyn Fn() -> (u16, String, String);

async fn cloud() -> Cloud {
    let users = vec![("app".to_owned(), Secret::new(EVERY_CHARACTER.into()))];
    let auth = Auth::Scram(users);
    Cloud::start(Settings { auth, pace: Pace::instant(), rate_limit: None, ..Settings::default() }).await.unwrap()
}

async fn fail_over(cloud: &Cloud) {
    let api = Api { base_url: cloud.api_url(), ..Api::new(cloud.secret().clone()) };
    let (client, id) = (Client::build(&api).unwrap(), cloud.stream_id().unwrap());
    client.update_stream(id.parse().unwrap(), &StreamUpdate::failover(None)).await.unwrap();
    eventually("the stream is completed", || (cloud.stream_status(id) == Some("COMPLETED")).then_some(())).await;
}

fn connection(sidecar: &Sidecar, headers: &str) -> Value {
    let (code, body) = sidecar.get("/connection", headers);
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn ids(cloud: &Cloud) -> [String; 2] {
    [cloud.cluster_id(Side::East), cloud.cluster_id(Side::West)]
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_service_follows_the_streams_and_psql_connects_with_what_it_says() {
    let cloud = cloud().await;
    let [primary, standby] = ids(&cloud);
    // As many have it: everything in `.env`, nothing in the environment.
    let folder = tempfile::tempdir().unwrap();
    let lines = stage::cloud_variables(&cloud).into_iter().map(|(name, value)| format!("{name}={value}\n"));
    std::fs::write(folder.path().join(".env"), lines.collect::<String>()).unwrap();
    let daemon = [stage::owned(("PGPIVOT_URL", &stage::nobody()))];
    let sidecar = Sidecar::start_in(folder.path(), &daemon, &[]).await;
    let login = format!("x-db-username: app\r\nx-db-password: {EVERY_CHARACTER}\r\n");
    let told = connection(&sidecar, &login);
    let expected = |active: &String| json!({ "active_cluster": active, "primary_cluster": primary, "standby_cluster": standby, "open": true });
    let without_string = |mut told: Value| {
        told.as_object_mut().unwrap().remove("connection_string").unwrap();
        told
    };
    let uri = told["connection_string"].as_str().unwrap().to_owned();
    assert!(uri.starts_with("postgresql://app:%21%22%23%24%25%26%27") && uri.ends_with("/defaultdb?sslmode=require"));
    assert_eq!(without_string(told), expected(&primary));
    // The simulated clusters speak no TLS.
    let asked = psql(&uri.replace("require", "disable"), "INSERT INTO commits (id) VALUES (7) RETURNING id");
    assert_eq!(asked, "7");
    let (code, health) = sidecar.get("/health", "");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((code, &health["active_cluster"], &health["status"]), (200, &json!(primary), &json!("healthy")));

    eventually("the row has arrived", || cloud.ids(Side::West).contains(&7).then_some(())).await;
    fail_over(&cloud).await;
    let told = eventually("the other cluster is told", || {
        let told = connection(&sidecar, &login);
        (told["active_cluster"] == json!(standby)).then_some(told)
    })
    .await;
    let uri = told["connection_string"].as_str().unwrap().replace("require", "disable");
    assert_eq!(without_string(told), expected(&standby));
    assert_eq!(psql(&uri, "SELECT id FROM commits WHERE id = 7"), "7");
    let (_, clusters) = sidecar.get("/clusters", "");
    let clusters: Value = serde_json::from_str(&clusters).unwrap();
    let side = &clusters["clusters"][1];
    assert_eq!(
        (&side["active"], &side["primary"], &side["cluster_id"]),
        (&json!(true), &json!(false), &json!(standby))
    );
    assert_eq!(side["dns"], json!([cloud.sql_address(Side::West).to_string()]));
    assert_eq!(sidecar.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_to_the_caller_that_sent_it_and_ours_to_one_that_shows_the_token() {
    let cloud = cloud().await;
    let mut variables = stage::cloud_variables(&cloud);
    variables.extend([("DB_USERNAME", "ours"), ("DB_PASSWORD", "s3cret"), ("DB_NAME", "shop")].map(stage::owned));
    variables.push(stage::owned(("PGPIVOT_TOKEN", TOKEN)));
    let sidecar = Sidecar::start(&variables, &[]).await;
    let uri = |headers: &str| connection(&sidecar, headers)["connection_string"].as_str().unwrap().to_owned();
    let host = cloud.sql_address(Side::East);
    assert_eq!(uri(""), format!("postgresql://{host}/shop?sslmode=require"));
    assert_eq!(uri("authorization: Bearer wrong\r\n"), uri(""));
    let ours = format!("authorization: Bearer {TOKEN}\r\n");
    assert_eq!(uri(&ours), format!("postgresql://ours:s3cret@{host}/shop?sslmode=require"));
    assert_eq!(uri(&format!("{ours}x-db-username: me\r\n")), format!("postgresql://me@{host}/shop?sslmode=require"));
    for (headers, code, word) in [
        ("x-db-password: alone\r\n", 400, "bad-credentials"),
        ("x-db-username: a\r\nx-db-username: b\r\n", 400, "bad-credentials"),
        ("x-forwarded-for: 192.0.2.1\r\nx-db-username: a\r\nx-db-password: b\r\n", 403, "clear-password"),
    ] {
        let (found, body) = sidecar.get("/connection", headers);
        assert!(found == code && body.contains(word) && !body.contains("postgresql:"), "{headers}: {found} {body}");
    }
    // Through a proxy our own is kept back, too.
    assert!(!sidecar.get("/connection", &format!("{ours}via: 1.1 x\r\n")).1.contains("s3cret"));
    let (code, head, _) = sidecar.ask("GET /connection", &format!("host: localhost\r\n{ours}"));
    assert!(code == 200 && head.to_lowercase().contains("cache-control: no-store"), "{head}");
    assert_eq!(sidecar.ask("GET /connection", "host: rebound.example.com\r\n").0, 403);
    assert_eq!(sidecar.ask("POST /connection", "host: localhost\r\n").0, 405);
    assert_eq!(sidecar.get("/stats", "").0, 404);
    assert_eq!(sidecar.get("/connection?database=a%20b", "").0, 200);
    assert_eq!(sidecar.get("/connection?database=a&x=y", "").0, 400);
    let said = sidecar.said();
    assert!(!said.contains("s3cret") && !said.contains(TOKEN) && !said.contains(cloud.secret().expose()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn libpq_reads_every_character_of_a_login_as_it_was_sent() {
    let cloud = cloud().await;
    let sidecar = Sidecar::start(&stage::cloud_variables(&cloud), &[]).await;
    for text in [EVERY_CHARACTER, "postgresql://u:p@h/d?x=y", "%41%", "ünïcödé 漢字 🐘", "a'b\\'c", "+", "@", "/"]
    {
        let headers = format!("x-db-username: {text}\r\nx-db-password: {text}\r\n");
        let told = connection(&sidecar, &headers);
        let parts = parsed_by_libpq(told["connection_string"].as_str().unwrap());
        let address = cloud.sql_address(Side::East);
        let expected = json!({ "user": text, "password": text, "host": address.ip().to_string(),
            "port": address.port().to_string(), "dbname": "defaultdb", "sslmode": "require" });
        assert_eq!(parts, expected);
    }
    let (code, body) = sidecar.get_bytes("/connection", b"x-db-username: \xff\r\n");
    assert!(code == 400 && body.contains("not one UTF-8 text"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_tells_its_latch_by_cluster_ids_and_the_service_says_the_same() {
    let cloud = cloud().await;
    let [primary, standby] = ids(&cloud);
    let daemon = Daemon::start(&cloud).await;
    let sidecar = Sidecar::start(&[stage::owned(("PGPIVOT_URL", &daemon.url()))], &[]).await;
    let login = "x-db-username: app\r\nx-db-password: p:w\r\n";
    let told = connection(&sidecar, login);
    let host = cloud.sql_address(Side::East);
    let expected = json!({ "connection_string": format!("postgresql://app:p%3Aw@{host}/defaultdb?sslmode=disable"),
        "active_cluster": primary, "primary_cluster": primary, "standby_cluster": standby, "open": true });
    assert_eq!(told, expected);
    let (code, own) = daemon.get("/connection", login);
    assert_eq!((code, serde_json::from_str::<Value>(&own).unwrap()), (200, expected));
    let health: Value = serde_json::from_str(&daemon.get("/health", "").1).unwrap();
    assert_eq!(health["active_cluster"], json!(primary));

    // Somebody fails the stream over; the daemon follows what it proves, and both tell it at once.
    fail_over(&cloud).await;
    let active = |told: &(u16, String)| serde_json::from_str::<Value>(&told.1).unwrap()["active_cluster"].clone();
    eventually("the daemon has latched the other cluster", || {
        (active(&daemon.get("/connection", "")) == json!(standby)).then_some(())
    })
    .await;
    let told = connection(&sidecar, "");
    assert_eq!((&told["active_cluster"], &told["primary_cluster"]), (&json!(standby), &json!(primary)));
    let requests = cloud.requests(Operation::ConnectionString);
    assert_eq!(requests, 0, "the service had no need of the Cloud API");

    // A daemon that is gone, and no Cloud API to ask instead.
    drop(daemon);
    let (code, body) = sidecar.get("/connection", "");
    assert!(code == 503 && body.contains("cannot be reached"), "{code} {body}");
    assert_eq!(sidecar.get("/health", "").0, 503);
    assert_eq!(sidecar.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_failover_goes_on_everybody_says_where_traffic_moves_and_nobody_gives_an_address() {
    let cloud = cloud().await;
    let standby = cloud.cluster_id(Side::West);
    let daemon = Daemon::start(&cloud).await;
    let beside = Sidecar::start(&[stage::owned(("PGPIVOT_URL", &daemon.url()))], &[]).await;
    let alone = Sidecar::start(&stage::cloud_variables(&cloud), &[]).await;
    cloud.hold_failovers(true);
    assert!(cloud.fail_over(cloud.stream_id().unwrap()));
    let get: [(&str, &str, Get<'_>); 3] = [
        ("the daemon", "us-east to us-west", &|| daemon.ask("GET /connection", "host: localhost\r\n")),
        ("the service beside it", "us-east to us-west", &|| beside.ask("GET /connection", "host: localhost\r\n")),
        ("the service alone", "primary to standby", &|| alone.ask("GET /connection", "host: localhost\r\n")),
    ];
    for (who, way, get) in get {
        let (head, body) = eventually(who, || {
            let (code, head, body) = get();
            (code == 503).then_some((head.to_lowercase(), body))
        })
        .await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["type"], "about:pgpivot/not-ready", "{who}");
        assert_eq!(problem["detail"], format!("traffic moves from {way}; ask again in a moment"), "{who}");
        assert!(head.contains("retry-after: 1") && head.contains("application/problem+json"), "{who}: {head}");
    }
    cloud.hold_failovers(false);
    for (who, _, get) in get {
        eventually(who, || {
            let (code, _, body) = get();
            (code == 200 && body.contains(&format!("\"active_cluster\":\"{standby}\""))).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_without_a_daemon_is_what_the_active_cluster_answers() {
    let cloud = cloud().await;
    let sidecar = Sidecar::start(&stage::cloud_variables(&cloud), &[]).await;
    let health = || {
        let (code, body) = sidecar.get("/health", "");
        (code, serde_json::from_str::<Value>(&body).unwrap()["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(health(), (200, "healthy".to_owned()));
    cloud.set_reach(Side::East, Reach::Full).await.unwrap();
    assert_eq!(health(), (200, "unknown".to_owned()), "it lives, and more is not known");
    for reach in [Reach::Refused, Reach::Silent, Reach::Reset] {
        cloud.set_reach(Side::East, reach).await.unwrap();
        assert_eq!(health(), (503, "unhealthy".to_owned()), "{reach:?}");
    }
    cloud.set_reach(Side::East, Reach::Normal).await.unwrap();
    assert_eq!(health().0, 200);
    cloud.crash(Side::East).await.unwrap();
    assert_eq!(health(), (503, "unhealthy".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_evaluates_the_connection_string_connects_through_the_proxy() {
    let cloud = cloud().await;
    let daemon = Daemon::start(&cloud).await;
    let typed = "eval \"$(proxyctl connection-string --format env --user app)\" && psql -X -A -t -q \
                 -c 'INSERT INTO commits (id) VALUES (3) RETURNING id'";
    assert_eq!(daemon.shell(typed, EVERY_CHARACTER), "3");
    assert_eq!(cloud.ids(Side::East), [3]);
    // Words that a shell would act upon come through as they are.
    let odd = "it's $HOME; `exit 7` \"x\" \\ *";
    let typed = "eval \"$(proxyctl connection-string --format env --user \"$ODD\" --database \"$ODD\")\" && \
                 test \"$PGUSER\" = \"$ODD\" && test \"$PGDATABASE\" = \"$ODD\" && env | grep ^PG | sort | head -3";
    let expected = format!("PGDATABASE={odd}\nPGHOST=localhost\nPGPASSWORD={odd}");
    assert_eq!(daemon.shell(typed, odd), expected);
    let typed = "psql -X -A -t -q -d \"$(proxyctl connection-string --user app)\" -c 'SELECT id FROM commits'";
    assert_eq!(daemon.shell(typed, EVERY_CHARACTER), "3");
    let typed = "psql -X -A -t -q -d \"$(proxyctl connection-string --multi-host --user app 2>/dev/null)\" \
                 -c 'SELECT id FROM commits'";
    assert_eq!(daemon.shell(typed, EVERY_CHARACTER), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_ends_with_two_and_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = stage::service_ends(&[], &["--port", &port]);
    assert!(code == Some(2) && said.contains("choose another one with --port"), "{said}");
    let half = [stage::owned(("COCKROACH_API_SECRET_KEY", "CCDB1_x"))];
    let (code, said) = stage::service_ends(&half, &["--port", "0"]);
    assert!(code == Some(2) && said.contains("PRIMARY_CLUSTER_ID is not set"), "{said}");
    assert!(!said.contains("CCDB1_x"), "{said}");
}
