//! All certificates together: what is on disk, what is served, and what is to be started.
//!
//! Owned by the keeper's task, which lends it to a thread that may wait for disks. Decides by `plan`,
//! starts nothing itself.

use std::collections::HashMap;
use std::sync::Arc;

use instant_acme::CertificateIdentifier;
use zeroize::Zeroizing;

use super::ca::health_file;
use super::challenge::Challenges;
use super::history::{Concerns, Health, Outcome, Renewal};
use super::kept::{Busy, Kept};
use super::moment::{HOUR, Moment};
use super::order::Job;
use super::plan::Next;
use super::problem::Failure;
use super::stand_in;
use super::state::{Locked, StateDir};
use super::status::CertificateStatus;
use crate::config::Acme;
use crate::tls::{CertStore, Certificate};

/// Orders at a time; a CA has its limits, and a hook may not bear more.
const ORDERS: usize = 4;
/// How long another instance is left to its order before it is looked after again.
const ELSEWHERE: u64 = 5;
/// Clocks are set and machines sleep: whatever is planned is looked at again this often.
const LOOK_EVERY: u64 = 60;
/// After a failure to ask when to renew.
const ASK_AGAIN: u64 = HOUR;

/// What is to be started.
pub(super) enum Start {
    Order(Box<Job>, Locked),
    /// Ask this CA when it wants this certificate renewed.
    Renewal {
        folder: String,
        ca: String,
        certificate: String,
        acme: Arc<Acme>,
    },
}

/// What has come of it.
pub(super) enum Done {
    Order {
        folder: String,
        ca: String,
        result: Result<Zeroizing<Vec<u8>>, Failure>,
        lock: Locked,
    },
    Renewal {
        folder: String,
        certificate: String,
        result: Result<Renewal, Failure>,
    },
}

/// The certificates of one config.
pub(super) struct Desk {
    store: Arc<CertStore>,
    challenges: Arc<Challenges>,
    acme: Option<Arc<Acme>>,
    kept: Vec<Kept>,
    health: HashMap<String, Health>,
    /// Served before ACME was turned on: until there is something better.
    before: Vec<Certificate>,
    stand_ins: HashMap<String, Certificate>,
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(store: Arc<CertStore>, challenges: Arc<Challenges>) -> Self {
        Self {
            store,
            challenges,
            acme: None,
            kept: Vec::new(),
            health: HashMap::new(),
            before: Vec::new(),
            stand_ins: HashMap::new(),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.acme.is_some()
    }

    fn state(&self) -> Option<StateDir> {
        self.acme
            .as_ref()
            .map(|acme| StateDir::new(&acme.state_dir))
    }

    /// Keeps these certificates from now on, and serves what there is of them.
    pub(super) fn configure(&mut self, acme: Option<Acme>) {
        let Some(acme) = acme else {
            self.challenges.share(None);
            self.acme = None;
            self.kept.clear();
            return;
        };
        if self.acme.is_none() {
            self.before = self.store.all();
        }
        let moved = self
            .acme
            .as_ref()
            .is_some_and(|old| old.state_dir != acme.state_dir);
        self.challenges.share(Some(&acme.state_dir));
        let state = StateDir::new(&acme.state_dir);
        state.sweep();
        let mut old = std::mem::take(&mut self.kept);
        for names in &acme.certificates {
            let known = old.iter().position(|kept| kept.names == *names && !moved);
            self.kept.push(match known {
                Some(index) => old.swap_remove(index),
                None => Kept::open(names, &state, &acme),
            });
        }
        for ca in &acme.directories {
            let health = state.load(&health_file(&ca.url));
            self.health.insert(ca.url.clone(), health);
        }
        self.acme = Some(Arc::new(acme));
        let now = Moment::now();
        for kept in self.kept.iter().filter(|kept| !kept.is_served(now)) {
            tracing::warn!(names = ?kept.names, "no certificate yet; it is awaited from the CA");
        }
        self.publish(now);
    }

    /// Renews this one, or all, as soon as the CAs' limits allow. The names of what is concerned.
    pub(super) fn renew(&mut self, name: Option<&str>) -> Result<Vec<String>, String> {
        let Some(state) = self.state() else {
            return Err(
                "certificates do not come from a CA here; see [tls] certificate".to_owned(),
            );
        };
        let now = Moment::now();
        let mut renewed = Vec::new();
        for kept in &mut self.kept {
            if name.is_some_and(|name| !kept.names.iter().any(|it| it == name)) {
                continue;
            }
            kept.reload_history(&state, now);
            kept.history.asked = Some(now);
            if let Err(error) = kept.save_history(&state) {
                return Err(format!("{error}; {}", error.remedy()));
            }
            renewed.extend(kept.names.clone());
        }
        match (name, renewed.is_empty()) {
            (Some(name), true) => Err(format!(
                "{name} is in no certificate; there are {}",
                self.kept
                    .iter()
                    .flat_map(|it| it.names.clone())
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
            _ => Ok(renewed),
        }
    }

    // === what is to be done ===

    /// Looks at everything; returns what is to be started.
    pub(super) fn look(&mut self) -> Vec<Start> {
        let (Some(acme), Some(state)) = (self.acme.clone(), self.state()) else {
            return Vec::new();
        };
        let now = Moment::now();
        let mut changed = false;
        for kept in &mut self.kept {
            kept.save(&state);
            changed |= kept.refresh(&state);
            if kept.history.settle(now) {
                let _ = kept.save_history(&state);
            }
        }
        for health in self.health.values_mut() {
            health.settle(now);
        }
        if changed || self.anything_expired(now) {
            self.publish(now);
        }
        let mut starts = Vec::new();
        let mut running = self
            .kept
            .iter()
            .filter(|kept| matches!(kept.busy, Busy::Ordering(_)))
            .count();
        for index in 0..self.kept.len() {
            if let Some(start) = self.ask_when(index, &acme, now) {
                starts.push(start);
            }
            if running >= ORDERS {
                continue;
            }
            if let Some(start) = self.begin(index, &acme, &state, now) {
                running += 1;
                starts.push(start);
            }
        }
        starts
    }

    /// The longest time until the next look.
    pub(super) fn wake_in(&self) -> u64 {
        let now = Moment::now();
        let soonest = self
            .kept
            .iter()
            .map(|kept| match (&kept.busy, self.next(kept, now)) {
                (Busy::Ordering(_), _) => LOOK_EVERY,
                (Busy::Elsewhere, _) => ELSEWHERE,
                // It could not be begun: for lack of room, or of a disk.
                (Busy::No, Next::Order(_)) => ELSEWHERE,
                (Busy::No, Next::Wait(until, _)) => until.since(now).max(1),
            });
        soonest.min().unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }

    fn next(&self, kept: &Kept, now: Moment) -> Next {
        let healthy = Health::default();
        let directories = self.acme.iter().flat_map(|acme| &acme.directories);
        let cas: Vec<(&str, &Health)> = directories
            .map(|ca| {
                (
                    ca.url.as_str(),
                    self.health.get(&ca.url).unwrap_or(&healthy),
                )
            })
            .collect();
        kept.next(&cas, now)
    }

    /// Everything before the first request of an order: it is written down before the CA hears of
    /// it, under a lock that other instances see.
    fn begin(
        &mut self,
        index: usize,
        acme: &Arc<Acme>,
        state: &StateDir,
        now: Moment,
    ) -> Option<Start> {
        let kept = self.kept.get(index)?;
        if matches!(kept.busy, Busy::Ordering(_)) {
            return None;
        }
        let Next::Order(_) = self.next(kept, now) else {
            self.kept.get_mut(index)?.busy = Busy::No;
            return None;
        };
        let lock = match self.lock(index, state) {
            Ok(lock) => lock?,
            Err(trouble) => {
                let kept = self.kept.get_mut(index)?;
                if kept.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(names = ?kept.names, "no certificate is ordered: {trouble}");
                }
                kept.trouble = Some(trouble);
                return None;
            }
        };
        // Another instance may have been at it since we looked.
        let kept = self.kept.get_mut(index)?;
        kept.reload_history(state, now);
        if kept.refresh(state) {
            self.publish(now);
        }
        for ca in &acme.directories {
            if let Some(mut health) = state.load_some::<Health>(&health_file(&ca.url)) {
                health.settle(now);
                self.health.insert(ca.url.clone(), health);
            }
        }
        let kept = self.kept.get(index)?;
        let Next::Order(at) = self.next(kept, now) else {
            return None;
        };
        let ca = acme.directories.get(at)?;
        let kept = self.kept.get_mut(index)?;
        let tried = kept.failures();
        kept.history.start(&ca.url, now);
        if let Err(error) = kept.save_history(state) {
            kept.history.attempts.pop();
            kept.trouble = Some(format!("{error}; {}", error.remedy()));
            return None;
        }
        kept.trouble = None;
        kept.busy = Busy::Ordering(ca.name.clone());
        tracing::info!(names = ?kept.names, ca = ca.name, "ordering a certificate");
        let job = Job {
            names: kept.names.clone(),
            ca: ca.url.clone(),
            acme: Arc::clone(acme),
            state: state.clone(),
            challenges: Arc::clone(&self.challenges),
            folder: kept.folder.clone(),
            tried,
            replaces: replaced(kept, &ca.url),
        };
        Some(Start::Order(Box::new(job), lock))
    }

    /// `Ok(None)`: another instance has it.
    fn lock(&mut self, index: usize, state: &StateDir) -> Result<Option<Locked>, String> {
        let in_words = |error: super::StateError| format!("{error}; {}", error.remedy());
        state.probe().map_err(in_words)?;
        let Some(kept) = self.kept.get_mut(index) else {
            return Ok(None);
        };
        let lock = state
            .try_lock(&format!("{}/order.lock", kept.folder))
            .map_err(in_words)?;
        kept.busy = match lock {
            Some(_) => Busy::No,
            None => Busy::Elsewhere,
        };
        Ok(lock)
    }

    /// Asks the CA that has issued a certificate when it wants it renewed, if it is time to.
    fn ask_when(&mut self, index: usize, acme: &Arc<Acme>, now: Moment) -> Option<Start> {
        let kept = self.kept.get_mut(index)?;
        let ca = kept.history.issuer.clone()?;
        let certificate = kept.identifier()?.to_string();
        let renewal = kept
            .history
            .renewal
            .as_ref()
            .filter(|it| it.certificate == certificate);
        let known = acme.directories.iter().any(|it| it.url == ca);
        if kept.asking || !known || renewal.is_some_and(|it| it.ask_again > now) {
            return None;
        }
        kept.asking = true;
        Some(Start::Renewal {
            folder: kept.folder.clone(),
            ca,
            certificate,
            acme: Arc::clone(acme),
        })
    }

    // === what has come of it ===

    pub(super) fn finish(&mut self, done: Done) {
        let Some(state) = self.state() else { return };
        match done {
            Done::Order {
                folder,
                ca,
                result,
                lock,
            } => {
                self.ordered(&folder, &ca, result, &state);
                drop(lock);
            }
            Done::Renewal {
                folder,
                certificate,
                result,
            } => self.told_when(&folder, certificate, result, &state),
        }
    }

    fn ordered(
        &mut self,
        folder: &str,
        ca: &str,
        result: Result<Zeroizing<Vec<u8>>, Failure>,
        state: &StateDir,
    ) {
        let now = Moment::now();
        let health = self.health.entry(ca.to_owned()).or_default();
        match &result {
            Err(failure) if failure.concerns == Concerns::Ca => {
                health.failed(now, &failure.reason, failure.not_before);
            }
            _ => *health = Health::default(),
        }
        if let Err(error) = state.save(&health_file(ca), health) {
            tracing::debug!(%error, "how a CA does is not kept");
        }
        // What is not wanted any more has its order left to resume.
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.folder == folder) else {
            return;
        };
        kept.busy = Busy::No;
        match result {
            Ok(pem) => {
                kept.history.finish(ca, Outcome::Issued);
                kept.history.issuer = Some(ca.to_owned());
                kept.history.renewal = None;
                kept.history.asked = None;
                if kept.install(pem, state) {
                    let until = kept.certificate.as_ref().map(|it| it.facts().until());
                    tracing::info!(names = ?kept.names, ca, until, "a new certificate is served");
                }
            }
            Err(failure) => {
                let Failure {
                    concerns,
                    reason,
                    not_before,
                } = failure;
                tracing::warn!(names = ?kept.names, ca, "no certificate: {reason}");
                let outcome = Outcome::Failed {
                    concerns,
                    reason,
                    not_before,
                };
                kept.history.finish(ca, outcome);
            }
        }
        kept.history.settle(now);
        if let Err(error) = kept.save_history(state) {
            tracing::warn!(names = ?kept.names, "{error}; {}", error.remedy());
        }
        self.publish(now);
    }

    fn told_when(
        &mut self,
        folder: &str,
        certificate: String,
        result: Result<Renewal, Failure>,
        state: &StateDir,
    ) {
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.folder == folder) else {
            return;
        };
        kept.asking = false;
        let ours = kept
            .history
            .renewal
            .take()
            .filter(|it| it.certificate == certificate);
        kept.history.renewal = Some(match result {
            Ok(renewal) => renewal,
            Err(failure) => {
                tracing::debug!(names = ?kept.names, reason = failure.reason, "the CA does not say when to renew");
                Renewal {
                    window: ours.and_then(|it| it.window),
                    certificate,
                    ask_again: Moment::now().after(ASK_AGAIN),
                }
            }
        });
        let _ = kept.save_history(state);
    }

    // === what is served ===

    fn anything_expired(&self, now: Moment) -> bool {
        self.kept.iter().any(|kept| {
            kept.certificate.is_some()
                && !kept.is_served(now)
                && !self.stand_ins.contains_key(&kept.folder)
        })
    }

    /// Serves everything that is there, and what says that it is not for the rest.
    fn publish(&mut self, now: Moment) {
        let (mut real, mut missing) = (Vec::new(), Vec::new());
        for kept in &self.kept {
            match &kept.certificate {
                Some(certificate) if kept.is_served(now) => {
                    self.stand_ins.remove(&kept.folder);
                    real.push(certificate.clone());
                }
                _ => missing.push(kept),
            }
        }
        if missing.is_empty() {
            self.before.clear();
        }
        let mut stand_ins = Vec::new();
        for kept in missing.iter().filter(|_| self.before.is_empty()) {
            match self.stand_ins.get(&kept.folder) {
                Some(made) => stand_ins.push(made.clone()),
                None => match stand_in::make(&kept.names) {
                    Ok(made) => {
                        self.stand_ins.insert(kept.folder.clone(), made.clone());
                        stand_ins.push(made);
                    }
                    Err(error) => tracing::error!(names = ?kept.names, "{error}"),
                },
            }
        }
        let all = [real, self.before.clone(), stand_ins].concat();
        self.store.publish(all);
    }

    /// What is told.
    pub(super) fn status(&self) -> Vec<CertificateStatus> {
        let now = Moment::now();
        let directories = self.acme.as_ref().map_or(&[][..], |acme| &acme.directories);
        self.kept
            .iter()
            .map(|kept| kept.status(self.next(kept, now), directories, now))
            .collect()
    }

    /// Why no client can be served with a good certificate at all, if that is so.
    pub(super) fn awaited(&self) -> Option<String> {
        let now = Moment::now();
        let any = !self.before.is_empty() || self.kept.iter().any(|kept| kept.is_served(now));
        if any || self.acme.is_none() {
            return None;
        }
        let waiting = self.status().into_iter().map(|status| {
            let error = status.last_error.map(|error| format!("; {}", error.reason));
            format!(
                "{} {}{}",
                status.names.join(" "),
                status.next,
                error.unwrap_or_default()
            )
        });
        Some(format!(
            "no certificate yet: {}",
            waiting.take(5).collect::<Vec<_>>().join("\n")
        ))
    }
}

fn replaced(kept: &Kept, ca: &str) -> Option<CertificateIdentifier<'static>> {
    (kept.history.issuer.as_deref() == Some(ca))
        .then(|| kept.identifier())
        .flatten()
}
