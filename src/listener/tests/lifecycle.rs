//! Listeners that come, change and go; the end of the daemon; and what must not take it down.

use std::time::Duration;

use super::proxy::*;
use crate::config::Target;
use crate::listener::{DrainReport, ListenerError, Listeners};
use crate::types::ServiceName;

const SOON: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_service_without_listeners_is_fine() {
    let proxy = Proxy::start(|service| service.listeners.clear());
    assert!(proxy.listeners.addresses().is_empty());
    assert_eq!(proxy.listeners.drain(SOON).await, DrainReport::default());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let other = Server::start().await;
    let mut taken = service();
    taken.listeners = vec![listener(&other.address.to_string(), Target::Active)];
    let proxy = Proxy::start(|_| ());
    let config = config(vec![taken]);
    let error = Listeners::start(&config, proxy.routing.clone(), proxy.connections.clone()).unwrap_err();
    assert!(matches!(error, ListenerError::Taken { .. }));
    let text = format!("service main: {} is taken by another process", other.address);
    assert!(error.to_string().starts_with(&text), "{error}");
    // On a reload nothing changes either.
    let before = proxy.listeners.addresses();
    assert!(proxy.listeners.apply(&config).is_err());
    assert_eq!(proxy.listeners.addresses(), before);
}

#[tokio::test]
async fn listeners_come_and_go_without_touching_the_sessions_of_others_or_their_own() {
    let (mut proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let mut session = server.greet().await;
    client.expect(b"R").await;
    let old = proxy.address();

    let added: std::net::SocketAddr = "127.0.0.2:0".parse().unwrap();
    proxy.config.services[0].listeners = vec![listener(&added.to_string(), Target::Active)];
    proxy.listeners.apply(&proxy.config).unwrap();
    proxy.until(|_| std::net::TcpStream::connect_timeout(&old, LONG).is_err()).await;
    session.send(b"still here").await;
    client.expect(b"still here").await;

    let mut newcomer = proxy.login("bob").await;
    server.greet().await;
    newcomer.expect(b"R").await;
    assert_eq!(proxy.connections.listener(&main(), added).counters.sessions, 1);
}

#[tokio::test]
async fn a_changed_limit_counts_for_the_next_client() {
    let (mut proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let mut client = proxy.login("alice").await;
    let session = server.greet().await;
    client.expect(b"R").await;
    proxy.config.services[0].listeners[0].max_connections = 1;
    proxy.config.services[0].connection.keepalive = Duration::from_secs(7);
    proxy.listeners.apply(&proxy.config).unwrap();
    proxy.login("bob").await.expect_refusal("53300").await;
    drop((client, session));
    proxy.until(|proxy| proxy.connections.listener(&main(), "127.0.0.1:0".parse().unwrap()).open == 0).await;
    let mut carol = proxy.login("carol").await;
    let _session = server.greet().await;
    carol.expect(b"R").await;
}

#[tokio::test]
async fn a_reload_adds_a_service() {
    let (mut proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    let mut second = service();
    second.name = "second".into();
    proxy.config.services.push(second);
    proxy.listeners.apply(&proxy.config).unwrap();
    let second = ServiceName::new("second");
    let gate = open_gate(1, vec![backend("only", &[server.address])], vec![]);
    crate::listener::publish(&proxy.routing, &proxy.connections, &second, &gate);
    let address = proxy.listeners.addresses().into_iter().find(|(name, ..)| *name == second).unwrap().2;
    let mut client = Client::connect(address).await;
    client.send(&startup("alice")).await;
    server.greet().await;
    client.expect(b"R").await;
}

#[tokio::test]
async fn a_drain_lets_work_end_sends_waiters_away_and_reports_who_was_cut() {
    let (proxy, server) = (Proxy::start(|_| ()), Server::start().await);
    proxy.open(&[server.address]);
    let (mut idle, mut busy) = (proxy.login("idle").await, proxy.login("busy").await);
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let (user, mut session) = server.accept_login().await;
        session.send(if user == "idle" { b"Z\0\0\0\x05I" } else { b"Z\0\0\0\x05T" }).await;
        sessions.push(session);
    }
    idle.expect(b"Z\0\0\0\x05I").await;
    busy.expect(b"Z\0\0\0\x05T").await;
    proxy.close();
    let mut waiting = proxy.login("waiting").await;
    proxy.held(1).await;
    let silent = proxy.connect().await;
    proxy.until(|proxy| proxy.connections.listener(&main(), "127.0.0.1:0".parse().unwrap()).open == 4).await;

    let address = proxy.address();
    let report = proxy.listeners.drain(SOON).await;
    assert_eq!(report, DrainReport { ended: 3, cut: 1 });
    idle.expect_refusal("57P01").await;
    assert!(waiting.expect_refusal("57P03").await.contains("shutting down"));
    busy.rest().await;
    drop(silent);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drain_ends_as_soon_as_the_last_connection_does() {
    let proxy = Proxy::start(|_| ());
    let begun = std::time::Instant::now();
    assert_eq!(proxy.listeners.drain(LONG).await, DrainReport::default());
    assert!(begun.elapsed() < LONG / 2);
}

/// Runs the test below in a process of its own, since it takes descriptors away from the whole process.
#[test]
fn a_shortage_of_descriptors_ends_nothing_and_passes() {
    let test = "listener::tests::lifecycle::short_of_descriptors";
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 60; exec \"$0\" --exact --ignored --nocapture \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Of this process.
fn cpu_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

#[tokio::test]
#[ignore = "run by a_shortage_of_descriptors_ends_nothing_and_passes"]
async fn short_of_descriptors() {
    let (mut proxy, server) = (Proxy::start(|service| service.workers = 1), Server::start().await);
    proxy.open(&[server.address]);
    let mut waiting = proxy.login("alice").await;
    let _session = server.greet().await;
    waiting.expect(b"R").await;

    let mut hog = Vec::new();
    // Up to the limit, then a client whose accept must fail.
    let mut client = proxy.connect().await;
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hog.push(file);
    }
    hog.pop();
    let unlucky = proxy.connect().await;
    client.send(&startup("bob")).await;
    let errors = |proxy: &Proxy| proxy.connections.listener(&main(), "127.0.0.1:0".parse().unwrap()).counters.errors;
    proxy.until(|proxy| errors(proxy) > 0).await;
    // The accept loop tries again at growing intervals: it does not spin.
    let (begun, before) = (std::time::Instant::now(), cpu_time());
    proxy.until(|proxy| errors(proxy) > 6).await;
    let (took, spent) = (begun.elapsed(), cpu_time() - before);
    assert!(spent < took / 2, "{spent:?} of CPU time within {took:?}");
    drop(hog);
    let mut unlucky = unlucky;
    unlucky.send(&startup("carol")).await;
    for _ in 0..2 {
        server.greet().await;
    }
    client.expect(b"R").await;
    unlucky.expect(b"R").await;
    // What failed on this machine was told of no server.
    while let Ok((_, evidence)) = proxy.evidence.try_recv() {
        assert!(!matches!(evidence, crate::failover::observation::Evidence::ConnectFailed { .. }), "{evidence:?}");
    }
}
