//! What clients may call us by: the names that a config's certificates are for.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::{CertificateSource, Config};
use crate::tls::Facts;

/// The names and addresses of `[acme] domains` or of the certificate files, wildcards as `*.name`.
/// Reads the files; one that cannot be read names nobody. None for a self-signed certificate: it is
/// for this machine.
#[must_use]
pub fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    match &config.tls.certificate {
        CertificateSource::Dev { .. } => {}
        CertificateSource::Acme => {
            let groups = config.acme.iter().flat_map(|acme| &acme.certificates);
            names.extend(groups.flatten().cloned());
        }
        CertificateSource::Files(pairs) => {
            for pair in pairs {
                let leaf = CertificateDer::pem_file_iter(&pair.cert).ok();
                let leaf = leaf.and_then(|mut chain| chain.next()?.ok());
                let facts = leaf.and_then(|leaf| Facts::of(&leaf, &pair.cert).ok());
                names.extend(facts.into_iter().flat_map(|facts| facts.names));
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}
