//! The simulated Cloud API: an HTTP server over the simulated cloud's world. Who may ask, what goes wrong on demand and
//! how replies leave are decided here; what is asked is `operations`'.

pub(super) mod desk;
mod operations;
mod reply;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::cloud::site::Site;
use desk::ApiFault;
use operations::Ask;
use reply::Reply;

/// After a failed accept (no descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For a request's head.
const HEAD: Duration = Duration::from_secs(30);
/// The largest body that is read, bytes.
const BODY: usize = 64 * 1024;
/// Values of Cc-Version that are known; without the header it is the last one.
const VERSIONS: [&str; 4] = ["2022-03-31", "2022-09-20", "2023-04-10", "2024-09-16"];

/// gRPC codes in the bodies of refusals.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const RESOURCE_EXHAUSTED: i32 = 8;
const INTERNAL: i32 = 13;
const UNAUTHENTICATED: i32 = 16;

/// Serves until the site stops.
pub(super) async fn serve(listener: TcpListener, site: Arc<Site>) {
    let connections = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    site.tasks.spawn(attend(stream, site.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = site.stop.cancelled() => {}
        () = connections => {}
    }
}

async fn attend(stream: TcpStream, site: Arc<Site>) {
    let service = service_fn(|request| answer(request, site.clone()));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = site.stop.cancelled() => {}
        result = connection => if let Err(error) = result {
            tracing::debug!(%error, "simulated API connection");
        }
    }
}

/// One request; an error closes the connection without a reply.
async fn answer(request: Request<Incoming>, site: Arc<Site>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let ask = Ask::read(&head.method, head.uri.path(), query);
    let operation = ask.as_ref().map(Ask::operation);
    let body = Limited::new(body, BODY).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let fault = site.desk.arrived(operation, &body);
    match fault {
        Some(ApiFault::Status(status)) => return Ok(finish(Reply::status(status, "simulated fault"), &site)),
        Some(ApiFault::Html(status)) => return Ok(html(status, &site)),
        Some(ApiFault::Hang) => return std::future::pending().await,
        Some(ApiFault::LostBefore) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(ApiFault::Redirect(to)) => return Ok(redirect(&to, &site)),
        Some(ApiFault::RateLimited { retry_after }) => return Ok(limited(retry_after, &site)),
        Some(ApiFault::Slow(delay)) => sleep(delay).await,
        Some(ApiFault::Truncated | ApiFault::LostAfter) | None => {}
    }
    if let Some(refused) = refuse(&head.headers, &site) {
        return Ok(finish(refused, &site));
    }
    if let Some(seconds) = site.desk.over_the_rate(site.now()) {
        return Ok(limited(seconds, &site));
    }
    let reply = match ask {
        Some(ask) => operations::carry_out(ask, &body, &site).await,
        None => Reply::refusal(404, NOT_FOUND, "Not Found"),
    };
    match fault {
        Some(ApiFault::LostAfter) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(ApiFault::Truncated) => Ok(finish(reply.cut(), &site)),
        _ => Ok(finish(reply, &site)),
    }
}

/// Who may not ask, or asks in a version that does not exist.
fn refuse(headers: &hyper::HeaderMap, site: &Site) -> Option<Reply> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let bearer = headers.get(AUTHORIZATION).map(text).unwrap_or_default();
    if bearer.strip_prefix("Bearer ") != Some(site.secret.expose()) {
        return Some(Reply::refusal(401, UNAUTHENTICATED, "invalid or missing API key"));
    }
    match headers.get("cc-version").map(text) {
        Some(version) if !VERSIONS.contains(&version.as_str()) => {
            Some(Reply::refusal(400, INVALID_ARGUMENT, &format!("invalid Cc-Version: {version}")))
        }
        _ => None,
    }
}

fn html(status: u16, site: &Site) -> Response<Full<Bytes>> {
    let body = "<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\r\n";
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    dated(response, site)
}

fn redirect(to: &str, site: &Site) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    dated(response, site)
}

fn limited(seconds: u64, site: &Site) -> Response<Full<Bytes>> {
    let mut response = finish(Reply::refusal(429, RESOURCE_EXHAUSTED, "rate limit exceeded"), site);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn finish(reply: Reply, site: &Site) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    dated(response, site)
}

/// With the cloud's own time.
fn dated(mut response: Response<Full<Bytes>>, site: &Site) -> Response<Full<Bytes>> {
    let now = jiff::Timestamp::from_microsecond(site.now().0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    if let Ok(date) = HeaderValue::from_str(&now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
        response.headers_mut().insert(DATE, date);
    }
    response
}
