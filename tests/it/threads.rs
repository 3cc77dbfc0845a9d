//! A part of the daemon dies alone: the rest ends with it, says so, and the next start goes on. Nothing is half alive.

use crate::harness::SOON;
use crate::harness::clouds::{Clouds, EAST, connect, insert, until_cut};
use std::time::Duration;
use tokio::net::TcpStream;

/// Shorter than the time that a daemon which is told to stop gives to running work.
const AT_ONCE: Duration = Duration::from_secs(15);
/// Longer.
const DRAINED: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_decision_loop_dies_cuts_everybody_and_ends() {
    ends_when("decisions", "the decision loop of", AT_ONCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_state_is_no_longer_written_lets_work_end_and_ends() {
    ends_when("writer", "the thread that writes the state", DRAINED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_lost_a_thread_of_the_data_plane_ends() {
    ends_when("worker", "a worker thread of the data plane", DRAINED).await;
}

async fn ends_when(part: &str, said: &str, within: Duration) {
    if !cfg!(feature = "crash-points") {
        panic!("needs --features crash-points: run scripts/test");
    }
    let clouds = Clouds::start().await;
    let home = tempfile::tempdir().unwrap();
    let now = home.path().join("now");
    let daemon = clouds.plan().environment("PGPIVOT_PANIC_IN", &format!("{part}:{}", now.display())).start().await;
    let client = connect(&daemon).await;
    // Work that does not end by itself.
    client.batch_execute("BEGIN; INSERT INTO commits (id) VALUES (1)").await.unwrap();
    std::fs::write(&now, "").unwrap();
    let status = daemon.ended(within).await;
    assert_eq!(status.code(), Some(1), "{}", daemon.log_tail());
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("ended unexpectedly; ending, so that nothing is left half alive"));
    assert!(line.is_some_and(|line| line.contains(said)), "{}", daemon.log_tail());
    until_cut(&client).await;
    for address in [daemon.listen, daemon.admin] {
        assert!(TcpStream::connect(address).await.is_err(), "{address} is still listened on");
    }

    daemon.clear_environment();
    daemon.launch();
    daemon.until_active(EAST, SOON).await;
    assert!(insert(&connect(&daemon).await, 2).await);
    assert_eq!(clouds.cloud.ids(pgpivot::sim::Side::East), [2], "what was not committed is not there");
}
