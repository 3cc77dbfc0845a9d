//! The same where TLS ends at the relay, on one end or on both.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::rig::{Chance, FAREWELL, READY_IDLE, Stream, connected, receive, send, settle, turn};
use crate::net::certificates::Certificate;
use crate::net::channel::Channel;
use crate::net::dial;
use crate::net::terminate::{Opening, ServerTls};
use crate::net::tls::ClientTls;
use crate::relay::{By, Cut, Ended, Meter, Orders, Reason, attach_sealed};

/// `app` and `db` are the far ends.
struct Rig {
    app: Channel,
    db: Channel,
    orders: Orders,
    meter: Arc<Meter>,
    relay: JoinHandle<Ended>,
}

#[derive(Clone, Copy, PartialEq)]
enum Sealed {
    Both,
    ClientOnly,
    ServerOnly,
}

impl Rig {
    async fn new(sealed: Sealed) -> Self {
        Self::with(sealed, None, b"").await
    }

    async fn with(sealed: Sealed, buffers: Option<usize>, said: &[u8]) -> Self {
        let certificate = Certificate::make();
        let (app, client) = ends(sealed != Sealed::ServerOnly, connected(buffers).await, &certificate).await;
        let (server, db) = ends(sealed != Sealed::ClientOnly, connected(buffers).await, &certificate).await;
        let (orders, meter) = (Orders::with_farewell(FAREWELL), Arc::new(Meter::new()));
        let (its_orders, its_meter, said) = (orders.clone(), meter.clone(), said.to_vec());
        let relay =
            tokio::spawn(async move { attach_sealed(client, server, its_orders, &its_meter).after(said).await });
        Self { app, db, orders, meter, relay }
    }

    async fn exchange(&mut self, request: &[u8], answer: &[u8]) {
        write(&mut self.app, request).await;
        expect(&mut self.db, request).await;
        write(&mut self.db, answer).await;
        expect(&mut self.app, answer).await;
    }
}

/// The end that begins TLS, and the one that has the certificate.
async fn ends(sealed: bool, (near, far): (TcpStream, TcpStream), certificate: &Certificate) -> (Channel, Channel) {
    if !sealed {
        return (Channel::Plain(near), Channel::Plain(far));
    }
    let (client, server) =
        (ClientTls::build(&certificate.trusted()).unwrap(), ServerTls::build(&certificate.identity).unwrap());
    let far = async {
        let mut far = far;
        let mut request = [0; 8];
        far.read_exact(&mut request).await.unwrap();
        far.write_all(b"S").await.unwrap();
        server.accept(far, Opening::Asked).await.unwrap()
    };
    let (near, far) = tokio::join!(dial::encrypt(near, "localhost", &client), far);
    (near.unwrap(), far)
}

async fn write(to: &mut Channel, bytes: &[u8]) {
    to.write_all(bytes).await.unwrap();
    to.flush().await.unwrap();
}

async fn expect(from: &mut Channel, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    from.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn random_traffic_arrives_byte_by_byte_whichever_end_is_encrypted() {
    for (seed, sealed) in [Sealed::Both, Sealed::ClientOnly, Sealed::ServerOnly, Sealed::Both].into_iter().enumerate() {
        let (up, down) = (600_000 + seed, 700_000 - seed);
        let rig = Rig::with(sealed, Some(65_536), b"").await;
        let (app, db) = (tokio::io::split(rig.app), tokio::io::split(rig.db));
        let (mut at_db, mut at_app) = (Stream::new(seed), Stream::new(seed + 100));
        let chance = |n| if seed == 3 { Chance::bulk() } else { Chance::new(seed * 8 + n) };
        let done = tokio::join!(
            send(app.1, at_db.clone(), up, chance(0)),
            send(db.1, at_app.clone(), down, chance(1)),
            receive(app.0, &mut at_app, chance(2)),
            receive(db.0, &mut at_db, chance(3)),
        );
        assert_eq!(done, (Ok(()), Ok(()), Ok(()), Ok(())), "seed {seed}");
        assert_eq!((at_db.position(), at_app.position()), (up, down), "seed {seed}");
        let ended = rig.relay.await.unwrap();
        assert_eq!((ended.reason, ended.bytes_in, ended.bytes_out), (Reason::Closed, up as u64, down as u64));
        assert_eq!(rig.meter.bytes_spliced(), 0);
    }
}

#[tokio::test]
async fn a_client_that_ends_its_direction_of_tls_still_gets_its_answer() {
    let mut rig = Rig::new(Sealed::Both).await;
    write(&mut rig.app, b"request").await;
    rig.app.shutdown().await.unwrap();
    let mut request = Vec::new();
    rig.db.read_to_end(&mut request).await.unwrap();
    assert_eq!(request, b"request");
    write(&mut rig.db, b"answer").await;
    rig.db.shutdown().await.unwrap();
    let mut answer = Vec::new();
    rig.app.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    let ended = rig.relay.await.unwrap();
    assert_eq!((ended.by, ended.reason), (By::Client, Reason::Closed));
}

#[tokio::test]
async fn what_the_server_said_before_comes_first() {
    let mut rig = Rig::with(Sealed::Both, None, b"said before").await;
    write(&mut rig.db, b", and after").await;
    expect(&mut rig.app, b"said before, and after").await;
}

#[tokio::test]
async fn an_answer_that_is_cut_short_does_not_end_as_if_it_were_whole() {
    let mut rig = Rig::new(Sealed::Both).await;
    write(&mut rig.db, b"half an ans").await;
    rig.db.end(false);
    let mut answer = Vec::new();
    let error = rig.app.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!((answer.as_slice(), error.kind()), (&b"half an ans"[..], ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn an_idle_client_hears_the_farewell_inside_tls_and_a_clean_end() {
    for cut in [false, true] {
        let mut rig = Rig::new(Sealed::Both).await;
        rig.exchange(b"request", READY_IDLE).await;
        if cut {
            rig.orders.cut(Cut::Demoted);
        } else {
            rig.orders.drain();
        }
        let mut last = Vec::new();
        rig.app.read_to_end(&mut last).await.unwrap();
        assert_eq!(last, FAREWELL);
        let ended = rig.relay.await.unwrap();
        assert_eq!(
            (ended.by, ended.reason),
            (By::Order, if cut { Reason::Cut(Cut::Demoted) } else { Reason::Drained })
        );
    }
}

#[tokio::test]
async fn a_client_that_is_cut_in_the_middle_of_a_message_gets_no_farewell_in_it_and_no_clean_end() {
    let mut rig = Rig::new(Sealed::Both).await;
    rig.exchange(b"request", b"half an ans").await;
    rig.orders.cut(Cut::Demoted);
    let mut last = Vec::new();
    let error = rig.app.read_to_end(&mut last).await.unwrap_err();
    assert_eq!((last.as_slice(), error.kind()), (&b""[..], ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn nothing_reaches_the_server_after_a_cut_and_its_connection_is_reset() {
    let mut rig = Rig::new(Sealed::Both).await;
    rig.exchange(b"request", b"answer").await;
    rig.orders.cut(Cut::Demoted);
    let _ = rig.app.write_all(b"too late").await;
    let mut got = Vec::new();
    let error = rig.db.read_to_end(&mut got).await.unwrap_err();
    assert_eq!((got.as_slice(), error.kind()), (&b""[..], ErrorKind::ConnectionReset));
    assert_eq!(rig.relay.await.unwrap().bytes_in, 7);
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_the_server_and_little_is_kept() {
    let mut rig = Rig::with(Sealed::Both, Some(16_384), b"").await;
    let piece = vec![b'r'; 16_384];
    let mut taken = 0;
    let mut refused = 0;
    while refused < 20 {
        let written = tokio::select! {
            biased;
            written = rig.db.write(&piece) => written.unwrap(),
            () = turn() => 0,
        };
        taken += written;
        refused = if written == 0 { refused + 1 } else { 0 };
        assert!(taken < 1 << 20, "{taken} bytes were taken");
    }
    let down = rig.meter.bytes_out();
    assert!(down < 400_000, "{down} bytes were handed on");
    let mut read = vec![0; taken];
    let (mut app, mut db) = (rig.app, rig.db);
    tokio::join!(async { app.read_exact(&mut read).await.unwrap() }, async { db.flush().await.unwrap() });
    settle(&rig.meter, |meter| meter.bytes_out() == taken as u64).await;
}
