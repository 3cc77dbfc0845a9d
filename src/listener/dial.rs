//! Connecting to one address of a backend: socket options, a deadline, and the traps of connecting to oneself.
//! Which address, and what a failure means, is decided elsewhere.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::config::Connection;
use crate::net::socket::tune;

/// Connects within `connect_timeout`.
pub(super) async fn connect(address: SocketAddr, settings: &Connection) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    tune(&socket, settings)?;
    let stream = match timeout(settings.connect_timeout, socket.connect(address)).await {
        Ok(connected) => connected?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    // A port of the ephemeral range that nobody listens on may be given to this very socket, which then connects to
    // itself and echoes. That is a refusal.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Writes all of `bytes`, within `connect_timeout` as well: a server that takes no first packet is none.
pub(super) async fn hand_over(server: &TcpStream, bytes: &[u8], settings: &Connection) -> io::Result<()> {
    let write = async {
        let mut rest = bytes;
        while !rest.is_empty() {
            server.writable().await?;
            match server.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => rest = &rest[sent..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    };
    timeout(settings.connect_timeout, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
