//! What a CA may come and ask for while an order is under way, by HTTP and by TLS.
//!
//! Kept in memory, and in the state directory, so that each of several instances can answer: a load
//! balancer does not know which of them has ordered. Everything here is made by us; what a CA (or
//! anybody who pretends to be one) sends only chooses among it.

mod elsewhere;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::digest;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use self::elsewhere::Elsewhere;
use super::state::{StateDir, file_name};
use crate::config::Acme;
use crate::tls::server::provider;

/// Tokens are 43 characters in practice.
const LONGEST_TOKEN: usize = 256;
/// Certificates made for a CA's questions; a further one is made anew at each.
const MOST_MADE: usize = 64;

/// How a CA is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shown {
    /// `http-01`, by token.
    Http,
    /// `tls-alpn-01`, by name.
    Tls,
}

/// The answers that are ready. One for the whole program.
#[derive(Debug, Default)]
pub struct Challenges {
    /// Key authorizations (RFC 8555, 8.1).
    ready: Mutex<HashMap<(Shown, String), String>>,
    /// Where other instances leave theirs; `None` while ACME is not in use.
    shared: RwLock<Option<Arc<Elsewhere>>>,
    /// By key authorization.
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

/// Takes an answer back when it is dropped; not one that has taken its place, for two orders may be
/// asked for one name by TLS.
#[derive(Debug)]
pub(super) struct Presented {
    challenges: Arc<Challenges>,
    key: (Shown, String),
    key_authorization: String,
    /// Where it was left for other instances; that may be another place by now.
    left: Option<StateDir>,
}

impl Drop for Presented {
    fn drop(&mut self) {
        let ours = &self.key_authorization;
        let mut ready = lock(&self.challenges.ready);
        if ready.get(&self.key) == Some(ours) {
            ready.remove(&self.key);
        }
        drop(ready);
        let Some(state) = &self.left else { return };
        let path = path(&self.key);
        if let Ok(Some(answer)) = state.read(&path)
            && *answer == ours.as_bytes()
        {
            state.remove(&path);
        }
    }
}

// === impl Challenges ===

impl Challenges {
    /// Whether requests of CAs are to be expected at all.
    pub fn in_use(&self) -> bool {
        self.shared
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    pub(super) fn share(&self, acme: Option<&Acme>) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        *shared = acme.map(Elsewhere::of).map(Arc::new);
    }

    fn shared(&self) -> Option<Arc<Elsewhere>> {
        self.shared
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Answers from now on. Writes a file, and deletes it when what it returns is dropped: not for
    /// the middle of an async task.
    pub(super) fn present(
        self: &Arc<Self>,
        shown: Shown,
        asked: &str,
        key_authorization: &str,
    ) -> Presented {
        let key = (shown, asked.to_ascii_lowercase());
        let key = match shown {
            Shown::Http => (shown, asked.to_owned()),
            Shown::Tls => key,
        };
        lock(&self.ready).insert(key.clone(), key_authorization.to_owned());
        let left = self.shared().map(|shared| shared.state().clone());
        if let Some(state) = &left
            && let Err(error) = state.write(&path(&key), key_authorization.as_bytes())
        {
            tracing::debug!(%error, "other instances cannot answer this challenge");
        }
        Presented {
            challenges: Arc::clone(self),
            key,
            key_authorization: key_authorization.to_owned(),
            left,
        }
    }

    /// The key authorization for the token of an `http-01` challenge. Waits for a look at a disk if
    /// it is not ours.
    pub async fn http(&self, token: &str) -> Option<String> {
        match is_token(token) {
            true => self.find(&(Shown::Http, token.to_owned())).await,
            false => None,
        }
    }

    /// The certificate for a `tls-alpn-01` challenge (RFC 8737) of this name. Waits for a look at a
    /// disk if it is not ours, but one that may be another instance's.
    pub async fn tls(&self, server_name: &str) -> Option<Arc<CertifiedKey>> {
        let name = server_name.to_ascii_lowercase();
        let key_authorization = self.find(&(Shown::Tls, name.clone())).await?;
        if let Some(made) = lock(&self.made).get(&key_authorization) {
            return Some(Arc::clone(made));
        }
        let made = match certificate(&name, &key_authorization, &provider()) {
            Ok(made) => Arc::new(made),
            Err(error) => {
                tracing::warn!(name, error, "cannot make the certificate for a challenge");
                return None;
            }
        };
        let mut all = lock(&self.made);
        if all.len() >= MOST_MADE {
            all.clear();
        }
        all.insert(key_authorization, Arc::clone(&made));
        Some(made)
    }

    async fn find(&self, key: &(Shown, String)) -> Option<String> {
        let ours = lock(&self.ready).get(key).cloned();
        match ours {
            Some(ours) => Some(ours),
            None => self.shared()?.find(key).await,
        }
    }
}

// === impl Shown ===

impl Shown {
    fn folder(self) -> &'static str {
        match self {
            Self::Http => "challenges/http-01",
            Self::Tls => "challenges/tls-alpn-01",
        }
    }
}

/// Whether it is one (RFC 8555, 8.1): of harmless characters, and not without an end.
pub(super) fn is_token(token: &str) -> bool {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(harmless)
}

fn path((shown, asked): &(Shown, String)) -> String {
    format!("{}/{}", shown.folder(), file_name(asked))
}

/// The name by which a CA asks for an identifier in TLS: addresses have one as well (RFC 8738, 6).
pub(super) fn tls_name(identifier: &str) -> String {
    match identifier.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(v6)) => {
            let nibbles = v6.octets().into_iter().rev();
            let digits = nibbles.map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4));
            format!("{}ip6.arpa", digits.collect::<String>())
        }
        Err(_) => identifier.to_owned(),
    }
}

/// The other way round.
fn identifier_of(tls_name: &str) -> String {
    let v4 = || {
        let parts: Vec<u8> = tls_name
            .strip_suffix(".in-addr.arpa")?
            .split('.')
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        let [d, c, b, a] = <[u8; 4]>::try_from(parts).ok()?;
        Some(IpAddr::from([a, b, c, d]))
    };
    let v6 = || {
        let digits: Vec<u8> = tls_name
            .strip_suffix(".ip6.arpa")?
            .split('.')
            .map(|digit| {
                u8::from_str_radix(digit, 16)
                    .ok()
                    .filter(|digit| *digit < 16)
            })
            .collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .rev()
            .map(|pair| match pair {
                [low, high] => low | (high << 4),
                _ => 0,
            })
            .collect();
        Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?))
    };
    v4().or_else(v6)
        .map_or_else(|| tls_name.to_owned(), |address| address.to_string())
}

fn certificate(
    tls_name: &str,
    key_authorization: &str,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let hash = digest::digest(&digest::SHA256, key_authorization.as_bytes());
    let made = || {
        let mut params = CertificateParams::new(vec![identifier_of(tls_name)])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(hash.as_ref())];
        let key = KeyPair::generate()?;
        Ok::<_, rcgen::Error>((params.self_signed(&key)?.der().clone(), key.serialize_der()))
    };
    let (certificate, key) = made().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let signer = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate], signer))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::pin;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    #[test]
    fn addresses_have_names_in_tls() {
        for (identifier, name) in [
            ("a.example", "a.example"),
            ("192.0.2.7", "7.2.0.192.in-addr.arpa"),
            (
                "2001:db8::1",
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ] {
            assert_eq!(tls_name(identifier), name);
            assert_eq!(identifier_of(name), identifier);
        }
        for odd in ["1.2.3.in-addr.arpa", "g.ip6.arpa", "300.1.1.1.in-addr.arpa"] {
            assert_eq!(identifier_of(odd), odd);
        }
    }

    fn acme(state_dir: &Path) -> Acme {
        let names = ["a.example", "b.example", "192.0.2.7", "*.w.example"];
        Acme {
            certificates: names.map(|name| vec![name.to_owned()]).to_vec(),
            contact: Vec::new(),
            directories: Vec::new(),
            challenges: Vec::new(),
            dns: None,
            profile: None,
            eab: Vec::new(),
            ca_root: None,
            state_dir: state_dir.to_owned(),
            import: Vec::new(),
        }
    }

    fn instance(state_dir: &Path) -> Arc<Challenges> {
        let one = Arc::new(Challenges::default());
        one.share(Some(&acme(state_dir)));
        one
    }

    #[tokio::test]
    async fn an_answer_is_there_until_it_is_taken_back_for_every_instance() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Challenges::default().in_use());
        let (one, other) = (instance(dir.path()), instance(dir.path()));
        let http = one.present(Shown::Http, "to-Ken_1", "to-Ken_1.key");
        let tls = one.present(Shown::Tls, "A.example", "other.key");
        for each in [&one, &other] {
            assert_eq!(each.http("to-Ken_1").await.as_deref(), Some("to-Ken_1.key"));
            assert!(each.http("../http-01/to-Ken_1").await.is_none());
            assert!(each.http("").await.is_none());
            let certified = each.tls("a.Example").await.unwrap();
            let (_, parsed) = X509Certificate::from_der(&certified.cert[0]).unwrap();
            let san = parsed.subject_alternative_name().unwrap().unwrap();
            assert_eq!(san.value.general_names.len(), 1);
            let extension = parsed
                .extensions()
                .iter()
                .find(|each| each.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
                .unwrap();
            assert!(extension.critical);
            assert!(each.tls("b.example").await.is_none());
        }
        drop((http, tls));
        for each in [&one, &other] {
            assert!(each.http("to-Ken_1").await.is_none());
            assert!(each.tls("a.example").await.is_none());
        }
    }

    #[tokio::test]
    async fn an_answer_is_taken_back_where_it_was_left() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = instance(dir.path());
        let answer = one.present(Shown::Http, "token", "token.key");
        let file = dir.path().join("acme/challenges/http-01/token");
        assert!(file.exists());
        one.share(Some(&acme(other.path())));
        drop(answer);
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn an_answer_is_not_taken_back_with_the_one_whose_place_it_took() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (instance(dir.path()), instance(dir.path()));
        let before = one.present(Shown::Tls, "a.example", "before.key");
        let after = one.present(Shown::Tls, "a.example", "after.key");
        let expected = one.tls("a.example").await.unwrap();
        drop(before);
        assert_eq!(one.tls("a.example").await.unwrap().cert, expected.cert);
        assert!(other.tls("a.example").await.is_some());
        drop(after);
        assert!(one.tls("a.example").await.is_none() && other.tls("a.example").await.is_none());
    }

    #[test]
    fn no_thread_waits_for_a_disk_for_what_is_ours_or_nobodys() {
        // There is one such thread, and it is not to be had.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (free, held) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || held.recv());
        let dir = tempfile::tempdir().unwrap();
        let one = instance(dir.path());
        let _ours = one.present(Shown::Tls, "a.example", "token.key");
        let _token = one.present(Shown::Http, "token", "token.key");
        // As another would have left it, but for a name that nobody here has.
        std::fs::copy(
            dir.path().join("acme/challenges/tls-alpn-01/a.example"),
            dir.path().join("acme/challenges/tls-alpn-01/c.example"),
        )
        .unwrap();
        let quick = async {
            assert!(one.tls("a.example").await.is_some());
            assert!(one.tls("c.example").await.is_none());
            assert!(one.tls("*.w.example").await.is_none());
            assert!(one.http("not/a/token").await.is_none());
            one.http("token").await
        };
        runtime.block_on(async {
            // What may be another's is waited for, but not for ever.
            let mut foreign = pin!(one.http("foreign"));
            tokio::select! {
                biased;
                answer = &mut foreign => panic!("{answer:?} before what is at hand"),
                ours = quick => assert_eq!(ours.as_deref(), Some("token.key")),
            }
            assert_eq!(foreign.await, None);
        });
        drop(free);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_ask_the_disk_is_looked_at_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (instance(dir.path()), instance(dir.path()));
        let started = Instant::now();
        for _ in 0..11 {
            assert!(other.tls("b.example").await.is_none());
            assert!(other.http("token").await.is_none());
        }
        // 22 looks, with a pause before all but the first.
        assert!(started.elapsed() >= Duration::from_millis(21 * 200));
        let crowd = Instant::now();
        let mut asking = JoinSet::new();
        for index in 0..500 {
            let other = Arc::clone(&other);
            asking.spawn(async move { other.http(&format!("token-{index}")).await });
        }
        while let Some(answer) = asking.join_next().await {
            assert_eq!(answer.unwrap(), None);
        }
        assert!(crowd.elapsed() <= Duration::from_millis(2 * 200));
        // Nobody who has just asked in vain is in the way of a CA that comes now.
        for round in 0..5 {
            assert!(other.tls("b.example").await.is_none());
            let answer = one.present(Shown::Tls, "b.example", &format!("{round}.key"));
            assert!(other.tls("b.example").await.is_some(), "{round}");
            drop(answer);
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (instance(dir.path()), instance(dir.path()));
        let _ours = one.present(Shown::Http, "token", "token.key");
        let folder = dir.path().join("acme/challenges/http-01");
        std::fs::write(folder.join("long"), vec![b'x'; 2000]).unwrap();
        std::fs::write(folder.join("binary"), [0xff, 0xfe]).unwrap();
        std::fs::create_dir(folder.join("folder")).unwrap();
        for token in ["long", "binary", "folder"] {
            assert_eq!(other.http(token).await, None, "{token}");
        }
        assert_eq!(other.http("token").await.as_deref(), Some("token.key"));
    }
}
