//! One request, its deadline and its answer; and how several members are tried.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Url};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::error::{BuildError, Cause, Trouble};
use super::model::{self, Cluster, Ended};
use crate::config::Patroni;
use crate::types::HostPort;

/// The largest body that is read, bytes.
pub const MAX_BODY: usize = 1 << 20;
/// A member that does not answer within this is not waited for alone.
const HEDGE: Duration = Duration::from_millis(300);
/// Of the time of an order, what a connection may take: an order that ends by its deadline is known to have been sent.
const CONNECT_SHARE: u32 = 4;

/// The way to a cluster's members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    scheme: &'static str,
    addresses: Vec<HostPort>,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    order_timeout: Duration,
    /// Who answered last: asked first.
    last: AtomicUsize,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the certificates. Connects to nobody.
    pub fn build(settings: &Patroni) -> Result<Self, BuildError> {
        let authorization = settings.login.as_ref().map(|(user, password)| {
            let both = STANDARD.encode(format!("{user}:{}", password.expose()));
            let mut header = HeaderValue::from_str(&format!("Basic {both}")).map_err(|_| BuildError::Login)?;
            header.set_sensitive(true);
            Ok::<_, BuildError>(header)
        });
        let http = reqwest::Client::builder()
            .user_agent(concat!("pgpivot/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            // Patroni closes after every answer; an order must not meet a connection that is closing.
            .pool_max_idle_per_host(0)
            .connect_timeout((settings.order_timeout / CONNECT_SHARE).min(settings.timeout))
            .https_only(settings.tls)
            .tls_backend_preconfigured(tls(settings)?)
            .build()
            .map_err(BuildError::Http)?;
        let inner = Inner {
            http,
            scheme: if settings.tls { "https" } else { "http" },
            addresses: settings.addresses.clone(),
            authorization: authorization.transpose()?,
            timeout: settings.timeout,
            order_timeout: settings.order_timeout,
            last: AtomicUsize::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// `GET /cluster` of the first member that answers it. One that is slow is not waited for alone, so that a member
    /// that hangs costs little. `Err`: what each of them said.
    pub async fn cluster(&self) -> Result<(HostPort, Cluster), Vec<Trouble>> {
        let mut asked: JoinSet<(usize, Result<Cluster, Trouble>)> = JoinSet::new();
        let mut waiting = self.inner.order().into_iter();
        let mut troubles = Vec::new();
        let mut next = Instant::now();
        loop {
            let left = waiting.len() > 0;
            tokio::select! {
                () = sleep_until(next), if left => {
                    let Some(at) = waiting.next() else { continue };
                    let this = self.clone();
                    asked.spawn(async move { (at, this.inner.cluster(at).await) });
                    next = Instant::now() + HEDGE;
                }
                Some(answer) = asked.join_next() => match answer {
                    Ok((at, Ok(cluster))) => {
                        self.inner.last.store(at, Ordering::Relaxed);
                        return Ok((self.inner.addresses[at].clone(), cluster));
                    }
                    Ok((_, Err(trouble))) => {
                        troubles.push(trouble);
                        next = Instant::now();
                    }
                    Err(_) => next = Instant::now(),
                },
                else => return Err(troubles),
            }
        }
    }

    /// `GET /primary` of one member: `Some(true)` when it holds the leader key and runs as primary, by its own word;
    /// `None` = it does not answer.
    pub async fn is_primary(&self, api: &HostPort) -> Option<bool> {
        let deadline = Instant::now() + self.inner.timeout;
        match self.inner.send(api, Method::GET, "primary", None, deadline).await {
            Ok((200, _)) => Some(true),
            Ok((503, _)) => Some(false),
            Ok(_) | Err(_) => None,
        }
    }

    /// `GET /history` of a member, the newest last.
    pub async fn history(&self, at: &HostPort) -> Result<Vec<Ended>, Trouble> {
        let deadline = Instant::now() + self.inner.timeout;
        let body = said(at, self.inner.send(at, Method::GET, "history", None, deadline).await?)?;
        model::history(&body).map_err(|what| Trouble::NotPatroni { address: at.clone(), what })
    }

    /// `POST` of an order to the first member that can be reached. What was sent once goes to no other: `Ok` is a 2xx
    /// with its text.
    pub async fn order(&self, path: &str, body: &str) -> Result<String, Trouble> {
        let mut unreachable = None;
        for at in self.inner.order() {
            let address = &self.inner.addresses[at];
            let deadline = Instant::now() + self.inner.order_timeout;
            match self.inner.send(address, Method::POST, path, Some(body.to_owned()), deadline).await {
                Err(trouble @ Trouble::Unreachable { .. }) => unreachable = Some(trouble),
                Err(trouble) => return Err(trouble),
                Ok(answer) => {
                    let body = said(address, answer)?;
                    return Ok(model::text(&String::from_utf8_lossy(&body)));
                }
            }
        }
        Err(unreachable.unwrap_or(Trouble::Nobody))
    }
}

impl Inner {
    /// Who is asked first, second …
    fn order(&self) -> Vec<usize> {
        let first = self.last.load(Ordering::Relaxed);
        let count = self.addresses.len();
        (0..count).map(|n| (first + n) % count).collect()
    }

    async fn cluster(&self, at: usize) -> Result<Cluster, Trouble> {
        let address = &self.addresses[at];
        let deadline = Instant::now() + self.timeout;
        let body = said(address, self.send(address, Method::GET, "cluster", None, deadline).await?)?;
        Cluster::parse(&body).map_err(|what| Trouble::NotPatroni { address: address.clone(), what })
    }

    /// Sends once and reads the answer, until `deadline`. Cancelled, it closes the connection; an order may have taken
    /// effect then.
    async fn send(
        &self,
        address: &HostPort,
        method: Method,
        path: &str,
        body: Option<String>,
        deadline: Instant,
    ) -> Result<(u16, Vec<u8>), Trouble> {
        let no_answer = |cause| Trouble::NoAnswer { address: address.clone(), cause };
        let url = Url::parse(&format!("{}://{address}/{path}", self.scheme));
        let url = url.map_err(|_| Trouble::Unreachable { address: address.clone(), cause: Cause::Http })?;
        let mut request = Request::new(method, url);
        if let Some(body) = body {
            let headers = request.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            // Only an order needs it, so nobody else gets it.
            if let Some(authorization) = &self.authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            *request.body_mut() = Some(body.into());
        }
        let mut response = match timeout_at(deadline, self.http.execute(request)).await {
            Err(_) => return Err(no_answer(Cause::TimedOut)),
            Ok(Err(error)) if error.is_connect() => {
                return Err(Trouble::Unreachable { address: address.clone(), cause: cause(&error) });
            }
            Ok(Err(error)) => return Err(no_answer(cause(&error))),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let mut text = Vec::new();
        loop {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) if text.len() + chunk.len() > MAX_BODY => {
                    return Err(Trouble::TooLarge { address: address.clone() });
                }
                Ok(Ok(Some(chunk))) => text.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok((status, text)),
                // A refusal is one, whatever becomes of its text.
                _ if status >= 400 => return Ok((status, text)),
                Ok(Err(error)) => return Err(no_answer(cause(&error))),
                Err(_) => return Err(no_answer(Cause::TimedOut)),
            }
        }
    }
}

/// The body, if the status says yes.
fn said(address: &HostPort, (status, body): (u16, Vec<u8>)) -> Result<Vec<u8>, Trouble> {
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let text = model::text(&String::from_utf8_lossy(&body));
    // Python's own error pages say no more than the status does.
    let text = if text.is_empty() || text.starts_with('<') { "without a word".to_owned() } else { text };
    Err(Trouble::Says { address: address.clone(), status, text })
}

fn cause(error: &reqwest::Error) -> Cause {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    let mut found = if error.is_timeout() { Cause::TimedOut } else { Cause::Http };
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return Cause::Tls;
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && hyper.is_incomplete_message()
        {
            return Cause::Closed;
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            found = match io.kind() {
                io::ErrorKind::UnexpectedEof => Cause::Closed,
                kind => Cause::Io(kind),
            };
            // What an io::Error wraps is not its source.
            let inner = io.get_ref().map(|inner| inner as &(dyn StdError + 'static));
            next = inner.or_else(|| error.source());
            continue;
        }
        next = error.source();
    }
    found
}

/// Chain and name are checked wherever there is TLS.
fn tls(settings: &Patroni) -> Result<ClientConfig, BuildError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(settings)?);
    let Some((certificate, key)) = &settings.certificate else { return Ok(config.with_no_client_auth()) };
    let unusable = |path: &std::path::Path, why: String| BuildError::File { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error.to_string()))?;
    Ok(config.with_client_auth_cert(chain, key)?)
}

fn roots(settings: &Patroni) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    match &settings.ca_file {
        // A client must have some TLS; one for plain http trusts nobody.
        _ if !settings.tls => return Ok(roots),
        Some(path) => {
            let unusable = |why: String| BuildError::File { path: path.clone(), why };
            let found = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
            for certificate in found {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("it holds no certificate in PEM form".to_owned()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(BuildError::NoRoots);
            }
        }
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
