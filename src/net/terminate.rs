//! TLS of clients that ends here: a certificate of our own, TLS 1.2 and 1.3, no client certificates, nothing kept of a
//! session for a later one, as PostgreSQL has it.

use std::io;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::NoServerSessionStorage;

use super::channel::Channel;
use super::fault::Cause;
use crate::config::certificate::Identity;

/// The protocol's name in ALPN, which a client that begins with TLS must say.
const PROTOCOL: &[u8] = b"postgresql";

/// What a listener shows to its clients.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

/// How a client begins TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening<'a> {
    /// It asked first, and was told to go on.
    Asked,
    /// With TLS itself: these bytes of it are read already.
    Direct(&'a [u8]),
}

/// Why there is no TLS with a client.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// The client does not like us, or we cannot agree, or it is gone.
    #[error("no TLS with the client: {0}")]
    Failed(Cause),
    /// Who begins with TLS must say what it wants to speak in it.
    #[error("it began with TLS without naming the protocol postgresql in ALPN")]
    NoProtocol,
}

impl ServerTls {
    /// For this certificate.
    pub fn build(identity: &Identity) -> Result<Arc<Self>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let certificate = identity.chain.first().cloned().ok_or(rustls::Error::NoCertificatesPresented)?;
        Ok(Arc::new(Self { config: Arc::new(config), certificate }))
    }

    /// Whether a server showed the very certificate that we show.
    pub fn is_shown_by(&self, server: &Channel) -> bool {
        server.peer_certificate() == Some(&self.certificate)
    }

    /// The handshake; the caller owns the deadline. Not cancel safe: a cancelled handshake ends the connection.
    pub async fn accept(&self, client: TcpStream, opening: Opening<'_>) -> Result<Channel, HandshakeError> {
        let begun = match opening {
            Opening::Asked => &[],
            Opening::Direct(begun) => begun,
        };
        let mut told = Ok(());
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let stream = acceptor.accept_with(client, |session| told = feed(session, begun)).await;
        let stream = told.and(stream).map_err(|error| HandshakeError::Failed(error.into()))?;
        let named = stream.get_ref().1.alpn_protocol() == Some(PROTOCOL);
        if matches!(opening, Opening::Direct(_)) && !named {
            return Err(HandshakeError::NoProtocol);
        }
        Ok(Channel::Tls(Box::new(stream.into())))
    }
}

/// Gives a handshake what was read for it.
fn feed(session: &mut rustls::ServerConnection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        session.read_tls(&mut bytes)?;
        session.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
    Ok(())
}
