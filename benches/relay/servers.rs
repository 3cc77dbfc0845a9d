//! Servers that read a first packet as PostgreSQL's clients send it, let everybody in, and then echo, send or swallow.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// AuthenticationOk.
pub const WELCOME: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];
const PIECE: usize = 256 * 1024;

/// What a server does with whom it let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Sends back what it gets; a thread for each connection.
    Echo,
    /// The same for many connections, on one thread.
    EchoToMany,
    /// Sends without end.
    Source,
    /// Reads without end.
    Sink,
}

/// Starts one; it ends with this process. Its connections end when their clients do.
pub fn start(serves: Serves) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || match serves {
        Serves::EchoToMany => echo_to_many(listener),
        Serves::Echo | Serves::Source | Serves::Sink => {
            for client in listener.incoming() {
                thread::spawn(move || serve(client.unwrap(), serves));
            }
        }
    });
    address
}

fn serve(mut client: TcpStream, serves: Serves) {
    client.set_nodelay(true).unwrap();
    // Who leaves has had what it came for.
    let _ = let_in(&mut client).and_then(|()| match serves {
        Serves::Source => loop {
            client.write_all(&[0x55; PIECE])?;
        },
        Serves::Sink => swallow(&mut client),
        Serves::Echo | Serves::EchoToMany => echo(&mut client),
    });
}

fn let_in(client: &mut TcpStream) -> Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let rest = u64::from(u32::from_be_bytes(length)).checked_sub(4).ok_or(ErrorKind::InvalidData)?;
    std::io::copy(&mut client.take(rest), &mut std::io::sink())?;
    client.write_all(&WELCOME)
}

fn swallow(client: &mut TcpStream) -> Result<()> {
    let mut piece = vec![0; PIECE];
    while client.read(&mut piece)? > 0 {}
    Ok(())
}

fn echo(client: &mut TcpStream) -> Result<()> {
    let mut piece = [0; 4096];
    loop {
        match client.read(&mut piece)? {
            0 => return Ok(()),
            read => client.write_all(&piece[..read])?,
        }
    }
}

fn echo_to_many(listener: TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { drop(echo_one(client).await) });
        }
    });
}

async fn echo_one(mut client: tokio::net::TcpStream) -> Result<()> {
    client.set_nodelay(true)?;
    let rest = u64::from(client.read_u32().await?).checked_sub(4).ok_or(ErrorKind::InvalidData)?;
    tokio::io::copy(&mut (&mut client).take(rest), &mut tokio::io::sink()).await?;
    client.write_all(&WELCOME).await?;
    let mut piece = [0; 256];
    loop {
        match client.read(&mut piece).await? {
            0 => return Ok(()),
            read => client.write_all(&piece[..read]).await?,
        }
    }
}
