//! The terms on which TLS is spoken: versions, key exchange, ALPN, client certificates, resumption.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::acme::Challenges;
use super::{Authorities, CertStore, Certificate, Facts, TlsError, dev};
use crate::config::{self, CertificateSource, ClientCertificates, TlsVersion};

/// ALPN, most preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// What a CA asks for that wants to see a `tls-alpn-01` challenge (RFC 8737), and nothing else.
const CHALLENGE: &[u8] = b"acme-tls/1";

/// TLS towards clients as a whole: the terms and the certificates, both replaceable at run time.
#[derive(Debug)]
pub struct Tls {
    store: Arc<CertStore>,
    in_force: ArcSwap<InForce>,
    challenges: Arc<Challenges>,
    /// Towards a CA: no client has to show a certificate, and nothing is served. Copied for each.
    challenge_terms: ServerConfig,
}

/// The terms for clients, and the CAs that their certificates are held to by them.
#[derive(Debug)]
struct InForce {
    config: Arc<ServerConfig>,
    client_cas: Authorities,
}

/// Certificates and terms of another config, checked and not in force yet.
#[derive(Debug)]
pub struct Prepared {
    /// `None`: they come from a CA, and are published by themselves.
    certificates: Option<Vec<Certificate>>,
    terms: InForce,
}

// === impl Tls ===

impl Tls {
    /// Loads the certificates (making the development one if asked) and sets the terms.
    ///
    /// Reads files: not for the middle of an async task.
    ///
    /// # Errors
    /// Anything that keeps a client from being served; it names the file and the remedy.
    pub fn new(config: &config::Tls) -> Result<Self, TlsError> {
        let certificates = load(config, SystemTime::now())?;
        let store = Arc::new(CertStore::new());
        let terms = terms(config, Arc::clone(&store), None)?;
        publish(&store, certificates);
        Ok(Self {
            store,
            in_force: ArcSwap::from_pointee(terms),
            challenges: Arc::default(),
            challenge_terms: challenge_terms()?,
        })
    }

    /// Reads what a new config names, whole or not at all. Nothing changes yet.
    ///
    /// Reads files: not for the middle of an async task.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn prepare(&self, config: &config::Tls) -> Result<Prepared, TlsError> {
        let now = SystemTime::now();
        let certificates = load(config, now)?;
        for certificate in certificates.iter().flatten() {
            self.keeps_a_good_one(certificate.facts(), now)?;
        }
        let terms = terms(
            config,
            Arc::clone(&self.store),
            Some(&self.in_force.load().config),
        )?;
        Ok(Prepared {
            certificates,
            terms,
        })
    }

    /// What clients refuse takes no place of what they accept.
    fn keeps_a_good_one(&self, new: &Facts, now: SystemTime) -> Result<(), TlsError> {
        let in_time = |one: &Facts| one.in_time(Path::new(&one.source), now);
        let Err(untimely) = in_time(new) else {
            return Ok(());
        };
        let served = self.store.facts();
        let is_good = |old: &Facts| in_time(old).is_ok();
        let is_same = |old: &Facts| old.sha256 == new.sha256;
        let for_same = |old: &Facts| old.names.iter().any(|name| new.names.contains(name));
        let replaced = served.iter().any(|old| is_good(old) && for_same(old));
        match replaced && !served.iter().any(is_same) {
            true => Err(untimely),
            false => Ok(()),
        }
    }

    /// From the next handshake on. Open connections keep what they have, and the tickets that they
    /// were given stay good.
    pub fn apply(&self, prepared: Prepared) {
        publish(&self.store, prepared.certificates);
        self.in_force.store(Arc::new(prepared.terms));
    }

    /// The terms for a client that has said hello; `None` if nobody is to be answered so.
    pub fn terms(&self, hello: &ClientHello<'_>) -> Option<Terms> {
        let asked = || hello.alpn().into_iter().flatten();
        if asked().count() == 1 && asked().all(|protocol| protocol == CHALLENGE) {
            return self.challenges.in_use().then_some(Terms::Challenge);
        }
        let in_force = self.in_force.load();
        Some(Terms::Client(
            Arc::clone(&in_force.config),
            in_force.client_cas.clone(),
        ))
    }

    /// The terms for a CA that looks at a challenge, with what there is to be shown of this name.
    /// Waits for a disk if need be.
    pub async fn challenge_terms(&self, server_name: Option<&str>) -> Arc<ServerConfig> {
        let shown = match server_name {
            Some(name) => self.challenges.tls(name).await,
            None => None,
        };
        let mut terms = self.challenge_terms.clone();
        terms.cert_resolver = Arc::new(Only(shown));
        Arc::new(terms)
    }

    /// What CAs may ask for.
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Where certificates are published.
    pub fn store(&self) -> &Arc<CertStore> {
        &self.store
    }

    /// What is served, default first.
    pub fn certificates(&self) -> Vec<Facts> {
        self.store.facts()
    }
}

/// On which terms a handshake is finished.
#[derive(Debug, Clone)]
pub enum Terms {
    /// With a client, whose certificate is held to these CAs.
    Client(Arc<ServerConfig>, Authorities),
    /// With a CA that looks at a challenge, and hangs up then: see [`Tls::challenge_terms`].
    Challenge,
}

/// `None`: they come from elsewhere.
fn publish(store: &CertStore, certificates: Option<Vec<Certificate>>) {
    let Some(certificates) = certificates else {
        return;
    };
    let known = store.facts();
    for certificate in &certificates {
        let facts = certificate.facts();
        if known.contains(facts) {
            continue;
        }
        tracing::info!(source = %facts.source, names = ?facts.names, until = %facts.until(), sha256 = %facts.sha256, "serving certificate");
        for warning in &facts.warnings {
            tracing::warn!(source = %facts.source, "the certificate {warning}");
        }
    }
    store.publish(certificates);
}

/// `None`: the ACME side publishes them.
fn load(config: &config::Tls, now: SystemTime) -> Result<Option<Vec<Certificate>>, TlsError> {
    let provider = provider();
    match &config.certificate {
        CertificateSource::Acme => Ok(None),
        CertificateSource::Dev { dir } => Ok(Some(vec![dev::ensure(dir, &provider, now)?])),
        CertificateSource::Files(pairs) if pairs.is_empty() => Err(TlsError::Nothing),
        CertificateSource::Files(pairs) => pairs
            .iter()
            .map(|pair| Certificate::load_at_any_time(&pair.cert, &pair.key, &provider, now))
            .collect::<Result<_, _>>()
            .map(Some),
    }
}

/// aws-lc-rs, with the hybrid post-quantum key exchange preferred (`prefer-post-quantum`).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// `before`: the terms in force, whose tickets stay good.
fn terms(
    config: &config::Tls,
    store: Arc<CertStore>,
    before: Option<&ServerConfig>,
) -> Result<InForce, TlsError> {
    let setup = |source| TlsError::Setup { source };
    let provider = provider();
    let versions: &[&SupportedProtocolVersion] = match config.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(setup)?;
    let mut client_cas = Authorities::default();
    let mut terms = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = client_roots(path)?;
            client_cas = Authorities::of(&roots);
            let verifier = client_verifier(path, roots, config.client_certificates, provider)?;
            builder.with_client_cert_verifier(verifier)
        }
    }
    .with_cert_resolver(store);
    terms.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    resumption(&mut terms, config.client_ca.is_some(), before).map_err(setup)?;
    Ok(InForce {
        config: Arc::new(terms),
        client_cas,
    })
}

fn challenge_terms() -> Result<ServerConfig, TlsError> {
    let mut terms = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Setup { source })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Only(None)));
    terms.alpn_protocols = vec![CHALLENGE.to_vec()];
    terms.session_storage = Arc::new(NoServerSessionStorage {});
    terms.send_tls13_tickets = 0;
    Ok(terms)
}

/// Found before the handshake goes on.
#[derive(Debug)]
struct Only(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// Tickets only: the state of a resumable session is kept by its client, not by us. None at all
/// with client certificates, whose validity has to be looked at on every connection.
fn resumption(
    terms: &mut ServerConfig,
    client_certificates: bool,
    before: Option<&ServerConfig>,
) -> Result<(), rustls::Error> {
    terms.session_storage = Arc::new(NoServerSessionStorage {});
    if client_certificates {
        terms.send_tls13_tickets = 0;
    } else {
        terms.ticketer = match before.map(|before| &before.ticketer) {
            Some(ticketer) if ticketer.enabled() => Arc::clone(ticketer),
            _ => aws_lc_rs::Ticketer::new()?,
        };
        terms.send_tls13_tickets = 1;
    }
    Ok(())
}

/// The CAs in this file, if clients can be held to them.
///
/// # Errors
/// What is wrong with the file.
pub fn read_client_ca(path: &Path) -> Result<Authorities, TlsError> {
    let roots = client_roots(path)?;
    let authorities = Authorities::of(&roots);
    client_verifier(path, roots, ClientCertificates::Required, provider())?;
    Ok(authorities)
}

fn client_verifier(
    path: &Path,
    roots: RootCertStore,
    wanted: ClientCertificates,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = match wanted {
        ClientCertificates::Required => verifier,
        ClientCertificates::Optional => verifier.allow_unauthenticated(),
    };
    verifier.build().map_err(|error| TlsError::ClientCa {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn client_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::from_pem(path, error))?;
    for certificate in certificates {
        roots.add(certificate).map_err(|error| TlsError::ClientCa {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CertificateFiles;
    use crate::tls::Warning;
    use rustls::NamedGroup;

    #[test]
    fn post_quantum_comes_first() {
        assert_eq!(provider().kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn a_failed_reload_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config::Tls {
            certificate: CertificateSource::Dev {
                dir: dir.path().to_owned(),
            },
            min_version: TlsVersion::V1_2,
            client_ca: None,
            client_certificates: ClientCertificates::Required,
        };
        let tls = Tls::new(&config).unwrap();
        let before = tls.certificates();
        config.client_ca = Some(dir.path().join("key.pem"));
        let error = tls.prepare(&config).unwrap_err();
        assert!(matches!(error, TlsError::ClientCa { .. }), "{error}");
        config.certificate = CertificateSource::Files(Vec::new());
        assert!(matches!(tls.prepare(&config), Err(TlsError::Nothing)));
        assert_eq!(tls.certificates(), before);
    }

    #[test]
    fn what_has_expired_is_served_but_takes_no_place_of_what_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles {
            cert: dir.path().join("c.pem"),
            key: dir.path().join("k.pem"),
        };
        let put = |year: i32, name: &str| {
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = params.self_signed(&key).unwrap();
            std::fs::write(&files.cert, cert.pem()).unwrap();
            std::fs::write(&files.key, key.serialize_pem()).unwrap();
        };
        let config = config::Tls {
            certificate: CertificateSource::Files(vec![files.clone()]),
            min_version: TlsVersion::V1_2,
            client_ca: None,
            client_certificates: ClientCertificates::Required,
        };
        put(2002, "a.example");
        let tls = Tls::new(&config).unwrap();
        let warnings = || tls.certificates().remove(0).warnings;
        assert!(matches!(warnings()[..], [Warning::Expired { .. }]));
        // Whatever else changes, it stays.
        tls.apply(tls.prepare(&config).unwrap());
        put(4000, "a.example");
        tls.apply(tls.prepare(&config).unwrap());
        assert_eq!(warnings(), []);
        put(2002, "a.example");
        let error = tls.prepare(&config).unwrap_err();
        assert!(matches!(error, TlsError::Expired { .. }), "{error}");
        assert_eq!(warnings(), []);
        put(2002, "b.example");
        tls.apply(tls.prepare(&config).unwrap());
        assert!(matches!(warnings()[..], [Warning::Expired { .. }]));
    }
}
