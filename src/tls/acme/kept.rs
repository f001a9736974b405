//! One certificate that is kept: what is there of it, on disk and in memory.
//!
//! Waits for disks: only to be called where that holds nobody up.

mod names;
mod outlook;
mod trouble;
mod written;

use zeroize::Zeroizing;

pub(super) use self::names::{folder, same_names};
use self::outlook::lifetime;
pub(super) use self::outlook::{covers, is_valid};
pub(super) use self::trouble::{Cause, Troubles};
use super::history::{History, Outcome};
use super::import::{self, Found, Left};
use super::judge::judge_kept;
use super::moment::{HOUR, Moment};
use super::order::{Unfinished, unfinished_file};
use super::state::{StateDir, StateError};
use crate::config::Acme;
use crate::tls::Certificate;

/// No order takes half of it.
const ELSEWHERE_MOST: u64 = 12 * HOUR;

/// What is being done about it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Busy {
    No,
    /// What there is of it has not been looked for on disk yet.
    Reading,
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
    /// Of `certificate`, with its key: for a file that gets damaged.
    pem: Option<Zeroizing<Vec<u8>>>,
    /// Valid and in memory, but not on disk: that one failed.
    unsaved: Option<Zeroizing<Vec<u8>>>,
    /// Of the file that `certificate` came from.
    version: Option<(u64, u64, i64)>,
    /// Of a file that was refused because of the time: said once, looked at each time.
    untimely: Option<(u64, u64, i64)>,
    /// There may be a history, but it could not be read.
    unread: bool,
    /// What came of an order is not on disk: that one failed.
    unwritten: bool,
    /// The order that the certificate came from is on disk: until all that came of it is.
    unforgotten: bool,
    pub(super) history: History,
    pub(super) busy: Busy,
    /// Since when another instance has been seen to order.
    elsewhere: Option<Moment>,
    /// The CA is being asked when to renew.
    pub(super) asking: bool,
    /// That there is none has been logged.
    pub(super) missed: bool,
    /// Why the state directory cannot be used.
    pub(super) troubles: Troubles,
}

// === impl Kept ===

impl Kept {
    /// As it is on disk, or with another server.
    pub(super) fn open(names: &[String], state: &StateDir, acme: &Acme) -> Self {
        let mut kept = Self::new(names);
        kept.read(state, acme, &Left::default());
        kept
    }

    /// As it is on disk.
    pub(super) fn stored(names: &[String], state: &StateDir) -> Self {
        let mut kept = Self::new(names);
        kept.busy = Busy::No;
        kept.remember(state, Moment::now());
        kept.refresh(state);
        kept
    }

    /// Before anything is read.
    pub(super) fn new(names: &[String]) -> Self {
        Self {
            names: names.to_vec(),
            history: History::default(),
            folder: folder(names),
            certificate: None,
            pem: None,
            unsaved: None,
            version: None,
            untimely: None,
            unread: true,
            unwritten: false,
            unforgotten: false,
            busy: Busy::Reading,
            elsewhere: None,
            asking: false,
            missed: false,
            troubles: Troubles::default(),
        }
    }

    /// Takes what is on disk, or with another server.
    pub(super) fn read(&mut self, state: &StateDir, acme: &Acme, left: &Left) {
        self.busy = Busy::No;
        self.remember(state, Moment::now());
        if self.is_under_way() && state.is_locked(&self.order_lock()) {
            self.busy = Busy::Elsewhere;
        }
        self.refresh(state);
        if self.certificate.is_none()
            && let Some(found) = left.find(acme, &self.names, Moment::now().system())
        {
            self.take_over(found, state);
        } else if self.certificate.is_none() {
            for unreadable in import::unreadable(acme) {
                tracing::warn!(names = ?self.names, "{unreadable}; it is ordered instead");
            }
        }
    }

    /// What another server left. From then on it is as if it were ours: its CA is asked when to
    /// renew it, and told what replaces it.
    fn take_over(&mut self, found: Found, state: &StateDir) {
        let (names, from) = (&self.names, found.path.display());
        tracing::info!(?names, %from, ca = found.ca, "took over a certificate of another server");
        if !self.install(found.pem, state) {
            return;
        }
        let known = self.amend_history(state, Moment::now(), |history| history.issuer = found.ca);
        if let Err(error) = known {
            tracing::debug!(%error, "where a certificate came from is not kept");
        }
    }

    pub(super) fn file(&self) -> String {
        format!("{}/certificate.pem", self.folder)
    }

    /// Held by whoever orders it.
    pub(super) fn order_lock(&self) -> String {
        format!("{}/order.lock", self.folder)
    }

    /// Takes what is on disk if it is not what we have: another instance may have renewed it. Says
    /// whether something is served now that was not.
    pub(super) fn refresh(&mut self, state: &StateDir) -> bool {
        let version = state.version(&self.file());
        if version.is_some() && version == self.version {
            self.troubles.over(Cause::Certificate);
            return false;
        }
        let read = state.read(&self.file());
        self.see(Cause::Certificate, read.as_ref().err());
        let Ok(Some(pem)) = read else { return false };
        let path = state.path(&self.file());
        match judge_kept(&pem, &path, &self.names, Moment::now().system()) {
            Ok(certificate) => {
                (self.version, self.untimely) = (version, None);
                let from = lifetime(&certificate).from;
                if from > Moment::now() {
                    tracing::warn!(
                        names = ?self.names,
                        "this machine's clock must be wrong: the certificate is only valid from \
                         {from}. It is served all the same; nothing is ordered before the clock is \
                         right"
                    );
                }
                let sooner = self
                    .until()
                    .is_some_and(|ours| lifetime(&certificate).until < ours);
                if self.unsaved.is_some() && sooner {
                    return false;
                }
                self.certificate = Some(certificate);
                self.pem = Some(pem);
                self.unsaved = None;
                self.troubles.over(Cause::Unsaved);
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
                self.put_back(state);
                false
            }
        }
    }

    /// Writes what is in memory in the place of a file that is damaged or gone: it would be lost at the
    /// next start.
    fn put_back(&mut self, state: &StateDir) {
        if self.unsaved.is_some() || self.pem.is_none() {
            return;
        }
        // As one that could not be written in the first place.
        self.unsaved.clone_from(&self.pem);
        self.save(state);
        if self.unsaved.is_none() {
            tracing::info!(names = ?self.names, "what is served was written anew");
        }
    }

    /// Takes the certificate that an order has brought. What came of it is to be written down next; an
    /// end of this process before that is healed by what is left of the order.
    pub(super) fn issued(&mut self, ca: &str, pem: Zeroizing<Vec<u8>>, state: &StateDir) -> bool {
        self.history.finish(ca, Outcome::Issued);
        self.history.issuer = Some(ca.to_owned());
        self.history.renewal = None;
        self.history.asked = None;
        self.unwritten = true;
        self.install(pem, state)
    }

    /// Writes down what came of an order whose process did not live to do so. Only for whoever holds
    /// the order's lock.
    pub(super) fn recover(&mut self, state: &StateDir, now: Moment) {
        if !self.is_under_way() {
            return;
        }
        let file = unfinished_file(&self.folder);
        // One that cannot be read is met again by the next order.
        let Ok(Some(left)) = state.load_some::<Unfinished>(&file) else {
            return;
        };
        let there = state.read(&self.file());
        let arrived =
            there.is_ok_and(|pem| pem.is_some_and(|it| it.starts_with(left.key.as_bytes())));
        if !arrived && !left.asked_to_sign {
            return;
        }
        let recovered = self.amend_history(state, now, |history| {
            history.recover(&left.ca, left.since, arrived);
        });
        match recovered {
            Ok(()) if arrived => state.remove(&file),
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "what came of an order is not kept yet"),
        }
    }

    /// The order is of no more use once all that came of it is on disk.
    fn forget_order(&mut self, state: &StateDir) {
        if self.unforgotten && self.unsaved.is_none() && !self.unwritten {
            state.remove(&unfinished_file(&self.folder));
            self.unforgotten = false;
        }
    }

    /// Takes a new certificate and keeps it. One that cannot be written is served all the same.
    pub(super) fn install(&mut self, pem: Zeroizing<Vec<u8>>, state: &StateDir) -> bool {
        let path = state.path(&self.file());
        match judge_kept(&pem, &path, &self.names, Moment::now().system()) {
            Ok(certificate) => self.certificate = Some(certificate),
            Err(refused) => {
                tracing::error!(names = ?self.names, "a new certificate is not served: {refused}");
                return false;
            }
        }
        self.pem = Some(pem.clone());
        self.unsaved = Some(pem);
        self.unforgotten = true;
        self.save(state);
        true
    }

    /// Whether whoever comes after this process finds on disk what is served; what is not there is
    /// written. Why not, in words.
    pub(super) fn secure(&mut self, state: &StateDir) -> Result<(), String> {
        self.save(state);
        self.refresh(state);
        if !self.is_served(Moment::now()) {
            return Ok(());
        }
        let names = self.names.join(" ");
        let there = state.read(&self.file());
        let there =
            there.map_err(|error| format!("{names}: {error}; {}", error.remedy_to_look()))?;
        if there.is_none() {
            self.put_back(state);
        }
        match (&self.unsaved, self.troubles.first()) {
            (Some(_), Some(trouble)) => Err(format!("{names}: {}", trouble.reason)),
            _ => Ok(()),
        }
    }

    /// Whether what is served would be lost with this process.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Tries to write what could not be written before.
    pub(super) fn save(&mut self, state: &StateDir) {
        let Some(pem) = &self.unsaved else { return };
        match state.write(&self.file(), pem) {
            Ok(()) => {
                self.unsaved = None;
                self.troubles.over(Cause::Unsaved);
                self.version = state.version(&self.file());
                self.forget_order(state);
            }
            Err(error) => {
                let trouble = format!(
                    "{error}; {}. The certificate is served, but would be lost with this process",
                    error.remedy()
                );
                if self.troubles.met(Cause::Unsaved, &trouble, Moment::now()) {
                    tracing::error!(names = ?self.names, "{trouble}");
                }
            }
        }
    }

    /// Tells of an order of another process that lasts longer than any: it holds the lock, and nobody
    /// else can order.
    pub(super) fn watch_others(&mut self, state: &StateDir, now: Moment) {
        if self.busy != Busy::Elsewhere {
            self.elsewhere = None;
            return self.troubles.over(Cause::Elsewhere);
        }
        let since = *self.elsewhere.get_or_insert(now);
        if now.since(since) < ELSEWHERE_MOST {
            return;
        }
        let trouble = format!(
            "another process has held {} since {since}, and so nothing is ordered; see which one \
             (`lslocks` names it), and end it",
            state.path(&self.order_lock()).display()
        );
        if self.troubles.met(Cause::Elsewhere, &trouble, now) {
            tracing::error!(names = ?self.names, "{trouble}");
        }
    }

    /// What has come of something, for what is told.
    fn see(&mut self, cause: Cause, error: Option<&StateError>) {
        match error {
            None => self.troubles.over(cause),
            Some(error) => {
                let reason = format!("{error}; {}", error.remedy());
                self.troubles.met(cause, &reason, Moment::now());
            }
        }
    }
}

#[cfg(test)]
mod tests;
