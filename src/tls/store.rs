//! The certificates being served: chosen by name, swapped while connections live.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Certificate, Facts};

/// Holds the published certificates and answers every handshake from them.
///
/// Publishing swaps the whole set at once; a handshake sees the old set or the new one.
#[derive(Debug, Default)]
pub struct CertStore {
    current: ArcSwap<Directory>,
    /// Who publishes later than asked is held to it.
    generation: Mutex<Generation>,
}

/// Counts the configs whose certificates are published as they come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(u64);

/// One published set, indexed by name.
#[derive(Debug, Default)]
struct Directory {
    certificates: Vec<Certificate>,
    exact: HashMap<String, Vec<usize>>,
    /// By the part after `*.`; a wildcard stands for exactly one label (RFC 6125, 6.4.3).
    wildcard: HashMap<String, Vec<usize>>,
    /// Those for addresses: who connects to one sends no name (RFC 6066, 3).
    addressed: Vec<usize>,
}

// === impl CertStore ===

impl CertStore {
    /// A store that serves nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves these from the next handshake on; the first is the default.
    pub fn publish(&self, certificates: Vec<Certificate>) {
        self.current.store(Arc::new(Directory::new(certificates)));
    }

    /// Another config is wanted: what comes for an earlier one is not served any more.
    pub(super) fn turn(&self) -> Generation {
        let mut generation = self.generation();
        generation.0 += 1;
        *generation
    }

    /// [`Self::publish`], unless another config has been wanted since this one.
    pub(super) fn publish_for(&self, generation: Generation, certificates: Vec<Certificate>) {
        // Held, or another config could come in between.
        let current = self.generation();
        if *current == generation {
            self.publish(certificates);
        }
    }

    fn generation(&self) -> MutexGuard<'_, Generation> {
        self.generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is served, default first.
    pub fn facts(&self) -> Vec<Facts> {
        self.current
            .load()
            .certificates
            .iter()
            .map(|each| each.facts().clone())
            .collect()
    }

    pub(super) fn all(&self) -> Vec<Certificate> {
        self.current.load().certificates.clone()
    }

    /// Whether nothing is served yet.
    pub fn is_empty(&self) -> bool {
        self.current.load().certificates.is_empty()
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |each: &Certificate| {
            each.key()
                .key
                .choose_scheme(hello.signature_schemes())
                .is_some()
        };
        self.current
            .load()
            .choose(hello.server_name(), fits)
            .map(|each| Arc::clone(each.key()))
    }
}

// === impl Directory ===

impl Directory {
    fn new(certificates: Vec<Certificate>) -> Self {
        let mut directory = Self::default();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.facts().names {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut directory.wildcard, parent),
                    None => (&mut directory.exact, name.as_str()),
                };
                table.entry(name.to_owned()).or_default().push(index);
            }
            let names = &certificate.facts().names;
            if names.iter().any(|name| name.parse::<IpAddr>().is_ok()) {
                directory.addressed.push(index);
            }
        }
        directory.certificates = certificates;
        directory
    }

    /// The one for this name that `fits` the client's signature schemes; for no name one for an
    /// address, if there is any. For an unknown name the first one, so that a person sees a
    /// certificate to complain about.
    fn choose(
        &self,
        server_name: Option<&str>,
        fits: impl Fn(&Certificate) -> bool,
    ) -> Option<&Certificate> {
        let named = match server_name {
            Some(name) => self.named(&name.to_ascii_lowercase()),
            None => Some(&self.addressed),
        };
        let candidates = || {
            named
                .into_iter()
                .flatten()
                .filter_map(|at| self.certificates.get(*at))
        };
        candidates()
            .find(|each| fits(each))
            .or_else(|| candidates().next())
            .or_else(|| self.certificates.first())
    }

    fn named(&self, name: &str) -> Option<&Vec<usize>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.exact.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::server::provider;
    use std::time::SystemTime;

    fn certificate(names: &[&str]) -> Certificate {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Certificate::load(&cert, &key, &provider(), SystemTime::now()).unwrap()
    }

    fn first_name(directory: &Directory, server_name: Option<&str>) -> String {
        directory
            .choose(server_name, |_| true)
            .unwrap()
            .facts()
            .names[0]
            .clone()
    }

    #[test]
    fn chooses_by_name() {
        let directory = Directory::new(vec![
            certificate(&["default.example"]),
            certificate(&["*.a.example", "a.example"]),
            certificate(&["special.a.example"]),
        ]);
        for (asked, answered) in [
            (None, "default.example"),
            (Some("default.example"), "default.example"),
            (Some("unknown.example"), "default.example"),
            (Some("a.example"), "*.a.example"),
            (Some("x.a.example"), "*.a.example"),
            (Some("X.A.Example."), "*.a.example"),
            (Some("special.a.example"), "special.a.example"),
            (Some("y.x.a.example"), "default.example"),
            (Some("nodots"), "default.example"),
        ] {
            assert_eq!(first_name(&directory, asked), answered, "{asked:?}");
        }
    }

    #[test]
    fn who_sends_no_name_connects_to_an_address() {
        let (named, both) = (["a.example"], ["b.example", "192.0.2.7"]);
        let directory = Directory::new(vec![
            certificate(&named),
            certificate(&both),
            certificate(&["2001:db8::7"]),
        ]);
        assert_eq!(first_name(&directory, None), "b.example");
        assert_eq!(first_name(&directory, Some("c.example")), "a.example");
        let directory = Directory::new(vec![certificate(&named), certificate(&["2001:db8::7"])]);
        assert_eq!(first_name(&directory, None), "2001:db8::7");
    }

    #[test]
    fn prefers_what_the_client_can_verify_but_always_answers() {
        let directory = Directory::new(vec![
            certificate(&["a.example", "one"]),
            certificate(&["a.example", "two"]),
        ]);
        let second = directory.choose(Some("a.example"), |each| each.facts().names[1] == "two");
        assert_eq!(second.unwrap().facts().names[1], "two");
        let neither = directory.choose(Some("a.example"), |_| false);
        assert_eq!(neither.unwrap().facts().names[1], "one");
        assert!(Directory::default().choose(None, |_| true).is_none());
    }
}
