//! The forms of what CockroachDB Cloud is asked with: UUIDs, times, the API's address and its secret. What is wrong is
//! said without the text itself: a secret may stand in the wrong place.

use std::net::IpAddr;

use crate::types::{HostPort, WallTime};

/// What is wrong with a text that should be a UUID.
pub(in crate::config) const NO_UUID: &str =
    "is not a UUID; write the id as the Cloud Console shows it, for example 0a1b2c3d-4e5f-6789-abcd-ef0123456789";

/// A UUID in lower case.
pub(in crate::config) fn uuid(text: &str) -> Option<String> {
    let text = text.trim();
    let formed = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    formed.then(|| text.to_ascii_lowercase())
}

/// What is wrong with a text that should be a time.
pub(in crate::config) const NO_TIME: &str = "is not a time; write for example 2026-01-31T12:00:00Z";

/// A time with its offset, as RFC 3339 writes it. Whether it can be failed over to is the promoter's question: it has
/// a clock.
pub(in crate::config) fn time(text: &str) -> Option<WallTime> {
    let time: jiff::Timestamp = text.trim().parse().ok()?;
    Some(WallTime(time.as_microsecond()))
}

/// As [`time`] reads it.
pub(in crate::config) fn time_text(time: WallTime) -> String {
    jiff::Timestamp::from_microsecond(time.0).map_or_else(|_| "out of range".into(), |time| time.to_string())
}

/// What is wrong with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::config) enum SecretError {
    #[error("is empty; write the secret key of a service account")]
    Empty,
    #[error("has spaces or line ends around it; write the secret key and nothing else")]
    Padded,
    #[error("has quotes around it that would be sent along; write the secret key without them")]
    Quoted,
    #[error("has spaces, line ends or other characters in it that no secret key has; write the key and nothing else")]
    Odd,
}

/// Can it be sent as it is? A wrong one is only refused by the API, at the hour when it is needed.
pub(in crate::config) fn check_secret(text: &str) -> Result<(), SecretError> {
    let quotes = ['"', '\'', '`'];
    match text {
        _ if text.trim().is_empty() => Err(SecretError::Empty),
        _ if text.trim() != text => Err(SecretError::Padded),
        _ if text.starts_with(quotes) || text.ends_with(quotes) => Err(SecretError::Quoted),
        _ if !text.chars().all(|c| c.is_ascii_graphic()) => Err(SecretError::Odd),
        _ => Ok(()),
    }
}

/// What is wrong with the API's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::config) enum ApiUrlError {
    #[error("is not an address of the API; write for example https://cockroachlabs.cloud")]
    Scheme,
    #[error("has a user or password in it; the secret key goes into secret_file or COCKROACH_API_SECRET_KEY")]
    Login,
    #[error("has a path, and the API's own are added to it; write scheme and host alone")]
    Path,
    #[error("has a query or fragment; write scheme and host alone")]
    Query,
    #[error("has a host or port that is none; write for example https://cockroachlabs.cloud")]
    Host,
    #[error("would send the secret key unencrypted; write https, or name this machine itself")]
    Plain,
}

/// Scheme, host and port without a slash at the end: https, or http to this machine itself.
pub(in crate::config) fn api_url(text: &str) -> Result<String, ApiUrlError> {
    let (scheme, rest) = text.trim().split_once("://").ok_or(ApiUrlError::Scheme)?;
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return Err(ApiUrlError::Scheme),
    };
    if rest.contains('@') {
        return Err(ApiUrlError::Login);
    }
    if rest.contains(['?', '#']) {
        return Err(ApiUrlError::Query);
    }
    let authority = match rest.split_once('/') {
        Some((authority, "")) => authority,
        Some(_) => return Err(ApiUrlError::Path),
        None => rest,
    };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let full = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
    let address: HostPort = full.parse().map_err(|_| ApiUrlError::Host)?;
    let here = address.host.eq_ignore_ascii_case("localhost")
        || address.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if scheme == "http" && !here {
        return Err(ApiUrlError::Plain);
    }
    Ok(format!("{scheme}://{}", authority.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_and_kept_in_lower_case() {
        let id = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
        assert_eq!(uuid(id).as_deref(), Some(id));
        assert_eq!(uuid(&id.to_ascii_uppercase()).as_deref(), Some(id));
        for wrong in ["", "one", &id[1..], &id.replace('-', ""), &id.replace('a', "g"), &format!("{{{id}}}"), "é"] {
            assert_eq!(uuid(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_needs_its_offset() {
        let noon = time("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(time("2026-01-31T13:00:00.000+01:00"), Some(noon));
        assert_eq!(time_text(noon), "2026-01-31T12:00:00Z");
        for wrong in ["yesterday", "2026-01-31", "2026-01-31T12:00:00", "12:00", "", "1769860800"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_secret_that_was_pasted_with_more_than_itself_is_noticed() {
        assert_eq!(check_secret("CCDB1_abc_DEF"), Ok(()));
        for (text, error) in [
            ("", SecretError::Empty),
            (" \n", SecretError::Empty),
            (" CCDB1_abc", SecretError::Padded),
            ("CCDB1_abc\n", SecretError::Padded),
            ("\"CCDB1_abc\"", SecretError::Quoted),
            ("'CCDB1_abc'", SecretError::Quoted),
            ("CCDB1_abc\nCCDB1_def", SecretError::Odd),
            ("Bearer CCDB1_abc", SecretError::Odd),
            ("CCDB1_äbc", SecretError::Odd),
        ] {
            assert_eq!(check_secret(text), Err(error), "{text:?}");
            assert!(!error.to_string().contains("CCDB1"));
        }
    }

    #[test]
    fn the_secret_leaves_this_machine_encrypted_or_not_at_all() {
        for (text, stored) in [
            ("https://cockroachlabs.cloud", "https://cockroachlabs.cloud"),
            ("HTTPS://CockroachLabs.cloud/", "https://cockroachlabs.cloud"),
            ("https://api.example.com:8443", "https://api.example.com:8443"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(api_url(text).as_deref(), Ok(stored), "{text}");
        }
        for (text, error) in [
            ("cockroachlabs.cloud", ApiUrlError::Scheme),
            ("ftp://cockroachlabs.cloud", ApiUrlError::Scheme),
            ("", ApiUrlError::Scheme),
            ("https://user:hunter2@cockroachlabs.cloud", ApiUrlError::Login),
            ("https://cockroachlabs.cloud/api/v1", ApiUrlError::Path),
            ("https://cockroachlabs.cloud//", ApiUrlError::Path),
            ("https://cockroachlabs.cloud?x=1", ApiUrlError::Query),
            ("https://cockroachlabs.cloud/#x", ApiUrlError::Query),
            ("https://", ApiUrlError::Host),
            ("https://:443", ApiUrlError::Host),
            ("https://a b", ApiUrlError::Host),
            ("https://host:0", ApiUrlError::Host),
            ("https://host:http", ApiUrlError::Host),
            ("http://cockroachlabs.cloud", ApiUrlError::Plain),
            ("http://localhost.example.com", ApiUrlError::Plain),
            ("http://10.0.0.1:8080", ApiUrlError::Plain),
        ] {
            assert_eq!(api_url(text), Err(error), "{text}");
        }
    }
}
