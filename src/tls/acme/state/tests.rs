use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::tls::acme::history::Health;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_are_private_and_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    state.probe().unwrap();
    state
        .write("certificates/a/certificate.pem", b"one")
        .unwrap();
    state
        .write("certificates/a/certificate.pem", b"two")
        .unwrap();
    let folder = state.path("certificates/a");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(
        (mode(&folder), mode(&folder.join("certificate.pem"))),
        (0o700, 0o600)
    );
    assert_eq!(mode(dir.path().join("acme").as_path()), 0o700);
    let read = state
        .read("certificates/a/certificate.pem")
        .unwrap()
        .unwrap();
    assert_eq!(*read, b"two");
    assert!(!state.path("probe").exists());
}

#[test]
fn old_answers_are_swept_and_new_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    state.write("challenges/http-01/old", b"x").unwrap();
    state.write("challenges/http-01/new", b"x").unwrap();
    let long_ago = std::time::SystemTime::now() - 2 * LEFT_OVER;
    let old = File::options()
        .write(true)
        .open(state.path("challenges/http-01/old"))
        .unwrap();
    old.set_modified(long_ago).unwrap();
    state.sweep();
    assert!(state.path("challenges/http-01/new").exists());
    assert!(!state.path("challenges/http-01/old").exists());
}

/// Threads of one process are to each other as the first processes of two containers are: they have
/// the same number.
#[test]
fn many_write_one_file_at_once_and_all_of_them_whole() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let written = |who: u8| vec![who; 8 * 1024];
    let (state, name) = (&state, "certificates/a/certificate.pem");
    std::thread::scope(|scope| {
        for who in 0..4 {
            scope.spawn(move || {
                for _ in 0..100 {
                    state.write(name, &written(who)).unwrap();
                    let read = state.read(name).unwrap().unwrap();
                    assert!(read.len() == 8 * 1024 && read.iter().all(|byte| *byte == read[0]));
                }
            });
        }
    });
    assert_eq!(
        fs::read_dir(state.path("certificates/a")).unwrap().count(),
        1
    );
}

#[test]
fn what_a_crash_left_half_written_is_swept_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 3600);
    let names = [
        "README.1.tmp",
        "accounts/x.json.00000000deadbeef.tmp",
        "certificates/a/certificate.pem.1.tmp",
        "challenges/http-01/x.00000000deadbeef.tmp",
    ];
    for name in names {
        state.write(name, b"key").unwrap();
        let file = File::options().write(true).open(state.path(name)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let young = "certificates/a/order.json.1.tmp";
    state.write(young, b"key").unwrap();
    StateDir::to_look_at(dir.path()).sweep();
    assert!(names.iter().all(|name| state.path(name).exists()));
    state.sweep();
    assert!(!names.iter().any(|name| state.path(name).exists()));
    assert!(state.path(young).exists());
}

#[test]
fn only_one_holds_a_lock() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let one = state.try_lock("order.lock").unwrap();
    assert!(one.is_some() && state.try_lock("order.lock").unwrap().is_none());
    drop(one);
    assert!(state.try_lock("order.lock").unwrap().is_some());
}

#[test]
fn a_lock_that_is_never_given_up_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let held = state.lock().unwrap();
    let error = state.lock().unwrap_err();
    assert!(error.to_string().contains("acme/lock"), "{error}");
    assert!(error.remedy().contains("another process"), "{error:?}");
    drop(held);
    state.lock().unwrap();
}

#[test]
fn what_cannot_be_read_is_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let load = |name: &str| state.load_some::<Health>(name);
    assert_eq!(load("cas/x.json").unwrap(), None);
    fs::create_dir_all(state.path("cas/x.json")).unwrap();
    load("cas/x.json").unwrap_err();
    fs::remove_dir(state.path("cas/x.json")).unwrap();
    state.save("cas/x.json", &Health::default()).unwrap();
    assert_eq!(load("cas/x.json").unwrap(), Some(Health::default()));
}

#[test]
fn what_cannot_be_written_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("acme"), "a file").unwrap();
    let error = StateDir::new(dir.path()).probe().unwrap_err();
    assert!(error.to_string().contains("/acme"), "{error}");
    assert!(error.remedy().contains("state_dir"));
    // No room there for anything.
    let full = StateDir {
        root: PathBuf::from("/dev/full"),
        untouched: false,
    };
    assert!(full.probe().is_err());
}

#[test]
fn names_of_files_are_harmless() {
    assert_eq!(file_name("*.a.example"), "_.a.example");
    assert_eq!(file_name("../a/b:c"), "..-a-b-c");
}
