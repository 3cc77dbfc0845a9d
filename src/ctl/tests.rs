//! proxyctl as its caller sees it: arguments in, words and exit code out, against a scripted daemon.

use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use serde_json::json;

use super::args::Args;
use super::scripted::{Asked, Scripted, event, ok, problem, receipt};
use super::target::Environment;
use super::terminal::captured;
use super::{commands, exit_code, sample};

/// What a call left behind.
struct Ran {
    code: u8,
    out: String,
    err: String,
}

/// `answer`: what a person types; `None` = no terminal.
async fn proxyctl(url: &str, line: &str, answer: Option<&'static str>) -> Ran {
    let words = ["proxyctl", "--url", url].into_iter().chain(line.split_whitespace());
    let args = Args::try_parse_from(words).unwrap();
    let (terminal, out, err) = captured::terminal(args.global.json, answer);
    let environment = Environment { user: Some("alice".into()), ..Environment::default() };
    let ended = commands::run(&args, &environment, &terminal).await;
    let code = exit_code(ended, &terminal);
    Ran { code, out: out.text(), err: err.text() }
}

/// A daemon on which `failover` begins episode 5, which ends after three looks as `kind`.
async fn switching(kind: &'static str, sentence: &'static str) -> Scripted {
    let looks = AtomicUsize::new(0);
    Scripted::start(move |asked: &Asked| match asked.line.as_str() {
        "GET /failover/status" => match (looks.fetch_add(1, Ordering::Relaxed), kind) {
            (0, _) => ok(&sample::steady()),
            (1..3, _) => ok(&sample::promoting()),
            (_, "switched") => ok(&sample::switched()),
            (_, _) => ok(&sample::steady()),
        },
        line if line.contains("dry_run=true") => {
            receipt("would promote us-west", None, &["cut us-east", "promote us-west"])
        }
        line if line.starts_with("POST") => receipt("promoting us-west", Some(5), &[]),
        // Newest first, as the daemon sends them.
        _ => ok(&json!({ "lines": [event(1340, 5, kind, sentence), event(0, 5, "decided", "operator's word")] })),
    })
    .await
}

#[tokio::test]
async fn a_failover_is_shown_first_then_done_and_its_duration_told() {
    let daemon = switching("switched", "us-west is active on timeline 2").await;
    let ran = proxyctl(&daemon.url(), "failover --to us-west --force --reason drill", Some("yes\n")).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out, "us-west is active on timeline 2 (took 1.34 s)\n");
    assert!(
        ran.err.starts_with("would promote us-west\n   1. cut us-east\n   2. promote us-west\nGo on? [y/N] "),
        "{}",
        ran.err
    );
    let orders: Vec<_> = daemon.asked().into_iter().filter(|a| a.line.starts_with("POST")).collect();
    assert_eq!(orders[0].line, "POST /failover/trigger?dry_run=true&service=main");
    assert_eq!(orders[1].line, "POST /failover/trigger?dry_run=false&service=main");
    let body: serde_json::Value = serde_json::from_str(&orders[1].body).unwrap();
    assert_eq!(body, json!({ "to": "us-west", "force": true, "route_only": false, "reason": "drill" }));
    assert!(orders[1].head.contains("x-operator: alice"), "{}", orders[1].head);
}

#[tokio::test]
async fn a_failover_that_is_called_off_ends_with_one_and_the_reason() {
    let daemon = switching("cancelled", "us-east answers again").await;
    let ran = proxyctl(&daemon.url(), "failover --yes", None).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, "called off: us-east answers again\n"));
}

#[tokio::test]
async fn what_takes_too_long_goes_on_and_says_where_to_look() {
    let daemon = Scripted::start(|asked| match asked.line.as_str() {
        "GET /failover/status" => ok(&sample::promoting()),
        _ => receipt("promoting us-west", Some(5), &[]),
    })
    .await;
    let ran = proxyctl(&daemon.url(), "failover --yes --timeout 300ms --json", None).await;
    assert_eq!(ran.code, 1);
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["outcome"], "under_way");
    assert!(said["sentence"].as_str().unwrap().contains("proxyctl status --watch"), "{said}");
}

#[tokio::test]
async fn a_no_changes_nothing() {
    let daemon = switching("switched", "").await;
    for answer in ["n\n", "\n", ""] {
        let ran = proxyctl(&daemon.url(), "switchover", Some(answer)).await;
        assert_eq!(ran.code, 1, "{answer:?}");
        assert!(ran.err.ends_with("nothing was done\n"), "{}", ran.err);
    }
    assert!(daemon.asked().iter().all(|a| !a.line.contains("dry_run=false")));
}

#[tokio::test]
async fn without_a_terminal_nothing_is_changed_unless_yes_is_said() {
    let daemon = switching("switched", "").await;
    for line in ["failover", "switchover", "restore", "adopt us-west", "abandon us-west"] {
        let ran = proxyctl(&daemon.url(), line, None).await;
        assert_eq!(ran.code, 2, "{line}");
        assert!(ran.err.contains("say --yes"), "{line}: {}", ran.err);
    }
    assert!(daemon.asked().iter().all(|a| !a.line.contains("dry_run=false")));
}

#[tokio::test]
async fn a_dry_run_prints_the_steps_and_orders_nothing() {
    let daemon = switching("switched", "").await;
    let ran = proxyctl(&daemon.url(), "restore --dry-run", None).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "would promote us-west\n   1. cut us-east\n   2. promote us-west\n"));
    let json = proxyctl(&daemon.url(), "restore --dry-run --json", None).await;
    assert_eq!(
        json.out,
        "{\"sentence\":\"would promote us-west\",\"episode\":null,\"steps\":[\"cut us-east\",\"promote us-west\"]}\n"
    );
    assert!(daemon.asked().iter().all(|a| !a.line.contains("dry_run=false")));
}

#[tokio::test]
async fn what_has_no_steps_and_is_done_unasked_is_said_once() {
    let daemon = Scripted::start(|asked| match asked.line.as_str() {
        "GET /failover/status" => ok(&sample::steady()),
        _ => receipt("us-west follows us-east", None, &[]),
    })
    .await;
    for line in ["rejoin us-west --yes", "rejoin us-west"] {
        let ran = proxyctl(&daemon.url(), line, None).await;
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "us-west follows us-east\n", ""), "{line}");
    }
}

#[tokio::test]
async fn a_refusal_is_the_daemons_sentence_and_one() {
    let daemon = Scripted::start(|asked| match asked.line.as_str() {
        "GET /failover/status" => ok(&sample::steady()),
        _ => problem(409, "us-west is on timeline 1, rebuild it first"),
    })
    .await;
    let ran = proxyctl(&daemon.url(), "restore --yes", None).await;
    assert_eq!((ran.code, ran.err.as_str()), (1, "proxyctl: us-west is on timeline 1, rebuild it first\n"));
    let json = proxyctl(&daemon.url(), "restore --yes --json", None).await;
    assert_eq!(json.out, "{\"error\":\"us-west is on timeline 1, rebuild it first\"}\n");
}

#[tokio::test]
async fn a_missing_token_says_where_it_comes_from() {
    let daemon = Scripted::start(|_| problem(401, "this call needs a token")).await;
    let ran = proxyctl(&daemon.url(), "status", None).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("--token-file or PGPIVOT_TOKEN"), "{}", ran.err);
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named_with_how_to_name_another() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = proxyctl(&format!("http://{free}"), "status", None).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains(&format!("no pgpivot answers at http://{free} (connection refused)")), "{}", ran.err);
    assert!(
        ran.err.contains("--url") && ran.err.contains("--socket") && ran.err.contains("PGPIVOT_URL"),
        "{}",
        ran.err
    );
    let socket = proxyctl("unix:///nowhere/admin.sock", "status", None).await;
    assert_eq!(socket.code, 2);
    assert!(socket.err.contains("unix:///nowhere/admin.sock (no such socket)"), "{}", socket.err);
}

#[tokio::test]
async fn something_else_that_listens_there_is_told_apart() {
    let other = Scripted::start(|_| (200, "<html>".into())).await;
    let ran = proxyctl(&other.url(), "status", None).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("not as a pgpivot does"), "{}", ran.err);
    let broken = Scripted::start(|_| (502, "bad gateway".into())).await;
    assert_eq!(proxyctl(&broken.url(), "history", None).await.code, 2);
}

#[tokio::test]
async fn a_reply_without_end_is_not_kept() {
    let daemon = Scripted::start(|_| (200, " ".repeat((8 << 20) + 1))).await;
    let ran = proxyctl(&daemon.url(), "status", None).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("longer than 8 MiB"), "{}", ran.err);
}

#[tokio::test]
async fn where_there_are_two_services_one_must_be_named() {
    let mut status = sample::steady();
    let mut other = status.services[0].clone();
    other.name = "orders".into();
    status.services.push(other);
    let daemon = Scripted::start(move |asked| match asked.line.as_str() {
        "GET /failover/status" => ok(&status),
        _ => receipt("probing", None, &[]),
    })
    .await;
    let ran = proxyctl(&daemon.url(), "failover --yes", None).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("name one with --service: main, orders"), "{}", ran.err);
    let unknown = proxyctl(&daemon.url(), "status --service shop", None).await;
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (2, "proxyctl: this daemon has no service shop; it has main, orders\n")
    );
    // What moves no traffic is for all of them.
    assert_eq!(proxyctl(&daemon.url(), "check-health", None).await.code, 0);
    assert_eq!(daemon.asked().last().unwrap().line, "POST /failover/check-health?dry_run=false");
}

#[tokio::test]
async fn pause_waits_until_the_status_says_so() {
    let looks = AtomicUsize::new(0);
    let daemon = Scripted::start(move |asked| match asked.line.as_str() {
        "GET /failover/status" => {
            let mut status = sample::steady();
            status.services[0].paused = (looks.fetch_add(1, Ordering::Relaxed) > 1).then(|| "by alice".into());
            ok(&status)
        }
        _ => receipt("paused", None, &[]),
    })
    .await;
    let ran = proxyctl(&daemon.url(), "pause", None).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("main: us-east is active, epoch 3, automatic decisions are paused"), "{}", ran.out);
}

#[tokio::test]
async fn status_and_history_for_machines_are_json() {
    let daemon = switching("switched", "done").await;
    let status: crate::view::Status =
        serde_json::from_str(&proxyctl(&daemon.url(), "status --json", None).await.out).unwrap();
    assert_eq!(status, sample::steady());
    let history = proxyctl(&daemon.url(), "history --json --limit 2", None).await.out;
    let kinds: Vec<_> =
        history.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["kind"].clone()).collect();
    assert_eq!(kinds, ["decided", "switched"]);
}
