//! The keys that cookies are signed with: the current one and those before it. Pure.
//!
//! A key that was replaced is accepted for as long as a sign-in may last; then nothing that it has
//! signed can be valid any more. Keys have no `Debug` and are wiped.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::credential::{from_hex, to_hex};

/// First line of the file.
const HEADER: &str = "holdline keys 1";

/// Oldest ones go first, whatever they still signed.
const MOST: usize = 64;

/// Names a key in what it has signed.
pub(super) type KeyId = [u8; 8];

/// One key.
pub(super) struct Key {
    pub(super) id: KeyId,
    /// Seconds since 1970.
    made: u64,
    bytes: Zeroizing<[u8; 32]>,
    pub(super) hmac: hmac::Key,
}

/// The newest first; never empty.
pub(super) struct Keyring {
    first: Arc<Key>,
    older: Vec<Arc<Key>>,
}

/// What is wrong with a key file; says nothing of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not start as one.
    #[error("it does not start with \"{HEADER}\"")]
    Header,
    /// A line that is no key.
    #[error("line {0} is no key")]
    Line(usize),
    /// More than any that we write.
    #[error("it is too large")]
    Size,
    /// No key at all.
    #[error("there is no key in it")]
    Empty,
}

impl Key {
    fn new(id: KeyId, made: u64, bytes: Zeroizing<[u8; 32]>) -> Self {
        let hmac = hmac::Key::new(HMAC_SHA256, bytes.as_ref());
        Self {
            id,
            made,
            bytes,
            hmac,
        }
    }

    /// A random one; `None` if the operating system has no random numbers.
    fn make(made: u64) -> Option<Self> {
        let (mut id, mut bytes) = (KeyId::default(), Zeroizing::new([0; 32]));
        rand::fill(&mut id).ok()?;
        rand::fill(bytes.as_mut()).ok()?;
        Some(Self::new(id, made, bytes))
    }
}

impl Keyring {
    /// One of a single new key.
    pub(super) fn make(now: u64) -> Option<Self> {
        let first = Arc::new(Key::make(now)?);
        Some(Self {
            first,
            older: Vec::new(),
        })
    }

    /// The key to sign with.
    pub(super) fn first(&self) -> &Arc<Key> {
        &self.first
    }

    /// The key of a signature, if it is still accepted.
    pub(super) fn find(&self, id: KeyId, now: u64, keep: Duration) -> Option<&Arc<Key>> {
        if self.first.id == id {
            return Some(&self.first);
        }
        let (key, _) = self.replaced(now, keep).find(|(key, _)| key.id == id)?;
        Some(key)
    }

    /// The same with a new key in front, without those that are past their time.
    pub(super) fn rotated(&self, now: u64, keep: Duration) -> Option<Self> {
        let first = Arc::new(Key::make(now)?);
        let older = self.replaced(now, keep).map(|(key, _)| Arc::clone(key));
        let older = std::iter::once(Arc::clone(&self.first)).chain(older);
        Some(Self {
            first,
            older: older.take(MOST - 1).collect(),
        })
    }

    /// Older keys that are still accepted, each with the time at which it was replaced.
    fn replaced(&self, now: u64, keep: Duration) -> impl Iterator<Item = (&Arc<Key>, u64)> {
        let newer = std::iter::once(&self.first).chain(&self.older);
        self.older
            .iter()
            .zip(newer.map(|newer| newer.made))
            .filter(move |(_, replaced)| now.saturating_sub(*replaced) <= keep.as_secs())
    }

    // === the file ===

    pub(super) fn parse(text: &str) -> Result<Self, Damage> {
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, line)| line != HEADER) {
            return Err(Damage::Header);
        }
        let mut keys = lines
            .filter(|(_, line)| !line.is_empty())
            .take(MOST)
            .map(|(index, line)| parse_key(line).ok_or(Damage::Line(index + 1)));
        let first = Arc::new(keys.next().ok_or(Damage::Empty)??);
        let older = keys
            .map(|key| key.map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self { first, older })
    }

    pub(super) fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity((2 + self.older.len()) * 128));
        text.push_str(HEADER);
        text.push('\n');
        for key in std::iter::once(&self.first).chain(&self.older) {
            let bytes = Zeroizing::new(to_hex(key.bytes.as_ref()));
            text.push_str(&format!("{} {} ", to_hex(&key.id), key.made));
            text.push_str(&bytes);
            text.push('\n');
        }
        text
    }
}

fn parse_key(line: &str) -> Option<Key> {
    let mut words = line.split(' ');
    let (id, made, bytes) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let bytes = Zeroizing::new(from_hex(bytes)?);
    let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).ok()?);
    let id = from_hex(id)?.try_into().ok()?;
    Some(Key::new(id, made.parse().ok()?, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_replaced_key_is_accepted_for_as_long_as_a_sign_in_lasts() {
        let one = Keyring::make(1_000).unwrap();
        let id = one.first().id;
        let two = one.rotated(500_000, DAY).unwrap();
        assert!(two.first().id != id);
        // It counts from when it was replaced, not from when it was made.
        assert!(two.find(id, 500_000 + DAY.as_secs(), DAY).is_some());
        assert!(two.find(id, 500_001 + DAY.as_secs(), DAY).is_none());
        assert!(two.find(two.first().id, u64::MAX, DAY).is_some());
        assert!(two.find([0; 8], 500_000, DAY).is_none());
        let three = two.rotated(600_000, DAY).unwrap();
        assert!(three.find(id, 500_001, 2 * DAY).is_none(), "dropped");
    }

    #[test]
    fn a_ring_is_read_as_it_was_written() {
        let ring = Keyring::make(5).unwrap().rotated(7, DAY).unwrap();
        let text = ring.to_text();
        let read = Keyring::parse(&text).map_err(|damage| damage.to_string());
        assert_eq!(*read.unwrap().to_text(), *text);
    }

    #[test]
    fn many_rotations_stay_bounded() {
        let mut ring = Keyring::make(0).unwrap();
        for now in 0..200 {
            ring = ring.rotated(now, DAY).unwrap();
        }
        assert_eq!(ring.older.len(), MOST - 1);
    }

    #[test]
    fn a_damaged_file_is_told_without_its_keys() {
        let text = Keyring::make(5).unwrap().to_text().to_string();
        let damage = |text: &str| Keyring::parse(text).err();
        assert_eq!(damage(""), Some(Damage::Header));
        assert_eq!(damage("holdline keys 1\n"), Some(Damage::Empty));
        let torn = text.trim_end().strip_suffix(char::is_alphanumeric).unwrap();
        assert_eq!(damage(torn), Some(Damage::Line(2)));
        assert_eq!(damage(&format!("{text}x\n")), Some(Damage::Line(3)));
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "(holdline keys 1\n)?[0-9a-f \n]{0,200}") {
            let _ = Keyring::parse(&text);
        }
    }
}
