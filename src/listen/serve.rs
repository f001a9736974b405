//! One client's HTTP connection: HTTP/1.1 or HTTP/2 as TLS agreed, driven until it ends, is
//! upgraded, or is told to drain.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use super::door::Edge;
use super::{ClientStream, Peer};
use crate::config::Limits;
use crate::observe::labels::HttpError;

/// An error of a response body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Largest request head, start line included; more is answered with 431.
const HEAD: usize = 32 * 1024;
/// Largest read buffer of an HTTP/1.1 connection; it grows to this only while a body flows.
const READ_BUFFER: usize = 64 * 1024;
/// Streams of one HTTP/2 connection at a time.
const STREAMS: u32 = 256;
/// What one HTTP/2 stream may send us ahead.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What all of a connection together may send us ahead. An upload that waits for the gateway keeps
/// its share until it is read, and with none left nothing flows on any other stream, sessions
/// included: so room for 16 of them, more than a browser or app has at a time.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;
/// What is kept for one HTTP/2 stream whose client reads slowly.
const SEND_BUFFER: usize = 256 * 1024;
/// How long an HTTP/2 client has to answer a ping: it may stand behind a lot of data.
const PONG: Duration = Duration::from_secs(30);
/// When draining, what a client that has not asked anything yet may still take to do so.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Drives one connection to its end. An upgraded HTTP/1.1 socket ends it at once.
pub(super) async fn connection<S, B>(stream: ClientStream, peer: &Peer, service: S, edge: &Edge)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let limits = edge.config.load().limits.clone();
    let asked = Asked::default();
    let leave = edge.leave.clone();
    let last = !peer.alpn_h2;
    // HTTP/1.1 has no other word for it; HTTP/2 has GOAWAY.
    let service = service.map_response(move |mut response: Response<B>| {
        if last && leave.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    });
    let service = Watched {
        inner: TowerToHyperService::new(service),
        asked: asked.clone(),
    };
    let io = TokioIo::new(stream);
    // Boxed: most of a connection's size, and only one of the two.
    let ended = if peer.alpn_h2 {
        let connection = http2(&limits).serve_connection(io, service);
        let shut = http2::Connection::graceful_shutdown;
        Box::pin(drive(connection, shut, &edge.leave, &asked, &limits, edge)).await
    } else {
        let connection = http1(limits.header_timeout).serve_connection(io, service);
        let shut = http1::UpgradeableConnection::graceful_shutdown;
        Box::pin(drive(
            connection.with_upgrades(),
            shut,
            &edge.drain,
            &asked,
            &limits,
            edge,
        ))
        .await
    };
    if let Err(error) = ended {
        note(peer.remote, &error, edge);
    }
}

/// Terms of HTTP/1.1, for TLS and plain listeners alike.
///
/// No half-close: a client that stops sending is gone, and whatever it waits for is given up.
pub(super) fn http1(header_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .half_close(false)
        .pipeline_flush(false)
        .preserve_header_case(false)
        .max_header_size(HEAD)
        .max_buf_size(READ_BUFFER);
    builder
}

/// Terms of HTTP/2. hyper's protections against rapid resets stay as they are.
fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD as u32)
        .keep_alive_interval(limits.ping_every)
        .keep_alive_timeout(PONG);
    builder
}

/// Runs `connection`, closing it when nothing was asked in time, and gently from `shut` on.
async fn drive<C>(
    connection: C,
    graceful_shutdown: fn(Pin<&mut C>),
    shut: &CancellationToken,
    asked: &Asked,
    limits: &Limits,
    edge: &Edge,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    // HTTP/1.1 has its own limit for every head; HTTP/2 has none for its preface.
    let first_request = Instant::now() + limits.header_timeout;
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shut.cancelled() => {}
        () = not_asked_by(first_request, asked) => {
            edge.metrics.http_errors.inc(HttpError::Timeout);
            return Ok(());
        }
    }
    graceful_shutdown(connection.as_mut());
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = edge.drain.cancelled() => {}
        () = not_asked_by(first_request, asked) => return Ok(()),
    }
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = not_asked_by(Instant::now() + LAST_CALL, asked) => Ok(()),
    }
}

/// Returns at `deadline` if nothing was asked by then, else never.
async fn not_asked_by(deadline: Instant, asked: &Asked) {
    sleep_until(deadline).await;
    if asked.get() {
        std::future::pending::<()>().await;
    }
}

/// Counts and logs how a connection went wrong; hyper has answered its client already.
pub(super) fn note(remote: SocketAddr, error: &hyper::Error, edge: &Edge) {
    let kind = kind_of(error);
    edge.metrics.http_errors.inc(kind);
    tracing::debug!(peer = %remote, ?kind, %error, "HTTP connection ended early");
}

fn kind_of(error: &hyper::Error) -> HttpError {
    let of_transport = error
        .source()
        .is_some_and(|source| source.is::<io::Error>());
    if error.is_parse_too_large() {
        HttpError::TooLarge
    } else if error.is_parse() {
        HttpError::Malformed
    } else if error.is_timeout() {
        HttpError::Timeout
    } else if error.is_incomplete_message() || error.is_shutdown() || of_transport {
        HttpError::Aborted
    } else {
        HttpError::Other
    }
}

/// Whether a connection has asked for anything yet.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<AtomicBool>);

impl Asked {
    fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A service that notes that it was asked.
#[derive(Debug)]
struct Watched<S> {
    inner: S,
    asked: Asked,
}

impl<S: hyper::service::Service<R>, R> hyper::service::Service<R> for Watched<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: R) -> S::Future {
        self.asked.0.store(true, Relaxed);
        self.inner.call(request)
    }
}
