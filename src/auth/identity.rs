//! A client that was let in: its name, and what it was let in for.
//!
//! Values only.

use std::sync::Arc;

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
    /// The token of this name.
    Token(Arc<str>),
    /// A client certificate.
    Certificate,
    /// A forward-auth service, which is asked again for every new connection.
    Forward,
}

/// Names one sign-in. Random; no secret, for a cookie needs its signature, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignIn(pub [u8; 16]);
