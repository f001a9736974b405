//! Access tokens, for programs: making one, finding one in a request, comparing hashes.
//!
//! A token is `hl_` and 32 random bytes in base64url. Bearer values of another form are not ours
//! and none of our business.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::credential::TokenHash;
use crate::config::AccessToken;

const PREFIX: &str = "hl_";
/// 32 bytes in base64url.
const LENGTH: usize = 43;

/// A new token; it is shown once and kept by nobody here.
///
/// # Errors
/// When the operating system has no random numbers.
pub fn make() -> Result<Zeroizing<String>, NoRandom> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(bytes.as_mut()).map_err(|_| NoRandom)?;
    let mut token = Zeroizing::new(String::with_capacity(PREFIX.len() + LENGTH));
    token.push_str(PREFIX);
    BASE64_URL_SAFE_NO_PAD.encode_string(bytes.as_ref(), &mut token);
    Ok(token)
}

/// The operating system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct NoRandom;

/// The bearer value of ours in a request, if there is one.
pub(super) fn presented(headers: &HeaderMap) -> Option<&str> {
    all_presented(headers).next()
}

/// Every one of them.
pub(super) fn all_presented(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, rest) = value.to_str().ok()?.trim_start().split_once(' ')?;
        let token = rest.trim();
        (scheme.eq_ignore_ascii_case("bearer") && token.starts_with(PREFIX)).then_some(token)
    })
}

/// Whether a text has the form of what [`make`] makes.
pub(super) fn is_one(text: &str) -> bool {
    let random = text.strip_prefix(PREFIX).unwrap_or_default();
    let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    random.len() == LENGTH && random.bytes().all(in_alphabet)
}

/// The configured token that this is. All of them are looked at, whichever it is.
pub(super) fn find<'t>(tokens: &'t [AccessToken], presented: &str) -> Option<&'t AccessToken> {
    let hash = TokenHash::of(presented);
    tokens.iter().fold(None, |found, token| {
        let same = verify_slices_are_equal(token.hash.as_bytes(), hash.as_bytes()).is_ok();
        if same { Some(token) } else { found }
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (AUTHORIZATION, HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_new_token_has_the_form_that_is_recognised() {
        let token = make().unwrap();
        assert_eq!(token.len(), 46);
        assert!(is_one(&token) && !is_one(&token[..45]) && !is_one("hl_gateway"));
        let mut headers = HeaderMap::new();
        let value = format!("bearer  {}", token.as_str());
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        assert_eq!(presented(&headers), Some(token.as_str()));
        assert!(*token != *make().unwrap());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        assert_eq!(presented(&headers(&[])), None);
        assert_eq!(presented(&headers(&["Bearer abc", "Basic hl_abc"])), None);
        assert_eq!(presented(&headers(&["hl_abc", "Bearer", "Bearer "])), None);
        assert_eq!(
            presented(&headers(&["Basic a", "Bearer hl_a"])),
            Some("hl_a")
        );
    }
}
