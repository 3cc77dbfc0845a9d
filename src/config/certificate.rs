//! How a listener treats clients' TLS; where it ends there, the certificate and its key: from PEM to what a
//! handshake takes, what is wrong with them, and how long they are valid. Reads no file and knows no socket.

use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls;
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::types::WallTime;
use crate::view;

/// `tls = { … }` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerTls {
    /// It is between client and server.
    PassThrough,
    /// It ends here, and to the servers leads TLS of our own, as their `tls` says.
    Terminate(Terminate),
}

/// How a listener ends clients' TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminate {
    /// PEM: the certificate, behind it those that lead to its root.
    pub cert_file: PathBuf,
    /// PEM; default `cert_file`, which then holds both.
    pub key_file: PathBuf,
    /// Who does not encrypt is refused, cancels excepted; default false.
    pub require: bool,
    /// What the files hold; `None` = nobody has read them, and no listener can be had of it.
    pub identity: Option<Arc<Identity>>,
}

/// A certificate with its key, proven to belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The listener's own, then those that lead to its root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Does not print.
    pub key: Arc<PrivateKeyDer<'static>>,
    /// From when until when it is valid; `None` = its times cannot be read.
    pub valid: Option<(WallTime, WallTime)>,
}

/// Which of the two is wrong, and how.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// No certificate in it.
    #[error("holds no certificate in PEM format")]
    NoCertificate,
    /// A certificate that is none.
    #[error("holds a certificate that cannot be used: {0}")]
    Certificate(rustls::Error),
    /// No key in it.
    #[error("holds no private key in PEM format")]
    NoKey,
    /// A key behind a passphrase.
    #[error("holds a key behind a passphrase, and nobody is there to type it; write it out with openssl pkey")]
    Encrypted,
    /// A key of a kind that is not supported.
    #[error("holds a private key that cannot be used: {0}")]
    Key(rustls::Error),
    /// The key is another one's.
    #[error("does not belong to the certificate; name the key that it was made with")]
    Mismatch,
}

impl IdentityError {
    /// Is the file with the key to blame?
    pub fn blames_key(&self) -> bool {
        match self {
            Self::NoCertificate | Self::Certificate(_) => false,
            Self::NoKey | Self::Encrypted | Self::Key(_) | Self::Mismatch => true,
        }
    }
}

impl Identity {
    /// From the texts of the two files, which may be one.
    pub fn parse(certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| IdentityError::NoCertificate)?;
        let own = chain.first().ok_or(IdentityError::NoCertificate)?;
        rustls::server::ParsedCertificate::try_from(own).map_err(IdentityError::Certificate)?;
        let valid = validity(own);
        let encrypted = || key.windows(PASSPHRASE.len()).any(|text| text == PASSPHRASE);
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) if encrypted() => return Err(IdentityError::Encrypted),
            Err(_) => return Err(IdentityError::NoKey),
        };
        let provider = rustls::crypto::ring::default_provider();
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            Ok(_) => Ok(Self { chain, key: Arc::new(key), valid }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(IdentityError::Mismatch),
            Err(error) => Err(IdentityError::Key(error)),
        }
    }

    /// When it ends.
    pub fn expires(&self) -> Option<WallTime> {
        self.valid.map(|(_, until)| until)
    }
}

impl ListenerTls {
    /// What the status shows of it; `None` = TLS passes through.
    pub fn status(&self) -> Option<view::ListenerTls> {
        let Self::Terminate(tls) = self else { return None };
        let expires = tls.identity.as_ref().and_then(|identity| identity.expires());
        Some(view::ListenerTls { require: tls.require, expires })
    }
}

const PASSPHRASE: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// From when until when an X.509 certificate is valid.
fn validity(certificate: &[u8]) -> Option<(WallTime, WallTime)> {
    let (_, signed, _) = element(certificate)?;
    let (_, mut fields, _) = element(signed)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, times, _) = element(fields)?;
    let (kind, from, rest) = element(times)?;
    let (other_kind, until, _) = element(rest)?;
    Some((time(kind, from)?, time(other_kind, until)?))
}

/// DER's tags.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first DER element: its tag, its contents, and what stands behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (contents, behind) = rest.split_at_checked(length)?;
    Some((tag, contents, behind))
}

/// `YYMMDDhhmmssZ`, a year below 50 being of this century, or `YYYYMMDDhhmmssZ`.
fn time(kind: u8, text: &[u8]) -> Option<WallTime> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let digits = match (kind, digits.len()) {
        (UTC_TIME, 12) => format!("{}{digits}", if digits < "50" { "20" } else { "19" }),
        (GENERALIZED_TIME, 14) => digits.to_owned(),
        _ => return None,
    };
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", digits).ok()?;
    Some(WallTime(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A key and its certificate, by openssl.
    fn made(more: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let mut openssl = Command::new("/usr/bin/openssl");
        openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db".split(' '));
        openssl.args(more).args(["-keyout", "key", "-out", "crt"]).current_dir(folder.path());
        let output = openssl.output().expect("openssl is needed: apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read = |name| std::fs::read(folder.path().join(name)).unwrap();
        (read("crt"), read("key"))
    }

    #[test]
    fn a_certificate_and_its_key_stand_in_two_files_or_in_one() {
        let (certificate, key) = made(&["-days", "2"]);
        let identity = Identity::parse(&certificate, &key).unwrap();
        assert_eq!(identity.chain.len(), 1);
        let both = [key.clone(), certificate.clone()].concat();
        assert_eq!(Identity::parse(&both, &both), Ok(identity.clone()));
        assert!(!format!("{identity:?}").contains(std::str::from_utf8(&key[40..60]).unwrap()));
        let (from, until) = identity.valid.unwrap();
        assert_eq!(until.since(from).as_secs(), 2 * 86_400);
        let now = WallTime(jiff::Timestamp::now().as_microsecond());
        assert!(now.since(from).as_secs() < 600 && until > now, "{from:?} {now:?}");
    }

    #[test]
    fn a_time_beyond_2049_is_read_too() {
        let (certificate, key) = made(&["-days", "20000"]);
        let (from, until) = Identity::parse(&certificate, &key).unwrap().valid.unwrap();
        assert_eq!(until.since(from).as_secs(), 20_000 * 86_400);
    }

    #[test]
    fn what_is_wrong_is_said_of_the_file_that_is_to_blame() {
        let ((certificate, key), (_, other)) = (made(&[]), made(&[]));
        let blamed = |certificate: &[u8], key: &[u8]| {
            let error = Identity::parse(certificate, key).unwrap_err();
            (error.blames_key(), error.to_string())
        };
        let belongs = "does not belong to the certificate; name the key that it was made with";
        assert_eq!(blamed(&certificate, &other), (true, belongs.into()));
        assert_eq!(blamed(&key, &key), (false, "holds no certificate in PEM format".into()));
        assert_eq!(blamed(b"text", &key), (false, "holds no certificate in PEM format".into()));
        assert_eq!(blamed(&certificate, &certificate), (true, "holds no private key in PEM format".into()));
        let locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(blamed(&certificate, locked).1.contains("behind a passphrase"));
        let odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(blamed(odd, &key).1.starts_with("holds a certificate that cannot be used: "));
        let odd = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(blamed(&certificate, odd).1.starts_with("holds a private key that cannot be used: "));
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_times() {
        let (certificate, key) = made(&[]);
        let whole = Identity::parse(&certificate, &key).unwrap().chain.remove(0);
        for end in 0..whole.len().min(200) {
            let _ = validity(&whole[..end]);
        }
        for odd in [&b""[..], b"\x30", b"\x30\x85", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00"] {
            assert_eq!(validity(odd), None);
        }
    }
}
