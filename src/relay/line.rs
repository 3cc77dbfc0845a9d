//! What a relay needs of one end: bytes as they are on a socket, or inside TLS. Which it is, is known at the attach.

use std::io;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::net::channel::Channel;
use crate::net::sockopt;

/// One end of a relay.
pub trait Line: AsyncRead + AsyncWrite + Unpin {
    /// The socket below: for its options, and for bulk where [`Line::is_plain`].
    fn socket(&self) -> &TcpStream;

    /// Bytes pass as they are, and what was handed over is the kernel's.
    fn is_plain(&self) -> bool;

    /// Ready when the kernel has everything that was handed over.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Passes on an end of stream; `clean` = nothing is missing before it.
    fn poll_end(&mut self, cx: &mut Context<'_>, clean: bool) -> Poll<io::Result<()>>;

    /// Writes what is taken at once.
    fn say(&mut self, bytes: &[u8]);

    /// As [`Line::poll_end`], as far as it goes at once.
    fn end(&mut self, clean: bool);
}

impl Line for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn poll_taken(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Result<()>> {
        Poll::Ready(sockopt::end_writes(self))
    }

    fn say(&mut self, bytes: &[u8]) {
        let _ = self.try_write(bytes);
    }

    fn end(&mut self, _: bool) {
        let _ = sockopt::end_writes(self);
    }
}

impl Line for Channel {
    fn socket(&self) -> &TcpStream {
        self.socket()
    }

    fn is_plain(&self) -> bool {
        !self.is_encrypted()
    }

    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::pin::Pin::new(self).poll_flush(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, clean: bool) -> Poll<io::Result<()>> {
        self.poll_end(cx, clean)
    }

    fn say(&mut self, bytes: &[u8]) {
        self.say(bytes);
    }

    fn end(&mut self, clean: bool) {
        self.end(clean);
    }
}
