//! Clients that are served: which server gets them, and what passes.

use std::time::Duration;

use tokio::time::timeout;

use super::proxy::*;
use crate::config::Target;
use crate::failover::observation::{Evidence, Failure};

#[tokio::test]
async fn a_client_reaches_the_active_server_and_bytes_pass_both_ways() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let (user, mut session) = server.accept_login().await;
    assert_eq!(user, "alice");
    session.send(b"R-welcome").await;
    client.expect(b"R-welcome").await;
    client.send(b"question").await;
    session.expect(b"question").await;
    session.send(b"answer").await;
    client.expect(b"answer").await;
    drop(client);
    session.expect_closed().await;
    drop(session);
    proxy.live(0).await;

    let listener = proxy.connections.listener(&main(), "127.0.0.1:0".parse().unwrap());
    let endpoint = &proxy.connections.endpoints(&main(), &east())[0];
    assert_eq!((listener.counters.sessions, endpoint.counters.sessions), (1, 1));
    assert_eq!(listener.counters.bytes_out, 15);
    assert_eq!(endpoint.counters.bytes_out, 15);
}

#[tokio::test]
async fn tls_between_client_and_server_passes_untouched() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.connect().await;
    client.send(SSL_REQUEST).await;
    let mut session = server.accept().await;
    session.expect(SSL_REQUEST).await;
    session.send(b"S").await;
    client.expect(b"S").await;
    let hello = [b"\x16\x03\x01\x02\x00\x01".to_vec(), (0..=255).collect()].concat();
    client.send(&hello).await;
    let mut read = vec![0; hello.len()];
    tokio::io::AsyncReadExt::read_exact(&mut session.0, &mut read).await.unwrap();
    assert_eq!(read, hello);
}

#[tokio::test]
async fn direct_tls_passes_even_when_its_hello_comes_in_pieces() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.connect().await;
    client.send(b"\x16\x03\x01\x02\x00\x01hel").await;
    let mut session = server.accept().await;
    session.expect(b"\x16\x03\x01\x02\x00\x01hel").await;
    // The server cannot answer yet: the rest must reach it all the same.
    client.send(b"lo").await;
    session.expect(b"lo").await;
    session.send(b"\x16server hello").await;
    client.expect(b"\x16server hello").await;
}

#[tokio::test]
async fn a_client_that_shuts_its_writing_side_still_gets_the_answer() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let mut session = server.greet().await;
    client.expect(b"R").await;
    client.send(b"question").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.unwrap();
    session.expect(b"question").await;
    session.expect_closed().await;
    session.send(b"answer").await;
    drop(session);
    assert_eq!(client.rest().await, "answer");
}

#[tokio::test]
async fn a_dead_address_is_passed_over_and_told_as_evidence() {
    let (mut proxy, server, gone) = (Proxy::start(|_| ()), Server::start().await, Server::start().await);
    let dead = gone.address;
    drop(gone);
    proxy.open(&[dead, server.address]);
    let _client = proxy.login("alice").await;
    let _session = server.greet().await;
    let (service, evidence) = proxy.evidence.recv().await.unwrap();
    assert_eq!(service, main());
    assert_eq!(evidence, Evidence::ConnectFailed { backend: east(), address: dead, failure: Failure::Refused });
    let errors = proxy.connections.endpoints(&main(), &east()).iter().map(|e| e.counters.errors).sum::<u64>();
    assert_eq!(errors, 1);
}

#[tokio::test]
async fn endpoints_of_a_backend_share_by_least_connections() {
    let (proxy, one, two) = (Proxy::start(|_| ()), Server::start().await, Server::start().await);
    proxy.open(&[one.address, two.address]);
    let mut kept = Vec::new();
    for _ in 0..4 {
        let client = proxy.login("alice").await;
        let session = tokio::select! {
            session = one.greet() => session,
            session = two.greet() => session,
        };
        kept.push((client, session));
    }
    let counts = proxy.connections.endpoints(&main(), &east());
    assert_eq!(counts.iter().map(|count| count.live).collect::<Vec<_>>(), [2, 2]);
}

#[tokio::test]
async fn a_read_only_listener_leads_to_standbys_and_to_the_active_side_when_none_is_fit() {
    let proxy = Proxy::start(|service| service.listeners = vec![listener("127.0.0.1:0", Target::ReadOnly)]);
    let (active, standby) = (Server::start().await, Server::start().await);
    let tier = vec![backend("east", &[active.address])];
    proxy.publish(&open_gate(1, tier.clone(), vec![backend("west", &[standby.address])]));
    let mut client = proxy.login("reader").await;
    standby.greet().await;
    client.expect(b"R").await;

    proxy.publish(&open_gate(1, tier.clone(), vec![]));
    let mut client = proxy.login("reader").await;
    active.greet().await;
    client.expect(b"R").await;

    // A standby that is announced but refuses: the client is served all the same.
    let gone = Server::start().await.address;
    proxy.publish(&open_gate(1, tier, vec![backend("west", &[gone])]));
    let mut client = proxy.login("reader").await;
    active.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_cancel_goes_to_the_active_side_and_nowhere_else() {
    let (proxy, active, standby) = (Proxy::start(|_| ()), Server::start().await, Server::start().await);
    proxy.publish(&open_gate(1, vec![backend("east", &[active.address])], vec![backend("west", &[standby.address])]));
    let mut client = proxy.connect().await;
    client.send(&cancel_request()).await;
    let mut session = active.accept().await;
    session.expect(&cancel_request()).await;
    drop(session);
    // The close comes after the server's: the sign that it was delivered.
    client.expect_closed().await;
    standby.nobody_came().await;
}

#[tokio::test]
async fn a_cancel_is_dropped_while_no_side_serves_but_passes_during_a_drain() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    let mut client = proxy.connect().await;
    client.send(&cancel_request()).await;
    client.expect_closed().await;
    assert_eq!(proxy.connections.held(&main()), 0);

    let mut gate = open_gate(1, vec![backend("east", &[server.address])], vec![]);
    if let crate::routing::Gate::Open { hold, .. } = &mut gate {
        *hold = true;
    }
    proxy.publish(&gate);
    let mut client = proxy.connect().await;
    client.send(&cancel_request()).await;
    let mut session = server.accept().await;
    session.expect(&cancel_request()).await;
    drop(session);
    client.expect_closed().await;
}

#[tokio::test]
async fn a_server_that_dies_is_noticed_although_its_idle_clients_linger() {
    let (mut proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.login("alice").await;
        let session = server.greet().await;
        client.expect(b"R").await;
        clients.push((client, Some(session)));
    }
    assert_eq!(proxy.connections.live(&main(), &east()), 3);
    for (_, session) in &mut clients {
        drop(session.take());
    }
    let last = Evidence::Connections { backend: east(), live: 0 };
    let heard = async { while proxy.evidence.recv().await != Some((main(), last.clone())) {} };
    tokio::time::timeout(LONG, heard).await.expect("not told");
    assert_eq!(proxy.connections.live(&main(), &east()), 0);
}

#[tokio::test]
async fn a_request_without_an_answer_is_seen_and_an_answer_settles_it() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let (_, mut session) = server.accept_login().await;
    let activity = |proxy: &Proxy| proxy.connections.activity(&main(), &east());
    proxy.until(|proxy| activity(proxy).unanswered_since.is_some()).await;
    session.send(b"R").await;
    client.expect(b"R").await;
    proxy.until(|proxy| activity(proxy).unanswered_since.is_none()).await;
    let greeted = activity(&proxy).answered_at.unwrap();

    client.send(b"question").await;
    session.expect(b"question").await;
    proxy.until(|proxy| activity(proxy).unanswered_since.is_some_and(|since| since >= greeted)).await;
    session.send(b"answer").await;
    client.expect(b"answer").await;
    proxy.until(|proxy| activity(proxy).unanswered_since.is_none()).await;
    assert!(activity(&proxy).answered_at.unwrap() >= greeted);
    assert!(greeted.0 > Duration::ZERO);
}

#[tokio::test]
async fn a_dial_that_is_swallowed_ends_in_time_and_the_next_address_is_tried() {
    let mut proxy = Proxy::start(|service| service.connection.connect_timeout = Duration::from_millis(300));
    let (deaf, server) = (Deaf::start().await, Server::start().await);
    proxy.open(&[deaf.address, server.address]);
    let mut client = proxy.login("alice").await;
    server.greet().await;
    client.expect(b"R").await;
    let told = async {
        while let Some((_, evidence)) = proxy.evidence.recv().await {
            if let Evidence::ConnectFailed { backend, address, failure } = evidence {
                return Some((backend, address, failure));
            }
        }
        None
    };
    let told = timeout(LONG, told).await.expect("the decision core hears of it");
    assert_eq!(told, Some((east(), deaf.address, Failure::TimedOut)));
}

#[tokio::test]
async fn where_every_dial_is_swallowed_the_client_is_told_so_in_the_end() {
    let proxy = Proxy::start(|service| {
        service.connection.connect_timeout = Duration::from_millis(100);
        service.failover.hold_timeout = Duration::from_millis(500);
    });
    let deaf = Deaf::start().await;
    proxy.open(&[deaf.address]);
    let text = proxy.login("alice").await.expect_refusal("57P03").await;
    assert!(text.contains("connecting to east failed"), "{text:?}");
}

/// AuthenticationOk, and the key that `cancel_request` names.
const KEY: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07keyk";

#[tokio::test]
async fn a_cancel_of_a_reader_goes_to_the_standby_that_has_its_session_and_nowhere_else() {
    let proxy = Proxy::start(|service| service.listeners = vec![listener("127.0.0.1:0", Target::ReadOnly)]);
    let (active, one, two) = (Server::start().await, Server::start().await, Server::start().await);
    let readers = vec![backend("west", &[one.address]), backend("north", &[two.address])];
    proxy.publish(&open_gate(1, vec![backend("east", &[active.address])], readers));
    let mut reader = proxy.login("reader").await;
    let ((_, mut session), owner, other) = tokio::select! {
        session = one.accept_login() => (session, &one, &two),
        session = two.accept_login() => (session, &two, &one),
    };
    session.send(KEY).await;
    reader.expect(KEY).await;
    let mut cancel = proxy.connect().await;
    cancel.send(&cancel_request()).await;
    let mut delivered = owner.accept().await;
    delivered.expect(&cancel_request()).await;
    drop(delivered);
    cancel.expect_closed().await;
    other.nobody_came().await;
    active.nobody_came().await;
}

#[tokio::test]
async fn a_cancel_whose_session_nobody_knows_goes_to_eight_readers_at_most_and_to_the_active_side() {
    let proxy = Proxy::start(|service| service.listeners = vec![listener("127.0.0.1:0", Target::ReadOnly)]);
    let active = Server::start().await;
    let mut standbys = Vec::new();
    for _ in 0..9 {
        standbys.push(Server::start().await);
    }
    let readers = standbys.iter().enumerate().map(|(i, server)| backend(&format!("s{i}"), &[server.address])).collect();
    proxy.publish(&open_gate(1, vec![backend("east", &[active.address])], readers));
    let mut cancel = proxy.connect().await;
    cancel.send(&cancel_request()).await;
    for server in standbys.iter().take(8).chain([&active]) {
        server.accept().await.expect(&cancel_request()).await;
    }
    cancel.expect_closed().await;
    standbys[8].nobody_came().await;
}

#[tokio::test]
async fn a_client_of_a_newer_protocol_is_told_by_the_server_which_one_is_spoken() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let newer = [&b"\0\0\0\x14\0\x03\0\x02user\0alice\0\0"[..]].concat();
    let mut client = proxy.connect().await;
    client.send(&newer).await;
    let mut session = server.accept().await;
    session.expect(&newer).await;
    // NegotiateProtocolVersion: 3.0, no option is unknown; then AuthenticationOk.
    let spoken = b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0R\0\0\0\x08\0\0\0\0";
    session.send(spoken).await;
    client.expect(spoken).await;
    client.send(b"question").await;
    session.expect(b"question").await;
}
