//! A running edge with a small service behind it, and clients to try it with.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use holdline::config::{
    self, CertificateFiles, CertificateSource, ClientCertificates, Config, TlsVersion,
};
use holdline::listen::{ClientStream, Doors, Edge, Inherited, Peer};
use holdline::observe::Metrics;
use holdline::tls::{Tls, TlsError};

use crate::anybody::Anybody;

/// Long enough for any step of a test, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Running {
    pub(crate) https: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    _doors: Doors,
    pub(crate) edge: Edge,
    pub(crate) dir: TempDir,
    /// `/wait` answers when this is notified; `waiting` tells that one has arrived.
    pub(crate) go: Arc<Notify>,
    pub(crate) waiting: Arc<Notify>,
}

impl Running {
    pub(crate) fn reload_tls(&self, config: &config::Tls) -> Result<(), TlsError> {
        self.edge.tls.apply(self.edge.tls.prepare(config)?);
        Ok(())
    }
}

/// A certificate made for a test.
pub(crate) struct Made {
    pub(crate) files: CertificateFiles,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) fn make_certificate(dir: &TempDir, file: &str, names: &[&str]) -> Made {
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = CertificateFiles {
        cert: dir.path().join(format!("{file}.pem")),
        key: dir.path().join(format!("{file}.key")),
    };
    fs::write(&files.cert, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    Made {
        files,
        der: made.cert.der().clone(),
    }
}

pub(crate) fn config(dir: PathBuf) -> Config {
    let loopback = "127.0.0.1:0".parse().unwrap();
    Config {
        listen: config::Listen {
            https: vec![loopback],
            http: Vec::new(),
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
        },
        tls: config::Tls {
            certificate: CertificateSource::Dev { dir },
            min_version: TlsVersion::V1_2,
            client_ca: None,
            client_certificates: ClientCertificates::Required,
        },
        acme: None,
        routes: Vec::new(),
        hold: config::Hold {
            max: PATIENCE,
            upgrade: PATIENCE,
            handshake: PATIENCE,
            notice_after: PATIENCE,
            notice_every: PATIENCE,
            buffer: 1,
            buffer_total: 1,
            resume_rate: 1,
            unfinished_handshakes: 1,
            unfinished_per_ip: 1,
            replay_requests: config::ReplayRequests::Safe,
        },
        http: config::Http {
            hold: PATIENCE,
            page_after: PATIENCE,
        },
        limits: config::Limits {
            sessions: 100,
            sessions_per_ip: 100,
            handshakes_per_ip: 1000,
            header_timeout: PATIENCE,
            tls_timeout: PATIENCE,
            frame: 1,
            preauth_frame: 1,
            ping_every: None,
            origins: Vec::new(),
            drain: PATIENCE,
            handover: PATIENCE,
        },
        auth: config::parse("", "defaults").unwrap().config.auth,
        admin: config::Admin { listen: None },
        log: config::Log {
            level: "info".to_owned(),
            format: config::LogFormat::Pretty,
        },
    }
}

/// Starts an edge; `change` may change its config and make certificates in its directory.
pub(crate) fn start(change: impl FnOnce(&mut Config, &TempDir)) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path().join("dev"));
    change(&mut config, &dir);
    let listen = config.listen.clone();
    let drain = CancellationToken::new();
    let edge = Edge {
        tls: Arc::new(Tls::new(&config.tls).unwrap()),
        config: Arc::new(ArcSwap::from_pointee(config)),
        metrics: Arc::new(Metrics::default()),
        leave: drain.child_token(),
        drain,
        tasks: TaskTracker::new(),
    };
    let (go, waiting) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let notifies = (Arc::clone(&go), Arc::clone(&waiting));
    let doors = Doors::serving(&edge, move |peer| {
        let (go, waiting) = notifies.clone();
        tower::service_fn(move |request| {
            answer(
                request,
                Arc::clone(&peer),
                Arc::clone(&go),
                Arc::clone(&waiting),
            )
        })
    });
    doors.apply(
        doors
            .prepare(&listen, &[], &mut Inherited::default())
            .unwrap(),
    );
    Running {
        https: doors.https()[0],
        http: doors.http().first().copied(),
        _doors: doors,
        edge,
        dir,
        go,
        waiting,
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: Arc<Peer>,
    go: Arc<Notify>,
    waiting: Arc<Notify>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::CONNECT || path == "/upgrade" {
        return Ok(upgrade(request));
    }
    if path == "/read" {
        request.into_body().collect().await.unwrap();
    } else if path == "/wait" {
        waiting.notify_one();
        go.notified().await;
    }
    Ok(Response::new(Full::from(format!("{peer:?}"))))
}

/// Echoes; over HTTP/1.1 on the socket itself.
fn upgrade(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let h2 = request.method() == Method::CONNECT;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = upgraded.await.unwrap();
        if h2 {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        } else {
            let parts = upgraded.downcast::<TokioIo<ClientStream>>().unwrap();
            assert!(parts.read_buf.is_empty());
            let (mut read, mut write) = tokio::io::split(parts.io.into_inner());
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let mut response = Response::new(Full::default());
    if !h2 {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response
            .headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    response
}

pub(crate) fn client(
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Anybody::new())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A client that shows a certificate, whatever it is worth: even a key that is not its own.
pub(crate) fn client_with_certificate(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .unwrap();
    let mut config = client(alpn, versions);
    let certified = Arc::new(CertifiedKey::new(chain, key));
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    config
}

pub(crate) fn modern(alpn: &[&str]) -> ClientConfig {
    client(alpn, &[&rustls::version::TLS13])
}

pub(crate) async fn handshake(
    socket: TcpStream,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    patient(TlsConnector::from(Arc::new(config)).connect(name, socket)).await
}

pub(crate) fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

pub(crate) async fn patient<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("took too long")
}

pub(crate) type Http1 = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;
pub(crate) type Http2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

pub(crate) async fn http1(stream: TlsStream<TcpStream>) -> Http1 {
    let io = TokioIo::new(stream);
    let (send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    send
}

pub(crate) async fn http2(stream: TlsStream<TcpStream>) -> Http2 {
    let io = TokioIo::new(stream);
    let executor = TokioExecutor::new();
    let (send, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

pub(crate) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::builder()
        .uri(format!("https://localhost{path}"))
        .header("host", "localhost")
        .body(Empty::new())
        .unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = patient(response.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

// === impl Running ===

impl Running {
    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.https).await.unwrap()
    }

    pub(crate) async fn connect(&self, config: ClientConfig, name: &str) -> TlsStream<TcpStream> {
        handshake(self.tcp().await, config, name).await.unwrap()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.edge.metrics
    }

    /// Drains to the end.
    pub(crate) async fn stop(&self) {
        self.edge.drain.cancel();
        self.stopped().await;
    }

    /// Waits until every connection (and the listener) has ended.
    pub(crate) async fn stopped(&self) {
        self.edge.tasks.close();
        patient(self.edge.tasks.wait()).await;
    }
}
