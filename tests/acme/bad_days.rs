//! What a CA, a disk or a clock may do to us, and what is made of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ca::{Ca, Habits, Problem, settings};
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Client, Proxy, Role, http, within};
use crate::served::{
    is_trusted, leaf, renew, subject, told, until_failed, until_told, until_trusted,
};

const A: &str = "domains = [\"a.example\"]";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn gateway() -> ScriptedGateway {
    ScriptedGateway::start().await
}

fn history(state: &Path) -> Value {
    let file = state.join("acme/certificates/a.example/history.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn problem(
    resource: &'static str,
    status: u16,
    kind: &'static str,
    retry_after: Option<&'static str>,
) -> Habits {
    Habits {
        problem: Some(Problem {
            resource,
            status,
            kind,
            retry_after,
        }),
        ..Habits::default()
    }
}

fn seconds_until(told: &Value) -> i64 {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    let at = OffsetDateTime::parse(told["nextAt"].as_str().unwrap(), &Rfc3339).unwrap();
    (at - OffsetDateTime::now_utc()).whole_seconds()
}

// === what is served until then ===

#[tokio::test]
async fn until_the_first_is_there_it_is_said_what_is_awaited() {
    let (ca, state, gateway) = (
        Ca::start(problem("dir", 503, "", Some("120"))).await,
        folder(),
        gateway().await,
    );
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(error.contains("503"), "{error}");
    let subject = subject(proxy.addr(), "a.example").await;
    assert!(
        subject.contains("certificate awaited from the CA, a.example"),
        "{subject}"
    );
    let ready = http::get(&proxy.admin(), "/readyz", &[]).await;
    assert_eq!(ready.status, 503);
    let said = ready.text();
    assert!(
        said.contains("no certificate yet: a.example is tried again on"),
        "{said}"
    );
    let told = told(&proxy, "a.example").await;
    assert!(
        (100..=121).contains(&seconds_until(&told)),
        "Retry-After is kept: {told}"
    );
    assert_eq!(ca.orders().len(), 0);

    ca.habits.change(|habits| habits.problem = None);
    drop(proxy);
    std::fs::remove_dir_all(state.path().join("acme")).unwrap();
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    within("ready, as it is served", async {
        while http::get(&proxy.admin(), "/readyz", &[]).await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_client_would_refuse_never_replaces_what_is_served() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    let good = leaf(proxy.addr(), "a.example").await;
    ca.habits.change(|habits| habits.wrong_name = true);
    renew(&proxy.holdline, "a.example").await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(
        error.contains("cannot be served: the certificate is not for a.example"),
        "{error}"
    );
    assert_eq!(leaf(proxy.addr(), "a.example").await, good);
    assert_eq!(told(&proxy, "a.example").await["state"], "served");
}

/// Who connects to it sends no name.
#[tokio::test]
async fn an_address_is_served_with_its_own_beside_a_name() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let acme = "domains = [\"a.example\", \"127.0.0.1\"]";
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), acme)).await;
    for name in ["a.example", "127.0.0.1"] {
        until_trusted(&proxy, name, &ca.root).await;
    }
}

// === renewal ===

#[tokio::test]
async fn a_certificate_of_seconds_is_renewed_in_time_and_no_session_notices() {
    let habits = Habits {
        lifetime: (12, 0),
        ..Habits::default()
    };
    let (ca, state, gateway) = (Ca::start(habits).await, folder(), gateway().await);
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    // The next one is there for as long as this test looks at it.
    ca.habits.change(|habits| habits.lifetime = (86_400, 3600));
    let client = Client::connected(Role::backend(), proxy.target()).await;
    let first = leaf(proxy.addr(), "a.example").await;
    ca.book
        .wait_for("a renewal", |book| {
            (book
                .orders
                .iter()
                .filter(|it| it.certificate.is_some())
                .count()
                >= 2)
                .then_some(())
        })
        .await;
    while leaf(proxy.addr(), "a.example").await == first {
        tokio::task::yield_now().await;
    }
    assert!(is_trusted(proxy.addr(), "a.example", &ca.root).await);
    client.request("sessions.list", json!({})).await.ok();
    client.record().assert_untouched();
}

#[tokio::test]
async fn the_ca_decides_when_and_is_told_what_is_replaced() {
    let habits = Habits {
        window: Some((-7200, -3600)),
        profiles: vec!["shortlived"],
        ..Habits::default()
    };
    let (ca, state, gateway) = (Ca::start(habits).await, folder(), gateway().await);
    let acme = format!("{A}\nprofile = \"shortlived\"");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    // Its window is over as soon as it is asked: so it is renewed at once. Then it wants it later.
    ca.book
        .wait_for("a renewal", |book| (book.orders.len() >= 2).then_some(()))
        .await;
    ca.habits
        .change(|habits| habits.window = Some((86_400, 86_401)));
    let told = until_told(&proxy, "a.example", |told| {
        told["next"].as_str().unwrap().starts_with("is renewed on")
            && (86_000..87_000).contains(&seconds_until(told))
    })
    .await;
    assert_eq!(told["failures"], 0);
    let orders = ca.orders();
    assert_eq!(orders[0].replaces, None);
    assert!(
        orders[1]
            .replaces
            .as_ref()
            .is_some_and(|it| it.contains('.')),
        "{orders:?}"
    );
    assert!(
        orders
            .iter()
            .all(|it| it.profile.as_deref() == Some("shortlived"))
    );
}

#[tokio::test]
async fn a_ca_without_the_profile_is_asked_without_it() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let acme = format!("{A}\nprofile = \"shortlived\"");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    assert_eq!(ca.orders()[0].profile, None);
}

#[tokio::test]
async fn what_expired_while_we_were_off_is_ordered_at_once() {
    let habits = Habits {
        lifetime: (15, 0),
        ..Habits::default()
    };
    let (ca, state, gateway) = (Ca::start(habits).await, folder(), gateway().await);
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_told(&proxy, "a.example", |told| told["state"] == "served").await;
    drop(proxy);
    tokio::time::sleep(std::time::Duration::from_secs(16)).await;
    ca.habits.change(|habits| habits.lifetime = (86_400, 3600));
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
}

#[tokio::test]
async fn after_a_try_at_one_ca_the_other_is_asked_at_once() {
    let (staging, real) = (
        Ca::start(Habits::default()).await,
        Ca::start(Habits::default()).await,
    );
    let (state, gateway) = (folder(), gateway().await);
    let proxy = Proxy::with(&gateway, &staging.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &staging.root).await;
    drop(proxy);
    let proxy = Proxy::with(&gateway, &real.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &real.root).await;
    assert_eq!((staging.orders().len(), real.orders().len()), (1, 1));
}

/// Where a CA looks for `http-01`; everything else there goes on to https.
#[tokio::test]
async fn the_plain_listener_knows_cas_from_browsers() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let plain = "[listen]\nhttp = [\"127.0.0.1:0\"]\n";
    let path = "/.well-known/acme-challenge/unknown";
    let settings = format!("{plain}{}", ca.settings(state.path(), A));
    for (settings, status) in [(settings.as_str(), 404), (plain, 308)] {
        let proxy = Proxy::with(&gateway, settings).await;
        let target = crate::kit::Target::plain(proxy.holdline.http_addrs()[0]);
        assert_eq!(http::get(&target, path, &[]).await.status, status);
        for other in ["/", "/.well-known/acme-challenge", "/.well-known/x"] {
            assert_eq!(http::get(&target, other, &[]).await.status, 308, "{other}");
        }
    }
}

// === limits and faults of CAs ===

#[tokio::test]
async fn a_limit_is_waited_for_over_restarts() {
    let habits = problem("order", 429, "rateLimited", Some("7200"));
    let (ca, state, gateway) = (Ca::start(habits).await, folder(), gateway().await);
    for _ in 0..3 {
        let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
        let error = until_failed(&proxy, "a.example").await;
        assert!(
            error.contains(
                "a limit of the CA is reached (the CA: So it is); nothing is to be done but to wait"
            ),
            "{error}"
        );
        let told = told(&proxy, "a.example").await;
        assert!((7_000..=7_200).contains(&seconds_until(&told)), "{told}");
    }
    let asked = ca
        .book
        .read(|book| book.asked.iter().filter(|it| *it == "order").count());
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_limit_on_orders_is_met_once_and_not_by_every_name() {
    let mut habits = problem("order", 429, "rateLimited", Some("7200"));
    // What the other orders that are under way are told takes nothing back.
    habits.afterwards = problem("order", 500, "serverInternal", None).problem;
    let (ca, state, gateway) = (Ca::start(habits).await, folder(), gateway().await);
    let names: Vec<String> = (0..12).map(|n| format!("n{n}.example")).collect();
    let acme = format!("domains = {names:?}");
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), &acme)).await;
    for name in &names {
        let told = until_told(&proxy, name, |told| {
            told["next"].as_str().unwrap().starts_with("is tried again")
        })
        .await;
        assert!((7_000..=7_200).contains(&seconds_until(&told)), "{told}");
    }
    let asked = ca
        .book
        .read(|book| book.asked.iter().filter(|it| *it == "order").count());
    assert!(asked <= 4, "those that were under way already: {asked}");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_fetched_is_not_signed_again() {
    let habits = problem("cert", 503, "", None);
    let (ca, state, gateway) = (Ca::start(habits).await, folder(), gateway().await);
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_failed(&proxy, "a.example").await;
    for attempts in 2..4 {
        // The ask has to come after the attempt, by the second.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        renew(&proxy.holdline, "a.example").await;
        until_told(&proxy, "a.example", |told| {
            told["failures"] == attempts && told["next"].as_str().unwrap().contains("tried again")
        })
        .await;
    }
    assert_eq!(ca.orders().len(), 1, "{:?}", ca.orders());
    let history = history(state.path());
    let signed = history["attempts"].as_array().unwrap().iter();
    assert_eq!(
        signed.filter(|it| it["outcome"]["signed"] == true).count(),
        1
    );
}

#[tokio::test]
async fn a_crash_loop_does_not_order_again_and_again() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    // Ends as soon as the CA has heard of the order; and again, when it would order once more.
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    ca.book
        .wait_for("an order", |book| (!book.orders.is_empty()).then_some(()))
        .await;
    drop(proxy);
    for _ in 0..4 {
        let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
        let another = ca.book.until(|book| (book.orders.len() > 1).then_some(()));
        let within = std::time::Duration::from_millis(600);
        let another = tokio::time::timeout(within, another).await;
        assert!(another.is_err(), "{:?}", ca.orders());
        drop(proxy);
    }
    assert!(ca.orders().len() <= 1, "{:?}", ca.orders());
    assert_eq!(
        history(state.path())["attempts"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn the_second_ca_steps_in_for_one_that_is_down() {
    let (down, up) = (
        Ca::start(problem("dir", 500, "", None)).await,
        Ca::start(Habits::default()).await,
    );
    let (state, gateway) = (folder(), gateway().await);
    let roots = state.path().join("roots.pem");
    let both = [down.ca_root(), up.ca_root()].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&roots, both.concat()).unwrap();
    let directories = [
        down.directory.as_str(),
        "https://127.0.0.1:9/dir",
        up.directory.as_str(),
    ];
    let proxy = Proxy::with(&gateway, &settings(&directories, &roots, state.path(), A)).await;
    until_trusted(&proxy, "a.example", &up.root).await;
    assert_eq!(history(state.path())["issuer"], up.directory);
}

#[tokio::test]
async fn an_account_that_the_ca_forgot_is_made_anew() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    drop(proxy);
    ca.habits.change(|habits| {
        habits.problem = Some(Problem {
            resource: "order",
            status: 400,
            kind: "accountDoesNotExist",
            retry_after: None,
        });
    });
    std::fs::remove_file(
        state
            .path()
            .join("acme/certificates/a.example/certificate.pem"),
    )
    .unwrap();
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(
        error.contains("a new one is made at the next attempt"),
        "{error}"
    );
    drop(proxy);
    ca.habits.change(|habits| habits.problem = None);
    std::fs::remove_dir_all(state.path().join("acme/cas")).unwrap();
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    let accounts = state.path().join("acme/accounts");
    let names: Vec<_> = std::fs::read_dir(accounts)
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert!(
        names
            .iter()
            .any(|it| it.to_string_lossy().ends_with(".damaged")),
        "{names:?}"
    );
}

#[tokio::test]
async fn an_account_that_cannot_be_read_is_not_made_anew() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    drop(proxy);
    let accounts = std::fs::read_dir(state.path().join("acme/accounts")).unwrap();
    let account = accounts
        .map(|it| it.unwrap().path())
        .find(|it| it.extension().is_some_and(|it| it == "json"))
        .unwrap();
    let good = std::fs::read(&account).unwrap();
    // Root can read anything but this.
    std::fs::remove_file(&account).unwrap();
    std::fs::create_dir(&account).unwrap();
    let folder = state.path().join("acme/certificates/a.example");
    std::fs::remove_file(folder.join("certificate.pem")).unwrap();
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(
        error.contains("cannot read") && error.contains("accounts"),
        "{error}"
    );
    let accounts = ca
        .book
        .read(|book| book.asked.iter().filter(|it| *it == "account").count());
    assert_eq!((accounts, ca.orders().len()), (1, 1));
    std::fs::remove_dir(&account).unwrap();
    std::fs::write(&account, good).unwrap();
    renew_until_trusted(&proxy, &ca).await;
    let accounts = ca
        .book
        .read(|book| book.asked.iter().filter(|it| *it == "account").count());
    assert_eq!(accounts, 1, "it was there all the time");
}

/// Asks once the second of the last attempt is over.
async fn renew_until_trusted(proxy: &Proxy, ca: &Ca) {
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    renew(&proxy.holdline, "a.example").await;
    until_trusted(proxy, "a.example", &ca.root).await;
}

// === the state directory ===

#[tokio::test]
async fn without_a_place_to_keep_it_nothing_is_ordered() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    // Root may write into a read-only folder; into a file nobody can.
    std::fs::write(state.path().join("acme"), "in the way").unwrap();
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    let error = until_failed(&proxy, "a.example").await;
    assert!(
        error.contains("/acme") && error.contains("state_dir"),
        "{error}"
    );
    assert!(subject(proxy.addr(), "a.example").await.contains("awaited"));
    assert_eq!(
        ca.book.read(|book| book.asked.len()),
        0,
        "the CA has not heard of us"
    );
    // Mended, it goes on by itself.
    std::fs::remove_file(state.path().join("acme")).unwrap();
    until_trusted(&proxy, "a.example", &ca.root).await;
}

#[tokio::test]
async fn damaged_files_are_set_aside_and_not_in_the_way() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    drop(proxy);
    let kept = state.path().join("acme/certificates/a.example");
    let pem = std::fs::read(kept.join("certificate.pem")).unwrap();
    std::fs::write(kept.join("certificate.pem"), &pem[..pem.len() / 2]).unwrap();
    std::fs::write(kept.join("history.json"), "{\"attempts\": [").unwrap();
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    assert!(
        kept.join("certificate.pem.damaged").exists() && kept.join("history.json.damaged").exists()
    );
    let mode = std::fs::metadata(kept.join("certificate.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn an_order_that_we_did_not_live_to_see_is_taken_up() {
    let habits = problem("cert", 503, "", None);
    let (ca, state, gateway) = (Ca::start(habits).await, folder(), gateway().await);
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_failed(&proxy, "a.example").await;
    drop(proxy);
    ca.habits.change(|habits| habits.problem = None);
    std::fs::remove_dir_all(state.path().join("acme/cas")).unwrap();
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    assert_eq!(
        ca.orders().len(),
        1,
        "the certificate that was paid for is used"
    );
    assert!(
        !state
            .path()
            .join("acme/certificates/a.example/order.json")
            .exists()
    );
}

#[tokio::test]
async fn what_another_server_left_is_taken_over_and_nothing_is_ordered() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let proxy = Proxy::with(&gateway, &ca.settings(state.path(), A)).await;
    until_trusted(&proxy, "a.example", &ca.root).await;
    drop(proxy);
    let pem = std::fs::read_to_string(
        state
            .path()
            .join("acme/certificates/a.example/certificate.pem"),
    )
    .unwrap();
    let (key, chain) = pem.split_at(pem.find("-----BEGIN CERTIFICATE").unwrap());
    let (left, fresh) = (folder(), folder());
    let live = left.path().join("live/a.example");
    std::fs::create_dir_all(&live).unwrap();
    std::fs::write(live.join("fullchain.pem"), chain).unwrap();
    std::fs::write(live.join("privkey.pem"), key).unwrap();
    let acme = format!("{A}\nimport = [{:?}]", left.path());
    let proxy = Proxy::with(&gateway, &ca.settings(fresh.path(), &acme)).await;
    assert!(
        is_trusted(proxy.addr(), "a.example", &ca.root).await,
        "from the first moment on"
    );
    assert_eq!(ca.orders().len(), 1);
    assert!(
        fresh
            .path()
            .join("acme/certificates/a.example/certificate.pem")
            .exists()
    );
}

#[tokio::test]
async fn instances_that_share_a_directory_order_once_and_both_serve() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let settings = ca.settings(state.path(), A);
    let (one, other) = tokio::join!(
        Proxy::with(&gateway, &settings),
        Proxy::with(&gateway, &settings)
    );
    until_trusted(&one, "a.example", &ca.root).await;
    until_trusted(&other, "a.example", &ca.root).await;
    assert_eq!(ca.orders().len(), 1);
    let (seen, same) = (
        leaf(one.addr(), "a.example").await,
        leaf(other.addr(), "a.example").await,
    );
    assert_eq!(seen, same);
}

#[tokio::test]
async fn twenty_names_are_twenty_certificates_and_one_account() {
    let (ca, state, gateway) = (
        Ca::start(Habits::default()).await,
        folder(),
        gateway().await,
    );
    let names: Vec<String> = (0..20).map(|n| format!("n{n}.example")).collect();
    let proxy = Proxy::with(
        &gateway,
        &ca.settings(state.path(), &format!("domains = {names:?}")),
    )
    .await;
    for name in &names {
        until_trusted(&proxy, name, &ca.root).await;
    }
    assert_eq!(ca.orders().len(), 20);
    let accounts = ca
        .book
        .read(|book| book.asked.iter().filter(|it| *it == "account").count());
    assert_eq!(accounts, 1);
    let metrics = http::get(&proxy.admin(), "/metrics", &[]).await.text();
    let gauges = metrics
        .lines()
        .filter(|line| line.starts_with("holdline_acme_certificate_not_after_seconds{"));
    assert_eq!(gauges.count(), 20);
}
