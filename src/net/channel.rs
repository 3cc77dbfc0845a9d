//! One end of a connection, encrypted or not. How it came about is `dial`'s and `terminate`'s.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::sockopt;

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

    /// The socket below. What is read from it or written to it past TLS breaks TLS; looking does no harm.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The certificate that the other end proved to have.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// One read of at most `room` bytes behind those that are there; 0 = the end of the stream, in TLS with or without
    /// its farewell. Cancel safe.
    pub async fn read_some(&mut self, bytes: &mut Vec<u8>, room: usize) -> io::Result<usize> {
        match self.read_buf(&mut bytes.limit(room)).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        }
    }

    /// Writes what the socket takes at once. Whether that was all is not told: for last words.
    pub fn say(&mut self, bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        if Pin::new(&mut *self).poll_write(&mut cx, bytes).is_ready() {
            let _ = Pin::new(self).poll_flush(&mut cx);
        }
    }

    /// Ends the direction that is written. In TLS a `clean` end says so first: without it the other end knows that
    /// something is missing. That the peer is gone already is no error. May be called again after `Pending`, with the
    /// same `clean`.
    pub fn poll_end(&mut self, cx: &mut Context<'_>, clean: bool) -> Poll<io::Result<()>> {
        if let (Self::Tls(stream), true) = (&mut *self, clean) {
            // Its own shutdown ends the socket's direction too.
            ready!(Pin::new(stream.as_mut()).poll_shutdown(cx))?;
        }
        Poll::Ready(sockopt::end_writes(self.socket()))
    }

    /// As [`Channel::poll_end`], as far as it goes at once.
    pub fn end(&mut self, clean: bool) {
        let _ = self.poll_end(&mut Context::from_waker(Waker::noop()), clean);
        let _ = sockopt::end_writes(self.socket());
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
