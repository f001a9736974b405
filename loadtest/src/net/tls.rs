//! The TLS client: trusts one CA file, or (for a proxy with a throwaway certificate) anything.
//! Sessions are never resumed, so that every handshake costs the proxy what a new client costs.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;

/// Whose certificates are good enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Any certificate at all.
    Anyone,
    /// Those of the CAs in a PEM file.
    Ca(PathBuf),
}

/// Why there is no TLS client.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA file cannot be read.
    #[error("CA file {0}")]
    Ca(PathBuf, #[source] rustls_pki_types::pem::Error),
    /// The CA file holds no certificate.
    #[error("CA file {0} holds no certificate")]
    Empty(PathBuf),
    /// rustls refused.
    #[error(transparent)]
    Rustls(#[from] Error),
}

/// Builds a TLS client.
///
/// # Errors
/// When the CA file cannot be used.
pub fn connector(trust: &Trust) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAnyone(provider)))
            .with_no_client_auth(),
        Trust::Ca(file) => {
            let mut roots = RootCertStore::empty();
            let broken = |e| TlsError::Ca(file.clone(), e);
            for cert in CertificateDer::pem_file_iter(file).map_err(broken)? {
                roots.add(cert.map_err(broken)?)?;
            }
            if roots.is_empty() {
                return Err(TlsError::Empty(file.clone()));
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts every certificate, but still checks that its owner holds the key.
#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
