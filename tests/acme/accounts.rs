//! Our accounts at CAs: their keys, contacts and files, whatever happens in between.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use holdline::config::{self, Acme};
use holdline::tls::acme::change_account_keys;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ca::{Book, Ca, Habits, INSTANCE, Problem, settings};
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Proxy, ms};
use crate::served::{PATIENCE, renew, told, until_failed, until_told, until_trusted};

const A: &str = "domains = [\"a.example\"]\nimport = []";

async fn world(habits: Habits) -> (Ca, TempDir, ScriptedGateway) {
    let state = tempfile::tempdir().unwrap();
    (
        Ca::start(habits).await,
        state,
        ScriptedGateway::start().await,
    )
}

/// With an account, whose certificate is gone.
async fn with_account(ca: &Ca, state: &Path, gateway: &ScriptedGateway) {
    let proxy = Proxy::with(gateway, &ca.settings(state, A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    drop(proxy);
    forget_certificate(state);
}

/// As if nothing had been ordered or tried.
fn forget_certificate(state: &Path) {
    for folder in ["acme/certificates", "acme/cas"] {
        let _ = std::fs::remove_dir_all(state.join(folder));
    }
}

fn acme(ca: &Ca, state: &Path) -> Acme {
    let text = ca.settings(state, A);
    config::parse(&text, "test").unwrap().config.acme.unwrap()
}

/// The file of the only account, and the one of the key that is to follow.
fn files(state: &Path) -> (PathBuf, PathBuf) {
    let accounts = std::fs::read_dir(state.join("acme/accounts")).unwrap();
    let account = accounts
        .map(|it| it.unwrap().path())
        .find(|it| it.extension().is_some_and(|it| it == "json"))
        .expect("an account");
    let mut next = account.clone().into_os_string();
    next.push(".next");
    (account, next.into())
}

fn asked_orders(book: &Book) -> usize {
    book.asked.iter().filter(|it| *it == "order").count()
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn broken(resource: &'static str) -> Option<Problem> {
    problem(resource, 503, "")
}

fn problem(resource: &'static str, status: u16, kind: &'static str) -> Option<Problem> {
    Some(Problem {
        resource,
        status,
        kind,
        retry_after: None,
    })
}

fn seconds_until(told: &Value) -> i64 {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    let at = OffsetDateTime::parse(told["nextAt"].as_str().unwrap(), &Rfc3339).unwrap();
    (at - OffsetDateTime::now_utc()).whole_seconds()
}

// === keys ===

#[tokio::test]
async fn a_key_is_changed_and_its_file_stays_whose_it_was() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    let (account, next) = files(state.path());
    // Only root can give files away; for others they are theirs before and after.
    let owned = ["acme", "acme/accounts"].map(|it| state.path().join(it));
    for path in owned.iter().chain([&account]) {
        let _ = chown(path, Some(12_345), None);
    }
    let owner = std::fs::metadata(&account).unwrap().uid();
    let before = read(&account);
    let known = ca.book.read(|book| book.accounts.clone());
    let changed = change_account_keys(&acme(&ca, state.path())).await;
    assert_eq!(changed[0].1, Ok(true));
    let after = read(&account);
    assert_eq!(before["id"], after["id"]);
    assert_ne!(before["key_pkcs8"], after["key_pkcs8"]);
    assert_ne!(known, ca.book.read(|book| book.accounts.clone()));
    assert!(!next.exists());
    let metadata = std::fs::metadata(&account).unwrap();
    assert_eq!(metadata.uid(), owner);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn where_there_is_no_account_no_ca_is_asked_for_another_key() {
    let (ca, state, _) = world(Habits::default()).await;
    let changed = change_account_keys(&acme(&ca, state.path())).await;
    assert_eq!(changed[0].1, Ok(false));
    assert_eq!(ca.book.read(|book| book.asked.len()), 0);
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_found_out_at_once() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    ca.habits.change(|habits| habits.cut = Some("key"));
    let changed = change_account_keys(&acme(&ca, state.path())).await;
    assert_eq!(changed[0].1, Ok(true), "the CA has it");
    ca.habits.change(|habits| {
        habits.cut = None;
        habits.problem = broken("key");
    });
    let (account, next) = files(state.path());
    let before = read(&account);
    let changed = change_account_keys(&acme(&ca, state.path())).await;
    let error = changed[0].1.clone().unwrap_err();
    assert!(error.contains("503"), "the CA has it not: {error}");
    assert_eq!(read(&account), before);
    assert!(!next.exists());
}

#[tokio::test]
async fn a_change_that_we_did_not_live_to_see_is_healed_whichever_key_the_ca_knows() {
    for ca_has_the_new_one in [true, false] {
        let (ca, state, gateway) = world(Habits::default()).await;
        with_account(&ca, state.path(), &gateway).await;
        let before = ca.book.read(|book| book.accounts.clone());
        // It takes the key, and neither says so nor can be asked: as if we had ended there.
        ca.habits.change(|habits| {
            habits.cut = Some("key");
            habits.problem = broken("acct");
        });
        let changed = change_account_keys(&acme(&ca, state.path())).await;
        let error = changed[0].1.clone().unwrap_err();
        assert!(error.contains("found out at the next order"), "{error}");
        let (account, next) = files(state.path());
        let (old, new) = (read(&account), read(&next));
        assert_eq!(
            std::fs::metadata(&next).unwrap().permissions().mode() & 0o777,
            0o600
        );
        if !ca_has_the_new_one {
            ca.book.change(|book| book.accounts = before);
        }
        ca.habits.change(|habits| *habits = Habits::default());
        let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
        until_trusted(&proxy, "a.example", &ca.root).await;
        let kept = read(&account)["key_pkcs8"].clone();
        match ca_has_the_new_one {
            true => assert_eq!(kept, new["new_key"]),
            false => assert_eq!(kept, old["key_pkcs8"]),
        }
        assert!(!next.exists());
        assert_eq!(ca.asked("account"), 1, "and no other account was made");
    }
}

#[tokio::test]
async fn an_order_that_a_change_of_key_cuts_short_says_so() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    ca.habits.change(|habits| habits.slow = Some("a.example"));
    let before = ca.asked("order");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let heard = ca
        .book
        .until(|book| (asked_orders(book) > before).then_some(()));
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    let changed = change_account_keys(&acme(&ca, state.path())).await;
    assert_eq!(changed[0].1, Ok(true));
    ca.habits.change(|habits| habits.slow = None);
    let error = until_failed(&proxy, "a.example").await;
    assert!(error.contains("given a new key"), "{error}");
    tokio::time::sleep(ms(2000)).await;
    renew(&proxy.holdline, "a.example").await;
    until_trusted(&proxy, "a.example", &ca.root).await;
}

#[tokio::test]
async fn an_account_that_the_ca_has_closed_is_made_anew() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    ca.book.change(|book| {
        book.closed = book.accounts.keys().cloned().collect();
    });
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(error.contains("has closed our account"), "{error}");
    assert!(error.contains("a new one is made"), "{error}");
    tokio::time::sleep(ms(2000)).await;
    renew(&proxy.holdline, "a.example").await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    assert_eq!(ca.book.read(|book| book.accounts.len()), 2);
}

/// As if we had ended between the two files of a new account, and it was closed since.
#[tokio::test]
async fn a_key_that_was_left_over_of_a_closed_account_is_not_used_for_ever() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    let (account, _) = files(state.path());
    let mut new = account.clone().into_os_string();
    new.push(".new");
    let left = json!({"new_key": read(&account)["key_pkcs8"]});
    std::fs::write(new, left.to_string()).unwrap();
    ca.book.change(|book| {
        book.closed = book.accounts.keys().cloned().collect();
    });
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    for (failures, words) in [
        (1, "has closed our account"),
        (2, "does not accept our account"),
    ] {
        let told = until_told(&proxy, "a.example", |told| told["failures"] == failures).await;
        let reason = told["lastError"]["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{reason}");
        tokio::time::sleep(ms(2000)).await;
        renew(&proxy.holdline, "a.example").await;
    }
    until_trusted(&proxy, "a.example", &ca.root).await;
    assert_eq!(ca.book.read(|book| book.accounts.len()), 2);
}

#[tokio::test]
async fn an_account_that_may_not_order_is_kept() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    ca.habits
        .change(|habits| habits.problem = problem("order", 403, "unauthorized"));
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(error.contains("does not let our account order"), "{error}");
    let account = state.path().join("acme/accounts");
    let kept = std::fs::read_dir(account).unwrap().map(|it| it.unwrap());
    let aside = kept.filter(|it| it.file_name().to_string_lossy().contains("damaged"));
    assert_eq!(aside.count(), 0);
}

#[tokio::test]
async fn what_a_person_has_to_do_is_told_with_the_address_of_it() {
    for resource in ["account", "order"] {
        let (ca, state, gateway) = world(Habits {
            problem: problem(resource, 403, "userActionRequired"),
            ..Habits::default()
        })
        .await;
        let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
        let error = until_failed(&proxy, "a.example").await;
        assert!(
            error.ends_with(&format!("run `holdline cert renew`; see {INSTANCE}")),
            "{resource}: {error}"
        );
    }
}

// === contacts ===

#[tokio::test]
async fn a_contact_that_changes_is_told_and_is_never_in_the_way() {
    let (ca, state, gateway) = world(Habits::default()).await;
    let with = |contact: &str| ca.settings(state.path(), &format!("{A}\ncontact = [{contact}]"));
    let known = || {
        let contacts = ca.book.read(|book| book.contacts.clone());
        contacts.into_values().next().unwrap()
    };
    let order = async |contact: &str| {
        forget_certificate(state.path());
        let proxy = Proxy::with(&gateway, &with(contact)).await;
        until_trusted(&proxy, "a.example", &ca.root).await;
    };
    order("\"one@example.net\"").await;
    assert_eq!(known(), json!(["mailto:one@example.net"]));
    order("\"one@example.net\"").await;
    assert_eq!(ca.asked("acct"), 0, "it is known");
    // Down for that: told the next time.
    ca.habits.change(|habits| habits.problem = broken("acct"));
    order("\"two@example.net\"").await;
    assert_eq!(known(), json!(["mailto:one@example.net"]));
    ca.habits.change(|habits| habits.problem = None);
    order("\"two@example.net\"").await;
    assert_eq!(known(), json!(["mailto:two@example.net"]));
    // Refused: told once.
    let refused = problem("acct", 400, "invalidContact");
    ca.habits.change(|habits| habits.problem = refused);
    let before = ca.asked("acct");
    order("\"three@example.net\"").await;
    order("\"three@example.net\"").await;
    assert_eq!(ca.asked("acct"), before + 1);
    ca.habits.change(|habits| habits.problem = None);
    order("").await;
    assert_eq!(known(), json!([]));
}

/// Its certificate is good for months, so that no order comes soon.
#[tokio::test]
async fn a_contact_is_told_without_an_order() {
    let habits = Habits {
        window: Some((86_400 * 60, 86_400 * 61)),
        ..Habits::default()
    };
    let (ca, state, gateway) = world(habits).await;
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    drop(proxy);
    let file = state
        .path()
        .join("acme/certificates/a.example/history.json");
    let mut history = read(&file);
    history["renewal"] = Value::Null;
    std::fs::write(&file, history.to_string()).unwrap();
    let contact = format!("{A}\ncontact = [\"two@example.net\"]");
    let _proxy = Proxy::with(&gateway, &ca.settings(state.path(), &contact)).await;
    let has_it = ca.book.until(|book| {
        let mut contacts = book.contacts.values();
        contacts
            .any(|it| *it == json!(["mailto:two@example.net"]))
            .then_some(())
    });
    tokio::time::timeout(PATIENCE, has_it).await.unwrap();
    assert_eq!(ca.orders().len(), 1);
}

// === accounts that are lost ===

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_account() {
    let (ca, state, gateway) = world(Habits::default()).await;
    let key = state.path().join("eab.key");
    std::fs::write(&key, "c2VjcmV0").unwrap();
    let acme = format!(
        "{A}\ncontact = [\"one@example.net\"]\n\
         eab = [{{ directory = {:?}, kid = \"kid-1\", key_file = {key:?} }}]",
        ca.directory
    );
    ca.habits.change(|habits| habits.cut = Some("account"));
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    until_failed(&proxy, "a.example").await;
    drop(proxy);
    ca.habits.change(|habits| habits.cut = None);
    forget_certificate(state.path());
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    let (accounts, bindings) = ca
        .book
        .read(|book| (book.accounts.len(), book.bindings.clone()));
    assert_eq!(accounts, 1);
    assert!(
        bindings.iter().all(|it| it["signature"].is_string()),
        "{bindings:?}"
    );
}

#[tokio::test]
async fn a_slow_refusal_of_the_old_account_does_not_cost_the_new_one() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    // The CA has lost its accounts, and says so to one of us late.
    ca.book.change(|book| book.accounts.clear());
    ca.habits
        .change(|habits| habits.slow = Some("slow.example"));
    let before = ca.asked("order");
    let slow = "domains = [\"slow.example\"]\nimport = []";
    let slow = Proxy::with(&gateway, &ca.settings(state.path(), slow)).await;
    let heard = ca
        .book
        .until(|book| (asked_orders(book) > before).then_some(()));
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    let quick = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&quick, "a.example").await;
    assert!(error.contains("does not know our account"), "{error}");
    drop(quick);
    forget_own(state.path());
    let quick = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&quick, "a.example", &ca.root).await;
    let (account, _) = files(state.path());
    let new = read(&account);
    ca.habits.change(|habits| habits.slow = None);
    until_failed(&slow, "slow.example").await;
    assert_eq!(read(&account), new, "it is still there");
}

/// What one of two instances has tried.
fn forget_own(state: &Path) {
    std::fs::remove_dir_all(state.join("acme/certificates/a.example")).unwrap();
    std::fs::remove_dir_all(state.join("acme/cas")).unwrap();
}

// === answers that are lost, nonces that are refused ===

#[tokio::test]
async fn an_order_whose_answer_is_lost_is_no_storm_of_orders() {
    let (ca, state, gateway) = world(Habits::default()).await;
    ca.habits.change(|habits| habits.cut = Some("order"));
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_failed(&proxy, "a.example").await;
    let told = told(&proxy, "a.example").await;
    assert!((20..=3_700).contains(&seconds_until(&told)), "{told}");
    assert_eq!(ca.orders().len(), 1);
}

#[tokio::test]
async fn a_ca_that_takes_no_nonce_is_not_asked_for_ever() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    ca.habits.change(|habits| habits.refuses_nonces = true);
    let before = ca.asked("order");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(error.contains("kept refusing fresh nonces"), "{error}");
    assert!((1..=4).contains(&(ca.asked("order") - before)));
    // The same for what we sign ourselves.
    let changed = change_account_keys(&acme(&ca, state.path())).await;
    let error = changed[0].1.clone().unwrap_err();
    assert!(error.contains("kept refusing fresh nonces"), "{error}");
    assert!((1..=4).contains(&ca.asked("key")), "{}", ca.asked("key"));
}

// === whose fault it is ===

#[tokio::test]
async fn a_fault_of_this_machine_is_blamed_on_no_ca() {
    let (ca, state, gateway) = world(Habits::default()).await;
    let other = Ca::start(Habits::default()).await;
    let order = state.path().join("acme/certificates/a.example/order.json");
    std::fs::create_dir_all(order.join("in the way")).unwrap();
    let roots = state.path().join("roots.pem");
    let both = [ca.ca_root(), other.ca_root()].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&roots, both.concat()).unwrap();
    let directories = [ca.directory.as_str(), other.directory.as_str()];
    let text = settings(&directories, &roots, state.path(), A);
    let proxy = Proxy::with(&gateway, &text).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(
        error.contains("order.json") && error.contains("check that directory"),
        "{error}"
    );
    let told = told(&proxy, "a.example").await;
    assert_eq!(told["lastError"]["ca"], Value::Null, "{told}");
    assert!((200..=301).contains(&seconds_until(&told)), "{told}");
    assert_eq!(other.book.read(|book| book.asked.len()), 0);
    let cas = state.path().join("acme/cas");
    for health in std::fs::read_dir(cas).into_iter().flatten() {
        let health = read(&health.unwrap().path());
        assert_eq!(health["failures"], 0, "{health}");
    }
    // Mended, whoever asks does not wait.
    std::fs::remove_dir_all(&order).unwrap();
    tokio::time::sleep(ms(2000)).await;
    renew(&proxy.holdline, "a.example").await;
    until_trusted(&proxy, "a.example", &ca.root).await;
}

#[tokio::test]
async fn a_limit_that_is_told_with_a_challenge_is_waited_for() {
    for (retry_after, wait) in [(Some("7200"), 7_000..=7_200), (None, 3_500..=3_600)] {
        let (ca, state, gateway) = world(Habits {
            challenge: Some("tls-alpn-01"),
            refuses_names: Some(("rateLimited", retry_after)),
            ..Habits::default()
        })
        .await;
        let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
        let error = until_failed(&proxy, "a.example").await;
        assert!(error.contains("a limit of the CA is reached"), "{error}");
        let told = told(&proxy, "a.example").await;
        assert!(wait.contains(&seconds_until(&told)), "{told}");
    }
}

/// It comes with what is no error, and says when to look at that again.
#[tokio::test]
async fn a_name_that_is_not_ours_yet_is_not_left_alone_for_a_day() {
    let (ca, state, gateway) = world(Habits {
        challenge: Some("tls-alpn-01"),
        refuses_names: Some(("connection", Some("86400"))),
        ..Habits::default()
    })
    .await;
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(error.contains("cannot connect"), "{error}");
    let told = told(&proxy, "a.example").await;
    assert!((1_700..=1_800).contains(&seconds_until(&told)), "{told}");
}

// === what others have written ===

#[tokio::test]
async fn what_a_newer_one_has_tried_is_not_tried_again() {
    let (ca, state, gateway) = world(Habits::default()).await;
    with_account(&ca, state.path(), &gateway).await;
    let folder = state.path().join("acme/certificates/a.example");
    std::fs::create_dir_all(&folder).unwrap();
    let newer = "{\"version\": 7, \"tried\": \"too much\"}";
    std::fs::write(folder.join("history.json"), newer).unwrap();
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(error.contains("newer holdline"), "{error}");
    assert!(seconds_until(&told(&proxy, "a.example").await) > 7 * 86_400);
    assert_eq!(ca.orders().len(), 1, "the one from before");
    renew(&proxy.holdline, "a.example").await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    let kept = std::fs::read_to_string(folder.join("history.json")).unwrap();
    assert_eq!(kept, newer);
}

#[tokio::test]
async fn a_long_explanation_is_cut() {
    let habits = Habits {
        window: Some((86_400 * 70, 86_400 * 71)),
        explanation: Some(format!(
            "https://ca.example/\u{1b}[2J{}",
            "x".repeat(500_000)
        )),
        ..Habits::default()
    };
    let (ca, state, gateway) = world(habits).await;
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    until_told(&proxy, "a.example", |told| {
        told["nextAt"].is_string() && seconds_until(told) > 86_400 * 69
    })
    .await;
    let history = read(
        &state
            .path()
            .join("acme/certificates/a.example/history.json"),
    );
    let kept = history["renewal"]["explanation"].as_str().unwrap();
    assert!(kept.starts_with("https://ca.example/[2Jxxx") && kept.len() <= 300);
}
