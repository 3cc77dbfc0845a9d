//! Opening a connection of ours: TCP connect, SSLRequest, TLS. The caller owns the deadline and learns the step.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use super::channel::Channel;
use super::fault::{Cause, ProtocolFault, Step};
use super::tls::ClientTls;
use crate::config::TlsMode;

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
    let stream = tcp(address).await?;
    if tls.mode() != TlsMode::Disable {
        *step = Step::Tls;
    }
    encrypt(stream, server_name, tls).await
}

/// Asks the PostgreSQL server at the other end of a connection for TLS, as the mode demands. One that may do without
/// and is declined goes on as it is. Not cancel safe: a cancelled call has no connection to give back.
pub async fn encrypt(mut stream: TcpStream, server_name: &str, tls: &ClientTls) -> Result<Channel, Cause> {
    if tls.mode() == TlsMode::Disable {
        return Ok(Channel::Plain(stream));
    }
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
