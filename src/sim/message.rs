//! Messages of the simulated server: building what it sends, taking apart what it gets. Pure; first packets and
//! ErrorResponse are `wire`'s.

use super::fault::Fault;
use super::value::{Column, Value};

/// The largest message a client may send.
pub(super) const MAX_MESSAGE: usize = 1 << 20;

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing(pub(super) Vec<u8>);

impl Outgoing {
    pub(super) fn message(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.0.push(kind);
        let start = self.0.len();
        self.0.extend([0; 4]);
        body(&mut self.0);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    pub(super) fn empty(&mut self, kind: u8) {
        self.message(kind, |_| ());
    }

    pub(super) fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |body| {
            text(body, name);
            text(body, value);
        });
    }

    pub(super) fn ready(&mut self, status: u8) {
        self.message(b'Z', |body| body.push(status));
    }

    pub(super) fn complete(&mut self, tag: &str) {
        self.message(b'C', |body| text(body, tag));
    }

    pub(super) fn parameter_description(&mut self, oids: &[u32]) {
        self.message(b't', |body| {
            count(body, oids.len());
            body.extend(oids.iter().flat_map(|oid| oid.to_be_bytes()));
        });
    }

    pub(super) fn row_description(&mut self, columns: &[Column], formats: &Formats) {
        self.message(b'T', |body| {
            count(body, columns.len());
            for (n, column) in columns.iter().enumerate() {
                let (oid, width) = column.kind.wire();
                text(body, &column.name);
                // No table, no attribute number.
                body.extend([0; 6]);
                body.extend(oid.to_be_bytes());
                body.extend(width.to_be_bytes());
                body.extend((-1_i32).to_be_bytes());
                body.extend(i16::from(formats.is_binary(n)).to_be_bytes());
            }
        });
    }

    pub(super) fn data_row(&mut self, columns: &[Column], row: &[Value], formats: &Formats) {
        self.message(b'D', |body| {
            count(body, row.len());
            for (n, (value, column)) in row.iter().zip(columns).enumerate() {
                let bytes = match formats.is_binary(n) {
                    true => value.to_binary(column.kind),
                    false => value.to_text().map(String::into_bytes),
                };
                let length = bytes.as_ref().map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                body.extend(length.to_be_bytes());
                body.extend(bytes.unwrap_or_default());
            }
        });
    }
}

/// Which columns or parameters are binary: none named = all text, one = all alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Formats(Vec<bool>);

impl Formats {
    pub(super) fn is_binary(&self, n: usize) -> bool {
        match self.0.as_slice() {
            [] => false,
            [all] => *all,
            each => each.get(n).copied().unwrap_or(false),
        }
    }
}

/// A whole message: its kind, its body, its length with both.
type Message<'a> = (u8, &'a [u8], usize);

/// The message that `bytes` begin with; `None` = not all of it is there.
pub(super) fn first(bytes: &[u8]) -> Result<Option<Message<'_>>, Fault> {
    let [kind, a, b, c, d, ..] = bytes else { return Ok(None) };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if !(4..=MAX_MESSAGE).contains(&length) {
        return Err(Fault::Protocol("invalid message length"));
    }
    Ok(bytes.get(5..length + 1).map(|body| (*kind, body, length + 1)))
}

/// Reads the fields of a message's body.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(SHORT)?;
        let text = std::str::from_utf8(&self.0[..end]).map_err(|_| Fault::Protocol("invalid byte sequence"))?;
        self.0 = &self.0[end + 1..];
        Ok(text)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn int16(&mut self) -> Result<i16, Fault> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn int32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    /// A count of what follows.
    pub(super) fn count(&mut self) -> Result<usize, Fault> {
        usize::try_from(self.int16()?).map_err(|_| SHORT)
    }

    pub(super) fn formats(&mut self) -> Result<Formats, Fault> {
        (0..self.count()?).map(|_| Ok(self.int16()? == 1)).collect::<Result<_, _>>().map(Formats)
    }

    /// A value with its length before it; `None` = NULL.
    pub(super) fn value(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        let Ok(length) = usize::try_from(self.int32()?) else {
            return Ok(None);
        };
        let (value, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(Some(value))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (value, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*value)
    }
}

const SHORT: Fault = Fault::Protocol("insufficient data left in message");

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes().filter(|&byte| byte != 0));
    body.push(0);
}

fn count(body: &mut Vec<u8>, count: usize) {
    body.extend(i16::try_from(count).unwrap_or(i16::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_when_all_of_it_is_there() {
        let mut out = Outgoing::default();
        out.ready(b'I');
        assert_eq!(out.0, b"Z\0\0\0\x05I");
        assert_eq!(first(&out.0), Ok(Some((b'Z', &b"I"[..], 6))));
        assert_eq!(first(&out.0[..5]), Ok(None));
        assert!(first(b"Q\0\0\0\x03").is_err());
        assert!(first(b"Q\xff\0\0\x03").is_err());
    }

    #[test]
    fn a_message_that_is_too_short_for_its_fields_is_refused() {
        assert!(Fields(b"abc").text().is_err());
        assert!(Fields(b"\0\0\0\x09ab").value().is_err());
        assert_eq!(Fields(b"\xff\xff\xff\xff").value(), Ok(None));
        assert!(Fields(b"\xff\xff").count().is_err());
    }
}
