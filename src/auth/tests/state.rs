//! The state directory: modes, damage, and several processes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::kit::*;
use crate::auth::{Desk, DeskError, rotate_key};

#[test]
fn the_key_is_private_and_made_once() {
    let world = world();
    let path = world.folder.path().join("auth.key");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(&path).unwrap();
    Desk::open(&world.auth).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn without_passwords_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut auth = auth(&folder.path().join("not there"));
    auth.password = false;
    Desk::open(&auth).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_key_that_others_may_read_is_refused_until_it_is_replaced() {
    let world = world();
    let path = world.folder.path().join("auth.key");
    let before = fs::read_to_string(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let error = Desk::open(&world.auth).unwrap_err().to_string();
    for words in [
        path.to_str().unwrap(),
        "mode 640",
        "chmod 600",
        "key rotate",
    ] {
        assert!(error.contains(words), "no {words} in: {error}");
    }
    rotate_key(&world.auth).unwrap();
    let after = fs::read_to_string(&path).unwrap();
    assert_eq!(after.lines().count(), 2, "nothing of the old key is kept");
    assert!(before != after);
    Desk::open(&world.auth).unwrap();
}

#[test]
fn a_key_of_somebody_else_is_refused_until_it_is_replaced() {
    let world = world();
    let path = world.folder.path().join("auth.key");
    let before = fs::read_to_string(&path).unwrap();
    // Only root can give a file away; the rule itself is tested beside it.
    if chown(&path, Some(12_345), None).is_err() {
        return;
    }
    let error = Desk::open(&world.auth).unwrap_err().to_string();
    for words in [path.to_str().unwrap(), "uid 12345", "chown", "key rotate"] {
        assert!(error.contains(words), "no {words} in: {error}");
    }
    rotate_key(&world.auth).unwrap();
    let after = fs::read_to_string(&path).unwrap();
    assert_eq!(after.lines().count(), 2, "nothing of the old key is kept");
    assert!(before != after);
    Desk::open(&world.auth).unwrap();
    // Whose the directory is may have the key as well.
    chown(world.folder.path(), Some(12_345), None).unwrap();
    chown(&path, Some(12_345), None).unwrap();
    Desk::open(&world.auth).unwrap();
}

#[test]
fn a_directory_that_others_can_write_is_refused_and_nothing_is_written_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let auth = auth(&path);
    for mode in [0o770, 0o775, 0o757, 0o1777] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let text = format!("mode {mode:o}");
        for refused in [Desk::open(&auth).map(|_| ()), rotate_key(&auth).map(|_| ())] {
            let error = refused.unwrap_err().to_string();
            for words in [path.to_str().unwrap(), &text, "chmod go-w", "state_dir"] {
                assert!(error.contains(words), "no {words} in: {error}");
            }
        }
    }
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    Desk::open(&auth).unwrap();
}

#[test]
fn a_damaged_key_is_told_and_not_overwritten() {
    let world = world();
    let path = world.folder.path().join("auth.key");
    fs::write(&path, "holdline keys 1\nabc\n").unwrap();
    let error = Desk::open(&world.auth).unwrap_err();
    assert!(matches!(error, DeskError::Damaged { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("line 2") && text.contains("remove it"),
        "{text}"
    );
    assert!(rotate_key(&world.auth).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"holdline keys 1\nabc\n");
}

#[test]
fn a_directory_that_cannot_be_made_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Desk::open(&auth(&file)).unwrap_err().to_string();
    for words in [file.to_str().unwrap(), "cannot be written", "state_dir"] {
        assert!(error.contains(words), "no {words} in: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_gone_signs_nobody_out() {
    let world = world();
    let browser = world.nick().await;
    fs::remove_file(world.folder.path().join("auth.key")).unwrap();
    tokio::time::advance(Duration::from_secs(120)).await;
    world.nick().await;
    let headers = browser.headers();
    let session = world
        .desk
        .by_cookie(&world.auth, &headers, SystemTime::now());
    assert!(session.is_ok());
}

#[test]
fn processes_that_share_a_directory_agree_on_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let auth = auth(folder.path());
    let now = SystemTime::now();
    let desks: Vec<Desk> = std::thread::scope(|scope| {
        let open = |_| scope.spawn(|| Desk::open(&auth).unwrap());
        let threads: Vec<_> = (0..8).map(open).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let mut browser = Browser::at("192.0.2.7");
    let form = desks[0].form_token(&browser.headers(), now);
    browser.take(&form.cookie);
    for desk in &desks {
        assert!(desk.check_form_token(&browser.headers(), &form.field, now));
    }
    // Nor do rotations at the same time lose a key.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| rotate_key(&auth).unwrap());
        }
    });
    let text = fs::read_to_string(folder.path().join("auth.key")).unwrap();
    assert_eq!(text.lines().count(), 1 + 1 + 8);
}

/// As a network disk does whose server is away.
#[tokio::test(start_paused = true)]
async fn a_directory_that_does_not_answer_holds_nobody_up() {
    let world = world();
    let browser = world.nick().await;
    for name in ["auth.key", "auth.ended"] {
        let path = world.folder.path().join(name);
        let _ = fs::remove_file(&path);
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
    }
    let (told, hears) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Handle::current();
    tokio::time::advance(Duration::from_secs(120)).await;
    std::thread::spawn(move || {
        // Under the same clock.
        let _runtime = runtime.enter();
        for _ in 0..3 {
            let now = SystemTime::now();
            let session = world.desk.by_cookie(&world.auth, &browser.headers(), now);
            let form = world.desk.form_token(&HeaderMap::new(), now);
            let _ = told.send((session.is_ok(), form.cookie.is_some()));
        }
    });
    for _ in 0..3 {
        let seen = hears.recv_timeout(Duration::from_secs(20));
        assert_eq!(seen.expect("an answer"), (true, true));
    }
}
