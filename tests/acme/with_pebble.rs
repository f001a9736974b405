//! Against Pebble, in strict mode and with nonces that are refused at random.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::ca::settings;
use crate::kit::gateway::ScriptedGateway;
use crate::kit::{Client, Proxy, Role};
use crate::pebble::{Options, Pebble};
use crate::served::{is_trusted, leaf, renew, subject, until_failed, until_told, until_trusted};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
#[ignore = "needs Pebble"]
async fn a_name_is_all_that_it_takes_and_no_session_notices() {
    let (pebble, state, gateway) = (
        Pebble::start(Options::default()).await,
        folder(),
        ScriptedGateway::start().await,
    );
    let settings = pebble.settings(
        state.path(),
        "domains = [\"a.example\"]\ncontact = [\"nick@example.com\"]",
    );
    let proxy = Proxy::with(&gateway, &settings).await;
    // The TLS port answers from the first moment on.
    let first = subject(proxy.addr(), "a.example").await;
    let client = Client::connected(Role::backend(), proxy.target()).await;
    let root = pebble.root().await;
    until_trusted(&proxy, "a.example", &root).await;
    let told = until_told(&proxy, "a.example", |told| told["state"] == "served").await;
    assert!(
        told["next"].as_str().unwrap().starts_with("is renewed on "),
        "{told}"
    );
    let before = leaf(proxy.addr(), "a.example").await;

    renew(&proxy.holdline, "a.example").await;
    until_told(&proxy, "a.example", |told| {
        told["next"].as_str().unwrap().starts_with("is renewed on ")
    })
    .await;
    while leaf(proxy.addr(), "a.example").await == before {
        tokio::task::yield_now().await;
    }
    assert!(is_trusted(proxy.addr(), "a.example", &root).await);
    client.request("sessions.list", json!({})).await.ok();
    client.record().assert_untouched();
    let awaited = "holdline: certificate awaited from the CA, a.example";
    assert_eq!(first, format!("CN={awaited}"));

    let kept = state
        .path()
        .join("acme/certificates/a.example/certificate.pem");
    assert_eq!((mode(&kept), mode(kept.parent().unwrap())), (0o600, 0o700));
}

#[tokio::test]
#[ignore = "needs Pebble"]
async fn every_kind_of_challenge_will_do() {
    for (kind, name) in [
        ("http-01", "h.example"),
        ("tls-alpn-01", "t.example"),
        ("tls-alpn-01", "127.0.0.1"),
        ("http-01", "127.0.0.1"),
    ] {
        let (pebble, state, gateway) = (
            Pebble::start(Options::default()).await,
            folder(),
            ScriptedGateway::start().await,
        );
        let acme = format!("domains = [\"{name}\"]\nchallenges = [\"{kind}\"]");
        let proxy = Proxy::with(&gateway, &pebble.settings(state.path(), &acme)).await;
        until_trusted(&proxy, name, &pebble.root().await).await;
        // It logs what it asks by HTTP only.
        let by_http = pebble.log().contains("validate w/ HTTP");
        assert_eq!(by_http, kind == "http-01", "{}", pebble.log());
    }
}

/// A CA has no client certificate to show.
#[tokio::test]
#[ignore = "needs Pebble"]
async fn a_challenge_needs_no_client_certificate() {
    let (pebble, state, gateway) = (
        Pebble::start(Options::default()).await,
        folder(),
        ScriptedGateway::start().await,
    );
    let acme = "domains = [\"c.example\"]\nchallenges = [\"tls-alpn-01\"]";
    let settings = pebble.settings(state.path(), acme).replace(
        "[tls]",
        &format!("[tls]\nclient_ca = {:?}", pebble.ca_root()),
    );
    let proxy = Proxy::with(&gateway, &settings).await;
    let told = until_told(&proxy, "c.example", |told| told["state"] == "served").await;
    assert_eq!(told["failures"], 0, "{told}");
}

#[tokio::test]
#[ignore = "needs Pebble"]
async fn a_hook_writes_the_record_for_wildcards() {
    let (pebble, state, gateway) = (
        Pebble::start(Options::default()).await,
        folder(),
        ScriptedGateway::start().await,
    );
    let hook = state.path().join("hook");
    let script = format!(
        "#!/bin/sh\ncase $1 in present) to=set-txt ;; *) to=clear-txt ;; esac\n\
         exec curl --silent --fail --data \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://127.0.0.1:{}/$to\n",
        pebble.dns_management
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let acme = format!(
        "domains = [\"w.example *.w.example\"]\nchallenges = [\"dns-01\"]\ndns_hook = [{hook:?}]\n\
         dns_resolvers = [\"127.0.0.1:{}\"]\ndns_timeout = \"20s\"",
        pebble.dns_port
    );
    let proxy = Proxy::with(&gateway, &pebble.settings(state.path(), &acme)).await;
    let root = pebble.root().await;
    until_trusted(&proxy, "x.w.example", &root).await;
    assert!(is_trusted(proxy.addr(), "w.example", &root).await);
}

#[tokio::test]
#[ignore = "needs Pebble"]
async fn what_the_ca_refuses_is_told_with_what_to_do() {
    let eab = (
        "kid-1".to_owned(),
        "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W".to_owned(),
    );
    let options = Options {
        blocked: vec!["blocked.example".to_owned()],
        ..Options::default()
    };
    let (pebble, state, gateway) = (
        Pebble::start(options).await,
        folder(),
        ScriptedGateway::start().await,
    );
    let acme = "domains = [\"blocked.example\", \"elsewhere.example\"]\nchallenges = [\"http-01\"]";
    pebble
        .dns(
            "add-a",
            json!({"host": "elsewhere.example.", "addresses": ["127.0.0.9"]}),
        )
        .await;
    let proxy = Proxy::with(&gateway, &pebble.settings(state.path(), acme)).await;
    let refused = until_failed(&proxy, "blocked.example").await;
    assert!(
        refused.contains("does not issue for this name"),
        "{refused}"
    );
    let elsewhere = until_failed(&proxy, "elsewhere.example").await;
    assert!(
        elsewhere.contains("elsewhere.example by http-01: the CA cannot connect"),
        "{elsewhere}"
    );
    let told = until_told(&proxy, "elsewhere.example", |told| {
        told["nextAt"].is_string()
    })
    .await;
    assert!(
        told["next"]
            .as_str()
            .unwrap()
            .starts_with("is tried again on "),
        "{told}"
    );

    // A customer's account.
    let pebble = Pebble::start(Options {
        eab: Some(eab.clone()),
        ..Options::default()
    })
    .await;
    let state = folder();
    let key = state.path().join("eab.key");
    let proxy = Proxy::with(
        &gateway,
        &pebble.settings(state.path(), "domains = [\"e.example\"]"),
    )
    .await;
    let refused = until_failed(&proxy, "e.example").await;
    assert!(refused.contains("[acme] eab"), "{refused}");
    drop(proxy);
    std::fs::write(&key, eab.1).unwrap();
    let acme =
        format!("domains = [\"f.example\"]\neab = [{{ kid = \"kid-1\", key_file = {key:?} }}]");
    let state = folder();
    let proxy = Proxy::with(&gateway, &pebble.settings(state.path(), &acme)).await;
    until_trusted(&proxy, "f.example", &pebble.root().await).await;
}

#[tokio::test]
#[ignore = "needs Pebble"]
async fn the_account_key_can_be_changed_and_is_used() {
    let (pebble, state, gateway) = (
        Pebble::start(Options::default()).await,
        folder(),
        ScriptedGateway::start().await,
    );
    let settings = pebble.settings(state.path(), "domains = [\"k.example\"]");
    let proxy = Proxy::with(&gateway, &settings).await;
    let root = pebble.root().await;
    until_trusted(&proxy, "k.example", &root).await;
    let before = leaf(proxy.addr(), "k.example").await;
    let config = holdline::config::parse(&settings, "test").unwrap().config;
    let accounts = std::fs::read_dir(state.path().join("acme/accounts")).unwrap();
    let account = accounts
        .map(|it| it.unwrap().path())
        .find(|it| it.extension().is_some_and(|it| it == "json"))
        .unwrap();
    let old = std::fs::read(&account).unwrap();
    let acme = config.acme.unwrap();
    let changed = holdline::tls::acme::change_account_keys(&acme).await;
    assert_eq!(changed[0].1, Ok(true));
    // As if we had ended between the CA's change and ours; then as if just before it.
    let new = std::fs::read(&account).unwrap();
    let next = account.with_extension("json.next");
    let key = |account: &[u8]| {
        let account: serde_json::Value = serde_json::from_slice(account).unwrap();
        account["key_pkcs8"].clone()
    };
    let leave = |follows: &[u8]| {
        std::fs::write(&next, json!({"new_key": key(follows)}).to_string()).unwrap();
    };
    std::fs::write(&account, &old).unwrap();
    for follows in [&new, &old] {
        leave(follows);
        let changed = holdline::tls::acme::change_account_keys(&acme).await;
        assert_eq!(changed[0].1, Ok(true));
        assert!(!next.exists());
    }
    leave(&old);
    renew(&proxy.holdline, "k.example").await;
    until_told(&proxy, "k.example", |told| {
        told["next"].as_str().unwrap().starts_with("is renewed on ")
    })
    .await;
    while leaf(proxy.addr(), "k.example").await == before {
        tokio::task::yield_now().await;
    }
    assert!(is_trusted(proxy.addr(), "k.example", &root).await);
    assert!(!next.exists());
}

#[tokio::test]
#[ignore = "needs Pebble"]
async fn a_ca_that_is_down_is_stood_in_for_and_one_that_forgot_us_is_no_trouble() {
    let (mut one, other) = (
        Pebble::start(Options::default()).await,
        Pebble::start(Options::default()).await,
    );
    let (state, gateway) = (folder(), ScriptedGateway::start().await);
    let roots = state.path().join("roots.pem");
    let both = [one.ca_root(), other.ca_root()].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&roots, both.concat()).unwrap();
    one.down().await;
    let directories = [one.directory.as_str(), other.directory.as_str()];
    let acme = "domains = [\"d.example\"]\nimport = []";
    let ports = format!("[listen]\nhttps = [\"127.0.0.1:{}\"]\n", other.tls_port);
    let text = ports + &settings(&directories, &roots, state.path(), acme);
    let proxy = Proxy::with(&gateway, &text).await;
    let root = other.root().await;
    until_trusted(&proxy, "d.example", &root).await;
    drop(proxy);

    // With a memory as new: it knows neither account nor order.
    let (mut pebble, state) = (Pebble::start(Options::default()).await, folder());
    let settings = pebble.settings(state.path(), "domains = [\"m.example\"]");
    let proxy = Proxy::with(&gateway, &settings).await;
    until_trusted(&proxy, "m.example", &pebble.root().await).await;
    pebble.down().await;
    pebble.up().await;
    renew(&proxy.holdline, "m.example").await;
    let error = until_failed(&proxy, "m.example").await;
    assert!(error.contains("does not know our account"), "{error}");
    until_trusted(&proxy, "m.example", &pebble.root().await).await;
}

#[tokio::test]
#[ignore = "needs Pebble"]
async fn twenty_names_and_two_instances() {
    let (pebble, state, gateway) = (
        Pebble::start(Options::default()).await,
        folder(),
        ScriptedGateway::start().await,
    );
    let names: Vec<String> = (0..20).map(|n| format!("n{n}.example")).collect();
    // The other instance has ports that the CA does not look at: it answers through the directory.
    let acme = format!("domains = {names:?}\nchallenges = [\"http-01\", \"tls-alpn-01\"]");
    let here = pebble.settings(state.path(), &acme);
    let there = here
        .replace(&format!("127.0.0.1:{}", pebble.tls_port), "127.0.0.1:0")
        .replace(&format!("127.0.0.1:{}", pebble.http_port), "127.0.0.1:0");
    let (one, other) = tokio::join!(Proxy::with(&gateway, &here), Proxy::with(&gateway, &there));
    let root = pebble.root().await;
    for name in &names {
        until_trusted(&one, name, &root).await;
        until_trusted(&other, name, &root).await;
    }
    let issued = pebble.log().matches("Issued certificate serial").count();
    assert_eq!(issued, 20);
}

/// In a mount namespace of its own: see `run`.
#[tokio::test]
#[ignore = "needs Pebble, and a small disk"]
async fn a_disk_that_is_full_or_read_only_costs_no_order() {
    let Some(disk) = std::env::var_os("HOLDLINE_SMALL_DISK") else {
        panic!("tests/acme/run makes a small disk");
    };
    let (disk, pebble, gateway) = (
        Path::new(&disk),
        Pebble::start(Options::default()).await,
        ScriptedGateway::start().await,
    );
    let remount = |how: &str| {
        let done = std::process::Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(disk)
            .status();
        assert!(done.unwrap().success(), "remount {how}");
    };
    let settings = pebble.settings(disk, "domains = [\"s.example\"]");

    std::fs::write(disk.join("filler"), vec![0; 1 << 20]).unwrap_err();
    let proxy = Proxy::with(&gateway, &settings).await;
    let error = until_failed(&proxy, "s.example").await;
    assert!(error.contains("make room on that disk"), "{error}");
    drop(proxy);

    std::fs::remove_file(disk.join("filler")).unwrap();
    remount("ro");
    let proxy = Proxy::with(&gateway, &settings).await;
    let error = until_failed(&proxy, "s.example").await;
    assert!(error.contains("mount it writable"), "{error}");
    assert!(subject(proxy.addr(), "s.example").await.contains("awaited"));
    assert!(
        !pebble.log().contains("GET /dir"),
        "the CA has not heard of us: {}",
        pebble.log()
    );
    remount("rw");
    let root = pebble.root().await;
    until_trusted(&proxy, "s.example", &root).await;
}
