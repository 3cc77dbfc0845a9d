//! The admin server as its callers see it, over real sockets.

mod api;
pub(crate) mod document;
mod limits;
mod pages;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::json;

use super::fixture::{self, Served, event, exchange, read_until, receipt, token, unix};
use super::server::serve;
use super::{AdminError, Order, Settings};
use crate::failover::action::{Command, Refusal};
use crate::failover::phase::BackendState;
use crate::types::WallTime;

const LOOPBACK: Option<std::net::SocketAddr> =
    Some(std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)));

fn with_tokens() -> Settings {
    Settings { listen: LOOPBACK, tokens: vec![token("alice", "s3cret"), token("ci", "other")], ..Settings::default() }
}

// Commands

#[test]
fn a_command_on_loopback_reaches_the_daemon_and_its_receipt_comes_back() {
    let mut served = Served::start(fixture::steady());
    let (reply, seen) = served.command(
        "POST /failover/trigger?dry_run=true",
        "x-operator: bob\r\n",
        r#"{"to": "us-west", "force": true, "reason": "disk\nfull"}"#,
        Ok(receipt()),
    );
    assert_eq!(reply.code, 200, "{reply:?}");
    assert_eq!(reply.json(), json!({ "sentence": "begun", "episode": null, "steps": ["one"] }));
    let command = Command::Failover { to: Some("us-west".into()), force: true, route_only: false, at: None };
    assert_eq!(seen.order, Order::Command(command));
    assert_eq!(seen.service, Some("main".into()));
    assert!(seen.dry_run);
    assert_eq!((seen.operator.name.as_str(), seen.operator.note.as_deref()), ("local", Some("bob: diskfull")));
}

#[test]
fn every_command_has_its_route() {
    let mut served = Served::start(fixture::steady());
    let backend = || "us-west".into();
    let cases = [
        (
            "/failover/trigger",
            "",
            Order::Command(Command::Failover { to: None, force: false, route_only: false, at: None }),
        ),
        ("/failover/switchover", r#"{"to":"us-west"}"#, Order::Command(Command::Switchover { to: Some(backend()) })),
        ("/failover/restore", "{}", Order::Command(Command::Restore { to: None, force: false })),
        ("/failover/adopt", r#"{"backend":"us-west"}"#, Order::Command(Command::Adopt { backend: backend() })),
        (
            "/failover/rejoin",
            r#"{"backend":"us-west"}"#,
            Order::Command(Command::Rejoin { backend: backend(), method: None }),
        ),
        ("/failover/abandon", r#"{"backend":"us-west"}"#, Order::Command(Command::Abandon { backend: backend() })),
        (
            "/failover/backend",
            r#"{"backend":"us-west","address":"10.0.0.2:5432","state":"drain"}"#,
            Order::Command(Command::SetState {
                backend: backend(),
                address: Some("10.0.0.2:5432".parse().unwrap()),
                state: BackendState::Drain,
            }),
        ),
        ("/failover/pause", "", Order::Command(Command::Pause)),
        ("/failover/resume", "", Order::Command(Command::Resume)),
        ("/failover/check-health", "", Order::Command(Command::CheckHealth)),
        ("/reload", "", Order::Reload),
    ];
    for (path, body, order) in cases {
        let (reply, seen) = served.command(&format!("POST {path}"), "", body, Ok(receipt()));
        assert_eq!((reply.code, seen.order, seen.dry_run), (200, order, false), "{path}");
    }
}

#[test]
fn a_refused_command_says_why() {
    let mut served = Served::start(fixture::steady());
    let refusal = Refusal { code: "not_armed".to_owned(), sentence: "us-west lags by 20 MiB".to_owned() };
    let (reply, _) = served.command("POST /failover/switchover", "", "", Err(refusal));
    assert_eq!((reply.code, reply.problem().as_str()), (409, "not_armed"));
    assert_eq!(reply.json()["detail"], "us-west lags by 20 MiB");
}

#[test]
fn a_misspelt_question_is_refused_instead_of_acted_upon() {
    let served = Served::start(fixture::steady());
    let refused = |line: &str, body: &str| {
        let reply = served.ask(line, "", body);
        (reply.code, reply.problem())
    };
    assert_eq!(refused("POST /failover/trigger?dryrun=true", ""), (400, "bad-query".to_owned()));
    assert_eq!(refused("POST /failover/trigger?dry_run=maybe", ""), (400, "bad-query".to_owned()));
    assert_eq!(refused("POST /failover/trigger", r#"{"too": "us-west"}"#), (400, "bad-body".to_owned()));
    assert_eq!(refused("POST /failover/trigger", "not json"), (400, "bad-body".to_owned()));
    assert_eq!(refused("POST /failover/adopt", "{}"), (400, "bad-body".to_owned()));
    assert_eq!(refused("POST /failover/trigger?service=nope", ""), (404, "unknown-service".to_owned()));
}

#[test]
fn with_several_services_a_command_must_say_which() {
    let mut served = Served::start(fixture::two());
    let reply = served.ask("POST /failover/trigger", "", "");
    assert_eq!((reply.code, reply.problem().as_str()), (400, "service-needed"));
    assert!(reply.json()["detail"].as_str().unwrap().contains("main, billing"));
    let (_, seen) = served.command("POST /failover/trigger?service=billing", "", "", Ok(receipt()));
    assert_eq!(seen.service, Some("billing".into()));
    let (_, seen) = served.command("POST /failover/pause", "", "", Ok(receipt()));
    assert_eq!(seen.service, None);
}

#[test]
fn a_daemon_that_does_not_answer_gives_503_and_the_command_is_given_up() {
    let mut served = Served::start(fixture::steady());
    let reply = served.ask("POST /failover/trigger", "", "");
    assert_eq!((reply.code, reply.problem().as_str()), (503, "no-answer"));
    let seen = served.commands.blocking_recv().unwrap();
    assert!(seen.reply.is_closed(), "the daemon must see that nobody waits any more");
}

#[test]
fn a_daemon_that_stops_gives_503() {
    let mut served = Served::start(fixture::steady());
    served.commands.close();
    assert_eq!(served.ask("POST /failover/trigger", "", "").problem(), "stopping");
}

// Authority

#[test]
fn with_tokens_configured_a_command_needs_one_and_the_page_does_not() {
    let mut served = Served::with(fixture::steady(), with_tokens());
    let missing = served.ask("POST /failover/pause", "", "");
    assert_eq!((missing.code, missing.problem().as_str()), (401, "token-missing"));
    assert!(missing.head.contains("www-authenticate: bearer"));
    for wrong in ["bearer nope", "bearer s3cre", "bearer s3crett", "bearer ", "basic s3cret"] {
        let reply = served.ask("POST /failover/pause", &format!("authorization: {wrong}\r\n"), "");
        assert_eq!(reply.code, 401, "{wrong}");
        reply.problem();
    }
    assert_eq!(served.get("/stats").code, 200);
    for (token, name) in [("s3cret", "alice"), ("other", "ci")] {
        let head = format!("authorization: Bearer {token}\r\n");
        let (reply, seen) = served.command("POST /failover/pause", &head, "", Ok(receipt()));
        assert_eq!((reply.code, seen.operator.name.as_str()), (200, name));
    }
}

#[test]
fn a_reload_changes_the_tokens() {
    let mut served = Served::with(fixture::steady(), with_tokens());
    let changed = Settings { tokens: vec![token("carol", "n3w")], ..with_tokens() };
    served.admin.as_ref().unwrap().apply(&changed);
    assert_eq!(served.ask("POST /failover/pause", "authorization: Bearer s3cret\r\n", "").code, 401);
    let (_, seen) = served.command("POST /failover/pause", "authorization: Bearer n3w\r\n", "", Ok(receipt()));
    assert_eq!(seen.operator.name, "carol");
}

#[test]
fn whoever_opens_the_unix_socket_commands_as_its_uid() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let mut served = Served::with(fixture::steady(), Settings { socket: Some(path.clone()), ..with_tokens() });
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let (reply, seen) =
        served.command_on(unix(&path), "POST /failover/pause", "host: whatever.example\r\n", "", Ok(receipt()));
    assert_eq!(reply.code, 200, "{reply:?}");
    assert_eq!(seen.operator.name, format!("uid {}", rustix::process::getuid().as_raw()));
    drop(served);
    assert!(!path.exists(), "the socket goes with the server");
}

#[test]
fn a_socket_left_by_a_dead_daemon_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let settings = Settings { socket: Some(path.clone()), ..Settings::default() };
    let served = Served::with(fixture::steady(), settings.clone());
    assert_eq!(exchange(unix(&path), "GET /live", "", "").code, 200);
    let error = second(&served, &settings);
    assert!(error.to_string().contains("another process answers"), "{error}");
    assert_eq!(exchange(unix(&path), "GET /live", "", "").code, 200);

    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    let error = second(&served, &Settings { socket: Some(file.clone()), ..Settings::default() });
    assert!(error.to_string().contains("is not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

/// A second server with the state of the first.
fn second(served: &Served, settings: &Settings) -> AdminError {
    let state = super::AdminState {
        status: served.status.clone(),
        commands: tokio::sync::mpsc::channel(1).0,
        events: served.events.clone(),
        history: std::sync::Arc::new(|_, _| Vec::new()),
        verify: std::sync::Arc::new(|| Ok(Vec::new())),
        ready: std::sync::Arc::new(|| Ok(())),
        live: std::sync::Arc::new(|| Ok(())),
    };
    serve(settings, state, tokio_util::sync::CancellationToken::new()).unwrap_err()
}

#[test]
fn a_taken_port_is_named() {
    let served = Served::start(fixture::steady());
    let taken = served.admin.as_ref().unwrap().listen();
    let error = second(&served, &Settings { listen: taken, ..Settings::default() }).to_string();
    assert!(error.contains(&format!("admin.listen = {}", taken.unwrap())), "{error}");
    assert!(error.contains("is taken"), "{error}");
}

#[tokio::test]
async fn a_daemon_whose_page_has_no_port_left_is_told_so_from_within_its_runtime() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings { listen: taken.local_addr().ok(), ..Settings::default() };
    let (commands, events) = (tokio::sync::mpsc::channel(1).0, tokio::sync::broadcast::channel(1).0);
    let state = super::AdminState {
        status: std::sync::Arc::new(arc_swap::ArcSwap::from_pointee(fixture::steady())),
        commands,
        events,
        history: std::sync::Arc::new(|_, _| Vec::new()),
        verify: std::sync::Arc::new(|| Ok(Vec::new())),
        ready: std::sync::Arc::new(|| Ok(())),
        live: std::sync::Arc::new(|| Ok(())),
    };
    let error = serve(&settings, state, tokio_util::sync::CancellationToken::new()).unwrap_err().to_string();
    assert!(error.contains("is taken"), "{error}");
}

#[test]
fn a_foreign_name_is_refused_because_a_name_server_can_be_made_to_lie() {
    let served =
        Served::with(fixture::steady(), Settings { hosts: vec!["Pgpivot.Example.com".to_owned()], ..with_tokens() });
    let asked =
        |host: &str, more: &str| exchange(served.connect(), "GET /stats", &format!("host: {host}\r\n{more}"), "");
    for good in ["localhost", "localhost:8404", "a.localhost", "127.0.0.1:1", "[::1]:8404", "10.1.2.3:8404"] {
        assert_eq!(asked(good, "").code, 200, "{good}");
    }
    assert_eq!(asked("pgpivot.example.COM.:8404", "").code, 200);
    for bad in ["evil.example", "evil.example:8404", "localhost.evil.example", "127.0.0.1.evil.example"] {
        let reply = asked(bad, "");
        assert_eq!((reply.code, reply.problem().as_str()), (403, "foreign-host"), "{bad}");
    }
    assert_eq!(asked("evil.example", "authorization: Bearer s3cret\r\n").code, 200, "a rebound page has no token");
    assert_eq!(asked("a b", "").problem(), "bad-host");
    assert_eq!(asked("localhost", "host: evil.example\r\n").problem(), "bad-host");
}

#[test]
fn a_foreign_page_cannot_send_a_command() {
    let mut served = Served::start(fixture::steady());
    let headers =
        ["origin: https://evil.example", "origin: null", "origin: http://localhost:1", "sec-fetch-site: cross-site"];
    for head in headers {
        let reply = served.ask("POST /failover/trigger", &format!("{head}\r\n"), "");
        assert_eq!((reply.code, reply.problem().as_str()), (403, "foreign-origin"), "{head}");
    }
    let own = "origin: http://localhost\r\nsec-fetch-site: same-origin\r\n";
    let (reply, _) = served.command("POST /failover/pause", own, "", Ok(receipt()));
    assert_eq!(reply.code, 200);
}

#[test]
fn a_request_that_a_reverse_proxy_forwards_is_not_local() {
    let served = Served::start(fixture::steady());
    let reply = served.ask("POST /failover/pause", "x-forwarded-for: 203.0.113.9\r\n", "");
    assert_eq!((reply.code, reply.problem().as_str()), (403, "no-authority"));
}

// Bad input

#[test]
fn the_table_is_found_under_every_address_that_an_agent_for_haproxy_asks_for() {
    let served = Served::start(fixture::steady());
    for path in ["/stats;csv", "/stats%3Bcsv", "/stats;csv;norefresh", "/stats/;csv", "/;csv", "/;csv;norefresh"] {
        let reply = served.get(path);
        assert!(reply.code == 200 && reply.body.starts_with("# pxname,svname,"), "{path}: {reply:?}");
    }
}

#[test]
fn a_wrong_method_or_path_is_a_problem() {
    let served = Served::start(fixture::steady());
    let reply = served.get("/failover/trigger");
    assert_eq!((reply.code, reply.problem().as_str()), (405, "method-not-allowed"));
    assert!(reply.head.contains("allow: post\r\n"), "{reply:?}");
    let reply = served.ask("POST /stats", "", "");
    assert_eq!((reply.code, reply.problem().as_str()), (405, "method-not-allowed"));
    assert!(reply.head.contains("allow: get, head\r\n"), "{reply:?}");
    assert_eq!(served.ask("DELETE /stats;csv", "", "").code, 405);
    let reply = served.get("/nothing/here");
    assert_eq!((reply.code, reply.problem().as_str()), (404, "not-found"));
    assert_eq!(served.get("/stats?fragmnt=1").problem(), "bad-query");
}

#[test]
fn health_speaks_of_the_databases_and_live_does_not() {
    let served = Served::start(fixture::steady());
    let reply = served.get("/health");
    let body = json!({ "status": "healthy", "version": "0.1.0", "db_primary": "connected", "db_replica": "connected",
        "active_cluster": "us-east" });
    assert_eq!((reply.code, reply.json()), (200, body));
    served.publish(|s| s.services[0].backends[1].health = "down".to_owned());
    let reply = served.get("/health");
    assert_eq!(
        (reply.code, &reply.json()["status"], &reply.json()["db_replica"]),
        (503, &json!("degraded"), &json!("disconnected"))
    );
    served.publish(|s| *s = fixture::promoting());
    let reply = served.get("/health");
    assert_eq!(
        (reply.code, &reply.json()["status"], &reply.json()["db_primary"]),
        (503, &json!("unhealthy"), &json!("disconnected"))
    );
    served.publish(|s| {
        *s = fixture::steady();
        s.services[0].backends.truncate(1);
    });
    let reply = served.get("/health");
    assert_eq!((reply.code, &reply.json()["db_replica"]), (200, &json!(null)));
    assert_eq!((served.get("/live").code, served.get("/ready").code), (200, 200));
}

#[test]
fn ready_needs_a_state_that_can_be_written() {
    let served = Served::start(fixture::steady());
    *served.ready.lock().unwrap() = Err("routing is not published yet".to_owned());
    let reply = served.get("/ready");
    assert_eq!((reply.code, reply.problem().as_str()), (503, "not-ready"));
    *served.ready.lock().unwrap() = Ok(());
    served.publish(|s| s.state_error = Some("no space left on device".to_owned()));
    let reply = served.get("/ready");
    assert!(reply.json()["detail"].as_str().unwrap().contains("no space left on device"), "{reply:?}");
    assert_eq!(served.get("/live").code, 200);
}

#[test]
fn status_is_the_whole_view_or_one_service_of_it() {
    let served = Served::start(fixture::two());
    let whole: crate::view::Status = serde_json::from_str(&served.get("/failover/status").body).unwrap();
    assert_eq!(whole, fixture::two());
    let one = served.get("/failover/status?service=billing").json();
    assert_eq!((one["services"].as_array().unwrap().len(), &one["services"][0]["name"]), (1, &json!("billing")));
    assert_eq!(served.get("/failover/status?service=nope").problem(), "unknown-service");
    assert_eq!(served.get("/failover/health").json()["services"][1]["service"], "billing");
    assert_eq!(served.get("/failover/metrics?service=main").json()["failoverCount"], 2);
    assert_eq!(served.get("/failover/health?service=main").json()["standbys"][0]["promotionEligible"], true);
}

#[test]
fn the_chain_of_the_history_is_checked_pair_by_pair() {
    let served = Served::start(fixture::two());
    let reply = served.get("/failover/history/verify").json();
    assert_eq!((&reply["whole"], &reply["pairs"][0]["broken"]), (&json!(false), &json!(0)));
    assert_eq!(reply["pairs"][1]["breaks"][0], "history.1, line 0, is not what was written");
    assert_eq!(served.get("/failover/history/verify?limit=1").problem(), "bad-query");
}

#[test]
fn history_is_read_newest_first_as_far_as_asked() {
    let served = Served::start(fixture::two());
    let reply = served.get("/failover/history?limit=2").json();
    assert_eq!(
        (reply["lines"].as_array().unwrap().len(), &reply["lines"][1]["event"]["sentence"]),
        (2, &json!("line 1"))
    );
    assert_eq!(reply["failoverCount"], 4);
    let of_one = served.get("/failover/history?service=billing").json();
    assert_eq!(of_one["lines"][0]["event"]["sentence"], "line 0 of billing");
    assert_eq!(of_one["failoverCount"], 2);
    assert_eq!(served.get("/failover/history?limit=0").problem(), "bad-query");
    assert_eq!(served.get("/failover/history?limit=1001").problem(), "bad-query");
}

#[test]
fn the_metrics_listener_serves_metrics_and_nothing_else() {
    let served = Served::with(fixture::steady(), Settings { metrics_listen: LOOPBACK, ..Settings::default() });
    let address = served.admin.as_ref().unwrap().metrics().unwrap();
    let get = |path: &str| {
        exchange(std::net::TcpStream::connect(address).unwrap(), &format!("GET {path}"), "host: localhost\r\n", "")
    };
    let reply = get("/metrics");
    assert_eq!(reply.code, 200);
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    assert!(reply.body.contains("\nfailover_primary_healthy 1\n"), "{}", reply.body);
    for path in ["/stats", "/failover/status", "/live"] {
        assert_eq!(get(path).code, 404, "{path}");
    }
}

// Sidecar

#[test]
fn a_caller_gets_its_own_credentials_back_and_ours_only_with_a_token() {
    let settings = Settings { credentials: Some(token("app", "p@ss")), ..with_tokens() };
    let served = Served::with(fixture::steady(), settings);
    let plain = served.get("/connection");
    assert_eq!(plain.json()["connection_string"], "postgresql://db1.example.com:5432/postgres?sslmode=prefer");
    assert_eq!(plain.json()["standby_cluster"], "us-west");
    assert!(plain.head.contains("cache-control: no-store"));
    let own = served.ask("GET /connection?database=shop", "x-db-username: me\r\nx-db-password: a/b\r\n", "").json();
    assert_eq!(own["connection_string"], "postgresql://me:a%2Fb@db1.example.com:5432/shop?sslmode=prefer");
    let ours = served.ask("GET /connection", "authorization: Bearer s3cret\r\n", "").json();
    assert_eq!(ours["connection_string"], "postgresql://app:p%40ss@db1.example.com:5432/postgres?sslmode=prefer");
    let clusters = served.get("/clusters").json();
    assert_eq!(clusters["clusters"][1]["dns"][0], "db2.example.com:5432");
    for (headers, code, word) in [
        ("x-db-password: alone\r\n", 400, "bad-credentials"),
        ("x-db-username: a\r\nx-db-username: b\r\n", 400, "bad-credentials"),
        ("x-forwarded-for: 192.0.2.1\r\nx-db-username: a\r\nx-db-password: b\r\n", 403, "clear-password"),
    ] {
        let reply = served.ask("GET /connection", headers, "");
        assert_eq!((reply.code, reply.problem().as_str()), (code, word), "{headers}");
    }
    let by_tls = "x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\nx-db-username: a\r\nx-db-password: b\r\n";
    assert!(served.ask("GET /connection", by_tls, "").body.contains("//a:b@"));
    let relayed = served.ask("GET /connection", "via: 1.1 x\r\nauthorization: Bearer s3cret\r\n", "");
    assert!(!relayed.body.contains("p%40ss"), "{relayed:?}");
}

#[test]
fn clusters_are_called_by_their_ids_and_home_stays_the_configured_primary() {
    let served = Served::start(fixture::steady());
    served.publish(|status| {
        let service = &mut status.services[0];
        service.kind = "cockroach".into();
        service.active = Some("us-west".into());
        for (backend, id) in service.backends.iter_mut().zip(["id-east", "id-west"]) {
            backend.active = id == "id-west";
            backend.cluster_id = Some(id.into());
            backend.configured_role = Some(if id == "id-east" { "primary" } else { "standby" }.into());
            backend.sslmode = Some("verify-full".into());
            backend.sslrootcert = Some(format!("/etc/ca/{id}.crt"));
        }
    });
    let told = served.get("/connection").json();
    let uri = "postgresql://db2.example.com:5432/defaultdb?sslmode=verify-full&sslrootcert=%2Fetc%2Fca%2Fid-west.crt";
    assert_eq!(
        told,
        json!({ "connection_string": uri, "active_cluster": "id-west", "primary_cluster": "id-east",
            "standby_cluster": "id-west", "open": true })
    );
    assert_eq!(served.get("/health").json()["active_cluster"], "id-west");
    let sides = served.get("/clusters").json();
    let east = &sides["clusters"][0];
    assert_eq!((&east["cluster_id"], &east["primary"], &east["fit"]), (&json!("id-east"), &json!(true), &json!(false)));
    // A latch that moves is told by the next reply.
    served.publish(|status| status.services[0].backends.iter_mut().for_each(|b| b.active = !b.active));
    assert_eq!(served.get("/connection").json()["active_cluster"], "id-east");
    served.publish(|status| status.services[0].backends.iter_mut().for_each(|b| b.active = false));
    assert_eq!(served.get("/connection").problem(), "not-ready");
}

#[test]
fn while_traffic_moves_nobody_is_sent_to_the_side_that_is_left() {
    let served = Served::start(fixture::promoting());
    served.publish(|status| status.services[0].open = false);
    let reply = served.get("/connection");
    assert_eq!((reply.code, reply.problem().as_str()), (503, "not-ready"));
    assert_eq!(reply.json()["detail"], "traffic moves from us-east to us-west; ask again in a moment");
    assert!(reply.head.contains("retry-after: 1") && !reply.body.contains("db1.example.com"), "{reply:?}");
    let sides = served.get("/clusters").json();
    assert_eq!((&sides["clusters"][0]["open"], &sides["clusters"][0]["moves_to"]), (&json!(false), &json!("us-west")));
    assert_eq!(sides["clusters"][1].get("moves_to"), None);
    // Without an episode nobody has left: newcomers wait for this side.
    served.publish(|status| status.services[0].episode = None);
    assert_eq!(served.get("/connection").json()["open"], json!(false));
    // And the gate may be open while an episode only looks.
    served.publish(|status| *status = fixture::promoting());
    served.publish(|status| status.services[0].open = true);
    assert_eq!(served.get("/connection").code, 200);
}

// Events
