//! Where a client dials to, and how: plain or TLS, from which address, with which first bytes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::anybody::Anybody;

/// As many open files as this process may have: a few hundred sessions are four times as many
/// sockets, and 1024 is what most shells allow.
pub fn raise_the_limit_of_open_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // What is allowed already may be enough.
        let _ = setrlimit(Resource::Nofile, limit);
    });
}

/// An address of this machine that no other test has: a port of it that was closed stays so.
pub fn own_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < u8::MAX, "no address is left");
    // All of 127.0.0.0/8 is ours; 127.0.x.x is what other tests write down.
    IpAddr::from([127, high | 1, low, number])
}

/// A port that is free at every address of this machine, and that nobody gets by chance: the kernel
/// gives out those from 32768 on, at each address for itself.
pub fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 8000).unwrap_or_default();
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_000, "no port is left");
        if std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// Any byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any byte stream, boxed.
pub type Io = Box<dyn Stream>;

/// Where and how to dial.
#[derive(Debug, Clone)]
pub struct Target {
    pub addr: SocketAddr,
    /// What `Host` and SNI say.
    pub host: String,
    tls: bool,
    alpn: Vec<Vec<u8>>,
    from: Option<IpAddr>,
    preface: Vec<u8>,
    resets_on_drop: bool,
    receive_buffer: Option<u32>,
    certificate: Option<Arc<Certificate>>,
}

/// A client's certificate and its key.
pub type Certificate = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Target {
    /// Straight TCP, as to a gateway.
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            host: addr.to_string(),
            tls: false,
            alpn: Vec::new(),
            from: None,
            preface: Vec::new(),
            resets_on_drop: false,
            receive_buffer: None,
            certificate: None,
        }
    }

    /// TLS, trusting any certificate.
    pub fn tls(addr: SocketAddr) -> Self {
        let host = format!("localhost:{}", addr.port());
        Self {
            tls: true,
            host,
            ..Self::plain(addr)
        }
    }

    /// With this `Host` and SNI.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// From this address: all of 127.0.0.0/8 is ours.
    #[must_use]
    pub fn from(mut self, ip: &str) -> Self {
        self.from = Some(ip.parse().expect("an address"));
        self
    }

    /// Offering these protocols.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        self
    }

    /// With these bytes before everything else, TLS included: a PROXY header.
    #[must_use]
    pub fn preface(mut self, bytes: &[u8]) -> Self {
        self.preface = bytes.to_vec();
        self
    }

    /// Dropping the connection resets it.
    #[must_use]
    pub fn resets_on_drop(mut self) -> Self {
        self.resets_on_drop = true;
        self
    }

    /// With a small receive buffer, so that back-pressure is felt soon.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Showing this certificate.
    #[must_use]
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(Arc::new(certificate));
        self
    }

    /// `wss://host/path` or `ws://host/path`.
    pub fn ws_url(&self, path: &str) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://{}{path}", self.host)
    }

    pub async fn dial(&self) -> io::Result<Io> {
        let tcp = self.dial_tcp().await?;
        if !self.tls {
            return Ok(Box::new(tcp));
        }
        let name = self
            .host
            .rsplit_once(':')
            .map_or(self.host.as_str(), |(name, _)| name);
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.tls_config());
        Ok(Box::new(connector.connect(name, tcp).await?))
    }

    /// The TCP connection alone.
    pub async fn dial_tcp(&self) -> io::Result<TcpStream> {
        let socket = if self.addr.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(ip) = self.from {
            socket.bind(SocketAddr::new(ip, 0))?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut tcp = socket.connect(self.addr).await?;
        tcp.set_nodelay(true)?;
        if self.resets_on_drop {
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO))?;
        }
        tcp.write_all(&self.preface).await?;
        Ok(tcp)
    }

    fn tls_config(&self) -> Arc<ClientConfig> {
        static PLAIN: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        let shared = PLAIN.get_or_init(|| Arc::new(trusting_anybody().with_no_client_auth()));
        if self.alpn.is_empty() && self.certificate.is_none() {
            return Arc::clone(shared);
        }
        let mut config = match self.certificate.as_deref() {
            Some((chain, key)) => trusting_anybody()
                .with_client_auth_cert(vec![chain.clone()], key.clone_key())
                .unwrap(),
            None => ClientConfig::clone(shared),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }
}

fn trusting_anybody() -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Anybody::new())
}
