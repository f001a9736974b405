//! What to do next for one certificate, and when: pure, from the clock and what was written down.
//!
//! A certificate is renewed when its CA wants it (RFC 9773), else at two thirds of its lifetime. A
//! failed order is tried again ever later, at the next CA where that is called for, and never so
//! often that a CA's limits are met: theirs are counted here before they count.
//!
//! Asked again at least every minute, so that a clock that was set or a machine that slept is no
//! special case.

use std::fmt;

use super::history::{Attempt, Concerns, Health, History, Outcome, Window};
use super::moment::{DAY, HOUR, MINUTE, Moment};

/// Between one failed order for a name at a CA and the next; the last one repeats.
const PAUSES: [u64; 8] = [
    MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    4 * HOUR,
    6 * HOUR,
];
/// Let's Encrypt refuses a name after five failed validations in an hour; others are laxer.
pub(super) const ORDERS_AN_HOUR: u64 = 4;
/// Whatever became of them; more than the pauses allow for a CA that is down.
pub(super) const ATTEMPTS_AN_HOUR: u64 = 10;
/// It refuses the sixth certificate for the same names in a week.
pub(super) const CERTIFICATES_A_WEEK: u64 = 4;
const WEEK: u64 = 7 * DAY;
/// After so many failures in a row the next CA is asked for a renewal that is not urgent yet.
const PATIENCE: usize = 3;

/// All that matters.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    pub(super) now: Moment,
    /// The certificate that is there, expired or not.
    pub(super) there: Option<Lifetime>,
    pub(super) window: Option<Window>,
    /// It came from a CA that is not wanted any more.
    pub(super) unwanted: bool,
    pub(super) history: &'a History,
    /// In order of preference; never empty.
    pub(super) cas: &'a [(&'a str, &'a Health)],
    /// Spreads what many would do at once; the same for the same certificate.
    pub(super) seed: u64,
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) from: Moment,
    pub(super) until: Moment,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Order at this one of the CAs, now.
    Order(usize),
    /// Nothing before this moment.
    Wait(Moment, Why),
}

/// Why nothing is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The certificate is good for some time.
    NotDue,
    /// An order has failed, or the CA wants to be left alone.
    Pause,
    /// It has been ordered as often as we allow ourselves.
    Limit(Limit),
}

/// A limit of our own, so that the CA's are never met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// So many orders an hour.
    Orders(usize),
    /// So many attempts an hour, whatever became of them.
    Attempts(usize),
    /// So many certificates a week.
    Certificates(usize),
}

// === impl Limit ===

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orders(most) => write!(f, "{most} orders an hour"),
            Self::Attempts(most) => write!(f, "{most} attempts an hour"),
            Self::Certificates(most) => write!(f, "{most} certificates a week"),
        }?;
        f.write_str(" for these names at this CA")
    }
}

// === impl Lifetime ===

impl Lifetime {
    fn length(self) -> u64 {
        self.until.since(self.from)
    }

    pub(super) fn is_over(self, now: Moment) -> bool {
        now >= self.until
    }

    /// From when on any CA will do.
    fn urgent(self) -> Moment {
        self.until.before(self.length() / 6)
    }

    /// When it is to be renewed.
    pub(super) fn due(self, window: Option<Window>, seed: u64) -> Moment {
        let length = self.length();
        let usual = self.from.after(length / 3 * 2);
        let sensible =
            window.filter(|window| window.start < window.end && window.start < self.until);
        match sensible {
            Some(window) => {
                let wanted = window
                    .start
                    .after(spread(seed, window.end.since(window.start)));
                wanted.min(self.until.before(length / 10))
            }
            None => usual.before(spread(seed, length / 24)),
        }
    }
}

/// What to do next.
pub(super) fn next(situation: &Situation<'_>) -> Next {
    let Situation { now, history, .. } = situation;
    if let Some(lifetime) = situation.there
        && history.asked.is_none()
        && !situation.unwanted
    {
        let due = lifetime.due(situation.window, situation.seed);
        if *now < due {
            return Next::Wait(due, Why::NotDue);
        }
    }
    let mut soonest: Option<(Moment, Why)> = None;
    for (index, (ca, health)) in situation.cas.iter().enumerate() {
        let (mut free, mut why) = situation.free(ca, health);
        let wanted = situation.wanted(index).unwrap_or(Moment(u64::MAX));
        if wanted > free {
            (free, why) = (wanted, Why::Pause);
        }
        if free <= *now {
            return Next::Order(index);
        }
        if soonest.is_none_or(|(soonest, _)| free < soonest) {
            soonest = Some((free, why));
        }
    }
    let (at, why) = soonest.unwrap_or_else(|| (now.after(HOUR), Why::Pause));
    Next::Wait(at, why)
}

// === impl Situation ===

impl Situation<'_> {
    /// From when on this one of the CAs may be asked at all: the first always, the others when
    /// those before them were tried in vain, or there is no time to lose.
    fn wanted(&self, index: usize) -> Option<Moment> {
        let tried = self.cas.iter().take(index).all(|(ca, health)| {
            let failures = self.failures(ca).len();
            failures.max(usize::try_from(health.failures).unwrap_or(usize::MAX)) >= PATIENCE
        });
        match self.there {
            Some(lifetime) if index > 0 && !tried => Some(lifetime.urgent()),
            _ => Some(Moment::default()),
        }
    }

    /// When a CA can be asked again, and why not before.
    fn free(&self, ca: &str, health: &Health) -> (Moment, Why) {
        let failures = self.failures(ca);
        // Whoever asks has perhaps mended something: our own patience is not the measure then, for
        // one attempt.
        let asked_since = |at: Moment| self.history.asked.is_some_and(|asked| asked > at);
        let tried_since = self
            .at(ca)
            .next_back()
            .is_some_and(|last| !asked_since(last.at));
        let last = failures
            .last()
            .filter(|last| tried_since || !asked_since(last.at));
        let pause = last.map_or_else(Moment::default, |last| {
            let pause = PAUSES
                .get(failures.len() - 1)
                .or(PAUSES.last())
                .copied()
                .unwrap_or(HOUR);
            let seed = self.seed ^ last.at.0;
            last.at.after(pause + spread(seed, pause / 10))
        });
        let told = self.at(ca).filter_map(|attempt| match &attempt.outcome {
            Outcome::Failed { not_before, .. } => *not_before,
            Outcome::Started | Outcome::Issued => None,
        });
        let hour: Vec<_> = self
            .at(ca)
            .filter(|attempt| counts_for_names(attempt) || is_of_this_machine(attempt))
            .collect();
        let any: Vec<_> = self
            .at(ca)
            .filter(|attempt| !attempt.outcome.is_unreached())
            .collect();
        let week: Vec<_> = self
            .at(ca)
            .filter(|attempt| counts_as_certificate(attempt))
            .collect();
        // A person may know better what was tried than we do.
        let unknown = self.history.unknown_until;
        let unknown = unknown.filter(|_| tried_since || self.history.asked.is_none());
        let ca_pause = health
            .pause
            .filter(|_| tried_since || !health.last_failure.is_some_and(asked_since));
        let pauses = told
            .chain(health.not_before)
            .chain(ca_pause)
            .chain(unknown)
            .chain(self.held_up())
            .chain([pause]);
        let orders = self.most(HOUR, ORDERS_AN_HOUR);
        let attempts = self.most(HOUR, ATTEMPTS_AN_HOUR);
        let certificates = self.most(WEEK, CERTIFICATES_A_WEEK);
        let limits = [
            (room(&hour, orders, HOUR), Limit::Orders(orders)),
            (room(&any, attempts, HOUR), Limit::Attempts(attempts)),
            (
                room(&week, certificates, WEEK),
                Limit::Certificates(certificates),
            ),
        ];
        pauses
            .map(|at| (at, Why::Pause))
            .chain(limits.map(|(at, limit)| (at, Why::Limit(limit))))
            .max_by_key(|(at, _)| *at)
            .unwrap_or_else(|| (Moment::default(), Why::Pause))
    }

    /// Until when nothing is tried anywhere, as it is this machine that failed, and no other CA could
    /// help.
    fn held_up(&self) -> Option<Moment> {
        let attempts = self.history.attempts.iter().rev();
        let failures = attempts.take_while(|attempt| is_of_this_machine(attempt));
        let last = self.history.attempts.last()?;
        let asked = self.history.asked.is_some_and(|asked| asked > last.at);
        let count = failures.count();
        // Not the shortest: the CA may have heard of the order, so that no limit of its is met by these
        // alone.
        let pause = PAUSES.get(count).or(PAUSES.last()).copied();
        (count > 0 && !asked).then(|| last.at.after(pause.unwrap_or(HOUR)))
    }

    /// Certificates that live for hours or minutes are renewed more often than others.
    fn most(&self, span: u64, usual: u64) -> usize {
        let length = self.there.map_or(WEEK, Lifetime::length).max(1);
        usize::try_from((3 * span).div_ceil(length).max(usual)).unwrap_or(usize::MAX)
    }

    fn at(&self, ca: &str) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.history
            .attempts
            .iter()
            .filter(move |attempt| attempt.ca == ca)
    }

    /// Orders for these names at this CA that failed, or of which nobody knows what became, since
    /// the last that did not; oldest first.
    fn failures(&self, ca: &str) -> Vec<&Attempt> {
        let mut failures: Vec<_> = self
            .at(ca)
            .rev()
            .take_while(|attempt| attempt.outcome != Outcome::Issued)
            .filter(|attempt| counts_for_names(attempt))
            .collect();
        failures.reverse();
        failures
    }
}

/// Whether the CA may have counted it against these names.
fn counts_for_names(attempt: &Attempt) -> bool {
    match attempt.outcome {
        Outcome::Started | Outcome::Issued => true,
        Outcome::Failed { concerns, .. } => concerns == Concerns::Names,
    }
}

fn is_of_this_machine(attempt: &Attempt) -> bool {
    matches!(
        attempt.outcome,
        Outcome::Failed {
            concerns: Concerns::Here,
            ..
        }
    )
}

/// Whether the CA may have counted a certificate.
fn counts_as_certificate(attempt: &Attempt) -> bool {
    match attempt.outcome {
        Outcome::Started => false,
        Outcome::Issued => true,
        Outcome::Failed { signed, .. } => signed,
    }
}

/// When there is room again for one more, if `most` fit into any `span`.
fn room(attempts: &[&Attempt], most: usize, span: u64) -> Moment {
    attempts
        .len()
        .checked_sub(most)
        .and_then(|index| attempts.get(index))
        .map_or_else(Moment::default, |oldest| oldest.at.after(span + 1))
}

/// A number from 0 to `most`, the same for the same seed (SplitMix64).
fn spread(seed: u64, most: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) % most.saturating_add(1).max(1)
}

#[cfg(test)]
mod tests;
