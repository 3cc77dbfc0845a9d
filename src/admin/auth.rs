//! Whom to believe: the `Host` check against DNS rebinding, the `Origin` check against foreign pages, and who may
//! command. Holds no route.

use std::net::{IpAddr, SocketAddr};

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::Settings;
use super::problem::{Fault, quoted};
use crate::failover::action::Operator;
use crate::types::Secret;

/// The longest note an operator may leave, characters.
const NOTE_LIMIT: usize = 200;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over the unix socket, with the uid that the kernel vouches for.
    Unix { uid: u32 },
}

impl Peer {
    /// Nobody in between can read along.
    pub(super) fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix { .. } => true,
        }
    }
}

/// May a password be sent to this caller? On this machine, or through a TLS proxy on it that says so.
pub(super) fn is_private(peer: Peer, headers: &HeaderMap) -> bool {
    let encrypted =
        headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    peer.is_local() && (encrypted || !is_forwarded(headers))
}

/// What decides whether a request is heard. A reload swaps it as a whole.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Operator name and digest of its token: digests have one length, so that a comparison tells nothing of the
    /// token's own.
    tokens: Vec<(String, [u8; 32])>,
    /// Lower case.
    hosts: Vec<String>,
    /// For `/connection`.
    credentials: Option<(String, Secret)>,
}

impl Trust {
    pub(super) fn build(settings: &Settings) -> Self {
        let digest = |(name, token): &(String, Secret)| (name.clone(), digest(token.expose().as_bytes()));
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let names = settings.hosts.iter().chain([&own]);
        Self {
            tokens: settings.tokens.iter().map(digest).collect(),
            hosts: names.map(|h| h.trim_end_matches('.').to_ascii_lowercase()).collect(),
            credentials: settings.credentials.clone(),
        }
    }

    /// May this request be heard at all? The unix socket is out of a browser's reach and needs no name.
    pub(super) fn admit(&self, peer: Peer, parts: &Parts) -> Result<(), Fault> {
        if matches!(peer, Peer::Unix { .. }) {
            return Ok(());
        }
        let host = called(parts)?;
        if let Some(host) = &host
            && !self.knows(host)
            && self.bearer(&parts.headers) != Bearer::Known
        {
            return Err(Fault::ForeignHost { host: quoted(host.host()) });
        }
        if parts.method != Method::GET && parts.method != Method::HEAD {
            same_origin(&parts.headers, host.as_ref())?;
        }
        Ok(())
    }

    /// Who commands, or why this caller may not.
    pub(super) fn operator(&self, peer: Peer, headers: &HeaderMap) -> Result<Operator, Fault> {
        let name = match peer {
            Peer::Unix { uid } => format!("uid {uid}"),
            Peer::Tcp(_) if !self.tokens.is_empty() => match self.token_name(headers) {
                Some(name) => name.to_owned(),
                None if self.bearer(headers) == Bearer::Absent => return Err(Fault::TokenMissing),
                None => return Err(Fault::TokenUnknown),
            },
            Peer::Tcp(_) if peer.is_local() && !is_forwarded(headers) => "local".to_owned(),
            Peer::Tcp(_) => return Err(Fault::NoAuthority),
        };
        let note = headers.get("x-operator").and_then(|v| v.to_str().ok()).map(note).filter(|n| !n.is_empty());
        Ok(Operator { name, note })
    }

    /// The credentials that `/connection` may hand to this caller.
    pub(super) fn credentials(&self, peer: Peer, headers: &HeaderMap) -> Option<&(String, Secret)> {
        let trusted = matches!(peer, Peer::Unix { .. }) || self.bearer(headers) == Bearer::Known;
        self.credentials.as_ref().filter(|_| trusted && is_private(peer, headers))
    }

    /// A literal address cannot be rebound by a name server, so it is always good; names must be known.
    fn knows(&self, authority: &Authority) -> bool {
        let host = authority.host();
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if literal.parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        host == "localhost" || host.ends_with(".localhost") || self.hosts.contains(&host)
    }

    fn bearer(&self, headers: &HeaderMap) -> Bearer {
        match (bearer(headers), self.token_name(headers)) {
            (None, _) => Bearer::Absent,
            (Some(_), Some(_)) => Bearer::Known,
            (Some(_), None) => Bearer::Unknown,
        }
    }

    /// Compares with every token, whichever fits: the time taken depends on their number alone.
    fn token_name(&self, headers: &HeaderMap) -> Option<&str> {
        let sent = digest(bearer(headers)?);
        let (mut found, mut index) = (Choice::from(0), 0u64);
        for (number, (_, known)) in (0u64..).zip(&self.tokens) {
            let equal = known.ct_eq(&sent);
            index.conditional_assign(&number, equal);
            found |= equal;
        }
        let index = usize::try_from(index).ok()?;
        bool::from(found).then(|| self.tokens.get(index).map(|(name, _)| name.as_str())).flatten()
    }
}

/// A reverse proxy on this machine speaks for somebody who may be anywhere.
fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name))
}

/// What came as bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bearer {
    Absent,
    Unknown,
    Known,
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The name this server was called by. Browsers always send one; HTTP/1.0 checkers may not.
fn called(parts: &Parts) -> Result<Option<Authority>, Fault> {
    let mut values = parts.headers.get_all(header::HOST).iter();
    let host = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => Some(Authority::try_from(value.as_bytes()).map_err(|_| Fault::BadHost)?),
        (Some(_), Some(_)) => return Err(Fault::BadHost),
    };
    match (host, parts.uri.authority()) {
        (Some(host), Some(target)) if host.host() != target.host() => Err(Fault::BadHost),
        (host, target) => Ok(host.or_else(|| target.cloned())),
    }
}

/// A browser names the page that makes it send a command; it must be one of this server's own.
fn same_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Fault> {
    let text = |name: &str| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    if let Some(origin) = text("origin") {
        let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if named.is_none() || named != host.map(Authority::as_str) {
            return Err(Fault::ForeignOrigin { origin: quoted(&origin) });
        }
    }
    match text("sec-fetch-site").as_deref() {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err(Fault::ForeignOrigin { origin: "another site".to_owned() }),
    }
}

/// A note for history and log: one line, bounded.
pub(super) fn note(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NOTE_LIMIT).collect::<String>().trim().to_owned()
}
