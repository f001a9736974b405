//! Values that we give away and must know again: signed, not secret.
//!
//! `version · kind · key · body · HMAC-SHA256 over all that`, in base64url. The kind keeps what was
//! made for one purpose from being used for another. What a body says is in `values`.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::keyring::{Key, KeyId};

const VERSION: u8 = 1;
const TAG: usize = 32;
/// Browsers keep no longer cookies.
const LONGEST: usize = 4096;

/// What a value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Session = 1,
    Device = 2,
    Form = 3,
}

/// A body whose signature is right, and by which key.
pub(super) struct Opened {
    pub(super) body: Vec<u8>,
    pub(super) key: KeyId,
}

/// Signs a body.
pub(super) fn seal(key: &Key, kind: Kind, body: &[u8]) -> String {
    let mut bytes = vec![VERSION, kind as u8];
    bytes.extend_from_slice(&key.id);
    bytes.extend_from_slice(body);
    let tag = hmac::sign(&key.hmac, &bytes);
    bytes.extend_from_slice(tag.as_ref());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The body, if one of the keys has signed it for this purpose.
pub(super) fn open(
    text: &str,
    kind: Kind,
    find: impl FnOnce(KeyId) -> Option<Arc<Key>>,
) -> Option<Opened> {
    if text.len() > LONGEST {
        return None;
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (signed, tag) = bytes.split_last_chunk::<TAG>()?;
    let (version, rest) = signed.split_first()?;
    let (for_kind, rest) = rest.split_first()?;
    let (id, body) = rest.split_first_chunk()?;
    if *version != VERSION || *for_kind != kind as u8 {
        return None;
    }
    let key = find(*id)?;
    hmac::verify(&key.hmac, signed, tag).ok()?;
    Some(Opened {
        body: body.to_vec(),
        key: *id,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::keyring::Keyring;
    use super::*;

    fn key() -> Arc<Key> {
        Arc::clone(Keyring::make(0).unwrap().first())
    }

    fn body(text: &str, kind: Kind, key: &Arc<Key>) -> Option<Vec<u8>> {
        open(text, kind, |_| Some(Arc::clone(key))).map(|opened| opened.body)
    }

    #[test]
    fn what_was_sealed_opens_for_its_purpose_and_by_its_key_only() {
        let (ours, foreign) = (key(), key());
        let text = seal(&ours, Kind::Device, b"body");
        assert_eq!(body(&text, Kind::Device, &ours), Some(b"body".to_vec()));
        assert_eq!(body(&text, Kind::Session, &ours), None);
        assert_eq!(body(&text, Kind::Device, &foreign), None);
        assert!(open(&text, Kind::Device, |_| None).is_none());
        let padded = format!("{text}=");
        assert_eq!(body(&padded, Kind::Device, &ours), None);
    }

    #[test]
    fn no_bit_can_be_changed() {
        let key = key();
        let text = seal(&key, Kind::Session, b"somebody@example.com");
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                if let Ok(changed) = String::from_utf8(bytes) {
                    assert_eq!(body(&changed, Kind::Session, &key), None, "{at}.{bit}");
                }
            }
            assert_eq!(body(&text[..at], Kind::Session, &key), None, "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn random_text_opens_nothing(text in "[A-Za-z0-9_-]{0,300}|\\PC{0,100}") {
            prop_assert_eq!(body(&text, Kind::Session, &key()), None);
        }
    }
}
