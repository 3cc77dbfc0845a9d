//! SQLSTATE codes that we send or look for, and the ErrorResponse message: built for a client, its code read from a server.
//! What a code means for a backend's health is not decided here.

use std::fmt;

/// Five characters that tell a client what went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sqlstate([u8; 5]);

impl Sqlstate {
    /// `feature_not_supported`: a protocol version we do not speak.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// `protocol_violation`: a startup packet that is none.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// `too_many_connections`.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// `admin_shutdown`: somebody ends this connection on purpose.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// `connection_exception`: CockroachDB says it where it does not serve the virtual cluster that was asked for.
    pub const CONNECTION_EXCEPTION: Self = Self(*b"08000");
    /// `sqlclient_unable_to_establish_sqlconnection`: no secure connection to the server.
    pub const CANNOT_CONNECT: Self = Self(*b"08001");
    /// `invalid_authorization_specification`: who comes like this is not let in.
    pub const NOT_AUTHORIZED: Self = Self(*b"28000");
    /// `sqlserver_rejected_establishment_of_sqlconnection`.
    pub const CONNECTION_REJECTED: Self = Self(*b"08004");
    /// `cannot_connect_now`: come back later.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");

    /// Any other code; five ASCII characters.
    pub const fn new(code: &[u8; 5]) -> Self {
        assert!(code.is_ascii(), "an SQLSTATE is ASCII");
        Self(*code)
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in.
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Display for Sqlstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Sqlstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad it is for the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed, the connection goes on.
    Error,
    /// The connection ends.
    Fatal,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// An ErrorResponse, complete with type byte and length. A NUL in a text ends it there: the protocol has no escape.
pub fn error_response(severity: Severity, code: Sqlstate, message: &str, hint: Option<&str>) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + message.len() + hint.map_or(0, str::len));
    let mut field = |kind: u8, text: &str| {
        body.push(kind);
        body.extend(text.bytes().take_while(|&b| b != 0));
        body.push(0);
    };
    field(b'S', severity.as_str());
    field(b'V', severity.as_str());
    field(b'C', code.as_str());
    field(b'M', message);
    if let Some(hint) = hint {
        field(b'H', hint);
    }
    body.push(0);

    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut packet = Vec::with_capacity(1 + 4 + body.len());
    packet.push(b'E');
    packet.extend(length.to_be_bytes());
    packet.extend(body);
    packet
}

/// The code of the ErrorResponse that `bytes` begin with; `None` when they begin with something else, or when the
/// code has not arrived yet.
pub fn error_code(bytes: &[u8]) -> Option<Sqlstate> {
    let mut fields = bytes.strip_prefix(b"E")?.get(4..)?;
    loop {
        let (&kind, rest) = fields.split_first()?;
        let end = rest.iter().position(|&b| b == 0)?;
        if kind == b'C' {
            let code: [u8; 5] = rest.get(..end)?.try_into().ok()?;
            return code.is_ascii().then_some(Sqlstate(code));
        }
        if kind == 0 {
            return None;
        }
        fields = rest.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_carries_severity_code_message_and_hint() {
        let packet = error_response(Severity::Fatal, Sqlstate::CANNOT_CONNECT_NOW, "no side", Some("wait"));
        let expected = b"E\0\0\0\x29SFATAL\0VFATAL\0C57P03\0Mno side\0Hwait\0\0";
        assert_eq!(packet, expected);
        assert_eq!(packet.len() - 1, usize::from(packet[4]));
    }

    #[test]
    fn a_text_with_a_nul_does_not_break_the_message() {
        let packet = error_response(Severity::Error, Sqlstate::PROTOCOL_VIOLATION, "a\0b", None);
        assert!(packet.ends_with(b"C08P01\0Ma\0\0"));
    }

    #[test]
    fn the_code_of_a_servers_error_is_read() {
        let packet = error_response(Severity::Fatal, Sqlstate::CANNOT_CONNECT_NOW, "starting up", None);
        assert_eq!(error_code(&packet), Some(Sqlstate::CANNOT_CONNECT_NOW));
        assert_eq!(error_code(&packet[..12]), None, "the code has not arrived");
        assert_eq!(error_code(b"R\0\0\0\x08\0\0\0\0"), None);
        assert_eq!(error_code(b"E\0\0\0\x05\0"), None);
        assert_eq!(error_code(b""), None);
    }
}
