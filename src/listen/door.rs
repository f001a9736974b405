//! From an accepted socket to a client whose TLS handshake is done: PROXY header, admission,
//! first byte, handshake, all within one time limit.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use rustls::HandshakeKind;
use rustls::server::Acceptor;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::admission::{Admission, Open, Quota, most_open};
use super::serve::{self, BoxError};
use super::{ClientStream, Doors, Listener, Peer, accept, plain, proxy, redirect};
use crate::auth::CertificateNames;
use crate::config::Config;
use crate::observe::Metrics;
use crate::observe::labels::{Handshake, Refusal, TlsFailure};
use crate::tls::{Authorities, Terms, Tls};

/// Decrypted or encrypted bytes that rustls keeps for a client that reads slowly.
const TLS_BUFFER: usize = 64 * 1024;
/// A TLS record that starts a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// Silence of a connection after which TCP asks whether the other side is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged before a connection is given up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// What all listeners share.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Looked at once per connection, so that a reload holds from the next one on.
    pub config: Arc<ArcSwap<Config>>,
    /// Certificates and terms.
    pub tls: Arc<Tls>,
    /// Counted into.
    pub metrics: Arc<Metrics>,
    /// Cancelled: another process accepts from here on. What is running goes on, and no connection
    /// is used for anything further. A child of `drain`.
    pub leave: CancellationToken,
    /// Cancelled: accept nothing more, finish what is running, close what is idle.
    pub drain: CancellationToken,
    /// Every task of the edge: the accept loops and one per connection, until it is upgraded.
    pub tasks: TaskTracker,
}

/// Why a connection got no further than the door.
#[derive(Debug, thiserror::Error)]
enum Turned {
    #[error("over the limits for new connections")]
    Refused,
    #[error("PROXY header: {0}")]
    Proxy(io::Error),
    #[error("TLS ({0:?}): {1}")]
    Tls(TlsFailure, io::Error),
    #[error("a CA has seen its challenge")]
    Challenge,
}

// === impl Doors ===

impl Doors {
    /// Doors that will serve until `edge.leave` is cancelled, or until they are closed; none is
    /// open yet.
    ///
    /// `make_service` is asked once per connection. Wait for `edge.tasks` (closed) to know that
    /// every connection has ended; upgraded ones are their own task's concern.
    pub fn serving<M, S, B>(edge: &Edge, make_service: M) -> Self
    where
        M: Fn(Arc<Peer>) -> S + Clone + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let admission = Admission::new(Arc::clone(&edge.metrics), most_open());
        let desk = Arc::new(Desk {
            edge: edge.clone(),
            admission,
            https_port: Arc::default(),
        });
        let (tls, plain, https_port) = (Arc::clone(&desk), Arc::clone(&desk), &desk.https_port);
        let https_port = Arc::clone(https_port);
        let tls = move |listener: Listener, closed| {
            let make_service = make_service.clone();
            tls.listen(listener, closed, move |desk, socket, from, open| {
                let make_service = make_service.clone();
                async move {
                    let Some((stream, peer)) = desk.enter(socket, from, open).await else {
                        return;
                    };
                    let peer = Arc::new(peer);
                    let service = make_service(Arc::clone(&peer));
                    serve::connection(stream, &peer, service, &desk.edge).await;
                }
            });
        };
        let plain = move |listener: Listener, closed| {
            plain.listen(
                listener,
                closed,
                move |desk, socket, from, open| async move {
                    let Some((socket, remote, _open)) = desk.enter_plain(socket, from, open).await
                    else {
                        return;
                    };
                    let port =
                        Some(desk.https_port.load(Ordering::Relaxed)).filter(|port| *port > 0);
                    redirect::connection(socket, remote, port, &desk.edge).await;
                },
            );
        };
        Self::new(Box::new(tls), Box::new(plain), https_port)
    }
}

/// The desk behind the door: decides who comes in.
#[derive(Debug)]
struct Desk {
    edge: Edge,
    admission: Arc<Admission>,
    /// Where plain requests are sent; 0: nowhere.
    https_port: Arc<AtomicU16>,
}

// === impl Desk ===

impl Desk {
    /// Accepts in a task of its own, and runs `each` in a task per admitted connection.
    fn listen<F>(
        self: &Arc<Self>,
        listener: Listener,
        closed: CancellationToken,
        each: impl Fn(Arc<Self>, TcpStream, SocketAddr, Open) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (desk, socket) = (Arc::clone(self), listener.socket);
        self.edge.tasks.spawn(async move {
            let Edge {
                leave,
                metrics,
                tasks,
                ..
            } = &desk.edge;
            let take = |socket: TcpStream, from: SocketAddr| match desk.admit(from.ip()) {
                Ok(open) => {
                    prepare(&socket);
                    tasks.spawn(each(Arc::clone(&desk), socket, from, open));
                }
                Err(reason) => tracing::debug!(peer = %from, ?reason, "refused a connection"),
            };
            let accepting = accept::run(&**socket, leave, &desk.admission, metrics, &take);
            if closed.run_until_cancelled(accepting).await.is_none() {
                accept::rest(&socket, metrics, take);
            }
        });
    }

    /// Trusted proxies are not limited themselves: they bring everybody's connections.
    fn admit(&self, client: IpAddr) -> Result<Open, Refusal> {
        let config = self.edge.config.load();
        if trusts(&config, client) {
            return self.admission.admit_trusted(Instant::now());
        }
        let quota = Quota {
            rate: config.limits.handshakes_per_ip,
            // Sessions, as many that are dead but not yet found so, and page loads.
            open: config.limits.sessions_per_ip.saturating_mul(2).max(64),
        };
        self.admission.admit(client, quota, Instant::now())
    }

    /// Everything before HTTP on a TLS listener. Failures are counted and logged here.
    async fn enter(
        &self,
        socket: TcpStream,
        from: SocketAddr,
        open: Open,
    ) -> Option<(ClientStream, Peer)> {
        // Boxed: these futures are large, and gone before the connection's long life begins.
        match Box::pin(self.try_enter(socket, from, open)).await {
            Ok(entered) => Some(entered),
            Err(turned) => self.turn_away(from, &turned),
        }
    }

    /// Everything before HTTP on a plain listener.
    async fn enter_plain(
        &self,
        mut socket: TcpStream,
        from: SocketAddr,
        open: Open,
    ) -> Option<(TcpStream, SocketAddr, Open)> {
        let config = self.edge.config.load_full();
        let deadline = Instant::now() + config.limits.tls_timeout;
        match self
            .find_client(&config, &mut socket, from, open, deadline)
            .await
        {
            Ok((remote, _, open)) => Some((socket, remote, open)),
            Err(turned) => self.turn_away(from, &turned),
        }
    }

    fn turn_away<T>(&self, from: SocketAddr, turned: &Turned) -> Option<T> {
        match turned {
            // Counted where it was refused.
            Turned::Refused => {}
            // No failure, and nothing that a client did.
            Turned::Challenge => {}
            Turned::Proxy(_) => self
                .edge
                .metrics
                .connections_refused
                .inc(Refusal::ProxyHeader),
            Turned::Tls(failure, _) => self.edge.metrics.tls_failures.inc(*failure),
        }
        tracing::debug!(peer = %from, reason = %turned, "turned a connection away");
        None
    }

    async fn try_enter(
        &self,
        mut socket: TcpStream,
        from: SocketAddr,
        open: Open,
    ) -> Result<(ClientStream, Peer), Turned> {
        let started = Instant::now();
        let config = self.edge.config.load_full();
        let deadline = started + config.limits.tls_timeout;
        let (remote, via_trusted_proxy, open) = self
            .find_client(&config, &mut socket, from, open, deadline)
            .await?;
        let local = socket
            .local_addr()
            .map_err(|error| closed(error, TlsFailure::Closed))?;
        let socket = expect_tls(socket, deadline).await?;
        let (tls, client_cas) = timeout_at(deadline, self.shake_hands(socket))
            .await
            .map_err(|_| timed_out())??;
        let (_, session) = tls.get_ref();
        let kind = match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Full,
        };
        self.edge.metrics.tls_handshakes.inc(kind);
        self.edge.metrics.tls_seconds.observe(started.elapsed());
        let peer = Peer {
            remote,
            local,
            via_trusted_proxy,
            server_name: session.server_name().map(str::to_ascii_lowercase),
            alpn_h2: session.alpn_protocol() == Some(b"h2"),
            client_certificate: session
                .peer_certificates()
                .and_then(|chain| CertificateNames::shown(chain, &client_cas))
                .map(Arc::new),
        };
        Ok((ClientStream::new(tls, open), peer))
    }

    /// With the CAs that the client's certificate was held to: those of the terms that were in
    /// force then, which need not be those of the config.
    async fn shake_hands(
        &self,
        socket: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Authorities), Turned> {
        let rejected = |error| closed(error, TlsFailure::Rejected);
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
        let hello = hello.await.map_err(rejected)?;
        match self.edge.tls.terms(&hello.client_hello()) {
            Some(Terms::Client(terms, client_cas)) => {
                let tls = hello
                    .into_stream_with(terms, |tls| tls.set_buffer_limit(Some(TLS_BUFFER)))
                    .await
                    .map_err(rejected)?;
                Ok((tls, client_cas))
            }
            Some(Terms::Challenge) => {
                let name = hello.client_hello().server_name().map(str::to_owned);
                let terms = self.edge.tls.challenge_terms(name.as_deref()).await;
                let mut tls = hello.into_stream(terms).await.map_err(rejected)?;
                let _ = tls.shutdown().await;
                Err(Turned::Challenge)
            }
            None => Err(rejected(io::ErrorKind::InvalidData.into())),
        }
    }

    /// The client's address, whether it may tell a further one, and its place in the count.
    async fn find_client(
        &self,
        config: &Config,
        socket: &mut TcpStream,
        from: SocketAddr,
        open: Open,
        deadline: Instant,
    ) -> Result<(SocketAddr, bool, Open), Turned> {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let trusted = trusts(config, from.ip());
        if !(trusted && config.listen.proxy_protocol) {
            return Ok((from, trusted, open));
        }
        let header = timeout_at(deadline, read_proxy_header(socket))
            .await
            .map_err(|_| Turned::Proxy(io::ErrorKind::TimedOut.into()))?
            .map_err(Turned::Proxy)?;
        let Some(source) = header.source else {
            // The proxy itself, or a client it cannot name. Nobody knows who that is, and above
            // all it is not somebody on this machine, even where the proxy is.
            let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), from.port());
            return Ok((unknown, false, open));
        };
        drop(open);
        let open = self.admit(source.ip()).map_err(|_| Turned::Refused)?;
        Ok((source, trusts(config, source.ip()), open))
    }
}

fn trusts(config: &Config, address: IpAddr) -> bool {
    let address = address.to_canonical();
    config
        .listen
        .trusted_proxies
        .iter()
        .any(|net| net.contains(&address))
}

/// Reads exactly the header: what follows it belongs to TLS.
async fn read_proxy_header(socket: &mut TcpStream) -> io::Result<proxy::Header> {
    let mut seen = Vec::with_capacity(128);
    let mut window = vec![0; proxy::MOST];
    loop {
        let waiting = socket.peek(&mut window).await?;
        if waiting == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = seen.len();
        seen.extend(window.iter().take(waiting));
        let header = proxy::parse(&seen)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // Incomplete: all that waits is part of it. So every round consumes something.
        let take = header.map_or(waiting, |header| header.length - known);
        let consumed = window.get_mut(..take).ok_or(io::ErrorKind::InvalidData)?;
        socket.read_exact(consumed).await?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

/// Looks at the first byte: whoever speaks plain HTTP here is told so in words.
async fn expect_tls(socket: TcpStream, deadline: Instant) -> Result<TcpStream, Turned> {
    let mut first = [0];
    let seen = timeout_at(deadline, socket.peek(&mut first))
        .await
        .map_err(|_| timed_out())?;
    match (
        seen.map_err(|error| closed(error, TlsFailure::Closed))?,
        first,
    ) {
        (0, _) => Err(Turned::Tls(
            TlsFailure::Closed,
            io::ErrorKind::UnexpectedEof.into(),
        )),
        (_, [HANDSHAKE_RECORD]) => Ok(socket),
        (_, [byte]) if byte.is_ascii_alphabetic() => {
            let _ = timeout_at(deadline, plain::answer(socket)).await;
            Err(Turned::Tls(
                TlsFailure::PlainHttp,
                io::ErrorKind::InvalidData.into(),
            ))
        }
        _ => Err(Turned::Tls(
            TlsFailure::NotTls,
            io::ErrorKind::InvalidData.into(),
        )),
    }
}

fn timed_out() -> Turned {
    Turned::Tls(TlsFailure::Timeout, io::ErrorKind::TimedOut.into())
}

/// Tells a client that went away from one that failed `otherwise`.
fn closed(error: io::Error, otherwise: TlsFailure) -> Turned {
    let failure = match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => TlsFailure::Closed,
        _ => otherwise,
    };
    Turned::Tls(failure, error)
}

/// Small frames at once, and dead peers found. A socket that refuses an option works without.
fn prepare(socket: &TcpStream) {
    let options = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    let set = options
        .set_tcp_nodelay(true)
        .and_then(|()| options.set_tcp_keepalive(&keepalive));
    #[cfg(target_os = "linux")]
    let set = set.and_then(|()| options.set_tcp_user_timeout(Some(UNACKNOWLEDGED)));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot set the options of a connection");
    }
}
