//! From an accepted socket to a first packet that can be acted on: what is between client and proxy alone is settled
//! here. GSSAPI is declined, TLS is begun where it ends here, and what a client must not say is refused.

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::door::{Rules, Settings};
use super::triage::{First, NoPacket};
use crate::net::channel::Channel;
use crate::net::terminate::{Opening, ServerTls};
use crate::wire::startup::{FirstPacket, Garbage};

/// What a first packet is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is one to act on.
    Done,
    /// `N`, and another packet.
    Decline,
    /// `S`, a handshake, and another packet inside TLS.
    Agree,
    /// A handshake that has begun, and another packet inside TLS.
    GoOn,
    /// Not inside TLS, or not twice.
    OutOfPlace(Garbage),
    /// More than a request for TLS, in clear.
    Injected,
}

/// Reads up to the first packet that is to be acted on, TLS and all within `first_packet_timeout`. The client comes
/// back with it or with the reason why there is none; where it does not, it is gone.
pub(super) async fn open(
    client: TcpStream,
    rules: &Rules,
    settings: &Settings,
) -> (Option<Channel>, Result<First, NoPacket>) {
    let deadline = Instant::now() + settings.connection.first_packet_timeout;
    let mut client = Channel::Plain(client);
    let mut declined = false;
    loop {
        let first = match First::read(&mut client, deadline).await {
            Ok(first) => first,
            Err(reason) => return (Some(client), Err(reason)),
        };
        let next = next(&first, rules.tls.is_some(), settings.cockroach, client.is_encrypted(), declined);
        let (answer, opening) = match next {
            Next::Done => return (Some(client), Ok(first)),
            Next::OutOfPlace(garbage) => return (Some(client), Err(NoPacket::Garbage(garbage))),
            Next::Injected => return (Some(client), Err(NoPacket::Injected)),
            Next::Decline => (&b"N"[..], None),
            Next::Agree => (&b"S"[..], Some(Opening::Asked)),
            Next::GoOn => (&b""[..], Some(Opening::Direct(&first.bytes))),
        };
        if !answer.is_empty()
            && let Err(error) = client.socket().try_write(answer)
        {
            return (None, Err(NoPacket::Broken(error.kind())));
        }
        declined |= next == Next::Decline;
        let (Some(opening), Some(tls), Channel::Plain(_)) = (opening, &rules.tls, &client) else { continue };
        match handshake(client, tls, opening, deadline).await {
            Ok(encrypted) => client = encrypted,
            Err(reason) => return (None, Err(reason)),
        }
    }
}

async fn handshake(
    client: Channel,
    tls: &ServerTls,
    opening: Opening<'_>,
    deadline: Instant,
) -> Result<Channel, NoPacket> {
    let Channel::Plain(socket) = client else { return Ok(client) };
    match timeout_at(deadline, tls.accept(socket, opening)).await {
        Ok(accepted) => Ok(accepted?),
        Err(_) => Err(NoPacket::TooSlow),
    }
}

/// CockroachDB answers a request for GSSAPI with an error, and libpq sends one wherever it finds a ticket: that one is
/// declined for it, once. Where TLS ends here the server is not asked either.
fn next(first: &First, terminates: bool, cockroach: bool, encrypted: bool, declined: bool) -> Next {
    let alone = first.bytes.len() == 8;
    match first.packet {
        // As PostgreSQL has it: to it the numbers of requests are unknown versions by then.
        FirstPacket::SslRequest if encrypted => Next::OutOfPlace(Garbage::Protocol { major: 1234, minor: 5679 }),
        FirstPacket::GssencRequest if encrypted || (terminates && declined) => {
            Next::OutOfPlace(Garbage::Protocol { major: 1234, minor: 5680 })
        }
        FirstPacket::DirectTls if encrypted => Next::OutOfPlace(Garbage::Foreign),
        FirstPacket::SslRequest if terminates && alone => Next::Agree,
        FirstPacket::GssencRequest if terminates && alone => Next::Decline,
        FirstPacket::SslRequest | FirstPacket::GssencRequest if terminates => Next::Injected,
        FirstPacket::GssencRequest if cockroach && alone && !declined => Next::Decline,
        FirstPacket::DirectTls if terminates => Next::GoOn,
        _ => Next::Done,
    }
}
