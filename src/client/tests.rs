//! The connection manager as an application uses it: against a simulated cloud, and against the daemon's real server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admin::{self, Admin, AdminState};
use crate::cockroach_cloud::model::StreamUpdate;
use crate::cockroach_cloud::{self, Client};
use crate::sim::Side;
use crate::sim::cloud::{Cloud, Operation, Pace, Settings as Simulated};
use crate::view::Status;

const PASSWORD: &str = "s3cret/of:the@app";

async fn cloud() -> Cloud {
    Cloud::start(Simulated { pace: Pace::instant(), rate_limit: None, ..Simulated::default() }).await.unwrap()
}

fn api(cloud: &Cloud) -> cockroach_cloud::Settings {
    cockroach_cloud::Settings { base_url: cloud.api_url(), ..cockroach_cloud::Settings::new(cloud.secret().clone()) }
}

fn of_the_cloud(cloud: &Cloud) -> Settings {
    let id = |side| cloud.cluster_id(side).parse().unwrap();
    let clusters =
        CloudSettings { sslmode: "disable".into(), ..CloudSettings::new(api(cloud), id(Side::East), id(Side::West)) };
    let (first_wait, max_wait) = (Duration::from_millis(5), Duration::from_millis(50));
    let credentials = Some(Credentials::new("app", PASSWORD));
    Settings { credentials, first_wait, max_wait, ..Settings::cloud(clusters) }
}

async fn fail_over(cloud: &Cloud) {
    let (client, id) = (Client::build(&api(cloud)).unwrap(), cloud.stream_id().unwrap());
    client.update_stream(id.parse().unwrap(), &StreamUpdate::failover(None)).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while cloud.stream_status(id) != Some("COMPLETED") {
        assert!(Instant::now() < end, "the failover does not end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn uri(cloud: &Cloud, side: Side) -> String {
    format!("postgresql://app:s3cret%2Fof%3Athe%40app@{}/defaultdb?sslmode=disable", cloud.sql_address(side))
}

#[tokio::test]
async fn without_a_daemon_the_streams_tell_which_cluster_is_active() {
    let cloud = cloud().await;
    let manager = ConnectionManager::new(of_the_cloud(&cloud)).unwrap();
    assert_eq!(manager.connection_string().await.unwrap(), uri(&cloud, Side::East));
    let other = manager.connection_string_for("o'neil", "ü").await.unwrap();
    assert!(other.starts_with("postgresql://o%27neil:%C3%BC@127.0.0.1:"), "{other}");
    let sides = manager.sides().await.unwrap();
    let told: Vec<_> = sides.clusters.iter().map(|s| (s.name.as_str(), s.active, s.fit, s.role.as_str())).collect();
    assert_eq!(told, [("primary", true, true, "primary"), ("standby", false, false, "standby")]);
    fail_over(&cloud).await;
    manager.report_failure();
    assert_eq!(manager.connection_string().await.unwrap(), uri(&cloud, Side::West));
}

#[tokio::test]
async fn an_answer_of_the_cloud_api_is_kept_until_a_failure_is_reported() {
    let cloud = cloud().await;
    let manager = ConnectionManager::new(of_the_cloud(&cloud)).unwrap();
    let asked = |cloud: &Cloud| cloud.requests(Operation::ListStreams);
    manager.connection_string().await.unwrap();
    fail_over(&cloud).await;
    let before = asked(&cloud);
    // As the room's head says: it does not know yet.
    assert_eq!(manager.connection_string().await.unwrap(), uri(&cloud, Side::East));
    let many = (0..20).map(|_| manager.clone()).map(|m| tokio::spawn(async move { m.connection_string().await }));
    for one in many.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap().unwrap(), uri(&cloud, Side::East));
    }
    assert_eq!(asked(&cloud), before, "twenty callers, and nobody asked");
    manager.report_failure();
    let many = (0..20).map(|_| manager.clone()).map(|m| tokio::spawn(async move { m.connection_string().await }));
    for one in many.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap().unwrap(), uri(&cloud, Side::West));
    }
    assert_eq!(asked(&cloud), before + 1, "one asked for all");
}

#[tokio::test]
async fn with_retry_comes_back_on_the_promoted_cluster() {
    let cloud = cloud().await;
    let manager = ConnectionManager::new(of_the_cloud(&cloud)).unwrap();
    let connect = async |dsn: String| {
        let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await?;
        tokio::spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    let client = manager.with_retry(connect).await.unwrap();
    client.execute("INSERT INTO commits (id) VALUES (1)", &[]).await.unwrap();
    fail_over(&cloud).await;
    cloud.crash(Side::East).await.unwrap();
    // The first try goes to the dead cluster, since the answer is kept. In a task, as servers do it.
    let in_a_task = tokio::spawn(async move { manager.with_retry(connect).await });
    let client = in_a_task.await.unwrap().unwrap();
    client.execute("INSERT INTO commits (id) VALUES (2)", &[]).await.unwrap();
    assert!(cloud.ids(Side::West).contains(&2));
}

#[tokio::test]
async fn tries_are_counted_and_the_last_failure_is_told_without_a_secret() {
    let cloud = cloud().await;
    let settings = Settings { tries: 3, attempt_timeout: Duration::from_millis(20), ..of_the_cloud(&cloud) };
    let manager = ConnectionManager::new(settings.clone()).unwrap();
    let tries = AtomicUsize::new(0);
    let failed = manager
        .with_retry(|_| async {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>("no route")
        })
        .await
        .unwrap_err();
    assert_eq!((tries.into_inner(), failed.to_string().as_str()), (3, "failed 3 times, at last: no route"));
    let hung = manager.with_retry(|_| std::future::pending::<Result<(), std::fmt::Error>>()).await.unwrap_err();
    assert_eq!(hung.to_string(), "tried 3 times; the last attempt did not end within 20ms");
    cloud.fault(
        Operation::ListStreams,
        crate::sim::cloud::ApiFault::Status(403),
        crate::sim::cloud::Times::UntilCleared,
    );
    let refused = manager.with_retry(|_| async { Ok::<_, std::fmt::Error>(()) }).await.unwrap_err();
    assert!(refused.to_string().starts_with("tried 3 times, at last: "), "{refused}");
    for told in [format!("{manager:?} {settings:?}"), format!("{failed} {failed:?} {refused} {refused:?}")] {
        assert!(!told.contains(PASSWORD) && !told.contains("s3cret%2F"), "{told}");
        assert!(!told.contains(cloud.secret().expose()), "{told}");
    }
}

#[tokio::test]
async fn while_a_failover_goes_on_nobody_is_sent_to_the_old_side() {
    let cloud = cloud().await;
    cloud.hold_failovers(true);
    let manager = ConnectionManager::new(of_the_cloud(&cloud)).unwrap();
    let client = Client::build(&api(&cloud)).unwrap();
    client.update_stream(cloud.stream_id().unwrap().parse().unwrap(), &StreamUpdate::failover(None)).await.unwrap();
    assert!(matches!(manager.connection_string().await, Err(Error::Held)));
    cloud.hold_failovers(false);
    let dsn = manager.with_retry(|dsn| async { Ok::<_, std::fmt::Error>(dsn) }).await.unwrap();
    assert_eq!(dsn, uri(&cloud, Side::West));
}

#[tokio::test]
async fn of_several_hosts_the_active_one_comes_first_and_an_unpromoted_cluster_only_when_asked_for() {
    let cloud = cloud().await;
    let manager = ConnectionManager::new(of_the_cloud(&cloud)).unwrap();
    let (east, west) = (cloud.sql_address(Side::East), cloud.sql_address(Side::West));
    assert_eq!(manager.multi_host_connection_string(false).await.unwrap(), uri(&cloud, Side::East));
    let both = |hosts: String| format!("postgresql://app:s3cret%2Fof%3Athe%40app@{hosts}/defaultdb?sslmode=disable");
    assert_eq!(manager.multi_host_connection_string(true).await.unwrap(), both(format!("{east},{west}")));
    fail_over(&cloud).await;
    manager.report_failure();
    assert_eq!(manager.multi_host_connection_string(false).await.unwrap(), both(west.to_string()));
    assert_eq!(manager.multi_host_connection_string(true).await.unwrap(), both(format!("{west},{east}")));
}

/// The daemon's server with a status that is published by hand.
struct Served {
    admin: Option<Admin>,
    status: Arc<ArcSwap<Status>>,
    stop: CancellationToken,
}

impl Served {
    fn start(socket: Option<std::path::PathBuf>) -> Self {
        let text = include_str!("../../tests/samples/status/steady.json");
        let status: Arc<ArcSwap<Status>> = Arc::new(ArcSwap::from_pointee(serde_json::from_str(text).unwrap()));
        let (commands, _) = mpsc::channel(1);
        let state = AdminState {
            status: status.clone(),
            commands,
            events: broadcast::Sender::new(4),
            history: Arc::new(|_, _| Vec::new()),
            verify: Arc::new(|| Ok(Vec::new())),
            ready: Arc::new(|| Ok(())),
            live: Arc::new(|| Ok(())),
        };
        let listen = socket.is_none().then(|| ([127, 0, 0, 1], 0).into());
        let stop = CancellationToken::new();
        let settings = admin::Settings { listen, socket, ..admin::Settings::default() };
        Self { admin: Some(admin::serve(&settings, state, stop.clone()).unwrap()), status, stop }
    }

    fn url(&self) -> String {
        format!("http://{}", self.admin.as_ref().unwrap().listen().unwrap())
    }

    fn publish(&self, change: impl FnOnce(&mut Status)) {
        let mut status = Status::clone(&self.status.load());
        change(&mut status);
        self.status.store(Arc::new(status));
    }

    fn switch(&self) {
        self.publish(|status| {
            let service = &mut status.services[0];
            service.active = Some("us-west".into());
            for backend in &mut service.backends {
                backend.active = backend.name.as_str() == "us-west";
                backend.role = if backend.active { "primary" } else { "unknown" }.into();
            }
        });
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        assert!(self.admin.take().is_some_and(Admin::join));
    }
}

/// Never kept, so that no test waits for a second.
fn of_the_daemon(url: String) -> Settings {
    let (first_wait, max_wait) = (Duration::from_millis(5), Duration::from_millis(50));
    Settings { daemon_cache: Duration::ZERO, first_wait, max_wait, ..Settings::daemon(url) }
}

const AT_HOME: &str = "postgresql://db1.example.com:5432/postgres?sslmode=prefer";
const AWAY: &str = "postgresql://db2.example.com:5432/postgres?sslmode=prefer";

#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_latch_is_followed_over_http_and_over_the_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let (tcp, unix) = (Served::start(None), Served::start(Some(socket.clone())));
    for (daemon, url) in [(&tcp, tcp.url()), (&unix, format!("unix://{}", socket.display()))] {
        let manager = ConnectionManager::new(of_the_daemon(url)).unwrap();
        assert_eq!(manager.connection_string().await.unwrap(), AT_HOME);
        let several = "postgresql://db1.example.com:5432,db2.example.com:5432/postgres\
                       ?sslmode=prefer&target_session_attrs=read-write";
        assert_eq!(manager.multi_host_connection_string(false).await.unwrap(), several);
        daemon.switch();
        assert_eq!(manager.connection_string().await.unwrap(), AWAY);
        // What the old side is, nobody knows: it may come back as an old primary.
        assert_eq!(manager.multi_host_connection_string(false).await.unwrap(), AWAY);
        assert!(manager.multi_host_connection_string(true).await.unwrap().contains("db2.example.com:5432,db1."));
        daemon.publish(|status| status.services[0].open = false);
        assert!(matches!(manager.connection_string().await, Err(Error::Held)));
        daemon.publish(|status| status.services[0].backends.iter_mut().for_each(|b| b.active = false));
        assert!(matches!(manager.connection_string().await, Err(Error::Dsn(DsnError::NobodyActive))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemons_word_is_final_and_the_cloud_is_asked_only_when_nobody_is_there() {
    let (cloud, daemon) = (cloud().await, Served::start(None));
    let both = Settings { credentials: None, ..of_the_cloud(&cloud) };
    let both = Settings { daemon: Some(daemon.url()), daemon_cache: Duration::ZERO, ..both };
    let manager = ConnectionManager::new(both.clone()).unwrap();
    assert_eq!(manager.connection_string().await.unwrap(), AT_HOME);
    daemon.publish(|status| status.services[0].open = false);
    assert!(matches!(manager.connection_string().await, Err(Error::Held)));
    assert_eq!(cloud.requests_in_all(), 0);
    // What it has latched since, the cloud does not know.
    daemon.switch();
    daemon.publish(|status| status.services[0].open = true);
    assert_eq!(manager.connection_string().await.unwrap(), AWAY);
    drop(daemon);
    assert_eq!(manager.connection_string().await.unwrap(), AWAY);
    assert_eq!(cloud.requests_in_all(), 0);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let manager = ConnectionManager::new(Settings { daemon: Some(format!("http://{closed}")), ..both }).unwrap();
    let east = format!("postgresql://{}/defaultdb?sslmode=disable", cloud.sql_address(Side::East));
    assert_eq!(manager.connection_string().await.unwrap(), east);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_several_services_one_must_be_named() {
    let daemon = Served::start(None);
    daemon.publish(|status| {
        let mut other = status.services[0].clone();
        other.name = "billing & co".into();
        other.backends[0].addresses.clear();
        other.backends[0].endpoints[0].address = Some("bill.example.com:5432".parse().unwrap());
        status.services.push(other);
    });
    let manager = ConnectionManager::new(of_the_daemon(daemon.url())).unwrap();
    let error = manager.connection_string().await.unwrap_err();
    assert_eq!(error.to_string(), "there are several services; name one of main, billing & co");
    let named = |name: &str| Settings { service: Some(name.into()), ..of_the_daemon(daemon.url()) };
    let manager = ConnectionManager::new(named("billing & co")).unwrap();
    assert!(manager.connection_string().await.unwrap().contains("bill.example.com"));
    let error = ConnectionManager::new(named("shop")).unwrap().connection_string().await.unwrap_err();
    assert!(error.to_string().contains("there is no service \"shop\""), "{error}");
}

#[tokio::test]
async fn something_else_that_listens_there_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let web = tokio::spawn(async move {
        loop {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>").await;
        }
    });
    let error = ConnectionManager::new(of_the_daemon(url.clone())).unwrap().connection_string().await.unwrap_err();
    assert_eq!(error.to_string(), format!("the daemon at {url} answers, but not as pgpivot does"));
    web.abort();
}

#[test]
fn the_environment_says_whom_to_ask_and_who_logs_in() {
    let read = |pairs: &[(&str, &str)]| {
        let all: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Settings::from_variables(move |name| all.get(name).cloned())
    };
    let plain = read(&[("DB_USERNAME", "app"), ("DB_PASSWORD", " p ss"), ("DB_NAME", "shop")]).unwrap();
    assert_eq!(plain.daemon.as_deref(), Some(DEFAULT_DAEMON));
    assert_eq!((plain.credentials, plain.database.as_deref()), (Some(Credentials::new("app", " p ss")), Some("shop")));
    let (a, b) = ("00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b");
    let clusters = [("COCKROACH_API_SECRET_KEY", "CCDB1_x"), ("PRIMARY_CLUSTER_ID", a), ("STANDBY_CLUSTER_ID", b)];
    let cloud = read(&[&clusters[..], &[("STANDBY_SQL_DNS", "west.example.com")]].concat()).unwrap();
    assert_eq!(cloud.daemon, None);
    assert_eq!(cloud.cloud.unwrap().standby_host.unwrap().to_string(), "west.example.com:26257");
    let both = read(&[&clusters[..], &[("PGPIVOT_URL", "http://h:1")]].concat()).unwrap();
    assert!(both.cloud.is_some() && both.daemon.as_deref() == Some("http://h:1"));
    let wrong = |pairs: &[(&str, &str)]| read(pairs).unwrap_err().to_string();
    assert_eq!(wrong(&clusters[..2]), "STANDBY_CLUSTER_ID is not set, and COCKROACH_API_SECRET_KEY is");
    assert!(
        wrong(&[clusters[0], ("PRIMARY_CLUSTER_ID", "x"), clusters[2]]).starts_with("PRIMARY_CLUSTER_ID is no UUID")
    );
    for (name, value) in
        [(clusters[0].0, "CCDB1 x"), ("COCKROACH_API_URL", "http://api.example.com"), ("COCKROACH_API_URL", "x")]
    {
        let told = wrong(&[&clusters[..], &[(name, value)]].concat());
        assert!(told.starts_with(name) && !told.contains("CCDB1"), "{told}");
    }
}

/// As a `.env` says it.
fn of_variables(cloud: &Cloud, more: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let (url, primary, standby) = (cloud.api_url(), cloud.cluster_id(Side::East), cloud.cluster_id(Side::West));
    let all = [
        ("COCKROACH_API_SECRET_KEY", cloud.secret().expose()),
        ("COCKROACH_API_URL", &url),
        ("PRIMARY_CLUSTER_ID", &primary),
        ("STANDBY_CLUSTER_ID", &standby),
    ];
    let all: HashMap<String, String> = all.iter().chain(more).map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Settings::from_variables(move |name| all.get(name).cloned())
}

#[tokio::test]
async fn the_primarys_endpoint_says_where_it_is_and_how_to_encrypt_both() {
    let cloud = cloud().await;
    let address = cloud.sql_address(Side::East);
    let endpoint = |query: &str| format!("postgresql://me:x@{address}/shop{query}");
    let told = async |more: &[(&str, &str)]| {
        let manager = ConnectionManager::new(of_variables(&cloud, more).unwrap()).unwrap();
        manager.connection_string().await.unwrap()
    };
    let checked = endpoint("?sslmode=verify-ca&sslrootcert=/etc/ca.crt");
    let tls = "sslmode=verify-ca&sslrootcert=%2Fetc%2Fca.crt";
    let of = |tls: &str| format!("postgresql://{address}/defaultdb?{tls}");
    assert_eq!(told(&[("PRIMARY_CLUSTER_ENDPOINT", &checked)]).await, of(tls));
    assert_eq!(cloud.requests(Operation::ConnectionString), 1, "only where the standby is had to be asked");
    // A host of its own variable wins, as at the daemon.
    let elsewhere = told(&[("PRIMARY_CLUSTER_ENDPOINT", &checked), ("PRIMARY_SQL_DNS", "p.example.com")]).await;
    assert_eq!(elsewhere, format!("postgresql://p.example.com:26257/defaultdb?{tls}"));
    assert_eq!(told(&[("PRIMARY_CLUSTER_ENDPOINT", &endpoint("?sslmode=disable"))]).await, of("sslmode=disable"));
    // What is not said is never less than encrypted.
    for query in ["", "?sslmode=prefer"] {
        assert_eq!(told(&[("PRIMARY_CLUSTER_ENDPOINT", &endpoint(query))]).await, of("sslmode=require"));
    }
    assert_eq!(told(&[("DB_SSL", "false")]).await, of("sslmode=disable"));
    fail_over(&cloud).await;
    let standby = cloud.sql_address(Side::West);
    let away = told(&[("PRIMARY_CLUSTER_ENDPOINT", &checked)]).await;
    assert_eq!(away, format!("postgresql://{standby}/defaultdb?{tls}"));
    for (more, words) in [
        (vec![("PRIMARY_CLUSTER_ENDPOINT", "hunter2")], "PRIMARY_CLUSTER_ENDPOINT is not a connection URL"),
        (vec![("DB_SSL", "maybe")], "DB_SSL is neither true nor false"),
        (vec![("DB_SSL", "off"), ("PRIMARY_CLUSTER_ENDPOINT", &*checked)], "DB_SSL is false, but"),
        (vec![("DB_SSL", "on"), ("PRIMARY_CLUSTER_ENDPOINT", &*endpoint("?sslmode=disable"))], "DB_SSL is true, but"),
    ] {
        let error = of_variables(&cloud, &more).unwrap_err().to_string();
        assert!(error.starts_with(words) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn who_logs_in_is_read_as_the_daemon_reads_it() {
    let read = |pairs: &[(&str, &str)]| {
        let all: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Settings::from_variables(move |name| all.get(name).cloned()).map(|settings| settings.credentials)
    };
    let app = Some(Credentials::new("app", PASSWORD));
    assert_eq!(read(&[("DB_USER", "app"), ("DB_PASSWORD", PASSWORD)]).unwrap(), app);
    assert_eq!(read(&[("DB_USER", "app"), ("DB_USERNAME", "app"), ("DB_PASSWORD", PASSWORD)]).unwrap(), app);
    // A password alone is pgpivot's own, or another program's.
    assert_eq!(read(&[("DB_PASSWORD", PASSWORD)]).unwrap(), None);
    let told = read(&[("DB_USER", "one"), ("DB_USERNAME", "two")]).unwrap_err().to_string();
    assert_eq!(told, "DB_USERNAME is not the same as DB_USER, and both name one thing; set one of them");
}

#[test]
fn settings_that_make_no_sense_say_what_would_be_right() {
    let wrong = |settings: Settings| ConnectionManager::new(settings).unwrap_err().to_string();
    for url in ["https://h", "http://u:secretpw@h", "h:1:2", "unix://x", "http://h/stats", "ftp://h"] {
        let told = wrong(Settings::daemon(url));
        assert!(
            told.ends_with("write http://host:port or unix:///path") && !told.contains("secretpw"),
            "{url}: {told}"
        );
    }
    let none = Settings { daemon: None, ..Settings::daemon("") };
    assert!(wrong(none).contains("neither a daemon nor a Cloud API"));
    let long = Settings { daemon_cache: Duration::from_secs(2), ..Settings::daemon(DEFAULT_DAEMON) };
    assert_eq!(wrong(long), "daemon_cache must be at most 1 s");
    assert_eq!(wrong(Settings { tries: 0, ..Settings::daemon(DEFAULT_DAEMON) }), "tries must be from 1 to 100");
}
