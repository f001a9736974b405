//! Client certificates: demanded, or asked for only; and which are not good enough either way.

use std::fs;

use holdline::config::ClientCertificates::{self, Optional, Required};
use holdline::observe::labels::{Handshake, TlsFailure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::kit::*;

/// A private CA, and what it gives to clients.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "the CA of a test");
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// For "nick", as `change` leaves it.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "nick@example.com");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Shown {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }
}

/// What a client shows.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Shown {
    fn client(&self) -> ClientConfig {
        let (chain, key) = (self.chain.clone(), self.key.clone_key());
        client_with_certificate(chain, key, &["http/1.1"], &[&TLS13])
    }
}

fn edge_with(ca: &Ca, wanted: ClientCertificates) -> Running {
    start(|config, dir| {
        let path = dir.path().join("ca.pem");
        fs::write(&path, ca.0.pem()).unwrap();
        config.tls.client_ca = Some(path);
        config.tls.client_certificates = wanted;
    })
}

/// What the edge makes of a client, or `None` where it does not let it in.
async fn peer(edge: &Running, client: ClientConfig) -> Option<String> {
    // In TLS 1.3 the client is done before the server has looked at its certificate.
    let stream = handshake(edge.tcp().await, client, "localhost")
        .await
        .ok()?;
    let response = patient(http1(stream).await.send_request(get("/")))
        .await
        .ok()?;
    Some(text(response).await)
}

#[tokio::test]
async fn a_required_certificate_is_required_every_time() {
    let ca = Ca::new();
    let edge = edge_with(&ca, Required);
    assert_eq!(peer(&edge, modern(&["http/1.1"])).await, None);
    let client = ca.issue(|_| {}).client();
    for round in 1..=2 {
        let seen = peer(&edge, client.clone()).await.unwrap();
        assert!(seen.contains("nick@example.com"), "{seen}");
        assert_eq!(
            edge.metrics().tls_handshakes.get(Handshake::Full),
            round,
            "never resumed: its validity is looked at anew"
        );
    }
    edge.stop().await;
    assert_eq!(edge.metrics().tls_failures.get(TlsFailure::Rejected), 1);
}

#[tokio::test]
async fn an_optional_certificate_is_taken_where_there_is_one() {
    let ca = Ca::new();
    let edge = edge_with(&ca, Optional);
    let without = peer(&edge, modern(&["http/1.1"])).await.unwrap();
    assert!(without.contains("client_certificate: None"), "{without}");
    let with = peer(&edge, ca.issue(|_| {}).client()).await.unwrap();
    assert!(with.contains("nick@example.com"), "{with}");
    // The older version asks and answers in another order.
    let Shown { chain, key } = ca.issue(|_| {});
    let older = client_with_certificate(chain, key, &["http/1.1"], &[&TLS12]);
    let older = peer(&edge, older).await.unwrap();
    assert!(older.contains("nick@example.com"), "{older}");
    let older = peer(&edge, client(&["http/1.1"], &[&TLS12])).await.unwrap();
    assert!(older.contains("client_certificate: None"), "{older}");
}

#[tokio::test]
async fn one_that_is_not_good_is_refused_even_where_none_is_needed() {
    let ca = Ca::new();
    let foreign = Ca::new();
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let future = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    };
    let server_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let stolen = Shown {
        key: ca.issue(|_| {}).key,
        ..ca.issue(|_| {})
    };
    let bad = [
        ("of another CA", foreign.issue(|_| {})),
        ("expired", ca.issue(expired)),
        ("not valid yet", ca.issue(future)),
        ("for servers", ca.issue(server_only)),
        ("with another key", stolen),
    ];
    for wanted in [Required, Optional] {
        let edge = edge_with(&ca, wanted);
        for (what, shown) in &bad {
            let seen = peer(&edge, shown.client()).await;
            assert_eq!(seen, None, "{what}, {wanted:?}");
        }
        edge.stop().await;
        assert_eq!(edge.metrics().tls_failures.get(TlsFailure::Rejected), 5);
    }
}

#[test]
fn where_it_is_a_way_to_sign_in_it_is_asked_for_and_not_demanded() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, Ca::new().0.pem()).unwrap();
    let wanted = |modes: &str| {
        let text = format!(
            "[tls]\nclient_ca = {ca:?}\n[auth]\nmodes = {modes}\n\
             [auth.forward]\nurl = \"http://127.0.0.1:4180/auth\"\n"
        );
        let loaded = holdline::config::parse(&text, "test").unwrap();
        loaded.config.tls.client_certificates
    };
    assert_eq!(wanted("[]"), Required);
    assert_eq!(wanted("[\"forward\"]"), Required);
    assert_eq!(wanted("[\"mtls\"]"), Optional);
    assert_eq!(wanted("[\"mtls\", \"forward\"]"), Optional);
}
