//! What a certificate says about itself: names, issuer, dates, and what is odd about it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use super::TlsError;
use super::acme::Moment;

/// A leaf that ends sooner than this is worth a warning.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

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
    /// SHA-256 over the certificate, as `AB:CD:...`: what clients pin who know no CA for it.
    pub sha256: String,
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
    /// It has expired, so that no client will accept it.
    Expired {
        /// UTC, for people.
        on: String,
    },
    /// It is not valid yet, or the clock is wrong.
    NotYetValid {
        /// UTC, for people.
        from: String,
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
            Self::Expired { on } => write!(f, "expired on {on}: clients will refuse it; renew it"),
            Self::NotYetValid { from } => write!(
                f,
                "is only valid from {from}: clients will refuse it; check this machine's clock"
            ),
            Self::NoNames => write!(f, "has no subject alternative name: clients will refuse it"),
            Self::ChainOrder { position } => write!(
                f,
                "certificate {position} of the chain was not issued by the one after it"
            ),
        }
    }
}

// === impl Facts ===

impl Facts {
    /// Reads a certificate; `path` is what errors call it. Its dates are not looked at.
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub fn of(leaf: &CertificateDer<'_>, path: &Path) -> Result<Self, TlsError> {
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
            sha256: fingerprint(leaf),
            warnings,
        })
    }

    /// Whether clients accept its dates; `path` is what the error calls it.
    pub(super) fn in_time(&self, path: &Path, now: SystemTime) -> Result<(), TlsError> {
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
        Ok(())
    }

    /// The same, and a warning before it is over.
    pub(super) fn check_dates(&mut self, path: &Path, now: SystemTime) -> Result<(), TlsError> {
        self.in_time(path, now)?;
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

/// As `openssl x509 -fingerprint -sha256` prints it, and as clients read it.
fn fingerprint(leaf: &CertificateDer<'_>) -> String {
    let digest = digest(&SHA256, leaf);
    let bytes = digest.as_ref().iter().map(|byte| format!("{byte:02X}"));
    bytes.collect::<Vec<_>>().join(":")
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

/// A moment in UTC, as it is written everywhere else.
fn date(moment: SystemTime) -> String {
    Moment::from(moment).to_string()
}
