//! What is followed and looked at: events, and the page.

use super::*;

fn follow(served: &Served, head: &str) -> (std::net::TcpStream, String) {
    let mut stream = served.connect();
    let request = format!("GET /events HTTP/1.1\r\nhost: localhost\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut got = String::new();
    read_until(&mut stream, &mut got, "event: status\ndata: {");
    read_until(&mut stream, &mut got, "\n\n\r\n");
    (stream, got)
}

#[test]
fn a_follower_gets_the_status_then_every_change_and_event() {
    let served = Served::start(fixture::steady());
    let (mut stream, greeting) = follow(&served, "");
    assert!(greeting.contains("content-type: text/event-stream"), "{greeting}");
    assert!(greeting.contains("retry: 2000\n"), "{greeting}");
    let begun = Instant::now();
    served.publish(|s| s.services[0].phase = "suspect".to_owned());
    let mut got = String::new();
    read_until(&mut stream, &mut got, "\"phase\":\"suspect\"");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    served.events.send(event("something new")).unwrap();
    read_until(&mut stream, &mut got, "event: event\ndata: {\"service\":\"main\",");
    read_until(&mut stream, &mut got, "something new");
    assert!(got.contains("id: "), "{got}");
}

#[test]
fn a_view_that_only_grew_older_is_not_sent() {
    let served = Served::start(fixture::steady());
    let (mut stream, _) = follow(&served, "");
    served.publish(|s| s.at = WallTime(s.at.0 + 1_000_000));
    served.publish(|s| s.at = WallTime(s.at.0 + 1_000_000));
    served.events.send(event("after it")).unwrap();
    let mut got = String::new();
    read_until(&mut stream, &mut got, "after it");
    stream.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    let mut more = [0; 4096];
    let read = stream.read(&mut more);
    assert!(read.is_err(), "{:?}", read.map(|n| String::from_utf8_lossy(&more[..n]).into_owned()));
    assert!(!got.contains("event: status"), "{got}");
}

#[test]
fn a_follower_that_comes_back_gets_what_it_missed() {
    let served = Served::start(fixture::steady());
    let (mut stream, _) = follow(&served, "");
    served.events.send(event("first")).unwrap();
    let mut got = String::new();
    read_until(&mut stream, &mut got, "first");
    let id = got.lines().rev().find_map(|l| l.strip_prefix("id: ")).unwrap().to_owned();
    served.events.send(event("second")).unwrap();
    read_until(&mut stream, &mut got, "second");
    drop(stream);
    let (_, again) = follow(&served, &format!("last-event-id: {id}\r\n"));
    assert!(again.contains("second") && !again.contains("first"), "{again}");
    let (_, stranger) = follow(&served, "last-event-id: 17-1\r\n");
    assert!(!stranger.contains("second"), "ids of another start mean nothing here: {stranger}");
}

#[test]
fn followers_are_bounded_and_a_seat_is_given_back() {
    let served = Served::start(fixture::steady());
    let mut followers: Vec<_> = (0..64).map(|_| follow(&served, "").0).collect();
    let reply = served.get("/events");
    assert_eq!((reply.code, reply.problem().as_str()), (503, "crowded"));
    followers.clear();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut stream = served.connect();
        stream.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut got = String::new();
        read_until(&mut stream, &mut got, "\r\n\r\n");
        if got.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < deadline, "{got}");
    }
}

#[test]
fn the_server_stops_promptly_with_a_follower_attached() {
    let mut served = Served::start(fixture::steady());
    let (mut stream, _) = follow(&served, "");
    let _idle = served.connect();
    let begun = Instant::now();
    served.stop.cancel();
    assert!(served.admin.take().unwrap().join());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the stream is ended, not torn: {rest}");
}

// The page

#[test]
fn the_page_tells_at_one_glance() {
    let wanted = [
        ("steady", vec!["us-east", "Takes all traffic; nobody waits.", "Phase <b>steady</b>", "2 of 3", "epoch 7"]),
        ("suspect", vec!["Phase <b>suspect</b>", "1 of 3 probes failed", "If 2 more probes fail"]),
        (
            "promoting",
            vec!["Phase <b>promoting</b>", "87 clients wait", "Failover #7: us-east → us-west", "promotion sent"],
        ),
        ("blocked", vec!["Phase <b>blocked</b>", "Blocked: witness alive", "Check the network"]),
        ("quarantined", vec!["us-east is quarantined", "pg_rewind", "epoch 8"]),
        (
            "exhausted",
            vec!["Blocked: budget exhausted", "exhausted</b> <span>0 of 3 in 24 hours", "GRANT pg_read_all_stats"],
        ),
        (
            "clusters",
            vec!["Read through the Cloud API just now.", "us-east → us-west", "replicating</span>", "has all up to"],
        ),
        (
            "clusters_first_scan",
            vec![
                "Last reading: GET of the replication streams: no answer within 10 s",
                "us-west → us-east",
                "first scan: not usable yet",
                "activated as of 2026-",
                "is in its first scan: it shows no replicated time",
            ],
        ),
        (
            "clusters_failing_over",
            vec!["Failover #2: us-east → us-west", "warn\">failing over</span>", "to the latest replicated time"],
        ),
    ];
    assert_eq!(fixture::all().len(), wanted.len());
    for ((name, status), (expected, texts)) in fixture::all().into_iter().zip(wanted) {
        assert_eq!(name, expected);
        let page = Served::start(status).get("/stats").body;
        for text in texts {
            assert!(page.contains(text), "{name}: no {text:?} in {page}");
        }
        let red = matches!(name, "blocked" | "quarantined" | "exhausted");
        assert_eq!(page.contains("<section class=\"service bad\""), red, "{name}");
    }
}

/// The Replication table without its markup, one line each.
fn replication(status: crate::view::Status) -> Vec<String> {
    let page = Served::start(status).get("/stats?fragment=1").body;
    let table = page.split_once("<h3>Replication</h3>").unwrap().1.split_once("<h3>").unwrap().0;
    let mut lines = Vec::new();
    for line in table.lines() {
        let text: String = line.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
        lines.push(text.trim().to_owned());
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[test]
fn what_replicates_stands_before_what_has_ended_and_of_that_only_the_end_is_shown() {
    let mut status = fixture::clusters_first_scan();
    let streams = &mut status.services[0].replication.as_mut().unwrap().streams;
    let old = streams[0].clone();
    for n in 0..7 {
        let id = format!("old-{n}");
        streams
            .insert(n, crate::view::StreamStatus { id, status: "canceled".into(), activated_at: None, ..old.clone() });
    }
    let lines = replication(status);
    assert!(
        lines[2].contains("us-west → us-eastreplicating—") && lines[2].ends_with("first scan: not usable yet"),
        "{lines:?}"
    );
    assert!(lines[3].contains("us-east → us-westcompleted"), "{lines:?}");
    assert!(lines[4].starts_with("old-6") && lines[6].starts_with("old-4"), "{lines:?}");
    assert_eq!(lines[7], "4 older streams that ended before are not shown.");
}

#[test]
fn without_a_stream_the_page_says_what_that_means_and_without_a_reading_that_nothing_is_known() {
    let mut status = fixture::clusters();
    status.services[0].replication.as_mut().unwrap().streams.clear();
    let lines = replication(status.clone());
    assert_eq!(lines[1], "No stream leads from one cluster to the other: nothing can take over.");
    let known = status.services[0].replication.as_mut().unwrap();
    (known.read_at, known.source) = (None, "sql".into());
    assert_eq!(replication(status), ["Read through SQL never.", "No stream is known yet."]);
    assert!(!Served::start(fixture::steady()).get("/stats").body.contains("Replication</h3>"), "PostgreSQL has none");
}

#[test]
fn the_page_runs_nothing_but_its_own_script_and_loads_nothing() {
    let served = Served::start(fixture::steady());
    let page = served.get("/stats");
    let policy = page.head.lines().find_map(|l| l.strip_prefix("content-security-policy: ")).unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(!page.body.contains("src=\"http") && !page.body.contains(" style=") && !page.body.contains(" onclick="));
    assert_eq!(page.body.matches("<script").count(), 1);
    let fragment = served.get("/stats?fragment=1").body;
    assert!(fragment.starts_with("<div class=\"board\"") && !fragment.contains("<script"), "{fragment}");
    assert!(page.body.contains(fragment.lines().nth(4).unwrap()), "one renderer makes both");
    let reply = served.get("/");
    assert_eq!(reply.code, 307);
    assert!(reply.head.contains("location: /stats"));
}

#[test]
fn hostile_texts_stay_text() {
    let mut status = fixture::quarantined();
    let evil = "</p><script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let service = &mut status.services[0];
    service.name = evil.into();
    service.evidence = evil.to_owned();
    service.paused = Some(evil.to_owned());
    service.backends[0].name = evil.into();
    service.backends[0].quarantined = Some(evil.to_owned());
    service.backends[0].last_probe.as_mut().unwrap().text = evil.to_owned();
    service.backends[1].unarmed_why = vec![evil.to_owned()];
    service.active = Some(evil.into());
    status.daemon = evil.to_owned();
    status.state_error = Some(evil.to_owned());
    let served = Served::start(status);
    let (mut stream, _) = follow(&served, "");
    served.events.send(event(evil)).unwrap();
    read_until(&mut stream, &mut String::new(), "event: event");
    let page = served.get("/stats").body;
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    assert!(!page.contains("<img"), "{page}");
    assert_eq!(served.get("/stats?fragment=1").body.matches("<script").count(), 0);
}

#[test]
fn the_page_shows_what_happened_before_and_since_the_start() {
    let served = Served::start(fixture::steady());
    let (mut stream, _) = follow(&served, "");
    served.events.send(event("just happened")).unwrap();
    read_until(&mut stream, &mut String::new(), "just happened");
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let page = served.get("/stats").body;
        let new = page.find("just happened").unwrap();
        match page.find("line 0") {
            Some(old) => return assert!(new < old, "newest first"),
            None => assert!(Instant::now() < deadline, "{page}"),
        }
    }
}

#[test]
fn what_patroni_says_of_each_member_is_on_the_page() {
    let mut status = fixture::steady();
    status.services[0].patroni = Some(fixture::patroni());
    let page = Served::start(status).get("/stats").body;
    for part in [
        "<h3>Patroni</h3>",
        "through db1.example.com:8008",
        "sync standby",
        "start failed",
        "nofailover, pending restart",
        "not configured here",
        "Patroni is paused",
        "a switchover is scheduled from db1 to db2",
        "backend us-west is no member",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!Served::start(fixture::steady()).get("/stats").body.contains("Patroni"));
}
