//! Cookies that are too old, torn, foreign or forged; forms; what the gateway gets to see.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::kit::*;
use crate::auth::cookie::{FORM, SESSION};
use crate::auth::{CookieRefused, Desk, Session};

const HOUR: Duration = Duration::from_secs(3600);

fn by(world: &World, cookie: &str, now: SystemTime) -> Option<Session> {
    let headers = with_cookies(&format!("{SESSION}={cookie}"));
    world.desk.by_cookie(&world.auth, &headers, now).ok()
}

#[tokio::test]
async fn an_unused_session_ends_and_a_used_one_goes_on_until_its_end() {
    let world = world();
    let (idle, max) = (world.auth.session_idle, world.auth.session_max);
    let unused = world.nick().await;
    let start = SystemTime::now();
    let value = unused.cookie(SESSION);
    assert!(by(&world, value, start + idle - HOUR).is_some());
    assert!(by(&world, value, start + idle + HOUR).is_none());
    let headers = unused.headers();
    let late = world
        .desk
        .by_cookie(&world.auth, &headers, start + 2 * idle);
    assert_eq!(late.err(), Some(CookieRefused::Expired));

    let mut used = unused.clone();
    let mut now = start;
    let mut renewed = 0;
    while let Ok(session) = world.desk.by_cookie(&world.auth, &used.headers(), now) {
        renewed += u32::from(session.renew.is_some());
        used.take(&session.renew);
        now += DAY;
    }
    let lasted = now.duration_since(start).unwrap();
    assert!(lasted >= max && lasted <= max + 2 * DAY, "{lasted:?}");
    assert!(renewed > 20, "{renewed}");
}

#[tokio::test]
async fn another_length_counts_for_cookies_that_are_there() {
    let mut world = world();
    let browser = world.nick().await;
    let (headers, start) = (browser.headers(), SystemTime::now());
    let at = |world: &World, hours| {
        let session = world
            .desk
            .by_cookie(&world.auth, &headers, start + HOUR * hours);
        session.map(|_| ()).map_err(|refused| (hours, refused))
    };
    assert_eq!(at(&world, 3), Ok(()));
    world.auth.session_idle = 2 * HOUR;
    assert_eq!(at(&world, 1), Ok(()));
    assert_eq!(at(&world, 3), Err((3, CookieRefused::Expired)));
    world.auth.session_max = HOUR / 2;
    assert_eq!(at(&world, 1), Err((1, CookieRefused::Expired)));
}

#[tokio::test]
async fn a_cookie_is_issued_again_only_when_it_has_some_age() {
    let world = world();
    let browser = world.nick().await;
    let now = SystemTime::now();
    let renew = |later| {
        by(&world, browser.cookie(SESSION), now + later)
            .unwrap()
            .renew
    };
    assert!(renew(HOUR - Duration::from_secs(60)).is_none());
    let renewed = renew(HOUR + Duration::from_secs(60)).unwrap();
    let text = renewed.to_str().unwrap();
    assert!(text.contains("; Max-Age=604800;"), "{text}");
    assert!(text.ends_with("SameSite=Lax") && text.starts_with("__Host-holdline="));
}

#[tokio::test]
async fn a_clock_that_was_wrong_is_taken_a_little() {
    let world = world();
    let browser = world.nick().await;
    let now = SystemTime::now();
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert!(by(&world, browser.cookie(SESSION), now - minutes(4)).is_some());
    assert!(by(&world, browser.cookie(SESSION), now - minutes(6)).is_none());
    assert!(by(&world, browser.cookie(SESSION), SystemTime::UNIX_EPOCH).is_none());
}

#[tokio::test]
async fn no_bit_of_a_cookie_can_be_changed_and_no_end_cut_off() {
    let world = world();
    let browser = world.nick().await;
    let (value, now) = (browser.cookie(SESSION), SystemTime::now());
    assert!(by(&world, value, now).is_some());
    for at in 0..value.len() {
        for bit in 0..7 {
            let mut bytes = value.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let text = String::from_utf8(bytes).unwrap();
            // A separator or a space in its place makes two cookies, or none, of it.
            if text.bytes().all(|byte| byte.is_ascii_graphic()) {
                assert!(by(&world, &text, now).is_none(), "{at}.{bit}");
            }
        }
        assert!(by(&world, &value[..at], now).is_none(), "cut at {at}");
    }
    for text in [
        format!("{value}="),
        format!("\"{value}\""),
        format!("{value}A"),
    ] {
        assert!(by(&world, &text, now).is_none(), "{text}");
    }
}

#[tokio::test]
async fn a_cookie_of_another_installation_or_purpose_is_none() {
    let (ours, theirs) = (world(), world());
    let browser = theirs.nick().await;
    let now = SystemTime::now();
    assert!(by(&ours, browser.cookie(SESSION), now).is_none());
    let ours_too = ours.nick().await;
    assert!(by(&ours, ours_too.cookie("__Host-holdline-device"), now).is_none());
    let form = ours.desk.form_token(&with_cookies(""), now);
    assert!(by(&ours, &form.field, now).is_none());
}

#[tokio::test]
async fn one_bad_cookie_beside_a_good_one_does_no_harm() {
    let world = world();
    let browser = world.nick().await;
    let good = browser.cookie(SESSION);
    let text = format!("a=1; {SESSION}=stale; {SESSION}={good}; b=2");
    let headers = with_cookies(&text);
    let session = world
        .desk
        .by_cookie(&world.auth, &headers, SystemTime::now());
    assert!(session.is_ok());
}

#[tokio::test]
async fn the_gateway_sees_none_of_ours() {
    let world = world();
    let mut headers = world.nick().await.headers();
    let text = format!("theme=dark; {}", headers["cookie"].to_str().unwrap());
    headers.insert("cookie", text.parse().unwrap());
    Desk::remove_ours(&world.auth, &mut headers);
    assert_eq!(headers["cookie"], "theme=dark");
}

// === forms ===

#[test]
fn a_form_is_taken_from_the_browser_that_it_was_given_to_and_for_ten_minutes() {
    let world = world();
    let now = SystemTime::now();
    let (mut browser, mut other) = (Browser::at("192.0.2.7"), Browser::at("192.0.2.8"));
    let form = world.desk.form_token(&browser.headers(), now);
    browser.take(&form.cookie);
    other.take(&world.desk.form_token(&other.headers(), now).cookie);
    let check = |browser: &Browser, field: &str, now| {
        world.desk.check_form_token(&browser.headers(), field, now)
    };
    assert!(check(&browser, &form.field, now));
    assert!(check(&browser, &form.field, now + Duration::from_secs(599)));
    assert!(!check(
        &browser,
        &form.field,
        now + Duration::from_secs(601)
    ));
    assert!(!check(&other, &form.field, now));
    assert!(!check(&Browser::at("192.0.2.9"), &form.field, now));
    assert!(!check(&browser, "", now));
    // Neither does a pair that somebody made up.
    let mut forger = Browser::at("192.0.2.9");
    forger.cookies.push((FORM.to_owned(), "x".to_owned()));
    assert!(!check(&forger, "x", now));
}

#[test]
fn several_forms_of_one_browser_can_all_be_sent() {
    let world = world();
    let now = SystemTime::now();
    let mut browser = Browser::at("192.0.2.7");
    let first = world.desk.form_token(&browser.headers(), now);
    browser.take(&first.cookie);
    let second = world.desk.form_token(&browser.headers(), now);
    browser.take(&second.cookie);
    let headers = browser.headers();
    for form in [&first, &second] {
        assert!(world.desk.check_form_token(&headers, &form.field, now));
    }
    let later = world
        .desk
        .form_token(&headers, now + Duration::from_secs(400));
    assert!(later.cookie.is_some(), "the old one would end too soon");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_cookies_are_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        use base64::Engine as _;
        let world = world();
        let now = SystemTime::now();
        let text = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(&bytes);
        prop_assert!(by(&world, &text, now).is_none());
        let raw = [b"__Host-holdline=".as_slice(), &bytes].concat();
        if let Ok(value) = http::HeaderValue::from_bytes(&raw) {
            let mut headers = http::HeaderMap::new();
            headers.insert("cookie", value);
            prop_assert!(world.desk.by_cookie(&world.auth, &headers, now).is_err());
            prop_assert!(!world.desk.check_form_token(&headers, "", now));
            Desk::remove_ours(&world.auth, &mut headers);
        }
    }
}
