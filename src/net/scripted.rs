//! A server for unit tests that follows a script on every connection. Real servers are for the integration tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Listens on loopback until dropped.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Scripted {
    /// Runs `script` on each connection; at its end the connection is closed.
    pub(crate) async fn start<F>(script: impl Fn(Peer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(script(Peer(stream)));
            }
        });
        Self { address, accepted, _task: AbortOnDropHandle::new(task) }
    }

    /// Accepts and never says a word.
    pub(crate) async fn silent() -> Self {
        Self::start(|peer| async move { peer.hang().await }).await
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// The server's end of one connection. What a client that is gone makes of it is ignored.
pub(crate) struct Peer(TcpStream);

impl Peer {
    /// Reads a packet without a type byte: SSLRequest or the startup packet.
    pub(crate) async fn first_packet(&mut self) -> Vec<u8> {
        let length = self.0.read_u32().await.unwrap_or(4) as usize;
        self.body(length).await
    }

    /// Reads a message with its type byte.
    pub(crate) async fn message(&mut self) -> (u8, Vec<u8>) {
        let kind = self.0.read_u8().await.unwrap_or(0);
        let length = self.0.read_u32().await.unwrap_or(4) as usize;
        (kind, self.body(length).await)
    }

    async fn body(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length.saturating_sub(4)];
        let _ = self.0.read_exact(&mut body).await;
        body
    }

    /// Sends bytes.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Sends bytes one by one.
    pub(crate) async fn trickle(&mut self, bytes: &[u8]) {
        let _ = self.0.set_nodelay(true);
        for byte in bytes {
            let _ = self.0.write_all(&[*byte]).await;
            tokio::task::yield_now().await;
        }
    }

    /// Lets a client in that asks for nothing.
    pub(crate) async fn let_in(&mut self) {
        self.first_packet().await;
        self.say(&[message(b'R', &0_u32.to_be_bytes()), ready()].concat()).await;
    }

    /// Does nothing until the client is gone.
    pub(crate) async fn hang(mut self) {
        let mut buffer = [0; 512];
        while self.0.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let _ = socket2::SockRef::from(&self.0).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// A message of the server.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// ReadyForQuery.
pub(crate) fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// An ErrorResponse (`E`) or NoticeResponse (`N`) of a function named `routine`.
pub(crate) fn complaint(kind: u8, code: &str, text: &str, routine: &str) -> Vec<u8> {
    message(kind, format!("SFATAL\0VFATAL\0C{code}\0M{text}\0R{routine}\0\0").as_bytes())
}

/// A result of one text column.
pub(crate) fn rows(values: &[Option<&str>]) -> Vec<u8> {
    let each = values.iter().flat_map(|value| data_row(&[*value]));
    columns(1).into_iter().chain(each).chain(message(b'C', b"SELECT\0")).collect()
}

/// A result of one row.
pub(crate) fn row(values: &[Option<&str>]) -> Vec<u8> {
    [columns(values.len()), data_row(values), message(b'C', b"SELECT\0")].concat()
}

/// A result whose columns have names.
pub(crate) fn table(names: &[&str], rows: &[Vec<Option<&str>>]) -> Vec<u8> {
    let described = names.iter().flat_map(|name| [name.as_bytes(), &[0; 19]].concat());
    let count = u16::try_from(names.len()).unwrap().to_be_bytes();
    let head: Vec<u8> = count.into_iter().chain(described).collect();
    let each = rows.iter().flat_map(|row| data_row(row));
    message(b'T', &head).into_iter().chain(each).chain(message(b'C', b"SELECT\0")).collect()
}

fn columns(count: usize) -> Vec<u8> {
    let one = [&b"v\0"[..], &[0; 18]].concat();
    let count_bytes = u16::try_from(count).unwrap().to_be_bytes();
    message(b'T', &[&count_bytes[..], &one.repeat(count)].concat())
}

fn data_row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(value.unwrap_or_default().as_bytes());
    }
    message(b'D', &body)
}
