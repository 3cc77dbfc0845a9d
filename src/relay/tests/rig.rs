//! The rig of the relay's tests: an application and a database at the two ends of one relay, seeded streams
//! between them, and a count of polls. Asserts nothing of its own but that bytes are the right ones.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::relay::{Ended, Meter, Orders, Relay, attach};

pub(super) const FAREWELL: &[u8] = b"E: the farewell";
pub(super) const READY_IDLE: &[u8] = b"Z\0\0\0\x05I";
pub(super) const READY_IN_TRANSACTION: &[u8] = b"Z\0\0\0\x05T";

/// `app` and `db` are the far ends of the relay's two sockets.
pub(super) struct Rig {
    pub(super) app: TcpStream,
    pub(super) db: TcpStream,
    pub(super) orders: Orders,
    pub(super) meter: Arc<Meter>,
    pub(super) polls: Arc<AtomicUsize>,
    /// The most bytes that one poll moved.
    pub(super) largest_poll: Arc<AtomicUsize>,
    pub(super) server_ends: Arc<AtomicUsize>,
    pub(super) relay: JoinHandle<Ended>,
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with_buffers(None).await
    }

    /// `size`: of the kernel's buffers of all four sockets, bytes.
    pub(super) async fn with_buffers(size: Option<usize>) -> Self {
        Self::over(connected(size).await, connected(size).await)
    }

    /// Over these pairs of sockets: the application's end and the relay's, the database's end and the relay's.
    pub(super) fn over((app, client): (TcpStream, TcpStream), (db, server): (TcpStream, TcpStream)) -> Self {
        let orders = Orders::with_farewell(FAREWELL);
        let polls = Arc::new(AtomicUsize::new(0));
        let largest_poll = Arc::new(AtomicUsize::new(0));
        let server_ends = Arc::new(AtomicUsize::new(0));
        let ends = server_ends.clone();
        let meter = Arc::new(Meter::new().on_server_end(move |_| {
            ends.fetch_add(1, Ordering::Relaxed);
        }));
        let its_orders = orders.clone();
        let (its_meter, its_polls, its_largest) = (meter.clone(), polls.clone(), largest_poll.clone());
        let relay = tokio::spawn(async move {
            let relay = attach(client, server, its_orders, &its_meter);
            Watched { relay, meter: &its_meter, polls: &its_polls, largest: &its_largest }.await
        });
        Self { app, db, orders, meter, polls, largest_poll, server_ends, relay }
    }

    /// Sends that many bytes each way at once, checks every one of them, and waits for the end. `seed` 0 = as
    /// much at a time and as fast as can be.
    pub(super) async fn carry(self, seed: usize, up: usize, down: usize) -> Ended {
        let chance = |n| {
            if seed == 0 { Chance::bulk() } else { Chance::new(seed * 8 + n) }
        };
        let (app, db) = (self.app.into_split(), self.db.into_split());
        let (mut at_db, mut at_app) = (Stream::new(seed), Stream::new(seed + 100));
        let (sent_up, sent_down, got_down, got_up) = tokio::join!(
            send(app.1, at_db.clone(), up, chance(0)),
            send(db.1, at_app.clone(), down, chance(1)),
            receive(app.0, &mut at_app, chance(2)),
            receive(db.0, &mut at_db, chance(3)),
        );
        assert_eq!((sent_up, sent_down, got_down, got_up), (Ok(()), Ok(()), Ok(()), Ok(())), "seed {seed}");
        assert_eq!((at_db.position(), at_app.position()), (up, down), "seed {seed}");
        let ended = self.relay.await.unwrap();
        assert_eq!((ended.bytes_in, ended.bytes_out), (up as u64, down as u64), "seed {seed}");
        ended
    }

    /// One request and its answer.
    pub(super) async fn exchange(&mut self, request: &[u8], answer: &[u8]) {
        self.app.write_all(request).await.unwrap();
        let mut got = vec![0; request.len()];
        self.db.read_exact(&mut got).await.unwrap();
        assert_eq!(got, request);
        self.db.write_all(answer).await.unwrap();
        let mut got = vec![0; answer.len()];
        self.app.read_exact(&mut got).await.unwrap();
        assert_eq!(got, answer);
    }

    /// Writes until nobody has taken a byte for several turns of the runtime; adds what was taken to `sent`.
    pub(super) async fn until_stuck(&mut self, write: impl Fn(&Self) -> io::Result<usize>, sent: &mut usize) {
        let mut refused = 0;
        while refused < 20 {
            match write(self) {
                Ok(n) => {
                    refused = 0;
                    *sent += n;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => refused += 1,
                Err(e) => panic!("{e}"),
            }
            turn().await;
        }
    }
}

/// Both ends of one TCP connection on loopback.
pub(super) async fn connected(buffers: Option<usize>) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    for socket in [&near, &far] {
        socket.set_nodelay(true).unwrap();
        if let Some(size) = buffers {
            SockRef::from(socket).set_recv_buffer_size(size).unwrap();
            SockRef::from(socket).set_send_buffer_size(size).unwrap();
        }
    }
    (near, far)
}

/// Lets every task that can run do so, and the driver look at the sockets, many times over.
pub(super) async fn turn() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// Goes on when `meter` is as asked for.
pub(super) async fn settle(meter: &Meter, is_so: impl Fn(&Meter) -> bool) {
    while !is_so(meter) {
        tokio::task::yield_now().await;
    }
}

struct Watched<'a> {
    relay: Relay<'a>,
    meter: &'a Meter,
    polls: &'a AtomicUsize,
    largest: &'a AtomicUsize,
}

impl Future for Watched<'_> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let before = self.meter.bytes_in() + self.meter.bytes_out();
        let result = Pin::new(&mut self.relay).poll(cx);
        let moved = self.meter.bytes_in() + self.meter.bytes_out() - before;
        self.largest.fetch_max(moved as usize, Ordering::Relaxed);
        result
    }
}

/// Small, seeded, and the same everywhere.
#[derive(Clone)]
pub(super) struct Chance {
    state: u64,
    bulk: bool,
}

impl Chance {
    pub(super) fn new(seed: usize) -> Self {
        Self { state: (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15), bulk: false }
    }

    /// Always as much as possible, never a pause.
    pub(super) fn bulk() -> Self {
        Self { bulk: true, ..Self::new(0) }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn size(&mut self) -> usize {
        if self.bulk {
            return 1 << 20;
        }
        let largest = [64, 1_500, 40_000, 200_000][(self.next() % 4) as usize];
        1 + (self.next() % largest) as usize
    }

    async fn pause(&mut self) {
        if self.bulk {
            return;
        }
        let turns = [0, 0, 1, 5, 40][(self.next() % 5) as usize];
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

/// An endless stream of bytes that anybody with the seed can check.
#[derive(Clone)]
pub(super) struct Stream {
    /// Where in the pattern it begins.
    offset: usize,
    at: usize,
}

/// What all streams are cut from. Eight times a prime long, so that no power of two hides a shift.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut chance = Chance::new(7);
    (0..131_071).flat_map(|_| chance.next().to_le_bytes()).collect()
});

impl Stream {
    pub(super) fn new(seed: usize) -> Self {
        Self { offset: seed * 77_773, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn ahead(&self, most: usize) -> &'static [u8] {
        let from = (self.offset + self.at) % PATTERN.len();
        &PATTERN[from..PATTERN.len().min(from.saturating_add(most))]
    }

    fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = self.ahead(bytes.len()).len();
            assert!(bytes[..expected] == *self.ahead(expected), "wrong bytes after {}", self.at);
            self.at += expected;
            bytes = &bytes[expected..];
        }
    }
}

/// Writes `length` bytes of the stream and then ends its direction; an error of the socket is the result.
pub(super) async fn send(
    mut to: impl AsyncWrite + Unpin,
    mut stream: Stream,
    length: usize,
    mut chance: Chance,
) -> Result<(), ErrorKind> {
    while stream.at < length {
        let most = chance.size().min(length - stream.at);
        match to.write(stream.ahead(most)).await {
            Ok(n) => stream.at += n,
            Err(e) => return Err(e.kind()),
        }
        chance.pause().await;
    }
    to.shutdown().await.map_err(|e| e.kind())
}

/// Reads and checks until the end; an error of the socket is the result.
pub(super) async fn receive(
    mut from: impl AsyncRead + Unpin,
    stream: &mut Stream,
    mut chance: Chance,
) -> Result<(), ErrorKind> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let size = chance.size();
        match from.read(&mut buffer[..size]).await {
            Ok(0) => return Ok(()),
            Ok(n) => stream.check(&buffer[..n]),
            Err(e) => return Err(e.kind()),
        }
        chance.pause().await;
    }
}
