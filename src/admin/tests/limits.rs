//! What is too big, too slow or too much is ended, and nobody else is disturbed.

use super::super::server::Patience;
use super::*;

#[test]
fn an_oversized_body_is_refused_whether_announced_or_not() {
    let served = Served::start(fixture::steady());
    let announced = served.ask("POST /failover/trigger", "content-length: 65537\r\n", "");
    assert_eq!((announced.code, announced.problem().as_str()), (413, "too-large"));
    let mut stream = served.connect();
    let head =
        "POST /failover/trigger HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, " ".repeat(60_000));
    stream.write_all(chunk.as_bytes()).unwrap();
    let _ = stream.write_all(chunk.as_bytes());
    let mut got = String::new();
    read_until(&mut stream, &mut got, "too-large");
    assert!(got.starts_with("HTTP/1.1 413"), "{got}");
}

#[test]
fn an_endless_head_is_cut_off() {
    let served = Served::start(fixture::steady());
    let mut stream = served.connect();
    stream.write_all(b"GET /stats HTTP/1.1\r\nhost: localhost\r\nx: ").unwrap();
    let sent = (0..64).take_while(|_| stream.write_all(&[b'a'; 4096]).is_ok()).count();
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    assert!(sent < 64 || read.is_err() || text.starts_with("HTTP/1.1 431"), "{text}");
}

#[test]
fn a_client_that_trickles_is_closed() {
    let served = Served::start(fixture::steady());
    let begun = Instant::now();
    let mut stream = served.connect();
    stream.write_all(b"GET /stats HTTP/1.1\r\nhost: loc").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(5), "closed after {:?}", begun.elapsed());

    let mut stream = served.connect();
    let head = "POST /failover/trigger HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let mut got = String::new();
    read_until(&mut stream, &mut got, "slow-body");
    assert!(got.starts_with("HTTP/1.1 408"), "{got}");
}

#[test]
fn a_kept_connection_serves_again_and_is_closed_when_it_stays_silent() {
    let served = Served::start(fixture::steady());
    let mut stream = served.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        read_until(&mut stream, &mut String::new(), "{\"status\":\"live\"}");
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_its_connection() {
    let served = Served::start(fixture::steady());
    let mut stream = served.connect();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = "GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50);
    let refused = (0..10_000).find_map(|_| stream.write_all(request.as_bytes()).err());
    let kind = refused.expect("a server that closes").kind();
    assert!(matches!(kind, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{kind:?}");
}

#[test]
fn too_many_connections_are_turned_away_and_the_unix_socket_still_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let settings = Settings { listen: LOOPBACK, socket: Some(path.clone()), ..Settings::default() };
    let served = Served::patient(fixture::steady(), settings, Patience::default());
    let _idle: Vec<_> = (0..192).map(|_| served.connect()).collect();
    let mut one_more = served.connect();
    let mut text = String::new();
    one_more.read_to_string(&mut text).unwrap();
    let reply = fixture::Reply::parse(&text);
    assert_eq!((reply.code, reply.problem().as_str()), (503, "full"));
    let length = format!("content-length: {}\r\n", reply.body.len());
    assert!(text.contains(&length), "{text}");
    assert_eq!(exchange(unix(&path), "GET /live", "", "").code, 200);
}

// Health
