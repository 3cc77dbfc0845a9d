//! `postgres://user:password@host:port/database?sslmode=…`, as far as a pair is named by one. Its errors name the
//! part that is wrong, never its text: a password may stand anywhere in it. Writing one is `dsn`'s.

use std::fmt;

use crate::types::{HostPort, Secret};

/// What a connection URL says.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Where.
    pub address: HostPort,
    /// Who.
    pub user: Option<String>,
    /// With what.
    pub password: Option<Secret>,
    /// Which database.
    pub database: Option<String>,
    /// `sslmode`, as a `tls.mode` of the configuration.
    pub tls_mode: Option<&'static str>,
    /// `sslrootcert`.
    pub ca_file: Option<String>,
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({})", self.address)
    }
}

/// What is wrong with a connection URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is none.
    #[error("is not a connection URL; write postgres://user:password@host:5432/database")]
    Scheme,
    /// Nobody is named.
    #[error("has no host; write postgres://user:password@host:5432/database")]
    NoHost,
    /// More than one is named.
    #[error("names several hosts; name the primary here and the others in PGPIVOT_STANDBYS")]
    SeveralHosts,
    /// Host or port are none.
    #[error("has a host or port that is none (an @, / or : in a password must be written as %40, %2F or %3A)")]
    BadHost,
    /// A percent sign escapes nothing.
    #[error("has a % that is not followed by two hexadecimal digits of UTF-8 text; write a % itself as %25")]
    BadEscape,
    /// Not one of libpq's words.
    #[error("has an unknown sslmode; write disable, prefer, require, verify-ca or verify-full")]
    SslMode,
}

impl Url {
    /// Reads it; `port` is meant when it names none.
    pub fn parse(text: &str, port: u16) -> Result<Self, UrlError> {
        let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let rest = rest.ok_or(UrlError::Scheme)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (part(user)?, part(password)?),
            None => (None, None),
        };
        let mut url = Self {
            address: address(host, port)?,
            user,
            password: password.map(Secret::new),
            database: part(path)?,
            tls_mode: None,
            ca_file: None,
        };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "sslmode" => url.tls_mode = Some(tls_mode(value)?),
                // The system's own roots are the default.
                "sslrootcert" if value != "system" => url.ca_file = part(value)?,
                // The rest is for drivers.
                _ => {}
            }
        }
        // libpq checks the chain whenever it is given roots.
        if url.ca_file.is_some() && url.tls_mode == Some("require") {
            url.tls_mode = Some("verify-ca");
        }
        Ok(url)
    }

    /// Do both log in the same way?
    pub fn same_login(&self, other: &Self) -> bool {
        self.user == other.user
            && self.password == other.password
            && self.database == other.database
            && self.tls_mode == other.tls_mode
            && self.ca_file == other.ca_file
    }
}

fn address(host: &str, port: u16) -> Result<HostPort, UrlError> {
    if host.contains(',') {
        return Err(UrlError::SeveralHosts);
    }
    let named = !host.is_empty() && !host.starts_with(':');
    if !named {
        return Err(UrlError::NoHost);
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let text = if has_port { host.to_owned() } else { format!("{host}:{port}") };
    text.parse().map_err(|_| UrlError::BadHost)
}

fn tls_mode(value: &str) -> Result<&'static str, UrlError> {
    match value {
        "disable" => Ok("disable"),
        "allow" | "prefer" => Ok("prefer"),
        // node-postgres says no-verify for what libpq calls require.
        "require" | "no-verify" => Ok("require"),
        "verify-ca" => Ok("verify-ca"),
        "verify-full" => Ok("verify-full"),
        _ => Err(UrlError::SslMode),
    }
}

/// Percent-decoded; empty = not there.
fn part(text: &str) -> Result<Option<String>, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16)).ok_or(UrlError::BadEscape);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(bytes).map_err(|_| UrlError::BadEscape)?;
    if text.contains('\0') {
        return Err(UrlError::BadEscape);
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Url, UrlError> {
        Url::parse(text, 5432)
    }

    #[test]
    fn a_url_says_where_and_who() {
        let url =
            parse("postgres://ap%40p:p%3Aw%25@db1.example.com:5433/orders?sslmode=verify-full&schema=public").unwrap();
        assert_eq!(url.address.to_string(), "db1.example.com:5433");
        assert_eq!(url.user.as_deref(), Some("ap@p"));
        assert_eq!(url.password, Some(Secret::new("p:w%".into())));
        assert_eq!(url.database.as_deref(), Some("orders"));
        assert_eq!(url.tls_mode, Some("verify-full"));
    }

    #[test]
    fn what_a_url_leaves_out_has_defaults() {
        let url = parse("postgresql://localhost").unwrap();
        assert_eq!(url.address.to_string(), "localhost:5432");
        assert_eq!((url.user, url.password, url.database, url.tls_mode), (None, None, None, None));
        assert_eq!(parse("postgres://u@[::1]/x").unwrap().address.to_string(), "[::1]:5432");
        assert_eq!(parse("postgres://u@[::1]:7/x").unwrap().address.to_string(), "[::1]:7");
    }

    #[test]
    fn a_url_that_is_none_says_which_part_is_wrong_and_never_shows_it() {
        let secret = "hunter2";
        for (text, error) in [
            ("mysql://u:hunter2@h/x", UrlError::Scheme),
            ("host=h password=hunter2", UrlError::Scheme),
            ("postgres://u:hunter2@/x", UrlError::NoHost),
            ("postgres://u:hunter2@:5432/x", UrlError::NoHost),
            ("postgres://u:hunter2@a,b/x", UrlError::SeveralHosts),
            ("postgres://u:hunter2@h:port/x", UrlError::BadHost),
            ("postgres://u:hun/ter2@h/x", UrlError::BadHost),
            ("postgres://u:hunter2%@h/x", UrlError::BadEscape),
            ("postgres://u:hunter2%zz@h/x", UrlError::BadEscape),
            ("postgres://u:hunter2%ff@h/x", UrlError::BadEscape),
            ("postgres://u:hunter2@h/x?sslmode=hunter2", UrlError::SslMode),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
            assert!(!error.to_string().contains(secret));
        }
        assert!(!format!("{:?}", parse("postgres://u:hunter2@h/x").unwrap()).contains(secret));
    }
}
