//! The client over TLS: who is trusted is talked to, who is not never sees the token.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, CertificateError, RootCertStore, ServerConfig};
use tokio_util::task::AbortOnDropHandle;

use super::{S, SECRET, settings, stream};
use crate::cockroach_cloud::{Cause, Client, Step, Trouble};

/// A server with a certificate of its own making for 127.0.0.1. It tells what it was sent, or nothing for a handshake
/// that came to nothing.
struct TlsServer {
    url: String,
    certificate: CertificateDer<'static>,
    heard: mpsc::UnboundedReceiver<Option<String>>,
    _task: AbortOnDropHandle<()>,
}

#[tokio::test]
async fn a_server_that_is_trusted_is_talked_to() {
    let mut server = TlsServer::start().await;
    let mut roots = RootCertStore::empty();
    roots.add(server.certificate.clone()).unwrap();
    let client = Client::build_trusting(&settings(&server.url), || Ok(roots)).unwrap();
    assert_eq!(client.stream(S).await.unwrap().value.id, S);
    let heard = server.heard.recv().await.unwrap().unwrap();
    assert!(heard.contains(&format!("authorization: Bearer {SECRET}")), "{heard}");
}

#[tokio::test]
async fn a_server_that_is_not_trusted_never_sees_the_token() {
    let mut server = TlsServer::start().await;
    let error = Client::build(&settings(&server.url)).unwrap().stream(S).await.unwrap_err();
    let cause = Cause::Certificate(CertificateError::UnknownIssuer);
    assert_eq!(error.trouble, Trouble::Unreachable { step: Step::Tls, cause });
    assert_eq!(error.tries, 1, "a certificate does not become better by asking again");
    assert!(error.to_string().contains("(agreeing on TLS): the certificate is not trusted"), "{error}");
    assert_eq!(server.heard.recv().await.unwrap(), None);
}

impl TlsServer {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = make_certificate(folder.path());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (tell, heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), tell));
        Self { url, certificate, heard, _task: AbortOnDropHandle::new(task) }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, tell: mpsc::UnboundedSender<Option<String>>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(mut tls) = acceptor.accept(tcp).await else {
            tell.send(None).unwrap();
            continue;
        };
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
            if tls.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                break;
            }
        }
        let heard = (!bytes.is_empty()).then(|| String::from_utf8(bytes).unwrap());
        tell.send(heard).unwrap();
        let body = stream("STARTING");
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = tls.write_all(reply.as_bytes()).await;
        let _ = tls.shutdown().await;
    }
}

fn make_certificate(folder: &Path) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut openssl = Command::new("/usr/bin/openssl");
    openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=api".split(' '));
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-keyout", "key.pem", "-out", "certificate.pem"]).current_dir(folder);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let certificate = CertificateDer::from_pem_file(folder.join("certificate.pem")).unwrap();
    (certificate, PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap())
}
