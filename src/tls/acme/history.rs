//! What was tried and what came of it: for one certificate, and for one CA.
//!
//! Kept in the state directory, so that a restart knows it; an attempt is written down before the
//! CA is asked. Bounded, and sane whatever the clock has done since.

use serde::{Deserialize, Serialize};

use super::moment::{DAY, MINUTE, Moment};
use super::problem::Failure;
use super::state::Record;

/// More attempts than any limit looks back at.
const KEPT: usize = 64;
/// CAs count in weeks; whatever they ask for beyond that is a mistake of somebody's clock.
pub(super) const LONGEST_PAUSE: u64 = 8 * DAY;
/// CA-wide pauses double from this up to [`CA_PAUSE_MOST`].
const CA_PAUSE: u64 = 30;
const CA_PAUSE_MOST: u64 = 60 * MINUTE;
/// Where it is not heard at all no CA is spared by more, and a network may be back any moment.
const UNREACHED_PAUSE_MOST: u64 = 3 * MINUTE;

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
    /// Until when what a newer holdline has tried, and we cannot read, may count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unknown_until: Option<Moment>,
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
        /// The names could not be shown to be ours.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unproved: bool,
        /// The CA has not heard of it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unreached: bool,
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
    /// This machine: no order would succeed anywhere, and no CA is to blame.
    Here,
}

/// A CA's wish (RFC 9773), for the certificate with this identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Renewal {
    /// Of which certificate (RFC 9773, 4.1).
    pub(super) certificate: String,
    /// `None`: it has not said, or nothing that makes sense.
    pub(super) window: Option<Window>,
    /// Where it says why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) explanation: Option<String>,
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
    /// It could not be written down yet.
    #[serde(skip)]
    pub(super) unwritten: bool,
}

// === impl History ===

/// It may have got as many certificates as a week has, and have been told to wait.
impl Record for History {
    fn careful(since: Moment) -> Option<Self> {
        Some(Self {
            unknown_until: Some(since.after(LONGEST_PAUSE)),
            ..Self::default()
        })
    }
}

impl History {
    /// To be written down before the CA hears of it.
    pub(super) fn start(&mut self, ca: &str, at: Moment) {
        self.make_room(KEPT - 1);
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

    /// What is known by what was left of the order of an attempt whose process did not live to see its
    /// end: that its certificate has `arrived`, or else that the CA was asked to sign it.
    pub(super) fn recover(&mut self, ca: &str, ordered: Moment, arrived: bool) {
        let begun = |attempt: &Attempt| attempt.ca == ca && attempt.at <= ordered;
        let begun = self.attempts.iter().rposition(begun).unwrap_or_default();
        let mut since = self.attempts.iter().skip(begun).filter(|it| it.ca == ca);
        let counted = since.any(|it| matches!(it.outcome, Outcome::Failed { signed: true, .. }));
        let Some(last) = self.attempts.last_mut() else {
            return;
        };
        if last.ca != ca || last.outcome != Outcome::Started {
            return;
        }
        if arrived {
            last.outcome = Outcome::Issued;
            self.issuer = Some(ca.to_owned());
            self.renewal = None;
            self.asked = None;
        } else if !counted {
            // Of one order, that is one certificate, however often it is taken up.
            last.outcome = Outcome::Failed {
                concerns: Concerns::Names,
                reason: "holdline ended before the certificate came; the same order is taken up"
                    .to_owned(),
                not_before: None,
                signed: true,
                unproved: false,
                unreached: false,
            };
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

    /// Takes in what another instance has written down while ours could not be: of both, nothing
    /// that a CA may count is lost.
    pub(super) fn join(&mut self, other: Self) {
        let last = |history: &Self| history.attempts.last().map(|attempt| attempt.at);
        if last(&other) > last(self) {
            self.issuer = other.issuer;
            self.renewal = other.renewal;
            self.asked = other.asked;
        }
        self.unknown_until = self.unknown_until.max(other.unknown_until);
        for attempt in other.attempts {
            let same = |ours: &Attempt| ours.ca == attempt.ca && ours.at == attempt.at;
            if !self.attempts.iter().any(same) {
                self.attempts.push(attempt);
            }
        }
        self.attempts.sort_by_key(|attempt| attempt.at);
        self.make_room(KEPT);
    }

    /// Forgets the oldest, first of those that no CA can count.
    fn make_room(&mut self, most: usize) {
        while self.attempts.len() > most {
            let nobodys = self
                .attempts
                .iter()
                .position(|it| it.outcome.is_unreached());
            self.attempts.remove(nobodys.unwrap_or_default());
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
        settle(&mut self.unknown_until, now);
        if let Some(renewal) = &mut self.renewal {
            renewal.ask_again = renewal.ask_again.min(now.after(DAY));
        }
        *self != before
    }
}

// === impl Outcome ===

impl Outcome {
    pub(super) fn is_unreached(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                unreached: true,
                ..
            }
        )
    }
}

// === impl Health ===

/// It may have been told to wait for all names; CAs count those in hours.
impl Record for Health {
    fn careful(since: Moment) -> Option<Self> {
        Some(Self {
            not_before: Some(since.after(DAY)),
            ..Self::default()
        })
    }
}

impl Health {
    pub(super) fn failed(&mut self, now: Moment, failure: &Failure) {
        let most = match failure.unreached {
            true => UNREACHED_PAUSE_MOST,
            false => CA_PAUSE_MOST,
        };
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(now);
        self.reason = Some(failure.reason.clone());
        let doubled = CA_PAUSE.saturating_mul(1 << (self.failures - 1).min(16));
        self.pause = Some(now.after(doubled.min(most)));
        // An order that was under way with it may have been told less, or nothing.
        self.not_before = self.not_before.max(failure.not_before);
        settle(&mut self.not_before, now);
    }

    /// It does what it is asked for. What it wants for all names holds even if an order that was under
    /// way went well.
    pub(super) fn is_well(&mut self, now: Moment) {
        *self = Self {
            not_before: self.not_before.filter(|until| *until > now),
            unwritten: self.unwritten,
            ..Self::default()
        };
    }

    /// Takes in what another instance has written down while ours could not be.
    pub(super) fn join(&mut self, other: Self) {
        let not_before = self.not_before.max(other.not_before);
        if other.last_failure > self.last_failure {
            let unwritten = self.unwritten;
            *self = Self { unwritten, ..other };
        }
        self.not_before = not_before;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reason: &str, not_before: Option<Moment>) -> Failure {
        Failure {
            not_before,
            ..Failure::ca(reason)
        }
    }

    #[test]
    fn of_two_histories_nothing_is_lost_that_a_ca_counts() {
        let failed = |not_before| Outcome::Failed {
            concerns: Concerns::Names,
            reason: "no".to_owned(),
            not_before,
            signed: true,
            unproved: false,
            unreached: false,
        };
        let mut disk = History::default();
        disk.start("a", Moment(1_000));
        let mut ours = disk.clone();
        ours.finish("a", failed(Some(Moment(9_000))));
        disk.start("b", Moment(2_000));
        disk.finish("b", Outcome::Issued);
        disk.issuer = Some("b".to_owned());
        ours.join(disk.clone());
        let told: Vec<_> = ours.attempts.iter().map(|it| it.outcome.clone()).collect();
        assert_eq!(told, [failed(Some(Moment(9_000))), Outcome::Issued]);
        assert_eq!(ours.issuer.as_deref(), Some("b"));
        // Both at their limit.
        for at in 0..200 {
            disk.start("b", Moment(3_000 + at));
            ours.start("a", Moment(3_000 + at));
        }
        ours.join(disk);
        assert_eq!(ours.attempts.len(), KEPT);
        assert_eq!(ours.attempts.last().map(|it| it.at), Some(Moment(3_199)));
    }

    #[test]
    fn a_limit_outlasts_what_other_orders_are_told() {
        let now = Moment(10_000);
        let mut health = Health::default();
        health.failed(now, &told("a limit", Some(now.after(7_200))));
        health.failed(now.after(1), &told("a fault", None));
        health.failed(now.after(2), &told("a shorter one", Some(now.after(60))));
        health.is_well(now.after(3));
        assert_eq!(health.not_before, Some(now.after(7_200)));
        health.is_well(now.after(7_200));
        assert_eq!(health, Health::default());
    }

    #[test]
    fn what_a_ca_has_asked_for_is_kept_whoever_was_told() {
        let now = Moment(10_000);
        let (mut ours, mut disk) = (Health::default(), Health::default());
        ours.failed(now, &told("ours", Some(now.after(7_200))));
        disk.failed(now.after(60), &told("theirs", None));
        ours.unwritten = true;
        ours.join(disk);
        assert_eq!(ours.not_before, Some(now.after(7_200)));
        assert_eq!(ours.reason.as_deref(), Some("theirs"));
        assert!(ours.unwritten);
    }

    #[test]
    fn a_network_that_is_back_is_not_waited_for_by_the_hour() {
        let now = Moment(10_000);
        let mut health = Health::default();
        for _ in 0..20 {
            let unreached = Failure {
                unreached: true,
                ..Failure::ca("no network")
            };
            health.failed(now, &unreached);
        }
        assert_eq!(health.pause, Some(now.after(UNREACHED_PAUSE_MOST)));
        health.failed(now, &Failure::ca("down"));
        assert_eq!(health.pause, Some(now.after(CA_PAUSE_MOST)));
    }

    #[test]
    fn what_no_ca_has_heard_of_is_forgotten_first() {
        let mut history = History::default();
        history.start("a", Moment(1));
        history.finish("a", Outcome::Issued);
        for at in 0..200 {
            history.start("a", Moment(2 + at));
            let unreached = Outcome::Failed {
                concerns: Concerns::Ca,
                reason: "no network".to_owned(),
                not_before: None,
                signed: false,
                unproved: false,
                unreached: true,
            };
            history.finish("a", unreached);
        }
        assert_eq!(history.attempts.len(), KEPT);
        assert_eq!(history.attempts[0].outcome, Outcome::Issued);
    }
}
