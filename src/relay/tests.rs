//! What an application and a server see of a relay between them: every byte, every end, every order.
//! Real sockets on loopback, one thread, no sleeping; chance comes from printed seeds.

mod rig;
mod sealed;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{By, Cut, Orders, Reason};
use crate::net::sockopt;
use rig::{Chance, FAREWELL, READY_IDLE, READY_IN_TRANSACTION, Rig, Stream, connected, receive, send, settle};

#[tokio::test]
async fn random_traffic_arrives_byte_by_byte_in_both_directions_through_small_buffers() {
    for seed in 1..=12 {
        let rig = Rig::with_buffers(Some(65_536)).await;
        let ended = rig.carry(seed, 600_000 + seed, 700_000 - seed).await;
        assert_eq!(ended.reason, Reason::Closed, "seed {seed}");
    }
}

#[tokio::test]
async fn sixty_four_megabytes_in_both_directions_at_once_are_spliced_and_unharmed() {
    const LENGTH: usize = 64 << 20;
    let rig = Rig::new().await;
    let meter = rig.meter.clone();
    rig.carry(0, LENGTH, LENGTH).await;
    let spliced = meter.bytes_spliced();
    assert!(spliced > LENGTH as u64, "only {spliced} of {} bytes were spliced", 2 * LENGTH);
}

#[tokio::test]
async fn small_messages_are_never_spliced() {
    let mut rig = Rig::new().await;
    for _ in 0..200 {
        rig.exchange(&[b'q'; 100], &[b'r'; 8_000]).await;
    }
    assert_eq!(rig.meter.bytes_spliced(), 0);
    assert_eq!((rig.meter.bytes_in(), rig.meter.bytes_out()), (20_000, 1_600_000));
}

#[tokio::test]
async fn a_client_that_stops_sending_still_gets_its_answer() {
    let mut rig = Rig::new().await;
    rig.app.write_all(b"request").await.unwrap();
    rig.app.shutdown().await.unwrap();
    let mut request = Vec::new();
    rig.db.read_to_end(&mut request).await.unwrap();
    assert_eq!(request, b"request");
    rig.db.write_all(b"answer").await.unwrap();
    rig.db.shutdown().await.unwrap();
    let mut answer = Vec::new();
    rig.app.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    let ended = rig.relay.await.unwrap();
    assert_eq!((ended.by, ended.reason), (By::Client, Reason::Closed));
    assert_eq!((ended.bytes_in, ended.bytes_out), (7, 6));
}

#[tokio::test]
async fn a_server_that_stops_sending_still_gets_what_the_client_sends() {
    let mut rig = Rig::new().await;
    rig.db.write_all(b"notice").await.unwrap();
    rig.db.shutdown().await.unwrap();
    let mut notice = Vec::new();
    rig.app.read_to_end(&mut notice).await.unwrap();
    assert_eq!(notice, b"notice");
    assert_eq!(rig.server_ends.load(Ordering::Relaxed), 1, "told at once, not when the client closes");
    rig.app.write_all(b"more").await.unwrap();
    rig.app.shutdown().await.unwrap();
    let mut more = Vec::new();
    rig.db.read_to_end(&mut more).await.unwrap();
    assert_eq!(more, b"more");
    let ended = rig.relay.await.unwrap();
    assert_eq!((ended.by, ended.reason), (By::Server, Reason::Closed));
    assert_eq!(rig.server_ends.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_reset_by_the_client_is_reported_as_the_clients() {
    let mut rig = Rig::new().await;
    rig.exchange(b"q", b"r").await;
    sockopt::reset_on_close(&rig.app).unwrap();
    drop(rig.app);
    let ended = rig.relay.await.unwrap();
    assert_eq!((ended.by, ended.reason), (By::Client, Reason::Reset));
    assert_eq!(rig.db.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(rig.server_ends.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_reset_by_the_server_is_reported_as_the_servers() {
    let mut rig = Rig::new().await;
    rig.exchange(b"q", b"r").await;
    sockopt::reset_on_close(&rig.db).unwrap();
    drop(rig.db);
    let ended = rig.relay.await.unwrap();
    assert_eq!((ended.by, ended.reason), (By::Server, Reason::Reset));
    assert_eq!(rig.app.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(rig.server_ends.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_client_that_vanishes_while_rows_flow_ends_the_servers_connection() {
    let mut rig = Rig::new().await;
    let rows = tokio::spawn(async move {
        let row = [7; 65_536];
        while rig.db.write_all(&row).await.is_ok() {}
    });
    rig.app.read_exact(&mut vec![0; 1_000_000]).await.unwrap();
    drop(rig.app);
    let ended = rig.relay.await.unwrap();
    assert_eq!((ended.by, ended.reason), (By::Client, Reason::Reset));
    rows.await.unwrap();
}

#[tokio::test]
async fn what_a_server_says_before_it_slams_the_door_reaches_a_client_that_is_still_sending() {
    let mut rig = Rig::new().await;
    rig.app.write_all(b"query").await.unwrap();
    settle(&rig.meter, |meter| meter.bytes_in() == 5).await;
    // Closing with the query unread makes the kernel send a reset behind these words.
    rig.db.write_all(b"last words").await.unwrap();
    drop(rig.db);
    let mut words = Vec::new();
    rig.app.read_to_end(&mut words).await.unwrap();
    assert_eq!(words, b"last words");
    let _ = rig.app.write_all(b"another query").await;
    drop(rig.app);
    assert_eq!(rig.relay.await.unwrap().by, By::Server);
}

#[tokio::test]
async fn after_a_cut_in_the_middle_of_bulk_not_one_byte_more_is_handed_over() {
    for seed in 1..=10 {
        let rig = Rig::new().await;
        let (app, db) = (rig.app.into_split(), rig.db.into_split());
        let (mut up, mut down) = (Stream::new(seed), Stream::new(seed + 1));
        let enough = 3_000_000 * seed as u64;
        let cut = async {
            settle(&rig.meter, |meter| meter.bytes_in().min(meter.bytes_out()) > enough).await;
            assert!(rig.orders.cut(Cut::Demoted), "no write can be under way on this very thread");
            (rig.meter.bytes_in(), rig.meter.bytes_out())
        };
        let ((bytes_in, bytes_out), _, db_wrote, _, db_read) = tokio::join!(
            cut,
            send(app.1, up.clone(), usize::MAX, Chance::bulk()),
            send(db.1, down.clone(), usize::MAX, Chance::bulk()),
            receive(app.0, &mut down, Chance::bulk()),
            receive(db.0, &mut up, Chance::bulk()),
        );
        let ended = rig.relay.await.unwrap();
        assert_eq!(ended.reason, Reason::Cut(Cut::Demoted));
        assert_eq!(ended.by, By::Order);
        assert_eq!((ended.bytes_in, ended.bytes_out), (bytes_in, bytes_out));
        assert!(up.position() as u64 <= bytes_in && down.position() as u64 <= bytes_out);
        // The kernel reports a reset once, to whichever call comes first.
        let reset = Err(ErrorKind::ConnectionReset);
        assert!(db_read == reset || db_wrote == reset, "{db_read:?} {db_wrote:?}");
    }
}

#[test]
fn a_cut_from_another_thread_that_silences_the_server_as_well_is_nobody_elses_doing() {
    for round in 0..20 {
        let ready = std::sync::mpsc::channel();
        let data_plane = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (near, far) = connected(None).await;
                let (db, server) = connected(None).await;
                let handle = socket2::SockRef::from(&server).try_clone().unwrap();
                let mut rig = Rig::over((near, far), (db, server));
                let (app, db) = (rig.app.into_split(), rig.db.into_split());
                let mut traffic = tokio::task::JoinSet::new();
                for (to, seed) in [(app.1, 1), (db.1, 2)] {
                    traffic.spawn(send(to, Stream::new(seed), usize::MAX, Chance::bulk()));
                }
                for (from, seed) in [(db.0, 1), (app.0, 2)] {
                    traffic.spawn(async move { receive(from, &mut Stream::new(seed), Chance::bulk()).await });
                }
                settle(&rig.meter, |meter| meter.bytes_in() > 100_000 * round).await;
                ready.0.send((rig.orders.clone(), handle)).unwrap();
                ((&mut rig.relay).await.unwrap(), rig.server_ends.load(Ordering::Relaxed))
            })
        });
        let (orders, server) = ready.1.recv().unwrap();
        orders.cut(Cut::Demoted);
        rustix::net::connect_unspec(&server).unwrap();
        let (ended, server_ends) = data_plane.join().unwrap();
        assert_eq!((ended.by, ended.reason), (By::Order, Reason::Cut(Cut::Demoted)), "round {round}");
        assert_eq!(server_ends, 0, "round {round}");
    }
}

#[tokio::test]
async fn a_cut_does_not_wait_for_a_server_that_reads_nothing() {
    let mut rig = Rig::with_buffers(Some(65_536)).await;
    let block = [1; 65_536];
    let mut sent = 0;
    rig.until_stuck(|rig| rig.app.try_write(&block), &mut sent).await;
    assert!(!rig.relay.is_finished());
    rig.orders.cut(Cut::Operator);
    let ended = rig.relay.await.unwrap();
    assert_eq!((ended.by, ended.reason), (By::Order, Reason::Cut(Cut::Operator)));
    assert!((ended.bytes_in as usize) < sent, "some bytes never left the relay");
    let mut got = Vec::new();
    let error = rig.db.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(got.len() as u64 <= ended.bytes_in);
    assert!(rig.app.read_to_end(&mut got).await.is_err() || rig.app.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn a_cut_does_not_wait_for_a_client_that_reads_nothing_and_takes_back_what_it_did_not_read() {
    let mut rig = Rig::with_buffers(Some(65_536)).await;
    let block = [1; 65_536];
    let mut sent = 0;
    rig.until_stuck(|rig| rig.db.try_write(&block), &mut sent).await;
    rig.orders.cut(Cut::Demoted);
    let ended = rig.relay.await.unwrap();
    assert_eq!(ended.by, By::Order);
    let mut got = Vec::new();
    assert_eq!(rig.app.read_to_end(&mut got).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(got.len() as u64 <= ended.bytes_out);
}

#[tokio::test]
async fn bytes_that_a_cut_left_in_a_pipe_reach_nobody_else() {
    for _ in 0..5 {
        let mut rig = Rig::new().await;
        let mut sent = 0;
        rig.until_stuck(|rig| rig.db.try_write(&[1; 65_536]), &mut sent).await;
        assert!(rig.meter.bytes_spliced() > 0);
        rig.orders.cut(Cut::Demoted);
        assert!((rig.relay.await.unwrap().bytes_out as usize) < sent);
        Rig::new().await.carry(0, 2 << 20, 2 << 20).await;
    }
}

#[tokio::test]
async fn the_first_reason_of_a_cut_stays_and_a_connection_cut_early_moves_nothing() {
    let (app, client) = connected(None).await;
    let (mut db, server) = connected(None).await;
    let orders = Orders::new();
    orders.cut(Cut::Removed);
    orders.cut(Cut::Shutdown);
    app.try_write(b"query").unwrap();
    let meter = super::Meter::new();
    let ended = super::attach(client, server, orders, &meter).await;
    assert_eq!((ended.reason, ended.bytes_in), (Reason::Cut(Cut::Removed), 0));
    let end = db.read(&mut [0; 8]).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_cut_tells_a_client_whose_query_is_unanswered_why() {
    let mut rig = Rig::new().await;
    rig.exchange(b"login", READY_IDLE).await;
    rig.app.write_all(b"insert").await.unwrap();
    rig.db.read_exact(&mut [0; 6]).await.unwrap();
    rig.orders.cut(Cut::Demoted);
    let mut heard = Vec::new();
    rig.app.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, FAREWELL);
}

#[tokio::test]
async fn a_cut_in_the_middle_of_an_answer_says_nothing_into_it() {
    let mut rig = Rig::new().await;
    rig.exchange(b"login", READY_IDLE).await;
    rig.exchange(b"select", b"half a r").await;
    rig.orders.cut(Cut::Demoted);
    let mut heard = Vec::new();
    rig.app.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"");
}

#[tokio::test]
async fn a_drain_ends_an_idle_connection_with_a_word() {
    let mut rig = Rig::new().await;
    rig.exchange(b"login", READY_IDLE).await;
    rig.orders.drain();
    let ended = rig.relay.await.unwrap();
    assert_eq!((ended.by, ended.reason), (By::Order, Reason::Drained));
    let mut heard = Vec::new();
    rig.app.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, FAREWELL);
    assert_eq!(rig.db.read(&mut [0; 8]).await.unwrap(), 0, "an ordinary close");
}

#[tokio::test]
async fn a_drain_lets_a_transaction_finish() {
    let mut rig = Rig::new().await;
    rig.exchange(b"login", READY_IDLE).await;
    rig.exchange(b"begin", READY_IN_TRANSACTION).await;
    rig.orders.drain();
    rig.exchange(b"insert", READY_IN_TRANSACTION).await;
    rig.exchange(b"commit", READY_IDLE).await;
    assert_eq!(rig.relay.await.unwrap().reason, Reason::Drained);
}

#[tokio::test]
async fn a_drain_waits_for_the_answer_to_a_request_that_was_sent() {
    let mut rig = Rig::new().await;
    rig.exchange(b"login", READY_IDLE).await;
    rig.app.write_all(b"insert").await.unwrap();
    rig.db.read_exact(&mut [0; 6]).await.unwrap();
    rig.orders.drain();
    rig::turn().await;
    assert!(!rig.relay.is_finished());
    rig.db.write_all(READY_IDLE).await.unwrap();
    assert_eq!(rig.relay.await.unwrap().reason, Reason::Drained);
}

#[tokio::test]
async fn a_drain_leaves_alone_what_it_cannot_see_into() {
    let mut rig = Rig::new().await;
    rig.exchange(b"login", READY_IDLE).await;
    rig.exchange(b"\x17\x03\x03", b"\x17\x03\x03 sealed").await;
    rig.orders.drain();
    rig.exchange(b"\x17\x03\x03", b"\x17\x03\x03 sealed").await;
    assert!(!rig.relay.is_finished());
    rig.orders.cut(Cut::DrainDeadline);
    assert_eq!(rig.relay.await.unwrap().reason, Reason::Cut(Cut::DrainDeadline));
}

#[tokio::test]
async fn a_connection_costs_no_poll_while_nothing_happens() {
    let mut rig = Rig::new().await;
    rig.exchange(b"warm", b"up").await;
    let before = rig.polls.load(Ordering::Relaxed);
    rig::turn().await;
    assert_eq!(rig.polls.load(Ordering::Relaxed), before, "idle");

    for _ in 0..100 {
        rig.exchange(b"query", b"answer").await;
    }
    let polls = rig.polls.load(Ordering::Relaxed) - before;
    assert!(polls <= 400, "{polls} polls for 200 messages");

    let mut sent = 0;
    rig.until_stuck(|rig| rig.db.try_write(&[1; 65_536]), &mut sent).await;
    let before = rig.polls.load(Ordering::Relaxed);
    rig::turn().await;
    assert_eq!(rig.polls.load(Ordering::Relaxed), before, "stuck");

    rig.db.shutdown().await.unwrap();
    rig::turn().await;
    let before = rig.polls.load(Ordering::Relaxed);
    rig::turn().await;
    assert_eq!(rig.polls.load(Ordering::Relaxed), before, "stuck, the server's end behind it");
}

#[tokio::test]
async fn a_half_closed_connection_costs_no_poll() {
    for server_first in [false, true] {
        let mut rig = Rig::new().await;
        rig.exchange(b"warm", b"up").await;
        let (ends, stays) = if server_first { (&mut rig.db, &mut rig.app) } else { (&mut rig.app, &mut rig.db) };
        ends.shutdown().await.unwrap();
        assert_eq!(stays.read(&mut [0; 8]).await.unwrap(), 0);
        rig::turn().await;
        let before = rig.polls.load(Ordering::Relaxed);
        rig::turn().await;
        assert_eq!(rig.polls.load(Ordering::Relaxed), before, "server first: {server_first}");
    }
}

#[tokio::test]
async fn one_poll_of_a_bulk_connection_moves_a_bounded_amount() {
    let rig = Rig::new().await;
    let largest = rig.largest_poll.clone();
    rig.carry(0, 64 << 20, 0).await;
    let largest = largest.load(Ordering::Relaxed);
    assert!(largest <= 3 << 19, "{largest} bytes in one poll");
}

#[tokio::test]
async fn the_meter_knows_since_when_a_side_owes_an_answer() {
    let mut rig = Rig::new().await;
    assert_eq!((rig.meter.answered_at(), rig.meter.unanswered_since()), (None, None));
    rig.app.write_all(b"query").await.unwrap();
    rig.db.read_exact(&mut [0; 5]).await.unwrap();
    let asked = rig.meter.unanswered_since().expect("a request stands");
    rig.db.write_all(b"answer").await.unwrap();
    rig.app.read_exact(&mut [0; 6]).await.unwrap();
    assert_eq!(rig.meter.unanswered_since(), None);
    assert!(rig.meter.answered_at() >= Some(asked));
    rig.app.write_all(b"query").await.unwrap();
    rig.db.read_exact(&mut [0; 5]).await.unwrap();
    assert!(rig.meter.unanswered_since() >= rig.meter.answered_at());
    rig.orders.cut(Cut::Operator);
    rig.relay.await.unwrap();
    assert_eq!(rig.meter.unanswered_since(), None, "nobody waits any more");
}

#[tokio::test]
async fn many_connections_on_one_thread_do_not_mix_their_bytes() {
    let mut pairs = tokio::task::JoinSet::new();
    for seed in 1..=40 {
        pairs.spawn(async move { Rig::with_buffers(Some(65_536)).await.carry(seed, 100_000, 150_000).await });
    }
    while let Some(pair) = pairs.join_next().await {
        pair.unwrap();
    }
}

#[test]
fn a_relay_that_is_dropped_lets_its_task_go() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let orders = runtime.block_on(async {
        let rig = Rig::new().await;
        let guard = alive.clone();
        let task = tokio::spawn(async move {
            let _guard = guard;
            let _ = rig.relay.await;
        });
        rig::turn().await;
        task.abort();
        rig.orders
    });
    drop(runtime);
    assert_eq!(Arc::strong_count(&alive), 1);
    assert!(orders.cut(Cut::Shutdown), "an order to nobody is harmless");
}

fn _relays_can_move_between_threads(stream: TcpStream, other: TcpStream) {
    fn is_send(_: impl Send) {}
    let meter = super::Meter::new();
    is_send(super::attach(stream, other, Orders::new(), &meter));
}
