//! What is served, and what is told of it.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Desk;
use crate::tls::Certificate;
use crate::tls::acme::judge::judge_kept;
use crate::tls::acme::kept::{Kept, covers, is_valid};
use crate::tls::acme::moment::Moment;
use crate::tls::acme::stand_in;
use crate::tls::acme::state::StateDir;
use crate::tls::acme::status::{CertificateStatus, Meanwhile};

impl Desk {
    /// Whether what is published is not what should be, by the time: something has expired, or has
    /// not after all, for the clock was wrong.
    pub(super) fn is_outdated(&self, now: Moment) -> bool {
        self.in_time(now) != self.shown
    }

    /// Of everything that may be served, whether it may be now.
    fn in_time(&self, now: Moment) -> Vec<bool> {
        let kept = self.kept.iter().map(|kept| kept.is_served(now));
        let others = self.before.iter().chain(&self.outgoing);
        kept.chain(others.map(|one| is_valid(one, now))).collect()
    }

    /// Serves everything that is there and has not expired, and what says that it is not for names
    /// that nothing of it covers: a certificate for a name is served rather than a wildcard, so
    /// what clients refuse must not be there beside one that they take.
    pub(super) fn publish(&mut self, now: Moment) {
        let (mut real, mut missing) = (Vec::new(), Vec::new());
        for kept in &self.kept {
            match &kept.certificate {
                Some(certificate) if kept.is_served(now) => real.push(certificate.clone()),
                _ => missing.push(kept),
            }
        }
        if missing.is_empty() {
            self.before.clear();
        }
        let awaited: Vec<&String> = missing.iter().flat_map(|kept| &kept.names).collect();
        self.outgoing
            .retain(|one| is_valid(one, now) && awaited.iter().any(|name| covers(one, name)));
        let in_time = |one: &&Certificate| is_valid(one, now);
        let before: Vec<Certificate> = self.before.iter().filter(in_time).cloned().collect();
        let mut all = [real, self.outgoing.clone(), before.clone()].concat();
        if before.is_empty() {
            let missing = missing.into_iter();
            let bare = missing.map(|kept| (kept.folder.clone(), uncovered(&kept.names, &all)));
            let bare: HashMap<String, Vec<String>> = bare.collect();
            all.extend(self.stand_in_for(bare));
        }
        self.shown = self.in_time(now);
        self.store.publish_for(self.generation, all);
    }

    /// One for the names of each folder, if there are any; made once.
    fn stand_in_for(&mut self, bare: HashMap<String, Vec<String>>) -> Vec<Certificate> {
        self.stand_ins
            .retain(|folder, (names, _)| bare.get(folder) == Some(&*names));
        for (folder, names) in bare {
            if names.is_empty() || self.stand_ins.contains_key(&folder) {
                continue;
            }
            match stand_in::make(&names) {
                Ok(made) => drop(self.stand_ins.insert(folder, (names, made))),
                Err(error) => tracing::error!(?names, "{error}"),
            }
        }
        let folders = self.kept.iter().map(|kept| &kept.folder);
        let made = folders.filter_map(|folder| self.stand_ins.get(folder));
        made.map(|(_, made)| made.clone()).collect()
    }

    /// What is on disk of other groups of names, where that is all there is for some.
    pub(super) fn find_outgoing(&mut self, state: &StateDir, now: Moment) {
        let missing = || self.kept.iter().filter(|kept| !kept.is_served(now));
        if missing().next().is_none() {
            return;
        }
        let names: Vec<&String> = missing().flat_map(|kept| &kept.names).collect();
        let found = on_disk_for(&names, state, now);
        self.outgoing.extend(found);
        // Of those that cover the same, the one that lasts longest comes first.
        self.outgoing
            .sort_by_key(|one| Reverse(one.facts().not_after));
        self.outgoing
            .dedup_by(|one, other| one.key().cert == other.key().cert);
    }

    /// What is told.
    pub(in crate::tls::acme) fn status(&self) -> Vec<CertificateStatus> {
        let now = Moment::now();
        self.kept.iter().map(|kept| self.told(kept, now)).collect()
    }

    /// The same of one.
    pub(super) fn told(&self, kept: &Kept, now: Moment) -> CertificateStatus {
        let directories = self.acme.as_ref().map_or(&[][..], |acme| &acme.directories);
        let mut told = kept.status(self.next(kept, now), directories, now);
        if !kept.is_served(now) {
            let others = self.kept.iter().filter_map(|it| it.certificate.as_ref());
            told.meanwhile = meanwhile(&kept.names, others.chain(&self.outgoing), now);
        }
        told
    }

    /// Why no client can be served with a good certificate at all, if that is so.
    pub(in crate::tls::acme) fn awaited(&self) -> Option<String> {
        let now = Moment::now();
        let mut others = self.before.iter().chain(&self.outgoing);
        let any = others.any(|one| is_valid(one, now))
            || self.kept.iter().any(|kept| kept.is_served(now));
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

/// Everything in the state directory that is good for some of these names.
pub(in crate::tls::acme) fn on_disk_for(
    names: &[&String],
    state: &StateDir,
    now: Moment,
) -> Vec<Certificate> {
    let read = |file: String| {
        let pem = state.read(&file).ok()??;
        let one = judge_kept(&pem, &state.path(&file), &[], now.system()).ok()?;
        let covered = names.iter().any(|name| covers(&one, name));
        covered.then_some(one)
    };
    state.certificates().into_iter().filter_map(read).collect()
}

/// By which of these certificates each name is served.
pub(in crate::tls::acme) fn meanwhile<'a>(
    names: &[String],
    by: impl Iterator<Item = &'a Certificate>,
    now: Moment,
) -> Vec<Meanwhile> {
    let by: Vec<&Certificate> = by.filter(|one| is_valid(one, now)).collect();
    let served = |name: &String| {
        let exact = by.iter().find(|one| one.facts().names.contains(name));
        let facts = exact
            .or_else(|| by.iter().find(|one| covers(one, name)))?
            .facts();
        Some(Meanwhile {
            name: name.clone(),
            from: facts.not_before.into(),
            until: facts.not_after.into(),
            issuer: facts.issuer.clone(),
        })
    };
    names.iter().filter_map(served).collect()
}

fn uncovered(names: &[String], by: &[Certificate]) -> Vec<String> {
    let bare = |name: &&String| !by.iter().any(|one| covers(one, name));
    names.iter().filter(bare).cloned().collect()
}
