//! A client that was let in: its name, and what it was let in for.
//!
//! Values only.

use std::sync::Arc;

use super::credential::Fingerprint;
use crate::config::{CertificateName, ForwardAuth};
use crate::observe::labels::Way;
use crate::tls::Authority;

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
    /// A client certificate, read by this rule, of one of these CAs.
    Certificate(CertificateName, Arc<[Authority]>),
    /// A forward-auth service, which is asked for every new connection, and again while it is open.
    Forward(Service),
}

/// Names one forward-auth service, and what of its answer is the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service(Arc<str>);

impl Service {
    /// The config's.
    #[must_use]
    pub fn of(config: &ForwardAuth) -> Self {
        let ForwardAuth {
            tls,
            host,
            port,
            path,
            user,
            ..
        } = config;
        let scheme = if *tls { "https" } else { "http" };
        Self(format!("{scheme}://{host}:{port}{path} {user}").into())
    }
}

impl Credential {
    /// For the numbers: its kind.
    #[must_use]
    pub fn way(&self) -> Way {
        match self {
            Self::Password(_) => Way::Password,
            Self::Token(_) => Way::Token,
            Self::Certificate(..) => Way::Mtls,
            Self::Forward(_) => Way::Forward,
        }
    }

    /// For the log: its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Password(_) => "password",
            Self::Token(_) => "token",
            Self::Certificate(..) => "certificate",
            Self::Forward(_) => "forward",
        }
    }

    /// For the log: the token's name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Token(token) => Some(&token.name),
            _ => None,
        }
    }
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
