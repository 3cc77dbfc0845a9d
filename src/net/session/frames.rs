//! Whole messages in, whole messages out, each bounded. Knows the framing, not what the messages are for.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{ErrorFields, Header, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::dial::Channel;
use crate::net::fault::{Cause, ProtocolFault};

/// The longest message taken, 1 MiB: the answers we ask for have a few KiB.
pub(super) const MAX_MESSAGE: usize = 1 << 20;

/// NegotiateProtocolVersion, which the parser does not know. It informs, nothing follows from it.
const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';

/// A channel that is read and written in messages.
#[derive(Debug)]
pub(super) struct Frames {
    channel: Channel,
    incoming: BytesMut,
    /// What is written here leaves with the next [`Frames::flush`].
    pub(super) outgoing: BytesMut,
    farewell: Option<Cause>,
}

impl Frames {
    /// Starts with nothing read.
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, incoming: BytesMut::new(), outgoing: BytesMut::new(), farewell: None }
    }

    /// Whether the channel is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.channel.is_encrypted()
    }

    /// Sends what stands in `outgoing`. Not cancel safe: a cancelled flush may have sent half a message.
    pub(super) async fn flush(&mut self) -> Result<(), Cause> {
        let sent = self.channel.write_all(&self.outgoing).await;
        self.outgoing.clear();
        // A server that ended the connection has said why, and that still waits to be read.
        if let Err(error) = sent {
            return Err(self.last_words(error.into()).await);
        }
        Ok(self.channel.flush().await?)
    }

    /// The next message. Cancel safe: what was read of it stays. Notices, parameters and notifications are swallowed,
    /// but a notice that announces the end (57P01, 57P02) is what the end of the stream then reports.
    pub(super) async fn next(&mut self) -> Result<Message, Cause> {
        loop {
            match self.parse()? {
                Some(Message::NoticeResponse(body)) => self.remember(body.fields()),
                Some(Message::ParameterStatus(_) | Message::NotificationResponse(_)) => {}
                Some(message) => return Ok(message),
                None => self.fill().await?,
            }
        }
    }

    /// Takes leave as the protocol wants it.
    pub(super) async fn terminate(mut self) {
        postgres_protocol::message::frontend::terminate(&mut self.outgoing);
        if self.channel.write_all(&self.outgoing).await.is_ok() {
            let _ = self.channel.shutdown().await;
        }
    }

    async fn fill(&mut self) -> Result<(), Cause> {
        self.incoming.reserve(4096);
        match self.channel.read_buf(&mut self.incoming).await {
            Ok(0) => Err(self.farewell.take().unwrap_or(Cause::Closed)),
            Ok(_) => Ok(()),
            Err(error) => Err(self.farewell.take().unwrap_or_else(|| error.into())),
        }
    }

    fn parse(&mut self) -> Result<Option<Message>, Cause> {
        Ok(parse(&mut self.incoming)?)
    }

    fn remember(&mut self, fields: ErrorFields<'_>) {
        match server_error(fields) {
            Cause::Sqlstate { code, message } if code.starts_with("57P") => {
                self.farewell = Some(Cause::Sqlstate { code, message });
            }
            Cause::PostmasterDied => self.farewell = Some(Cause::PostmasterDied),
            _ => {}
        }
    }

    /// After a failed write: the error message that the server left before it closed, if there is one.
    async fn last_words(&mut self, failed: Cause) -> Cause {
        loop {
            match self.next().await {
                Ok(Message::ErrorResponse(body)) => return server_error(body.fields()),
                Ok(_) => {}
                Err(cause @ Cause::Sqlstate { .. }) => return cause,
                Err(_) => return failed,
            }
        }
    }
}

/// Takes the next whole message from what came; `None` = it is not all there.
pub(super) fn parse(incoming: &mut BytesMut) -> Result<Option<Message>, ProtocolFault> {
    while let Some(header) = Header::parse(incoming).map_err(|_| ProtocolFault::Malformed)? {
        let total = usize::try_from(header.len()).unwrap_or(usize::MAX).saturating_add(1);
        if total > MAX_MESSAGE {
            return Err(ProtocolFault::TooLarge(total));
        }
        // Asked before the parser is, which makes room for whatever length is announced.
        if incoming.len() < total {
            return Ok(None);
        }
        if header.tag() != NEGOTIATE_PROTOCOL_VERSION {
            break;
        }
        let _ = incoming.split_to(total);
    }
    Message::parse(incoming).map_err(|_| ProtocolFault::Malformed)
}

/// What an ErrorResponse or NoticeResponse says.
pub(super) fn server_error(mut fields: ErrorFields<'_>) -> Cause {
    let (mut code, mut message, mut routine) = (String::new(), String::new(), String::new());
    while let Ok(Some(field)) = fields.next() {
        let value = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = value(),
            b'M' => message = value(),
            b'R' => routine = value(),
            _ => {}
        }
    }
    match code.as_str() {
        "" => ProtocolFault::Malformed.into(),
        // The text may be in any language; the function that said it is always named.
        "57P01" if matches!(routine.as_str(), "secure_read" | "secure_write") => Cause::PostmasterDied,
        _ => Cause::Sqlstate { code, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_is_only_announced_takes_no_memory() {
        let mut incoming = BytesMut::from(&b"T\0\x0f\0\0\0\x01"[..]);
        let before = incoming.capacity();
        assert!(matches!(parse(&mut incoming), Ok(None)));
        assert_eq!(incoming.capacity(), before);
    }
}
