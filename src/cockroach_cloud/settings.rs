//! The client's settings and what can be wrong with them.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use rustls_pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::types::Secret;

/// Where the API is.
pub const DEFAULT_BASE_URL: &str = "https://cockroachlabs.cloud";
/// The deadline of a call.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The version of the API that this client speaks.
pub const VERSION: &str = "2024-09-16";

/// The shortest and the longest deadline.
pub(super) const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);

/// How to talk to the API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://host[:port][/prefix]`; plain `http` only to a loopback host. Default [`DEFAULT_BASE_URL`].
    pub base_url: String,
    /// The secret of a service account.
    pub secret: Secret,
    /// The deadline of a call, waiting and repeating included, 100 ms to 300 s. Default [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// The `Cc-Version` to ask for. Default [`VERSION`].
    pub version: String,
    /// The `User-Agent`. Default `pgpivot/` and our version.
    pub user_agent: String,
}

impl Settings {
    /// The defaults, with this secret.
    pub fn new(secret: Secret) -> Self {
        Self {
            base_url: DEFAULT_BASE_URL.into(),
            secret,
            timeout: DEFAULT_TIMEOUT,
            version: VERSION.into(),
            user_agent: concat!("pgpivot/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// Why no client can be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The base URL is none.
    #[error("the base URL is no URL; write https://host, as in {DEFAULT_BASE_URL}")]
    BadUrl,
    /// The base URL says more than scheme, host, port and path.
    #[error("the base URL has a user, a query or a fragment; write https://host, as in {DEFAULT_BASE_URL}")]
    UrlHasMore,
    /// The token would go over the network in clear.
    #[error("the base URL must be https, since the token would go to {host} in clear; http is for loopback hosts only")]
    NotEncrypted {
        /// The host.
        host: String,
    },
    /// There is no secret.
    #[error("the API secret is empty; create a service account's API key in the Cloud Console")]
    NoSecret,
    /// The secret cannot be sent.
    #[error("the API secret has a character that no key has (a space or a line end, most likely)")]
    BadSecret,
    /// The version cannot be sent.
    #[error("the API version is no date; write it as in {VERSION}")]
    BadVersion,
    /// The user agent cannot be sent.
    #[error("the user agent has characters that no header has")]
    BadUserAgent,
    /// The deadline is out of range.
    #[error("the timeout of API calls must be from 100 ms to 300 s")]
    BadTimeout,
    /// Verification is impossible.
    #[error("this system has no root certificates; install its ca-certificates")]
    NoRoots,
    /// The cryptography does not fit together.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Http(#[source] reqwest::Error),
}

impl Settings {
    /// What [`Client::build`](super::Client::build) would say of them, the system's certificates aside.
    pub fn check(&self) -> Result<(), BuildError> {
        check(self).map(drop)
    }
}

/// Settings that were found good.
pub(super) struct Checked {
    pub(super) base: Url,
    pub(super) authorization: HeaderValue,
    pub(super) version: HeaderValue,
    pub(super) user_agent: HeaderValue,
}

/// Checks everything but the certificates.
pub(super) fn check(settings: &Settings) -> Result<Checked, BuildError> {
    let base = base_url(&settings.base_url)?;
    let secret = settings.secret.expose();
    if secret.is_empty() {
        return Err(BuildError::NoSecret);
    }
    if !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(BuildError::BadSecret);
    }
    let mut authorization = HeaderValue::from_str(&format!("Bearer {secret}")).map_err(|_| BuildError::BadSecret)?;
    authorization.set_sensitive(true);
    if !settings.version.bytes().all(|b| b.is_ascii_digit() || b == b'-') || settings.version.is_empty() {
        return Err(BuildError::BadVersion);
    }
    if !TIMEOUTS.contains(&settings.timeout) {
        return Err(BuildError::BadTimeout);
    }
    Ok(Checked {
        base,
        authorization,
        version: HeaderValue::from_str(&settings.version).map_err(|_| BuildError::BadVersion)?,
        user_agent: HeaderValue::from_str(&settings.user_agent).map_err(|_| BuildError::BadUserAgent)?,
    })
}

fn base_url(text: &str) -> Result<Url, BuildError> {
    let url = Url::parse(text.trim_end_matches('/')).map_err(|_| BuildError::BadUrl)?;
    let host = url.host_str().ok_or(BuildError::BadUrl)?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(BuildError::UrlHasMore);
    }
    match url.scheme() {
        "https" if ServerName::try_from(host.trim_matches(['[', ']'])).is_err() => Err(BuildError::BadUrl),
        "https" => Ok(url),
        "http" if is_loopback(host) => Ok(url),
        "http" => Err(BuildError::NotEncrypted { host: host.into() }),
        _ => Err(BuildError::BadUrl),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The system's own root certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
pub(super) fn system_roots() -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(BuildError::NoRoots) } else { Ok(roots) }
}

/// TLS with the cryptography that the tree has.
pub(super) fn tls_config(roots: RootCertStore) -> Result<ClientConfig, BuildError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// A client for plain HTTP, of the shape that all of ours have: no redirects, no proxies of the environment, a
/// connection for every call. It must have some TLS; this one trusts nobody.
pub(crate) fn plain_http() -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .pool_max_idle_per_host(0);
    match tls_config(RootCertStore::empty()) {
        Ok(tls) => builder.tls_backend_preconfigured(tls),
        Err(_) => builder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(base_url: &str) -> Settings {
        Settings { base_url: base_url.into(), ..Settings::new(Secret::new("CCDB1_key".into())) }
    }

    #[test]
    fn plain_http_is_for_loopback_hosts_only() {
        for good in [
            DEFAULT_BASE_URL,
            "https://api.example:8443/prefix/",
            "http://127.0.0.1:8080",
            "http://[::1]:8080/",
            "http://localhost:1",
            "https://[::1]:8443",
        ] {
            assert!(check(&settings(good)).is_ok(), "{good}");
        }
        for host in ["cockroachlabs.cloud", "10.0.0.1", "localhost.example", "127.0.0.1.example", "0.0.0.0"] {
            let error = check(&settings(&format!("http://{host}:80"))).err().unwrap();
            assert!(matches!(&error, BuildError::NotEncrypted { host: named } if named == host), "{host}: {error}");
            assert!(error.to_string().contains("must be https"));
        }
        let no_name = format!("https://{}.example", "a".repeat(64));
        for bad in ["", &no_name, "cockroachlabs.cloud", "ftp://x", "file:///etc/passwd", "https://"] {
            assert!(matches!(check(&settings(bad)).err(), Some(BuildError::BadUrl)), "{bad}");
        }
        for long in ["https://u:CCDB1_key@x", "https://x?a=b", "https://x#f"] {
            let error = check(&settings(long)).err().unwrap();
            assert!(matches!(error, BuildError::UrlHasMore), "{long}");
            assert!(!format!("{error} {error:?}").contains("CCDB1_key"));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_a_reason() {
        let base = settings(DEFAULT_BASE_URL);
        let with = |secret: &str| check(&Settings { secret: Secret::new(secret.into()), ..base.clone() }).err();
        assert!(matches!(with(""), Some(BuildError::NoSecret)));
        for secret in ["key\n", "a b", "ké"] {
            assert!(matches!(with(secret), Some(BuildError::BadSecret)), "{secret:?}");
        }
        let timeout = |timeout| check(&Settings { timeout, ..base.clone() }).err();
        assert!(matches!(timeout(Duration::ZERO), Some(BuildError::BadTimeout)));
        assert!(matches!(timeout(Duration::from_secs(301)), Some(BuildError::BadTimeout)));
        let version = check(&Settings { version: "latest".into(), ..base.clone() }).err();
        assert!(matches!(version, Some(BuildError::BadVersion)));
        let agent = check(&Settings { user_agent: "a\nb".into(), ..base }).err();
        assert!(matches!(agent, Some(BuildError::BadUserAgent)));
    }
}
