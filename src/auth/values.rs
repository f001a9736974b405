//! What is inside the values that we sign: bytes in, bytes out. No signatures, no clock.
//!
//! Fixed parts first, the user's name last, so that nothing needs a length.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::credential::Fingerprint;
use super::identity::SignIn;

/// The session cookie. Times are in seconds since 1970.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SessionValue {
    pub(super) sign_in: SignIn,
    /// What the CSRF value is made of; known to nobody but the cookie's owner.
    pub(super) seed: [u8; 16],
    pub(super) issued: u64,
    pub(super) renewed: u64,
    pub(super) user: String,
}

/// The cookie of a device from which somebody has signed in before.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct DeviceValue {
    pub(super) id: [u8; 16],
    /// Of the hash at that sign-in: who knew an older password is a stranger.
    pub(super) password: Fingerprint,
    pub(super) issued: u64,
    pub(super) user: String,
}

/// What a sign-in form carries.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct FormValue {
    pub(super) nonce: [u8; 16],
    pub(super) issued: u64,
}

impl SessionValue {
    /// What a form of a signed-in page has to send back. The cookie cannot be made from it.
    pub(super) fn csrf(&self) -> String {
        let input = [b"holdline csrf".as_slice(), &self.seed].concat();
        BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &input))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [
            self.sign_in.id.as_slice(),
            &self.sign_in.password.0,
            &self.seed,
            &self.issued.to_be_bytes(),
            &self.renewed.to_be_bytes(),
            self.user.as_bytes(),
        ]
        .concat()
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let (id, password) = (take(&mut bytes)?, Fingerprint(take(&mut bytes)?));
        Some(Self {
            sign_in: SignIn { id, password },
            seed: take(&mut bytes)?,
            issued: u64::from_be_bytes(take(&mut bytes)?),
            renewed: u64::from_be_bytes(take(&mut bytes)?),
            user: text(bytes)?,
        })
    }
}

impl DeviceValue {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [
            self.id.as_slice(),
            &self.password.0,
            &self.issued.to_be_bytes(),
            self.user.as_bytes(),
        ]
        .concat()
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: take(&mut bytes)?,
            password: Fingerprint(take(&mut bytes)?),
            issued: u64::from_be_bytes(take(&mut bytes)?),
            user: text(bytes)?,
        })
    }
}

impl FormValue {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [self.nonce.as_slice(), &self.issued.to_be_bytes()].concat()
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let value = Self {
            nonce: take(&mut bytes)?,
            issued: u64::from_be_bytes(take(&mut bytes)?),
        };
        bytes.is_empty().then_some(value)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_judged_and_written_as_they_were_read(
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            if let Some(value) = SessionValue::from_bytes(&bytes) {
                prop_assert_eq!(value.to_bytes(), bytes.clone());
            }
            if let Some(value) = DeviceValue::from_bytes(&bytes) {
                prop_assert_eq!(value.to_bytes(), bytes.clone());
            }
            if let Some(value) = FormValue::from_bytes(&bytes) {
                prop_assert_eq!(value.to_bytes(), bytes);
            }
        }
    }
}
