//! What is wrong with the state directory for one certificate: each kind until it goes well again.

use std::fmt;

use crate::tls::acme::moment::Moment;

/// What went wrong. Told in this order: the first says most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::tls::acme) enum Cause {
    /// The certificate that is served cannot be written.
    Unsaved,
    /// What came of an order cannot be written down.
    Unwritten,
    /// The history cannot be read.
    History,
    /// The certificate cannot be read.
    Certificate,
    /// An order cannot be begun.
    Order,
    /// Another process has been at it for longer than an order takes.
    Elsewhere,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tls::acme) struct Trouble {
    cause: Cause,
    /// Since when.
    pub(in crate::tls::acme) at: Moment,
    pub(in crate::tls::acme) reason: String,
}

/// All that there are.
#[derive(Debug, Default)]
pub(in crate::tls::acme) struct Troubles(Vec<Trouble>);

impl Troubles {
    /// Whether it is new, or another reason.
    pub(in crate::tls::acme) fn met(
        &mut self,
        cause: Cause,
        reason: &dyn fmt::Display,
        now: Moment,
    ) -> bool {
        let reason = reason.to_string();
        match self.0.iter_mut().find(|one| one.cause == cause) {
            Some(known) if known.reason == reason => return false,
            Some(known) => (known.at, known.reason) = (now, reason),
            None => self.0.push(Trouble {
                cause,
                at: now,
                reason,
            }),
        }
        self.0.sort_by_key(|one| one.cause);
        true
    }

    pub(in crate::tls::acme) fn over(&mut self, cause: Cause) {
        self.0.retain(|one| one.cause != cause);
    }

    /// What is to be told.
    pub(in crate::tls::acme) fn first(&self) -> Option<&Trouble> {
        self.0.first()
    }
}
