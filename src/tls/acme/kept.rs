//! One certificate that is kept: what is there of it, on disk and in memory, and what is done.
//!
//! Waits for disks: only to be called where that holds nobody up.

use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::ca::identifier;
use super::history::{Health, History, Outcome, Window};
use super::import;
use super::judge::judge;
use super::moment::Moment;
use super::plan::{Lifetime, Next, Situation, Why, next};
use super::state::{StateDir, StateError, file_name};
use super::status::{CertificateStatus, LastError, State};
use crate::config::{Acme, Directory};
use crate::tls::Certificate;

/// What is being done about it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Busy {
    No,
    /// At the CA of this name.
    Ordering(String),
    /// Another instance orders.
    Elsewhere,
}

/// One certificate.
pub(super) struct Kept {
    pub(super) names: Vec<String>,
    /// In the state directory.
    pub(super) folder: String,
    /// The one to be served, if it is good.
    pub(super) certificate: Option<Certificate>,
    /// Valid and in memory, but not on disk: that one failed.
    unsaved: Option<Zeroizing<Vec<u8>>>,
    /// Of the file that `certificate` came from.
    version: Option<(u64, u64, i64)>,
    /// Of a file that was refused because of the time: said once, looked at each time.
    untimely: Option<(u64, u64, i64)>,
    /// There may be a history, but it could not be read.
    unread: bool,
    pub(super) history: History,
    pub(super) busy: Busy,
    /// The CA is being asked when to renew.
    pub(super) asking: bool,
    /// The state directory cannot be used.
    pub(super) trouble: Option<String>,
}

// === impl Kept ===

impl Kept {
    /// As it is on disk, or with another server. `true`: there is something new to be written.
    pub(super) fn open(names: &[String], state: &StateDir, acme: &Acme) -> Self {
        let folder = folder(names);
        let mut kept = Self {
            names: names.to_vec(),
            history: History::default(),
            folder,
            certificate: None,
            unsaved: None,
            version: None,
            untimely: None,
            unread: true,
            busy: Busy::No,
            asking: false,
            trouble: None,
        };
        kept.remember(state, Moment::now());
        kept.refresh(state);
        if kept.certificate.is_none()
            && let Some((pem, path)) = import::find(&acme.import, names, SystemTime::now())
        {
            tracing::info!(?names, from = %path.display(), "took over a certificate of another server");
            kept.install(pem, state);
        }
        kept
    }

    fn file(&self) -> String {
        format!("{}/certificate.pem", self.folder)
    }

    /// Takes what is on disk if it is not what we have: another instance may have renewed it. Says
    /// whether something is served now that was not.
    pub(super) fn refresh(&mut self, state: &StateDir) -> bool {
        let version = state.version(&self.file());
        if version.is_some() && version == self.version {
            return false;
        }
        let pem = match state.read(&self.file()) {
            Ok(Some(pem)) => pem,
            Ok(None) => return false,
            Err(error) => {
                self.trouble = Some(format!("{error}; {}", error.remedy()));
                return false;
            }
        };
        let path = state.path(&self.file());
        match judge(&pem, &path, &self.names, SystemTime::now()) {
            Ok(certificate) => {
                (self.version, self.untimely) = (version, None);
                let sooner = self
                    .until()
                    .is_some_and(|ours| lifetime(&certificate).until < ours);
                if self.unsaved.is_some() && sooner {
                    return false;
                }
                self.certificate = Some(certificate);
                self.unsaved = None;
                true
            }
            Err(refused) if refused.is_about_time() => {
                // The clock may be put right, or the time come.
                if self.untimely != version {
                    tracing::warn!(names = ?self.names, "{refused}");
                }
                self.untimely = version;
                false
            }
            Err(refused) => {
                state.set_aside(&self.file(), &refused.to_string());
                self.version = None;
                false
            }
        }
    }

    /// Takes a new certificate and keeps it. One that cannot be written is served all the same.
    pub(super) fn install(&mut self, pem: Zeroizing<Vec<u8>>, state: &StateDir) -> bool {
        let path = state.path(&self.file());
        match judge(&pem, &path, &self.names, SystemTime::now()) {
            Ok(certificate) => self.certificate = Some(certificate),
            Err(refused) => {
                tracing::error!(names = ?self.names, "a new certificate is not served: {refused}");
                return false;
            }
        }
        self.unsaved = Some(pem);
        self.save(state);
        true
    }

    /// Tries to write what could not be written before.
    pub(super) fn save(&mut self, state: &StateDir) {
        let Some(pem) = &self.unsaved else { return };
        match state.write(&self.file(), pem) {
            Ok(()) => {
                self.unsaved = None;
                self.trouble = None;
                self.version = state.version(&self.file());
                state.remove(&format!("{}/order.json", self.folder));
            }
            Err(error) => {
                let trouble = format!(
                    "{error}; {}. The certificate is served, but would be lost with this process",
                    error.remedy()
                );
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(names = ?self.names, "{trouble}");
                }
                self.trouble = Some(trouble);
            }
        }
    }

    /// Writes down what we know. Only for whoever holds the order's lock: it is the newest then.
    pub(super) fn save_history(&self, state: &StateDir) -> Result<(), StateError> {
        let _lock = state.lock()?;
        state.save(&self.history_file(), &self.history)
    }

    /// Changes what is on disk, where another instance may have written since we looked.
    pub(super) fn amend_history(
        &mut self,
        state: &StateDir,
        now: Moment,
        change: impl FnOnce(&mut History),
    ) -> Result<(), StateError> {
        let lock = state.lock();
        let read = self.reload_history(state, now);
        change(&mut self.history);
        let _lock = lock?;
        read?;
        state.save(&self.history_file(), &self.history)
    }

    /// What another instance has written down since.
    pub(super) fn reload_history(
        &mut self,
        state: &StateDir,
        now: Moment,
    ) -> Result<(), StateError> {
        let read = state.load_some(&self.history_file());
        self.unread = read.is_err();
        if let Some(history) = read? {
            self.history = history;
        }
        self.history.settle(now);
        Ok(())
    }

    /// Reads the history if it is not known yet. One that cannot be read is told, and without it
    /// nothing is ordered.
    pub(super) fn remember(&mut self, state: &StateDir, now: Moment) {
        if !self.unread {
            return;
        }
        self.trouble = self
            .reload_history(state, now)
            .err()
            .map(|error| format!("{error}; {}", error.remedy()));
    }

    fn history_file(&self) -> String {
        format!("{}/history.json", self.folder)
    }

    // === what is there ===

    fn until(&self) -> Option<Moment> {
        self.certificate.as_ref().map(|it| lifetime(it).until)
    }

    /// Whether the certificate can be served now; one that has expired in the meantime cannot.
    pub(super) fn is_served(&self, now: Moment) -> bool {
        self.certificate
            .as_ref()
            .is_some_and(|it| !lifetime(it).is_over(now))
    }

    /// The CA's name for the certificate that is there.
    pub(super) fn identifier(&self) -> Option<instant_acme::CertificateIdentifier<'static>> {
        identifier(self.certificate.as_ref()?.key().cert.first()?)
    }

    fn window(&self) -> Option<Window> {
        let renewal = self.history.renewal.as_ref()?;
        let ours = self.identifier()?.to_string();
        renewal.window.filter(|_| renewal.certificate == ours)
    }

    fn seed(&self) -> u64 {
        let leaf = self
            .certificate
            .as_ref()
            .and_then(|it| it.key().cert.first());
        let bytes = leaf.map_or(self.folder.as_bytes(), AsRef::as_ref);
        let hash = digest::digest(&digest::SHA256, bytes);
        hash.as_ref()
            .iter()
            .take(8)
            .fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
    }

    // === what is to be done ===

    pub(super) fn next(&self, cas: &[(&str, &Health)], now: Moment) -> Next {
        let issuer = self.history.issuer.as_deref();
        next(&Situation {
            unwanted: issuer.is_some_and(|issuer| !cas.iter().any(|(ca, _)| *ca == issuer)),
            now,
            there: self.certificate.as_ref().map(lifetime),
            window: self.window(),
            history: &self.history,
            cas,
            seed: self.seed(),
        })
    }

    /// Failed orders for these names in a row, wherever.
    pub(super) fn failures(&self) -> usize {
        let outcomes = self.history.attempts.iter().rev();
        outcomes
            .take_while(|attempt| attempt.outcome != Outcome::Issued)
            .filter(|attempt| matches!(attempt.outcome, Outcome::Failed { .. }))
            .count()
    }

    pub(super) fn status(&self, next: Next, cas: &[Directory], now: Moment) -> CertificateStatus {
        let named = |url: &str| {
            let known = cas.iter().find(|ca| ca.url == url);
            known.map_or_else(|| url.to_owned(), |ca| ca.name.clone())
        };
        let last_error = match (&self.trouble, self.history.last_error()) {
            (Some(trouble), _) => Some(LastError {
                at: now,
                ca: String::new(),
                reason: trouble.clone(),
            }),
            (None, Some((attempt, reason))) => Some(LastError {
                at: attempt.at,
                ca: named(&attempt.ca),
                reason: reason.to_owned(),
            }),
            (None, None) => None,
        };
        let served = self.is_served(now);
        let (text, next_at) = match (&self.busy, next) {
            (Busy::Ordering(ca), _) => (format!("is being ordered at {ca}"), Some(now)),
            (Busy::Elsewhere, _) => ("another instance orders it now".to_owned(), Some(now)),
            (Busy::No, Next::Order(_)) if self.trouble.is_some() => (
                "is ordered as soon as the state directory can be used".to_owned(),
                None,
            ),
            (Busy::No, Next::Order(_)) => ("is ordered in a moment".to_owned(), Some(now)),
            (Busy::No, Next::Wait(at, Why::NotDue)) => (format!("is renewed on {at}"), Some(at)),
            (Busy::No, Next::Wait(at, Why::Pause)) => (format!("is tried again on {at}"), Some(at)),
        };
        CertificateStatus {
            names: self.names.clone(),
            state: if served {
                State::Served
            } else {
                State::Awaited
            },
            until: self.until(),
            issuer: self
                .certificate
                .as_ref()
                .map(|it| it.facts().issuer.clone()),
            next: text,
            next_at,
            failures: self.failures(),
            last_error,
        }
    }
}

fn lifetime(certificate: &Certificate) -> Lifetime {
    let facts = certificate.facts();
    Lifetime {
        from: facts.not_before.into(),
        until: facts.not_after.into(),
    }
}

/// Whether it is valid now.
pub(super) fn is_valid(certificate: &Certificate, now: Moment) -> bool {
    let lifetime = lifetime(certificate);
    lifetime.from <= now && !lifetime.is_over(now)
}

/// Whether a client that asks for `name` would take it. A wildcard stands for one label.
pub(super) fn covers(certificate: &Certificate, name: &str) -> bool {
    let wildcard = name
        .split_once('.')
        .map(|(_, parent)| format!("*.{parent}"));
    let names = &certificate.facts().names;
    names
        .iter()
        .any(|it| it == name || Some(it) == wildcard.as_ref())
}

/// The same names, in whatever order.
pub(super) fn same_names(one: &[String], other: &[String]) -> bool {
    sorted(one) == sorted(other)
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names
}

/// Where a certificate of these names is kept, in whatever order they stand.
pub(super) fn folder(names: &[String]) -> String {
    let names = &*sorted(names);
    let first = names.first().map_or("", String::as_str);
    let own = match names {
        [_] => file_name(first),
        names => {
            let hash = digest::digest(&digest::SHA256, names.join(" ").as_bytes());
            let short: String = hash
                .as_ref()
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{}-and-{}-more-{short}", file_name(first), names.len() - 1)
        }
    };
    Path::new("certificates").join(own).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acme::stand_in;

    fn acme() -> Acme {
        let text = "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example\"]\nimport = []";
        crate::config::parse(text, "t")
            .unwrap()
            .config
            .acme
            .unwrap()
    }

    #[test]
    fn what_cannot_be_written_is_served_and_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let names = ["a.example".to_owned()];
        let mut kept = Kept::open(&names, &state, &acme());
        assert!(kept.certificate.is_none());
        // Nothing can be put in the place of a folder.
        let file = state.path(&kept.file());
        std::fs::create_dir_all(file.join("in the way")).unwrap();
        let pem = stand_in::pem(&names).unwrap();
        assert!(kept.install(Zeroizing::new(pem.clone().into_bytes()), &state));
        assert!(kept.is_served(Moment::now()));
        assert!(kept.trouble.as_ref().unwrap().contains("would be lost"));
        std::fs::remove_dir_all(&file).unwrap();
        kept.save(&state);
        assert_eq!(
            (
                kept.trouble.as_deref(),
                std::fs::read_to_string(&file).unwrap()
            ),
            (None, pem)
        );
        assert!(!kept.refresh(&state), "that is what we have");
    }

    #[test]
    fn another_instances_certificate_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let names = ["a.example".to_owned()];
        let mut one = Kept::open(&names, &state, &acme());
        let mut other = Kept::open(&names, &state, &acme());
        let pem = stand_in::pem(&names).unwrap();
        assert!(one.install(Zeroizing::new(pem.into_bytes()), &state));
        assert!(other.refresh(&state) && !other.refresh(&state));
        assert_eq!(one.identifier(), other.identifier());
        assert!(other.is_served(Moment::now()));
    }

    #[test]
    fn what_another_instance_has_written_down_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let names = ["a.example".to_owned()];
        let (now, acme) = (Moment::now(), acme());
        let mut one = Kept::open(&names, &state, &acme);
        let mut other = Kept::open(&names, &state, &acme);
        one.history.start("https://ca.example/dir", now);
        one.save_history(&state).unwrap();
        let asked = other.amend_history(&state, now, |history| history.asked = Some(now));
        asked.unwrap();
        let third = Kept::open(&names, &state, &acme);
        assert_eq!(
            (third.history.attempts.len(), third.history.asked),
            (1, Some(now))
        );
    }

    #[test]
    fn a_folder_that_cannot_be_looked_into_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let names = ["a.example".to_owned()];
        // Even root cannot look into a file.
        std::fs::create_dir_all(state.path("certificates")).unwrap();
        std::fs::write(state.path("certificates/a.example"), "").unwrap();
        let kept = Kept::open(&names, &state, &acme());
        assert!(kept.trouble.unwrap().contains("certificates/a.example"));
    }

    #[test]
    fn what_was_refused_for_the_time_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let names = ["a.example".to_owned()];
        let now = time::OffsetDateTime::now_utc();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names.to_vec()).unwrap();
        params.not_before = now + time::Duration::seconds(3);
        params.not_after = now + time::Duration::hours(2);
        let pem = format!(
            "{}{}",
            key.serialize_pem(),
            params.self_signed(&key).unwrap().pem()
        );
        let file = format!("{}/certificate.pem", folder(&names));
        state.write(&file, pem.as_bytes()).unwrap();
        let mut kept = Kept::open(&names, &state, &acme());
        assert!(!kept.is_served(Moment::now()) && !kept.refresh(&state));
        let deadline = Moment::now().after(30);
        while !kept.refresh(&state) {
            assert!(Moment::now() < deadline, "never taken");
            std::thread::yield_now();
        }
        assert!(kept.is_served(Moment::now()) && !kept.refresh(&state));
    }

    #[test]
    fn a_history_that_cannot_be_read_is_told_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let names = ["a.example".to_owned()];
        // Even root cannot read a folder.
        let file = state.path("certificates/a.example/history.json");
        std::fs::create_dir_all(&file).unwrap();
        let mut kept = Kept::open(&names, &state, &acme());
        assert!(kept.trouble.as_ref().unwrap().contains("history.json"));
        kept.amend_history(&state, Moment::now(), |_| {})
            .unwrap_err();
        std::fs::remove_dir(&file).unwrap();
        kept.remember(&state, Moment::now());
        assert_eq!(kept.trouble, None);
    }

    #[test]
    fn folders_are_readable_and_no_two_alike() {
        let of =
            |names: &[&str]| folder(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["*.a.example"]), "certificates/_.a.example");
        assert!(of(&["a.example", "b.example"]).starts_with("certificates/a.example-and-1-more-"));
        assert_eq!(
            of(&["b.example", "a.example"]),
            of(&["a.example", "b.example"])
        );
        assert_ne!(
            of(&["a.example", "b.example"]),
            of(&["a.example", "c.example"])
        );
    }
}
