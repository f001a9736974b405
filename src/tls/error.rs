//! What can go wrong with certificates and keys: each error names the file and says what to do.

use std::io;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem;

/// Why TLS cannot be served as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {}: {source}; {}", path.display(), read_remedy(source))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{} is damaged: {}; expected PEM text (-----BEGIN ...-----)", path.display(), pem_words(source))]
    Pem {
        /// Which file.
        path: PathBuf,
        /// Where the parser stopped.
        source: pem::Error,
    },
    /// A certificate file without a certificate.
    #[error("no certificate in {}; expected PEM with -----BEGIN CERTIFICATE-----, leaf first", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// A key file without a usable key.
    #[error("no private key in {}; expected an unencrypted PEM key (-----BEGIN PRIVATE KEY-----)", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// A key that cannot be used for TLS.
    #[error("the key in {} cannot be used: {source}; use RSA (2048 bits or more), ECDSA P-256/P-384 or Ed25519", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The leaf certificate cannot be parsed.
    #[error("the first certificate in {} cannot be parsed: {reason}; issue it again", path.display())]
    Leaf {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("the key in {} does not belong to the first certificate in {}; check the pair, and that the leaf comes first", key.display(), cert.display())]
    Mismatch {
        /// The chain's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The leaf is no longer valid.
    #[error("the certificate in {} expired on {on}; renew it", path.display())]
    Expired {
        /// Which file.
        path: PathBuf,
        /// UTC, for people.
        on: String,
    },
    /// The leaf is not valid yet.
    #[error("the certificate in {} is only valid from {from}; check this machine's clock", path.display())]
    NotYetValid {
        /// Which file.
        path: PathBuf,
        /// UTC, for people.
        from: String,
    },
    /// No certificate at all is configured.
    #[error("no certificate is configured; name at least one pair under [tls] files")]
    Nothing,
    /// The development certificate cannot be kept where it should be.
    #[error("cannot keep the development certificate in {}: {source}; make that directory writable for this user, start holdline where it is, or use certificate = \"files\" under [tls]", dir.display())]
    DevDir {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The development certificate could not be made.
    #[error("cannot make a development certificate: {source}")]
    DevMake {
        /// Why.
        source: rcgen::Error,
    },
    /// The client CA cannot be used.
    #[error("the client CA in {} cannot be used: {reason}; expected the CA certificate(s) as PEM", path.display())]
    ClientCa {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// rustls refused the terms as a whole.
    #[error("TLS cannot be set up: {source}")]
    Setup {
        /// Why.
        source: rustls::Error,
    },
}

impl TlsError {
    pub(super) fn from_pem(path: &Path, source: pem::Error) -> Self {
        let path = path.to_owned();
        match source {
            pem::Error::Io(source) => Self::Read { path, source },
            source => Self::Pem { path, source },
        }
    }
}

/// Without what is in the file: it may be a part of a key.
fn pem_words(source: &pem::Error) -> &'static str {
    match source {
        pem::Error::MissingSectionEnd { .. } => {
            "it ends in the middle (a line -----END is missing)"
        }
        pem::Error::IllegalSectionStart { .. } => "a line that starts with -----BEGIN is not whole",
        pem::Error::Base64Decode(_) => "what is between -----BEGIN and -----END is not base64",
        pem::Error::SectionTooLarge => "it is too large",
        _ => "there is nothing in it that could be used",
    }
}

fn read_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => {
            "check the path (a relative one starts at the working directory)"
        }
        io::ErrorKind::PermissionDenied => "let the user that runs holdline read it",
        io::ErrorKind::IsADirectory => "name the file, not its directory",
        _ => "check the disk",
    }
}
