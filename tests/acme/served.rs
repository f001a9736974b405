//! What a client of the proxy sees: the certificate, and whether it is one to trust.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdline::Holdline;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::kit::{Anybody, Proxy, ms};

/// An order takes seconds, on a busy machine more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

async fn dial(
    addr: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(addr).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
}

/// The leaf that is served under a name.
pub(crate) async fn leaf(addr: SocketAddr, name: &str) -> CertificateDer<'static> {
    let config = builder()
        .dangerous()
        .with_custom_certificate_verifier(Anybody::new())
        .with_no_client_auth();
    let tls = dial(addr, name, config).await.expect("a handshake");
    tls.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// What a CA is shown that looks at a `tls-alpn-01` challenge, if it is shown anything.
pub(crate) async fn challenge(addr: SocketAddr, name: &str) -> Option<CertificateDer<'static>> {
    let anybody = Anybody::new();
    let mut config = builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&anybody) as _)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    // Ours can do nothing with such a certificate, and ends it there.
    let _ = dial(addr, name, config).await;
    anybody.shown()
}

/// Its subject.
pub(crate) async fn subject(addr: SocketAddr, name: &str) -> String {
    let leaf = leaf(addr, name).await;
    let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
    parsed.subject().to_string()
}

/// Whether a client that trusts this root takes what is served under the name.
pub(crate) async fn is_trusted(
    addr: SocketAddr,
    name: &str,
    root: &CertificateDer<'static>,
) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    dial(addr, name, config).await.is_ok()
}

/// Waits until a client that trusts this root takes what is served under the name.
pub(crate) async fn until_trusted(proxy: &Proxy, name: &str, root: &CertificateDer<'static>) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_trusted(proxy.addr(), name, root).await {
            tokio::time::sleep(ms(100)).await;
        }
    });
    if waited.await.is_err() {
        panic!("{name} is not served: {:#}", proxy.status().await["acme"]);
    }
}

/// What is told of the certificate with this name.
pub(crate) async fn told(proxy: &Proxy, name: &str) -> Value {
    let status = proxy.status().await;
    let all = status["acme"].as_array().unwrap();
    let has = |one: &&Value| one["names"].as_array().unwrap().iter().any(|it| it == name);
    all.iter()
        .find(has)
        .unwrap_or_else(|| panic!("no {name} in {all:?}"))
        .clone()
}

/// Waits until what is told is so.
pub(crate) async fn until_told(
    proxy: &Proxy,
    name: &str,
    mut found: impl FnMut(&Value) -> bool,
) -> Value {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let told = told(proxy, name).await;
            if found(&told) {
                return told;
            }
            tokio::time::sleep(ms(50)).await;
        }
    });
    match waited.await {
        Ok(told) => told,
        Err(_) => panic!("it never was so: {:#}", told(proxy, name).await),
    }
}

/// The last error in words, once there is one.
pub(crate) async fn until_failed(proxy: &Proxy, name: &str) -> String {
    let told = until_told(proxy, name, |told| told["lastError"].is_object()).await;
    told["lastError"]["reason"].as_str().unwrap().to_owned()
}

pub(crate) async fn renew(holdline: &Holdline, name: &str) {
    let admin = crate::kit::Target::plain(holdline.admin_addr().unwrap());
    let path = format!("/cert/renew?name={name}");
    let answer = crate::kit::http::request(&admin, "POST", &path, &[], b"").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}
