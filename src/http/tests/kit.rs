//! A proxy on a port, an upstream that does what a test says, and a client that speaks bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::auth::Desk;
use crate::config::*;
use crate::gateway::Gateway;
use crate::http::forward::Forwarder;
use crate::http::hold::Waits;
use crate::http::{App, Call, Doorway, Gate, Table, Upgraded, Upgrades};
use crate::listen::Peer;
use crate::observe::Metrics;
use crate::protocol::rescue::Cause;

/// Longer than anything here takes, even on a loaded machine.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A proxy in front of one upstream.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) gateway: Arc<Gateway>,
    pub(super) stop: CancellationToken,
    _accepting: tokio_util::task::AbortOnDropHandle<()>,
}

/// What a test changes.
pub(super) struct Setup {
    pub(super) upstream: Upstream,
    pub(super) http: Http,
    pub(super) trusted: Vec<ipnet::IpNet>,
    /// As whom clients come; `None`: as themselves, from loopback.
    pub(super) remote: Option<SocketAddr>,
    /// At which address of ours they arrive.
    pub(super) local: Option<SocketAddr>,
    pub(super) places: usize,
}

impl Setup {
    pub(super) fn to(upstream: SocketAddr) -> Self {
        Self {
            upstream: Upstream {
                host: upstream.ip().to_string(),
                port: upstream.port(),
                protocol: ProtocolKind::Generic,
                probe: Probe::Tcp,
                probe_interval: Duration::from_millis(50),
                probe_interval_ready: Duration::from_secs(60),
                connect_timeout: Duration::from_secs(2),
                loopback_clients: LoopbackClients::Local,
                resume: Resume::Auto,
            },
            http: Http {
                hold: LONG,
                page_after: Duration::from_millis(300),
            },
            trusted: Vec::new(),
            remote: None,
            local: None,
            places: 64,
        }
    }

    pub(super) async fn start(self) -> Proxy {
        let config = Arc::new(self.config());
        let auth = config.auth.clone();
        let metrics = Arc::new(Metrics::default());
        let gateway = Gateway::start(self.upstream.clone(), &config.hold, &metrics);
        let forwarder = Forwarder::new(Arc::clone(&gateway));
        let table = Table::new(config, vec![forwarder.clone()], Box::new(NoUpgrades));
        let stop = CancellationToken::new();
        let mut app = App::new(
            Arc::new(ArcSwap::from_pointee(table)),
            Arc::new(Gate::new(Desk::open(&auth).unwrap())),
            metrics,
            stop.clone(),
        );
        app.waits = Waits::with_places(self.places, stop.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let trusted = !self.trusted.is_empty();
        let trust = Trust {
            remote: self.remote,
            local: self.local,
            trusted,
        };
        let accepting = tokio::spawn(accept(listener, Arc::new(app), trust));
        let accepting = tokio_util::task::AbortOnDropHandle::new(accepting);
        Proxy {
            address,
            gateway,
            stop,
            _accepting: accepting,
        }
    }

    /// Starts, and waits until the gateway is known to be there.
    pub(super) async fn start_ready(self) -> Proxy {
        let proxy = self.start().await;
        let ready = proxy.gateway.wait_for(|view| view.phase.answers_http());
        timeout(LONG, ready).await.unwrap();
        proxy
    }
}

struct NoUpgrades;

impl Upgrades for NoUpgrades {
    fn handle(&self, call: Call, _: http::Request<hyper::body::Incoming>) -> Upgraded<'_> {
        // Shows that the request came as far as this.
        Box::pin(async move { Err(Cause::BadUpgrade(format!("seam {}", call.host.name).into())) })
    }
}

/// As the listeners do it, less TLS.
async fn accept(listener: TcpListener, app: Arc<App>, setup: Trust) {
    loop {
        let (stream, from) = listener.accept().await.unwrap();
        let peer = Peer {
            remote: setup.remote.unwrap_or(from),
            local: setup.local.unwrap_or_else(|| stream.local_addr().unwrap()),
            via_trusted_proxy: setup.trusted,
            server_name: None,
            alpn_h2: false,
            client_certificate: None,
        };
        let service = TowerToHyperService::new(Doorway::new(Arc::clone(&app), Arc::new(peer)));
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .max_buf_size(64 << 10);
            builder
                .http2()
                .timer(TokioTimer::new())
                .enable_connect_protocol();
            let _ = builder
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// As whom clients come, whatever they are.
struct Trust {
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
    trusted: bool,
}

/// An upstream. Connections that say nothing (probes) are not worth mentioning.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    /// The heads of all requests so far.
    pub(super) heads: Arc<Mutex<Vec<String>>>,
    accepting: tokio::task::JoinHandle<()>,
    scripts: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>,
    /// Keeps the port ours when it is not listened on any more.
    _reserved: TcpSocket,
}

impl Scripted {
    /// `script` gets each connection with its first request's head read.
    pub(super) async fn start<F>(script: impl Fn(Wire, String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_on("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub(super) async fn start_on<F>(
        address: SocketAddr,
        script: impl Fn(Wire, String) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (reserved, socket) = (shareable(), shareable());
        reserved.bind(address).unwrap();
        let address = reserved.local_addr().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (Arc::clone(&heads), Arc::new(script));
        let scripts = Arc::new(Mutex::new(Vec::new()));
        let running = Arc::clone(&scripts);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                let played = tokio::spawn(async move {
                    let mut wire = Wire::new(stream, Some(seen));
                    if let Some(head) = wire.head().await {
                        script(wire, head).await;
                    }
                });
                running.lock().unwrap().push(played);
            }
        });
        Self {
            address,
            heads,
            accepting,
            scripts,
            _reserved: reserved,
        }
    }

    /// Answers every request of every connection with this.
    pub(super) async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut wire, _| async move {
            wire.say(answer).await;
            while wire.head().await.is_some() {
                wire.say(answer).await;
            }
        })
        .await
    }

    pub(super) fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    pub(super) fn head(&self, index: usize) -> String {
        self.heads.lock().unwrap()[index].clone()
    }

    /// Every script has been played to its end without a failed assertion.
    pub(super) async fn played(&self) {
        self.stop_listening();
        let scripts = std::mem::take(&mut *self.scripts.lock().unwrap());
        for script in scripts {
            timeout(LONG, script)
                .await
                .expect("a script hangs")
                .expect("a script failed");
        }
    }

    /// No new connections; those there are go on.
    pub(super) fn stop_listening(&self) {
        self.accepting.abort();
    }
}

/// A port on which nothing listens before we do: nobody else gets it while this lives.
pub(super) struct Reserved {
    pub(super) address: SocketAddr,
    _socket: TcpSocket,
}

impl Reserved {
    pub(super) fn new() -> Self {
        let socket = shareable();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _socket: socket,
        }
    }
}

/// A socket whose port others of ours may share, as long as only one of them listens.
fn shareable() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
}

/// A connection, read and written as text.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    pub(super) unread: Vec<u8>,
    seen: Option<Arc<Mutex<Vec<String>>>>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, seen: Option<Arc<Mutex<Vec<String>>>>) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
            seen,
        }
    }

    pub(super) async fn to(proxy: &Proxy) -> Self {
        Self::new(TcpStream::connect(proxy.address).await.unwrap(), None)
    }

    pub(super) async fn say(&mut self, text: &str) {
        // The other side may be gone: what it says then is what the test looks at.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Everything up to and including `end`; `None` at the end of the connection.
    pub(super) async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let end_bytes = end.as_bytes();
            if let Some(at) = self
                .unread
                .windows(end_bytes.len())
                .position(|window| window == end_bytes)
            {
                let text: Vec<u8> = self.unread.drain(..at + end_bytes.len()).collect();
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            let read = self.stream.read_buf(&mut self.unread);
            if timeout(LONG, read)
                .await
                .expect("nothing came")
                .unwrap_or_default()
                == 0
            {
                return None;
            }
        }
    }

    pub(super) async fn head(&mut self) -> Option<String> {
        let head = self.until("\r\n\r\n").await?;
        if let Some(seen) = &self.seen {
            seen.lock().unwrap().push(head.clone());
        }
        Some(head)
    }

    /// Whatever else comes until the connection ends; whether it ended cleanly.
    pub(super) async fn rest(&mut self) -> (String, bool) {
        let mut all = std::mem::take(&mut self.unread);
        let ended = timeout(LONG, self.stream.read_to_end(&mut all))
            .await
            .expect("no end");
        (String::from_utf8_lossy(&all).into_owned(), ended.is_ok())
    }

    /// A request on this connection, and the whole answer by its `Content-Length`.
    pub(super) async fn ask(&mut self, request: &str) -> (String, String) {
        self.say(request).await;
        self.answer().await
    }

    pub(super) async fn answer(&mut self) -> (String, String) {
        let head = self.head().await.expect("an answer");
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            let read = self.stream.read_buf(&mut self.unread);
            assert!(timeout(LONG, read).await.unwrap().unwrap() > 0, "torn body");
        }
        let body = self.unread.drain(..length).collect();
        (head, String::from_utf8(body).unwrap())
    }

    /// Whether nothing arrives for a while.
    pub(super) async fn silent_for(&self, while_: Duration) -> bool {
        let mut buffer = [0; 1];
        self.unread.is_empty()
            && timeout(while_, self.stream.peek(&mut buffer))
                .await
                .is_err()
    }
}

/// A header's value in a head as text.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub(super) fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_default()
}

/// `GET /` on a new connection.
pub(super) const GET: &str = "GET /x?token=1 HTTP/1.1\r\nHost: claw.example\r\n\r\n";
/// An answer that is complete.
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
