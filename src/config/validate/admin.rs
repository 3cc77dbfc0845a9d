//! `[admin]`: addresses and tokens. Whether an address collides with a listener is seen in `across`.

use std::net::SocketAddr;

use super::super::Admin;
use super::super::raw::{Raw, Text, Texts};
use super::Problems;
use super::section::{Section, shown};
use crate::types::Secret;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8404);
/// Shorter tokens can be guessed.
const GOOD_TOKEN: usize = 16;

pub(super) fn build(raw: &Raw, problems: &mut Problems) -> Admin {
    let mut section = Section::new("admin", problems);
    let admin = &raw.admin;
    let listen = match &admin.listen {
        Some(Text(word)) if word == "off" => None,
        listen => Some(address(&mut section, "listen", listen, "127.0.0.1:8404").unwrap_or(DEFAULT_LISTEN)),
    };
    let socket = section.path("socket", &admin.socket);
    let token_file = section.path("token_file", &admin.token_file);
    let tokens = match token_file.as_ref().and_then(|file| raw.secret(file)) {
        Some(text) => tokens(&mut section, text),
        None => Vec::new(),
    };
    let hosts = hosts(&mut section, &admin.hosts);
    let metrics_listen = address(&mut section, "metrics_listen", &admin.metrics_listen, "127.0.0.1:8000");
    if let Some(listen) = listen
        && !listen.ip().is_loopback()
        && !section.faulty("listen")
        && token_file.is_none()
    {
        section.missing(
            "token_file",
            format!(
                "is missing, and admin.listen = \"{listen}\" can be reached from other machines; write a file with \
                 name:token lines and name it here, or listen on 127.0.0.1"
            ),
        );
    }
    if listen.is_none() && socket.is_none() && !section.faulty("socket") {
        section.problem(
            "listen",
            "is \"off\" and there is no admin.socket, so nobody could command; write one of the two",
        );
    }
    Admin { listen, socket, token_file, tokens, hosts, metrics_listen, credentials: None }
}

/// Names without port: any port may lead here.
fn hosts(section: &mut Section<'_>, value: &Option<Texts>) -> Vec<String> {
    let Some(Texts(texts)) = value else { return Vec::new() };
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut names = Vec::new();
    for Text(name) in texts {
        if name.is_empty() || name.len() > 253 || !name.chars().all(usable) {
            let said = format!(
                "{} is not a host name; write it without scheme and port, for example \"pgpivot.example.com\"",
                shown(name)
            );
            section.problem("hosts", said);
        } else {
            names.push(name.clone());
        }
    }
    names
}

/// An address to listen on, not a name: what a name stands for may change.
pub(super) fn address(section: &mut Section<'_>, key: &str, value: &Option<Text>, example: &str) -> Option<SocketAddr> {
    let Text(text) = value.as_ref()?;
    let parsed = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse(),
        None => text.parse::<SocketAddr>(),
    };
    match parsed {
        Ok(address) if address.port() == 0 => {
            section.problem(key, format!("has port 0, which nobody could find; write for example \"{example}\""));
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            section
                .problem(key, format!("{} is not an address and port; write for example \"{example}\"", shown(text)));
            None
        }
    }
}

/// `name:token` lines; `#` starts a comment line. A name may have several tokens, so that one can be replaced at leisure.
fn tokens(section: &mut Section<'_>, text: &Secret) -> Vec<(String, Secret)> {
    let mut tokens: Vec<(String, Secret)> = Vec::new();
    for (number, line) in text.expose().lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, token)) = line.split_once(':').map(|(name, token)| (name.trim(), token.trim())) else {
            section
                .problem("token_file", format!("has no name:token in line {number}; write for example alice:… there"));
            continue;
        };
        let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        if name.is_empty() || name.len() > 63 || !name.chars().all(usable) {
            section.problem("token_file", format!("has no usable name before the colon in line {number}"));
        } else if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
            section.problem("token_file", format!("has no token, or one with odd characters, in line {number}"));
        } else if tokens.iter().any(|(other, known)| known.expose() == token && other != name) {
            section.problem(
                "token_file",
                format!("gives line {number} the token of another name; each name needs its own"),
            );
        } else {
            if token.len() < GOOD_TOKEN {
                section.problems.warn(format!(
                    "admin.token_file: the token of {name} has fewer than {GOOD_TOKEN} characters; \
                     `openssl rand -hex 16` makes a good one"
                ));
            }
            tokens.push((name.to_owned(), Secret::new(token.to_owned())));
        }
    }
    if tokens.is_empty() {
        section.missing("token_file", "has no name:token line; without one nobody may command");
    }
    tokens
}
