//! What is served under a name whose certificate is not there yet: it says so in its subject.

use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair};

use super::moment::Moment;
use crate::tls::server::provider;
use crate::tls::{Certificate, TlsError};

/// Where a person finds it named.
pub(crate) const SOURCE: &str = "self-signed, until the CA has issued one";
/// X.520: a common name has at most 64 characters.
const LONGEST: usize = 64;

/// A self-signed certificate for these names.
pub(super) fn make(names: &[String]) -> Result<Certificate, TlsError> {
    let pem = pem(names)?;
    let now = Moment::now().system();
    Certificate::from_pem(pem.as_bytes(), Path::new(SOURCE), &provider(), now)
}

/// The same as text, key first.
pub(super) fn pem(names: &[String]) -> Result<String, TlsError> {
    let failed = |source| TlsError::DevMake { source };
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    let subject = "holdline: certificate awaited from the CA";
    let name = names.first().map_or("", String::as_str);
    let with_name = format!("{subject}, {name}");
    let subject = if with_name.len() <= LONGEST {
        &with_name
    } else {
        subject
    };
    params.distinguished_name.push(DnType::CommonName, subject);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_is() {
        let names = ["a.example", "*.b.example", "192.0.2.1"].map(str::to_owned);
        let made = make(&names).unwrap();
        assert_eq!(made.facts().names, names);
        let subject = &made.facts().issuer;
        assert!(
            subject.contains("certificate awaited from the CA, a.example"),
            "{subject}"
        );
    }
}
