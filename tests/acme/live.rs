//! A new config for a keeper that runs, and the example of a hook.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use holdline::config::{self, Acme, CertificateSource, ClientCertificates, TlsVersion};
use holdline::tls::Tls;
use holdline::tls::acme::{AcmeKeeper, State};
use serde_json::json;

use crate::ca::{Ca, Habits};
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Client, Proxy, Role, ms, within};
use crate::served::{is_trusted, leaf, until_trusted};

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
    all_served(&keeper, 1).await;
    assert_eq!(names(&tls), ["a.example"]);
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
