//! The one `ioctl` and the few socket options that need a word of their own.
//! The only file of this room with `unsafe`; listening and tuning live in `socket`.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::ioctl::{Getter, Opcode, ioctl};
use socket2::SockRef;

/// Linux: bytes written to the socket that were not sent to the peer yet.
const SIOCOUTQNSD: Opcode = 0x894b;

/// Bytes that were handed to this TCP socket and have not left the machine yet.
pub fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    // SAFETY: SIOCOUTQNSD writes one int through its argument, which `Getter` provides.
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQNSD, i32>::new()) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Makes closing this socket throw away what it has not delivered and reset the connection (linger 0).
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Passes on an end of stream: no more bytes will be written. That the peer is gone already is no error.
pub fn end_writes(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(socket).shutdown(std::net::Shutdown::Write) {
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}
