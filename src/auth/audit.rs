//! One line in the log for everything that somebody may have to look up later.
//!
//! A user's name is written only if it is one of the config's: people type passwords into the name
//! field. Passwords, tokens, cookies and hashes are never here.

use std::net::IpAddr;
use std::time::Duration;

use super::credential::to_hex;
use super::identity::{Identity, SignIn};
use crate::observe::labels::GrantEnd;
use crate::protocol::rescue::whole_seconds;

/// Somebody who is not in the config.
const UNKNOWN: &str = "(unknown)";

/// Who tried what, as the lines name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who<'w> {
    /// `None`: not a configured user.
    pub(super) user: Option<&'w str>,
    pub(super) address: IpAddr,
    /// From a device that this user has signed in from before.
    pub(super) known_device: bool,
}

pub(super) fn sign_in(who: Who<'_>, sign_in: SignIn) {
    tracing::info!(
        target: "holdline::audit",
        event = "sign_in",
        user = who.user(),
        address = %who.address,
        known_device = who.known_device,
        sign_in = short(sign_in),
        "signed in"
    );
}

pub(super) fn sign_in_refused(who: Who<'_>) {
    tracing::info!(
        target: "holdline::audit",
        event = "sign_in_refused",
        user = who.user(),
        address = %who.address,
        known_device = who.known_device,
        "wrong user or password"
    );
}

pub(super) fn sign_in_limited(who: Who<'_>, because: &'static str, retry_after: Duration) {
    tracing::info!(
        target: "holdline::audit",
        event = "sign_in_limited",
        user = who.user(),
        address = %who.address,
        known_device = who.known_device,
        because,
        retry_after_s = whole_seconds(retry_after),
        "too many wrong passwords; refused without a look until this is over"
    );
}

pub(super) fn sign_out(user: &str, address: IpAddr, sign_in: SignIn) {
    tracing::info!(
        target: "holdline::audit",
        event = "sign_out",
        user,
        address = %address,
        sign_in = short(sign_in),
        "signed out"
    );
}

/// A session was opened by what is no sign-in of its own: a token, a certificate, a service.
pub(super) fn entered(identity: &Identity, address: IpAddr) {
    tracing::info!(
        target: "holdline::audit",
        event = "entered",
        user = &*identity.user,
        by = identity.credential.kind(),
        name = identity.credential.name(),
        address = %address,
        "a session was opened"
    );
}

/// Somebody was turned away, for this reason.
pub(super) fn refused(because: &'static str, address: IpAddr) {
    tracing::info!(
        target: "holdline::audit",
        event = "refused",
        user = UNKNOWN,
        because,
        address = %address,
        "not let in"
    );
}

/// Of a flood of refusals.
pub(super) fn left_out(count: u64) {
    tracing::info!(
        target: "holdline::audit",
        event = "refused_often",
        count,
        "so many more were not let in in the last minutes, without a line each"
    );
}

/// Somebody who was let in may not be here any more.
pub(super) fn ended(identity: &Identity, why: GrantEnd) {
    let (event, message) = match why {
        GrantEnd::Revoked => ("revoked", "ended: what it hung on is gone"),
        GrantEnd::SignedOut => ("revoked", "ended: its person has signed out"),
        GrantEnd::Expired => ("expired", "ended: its time is over"),
        GrantEnd::Withdrawn => (
            "withdrawn",
            "ended: asked again, the sign-in service said no",
        ),
        GrantEnd::Unconfirmed => (
            "unconfirmed",
            "ended: the sign-in service could not be asked again for too long",
        ),
    };
    tracing::info!(
        target: "holdline::audit",
        event,
        user = &*identity.user,
        by = identity.credential.kind(),
        name = identity.credential.name(),
        "{message}"
    );
}

pub(super) fn token_refused(address: IpAddr) {
    tracing::info!(
        target: "holdline::audit",
        event = "token_refused",
        user = UNKNOWN,
        address = %address,
        "not one of auth.tokens"
    );
}

pub(super) fn token_limited(address: IpAddr, retry_after: Duration) {
    tracing::info!(
        target: "holdline::audit",
        event = "token_limited",
        user = UNKNOWN,
        address = %address,
        retry_after_s = whole_seconds(retry_after),
        "too many wrong tokens; further ones are not told until this is over"
    );
}

impl<'w> Who<'w> {
    fn user(&self) -> &'w str {
        self.user.unwrap_or(UNKNOWN)
    }
}

/// Enough to find the lines of one sign-in.
fn short(sign_in: SignIn) -> String {
    let mut hex = to_hex(&sign_in.id);
    hex.truncate(12);
    hex
}
