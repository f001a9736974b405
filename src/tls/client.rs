//! TLS as a client meets it: takes whatever is served, and says what an ordinary client would
//! make of it. For looking at ourselves; nothing that is sent over it is protected by it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::server::provider;
use super::{Facts, TlsError};

/// Where systems keep the CAs that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a server has shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What its certificate says about itself.
    pub facts: Facts,
    chain: Vec<CertificateDer<'static>>,
}

/// What an ordinary client of this machine would say to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordinary {
    /// Nothing.
    Content,
    /// It would not connect: it knows no CA for it.
    UnknownIssuer,
    /// It would not connect, for another reason.
    Refuses(String),
    /// There is no list of CAs here.
    NoList,
}

/// Shakes hands, whatever certificate is shown.
///
/// # Errors
/// What the handshake failed with. The caller limits the time.
pub async fn greet<S>(
    stream: S,
    name: ServerName<'static>,
) -> std::io::Result<(TlsStream<S>, Shown)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let other = |error: Box<dyn std::error::Error + Send + Sync>| std::io::Error::other(error);
    let provider = provider();
    let taking = Arc::new(TakesAnything(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| other(error.into()))?
        .dangerous()
        .with_custom_certificate_verifier(taking)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Vec<_> = chain.iter().map(|each| each.clone().into_owned()).collect();
    let leaf = chain
        .first()
        .ok_or_else(|| other("no certificate was shown".into()))?;
    let facts = Facts::of(leaf, Path::new("the certificate shown"))
        .map_err(|error: TlsError| other(error.into()))?;
    Ok((stream, Shown { facts, chain }))
}

// === impl Shown ===

impl Shown {
    /// What an ordinary client would say that asked for the first name of the certificate. Reads
    /// the system's list of CAs: not for the middle of an async task.
    #[must_use]
    pub fn to_an_ordinary_client(&self, now: SystemTime) -> Ordinary {
        let Some(roots) = roots() else {
            return Ordinary::NoList;
        };
        self.against(roots, now)
    }

    fn against(&self, roots: RootCertStore, now: SystemTime) -> Ordinary {
        let name = self
            .facts
            .names
            .first()
            .map(|name| name.replacen('*', "any", 1));
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let (Some(name), Some((leaf, others))) = (name, self.chain.split_first()) else {
            return Ordinary::Refuses("it names no host".to_owned());
        };
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = UnixTime::since_unix_epoch(now);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verified = match verifier {
            Ok(verifier) => verifier.verify_server_cert(leaf, others, &name, &[], now),
            Err(_) => return Ordinary::NoList,
        };
        match verified {
            Ok(_) => Ordinary::Content,
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                Ordinary::UnknownIssuer
            }
            // A self-signed one that is no CA.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) => Ordinary::UnknownIssuer,
            Err(error) => Ordinary::Refuses(error.to_string()),
        }
    }
}

fn roots() -> Option<RootCertStore> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = BUNDLES.iter().map(PathBuf::from);
    let text = named
        .into_iter()
        .chain(known)
        .find_map(|path| fs::read(path).ok())?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
    let (taken, _) = roots.add_parsable_certificates(certificates);
    (taken > 0).then_some(roots)
}

struct TakesAnything(Arc<CryptoProvider>);

impl fmt::Debug for TakesAnything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakesAnything").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for TakesAnything {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    fn shown(der: &[u8]) -> Shown {
        let leaf = CertificateDer::from(der.to_vec());
        Shown {
            facts: Facts::of(&leaf, Path::new("test")).unwrap(),
            chain: vec![leaf],
        }
    }

    #[test]
    fn an_ordinary_client_wants_a_ca_that_it_knows() {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "a CA");
        let root = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["*.a.example".to_owned()]).unwrap();
        let signed = shown(leaf.signed_by(&key, &issuer).unwrap().der());
        let alone = shown(leaf.self_signed(&key).unwrap().der());
        let roots = || {
            let mut roots = RootCertStore::empty();
            roots.add(root.der().clone()).unwrap();
            roots
        };
        let now = SystemTime::now();
        assert_eq!(signed.against(roots(), now), Ordinary::Content);
        assert_eq!(alone.against(roots(), now), Ordinary::UnknownIssuer);
        let late = now + Duration::from_secs(3600 * 24 * 365 * 4000);
        assert!(matches!(
            signed.against(roots(), late),
            Ordinary::Refuses(_)
        ));
    }
}
