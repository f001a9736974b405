//! Certificates, versions, ALPN, client certificates, and what is not TLS at all.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use holdline::config::{CertificateSource, TlsVersion};
use holdline::observe::labels::{Handshake, TlsFailure};
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::*;

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let mut made = Vec::new();
    let edge = start(|config, dir| {
        made = vec![
            make_certificate(dir, "default", &["default.example"]),
            make_certificate(dir, "wild", &["*.wild.example"]),
        ];
        let files = made.iter().map(|each| each.files.clone()).collect();
        config.tls.certificate = CertificateSource::Files(files);
    });
    for (name, expected) in [
        ("default.example", 0),
        ("a.wild.example", 1),
        ("b.a.wild.example", 0),
        ("unknown.example", 0),
        ("127.0.0.1", 0),
    ] {
        let stream = edge.connect(modern(&[]), name).await;
        assert_eq!(leaf(&stream), made[expected].der, "{name}");
    }
}

#[tokio::test]
async fn a_certificate_is_swapped_under_a_live_connection() {
    let mut first = None;
    let edge = start(|config, dir| {
        let made = make_certificate(dir, "a", &["a.example"]);
        config.tls.certificate = CertificateSource::Files(vec![made.files.clone()]);
        first = Some(made);
    });
    let stream = edge.connect(modern(&["http/1.1"]), "a.example").await;
    assert_eq!(leaf(&stream), first.unwrap().der);
    let mut before = http1(stream).await;
    patient(before.send_request(get("/"))).await.unwrap();
    let second = make_certificate(&edge.dir, "a", &["a.example"]);
    edge.reload_tls(&edge.edge.config.load().tls).unwrap();
    let after = edge.connect(modern(&[]), "a.example").await;
    assert_eq!(leaf(&after), second.der);
    patient(before.send_request(get("/"))).await.unwrap();
    fs::write(&second.files.key, "damaged").unwrap();
    assert!(edge.reload_tls(&edge.edge.config.load().tls).is_err());
    assert_eq!(
        leaf(&edge.connect(modern(&[]), "a.example").await),
        second.der
    );
}

#[tokio::test]
async fn the_development_certificate_is_valid_for_this_machine() {
    let edge = start(|_, _| {});
    let pem = fs::read(edge.dir.path().join("dev/cert.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    // Strict clients, this one too, take no wildcard right below a top-level name.
    for name in ["localhost", "127.0.0.1", "::1"] {
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        edge.connect(config, name).await;
    }
}

#[tokio::test]
async fn alpn_decides_the_version_of_http() {
    let edge = start(|_, _| {});
    for (alpn, h2) in [
        (&["h2", "http/1.1"][..], true),
        (&["http/1.1"], false),
        (&[], false),
    ] {
        let stream = edge.connect(modern(alpn), "localhost").await;
        let response = if h2 {
            patient(http2(stream).await.send_request(get("/")))
                .await
                .unwrap()
        } else {
            patient(http1(stream).await.send_request(get("/")))
                .await
                .unwrap()
        };
        let peer = text(response).await;
        assert!(peer.contains(&format!("alpn_h2: {h2}")), "{peer}");
        assert!(peer.contains("server_name: Some(\"localhost\")"), "{peer}");
        assert!(peer.contains("client_certificate: None"), "{peer}");
    }
    let socket = edge.tcp().await;
    handshake(socket, modern(&["spdy/1"]), "localhost")
        .await
        .unwrap_err();
    edge.stop().await;
    assert_eq!(edge.metrics().tls_failures.get(TlsFailure::Rejected), 1);
}

#[tokio::test]
async fn the_lowest_version_is_kept_to() {
    let edge = start(|_, _| {});
    let stream = edge.connect(client(&[], &[&TLS12]), "localhost").await;
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );
    let stream = edge
        .connect(client(&[], &[&TLS12, &TLS13]), "localhost")
        .await;
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    let strict = start(|config, _| config.tls.min_version = TlsVersion::V1_3);
    let socket = strict.tcp().await;
    handshake(socket, client(&[], &[&TLS12]), "localhost")
        .await
        .unwrap_err();
    strict.connect(modern(&[]), "localhost").await;
}

#[tokio::test]
async fn sessions_resume_from_tickets() {
    let edge = start(|_, _| {});
    let config = modern(&["http/1.1"]);
    for (full, resumed) in [(1, 0), (1, 1), (1, 2)] {
        let stream = edge.connect(config.clone(), "localhost").await;
        // Reading the answer takes in the ticket as well.
        let response = patient(http1(stream).await.send_request(get("/")))
            .await
            .unwrap();
        text(response).await;
        assert_eq!(edge.metrics().tls_handshakes.get(Handshake::Full), full);
        assert_eq!(
            edge.metrics().tls_handshakes.get(Handshake::Resumed),
            resumed
        );
    }
}

#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let edge = start(|_, _| {});
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let mut socket = edge.tcp().await;
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        patient(socket.read_to_string(&mut answer)).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains("This port speaks TLS: use https://"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn anything_else_is_closed() {
    let edge = start(|_, _| {});
    let mut socket = edge.tcp().await;
    socket.write_all(&[0x80, 0x2e, 0x01]).await.unwrap();
    ends(&mut socket).await;
    let mut socket = edge.tcp().await;
    socket
        .write_all(&[0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5])
        .await
        .unwrap();
    ends(&mut socket).await;
    edge.stop().await;
    assert_eq!(edge.metrics().tls_failures.get(TlsFailure::NotTls), 1);
    assert_eq!(edge.metrics().tls_failures.get(TlsFailure::Rejected), 1);
    assert_eq!(edge.metrics().connections_open.get(), 0);
}

#[tokio::test]
async fn a_slow_handshake_is_closed() {
    let edge = start(|config, _| config.limits.tls_timeout = Duration::from_millis(100));
    let mut silent = edge.tcp().await;
    let mut slow = edge.tcp().await;
    slow.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    let mut plain = edge.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    for socket in [&mut silent, &mut slow, &mut plain] {
        ends(socket).await;
    }
    edge.stop().await;
    assert_eq!(edge.metrics().tls_failures.get(TlsFailure::Timeout), 2);
    assert_eq!(edge.metrics().tls_failures.get(TlsFailure::PlainHttp), 1);
}

#[tokio::test]
async fn only_a_session_of_the_same_terms_is_resumed() {
    let edge = start(|_, _| {});
    let config = modern(&["http/1.1"]);
    let stream = edge.connect(config.clone(), "localhost").await;
    text(
        patient(http1(stream).await.send_request(get("/")))
            .await
            .unwrap(),
    )
    .await;
    let mut stricter = Arc::unwrap_or_clone(edge.edge.config.load_full());
    stricter.tls.client_ca = Some(edge.dir.path().join("dev/cert.pem"));
    edge.reload_tls(&stricter.tls).unwrap();
    let stream = edge.connect(config, "localhost").await;
    assert!(http1(stream).await.send_request(get("/")).await.is_err());
    assert_eq!(edge.metrics().tls_handshakes.get(Handshake::Resumed), 0);
}

/// Waits for the end of a connection, however rude.
async fn ends(socket: &mut tokio::net::TcpStream) {
    let mut rest = Vec::new();
    let _ = patient(socket.read_to_end(&mut rest)).await;
}
