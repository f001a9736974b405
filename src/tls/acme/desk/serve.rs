//! What is served, and what is told of it.

use std::cmp::Reverse;

use super::Desk;
use crate::tls::acme::judge::judge;
use crate::tls::acme::kept::{Kept, covers, is_valid};
use crate::tls::acme::moment::Moment;
use crate::tls::acme::stand_in;
use crate::tls::acme::state::StateDir;
use crate::tls::acme::status::CertificateStatus;

impl Desk {
    /// Whether what is published is not what should be, by the time: something has expired, or has
    /// not after all, for the clock was wrong.
    pub(super) fn is_outdated(&self, now: Moment) -> bool {
        self.kept.iter().any(|kept| {
            let stood_in = self.stand_ins.contains_key(&kept.folder);
            kept.certificate.is_some() && kept.is_served(now) == stood_in
        })
    }

    /// Serves everything that is there, and what says that it is not for the rest.
    pub(super) fn publish(&mut self, now: Moment) {
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
        let awaited: Vec<&String> = missing.iter().flat_map(|kept| &kept.names).collect();
        self.outgoing
            .retain(|one| is_valid(one, now) && awaited.iter().any(|name| covers(one, name)));
        let outgoing = &self.outgoing;
        let covered = |name: &String| outgoing.iter().any(|one| covers(one, name));
        missing.retain(|kept| !kept.names.iter().all(covered));
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
        let all = [real, self.outgoing.clone(), self.before.clone(), stand_ins].concat();
        self.store.publish(all);
    }

    /// What is on disk of other groups of names, where that is all there is for some.
    pub(super) fn find_outgoing(&mut self, state: &StateDir, now: Moment) {
        let missing = || self.kept.iter().filter(|kept| !kept.is_served(now));
        if missing().next().is_none() {
            return;
        }
        let names: Vec<&String> = missing().flat_map(|kept| &kept.names).collect();
        for file in state.certificates() {
            let Ok(Some(pem)) = state.read(&file) else {
                continue;
            };
            if let Ok(one) = judge(&pem, &state.path(&file), &[], now.system())
                && names.iter().any(|name| covers(&one, name))
            {
                self.outgoing.push(one);
            }
        }
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
        kept.status(self.next(kept, now), directories, now)
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
