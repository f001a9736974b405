//! A new config for a keeper that runs, and the example of a hook.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use holdline::config::{
    self, Acme, CertificateFiles, CertificateSource, ClientCertificates, TlsVersion,
};
use holdline::tls::Tls;
use holdline::tls::acme::{AcmeKeeper, State};
use serde_json::json;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::ca::{Ca, Habits, Problem};
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Client, Proxy, Role, ms, within};
use crate::served::{challenge, is_trusted, leaf, until_trusted};

fn acme(ca: &Ca, state: &Path, domains: &[&str]) -> Acme {
    let text = ca.settings(state, &format!("domains = {domains:?}\nimport = []"));
    config::parse(&text, "test").unwrap().config.acme.unwrap()
}

fn tls(certificate: CertificateSource) -> Tls {
    Tls::new(&config::Tls {
        certificate,
        min_version: TlsVersion::V1_2,
        client_ca: None,
        client_certificates: ClientCertificates::Required,
    })
    .unwrap()
}

async fn all_served(keeper: &AcmeKeeper, count: usize) {
    within("every certificate", async {
        loop {
            let status = keeper.status();
            if status.len() == count && status.iter().all(|one| one.state == State::Served) {
                return;
            }
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
}

fn names(tls: &Tls) -> Vec<String> {
    tls.certificates()
        .into_iter()
        .flat_map(|facts| facts.names)
        .collect()
}

/// After a hand-over the new process orders, and what is served here stays.
#[tokio::test]
async fn a_retired_keeper_orders_nothing_more() {
    let (ca, state) = (
        Ca::start(Habits::default()).await,
        tempfile::tempdir().unwrap(),
    );
    let tls = tls(CertificateSource::Acme);
    let keeper = AcmeKeeper::start(Some(acme(&ca, state.path(), &["a.example"])), &tls).await;
    keeper.begin();
    all_served(&keeper, 1).await;
    keeper.retire();
    assert_eq!(names(&tls), ["a.example"]);
    let two = acme(&ca, state.path(), &["a.example", "b.example"]);
    keeper.reconfigure(Some(two.clone())).await;
    // Told twice, it has looked at what there is to do in between.
    keeper.reconfigure(Some(two)).await;
    let orders = ca.orders().len();
    let status = keeper.status();
    let b = status.iter().find(|one| one.names == ["b.example"]);
    let next = &b.expect("it is kept").next;
    assert!(!next.contains("is being ordered"), "{next}");
    assert_eq!((orders, ca.orders().len()), (1, 1));
    assert!(keeper.renew(None).await.unwrap_err().contains("taken over"));
}

#[tokio::test]
async fn names_come_and_go_and_what_is_still_wanted_stays() {
    let (ca, state) = (
        Ca::start(Habits::default()).await,
        tempfile::tempdir().unwrap(),
    );
    let tls = tls(CertificateSource::Acme);
    let keeper = AcmeKeeper::start(Some(acme(&ca, state.path(), &["a.example"])), &tls).await;
    keeper.begin();
    assert!(
        !tls.store().is_empty(),
        "it answers from the first moment on"
    );
    all_served(&keeper, 1).await;
    assert_eq!(keeper.awaited(), None);

    keeper
        .reconfigure(Some(acme(&ca, state.path(), &["a.example", "b.example"])))
        .await;
    assert_eq!(names(&tls)[0], "a.example", "not for a moment without it");
    all_served(&keeper, 2).await;
    keeper
        .reconfigure(Some(acme(&ca, state.path(), &["b.example"])))
        .await;
    assert_eq!(names(&tls), ["b.example"]);
    keeper
        .reconfigure(Some(acme(&ca, state.path(), &["a.example"])))
        .await;
    assert_eq!(names(&tls), ["a.example"], "it was on disk");
    assert_eq!(ca.orders().len(), 2);
    keeper.reconfigure(None).await;
    assert!(keeper.status().is_empty() && !tls.challenges().in_use());
}

#[tokio::test]
async fn what_was_served_before_is_served_until_there_is_something_better() {
    let (ca, state) = (
        Ca::start(Habits::default()).await,
        tempfile::tempdir().unwrap(),
    );
    ca.habits.change(|habits| habits.lifetime.0 = -1);
    let dir = state.path().join("dev");
    let tls = tls(CertificateSource::Dev { dir });
    let keeper = AcmeKeeper::start(None, &tls).await;
    keeper.begin();
    keeper
        .reconfigure(Some(acme(&ca, state.path(), &["a.example"])))
        .await;
    assert_eq!(names(&tls)[0], "localhost");
    assert_eq!(keeper.awaited(), None, "clients are served as before");
    within("a certificate that has expired already", async {
        while keeper.status()[0].last_error.is_none() {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
    let error = keeper.status()[0].last_error.clone().unwrap().reason;
    assert!(error.contains("check this machine's clock"), "{error}");
    assert_eq!(names(&tls)[0], "localhost");
    drop(keeper);

    ca.habits.change(|habits| habits.lifetime.0 = 86_400);
    let fresh = tempfile::tempdir().unwrap();
    let keeper = AcmeKeeper::start(Some(acme(&ca, fresh.path(), &["a.example"])), &tls).await;
    keeper.begin();
    all_served(&keeper, 1).await;
    assert_eq!(names(&tls), ["a.example"]);
}

/// What a client that asks for the name would take, by who signed it.
fn issued_for(tls: &Tls, name: &str) -> bool {
    let all = tls.certificates();
    let mut fit = all
        .iter()
        .filter(|one| one.names.iter().any(|it| it == name));
    fit.next()
        .is_some_and(|one| !one.issuer.contains("awaited"))
}

#[tokio::test]
async fn names_that_are_grouped_otherwise_stay_served_while_the_ca_is_down() {
    let (ca, state) = (
        Ca::start(Habits::default()).await,
        tempfile::tempdir().unwrap(),
    );
    let tls = tls(CertificateSource::Acme);
    let wanted = |domains: &[&str]| Some(acme(&ca, state.path(), domains));
    let keeper = AcmeKeeper::start(wanted(&["a.example b.example"]), &tls).await;
    keeper.begin();
    all_served(&keeper, 1).await;
    ca.habits.change(|habits| *habits = problem_at("dir"));
    let others: [&[&str]; 3] = [
        &["a.example b.example c.example"],
        &["b.example", "a.example"],
        &["b.example c.example", "a.example d.example"],
    ];
    for domains in others {
        keeper.reconfigure(wanted(domains)).await;
        assert!(issued_for(&tls, "a.example") && issued_for(&tls, "b.example"));
        assert_eq!(keeper.awaited(), None, "{domains:?}");
    }
    drop(keeper);
    for domains in others {
        let keeper = AcmeKeeper::start(wanted(domains), &tls).await;
        assert!(issued_for(&tls, "a.example") && issued_for(&tls, "b.example"));
        assert_eq!(keeper.awaited(), None, "{domains:?}, after a restart");
    }
    let keeper = AcmeKeeper::start(wanted(&["b.example a.example"]), &tls).await;
    assert_eq!(keeper.status()[0].state, State::Served, "the same names");
    ca.habits.change(|habits| habits.problem = None);
    drop(keeper);
    // Its pause after being down, and those after orders that a new config cut short.
    for kept in ["cas", "certificates/a.example", "certificates/b.example"] {
        let _ = std::fs::remove_dir_all(state.path().join("acme").join(kept));
    }
    let keeper = AcmeKeeper::start(wanted(&["a.example", "b.example"]), &tls).await;
    keeper.begin();
    all_served(&keeper, 2).await;
    assert_eq!(names(&tls), ["a.example", "b.example"], "each its own");
}

#[tokio::test]
async fn nothing_is_ordered_before_cas_can_come_and_look() {
    let (ca, state) = (
        Ca::start(Habits::default()).await,
        tempfile::tempdir().unwrap(),
    );
    let tls = tls(CertificateSource::Acme);
    let wanted = || Some(acme(&ca, state.path(), &["a.example"]));
    let keeper = AcmeKeeper::start(wanted(), &tls).await;
    // It has been looked at between the two.
    keeper.reconfigure(wanted()).await;
    assert_eq!(keeper.status()[0].next, "is ordered in a moment");
    assert_eq!(ca.book.read(|book| book.asked.len()), 0);
    keeper.begin();
    all_served(&keeper, 1).await;
}

#[tokio::test]
async fn a_lock_that_another_process_keeps_holds_up_no_reload() {
    let (ca, state) = (
        Ca::start(Habits::default()).await,
        tempfile::tempdir().unwrap(),
    );
    std::fs::create_dir(state.path().join("acme")).unwrap();
    let lock = std::fs::File::create(state.path().join("acme/lock")).unwrap();
    lock.lock().unwrap();
    let tls = tls(CertificateSource::Acme);
    let domains: Vec<String> = (0..40).map(|n| format!("n{n}.example")).collect();
    let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
    let keeper = AcmeKeeper::start(Some(acme(&ca, state.path(), &domains)), &tls).await;
    keeper.begin();
    within("what holds it up", async {
        while keeper.status()[0].last_error.is_none() {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
    let error = keeper.status()[0].last_error.clone().unwrap().reason;
    assert!(error.contains("another process holds it"), "{error}");
    let before = tokio::time::Instant::now();
    let one = Some(acme(&ca, state.path(), &["a.example"]));
    let keeper = tokio::task::spawn_blocking(move || {
        keeper.configure(one);
        keeper
    });
    let keeper = keeper.await.unwrap();
    // The lock is waited for a second; for each of them that would be forty.
    assert!(before.elapsed() < ms(20_000), "{:?}", before.elapsed());
    lock.unlock().unwrap();
    all_served(&keeper, 1).await;
}

#[tokio::test]
async fn an_expired_certificate_is_not_ready_even_if_it_is_all_there_is() {
    let (ca, state) = (
        Ca::start(problem_at("dir")).await,
        tempfile::tempdir().unwrap(),
    );
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::seconds(8);
    let (cert, private) = (state.path().join("cert.pem"), state.path().join("key.pem"));
    std::fs::write(&cert, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();
    let tls = tls(CertificateSource::Files(vec![CertificateFiles {
        cert,
        key: private,
    }]));
    let keeper = AcmeKeeper::start(None, &tls).await;
    keeper.begin();
    keeper
        .reconfigure(Some(acme(&ca, state.path(), &["a.example"])))
        .await;
    assert_eq!(keeper.awaited(), None);
    within("the end of the certificate", async {
        while keeper.awaited().is_none() {
            tokio::time::sleep(ms(50)).await;
        }
    })
    .await;
}

fn problem_at(resource: &'static str) -> Habits {
    Habits {
        problem: Some(Problem {
            resource,
            status: 503,
            kind: "",
            retry_after: None,
        }),
        ..Habits::default()
    }
}

#[tokio::test]
async fn whoever_asks_for_a_name_that_is_not_kept_is_told_which_are() {
    let (ca, state) = (
        Ca::start(Habits::default()).await,
        tempfile::tempdir().unwrap(),
    );
    let tls = tls(CertificateSource::Acme);
    let keeper = AcmeKeeper::start(Some(acme(&ca, state.path(), &["a.example"])), &tls).await;
    let error = keeper
        .renew(Some("b.example".to_owned()))
        .await
        .unwrap_err();
    assert_eq!(error, "b.example is in no certificate; there are a.example");
    let keeper = Arc::new(AcmeKeeper::start(None, &tls).await);
    assert!(
        keeper
            .renew(None)
            .await
            .unwrap_err()
            .contains("[tls] certificate")
    );
}

/// A load balancer does not know which of them has ordered.
#[tokio::test]
async fn every_instance_answers_a_ca_and_only_for_what_is_ordered() {
    let habits = Habits {
        challenge: Some("tls-alpn-01"),
        undecided: true,
        ..Habits::default()
    };
    let (ca, state) = (Ca::start(habits).await, tempfile::tempdir().unwrap());
    let gateway = ScriptedGateway::start().await;
    let settings = ca.settings(state.path(), "domains = [\"a.example b.example\"]");
    let one = Proxy::with(&gateway, &settings).await;
    let other = Proxy::with(&gateway, &settings).await;
    for proxy in [&one, &other] {
        for name in ["a.example", "b.example"] {
            let shown = within("the answer", async {
                loop {
                    if let Some(leaf) = challenge(proxy.addr(), name).await {
                        return leaf;
                    }
                    tokio::time::sleep(ms(20)).await;
                }
            })
            .await;
            let (_, shown) = X509Certificate::from_der(&shown).unwrap();
            let mut extensions = shown.extensions().iter();
            // RFC 8737, 6.1.
            assert!(
                extensions.any(|it| it.critical && it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
            );
        }
        assert_eq!(challenge(proxy.addr(), "c.example").await, None);
    }
    assert_eq!(ca.orders().len(), 1);
}

#[test]
fn the_example_of_a_hook_says_to_the_name_server_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("nsupdate");
    std::fs::write(&fake, "#!/bin/sh\necho \"$@\"\ncat\n").unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let run = |what: &str| {
        let done = Command::new("docs/dns-hook")
            .args([what, "_acme-challenge.a.example", "v-1"])
            .env("PATH", &path)
            .env("SERVER", "192.0.2.53")
            .env("KEY_FILE", "/k")
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (code, said) = run("present");
    let expected =
        "-k /k\nserver 192.0.2.53\nupdate add _acme-challenge.a.example. 60 TXT \"v-1\"\nsend\n";
    assert_eq!((code, said.as_str()), (Some(0), expected));
    assert!(
        run("cleanup")
            .1
            .contains("update delete _acme-challenge.a.example. TXT \"v-1\"")
    );
    assert_eq!(run("remove").0, Some(64));
}

#[tokio::test]
async fn a_reload_brings_a_name_and_ends_no_session() {
    let (ca, state) = (
        Ca::start(Habits::default()).await,
        tempfile::tempdir().unwrap(),
    );
    let gateway = ScriptedGateway::start().await;
    let of =
        |domains: &str| ca.settings(state.path(), &format!("domains = [{domains}]\nimport = []"));
    // From files, to a CA, to a further name, and back.
    let settings = Arc::new(Mutex::new(String::new()));
    let proxy = Proxy::reloadable(&gateway, &settings).await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    let files = leaf(proxy.addr(), "localhost").await;

    *settings.lock().unwrap() = of("\"a.example\"");
    proxy.holdline.reload().await.unwrap();
    until_trusted(&proxy, "a.example", &ca.root).await;
    *settings.lock().unwrap() = of("\"a.example\", \"b.example\"");
    proxy.holdline.reload().await.unwrap();
    assert!(is_trusted(proxy.addr(), "a.example", &ca.root).await);
    until_trusted(&proxy, "b.example", &ca.root).await;
    settings.lock().unwrap().clear();
    proxy.holdline.reload().await.unwrap();
    assert_eq!(leaf(proxy.addr(), "a.example").await, files);

    assert_eq!(ca.orders().len(), 2);
    client.request("sessions.list", json!({})).await.ok();
    client.record().assert_untouched();
}
