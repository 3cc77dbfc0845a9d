//! The `http` probe: one GET, its status and, if asked for, a text in the body.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::classify;
use crate::config::HttpProbe;
use crate::failover::observation::{Facts, Failure, Role, Verdict};
use crate::net::dial::{self, Channel};
use crate::net::fault::{Cause, SessionError, Step};
use crate::net::tls::ClientTls;

/// Of a body, so much is read and searched.
const MAX_BODY: usize = 64 << 10;

/// What to ask and whom.
#[derive(Debug, Clone)]
pub(super) struct HttpTarget {
    /// The port of the HTTP server.
    pub(super) address: SocketAddr,
    /// The configured host, for the Host header and the certificate.
    pub(super) host: String,
    /// `Some` = https.
    pub(super) tls: Option<Arc<ClientTls>>,
    /// Path and expectations.
    pub(super) ask: HttpProbe,
}

/// Why there is no answer to judge.
enum Trouble {
    Connection(SessionError),
    /// The peer speaks no HTTP, or broke off.
    Exchange(hyper::Error),
}

/// One GET on a connection of its own.
pub(super) async fn probe(target: &HttpTarget, deadline: Instant) -> Verdict {
    match timeout_at(deadline, exchange(target)).await {
        Ok(Ok(true)) => Verdict::Answered(Box::new(Facts { role: role_of(&target.ask.path), ..Facts::default() })),
        Ok(Ok(false)) => Verdict::Failed(Failure::BadReply),
        Ok(Err(Trouble::Connection(error))) => classify::session(&error),
        Ok(Err(Trouble::Exchange(error))) => {
            tracing::debug!(address = %target.address, %error, "http probe");
            let garbled = error.is_parse() || error.is_parse_too_large();
            Verdict::Failed(if garbled { Failure::BadReply } else { Failure::Lost })
        }
        Err(_) => Verdict::Failed(Failure::TimedOut),
    }
}

async fn exchange(target: &HttpTarget) -> Result<bool, Trouble> {
    let channel = connect(target).await.map_err(Trouble::Connection)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(channel)).await.map_err(Trouble::Exchange)?;
    let request = request(target);
    let mut connection = pin!(connection);
    let mut ask = pin!(async {
        let response = sender.send_request(request).await?;
        as_expected(response, &target.ask).await
    });
    tokio::select! {
        biased;
        answer = &mut ask => answer,
        // A server that closes after its answer: the answer is all there.
        _ = &mut connection => ask.await,
    }
    .map_err(Trouble::Exchange)
}

async fn connect(target: &HttpTarget) -> Result<Channel, SessionError> {
    let mut step = Step::Connect;
    let opened = match &target.tls {
        Some(tls) => dial::https(target.address, &tls.name_for(&target.host), tls, &mut step).await,
        None => dial::plaintext(target.address, &mut step).await,
    };
    opened.map_err(|cause: Cause| SessionError { step, cause })
}

fn request(target: &HttpTarget) -> Request<Empty<Bytes>> {
    let host = match target.host.contains(':') {
        true => format!("[{}]:{}", target.host, target.address.port()),
        false => format!("{}:{}", target.host, target.address.port()),
    };
    let mut request = Request::new(Empty::new());
    // A path that is no URI was refused with the configuration; "/" would be a different question.
    *request.uri_mut() = target.ask.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Ok(host) = header::HeaderValue::from_str(&host) {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::USER_AGENT, header::HeaderValue::from_static("pgpivot"));
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    request
}

async fn as_expected(response: Response<Incoming>, ask: &HttpProbe) -> Result<bool, hyper::Error> {
    if !ask.expect_status.contains(&response.status().as_u16()) {
        return Ok(false);
    }
    let Some(wanted) = &ask.expect_body else {
        return Ok(true);
    };
    let mut body = response.into_body();
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            seen.extend_from_slice(&data[..data.len().min(MAX_BODY - seen.len())]);
        }
        if seen.len() >= MAX_BODY {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&seen).contains(wanted.as_str()))
}

/// Patroni's paths pass on one role only; any other path says nothing of the role.
fn role_of(path: &str) -> Role {
    match path.split('?').next().unwrap_or_default().trim_end_matches('/') {
        "/primary" | "/master" | "/leader" | "/read-write" => Role::Primary,
        "/replica" | "/secondary" => Role::Standby,
        _ => Role::Unknown,
    }
}
