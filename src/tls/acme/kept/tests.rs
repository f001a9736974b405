//! One certificate and the disk that it is kept on.

use super::*;
use crate::tls::acme::moment::{HOUR, clock};
use crate::tls::acme::stand_in;

fn acme() -> Acme {
    let text = "[tls]\ncertificate = \"acme\"\n[acme]\ndomains = [\"a.example\"]\nimport = []";
    crate::config::parse(text, "t")
        .unwrap()
        .config
        .acme
        .unwrap()
}

fn told(kept: &Kept) -> Option<String> {
    kept.troubles.first().map(|it| it.reason.clone())
}

#[test]
fn what_cannot_be_written_is_served_and_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    let mut kept = Kept::open(&names, &state, &acme());
    assert!(kept.certificate.is_none());
    // Nothing can be put in the place of a folder.
    let file = state.path(&kept.file());
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    let pem = stand_in::pem(&names).unwrap();
    assert!(kept.install(Zeroizing::new(pem.clone().into_bytes()), &state));
    assert!(kept.is_served(Moment::now()));
    assert!(told(&kept).unwrap().contains("would be lost"));
    std::fs::remove_dir_all(&file).unwrap();
    kept.save(&state);
    assert_eq!(
        (
            told(&kept).as_deref(),
            std::fs::read_to_string(&file).unwrap()
        ),
        (None, pem)
    );
    assert!(!kept.refresh(&state), "that is what we have");
}

#[test]
fn what_is_served_is_on_disk_for_the_next_process_or_it_is_said_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    let pem = stand_in::pem(&names).unwrap();
    let mut kept = Kept::open(&names, &state, &acme());
    assert_eq!(kept.secure(&state), Ok(()), "nothing is served");
    assert!(kept.install(Zeroizing::new(pem.clone().into_bytes()), &state));
    let file = state.path(&kept.file());
    let folder = file.parent().unwrap();
    for damage in ["none", "gone", "damaged"] {
        match damage {
            "gone" => std::fs::remove_dir_all(folder).unwrap(),
            "damaged" => std::fs::write(&file, "half a f").unwrap(),
            _ => {}
        }
        assert_eq!(kept.secure(&state), Ok(()), "{damage}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), pem, "{damage}");
    }
    // Whoever is root reads everything, but no file is a folder.
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::write(folder, "").unwrap();
    for _ in 0..2 {
        let reason = kept.secure(&state).unwrap_err();
        assert!(
            reason.starts_with("a.example: cannot ") && reason.contains("certificate.pem"),
            "{reason}"
        );
    }
    std::fs::remove_file(folder).unwrap();
    assert_eq!(kept.secure(&state), Ok(()));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), pem);
}

#[test]
fn what_is_served_takes_the_place_of_a_file_that_gets_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    let pem = stand_in::pem(&names).unwrap();
    let mut kept = Kept::open(&names, &state, &acme());
    assert!(kept.install(Zeroizing::new(pem.clone().into_bytes()), &state));
    let order = "certificates/a.example/order.json";
    state.write(order, b"of an order under way").unwrap();
    // After the one that was taken from the disk as well.
    for mut kept in [kept, Kept::open(&names, &state, &acme())] {
        state.write(&kept.file(), b"half a f").unwrap();
        assert!(!kept.refresh(&state) && kept.is_served(Moment::now()));
        let read = state.read(&kept.file()).unwrap().unwrap();
        assert_eq!(*read, pem.as_bytes());
        assert!(state.path(&format!("{}.damaged", kept.file())).exists());
        assert!(!kept.is_unsaved() && !kept.refresh(&state));
        assert!(state.path(order).exists());
    }
    assert!(Kept::open(&names, &state, &acme()).is_served(Moment::now()));
}

#[test]
fn another_instances_certificate_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    let mut one = Kept::open(&names, &state, &acme());
    let mut other = Kept::open(&names, &state, &acme());
    let pem = stand_in::pem(&names).unwrap();
    assert!(one.install(Zeroizing::new(pem.into_bytes()), &state));
    assert!(other.refresh(&state) && !other.refresh(&state));
    assert_eq!(one.identifier(), other.identifier());
    assert!(other.is_served(Moment::now()));
}

#[test]
fn what_another_instance_has_written_down_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    let (now, acme) = (Moment::now(), acme());
    let mut one = Kept::open(&names, &state, &acme);
    let mut other = Kept::open(&names, &state, &acme);
    one.history.start("https://ca.example/dir", now);
    one.save_history(&state).unwrap();
    let asked = other.amend_history(&state, now, |history| history.asked = Some(now));
    asked.unwrap();
    let third = Kept::open(&names, &state, &acme);
    assert_eq!(
        (third.history.attempts.len(), third.history.asked),
        (1, Some(now))
    );
}

#[test]
fn a_folder_that_cannot_be_looked_into_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    // Even root cannot look into a file.
    std::fs::create_dir_all(state.path("certificates")).unwrap();
    std::fs::write(state.path("certificates/a.example"), "").unwrap();
    let kept = Kept::open(&names, &state, &acme());
    assert!(told(&kept).unwrap().contains("certificates/a.example"));
}

#[test]
fn what_was_refused_for_the_time_is_looked_at_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    let now = Moment::now();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(names.to_vec()).unwrap();
    params.not_after = now.after(HOUR).system().into();
    let pem = format!(
        "{}{}",
        key.serialize_pem(),
        params.self_signed(&key).unwrap().pem()
    );
    let file = format!("{}/certificate.pem", folder(&names));
    state.write(&file, pem.as_bytes()).unwrap();
    clock::set(now.after(2 * HOUR));
    let mut kept = Kept::open(&names, &state, &acme());
    assert!(!kept.is_served(Moment::now()) && !kept.refresh(&state));
    clock::set(now);
    assert!(kept.refresh(&state) && kept.is_served(Moment::now()));
    assert!(!kept.refresh(&state));
}

#[test]
fn a_history_that_cannot_be_read_is_told_and_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    // Even root cannot read a folder.
    let file = state.path("certificates/a.example/history.json");
    std::fs::create_dir_all(&file).unwrap();
    let mut kept = Kept::open(&names, &state, &acme());
    assert!(told(&kept).unwrap().contains("history.json"));
    kept.amend_history(&state, Moment::now(), |_| {})
        .unwrap_err();
    std::fs::remove_dir(&file).unwrap();
    kept.remember(&state, Moment::now());
    assert_eq!(told(&kept), None);
}

#[test]
fn what_came_of_an_order_is_kept_until_the_disk_takes_it() {
    use crate::tls::acme::history::{Concerns, Outcome};
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let names = ["a.example".to_owned()];
    let (now, ca) = (Moment::now(), "https://ca.example/dir");
    let mut kept = Kept::open(&names, &state, &acme());
    kept.history.start(ca, now);
    kept.save_history(&state).unwrap();
    let told_to_wait = Outcome::Failed {
        concerns: Concerns::Names,
        reason: "a limit".to_owned(),
        not_before: Some(now.after(7_200)),
        signed: true,
        unproved: false,
        unreached: false,
    };
    kept.history.finish(ca, told_to_wait.clone());
    // No file can be made in the place of the folder's file.
    let file = state.path("certificates/a.example/history.json");
    let written = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    kept.save_history(&state).unwrap_err();
    kept.write_down(&state, now);
    let trouble = told(&kept).unwrap();
    assert!(trouble.contains("history.json"), "{trouble}");
    // The disk is back, with what was there; another instance has been at it.
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, written).unwrap();
    let mut other = Kept::open(&names, &state, &acme());
    other
        .history
        .start("https://other.example/dir", now.after(1));
    other.save_history(&state).unwrap();
    kept.reload_history(&state, now.after(1)).unwrap();
    assert_eq!(kept.history.attempts[0].outcome, told_to_wait);
    kept.write_down(&state, now.after(1));
    assert_eq!(told(&kept), None);
    let again = Kept::open(&names, &state, &acme());
    assert_eq!(again.history.attempts.len(), 2);
    assert_eq!(again.history.attempts[0].outcome, told_to_wait);
}
