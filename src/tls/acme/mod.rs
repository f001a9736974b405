//! Certificates from a CA (ACME, RFC 8555), by themselves and for good.
//!
//! ```text
//! keeper ── one task ── desk ── kept: one certificate, its history
//!   │                     │       └ plan: what to do next, and when (pure)
//!   │                     └ judge, then the store: what is served
//!   └ underway ── order ── ca, account, jws, transport: the protocol
//!                   └ challenge, dns: how a name is shown to be ours
//! ```
//!
//! A certificate is never the reason for an outage: what is served stays until something better has
//! been checked, and every failure ends in a known next attempt. Nothing is asked of a CA before it
//! is written down in the state directory, so that no restart, crash loop or second instance can
//! run into its limits.
//!
//! There is no OCSP stapling. Let's Encrypt has ended its OCSP service in 2025 and others follow:
//! a certificate without an OCSP address has nothing to staple, browsers that still look do not
//! fail without it, and a stapled answer that is late or wrong is one more way to be down.
//! Short-lived certificates (`profile`) are what makes revocation matter less.

mod account;
mod aside;
mod ca;
mod challenge;
mod desk;
mod dns;
mod history;
mod import;
mod judge;
mod jws;
mod keeper;
mod kept;
mod moment;
mod order;
mod plan;
mod problem;
mod stand_in;
mod state;
mod status;
mod transport;
mod underway;

pub use aside::{change_account_keys, on_disk};
pub use challenge::Challenges;
pub use keeper::AcmeKeeper;
pub use moment::Moment;
pub(crate) use stand_in::SOURCE as STAND_IN;
pub use state::StateError;
pub use status::{CertificateStatus, LastError, Meanwhile, State};
