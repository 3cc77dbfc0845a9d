//! A server's messages read as a session reads them, without a channel. For the fuzz targets alone.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::backend::Message;

use super::frames::{parse, server_error};
use super::{column_names, text_row};

/// Reads one message after the other, each one's inside too, until something is wrong or no whole one is left.
pub(crate) fn read(bytes: &[u8]) {
    let mut incoming = BytesMut::from(bytes);
    while let Ok(Some(message)) = parse(&mut incoming) {
        match message {
            Message::ErrorResponse(body) => drop(server_error(body.fields())),
            Message::NoticeResponse(body) => drop(server_error(body.fields())),
            Message::AuthenticationSasl(body) => drop(body.mechanisms().count()),
            Message::AuthenticationSaslContinue(body) => {
                // The nonce of the login is chance, so no reply fits it: read to its end, and no key is derived.
                let _ = ScramSha256::new(b"secret", ChannelBinding::unsupported()).update(body.data());
            }
            Message::RowDescription(body) => drop(column_names(&body)),
            Message::DataRow(row) => drop(text_row(&row)),
            _ => {}
        }
    }
}
