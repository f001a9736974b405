//! Our cookies in a request and in a response. What their values mean is not known here.
//!
//! All are `__Host-` ones: a browser takes them from this very host over TLS only, so that no
//! sibling domain can plant one.

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

pub(super) const SESSION: &str = "__Host-holdline";
pub(super) const DEVICE: &str = "__Host-holdline-device";
pub(super) const FORM: &str = "__Host-holdline-form";

/// What browsers take off a name before they look for `__Host-` in it. With anything more taken off
/// here (as Unicode's spaces), a sibling domain could plant a cookie that is ours only to us.
const SPACES: [char; 2] = [' ', '\t'];

/// Every value of this name in a request; there may be several, and not all of them ours.
pub(super) fn values<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            let (found, value) = pair.split_once('=')?;
            (found.trim_matches(SPACES) == name).then(|| value.trim_matches(SPACES))
        })
}

/// `Set-Cookie` for a value in our alphabet; `None` if it is in another.
pub(super) fn set(name: &str, value: &str, max_age: Duration) -> Option<HeaderValue> {
    let seconds = max_age.as_secs();
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// `Set-Cookie` that takes one away.
pub(super) fn clear(name: &str) -> Option<HeaderValue> {
    set(name, "", Duration::ZERO)
}

/// Takes ours out of a request. Headers without any stay as they are, byte for byte, and so does
/// every other cookie.
pub(super) fn remove_ours(headers: &mut HeaderMap) {
    let pairs = |value: &HeaderValue| value.as_bytes().split(|b| *b == b';').any(is_ours);
    if !headers.get_all(COOKIE).iter().any(pairs) {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(without_ours)
        .collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

/// `None`: nothing is left of it.
fn without_ours(value: &HeaderValue) -> Option<HeaderValue> {
    let pairs = || value.as_bytes().split(|byte| *byte == b';');
    if !pairs().any(is_ours) {
        return Some(value.clone());
    }
    let kept: Vec<&[u8]> = pairs().filter(|pair| !is_ours(pair)).collect();
    let joined = kept.join(&b';');
    let joined = joined.trim_ascii_start();
    if joined.is_empty() {
        return None;
    }
    let mut left = HeaderValue::from_bytes(joined).ok()?;
    left.set_sensitive(value.is_sensitive());
    Some(left)
}

fn is_ours(pair: &[u8]) -> bool {
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    name.trim_ascii()
        .strip_prefix(SESSION.as_bytes())
        .is_some_and(|rest| matches!(rest, [] | [b'-', ..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(cookies: &[&[u8]]) -> HeaderMap {
        cookies
            .iter()
            .map(|value| (COOKIE, HeaderValue::from_bytes(value).unwrap()))
            .collect()
    }

    fn removed(cookies: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut headers = headers(cookies);
        remove_ours(&mut headers);
        headers
            .get_all(COOKIE)
            .iter()
            .map(|value| value.as_bytes().to_vec())
            .collect()
    }

    #[test]
    fn ours_go_and_others_stay_byte_for_byte() {
        for (from, to) in [
            ("a=1; __Host-holdline=x; b=2", Some("a=1; b=2")),
            ("__Host-holdline=x; a=1", Some("a=1")),
            ("a=1;  __Host-holdline-device=x", Some("a=1")),
            ("__Host-holdline=x", None),
            ("__Host-holdline=x; __Host-holdline-form=y", None),
            (
                "a=\"1 \";b;;  c==;__Host-holdline = x",
                Some("a=\"1 \";b;;  c=="),
            ),
            (
                "__Host-holdlines=x; x__Host-holdline=y",
                Some("__Host-holdlines=x; x__Host-holdline=y"),
            ),
            (" a=1 ;b=2 ", Some(" a=1 ;b=2 ")),
            ("a=__Host-holdline", Some("a=__Host-holdline")),
            ("", Some("")),
        ] {
            let expected: Vec<Vec<u8>> = to.iter().map(|text| text.as_bytes().to_vec()).collect();
            assert_eq!(removed(&[from.as_bytes()]), expected, "{from}");
        }
        let several = removed(&[b"a=\xff", b"__Host-holdline=x", b"b=2; __Host-holdline=y"]);
        assert_eq!(several, [b"a=\xff".to_vec(), b"b=2".to_vec()]);
    }

    #[test]
    fn a_value_is_found_in_any_header() {
        let headers = headers(&[b"a=1; __Host-holdline=x", b"\xff; __Host-holdline=y"]);
        let found: Vec<&str> = values(&headers, SESSION).collect();
        assert_eq!(found, ["x", "y"]);
        assert_eq!(values(&headers, DEVICE).next(), None);
    }

    #[test]
    fn a_name_that_only_looks_like_ours_is_not() {
        for space in ["\u{a0}", "\u{85}", "\u{2003}", "\u{3000}", "\u{feff}", "\""] {
            let text = format!("{space}{SESSION}=x; {SESSION}{space}=x; {SESSION}=\u{a0}");
            let headers = headers(&[text.as_bytes()]);
            let found: Vec<&str> = values(&headers, SESSION).collect();
            assert_eq!(found, ["\u{a0}"], "{space:?}");
        }
        let tabs = headers(&[b"a=1;\t __Host-holdline\t=\tx "]);
        assert_eq!(values(&tabs, SESSION).collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn a_cookie_is_for_this_host_and_no_script() {
        let cookie = set(SESSION, "x", Duration::from_secs(60)).unwrap();
        assert_eq!(
            cookie.to_str().unwrap(),
            "__Host-holdline=x; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax"
        );
        assert!(cookie.is_sensitive());
        assert_eq!(set(SESSION, "\n", Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn none_of_ours_is_left(
            pairs in proptest::collection::vec("(__Host-holdline(-device)?|a|b)( )?=[a-z \"]{0,3}", 0..6),
            glue in "(;|; )",
        ) {
            let text = pairs.join(&glue);
            let mut headers = headers(&[text.as_bytes()]);
            remove_ours(&mut headers);
            prop_assert_eq!(values(&headers, SESSION).next(), None);
            prop_assert_eq!(values(&headers, DEVICE).next(), None);
            let others = |text: &str| text.split(';').filter(|p| !is_ours(p.as_bytes()) && !p.trim().is_empty()).count();
            let left = headers.get(COOKIE).map_or("", |value| value.to_str().unwrap_or_default());
            prop_assert_eq!(others(left), others(&text));
        }
    }
}
