//! A service that is asked over TLS, and one that is not who it should be.

use std::path::PathBuf;

use rcgen::CertifiedKey;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::provider;

struct Secure {
    address: SocketAddr,
    certificate: String,
    _accepting: AbortOnDropHandle<()>,
}

/// Says yes to whoever believes its certificate.
async fn secure(name: &str) -> Secure {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let terms = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(terms));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap_or(b'\n'));
            }
            let _ = stream.write_all(YES.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    Secure {
        address,
        certificate: cert.pem(),
        _accepting: AbortOnDropHandle::new(accepting),
    }
}

impl Secure {
    async fn asked_by_who_believes(&self, certificate: &str) -> Answer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, certificate).unwrap();
        let config = self.config(path);
        let forward = ForwardAuth::new();
        forward.believe(Trust::read(Some(&config)).unwrap().map(Arc::new));
        Client::new().ask(&forward, &config).await
    }

    fn config(&self, ca_root: PathBuf) -> config::ForwardAuth {
        config::ForwardAuth {
            tls: true,
            ca_root: Some(ca_root),
            host: self.address.ip().to_string(),
            port: self.address.port(),
            path: "/".to_owned(),
            user: HeaderName::from_static("x-auth-request-email"),
            copy: Vec::new(),
            timeout: LONG,
            cache: Duration::ZERO,
            recheck: None,
            without_answer: LONG,
        }
    }
}

#[tokio::test]
async fn it_is_believed_by_its_certificate() {
    let service = secure("127.0.0.1").await;
    let admitted = yes(service.asked_by_who_believes(&service.certificate).await);
    assert_eq!(&*admitted.identity.user, "nick@example.com");
}

#[tokio::test]
async fn whoever_else_answers_there_lets_nobody_in() {
    let (service, other) = (secure("127.0.0.1").await, secure("127.0.0.1").await);
    let elsewhere = secure("sso.example.com").await;
    for answer in [
        service.asked_by_who_believes(&other.certificate).await,
        elsewhere
            .asked_by_who_believes(&elsewhere.certificate)
            .await,
    ] {
        assert!(matches!(failure(answer), Failure::Tls(_)));
    }
    // Nor one that speaks no TLS, which is not tried without.
    let plain = Service::saying(YES).await;
    let mut config = plain.config();
    config.tls = true;
    let answer = Client::new().ask(&ForwardAuth::new(), &config).await;
    assert!(matches!(failure(answer), Failure::Tls(_)));
    assert_eq!(plain.count(), 0);
}

#[test]
fn a_file_without_a_ca_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    for (text, words) in [
        (None, "No such file"),
        (Some(""), "no certificate"),
        (
            Some("-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"),
            "ca.pem",
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = check_ca_root(&path).unwrap_err().to_string();
        assert!(
            error.contains(words) && error.contains("ca_root"),
            "{error}"
        );
    }
    let error = check_ca_root(folder.path()).unwrap_err().to_string();
    assert!(error.contains("not a file"), "{error}");
}
