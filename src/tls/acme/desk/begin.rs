//! What comes before the first request of an order, and of asking a CA when to renew.

use std::sync::Arc;

use instant_acme::CertificateIdentifier;

use super::{Desk, QUESTIONS, Start};
use crate::config::Acme;
use crate::tls::acme::StateError;
use crate::tls::acme::kept::{Busy, Cause, Kept};
use crate::tls::acme::moment::Moment;
use crate::tls::acme::order::Job;
use crate::tls::acme::plan::Next;
use crate::tls::acme::state::{Locked, StateDir};

impl Desk {
    /// Everything before the first request of an order: it is written down before the CA hears of
    /// it, under a lock that other instances see.
    pub(super) fn begin(
        &mut self,
        index: usize,
        acme: &Arc<Acme>,
        state: &StateDir,
        now: Moment,
    ) -> Option<Start> {
        let kept = self.kept.get(index)?;
        if matches!(kept.busy, Busy::Ordering(_) | Busy::Reading) {
            return None;
        }
        let Next::Order(_) = self.next(kept, now) else {
            self.notice(index, state, now);
            return None;
        };
        let lock = match self.lock(index, state) {
            Ok(lock) => lock?,
            Err(trouble) => {
                let kept = self.kept.get_mut(index)?;
                if kept.troubles.met(Cause::Order, &trouble, now) {
                    tracing::error!(names = ?kept.names, "no certificate is ordered: {trouble}");
                }
                return None;
            }
        };
        // Another instance may have been at it since we looked.
        let kept = self.kept.get_mut(index)?;
        if let Err(error) = kept.reload_history(state, now) {
            let trouble = format!("{error}; {}", error.remedy());
            if kept.troubles.met(Cause::Order, &trouble, now) {
                tracing::error!(names = ?kept.names, "no certificate is ordered: {trouble}");
            }
            return None;
        }
        let changed = kept.refresh(state);
        kept.recover(state, now);
        if changed {
            self.publish(now);
        }
        for ca in &acme.directories {
            // What cannot be read is said.
            let _ = self.reload_health(&ca.url, state);
        }
        self.look_at_health(state, now);
        let kept = self.kept.get(index)?;
        let Next::Order(at) = self.next(kept, now) else {
            return None;
        };
        let ca = acme.directories.get(at)?;
        let kept = self.kept.get_mut(index)?;
        let tried = kept.unproved();
        let before = kept.history.clone();
        kept.history.start(&ca.url, now);
        if let Err(error) = kept.save_history(state) {
            kept.history = before;
            let trouble = format!("{error}; {}", error.remedy());
            kept.troubles.met(Cause::Order, &trouble, now);
            return None;
        }
        kept.troubles.over(Cause::Order);
        kept.busy = Busy::Ordering(ca.name.clone());
        self.under_way += 1;
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
            signing: Arc::default(),
            at_dns: Arc::default(),
            moved: self.moved.clone(),
        };
        Some(Start::Order(Box::new(job), lock))
    }

    /// An attempt that has been written down and has not ended is another instance's, or one that did
    /// not live to see its end.
    fn notice(&mut self, index: usize, state: &StateDir, now: Moment) {
        let Some(kept) = self.kept.get_mut(index) else {
            return;
        };
        let lock = kept
            .is_under_way()
            .then(|| state.try_lock(&kept.order_lock()));
        let elsewhere = matches!(lock, Some(Ok(None)));
        // There is no order to be begun.
        kept.troubles.over(Cause::Order);
        let over = kept.busy == Busy::Elsewhere && !elsewhere;
        kept.busy = match elsewhere {
            true => Busy::Elsewhere,
            false => Busy::No,
        };
        if over {
            // One that cannot be read is met again before the next order.
            let _ = kept.reload_history(state, now);
        }
        if let Some(Ok(Some(_lock))) = lock {
            kept.recover(state, now);
        }
    }

    /// `Ok(None)`: another instance has it.
    fn lock(&mut self, index: usize, state: &StateDir) -> Result<Option<Locked>, String> {
        let in_words = |error: StateError| format!("{error}; {}", error.remedy());
        state.probe().map_err(in_words)?;
        let Some(kept) = self.kept.get_mut(index) else {
            return Ok(None);
        };
        let lock = state.try_lock(&kept.order_lock()).map_err(in_words)?;
        kept.busy = match lock {
            Some(_) => Busy::No,
            None => Busy::Elsewhere,
        };
        Ok(lock)
    }

    /// Asks the CA that has issued a certificate when it wants it renewed, if it is time to.
    pub(super) fn ask_when(
        &mut self,
        index: usize,
        acme: &Arc<Acme>,
        now: Moment,
    ) -> Option<Start> {
        let asking = self.kept.iter().filter(|kept| kept.asking).count();
        let kept = self.kept.get_mut(index)?;
        let ca = kept.history.issuer.clone()?;
        let certificate = kept.identifier()?.to_string();
        let renewal = kept
            .history
            .renewal
            .as_ref()
            .filter(|it| it.certificate == certificate);
        let known = acme.directories.iter().any(|it| it.url == ca);
        let health = self.health.get(&ca);
        let told_to_wait = health
            .and_then(|health| health.not_before)
            .is_some_and(|until| until > now);
        if asking >= QUESTIONS
            || kept.asking
            || !known
            || told_to_wait
            || renewal.is_some_and(|it| it.ask_again > now)
        {
            return None;
        }
        let explained = renewal.and_then(|it| it.explanation.clone());
        kept.asking = true;
        Some(Start::Renewal {
            folder: kept.folder.clone(),
            ca,
            certificate,
            explained,
            acme: Arc::clone(acme),
        })
    }
}

fn replaced(kept: &Kept, ca: &str) -> Option<CertificateIdentifier<'static>> {
    (kept.history.issuer.as_deref() == Some(ca))
        .then(|| kept.identifier())
        .flatten()
}
