//! A wire to a server that counts what it carries and cuts when it has carried certain words to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Between the pools and a server.
#[derive(Debug)]
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    words: &'static [u8],
    carried: AtomicUsize,
    /// How often it is still cut.
    cuts: AtomicUsize,
}

impl Wire {
    /// Cuts a connection after it has carried these words, so often; the server has got them.
    pub async fn to(server: SocketAddr, words: &'static str, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let words = words.as_bytes();
        let state = Arc::new(State { words, carried: AtomicUsize::new(0), cuts: AtomicUsize::new(cuts) });
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                wires.spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        carry(client, server, &state).await;
                    }
                });
            }
        });
        Self { address, state, _tasks: tasks }
    }

    /// How often the words were carried.
    pub fn carried(&self) -> usize {
        self.state.carried.load(SeqCst)
    }
}

/// Until either end closes, or it is cut.
async fn carry(mut client: TcpStream, mut server: TcpStream, state: &State) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                if server.write_all(&up[..read]).await.is_err() {
                    return;
                }
                if up[..read].windows(state.words.len()).any(|window| window == state.words) {
                    state.carried.fetch_add(1, SeqCst);
                    if state.cuts.fetch_update(SeqCst, SeqCst, |cuts| cuts.checked_sub(1)).is_ok() {
                        return;
                    }
                }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
