//! Clients that wait: for a gate, for a server that comes back, for a deadline.

use std::time::Duration;

use tokio::time::Instant;

use super::proxy::*;
use crate::wire::sqlstate::{Severity, Sqlstate, error_response};

#[tokio::test]
async fn a_client_waits_while_no_side_may_be_used_and_is_served_when_one_may() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    let mut client = proxy.login("alice").await;
    proxy.held(1).await;
    proxy.open(&[server.address]);
    server.greet().await;
    client.expect(b"R").await;
    proxy.held(0).await;
}

#[tokio::test]
async fn at_the_deadline_a_plaintext_client_is_told_why_and_a_tls_client_sees_the_close() {
    let proxy = Proxy::start(|service| service.failover.hold_timeout = Duration::from_millis(200));
    proxy.close();
    let mut tls = proxy.connect().await;
    tls.send(SSL_REQUEST).await;
    let begun = Instant::now();
    let text = proxy.login("alice").await.expect_refusal("57P03").await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert!(text.contains("no server could be reached within 200ms: the primary is gone\0"), "{text:?}");
    assert!(text.contains("\0HNo side of the database may be used now"), "{text:?}");
    tls.expect_closed().await;
    assert_eq!(proxy.connections.held(&main()), 0);
    let counters = proxy.connections.listener(&main(), "127.0.0.1:0".parse().unwrap()).counters;
    assert_eq!((counters.sessions, counters.errors), (2, 2));
}

#[tokio::test]
async fn held_clients_are_released_in_the_order_they_came_and_not_all_at_once() {
    let proxy = Proxy::start(|service| service.failover.release_rate = 20);
    let server = Server::start().await;
    let users = ["first", "second", "third", "fourth", "fifth"];
    let mut clients = Vec::new();
    for (number, user) in users.iter().enumerate() {
        clients.push(proxy.login(user).await);
        proxy.held(number + 1).await;
    }
    let opened = Instant::now();
    proxy.open(&[server.address]);
    let mut sessions = Vec::new();
    for user in users {
        let (came, session) = server.accept_login().await;
        assert_eq!(came, user);
        sessions.push(session);
    }
    // Four intervals of 50 ms between five clients.
    assert!(opened.elapsed() >= Duration::from_millis(195), "{:?}", opened.elapsed());
}

#[tokio::test]
async fn who_waits_beyond_the_limits_is_refused_at_once() {
    let proxy = Proxy::start(|service| {
        service.failover.max_held = 3;
        service.failover.max_held_per_address = 2;
    });
    proxy.close();
    let _waiting = [proxy.login("a").await, proxy.login("b").await];
    proxy.held(2).await;
    let text = proxy.login("c").await.expect_refusal("57P03").await;
    assert!(text.contains("as many clients of this address wait as may"), "{text:?}");
    assert_eq!(proxy.connections.held(&main()), 2);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_frees_its_place() {
    let proxy = Proxy::start(|_| ());
    let client = proxy.login("alice").await;
    let mut talker = proxy.login("bob").await;
    proxy.held(2).await;
    drop(client);
    proxy.held(1).await;
    // Words before the end do not hide it.
    talker.send(b"more").await;
    drop(talker);
    proxy.held(0).await;
}

#[tokio::test]
async fn what_a_client_says_while_it_waits_reaches_the_server() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    let mut client = proxy.login("alice").await;
    proxy.held(1).await;
    client.send(b"and more").await;
    proxy.open(&[server.address]);
    let (_, mut session) = server.accept_login().await;
    session.expect(b"and more").await;
    session.send(b"R").await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_server_that_refuses_is_dialled_again_until_it_is_back() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    let address = server.address;
    drop(server);
    proxy.open(&[address]);
    let mut client = proxy.login("alice").await;
    proxy.held(1).await;
    let server = Server::start_at(address).await;
    server.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn who_waits_for_a_dead_server_goes_to_the_new_active_side_at_once() {
    let (proxy, new) = (Proxy::start(|_| ()), Server::start().await);
    let dead = Server::start().await.address;
    proxy.open(&[dead]);
    let mut client = proxy.login("alice").await;
    proxy.held(1).await;
    proxy.close();
    proxy.open_to("west", 2, &[new.address]);
    new.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_server_that_hangs_up_without_a_word_costs_the_client_nothing() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    drop(server.accept_login().await);
    server.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_server_that_is_starting_up_is_waited_for() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let (_, mut session) = server.accept_login().await;
    let starting = "the database system is starting up";
    session.send(&error_response(Severity::Fatal, Sqlstate::CANNOT_CONNECT_NOW, starting, None)).await;
    drop(session);
    server.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_node_that_drains_or_does_not_serve_the_cluster_is_passed_over_for_the_next_address_of_its_backend() {
    for code in [Sqlstate::ADMIN_SHUTDOWN, Sqlstate::CONNECTION_EXCEPTION] {
        let (proxy, one, two) = (Proxy::start(|_| ()), Server::start().await, Server::start().await);
        proxy.open(&[one.address, two.address]);
        let mut client = proxy.login("alice").await;
        let ((_, mut session), other) = tokio::select! {
            session = one.accept_login() => (session, &two),
            session = two.accept_login() => (session, &one),
        };
        session.send(&error_response(Severity::Fatal, code, "server is not accepting clients", None)).await;
        drop(session);
        other.greet().await;
        client.expect(b"R").await;
    }
}

#[tokio::test]
async fn a_client_that_asked_for_tls_in_vain_waits_for_a_server_that_is_starting_up_too() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.connect().await;
    client.send(SSL_REQUEST).await;
    let mut session = server.accept().await;
    session.expect(SSL_REQUEST).await;
    session.send(b"N").await;
    client.expect(b"N").await;
    client.send(&startup("alice")).await;
    session.expect(&startup("alice")).await;
    let starting = "the database system is starting up";
    let refusal = error_response(Severity::Fatal, Sqlstate::CANNOT_CONNECT_NOW, starting, None);
    session.send(&refusal).await;
    drop(session);
    // The next one is not asked for TLS again: its client has its answer.
    server.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_cancel_that_asked_for_tls_in_vain_is_sent_once() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.connect().await;
    client.send(SSL_REQUEST).await;
    let mut session = server.accept().await;
    session.expect(SSL_REQUEST).await;
    session.send(b"N").await;
    client.expect(b"N").await;
    client.send(&cancel_request()).await;
    session.expect(&cancel_request()).await;
    drop(session);
    client.expect_closed().await;
    server.nobody_came().await;
}

#[tokio::test]
async fn a_client_that_needs_tls_and_is_declined_may_leave() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.connect().await;
    client.send(SSL_REQUEST).await;
    let mut session = server.accept().await;
    session.expect(SSL_REQUEST).await;
    session.send(b"N").await;
    client.expect(b"N").await;
    drop(client);
    session.expect_closed().await;
    proxy.live(0).await;
}

#[tokio::test]
async fn another_refusal_of_the_server_is_the_clients_to_see() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let (_, mut session) = server.accept_login().await;
    session.send(&error_response(Severity::Fatal, Sqlstate::TOO_MANY_CONNECTIONS, "sorry", None)).await;
    drop(session);
    assert!(client.expect_refusal("53300").await.contains("sorry"));
}

#[tokio::test]
async fn a_statement_is_never_sent_twice() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.connect().await;
    let statement = [startup("alice"), b"Q\0\0\0\x0bINSERT\0".to_vec()].concat();
    client.send(&statement).await;
    let (_, mut session) = server.accept_login().await;
    session.expect(b"Q\0\0\0\x0bINSERT\0").await;
    drop(session);
    client.expect_closed().await;
    server.nobody_came().await;
}

#[tokio::test]
async fn newcomers_queue_behind_who_waits_already() {
    let proxy = Proxy::start(|service| service.failover.release_rate = 5);
    let server = Server::start().await;
    let _first = proxy.login("one").await;
    proxy.held(1).await;
    let _second = proxy.login("two").await;
    proxy.held(2).await;
    proxy.open(&[server.address]);
    let opened = Instant::now();
    let (_, _one) = server.accept_login().await;
    let _late = proxy.login("late").await;
    let mut order = Vec::new();
    for _ in 0..2 {
        order.push(server.accept_login().await);
    }
    assert_eq!((order[0].0.as_str(), order[1].0.as_str()), ("two", "late"));
    assert!(opened.elapsed() >= Duration::from_millis(390), "{:?}", opened.elapsed());
}

#[tokio::test]
async fn a_dial_that_hangs_is_given_up_when_the_side_is_not_active_any_more() {
    let proxy = Proxy::start(|service| service.connection.connect_timeout = LONG);
    let new = Server::start().await;
    let deaf = Deaf::start().await;
    proxy.open(&[deaf.address]);
    let mut client = proxy.login("alice").await;
    proxy.until(|_| deaf.is_dialled()).await;
    proxy.open_to("west", 2, &[new.address]);
    new.greet().await;
    client.expect(b"R").await;
}
