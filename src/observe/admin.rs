//! The admin listener: health, readiness, numbers, status, and the commands of an operator.
//!
//! Plain HTTP for this machine. It shows and passes on; what a command means is decided by whoever
//! receives it. A browser that was lured here is turned away: by the `Host` header (DNS
//! rebinding), and for commands by where the request comes from (cross-site requests).

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Metrics, guard};
use crate::listen::Listener;
use crate::tls::Tls;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 64;
/// From a connection (or the last answer) to a complete request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);

/// What the rest of the program tells about itself.
pub trait StatusSource: Send + Sync {
    /// The status model of `holdline status`.
    fn status(&self) -> Value;

    /// Brings the numbers up to date that are not counted as they change; called for `/metrics`.
    fn measure(&self, _metrics: &Metrics) {}

    /// Appends numbers whose labels are known at run time only, in the same format.
    fn numbers(&self, _out: &mut String) {}

    /// Why clients cannot be served (yet, or any more); an absent gateway is no reason.
    ///
    /// # Errors
    /// The reason, in words.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    /// What is wrong though clients are served.
    fn concern(&self) -> Option<String> {
        None
    }
}

/// What an operator wants done.
#[derive(Debug)]
pub enum Command {
    /// Accept nothing more, end what can be ended, and exit.
    Drain,
    /// Take a new config; the answer says what has changed, or what is wrong.
    Reload(oneshot::Sender<Result<Value, Value>>),
    /// Renew the certificate with this name, or every one; the answer lists what is concerned, as
    /// the status does.
    RenewCertificates(Option<String>, oneshot::Sender<Result<Value, String>>),
    /// Let the binary that is there now take over; the answer says who serves, or why not.
    Upgrade(oneshot::Sender<Result<Value, Value>>),
}

/// The admin listener's sources and its way to give commands.
#[derive(Clone)]
pub struct Admin {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz` and the certificates' expiry.
    pub tls: Arc<Tls>,
    /// For `/status` and `/readyz`.
    pub status: Arc<dyn StatusSource>,
    /// Who carries commands out.
    pub commands: mpsc::Sender<Command>,
}

type Answer = Response<Full<Bytes>>;

// === impl Admin ===

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Serves until `stop`, which should come after draining: its status is of interest then.
    /// From `leave` on another process is asked: what is under way here is answered, and no more.
    pub fn serve(
        self,
        listener: Listener,
        leave: &CancellationToken,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let bound = listener.address();
        if !bound.ip().to_canonical().is_loopback() {
            tracing::warn!(address = %bound, "the admin listener can be reached from other machines: anyone there may read its status and drain holdline");
        }
        let (admin, tracker) = (Arc::new(self), tasks.clone());
        let (leave, stop) = (leave.clone(), stop.clone());
        tasks.spawn(async move {
            let accepting = admin.accept(listener, &leave, &stop, &tracker);
            tokio::select! {
                () = accepting => {}
                () = leave.cancelled() => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn accept(
        self: Arc<Self>,
        listener: Listener,
        leave: &CancellationToken,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let bound = listener.address().ip();
        let socket = listener.socket();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match socket.accept().await {
                Ok((connection, from)) => {
                    let admin = Arc::clone(&self);
                    let (leave, stop) = (leave.clone(), stop.clone());
                    tasks.spawn(async move {
                        let served = admin.connection(connection, from, bound, &leave);
                        stop.run_until_cancelled(served).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept an admin connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connection(
        &self,
        socket: TcpStream,
        from: SocketAddr,
        bound: IpAddr,
        leave: &CancellationToken,
    ) {
        let local = socket.local_addr().map_or(bound, |address| address.ip());
        let ours = [bound.to_canonical(), local.to_canonical()];
        let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
            let (head, _) = request.into_parts();
            Ok::<_, Infallible>(
                self.answer(&Request::from_parts(head, ()), ours, from)
                    .await,
            )
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service);
        let mut served = pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = leave.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %from, %error, "admin connection ended early");
        }
    }

    async fn answer(&self, request: &Request<()>, ours: [IpAddr; 2], from: SocketAddr) -> Answer {
        let path = request.uri().path();
        let command = match path {
            "/healthz" | "/readyz" | "/metrics" | "/status" => false,
            "/drain" | "/reload" | "/cert/renew" | "/upgrade" => true,
            _ => {
                return say(
                    StatusCode::NOT_FOUND,
                    "try /healthz, /readyz, /metrics or /status",
                );
            }
        };
        // These two say nothing that is worth protecting, and are asked under any name.
        let open = matches!(path, "/healthz" | "/readyz");
        if !open && !guard::host_is_ours(request, ours) {
            return say(
                StatusCode::FORBIDDEN,
                "the Host header is not ours: use localhost or the IP address",
            );
        }
        if command {
            return self.command(request, from).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed("GET, HEAD");
        }
        match path {
            "/healthz" => say(StatusCode::OK, "ok"),
            "/readyz" => self.ready(),
            "/metrics" => self.numbers(),
            _ => json(StatusCode::OK, &self.status.status()),
        }
    }

    fn ready(&self) -> Answer {
        if self.tls.store().is_empty() {
            return say(StatusCode::SERVICE_UNAVAILABLE, "no certificate yet");
        }
        match self.status.ready() {
            Ok(()) => match self.status.concern() {
                None => say(StatusCode::OK, "ready"),
                Some(concern) => say(StatusCode::OK, &format!("ready, but {concern}")),
            },
            Err(reason) => say(StatusCode::SERVICE_UNAVAILABLE, &reason),
        }
    }

    fn numbers(&self) -> Answer {
        let ends = self
            .tls
            .certificates()
            .into_iter()
            .map(|facts| facts.not_after)
            .min();
        if let Some(left) = ends.and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
            self.metrics
                .certificate_until
                .set(i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
        }
        self.status.measure(&self.metrics);
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let mut text = self.metrics.render();
        self.status.numbers(&mut text);
        reply(StatusCode::OK, kind, text)
    }

    async fn command(&self, request: &Request<()>, from: SocketAddr) -> Answer {
        if request.method() != Method::POST {
            return not_allowed("POST");
        }
        if !guard::same_site(request) {
            return say(
                StatusCode::FORBIDDEN,
                "commands are not taken from other web sites",
            );
        }
        let gone = || say(StatusCode::SERVICE_UNAVAILABLE, "holdline is stopping");
        if request.uri().path() == "/drain" {
            tracing::info!(peer = %from, "a drain is asked for on the admin listener");
            return match self.commands.send(Command::Drain).await {
                Ok(()) => json(StatusCode::ACCEPTED, &json!({ "draining": true })),
                Err(_) => gone(),
            };
        }
        if request.uri().path() == "/cert/renew" {
            return self.renew(request).await.unwrap_or_else(gone);
        }
        let (answer, answered) = oneshot::channel();
        let (command, done) = match request.uri().path() {
            "/upgrade" => (Command::Upgrade(answer), "upgraded"),
            _ => (Command::Reload(answer), "reloaded"),
        };
        if self.commands.send(command).await.is_err() {
            return gone();
        }
        match answered.await {
            Ok(Ok(outcome)) => json(StatusCode::OK, &json!({ done: outcome })),
            Ok(Err(refused)) => json(StatusCode::UNPROCESSABLE_ENTITY, &refused),
            Err(_) => gone(),
        }
    }

    /// `?name=NAME` for one of them. `None` while stopping.
    async fn renew(&self, request: &Request<()>) -> Option<Answer> {
        let query = request.uri().query().unwrap_or_default();
        let name = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("name="))
            .map(|name| name.replace("%2A", "*").replace("%3A", ":"));
        let (answer, answered) = oneshot::channel();
        let order = Command::RenewCertificates(name, answer);
        self.commands.send(order).await.ok()?;
        Some(match answered.await.ok()? {
            Ok(told) => json(StatusCode::ACCEPTED, &json!({ "renewing": told })),
            Err(error) => json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": error })),
        })
    }
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = say(StatusCode::METHOD_NOT_ALLOWED, &format!("use {allow}"));
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

fn say(status: StatusCode, text: &str) -> Answer {
    reply(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn json(status: StatusCode, value: &Value) -> Answer {
    reply(status, "application/json", format!("{value:#}\n"))
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
