//! Connecting to one address of a backend: socket options, deadlines, the traps of connecting to oneself, and TLS of our
//! own where that of clients ends here. Which address, and what a failure means, is decided elsewhere.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::door::Door;
use crate::config::Connection;
use crate::net;
use crate::net::channel::Channel;
use crate::net::fault::Cause;
use crate::net::socket::tune;
use crate::types::BackendName;

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

/// TLS with a server, as its backend's settings want it, within `connect_timeout` as well.
pub(super) async fn encrypt(
    door: &Door,
    backend: &BackendName,
    address: SocketAddr,
    server: TcpStream,
    settings: &Connection,
) -> Result<Channel, Cause> {
    let shared = &door.shared;
    // A backend that came with a reload that is still under way is not spoken to in clear.
    let Some(tls) = shared.upstream.load().get(backend).cloned() else { return Err(Cause::NoTls) };
    let name = tls.name_for(&shared.routing.host(&shared.service, backend, address));
    match timeout(settings.connect_timeout, net::dial::encrypt(server, &name, &tls)).await {
        Ok(encrypted) => encrypted,
        Err(_) => Err(Cause::TimedOut),
    }
}

/// Writes all of `bytes`, within `connect_timeout` as well: a server that takes no first packet is none.
pub(super) async fn hand_over(server: &mut Channel, bytes: &[u8], settings: &Connection) -> io::Result<()> {
    let write = async {
        server.write_all(bytes).await?;
        server.flush().await
    };
    timeout(settings.connect_timeout, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
