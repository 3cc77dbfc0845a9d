//! The little of SCRAM that somebody between client and server must know: channel binding ties a login to the
//! certificate that the client sees, so it fails where that is not the server's own. Pure: bytes in, values out.

/// The mechanism that binds.
const BINDING: &[u8] = b"SCRAM-SHA-256-PLUS";
const AUTHENTICATION: u8 = b'R';
const SASL: [u8; 4] = 10u32.to_be_bytes();
const PASSWORD: u8 = b'p';

/// What a server says first, without the offer of channel binding; `None` = it offers none, or nothing besides.
pub fn without_binding(said: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    // What comes before: which version of the protocol it speaks.
    let (start, length) = loop {
        let length = message_length(said.get(at..)?)?;
        if *said.get(at)? == AUTHENTICATION {
            break (at, length);
        }
        at += length;
    };
    let message = said.get(start..start + length)?;
    let offers = message.get(5..)?.strip_prefix(&SASL)?.strip_suffix(b"\0\0")?;
    let kept: Vec<&[u8]> = offers.split(|&byte| byte == 0).filter(|name| *name != BINDING).collect();
    if kept.is_empty() || kept.len() == offers.split(|&byte| byte == 0).count() {
        return None;
    }
    let body = [&SASL[..], &kept.join(&0), b"\0\0"].concat();
    let length = u32::try_from(body.len() + 4).ok()?.to_be_bytes();
    let (before, behind) = (said.get(..start)?, said.get(start + message.len()..)?);
    Some([before, &[AUTHENTICATION], &length, &body, behind].concat())
}

/// What a client's answer to the offer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is not there yet.
    NeedMore,
    /// The login is bound to the certificate, or (`y`) says that it would be had the server offered it, which a server
    /// that did takes for an attack.
    Binds,
    /// Anything else.
    Free,
}

/// Looks at a client's first message of a login.
pub fn answer(bytes: &[u8]) -> Answer {
    match bytes.first() {
        None => return Answer::NeedMore,
        Some(&PASSWORD) => {}
        Some(_) => return Answer::Free,
    }
    // Mechanism, the length of what follows, and its first byte.
    let flag = bytes.get(5..).and_then(|body| {
        let end = body.iter().position(|&byte| byte == 0)?;
        body.get(end + 5)
    });
    let complete = message_length(bytes).is_some_and(|length| bytes.len() >= length);
    match flag {
        Some(b'p' | b'y') => Answer::Binds,
        Some(_) => Answer::Free,
        None if complete || bytes.len() > MOST => Answer::Free,
        None => Answer::NeedMore,
    }
}

/// No first message of a login is longer up to its flag.
const MOST: usize = 512;

fn message_length(bytes: &[u8]) -> Option<usize> {
    let word: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(word)).ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(names: &[&str]) -> Vec<u8> {
        let names: String = names.iter().map(|name| format!("{name}\0")).collect();
        let length = u32::try_from(names.len() + 9).unwrap().to_be_bytes();
        [b"R", &length[..], &SASL, names.as_bytes(), b"\0"].concat()
    }

    fn first(mechanism: &str, gs2: &str) -> Vec<u8> {
        let data = format!("{gs2},,n=,r=nonce");
        let count = u32::try_from(data.len()).unwrap().to_be_bytes();
        let body = [mechanism.as_bytes(), b"\0", &count, data.as_bytes()].concat();
        [b"p", &u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn an_offer_of_channel_binding_is_taken_out_and_nothing_else() {
        let (both, plain) = (offer(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]), offer(&["SCRAM-SHA-256"]));
        assert_eq!(without_binding(&both), Some(plain.clone()));
        assert_eq!(without_binding(&plain), None);
        assert_eq!(without_binding(&offer(&["SCRAM-SHA-256-PLUS"])), None, "there would be nothing left");
        let version = b"v\0\0\0\x0c\0\0\0\0\0\0\0\0";
        let longer = |offer: &[u8]| [version, offer, b"more"].concat();
        assert_eq!(without_binding(&longer(&both)), Some(longer(&plain)));
        for end in 0..both.len() {
            assert_eq!(without_binding(&both[..end]), None, "{end}");
        }
        for other in [&b"R\0\0\0\x08\0\0\0\0"[..], b"R\0\0\0\x0c\0\0\0\x05salt", b"", b"E\xff\xff\xff\xff"] {
            assert_eq!(without_binding(other), None);
        }
    }

    #[test]
    fn a_login_that_binds_or_would_have_is_told_from_one_that_does_not() {
        let (bound, would) = (first("SCRAM-SHA-256-PLUS", "p=tls-server-end-point"), first("SCRAM-SHA-256", "y"));
        assert_eq!((answer(&bound), answer(&would)), (Answer::Binds, Answer::Binds));
        let free = first("SCRAM-SHA-256", "n");
        assert_eq!(answer(&free), Answer::Free);
        assert_eq!(answer(b"p\0\0\0\x08abc\0"), Answer::Free, "a password");
        assert_eq!(answer(b"X\0\0\0\x04"), Answer::Free);
        assert_eq!((answer(b""), answer(&would[..20])), (Answer::NeedMore, Answer::NeedMore));
        assert_eq!(answer(&[&b"p\0\0\x10\0"[..], &[b'a'; 600]].concat()), Answer::Free);
    }
}
