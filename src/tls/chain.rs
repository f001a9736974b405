//! One certificate chain with its key: loaded, checked, and what it says about itself.
//!
//! A [`Certificate`] exists only if a client could be served with it: it parses, the key belongs
//! to the leaf, and the dates hold. What is merely odd becomes a [`Warning`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use super::TlsError;

/// A leaf that ends sooner than this is worth a warning.
pub(super) const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// A chain and its key, fit to be served.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    facts: Arc<Facts>,
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The file it came from.
    pub source: String,
    /// DNS names (lower case, wildcards as `*.name`) and addresses it is valid for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// Oddities that do not keep it from being served.
    pub warnings: Vec<Warning>,
}

/// An oddity that does not keep a certificate from being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// It ends within two weeks.
    ExpiresSoon {
        /// UTC, for people.
        on: String,
    },
    /// It names no host, so that no client will accept it.
    NoNames,
    /// A certificate of the chain was not issued by the next one.
    ChainOrder {
        /// Counted from 1, as they stand in the file.
        position: usize,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExpiresSoon { on } => write!(f, "expires on {on}"),
            Self::NoNames => write!(f, "has no subject alternative name: clients will refuse it"),
            Self::ChainOrder { position } => write!(
                f,
                "certificate {position} of the chain was not issued by the one after it"
            ),
        }
    }
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
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| TlsError::from_pem(cert, error))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey {
                path: key.to_owned(),
            },
            error => TlsError::from_pem(key, error),
        })?;
        let Some(leaf) = chain.first() else {
            return Err(TlsError::NoCertificate {
                path: cert.to_owned(),
            });
        };
        let mut facts = Facts::of(leaf, cert)?;
        facts.check_dates(cert, now)?;
        facts.warnings.extend(chain_order(&chain));
        let key = certified(chain, private, provider, cert, key)?;
        Ok(Self {
            key: Arc::new(key),
            facts: Arc::new(facts),
        })
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

// === impl Facts ===

impl Facts {
    fn of(leaf: &CertificateDer<'_>, path: &Path) -> Result<Self, TlsError> {
        let damaged = |reason: String| TlsError::Leaf {
            path: path.to_owned(),
            reason,
        };
        let (_, x509) =
            X509Certificate::from_der(leaf).map_err(|error| damaged(error.to_string()))?;
        let names = x509
            .subject_alternative_name()
            .map_err(|error| damaged(error.to_string()))?
            .map(|san| {
                san.value
                    .general_names
                    .iter()
                    .filter_map(name)
                    .collect::<Vec<_>>()
            })
            .unwrap_or_default();
        let warnings = if names.is_empty() {
            vec![Warning::NoNames]
        } else {
            Vec::new()
        };
        Ok(Self {
            source: path.display().to_string(),
            names,
            issuer: x509.issuer().to_string(),
            not_before: moment(x509.validity().not_before),
            not_after: moment(x509.validity().not_after),
            warnings,
        })
    }

    fn check_dates(&mut self, path: &Path, now: SystemTime) -> Result<(), TlsError> {
        let path = path.to_owned();
        if now > self.not_after {
            return Err(TlsError::Expired {
                path,
                on: date(self.not_after),
            });
        }
        if now < self.not_before {
            return Err(TlsError::NotYetValid {
                path,
                from: date(self.not_before),
            });
        }
        if self.expires_within(EXPIRES_SOON, now) {
            self.warnings.push(Warning::ExpiresSoon {
                on: date(self.not_after),
            });
        }
        Ok(())
    }

    /// Whether it ends within `span` from `now`.
    pub fn expires_within(&self, span: Duration, now: SystemTime) -> bool {
        self.not_after
            .duration_since(now)
            .is_ok_and(|left| left < span)
            || now >= self.not_after
    }

    /// Valid until, in UTC and for people.
    pub fn until(&self) -> String {
        date(self.not_after)
    }
}

fn name(general: &GeneralName<'_>) -> Option<String> {
    match general {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
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

fn moment(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let span = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        UNIX_EPOCH.checked_sub(span)
    } else {
        UNIX_EPOCH.checked_add(span)
    };
    moment.unwrap_or(UNIX_EPOCH)
}

/// A moment in UTC to the minute, for people.
fn date(moment: SystemTime) -> String {
    let seconds = moment
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|span| i64::try_from(span.as_secs()).ok())
        .unwrap_or_default();
    ASN1Time::from_timestamp(seconds).map_or_else(
        |_| format!("second {seconds}"),
        |time| {
            let time = time.to_datetime();
            let (year, month, day) = time.to_calendar_date();
            let (hour, minute, _) = time.to_hms();
            format!(
                "{year:04}-{:02}-{day:02} {hour:02}:{minute:02} UTC",
                u8::from(month)
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::server::provider;
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
        assert_eq!(loaded.facts().until(), "1970-04-11 00:00 UTC");
        assert_eq!(loaded.facts().warnings, []);
    }

    #[test]
    fn refuses_by_date_and_warns_before() {
        let (cert, key) = pair(&["a.example"], 1_000, 100 * 86400);
        let error = load(&cert, &key, 101 * DAY).unwrap_err().to_string();
        assert!(
            error.contains("expired on 1970-04-11 00:00 UTC; renew it"),
            "{error}"
        );
        let error = load(&cert, &key, 999).unwrap_err().to_string();
        assert!(
            error.contains("only valid from 1970-01-01 00:16 UTC"),
            "{error}"
        );
        let soon = load(&cert, &key, 90 * DAY).unwrap();
        assert_eq!(soon.facts().warnings.len(), 1);
        assert_eq!(
            soon.facts().warnings[0].to_string(),
            "expires on 1970-04-11 00:00 UTC"
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
