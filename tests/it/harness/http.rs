//! One HTTP/1.1 request on a connection of its own.

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Status and body of the answer, or what went wrong.
pub async fn request(to: SocketAddr, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
    request_within(PATIENCE, to, method, path, body).await
}

/// As [`request`], with another patience.
pub async fn request_within(
    patience: Duration,
    to: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String), String> {
    let exchange = async {
        let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).map_err(|e| e.to_string())?;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        driver.abort();
        Ok((code, String::from_utf8_lossy(&bytes).into_owned()))
    };
    tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| Err(format!("{method} {path}: no answer")))
}
