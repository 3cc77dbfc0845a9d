//! Both ends with TLS: servers that prove who they are, clients that verify the listener.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::super::proxy::{Client, LONG, SSL_REQUEST, Server};
use crate::net::certificates::Certificate;
use crate::net::channel::Channel;
use crate::net::dial;
use crate::net::terminate::{HandshakeError, Opening, ServerTls};
use crate::net::tls::ClientTls;

pub(super) const GSSENC_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

/// One end of a connection inside TLS.
pub(in crate::listener) struct Encrypted(pub(super) Channel);

impl Encrypted {
    /// As libpq does: asks first, verifies everything.
    pub(super) async fn ask(address: SocketAddr, listener: &Certificate) -> Self {
        Self::after(Client::connect(address).await, listener).await
    }

    /// On a connection that has spoken already.
    pub(super) async fn after(client: Client, listener: &Certificate) -> Self {
        let tls = ClientTls::build(&listener.trusted()).unwrap();
        Self(timeout(LONG, dial::encrypt(client.0, "localhost", &tls)).await.expect("no answer").unwrap())
    }

    /// Without asking, with or without naming the protocol.
    pub(super) async fn direct(address: SocketAddr, listener: &Certificate, named: bool) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(listener.identity.chain[0].clone()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        if named {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        Ok(Self(Channel::Tls(Box::new(stream.into()))))
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    pub(super) async fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        timeout(LONG, self.0.read_exact(&mut read)).await.expect("nothing came").unwrap();
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
    }

    /// Everything up to the end, however that came.
    pub(super) async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        let _ = timeout(LONG, self.0.read_to_end(&mut read)).await.expect("never closed");
        String::from_utf8_lossy(&read).into_owned()
    }

    pub(super) async fn expect_refusal(&mut self, sqlstate: &str) -> String {
        let text = self.rest().await;
        assert!(text.starts_with('E') && text.contains(&format!("SFATAL\0VFATAL\0C{sqlstate}\0")), "{text:?}");
        text
    }
}

/// A server that takes TLS.
pub(in crate::listener) struct Guarded {
    pub(in crate::listener) server: Server,
    pub(in crate::listener) certificate: Certificate,
}

impl Guarded {
    pub(super) async fn start() -> Self {
        Self { server: Server::start().await, certificate: Certificate::make() }
    }

    /// The next connection, once it is asked for TLS and has it.
    pub(super) async fn accept(&self) -> Encrypted {
        Encrypted(self.handshake().await.unwrap())
    }

    /// The next connection does not like its certificate.
    pub(super) async fn is_refused(&self) {
        if let Ok(channel) = self.handshake().await {
            let said = Encrypted(channel).rest().await;
            assert_eq!(said, "", "nothing is said to who is not trusted");
        }
    }

    async fn handshake(&self) -> Result<Channel, HandshakeError> {
        let mut client = self.server.accept().await;
        client.expect(SSL_REQUEST).await;
        client.send(b"S").await;
        let tls = ServerTls::build(&self.certificate.identity).unwrap();
        // With TLS 1.3 it is done before its client has made up its mind.
        timeout(LONG, tls.accept(client.0, Opening::Asked)).await.expect("no handshake")
    }
}
