//! What is kept of a secret: hashes, as the config holds them.
//!
//! Parsing and writing only; the hashing itself is in `password` and `token`. Neither type has a
//! `Debug` that shows anything.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// An argon2id hash in PHC form, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    pub(super) cost: Cost,
    pub(super) salt: Box<[u8]>,
    pub(super) hash: Box<[u8]>,
}

/// What one guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

/// SHA-256 of an access token, which is random enough for a fast hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// Why a text is no [`PasswordHash`]. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashRefused {
    /// Something else, or damaged.
    #[error("not an argon2id hash")]
    Malformed,
    /// The beginning of one.
    #[error("an argon2id hash of which a part is missing")]
    Cut,
    /// Every sign-in would cost too much of this machine.
    #[error(
        "it would take too much memory or time: at most m={MOST_MEMORY_KIB} (1 GiB), t={MOST_PASSES}, \
         p={MOST_LANES}"
    )]
    TooExpensive,
}

/// Tells one hash from another; says nothing of what was hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub(super) [u8; 16]);

const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 20;
const MOST_LANES: u32 = 16;

// === impl PasswordHash ===

impl PasswordHash {
    /// Takes a hash as `holdline user add` prints it.
    ///
    /// # Errors
    /// When it is no such thing, or one that this machine should not be asked to check.
    pub fn parse(text: &str) -> Result<Self, HashRefused> {
        let other = match is_cut(text) {
            true => HashRefused::Cut,
            false => HashRefused::Malformed,
        };
        let parsed = split(text).ok_or(other)?;
        let Self { cost, salt, hash } = &parsed;
        let sound = cost.passes >= 1
            && cost.lanes >= 1
            && cost.memory_kib / 8 >= cost.lanes
            && (8..=64).contains(&salt.len())
            && is_whole(hash);
        if !sound {
            return Err(other);
        }
        if cost.memory_kib > MOST_MEMORY_KIB || cost.passes > MOST_PASSES || cost.lanes > MOST_LANES
        {
            return Err(HashRefused::TooExpensive);
        }
        Ok(parsed)
    }

    /// The form that [`PasswordHash::parse`] takes.
    #[must_use]
    pub fn to_phc(&self) -> String {
        let Cost {
            memory_kib,
            passes,
            lanes,
        } = self.cost;
        let salt = BASE64_STANDARD_NO_PAD.encode(&self.salt);
        let hash = BASE64_STANDARD_NO_PAD.encode(&self.hash);
        format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
    }

    /// Changes whenever the password is set anew, also to the same one: the salt is in it.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.to_phc().as_bytes())
    }
}

/// Of a length that hashes have: what lost its end in a copy has another one, mostly.
fn is_whole(hash: &[u8]) -> bool {
    (16..=64).contains(&hash.len()) && hash.len().is_multiple_of(8)
}

/// Whether a text is the beginning of a hash.
fn is_cut(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("$argon2id$") else {
        return false;
    };
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    match rest.split('$').collect::<Vec<_>>()[..] {
        [_, _, _, hash] => {
            let bytes = BASE64_STANDARD_NO_PAD.decode(hash);
            hash.bytes().all(base64) && !bytes.is_ok_and(|bytes| is_whole(&bytes))
        }
        [..] => rest.split('$').count() < 4,
    }
}

/// Whatever its numbers say.
fn split(text: &str) -> Option<PasswordHash> {
    let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
    let (cost, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let mut numbers = cost.split(',');
    let mut number = |name: &str| {
        let digits = numbers.next()?.strip_prefix(name)?.strip_prefix('=')?;
        let canonical = digits.bytes().all(|byte| byte.is_ascii_digit());
        canonical.then(|| digits.parse().ok()).flatten()
    };
    let cost = Cost {
        memory_kib: number("m")?,
        passes: number("t")?,
        lanes: number("p")?,
    };
    if numbers.next().is_some() {
        return None;
    }
    let bytes = |text: &str| BASE64_STANDARD_NO_PAD.decode(text).ok();
    Some(PasswordHash {
        cost,
        salt: bytes(salt)?.into(),
        hash: bytes(hash)?.into(),
    })
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

// === impl TokenHash ===

impl TokenHash {
    /// Takes a hash as `holdline token add` prints it, in base64url, or the same in hex as
    /// `sha256sum` prints it; `None` if it is no such thing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = match text.len() {
            64 => from_hex(text)?,
            _ => BASE64_URL_SAFE_NO_PAD
                .decode(text.trim_end_matches('='))
                .ok()?,
        };
        bytes.try_into().ok().map(Self)
    }

    /// The hash of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }

    /// The form that [`TokenHash::parse`] takes.
    #[must_use]
    pub fn to_base64url(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The bytes, to be compared in constant time.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    fn of(bytes: &[u8]) -> Self {
        let digest = digest(&SHA256, bytes);
        let mut short = [0; 16];
        for (to, from) in short.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(short)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

// === hex ===

/// Pairs of hex digits of either case.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn a_hash_is_written_as_it_was_read() {
        assert_eq!(PasswordHash::parse(GOOD).unwrap().to_phc(), GOOD);
    }

    #[test]
    fn a_hash_that_would_stall_the_machine_is_refused() {
        for cost in [
            "m=1048577,t=2,p=1",
            "m=19456,t=21,p=1",
            "m=19456,t=2,p=17",
            "m=4294967295,t=1,p=1",
        ] {
            let text = GOOD.replace("m=19456,t=2,p=1", cost);
            assert_eq!(
                PasswordHash::parse(&text),
                Err(HashRefused::TooExpensive),
                "{cost}"
            );
        }
    }

    #[test]
    fn a_hash_that_lost_its_end_is_told_apart() {
        let mut seen_as_whole = 0;
        for cut in "$argon2id$".len()..GOOD.len() {
            match PasswordHash::parse(&GOOD[..cut]) {
                Err(refused) => assert_eq!(refused, HashRefused::Cut, "{}", &GOOD[..cut]),
                Ok(_) => seen_as_whole += 1,
            }
        }
        // The length of another hash, by chance.
        assert!(seen_as_whole <= 2, "{seen_as_whole}");
    }

    #[test]
    fn what_is_no_argon2id_hash_is_refused() {
        for (from, to) in [
            ("argon2id", "argon2i"),
            ("v=19", "v=16"),
            ("m=19456", "m=7"),
            ("m=19456", "m=+19456"),
            ("m=19456", "m=19456,m=1"),
            ("t=2", "t=0"),
            ("p=1", "p=0"),
            ("p=1", "p=1,keyid=YQ"),
            ("c2FsdHNhbHRzYWx0c2FsdA", "c2FsdA"),
            ("GRPPc", "GRPPc$x"),
            ("GRPPc", "GRP!c"),
        ] {
            let text = GOOD.replace(from, to);
            assert_eq!(
                PasswordHash::parse(&text),
                Err(HashRefused::Malformed),
                "{text}"
            );
        }
    }

    #[test]
    fn a_tokens_hash_is_taken_as_hex_and_as_base64url() {
        let hash = TokenHash::of("hl_x");
        let hex = to_hex(hash.as_bytes());
        for text in [
            hash.to_base64url(),
            hash.to_base64url() + "=",
            hex.to_uppercase(),
            hex,
        ] {
            assert!(TokenHash::parse(&text) == Some(hash), "{text}");
        }
        let token = format!("hl_{}", "A".repeat(43));
        for text in ["", "abc", &token, &"g".repeat(64)] {
            assert!(TokenHash::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "(\\$argon2id\\$v=19\\$)?[mtp=0-9,$a-zA-Z]{0,80}|\\PC{0,80}") {
            let _ = TokenHash::parse(&text);
            if let Ok(hash) = PasswordHash::parse(&text) {
                prop_assert!(PasswordHash::parse(&hash.to_phc()) == Ok(hash));
            }
        }
    }
}
