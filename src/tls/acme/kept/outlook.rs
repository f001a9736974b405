//! What there is to know of one certificate: how long it lasts, what is to be done next, and what is
//! told of it. Pure: nothing here waits or writes.

use aws_lc_rs::digest;

use super::{Busy, Kept};
use crate::config::Directory;
use crate::tls::Certificate;
use crate::tls::acme::ca::identifier;
use crate::tls::acme::history::{Concerns, Health, Outcome, Window};
use crate::tls::acme::moment::Moment;
use crate::tls::acme::plan::{Lifetime, Next, Situation, Why, next};
use crate::tls::acme::status::{CertificateStatus, LastError, State};

impl Kept {
    pub(super) fn until(&self) -> Option<Moment> {
        self.certificate.as_ref().map(|it| lifetime(it).until)
    }

    /// The directory URL of the CA that the certificate came from.
    fn origin(&self) -> Option<&str> {
        let origin = self.history.issuer.as_deref();
        origin.filter(|_| self.certificate.is_some())
    }

    /// Whether the certificate can be served now; one that has expired in the meantime cannot.
    pub(in crate::tls::acme) fn is_served(&self, now: Moment) -> bool {
        self.certificate
            .as_ref()
            .is_some_and(|it| is_valid(it, now))
    }

    /// The CA's name for the certificate that is there.
    pub(in crate::tls::acme) fn identifier(
        &self,
    ) -> Option<instant_acme::CertificateIdentifier<'static>> {
        identifier(self.certificate.as_ref()?.key().cert.first()?)
    }

    fn window(&self) -> Option<Window> {
        let renewal = self.history.renewal.as_ref()?;
        let ours = self.identifier()?.to_string();
        renewal.window.filter(|_| renewal.certificate == ours)
    }

    fn seed(&self) -> u64 {
        let leaf = self
            .certificate
            .as_ref()
            .and_then(|it| it.key().cert.first());
        let bytes = leaf.map_or(self.folder.as_bytes(), AsRef::as_ref);
        let hash = digest::digest(&digest::SHA256, bytes);
        hash.as_ref()
            .iter()
            .take(8)
            .fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
    }

    // === what is to be done ===

    pub(in crate::tls::acme) fn next(&self, cas: &[(&str, &Health)], now: Moment) -> Next {
        let issuer = self.history.issuer.as_deref();
        next(&Situation {
            unwanted: issuer.is_some_and(|issuer| !cas.iter().any(|(ca, _)| *ca == issuer)),
            now,
            there: self.certificate.as_ref().map(lifetime),
            window: self.window(),
            history: &self.history,
            cas,
            seed: self.seed(),
        })
    }

    /// Whether the last order has been begun and its end is not known.
    pub(in crate::tls::acme) fn is_under_way(&self) -> bool {
        let last = self.history.attempts.last();
        last.is_some_and(|attempt| attempt.outcome == Outcome::Started)
    }

    /// Why nothing is ordered although nothing is known to have failed.
    fn unknown(&self, now: Moment) -> Option<LastError> {
        let until = self.history.unknown_until.filter(|until| *until > now)?;
        Some(LastError {
            at: now,
            ca: String::new(),
            reason: format!(
                "what a newer holdline has ordered cannot be read by this one, and may count until \
                 {until}; run the newer one again, or `holdline cert renew`"
            ),
        })
    }

    /// An order that nobody is at any more, and of which nobody knows what became.
    fn broken_off(&self, named: impl Fn(&str) -> String) -> Option<LastError> {
        let last = self.history.attempts.last()?;
        (self.is_under_way() && self.busy == Busy::No).then(|| LastError {
            at: last.at,
            ca: named(&last.ca),
            reason:
                "the process ended in the middle of the last order; the next attempt takes it up"
                    .to_owned(),
        })
    }

    /// Failed orders for these names in a row, wherever.
    pub(in crate::tls::acme) fn failures(&self) -> usize {
        let outcomes = self.history.attempts.iter().rev();
        outcomes
            .take_while(|attempt| attempt.outcome != Outcome::Issued)
            .filter(|attempt| matches!(attempt.outcome, Outcome::Failed { .. }))
            .count()
    }

    /// Those of them in which the names could not be shown to be ours.
    pub(in crate::tls::acme) fn unproved(&self) -> usize {
        let outcomes = self.history.attempts.iter().rev();
        outcomes
            .take_while(|attempt| attempt.outcome != Outcome::Issued)
            .filter(|attempt| matches!(attempt.outcome, Outcome::Failed { unproved: true, .. }))
            .count()
    }

    pub(in crate::tls::acme) fn status(
        &self,
        next: Next,
        cas: &[Directory],
        now: Moment,
    ) -> CertificateStatus {
        let named = |url: &str| {
            let known = cas.iter().find(|ca| ca.url == url);
            known.map_or_else(|| url.to_owned(), |ca| ca.name.clone())
        };
        let last_error = match (self.troubles.first(), self.history.last_error()) {
            (Some(trouble), _) => Some(LastError {
                at: trouble.at,
                ca: String::new(),
                reason: trouble.reason.clone(),
            }),
            (None, Some((attempt, reason))) => Some(LastError {
                at: attempt.at,
                ca: match attempt.outcome {
                    Outcome::Failed {
                        concerns: Concerns::Here,
                        ..
                    } => String::new(),
                    _ => named(&attempt.ca),
                },
                reason: reason.to_owned(),
            }),
            (None, None) => self.broken_off(named).or_else(|| self.unknown(now)),
        };
        let served = self.is_served(now);
        let (text, next_at) = match (&self.busy, next) {
            (Busy::Ordering(ca), _) => (format!("is being ordered at {ca}"), Some(now)),
            (Busy::Reading, _) => (
                "is looked for in the state directory; if this stays so, see the disk of \
                 [acme] state_dir"
                    .to_owned(),
                None,
            ),
            (Busy::Elsewhere, _) => ("another instance orders it now".to_owned(), Some(now)),
            (Busy::No, Next::Order(_)) if self.troubles.first().is_some() => (
                "is ordered as soon as the state directory can be used".to_owned(),
                None,
            ),
            (Busy::No, Next::Order(_)) => ("is ordered in a moment".to_owned(), Some(now)),
            (Busy::No, Next::Wait(at, Why::NotDue)) => (format!("is renewed on {at}"), Some(at)),
            (Busy::No, Next::Wait(at, Why::Pause)) => (format!("is tried again on {at}"), Some(at)),
            (Busy::No, Next::Wait(at, Why::Limit(limit))) => (
                format!("is tried again on {at}: the limit is {limit}"),
                Some(at),
            ),
        };
        CertificateStatus {
            names: self.names.clone(),
            state: if served {
                State::Served
            } else {
                State::Awaited
            },
            from: self.certificate.as_ref().map(|it| lifetime(it).from),
            until: self.until(),
            ca: self.origin().map(named),
            issuer: self
                .certificate
                .as_ref()
                .map(|it| it.facts().issuer.clone()),
            meanwhile: Vec::new(),
            next: text,
            next_at,
            failures: self.failures(),
            last_error,
        }
    }
}

pub(super) fn lifetime(certificate: &Certificate) -> Lifetime {
    let facts = certificate.facts();
    Lifetime {
        from: facts.not_before.into(),
        until: facts.not_after.into(),
    }
}

/// Whether it has not expired. Where it is not valid yet, the clock is wrong: it was when we took it.
pub(in crate::tls::acme) fn is_valid(certificate: &Certificate, now: Moment) -> bool {
    !lifetime(certificate).is_over(now)
}

/// Whether a client that asks for `name` would take it. A wildcard stands for one label.
pub(in crate::tls::acme) fn covers(certificate: &Certificate, name: &str) -> bool {
    let wildcard = name
        .split_once('.')
        .map(|(_, parent)| format!("*.{parent}"));
    let names = &certificate.facts().names;
    names
        .iter()
        .any(|it| it == name || Some(it) == wildcard.as_ref())
}
