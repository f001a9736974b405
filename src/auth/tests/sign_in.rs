//! Signing in, signing out, and what a change of the config does.

use std::time::SystemTime;

use super::kit::*;
use crate::auth::{CookieRefused, Credential, Desk, SignInRefused, rotate_key};

#[tokio::test]
async fn the_right_password_makes_a_session_that_lasts() {
    let world = world();
    let mut browser = Browser::at("192.0.2.7");
    let signed_in = world
        .try_in(&mut browser, NICK, "nick's password")
        .await
        .unwrap();
    assert_eq!(&*signed_in.identity.user, NICK);
    let session = world
        .desk
        .by_cookie(&world.auth, &browser.headers(), SystemTime::now())
        .unwrap();
    assert_eq!(session.identity, signed_in.identity);
    assert!(session.csrf.len() >= 43 && session.renew.is_none());
    assert!(world.desk.stands(&world.auth, &session.identity));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_answered_alike() {
    let world = world();
    let mut browser = Browser::at("192.0.2.7");
    for (user, password) in [
        (NICK, "mara's password"),
        (NICK, ""),
        ("nobody", "nick's password"),
        ("", ""),
        ("NICK@example.com", "nick's password"),
    ] {
        let refused = world.try_in(&mut browser, user, password).await.err();
        assert_eq!(refused, Some(SignInRefused::Wrong), "{user}");
    }
    assert!(browser.cookies.is_empty());
}

#[tokio::test]
async fn without_the_mode_nobody_gets_in() {
    let mut world = world();
    let browser = world.nick().await;
    world.auth.password = false;
    let mut other = Browser::at("192.0.2.8");
    let refused = world.try_in(&mut other, NICK, "nick's password").await;
    assert_eq!(refused.err(), Some(SignInRefused::Wrong));
    let headers = browser.headers();
    assert!(
        world
            .desk
            .by_cookie(&world.auth, &headers, SystemTime::now())
            .is_err()
    );
}

#[tokio::test]
async fn signing_out_ends_that_sign_in_everywhere_and_no_other() {
    let world = world();
    let (mut browser, other) = (world.nick().await, world.nick().await);
    let stolen = browser.clone();
    let now = SystemTime::now();
    let by = |browser: &Browser| world.desk.by_cookie(&world.auth, &browser.headers(), now);
    let identity = by(&browser).unwrap().identity;
    let Credential::Password(sign_in) = identity.credential else {
        panic!("{identity:?}")
    };
    browser.take(
        &world
            .desk
            .sign_out("nick", [127, 0, 0, 1].into(), sign_in, now),
    );
    assert_eq!(by(&browser).err(), Some(CookieRefused::Absent));
    assert_eq!(by(&stolen).err(), Some(CookieRefused::Ended));
    assert!(by(&other).is_ok());
    assert!(!world.desk.stands(&world.auth, &identity));
    // Also after a restart.
    let again = Desk::open(&world.auth).unwrap();
    assert!(
        again
            .by_cookie(&world.auth, &stolen.headers(), now)
            .is_err()
    );
    assert!(again.by_cookie(&world.auth, &other.headers(), now).is_ok());
    // The device stays known.
    assert_eq!(browser.cookies.len(), 1);
}

#[tokio::test]
async fn a_changed_password_or_a_removed_user_ends_the_sessions() {
    let world = world();
    let browser = world.nick().await;
    let (headers, now) = (browser.headers(), SystemTime::now());
    let identity = world
        .desk
        .by_cookie(&world.auth, &headers, now)
        .unwrap()
        .identity;
    let mut same_again = world.auth.clone();
    same_again.users = vec![person(NICK, "nick's password")];
    let mut removed = world.auth.clone();
    removed.users.retain(|user| user.name != NICK);
    for auth in [same_again, removed] {
        let refused = world.desk.by_cookie(&auth, &headers, now).err();
        assert_eq!(refused, Some(CookieRefused::Ended));
        assert!(!world.desk.stands(&auth, &identity));
    }
}

#[tokio::test]
async fn sessions_survive_a_restart_and_a_rotation_of_the_key() {
    let world = world();
    let browser = world.nick().await;
    rotate_key(&world.auth).unwrap();
    let (headers, now) = (browser.headers(), SystemTime::now());
    let again = Desk::open(&world.auth).unwrap();
    let session = again.by_cookie(&world.auth, &headers, now).unwrap();
    // Moved to the new key; its forms stay good.
    let mut moved = browser;
    moved.take(&session.renew);
    let after = again.by_cookie(&world.auth, &moved.headers(), now).unwrap();
    assert!(after.renew.is_none());
    assert_eq!(
        (after.identity, after.csrf),
        (session.identity, session.csrf)
    );
    // The old key is dropped when nothing that it signed can be valid.
    let later = now + world.auth.session_max + DAY;
    assert!(again.by_cookie(&world.auth, &headers, later).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_running_process_sees_a_rotated_key() {
    let world = world();
    let other = Desk::open(&world.auth).unwrap();
    rotate_key(&world.auth).unwrap();
    // Signing looks at the file once a minute, an unknown key every few seconds.
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    let browser = world.nick().await;
    let session = other.by_cookie(&world.auth, &browser.headers(), SystemTime::now());
    assert!(session.is_ok_and(|session| session.renew.is_none()));
}
