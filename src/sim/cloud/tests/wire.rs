//! Clusters of the simulated cloud on the wire: what a newcomer meets, logins, the SQL of drivers, how sessions end.

use std::process::Stdio;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::config::{Login, Tls, TlsMode};
use crate::net::session::{Session, Target};
use crate::net::tls::ClientTls;
use crate::wire::sqlstate::error_code;

const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;
const STARTUP: u32 = 196_608;

fn scram() -> Auth {
    Auth::Scram(vec![("app".into(), Secret::new("correct horse".into()))])
}

#[tokio::test]
async fn first_packets_are_answered_as_cockroachdb_answers_them() {
    let cloud = start(Settings { auth: scram(), ..quick() }).await;
    let [east, west] = Side::BOTH.map(|side| cloud.sql_address(side));
    assert_eq!(raw(east, &packet(SSL, b"")).await, b"N");
    let sqlstate = |bytes: &[u8]| error_code(bytes).map(|code| code.as_str().to_owned());
    assert_eq!(sqlstate(&raw(east, &packet(GSSENC, b"")).await).as_deref(), Some("08P01"));
    let login = |more: &[u8]| packet(STARTUP, &[b"user\0app\0", more, b"\0"].concat());
    assert_eq!(&raw(east, &login(b"")).await[..9], b"R\0\0\0\x17\0\0\0\x0a", "asks for SCRAM");
    let refused = raw(west, &login(b"")).await;
    assert_eq!(sqlstate(&refused).as_deref(), Some("08000"));
    let text = String::from_utf8_lossy(&refused);
    assert!(text.contains("service unavailable for target tenant (main)"), "{text}");
    assert_eq!(raw(west, &login(b"options\0-ccluster=system\0")).await[0], b'R', "the system one is always there");
    assert_eq!(raw(west, &login(b"database\0cluster:system/x\0")).await[0], b'R');
    assert_eq!(sqlstate(&raw(east, &login(b"options\0-ccluster=other\0")).await).as_deref(), Some("08000"));
    assert_eq!(sqlstate(&raw(east, &packet(STARTUP, b"user\0nobody\0\0")).await).as_deref(), Some("28P01"));
}

#[tokio::test]
async fn a_password_is_proven_and_a_wrong_one_refused() {
    let cloud = start(Settings { auth: scram(), ..quick() }).await;
    let address = cloud.sql_address(Side::East);
    let client = try_connect(address, "password='correct horse'").await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(refusal(&cloud, Side::East, "password=wrong").await, "28P01");
    let Err(unknown) =
        tokio_postgres::connect(&format!("host=127.0.0.1 port={} user=eve password=x", address.port()), NoTls).await
    else {
        panic!("let in")
    };
    assert_eq!(code(&unknown), "28P01");
    assert_eq!((cloud.logins(Side::East), cloud.sessions(Side::East)), (1, 1));
}

#[tokio::test]
async fn pgpivots_own_session_logs_in_through_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
    let made = tokio::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .await
        .expect("openssl is needed: apt-get install openssl");
    assert!(made.success());
    let chain = vec![CertificateDer::from_pem_file(&certificate).unwrap()];
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
        .unwrap();
    let cloud = start(Settings { auth: scram(), tls: Some(Arc::new(config)), ..quick() }).await;
    let plain = raw(cloud.sql_address(Side::East), &packet(STARTUP, b"user\0app\0\0")).await;
    assert_eq!(error_code(&plain).unwrap().as_str(), "08P01", "encryption is required");

    let tls = Tls { mode: TlsMode::VerifyFull, ca_file: Some(certificate), server_name: None };
    let target = Target {
        address: cloud.sql_address(Side::East),
        server_name: "localhost".into(),
        tls: ClientTls::build(&tls).unwrap(),
        login: Login {
            user: "app".into(),
            database: "shop".into(),
            password: Some(Secret::new("correct horse".into())),
        },
        application_name: "pgpivot".into(),
        replication: false,
    };
    let deadline = Instant::now() + DEADLINE;
    let mut session = Session::connect(&target, deadline).await.unwrap();
    assert!(session.is_encrypted());
    let rows = session.query("SELECT version(), current_database()", deadline).await.unwrap();
    assert!(rows[0][0].as_deref().unwrap().starts_with("CockroachDB CCL v25.4.0"), "{rows:?}");
    assert_eq!(rows[0][1].as_deref(), Some("shop"));
}

#[tokio::test]
async fn what_drivers_say_is_understood_and_the_rest_refused() {
    let cloud = start(quick()).await;
    let mut east = connect(&cloud, Side::East).await;
    east.batch_execute(
        "CREATE TABLE IF NOT EXISTS commits (id INT8 PRIMARY KEY, at TIMESTAMPTZ DEFAULT now());
         SET extra_float_digits = 3; SET application_name = 'x'; SHOW TRANSACTION ISOLATION LEVEL; SHOW server_version;
         SELECT pg_catalog.version(); SELECT current_schema(); SHOW standard_conforming_strings; SHOW crdb_version;
         SELECT cluster_logical_timestamp(); SET CLUSTER SETTING server.time_until_store_dead = '15m0s'",
    )
    .await
    .unwrap();
    let dead = east.query_one("SHOW CLUSTER SETTING server.time_until_store_dead", &[]).await.unwrap();
    assert_eq!(dead.get::<_, &str>(0), "15m0s");
    east.batch_execute("RESET CLUSTER SETTING server.time_until_store_dead").await.unwrap();
    let block = east.transaction().await.unwrap();
    let insert = "INSERT INTO commits (id) VALUES ($1) RETURNING id, at";
    assert_eq!(block.query_one(insert, &[&7_i64]).await.unwrap().get::<_, i64>(0), 7);
    block.commit().await.unwrap();
    let row = east.query_one("SELECT count(*), max(id) FROM commits", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 7));
    for (text, expected) in [
        ("SELECT * FROM crdb_internal.jobs", "42P01"),
        ("UPDATE commits SET id = 1", "0A000"),
        ("SHOW VIRTUAL CLUSTERS", "42501"),
        ("SET CLUSTER SETTING no.such.setting = 1", "42704"),
    ] {
        assert_eq!(code(&east.batch_execute(text).await.unwrap_err()), expected, "{text}");
    }
}

#[tokio::test]
async fn newcomers_meet_what_is_set_and_sessions_go_on() {
    let cloud = start(Settings { max_sessions: 3, ..quick() }).await;
    let inside = connect(&cloud, Side::East).await;
    cloud.set_reach(Side::East, Reach::Draining).await.unwrap();
    assert_eq!(refusal(&cloud, Side::East, "").await, "57P01");
    cloud.set_reach(Side::East, Reach::Full).await.unwrap();
    assert_eq!(refusal(&cloud, Side::East, "").await, "53300");
    cloud.set_reach(Side::East, Reach::WrongPassword).await.unwrap();
    assert_eq!(refusal(&cloud, Side::East, "").await, "28P01");
    cloud.set_reach(Side::East, Reach::NotPermitted).await.unwrap();
    assert_eq!(refusal(&cloud, Side::East, "").await, "28000");
    cloud.set_reach(Side::East, Reach::Reset).await.unwrap();
    assert!(try_connect(cloud.sql_address(Side::East), "").await.is_err());
    cloud.set_reach(Side::East, Reach::Refused).await.unwrap();
    let refused = TcpStream::connect(cloud.sql_address(Side::East)).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    inside.batch_execute("SELECT 1").await.unwrap();
    cloud.set_reach(Side::East, Reach::Slow(Duration::from_millis(200))).await.unwrap();
    let asked = Instant::now();
    let slow = connect(&cloud, Side::East).await;
    assert!(asked.elapsed() >= Duration::from_millis(200));
    cloud.set_reach(Side::East, Reach::Normal).await.unwrap();
    let third = connect(&cloud, Side::East).await;
    assert_eq!(refusal(&cloud, Side::East, "").await, "53300", "three are enough");
    drop((slow, third));
    until("there is room again", || cloud.sessions(Side::East) == 1).await;
    connect(&cloud, Side::East).await;
}

#[tokio::test]
async fn a_silent_cluster_answers_nobody_until_it_speaks_again() {
    let cloud = start(quick()).await;
    let inside = connect(&cloud, Side::East).await;
    cloud.set_reach(Side::East, Reach::Silent).await.unwrap();
    let before = cloud.accepted(Side::East);
    let mut newcomer = Box::pin(try_connect(cloud.sql_address(Side::East), ""));
    let mut query = Box::pin(inside.batch_execute("SELECT 1"));
    let waited = until("the newcomer is accepted", || cloud.accepted(Side::East) > before);
    tokio::select! {
        _ = &mut newcomer => panic!("let in"),
        _ = &mut query => panic!("answered"),
        () = waited => {}
    }
    cloud.set_reach(Side::East, Reach::Normal).await.unwrap();
    query.await.unwrap();
    newcomer.await.unwrap();
}

async fn disrupt(cloud: &Cloud, body: Value) {
    let path = format!("clusters/{}/disrupt", cloud.cluster_id(Side::East));
    assert_eq!(call(cloud, "PUT", &path, Some(body)).await.status, 200);
}

fn whole() -> Value {
    json!({"regional_disruptor_specifications": [{"region_code": "us-east-1", "is_whole_region": true}]})
}

#[tokio::test]
async fn a_disrupted_cluster_hangs_and_replicates_nothing_until_the_disruption_ends() {
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    disrupt(&cloud, whole()).await;
    let mut insert = Box::pin(east.batch_execute("INSERT INTO commits (id) VALUES (1)"));
    let replicated = get(&cloud, &stream_path(&cloud)).await["replicated_time"].clone();
    for _ in 0..20 {
        let now = get(&cloud, &stream_path(&cloud)).await["replicated_time"].clone();
        assert_eq!(now, replicated, "it stands still");
    }
    let answered = tokio::select! { biased; _ = &mut insert => true, () = sleep(Duration::from_millis(50)) => false };
    assert!(!answered && cloud.ids(Side::East).is_empty());
    disrupt(&cloud, json!({})).await;
    insert.await.unwrap();
    until("the row has arrived", || cloud.ids(Side::West) == [1]).await;
}

#[tokio::test]
async fn a_disruption_may_refuse_newcomers_and_reset_sessions() {
    let outage = Outage { newcomers: Reach::Refused, sessions: Sessions::Reset };
    let cloud = start(Settings { outage, ..quick() }).await;
    let east = connect(&cloud, Side::East).await;
    disrupt(&cloud, whole()).await;
    assert!(east.batch_execute("SELECT 1").await.is_err());
    assert!(TcpStream::connect(cloud.sql_address(Side::East)).await.is_err());
    fail_over(&cloud).await;
    connect(&cloud, Side::West).await.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    disrupt(&cloud, json!({"regional_disruptor_specifications": []})).await;
    connect(&cloud, Side::East).await.batch_execute("INSERT INTO commits (id) VALUES (2)").await.unwrap();
    assert_eq!((cloud.ids(Side::East), cloud.ids(Side::West)), (vec![2], vec![1]));
}

#[tokio::test]
async fn a_crashed_cluster_resets_its_sessions_and_comes_back_as_it_was() {
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    east.batch_execute("INSERT INTO commits (id) VALUES (1)").await.unwrap();
    cloud.crash(Side::East).await.unwrap();
    assert!(east.batch_execute("SELECT 1").await.is_err());
    assert!(TcpStream::connect(cloud.sql_address(Side::East)).await.is_err());
    cloud.revive(Side::East).await.unwrap();
    let rows = connect(&cloud, Side::East).await.query("SELECT id FROM commits", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 1);
}

#[tokio::test]
async fn cancel_requests_are_counted_where_they_arrive_and_told_apart_by_their_key() {
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    east.cancel_token().cancel_query(NoTls).await.unwrap();
    until("the cancel has arrived", || cloud.cancels(Side::East) == Cancels { seen: 1, matched: 1 }).await;
    let mut stray = TcpStream::connect(cloud.sql_address(Side::West)).await.unwrap();
    stray.write_all(&packet(CANCEL, &[0, 0, 0, 1, 0, 0, 0, 2])).await.unwrap();
    until("the stray one has arrived", || cloud.cancels(Side::West) == Cancels { seen: 1, matched: 0 }).await;
    assert_eq!(cloud.cancels(Side::East).seen, 1);
    east.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_stopped_cloud_is_gone() {
    let cloud = start(quick()).await;
    let east = connect(&cloud, Side::East).await;
    let (api, sql) = (cloud.api, cloud.sql_address(Side::East));
    cloud.stop().await;
    assert!(east.batch_execute("SELECT 1").await.is_err());
    assert!(TcpStream::connect(api).await.is_err() && TcpStream::connect(sql).await.is_err());
}
