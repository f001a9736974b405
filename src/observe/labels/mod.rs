//! The label values of [`Metrics`](crate::observe::Metrics): what can be told apart in the numbers.
//!
//! A value that is missing here is one variant and one name away.

mod auth;
mod edge;
mod line;

pub use auth::{GrantEnd, SignInOutcome, Way};
pub use edge::{Handshake, HttpError, HttpOutcome, Refusal, TlsFailure};
pub use line::{
    GatewayPhase, ProbeResult, ResumeWay, SessionEnd, SessionState, Settled, UpgradeOutcome,
};

#[cfg(test)]
fn ends_with<L: super::Label>(last: L) {
    assert_eq!(last.index() + 1, L::NAMES.len(), "{}", L::KEY);
}
