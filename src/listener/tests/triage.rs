//! First packets: what is refused, what is bounded, and what a limit tells whom.

use std::time::Duration;

use tokio::time::sleep;

use super::proxy::*;

fn impatient() -> Proxy {
    Proxy::start(|service| service.connection.first_packet_timeout = Duration::from_millis(300))
}

#[tokio::test]
async fn garbage_is_closed_quietly_and_reaches_no_server() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xff\xff\xff\xff", b"\0\0\x27\x11\0\x03\0\0", b"\0\0\0\x07"] {
        let mut client = proxy.connect().await;
        client.send(garbage).await;
        client.expect_closed().await;
    }
    server.nobody_came().await;
}

#[tokio::test]
async fn an_odd_postgresql_client_is_told_what_is_wrong() {
    let proxy = Proxy::start(|_| ());
    let mut client = proxy.connect().await;
    client.send(b"\0\0\0\x09\0\x02\0\0\0").await;
    assert!(client.expect_refusal("0A000").await.contains("unsupported frontend protocol 2.0"));
    let mut client = proxy.connect().await;
    client.send(b"\0\0\0\x0c\0\x03\0\0user").await;
    client.expect_refusal("08P01").await;
}

#[tokio::test]
async fn a_client_that_says_nothing_or_trickles_is_ended_in_time() {
    let (proxy, server) = (impatient(), Server::start().await);
    proxy.open(&[server.address]);
    let mut silent = proxy.connect().await;
    let mut half = proxy.connect().await;
    half.send(&startup("alice")[..9]).await;
    let mut slow = proxy.connect().await;
    let packet = startup(&"a".repeat(200));
    let trickle = async {
        for byte in packet {
            if tokio::io::AsyncWriteExt::write_all(&mut slow.0, &[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(trickle, silent.expect_closed(), half.expect_closed());
    slow.expect_closed().await;
    server.nobody_came().await;
}

#[tokio::test]
async fn a_startup_packet_in_small_pieces_is_whole_for_the_server() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.connect().await;
    for byte in startup("alice") {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(server.accept_login().await.0, "alice");
}

#[tokio::test]
async fn the_longest_startup_packet_that_postgresql_takes_passes() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let user = "a".repeat(10_000 - 15);
    let packet = startup(&user);
    assert_eq!(packet.len(), 10_000);
    let mut client = proxy.connect().await;
    client.send(&packet).await;
    assert_eq!(server.accept_login().await.0, user);
}

#[tokio::test]
async fn a_tcp_check_is_nobody() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    drop(proxy.connect().await);
    let count = |proxy: &Proxy| proxy.connections.listener(&main(), "127.0.0.1:0".parse().unwrap());
    proxy.until(|proxy| count(proxy).counters.sessions == 1 && count(proxy).open == 0).await;
    assert_eq!(count(&proxy).counters.errors, 0);
    server.nobody_came().await;
}

#[tokio::test]
async fn over_max_connections_a_plaintext_client_is_told_and_a_cancel_still_passes() {
    let (proxy, server) = (Proxy::start(|service| service.listeners[0].max_connections = 1), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let session = server.greet().await;
    client.expect(b"R").await;

    let text = proxy.login("bob").await.expect_refusal("53300").await;
    assert!(text.contains("this listener takes 1"), "{text:?}");
    let mut tls = proxy.connect().await;
    tls.send(SSL_REQUEST).await;
    tls.expect_closed().await;
    let mut cancel = proxy.connect().await;
    cancel.send(&cancel_request()).await;
    server.accept().await.expect(&cancel_request()).await;

    drop((client, session));
    proxy.until(|proxy| proxy.connections.listener(&main(), "127.0.0.1:0".parse().unwrap()).open == 0).await;
    let mut again = proxy.login("bob").await;
    let _session = server.greet().await;
    again.expect(b"R").await;
}

#[tokio::test]
async fn open_sessions_beside_garbage_and_trickling_packets_are_undisturbed() {
    // One thread for all of them.
    let (proxy, server) = (
        Proxy::start(|service| {
            service.workers = 1;
            service.connection.first_packet_timeout = Duration::from_millis(300);
        }),
        Server::start().await,
    );
    proxy.open(&[server.address]);
    let mut sessions = Vec::new();
    for user in ["alice", "bob", "carol"] {
        let mut client = proxy.login(user).await;
        let behind = server.greet().await;
        client.expect(b"R").await;
        sessions.push((client, behind));
    }
    let packet = startup(&"a".repeat(200));
    for round in 0..10_u8 {
        let mut odd = Vec::new();
        for begin in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xff\xff\xff\xff", b"\0\0\0\x07", b"", &packet[..9], SSL_REQUEST]
        {
            let mut client = proxy.connect().await;
            client.send(begin).await;
            odd.push(client);
        }
        // Byte by byte, with a word of every session between two of them.
        for byte in &packet[..8] {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut odd[3].0, &[*byte]).await;
            for (n, (client, behind)) in (0..).zip(&mut sessions) {
                let word = [b'Q', round, n, *byte];
                client.send(&word).await;
                behind.expect(&word).await;
                behind.send(&word).await;
                client.expect(&word).await;
            }
        }
        // What asks for TLS is asked on to the server; it gets no answer there and leaves.
        let mut asked = server.accept().await;
        asked.expect(SSL_REQUEST).await;
        drop((odd.pop(), asked));
        for client in &mut odd {
            client.rest().await;
        }
    }
    server.nobody_came().await;
    proxy.live(3).await;
    for (mut client, mut behind) in sessions {
        client.send(b"X").await;
        behind.expect(b"X").await;
        drop(client);
        behind.expect_closed().await;
    }
}
