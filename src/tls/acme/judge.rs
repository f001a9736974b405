//! Whether a new certificate may replace the one that is served.
//!
//! Whatever came from a CA is doubted: it has to parse, belong to its key, hold every name, be valid
//! now, and our own TLS client has to finish a handshake with it under every name. What fails here
//! never reaches a client.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls::server::provider;
use crate::tls::{Certificate, Facts, TlsError};

/// Flights of a handshake, both ways; TLS 1.3 needs three.
const MOST_FLIGHTS: usize = 10;

/// Why a certificate is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the certificate is not for {0}")]
    Name(String),
    #[error("a client would refuse the certificate for {name}: {error}")]
    Client { name: String, error: rustls::Error },
    #[error("the handshake with it does not end")]
    Endless,
}

impl Refused {
    /// Whether it may be our clock that is wrong, and not the certificate.
    pub(super) fn is_about_time(&self) -> bool {
        matches!(
            self,
            Self::Tls(TlsError::Expired { .. } | TlsError::NotYetValid { .. })
        )
    }
}

/// The certificate in `pem` (key and chain), if it may be served for `names`.
pub(super) fn judge(
    pem: &[u8],
    path: &Path,
    names: &[String],
    now: SystemTime,
) -> Result<Certificate, Refused> {
    let certificate = Certificate::from_pem(pem, path, &provider(), now)?;
    let missing = names
        .iter()
        .find(|name| !certificate.facts().names.contains(name));
    if let Some(name) = missing {
        return Err(Refused::Name(name.clone()));
    }
    for name in names {
        try_as_client(certificate.key(), name, now)?;
    }
    Ok(certificate)
}

/// [`judge`] for one that was taken before. It was valid then, so that where it is not yet, this
/// machine has lost the time, as one without a battery does when it starts. Clients go by their own
/// clocks, and have to be served before ours is right.
pub(super) fn judge_kept(
    pem: &[u8],
    path: &Path,
    names: &[String],
    now: SystemTime,
) -> Result<Certificate, Refused> {
    let leaf = CertificateDer::from_pem_slice(pem).ok();
    let facts = leaf.and_then(|leaf| Facts::of(&leaf, path).ok());
    let since = facts.map_or(now, |facts| facts.not_before.max(now));
    judge(pem, path, names, since)
}

/// A handshake in memory. What the chain ends in is trusted: which roots clients have is theirs to
/// know.
fn try_as_client(key: &Arc<CertifiedKey>, name: &str, now: SystemTime) -> Result<(), Refused> {
    let client = |error| Refused::Client {
        name: name.to_owned(),
        error,
    };
    let (Some(top), true) = (key.cert.last(), key.cert.len() > 1) else {
        // Straight from a root that it does not name: there is no path to walk.
        return Ok(());
    };
    let mut roots = RootCertStore::empty();
    roots.add(top.clone()).map_err(client)?;
    // A wildcard stands for any one label.
    let host = name
        .strip_prefix("*.")
        .map_or_else(|| name.to_owned(), |it| format!("x.{it}"));
    let host = ServerName::try_from(host).map_err(|_| Refused::Name(name.to_owned()))?;
    let config = ClientConfig::builder_with_details(provider(), Arc::new(At(now)))
        .with_safe_default_protocol_versions()
        .map_err(client)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut asks = ClientConnection::new(Arc::new(config), host).map_err(client)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(client)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Only(Arc::clone(key))));
    let mut answers = ServerConnection::new(Arc::new(config)).map_err(client)?;
    for _ in 0..MOST_FLIGHTS {
        let mut flight = Vec::new();
        while asks.wants_write() {
            asks.write_tls(&mut flight).map_err(|_| Refused::Endless)?;
        }
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            answers.read_tls(&mut rest).map_err(|_| Refused::Endless)?;
            answers.process_new_packets().map_err(client)?;
        }
        let mut flight = Vec::new();
        while answers.wants_write() {
            answers
                .write_tls(&mut flight)
                .map_err(|_| Refused::Endless)?;
        }
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            asks.read_tls(&mut rest).map_err(|_| Refused::Endless)?;
            asks.process_new_packets().map_err(client)?;
        }
        if !asks.is_handshaking() && !answers.is_handshaking() {
            return Ok(());
        }
    }
    Err(Refused::Endless)
}

/// A clock that stands.
#[derive(Debug)]
struct At(SystemTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH);
        since.ok().map(UnixTime::since_unix_epoch)
    }
}

/// Serves this one, whoever asks.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
    };

    fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, name);
        let pem = ca.self_signed(&key).unwrap().pem();
        (pem, Issuer::new(ca, key))
    }

    fn leaf(names: &[&str], issuer: &Issuer<'static, KeyPair>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let params = CertificateParams::new(names).unwrap();
        (
            params.signed_by(&key, issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    fn check(pem: &str, names: &[&str]) -> Result<Certificate, Refused> {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        judge(
            pem.as_bytes(),
            Path::new("new.pem"),
            &names,
            SystemTime::now(),
        )
    }

    #[test]
    fn only_what_a_client_takes_is_served() {
        let (ca, issuer) = authority("one");
        let (stranger, _) = authority("one");
        let names = ["a.example", "*.a.example", "192.0.2.1"];
        let (cert, key) = leaf(&names, &issuer);
        let whole = format!("{key}{cert}{ca}");
        check(&whole, &names).unwrap();
        let error = check(&whole, &["b.example"]).unwrap_err().to_string();
        assert_eq!(error, "the certificate is not for b.example");
        let (_, other) = leaf(&names, &issuer);
        let error = check(&format!("{other}{cert}{ca}"), &names).unwrap_err();
        assert!(error.to_string().contains("does not belong"), "{error}");
        let error = check(&format!("{key}{cert}{stranger}"), &names).unwrap_err();
        assert!(matches!(error, Refused::Client { .. }), "{error}");
        assert!(check(&cert, &names).is_err() && check("", &names).is_err());
        // Half a file.
        assert!(check(&whole[..whole.len() / 2], &names).is_err());
    }

    #[test]
    fn what_was_taken_before_is_still_good_where_the_clock_has_gone_back() {
        let (ca, issuer) = authority("one");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let (from, until) = (date_time_ymd(2026, 3, 1), date_time_ymd(2026, 5, 30));
        (params.not_before, params.not_after) = (from, until);
        let leaf = params.signed_by(&key, &issuer).unwrap().pem();
        let pem = format!("{}{leaf}{ca}", key.serialize_pem());
        let names = ["a.example".to_owned()];
        let at = |judge: Judge, (year, month)| {
            let now = SystemTime::from(date_time_ymd(year, month, 2));
            judge(pem.as_bytes(), Path::new("kept.pem"), &names, now)
        };
        type Judge = fn(&[u8], &Path, &[String], SystemTime) -> Result<Certificate, Refused>;
        for then in [(1970, 1), (2026, 2), (2026, 4)] {
            let kept = at(judge_kept, then).unwrap();
            assert_eq!(kept.facts().not_before, SystemTime::from(from));
        }
        assert!(at(judge, (2026, 2)).unwrap_err().is_about_time());
        assert!(at(judge_kept, (2026, 6)).unwrap_err().is_about_time());
    }
}
