//! What an idle connection costs: heap bytes per relayed pair, counted by the allocator, everything included
//! (future, task, the runtime's registrations). A binary of its own, because it owns the allocator.
//!
//! The relays form a chain, each one's server being the next one's client, so that a pair takes two descriptors
//! and one message touches all of them.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgpivot::relay::{Cut, Meter, Orders, Reason, attach};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

/// Bytes alive on the heap.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed on to the system's allocator unchanged; only a counter is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PAIRS: usize = 5_000;
const MOST_PER_PAIR: usize = 2 * 1024;

#[test]
fn five_thousand_idle_connections_cost_less_than_two_kilobytes_each_and_no_buffer() {
    allow_descriptors(2 * PAIRS as u64 + 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // The thread's buffer, its pipes and the runtime's own tables are there before counting starts.
        let mut warm = Chain::build(3);
        warm.exchange(4 << 20).await;
        warm.end().await;
        let before = ALIVE.load(Ordering::Relaxed);

        let mut chain = Chain::build(PAIRS);
        chain.exchange(100).await;
        let idle = (ALIVE.load(Ordering::Relaxed) - before) / PAIRS;
        println!("{idle} bytes per idle pair");
        assert!(idle <= MOST_PER_PAIR, "{idle} bytes per idle pair");
        chain.end().await;
        let left = ALIVE.load(Ordering::Relaxed).saturating_sub(before) / PAIRS;
        assert!(left <= 64, "{left} bytes per pair left behind by connections that ended");

        let before = ALIVE.load(Ordering::Relaxed);
        let mut busy = Chain::build(20);
        busy.exchange(8 << 20).await;
        let lean = (ALIVE.load(Ordering::Relaxed) - before) / 20;
        assert!(lean <= MOST_PER_PAIR, "{lean} bytes per pair that was busy and is idle");
        busy.end().await;
    });
}

struct Chain {
    app: TcpStream,
    db: TcpStream,
    meter: Arc<Meter>,
    orders: Vec<Orders>,
    relays: JoinSet<Reason>,
}

impl Chain {
    fn build(relays: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = || {
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            (near, far)
        };
        let (app, mut client) = connected();
        let mut chain = (Vec::with_capacity(relays), JoinSet::new());
        let meter = Arc::new(Meter::new());
        for _ in 0..relays {
            let (server, next) = connected();
            let orders = Orders::new();
            chain.0.push(orders.clone());
            chain.1.spawn(relay(std::mem::replace(&mut client, next), server, orders, meter.clone()));
        }
        Self { app, db: client, meter, orders: chain.0, relays: chain.1 }
    }

    /// `size` bytes to the far end of the chain, and as many back.
    async fn exchange(&mut self, size: usize) {
        pass(&mut self.app, &mut self.db, size).await;
        pass(&mut self.db, &mut self.app, size).await;
        let moved = (size * self.orders.len()) as u64;
        while self.meter.bytes_in() < moved || self.meter.bytes_out() < moved {
            tokio::task::yield_now().await;
        }
    }

    async fn end(mut self) {
        for orders in &self.orders {
            orders.cut(Cut::Shutdown);
        }
        while let Some(reason) = self.relays.join_next().await {
            assert_eq!(reason.unwrap(), Reason::Cut(Cut::Shutdown));
        }
    }
}

async fn relay(client: TcpStream, server: TcpStream, orders: Orders, meter: Arc<Meter>) -> Reason {
    let client = tokio::net::TcpStream::from_std(client).unwrap();
    let server = tokio::net::TcpStream::from_std(server).unwrap();
    attach(client, server, orders, &meter).await.reason
}

async fn pass(from: &mut TcpStream, to: &mut TcpStream, size: usize) {
    let block = vec![7; 65_536];
    let mut into = vec![0; 16_384];
    let (mut sent, mut got) = (0, 0);
    while got < size {
        if sent < size {
            sent += from.write(&block[..block.len().min(size - sent)]).unwrap_or(0);
        }
        tokio::task::yield_now().await;
        // Slower than the writer: the relays before this end have to keep bytes.
        got += to.read(&mut into).unwrap_or(0);
    }
}

fn allow_descriptors(needed: u64) {
    let limit = getrlimit(Resource::Nofile);
    assert!(
        limit.maximum.is_none_or(|most| most >= needed),
        "this test needs {needed} descriptors; raise the hard limit (ulimit -Hn)"
    );
    if limit.current.is_some_and(|now| now < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit }).unwrap();
    }
}
