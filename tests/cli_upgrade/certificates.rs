//! An upgrade while certificates come from a CA: there is one order, whichever process the CA reaches.

use std::net::SocketAddr;

use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::ca::{Ca, Habits, token};
use crate::kit::{ScriptedGateway, Target, http, ms, within};
use crate::served::{challenge, is_trusted};
use crate::service::{Folder, Service};

/// A service whose certificate for `a.example` comes from this CA; and its plain address.
async fn start(ca: &Ca, folder: Folder, kind: &str) -> (Service, SocketAddr) {
    let acme = ca.settings(
        &folder.path("state"),
        &format!("domains = [\"a.example\"]\nimport = []\nchallenges = [\"{kind}\"]"),
    );
    let https = "https = [\"127.0.0.1:0\"]";
    let both = format!("{https}\nhttp = [\"127.0.0.1:0\"]");
    folder.configure(&format!("{}{acme}", folder.config().replace(https, &both)));
    let command = folder.command();
    let service = Service::run(folder, command).await;
    let plain = service.http.expect("a plain listener");
    (service, plain)
}

/// Whether a CA that comes by `tls-alpn-01` (RFC 8737) is shown the certificate for a challenge.
async fn shows_the_name(addr: SocketAddr) -> bool {
    let Some(leaf) = challenge(addr, "a.example").await else {
        return false;
    };
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let mut marks = leaf.extensions().iter();
    marks.any(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
}

/// What the process that serves tells of the certificate.
async fn told(service: &Service) -> Value {
    let status = http::get(&Target::plain(service.admin), "/status", &[]).await;
    status.json()["acme"][0].clone()
}

async fn until_next(service: &Service, begins: &str) {
    within(begins, async {
        while !told(service).await["next"]
            .as_str()
            .unwrap_or_default()
            .starts_with(begins)
        {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_is_carried_to_its_end_over_an_upgrade_and_answered_by_the_new_process() {
    for kind in ["http-01", "tls-alpn-01"] {
        let ca = Ca::start(Habits {
            challenge: Some(if kind == "http-01" {
                "http-01"
            } else {
                "tls-alpn-01"
            }),
            // The order is under way for as long as this test wants it.
            undecided: true,
            ..Habits::default()
        })
        .await;
        let gateway = ScriptedGateway::start().await;
        let (mut service, plain) = start(&ca, Folder::new(&gateway, ""), kind).await;
        ca.comes_to_look(0).await;
        let answered = || async {
            match kind {
                "http-01" => {
                    let token = token(0, 0);
                    let path = format!("/.well-known/acme-challenge/{token}");
                    let answer = http::get(&Target::plain(plain), &path, &[]).await;
                    answer.status == 200 && answer.text().starts_with(&format!("{token}."))
                }
                _ => shows_the_name(service.https).await,
            }
        };
        assert!(answered().await, "{kind}, by the process that orders");
        let (code, out, err) = service.upgrade().await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(answered().await, "{kind}, by the one that serves now");
        until_next(&service, "another instance orders it now").await;
        assert!(
            matches!(service.child.try_wait(), Ok(None)),
            "the old process stays until its order has come to its end"
        );
        ca.believe(0).await;
        within("the certificate", async {
            while !is_trusted(service.https, "a.example", &ca.root).await {
                tokio::time::sleep(ms(50)).await;
            }
        })
        .await;
        assert_eq!(service.exit().await.code(), Some(0));
        until_next(&service, "is renewed on").await;
        assert_eq!(ca.orders().len(), 1, "{kind}");
        // From now on it is the new one that renews.
        let admin = Target::plain(service.admin);
        ca.habits.change(|habits| habits.undecided = false);
        let asked = http::request(&admin, "POST", "/cert/renew?name=a.example", &[], b"").await;
        assert_eq!(asked.status, 202, "{}", asked.text());
        ca.book
            .wait_for("a renewal by the new process", |book| {
                (book.orders.len() == 2).then_some(())
            })
            .await;
        until_next(&service, "is renewed on").await;
    }
}

#[tokio::test]
async fn what_the_disk_does_not_hold_is_not_lost_by_an_upgrade() {
    let ca = Ca::start(Habits::default()).await;
    let gateway = ScriptedGateway::start().await;
    let (mut service, _) = start(&ca, Folder::new(&gateway, ""), "tls-alpn-01").await;
    until_next(&service, "is renewed on").await;
    let kept = service.folder().path("state/acme/certificates/a.example");
    std::fs::remove_dir_all(&kept).unwrap();
    std::fs::write(&kept, "").unwrap();
    let (code, out, err) = service.upgrade().await;
    assert_eq!(code, Some(1), "{out}");
    assert!(
        err.contains("a certificate would be lost with this process: a.example: cannot ")
            && err.contains(&kept.display().to_string()),
        "{err}"
    );
    assert!(is_trusted(service.https, "a.example", &ca.root).await);
    assert!(matches!(service.child.try_wait(), Ok(None)));

    std::fs::remove_file(&kept).unwrap();
    let (code, out, err) = service.upgrade().await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(service.exit().await.code(), Some(0));
    assert!(is_trusted(service.https, "a.example", &ca.root).await);
}
