//! Limits of a listener under attack, with a real PostgreSQL behind it and good clients beside the attackers.

use crate::harness::{Daemon, Pair, SOON, Writers};
use pgpivot::view::ServiceStatus;
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const STARTUP: &[u8] = b"\0\0\0\x1f\0\x03\0\0user\0app\0database\0app\0\0";

/// Logs in as far as the first answer, from `from`. `None` = closed without one.
async fn attack(listen: SocketAddr, from: Ipv4Addr) -> (TcpStream, Option<u8>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut client = socket.connect(listen).await.unwrap();
    // Who was closed at once sees it at the next read.
    let _ = client.write_all(STARTUP).await;
    let mut begin = [0; 1];
    let read = timeout(SOON, client.read(&mut begin)).await.expect("neither an answer nor a close");
    let answer = (read.is_ok_and(|read| read == 1)).then_some(begin[0]);
    (client, answer)
}

fn refused(service: &ServiceStatus, limit: &str) -> u64 {
    service.listeners[0].refused.iter().find_map(|(name, count)| (name == limit).then_some(*count)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_is_attacked_and_good_clients_notice_nothing() {
    let pair = Pair::start().await;
    let daemon = Daemon::start(&[&pair.east, &pair.west]).await;
    let writers = Writers::start(daemon.listen, 4);
    writers.go_on_at(pair.east.port, 20, SOON).await;
    daemon.edit_service(|service| {
        let listener = service["listener"][0].as_table_mut().unwrap();
        let limits = [
            ("max_connections", 50),
            ("max_connections_per_address", 20),
            ("connection_rate", 100),
            ("connection_rate_per_address", 2),
            ("connection_burst_per_address", 30),
        ];
        for (key, value) in limits {
            listener.insert(key.into(), i64::from(value).into());
        }
    });
    daemon.signal(Signal::HUP);
    daemon.until("the limits", SOON, |s| s.listeners[0].limit == 50).await;

    // One address connects as fast as it can.
    for _ in 0..200 {
        attack(daemon.listen, Ipv4Addr::new(127, 0, 1, 1)).await;
    }
    daemon.until("the fast are refused", SOON, |s| refused(s, "connection_rate_per_address") > 50).await;
    // One keeps all it can get.
    let mut kept = Vec::new();
    for _ in 0..60 {
        kept.push(attack(daemon.listen, Ipv4Addr::new(127, 0, 1, 2)).await);
    }
    assert_eq!(kept.iter().filter(|(_, answer)| *answer == Some(b'R')).count(), 20);
    daemon.until("the greedy are refused", SOON, |s| refused(s, "max_connections_per_address") == 40).await;
    // A good newcomer meanwhile.
    let newcomers = Writers::start(daemon.listen, 2);
    newcomers.go_on_at(pair.east.port, 20, SOON).await;
    let journal = newcomers.stop().await;
    assert_eq!((journal.error_count(), journal.logins), (0, 2), "{:?}", journal.errors);
    // Many of them.
    for number in 0..250 {
        kept.push(attack(daemon.listen, Ipv4Addr::new(127, 0, 2, number)).await);
    }
    let after = daemon
        .until("the many are refused", Duration::from_secs(20), |s| {
            refused(s, "max_connections") + refused(s, "connection_rate") > 150
        })
        .await;
    assert!(after.listeners[0].connections <= 50 + 64);

    writers.go_on_at(pair.east.port, 20, SOON).await;
    let journal = writers.stop().await;
    assert_eq!((journal.error_count(), journal.logins), (0, 4), "{:?}", journal.errors);
    let (_, metrics) = daemon.fetch("/metrics").await.unwrap();
    let mut series = metrics.lines().filter(|line| line.starts_with("pgpivot_listener_refused_total{"));
    assert!(
        series.any(|line| line.contains("reason=\"max_connections_per_address\"") && line.ends_with(" 40")),
        "{metrics}"
    );
}
