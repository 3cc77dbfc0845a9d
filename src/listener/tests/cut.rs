//! A side that is not active any more: what happens to its connections, and what can never happen.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::proxy::*;
use crate::relay::Cut;

#[tokio::test]
async fn a_cut_ends_both_directions_and_nothing_said_later_arrives() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let mut session = server.greet().await;
    client.expect(b"R").await;

    assert_eq!(proxy.connections.cut(&main(), &east(), Cut::Demoted), 1);
    assert_eq!(proxy.connections.live(&main(), &east()), 0);
    // The server does not know yet: what it says now is an acknowledgement that would be lost.
    let said = session.0.write_all(b"COMMIT").await;
    let _ = client.0.write_all(b"INSERT").await;
    client.expect_closed().await;
    let mut read = Vec::new();
    let heard = session.0.read_to_end(&mut read).await.map(drop);
    assert!(said.is_err() || heard.is_err(), "a reset, not an end");
    assert!(read.is_empty(), "not one byte");
    let listener = proxy.connections.listener(&main(), "127.0.0.1:0".parse().unwrap());
    assert_eq!(listener.counters.cut, [("demoted".to_owned(), 1)]);
    assert_eq!(proxy.connections.endpoints(&main(), &east())[0].counters.cut, [("demoted".to_owned(), 1)]);
}

#[tokio::test]
async fn bytes_that_the_old_side_had_not_taken_are_taken_back() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    // Inherited by the connection: the old side takes little, and reads nothing.
    server.limit_buffer(16 * 1024);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let mut session = server.greet().await;
    client.expect(b"R").await;
    let writer = tokio::spawn(async move {
        let _ = client.0.write_all(&vec![b'x'; 64 << 20]).await;
    });
    let handed_over = |proxy: &Proxy| proxy.connections.endpoints(&main(), &east())[0].counters.bytes_in;
    proxy.until(|proxy| handed_over(proxy) > 1 << 20).await;
    assert_eq!(proxy.connections.cut(&main(), &east(), Cut::Demoted), 1);
    writer.await.unwrap();
    let mut read = Vec::new();
    let _ = session.0.read_to_end(&mut read).await;
    assert!(read.len() < 1 << 20, "{} bytes arrived", read.len());
}

#[tokio::test]
async fn a_client_whose_server_said_nothing_yet_survives_the_cut() {
    let (proxy, old, new) = (Proxy::start(|_| ()), Server::start().await, Server::start().await);
    proxy.open(&[old.address]);
    let mut client = proxy.login("alice").await;
    let (_, mut session) = old.accept_login().await;
    proxy.live(1).await;
    proxy.close();
    assert_eq!(proxy.connections.cut(&main(), &east(), Cut::Demoted), 1);
    let _ = session.0.write_all(b"R").await;
    proxy.held(1).await;
    proxy.open_to("west", 2, &[new.address]);
    new.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn one_side_is_cut_and_the_other_goes_on() {
    let (proxy, east_server, west_server) = (Proxy::start(|_| ()), Server::start().await, Server::start().await);
    proxy.open(&[east_server.address]);
    let mut on_east = proxy.login("a").await;
    let _old = east_server.greet().await;
    on_east.expect(b"R").await;
    proxy.open_to("west", 2, &[west_server.address]);
    let mut on_west = proxy.login("b").await;
    let mut session = west_server.greet().await;
    on_west.expect(b"R").await;

    assert_eq!(proxy.connections.cut(&main(), &east(), Cut::Demoted), 1);
    on_east.expect_closed().await;
    session.send(b"still here").await;
    on_west.expect(b"still here").await;
}

#[tokio::test]
async fn nobody_reaches_a_cut_side_until_it_is_opened_again() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    // The snapshot still leads there; the fence does not.
    proxy.connections.cut(&main(), &east(), Cut::Demoted);
    let mut client = proxy.login("alice").await;
    proxy.held(1).await;
    server.nobody_came().await;
    proxy.open(&[server.address]);
    server.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_cut_reaches_clients_of_both_threads_from_a_third() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut pairs = Vec::new();
    for _ in 0..20 {
        let mut client = proxy.login("alice").await;
        let session = server.greet().await;
        client.expect(b"R").await;
        pairs.push((client, session));
    }
    let connections = proxy.connections.clone();
    let cut = std::thread::spawn(move || connections.cut_all(Cut::Shutdown)).join().unwrap();
    assert_eq!(cut, 20);
    for (client, _) in &mut pairs {
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn a_drained_client_is_told_when_nothing_is_under_way() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let mut session = server.greet().await;
    client.expect(b"R").await;
    session.send(b"Z\0\0\0\x05I").await;
    client.expect(b"Z\0\0\0\x05I").await;
    assert_eq!(proxy.connections.drain(&main(), &east()), 1);
    client.expect_refusal("57P01").await;
}
