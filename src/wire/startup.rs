//! What a client's first bytes are: told apart as early as a byte proves it, within PostgreSQL's own limits.
//! Pure; nothing is read from a socket here, and no parameter is judged.

/// PostgreSQL's limit for a startup packet, its length word included.
pub const MAX_STARTUP: usize = 10_000;

/// A CancelRequest with the longest key that protocol 3.2 allows (256 bytes), its length word included.
const MAX_CANCEL: usize = 12 + 256;

const CODE_CANCEL: u32 = 1234 << 16 | 5678;
const CODE_SSL: u32 = 1234 << 16 | 5679;
const CODE_GSSENC: u32 = 1234 << 16 | 5680;

/// A TLS record that begins a handshake: type 22, any version 3.x, and a ClientHello in it.
const TLS_HANDSHAKE: u8 = 22;
const TLS_CLIENT_HELLO: u8 = 1;
const TLS_MAX_RECORD: usize = 16_384;

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPacket {
    /// Nothing can be said before `wanted` bytes are there in all.
    NeedMore {
        /// 1 to 10,000, and more than there are.
        wanted: usize,
    },
    /// May the connection go on in TLS?
    SslRequest,
    /// May it go on in GSSAPI encryption?
    GssencRequest,
    /// A TLS ClientHello without asking first (`sslnegotiation=direct`).
    DirectTls,
    /// End a query of another connection.
    Cancel {
        /// Whose: the server's process id.
        process: u32,
        /// How many bytes the packet has, key included.
        length: usize,
    },
    /// A login in plaintext.
    Startup {
        /// The protocol's minor version; the major is 3.
        minor: u16,
        /// How many bytes the packet has.
        length: usize,
    },
    /// Not for us.
    Garbage(Garbage),
}

/// Why first bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Garbage {
    /// HTTP, a port scan, a PROXY header.
    #[error("not PostgreSQL's protocol")]
    Foreign,
    /// Its length word says more than PostgreSQL takes.
    #[error("a startup packet longer than 10,000 bytes")]
    TooLong,
    /// Its length word leaves no room for what it claims to be.
    #[error("a startup packet too short for what it claims to be")]
    TooShort,
    /// A protocol version that PostgreSQL does not speak (any more).
    #[error("unsupported frontend protocol {major}.{minor}")]
    Protocol {
        /// Major version, not 3.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// Parameters without their terminator.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
}

/// Tells the first bytes of a connection apart. More bytes than the first packet has are ignored.
pub fn parse(bytes: &[u8]) -> FirstPacket {
    match bytes.first() {
        None => FirstPacket::NeedMore { wanted: 8 },
        Some(&TLS_HANDSHAKE) => parse_tls(bytes),
        Some(_) => match announced_length(bytes) {
            Err(garbage) => FirstPacket::Garbage(garbage),
            Ok(None) => FirstPacket::NeedMore { wanted: 8 },
            Ok(Some(length)) => parse_packet(bytes, length),
        },
    }
}

/// The parameters of a complete startup packet (`user`, `database` and so on), in its order.
pub fn parameters(packet: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    fields(packet).filter_map(move |(name, value)| Some((text(name)?, text(value)?)))
}

/// The same as bytes: who reads them behind us may not mind what is no UTF-8.
fn fields(packet: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let body = packet.get(8..).unwrap_or_default();
    let mut texts = body.split(|&b| b == 0);
    std::iter::from_fn(move || {
        let (name, value) = (texts.next()?, texts.next()?);
        (!name.is_empty()).then_some((name, value))
    })
}

/// CockroachDB's name for it: in whatever letter case, and there are letters beyond ASCII that become ASCII ones.
fn is(name: &[u8], parameter: &str) -> bool {
    String::from_utf8_lossy(name).to_lowercase() == parameter
}

/// A parameter that only CockroachDB's own proxy may set: it revives a session without a login.
const REVIVAL_TOKEN: &str = "crdb:session_revival_token_base64";
/// Another one: the client's address as a proxy saw it. Whoever could set it would be somebody else to the server.
const REMOTE_ADDRESS: &str = "crdb:remote_addr";

/// A startup packet that no client may send to CockroachDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the parameter {REVIVAL_TOKEN} is not for clients")]
pub struct Reserved;

/// A startup packet as it may be passed on to CockroachDB; `None` = as it is. The server takes names in any letter case.
///
/// # Errors
/// When it asks for a session to be revived.
pub fn for_cockroach(packet: &[u8]) -> Result<Option<Vec<u8>>, Reserved> {
    if fields(packet).any(|(name, _)| is(name, REVIVAL_TOKEN)) {
        return Err(Reserved);
    }
    if !fields(packet).any(|(name, _)| is(name, REMOTE_ADDRESS)) {
        return Ok(None);
    }
    let mut passed = packet.get(..8).unwrap_or_default().to_vec();
    for (name, value) in fields(packet).filter(|(name, _)| !is(name, REMOTE_ADDRESS)) {
        for text in [name, value] {
            passed.extend_from_slice(text);
            passed.push(0);
        }
    }
    passed.push(0);
    let length = u32::try_from(passed.len()).unwrap_or_default().to_be_bytes();
    passed[..4].copy_from_slice(&length);
    Ok(Some(passed))
}

fn parse_tls(bytes: &[u8]) -> FirstPacket {
    let foreign = FirstPacket::Garbage(Garbage::Foreign);
    if bytes.get(1).is_some_and(|&major| major != 3) {
        return foreign;
    }
    match bytes {
        [_, _, _, high, low, kind, ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let hello = *kind == TLS_CLIENT_HELLO && (4..=TLS_MAX_RECORD).contains(&length);
            if hello { FirstPacket::DirectTls } else { foreign }
        }
        _ => FirstPacket::NeedMore { wanted: 6 },
    }
}

/// The length word, or the proof from its first bytes that it is none: a client that sends `GET` byte by byte is
/// told apart by the first one.
fn announced_length(bytes: &[u8]) -> Result<Option<usize>, Garbage> {
    let mut word = [0; 4];
    let known = bytes.len().min(4);
    word[..known].copy_from_slice(&bytes[..known]);
    let at_least = u32::from_be_bytes(word) as usize;
    match (at_least, known) {
        (0x0001_0000.., _) => Err(Garbage::Foreign),
        (length, _) if length > MAX_STARTUP => Err(Garbage::TooLong),
        (length, 4) if length < 8 => Err(Garbage::TooShort),
        (length, 4) => Ok(Some(length)),
        _ => Ok(None),
    }
}

fn parse_packet(bytes: &[u8], length: usize) -> FirstPacket {
    let Some(&[a, b, c, d]) = bytes.get(4..8) else {
        return FirstPacket::NeedMore { wanted: 8 };
    };
    let code = u32::from_be_bytes([a, b, c, d]);
    let exact = |packet| {
        if length == 8 { packet } else { FirstPacket::Garbage(Garbage::Foreign) }
    };
    match code {
        CODE_SSL => exact(FirstPacket::SslRequest),
        CODE_GSSENC => exact(FirstPacket::GssencRequest),
        CODE_CANCEL => parse_cancel(bytes, length),
        _ => parse_startup(bytes, length, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
    }
}

fn parse_cancel(bytes: &[u8], length: usize) -> FirstPacket {
    // Before protocol 3.2 a key had 4 bytes, always.
    match length {
        ..16 => FirstPacket::Garbage(Garbage::TooShort),
        16..=MAX_CANCEL => match bytes.get(8..12) {
            Some(&[a, b, c, d]) if bytes.len() >= length => {
                FirstPacket::Cancel { process: u32::from_be_bytes([a, b, c, d]), length }
            }
            _ => FirstPacket::NeedMore { wanted: length },
        },
        _ => FirstPacket::Garbage(Garbage::TooLong),
    }
}

fn parse_startup(bytes: &[u8], length: usize, major: u16, minor: u16) -> FirstPacket {
    match major {
        3 => {}
        // The reserved number of requests: one that does not exist (yet).
        1234 => return FirstPacket::Garbage(Garbage::Foreign),
        _ => return FirstPacket::Garbage(Garbage::Protocol { major, minor }),
    }
    match bytes.get(8..length) {
        None => FirstPacket::NeedMore { wanted: length },
        Some([.., 0]) => FirstPacket::Startup { minor, length },
        Some(_) => FirstPacket::Garbage(Garbage::Layout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup_with(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = vec![0, 0, 0, 0, 0, 3, 0, 0];
        for (name, value) in parameters {
            packet.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        packet.push(0);
        let length = u32::try_from(packet.len()).unwrap().to_be_bytes();
        packet[..4].copy_from_slice(&length);
        packet
    }

    #[test]
    fn what_only_cockroachs_own_proxy_may_say_is_refused_or_dropped_in_any_letter_case() {
        let plain = startup_with(&[("user", "app"), ("options", "-ccluster=main"), ("crdb:jwt_auth_enabled", "true")]);
        assert_eq!(for_cockroach(&plain), Ok(None), "everything else passes as it is");
        let claimed = startup_with(&[("user", "app"), ("CRDB:Remote_Addr", "10.0.0.1"), ("options", "-ccluster=main")]);
        let passed = for_cockroach(&claimed).unwrap().unwrap();
        assert_eq!(passed, startup_with(&[("user", "app"), ("options", "-ccluster=main")]));
        assert!(matches!(parse(&passed), FirstPacket::Startup { length, .. } if length == passed.len()));
        let revived = startup_with(&[("user", "app"), ("Crdb:Session_Revival_Token_Base64", "eA==")]);
        assert_eq!(for_cockroach(&revived), Err(Reserved));
    }

    #[test]
    fn what_is_reserved_is_found_behind_text_that_is_no_utf_8_and_in_letters_that_only_become_ascii() {
        let behind = packet(3 << 16, b"user\0app\0x\0\xff\0crdb:session_revival_token_base64\0eA==\0\0");
        assert_eq!(for_cockroach(&behind), Err(Reserved));
        let kelvin = startup_with(&[("user", "app"), ("crdb:session_revival_to\u{212a}en_base64", "eA==")]);
        assert_eq!(for_cockroach(&kelvin), Err(Reserved));
        let before = packet(3 << 16, b"crdb:remote_addr\0a\0x\0\xff\0user\0app\0\0");
        let passed = for_cockroach(&before).unwrap().unwrap();
        assert_eq!(passed, packet(3 << 16, b"x\0\xff\0user\0app\0\0"), "nothing else is dropped");
    }

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + body.len()).unwrap();
        [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
    }

    fn startup() -> Vec<u8> {
        packet(3 << 16, b"user\0alice\0database\0shop\0\0")
    }

    #[test]
    fn every_kind_of_first_packet_is_told_apart() {
        assert_eq!(parse(&packet(CODE_SSL, b"")), FirstPacket::SslRequest);
        assert_eq!(parse(&packet(CODE_GSSENC, b"")), FirstPacket::GssencRequest);
        assert_eq!(parse(&packet(CODE_CANCEL, b"\0\0\x01\x02keyk")), FirstPacket::Cancel { process: 258, length: 16 });
        let login = startup();
        assert_eq!(parse(&login), FirstPacket::Startup { minor: 0, length: login.len() });
        assert_eq!(parse(b"\x16\x03\x01\x02\x00\x01"), FirstPacket::DirectTls);
    }

    #[test]
    fn a_cancel_of_protocol_3_2_has_a_key_of_up_to_256_bytes() {
        let long = packet(CODE_CANCEL, &[7; 4 + 256]);
        assert!(matches!(parse(&long), FirstPacket::Cancel { length: 268, .. }));
        let longer = packet(CODE_CANCEL, &[7; 4 + 257]);
        assert_eq!(parse(&longer), FirstPacket::Garbage(Garbage::TooLong));
        assert_eq!(parse(&packet(CODE_CANCEL, b"\0\0\0\x01key")), FirstPacket::Garbage(Garbage::TooShort));
    }

    #[test]
    fn a_startup_packet_that_comes_byte_by_byte_is_the_same_packet() {
        let login = startup();
        for there in 0..login.len() {
            let FirstPacket::NeedMore { wanted } = parse(&login[..there]) else {
                panic!("judged after {there} bytes");
            };
            assert!(wanted > there && wanted <= MAX_STARTUP, "{there} of {wanted}");
        }
        assert!(matches!(parse(&login), FirstPacket::Startup { .. }));
    }

    #[test]
    fn garbage_is_told_by_its_first_byte() {
        for foreign in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"PROXY TCP4", b"SSH-2.0", b"\xff", b"\x16\x04", b"\0\x01"] {
            assert_eq!(parse(foreign), FirstPacket::Garbage(Garbage::Foreign), "{foreign:?}");
        }
        assert_eq!(parse(b"\x16\x03\x01\x02\x00\x02"), FirstPacket::Garbage(Garbage::Foreign), "no ClientHello");
        assert_eq!(parse(&packet(CODE_SSL, b"x")), FirstPacket::Garbage(Garbage::Foreign));
        assert_eq!(parse(&packet(1234 << 16 | 5999, b"")), FirstPacket::Garbage(Garbage::Foreign));
    }

    #[test]
    fn lengths_are_postgresqls() {
        let at_limit = packet(3 << 16, &[0; MAX_STARTUP - 8]);
        assert_eq!(parse(&at_limit), FirstPacket::Startup { minor: 0, length: MAX_STARTUP });
        let over = packet(3 << 16, &[0; MAX_STARTUP - 7]);
        assert_eq!(parse(&over[..4]), FirstPacket::Garbage(Garbage::TooLong), "the length word is enough");
        assert_eq!(parse(&over[..3]), FirstPacket::NeedMore { wanted: 8 });
        assert_eq!(parse(b"\0\0\0\x07"), FirstPacket::Garbage(Garbage::TooShort));
        assert_eq!(parse(b"\0\0\0\0\0\0\0\0"), FirstPacket::Garbage(Garbage::TooShort));
    }

    #[test]
    fn protocols_that_nobody_speaks_are_named() {
        assert_eq!(parse(&packet(2 << 16, b"")), FirstPacket::Garbage(Garbage::Protocol { major: 2, minor: 0 }));
        assert_eq!(Garbage::Protocol { major: 4, minor: 1 }.to_string(), "unsupported frontend protocol 4.1");
        assert!(matches!(parse(&packet(3 << 16 | 2, b"\0")), FirstPacket::Startup { minor: 2, .. }));
        assert_eq!(parse(&packet(3 << 16, b"user")), FirstPacket::Garbage(Garbage::Layout));
        assert_eq!(parse(&packet(3 << 16, b"")), FirstPacket::Garbage(Garbage::Layout));
    }

    #[test]
    fn parameters_are_read_in_their_order() {
        let login = startup();
        let all: Vec<_> = parameters(&login).collect();
        assert_eq!(all, [("user", "alice"), ("database", "shop")]);
        assert_eq!(parameters(b"\0\0\0\x09\0\x03\0\0\0").count(), 0);
        assert_eq!(parameters(b"").count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fall_over_or_ask_for_more_than_the_limit(bytes in proptest::collection::vec(0u8.., 0..400)) {
            if let FirstPacket::NeedMore { wanted } = parse(&bytes) {
                proptest::prop_assert!(wanted > bytes.len() && wanted <= MAX_STARTUP);
            }
            parameters(&bytes).count();
        }
    }
}
