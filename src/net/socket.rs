//! Listening sockets, and the options every relayed connection carries on both sides.
//! Dialling, TLS and names are not here.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::Connection;

/// Connections that the kernel completes before we accept them; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Keepalive probes without an answer until the peer counts as gone.
const KEEPALIVE_RETRIES: u32 = 3;

/// Opens a non-blocking listening socket that other sockets of this process may share the address with
/// (SO_REUSEPORT), one per worker thread: the kernel spreads new connections over them.
///
/// With `address.port() == 0` the kernel chooses a port; bind the further ones to the address of the first.
/// An IPv6 address takes IPv6 only, so that a second listener can own the same port for IPv4.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Inherited by every accepted socket: one call saved per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets what both sides of a relayed connection carry: no delay, keepalive, and the time after which bytes that
/// the peer does not acknowledge end the connection.
///
/// A peer that vanished while idle is noticed after `keepalive` plus three probes spread over another `keepalive`.
pub fn tune(socket: &impl AsFd, connection: &Connection) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let between = (connection.keepalive / KEEPALIVE_RETRIES).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new()
        .with_time(connection.keepalive.max(Duration::from_secs(1)))
        .with_interval(between)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    // Zero leaves it to the kernel, as in the configuration.
    socket.set_tcp_user_timeout(Some(connection.user_timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection {
            connect_timeout: Duration::from_secs(3),
            first_packet_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(30),
            user_timeout: Duration::from_secs(20),
        }
    }

    #[test]
    fn several_workers_listen_on_one_address() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let second = listen(address).unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
    }

    #[test]
    fn a_port_that_somebody_else_holds_is_refused() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = listen(other.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_tuned_socket_has_no_delay_and_notices_a_silent_peer() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune(&stream, &connection()).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(20)));
    }
}
