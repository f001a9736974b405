//! One certificate chain with its key: loaded, checked, and what it says about itself.
//!
//! A [`Certificate`] exists only if a client could be served with it: it parses, the key belongs
//! to the leaf, and the dates hold, unless somebody wants it served whatever they are. What is merely
//! odd becomes a [`Warning`].

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::server::provider;
use super::{Facts, TlsError, Warning};

/// A chain and its key, fit to be served.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    facts: Arc<Facts>,
}

// === impl Certificate ===

impl Certificate {
    /// Reads and checks a PEM chain and its PEM key.
    ///
    /// # Errors
    /// Whatever keeps a client from being served with it.
    pub fn load(
        cert: &Path,
        key: &Path,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        Self::of_files(cert, key, provider)?.in_time(cert, now)
    }

    /// The same of a pair that is to be served whatever its dates are: a client that refuses it says
    /// why, and one that pins it does not look at them.
    ///
    /// # Errors
    /// As [`Certificate::load`], but for dates.
    pub fn load_at_any_time(
        cert: &Path,
        key: &Path,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let mut loaded = Self::of_files(cert, key, provider)?;
        let facts = Arc::make_mut(&mut loaded.facts);
        match facts.check_dates(cert, now) {
            Ok(()) => {}
            Err(TlsError::Expired { on, .. }) => facts.warnings.push(Warning::Expired { on }),
            Err(TlsError::NotYetValid { from, .. }) => {
                facts.warnings.push(Warning::NotYetValid { from });
            }
            Err(error) => return Err(error),
        }
        Ok(loaded)
    }

    fn of_files(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| TlsError::from_pem(cert, error))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey {
                path: key.to_owned(),
            },
            error => TlsError::from_pem(key, error),
        })?;
        Self::new(chain, private, [cert, key], provider)
    }

    /// The same from one text with both; `path` is what it is called.
    ///
    /// # Errors
    /// As [`Certificate::load`].
    pub(super) fn from_pem(
        pem: &[u8],
        path: &Path,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TlsError::from_pem(path, error))?;
        let private = PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::NoKey {
            path: path.to_owned(),
        })?;
        Self::new(chain, private, [path, path], provider)?.in_time(path, now)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        private: PrivateKeyDer<'static>,
        [cert, key]: [&Path; 2],
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let Some(leaf) = chain.first() else {
            return Err(TlsError::NoCertificate {
                path: cert.to_owned(),
            });
        };
        let mut facts = Facts::of(leaf, cert)?;
        facts.warnings.extend(chain_order(&chain));
        let key = certified(chain, private, provider, cert, key)?;
        Ok(Self {
            key: Arc::new(key),
            facts: Arc::new(facts),
        })
    }

    fn in_time(mut self, cert: &Path, now: SystemTime) -> Result<Self, TlsError> {
        Arc::make_mut(&mut self.facts).check_dates(cert, now)?;
        Ok(self)
    }

    /// Whether this pair can be served; and what speaks against its dates.
    ///
    /// # Errors
    /// As [`Certificate::load_at_any_time`].
    pub fn check(cert: &Path, key: &Path) -> Result<Result<(), TlsError>, TlsError> {
        let loaded = Self::of_files(cert, key, &provider())?;
        Ok(loaded.in_time(cert, SystemTime::now()).map(drop))
    }

    /// Checks a pair without a use for it; what it says about itself.
    ///
    /// # Errors
    /// As [`Certificate::load`].
    pub fn read(cert: &Path, key: &Path, now: SystemTime) -> Result<Facts, TlsError> {
        Self::load(cert, key, &provider(), now).map(|loaded| loaded.facts().clone())
    }

    /// The same of one that is served whatever its dates are.
    ///
    /// # Errors
    /// As [`Certificate::load_at_any_time`].
    pub fn read_at_any_time(cert: &Path, key: &Path, now: SystemTime) -> Result<Facts, TlsError> {
        let loaded = Self::load_at_any_time(cert, key, &provider(), now);
        loaded.map(|loaded| loaded.facts().clone())
    }

    /// What it says about itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    cert: &Path,
    key: &Path,
) -> Result<CertifiedKey, TlsError> {
    let unusable = |source| TlsError::Key {
        path: key.to_owned(),
        source,
    };
    let signer = provider
        .key_provider
        .load_private_key(private)
        .map_err(unusable)?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            cert: cert.to_owned(),
            key: key.to_owned(),
        }),
        Err(error) => Err(TlsError::Leaf {
            path: cert.to_owned(),
            reason: error.to_string(),
        }),
    }
}

fn chain_order(chain: &[CertificateDer<'_>]) -> Option<Warning> {
    let pairs = chain.iter().zip(chain.iter().skip(1)).enumerate();
    for (index, (issued, issuer)) in pairs {
        let (Ok((_, issued)), Ok((_, issuer))) = (
            X509Certificate::from_der(issued),
            X509Certificate::from_der(issuer),
        ) else {
            return Some(Warning::ChainOrder {
                position: index + 1,
            });
        };
        if issued.issuer().as_raw() != issuer.subject().as_raw() {
            return Some(Warning::ChainOrder {
                position: index + 1,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};
    use x509_parser::time::ASN1Time;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn pair(names: &[&str], from: i64, until: i64) -> (String, String) {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = ASN1Time::from_timestamp(from).unwrap().to_datetime();
        params.not_after = ASN1Time::from_timestamp(until).unwrap().to_datetime();
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn load(cert: &str, key: &str, now: u64) -> Result<Certificate, TlsError> {
        let dir = tempfile::tempdir().unwrap();
        let (cert_path, key_path) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(&cert_path, cert).unwrap();
        std::fs::write(&key_path, key).unwrap();
        Certificate::load(&cert_path, &key_path, &provider(), at(now))
    }

    const DAY: u64 = 24 * 3600;

    #[test]
    fn records_names_and_dates() {
        let (cert, key) = pair(
            &["Example.NET", "*.example.net", "127.0.0.1", "::1"],
            0,
            100 * 86400,
        );
        let loaded = load(&cert, &key, 1).unwrap();
        assert_eq!(
            loaded.facts().names,
            ["example.net", "*.example.net", "127.0.0.1", "::1"]
        );
        assert_eq!(loaded.facts().until(), "1970-04-11T00:00:00Z");
        assert_eq!(loaded.facts().warnings, []);
    }

    #[test]
    fn refuses_by_date_and_warns_before() {
        let (cert, key) = pair(&["a.example"], 1_000, 100 * 86400);
        let error = load(&cert, &key, 101 * DAY).unwrap_err().to_string();
        assert!(
            error.contains("expired on 1970-04-11T00:00:00Z; renew it"),
            "{error}"
        );
        let error = load(&cert, &key, 999).unwrap_err().to_string();
        assert!(
            error.contains("only valid from 1970-01-01T00:16:40Z"),
            "{error}"
        );
        let soon = load(&cert, &key, 90 * DAY).unwrap();
        assert_eq!(soon.facts().warnings.len(), 1);
        assert_eq!(
            soon.facts().warnings[0].to_string(),
            "expires on 1970-04-11T00:00:00Z"
        );
    }

    #[test]
    fn refuses_what_cannot_be_served() {
        let (cert, key) = pair(&["a.example"], 0, 100 * 86400);
        let (other, _) = pair(&["a.example"], 0, 100 * 86400);
        assert!(matches!(
            load(&other, &key, 1),
            Err(TlsError::Mismatch { .. })
        ));
        assert!(matches!(
            load("", &key, 1),
            Err(TlsError::NoCertificate { .. })
        ));
        assert!(matches!(
            load(&key, &key, 1),
            Err(TlsError::NoCertificate { .. })
        ));
        assert!(matches!(load(&cert, &cert, 1), Err(TlsError::NoKey { .. })));
        assert!(matches!(
            load(&cert[..200], &key, 1),
            Err(TlsError::Pem { .. })
        ));
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(load(junk, &key, 1), Err(TlsError::Leaf { .. })));
        let missing = Certificate::load(
            Path::new("/nowhere/c.pem"),
            Path::new("/nowhere/k.pem"),
            &provider(),
            at(1),
        );
        let error = missing.unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/c.pem") && error.contains("check the path"),
            "{error}"
        );
    }

    #[test]
    fn notices_an_odd_chain() {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "test CA");
        let root = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let (stranger, _) = pair(&["x.example"], 0, 100 * 86400);
        let now = 1_800_000_000;
        let good = load(&(leaf.pem() + &root.pem()), &key.serialize_pem(), now).unwrap();
        assert_eq!(good.facts().warnings, []);
        let odd = load(&(leaf.pem() + &stranger), &key.serialize_pem(), now).unwrap();
        assert_eq!(odd.facts().warnings, [Warning::ChainOrder { position: 1 }]);
    }
}
