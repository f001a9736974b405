//! What has come of an order, and of asking when to renew: written down, and served.

use zeroize::Zeroizing;

use super::{Desk, Done};
use crate::tls::acme::history::{Concerns, Outcome, Renewal};
use crate::tls::acme::kept::{Busy, Kept};
use crate::tls::acme::moment::{HOUR, Moment};
use crate::tls::acme::plan::Next;
use crate::tls::acme::problem::Failure;
use crate::tls::acme::state::StateDir;

/// After a failure to ask when to renew.
const ASK_AGAIN: u64 = HOUR;

impl Desk {
    pub(in crate::tls::acme) fn finish(&mut self, done: Done) {
        if let Done::Order { moved, .. } = &done {
            self.under_way = self.under_way.saturating_sub(1);
            if moved.is_cancelled() {
                self.leaving = self.leaving.saturating_sub(1);
                return left(done);
            }
        }
        let Some(state) = self.state() else {
            return left(done);
        };
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
        match &result {
            Err(failure) if failure.concerns == Concerns::Ca => {
                self.amend_health(ca, state, |health| {
                    health.failed(now, failure);
                });
            }
            // It says nothing of the CA.
            Err(failure) if failure.concerns == Concerns::Here => {}
            _ => self.amend_health(ca, state, |health| health.is_well(now)),
        }
        // What is not wanted any more has its order left to resume.
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.folder == folder) else {
            return;
        };
        kept.busy = Busy::No;
        match result {
            Ok(pem) => {
                if kept.issued(ca, pem, state) {
                    let until = kept.certificate.as_ref().map(|it| it.facts().until());
                    tracing::info!(names = ?kept.names, ca, until, "a new certificate is served");
                }
            }
            Err(failure) => kept.history.finish(ca, failed(failure, signed)),
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
        let told = result.as_ref().err().and_then(|failure| failure.not_before);
        let later = told.unwrap_or(now);
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
                    ask_again: later.max(now.after(ASK_AGAIN)),
                }
            }));
        });
        if let Err(error) = saved {
            tracing::debug!(%error, "when to renew is not kept");
        }
    }
}

/// Writes what has come of an order into its state directory, which is not in use any more.
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
    match result {
        Ok(pem) => {
            kept.issued(&ca, pem, &state);
        }
        Err(failure) => kept.history.finish(&ca, failed(failure, signed)),
    }
    kept.history.settle(now);
    if let Err(error) = kept.save_history(&state) {
        tracing::warn!(?names, "what came of an order is not kept: {error}");
    }
    tracing::info!(
        ?names,
        ca,
        "an order has come to its end for a config that is not in force any more"
    );
    drop(lock);
}

fn failed(failure: Failure, signed: bool) -> Outcome {
    let Failure {
        concerns,
        reason,
        not_before,
        unproved,
        unreached,
        undecided: _,
    } = failure;
    Outcome::Failed {
        concerns,
        reason,
        not_before,
        signed,
        unproved,
        unreached,
    }
}
