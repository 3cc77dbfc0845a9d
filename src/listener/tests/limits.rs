//! Limits per client address and of the rate at which connections come, as those over them and those below see them.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

use super::proxy::*;
use crate::config::{ListenerLimits, Rate};

/// A client that comes from 127.0.0.`host`.
async fn login_from(proxy: &Proxy, host: u8, user: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).unwrap();
    let mut client = Client(socket.connect(proxy.address()).await.unwrap());
    client.send(&startup(user)).await;
    client
}

fn limited(limits: ListenerLimits) -> Proxy {
    Proxy::start(|service| service.listeners[0].limits = limits)
}

/// Refusals over the limit with this key.
fn refused(proxy: &Proxy, limit: &str) -> u64 {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let counted = proxy.connections.listener(&main(), address).refused;
    counted.into_iter().find_map(|(name, count)| (name == limit).then_some(count)).unwrap()
}

#[tokio::test]
async fn an_address_that_has_all_it_may_have_is_refused_and_another_is_served() {
    let proxy = limited(ListenerLimits { per_address: Some(2), ..ListenerLimits::default() });
    let server = Server::start().await;
    proxy.open(&[server.address]);
    let mut greedy = Vec::new();
    for _ in 0..2 {
        greedy.push((login_from(&proxy, 2, "greedy").await, server.greet().await));
    }
    let text = login_from(&proxy, 2, "greedy").await.expect_refusal("53300").await;
    assert!(text.contains("max_connections_per_address is 2"), "{text:?}");
    assert_eq!(refused(&proxy, "max_connections_per_address"), 1);

    let mut good = login_from(&proxy, 3, "good").await;
    let _session = server.greet().await;
    good.expect(b"R").await;

    drop(greedy.pop());
    proxy.live(2).await;
    let mut again = login_from(&proxy, 2, "greedy").await;
    server.greet().await;
    again.expect(b"R").await;
}

#[tokio::test]
async fn an_address_at_its_limit_may_still_cancel_a_query() {
    let proxy = limited(ListenerLimits { per_address: Some(1), ..ListenerLimits::default() });
    let server = Server::start().await;
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let _session = server.greet().await;
    client.expect(b"R").await;
    let mut cancel = proxy.connect().await;
    cancel.send(&cancel_request()).await;
    let mut session = server.accept().await;
    session.expect(&cancel_request()).await;
    drop(session);
    cancel.expect_closed().await;
}

#[tokio::test]
async fn who_comes_too_fast_is_refused_without_a_loss_to_others_and_cancels_cost_nothing() {
    let slow = Rate { per_second: 1, burst: 2 };
    let proxy = limited(ListenerLimits { rate_per_address: Some(slow), ..ListenerLimits::default() });
    let server = Server::start().await;
    proxy.open(&[server.address]);
    for _ in 0..3 {
        let mut cancel = proxy.connect().await;
        cancel.send(&cancel_request()).await;
        drop(server.accept().await);
        cancel.expect_closed().await;
    }
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push((proxy.login("fast").await, server.greet().await));
    }
    let text = proxy.login("fast").await.expect_refusal("53300").await;
    assert!(text.contains("connection_rate_per_address is 1/s"), "{text:?}");
    assert_eq!(refused(&proxy, "connection_rate_per_address"), 1);
    let mut good = login_from(&proxy, 3, "good").await;
    server.greet().await;
    good.expect(b"R").await;
}

#[tokio::test]
async fn a_listener_takes_no_more_connections_per_second_than_it_may() {
    let slow = Rate { per_second: 1, burst: 1 };
    let proxy = limited(ListenerLimits { rate: Some(slow), ..ListenerLimits::default() });
    let server = Server::start().await;
    proxy.open(&[server.address]);
    let _first = login_from(&proxy, 2, "one").await;
    server.greet().await;
    let text = login_from(&proxy, 3, "two").await.expect_refusal("53300").await;
    assert!(text.contains("connection_rate is 1/s"), "{text:?}");
    assert_eq!(refused(&proxy, "connection_rate"), 1);
}

#[tokio::test]
async fn a_limit_that_is_loaded_counts_those_who_are_here_already() {
    let mut proxy = limited(ListenerLimits::default());
    let server = Server::start().await;
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let _session = server.greet().await;
    client.expect(b"R").await;
    proxy.config.services[0].listeners[0].limits.per_address = Some(1);
    proxy.listeners.apply(&proxy.config).unwrap();
    proxy.login("bob").await.expect_refusal("53300").await;
    proxy.config.services[0].listeners[0].limits.per_address = None;
    proxy.listeners.apply(&proxy.config).unwrap();
    let mut carol = proxy.login("carol").await;
    server.greet().await;
    carol.expect(b"R").await;
}

#[tokio::test]
async fn clients_over_a_limit_that_say_nothing_are_few_and_take_no_place_of_others() {
    let proxy = Proxy::start(|service| {
        service.listeners[0].max_connections = 2;
        service.listeners[0].limits.per_address = Some(1);
    });
    let server = Server::start().await;
    proxy.open(&[server.address]);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(proxy.connect().await);
    }
    // One is within its limit, eight wait to be told, eleven were closed.
    proxy.until(|proxy| refused(proxy, "max_connections_per_address") == 11).await;
    let mut good = login_from(&proxy, 3, "good").await;
    server.greet().await;
    good.expect(b"R").await;
}
