//! Taking a port for all threads of a service. SO_REUSEPORT lets our threads share it, and would let another process
//! of the same user share it unnoticed, so the port is first taken alone.
//!
//! TCP_DEFER_ACCEPT is not used: it would hand over a client that says nothing only after a second of the kernel's,
//! or never, uncounted and past `first_packet_timeout`.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Connection;
use crate::net::socket::{listen, tune};

/// `count` sockets that listen on one address. `shared` = the port is ours already, through another listener.
pub(super) fn bind(
    address: SocketAddr,
    count: usize,
    shared: bool,
    settings: &Connection,
) -> io::Result<Vec<TcpListener>> {
    let claim = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        claim.set_only_v6(true)?;
    }
    claim.set_reuse_address(true)?;
    if shared {
        claim.set_reuse_port(true)?;
    }
    claim.bind(&address.into())?;
    claim.set_reuse_port(true)?;
    // With port 0 the kernel chose one for the claim.
    let taken = claim.local_addr()?.as_socket().unwrap_or(address);
    (0..count).map(|_| listen(taken).and_then(|socket| tuned(socket, settings))).collect()
}

/// Accepted sockets inherit what the listening one has, which saves the calls per connection.
fn tuned(socket: TcpListener, settings: &Connection) -> io::Result<TcpListener> {
    tune(&socket, settings)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> Connection {
        Connection {
            connect_timeout: Duration::from_secs(3),
            first_packet_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(30),
            user_timeout: Duration::from_secs(30),
        }
    }

    #[test]
    fn threads_share_a_port_but_another_daemon_is_refused_even_if_it_would_share() {
        let ours = bind("127.0.0.1:0".parse().unwrap(), 3, false, &settings()).unwrap();
        let address = ours[0].local_addr().unwrap();
        assert!(ours.iter().all(|socket| socket.local_addr().unwrap() == address));
        let second = bind(address, 1, false, &settings()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        assert!(bind(address, 1, true, &settings()).is_ok(), "ourselves, on purpose");
    }

    #[test]
    fn accepted_connections_have_the_listeners_options() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 1, false, &settings()).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = socket2::SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
    }
}
