//! What was tried and what came of it: for one certificate, and for one CA.
//!
//! Kept in the state directory, so that a restart knows it; an attempt is written down before the
//! CA is asked. Bounded, and sane whatever the clock has done since.

use serde::{Deserialize, Serialize};

use super::moment::{DAY, MINUTE, Moment};

/// More attempts than any limit looks back at.
const KEPT: usize = 64;
/// CAs count in weeks; whatever they ask for beyond that is a mistake of somebody's clock.
pub(super) const LONGEST_PAUSE: u64 = 8 * DAY;
/// CA-wide pauses double from this up to [`CA_PAUSE_MOST`].
const CA_PAUSE: u64 = 30;
const CA_PAUSE_MOST: u64 = 60 * MINUTE;

/// What is known of one certificate besides itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    /// Oldest first.
    #[serde(default)]
    pub(super) attempts: Vec<Attempt>,
    /// The directory URL of the CA that the certificate came from, if it came from one by us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
    /// When the CA wants it to be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) renewal: Option<Renewal>,
    /// Somebody wants it renewed now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<Moment>,
}

/// One order, from before its first request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// Directory URL.
    pub(super) ca: String,
    pub(super) at: Moment,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub(super) enum Outcome {
    /// Under way, or we ended in the middle of it.
    Started,
    /// It ended without a certificate.
    Failed {
        /// Whose fault, and so for whom it counts.
        concerns: Concerns,
        /// In words, with what to do.
        reason: String,
        /// The CA wants to hear no more of it until then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Moment>,
        /// The CA was asked to sign, and may have counted a certificate.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        signed: bool,
    },
    /// It has brought a certificate.
    Issued,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Concerns {
    /// These names: another certificate may well be issued.
    Names,
    /// The CA, or our account there: no order would succeed.
    Ca,
}

/// A CA's wish (RFC 9773), for the certificate with this identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Renewal {
    /// Of which certificate (RFC 9773, 4.1).
    pub(super) certificate: String,
    /// `None`: it has not said, or nothing that makes sense.
    pub(super) window: Option<Window>,
    pub(super) ask_again: Moment,
}

/// The span in which a certificate should be renewed, some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) start: Moment,
    pub(super) end: Moment,
}

/// How a CA does, whatever is ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Health {
    /// In a row.
    #[serde(default)]
    pub(super) failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_failure: Option<Moment>,
    /// Until when we leave it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pause: Option<Moment>,
    /// Until when it wants to be left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

// === impl History ===

impl History {
    /// To be written down before the CA hears of it.
    pub(super) fn start(&mut self, ca: &str, at: Moment) {
        let surplus = (self.attempts.len() + 1).saturating_sub(KEPT);
        self.attempts.drain(..surplus);
        self.attempts.push(Attempt {
            ca: ca.to_owned(),
            at,
            outcome: Outcome::Started,
        });
    }

    /// What came of the attempt that was started last at this CA.
    pub(super) fn finish(&mut self, ca: &str, outcome: Outcome) {
        let last = self
            .attempts
            .iter_mut()
            .rev()
            .find(|attempt| attempt.ca == ca);
        if let Some(attempt) = last {
            attempt.outcome = outcome;
        }
    }

    /// The failure that nothing good has followed, for people.
    pub(super) fn last_error(&self) -> Option<(&Attempt, &str)> {
        let last = self.attempts.last()?;
        match &last.outcome {
            Outcome::Failed { reason, .. } => Some((last, reason)),
            Outcome::Started | Outcome::Issued => None,
        }
    }

    /// Whether it had to be changed: what lies in the future was noted by a clock that ran fast,
    /// and counts as of now, or it would be in the way until then.
    pub(super) fn settle(&mut self, now: Moment) -> bool {
        let before = self.clone();
        for attempt in &mut self.attempts {
            attempt.at = attempt.at.min(now);
            if let Outcome::Failed { not_before, .. } = &mut attempt.outcome {
                settle(not_before, now);
            }
        }
        // Otherwise it would lie after every attempt to come, and lift the pauses between them.
        self.asked = self.asked.map(|asked| asked.min(now));
        if let Some(renewal) = &mut self.renewal {
            renewal.ask_again = renewal.ask_again.min(now.after(DAY));
        }
        *self != before
    }
}

// === impl Health ===

impl Health {
    pub(super) fn failed(&mut self, now: Moment, reason: &str, not_before: Option<Moment>) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(now);
        self.reason = Some(reason.to_owned());
        let doubled = CA_PAUSE.saturating_mul(1 << (self.failures - 1).min(16));
        self.pause = Some(now.after(doubled.min(CA_PAUSE_MOST)));
        self.not_before = not_before;
        settle(&mut self.not_before, now);
    }

    pub(super) fn settle(&mut self, now: Moment) -> bool {
        let before = self.clone();
        settle(&mut self.not_before, now);
        self.pause = self.pause.map(|at| at.min(now.after(CA_PAUSE_MOST)));
        self.last_failure = self.last_failure.map(|at| at.min(now));
        *self != before
    }
}

fn settle(not_before: &mut Option<Moment>, now: Moment) {
    *not_before = not_before.map(|moment| moment.min(now.after(LONGEST_PAUSE)));
}
