//! What can be told apart about who comes in, where that is decided here.

use crate::observe::Label;

/// By what somebody comes in: the modes of `[auth]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A password, or the cookie of a sign-in.
    Password,
    /// An access token.
    Token,
    /// A client certificate.
    Mtls,
    /// The word of a forward-auth service.
    Forward,
}

/// What came of something that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInOutcome {
    /// Let in: one sign-in of a password, one request of anything else.
    Ok,
    /// Not one of ours, or the service said no.
    Wrong,
    /// Not looked at: too many wrong ones before.
    Limited,
    /// Not looked at: too many others at that moment.
    Busy,
    /// A cookie past its time.
    Expired,
    /// A cookie of a sign-in that was ended, or of a password or user that is gone.
    Revoked,
    /// The service gave no answer to go by.
    Unavailable,
}

/// Why somebody who was let in is no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantEnd {
    /// The config no longer has what it hung on.
    Revoked,
    /// Its person signed out.
    SignedOut,
    /// Its time was over.
    Expired,
    /// The service, asked again, said no.
    Withdrawn,
    /// The service could not be asked for too long.
    Unconfirmed,
}

// === impl Label ===

impl Label for Way {
    const KEY: &'static str = "way";
    const NAMES: &'static [&'static str] = &["password", "token", "mtls", "forward"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for SignInOutcome {
    const KEY: &'static str = "outcome";
    const NAMES: &'static [&'static str] = &[
        "ok",
        "wrong",
        "limited",
        "busy",
        "expired",
        "revoked",
        "unavailable",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for GrantEnd {
    const KEY: &'static str = "reason";
    const NAMES: &'static [&'static str] = &[
        "revoked",
        "signed_out",
        "expired",
        "withdrawn",
        "unconfirmed",
    ];

    fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::labels::ends_with;

    #[test]
    fn every_variant_has_a_name() {
        ends_with(Way::Forward);
        ends_with(SignInOutcome::Unavailable);
        ends_with(GrantEnd::Unconfirmed);
    }
}
