//! One request and its reply: sent once, read up to a bound, judged by its status. No waiting, no repeating.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Request, Url};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::error::{Answer, Cause, Code, MAX_MESSAGE, Step, Trouble, Unreadable};
use super::model::Status;
use super::operation::{Method, Operation};
use super::resolve::{Resolver, Unresolved};
use super::retry;
use super::settings::{BuildError, Checked, Settings, check, tls_config};
use super::text::{bounded, html_title, masked};
use crate::types::Secret;

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 4 << 20;
/// The longest wait for a connection, TLS included.
const MAX_CONNECT: Duration = Duration::from_secs(5);
/// The headers that people who look for a fault want to see.
const TELLING: [&str; 9] = [
    "content-type",
    "date",
    "retry-after",
    "server",
    "via",
    "location",
    "x-request-id",
    "grpc-metadata-content-type",
    "cf-ray",
];

/// What every request is sent with.
pub(super) struct Transport {
    tls: ClientConfig,
    is_https: bool,
    settings: Checked,
    secret: Secret,
}

/// A reply as it arrived.
pub(super) struct Arrived {
    pub(super) status: u16,
    pub(super) date: Option<Timestamp>,
    pub(super) took: Duration,
    headers: HeaderMap,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    TooLarge,
}

/// A reply of any status as text, the secret masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReply {
    /// The HTTP status.
    pub status: u16,
    /// The headers that tell something, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Transport {
    /// `roots` are asked for only where there is a certificate to check.
    pub(super) fn build(
        settings: &Settings,
        roots: impl FnOnce() -> Result<RootCertStore, BuildError>,
    ) -> Result<Self, BuildError> {
        let checked = check(settings)?;
        let is_https = checked.base.scheme() == "https";
        // A client must have some TLS; one for plain http trusts nobody.
        let tls = tls_config(if is_https { roots()? } else { RootCertStore::empty() })?;
        let transport = Self { tls, is_https, settings: checked, secret: settings.secret.clone() };
        transport.http(settings.timeout).map_err(BuildError::Http)?;
        Ok(transport)
    }

    /// A client for one call that has `left` to live. It shares nothing with others but TLS tickets; what it costs to
    /// build is little beside a connection. Its connection takes half of the time at most, so that a call which ends
    /// by its deadline is known to have been connected.
    fn http(&self, left: Duration) -> Result<reqwest::Client, reqwest::Error> {
        let connect = (left / 2).min(MAX_CONNECT);
        reqwest::Client::builder()
            .user_agent(self.settings.user_agent.clone())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .connect_timeout(connect)
            // Sooner than the connection as a whole, so that it is the one to be blamed.
            .dns_resolver(Resolver::new(connect.mul_f64(0.75)))
            .https_only(self.is_https)
            .tls_backend_preconfigured(self.tls.clone())
            .build()
    }

    pub(super) fn base(&self) -> &Url {
        &self.settings.base
    }

    /// Sends once and reads the reply, until `deadline`. Cancelled, it closes the connection; a write may have taken
    /// effect then.
    pub(super) async fn send(
        &self,
        operation: &Operation,
        query: &[(&str, String)],
        body: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<Arrived, Trouble> {
        let request =
            self.request(operation, query, body).ok_or(Trouble::Unreadable { status: 0, what: Unreadable::NotHttp })?;
        let sent = Instant::now();
        let unbuilt = Trouble::Unreachable { step: Step::Connect, cause: Cause::Other };
        let http = self.http(deadline.saturating_duration_since(sent)).map_err(|_| unbuilt)?;
        let mut response = match timeout_at(deadline, http.execute(request)).await {
            Ok(result) => result.map_err(|error| trouble(&error, Step::Reply))?,
            Err(_) => return Err(Trouble::Unreachable { step: Step::Reply, cause: Cause::TimedOut }),
        };
        let took = sent.elapsed();
        let headers = std::mem::take(response.headers_mut());
        let status = response.status().as_u16();
        let body = match timeout_at(deadline, read_body(&mut response)).await {
            Ok(Ok(body)) => body,
            // A refusal is one, whatever becomes of its text.
            _ if status >= 400 => Body::Whole(Vec::new()),
            Ok(Err(error)) => return Err(trouble(&error, Step::Body)),
            Err(_) => return Err(Trouble::Unreachable { step: Step::Body, cause: Cause::TimedOut }),
        };
        let date = text_of(&headers, DATE.as_str()).and_then(retry::http_date);
        Ok(Arrived { status, date, took, headers, body })
    }

    fn request(&self, operation: &Operation, query: &[(&str, String)], body: Option<&[u8]>) -> Option<Request> {
        let base = self.settings.base.as_str().trim_end_matches('/');
        let mut url = Url::parse(&format!("{base}{}", operation.path())).ok()?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let method = match operation.method() {
            Method::Get => reqwest::Method::GET,
            Method::Patch => reqwest::Method::PATCH,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
        };
        let mut request = Request::new(method, url);
        let json = reqwest::header::HeaderValue::from_static("application/json");
        let headers = request.headers_mut();
        headers.insert(ACCEPT, json.clone());
        headers.insert(AUTHORIZATION, self.settings.authorization.clone());
        headers.insert("cc-version", self.settings.version.clone());
        if let Some(body) = body {
            headers.insert(CONTENT_TYPE, json);
            *request.body_mut() = Some(body.to_vec().into());
        }
        Some(request)
    }

    /// What a reply says: a value, or what is wrong.
    pub(super) fn judge<T: DeserializeOwned>(&self, arrived: &Arrived) -> Result<T, Trouble> {
        let status = arrived.status;
        let unreadable = |what| Trouble::Unreadable { status, what };
        match status {
            200..=299 => {}
            400..=499 => return Err(Trouble::Refused(self.answer(arrived))),
            500.. => return Err(Trouble::Failed(self.answer(arrived))),
            300..=399 => return Err(unreadable(Unreadable::Redirect(self.location(&arrived.headers)))),
            _ => return Err(unreadable(Unreadable::NotHttp)),
        }
        let Body::Whole(body) = &arrived.body else { return Err(unreadable(Unreadable::TooLarge)) };
        serde_json::from_slice(body).map_err(|error| unreadable(self.unreadable(body, &error)))
    }

    fn unreadable(&self, body: &[u8], error: &serde_json::Error) -> Unreadable {
        if let Some(title) = html_title(&String::from_utf8_lossy(body)) {
            return Unreadable::Html(self.shown(&title, 100));
        }
        match error.classify() {
            serde_json::error::Category::Eof => Unreadable::Truncated,
            serde_json::error::Category::Data => Unreadable::Shape(self.shown(&error.to_string(), MAX_MESSAGE)),
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => Unreadable::NotJson,
        }
    }

    fn answer(&self, arrived: &Arrived) -> Answer {
        let body = match &arrived.body {
            Body::Whole(body) => body.as_slice(),
            Body::TooLarge => b"",
        };
        let status: Option<Status> = serde_json::from_slice(body).ok();
        let text = String::from_utf8_lossy(body);
        let message = match (&status, html_title(&text)) {
            (Some(status), _) if !status.message.is_empty() => self.shown(&status.message, MAX_MESSAGE),
            (_, Some(title)) if title.is_empty() => "an HTML page".into(),
            (_, Some(title)) => format!("an HTML page titled {:?}", self.shown(&title, 100)),
            (_, None) => self.shown(&text, MAX_MESSAGE),
        };
        let retry_after = text_of(&arrived.headers, RETRY_AFTER.as_str())
            .and_then(|text| retry::retry_after(text, arrived.date, Timestamp::now()));
        let code = status.map(|status| status.code).filter(|code| *code != 0).map(Code);
        Answer { status: arrived.status, code, message, retry_after }
    }

    fn location(&self, headers: &HeaderMap) -> String {
        let url = text_of(headers, LOCATION.as_str()).and_then(|text| self.settings.base.join(text).ok());
        url.and_then(|url| Some(self.shown(url.host_str()?, 100))).unwrap_or_default()
    }

    /// A reply for people who look for a fault.
    pub(super) fn raw(&self, arrived: &Arrived) -> Result<RawReply, Trouble> {
        let Body::Whole(body) = &arrived.body else {
            return Err(Trouble::Unreadable { status: arrived.status, what: Unreadable::TooLarge });
        };
        let headers = TELLING.iter().filter_map(|name| {
            let value = text_of(&arrived.headers, name)?;
            Some(((*name).to_owned(), self.shown(value, MAX_MESSAGE)))
        });
        let body = masked(&String::from_utf8_lossy(body), &self.secret);
        Ok(RawReply { status: arrived.status, headers: headers.collect(), body })
    }

    /// Masked first, so that no cut leaves a part of the secret.
    fn shown(&self, text: &str, max: usize) -> String {
        bounded(&masked(text, &self.secret), max)
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

async fn read_body(response: &mut reqwest::Response) -> Result<Body, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BODY {
            return Ok(Body::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

/// Finds the step and the cause in the chain of errors. `step` is where it stands once there is a connection.
fn trouble(error: &reqwest::Error, step: Step) -> Trouble {
    let chain = Chain::of(error);
    if let Some(hyper) = chain.hyper
        && hyper.is_parse()
    {
        return Trouble::Unreadable { status: 0, what: Unreadable::NotHttp };
    }
    let (step, cause) = if let Some(unresolved) = chain.unresolved {
        let cause = match unresolved {
            Unresolved::TimedOut => Cause::TimedOut,
            Unresolved::NoAddress => Cause::NoAddress,
        };
        (Step::Resolve, cause)
    } else if !error.is_connect() {
        (step, chain.cause(error))
    } else if chain.is_tls() {
        (Step::Tls, chain.cause(error))
    } else {
        (Step::Connect, chain.cause(error))
    };
    Trouble::Unreachable { step, cause }
}

/// What is known in a chain of errors.
#[derive(Default)]
struct Chain<'a> {
    unresolved: Option<&'a Unresolved>,
    tls: Option<&'a rustls::Error>,
    io: Option<io::ErrorKind>,
    hyper: Option<&'a hyper::Error>,
}

impl<'a> Chain<'a> {
    fn of(error: &'a (dyn StdError + 'static)) -> Self {
        let mut found = Self::default();
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                found.io = Some(io.kind());
                // What an io::Error wraps is not its source.
                let inner = io.get_ref().map(|inner| inner as &(dyn StdError + 'static));
                next = inner.or_else(|| error.source());
                continue;
            }
            found.unresolved = found.unresolved.or_else(|| error.downcast_ref());
            found.tls = found.tls.or_else(|| error.downcast_ref());
            found.hyper = found.hyper.or_else(|| error.downcast_ref());
            next = error.source();
        }
        found
    }

    /// Of an error in connecting: whether there was a connection already.
    fn is_tls(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, InvalidData, UnexpectedEof};
        self.tls.is_some() || matches!(self.io, Some(UnexpectedEof | ConnectionReset | BrokenPipe | InvalidData))
    }

    fn cause(&self, error: &reqwest::Error) -> Cause {
        match (self.tls, self.io) {
            (Some(rustls::Error::InvalidCertificate(why)), _) => Cause::Certificate(why.clone()),
            (Some(_), _) => Cause::Tls,
            _ if error.is_timeout() => Cause::TimedOut,
            (None, Some(io::ErrorKind::UnexpectedEof)) => Cause::Closed,
            (None, Some(kind)) => Cause::Io(kind),
            (None, None) if self.hyper.is_some_and(|hyper| hyper.is_incomplete_message()) => Cause::Closed,
            (None, None) => Cause::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_without_an_address_is_told_from_one_that_does_not_answer() {
        let resolver = Resolver::new(Duration::from_secs(5));
        let builder = reqwest::Client::builder().no_proxy().dns_resolver(resolver);
        let http = builder.tls_backend_preconfigured(tls_config(RootCertStore::empty()).unwrap()).build().unwrap();
        // No name has a label this long, so the system asks nobody.
        let error = http.get(format!("http://{}.localhost/", "a".repeat(64))).send().await.unwrap_err();
        let unresolved = Trouble::Unreachable { step: Step::Resolve, cause: Cause::NoAddress };
        assert_eq!(trouble(&error, Step::Reply), unresolved);
    }
}
