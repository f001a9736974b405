//! A client that was let in: its name, and what it was let in for.
//!
//! Values only.

use std::sync::Arc;

use super::credential::Fingerprint;

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The name that the gateway is told.
    pub user: Arc<str>,
    /// What it hangs on: when that goes, its sessions end.
    pub credential: Credential,
}

/// What an identity hangs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A password, through the cookie of this sign-in.
    Password(SignIn),
    /// An access token.
    Token(TokenName),
    /// A client certificate.
    Certificate,
    /// A forward-auth service, which is asked again for every new connection.
    Forward,
}

/// Names one sign-in. Random; no secret, for a cookie needs its signature, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignIn {
    pub(super) id: [u8; 16],
    /// Of the password's hash that it was made with.
    pub(super) password: Fingerprint,
}

/// Names one token of the config.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenName {
    /// Its name, for logs.
    pub name: Arc<str>,
    /// Of its hash: another token may have been put under the name since.
    pub(super) hash: Fingerprint,
}
