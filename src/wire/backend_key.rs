//! The key by which a session's queries are cancelled, told by the server while a client logs in in clear text.
//! Pure: bytes go in as they come, in pieces of any size.

/// Protocol 3.2 allows keys of up to 256 bytes; before them stands the process id.
const MAX_BODY: usize = 4 + 256;
const MIN_BODY: usize = 4 + 4;
/// What a server says before: authentication, parameters. A longer tale is not waited out.
const MAX_WATCHED: usize = 64 * 1024;
const HEADER: usize = 5;

/// Watches what a server says from its first byte on until the key came, or cannot come any more.
#[derive(Debug, Default)]
pub struct KeyWatch {
    header: Vec<u8>,
    /// Of the message under way.
    left: usize,
    body: Option<Vec<u8>>,
    watched: usize,
}

/// What it has seen.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet.
    More,
    /// Process id and secret, as a CancelRequest carries them behind its code.
    Key(Box<[u8]>),
    /// There will be none: the login failed or ended without one, or it is another protocol.
    Over,
}

impl KeyWatch {
    /// The next bytes that the server said.
    pub fn see(&mut self, mut bytes: &[u8]) -> Seen {
        self.watched += bytes.len();
        while !bytes.is_empty() {
            if self.left == 0 {
                let wanted = HEADER - self.header.len();
                let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
                self.header.extend_from_slice(taken);
                bytes = rest;
                if let Some(over) = self.begin() {
                    return over;
                }
                continue;
            }
            let (taken, rest) = bytes.split_at(self.left.min(bytes.len()));
            (self.left, bytes) = (self.left - taken.len(), rest);
            if let Some(body) = &mut self.body {
                body.extend_from_slice(taken);
                if self.left == 0 {
                    return Seen::Key(std::mem::take(body).into());
                }
            }
        }
        if self.watched > MAX_WATCHED { Seen::Over } else { Seen::More }
    }

    /// A whole header begins a message.
    fn begin(&mut self) -> Option<Seen> {
        let [kind, a, b, c, d] = *self.header.as_slice() else { return None };
        self.header.clear();
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(body) = length.checked_sub(4) else { return Some(Seen::Over) };
        match kind {
            b'K' if (MIN_BODY..=MAX_BODY).contains(&body) => self.body = Some(Vec::with_capacity(body)),
            // Authentication, parameters, notices, the protocol's minor version.
            b'R' | b'S' | b'N' | b'v' => {}
            _ => return Some(Seen::Over),
        }
        self.left = body;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    fn login() -> Vec<u8> {
        [
            message(b'R', &[0, 0, 0, 10, b'S']),
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'K', &[0, 0, 1, 2, 9, 8, 7, 6]),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    #[test]
    fn the_key_is_found_however_the_login_is_cut_into_pieces() {
        for size in 1..=login().len() {
            let mut watch = KeyWatch::default();
            let found = login().chunks(size).map(|piece| watch.see(piece)).find(|seen| *seen != Seen::More);
            assert_eq!(found, Some(Seen::Key([0, 0, 1, 2, 9, 8, 7, 6].into())), "pieces of {size}");
        }
    }

    #[test]
    fn a_key_of_protocol_3_2_may_be_long() {
        let key = [7; 4 + 256];
        assert_eq!(KeyWatch::default().see(&message(b'K', &key)), Seen::Key(key.into()));
        assert_eq!(KeyWatch::default().see(&message(b'K', &[7; 4 + 257])), Seen::Over);
    }

    #[test]
    fn who_is_refused_or_speaks_otherwise_is_not_watched_any_longer() {
        for said in
            [message(b'E', b"SFATAL\0\0"), message(b'Z', b"I"), b"HTTP/1.1 400".to_vec(), vec![b'R', 0, 0, 0, 3]]
        {
            assert_eq!(KeyWatch::default().see(&said), Seen::Over, "{said:?}");
        }
        let mut watch = KeyWatch::default();
        let notice = message(b'N', &[b'x'; 30_000]);
        let seen: Vec<_> = (0..3).map(|_| watch.see(&notice)).collect();
        assert_eq!(seen, [Seen::More, Seen::More, Seen::Over]);
    }
}
