//! Which daemon is meant, and with which token: options over environment over default. Opens no connection.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Misuse;
use super::args::Global;
use crate::types::{HostPort, Secret};

/// Where the daemon listens unless told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8404";
/// The port of a URL without one.
const DEFAULT_PORT: u16 = 8404;
/// A token file is one line; more is a mistake.
const TOKEN_FILE_LIMIT: u64 = 64 * 1024;

/// What is taken from the process's environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    /// `PGPIVOT_URL`.
    pub(super) url: Option<String>,
    /// `PGPIVOT_TOKEN`.
    pub(super) token: Option<Secret>,
    /// `SUDO_USER`, else `USER`: the note that goes into the history.
    pub(super) user: Option<String>,
}

impl Environment {
    /// Of this process. Empty values count as absent.
    pub(super) fn of_process() -> Self {
        let read = |key: &str| std::env::var(key).ok().filter(|v| !v.trim().is_empty());
        Self {
            url: read("PGPIVOT_URL"),
            token: read("PGPIVOT_TOKEN").map(Secret::new),
            user: read("SUDO_USER").or_else(|| read("USER")),
        }
    }
}

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// TCP.
    Http(HostPort),
    /// A unix socket.
    Unix(PathBuf),
}

/// An address that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} {problem}; write http://host:port or unix:///path")]
pub(super) struct TargetError {
    given: String,
    problem: &'static str,
}

impl Target {
    /// Reads `http://host:port`, `host:port` or `unix:///path`.
    pub(super) fn parse(text: &str) -> Result<Self, TargetError> {
        let wrong = |problem| TargetError { given: text.to_owned(), problem };
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(PathBuf::from(path))),
                false => Err(wrong("names no absolute path")),
            };
        }
        if text.starts_with("https://") {
            return Err(wrong("asks for TLS, which the daemon does not speak (put a tunnel or a TLS proxy between)"));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() {
            return Err(wrong("has a path, which the daemon's address has not"));
        }
        if authority.contains('@') {
            return Err(wrong("has a login in it; the token comes from --token-file or PGPIVOT_TOKEN"));
        }
        let has_port =
            authority.rsplit_once(':').is_some_and(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
        let address = match has_port {
            true => authority.to_owned(),
            false => format!("{authority}:{DEFAULT_PORT}"),
        };
        address.parse().map(Self::Http).map_err(|_| wrong("is no address"))
    }

    /// The one that is meant.
    pub(super) fn choose(global: &Global, environment: &Environment) -> Result<Self, TargetError> {
        match (&global.socket, &global.url, &environment.url) {
            (Some(path), _, _) => Ok(Self::Unix(path.clone())),
            (None, Some(url), _) | (None, None, Some(url)) => Self::parse(url),
            (None, None, None) => Self::parse(DEFAULT_URL),
        }
    }

    /// Where a daemon with this configuration listens.
    pub(super) fn of(admin: &crate::config::Admin) -> Result<Self, TargetError> {
        match (&admin.socket, admin.listen) {
            (_, Some(listen)) => Self::parse(&listen.to_string()),
            (Some(socket), None) => Ok(Self::Unix(socket.clone())),
            // The configuration allows no such thing.
            (None, None) => Self::parse(DEFAULT_URL),
        }
    }

    /// What the `Host` header says.
    pub(super) fn host_header(&self) -> String {
        match self {
            Self::Http(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Whether somebody said which daemon.
pub(super) fn is_named(global: &Global, environment: &Environment) -> bool {
    global.url.is_some() || global.socket.is_some() || environment.url.is_some()
}

/// The token: from `--token-file`, else from the environment.
pub(super) fn token(global: &Global, environment: &Environment) -> Result<Option<Secret>, Misuse> {
    let Some(path) = &global.token_file else {
        return Ok(environment.token.clone());
    };
    let wrong = |problem: String| Misuse::TokenFile { path: path.display().to_string(), problem };
    let text = read_bounded(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    token_in(&text).map(Some).ok_or_else(|| wrong("holds no token; write it there, alone or as name:token".to_owned()))
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(TOKEN_FILE_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// The first line that counts; `name:token` as in the daemon's own file, or the token alone.
fn token_in(text: &str) -> Option<Secret> {
    let line = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'))?;
    let token = line.split_once(':').map_or(line, |(_, token)| token).trim();
    (!token.is_empty()).then(|| Secret::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_every_form_that_people_write() {
        let http = |text: &str| Target::parse(text).unwrap().to_string();
        assert_eq!(http("http://127.0.0.1:8404"), "http://127.0.0.1:8404");
        assert_eq!(http("http://db1:9000/"), "http://db1:9000");
        assert_eq!(http("db1"), "http://db1:8404");
        assert_eq!(http("http://[::1]"), "http://[::1]:8404");
        assert_eq!(http("[::1]:9000"), "http://[::1]:9000");
        assert_eq!(
            Target::parse("unix:///run/pgpivot/admin.sock").unwrap(),
            Target::Unix("/run/pgpivot/admin.sock".into())
        );
    }

    #[test]
    fn an_address_that_is_none_says_what_to_write() {
        for text in ["https://db1:8404", "unix://relative", "http://db1:8404/stats", "http://:0", "http://u@h:1"] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains("write http://host:port or unix:///path"), "{error}");
        }
    }

    #[test]
    fn a_token_file_holds_the_token_alone_or_with_a_name() {
        assert_eq!(token_in("# ours\n\nalice:s3cret\n"), Some(Secret::new("s3cret".into())));
        assert_eq!(token_in("s3cret\n"), Some(Secret::new("s3cret".into())));
        assert_eq!(token_in("\n# nothing\n"), None);
        assert_eq!(token_in("alice:\n"), None);
    }
}
