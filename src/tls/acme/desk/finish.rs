//! What has come of an order, and of asking when to renew: written down, and served.

use zeroize::Zeroizing;

use super::{Desk, Done};
use crate::tls::acme::history::{Concerns, Health, Outcome, Renewal};
use crate::tls::acme::kept::{Busy, Kept};
use crate::tls::acme::moment::{HOUR, Moment};
use crate::tls::acme::plan::Next;
use crate::tls::acme::problem::Failure;
use crate::tls::acme::state::StateDir;

/// After a failure to ask when to renew.
const ASK_AGAIN: u64 = HOUR;

impl Desk {
    pub(in crate::tls::acme) fn finish(&mut self, done: Done) {
        if let Done::Order { moved, .. } = &done
            && moved.is_cancelled()
        {
            self.leaving = self.leaving.saturating_sub(1);
            return left(done);
        }
        let Some(state) = self.state() else { return };
        match done {
            Done::Order {
                folder,
                ca,
                result,
                signed,
                lock,
                ..
            } => {
                self.ordered(&folder, &ca, (result, signed), &state);
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
        (result, signed): (Result<Zeroizing<Vec<u8>>, Failure>, bool),
        state: &StateDir,
    ) {
        let now = Moment::now();
        let health = self.health.entry(ca.to_owned()).or_default();
        match &result {
            Err(failure) if failure.concerns == Concerns::Ca => {
                health.failed(now, &failure.reason, failure.not_before);
            }
            // It says nothing of the CA.
            Err(failure) if failure.concerns == Concerns::Here => {}
            // What it wants for all names holds even if an order that was under way went well.
            _ => {
                *health = Health {
                    not_before: health.not_before.filter(|until| *until > now),
                    ..Health::default()
                };
            }
        }
        self.write_health(ca, state);
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
                let outcome = Outcome::Failed {
                    concerns,
                    reason,
                    not_before,
                    signed,
                };
                kept.history.finish(ca, outcome);
            }
        }
        kept.history.settle(now);
        if let Err(error) = kept.save_history(state) {
            tracing::warn!(names = ?kept.names, "{error}; {}. Until then nothing is ordered", error.remedy());
        }
        self.report(folder, ca, now);
        self.publish(now);
    }

    /// A failure with the next attempt, for the log.
    fn report(&self, folder: &str, ca: &str, now: Moment) {
        let Some(kept) = self.kept.iter().find(|kept| kept.folder == folder) else {
            return;
        };
        let Some((_, reason)) = kept.history.last_error() else {
            return;
        };
        let again = match self.next(kept, now) {
            Next::Order(_) => now,
            Next::Wait(until, _) => until,
        };
        tracing::warn!(names = ?kept.names, ca, %again, "no certificate: {reason}");
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
        let now = Moment::now();
        let names = kept.names.clone();
        let saved = kept.amend_history(state, now, |history| {
            let ours = history.renewal.take();
            let ours = ours.filter(|it| it.certificate == certificate);
            history.renewal = Some(result.unwrap_or_else(|failure| {
                tracing::debug!(
                    ?names,
                    reason = failure.reason,
                    "the CA does not say when to renew"
                );
                Renewal {
                    window: ours.as_ref().and_then(|it| it.window),
                    explanation: ours.and_then(|it| it.explanation),
                    certificate,
                    ask_again: now.after(ASK_AGAIN),
                }
            }));
        });
        if let Err(error) = saved {
            tracing::debug!(%error, "when to renew is not kept");
        }
    }
}

/// Writes what has come of an order into the state directory that is not in use any more.
fn left(done: Done) {
    let Done::Order {
        state,
        names,
        ca,
        result,
        signed,
        lock,
        ..
    } = done
    else {
        return;
    };
    let now = Moment::now();
    let mut kept = Kept::stored(&names, &state);
    let outcome = match result.map(|pem| kept.install(pem, &state)) {
        Ok(true) => Outcome::Issued,
        Ok(false) => Outcome::Failed {
            concerns: Concerns::Here,
            reason: "what was issued is not kept".to_owned(),
            not_before: None,
            signed,
        },
        Err(failure) => Outcome::Failed {
            concerns: failure.concerns,
            reason: failure.reason,
            not_before: failure.not_before,
            signed,
        },
    };
    if matches!(outcome, Outcome::Issued) {
        kept.history.issuer = Some(ca.clone());
    }
    kept.history.finish(&ca, outcome);
    kept.history.settle(now);
    if let Err(error) = kept.save_history(&state) {
        tracing::warn!(?names, "what came of an order is not kept: {error}");
    }
    tracing::info!(
        ?names,
        ca,
        "an order has ended, for [acme] state_dir is another one"
    );
    drop(lock);
}
