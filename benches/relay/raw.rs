//! Loads that need no database: one message there and back, streams, churn, rest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::figures::{Figures, Quantity, count, median};
use super::peer::Peer;
use super::servers::{Serves, WELCOME};

/// A StartupMessage of protocol 3.0 for the user `app`.
const FIRST: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0app\0\0";
const MESSAGE: usize = 100;
/// As many as connect at the same time.
const CHURNERS: usize = 16;
const RESTING: usize = 9_800;

/// A load.
#[derive(Debug, Clone, Copy)]
pub enum RawLoad {
    /// 100 bytes there and back, on so many connections at once.
    Pingpong {
        /// How many.
        connections: usize,
    },
    /// One stream from the server.
    Down,
    /// One stream to it.
    Up,
    /// Connect, one message, close.
    Churn,
    /// Connections that rest.
    Idle,
}

/// Whether a server answers there.
pub fn is_answered(address: SocketAddr) -> bool {
    let patience = Duration::from_millis(500);
    TcpStream::connect_timeout(&address, patience).is_ok_and(|mut stream| {
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.write_all(FIRST).is_ok() && stream.read_exact(&mut [0; 1]).is_ok()
    })
}

impl RawLoad {
    /// The server that it needs.
    pub fn server(self) -> Serves {
        match self {
            Self::Pingpong { connections: 1 } => Serves::Echo,
            Self::Pingpong { .. } | Self::Churn | Self::Idle => Serves::EchoToMany,
            Self::Down => Serves::Source,
            Self::Up => Serves::Sink,
        }
    }

    /// Plays it through a peer for that long.
    pub fn play(self, peer: &Peer, window: Duration) -> Figures {
        match self {
            Self::Pingpong { connections: 1 } => pingpong_alone(peer, window),
            Self::Pingpong { connections } => runtime().block_on(pingpong(peer, connections, window)),
            Self::Down => stream(peer, window, |stream, piece| stream.read(piece)),
            Self::Up => stream(peer, window, |stream, piece| stream.write(piece)),
            Self::Churn => runtime().block_on(churn(peer, window)),
            Self::Idle => runtime().block_on(rest(peer)),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(peer: &Peer) -> TcpStream {
    let mut stream = TcpStream::connect(peer.listen).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(FIRST).unwrap();
    stream.read_exact(&mut [0; WELCOME.len()]).unwrap();
    stream
}

async fn open_beside(peer: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let mut stream = tokio::net::TcpStream::connect(peer).await?;
    stream.set_nodelay(true)?;
    stream.write_all(FIRST).await?;
    stream.read_exact(&mut [0; WELCOME.len()]).await?;
    Ok(stream)
}

fn pingpong_alone(peer: &Peer, window: Duration) -> Figures {
    let mut stream = open(peer);
    let mut message = [7; MESSAGE];
    let mut there_and_back = || {
        let begun = Instant::now();
        stream.write_all(&message).unwrap();
        stream.read_exact(&mut message).unwrap();
        begun.elapsed().as_secs_f64() * 1e6
    };
    for _ in 0..1000 {
        there_and_back();
    }
    let (cpu, begun) = (peer.cpu(), Instant::now());
    let mut took = Vec::new();
    while begun.elapsed() < window {
        took.push(there_and_back());
    }
    let mut figures = Figures::of_operations(took.len() as u64, begun.elapsed(), peer.cpu_since(cpu));
    figures.set(Quantity::Latency, median(&mut took));
    figures
}

async fn pingpong(peer: &Peer, connections: usize, window: Duration) -> Figures {
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let mut stream = open_beside(peer.listen).await.unwrap();
        let done = done.clone();
        tasks.spawn(async move {
            let mut message = [7; MESSAGE];
            loop {
                stream.write_all(&message).await.unwrap();
                stream.read_exact(&mut message).await.unwrap();
                done.fetch_add(1, Relaxed);
            }
        });
    }
    tokio::time::sleep(window / 10).await;
    counted(peer, &done, window).await
}

/// What is done in the window.
async fn counted(peer: &Peer, done: &AtomicU64, window: Duration) -> Figures {
    let (cpu, begun, before) = (peer.cpu(), Instant::now(), done.load(Relaxed));
    tokio::time::sleep(window).await;
    let operations = done.load(Relaxed) - before;
    Figures::of_operations(operations, begun.elapsed(), peer.cpu_since(cpu))
}

/// One stream; bytes are counted on the client's side.
fn stream(peer: &Peer, window: Duration, step: fn(&mut TcpStream, &mut [u8]) -> std::io::Result<usize>) -> Figures {
    let mut stream = open(peer);
    let mut piece = vec![0x55; 256 * 1024];
    let mut moved = |window: Duration| {
        let (begun, mut bytes) = (Instant::now(), 0);
        while begun.elapsed() < window {
            bytes += step(&mut stream, &mut piece).unwrap() as u64;
        }
        bytes
    };
    moved(window / 10);
    let (cpu, begun) = (peer.cpu(), Instant::now());
    let bytes = moved(window);
    Figures::of_bytes(bytes, begun.elapsed(), peer.cpu_since(cpu))
}

async fn churn(peer: &Peer, window: Duration) -> Figures {
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CHURNERS {
        let (done, listen) = (done.clone(), peer.listen);
        tasks.spawn(async move {
            loop {
                let stream = open_beside(listen).await.unwrap();
                drop(stream);
                done.fetch_add(1, Relaxed);
            }
        });
    }
    tokio::time::sleep(window / 10).await;
    let figures = counted(peer, &done, window).await;
    let panicked = tasks.try_join_next();
    assert!(panicked.is_none(), "a connection failed: {panicked:?}");
    figures
}

async fn rest(peer: &Peer) -> Figures {
    let mut figures = Figures::default();
    let Some(start) = peer.pss() else { return figures };
    figures.set(Quantity::Start, count(start) / 1e6);
    let mut resting = Vec::with_capacity(RESTING);
    while resting.len() < RESTING {
        // One asks while the others of its group connect.
        let group: Vec<_> = (0..100).map(|_| tokio::spawn(open_beside(peer.listen))).collect();
        for stream in group {
            let mut stream = stream.await.unwrap().unwrap();
            let mut message = [7; MESSAGE];
            stream.write_all(&message).await.unwrap();
            stream.read_exact(&mut message).await.unwrap();
            resting.push(stream);
        }
    }
    let all = settled(peer).await;
    figures.set(Quantity::Memory, count(all.saturating_sub(start)) / count(RESTING as u64));
    figures
}

/// Memory once it changes no more.
async fn settled(peer: &Peer) -> u64 {
    let mut last = peer.pss().unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = peer.pss().unwrap();
        if now == last {
            break;
        }
        last = now;
    }
    last
}
