//! Whose certificates are believed when the service is asked over TLS: this machine's CAs, or one
//! of the config's own.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config;
use crate::tls::provider;

/// The CAs, read once.
#[derive(Clone)]
pub struct Trust(TlsConnector);

/// Why no certificate could be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file of the config.
    #[error(
        "{} holds no CA certificate that can be used: {reason}; name the PEM file of the CA that \
         signed the sign-in service's certificate in [auth.forward] ca_root", path.display()
    )]
    CaRoot {
        /// `auth.forward.ca_root`.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no list of CAs on this machine, as in an empty container.
    #[error(
        "this machine has no CA certificates to know the sign-in service by; install the package \
         ca-certificates, or name the service's CA in [auth.forward] ca_root"
    )]
    NoneHere,
    /// rustls refused its terms.
    #[error("TLS towards the sign-in service cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl Trust {
    /// Reads the CAs; `None`: the service is asked in plain HTTP, or not at all. Reads files.
    ///
    /// # Errors
    /// When there is no CA to believe.
    pub fn read(config: Option<&config::ForwardAuth>) -> Result<Option<Self>, TrustError> {
        let Some(config) = config.filter(|config| config.tls) else {
            return Ok(None);
        };
        let roots = match &config.ca_root {
            Some(path) => roots_of(path)?,
            None => roots_here()?,
        };
        let mut terms = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        terms.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self(TlsConnector::from(Arc::new(terms)))))
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error: InvalidDnsNameError| io::Error::other(error))?;
        self.0.connect(name, stream).await
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

/// Whether a file can be `auth.forward.ca_root`.
///
/// # Errors
/// What is wrong with it.
pub fn check_ca_root(path: &Path) -> Result<(), TrustError> {
    roots_of(path).map(drop)
}

fn roots_of(path: &Path) -> Result<RootCertStore, TrustError> {
    let unusable = |reason: String| TrustError::CaRoot {
        path: path.to_owned(),
        reason,
    };
    // A pipe in its place must not block the start.
    let metadata = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
    if !metadata.is_file() {
        return Err(unusable("it is not a file".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(error.to_string()))?;
    for certificate in certificates {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable("there is no certificate in it".to_owned())),
        false => Ok(roots),
    }
}

/// Those of the operating system. Odd ones among them are passed over, as other programs do.
fn roots_here() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err(TrustError::NoneHere),
        false => Ok(roots),
    }
}
