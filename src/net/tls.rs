//! TLS of our own connections, with the modes of libpq's `sslmode`. That of clients passes through, or is
//! `terminate`'s.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::{TlsConnector, TlsStream};

use super::fault::Cause;
use crate::config::{Tls, TlsMode};

/// The TLS settings of one backend, ready to dial with.
#[derive(Debug)]
pub struct ClientTls {
    mode: TlsMode,
    server_name: Option<String>,
    config: Option<Arc<ClientConfig>>,
}

/// Why TLS settings cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsConfigError {
    /// The bundle cannot be read.
    #[error("ca_file {path:?} cannot be read: {kind}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The bundle is not PEM, or has no usable certificate.
    #[error("ca_file {path:?} holds no usable certificate in PEM form")]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// Verification is asked for and this system has no roots.
    #[error("this system has no root certificates; set ca_file")]
    NoRoots,
    /// The cryptography does not fit together.
    #[error(transparent)]
    Provider(#[from] rustls::Error),
}

impl ClientTls {
    /// Reads the roots and builds the client's settings. As with libpq, `require` with a `ca_file` checks the chain.
    pub fn build(tls: &Tls) -> Result<Arc<Self>, TlsConfigError> {
        let depth = match (tls.mode, &tls.ca_file) {
            (TlsMode::Disable, _) => None,
            (TlsMode::Prefer, _) | (TlsMode::Require, None) => Some(Depth::Nothing),
            (TlsMode::Require, Some(_)) | (TlsMode::VerifyCa, _) => Some(Depth::Chain),
            (TlsMode::VerifyFull, _) => Some(Depth::ChainAndName),
        };
        let config = depth.map(|depth| client_config(tls, depth)).transpose()?;
        Ok(Arc::new(Self { mode: tls.mode, server_name: tls.server_name.clone(), config }))
    }

    /// The mode it was built with.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// The name to verify for an address whose configured host is `host`.
    pub fn name_for(&self, host: &str) -> String {
        self.server_name.clone().unwrap_or_else(|| host.to_owned())
    }

    /// The handshake on a connection that both sides agreed to encrypt. Not cancel safe: a cancelled handshake leaves
    /// the connection unusable.
    pub(super) async fn handshake(&self, stream: TcpStream, name: &str) -> Result<Box<TlsStream<TcpStream>>, Cause> {
        let Some(config) = &self.config else {
            return Err(Cause::NoTls);
        };
        let name = match ServerName::try_from(name.to_owned()) {
            Ok(name) => name,
            Err(_) if self.mode == TlsMode::VerifyFull => {
                return Err(Cause::Certificate(rustls::CertificateError::NotValidForName));
            }
            Err(_) => ServerName::from(stream.peer_addr()?.ip()),
        };
        Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?.into()))
    }
}

/// How much of a certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Nothing,
    Chain,
    ChainAndName,
}

fn client_config(tls: &Tls, depth: Depth) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trusted = if depth == Depth::Nothing { Trusted::nothing() } else { Trusted::load(tls)? };
    let verifier = Verifier { provider: Arc::clone(&provider), trusted, depth };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What certificates are trusted: authorities, and (from a `ca_file`) certificates taken as they are.
#[derive(Debug)]
struct Trusted {
    roots: RootCertStore,
    pinned: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn nothing() -> Self {
        Self { roots: RootCertStore::empty(), pinned: Vec::new() }
    }

    fn load(tls: &Tls) -> Result<Self, TlsConfigError> {
        let Some(path) = &tls.ca_file else {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if roots.is_empty() { Err(TlsConfigError::NoRoots) } else { Ok(Self { roots, pinned: vec![] }) };
        };
        let text = std::fs::read(path)
            .map_err(|error| TlsConfigError::Unreadable { path: path.clone(), kind: error.kind() })?;
        let pinned: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsConfigError::NoCertificate { path: path.clone() })?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(pinned.iter().cloned());
        if added == 0 {
            return Err(TlsConfigError::NoCertificate { path: path.clone() });
        }
        Ok(Self { roots, pinned })
    }
}

/// Checks as much as the mode demands. A certificate that stands itself in the `ca_file` is trusted as it is, as
/// self-signed server certificates are by OpenSSL.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trusted: Trusted,
    depth: Depth,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.depth == Depth::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if !self.trusted.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.trusted.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.depth == Depth::ChainAndName {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Unchecked certificates may be of a kind (X.509 v1) that cannot even be parsed; nothing is proven either way.
        if self.depth == Depth::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.depth == Depth::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
