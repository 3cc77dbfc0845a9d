//! Opening a connection of ours: TCP connect, SSLRequest, TLS. The caller owns the deadline and learns the step.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::fault::{Cause, ProtocolFault, Step};
use super::tls::ClientTls;
use crate::config::TlsMode;

/// A connection, encrypted or not.
#[derive(Debug)]
pub enum Channel {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Channel {
    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// One TCP connect, without Nagle's delay. The kernel's timeout is minutes: the caller brings a deadline.
pub async fn tcp(address: SocketAddr) -> Result<TcpStream, Cause> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects and, as the mode demands, asks a PostgreSQL server for TLS. `step` follows what is being done.
/// Not cancel safe: a cancelled call has no connection to give back.
pub async fn postgres(
    address: SocketAddr,
    server_name: &str,
    tls: &ClientTls,
    step: &mut Step,
) -> Result<Channel, Cause> {
    *step = Step::Connect;
    let mut stream = tcp(address).await?;
    if tls.mode() == TlsMode::Disable {
        return Ok(Channel::Plain(stream));
    }
    *step = Step::Tls;
    match ask_for_tls(&mut stream).await? {
        true => Ok(Channel::Tls(tls.handshake(stream, server_name).await?)),
        false if tls.mode() == TlsMode::Prefer => Ok(Channel::Plain(stream)),
        false => Err(Cause::NoTls),
    }
}

/// Connects without TLS, whatever the settings say: the second attempt of `prefer`.
pub async fn plaintext(address: SocketAddr, step: &mut Step) -> Result<Channel, Cause> {
    *step = Step::Connect;
    Ok(Channel::Plain(tcp(address).await?))
}

/// Connects and begins TLS at once, as HTTPS does.
/// Not cancel safe: a cancelled call has no connection to give back.
pub async fn https(address: SocketAddr, server_name: &str, tls: &ClientTls, step: &mut Step) -> Result<Channel, Cause> {
    *step = Step::Connect;
    let stream = tcp(address).await?;
    *step = Step::Tls;
    Ok(Channel::Tls(tls.handshake(stream, server_name).await?))
}

/// SSLRequest. Exactly one byte is read: whatever came behind it before the handshake would be an injection, and the
/// handshake trips over it.
async fn ask_for_tls(stream: &mut TcpStream) -> Result<bool, Cause> {
    let mut request = bytes::BytesMut::with_capacity(8);
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(ProtocolFault::Unexpected.into()),
    }
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
